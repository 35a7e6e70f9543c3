// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"fmt"
	"slices"
)

// Some lists of tables are merged table by table, so that a group or a node can
// change one entry without repeating the others: an entry of a later file takes
// the place of the one with the same id, one with remove = true takes it away,
// and a new one goes to the end.

// entry is one table of such a list.
type entry interface {
	id() string    // what tells it apart, e.g. its path
	removed() bool // whether it is there only to take one away
}

// listed is a part that has such lists.
type listed interface{ lists() []keyedList }

// keyedList is one such list of a part.
type keyedList interface {
	// begin empties the list before a file is decoded into it; finish is called when
	// that has been checked: it merges what the file has with what was there, and
	// gives the ids that the file set with their lines.
	begin() (finish func(*Doc) (set map[string]int, errs []error))
	key() string
	ids() []string
}

// entries is a keyedList.
type entries[E entry] struct {
	name string // its key in the file
	list *[]E
}

func (l entries[E]) key() string { return l.name }

func (l entries[E]) ids() (out []string) {
	for _, e := range *l.list {
		out = append(out, e.id())
	}
	return out
}

func (l entries[E]) begin() func(*Doc) (map[string]int, []error) {
	before := *l.list
	*l.list = nil
	return func(d *Doc) (map[string]int, []error) {
		var errs []error
		set := map[string]int{}
		out := slices.Clone(before)
		for i, e := range *l.list {
			id := e.id()
			if _, twice := set[id]; twice {
				errs = append(errs, d.Errorf(fmt.Sprintf("%s[%d]", l.name, i), "%s is there twice", id))
			}
			set[id] = d.Line(fmt.Sprintf("%s[%d]", l.name, i))
			at := slices.IndexFunc(out, func(o E) bool { return o.id() == id })
			switch {
			case e.removed() && at >= 0:
				out = slices.Delete(out, at, at+1)
			case e.removed():
			case at >= 0:
				out[at] = e
			default:
				out = append(out, e)
			}
		}
		*l.list = out
		return set, errs
	}
}

// entryKey names an entry in messages and origins.
func entryKey(list, id string) string { return list + "[" + id + "]" }

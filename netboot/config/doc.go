// SPDX-License-Identifier: GPL-2.0-or-later

// Package config reads config.d, the directory of small TOML files through
// which the admin configures nodes: one Go file here for each *.conf, and the
// merge of site, group and node. It decodes strictly and says for every value
// where it comes from. It knows nothing of what the values are used for.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Error is something wrong with a configuration file: which file, which line
// (0 if unknown), which key ("" if none), and what is wrong with it.
type Error struct {
	File string
	Line int
	Key  string
	Text string
	Help string
}

// Error returns "file:line: key: text".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.Text)
	return b.String()
}

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Help }

// Doc is a decoded TOML file that remembers where its keys stand.
type Doc struct {
	Name  string         // the file's name, for messages
	lines map[string]int // key, dotted, to line number
	keys  []string       // keys that are set, dotted, without the tables they stand in
}

// Decode decodes data into v, a pointer to a struct. An unknown key and a value
// of a wrong type are errors; all unknown keys are reported, joined.
func Decode(name string, data []byte, v any) (*Doc, error) {
	d := &Doc{Name: name, lines: keyLines(data)}
	emptyLists(data, v)
	md, err := toml.Decode(string(data), v)
	if err != nil {
		return nil, d.decodeError(err)
	}
	var errs []error
	known := slices.Sorted(slices.Values(structKeys(v)))
	for _, k := range md.Undecoded() {
		e := d.Errorf(k.String(), "unknown key")
		e.Help = suggestion(k.String(), known)
		errs = append(errs, e)
	}
	tables := listsOfTables(md)
	for _, k := range md.Keys() {
		if t := md.Type(k...); t != "Hash" && !(len(k) > 1 && tables[k[0]]) && !slices.Contains(d.keys, k.String()) {
			d.keys = append(d.keys, k.String())
		}
	}
	return d, errors.Join(errs...)
}

// listsOfTables names the keys whose value is a list of tables: such a list is one value.
func listsOfTables(md toml.MetaData) map[string]bool {
	out := map[string]bool{}
	for _, k := range md.Keys() {
		if len(k) == 1 && md.Type(k...) == "ArrayHash" {
			out[k[0]] = true
		}
	}
	return out
}

// emptyLists empties the lists of tables that the text sets: the decoder would
// fill the tables that are there, and a list replaces another as a whole.
func emptyLists(data []byte, v any) {
	var tree map[string]any
	md, err := toml.Decode(string(data), &tree)
	if err != nil {
		return // the caller finds out by itself
	}
	lists := listsOfTables(md)
	rv := reflect.ValueOf(v).Elem()
	if rv.Kind() != reflect.Struct {
		return
	}
	for i := range rv.NumField() {
		if name := rv.Type().Field(i).Tag.Get("toml"); lists[name] && rv.Field(i).Kind() == reflect.Slice {
			rv.Field(i).SetZero()
		}
	}
}

// Errorf makes an error about a key of the document.
func (d *Doc) Errorf(key, format string, args ...any) *Error {
	return &Error{File: d.Name, Line: d.lines[key], Key: key, Text: fmt.Sprintf(format, args...)}
}

// at makes an error about a key of an entry of a list of tables.
func (d *Doc) at(list string, i int, key, format string, args ...any) *Error {
	e := d.Errorf(fmt.Sprintf("%s[%d].%s", list, i, key), format, args...)
	if e.Line == 0 {
		e.Line = d.lines[fmt.Sprintf("%s[%d]", list, i)]
	}
	e.Key = list + "." + key
	return e
}

// Line is where the key stands, 0 if it does not.
func (d *Doc) Line(key string) int { return d.lines[key] }

// Keys are the dotted keys that the document sets, in its order.
func (d *Doc) Keys() []string { return d.keys }

func (d *Doc) decodeError(err error) error {
	e := &Error{File: d.Name, Text: err.Error()}
	var pe toml.ParseError
	if errors.As(err, &pe) {
		e.Line, e.Text, e.Key = pe.Position.Line, pe.Message, pe.LastKey
		return e
	}
	// Type mismatches come as "toml: incompatible types: …" with the key in quotes.
	e.Text = strings.TrimPrefix(e.Text, "toml: ")
	for key, line := range d.lines {
		if strings.Contains(e.Text, strconv.Quote(key)) {
			e.Line, e.Key = line, key
		}
	}
	return e
}

// keyLines maps each dotted key of a TOML text to its line. The decoder checks
// the grammar; this only has to find keys in what is valid, and a key it misses
// costs a line number in a message.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	count := map[string]int{} // tables of a list so far
	table, closing := "", ""
	note := func(key string, line int) {
		if _, seen := lines[key]; !seen {
			lines[key] = line
		}
	}
	for i, line := range strings.Split(string(data), "\n") {
		text := strings.TrimSpace(line)
		if closing != "" { // inside a multi-line string
			if strings.Contains(text, closing) {
				closing = ""
			}
			continue
		}
		switch {
		case strings.HasPrefix(text, "["):
			name, _, _ := strings.Cut(strings.Trim(text, "["), "]")
			table = unquoteKey(name)
			note(table, i+1)
			if strings.HasPrefix(text, "[[") {
				n := count[table]
				count[table]++
				table += fmt.Sprintf("[%d]", n)
				note(table, i+1)
			}
			table += "."
		case text == "" || text[0] == '#':
		default:
			key, value, ok := strings.Cut(text, "=")
			if !ok {
				continue
			}
			key = unquoteKey(key)
			note(table+key, i+1)
			if list, _, ok := strings.Cut(table, "["); ok {
				note(list+"."+key, i+1) // the first of them all
			}
			for _, q := range []string{`"""`, `'''`} {
				if strings.Count(value, q) == 1 {
					closing = q
				}
			}
		}
	}
	return lines
}

func unquoteKey(key string) string {
	parts := strings.Split(key, ".")
	for i, p := range parts {
		parts[i] = strings.Trim(strings.TrimSpace(p), `"'`)
	}
	return strings.Join(parts, ".")
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nodes

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"slate/netboot/api"
)

// TargetError says that a target names no node.
type TargetError struct{ Text, Help string }

func (e *TargetError) Error() string { return e.Text }

// Hint says what there is.
func (e *TargetError) Hint() string { return e.Help }

// Select returns the nodes that the targets name, as List does: names, globs,
// and groups with an @ before them. A target that names no node is an error.
func (r *Registry) Select(targets ...string) ([]api.Node, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	chosen, err := r.choose(targets)
	if err != nil {
		return nil, err
	}
	out := make([]api.Node, len(chosen))
	for i, n := range chosen {
		out[i] = clone(n)
	}
	return out, nil
}

func (r *Registry) choose(targets []string) ([]*api.Node, error) {
	chosen := map[*api.Node]bool{}
	for _, t := range targets {
		if n := r.byName[t]; n != nil {
			chosen[n] = true
			continue
		}
		match, err := matcher(t)
		if err != nil {
			return nil, err
		}
		found := false
		for _, n := range r.byName {
			if match(n) {
				chosen[n], found = true, true
			}
		}
		if !found {
			return nil, r.noSuch(t)
		}
	}
	out := make([]*api.Node, 0, len(chosen))
	for n := range chosen {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *api.Node) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func matcher(target string) (func(*api.Node) bool, error) {
	pattern, isGroup := strings.CutPrefix(target, "@")
	if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
		return nil, &TargetError{fmt.Sprintf("%q is not a node, a glob or an @group", target), "write for instance: pc1, pc[1-3]*, @room1"}
	}
	match := func(s string) bool { ok, _ := path.Match(pattern, s); return ok }
	if isGroup {
		return func(n *api.Node) bool { return slices.ContainsFunc(n.Groups, match) }, nil
	}
	return func(n *api.Node) bool { return match(n.Name) }, nil
}

// maxNamed is how many names a hint lists.
const maxNamed = 8

func (r *Registry) noSuch(target string) error {
	var there []string
	what, text := "nodes", fmt.Sprintf("there is no node %q", target)
	if strings.HasPrefix(target, "@") {
		what, text = "groups with nodes", fmt.Sprintf("no node is in group %s", target)
		for _, n := range r.byName {
			for _, g := range n.Groups {
				there = append(there, "@"+g)
			}
		}
	} else {
		if strings.ContainsAny(target, "*?[") {
			text = fmt.Sprintf("no node's name matches %q", target)
		}
		for name := range r.byName {
			there = append(there, name)
		}
	}
	slices.Sort(there)
	there = slices.Compact(there)
	if len(there) == 0 {
		return &TargetError{text, fmt.Sprintf("there are no %s yet", what)}
	}
	more := ""
	if len(there) > maxNamed {
		more = fmt.Sprintf(" and %d more", len(there)-maxNamed)
		there = there[:maxNamed]
	}
	return &TargetError{text, what + ": " + strings.Join(there, ", ") + more}
}

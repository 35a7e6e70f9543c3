// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"fmt"
	"io/fs"
	"text/tabwriter"

	"slate/builder"
	"slate/images"
	"slate/images/store"
)

// showPackages lists the packages installed in a version.
func (a *app) showPackages(ctx context.Context, st *store.Store, rec images.Record, asJSON bool) error {
	t, err := st.Tree(ctx, rec.Tree)
	if err != nil {
		return err
	}
	list, err := builder.Packages(st.FS(t))
	if err != nil {
		return err
	}
	if len(list) == 0 { // cleaned away; the build has noted what there was
		if br, err := builder.ReadBuildRecord(st, rec); err != nil {
			return err
		} else if br != nil {
			list = br.Package
		}
	}
	if asJSON {
		return printJSON(a.stdout, append([]builder.Package{}, list...))
	}
	if len(list) == 0 {
		fmt.Fprintf(a.stdout, "%s has no database of packages\n", rec.Ref())
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, p := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Version, p.Arch)
	}
	return w.Flush()
}

// diffPackages lists the packages that are only in one of two versions, or in
// another version of their own.
func (a *app) diffPackages(of, nf fs.FS, old, new images.Record, asJSON bool) error {
	from, err := builder.Packages(of)
	if err != nil {
		return fmt.Errorf("%s: %w", old.Ref(), err)
	}
	to, err := builder.Packages(nf)
	if err != nil {
		return fmt.Errorf("%s: %w", new.Ref(), err)
	}
	list := builder.DiffPackages(from, to)
	if asJSON {
		return printJSON(a.stdout, append([]builder.Change{}, list...))
	}
	var added, removed int
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, p := range list {
		switch {
		case p.From == "":
			added++
			fmt.Fprintf(w, "+ %s\t%s\n", p.Name, p.To)
		case p.To == "":
			removed++
			fmt.Fprintf(w, "- %s\t%s\n", p.Name, p.From)
		default:
			fmt.Fprintf(w, "~ %s\t%s, was %s\n", p.Name, p.To, p.From)
		}
	}
	fmt.Fprintf(w, "%s to %s: %d packages added, %d removed, %d of another version\n", old.Ref(), new.Ref(), added, removed, len(list)-added-removed)
	return w.Flush()
}

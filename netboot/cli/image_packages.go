// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"fmt"
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

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"fmt"

	"slate/builder/lint"
)

type imageLintCmd struct {
	Ref  string `arg:"" help:"Version to look at: demo, demo/3, demo@stable."`
	JSON bool   `help:"Print JSON."`
}

// Help explains what is looked for.
func (imageLintCmd) Help() string {
	return "Notes cost space or time, warnings say that something will not work as meant, errors are holes or keep nodes from starting. " +
		"With an error the exit status is 1."
}

// Run prints what lint finds in a version.
func (c *imageLintCmd) Run(ctx context.Context, a *app) error {
	st, rec, err := a.version(ctx, c.Ref)
	if err != nil {
		return err
	}
	t, err := st.Tree(ctx, rec.Tree)
	if err != nil {
		return err
	}
	found := lint.Check(st.FS(t), lint.System{Init: rec.Init})
	if c.JSON {
		if err := printJSON(a.stdout, append([]lint.Finding{}, found...)); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			fmt.Fprintf(a.stdout, "%-8s %v\n", f.Severity, f)
			if f.Fix != "" {
				fmt.Fprintf(a.stdout, "         %s\n", f.Fix)
			}
		}
	}
	if len(found) > 0 && found[0].Severity == lint.Error {
		return fmt.Errorf("%s is not fit for nodes", rec.Ref())
	}
	if len(found) == 0 && !c.JSON {
		fmt.Fprintf(a.stdout, "nothing found in %s\n", rec.Ref())
	}
	return nil
}

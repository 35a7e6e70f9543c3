// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"slate/images"
	"slate/images/store"
	"slate/netboot/api"
)

type imageVerifyCmd struct {
	Quarantine bool `help:"Move damaged blobs out of the way, so that importing their files again heals the store."`
	JSON       bool `help:"Print JSON."`
}

// errDamaged makes verify end with status 1; what is damaged has been printed.
var errDamaged = errors.New("the store is damaged")

// Run reads every blob and prints what is wrong.
func (c *imageVerifyCmd) Run(ctx context.Context, a *app) error {
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	o := store.VerifyOptions{Quarantine: c.Quarantine}
	if s, err := a.settings(); err == nil {
		key, err := images.LoadKey(s.Key)
		if err != nil {
			return err
		}
		if o.Keys, err = images.ParsePublicKeys(images.FormatPublicKey(key)); err != nil {
			return err
		}
	}
	bar := a.progressLine()
	st.OnProgress(bar.store)
	r, err := st.Verify(ctx, o)
	bar.clear()
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(a.stdout, r); err != nil {
			return err
		}
	} else {
		for _, d := range r.Damage {
			fmt.Fprintf(a.stdout, "DAMAGED %s: %s\n", d.Path, d.Reason)
			for _, t := range d.Touches {
				fmt.Fprintf(a.stdout, "  touches %s\n", t)
			}
		}
		fmt.Fprintf(a.stdout, "%d versions, %d tree lists and %d blobs read (%s): %d damaged\n", r.Versions, r.Trees, r.Blobs, formatBytes(r.Bytes), len(r.Damage))
	}
	if len(r.Damage) == 0 {
		return nil
	}
	if c.Quarantine {
		return hintError{errDamaged, "import or build the versions it touches again"}
	}
	return hintError{errDamaged, "slate image verify --quarantine moves damaged blobs away; then import or build the versions again"}
}

type imageGCCmd struct {
	Delete bool `help:"Delete; without it, only say what would go."`
	Keep   int  `help:"Versions of each image that stay in any case, newest first. 0 keeps all and frees only what no version uses." default:"0" placeholder:"N"`
	JSON   bool `help:"Print JSON."`
}

// Help says what is safe.
func (c *imageGCCmd) Help() string {
	return "Versions that a channel points to or would be rolled back to, and versions that a node runs or a machine has mounted, always stay. What was added within the last day stays too."
}

// Run collects, or says what it would.
func (c *imageGCCmd) Run(ctx context.Context, a *app) error {
	if c.Keep < 0 {
		return usageError{errors.New("--keep must not be negative")}
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	used, err := a.inUse(ctx)
	if err != nil {
		return err
	}
	bar := a.progressLine()
	st.OnProgress(bar.store)
	r, err := st.GC(ctx, store.GCOptions{Delete: c.Delete, Keep: c.Keep, InUse: used})
	bar.clear()
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.stdout, r)
	}
	verb := "would delete"
	if c.Delete {
		verb = "deleted"
	}
	for _, v := range r.Versions {
		fmt.Fprintf(a.stdout, "%s version %s\n", verb, v)
	}
	for _, v := range slices.Sorted(maps.Keys(r.Kept)) {
		fmt.Fprintf(a.stdout, "kept %s: %s\n", v, r.Kept[v])
	}
	fmt.Fprintf(a.stdout, "%s %d blobs and %d tree lists, %s\n", verb, r.Blobs, r.Trees, formatBytes(r.Bytes))
	if r.Young > 0 {
		fmt.Fprintf(a.stdout, "%d unused blobs are less than a day old and stay for now\n", r.Young)
	}
	if !c.Delete && r.Blobs+r.Trees+len(r.Versions) > 0 {
		fmt.Fprintln(a.stdout, "nothing was deleted; --delete does it")
	}
	return nil
}

type imageRemoveCmd struct {
	Ref string `arg:"" help:"Version to remove, such as demo/3."`
}

// Help explains the argument.
func (c *imageRemoveCmd) Help() string {
	return refHelp + " What only this version used is freed by slate image gc."
}

// Run removes a version that nobody uses.
func (c *imageRemoveCmd) Run(ctx context.Context, a *app) error {
	ref, err := images.ParseRef(c.Ref)
	if err == nil && ref.Number == 0 && ref.Digest == "" {
		err = fmt.Errorf("%q does not name one version; write %s/NUMBER", c.Ref, ref.Name)
	}
	if err != nil {
		return usageError{err}
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	used, err := a.inUse(ctx)
	if err != nil {
		return err
	}
	rec, err := st.Remove(ctx, ref, used)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "removed %s; slate image gc frees its space\n", rec.Ref())
	return nil
}

type imageSignCmd struct {
	Ref string `arg:"" help:"Version to sign."`
}

// Help explains the argument.
func (c *imageSignCmd) Help() string {
	return "Signs a version anew with the site key, for instance one that was imported before there was a key. " + refHelp
}

// Run signs a version.
func (c *imageSignCmd) Run(ctx context.Context, a *app) error {
	ref, err := images.ParseRef(c.Ref)
	if err != nil {
		return usageError{err}
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	rec, err := st.Sign(ctx, ref)
	if errors.Is(err, store.ErrNoKey) {
		return hintError{err, "make the site key with: slate init"}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "signed %s\n", rec.Ref())
	return nil
}

// inUse asks the appliance which versions its nodes run and machines have mounted. An appliance that does
// not run serves none. One that runs and does not answer is an error: a version
// taken from under a node cannot be given back.
func (a *app) inUse(ctx context.Context) (func(images.Record) string, error) {
	socket, err := a.adminSocket()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no settings, no appliance
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := api.DialAdmin(socket).Status(ctx)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hintError{fmt.Errorf("which versions do nodes run? %w", err), "is the appliance all right? slate status"}
	}
	return usage(status), nil
}

// usage says of a version who uses it: nodes that started it last, and machines
// that have it mounted, whatever they are. "" if nobody does.
func usage(st api.Status) func(images.Record) string {
	runs, mounts := map[string][]string{}, map[images.Digest][]string{}
	for _, n := range st.Nodes {
		if len(n.Boots) > 0 {
			runs[n.Boots[0].Image] = append(runs[n.Boots[0].Image], n.Name)
		}
	}
	for _, m := range st.Mounts {
		mounts[m.Tree] = append(mounts[m.Tree], m.Address)
	}
	return func(r images.Record) string {
		if nodes := runs[r.Ref()]; len(nodes) > 0 {
			return someOf(nodes, "nodes") + " started it last"
		}
		if who := mounts[r.Tree]; len(who) > 0 {
			return "mounted by " + someOf(who, "machines")
		}
		return ""
	}
}

// someOf names the first of many.
func someOf(names []string, what string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more %s", strings.Join(names[:most], ", "), len(names)-most, what)
}

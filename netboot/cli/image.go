// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"slate/builder"
	"slate/images"
	"slate/images/archive"
	"slate/images/store"
)

type imageCmd struct {
	List     imageListCmd     `cmd:"" help:"List the images, or the versions of one."`
	Show     imageShowCmd     `cmd:"" help:"Show all about a version."`
	Lint     imageLintCmd     `cmd:"" help:"Look for what will go wrong when many machines run a version at once."`
	Import   imageImportCmd   `cmd:"" help:"Make a version from a root tree: a directory, a tar archive or a container image."`
	Publish  imagePublishCmd  `cmd:"" help:"Point a channel to a version; nodes boot it from their next start on."`
	Rollback imageRollbackCmd `cmd:"" help:"Point a channel back to the version it pointed to before."`
	Channels imageChannelsCmd `cmd:"" help:"Show an image's channels and how they moved."`
	Diff     imageDiffCmd     `cmd:"" help:"Show what differs between two versions."`
	Pull     imagePullCmd     `cmd:"" help:"Fetch a version from another appliance."`
	Export   imageExportCmd   `cmd:"" help:"Write a version as tar, directory, OCI image, squashfs, erofs or btrfs stream."`
	Verify   imageVerifyCmd   `cmd:"" help:"Read everything in the store and say what is damaged."`
	GC       imageGCCmd       `cmd:"" name:"gc" help:"Say what nobody needs any more, and delete it when told to."`
	Remove   imageRemoveCmd   `cmd:"" help:"Remove a version that nobody uses."`
	Sign     imageSignCmd     `cmd:"" help:"Sign a version anew with the site key."`
}

// refHelp explains how versions are named; it stands below the help of verbs
// that take one.
const refHelp = "A version is named demo (the newest), demo/3, demo@stable (the channel's), or demo/ab12cd (the beginning of its digest)."

// imageFact is a version as list and show print it.
type imageFact struct {
	Ref string `json:"ref"`
	images.Record
	Channels []string `json:"channels"`
	Signed   bool     `json:"signed"`
}

// facts returns the versions of an image, newest first. A damaged record is in
// the error and does not hide the others.
func facts(st *store.Store, name string) ([]imageFact, error) {
	recs, err := st.Versions(name)
	if err != nil && len(recs) == 0 {
		return nil, err
	}
	channels, cerr := st.Channels(name)
	if cerr != nil {
		return nil, cerr
	}
	var list []imageFact
	for _, rec := range slices.Backward(recs) {
		f := imageFact{Ref: rec.Ref(), Record: rec, Channels: []string{}}
		for _, c := range slices.Sorted(maps.Keys(channels)) {
			if channels[c].Version == rec.Number {
				f.Channels = append(f.Channels, c)
			}
		}
		if _, sig, serr := st.SignedRecord(name, rec.Number); serr == nil {
			f.Signed = len(sig) > 0
		}
		list = append(list, f)
	}
	return list, err
}

type imageListCmd struct {
	Name string `arg:"" optional:"" help:"Image whose versions to list. Default: all."`
	JSON bool   `help:"Print JSON."`
}

// Run prints one line for each version.
func (c *imageListCmd) Run(ctx context.Context, a *app) error {
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	names := []string{c.Name}
	if c.Name == "" {
		if names, err = st.Images(); err != nil {
			return err
		}
	}
	list := []imageFact{}
	var damage error
	for _, name := range names {
		f, err := facts(st, name)
		if err != nil && len(f) == 0 {
			return err
		}
		damage = errors.Join(damage, err)
		list = append(list, f...)
	}
	if c.JSON {
		return errors.Join(printJSON(a.stdout, list), damage)
	}
	if len(list) == 0 {
		fmt.Fprintln(a.stdout, "no image yet; slate build and slate image import make one")
		return damage
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tCHANNELS\tKERNEL\tINIT\tSIZE\tFILES\tCOMMITTED\tTREE")
	for _, f := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", f.Ref, dash(strings.Join(f.Channels, ",")), kernelRelease(f.Record), dash(f.Init),
			formatBytes(f.Size), f.Entries, f.Time.Local().Format(time.DateTime), f.Tree.Short())
	}
	return errors.Join(w.Flush(), damage)
}

type imageShowCmd struct {
	Ref      string `arg:"" help:"Version to show: demo, demo/3, demo@stable."`
	Packages bool   `help:"List the packages installed in it, with their versions."`
	JSON     bool   `help:"Print JSON."`
}

// Help explains the argument.
func (c *imageShowCmd) Help() string { return refHelp }

// Run prints the record of a version.
func (c *imageShowCmd) Run(ctx context.Context, a *app) error {
	st, rec, err := a.version(ctx, c.Ref)
	if err != nil {
		return err
	}
	if c.Packages {
		return a.showPackages(ctx, st, rec, c.JSON)
	}
	list, err := facts(st, rec.Name)
	i := slices.IndexFunc(list, func(f imageFact) bool { return f.Number == rec.Number })
	if i < 0 {
		return err
	}
	f := list[i]
	if c.JSON {
		return printJSON(a.stdout, f)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", key, value)
		}
	}
	line("version", f.Ref)
	line("channels", strings.Join(f.Channels, ", "))
	line("tree", f.Tree.String())
	line("files", fmt.Sprintf("%d entries, %s", f.Entries, formatBytes(f.Size)))
	line("system", strings.TrimSpace(f.Arch+" "+f.Init))
	if f.Kernel != nil {
		line("kernel", fmt.Sprintf("%s, %s, from %s", f.Kernel.Release, formatBytes(f.Kernel.Size), f.Kernel.Path))
	} else {
		line("kernel", "none: nodes cannot boot this version")
	}
	if f.Modules != nil {
		line("modules", formatBytes(f.Modules.Size))
	}
	if f.Tools != nil {
		line("tools", formatBytes(f.Tools.Size))
	} else {
		line("tools", "none: nodes can run this version diskless only")
	}
	line("committed", f.Time.Local().Format(time.DateTime))
	line("made from", f.Recipe)
	if br, err := builder.ReadBuildRecord(st, rec); err == nil && br != nil {
		for _, in := range br.Inputs {
			line(in.Kind, strings.TrimSpace(in.Name+"  "+in.Digest))
		}
		line("for", br.Level)
	}
	line("note", f.Note)
	if !f.Parent.IsZero() {
		line("parent tree", f.Parent.Short())
	}
	line("signed", map[bool]string{true: "yes", false: "no"}[f.Signed])
	line("NFS export", f.Export())
	return w.Flush()
}

type imageImportCmd struct {
	Source     string `arg:"" help:"Directory, tar archive (plain, gz, xz, zst, bz2; - for standard input), or container image: oci:DIR[:TAG], docker-archive:FILE, docker://NAME."`
	Name       string `required:"" help:"Image to make a version of." placeholder:"NAME"`
	Publish    string `help:"Also point this channel to the version." placeholder:"CHANNEL"`
	Note       string `help:"Remark kept with the version." placeholder:"TEXT"`
	KeepInitrd bool   `help:"Keep the distribution's own initrd. Nodes start with the controller and never load it, so it is left out."`
	Afresh     bool   `help:"Read every file of a directory, also those whose size and times say that they have not changed since the last import."`
}

// Help says what happens to the source.
func (c *imageImportCmd) Help() string {
	return "The source is only read. Its kernel is found and made bootable; a tree that equals the image's newest version makes no new one. " +
		"The distribution's own initrd in /boot is left out: nodes start with the controller, and an initrd made anew would make every update larger."
}

// Run commits the tree and says what came of it.
func (c *imageImportCmd) Run(ctx context.Context, a *app) error {
	if err := images.CheckName(c.Name); err != nil {
		return usageError{err}
	}
	if c.Publish != "" {
		if err := images.CheckChannel(c.Publish); err != nil {
			return usageError{err}
		}
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	bar := a.progressLine()
	st.OnProgress(bar.store)
	if !c.KeepInitrd {
		st.OnLeaveOut(func(path string, size int64) bool {
			out := builder.IsInitrd(path)
			if out && strings.HasPrefix(path, "boot/") { // and not the links to it in the root
				bar.clear()
				fmt.Fprintf(a.stderr, "left out: /%s, %s; --keep-initrd keeps it\n", path, formatBytes(size))
			}
			return out
		})
	}
	source, done, err := c.source(ctx, a, st)
	if err != nil {
		bar.clear()
		return err
	}
	defer done()
	rec, isNew, err := builder.Commit(ctx, st, source, builder.Meta{
		Name: c.Name, Recipe: c.recipe(), Note: c.Note,
		Step: bar.step,
		Warn: func(text string) { bar.clear(); fmt.Fprintf(a.stderr, "warning: %s\n", text) },
	})
	bar.clear()
	if err != nil {
		return err
	}
	if isNew {
		fmt.Fprintf(a.stdout, "%s: %d entries, %s, kernel %s\n", rec.Ref(), rec.Entries, formatBytes(rec.Size), kernelRelease(rec))
	} else {
		fmt.Fprintf(a.stdout, "%s: nothing has changed, no new version\n", rec.Ref())
	}
	if c.Publish == "" {
		return nil
	}
	return publish(ctx, a, st, images.Ref{Name: rec.Name, Number: rec.Number}, c.Publish)
}

func (c *imageImportCmd) recipe() string {
	if c.Source == "-" {
		return "import from standard input"
	}
	if archive.IsContainer(c.Source) {
		return "import " + c.Source
	}
	return "import " + filepath.Base(filepath.Clean(c.Source))
}

func (c *imageImportCmd) source(ctx context.Context, a *app, st *store.Store) (src builder.Source, done func(), err error) {
	if archive.IsContainer(c.Source) {
		return containerSource(ctx, a, st, c.Source)
	}
	if c.Source == "-" {
		return builder.Source{Tar: a.stdin, Name: "standard input"}, func() {}, nil
	}
	fi, err := os.Stat(c.Source)
	if err != nil {
		return src, nil, err
	}
	if fi.IsDir() {
		return builder.Source{Dir: c.Source, Afresh: c.Afresh}, func() {}, nil
	}
	f, err := os.Open(c.Source)
	if err != nil {
		return src, nil, err
	}
	return builder.Source{Tar: f, Name: c.Source}, func() { f.Close() }, nil
}

type imagePublishCmd struct {
	Ref     string `arg:"" help:"Version to publish."`
	Channel string `required:"" help:"Channel to move; it is made if need be." placeholder:"CHANNEL"`
}

// Help explains the argument.
func (c *imagePublishCmd) Help() string { return refHelp }

// Run moves the channel.
func (c *imagePublishCmd) Run(ctx context.Context, a *app) error {
	if err := images.CheckChannel(c.Channel); err != nil {
		return usageError{err}
	}
	st, rec, err := a.version(ctx, c.Ref)
	if err != nil {
		return err
	}
	return publish(ctx, a, st, images.Ref{Name: rec.Name, Number: rec.Number}, c.Channel)
}

func publish(ctx context.Context, a *app, st *store.Store, ref images.Ref, channel string) error {
	before, err := st.Channels(ref.Name)
	if err != nil {
		return err
	}
	if err := st.Publish(ctx, ref, channel); err != nil {
		return err
	}
	was := "new"
	if ch, ok := before[channel]; ok {
		was = fmt.Sprintf("was %s/%d", ref.Name, ch.Version)
		if ch.Version == ref.Number {
			was = "unchanged"
		}
	}
	fmt.Fprintf(a.stdout, "%s@%s is %s (%s)\n", ref.Name, channel, ref, was)
	return nil
}

type imageRollbackCmd struct {
	Channel string `arg:"" help:"Channel to roll back, such as demo@stable."`
}

// Run moves the channel back.
func (c *imageRollbackCmd) Run(ctx context.Context, a *app) error {
	ref, err := images.ParseRef(c.Channel)
	if err == nil && ref.Channel == "" {
		err = fmt.Errorf("%q names no channel; write %s@CHANNEL", c.Channel, ref.Name)
	}
	if err != nil {
		return usageError{err}
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	before, err := st.Channels(ref.Name)
	if err != nil {
		return err
	}
	rec, err := st.Rollback(ctx, ref.Name, ref.Channel)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s is %s again (was %s/%d)\n", ref, rec.Ref(), ref.Name, before[ref.Channel].Version)
	return nil
}

type imageChannelsCmd struct {
	Name string `arg:"" help:"Image."`
	JSON bool   `help:"Print JSON."`
}

// Run prints the channels and, newest first, their moves.
func (c *imageChannelsCmd) Run(ctx context.Context, a *app) error {
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	if _, err := st.Versions(c.Name); err != nil {
		return err
	}
	h, err := st.ChannelHistory(c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.stdout, h)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Channel)) {
		fmt.Fprintf(a.stdout, "%s@%s is %s/%d\n", c.Name, name, c.Name, h.Channel[name].Version)
	}
	for _, m := range slices.Backward(h.Change) {
		what := "published"
		if m.Rollback {
			what = "rolled back"
		}
		from := ""
		if m.From != 0 {
			from = fmt.Sprintf(", was %s/%d", c.Name, m.From)
		}
		fmt.Fprintf(a.stdout, "  %s  %s %s to %s/%d by %s%s\n", m.Time.Local().Format(time.DateTime), m.Channel, what, c.Name, m.To, m.Who, from)
	}
	return nil
}

// version opens the store and finds the version that ref names.
func (a *app) version(ctx context.Context, ref string) (*store.Store, images.Record, error) {
	r, err := images.ParseRef(ref)
	if err != nil {
		return nil, images.Record{}, usageError{err}
	}
	st, err := a.store(ctx)
	if err != nil {
		return nil, images.Record{}, err
	}
	rec, err := st.Resolve(r)
	return st, rec, err
}

func kernelRelease(r images.Record) string {
	if r.Kernel == nil {
		return "-"
	}
	return r.Kernel.Release
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// formatBytes writes a number of bytes with three digits and a unit.
func formatBytes(n int64) string {
	const units = "kMGTPE"
	v, u := float64(n), -1
	for v >= 999.5 && u < len(units)-1 {
		v /= 1000
		u++
	}
	switch {
	case u < 0:
		return strconv.FormatInt(n, 10) + " B"
	case v < 9.995:
		return fmt.Sprintf("%.2f %cB", v, units[u])
	case v < 99.95:
		return fmt.Sprintf("%.1f %cB", v, units[u])
	}
	return fmt.Sprintf("%.0f %cB", v, units[u])
}

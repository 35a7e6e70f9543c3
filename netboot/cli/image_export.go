// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"slate/builder"
	"slate/builder/command"
	"slate/images"
	"slate/images/archive"
	"slate/images/durable"
	"slate/images/store"
	"slate/images/tree"
)

type imageDiffCmd struct {
	Old      string `arg:"" help:"Version to compare with."`
	New      string `arg:"" help:"Version to compare."`
	Packages bool   `help:"Compare the packages installed in both instead of the files."`
	JSON     bool   `help:"Print JSON."`
}

// Help explains the arguments.
func (c *imageDiffCmd) Help() string {
	return "Lines start with + for what is only in the second version, - for what is only in the first, ~ for what differs. " + refHelp
}

type diffLine struct {
	Change string `json:"change"` // + - ~
	Path   string `json:"path"`
	Type   string `json:"type"`
	Old    int64  `json:"old,omitempty"` // size
	New    int64  `json:"new,omitempty"`
}

type diffResult struct {
	Old     string     `json:"old"`
	New     string     `json:"new"`
	Added   int        `json:"added"`
	Removed int        `json:"removed"`
	Changed int        `json:"changed"`
	Bytes   int64      `json:"bytes"` // of contents that only the new version has
	Lines   []diffLine `json:"lines"`
}

// Run compares two versions.
func (c *imageDiffCmd) Run(ctx context.Context, a *app) error {
	st, old, err := a.version(ctx, c.Old)
	if err != nil {
		return err
	}
	_, new, err := a.version(ctx, c.New)
	if err != nil {
		return err
	}
	ot, err := st.Tree(ctx, old.Tree)
	if err != nil {
		return err
	}
	nt, err := st.Tree(ctx, new.Tree)
	if err != nil {
		return err
	}
	if c.Packages {
		return a.diffPackages(st.FS(ot), st.FS(nt), old, new, c.JSON)
	}
	r := diffTrees(ot, nt)
	r.Old, r.New = old.Ref(), new.Ref()
	if c.JSON {
		return printJSON(a.stdout, r)
	}
	for _, l := range r.Lines {
		size := ""
		switch {
		case l.Type == "file" && l.Change == "~" && l.Old != l.New:
			size = fmt.Sprintf("  %s, was %s", formatBytes(l.New), formatBytes(l.Old))
		case l.Type == "file" && l.Change == "+":
			size = "  " + formatBytes(l.New)
		}
		fmt.Fprintf(a.stdout, "%s %s%s\n", l.Change, showPath(l.Path), size)
	}
	fmt.Fprintf(a.stdout, "%s to %s: %d added, %d removed, %d changed; %s of new contents\n", r.Old, r.New, r.Added, r.Removed, r.Changed, formatBytes(r.Bytes))
	return nil
}

func diffTrees(old, new *tree.Tree) diffResult {
	r := diffResult{Lines: []diffLine{}}
	have := map[images.Digest]bool{}
	for b := range old.Blobs() {
		have[b.Digest] = true
	}
	for b := range new.Blobs() {
		if !have[b.Digest] {
			have[b.Digest] = true
			r.Bytes += b.Size
		}
	}
	for ch := range tree.Diff(old, new) {
		l := diffLine{Change: ch.Kind.String()}
		if ch.Kind != tree.Added {
			l.Path, l.Type, l.Old = old.Path(ch.Old), old.Type(ch.Old).String(), old.Entry(ch.Old).Size
		}
		if ch.Kind != tree.Removed {
			l.Path, l.Type, l.New = new.Path(ch.New), new.Type(ch.New).String(), new.Entry(ch.New).Size
		}
		switch ch.Kind {
		case tree.Added:
			r.Added++
		case tree.Removed:
			r.Removed++
		case tree.Changed:
			r.Changed++
		}
		r.Lines = append(r.Lines, l)
	}
	return r
}

// showPath quotes a path that a terminal would not show as it is.
func showPath(path string) string {
	if q := strconv.Quote(path); q != `"`+path+`"` {
		return q
	}
	return path
}

type imageExportCmd struct {
	Ref    string `arg:"" help:"Version to export."`
	To     string `arg:"" help:"File or directory to write; - writes a tar to standard output."`
	Format string `help:"tar.zst (a stage4), tar, dir, oci, squashfs, erofs, or btrfs (a stream for btrfs receive; needs root). Default: what the name ends in; a name that ends in / is a directory." enum:",tar.zst,tar,dir,oci,squashfs,erofs,btrfs" default:""`
}

// Help says what the forms keep.
func (c *imageExportCmd) Help() string {
	return "Every form keeps owners, set-id bits, hard links, devices, capabilities and times (squashfs: whole seconds, and not of the root itself). " + refHelp
}

func (c *imageExportCmd) format() (string, error) {
	if c.Format != "" {
		return c.Format, nil
	}
	for suffix, format := range map[string]string{"-": "tar", ".tar.zst": "tar.zst", ".tar.zstd": "tar.zst", ".tar": "tar", "/": "dir",
		".squashfs": "squashfs", ".sqfs": "squashfs", ".erofs": "erofs", ".btrfs": "btrfs", ".oci": "oci"} {
		if strings.HasSuffix(c.To, suffix) {
			return format, nil
		}
	}
	return "", usageError{fmt.Errorf("%q does not tell the format; say it with --format", c.To)}
}

// Run writes the version in another form.
func (c *imageExportCmd) Run(ctx context.Context, a *app) error {
	format, err := c.format()
	if err != nil {
		return err
	}
	st, rec, err := a.version(ctx, c.Ref)
	if err != nil {
		return err
	}
	t, err := st.Tree(ctx, rec.Tree)
	if err != nil {
		return err
	}
	bar := a.progressLine()
	blobs := &countedBlobs{Store: st, bar: bar, p: store.Progress{Stage: "exporting", Total: t.Size()}}
	err = c.write(ctx, a, format, blobs, t, rec)
	bar.clear()
	if err != nil || c.To == "-" {
		return err
	}
	fmt.Fprintf(a.stdout, "%s written to %s\n", rec.Ref(), c.To)
	return nil
}

func (c *imageExportCmd) write(ctx context.Context, a *app, format string, blobs archive.Blobs, t *tree.Tree, rec images.Record) error {
	if c.To == "-" && format != "tar" && format != "tar.zst" {
		return usageError{fmt.Errorf("a %s cannot be written to standard output", format)}
	}
	pack := archive.Tar
	if format == "tar.zst" {
		pack = archive.TarZstd
	}
	switch format {
	case "dir":
		return archive.Dir(ctx, blobs, t, filepath.Clean(c.To))
	case "oci":
		return archive.OCI(ctx, blobs, t, rec, filepath.Clean(c.To))
	case "squashfs":
		return squashfs(ctx, blobs, t, rec, c.To)
	case "btrfs":
		return btrfsStream(ctx, blobs, t, rec, c.To)
	case "erofs":
		return erofs(ctx, blobs, t, c.To)
	}
	if c.To == "-" {
		return pack(ctx, blobs, t, a.stdout)
	}
	return durable.Write(c.To, 0o600, func(w io.Writer) error { return pack(ctx, blobs, t, w) })
}

// squashfs lets mksquashfs make a file system of the tree, which it reads as a
// tar archive: no copy is made on the way, and no root is needed.
func squashfs(ctx context.Context, blobs archive.Blobs, t *tree.Tree, rec images.Record, to string) error {
	return madeBy(to, func(tmp string) error {
		r, w := io.Pipe()
		defer r.Close()
		go func() { w.CloseWithError(archive.Tar(ctx, blobs, t, w)) }()
		root := t.Entry(0) // mksquashfs leaves the archive's out, and makes one that all may write
		return command.Run(ctx, command.Cmd{Stdin: r, Args: []string{"mksquashfs", "-", tmp, "-tar", "-comp", "zstd", "-noappend", "-quiet", "-no-progress",
			"-root-mode", strconv.FormatUint(uint64(root.Mode), 8), "-root-uid", fmt.Sprint(root.UID), "-root-gid", fmt.Sprint(root.GID),
			"-mkfs-time", strconv.FormatInt(rec.Time.Unix(), 10)}})
	})
}

// erofs lets mkfs.erofs make a file system of the tree. The one in Debian 12
// reads directories only, so the tree is written out beside the result. Only
// extended inodes have times; -T would give all files one.
func erofs(ctx context.Context, blobs archive.Blobs, t *tree.Tree, to string) error {
	return madeBy(to, func(tmp string) error {
		dir, err := os.MkdirTemp(filepath.Dir(to), ".erofs-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := archive.Dir(ctx, blobs, t, dir); err != nil {
			return err
		}
		return command.Run(ctx, command.Cmd{Args: []string{"mkfs.erofs", "-zlz4hc", "-Eforce-inode-extended", tmp, dir}})
	})
}

// madeBy lets a program write a file under another name and renames it when it
// is whole.
func madeBy(to string, run func(tmp string) error) error {
	tmp := filepath.Join(filepath.Dir(to), durable.TempPrefix+filepath.Base(to))
	defer os.Remove(tmp)
	if err := run(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}

// countedBlobs shows how far an export is.
type countedBlobs struct {
	*store.Store
	bar *progressLine
	p   store.Progress
}

// OpenBlob opens a blob; it is called once for each file, in turn.
func (c *countedBlobs) OpenBlob(d images.Digest) (*os.File, error) {
	f, err := c.Store.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err == nil {
		c.p.Files++
		c.p.Bytes += fi.Size()
	}
	c.p.Name = d.Short()
	c.bar.store(c.p)
	return f, nil
}

// containerSource brings a container image into the store and hands its tree on
// as a tar archive, which is what the builder takes.
func containerSource(ctx context.Context, a *app, st *store.Store, where string) (builder.Source, func(), error) {
	c, err := archive.OpenContainer(ctx, where, runtime.GOARCH)
	if err != nil {
		return builder.Source{}, nil, err
	}
	t, _, err := c.Add(ctx, st)
	if err != nil {
		return builder.Source{}, nil, err
	}
	a.log.Debug("container image read", "image", c.Name)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(archive.Tar(ctx, st, t, w))
	}()
	return builder.Source{Tar: r, Name: c.Name}, func() { r.CloseWithError(errors.New("not read any further")); <-done }, nil
}

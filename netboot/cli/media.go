// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slate/builder/initramfs"
	"slate/builder/media"
	"slate/images"
	"slate/images/store"
	"slate/netboot"
	"slate/netboot/boot"
	"slate/netboot/config"
)

type mediaCmd struct {
	USB mediaUSBCmd `cmd:"" name:"usb" help:"Write a disk image for a USB stick, or the stick itself."`
	ISO mediaISOCmd `cmd:"" name:"iso" help:"Write an ISO image, for a disc or a stick."`
}

// Help says what a medium is for.
func (c *mediaCmd) Help() string {
	return `A medium starts machines that cannot boot over the network: under BIOS and UEFI, with
Secure Boot on if shim-signed and grub-efi-amd64-signed are installed here. It holds the kernel
and the controller of one version and the list of servers; the machine then asks the servers for
the rest, as one that booted over the network does. With --with-image it holds the version itself
too, and runs it where no server is in reach.`
}

type mediaUSBCmd struct {
	mediaFlags
	Force bool `help:"Write on a block device without asking. What is on it is lost."`
}

// Help says how it gets onto a stick.
func (c *mediaUSBCmd) Help() string {
	return `slate media usb /dev/sdX writes on the stick; it shows what is there, and asks.

A file is copied onto one by: dd if=FILE of=/dev/sdX bs=4M conv=fsync

The FAT partition can be edited: slate/grub.cfg has the kernel's command line,
slate/config/controller/server/server.info.conf the servers.`
}

// Run writes a disk image.
func (c *mediaUSBCmd) Run(ctx context.Context, a *app) error {
	return c.run(ctx, a, media.USB, c.Force)
}

type mediaISOCmd struct{ mediaFlags }

// Run writes an ISO.
func (c *mediaISOCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, media.ISO, false) }

type mediaFlags struct {
	To        string   `arg:"" help:"File to write. It is replaced when the new one is whole."`
	Image     string   `help:"The version: name@channel, name/number or name. Default: what config.d lets nodes boot." placeholder:"REF"`
	WithImage bool     `help:"Put the whole version on the medium, so that it runs without a server."`
	Server    []string `help:"URL of a server to ask, in place of the list in config.d; may be given several times." placeholder:"URL"`
	Node      string   `help:"Take the settings of this node instead of the site's." placeholder:"NODE"`
}

// mediaPlan is what goes onto a medium, and where that comes from.
type mediaPlan struct {
	settings netboot.Settings
	store    *store.Store
	rec      images.Record
	conf     *config.Node
	server   boot.Server
}

func (c *mediaFlags) run(ctx context.Context, a *app, kind media.Kind, force bool) error {
	if err := media.Check(kind); err != nil {
		return err
	}
	p, err := c.plan(ctx, a)
	if err != nil {
		return err
	}
	drive, isDrive, err := media.Look(c.To)
	if err != nil {
		return err
	}
	work := filepath.Dir(c.To)
	if isDrive {
		work = "/var/tmp"
		if err := c.mayWrite(a, drive, kind, force); err != nil {
			return err
		}
	} else if strings.HasPrefix(filepath.Clean(c.To), "/dev/") {
		return hintError{fmt.Errorf("%s: there is no such device", c.To), "see what there is: lsblk"}
	}
	dir, err := os.MkdirTemp(work, ".slate-media-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bar := a.progressLine()
	o, err := c.options(ctx, p, kind, dir, bar)
	if err == nil {
		err = media.Write(ctx, o)
	}
	bar.clear()
	if err != nil {
		return err
	}
	c.tell(a, p, o)
	return nil
}

// tell says what was made, and what it can do.
func (c *mediaFlags) tell(a *app, p mediaPlan, o media.Options) {
	what := "the kernel and the controller of " + p.rec.Ref()
	if c.WithImage {
		what = p.rec.Ref() + ", which runs without a server too"
	}
	secure := "with Secure Boot off"
	if media.Signed() {
		secure = "with Secure Boot on or off"
	}
	fmt.Fprintf(a.stdout, "%s: %s. Starts under BIOS, and under UEFI %s.\n", c.To, what, secure)
	var list []string
	for _, w := range o.Cmdline {
		if s, ok := strings.CutPrefix(w, "slate.server="); ok {
			u, _, _ := strings.Cut(s, ",")
			list = append(list, u)
		}
	}
	fmt.Fprintf(a.stdout, "It asks: %s\n", strings.Join(list, ", "))
}

// plan collects what the medium is made from.
func (c *mediaFlags) plan(ctx context.Context, a *app) (p mediaPlan, err error) {
	if p.settings, err = a.settings(); err != nil {
		return p, err
	}
	if p.store, err = a.store(ctx); err != nil {
		return p, err
	}
	site, err := config.Load(os.DirFS(p.settings.ConfigD))
	if err != nil {
		return p, err
	}
	p.conf = site.Node(c.Node)
	ref := cmp.Or(c.Image, p.conf.Boot.Image)
	published, err := netboot.Published(p.store)
	if err != nil {
		return p, err
	}
	r, _, err := boot.ChooseImage(ref, published)
	if err != nil {
		return p, err
	}
	if p.rec, err = p.store.Resolve(r); err != nil {
		return p, err
	}
	if p.rec.Kernel == nil {
		return p, hintError{fmt.Errorf("%s has no kernel: it cannot be booted", p.rec.Ref()), "add a kernel package to the image and build it again"}
	}
	return p, c.servers(&p)
}

// servers decides whom the machine asks: those of the flags, those of config.d, or
// this appliance.
func (c *mediaFlags) servers(p *mediaPlan) error {
	if len(c.Server) > 0 {
		p.conf.Servers.Servers = nil
		for _, u := range c.Server {
			if err := config.CheckServerURL(u); err != nil {
				return usageError{fmt.Errorf("--server: %w", err)}
			}
			p.conf.Servers.Servers = append(p.conf.Servers.Servers, config.Server{URL: strings.TrimSuffix(u, "/"), Weight: 1})
		}
	}
	if list := p.conf.Servers.Servers; len(list) > 0 {
		// The first of the list stands first on the command line, too.
		u, err := url.Parse(list[0].URL)
		if err != nil {
			return err
		}
		addr, err := netip.ParseAddr(u.Hostname())
		if err != nil {
			return err
		}
		port := 80
		if u.Port() != "" {
			if port, err = strconv.Atoi(u.Port()); err != nil {
				return err
			}
		}
		p.server = boot.Server{Addr: addr, HTTPPort: port}
		return nil
	}
	addr := p.settings.Network.Address
	if !addr.IsValid() {
		ifc, err := netboot.InterfaceByName(p.settings.Network.Interface)
		if err == nil && len(ifc.Prefixes) == 0 {
			err = fmt.Errorf("interface %s has no IPv4 address", ifc.Name)
		}
		if err != nil {
			return hintError{fmt.Errorf("whom should the medium ask? %w", err), "name the appliance: --server http://ADDRESS:8070"}
		}
		addr = ifc.Prefixes[0].Addr()
	}
	p.server = boot.Server{Addr: addr, HTTPPort: p.settings.HTTP.Port}
	return nil
}

// options makes the files that the medium needs in dir.
func (c *mediaFlags) options(ctx context.Context, p mediaPlan, kind media.Kind, dir string, bar *progressLine) (media.Options, error) {
	id := media.NewID()
	start := boot.Start{Server: p.server, Version: p.rec, Config: p.conf, Medium: id}
	o := media.Options{Kind: kind, To: c.To, ID: id, Title: "Slate: " + p.rec.Ref(), Cmdline: start.Cmdline(), Work: dir,
		Step: func(what string) { bar.step(what, "") }, Line: func(words string) { bar.step(words, "") }, Config: map[string][]byte{}}
	pub, err := os.ReadFile(p.settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		return o, err
	}
	controller, err := initramfs.ControllerCPIO(initramfs.ControllerOptions{SitePub: pub})
	if err != nil {
		return o, err
	}
	cpio := filepath.Join(dir, "controller.cpio")
	if err := os.WriteFile(cpio, controller, 0o644); err != nil {
		return o, err
	}
	if o.Kernel, err = blobFile(p.store, p.rec.Kernel.Digest); err != nil {
		return o, err
	}
	o.Initrds = []media.Initrd{{Name: "controller.cpio", File: cpio}}
	for _, part := range []struct {
		name string
		blob *images.Blob
	}{{"modules.cpio", p.rec.Modules}, {"tools.cpio", p.rec.Tools}} {
		if part.blob == nil {
			continue
		}
		f, err := blobFile(p.store, part.blob.Digest)
		if err != nil {
			return o, err
		}
		o.Initrds = append(o.Initrds, media.Initrd{Name: part.name, File: f})
	}
	const list = "controller/server/server.info.conf"
	text, err := os.ReadFile(filepath.Join(p.settings.ConfigD, list))
	if err == nil && len(c.Server) == 0 {
		o.Config[list] = text
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	if !c.WithImage {
		return o, nil
	}
	o.Image = filepath.Join(dir, "image.squashfs")
	return o, c.squash(ctx, p, o.Image, bar)
}

func (c *mediaFlags) squash(ctx context.Context, p mediaPlan, to string, bar *progressLine) error {
	t, err := p.store.Tree(ctx, p.rec.Tree)
	if err != nil {
		return err
	}
	blobs := &countedBlobs{Store: p.store, bar: bar, p: store.Progress{Stage: "packing the image", Total: t.Size()}}
	return squashfs(ctx, blobs, t, p.rec, to)
}

// blobFile is where the store has a content.
func blobFile(st *store.Store, d images.Digest) (string, error) {
	f, err := st.OpenBlob(d)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return f.Name(), nil
}

// mayWrite shows what is on a drive and asks whether it may go.
func (c *mediaFlags) mayWrite(a *app, d media.Drive, kind media.Kind, force bool) error {
	if kind != media.USB {
		return hintError{fmt.Errorf("%s is a device: an ISO is written to a file", c.To), "for a stick: slate media usb " + c.To}
	}
	if !d.Whole {
		return hintError{fmt.Errorf("%s is a partition: firmware starts whole drives", c.To), "name the drive that it is on: lsblk shows it"}
	}
	if len(d.Mounted) > 0 {
		return hintError{fmt.Errorf("%s is in use: mounted at %s", c.To, strings.Join(d.Mounted, ", ")), "is it the right one? then: umount " + strings.Join(d.Mounted, " ")}
	}
	fmt.Fprintf(a.stderr, "%s: %s, %.1f GB\n", d.Path, cmp.Or(d.Model, "unknown model"), float64(d.Size)/1e9)
	for _, part := range d.Parts {
		fmt.Fprintf(a.stderr, "  %s\n", part)
	}
	if force {
		return nil
	}
	fmt.Fprintf(a.stderr, "All that is on it will be lost. Type %s to go on: ", filepath.Base(d.Path))
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case got := <-answer:
		if got == filepath.Base(d.Path) {
			return nil
		}
	case <-time.After(5 * time.Minute):
	}
	return hintError{fmt.Errorf("%s was left as it is", c.To), "without a question: --force"}
}

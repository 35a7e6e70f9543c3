// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"slate/images"
	"slate/installer/machine"
	"slate/installer/root"
	"slate/installer/servers"
	"slate/netboot/api"

	"golang.org/x/sys/unix"
)

func hasServer(b *Boot) (bool, string) {
	if b != nil && len(b.Settings.Servers) == 0 {
		return false, "the command line names no appliance (slate.server)"
	}
	if b != nil && b.Offline != nil {
		return false, "there is no network"
	}
	return true, ""
}

// sitePub is the site's public key in the initramfs.
const sitePub = "/etc/slate/site.pub"

// siteKeys are the keys that the site's servers prove to have; none if none came
// with the controller.
func (b *Boot) siteKeys() ([]ed25519.PublicKey, error) {
	keys, err := images.LoadPublicKeys(b.path(sitePub))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

// hello is how this machine introduces itself to a server that has not sent it here.
func (b *Boot) hello() api.Hello {
	h := api.Hello{MAC: b.Lease.MAC, UUID: b.Identity.UUID, Serial: b.Identity.Serial, Product: b.Identity.Product, Image: b.Settings.Image}
	if b.Settings.Medium != "" {
		h.From = "a medium"
		return h
	}
	if b.Settings.Server != nil {
		h.From = b.Settings.Server.String()
	}
	return h
}

// moved tells of another server that was taken because one did not answer.
func (b *Boot) moved(from, to machine.Server, why error) {
	b.Note("%s does not answer (%v): going on with %s", from.URL, why, to.URL)
}

// clockSlack is how far the clock may be off before the appliance's is taken.
const clockSlack = time.Minute

// chooseServer looks at the servers and takes the best. Its clock sets ours when
// that is far off: a board with an empty battery starts in the past, where no
// certificate is valid.
func chooseServer(ctx context.Context, b *Boot) error {
	keys, err := b.siteKeys()
	if err != nil {
		return err
	}
	p := servers.Probe{Measure: b.Settings.Measure, Keys: keys, Tree: b.Settings.Tree, Name: b.Settings.Image}
	if n := len(b.Settings.Servers); n > 1 {
		b.Note("asking %d servers, up to %v each", n, p.Timeout*time.Duration(p.Samples))
	}
	b.Ranked = servers.Rank(p.All(ctx, b.Settings.Servers), b.node())
	for _, r := range b.Ranked {
		b.Note("%s: %s", r.Server.URL, r.Why)
	}
	b.Fleet.Order(servers.OrderOf(b.Ranked))
	best := b.Ranked[0]
	if !best.Usable() {
		return fmt.Errorf("no server can be taken: %s: %s", best.Server.URL, best.Why)
	}
	if err := setClock(b, best.Clock); err != nil {
		b.Note("%v", err)
	}
	if b.Settings.Medium != "" && b.Settings.Boot == "" {
		if err := b.join(ctx, best); err != nil {
			return err
		}
	}
	b.useServer(best)
	return nil
}

// followServers takes the list of servers of the newest configuration: one file
// moves a node to other servers, wherever its command line was written.
func (b *Boot) followServers(ctx context.Context) {
	list, err := servers.Listed(b.config().Servers)
	if err != nil {
		b.Note("server.info.conf: %v", err)
	}
	if err != nil || len(list) == 0 || b.Offline != nil || servers.Same(list, b.Settings.Servers) {
		return
	}
	b.Note("the configuration names other servers: looking at those")
	info := b.config().Servers
	b.Settings.Servers = servers.WithLastResort(list, b.Settings.Servers)
	b.Settings.Measure = servers.MeasureOf(info)
	b.Settings.Move = machine.Move(info.Running.Move)
	if b.Settings.Server == nil {
		b.Settings.Server = list[0].URL
	}
	if err := chooseServer(ctx, b); err != nil {
		b.Note("%v", err)
	}
}

// useServer makes a server the one of this boot: for what is said and for the root.
func (b *Boot) useServer(r servers.Ranked) {
	if b.Settings.Server.String() == r.Server.URL.String() && b.Settings.NFS.Server.IsValid() {
		return
	}
	if b.Settings.Server.String() != r.Server.URL.String() {
		b.Note("going on with %s instead of %s", r.Server.URL, b.Settings.Server)
	}
	b.Settings.Server = r.Server.URL
	if e, ok := b.exportOn(r); ok {
		b.Settings.NFS = e
	}
}

// exportOn is the export of this boot's version on a server: its path names the
// tree by its digest.
func (b *Boot) exportOn(r servers.Ranked) (machine.Export, bool) {
	path := b.Settings.NFS.Path
	if name, _, ok := strings.Cut(b.Settings.Image, "/"); path == "" && ok && b.Settings.Tree != "" {
		path = "/" + name + "/" + b.Settings.Tree
	}
	at, ok := r.NFS()
	return machine.Export{Server: at, Path: path}, ok && path != ""
}

func setClock(b *Boot, clock time.Time) error {
	off := time.Until(clock)
	if clock.IsZero() || off.Abs() <= clockSlack {
		return nil
	}
	tv := unix.NsecToTimeval(clock.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	b.Note("the clock was off by %v and is now the appliance's", off.Abs().Round(time.Second))
	return nil
}

// exports are where the root can be mounted from: the server of the command line,
// or the one that was chosen in its place, then the others that have the image.
func (b *Boot) exports() []machine.Export {
	out := []machine.Export{b.Settings.NFS}
	for _, r := range b.Ranked {
		if e, ok := b.exportOn(r); ok && r.Usable() && e != out[0] {
			out = append(out, e)
		}
	}
	return out
}

// How long a server may take to let its root be reached: the last one longest, for
// then there is nothing else to try.
const (
	reachOne  = 15 * time.Second
	reachLast = time.Minute
)

// mountLower mounts what is below the root: what step system chose, or the export
// of the first server that gives it.
func (b *Boot) mountLower(ctx context.Context, in *root.Input) error {
	if in.Lower.Local() {
		b.Note("mounting %s", in.Lower)
		return root.MountBase(ctx, *in)
	}
	list := b.exports()
	var errs []error
	for i, e := range list {
		limit := reachOne
		if i == len(list)-1 {
			limit = reachLast
		}
		in.Lower.NFS = e
		b.Note("mounting %s", e)
		err := mountFrom(ctx, b, *in, limit)
		if err == nil {
			b.Settings.NFS = e
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		if i < len(list)-1 {
			b.Note("%v: trying the next server", oneLine(err))
		}
	}
	return errors.Join(errs...)
}

func mountFrom(ctx context.Context, b *Boot, in root.Input, limit time.Duration) error {
	rctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := root.Reach(rctx, in.Lower.NFS.Server.String(), b.Note); err != nil {
		return err
	}
	return root.MountBase(ctx, in)
}

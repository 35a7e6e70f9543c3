// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"slate/installer/machine"
	"slate/installer/medium"
	"slate/installer/network"
	"slate/installer/root"
	"slate/installer/screen"
	"slate/installer/servers"
	"slate/netboot/config"

	"golang.org/x/sys/unix"
)

// mediumDir is where the medium is mounted, also in the running system.
const mediumDir = RunDir + "/medium"

// Medium is the stick or disc that the machine started from.
type Medium struct {
	medium.FS
	Root machine.Mount // the version on it, as mount(2) takes it; zero: none
}

// mediumWait is how long a stick may take to appear.
const mediumWait = 20 * time.Second

// findMedium mounts the medium that the machine started from and looks at what it
// has. Without it the machine goes on as one that booted over the network.
func (b *Boot) findMedium(ctx context.Context) {
	if b.Settings.Medium == "" || b.Medium != nil {
		return
	}
	if b.Loader != nil {
		if _, err := b.Loader.Load(ctx, "loop", "squashfs", "vfat", "isofs"); err != nil {
			b.Note("%v", err)
		}
	}
	b.Note("looking for the medium that the machine started from, up to %v", mediumWait)
	for end := time.Now().Add(mediumWait); ; {
		for _, f := range medium.Find(b.Root) {
			if mountMedium(f, b.Settings.Medium) {
				b.takeMedium(f)
				return
			}
		}
		if time.Now().After(end) || ctx.Err() != nil {
			b.Note("the medium was not found: is it still plugged in?")
			return
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// mountMedium mounts a file system if it is that of the medium with the id.
func mountMedium(f medium.FS, id string) bool {
	m := machine.Mount{What: "/dev/" + f.Device, Where: mediumDir, Type: f.Type, Flags: unix.MS_RDONLY | unix.MS_NOATIME | unix.MS_NOEXEC | unix.MS_NODEV}
	if m.Do() != nil {
		return false
	}
	if medium.Has(mediumDir, id) {
		return true
	}
	_ = unix.Unmount(mediumDir, unix.MNT_DETACH)
	return false
}

// takeMedium takes over what the medium has: the version, and the list of servers.
func (b *Boot) takeMedium(f medium.FS) {
	b.Medium = &Medium{FS: f}
	part, file := medium.Image(b.Root, mediumDir, f)
	device := "/dev/" + part
	if file != "" {
		var err error
		if device, err = medium.Loop(file); err != nil {
			b.Note("%v", err)
			device = ""
		}
	}
	has := "the kernel and the controller"
	if device != "" && device != "/dev/" {
		b.Medium.Root = machine.Mount{What: device, Type: "squashfs"}
		has = b.Settings.Image
	}
	b.Note("started from %s, which has %s", f.Device, has)
	if err := b.mediumServers(); err != nil {
		b.Note("the medium's list of servers: %v", err)
	}
}

// mediumServers takes the list of servers in the medium's copy of config.d, which
// an admin may have edited, in place of the command line's.
func (b *Boot) mediumServers() error {
	text, err := medium.Config(mediumDir, config.ServerFile)
	if err != nil || text == nil {
		return err
	}
	info, err := config.ReadServerInfo(text)
	if err != nil || len(info.Servers) == 0 {
		return err
	}
	list, err := servers.Listed(info)
	if err != nil {
		return err
	}
	b.Settings.Servers, b.Settings.Server = list, list[0].URL
	b.Fleet.Order(list)
	b.Settings.Measure = machine.Measure{Timeout: time.Duration(info.Measure.Timeout) * time.Second, Samples: info.Measure.Samples}
	b.Settings.Move = machine.Move(info.Running.Move)
	return nil
}

// patience is shorter for a machine that can do without a network.
func (b *Boot) patience() network.Patience {
	p := network.DefaultPatience()
	if b.Medium != nil {
		p.Appear, p.Link, p.DHCP, p.Rounds = 10*time.Second, 10*time.Second, 30*time.Second, 1
	}
	return p
}

// join introduces a machine that started from a medium, and takes over what the
// server says about it.
func (b *Boot) join(ctx context.Context, r servers.Ranked) error {
	h := b.hello()
	h.Image = "" // what it should run is asked
	w, err := servers.Client{Server: r.Server.URL}.Hello(ctx, h)
	if err != nil {
		return err
	}
	if w.Boot == "" {
		return fmt.Errorf("%s gives %s nothing to boot: %s", r.Server.URL, w.Node, w.Refused)
	}
	s := machine.ParseCmdline(strings.Join(w.Words, " "))
	b.Fleet.Adopt(r.Server.URL, w.Boot)
	b.Settings.Node, b.Settings.Boot = w.Node, w.Boot
	b.Settings.Mode, b.Settings.Choice, b.Settings.Timeout = s.Mode, s.Choice, s.Timeout
	b.Note("this machine is %s", w.Node)
	if s.Tree != b.Settings.Tree {
		b.Note("the server would start %s; this medium starts %s. A new one: slate media", s.Image, b.Settings.Image)
	}
	b.startReports(ctx)
	return nil
}

// chooseMedium is the chooser's item for the version on the medium.
const chooseMedium = "medium"

// canRun tells whether there is anything to run without asking a person.
func (b *Boot) canRun() bool { return b.Settings.NFS.Server.IsValid() || b.hasMediumRoot() }

func (b *Boot) hasMediumRoot() bool { return b.Medium != nil && b.Medium.Root.What != "" }

// withoutAsking runs what there is, the server's before the medium's.
func (b *Boot) withoutAsking() error {
	if b.Settings.NFS.Server.IsValid() {
		return nil
	}
	return b.runFromMedium()
}

// runFromMedium makes the version on the medium the root.
func (b *Boot) runFromMedium() error {
	b.Note("running %s from the medium", b.Settings.Image)
	b.Lower = root.Lower{Slot: b.Medium.Root}
	return nil
}

// offerMedium fits the chooser to a machine that started from a medium: it may
// have no server, and may have the version itself.
func (b *Boot) offerMedium(m *screen.Menu) {
	if b.Settings.Medium == "" {
		return
	}
	chosen := ""
	if m.Default < len(m.Items) {
		chosen = m.Items[m.Default].ID
	}
	if !b.Settings.NFS.Server.IsValid() {
		m.Items = slices.DeleteFunc(m.Items, func(i screen.Item) bool { return i.ID == string(machine.ChooseDiskless) })
		m.Detail = append(m.Detail, b.whyNoServer()...)
	}
	if b.hasMediumRoot() {
		item := screen.Item{ID: chooseMedium, Text: "Run " + b.Settings.Image + " from this medium", Next: "Running from the medium"}
		at := 0
		if len(m.Items) > 0 && m.Items[0].ID == string(machine.ChooseDiskless) {
			at = 1
		}
		m.Items = slices.Insert(m.Items, at, item)
	}
	if chosen == string(machine.ChooseDiskless) && !b.Settings.NFS.Server.IsValid() {
		chosen = chooseMedium
	}
	m.Default = slices.IndexFunc(m.Items, func(i screen.Item) bool { return i.ID == chosen })
	if m.Default < 0 { // what is wanted cannot be had: a person has to decide
		m.Default, m.Deadline = 0, time.Time{}
	}
	m.Selected = m.Default
}

// whyNoServer explains why the machine cannot run over the network.
func (b *Boot) whyNoServer() []string {
	if b.Offline != nil {
		return []string{"It cannot run from a server: " + oneLine(b.Offline)}
	}
	out := []string{"It cannot run from a server:"}
	for _, r := range b.Ranked {
		if !r.Usable() {
			out = append(out, fmt.Sprintf("  %s: %s", r.Server.URL, r.Why))
		}
	}
	return out
}

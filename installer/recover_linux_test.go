// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/transfer"
	"slate/images/tree"
	"slate/installer/bootpart"
	"slate/installer/disk"
	"slate/installer/machine"
	"slate/installer/servers"
	"slate/installer/slot"
	"slate/netboot/config"
	"slate/testbed/labtest"
)

// A machine's two systems on real file systems, through cycles, damage and repair, start
// by start. Only the kernel's part is missing: the lab has that.
func TestRecover(t *testing.T) {
	labtest.NeedRoot(t)
	for _, program := range []string{"losetup", "mkfs.ext4", "e2fsck", "mkfs.btrfs", "btrfs"} {
		labtest.Need(t, program)
	}
	if fs := os.Getenv("SLATE_RECOVER"); fs != "" { // in mounts of its own
		recoverOn(t, fs)
		return
	}
	for _, fs := range []string{config.Ext4, config.Btrfs} {
		t.Run(fs, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestRecover$", "-test.v")
			cmd.Env = append(os.Environ(), "SLATE_RECOVER="+fs)
			cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
}

// box is the machine: its drive, its boot partition, its version.
type box struct {
	t     *testing.T
	root  string // of /etc/slate and the tools
	drive disk.Drive
	conf  *config.Node
	tree  *tree.Tree
	blobs map[images.Digest][]byte
	sign  transfer.Signed
	key   ed25519.PublicKey
	last  *Boot
}

func recoverOn(t *testing.T, fs string) {
	x := newBox(t, fs)
	x.install()

	// On trial until a start after a healthy one.
	x.boot(0, "a", slot.Trial, slot.Empty)
	x.boot(0, "a", slot.Trial, slot.Empty)
	x.live(false)
	x.boot(0, "a", slot.Trial, slot.Empty)
	x.live(true)
	x.boot(0, "a", slot.Good, slot.Empty)

	// A slot that has all but its flag is damaged; it becomes a copy of the good one.
	x.in("a", func(a string) { x.sh("tar cf %s/meta -C %s --exclude=flag .slate", x.root, a) })
	x.in("b", func(b string) { x.sh("tar xf %s/meta -C %s", x.root, b) })
	x.env(func(e *bootpart.Env) { e.Slot = "b" })
	x.conf.Update.Damaged = config.DamagedClone
	x.boot(0, "b", slot.Good, slot.Trial)
	x.verify("b")
	x.live(true)
	x.boot(0, "b", slot.Good, slot.Good)

	// A flag that is gone does not come back by the old cycle, and the backup takes over.
	x.conf.Update.Damaged = config.DamagedBailout
	x.in("b", func(b string) { x.sh("rm %s/.slate/flag", b) })
	x.boot(0, "a", slot.Good, slot.Damaged)
	if e := x.readEnv(); e.Slot != "a" {
		t.Errorf("after the bailout the active system is %q", e.Slot)
	}
	x.boot(0, "a", slot.Good, slot.Damaged)
	x.live(true)
	x.boot(0, "a", slot.Good, slot.Damaged)

	// A file that is another is taken from the other slot; the flag stays.
	x.conf.Update.Verify.At = config.VerifyBoot
	x.in("a", func(a string) { x.alter(a + "/bin/one") })
	x.boot(0, "a", slot.Good, slot.Damaged)
	x.verify("a")
	x.conf.Update.Verify.At = config.VerifyWeekly
	x.boot(0, "a", slot.Good, slot.Damaged)

	// What the running system finds is mended before the next root is mounted.
	x.in("a", func(a string) { x.sh("rm -r %s/etc", a) })
	if err := slot.SaveVerified(bootMount, "a", slot.Verified{Tree: x.tree.Digest().String(), At: time.Now(), Faults: []string{"etc"}}); err != nil {
		t.Fatal(err)
	}
	x.boot(0, "a", slot.Good, slot.Damaged)
	x.verify("a")

	// The same wrong in both, and nobody to ask: a person is.
	x.conf.Update.Verify.At = config.VerifyBoot
	for _, s := range []string{"a", "b"} {
		x.in(s, func(dir string) { x.alter(dir + "/bin/one") })
	}
	x.boot(1, "", slot.Damaged, slot.Damaged)
	// Once one of them is right again both are.
	x.in("b", func(b string) { x.restore(b + "/bin/one") })
	x.boot(0, "a", slot.Trial, slot.Damaged)
	x.verify("a")
	x.live(true)
	x.boot(0, "a", slot.Good, slot.Damaged)

	// Without its key the machine knows no flag; what is whole goes on trial.
	if err := os.Remove(filepath.Join(bootMount, slot.KeyFile)); err != nil {
		t.Fatal(err)
	}
	x.boot(0, "a", slot.Trial, slot.Damaged)
	x.live(true)
	x.boot(0, "a", slot.Good, slot.Damaged)
	x.cuts(config.DamagedClone)
	x.cuts(config.DamagedSync)
}

// cuts breaks copying and mending off after ever more steps. Whatever is left, the next
// start has a system, and never takes for whole what is not.
func (x *box) cuts(damaged string) {
	x.t.Helper()
	x.conf.Update.Damaged, x.conf.Update.Verify.At = damaged, config.VerifyWeekly
	n := 0
	for broken := true; broken; n += 2 {
		x.in("b", func(b string) {
			x.sh("find %s -mindepth 1 -maxdepth 1 -exec rm -r {} +; tar xf %s/meta -C %[1]s", b, x.root)
		})
		x.env(func(e *bootpart.Env) { e.Slot = "b"; delete(e.Trial, "b") })
		ctx := &cutContext{Context: x.t.Context(), left: n}
		bt := x.controller("a")
		if err := bt.openSlots(x.drive, []ed25519.PublicKey{x.key}); err != nil {
			x.t.Fatal(err)
		}
		bt.runLocal(ctx)
		broken = ctx.left < 0
		x.in("b", func(b string) { // what was not written through is lost
			if rec, err := slot.Read(b, []ed25519.PublicKey{x.key}); err == nil && x.readEnv().Trial["b"] != "" {
				if err := slot.Verify(x.t.Context(), b, x.tree, nil); err != nil {
					x.t.Fatalf("%s, broken off after %d steps: %s is on trial, but %v", damaged, n, rec.Ref(), err)
				}
			}
		})
		if x.bootAny(); x.last.System.Slot == "b" {
			x.verify("b")
		} else if st := x.last.Local.Slots["b"]; st.State != slot.Incomplete {
			x.t.Fatalf("%s, broken off after %d steps: system A is started, though B is %s", damaged, n, describe(st))
		}
	}
	x.t.Logf("%s: broken off %d times", damaged, n/2)
	if n < 10 {
		x.t.Errorf("%s was broken off %d times only", damaged, n/2)
	}
}

// cutContext ends after it was asked so many times.
type cutContext struct {
	context.Context
	left int
}

func (c *cutContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func newBox(t *testing.T, fs string) *box {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	x := &box{t: t, root: t.TempDir(), conf: config.Defaults(), drive: disk.Drive{Name: "vda", GUID: "the-guid"}}
	x.makeVersion()
	must(os.MkdirAll(filepath.Join(x.root, "etc/slate"), 0o755))
	must(os.WriteFile(filepath.Join(x.root, sitePub), images.FormatPublicKey(x.key), 0o644))
	must(os.MkdirAll(filepath.Join(x.root, disk.ToolDir), 0o755))
	for _, p := range []string{"e2fsck", "btrfs"} {
		path, err := exec.LookPath(p)
		must(err)
		must(os.Symlink(path, filepath.Join(x.root, disk.ToolDir, p)))
	}
	must(os.MkdirAll(filepath.Join(bootMount, bootpart.Dir), 0o700))
	if fs == config.Btrfs {
		x.part(disk.LabelData, "mkfs.btrfs -q", 256)
		top := x.mount(machine.Mount{What: x.drive.Parts[0].Device, Type: "btrfs"})
		for _, s := range []string{"@a", "@b", "@user-data"} {
			x.sh("btrfs -q subvolume create %s/%s", top, s)
		}
		must(unix.Unmount(top, 0))
		return x
	}
	for _, l := range []string{disk.LabelA, disk.LabelB, disk.LabelUser} {
		x.part(l, "mkfs.ext4 -q", 32)
	}
	return x
}

// part adds a partition to the drive.
func (x *box) part(label, mkfs string, mb int) {
	x.t.Helper()
	file := filepath.Join(x.root, label)
	x.sh("truncate -s %dM %s; %s %[2]s", mb, file, mkfs)
	dev := x.sh("losetup --find --show %s", file)
	x.t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	x.drive.Parts = append(x.drive.Parts, disk.Part{Number: len(x.drive.Parts) + 1, Device: dev, Label: label})
}

func (x *box) sh(format string, a ...any) string {
	x.t.Helper()
	out, err := exec.Command("sh", "-ec", fmt.Sprintf(format, a...)).CombinedOutput()
	if err != nil {
		x.t.Fatalf(format+": %v\n%s", append(a, err, out)...)
	}
	return strings.TrimSpace(string(out))
}

func (x *box) makeVersion() {
	x.blobs = map[images.Digest][]byte{}
	var b tree.Builder
	add := func(path string, e tree.Entry) {
		e.MtimeNs = 1700000000123456789
		if err := b.Add(path, e); err != nil {
			x.t.Fatal(err)
		}
	}
	file := func(text string) tree.Entry {
		return tree.Entry{Type: tree.File, Digest: x.blob(text).Digest, Size: int64(len(text)), Mode: 0o755}
	}
	dir := tree.Entry{Type: tree.Dir, Mode: 0o755}
	add(".", dir)
	add("bin", dir)
	add("bin/one", file(strings.Repeat("one", 5000)))
	add("bin/two", file(strings.Repeat("two", 5000)))
	add("etc", dir)
	add("etc/three", file("three"))
	var err error
	if x.tree, err = b.Build(); err != nil {
		x.t.Fatal(err)
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		x.t.Fatal(err)
	}
	x.key = pub
	x.sign.Record = images.Record{Name: "demo", Number: 1, Tree: x.tree.Digest(), Entries: x.tree.Len(), Size: x.tree.Size(), Time: time.Unix(1700000000, 0),
		Kernel: &images.Kernel{Release: machine.Release(), Path: "boot/vmlinuz", Blob: x.blob("the kernel")}}
	if x.sign.Text, err = images.MarshalRecord(x.sign.Record); err != nil {
		x.t.Fatal(err)
	}
	x.sign.Signature = images.Sign(key, images.PurposeRecord, x.sign.Text)
}

func (x *box) blob(text string) images.Blob {
	d := images.Digest(sha256.Sum256([]byte(text)))
	x.blobs[d] = []byte(text)
	return images.Blob{Digest: d, Size: int64(len(text))}
}

// mount mounts something and returns where.
func (x *box) mount(m machine.Mount) string {
	x.t.Helper()
	m.Where = x.t.TempDir()
	if err := m.Do(); err != nil {
		x.t.Fatal(err)
	}
	return m.Where
}

// in has something done in a slot, or in user-data, while the machine is off.
func (x *box) in(s string, do func(dir string)) {
	x.t.Helper()
	dir := x.mount(slotOn(x.drive, s, x.conf.Btrfs))
	do(dir)
	if err := unix.Unmount(dir, 0); err != nil {
		x.t.Fatal(err)
	}
}

func (x *box) readEnv() bootpart.Env {
	x.t.Helper()
	e, err := bootpart.ReadEnv(bootMount)
	if err != nil {
		x.t.Fatal(err)
	}
	return e
}

func (x *box) env(change func(*bootpart.Env)) {
	x.t.Helper()
	e := x.readEnv()
	change(&e)
	if err := bootpart.WriteEnv(bootMount, e); err != nil {
		x.t.Fatal(err)
	}
}

// install fills system A, as an installation does.
func (x *box) install() {
	x.t.Helper()
	x.in("a", func(dir string) {
		f := slot.Fill{Dir: dir, Signed: x.sign, Tree: x.tree, Note: x.t.Logf}
		f.Fetch = func(ctx context.Context, t *tree.Tree, _ []images.Blob, s transfer.Sink) error {
			for b := range t.Blobs() {
				if err := s.Put(ctx, b, bytes.NewReader(x.blobs[b.Digest])); err != nil {
					return err
				}
			}
			return nil
		}
		if err := f.Run(x.t.Context()); err != nil {
			x.t.Fatal(err)
		}
	})
	e := bootpart.Entry{Slot: "a", Title: "demo/1", Kernel: strings.NewReader("the kernel"), Cmdline: []string{"quiet", "slate.slot=a"}}
	if err := bootpart.WriteEntry(bootMount, e); err != nil {
		x.t.Fatal(err)
	}
	if err := bootpart.WriteEnv(bootMount, bootpart.Env{Slot: "a", Tries: map[string]int{"a": 3}, Trial: map[string]string{"a": bootpart.NewTrial(x.tree.Digest())}}); err != nil {
		x.t.Fatal(err)
	}
}

// boot starts the machine as the loader and the controller do, up to the root. It wants
// a slot to be started, or with asks a person to be asked, and the slots to be worth that.
func (x *box) boot(asks int, want string, a, b slot.State) {
	x.t.Helper()
	e := x.readEnv()
	started := e.Slot
	if !bootpart.Has(bootMount, started) {
		started = slot.Other(started)
	}
	x.env(func(e *bootpart.Env) { e.Tries[started] = max(e.Tries[started]-1, 1) }) // the tries are not what is tried here
	bt := x.controller(started)
	x.last = bt
	if err := bt.openSlots(x.drive, []ed25519.PublicKey{x.key}); err != nil {
		x.t.Log(err)
	}
	done, why := bt.runLocal(x.t.Context())
	x.t.Logf("a start\n%s", bt.Log())
	if want == "any" && done {
		return
	}
	if done != (asks == 0) || asks > 0 && why == "" {
		x.t.Fatalf("runLocal = %v, %q", done, why)
	}
	if want != "" && (bt.System == nil || bt.System.Slot != want || !bt.installed()) {
		x.t.Fatalf("it starts %+v (%v), want system %s", bt.System, bt.Lower, want)
	}
	if got := bt.Local.Slots; got["a"].State != a || got["b"].State != b {
		x.t.Fatalf("system A is %s, system B %s; want %s and %s", describe(got["a"]), describe(got["b"]), a, b)
	}
	for _, dir := range []string{slotMount, otherMount} {
		if err := unix.Unmount(dir, 0); err == nil {
			x.t.Errorf("%s is still mounted", dir)
		}
	}
}

// bootAny starts the machine, and wants any of its systems.
func (x *box) bootAny() { x.t.Helper(); x.boot(0, "any", "", "") }

func (x *box) controller(started string) *Boot {
	return &Boot{Root: x.root, Settings: machine.Settings{Slot: started}, Reporter: servers.NewReporter(), Fleet: servers.NewFleet(nil, ""), Config: x.conf}
}

// live is the cycle that follows the last start.
func (x *box) live(healthy bool) {
	x.t.Helper()
	x.in("user", func(dir string) {
		l, s := x.last.Local, x.last.System
		at := filepath.Join(dir, slot.CyclesDir)
		c, err := l.Records.Begin(at, slot.Cycle{Slot: s.Slot, Tree: s.Record.Tree.String(), Disk: s.Drive.GUID, Trial: l.Env.Trial[s.Slot], Started: time.Now()})
		if err == nil && healthy {
			c.Healthy = time.Now()
			err = l.Records.SaveCycle(at, c)
		}
		if err != nil {
			x.t.Fatal(err)
		}
	})
}

// alter changes a file so that only its content tells.
func (x *box) alter(file string) {
	x.sh("touch -r %s %s/stamp; printf X | dd of=%[1]s bs=1 seek=99 conv=notrunc status=none; touch -r %[2]s/stamp %[1]s", file, x.root)
}

func (x *box) restore(file string) {
	x.sh("touch -r %s %s/stamp; printf o | dd of=%[1]s bs=1 seek=99 conv=notrunc status=none; touch -r %[2]s/stamp %[1]s", file, x.root)
}

func (x *box) verify(s string) {
	x.t.Helper()
	x.in(s, func(dir string) {
		if err := slot.Verify(x.t.Context(), dir, x.tree, nil); err != nil {
			x.t.Errorf("system %s: %v", s, err)
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slate/builder/command"
	"slate/installer/machine"
	"slate/installer/medium"
)

// Tools runs the programs of an installation.
type Tools struct {
	// Dir holds the programs and Libs their libraries; empty: the system's own.
	Dir, Libs string
	Log       func(string, ...any) // what is run, and what it says; may be nil
}

// Where the tools archive of the initramfs has them.
const (
	ToolDir  = "/usr/lib/slate/bin"
	ToolLibs = "/usr/lib/slate/lib"
	ToolGRUB = "/usr/lib/slate/grub"
)

// needed are the programs without which nothing can be installed.
var needed = []string{"sfdisk", "blkid", "wipefs", "mkfs.ext4", "e2fsck", "mkfs.fat", "fsck.fat"}

// Check runs each program once, so that one that cannot start is known before a
// drive is touched.
func (t Tools) Check(ctx context.Context) error {
	var g errgroup.Group
	errs := make([]error, len(needed))
	for i, p := range needed {
		flag := "--version"
		switch p {
		case "mkfs.ext4", "e2fsck":
			flag = "-V"
		case "mkfs.fat", "fsck.fat":
			flag = "--help"
		}
		if !t.Has(p) {
			errs[i] = fmt.Errorf("%s is missing", p)
			continue
		}
		g.Go(func() error {
			if _, err := t.Run(ctx, p, flag); err != nil {
				errs[i] = fmt.Errorf("%s does not run: %w", p, err)
			}
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// Has reports whether a program is there.
func (t Tools) Has(program string) bool {
	if t.Dir == "" {
		_, err := exec.LookPath(program)
		return err == nil
	}
	_, err := os.Stat(filepath.Join(t.Dir, program))
	return err == nil
}

// Run runs a program and returns what it wrote.
func (t Tools) Run(ctx context.Context, args ...string) (string, error) {
	return t.run(ctx, "", args...)
}

func (t Tools) run(ctx context.Context, stdin string, args ...string) (string, error) {
	var out bytes.Buffer
	c := command.Cmd{Args: append([]string{t.path(args[0])}, args[1:]...), Stdin: strings.NewReader(stdin), Stdout: &out, Env: t.env()}
	err := command.Run(ctx, c)
	return out.String(), err
}

// MendSuperblock writes the first superblock of a btrfs file system anew from a copy, if
// it is damaged, and tells whether it was (btrfs-rescue(8), super-recover). It has 4 KB, a
// drive writes 512 bytes at a time, and the kernel mounts by the first one only.
func (t Tools) MendSuperblock(ctx context.Context, device string) (mended bool, err error) {
	_, err = t.Run(ctx, "btrfs", "rescue", "super-recover", "-y", device)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 { // it was bad, and is good
		return true, nil
	}
	return false, err
}

func (t Tools) path(name string) string {
	if t.Dir == "" {
		return name
	}
	return filepath.Join(t.Dir, name)
}

func (t Tools) env() []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if t.Libs != "" {
		env = append(env, "LD_LIBRARY_PATH="+t.Libs)
	}
	return env
}

// lookLimit bounds a look at one drive: a broken one may not answer.
const lookLimit = 20 * time.Second

// Look finds out which drives there are and what is on them. It only reads. root is
// where /sys, /proc and /dev are.
func (t Tools) Look(ctx context.Context, root string) []Drive {
	uses := readUses(root)
	var out []Drive
	for _, d := range machine.ReadDisks(root) {
		out = append(out, t.look(ctx, root, Drive{Name: d.Name, Device: filepath.Join(root, "/dev", d.Name), ID: d.ID, Serial: d.Serial,
			Model: d.Model, Path: d.Path, Transport: d.Transport, Size: d.Size}, uses))
	}
	return out
}

// LookAt looks at one device that may be none of the machine's drives, such as a
// loop device.
func (t Tools) LookAt(ctx context.Context, root string, d Drive) Drive {
	return t.look(ctx, root, d, readUses(root))
}

func (t Tools) look(ctx context.Context, root string, d Drive, uses map[string]string) Drive {
	sys := filepath.Join(root, "/sys/block", d.Name)
	d.Sector = number(filepath.Join(sys, "queue/logical_block_size"), 1)
	if d.Sector < 512 {
		d.Sector = 512
	}
	if d.Size == 0 {
		d.Size = number(filepath.Join(sys, "size"), 512)
	}
	d.ReadOnly = number(filepath.Join(sys, "ro"), 1) == 1
	d.Busy = uses[d.Name]
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	whole, err := t.probe(ctx, d.Device)
	if err != nil {
		d.Err = oneLine(err)
		return d
	}
	d.Table, d.GUID, d.Content = whole["PTTYPE"], strings.ToLower(whole["PTUUID"]), sign(whole)
	if d.Busy == "" {
		d.Busy = holders(sys, uses)
	}
	entries, _ := os.ReadDir(sys)
	for _, e := range entries {
		dir := filepath.Join(sys, e.Name())
		n := number(filepath.Join(dir, "partition"), 1)
		if n < 1 {
			continue
		}
		p := Part{Number: int(n), Device: filepath.Join(root, "/dev", e.Name()), Start: number(filepath.Join(dir, "start"), 512), Size: number(filepath.Join(dir, "size"), 512)}
		if use := uses[e.Name()]; use != "" && d.Busy == "" {
			d.Busy = use
		}
		if use := holders(dir, uses); use != "" && d.Busy == "" {
			d.Busy = use
		}
		facts, err := t.probe(ctx, p.Device)
		if err != nil {
			d.Err = fmt.Sprintf("partition %d: %s", p.Number, oneLine(err))
			return d
		}
		p.Type, p.Label, p.GUID, p.Content = strings.ToUpper(facts["PART_ENTRY_TYPE"]), unescape(facts["PART_ENTRY_NAME"]), strings.ToLower(facts["PART_ENTRY_UUID"]), sign(facts)
		d.Parts = append(d.Parts, p)
	}
	sortParts(d.Parts)
	if d.Busy == "" && medium.Is(root, d.Name) {
		d.Busy = "it is slate's start medium"
	}
	return d
}

func sortParts(parts []Part) {
	for i := range parts {
		for j := i; j > 0 && parts[j].Number < parts[j-1].Number; j-- {
			parts[j], parts[j-1] = parts[j-1], parts[j]
		}
	}
}

// probe asks blkid about a device, past all caches. Nothing found is no error; two
// signatures that contradict each other are one, of a kind.
func (t Tools) probe(ctx context.Context, device string) (map[string]string, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	// blkid takes what it cannot read for nothing.
	_, err = f.ReadAt(make([]byte, 4096), 0)
	f.Close()
	if err != nil {
		return nil, err
	}
	out, err := t.Run(ctx, "blkid", "--probe", "--output", "export", device)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		switch exit.ExitCode() {
		case 2:
			return map[string]string{}, nil
		case 8:
			return map[string]string{"TYPE": "several kinds of content at once", "USAGE": "other"}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	facts := map[string]string{}
	for line := range strings.Lines(out) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		facts[k] = v
	}
	return facts, nil
}

func sign(f map[string]string) Sign {
	s := Sign{Type: f["TYPE"], Usage: f["USAGE"], Label: unescape(f["LABEL"]), UUID: f["UUID"]}
	switch strings.ToUpper(f["PART_ENTRY_TYPE"]) {
	case "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC":
		s.System = "a part of Windows"
	}
	if s.Type == "ntfs" || s.Type == "BitLocker" {
		s.System = "Windows, or its data"
	}
	return s
}

// unescape undoes what blkid does to blanks and others.
func unescape(s string) string {
	s = strings.ReplaceAll(s, `\ `, " ")
	return strings.ReplaceAll(s, `\x20`, " ")
}

// readUses maps the kernel's names of devices to what uses them.
func readUses(root string) map[string]string {
	out := map[string]string{}
	text, _ := os.ReadFile(filepath.Join(root, "/proc/self/mounts"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "/dev/") {
			if !strings.HasPrefix(f[1], "/run/slate/") {
				out[filepath.Base(f[0])] = "mounted at " + f[1]
			}
		}
	}
	text, _ = os.ReadFile(filepath.Join(root, "/proc/swaps"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], "/dev/") {
			out[filepath.Base(f[0])] = "swap space"
		}
	}
	return out
}

// holders tells what is built on a device: a RAID or a volume group.
func holders(sys string, uses map[string]string) string {
	entries, _ := os.ReadDir(filepath.Join(sys, "holders"))
	for _, e := range entries {
		return "a part of " + e.Name()
	}
	return ""
}

func number(file string, unit int64) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 || n > 1<<62/unit {
		return 0
	}
	return n * unit
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// Do carries out a plan. What has been done when it fails cannot be undone: a later
// start finds a drive that is ours, or empty, and no slot in it.
func (t Tools) Do(ctx context.Context, p Plan, note func(string, ...any)) error {
	for _, s := range p.Steps {
		note("%s", s.What)
		if err := t.step(ctx, p.Drive.Device, s); err != nil {
			if bad := rewrite(p.Drive.Device); bad != nil && ctx.Err() == nil {
				err = fmt.Errorf("the drive takes no data (%w): %w", bad, err)
			}
			return fmt.Errorf("%s on %s: %w", s.What, p.Drive.Device, err)
		}
		if s.Settle {
			if err := t.settle(ctx, p, s.Stdin != ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t Tools) step(ctx context.Context, device string, s Step) error {
	if s.Write == nil {
		_, err := t.run(ctx, s.Stdin, s.Args...)
		return err
	}
	f, err := os.OpenFile(device, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(s.Write, 0)
	return errors.Join(err, f.Close())
}

// rewrite writes the first sector of a drive that is being overwritten as it is: the
// programs do not always say that it was the drive which failed.
func rewrite(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	sector := make([]byte, 512)
	if _, err := f.ReadAt(sector, 0); err != nil {
		return err
	}
	_, err = f.WriteAt(sector, 0)
	return err
}

// settle makes the kernel read the partition table and waits for the devices.
func (t Tools) settle(ctx context.Context, p Plan, want bool) error {
	f, err := os.OpenFile(p.Drive.Device, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write to %s: %w", p.Drive.Device, err)
	}
	for try := 0; ; try++ {
		err := unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0)
		if err == nil {
			break
		}
		if try == 20 || !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("have the kernel read the partitions of %s: %w", p.Drive.Device, err)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	if !want {
		return nil
	}
	for try := 0; ; try++ {
		missing := ""
		for _, part := range p.Parts {
			if !there(part) {
				missing = part.Device
			}
		}
		if missing == "" {
			return nil
		}
		if try == 50 {
			return fmt.Errorf("the partition %s does not appear", missing)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func there(p Part) bool {
	f, err := os.Open(p.Device)
	if err != nil {
		return false
	}
	defer f.Close()
	n, err := f.Seek(0, 2)
	return err == nil && n == p.Size
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

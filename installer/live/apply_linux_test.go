// SPDX-License-Identifier: GPL-2.0-or-later

package live_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/installer/live"
	"slate/installer/root"
)

// machine is a running system as far as Apply sees it: what is mounted, what is in
// use, and what was run.
type machine struct {
	mounted, busy map[string]bool
	ran           []string
}

func (m *machine) system(dir string) live.System {
	return live.System{Root: dir,
		Run: func(_ context.Context, args ...string) error {
			m.ran = append(m.ran, strings.Join(args, " "))
			switch where := args[len(args)-1]; {
			case args[0] == "umount" && m.busy[where]:
				return errors.New("umount: target is busy")
			case args[0] == "umount":
				delete(m.mounted, where)
			case args[0] == "mount":
				m.mounted[where] = true
			}
			return nil
		},
		Mounted: func(where string) bool { return m.mounted[where] },
		Remount: func(where, size string) error {
			if size == "1M" {
				return errors.New("invalid argument")
			}
			m.ran = append(m.ran, "remount "+where+" "+size)
			return nil
		}}
}

func TestApply(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := &machine{mounted: map[string]bool{"/mnt/old": true, "/mnt/used": true, "/mnt/taken": true}, busy: map[string]bool{"/mnt/used": true}}
	got := m.system(dir).Apply(t.Context(), live.Plan{
		Fstab: "new\n", Unmount: []string{"/mnt/gone", "/mnt/old", "/mnt/used"}, Mount: []string{"/mnt/new", "/mnt/taken", "/mnt/used"},
		Remount: []live.Remount{{"/tmp", "9M", "tmp"}, {"/var/x", "1M", "x"}},
		Users:   []string{"ada"}, SSH: true,
		Changes: []root.Change{{Path: "/etc/passwd", Text: "ada\n", UID: os.Getuid(), GID: os.Getgid()}, {Path: "/home/ada", Dir: true, Mode: 0o700, UID: os.Getuid(), GID: os.Getgid()},
			{Path: "/etc/passwd", Text: "no", IfNew: true}, {Path: "/etc/none", Remove: true}},
		Waits: []string{"z"},
	})
	want := live.Result{
		Done:   []string{"unmount /mnt/old", "mount /mnt/new", "tmp: 9M", "users ada"},
		Failed: []live.Failed{{What: "mount /mnt/used", Why: "umount: target is busy"}, {What: "mount /mnt/taken", Why: "something else is mounted there"}, {What: "x: 1M", Why: "invalid argument"}},
		Waits:  []string{"z"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if d := cmp.Diff([]string{"systemctl daemon-reload", "umount /mnt/old", "umount /mnt/used", "mount /mnt/new", "remount /tmp 9M"}, m.ran[:5]); d != "" {
		t.Errorf("ran (-want +got):\n%s", d)
	}
	for name, text := range map[string]string{"etc/fstab": "new\n", "etc/passwd": "ada\n"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text {
			t.Errorf("%s = %q, %v", name, b, err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "home/ada")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the home: %v, %v", fi, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "etc/.slate-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

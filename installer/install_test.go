// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"strings"
	"testing"
	"time"

	"slate/images"
	"slate/installer/disk"
	"slate/installer/slot"
	"slate/installer/update"
	"slate/netboot/api"
)

func TestRate(t *testing.T) {
	now := time.Unix(0, 0)
	r := newRate(func() time.Time { return now })
	now = now.Add(time.Minute) // of preparing
	r.tell(0, 100e6)
	now = now.Add(time.Second)
	if text, ok := r.tell(1, 100e6); ok {
		t.Errorf("told %q again at once", text)
	}
	now = now.Add(5 * time.Second)
	if text, ok := r.tell(1e3, 100e6); !ok || text != "  0 % of 100 MB, 0.0 MB/s" {
		t.Errorf("at the beginning tell = %q, %v", text, ok)
	}
	now = now.Add(5 * time.Second)
	if text, ok := r.tell(25e6, 100e6); !ok || text != " 25 % of 100 MB, 2.3 MB/s, 33s left" {
		t.Errorf("tell = %q, %v", text, ok)
	}
	if text, ok := r.tell(26e6, 100e6); ok {
		t.Errorf("told %q again at once", text)
	}
	if text, ok := r.tell(100e6, 100e6); !ok || strings.Contains(text, "left") {
		t.Errorf("at the end tell = %q, %v", text, ok)
	}
}

// What belongs to the start by network does not go to the disk.
func TestDiskCmdline(t *testing.T) {
	rec := images.Record{Name: "demo", Number: 4, Tree: images.Digest{1}}
	got := strings.Join(update.Cmdline("BOOT_IMAGE=/x initrd=controller.cpio console=tty0 quiet slate.node=pc1 slate.boot=b1 slate.image=demo/3 slate.tree=aa "+
		"slate.mode=ask slate.install=now slate.medium=m BOOTIF=01-52", rec, "b", "guid"), " ")
	want := "console=tty0 quiet slate.node=pc1 slate.mode=ask BOOTIF=01-52 slate.image=demo/4 slate.tree=" + rec.Tree.String() + " slate.slot=b slate.disk=guid"
	if got != want {
		t.Errorf("Cmdline =\n%s\nwant\n%s", got, want)
	}
}

// With a system of its own a machine does not wait for the network, the appliance or
// its configuration, and none of them stops it.
func TestNothingRemoteStopsASystem(t *testing.T) {
	for _, s := range Stages() {
		own := s.of(&Boot{System: &System{}})
		switch s.Name {
		case api.StepNetwork, api.StepServer, api.StepConfig:
			if own.OnFail != (OnFail{Then: MoveOn}) || own.Limit > 30*time.Second || own.Limit == 0 {
				t.Errorf("step %s with a system: %v, on failure %v", s.Name, own.Limit, own.OnFail)
			}
			damaged := s.of(&Boot{Local: &Local{Slots: map[string]slot.SlotState{"a": {State: slot.Damaged}}}})
			if damaged.OnFail != (OnFail{Then: MoveOn}) || damaged.Limit > 75*time.Second {
				t.Errorf("step %s with a system that can be mended: %v, on failure %v", s.Name, damaged.Limit, damaged.OnFail)
			}
			if without := s.of(&Boot{}); without.Limit != s.Limit || without.OnFail != s.OnFail {
				t.Errorf("step %s without a system: %v", s.Name, without)
			}
		default:
			if own.OnFail != s.OnFail {
				t.Errorf("step %s changes with a system", s.Name)
			}
		}
	}
}

func TestDrivesMenu(t *testing.T) {
	m := drivesMenu("pc1", "demo/3", []disk.Verdict{
		{Drive: disk.Drive{Name: "sda", Size: 4e9}, Use: disk.Never, Reason: "in use: mounted at /mnt"},
		{Drive: disk.Drive{Name: "sdb", Size: 5e11, Serial: "X"}, Use: disk.Confirm},
	})
	if len(m.Items) != 2 || m.Items[0].ID != "1" || !strings.Contains(m.Items[0].Text, "sdb, 500 GB, serial X: empty") || m.Items[1].ID != backID {
		t.Errorf("items = %+v: want the second drive and the way back", m.Items)
	}
	if got := strings.Join(m.Detail, "\n"); got != "Not sda, 4.0 GB: in use: mounted at /mnt." {
		t.Errorf("detail = %q", got)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"slate/netboot/api"
)

func TestMeter(t *testing.T) {
	root, now := t.TempDir(), time.Unix(1000, 0)
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := meter{root: root, now: func() time.Time { return now }}
	if m.cpu() != 0 || m.sent("eth0") != 0 || m.speed("eth0") != 0 {
		t.Error("with nothing to read the load is not 0")
	}
	write("proc/loadavg", "3.00 1.0 1.0 1/2 3\n")
	write("proc/cpuinfo", "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n")
	write("sys/class/net/eth0/speed", "1000\n")
	write("sys/class/net/eth0/statistics/tx_bytes", "1000000\n")
	if got := m.cpu(); got != 1.5 {
		t.Errorf("cpu = %v, want 1.5", got)
	}
	if got := m.speed("eth0"); got != 1000 {
		t.Errorf("speed = %v", got)
	}
	now = now.Add(10 * time.Second)
	m.sent("eth0")
	write("sys/class/net/eth0/statistics/tx_bytes", "41000000\n")
	now = now.Add(time.Second)
	before := m.sent("eth0") // too early for a new figure
	now = now.Add(time.Second)
	if got := m.sent("eth0"); got != 20 || before == 20 {
		t.Errorf("sent = %v, then %v MB/s, want 20", before, got)
	}
	write("sys/class/net/eth0/statistics/tx_bytes", "5\n") // the interface was made anew
	now = now.Add(2 * time.Second)
	if got := m.sent("eth0"); got != 0 {
		t.Errorf("sent after the counter began anew = %v", got)
	}
	write("sys/class/net/eth0/speed", "-1\n")
	if got := m.speed("eth0"); got != 0 {
		t.Errorf("speed without a link = %v", got)
	}
}

func TestBusy(t *testing.T) {
	for _, c := range []struct {
		l    api.Load
		want float64
	}{
		{api.Load{}, 0},
		{api.Load{CPU: 0.5, Loading: 16, Limit: 64}, 0.5},
		{api.Load{CPU: 0.25, Loading: 64, Waiting: 32, Limit: 64}, 1.5},
		{api.Load{Loading: 10}, 0},
		{api.Load{Sent: 100, Speed: 1000}, 0.8},
		{api.Load{CPU: -3}, 0},
	} {
		if got := c.l.Busy(); got != c.want {
			t.Errorf("Busy(%+v) = %v, want %v", c.l, got, c.want)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package leases_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Machines renew so often that the journals are turned over several times. After
// a crash at the end each has what it was last told, and so after a second crash
// that follows at once.
func TestCrashAfterManyRenewals(t *testing.T) {
	const clients, rounds = 100, 40
	dir := t.TempDir()
	path := filepath.Join(dir, "leases.db")
	p := newPool(t, open(t, path), "10.0.0.1", "10.0.0.250")
	told := make([]time.Time, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			client := fmt.Sprintf("client %d, with a name that fills the journal %0400d", i, i)
			a, _, err := p.Offer(client, addr("10.0.0.1"))
			for r := range rounds {
				d := time.Duration(r+1) * time.Hour
				told[i] = time.Now().Add(d).Round(time.Second)
				if err == nil {
					err = tryBind(p, client, a.String(), d)
				}
			}
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, cut := range []string{"cut1", "cut2"} {
		to := filepath.Join(dir, cut)
		copyStore(t, path, to)
		path = to
		got := open(t, path).All()
		if len(got) != clients {
			t.Fatalf("%s: %d leases, want %d", cut, len(got), clients)
		}
		for _, l := range got {
			var i int
			if _, err := fmt.Sscanf(l.Client, "client %d,", &i); err != nil {
				t.Fatalf("client %q", l.Client)
			}
			if d := l.Expires.Sub(told[i]); d.Abs() > 30*time.Minute {
				t.Errorf("%s: %v expires at %v, the client was told %v", cut, l.Addr, l.Expires, told[i])
			}
		}
	}
}

// The power goes while a batch is written: it is lost, and nothing before it.
func TestTornFrame(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leases.db")
	p := newPool(t, open(t, path), "10.0.0.1", "10.0.0.250")
	const n = 5
	for i := range n {
		client := fmt.Sprintf("client %d", i)
		bind(t, p, client, offer(t, p, client, ""), time.Hour)
	}
	for _, c := range []struct {
		name string
		harm func(b []byte, last int)
		want int
	}{
		{"whole", func([]byte, int) {}, n},
		{"last frame half written", func(b []byte, last int) { clear(b[last+40 : last+512]) }, n - 1},
		{"last frame not begun", func(b []byte, last int) { clear(b[last : last+512]) }, n - 1},
		{"wrong length", func(b []byte, last int) { b[last+12] = 0xff }, n - 1},
		{"another generation", func(b []byte, last int) { b[last+5]++ }, n - 1},
		{"first frame damaged", func(b []byte, _ int) { b[100]++ }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := filepath.Join(t.TempDir(), "cut.db")
			copyStore(t, path, to)
			b, err := os.ReadFile(to + ".journal0")
			if err != nil {
				t.Fatal(err)
			}
			c.harm(b, bytes.LastIndex(b, []byte("SLJ1")))
			if err := os.WriteFile(to+".journal0", b, 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, to)
			if got := len(s.All()); got != c.want {
				t.Errorf("%d leases, want %d", got, c.want)
			}
			p := newPool(t, s, "10.0.0.1", "10.0.0.250")
			bind(t, p, "new", offer(t, p, "new", ""), time.Hour)
		})
	}
}

// FuzzJournal opens a store beside a journal of any bytes.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "leases.db")
	s := open(f, path)
	s.Close()
	empty, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("SLJ1\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0a\x00\x00\x00\x00\x0a\x00\x00\x01\x00\x02{}"))
	f.Fuzz(func(t *testing.T, journal []byte) {
		path := filepath.Join(t.TempDir(), "leases.db")
		for name, b := range map[string][]byte{path: empty, path + ".journal0": journal} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		open(t, path).Close()
	})
}

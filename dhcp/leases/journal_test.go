// SPDX-License-Identifier: GPL-2.0-or-later

package leases_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"slate/dhcp/leases"
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

// Nobody is told that a lease is his before it is on disk; and nobody at all if the
// disk fails. What waited meanwhile is written by the next write.
func TestLeaseWaitsForTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	s := open(t, path)
	p := newPool(t, s, "10.0.0.1", "10.0.0.250")
	disk := &leases.Disk{Entered: make(chan struct{}), Let: make(chan error)}
	s.Through(disk)
	told := make(chan string, 10)
	take := func(client string) {
		t.Helper()
		a := offer(t, p, client, "")
		l := leases.Lease{Addr: addr(a), Client: client, Expires: time.Now().Add(time.Hour)}
		if err := p.BindThen(l, func(err error) { told <- fmt.Sprint(client, " ", err) }); err != nil {
			t.Fatal(err)
		}
		go s.Flush()
	}
	quiet := func() {
		t.Helper()
		select {
		case got := <-told:
			t.Fatalf("%s: told before the write had ended", got)
		default:
		}
	}
	want := func(list ...string) {
		t.Helper()
		for _, w := range list {
			if got := <-told; got != w {
				t.Errorf("told %q, want %q", got, w)
			}
		}
	}
	take("a")
	<-disk.Entered
	take("b")
	take("c")
	quiet()
	disk.Let <- nil
	want("a <nil>")
	<-disk.Entered
	quiet()
	disk.Let <- errors.New("the disk is on fire")
	want("b the disk is on fire", "c the disk is on fire")
	take("d")
	<-disk.Entered
	disk.Let <- nil
	want("d <nil>")

	cut := filepath.Join(t.TempDir(), "cut.db")
	copyStore(t, path, cut)
	var have []string
	for _, l := range open(t, cut).All() {
		have = append(have, l.Client)
	}
	if got := strings.Join(have, " "); got != "a d" {
		t.Errorf("after a power cut there are leases of %q, want those of a and d, who were told so", got)
	}
	go func() { // the test's end closes the store
		for range disk.Entered {
			disk.Let <- nil
		}
	}()
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

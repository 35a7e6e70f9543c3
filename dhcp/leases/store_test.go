// SPDX-License-Identifier: GPL-2.0-or-later

package leases_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"slate/dhcp/leases"
)

func open(t testing.TB, path string) *leases.Store {
	t.Helper()
	s, err := leases.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestLeasesSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	s := open(t, path)
	p := newPool(t, s, "10.0.0.10", "10.0.0.20")
	bind(t, p, "a", offer(t, p, "a", ""), time.Hour)
	bind(t, p, "b", offer(t, p, "b", ""), time.Hour)
	bind(t, p, "c", offer(t, p, "c", ""), time.Hour)
	p.Release("b", addr("10.0.0.11"))
	p.Decline("c", addr("10.0.0.12"), time.Now().Add(time.Hour))
	offer(t, p, "d", "") // an offer is not kept
	before := s.All()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tryBind(p, "a", "10.0.0.10", time.Hour); !errors.Is(err, leases.ErrClosed) {
		t.Errorf("Bind after Close: %v, want ErrClosed", err)
	}

	s = open(t, path)
	if diff := cmp.Diff(before[:3], s.All(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("after the restart (-before +after):\n%s", diff)
	}
	p = newPool(t, s, "10.0.0.10", "10.0.0.20")
	for _, c := range []struct{ client, want string }{
		{"a", "10.0.0.10"},
		{"e", "10.0.0.13"}, // never used ones first, though .11 was given back
		{"b", "10.0.0.11"},
	} {
		if got := offer(t, p, c.client, ""); got != c.want {
			t.Errorf("after the restart Offer(%q) = %s, want %s", c.client, got, c.want)
		}
	}
}

// What Bind has confirmed is in the files at that very moment: a copy of them
// taken then, as a power cut would leave it, has the lease.
func TestLeaseIsOnDiskWhenBindReturns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leases.db")
	p := newPool(t, open(t, path), "10.0.0.1", "10.0.0.250")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			client := fmt.Sprintf("c%d", i)
			a, _, err := p.Offer(client, netip.Addr{})
			if err == nil {
				err = tryBind(p, client, a.String(), time.Hour)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	bind(t, p, "last", offer(t, p, "last", ""), time.Hour)
	cut := filepath.Join(dir, "cut.db")
	copyStore(t, path, cut)
	got := open(t, cut).All()
	if len(got) != 17 {
		t.Errorf("%d leases in the copy, want 17", len(got))
	}
}

// copyStore takes the files as they are, while the store is at work. The database
// comes last: what is copied of the journals before it is newer then.
func copyStore(t *testing.T, from, to string) {
	t.Helper()
	copyFile(t, from+".journal0", to+".journal0")
	copyFile(t, from+".journal1", to+".journal1")
	copyFile(t, from, to)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	open(t, path)
	_, err := leases.Open(path, nil)
	var hint interface{ Hint() string }
	if err == nil || !strings.Contains(err.Error(), "in use by another process") || !errors.As(err, &hint) {
		t.Errorf("second Open: %v, want an error with a hint that the file is in use", err)
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := leases.Open(path, nil)
	var hint interface{ Hint() string }
	if err == nil || !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "move it away") {
		t.Errorf("Open of a damaged file: %v, want an error that says what to do", err)
	}
	if _, err := leases.Open(filepath.Join(path, "x"), nil); err == nil || errors.As(err, &hint) && strings.Contains(hint.Hint(), "damaged") {
		t.Errorf("Open below a file: %v, want the system's error", err)
	}
}

// Pages that do not make sense must end in an error, not in a panic: every
// damage to any 2048 bytes of a file is tried.
func TestDamagedPages(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leases.db")
	s := open(t, path)
	p := newPool(t, s, "10.0.0.1", "10.0.0.250")
	for i := range 40 {
		client := fmt.Sprintf("client %d", i)
		bind(t, p, client, offer(t, p, client, ""), time.Hour)
	}
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(good); off += 2048 {
		bad := append([]byte(nil), good...)
		for i := range min(2048, len(good)-off) {
			bad[off+i] = byte(i*7 + off)
		}
		bp := filepath.Join(dir, "bad.db")
		if err := os.WriteFile(bp, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := leases.Open(bp, nil); err == nil {
			s.Close()
		}
		os.Remove(bp)
	}
}

// A clock that was ahead when the lease was made must not keep the address for
// as long as it was ahead.
func TestClockWentBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	s := open(t, path) // with the real clock: decades after a synctest bubble's
	p := newPool(t, s, "10.0.0.10", "10.0.0.10")
	bind(t, p, "a", offer(t, p, "a", ""), time.Hour)
	s.Close()
	synctest.Test(t, func(t *testing.T) {
		s, err := leases.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		p := newPool(t, s, "10.0.0.10", "10.0.0.10")
		if _, _, err := p.Offer("b", netip.Addr{}); !errors.Is(err, leases.ErrExhausted) {
			t.Errorf("Offer: %v, want ErrExhausted: a still has it", err)
		}
		time.Sleep(time.Hour)
		if got := offer(t, p, "b", ""); got != "10.0.0.10" {
			t.Errorf("Offer = %s", got)
		}
	})
}

func TestTenThousandLeasesOpenQuickly(t *testing.T) {
	const n = 10_000
	path := filepath.Join(t.TempDir(), "leases.db")
	s := open(t, path)
	r := leases.Range{Prefix: netip.MustParsePrefix("10.8.0.0/16"), First: addr("10.8.0.1"), Last: addr("10.8.255.254")}
	p, err := s.Pool(r)
	if err != nil {
		t.Fatal(err)
	}
	bindMany(t, p, n)
	s.Close()
	start := time.Now()
	s = open(t, path)
	if _, err := s.Pool(r); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("%d leases read in %v", n, took)
	if took > 2*time.Second {
		t.Errorf("reading %d leases took %v, want less than 2 s", n, took)
	}
	if got := len(s.All()); got != n {
		t.Errorf("%d leases after the restart, want %d", got, n)
	}
}

// bindMany gives n clients a lease, 64 at a time.
func bindMany(t testing.TB, p *leases.Pool, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < n; i += 64 {
				client := fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255)
				a, _, err := p.Offer(client, netip.Addr{})
				if err == nil {
					err = p.Bind(leases.Lease{Addr: a, Client: client, MAC: client, Expires: time.Now().Add(time.Hour)})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkBind measures durable leases with as many clients waiting at once.
func BenchmarkBind(b *testing.B) {
	for _, clients := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "leases.db"))
			p, err := s.Pool(leases.Range{Prefix: netip.MustParsePrefix("10.0.0.0/8"), First: addr("10.0.0.1"), Last: addr("10.255.255.254")})
			if err != nil {
				b.Fatal(err)
			}
			var next sync.Mutex
			left := b.N
			b.ResetTimer()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for {
						next.Lock()
						left--
						i := left
						next.Unlock()
						if i < 0 {
							return
						}
						client := fmt.Sprintf("client %d", i)
						a, _, err := p.Offer(client, netip.Addr{})
						if err == nil {
							err = p.Bind(leases.Lease{Addr: a, Client: client, Expires: time.Now().Add(time.Hour)})
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "leases/s")
		})
	}
}

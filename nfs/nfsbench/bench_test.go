// SPDX-License-Identifier: GPL-2.0-or-later

// Package nfsbench measures the NFS export against nfs-ganesha: one load, one
// tree, one page cache, the servers taking turns. It has tests only.
//
//	go test ./nfs/nfsbench -v -nfsbench -tree DIR [-trace FILE] [-cells REGEXP] [-rounds N] [-profile FILE]
//
// DIR is a root file system, such as a Debian made by mmdebstrap. Without it a
// tree of a similar shape is made. FILE is what nfs.Server.Trace has recorded
// of a boot; without it a recorded boot of a Debian 12 is replayed, and without
// the tree for that, a mix of operations like that of a boot.
//
//	go test ./nfs/nfsbench -v -run Record -record FILE -tree DIR
//
// boots a machine from DIR and records what it asks for.
package nfsbench

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slate/testbed/labtest"
	"slate/testbed/netns"
)

var (
	bench    = flag.Bool("nfsbench", false, "measure; without it only the load client is tested")
	treeDir  = flag.String("tree", "", "root file system to serve")
	trace    = flag.String("trace", "", "recorded boot to replay")
	cellsRE  = flag.String("cells", ".", "measure the cells that match")
	rounds   = flag.Int("rounds", 5, "repetitions, of which the median counts")
	duration = flag.Duration("duration", time.Second, "of each READ cell")
	profile  = flag.String("profile", "", "write a CPU profile of our server")
	alone    = flag.Bool("alone", false, "measure our server only")
	withGo   = flag.Bool("gonfs", false, "measure go-nfs alone too")
)

const profileEnv = "SLATE_NFSBENCH_PROFILE"

func TestMain(m *testing.M) {
	if exports := os.Getenv(serveEnv); exports != "" {
		if err := serveMain(exports); err != nil {
			fmt.Fprintln(os.Stderr, "nfsbench server:", err)
			os.Exit(1)
		}
		return
	}
	netns.Main(m)
}

func startProfile(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// bigSize is the size of the file that READ is measured with.
const bigSize = 256 << 20

// target is a server with what the load needs to know about its handles.
type target struct {
	*server
	root    []byte
	big     []byte
	handles map[string][]byte // by path; "." is the root
	boot    []call
	mix     []call
}

func (tg *target) prepare(t testing.TB, rootPath, bigPath, boot, mix string) {
	t.Helper()
	start := time.Now()
	var err error
	if tg.root, err = mount(tg.mount, rootPath); err != nil {
		t.Fatalf("%s: %v", tg.name, err)
	}
	bigRoot, err := mount(tg.mount, bigPath)
	if err != nil {
		t.Fatalf("%s: %v", tg.name, err)
	}
	s, err := open(tg.nfs)
	if err != nil {
		t.Fatal(err)
	}
	defer s.nc.Close()
	big := entry{name: "big"}
	if err := s.look(bigRoot, &big); err != nil {
		t.Fatalf("%s: %v", tg.name, err)
	}
	tg.big = big.fh
	tg.handles = map[string][]byte{".": tg.root}
	if err := tg.learn(s, tg.root, "."); err != nil {
		t.Fatalf("%s: %v", tg.name, err)
	}
	t.Logf("%s: mounted and walked for the first time, %d objects, in %v", tg.name, len(tg.handles), time.Since(start).Round(time.Millisecond))
	tg.boot = tg.load(t, boot)
	tg.mix = tg.load(t, mix)
}

func (tg *target) load(t testing.TB, trace string) []call {
	t.Helper()
	calls, missing, err := loadTrace(strings.NewReader(trace), tg.handles)
	if err != nil {
		t.Fatal(err)
	}
	if missing > 0 {
		t.Logf("%s: %d of %d operations of a trace are on objects that are not in the tree", tg.name, missing, missing+len(calls))
	}
	return calls
}

func (tg *target) learn(s *session, dir []byte, at string) error {
	entries, err := s.listPlus(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	for _, e := range entries {
		p := path.Join(at, e.name)
		tg.handles[p] = e.fh
		if e.dir {
			if err := tg.learn(s, e.fh, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// outcome of one run of a cell.
type outcome struct {
	result
	seconds  float64
	cpu      time.Duration
	units    float64 // what CPU and speed are counted in
	rss      int64   // most memory used
	p50, p99 time.Duration
}

// cell is one load.
type cell struct {
	name string
	unit string // MB, op, boot, walk
	run  func(*target) (result, float64, error)
}

// parallel runs one load on several connections.
func parallel(addr string, conns, depth int, next func(conn int) source) (total result, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			r, e := run(addr, depth, next(i))
			mu.Lock()
			defer mu.Unlock()
			total.add(r)
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	return total, err
}

// reads is READ for a time, from one place on or from anywhere in the file.
func reads(size, depth, conns int, random bool) cell {
	kind := "seq"
	if random {
		kind = "random"
	}
	unit := "MB"
	if size <= 4096 {
		unit = "op"
	}
	return cell{fmt.Sprintf("READ %d KiB %s depth=%d conns=%d", size>>10, kind, depth, conns), unit, func(tg *target) (result, float64, error) {
		var stop atomic.Bool
		timer := time.AfterFunc(*duration, func() { stop.Store(true) })
		defer timer.Stop()
		r, err := parallel(tg.nfs, conns, depth, func(conn int) source {
			rnd := rand.New(rand.NewPCG(uint64(conn), 7))
			at := int64(conn) * (bigSize / 64)
			c := readCall(tg.big, 0, uint32(size))
			off := len(c) - 12
			return func() call {
				if stop.Load() {
					return nil
				}
				if random {
					at = rnd.Int64N(bigSize/int64(size)) * int64(size)
				}
				for i := range 8 {
					c[off+i] = byte(at >> (56 - 8*i))
				}
				at = (at + int64(size)) % bigSize
				return c
			}
		})
		if unit == "MB" {
			return r, float64(r.bytes) / 1e6, err
		}
		return r, float64(r.ops), err
	}}
}

// walks reads a tree, one call at a time on each of conns connections.
func walks(plus bool, top string, conns, times int) cell {
	name := "READDIRPLUS walk"
	if !plus {
		name = "READDIR+LOOKUP+GETATTR walk"
	}
	return cell{fmt.Sprintf("%s of %s conns=%d", name, top, conns), "walk", func(tg *target) (total result, units float64, err error) {
		for range times {
			r, err := walk(tg, plus, tg.handles[top], conns)
			if err != nil {
				return r, 0, err
			}
			total.add(r)
		}
		return total, float64(times), nil
	}}
}

func walk(tg *target, plus bool, top []byte, conns int) (total result, err error) {
	queue := make(chan []byte, 1<<16)
	queue <- top
	var left atomic.Int64
	left.Store(1)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			s, e := open(tg.nfs)
			if e == nil {
				defer s.nc.Close()
				for dir := range queue {
					var entries []entry
					if plus {
						entries, e = s.listPlus(dir)
					} else {
						entries, e = s.listPlain(dir)
					}
					for _, x := range entries {
						if x.dir {
							left.Add(1)
							queue <- x.fh
						}
					}
					if left.Add(-1) == 0 || e != nil {
						close(queue)
						break
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if e != nil {
				err = e
			} else {
				total.add(result{ops: s.ops, latencies: s.lat})
			}
		})
	}
	wg.Wait()
	return total, err
}

// boots replays the trace for a number of clients, four calls in flight each.
func boots(clients, times int, mixed bool) cell {
	name := "boot replay"
	if mixed {
		name = "default options mix"
	}
	return cell{fmt.Sprintf("%s clients=%d", name, clients), "boot", func(tg *target) (result, float64, error) {
		calls := tg.boot
		if mixed {
			calls = tg.mix
		}
		r, err := parallel(tg.nfs, clients, 4, func(int) source {
			i := 0
			return func() call {
				if i == len(calls)*times {
					return nil
				}
				i++
				return calls[(i-1)%len(calls)]
			}
		})
		return r, float64(clients * times), err
	}}
}

var cells = []cell{
	boots(1, 8, false), boots(8, 4, false), boots(64, 2, false), boots(1, 4, true), boots(8, 2, true), boots(64, 1, true),
	reads(1<<20, 1, 1, false), reads(1<<20, 8, 1, false), reads(1<<20, 32, 1, false),
	reads(1<<20, 8, 4, false), reads(1<<20, 8, 16, false), reads(1<<20, 8, 64, false),
	reads(16<<10, 8, 4, false), reads(32<<10, 8, 4, false), reads(64<<10, 8, 4, false), reads(128<<10, 1, 1, false), reads(128<<10, 8, 4, false), reads(128<<10, 32, 16, false),
	reads(4096, 1, 1, true), reads(4096, 8, 4, true), reads(4096, 32, 1, true), reads(4096, 32, 4, true), reads(4096, 8, 64, true),
	walks(true, ".", 1, 2), walks(true, ".", 16, 4), walks(false, "etc", 1, 5), walks(false, "etc", 16, 10), walks(false, ".", 1, 1),
}

// measure runs a cell once.
func measure(t testing.TB, tg *target, c cell) outcome {
	t.Helper()
	tg.resetPeak()
	before, start := tg.cpu(t), time.Now()
	r, units, err := c.run(tg)
	o := outcome{result: r, units: units, seconds: time.Since(start).Seconds(), cpu: tg.cpu(t) - before}
	if err != nil {
		t.Fatalf("%s: %s: %v", tg.name, c.name, err)
	}
	_, o.rss = tg.rss()
	if len(r.latencies) > 0 {
		slices.Sort(r.latencies)
		o.p50, o.p99 = r.latencies[len(r.latencies)/2], r.latencies[len(r.latencies)*99/100]
	}
	o.latencies = nil
	return o
}

// setPlainTCP takes a congestion control without pacing, in our own namespace:
// a kernel set to BBR paces even the loopback, and stops it for 200 ms now and
// then, which says nothing about servers. Not every one is allowed in here.
func setPlainTCP(t testing.TB) {
	t.Helper()
	const file = "/proc/sys/net/ipv4/tcp_congestion_control"
	for _, name := range []string{"cubic", "reno"} {
		if os.WriteFile(file, []byte(name), 0) == nil {
			break
		}
	}
	now, _ := os.ReadFile(file)
	t.Logf("congestion control: %s", strings.TrimSpace(string(now)))
}

func median(all []outcome, f func(outcome) float64) float64 {
	v := make([]float64, len(all))
	for i, o := range all {
		v[i] = f(o)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func TestBench(t *testing.T) {
	if !*bench {
		t.Skip("measures for minutes; run it with -nfsbench")
	}
	re := regexp.MustCompile(*cellsRE)
	if !*alone {
		labtest.NeedRoot(t)
		labtest.Need(t, "ganesha.nfsd", "rpcbind")
	}
	setPlainTCP(t)
	targets := startTargets(t)
	var table strings.Builder
	table.WriteString("| load | server | units/s | CPU per unit | op p50 ms | op p99 ms | most memory MB | errors | speed ratio | CPU ratio |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range cells {
		if !re.MatchString(c.name) {
			continue
		}
		got := make([][]outcome, len(targets))
		for round := range *rounds {
			for i := range targets {
				k := (i + round) % len(targets)
				got[k] = append(got[k], measure(t, targets[k], c))
			}
		}
		row(&table, c, targets, got)
	}
	t.Logf("medians of %d rounds\n%s", *rounds, table.String())
}

// row writes the lines of one cell; the last target is what is compared to.
func row(w *strings.Builder, c cell, targets []*target, got [][]outcome) {
	speed := func(o outcome) float64 { return o.units / o.seconds }
	cost := func(o outcome) float64 { return o.cpu.Seconds() / o.units }
	base := got[len(got)-1]
	for i, tg := range targets {
		var errs int64
		for _, o := range got[i] {
			errs += o.errors
		}
		perUnit := fmt.Sprintf("%.1f µs/%s", median(got[i], cost)*1e6, c.unit)
		if c.unit == "MB" {
			perUnit = fmt.Sprintf("%.3f s/GB", median(got[i], cost)*1e3)
		} else if c.unit != "op" {
			perUnit = fmt.Sprintf("%.1f ms/%s", median(got[i], cost)*1e3, c.unit)
		}
		fmt.Fprintf(w, "| %s | %s | %.4g %s/s | %s | %.3f | %.3f | %.0f | %d | %.2f | %.2f |\n", c.name, tg.name,
			median(got[i], speed), c.unit, perUnit,
			median(got[i], func(o outcome) float64 { return o.p50.Seconds() * 1e3 }),
			median(got[i], func(o outcome) float64 { return o.p99.Seconds() * 1e3 }),
			median(got[i], func(o outcome) float64 { return float64(o.rss) / 1e6 }), errs,
			median(got[i], speed)/median(base, speed), median(got[i], cost)/median(base, cost))
	}
}

func startTargets(t testing.TB) []*target {
	t.Helper()
	dir := *treeDir
	if dir == "" {
		dir = makeTree(t)
	}
	bigDir := t.TempDir()
	makeBig(t, filepath.Join(bigDir, "big"), bigSize)
	boot, mix := readTrace(t, dir)
	warm(t, dir)
	warm(t, bigDir)

	os.Setenv(profileEnv, *profile)
	slate := &target{server: startSlate(t, fmt.Sprintf("/root/1=%s,/big/1=%s", dir, bigDir))}
	slate.prepare(t, "/root/1", "/big/1", boot, mix)
	targets := []*target{slate}
	if *withGo {
		exports := fmt.Sprintf("/root/1=%s,/big/1=%s", dir, bigDir)
		plain := &target{server: startSlate(t, exports, goEnv+"=1", profileEnv+"=")}
		plain.name = "go-nfs"
		plain.prepare(t, "/root/1", "/big/1", boot, mix)
		targets = append(targets, plain)
	}
	if !*alone {
		ganesha := &target{server: startGanesha(t, dir, bigDir)}
		ganesha.prepare(t, dir, bigDir, boot, mix)
		targets = append(targets, ganesha)
	}
	return targets
}

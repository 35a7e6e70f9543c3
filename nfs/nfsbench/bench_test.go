// SPDX-License-Identifier: GPL-2.0-or-later

// Package nfsbench measures the NFS export against nfs-ganesha: one load, one
// tree, one page cache, the servers taking turns. It has tests only.
//
//	go test ./nfs/nfsbench -v -nfsbench -tree DIR [-trace FILE] [-cells REGEXP] [-rounds N] [-results FILE] [-profile FILE]
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
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"slate/testbed/labtest"
	"slate/testbed/netns"
)

var (
	bench       = flag.Bool("nfsbench", false, "measure; without it only the load client is tested")
	treeDir     = flag.String("tree", "", "root file system to serve")
	trace       = flag.String("trace", "", "recorded boot to replay")
	cellsRE     = flag.String("cells", ".", "measure the cells that match")
	resultsFile = flag.String("results", "", "keep what is measured in this file, and do not measure again what is in it")
	rounds      = flag.Int("rounds", 5, "repetitions, of which the median counts")
	duration    = flag.Duration("duration", time.Second, "of each READ cell")
	profile     = flag.String("profile", "", "write a CPU profile of our server")
	alone       = flag.Bool("alone", false, "measure our server only")
	withGo      = flag.Bool("gonfs", false, "measure go-nfs alone too")
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
	rootPath string
	root     []byte
	big      []byte
	handles  map[string][]byte // by path; "." is the root
	boot     []call
	mix      []call
	idle     int64 // memory before any load
}

func (tg *target) prepare(t testing.TB, rootPath, bigPath, boot, mix string) {
	t.Helper()
	start := time.Now()
	tg.rootPath = rootPath
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
	tg.idle, _ = tg.rss()
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

// measure runs a cell once.
func measure(t testing.TB, tg *target, c cell) outcome {
	t.Helper()
	if c.cold && tg.again != nil {
		fresh, stop := tg.again(t)
		defer stop()
		tg = &target{server: fresh, rootPath: tg.rootPath}
	}
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

// summary is what the rounds of a cell gave: medians, and the sum of errors.
type summary struct {
	Speed, Cost float64 // units per second, seconds of CPU per unit
	P50, P99    float64 // milliseconds
	Most, Above float64 // bytes of memory, and of them above those when idle
	Errors      int64
}

func summarize(all []outcome, idle int64) summary {
	median := func(f func(outcome) float64) float64 {
		v := make([]float64, len(all))
		for i, o := range all {
			v[i] = f(o)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	s := summary{
		Speed: median(func(o outcome) float64 { return o.units / o.seconds }),
		Cost:  median(func(o outcome) float64 { return o.cpu.Seconds() / o.units }),
		P50:   median(func(o outcome) float64 { return o.p50.Seconds() * 1e3 }),
		P99:   median(func(o outcome) float64 { return o.p99.Seconds() * 1e3 }),
		Most:  median(func(o outcome) float64 { return float64(o.rss) }),
	}
	s.Above = s.Most - float64(idle)
	for _, o := range all {
		s.Errors += o.errors
	}
	return s
}

func TestBench(t *testing.T) {
	if !*bench {
		t.Skip("measures for minutes; run it with -nfsbench")
	}
	chosen := chooseCells(t)
	if !*alone {
		labtest.NeedRoot(t)
		labtest.Need(t, "ganesha.nfsd", "rpcbind")
	}
	res := loadResults(t)
	chosen = slices.DeleteFunc(chosen, func(c cell) bool { return res[c.name] != nil })
	if len(chosen) > 0 {
		setPlainTCP(t)
		targets := startTargets(t)
		for _, c := range chosen {
			res[c.name] = compare(t, c, targets)
			res.save(t)
			t.Logf("%s", rows(c, res[c.name]))
		}
	}
	table := "| load | server | units/s | CPU per unit | op p50 ms | op p99 ms | most memory MB | errors | speed ratio | CPU ratio |\n|---|---|---|---|---|---|---|---|---|---|\n"
	for _, c := range cells() {
		table += rows(c, res[c.name])
	}
	t.Logf("medians of %d rounds\n%s", *rounds, table)
	t.Logf("what is asked, as far as these cells tell\n%s", verdicts(res))
}

// compare measures a cell on all targets, which take turns.
func compare(t testing.TB, c cell, targets []*target) map[string]summary {
	t.Helper()
	got := make([][]outcome, len(targets))
	for round := range *rounds {
		for i := range targets {
			k := (i + round) % len(targets)
			got[k] = append(got[k], measure(t, targets[k], c))
		}
	}
	res := map[string]summary{}
	for i, tg := range targets {
		res[tg.name] = summarize(got[i], tg.idle)
	}
	return res
}

// loadResults returns what is in the file that -results names.
func loadResults(t testing.TB) results {
	t.Helper()
	res := results{}
	if *resultsFile == "" {
		return res
	}
	data, err := os.ReadFile(*resultsFile)
	if errors.Is(err, os.ErrNotExist) {
		return res
	}
	if err == nil {
		err = json.Unmarshal(data, &res)
	}
	if err != nil {
		t.Fatalf("-results: %v", err)
	}
	return res
}

func (r results) save(t testing.TB) {
	t.Helper()
	if *resultsFile == "" {
		return
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = os.WriteFile(*resultsFile, data, 0o644)
	}
	if err != nil {
		t.Fatalf("-results: %v", err)
	}
}

// chooseCells returns the cells that -cells names.
func chooseCells(t testing.TB) (chosen []cell) {
	re, err := regexp.Compile(*cellsRE)
	if err != nil {
		t.Fatalf("-cells: %v", err)
	}
	var names []string
	for _, c := range cells() {
		names = append(names, c.name)
		if re.MatchString(c.name) {
			chosen = append(chosen, c)
		}
	}
	if chosen == nil {
		t.Fatalf("-cells %q matches none of:\n%s", *cellsRE, strings.Join(names, "\n"))
	}
	return chosen
}

// servers are the names of targets, in the order of the table.
var servers = []string{"slate", "go-nfs", "ganesha"}

// rows are the lines of one cell, compared to ganesha where it was measured.
func rows(c cell, got map[string]summary) string {
	var b strings.Builder
	base, compared := got["ganesha"]
	for _, name := range servers {
		s, ok := got[name]
		if !ok {
			continue
		}
		perUnit := fmt.Sprintf("%.1f µs/%s", s.Cost*1e6, c.unit)
		if c.unit == "MB" {
			perUnit = fmt.Sprintf("%.3f s/GB", s.Cost*1e3)
		} else if c.unit != "op" {
			perUnit = fmt.Sprintf("%.1f ms/%s", s.Cost*1e3, c.unit)
		}
		ratios := "|"
		if compared {
			ratios = fmt.Sprintf("%.2f | %.2f", s.Speed/base.Speed, s.Cost/base.Cost)
		}
		fmt.Fprintf(&b, "| %s | %s | %.4g %s/s | %s | %.3f | %.3f | %.0f | %d | %s |\n", c.name, name,
			s.Speed, c.unit, perUnit, s.P50, s.P99, s.Most/1e6, s.Errors, ratios)
	}
	return b.String()
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
	exports := fmt.Sprintf("/root/1=%s,/big/1=%s", dir, bigDir)
	slate := &target{server: startSlate(t, exports)}
	slate.prepare(t, "/root/1", "/big/1", boot, mix)
	targets := []*target{slate}
	if *withGo {
		plain := &target{server: startSelf(t, "go-nfs", goEnv+"=1", profileEnv+"=", serveEnv+"="+exports)}
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

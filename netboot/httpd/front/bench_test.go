// SPDX-License-Identifier: GPL-2.0-or-later

package front

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"slate/images"
)

var (
	peers   = flag.Int("front.peers", 0, "rounds of the comparison with nginx; 0: none")
	seconds = flag.Float64("front.seconds", 2, "how long each load lasts")
)

// The test binary is the server that is measured, in a process of its own.
const envServe = "SLATE_FRONT_SERVE"

func TestMain(m *testing.M) {
	dir := os.Getenv(envServe)
	if dir == "" {
		os.Exit(m.Run())
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	f := files{dir}
	srv := &http.Server{Handler: f.handler()}
	if os.Getenv("SLATE_FRONT_PLAIN") != "" {
		panic(srv.Serve(l))
	}
	s := &Server{Prefix: prefix, Path: f.path}
	go srv.Serve(s.Rest(l.Addr()))
	panic(s.Serve(context.Background(), l, time.Second))
}

// A peer is a server under load.
type peer struct {
	name, addr string
	pids       []int
}

func startGo(t *testing.T, name, dir string, env ...string) peer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), envServe+"="+dir), env...)
	cmd.ExtraFiles = []*os.File{file}
	startPeer(t, cmd)
	return peer{name, l.Addr().String(), []int{cmd.Process.Pid}}
}

func startPeer(t *testing.T, cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
}

func startNginx(t *testing.T, dir string) peer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	work := t.TempDir()
	if err := os.Chmod(filepath.Dir(work), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(work, "nginx.conf")
	os.WriteFile(conf, fmt.Appendf(nil, `daemon off; worker_processes 2; user root; pid %[1]s/pid; error_log stderr crit;
events { worker_connections 4096; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; default_type application/octet-stream;
 client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
 server { listen %[2]s; location %[3]s { alias %[4]s/; } } }
`, work, addr, prefix, dir), 0o644)
	cmd := exec.Command("nginx", "-c", conf, "-p", work)
	startPeer(t, cmd)
	p := peer{"nginx", addr, nil}
	for range 200 {
		out, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid))
		if kids := strings.Fields(string(out)); len(kids) == 2 {
			for _, k := range kids {
				pid, _ := strconv.Atoi(k)
				p.pids = append(p.pids, pid)
			}
			return p
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatal("nginx does not start")
	return p
}

// cpu is the CPU time of the peer so far.
func (p peer) cpu(t *testing.T) (sum time.Duration) {
	for _, pid := range p.pids {
		out, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(out[bytes.LastIndexByte(out, ')')+2:]))
		for _, s := range f[11:13] {
			n, _ := strconv.Atoi(s)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// A result is what one load did to one peer.
type result struct{ perSecond, cpu float64 } // per request, or per GB and MB/s

// load asks for the digests over keep-alive connections until the time is up.
func (p peer) load(t *testing.T, list []images.Digest, clients int, header string) result {
	var wg sync.WaitGroup
	var mu sync.Mutex
	requests, total := 0, int64(0)
	before, start := p.cpu(t), time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	for id := range clients {
		wg.Go(func() {
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReaderSize(c, 256<<10)
			rng := rand.New(rand.NewPCG(1, uint64(id)))
			n, bytes := 0, int64(0)
			var req []byte
			for time.Now().Before(end) {
				d := list[rng.IntN(len(list))]
				req = append(hex.AppendEncode(append(req[:0], "GET "+prefix...), d[:]), " HTTP/1.1\r\nHost: a\r\n"+header+"\r\n"...)
				if _, err := c.Write(req); err != nil {
					t.Error(err)
					return
				}
				size, err := readAnswer(r)
				if err != nil {
					t.Errorf("%s: %v", p.name, err)
					return
				}
				n++
				bytes += size
			}
			mu.Lock()
			requests, total = requests+n, total+bytes
			mu.Unlock()
		})
	}
	wg.Wait()
	took, used := time.Since(start).Seconds(), (p.cpu(t) - before).Seconds()
	if len(list) > 1 {
		return result{float64(requests) / took, 1e6 * used / float64(requests)}
	}
	return result{float64(total) / 1e6 / took, used / (float64(total) / 1e9)}
}

func readAnswer(r *bufio.Reader) (int64, error) {
	size := int64(-1)
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 20")) {
			return 0, fmt.Errorf("answer %q", line)
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			size, _ = strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 64)
		}
		if len(line) == 2 {
			break
		}
	}
	n, err := io.CopyN(io.Discard, r, size)
	return n, err
}

// TestPeers compares with nginx, and with net/http alone, in turns.
func TestPeers(t *testing.T) {
	if *peers == 0 {
		t.Skip("measures only with -front.peers")
	}
	dir := t.TempDir()
	f := files{dir}
	rng := rand.New(rand.NewPCG(1, 2))
	var blobs []images.Digest
	total := 0
	for range 20_000 { // log-normal sizes, about 400 MB
		data := make([]byte, int(math.Exp(rng.NormFloat64()*1.9+8.1)))
		for i := 0; i+8 <= len(data); i += 8 {
			v := rng.Uint64()
			copy(data[i:], []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24), byte(v >> 32), byte(v >> 40), byte(v >> 48), byte(v >> 56)})
		}
		total += len(data)
		blobs = append(blobs, f.put(t, data))
	}
	large := []images.Digest{f.put(t, make([]byte, 60<<20))}
	t.Logf("20 000 blobs, %d MB; one file of 63 MB", total/1e6)
	all := []peer{startGo(t, "slate", dir), startNginx(t, dir), startGo(t, "net/http alone", dir, "SLATE_FRONT_PLAIN=1")}
	fmt.Println("| Load | Server | Requests/s or MB/s | Server CPU | To nginx | CPU to nginx |\n|---|---|---|---|---|---|")
	for _, l := range []struct {
		name   string
		list   []images.Digest
		header string
	}{{"blobs", blobs, ""}, {"63 MB file", large, ""}, {"range of 40 MB of it", large, "Range: bytes=1000000-40999999\r\n"}} {
		for _, clients := range []int{1, 16, 64} {
			got := make([][]result, len(all))
			for range *peers {
				for i, p := range all {
					got[i] = append(got[i], p.load(t, l.list, clients, l.header))
				}
			}
			base := median(got[1])
			unit, per := "requests/s", "µs/request"
			if len(l.list) == 1 {
				unit, per = "MB/s", "s/GB"
			}
			for i, p := range all {
				m := median(got[i])
				fmt.Printf("| %s, %d clients | %s | %.0f %s | %.3g %s | %.2f | %.2f |\n", l.name, clients, p.name, m.perSecond, unit, m.cpu, per, m.perSecond/base.perSecond, m.cpu/base.cpu)
			}
		}
	}
}

func median(list []result) result {
	middle := func(of func(result) float64) float64 {
		var v []float64
		for _, r := range list {
			v = append(v, of(r))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return result{middle(func(r result) float64 { return r.perSecond }), middle(func(r result) float64 { return r.cpu })}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/process"
)

// peer is a further appliance of the site, on a host of its own: the same key,
// images and config.d, no DHCP.
type peer struct {
	*site
	host *lab.Host
	http string // address and port of its own HTTP
}

func (s *site) peer(name, addr string, httpPort string) *peer {
	s.t.Helper()
	host, err := s.AddHost(name, lab.Port{Bridge: lab.MainBridge, Addr: netip.MustParsePrefix(addr + "/24")})
	if err != nil {
		s.t.Fatal(err)
	}
	p := &peer{site: s.twin(host, "[network]\ninterface = \"eth0\"\n[dhcp]\nmode = \"off\"\n[http]\nport = "+httpPort+"\n"), host: host, http: addr + ":" + httpPort}
	p.base = "http://" + p.http
	p.proc, err = host.StartSpec(s.t.Context(), process.Spec{Name: name, Argv: p.args("serve"),
		Ready: &process.Ready{Notify: filepath.Join(s.Dir(), "notify-"+name)}})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// twin sets up, and does not start, one more appliance of the site: the same key,
// images and config.d, settings of its own.
func (s *site) twin(on starter, settings string) *site {
	s.t.Helper()
	w := &site{Lab: s.Lab, t: s.t, dir: s.t.TempDir(), on: on}
	for _, copied := range []string{"data/images", "config.d"} {
		if err := os.CopyFS(filepath.Join(w.dir, copied), os.DirFS(filepath.Join(s.dir, copied))); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, sub := range []string{"blobs", "trees"} {
		to, err := os.Readlink(filepath.Join(s.dir, "data", sub))
		if err == nil {
			err = os.Symlink(to, filepath.Join(w.dir, "data", sub))
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	for _, key := range []string{"site.key", "site.key.pub"} {
		b, err := os.ReadFile(filepath.Join(s.dir, key))
		if err == nil {
			err = os.WriteFile(filepath.Join(w.dir, key), b, 0o600)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	settings = "config = \"config.d\"\nkey = \"site.key\"\n" + settings
	if err := os.WriteFile(filepath.Join(w.dir, "slate.toml"), []byte(settings), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return w
}

// slowly passes connections to addr on to the appliance, each piece late, until
// the test ends.
func (p *peer) slowly(addr string, late time.Duration) {
	p.t.Helper()
	l, err := p.host.NS().Listen("tcp", addr)
	if err != nil {
		p.t.Fatal(err)
	}
	var all sync.WaitGroup
	p.t.Cleanup(func() { l.Close(); all.Wait() })
	pass := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			<-time.After(late)
			if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := p.host.NS().DialContext(p.t.Context(), "tcp", p.http)
			if err != nil {
				in.Close()
				continue
			}
			p.t.Cleanup(func() { in.Close(); out.Close() })
			all.Go(func() { pass(out, in) })
			all.Go(func() { pass(in, out) })
		}
	})
}

// status is what the appliance says, as text.
func (p *peer) status() string {
	p.t.Helper()
	resp, err := p.HTTPClient().Get(p.url("/api/v1/status"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("status: %s, %v", resp.Status, err)
	}
	return string(body)
}

// One file sends a machine to other servers than the one it booted from: of a slow
// one, a dead one and a good one it takes the good one. That is killed before the
// root is mounted; the machine comes up from the slow one. Then the file names the one
// it booted from, and the running machine goes there, with its root when the slow one
// dies; when that dies, too, to the good one, which is back.
func TestServers(t *testing.T) {
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.conf("system/cboot.conf", "timeout = 0\n") // the chooser waits for a person
	s.conf("controller/server/server.info.conf", `
[[server]]
url = "http://10.77.0.4:8070"
[[server]]
url = "http://10.77.0.3:8070"
[[server]]
url = "http://10.77.0.2:8070"
`)
	good := s.peer("good", "10.77.0.2", "8070")
	slow := s.peer("slow", "10.77.0.3", "8071")
	slow.slowly("10.77.0.3:8070", 150*time.Millisecond)
	s.serve()
	n := s.Node(lab.NodeSpec{Name: "bios", Boot: []string{"net"}})
	s.Expect(n, bootLimit, `http://10\.77\.0\.2:8070: answers in [0-9.]+ ms`, `http://10\.77\.0\.3:8070: answers in [0-9]{3}`,
		`http://10\.77\.0\.4:8070: `, `going on with http://10\.77\.0\.2:8070 instead of http://10\.77\.0\.1:8070`,
		`No system image was found on this machine\.`)
	if got := good.status(); !strings.Contains(got, "came from http://10.77.0.1:8070") {
		t.Errorf("the chosen server was not told of the boot: %s", got)
	}
	good.stop()
	if err := n.Console().Send("1"); err != nil {
		t.Fatal(err)
	}
	s.loginAfter(`mounting 10\.77\.0\.3:2049:/demo/`, n)
	if got := s.Run(n, commandLimit, "grep nfs /proc/mounts; cat /run/slate/facts"); !strings.Contains(got, "10.77.0.3:/demo/") {
		t.Errorf("the root is %s", got)
	}
	// On a busy host the slow one may be too slow for one of them, which then goes to the
	// last resort.
	want := []string{"handover done", "login done"}
	told := func() []string { return slices.Concat(slow.events(n), s.events(n)) }
	ok := func() bool {
		got := told()
		return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(got, w) })
	}
	for end := time.Now().Add(commandLimit); !ok() && time.Now().Before(end); {
		<-time.After(time.Second)
	}
	if !ok() {
		t.Errorf("the servers that are left have the events %q, want %q among them", told(), want)
	}
	// One file moves the running machine, and its root when that has no server any more.
	const read = "echo 3 > /proc/sys/vm/drop_caches; cat /usr/bin/* | md5sum"
	name := s.nodeName(n)
	sum := s.Run(n, commandLimit, read)
	both := "[[server]]\nurl = \"http://10.77.0.1:8070\"\n[[server]]\nurl = \"http://10.77.0.2:8070\"\nstandby = true\n"
	slow.conf("controller/server/server.info.conf", both)
	s.conf("controller/server/server.info.conf", both)
	s.waitFor("slate node show", "going on with http://10.77.0.1:8070 instead of http://10.77.0.3:8070; the root stays on 10.77.0.3:2049 while that answers", "node", "show", name)
	slow.proc.Kill()
	if got := s.Run(n, commandLimit, read); got != sum {
		t.Errorf("from the server that the root was moved to the machine reads %s, want %s", got, sum)
	}
	// And one that dies without a word is replaced.
	good.conf("controller/server/server.info.conf", both)
	good.serve()
	s.proc.Kill()
	if got := s.Run(n, commandLimit, read); got != sum {
		t.Errorf("from the server that replaces a dead one the machine reads %s, want %s", got, sum)
	}
	if got := s.Run(n, commandLimit, "slate-agent log | grep 'does not answer: the root'"); !strings.Contains(got, "the root's server 10.77.0.1:2049 does not answer: the root comes from 10.77.0.2:2049 now") {
		t.Errorf("the agent's log has %q", got)
	}
	if got := s.Run(n, commandLimit, "dmesg | grep -i -E 'nfs.*(error|stale)|I/O error' || true"); strings.TrimSpace(got) != "" {
		t.Errorf("the kernel complains: %s", got)
	}
	// It shuts down from there, too.
	if err := n.Console().SendLine("poweroff"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), shutdownLimit)
	defer cancel()
	if err := n.Wait(ctx); err != nil {
		t.Errorf("with a root that has moved, the machine is not off after %v: %v", shutdownLimit, err)
	}
}

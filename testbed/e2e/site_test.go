// SPDX-License-Identifier: GPL-2.0-or-later

// Package e2e tests the built programs as a user meets them: an appliance set up
// by its own commands, and machines that boot from it in the lab.
//
// SLATE_BIN names the slate binary (default: bin/slate of the checkout),
// SLATE_CACHE the directory where the Debian image is kept between runs
// (default: .cache of the checkout). make lab sets both.
package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/netns"
	"slate/testbed/process"
)

func TestMain(m *testing.M) { netns.Main(m) }

// How long things may take under emulation, on a machine that has other work too.
const (
	bootLimit    = 8 * time.Minute // power on to the controller, or to the login prompt after it
	commandLimit = 3 * time.Minute
)

func slateBinary(t *testing.T) string {
	t.Helper()
	bin := cmp.Or(os.Getenv("SLATE_BIN"), checkout(t, "bin/slate"))
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return bin
}

// checkout returns the absolute path of a file of the checkout.
func checkout(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// demoDir has the demo's image: a Debian that lets root in with a known password; for
// make soak one with OpenRC, too. The Makefile builds them beforehand: from the tests' own
// network no mirror can be reached.
var demoDir = sync.OnceValues(func() (string, error) {
	bin := cmp.Or(os.Getenv("SLATE_BIN"), "../../bin/slate")
	dir := filepath.Join(cmp.Or(os.Getenv("SLATE_CACHE"), "../../.cache"), "demo")
	cmd := exec.Command(bin, "lab", "demo", "--dir", dir, "--build-only")
	if os.Getenv("SLATE_SOAK") != "" {
		cmd.Args = append(cmd.Args, "--openrc")
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("slate lab demo --build-only: %w", err)
	}
	return filepath.Abs(dir)
})

// site is an appliance in a lab.
type site struct {
	*labtest.Lab
	t    *testing.T
	dir  string // slate.toml, config.d, data
	base string // URL, "" for the lab's own address
	on   starter
	proc *process.Process
}

// starter is where the appliance runs: the lab itself, or a host in it.
type starter interface {
	StartSpec(context.Context, process.Spec) (*process.Process, error)
}

// slowMachine is the kernel command line for emulated machines on a busy host: systemd
// waits longer for devices, and the kernel does not give up a timer that comes late.
const slowMachine = "cmdline = [\"quiet\", \"panic=30\", \"systemd.default_device_timeout_sec=600\", \"no_timer_check\"]\n"

// newSite sets up an appliance with slate init in the lab, on the store of the
// demo, with leases and nodes of its own. It does not start it.
func newSite(t *testing.T, l *labtest.Lab) *site {
	t.Helper()
	labtest.Need(t, "mmdebstrap")
	demo, err := demoDir()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Lab: l, t: t, dir: t.TempDir(), on: l}
	// Contents are shared, names are not: what a test imports is its own.
	if err := os.CopyFS(s.dir+"/data/images", os.DirFS(filepath.Join(demo, "data/images"))); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"blobs", "trees"} {
		if err := os.Symlink(filepath.Join(demo, "data", sub), filepath.Join(s.dir, "data", sub)); err != nil {
			t.Fatal(err)
		}
	}
	s.slate("init", "--interface", lab.MainBridge)
	s.slate("image", "sign", "demo@stable") // the site has a key of its own
	s.conf("system/boot.conf", "image = \"demo@stable\"\ntimeout = 3\n"+slowMachine)
	return s
}

// part is the site for a part of the test.
func (s *site) part(t *testing.T) *site {
	c := *s
	c.t, c.Lab = t, s.Lab.On(t)
	return &c
}

// wantMode fails the test if slate init did not choose the mode of DHCP.
func (s *site) wantMode(mode string) {
	s.t.Helper()
	settings, err := os.ReadFile(s.dir + "/slate.toml")
	if err != nil || !strings.Contains(string(settings), fmt.Sprintf("mode = %q", mode)) {
		s.t.Fatalf("slate init did not choose mode %s (%v):\n%s", mode, err, settings)
	}
}

// addressServer adds a host with a DHCP server that only gives addresses.
func addressServer(t *testing.T, l *labtest.Lab, more ...string) *lab.Host {
	t.Helper()
	labtest.Need(t, "dnsmasq")
	router, err := l.AddHost("router", lab.Port{Bridge: lab.MainBridge, Addr: netip.MustParsePrefix("10.77.0.2/24")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = router.StartSpec(t.Context(), process.Spec{Name: "dnsmasq", Ready: &process.Ready{Line: regexp.MustCompile(`DHCP, IP range`)},
		Argv: append([]string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-dhcp", "--log-facility=-",
			"--dhcp-leasefile=/dev/null", "--dhcp-range=10.77.0.100,10.77.0.120,1h"}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	return router
}

// survey prints a digest of everything about the tree below the working directory
// that NFS carries. Sizes and link counts of directories are a file system's own.
const survey = `(export LC_ALL=C; find . -xdev -type d -printf '%p %y %m %U %G %T@\n'; ` +
	`find . -xdev ! -type d -printf '%p %y %m %U %G %s %T@ %n %l\n'; ` +
	`find . -xdev \( -type b -o -type c \) -exec stat -c '%n %t:%T' {} +; ` +
	`find . -xdev -type f -print0 | xargs -0 md5sum) | LC_ALL=C sort | md5sum`

// fixture imports the demo's image with some rare kinds of files in it as the image
// fixture, and returns its survey.
func (s *site) fixture() string {
	s.t.Helper()
	labtest.NeedRoot(s.t)
	labtest.Need(s.t, "setcap")
	dir := filepath.Join(s.t.TempDir(), "tree")
	s.slate("image", "export", "demo@stable", dir, "--format", "dir")
	sh := func(script string) string { return shell(s.t, dir, script) }
	sh(`mkdir -p opt/fixture/deep/er 'opt/fixture/odd name' && cd opt/fixture
		cp ../../usr/bin/true setuid && chown 1000:1001 setuid && chmod 6755 setuid
		mkdir sticky && chmod 3777 sticky
		echo linked > one && ln one deep/two && ln one deep/er/three
		mknod char c 10 200 && mknod block b 259 300 && mkfifo fifo && chown 7:8 char && chmod 600 block
		ln -s ../../../../../../etc/passwd up && ln -s nowhere dangling
		truncate -s 5M sparse && touch -d '1971-02-03 04:05:06.789012345 UTC' old
		touch "$(printf 'odd name/\\377\\n\\"#')" secret && chmod 000 secret
		cp ../../usr/bin/chown chown && setcap cap_chown+ep chown`)
	want := sh(survey)
	s.slate("image", "import", dir, "--name", "fixture", "--publish", "stable")
	return want
}

// args is a slate command line for this site.
func (s *site) args(words ...string) []string {
	return append([]string{slateBinary(s.t), "--config", s.dir + "/slate.toml", "--data", s.dir + "/data"}, words...)
}

// slate runs a slate command in the lab and returns what it printed.
func (s *site) slate(words ...string) string {
	s.t.Helper()
	out, err := s.try(words...)
	if err != nil {
		s.t.Fatalf("slate %s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return out
}

func (s *site) try(words ...string) (string, error) {
	var out strings.Builder
	p, err := s.on.StartSpec(s.t.Context(), process.Spec{Name: "slate-" + words[0], Argv: s.args(words...), Log: &out})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), commandLimit)
	defer cancel()
	err = p.Wait(ctx)
	return out.String(), err
}

// conf writes a file of config.d.
func (s *site) conf(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, "config.d", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// serve starts the appliance and waits until it is ready.
func (s *site) serve() {
	s.t.Helper()
	var err error
	s.proc, err = s.on.StartSpec(s.t.Context(), process.Spec{
		Name: "appliance", Argv: s.args("serve"),
		Ready: &process.Ready{Notify: filepath.Join(s.Dir(), "notify")},
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// heir is an appliance on a host of its own that will take the address over. It does
// not run yet.
func (s *site) heir() *site {
	s.t.Helper()
	h, err := s.AddHost("heir", lab.Port{})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.twin(h, fmt.Sprintf("[network]\ninterface = \"eth0\"\naddress = %q\n[dhcp]\nmode = \"off\"\n", s.Addr().Addr()))
}

// takeOver moves the address from the lab to the heir's host, whose network card
// tells everybody, and starts the heir there.
func (s *site) takeOver(heir *site) {
	s.t.Helper()
	for _, c := range []struct {
		on     starter
		script string
	}{
		{s.on, fmt.Sprintf("ip address del %s dev %s", s.Addr(), lab.MainBridge)},
		{heir.on, fmt.Sprintf("echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; ip link set eth0 down; ip address add %s dev eth0; ip link set eth0 up", s.Addr())},
	} {
		p, err := c.on.StartSpec(s.t.Context(), process.Spec{Name: "ip", Argv: []string{"sh", "-ec", c.script}})
		if err == nil {
			err = p.Wait(s.t.Context())
		}
		if err != nil {
			s.t.Fatalf("%s: %v", c.script, err)
		}
	}
	heir.serve()
}

// running tells whether the appliance runs.
func (s *site) running() bool {
	select {
	case <-s.proc.Done():
		return false
	default:
		return true
	}
}

// stop ends the appliance as a service manager does.
func (s *site) stop() {
	s.t.Helper()
	if err := s.proc.Stop(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// event and boot are the parts of the status that the tests look at.
type event struct {
	Step, State, Text string
}

// events returns the newest boot of a machine as "step state" words.
func (s *site) events(n *lab.Node) []string {
	s.t.Helper()
	var status struct {
		Nodes []struct {
			MACs  []string
			Boots []struct{ Events []event }
		}
	}
	resp, err := s.HTTPClient().Get(s.url("/api/v1/status"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("status: %s, %v", resp.Status, err)
	}
	if err := json.Unmarshal(body, &status); err != nil {
		s.t.Fatal(err)
	}
	var words []string
	for _, node := range status.Nodes {
		mine := slices.ContainsFunc(n.Spec.NICs, func(c lab.NIC) bool { return slices.Contains(node.MACs, c.MAC.String()) })
		if !mine || len(node.Boots) == 0 {
			continue
		}
		for _, e := range node.Boots[0].Events {
			words = append(words, e.Step+" "+e.State)
		}
	}
	return words
}

// wantEvents waits until the newest boot of a machine has the "step state" words:
// the controller goes on while its reports are on their way.
func (s *site) wantEvents(n *lab.Node, want ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), commandLimit)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		got := s.events(n)
		missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(got, w) })
		if len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Errorf("%s: the timeline lacks %q: %q", n.Name(), missing, got)
			return
		}
	}
}

// nodeName is the name that a machine is given if nobody names it.
func nodeName(mac net.HardwareAddr) string { return fmt.Sprintf("node-%x", []byte(mac[3:])) }

func (s *site) url(path string) string {
	return cmp.Or(s.base, fmt.Sprintf("http://%s:8070", s.Addr().Addr())) + path
}

// login waits for the controller's screen and the login prompt of each machine,
// and logs in.
func (s *site) login(nodes ...*lab.Node) {
	s.t.Helper()
	s.loginAfter(`No system image was found on this machine\.`, nodes...)
}

// loginAfter waits for a marker and then the login prompt of each machine, and
// logs in.
func (s *site) loginAfter(marker string, nodes ...*lab.Node) {
	s.t.Helper()
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error { return s.loginOne(n, marker) })
	}
	if err := g.Wait(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) loginOne(n *lab.Node, marker string) error {
	ctx, con := s.t.Context(), n.Console()
	_, err := con.Expect(ctx, bootLimit, marker)
	if err == nil {
		err = con.Login(ctx, bootLimit, "root", "slate")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	return nil
}

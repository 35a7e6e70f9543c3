// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pin/tftp/v3"

	"slate/dhcp"
	"slate/images"
	"slate/images/store"
	"slate/netboot"
	"slate/netboot/api"
	"slate/netboot/config"
	"slate/testbed/labtest"
	"slate/testbed/netns"
)

// The tests run in a network of their own, where they may open DHCP's ports.
func TestMain(m *testing.M) { netns.Main(m) }

// labAddr is the appliance's address on the interface lab0.
const labAddr = "10.77.0.1"

// newAppliance writes what an appliance on lab0 needs: settings, config.d, key and
// an image with one file and something that passes for a kernel.
func newAppliance(t *testing.T) *netboot.Server {
	t.Helper()
	labNetwork(t)
	dir := t.TempDir()
	s := netboot.Settings{
		Data: dir + "/data", ConfigD: dir + "/config.d", Key: dir + "/site.key",
		Network: netboot.NetworkSettings{Interface: "lab0"},
		DHCP:    netboot.DHCPSettings{Mode: netboot.DHCPServer, PoolSettings: netboot.PoolSettings{Lease: netboot.Duration(time.Hour)}},
		HTTP:    netboot.PortSettings{Port: 8070}, HTTPS: netboot.PortSettings{Port: 8443}, TFTP: netboot.PortSettings{Port: 69}, NFS: netboot.NFSSettings{Port: 2049},
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(s.DHCP.Range.UnmarshalText([]byte("10.77.0.100-10.77.0.120")))
	must(os.CopyFS(s.ConfigD, config.Examples()))
	key, err := images.GenerateKey()
	must(err)
	must(images.WriteKey(s.Key, key))
	must(images.WritePublicKey(s.Key+netboot.PublicKeySuffix, key))
	must(os.MkdirAll(filepath.Join(s.Data, netboot.LoaderDir), 0o755))
	for _, name := range []string{"undionly.kpxe", "snponly.efi"} {
		must(os.WriteFile(filepath.Join(s.Data, netboot.LoaderDir, name), bytes.Repeat([]byte(name), 5000), 0o644))
	}

	must(os.MkdirAll(dir+"/tree/sub", 0o755))
	must(os.WriteFile(dir+"/tree/sub/hello", []byte("hello from the image\n"), 0o644))
	st, err := store.Open(s.Data, store.Options{Key: key})
	must(err)
	tree, digest, err := st.AddDir(t.Context(), dir+"/tree")
	must(err)
	kernel, err := st.PutBlob(t.Context(), strings.NewReader("a kernel"))
	must(err)
	_, _, err = st.Commit(t.Context(), images.Record{Name: "demo", Tree: digest, Entries: tree.Len(), Kernel: &images.Kernel{Release: "6.1", Path: "boot/vmlinuz", Blob: kernel}})
	must(err)
	must(st.Publish(t.Context(), images.Ref{Name: "demo", Number: 1}, "stable"))
	return &netboot.Server{Settings: s, Version: "test"}
}

// labNetwork makes the interface lab0 with the appliance's address.
func labNetwork(t *testing.T) {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return ns.Bridge("lab0") },
		func() error { return ns.Address("lab0", netip.MustParsePrefix(labAddr+"/24")) },
		func() error { return ns.Up("lab0") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(ns.Delete("lab0"), ns.Close()); err != nil {
			t.Error(err)
		}
	})
}

// start runs the appliance until the test ends, or stop is called.
func start(t *testing.T, s *netboot.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	s.Ready = func() { close(ready) }
	go func() { done <- s.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("the appliance does not start: %v", err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the appliance ended with %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// checkServes asks every service but DHCP for something.
func checkServes(t *testing.T) {
	t.Helper()
	st, err := (&api.Client{Base: "http://" + labAddr + ":8070"}).Status(t.Context())
	if err != nil || len(st.Images) != 1 || st.Images[0] != "demo@stable = demo/1" {
		t.Errorf("HTTP: status has images %q, %v", st.Images, err)
	}
	c, err := tftp.NewClient(labAddr + ":69")
	if err != nil {
		t.Fatal(err)
	}
	var loader bytes.Buffer
	wt, err := c.Receive("undionly.kpxe", "octet")
	if err == nil {
		_, err = wt.WriteTo(&loader)
	}
	if err != nil || loader.Len() != 5000*len("undionly.kpxe") {
		t.Errorf("TFTP: %d bytes, %v", loader.Len(), err)
	}
	labtest.Need(t, "nfs-cat")
	out, err := exec.CommandContext(t.Context(), "nfs-cat", "nfs://"+labAddr+"/demo@stable/sub/hello?nfsport=2049&mountport=2049").CombinedOutput()
	if err != nil || string(out) != "hello from the image\n" {
		t.Errorf("NFS: %q, %v", out, err)
	}
}

// SIGTERM ends the appliance cleanly, and a second start works at once.
func TestStopAndStartAgain(t *testing.T) {
	s := newAppliance(t)
	stop := start(t, s)
	checkServes(t)
	stop()
	again := &netboot.Server{Settings: s.Settings}
	start(t, again)
	checkServes(t)
}

// What keeps the appliance from starting is reported together, a line each.
func TestEverythingThatIsWrongIsReported(t *testing.T) {
	s := newAppliance(t)
	set := s.Settings
	start(t, s)
	for _, c := range []struct {
		name string
		edit func(*netboot.Settings)
		want []string
	}{
		{"ports", func(s *netboot.Settings) { s.Data = t.TempDir() },
			[]string{"no image is published: the store is empty", "http: tcp port 8070 is taken", "nfs: tcp port 2049 is taken", "port 10.77.0.1:69 (UDP) is taken", "UDP port 67 of interface lab0: another program has it"}},
		{"interface", func(s *netboot.Settings) { s.Network.Interface = "eth9" }, []string{`network.interface: there is no interface "eth9"`}},
		{"loopback", func(s *netboot.Settings) { s.Network.Address = netip.MustParseAddr("10.1.1.1") }, []string{"interface lab0 does not have the address 10.1.1.1"}},
		{"range", func(s *netboot.Settings) { s.DHCP.Range.UnmarshalText([]byte("10.1.0.1-10.1.0.9")) }, []string{"dhcp.range: 10.1.0.1-10.1.0.9 is not inside the subnet 10.77.0.0/24"}},
		{"config.d", func(s *netboot.Settings) { s.ConfigD = "/nonexistent" }, []string{"/nonexistent: no such file"}},
		{"key", func(s *netboot.Settings) { s.Key = "/nonexistent"; s.Data = t.TempDir() }, []string{"site key: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := set
			c.edit(&bad)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := (&netboot.Server{Settings: bad}).Run(ctx)
			if err == nil {
				t.Fatal("it starts")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error lacks %q:\n%v", w, err)
				}
			}
		})
	}
	checkServes(t) // none of that disturbs the one that runs
}

// Garbage on every port is no reason to fall over.
func TestGarbage(t *testing.T) {
	start(t, newAppliance(t))
	rnd := rand.New(rand.NewPCG(1, 2))
	junk := func() []byte {
		b := make([]byte, rnd.IntN(1400))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	udp := func(port int) {
		c, err := net.Dial("udp", net.JoinHostPort(labAddr, strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 300 {
			b := junk()
			if len(b) > 1 && rnd.IntN(2) == 0 {
				copy(b, []byte{1, 1, 6, 0}) // looks like DHCP
			}
			if len(b) > 1 && rnd.IntN(3) == 0 {
				copy(b, []byte{0, byte(rnd.IntN(7))}) // looks like TFTP
			}
			c.Write(b) // an ICMP error from the one before is none of this one
		}
	}
	tcp := func(port int) {
		for range 30 {
			c, err := net.Dial("tcp", net.JoinHostPort(labAddr, strconv.Itoa(port)))
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(5 * time.Second))
			c.Write(append([]byte{0x80, 0, 0, 40}, junk()...))
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		}
	}
	udp(67)
	udp(69)
	tcp(2049)
	tcp(8070)
	checkServes(t)

	c, err := tftp.NewClient(labAddr + ":69")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../../etc/passwd", "/etc/passwd", "..\\..\\etc\\passwd", "loaders/../../site.key"} {
		if _, err := c.Receive(name, "octet"); err == nil {
			t.Errorf("TFTP serves %q", name)
		}
	}
}

// The script a machine gets, from its first question to the kernel's files.
func TestBootScript(t *testing.T) {
	s := newAppliance(t)
	start(t, s)
	const base = "http://" + labAddr + ":8070"
	get := func(url string) (int, string) {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if _, text := get(base + "/boot.ipxe"); !strings.Contains(text, "chain --replace --autofree "+base+"/boot.ipxe?mac=${netX/mac}") {
		t.Errorf("the first script does not ask again:\n%s", text)
	}
	const mine = base + "/boot.ipxe?mac=52:54:00:aa:bb:cc&serial=S1"
	_, text := get(mine)
	for _, want := range []string{"slate.node=node-aabbcc ", "slate.image=demo/1 ", "slate.nfs=" + labAddr + ":2049:/demo/", "BOOTIF=01-52-54-00-aa-bb-cc", "slate.timeout=10 "} {
		if !strings.Contains(text, want) {
			t.Errorf("the script lacks %q:\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, base+"/") {
				if code, body := get(word); code != http.StatusOK || body == "" {
					t.Errorf("%s: status %d, %d bytes", word, code, len(body))
				}
			}
		}
	}
	st, err := (&api.Client{Base: base}).Status(t.Context())
	if err != nil || len(st.Nodes) != 1 || st.Nodes[0].Name != "node-aabbcc" || st.Nodes[0].Serial != "S1" {
		t.Fatalf("nodes = %+v, %v", st.Nodes, err)
	}
	var steps []string
	for _, e := range st.Nodes[0].Boots[0].Events {
		steps = append(steps, string(e.Step)+" "+string(e.State))
	}
	if got, want := strings.Join(steps, ", "), "script done, kernel note, kernel done"; got != want {
		t.Errorf("timeline = %s, want %s", got, want)
	}

	// A change of config.d counts from the next boot on; a mistake does not.
	conf := s.Settings.ConfigD + "/nodes/node-aabbcc/system/boot.conf"
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("timeout = 42\n")
	if _, text = get(mine); !strings.Contains(text, "slate.timeout=42 ") {
		t.Errorf("a change of config.d is not taken over:\n%s", text)
	}
	write("timeout = \"never\"\n")
	if _, text = get(mine); !strings.Contains(text, "slate.timeout=42 ") {
		t.Errorf("a bad config.d does not leave the good one in force:\n%s", text)
	}
	write("image = \"other@stable\"\n")
	if _, text = get(mine); !strings.Contains(text, "is not started: ") || !strings.Contains(text, "other") || !strings.HasSuffix(text, "exit 1\n") {
		t.Errorf("an image that is not there: the script does not say so:\n%s", text)
	}
}

// slate init finds the appliance as a rival: DHCP answers, and names its loader.
// The appliance proves its key, says what it has, and takes in a machine that no
// boot script of its own has sent.
func TestLoadAndHello(t *testing.T) {
	s := newAppliance(t)
	info := filepath.Join(s.Settings.ConfigD, "controller/server/server.info.conf")
	if err := os.WriteFile(info, []byte("[[server]]\nurl = \"http://10.77.0.9:8070\"\nweight = 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	st, err := store.Open(s.Settings.Data, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := st.Resolve(images.Ref{Name: "demo", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := images.LoadPublicKeys(s.Settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		t.Fatal(err)
	}
	for tree, has := range map[string]bool{rec.Tree.String(): true, strings.Repeat("ab", 32): false} {
		resp, err := http.Get("http://" + labAddr + ":8070" + api.PathLoad + "?nonce=0123456789abcdef&tree=" + tree)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("load: %s %q %v", resp.Status, body, err)
		}
		if err := images.Verify(keys, api.PurposeLoad, body, []byte(resp.Header.Get(api.SignatureHeader))); err != nil {
			t.Errorf("the signature on %s: %v", body, err)
		}
		var l api.Load
		if err := json.Unmarshal(body, &l); err != nil || l.Has != has || l.Nonce != "0123456789abcdef" || l.NFSPort != 2049 {
			t.Errorf("load for tree %.4s = %+v, %v", tree, l, err)
		}
	}

	c := &api.Client{Base: "http://" + labAddr + ":8070"}
	w, err := c.Hello(t.Context(), api.Hello{MAC: "52:54:00:00:00:07", From: "a medium"})
	if err != nil || w.Node != "node-000007" || w.Boot == "" || w.Refused != "" {
		t.Fatalf("Hello = %+v, %v", w, err)
	}
	words := strings.Join(w.Words, " ")
	for _, want := range []string{"slate.boot=" + w.Boot, "slate.server=http://10.77.0.1:8070,standby slate.server=http://10.77.0.9:8070,weight=2 slate.measure=2,3 slate.move=failure", "slate.tree=" + rec.Tree.String()} {
		if !strings.Contains(words, want) {
			t.Errorf("the words lack %q: %s", want, words)
		}
	}
	if err := c.PostEvent(t.Context(), w.Boot, api.Event{Step: api.StepEarly, State: api.StateDone, Uptime: 1}); err != nil {
		t.Errorf("an event of that boot: %v", err)
	}
	w, err = c.Hello(t.Context(), api.Hello{MAC: "52:54:00:00:00:08", From: "http://10.77.0.9:8070", Image: "lab/4"})
	if err != nil || w.Boot == "" || len(w.Words) != 0 {
		t.Errorf("Hello of one that runs already = %+v, %v", w, err)
	}
	if err := os.WriteFile(filepath.Join(s.Settings.ConfigD, "system/cboot.conf"), []byte("mode = \"ignore\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err = c.Hello(t.Context(), api.Hello{MAC: "52:54:00:00:00:07", From: "a medium"})
	if err != nil || w.Boot != "" || !strings.Contains(w.Refused, "left alone") {
		t.Errorf("Hello of one that is to be left alone = %+v, %v", w, err)
	}
}

func TestDHCPAnswers(t *testing.T) {
	start(t, newAppliance(t))
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	client, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := errors.Join(ns.Veth("port0", client, "eth0"), ns.Attach("port0", "lab0"), ns.Up("port0"), client.Up("eth0")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var rivals []dhcp.Rival
	err = client.Do(func() (err error) { rivals, err = dhcp.Probe(ctx, "eth0"); return err })
	if err != nil || len(rivals) != 1 || rivals[0].Server.String() != labAddr || !strings.HasPrefix(rivals[0].Offers.String(), "10.77.0.1") {
		t.Errorf("Probe = %v, %v; want the appliance with an address of its range", rivals, err)
	}
}

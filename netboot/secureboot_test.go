// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pin/tftp/v3"

	"slate/images"
	"slate/images/store"
	"slate/netboot"
	"slate/netboot/api"
)

// fetchTFTP fetches a file; an error is the server's.
func fetchTFTP(t *testing.T, name string) (string, error) {
	t.Helper()
	c, err := tftp.NewClient(labAddr + ":69")
	if err != nil {
		t.Fatal(err)
	}
	from, err := c.Receive(name, "octet")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	_, err = from.WriteTo(&b)
	return b.String(), err
}

// What shim and GRUB ask for, in their order, and what they must not get.
func TestSecureBootChain(t *testing.T) {
	s := newAppliance(t)
	for _, name := range []string{"shimx64.efi", "grubx64.efi"} {
		if err := os.WriteFile(filepath.Join(s.Settings.Data, netboot.LoaderDir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	start(t, s)
	get := func(name string) string {
		t.Helper()
		text, err := fetchTFTP(t, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return text
	}
	missing := func(name string) {
		t.Helper()
		if text, err := fetchTFTP(t, name); err == nil {
			t.Errorf("%s: %d bytes, want it not to be there", name, len(text))
		}
	}
	if got := get("shimx64.efi") + get("grubx64.efi"); got != "shimx64.efigrubx64.efi" {
		t.Errorf("the loaders are %q", got)
	}
	missing("revocations_sbat.efi")
	missing("grub/x86_64-efi/command.lst")
	if got := get("grub/grub.cfg"); !strings.Contains(got, "source (tftp,"+labAddr+")/grub/node-$net_default_mac.cfg\n") {
		t.Errorf("the first configuration does not lead to the node's own:\n%s", got)
	}
	cfg := get("grub/node-52:54:00:aa:bb:cc.cfg")
	for _, want := range []string{"Slate: node-aabbcc starts demo/1", "'slate.node=node-aabbcc'", "'BOOTIF=01-52-54-00-aa-bb-cc'"} {
		if !strings.Contains(cfg, want) {
			t.Errorf("the configuration lacks %q:\n%s", want, cfg)
		}
	}
	files := regexp.MustCompile(`/(boot/[0-9a-f]{64}/\S+)`).FindAllStringSubmatch(cfg, -1)
	if len(files) != 2 || get(files[0][1]) != "a kernel" || !strings.Contains(files[1][1], "/last/") || get(files[1][1]) == "" {
		t.Errorf("the files to load are %q", files)
	}

	// Nothing else of the store: a file of the image is for NFS and its permissions.
	st, err := store.Open(s.Settings.Data, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := st.Resolve(images.Ref{Name: "demo", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	list, err := st.Tree(t.Context(), rec.Tree)
	if err != nil {
		t.Fatal(err)
	}
	for b := range list.Blobs() {
		missing("boot/" + b.Digest.String() + "/kernel")
	}
	missing("boot/" + images.Digest{1}.String() + "/kernel")
	missing("boot/x/kernel")
}

// GRUB waits for its turn, too.
func TestGRUBWaitsForItsTurn(t *testing.T) {
	s := newAppliance(t)
	s.Settings.Queue.Boots = 1
	start(t, s)
	get := func(name string) string {
		t.Helper()
		text, err := fetchTFTP(t, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return text
	}
	const one, two = "grub/node-52:54:00:00:00:01.cfg", "grub/node-52:54:00:00:00:02.cfg"
	if text := get(one); !strings.Contains(text, "starts demo/1") {
		t.Fatalf("the first machine does not start:\n%s", text)
	}
	if text := get(two); !strings.Contains(text, "node-000002 waits for its turn to load: place 1 in the queue") || !strings.HasSuffix(text, "\nset slate_turn=wait\n") {
		t.Fatalf("the second machine is not told to wait:\n%s", text)
	}
	st, err := (&api.Client{Base: "http://" + labAddr + ":8070"}).Status(t.Context())
	if err != nil || len(st.Queues) != 2 || st.Queues[0] != (api.Queue{Kind: api.QueueBoots, Busy: 1, Waiting: 1, Limit: 1}) {
		t.Errorf("queues = %+v, %v", st.Queues, err)
	}
}

// With room for one, the second machine that fetches a version is told to come again.
func TestFetchesWaitForTheirTurn(t *testing.T) {
	s := newAppliance(t)
	s.Settings.Queue.Fetches = 1
	start(t, s)
	ask := func(from, path string) (status int, again, text string) {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c := http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
		resp, err := c.Get("http://" + labAddr + ":8070/v1/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Retry-After"), string(b)
	}
	const one, two = "127.0.0.1", "127.0.0.2"
	pack := "pack/" + images.Digest{1}.String() + "/-/0"
	if status, _, text := ask(one, pack); status != http.StatusNotFound {
		t.Errorf("the first machine is answered %d %s, want that there is no such tree", status, text)
	}
	if status, again, text := ask(two, pack); status != http.StatusServiceUnavailable || again != "3" || text != "as many machines as may (1) fetch a version: place 1 in the queue\n" {
		t.Errorf("the second machine is answered %d, again %q, %q, want its place", status, again, text)
	}
	if status, _, text := ask(two, "record/demo@stable"); status != http.StatusOK {
		t.Errorf("the second machine is refused the record: %d %s", status, text)
	}
	if status, _, _ := ask(one, pack); status != http.StatusNotFound {
		t.Errorf("the first machine loses its turn: %d", status)
	}
}

// With room for one, the second machine is told its place until the first has its
// kernel.
func TestMachinesWaitForTheirTurn(t *testing.T) {
	s := newAppliance(t)
	s.Settings.Queue.Boots = 1
	start(t, s)
	const base = "http://" + labAddr + ":8070"
	get := func(url string) string {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", url, resp.Status, err)
		}
		return string(text)
	}
	const one, two = base + "/boot.ipxe?mac=52:54:00:00:00:01", base + "/boot.ipxe?mac=52:54:00:00:00:02"
	first := get(one)
	for range 2 {
		if text := get(two); !strings.Contains(text, "waits for its turn to load: place 1 in the queue") || !strings.Contains(text, "\nsleep 3\n") {
			t.Fatalf("the second machine is not told to wait:\n%s", text)
		}
	}
	for line := range strings.Lines(first) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, base+"/") {
				get(word)
			}
		}
	}
	if text := get(two); !strings.Contains(text, "slate.image=demo/1") {
		t.Errorf("the second machine still waits:\n%s", text)
	}
	st, err := (&api.Client{Base: base}).Status(t.Context())
	if err != nil || len(st.Nodes) != 2 {
		t.Fatalf("nodes = %+v, %v", st.Nodes, err)
	}
	waited := 0
	for _, n := range st.Nodes {
		for _, e := range n.Boots[0].Events {
			if strings.Contains(e.Text, "waits for its turn") {
				waited++
			}
		}
	}
	if waited != 1 {
		t.Errorf("the timelines say %d times that a machine waits, want once", waited)
	}
}

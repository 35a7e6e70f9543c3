// SPDX-License-Identifier: GPL-2.0-or-later

package update_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/images"
	"slate/images/transfer"
	"slate/images/tree"
	"slate/installer/bootpart"
	"slate/installer/slot"
	"slate/installer/update"
	"slate/netboot/api"
	"slate/testbed/labtest"
)

// appliance has versions, as the transfer's handler sees it.
type appliance struct {
	t     *testing.T
	dir   string
	key   ed25519.PrivateKey
	signs map[string]transfer.Signed
	trees map[images.Digest]*tree.Tree
	asked map[images.Digest]bool
}

func (a *appliance) Signed(r images.Ref) (text, sig []byte, err error) {
	s, ok := a.signs[r.String()]
	if !ok {
		return nil, nil, fs.ErrNotExist
	}
	return s.Text, s.Signature, nil
}

func (a *appliance) Tree(_ context.Context, d images.Digest) (*tree.Tree, error) {
	if t := a.trees[d]; t != nil {
		return t, nil
	}
	return nil, fs.ErrNotExist
}

func (a *appliance) OpenBlob(d images.Digest) (*os.File, error) {
	a.asked[d] = true
	return os.Open(filepath.Join(a.dir, d.String()))
}

func (a *appliance) blob(data []byte) images.Blob {
	b := images.Blob{Digest: sha256.Sum256(data), Size: int64(len(data))}
	if err := os.WriteFile(filepath.Join(a.dir, b.Digest.String()), data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return b
}

// commit makes a version of files.
func (a *appliance) commit(number int, files map[string]string, kernel, modules, tools images.Blob) transfer.Signed {
	var b tree.Builder
	must := func(err error) {
		a.t.Helper()
		if err != nil {
			a.t.Fatal(err)
		}
	}
	must(b.Add(".", tree.Entry{Type: tree.Dir, Mode: 0o755}))
	for name, text := range files {
		d := a.blob([]byte(text))
		must(b.Add(name, tree.Entry{Type: tree.File, Mode: 0o644, Digest: d.Digest, Size: d.Size, MtimeNs: 1e18}))
	}
	t, err := b.Build()
	must(err)
	s := transfer.Signed{Record: images.Record{Name: "demo", Number: number, Tree: t.Digest(), Entries: t.Len(), Size: t.Size(), Time: time.Unix(1700000000, 0).UTC(),
		Kernel: &images.Kernel{Release: "6.1", Path: "boot/vmlinuz", Blob: kernel}, Modules: &modules, Tools: &tools}}
	s.Text, err = images.MarshalRecord(s.Record)
	must(err)
	s.Signature = images.Sign(a.key, images.PurposeRecord, s.Text)
	a.signs[s.Ref()], a.trees[s.Tree] = s, t
	return s
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

// An update by one small file fetches little more than that: everything else comes from
// the slot that runs and from the boot partition, verified.
func TestJob(t *testing.T) {
	labtest.NeedRoot(t)
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &appliance{t: t, dir: t.TempDir(), key: key, signs: map[string]transfer.Signed{}, trees: map[images.Digest]*tree.Tree{}, asked: map[images.Digest]bool{}}
	kernel, modules, tools := a.blob(noise(1, 300<<10)), a.blob(noise(2, 500<<10)), a.blob(noise(3, 100<<10))
	files := map[string]string{}
	for i := range uint64(40) {
		files["file"+string(rune('A'+i))] = string(noise(100+i, 50<<10))
	}
	files["fileA"] = string(noise(7, 200<<10))
	one := a.commit(1, files, kernel, modules, tools)
	files["fileA"] += "one line more\n"
	files["new"] = "small"
	two := a.commit(2, files, kernel, modules, tools)

	// Slot a runs demo/1, and the boot partition has what started it.
	dir := t.TempDir()
	slotA, slotB, boot := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "boot")
	for _, d := range []string{slotA, slotB, filepath.Join(boot, "slate")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	read := func(b images.Blob) []byte {
		data, err := os.ReadFile(filepath.Join(a.dir, b.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	quiet := func(string, ...any) {}
	if err := (slot.Fill{Dir: slotA, Signed: one, Tree: a.trees[one.Tree], Note: quiet, Fetch: func(ctx context.Context, t *tree.Tree, _ []images.Blob, s transfer.Sink) error {
		for b := range t.Blobs() {
			if err := s.Put(ctx, b, bytes.NewReader(read(b))); err != nil {
				return err
			}
		}
		return nil
	}}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	controller := noise(9, 80<<10)
	entry := bootpart.Entry{Slot: "a", Title: "demo/1", Kernel: bytes.NewReader(read(kernel)), Cmdline: []string{"quiet"}}
	for _, part := range [][]byte{controller, read(modules), read(tools)} {
		entry.Initrd = append(entry.Initrd, bytes.NewReader(part))
	}
	if err := bootpart.WriteEntry(boot, entry); err != nil {
		t.Fatal(err)
	}
	if err := bootpart.WriteEnv(boot, bootpart.Env{Slot: "a", Tries: map[string]int{"a": 2, "b": 3}, Trial: map[string]string{"b": "x"}}); err != nil {
		t.Fatal(err)
	}

	srv := httptest.NewServer(&transfer.Handler{Source: a})
	defer srv.Close()
	job := func(c images.Digest) update.Job {
		return update.Job{Boot: boot, Target: "b", Dir: slotB, Disk: "guid", Running: one.Record, Root: slotA, Cmdline: "quiet slate.slot=a slate.boot=x panic=0 slate.last",
			Assigned: api.Assigned{Version: "demo/2", Tree: two.Tree, Controller: c}, Note: quiet,
			Client: &transfer.Client{Base: srv.URL, Keys: []ed25519.PublicKey{pub}},
			Controller: func(_ context.Context, d images.Digest) ([]byte, error) {
				if d != sha256.Sum256([]byte("another controller")) {
					return nil, errors.New("there is none")
				}
				return []byte("another controller"), nil
			}}
	}
	if err := update.Forget(boot, "b"); err != nil {
		t.Fatal(err)
	}
	j := job(sha256.Sum256(controller))
	if size, err := j.Size(t.Context()); err != nil || size != 200<<10+14+5 {
		t.Errorf("to be fetched: %d, %v", size, err)
	}
	rec, err := j.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stats := j.Client.Stats()
	t.Logf("%d bytes for a change of 19 in 2.2 MB, in %d requests", stats.Bytes, stats.Requests)
	if rec.Ref() != "demo/2" || stats.Bytes > 20<<10 {
		t.Errorf("%s came by %d bytes over the network, want demo/2 by a few thousand", rec.Ref(), stats.Bytes)
	}
	for _, b := range []images.Blob{kernel, modules, tools} {
		if a.asked[b.Digest] {
			t.Error("a part that lies on the boot partition was fetched")
		}
	}
	if err := slot.Verify(t.Context(), slotB, a.trees[two.Tree], nil); err != nil {
		t.Errorf("the slot: %v", err)
	}
	if got, err := slot.Read(slotB, []ed25519.PublicKey{pub}); err != nil || got.Ref() != "demo/2" {
		t.Errorf("the slot holds %s, %v", got.Ref(), err)
	}
	initrd, err := os.ReadFile(bootpart.InitrdPath(boot, "b"))
	if err != nil || !bytes.Equal(initrd, bytes.Join([][]byte{controller, read(modules), read(tools)}, nil)) {
		t.Errorf("the initramfs has %d bytes, %v", len(initrd), err)
	}
	if line, err := bootpart.Cmdline(boot, "b"); err != nil || line != "quiet slate.image=demo/2 slate.tree="+two.Tree.String()+" slate.slot=b slate.disk=guid" {
		t.Errorf("the command line is %q, %v", line, err)
	}
	checkTrial(t, boot, two.Record)

	// The next version has another controller; what is damaged on the boot partition is fetched.
	if err := os.WriteFile(bootpart.KernelPath(boot, "a"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	j = job(sha256.Sum256([]byte("another controller")))
	if _, err := j.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !a.asked[kernel.Digest] || a.asked[modules.Digest] {
		t.Error("want the kernel fetched, which is damaged, and the modules not")
	}
	if initrd, _ := os.ReadFile(bootpart.InitrdPath(boot, "b")); !bytes.HasPrefix(initrd, []byte("another controller")) {
		t.Error("the initramfs does not begin with the new controller")
	}
	// What is not what was assigned is not taken.
	j.Assigned.Tree = one.Tree
	if _, err := j.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not") {
		t.Errorf("another tree than assigned: %v, want it refused", err)
	}
}

// checkTrial has the loader start the slot once.
func checkTrial(t *testing.T, boot string, rec images.Record) {
	t.Helper()
	env := func() bootpart.Env {
		e, err := bootpart.ReadEnv(boot)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := env(); e.Slot != "a" || e.Tries["b"] != 0 || e.Trial["b"] != "" {
		t.Errorf("while the slot was filled the loader knew %+v, want nothing of b", e)
	}
	if err := update.Trial(boot, "b", rec.Tree); err != nil {
		t.Fatal(err)
	}
	trial := env().Trial["b"]
	if e := env(); e.Slot != "a" || !bootpart.OnTrial(trial, rec.Tree) {
		t.Errorf("filled: %+v, want b on trial and a active", e)
	}
	if err := update.Start(boot, "b", rec, true, 3); err != nil {
		t.Fatal(err)
	}
	if e := env(); e.Slot != "b" || e.Tries["b"] != 1 || e.Tries["a"] != 3 || e.Trial["b"] != trial {
		t.Errorf("to be started: %+v, want b once, and all tries for a", e)
	}
}

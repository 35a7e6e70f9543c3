// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"slate/builder/initramfs"
	"slate/nfs"
	"slate/testbed/labtest"
)

var record = flag.String("record", "", "boot a machine from -tree and write here what it asks of the server")

// maxOperations is half of what the boot of a Debian took with the kernel's own
// mount options.
const maxOperations = 4475 / 2

// TestRecord boots a machine in QEMU, its root the tree over NFS through our
// controller, and writes the trace of all it asks for from mount to login
// prompt. What -trace replays is made so.
func TestRecord(t *testing.T) {
	if *record == "" {
		t.Skip("boots a machine; run it with -record FILE -tree DIR")
	}
	labtest.Need(t, "qemu-system-x86_64")
	site, err := newDirSite(map[string]string{"/root/1": *treeDir})
	if err != nil {
		t.Fatal(err)
	}
	var trace bytes.Buffer

	nfsLn, httpLn := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := (&nfs.Server{Exports: site, Blobs: site, Trace: &trace}).Serve(ctx, nfsLn); err != nil {
			t.Error(err)
		}
	})
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}
	wg.Go(func() { web.Serve(httpLn) })
	bootMachine(t, *treeDir, nfsLn.Addr(), httpLn.Addr(), site.trees["/root/1"].Digest().String())
	cancel()
	web.Close()
	wg.Wait()
	data := trace.Bytes()
	if err := os.WriteFile(*record, data, 0o644); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range bytes.Lines(data) {
		op, _, _ := bytes.Cut(line, []byte(" "))
		counts[string(op)]++
	}
	ops := bytes.Count(data, []byte("\n"))
	t.Logf("%d operations: %v", ops, counts)
	if ops > maxOperations {
		t.Errorf("the boot took %d operations, want at most %d", ops, maxOperations)
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// bootMachine starts the tree's kernel with our initramfs and returns when the
// system in it asks for a login.
func bootMachine(t *testing.T, dir string, nfsAddr, httpAddr net.Addr, digest string) {
	t.Helper()
	fsys := os.DirFS(dir)
	kernel, err := initramfs.FindKernel(fsys)
	if err != nil {
		t.Fatal(err)
	}
	controller, err := initramfs.ControllerCPIO(initramfs.ControllerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	modules, _, err := initramfs.ModulesCPIO(t.Context(), fsys, kernel.Release, initramfs.ModulesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, append(controller, modules...), 0o600); err != nil {
		t.Fatal(err)
	}
	guest := func(a net.Addr) string { return fmt.Sprintf("10.0.2.2:%d", a.(*net.TCPAddr).Port) }
	cmdline := fmt.Sprintf("console=ttyS0 panic=30 slate.server=http://%s slate.node=record slate.boot=1 slate.image=root/1 slate.tree=%s "+
		"slate.nfs=%s:/root/1 slate.mode=diskless slate.timeout=1", guest(httpAddr), digest, guest(nfsAddr))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg", "-m", "2048", "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(dir, kernel.Path), "-initrd", initrd, "-append", cmdline,
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0", "-device", "virtio-rng-pci", "-serial", "stdio")
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for !bytes.Contains(seen.Bytes(), []byte("login: ")) {
		n, err := console.Read(buf)
		if err != nil {
			t.Fatalf("the machine ended without a login prompt: %v\n%s", err, seen.String())
		}
		seen.Write(buf[:n])
	}
}

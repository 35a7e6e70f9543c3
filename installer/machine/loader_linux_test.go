// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeKernel has devices that appear when a module is inserted, as a bus driver's do.
type fakeKernel struct {
	t       *testing.T
	root    string
	mu      sync.Mutex
	order   []string
	options map[string]string
	fail    map[string]error
	brings  map[string]string // module → modalias of a new device
}

func newFakeKernel(t *testing.T) *fakeKernel {
	return &fakeKernel{t: t, root: t.TempDir(), options: map[string]string{}, fail: map[string]error{}, brings: map[string]string{}}
}

func (k *fakeKernel) write(name, text string) {
	k.t.Helper()
	name = filepath.Join(k.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

func (k *fakeKernel) insert(file, options string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := ModuleName(file)
	if err := k.fail[name]; err != nil {
		return err
	}
	k.order = append(k.order, name)
	k.options[name] = options
	k.write("/sys/module/"+name+"/initstate", "live\n")
	if alias := k.brings[name]; alias != "" {
		k.write("/sys/bus/x/devices/"+name+"/modalias", alias+"\n")
	}
	return nil
}

func (k *fakeKernel) loader(s Settings) *Loader {
	x, err := ReadModuleIndex(fstest.MapFS{
		"lib/modules/r/modules.dep": &fstest.MapFile{Data: []byte("virtio-pci.ko: virtio.ko\nvirtio.ko:\nvirtio_net.ko: virtio.ko\nnfs.ko:\n")},
		"lib/modules/r/modules.alias": &fstest.MapFile{Data: []byte(
			"alias pci:v1AF4* virtio_pci\nalias virtio:d1 virtio_net\n")},
	}, "r")
	if err != nil {
		k.t.Fatal(err)
	}
	return &Loader{Root: k.root, Index: x, Settings: s, insert: k.insert}
}

func TestSettleFollowsNewDevices(t *testing.T) {
	k := newFakeKernel(t)
	k.write("/sys/bus/pci/devices/0/modalias", "pci:v1AF4d1\n")
	k.brings["virtio_pci"] = "virtio:d1"
	l := k.loader(ParseCmdline("virtio-net.napi=0 virtio_net.csum=1"))
	n, err := l.Settle(t.Context(), make(chan Uevent), time.Millisecond)
	if err != nil || n != 3 {
		t.Errorf("Settle() = %d, %v, want 3 modules", n, err)
	}
	if want := []string{"virtio", "virtio_pci", "virtio_net"}; !slices.Equal(k.order, want) {
		t.Errorf("inserted %q, want %q", k.order, want)
	}
	if got := k.options["virtio_net"]; got != "napi=0 csum=1" {
		t.Errorf("options of virtio_net are %q", got)
	}
}

// A device that the kernel tells of while we wait is followed by another look.
func TestSettleListens(t *testing.T) {
	k := newFakeKernel(t)
	l := k.loader(Settings{})
	synctest.Test(t, func(t *testing.T) {
		news := make(chan Uevent)
		go func() {
			time.Sleep(50 * time.Millisecond) // in the bubble's own time
			k.write("/sys/bus/pci/devices/late/modalias", "pci:v1AF4d1\n")
			news <- Uevent{Action: "add", Modalias: "pci:v1AF4d1"}
		}()
		n, err := l.Settle(t.Context(), news, 100*time.Millisecond)
		if err != nil || n != 2 {
			t.Errorf("Settle() = %d, %v, want the late device's 2 modules", n, err)
		}
	})
}

func TestSettleEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		news := make(chan Uevent)
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { // a device that comes and goes for ever
			for {
				select {
				case news <- Uevent{Action: "add", Modalias: "usb:x"}:
				case <-ctx.Done():
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		if _, err := newFakeKernel(t).loader(Settings{}).Settle(ctx, news, 100*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Settle() = %v, want it to end with its context", err)
		}
	})
}

func TestLoadReportsAndDoesNotRepeat(t *testing.T) {
	k := newFakeKernel(t)
	k.fail["virtio"] = unix.ENOEXEC
	l := k.loader(Settings{})
	n, err := l.Load(t.Context(), "virtio_net", "nfs", "gone")
	if n != 2 || err == nil || !strings.Contains(err.Error(), "module virtio: exec format error") || !strings.Contains(err.Error(), "module gone: not in the initramfs") {
		t.Errorf("Load() = %d, %v", n, err)
	}
	n, err = l.Load(t.Context(), "virtio")
	if n != 0 || err != nil {
		t.Errorf("second Load() = %d, %v, want silence about what is known", n, err)
	}
}

func TestLoadLeavesBlacklistedAlone(t *testing.T) {
	k := newFakeKernel(t)
	l := k.loader(ParseCmdline("modprobe.blacklist=virtio-net"))
	if n, err := l.LoadFor(t.Context(), "virtio:d1"); n != 0 || err != nil {
		t.Errorf("LoadFor() = %d, %v, want nothing loaded", n, err)
	}
	if n, err := l.Load(t.Context(), "virtio_net"); n != 2 || err != nil {
		t.Errorf("Load() by name = %d, %v, want it loaded: the list is about aliases", n, err)
	}
}

func TestLoadRefusesDamagedModules(t *testing.T) {
	k := newFakeKernel(t)
	k.write("/lib/modules/r/nfs.ko", "bits")
	k.write("/lib/modules/r/virtio.ko", "bots")
	l := k.loader(Settings{})
	l.Digests = Digests{"/lib/modules/r/nfs.ko": sha256.Sum256([]byte("bits")), "/lib/modules/r/virtio.ko": sha256.Sum256([]byte("bits"))}
	n, err := l.Load(t.Context(), "nfs", "virtio")
	if n != 1 || err == nil || !strings.Contains(err.Error(), "/lib/modules/r/virtio.ko is damaged") {
		t.Errorf("Load() = %d, %v", n, err)
	}
}

func TestFinitErrors(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("finit_module answers EPERM to anybody but root before it looks at the file")
	}
	file := filepath.Join(t.TempDir(), "x.ko")
	if err := os.WriteFile(file, []byte("not a module"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := finit(file, ""); err == nil {
		t.Error("finit of a text file succeeded")
	}
	if err := finit(file+".gone", ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("finit of nothing = %v", err)
	}
}

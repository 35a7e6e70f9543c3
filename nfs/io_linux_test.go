// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInMemory drops pages of a file from memory and asks for ranges with and
// without them.
func TestInMemory(t *testing.T) {
	// The kernel drops whole folios of up to 2 MiB, so the ranges keep away from
	// the ends of the hole.
	const size = 32 << 20
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := &blob{file: f, fd: int(f.Fd()), size: size, nowait: probeNowait(f)}
	if b.nowait != nowaitFlag {
		t.Skip("the filesystem of the temporary directory does not tell what is in memory")
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(b.fd, 8<<20, 16<<20, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		off  int64
		n    int
		want bool
	}{
		{"before the hole", 4096, 512 << 10, true},
		{"behind the hole", size - 5000, 5000, true},
		{"in the hole", 12 << 20, 64 << 10, false},
		{"over the whole hole", 0, size, false},
		{"into the hole", 4 << 20, 8 << 20, false},
		{"out of the hole", 20 << 20, 8 << 20, false},
	} {
		if got := b.inMemory(tt.off, tt.n); got != tt.want {
			t.Errorf("%s: in memory %t, want %t", tt.name, got, tt.want)
		}
	}
	if err := b.fetch(0, size); err != nil {
		t.Fatal(err)
	}
	if !b.inMemory(0, size) {
		t.Error("a file that was fetched is not in memory")
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package transfer_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"slate/images/store"
	"slate/images/transfer"
)

// The test binary is also a receiver in a process of its own, so that its memory
// can be measured.
func TestMain(m *testing.M) {
	url := os.Getenv("SLATE_PULL_URL")
	if url == "" {
		os.Exit(m.Run())
	}
	if err := pullAlone(url, os.Getenv("SLATE_PULL_KEY"), os.Getenv("SLATE_PULL_DIR")); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

const memory = 24 << 20

func pullAlone(url, key, dir string) error {
	pub, err := hex.DecodeString(key)
	if err != nil {
		return err
	}
	to, err := store.Open(filepath.Join(dir, "store"), store.Options{})
	if err != nil {
		return err
	}
	c := transfer.NewTestClient(url, []ed25519.PublicKey{pub}, dir)
	c.Memory = memory
	if _, err := pull(context.Background(), c, to); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, peak, _ := bytes.Cut(status, []byte("VmHWM:"))
	fmt.Printf("peak %s", peak)
	return nil
}

// However much there is to fetch, the receiver holds no more than it may, and
// what the program itself and the garbage collector take.
func TestMemoryIsBounded(t *testing.T) {
	s := newSite(t, nil)
	files := map[string][]byte{"large": random(99, 32<<20)}
	for i := range 20 {
		files[fmt.Sprint("f", i)] = random(i, 7<<20)
	}
	rec := s.commit(t, files)
	files = nil
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SLATE_PULL_URL="+s.url, "SLATE_PULL_DIR="+t.TempDir(),
		"SLATE_PULL_KEY="+hex.EncodeToString(s.key.Public().(ed25519.PublicKey)))
	out, err := cmd.CombinedOutput()
	var kb int64
	if err == nil {
		_, err = fmt.Sscanf(string(out), "peak %d kB", &kb)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d MB were fetched with a bound of %d; the process had %d MB at most", rec.Size>>20, memory>>20, kb>>10)
	if kb<<10 > raceCost*(3*memory+32<<20) {
		t.Errorf("the process had %d MB at its peak, want at most %d times three times the bound of %d MB and 32", kb>>10, raceCost, memory>>20)
	}
}

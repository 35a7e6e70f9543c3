// SPDX-License-Identifier: GPL-2.0-or-later

package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/netboot/state"
	"slate/netboot/state/statetest"
)

func TestContract(t *testing.T) {
	for _, c := range statetest.Contract() {
		t.Run(c.Name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.db")
			if err := c.Run(t.Context(), func() (state.Store, error) { return Open(file) }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSecondOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	first, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(file, 10*time.Millisecond)
	var inUse *InUseError
	if !errors.As(err, &inUse) || !strings.Contains(err.Error(), file) || !strings.Contains(inUse.Hint(), "another slate") {
		t.Errorf("second open of a file: %v, want an InUseError that names it", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := open(file, 10*time.Millisecond)
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx state.Tx) error { return tx.Put("b", "k", make([]byte, 1<<20)) })
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"cut short":      whole[:500_000],
		"only its head":  whole[:10_000],
		"not a database": []byte(strings.Repeat("garbage\n", 10_000)),
		"tiny":           []byte("x"),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.db")
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(file)
			if err == nil {
				s.Close()
				t.Fatal("Open of a damaged file returned no error")
			}
			if !strings.Contains(err.Error(), file) {
				t.Errorf("Open = %v, want the file's name in it", err)
			}
		})
	}
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "no", "state.db")
	if _, err := Open(file); !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), file) != 1 {
		t.Errorf("Open in a missing directory = %v, want the file's name in it, once", err)
	}
}

func TestPrivate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %o, want 600: the file is only the appliance's business", got)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMountsBelow(t *testing.T) {
	dir := t.TempDir()
	info := filepath.Join(t.TempDir(), "mountinfo")
	text := `22 1 0:21 / /proc rw - proc proc rw
30 1 0:30 / ` + dir + `/root/proc rw,nosuid - proc proc rw
31 1 0:31 / ` + dir + `-beside/dev rw - tmpfs tmpfs rw
32 1 0:32 / ` + dir + `/with\040space rw shared:1 - tmpfs tmpfs rw
33 1 0:33 / ` + dir + ` rw - tmpfs tmpfs rw
short
`
	if err := os.WriteFile(info, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := mountsBelow(info, dir)
	if want := []string{dir + "/root/proc", dir + "/with space", dir}; err != nil || !slices.Equal(got, want) {
		t.Errorf("mountsBelow = %q, %v; want %q", got, err, want)
	}
}

func TestMountedErrorNamesTheMount(t *testing.T) {
	err := error(&mountedError{"/x", []string{"/x/dev", "/x/proc"}})
	var h interface{ Hint() string }
	if !errors.As(err, &h) || !strings.Contains(h.Hint(), "/x/dev") || !strings.Contains(err.Error(), "/x/proc") {
		t.Errorf("error %v, want both mounts and a hint", err)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"slate/builder/command"
	"slate/builder/initramfs"
)

func TestControllerCPIO(t *testing.T) {
	o := initramfs.ControllerOptions{
		Init:    []byte("\x7fELF controller"),
		SitePub: []byte("slate-site-key x\n"),
		Files:   map[string][]byte{"/etc/slate/b": []byte("b"), "/a/deep/file": []byte("a")},
	}
	b, err := initramfs.ControllerCPIO(o)
	if err != nil {
		t.Fatal(err)
	}
	got := unpackArchive(t, b)
	for name, want := range map[string]entry{
		"init":               {0o100755, "\x7fELF controller"},
		"etc/slate/site.pub": {0o100644, "slate-site-key x\n"},
		"a/deep":             {0o040755, ""},
		"a/deep/file":        {0o100644, "a"},
		"dev/console":        {0o020600, ""},
		"dev/null":           {0o020666, ""},
		"proc":               {0o040555, ""},
		"tmp":                {0o041777, ""},
		"root":               {0o040700, ""},
	} {
		if got[name] != want {
			t.Errorf("%s = %o %q, want %o %q", name, got[name].mode, got[name].data, want.mode, want.data)
		}
	}
	checkDigests(t, got, initramfs.DigestsPath)
	again, err := initramfs.ControllerCPIO(o)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("a second archive differs, %v", err)
	}
}

// cpio(1) must agree with us, and two archives must read as one.
func TestArchivesCanBeJoined(t *testing.T) {
	var joined bytes.Buffer
	for _, name := range []string{"one", "two"} {
		b, err := initramfs.ControllerCPIO(initramfs.ControllerOptions{
			Init: []byte("init"), Files: map[string][]byte{"/" + name: []byte(name)}, Compression: initramfs.Plain,
		})
		if err != nil {
			t.Fatal(err)
		}
		joined.Write(b)
	}
	dir := t.TempDir()
	// Like the kernel: one archive after the other, zeros between them.
	err := command.Run(t.Context(), command.Cmd{
		Args: []string{"sh", "-c", "cpio -idm --quiet --no-absolute-filenames --nonmatching 'dev/*' && cpio -idmu --quiet --no-absolute-filenames --nonmatching 'dev/*'"},
		Dir:  dir, Stdin: bytes.NewReader(joined.Bytes()),
	})
	var ce *command.Error
	if errors.As(err, &ce) && (ce.Hint() != "" || bytes.Contains([]byte(err.Error()), []byte("not found"))) {
		if os.Getenv("SLATE_TEST") == "all" {
			t.Fatal(err)
		}
		t.Skip("no cpio program")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != name {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
}

func TestControllerIsThereOrSaysWhatToDo(t *testing.T) {
	b, err := initramfs.Controller()
	var none initramfs.NoControllerError
	switch {
	case errors.As(err, &none):
		if none.Hint() == "" {
			t.Error("no hint")
		}
		if _, err := initramfs.ControllerCPIO(initramfs.ControllerOptions{}); !errors.As(err, &none) {
			t.Errorf("ControllerCPIO = %v, want a NoControllerError", err)
		}
	case err != nil:
		t.Fatal(err)
	case !bytes.HasPrefix(b, []byte("\x7fELF")):
		t.Errorf("the controller is no program: %q…", b[:min(len(b), 16)])
	}
}

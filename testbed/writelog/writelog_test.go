// SPDX-License-Identifier: GPL-2.0-or-later

package writelog_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"slate/testbed/labtest"
	"slate/testbed/qemu"
	"slate/testbed/writelog"
)

const diskSize = 1 << 20

// record has QEMU itself write to a disk and keep the record.
func record(t *testing.T, commands ...string) (disk string, log *writelog.Log) {
	t.Helper()
	labtest.Need(t, "qemu-io")
	dir := t.TempDir()
	disk, name := filepath.Join(dir, "disk"), filepath.Join(dir, "log")
	for _, f := range []string{disk, name} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(disk, diskSize); err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(qemu.Recorded(map[string]any{"driver": "file", "filename": disk}, name))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"json:" + string(spec)}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	if out, err := exec.Command("qemu-io", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io: %v\n%s", err, out)
	}
	if log, err = writelog.Open(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return disk, log
}

func empty(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "again"))
	if err == nil {
		err = f.Truncate(diskSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func contents(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReplay(t *testing.T) {
	disk, log := record(t, "write -P 1 0 64k", "write -P 2 256k 64k", "flush", "discard 256k 64k", "write -P 3 512k 4k", "write -z 0 4k", "flush")
	f := empty(t)
	if err := log.Apply(f, 0, log.Len()); err != nil {
		t.Fatal(err)
	}
	want := contents(t, disk)
	clear(want[256<<10 : 320<<10]) // given up: qemu-io's file may keep it, ours does not
	if !bytes.Equal(contents(t, f.Name()), want) {
		t.Error("the disk made from the record is another")
	}
	if got := log.Sure(log.Len()); got != log.Len() {
		t.Errorf("after the last flush %d entries are sure, want all %d", got, log.Len())
	}
}

// Until the first flush anything may be lost, but nothing else is there; what a flush
// has confirmed is.
func TestLose(t *testing.T) {
	_, log := record(t, "write -P 1 0 64k", "write -P 2 256k 64k", "flush", "write -P 3 512k 64k", "write -P 4 768k 64k", "flush")
	torn, lost, kept := 0, 0, 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := log.Moment(rng)
		if n < 0 || n >= log.Len() {
			t.Fatalf("moment %d of %d", n, log.Len())
		}
		f := empty(t)
		sure := log.Sure(n)
		if err := log.Apply(f, 0, sure); err != nil {
			t.Fatal(err)
		}
		if err := log.Lose(f, sure, n, rng); err != nil {
			t.Fatal(err)
		}
		b := contents(t, f.Name())
		for i, at := range []int{0, 256 << 10, 512 << 10, 768 << 10} {
			part := b[at : at+64<<10]
			have := bytes.Count(part, []byte{byte(i + 1)})
			if have+bytes.Count(part, []byte{0}) != len(part) {
				t.Fatalf("seed %d: at %d there is what was never written", seed, at)
			}
			switch {
			case i < 2 && sure > 2 && have != len(part):
				t.Errorf("seed %d: a write before a flush is lost", seed)
			case have == len(part):
				kept++
			case have == 0:
				lost++
			default:
				torn++
			}
		}
	}
	if torn == 0 || lost == 0 || kept == 0 {
		t.Errorf("%d writes torn, %d lost, %d kept: want some of each", torn, lost, kept)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, b := range map[string][]byte{"empty": nil, "another": bytes.Repeat([]byte{7}, 4096),
		"cut off": append([]byte("rhswfsj\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00"), make([]byte, 600)...)} {
		file := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := writelog.Open(file); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

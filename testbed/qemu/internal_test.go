// SPDX-License-Identifier: GPL-2.0-or-later

package qemu

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The guest that shows whether KVM works must itself work, and be fast enough for
// its limit even when emulated.
func TestProbeGuestRuns(t *testing.T) {
	if _, err := exec.LookPath(Program); err != nil {
		t.Skip(err) // labtest imports this package; TestMachineLives insists
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := probeGuest(ctx, TCG); err != nil {
		t.Error(err)
	}
}

// The committed boot sector is what its source says, where there is an assembler.
func TestProbeSectorIsItsSource(t *testing.T) {
	for _, tool := range []string{"as", "objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	for _, argv := range [][]string{
		{"as", "--64", "-o", dir + "/probe.o", "probe.S"},
		{"objcopy", "-O", "binary", "-j", ".text", dir + "/probe.o", dir + "/probe.bin"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	got, err := os.ReadFile(dir + "/probe.bin")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, probeSector) || len(got) != 512 {
		t.Error("probe.bin is not what probe.S gives")
	}
}

func TestAccelFromEnvironment(t *testing.T) {
	for _, want := range []Accel{KVM, TCG} {
		t.Setenv("SLATE_ACCEL", string(want))
		if got := DetectAccel(); got != want {
			t.Errorf("DetectAccel() = %v, want %v", got, want)
		}
	}
}

func TestDecodePPM(t *testing.T) {
	img, err := decodePPM(strings.NewReader("P6\n2 1\n255\n\x01\x02\x03\xff\x00\x80"))
	if err != nil {
		t.Fatal(err)
	}
	if r, g, b, _ := img.At(1, 0).RGBA(); r != 0xffff || g != 0 || b != 0x8080 {
		t.Errorf("second dot is %x %x %x", r, g, b)
	}
	for _, bad := range []string{"", "P6\n2 1\n65535\n", "P6\n2 2\n255\nabc", "P6\n-1 1\n255\n", "P6\n99999999 99999999\n255\n"} {
		if _, err := decodePPM(strings.NewReader(bad)); err == nil {
			t.Errorf("decodePPM(%q) succeeded", bad)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package qemu_test

import (
	"bytes"
	"context"
	"image/png"
	"strings"
	"testing"
	"time"

	"slate/testbed/console"
	"slate/testbed/labtest"
	"slate/testbed/process"
	"slate/testbed/qemu"
)

// A machine without disk or network: its BIOS runs and says that it found nothing
// to boot, once more after a reset; its plug is pulled by the context.
func TestMachineLives(t *testing.T) {
	labtest.Need(t, qemu.Program)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	vm, err := qemu.Start(ctx, qemu.Config{Name: "empty", Memory: 64}, process.Spec{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	con := console.New(vm.Serial(), console.Options{})
	expect := func(patterns ...string) {
		t.Helper()
		if _, err := con.Expect(ctx, time.Minute, patterns...); err != nil {
			t.Fatal(err)
		}
	}
	expect("SeaBIOS", "No bootable device")
	if s, err := vm.Status(ctx); s != "running" || err != nil {
		t.Errorf("Status() = %q, %v", s, err)
	}
	pic, err := vm.Screenshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(pic))
	if err != nil {
		t.Fatal(err)
	}
	if b := img.Bounds(); b.Dx() < 640 || b.Dy() < 400 {
		t.Errorf("the screen is %v", b)
	}
	if err := vm.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	expect("SeaBIOS", "No bootable device")
	if err := vm.SetLink(ctx, 0, false); err == nil {
		t.Error("a card that is not there was unplugged")
	}
	cancel()
	if err := vm.Process().Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("after the context's end: %v, want that it was killed", err)
	}
	vm.Kill()
}

func TestStartShowsWhatQEMUSaid(t *testing.T) {
	labtest.Need(t, qemu.Program)
	_, err := qemu.Start(t.Context(), qemu.Config{Name: "x", Extra: []string{"-no-such-option"}}, process.Spec{}, nil)
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("Start() = %v, want QEMU's own words", err)
	}
}

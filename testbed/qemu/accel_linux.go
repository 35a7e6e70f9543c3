// SPDX-License-Identifier: GPL-2.0-or-later

package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// Accel is how guest code is executed.
type Accel string

// TCG emulates; KVM uses the processor's virtualisation.
const (
	TCG Accel = "tcg"
	KVM Accel = "kvm"
)

func (a Accel) arg() string {
	if a == KVM {
		return "kvm"
	}
	return "tcg,thread=multi"
}

// Program is the emulator's name.
const Program = "qemu-system-x86_64"

// kvmLimit is how long the probe's guest may take. It needs a fraction of a
// second; where KVM is broken it hangs for ever.
const kvmLimit = 4 * time.Second

// DetectAccel returns KVM if a tiny guest really runs under it, else TCG. The
// answer is found once per process; SLATE_ACCEL=kvm or tcg decides without trying.
func DetectAccel() Accel {
	switch a := Accel(os.Getenv("SLATE_ACCEL")); a {
	case KVM, TCG:
		return a
	}
	return detectOnce()
}

var detectOnce = sync.OnceValue(func() Accel {
	// The device may be there and openable, and the guest hang all the same,
	// on machines that are virtual themselves.
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return TCG
	} else {
		f.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), kvmLimit)
	defer cancel()
	if err := probeGuest(ctx, KVM); err != nil {
		return TCG
	}
	return KVM
})

// probeSector is a boot sector that writes 0x2a to port 0xf4, where QEMU's
// isa-debug-exit makes it end with status 2*0x2a+1.
//
//	mov al, 0x2a; out 0xf4, al; hlt
var probeSector = [512]byte{0: 0xb0, 1: 0x2a, 2: 0xe6, 3: 0xf4, 4: 0xf4, 510: 0x55, 511: 0xaa}

const probeStatus = 2*0x2a + 1

// probeGuest starts a machine that ends itself with its first instructions.
func probeGuest(ctx context.Context, a Accel) error {
	dir, err := os.MkdirTemp("", "slate-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, probeSector[:], 0o600); err != nil {
		return err
	}
	err = exec.CommandContext(ctx, Program, "-no-user-config", "-nodefaults", "-machine", "pc", "-accel", a.arg(), "-cpu", "max",
		"-m", "32", "-display", "none", "-drive", "if=ide,format=raw,file="+escape(disk),
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1").Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == probeStatus {
		return nil
	}
	if err == nil {
		err = errors.New("the guest did not run")
	}
	return err
}

// SPDX-License-Identifier: GPL-2.0-or-later

package qemu

import (
	"bytes"
	"context"
	_ "embed" // probe.bin
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

// Program is the name of the emulator of nearly all machines.
const Program = "qemu-system-x86_64"

// kvmLimit is how long the probe's guest may take. It needs a fraction of a
// second; where KVM is broken it hangs for ever.
const kvmLimit = 4 * time.Second

// DetectAccel returns KVM if this machine is a real one and a tiny guest runs
// under it, else TCG. The answer is found once per process; SLATE_ACCEL=kvm or tcg decides without trying.
func DetectAccel() Accel {
	switch a := Accel(os.Getenv("SLATE_ACCEL")); a {
	case KVM, TCG:
		return a
	}
	return detectOnce()
}

// Accel is how this computer executes what the firmware's machine runs.
func (f Firmware) Accel() Accel {
	if f == UEFIARM64 {
		return TCG // another processor's code
	}
	return DetectAccel()
}

var detectOnce = sync.OnceValue(func() Accel {
	// On a machine that is virtual itself the device may be there and openable,
	// even run a simple guest, and still hang in the real mode of SeaBIOS and iPXE.
	if cpuinfo, err := os.ReadFile("/proc/cpuinfo"); err != nil || bytes.Contains(cpuinfo, []byte(" hypervisor ")) {
		return TCG
	}
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

// probeSector is probe.S, assembled.
//
//go:embed probe.bin
var probeSector []byte

const probeStatus = 2*0x2a + 1

// probeGuest starts a machine that ends itself after its first instructions.
func probeGuest(ctx context.Context, a Accel) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dir, err := os.MkdirTemp("", "slate-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, probeSector, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, Program, "-no-user-config", "-nodefaults", "-machine", "pc", "-accel", a.arg(), "-cpu", "max",
		"-m", "32", "-display", "none", "-drive", "if=ide,format=raw,file="+escape(disk),
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1")
	cmd.Stderr = complaints{cancel}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == probeStatus {
		return nil
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return errors.New("the guest did not run")
	}
	return err
}

// complaints ends the probe when QEMU stops the machine because the kernel cannot
// go on with it; it would wait for a debugger then.
type complaints struct{ cancel context.CancelCauseFunc }

func (c complaints) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("KVM internal error")) {
		c.cancel(errors.New("KVM internal error"))
	}
	return len(b), nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"slate/testbed/process"
)

// VM is a running machine.
type VM struct {
	serial  net.Conn
	monitor *Monitor
	proc    *process.Process
}

// Start powers the machine on. spec says where its process runs (namespaces,
// log); Argv and Files are filled in here. When ctx ends the machine is gone, as
// if its plug were pulled. The caller must read the serial port, else the
// machine waits for it. events may be nil.
func Start(ctx context.Context, c Config, spec process.Spec, events func(Event)) (*VM, error) {
	argv, err := Args(c)
	if err != nil {
		return nil, err
	}
	serial, serialEnd, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer serialEnd.Close()
	qmp, qmpEnd, err := socketPair()
	if err != nil {
		serial.Close()
		return nil, err
	}
	defer qmpEnd.Close()

	spec.Name = "qemu " + c.Name
	spec.Argv = append([]string{c.Firmware.Program()}, argv...)
	spec.Files = []*os.File{serialEnd, qmpEnd}
	for _, n := range c.NICs {
		spec.Files = append(spec.Files, n.File)
	}
	vm := &VM{serial: serial}
	if vm.proc, err = process.Start(ctx, spec); err == nil {
		// Ours must be closed, or the end of QEMU would go unnoticed.
		serialEnd.Close()
		qmpEnd.Close()
		if vm.monitor, err = NewMonitor(ctx, qmp, events); err != nil {
			vm.proc.Kill()
			err = fmt.Errorf("machine %s did not start: %w: %s", c.Name, err, tail(vm.proc))
		}
	}
	if err != nil {
		serial.Close()
		qmp.Close()
		return nil, err
	}
	return vm, nil
}

func tail(p *process.Process) string {
	lines := p.Tail()
	if len(lines) == 0 {
		return "qemu said nothing"
	}
	return lines[len(lines)-1]
}

// socketPair returns a connection and the descriptor of its other end.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	c, err := net.FileConn(near)
	if err != nil {
		far.Close()
		return nil, nil, err
	}
	return c, far, nil
}

// Serial is the first serial port.
func (vm *VM) Serial() net.Conn { return vm.serial }

// Monitor is the way to everything that has no method here.
func (vm *VM) Monitor() *Monitor { return vm.monitor }

// Process is QEMU itself; Done and Wait tell when the machine went off.
func (vm *VM) Process() *process.Process { return vm.proc }

// Kill ends the machine at once, like a power cut.
func (vm *VM) Kill() {
	vm.proc.Kill()
	vm.monitor.Close()
}

// PressPower presses the power button: an operating system that listens shuts
// down.
func (vm *VM) PressPower(ctx context.Context) error { return vm.command(ctx, "system_powerdown", nil) }

// Reset presses the reset button.
func (vm *VM) Reset(ctx context.Context) error { return vm.command(ctx, "system_reset", nil) }

// SetLink plugs or unplugs the cable of network card i.
func (vm *VM) SetLink(ctx context.Context, i int, up bool) error {
	return vm.command(ctx, "set_link", map[string]any{"name": "net" + strconv.Itoa(i) + "-card", "up": up})
}

// Status is QEMU's word for the state of the machine: running, paused, …
func (vm *VM) Status(ctx context.Context) (string, error) {
	b, err := vm.monitor.Command(ctx, "query-status", nil)
	if err != nil {
		return "", err
	}
	var s struct{ Status string }
	err = json.Unmarshal(b, &s)
	return s.Status, err
}

// PressKeys presses keys together on the keyboard, by QEMU's names: "ret",
// "down", "ctrl", "a".
func (vm *VM) PressKeys(ctx context.Context, keys ...string) error {
	type key struct {
		Type string `json:"type"`
		Data string `json:"data"`
	}
	var ks []key
	for _, k := range keys {
		ks = append(ks, key{"qcode", k})
	}
	return vm.command(ctx, "send-key", map[string]any{"keys": ks})
}

// Screenshot returns the screen as a PNG picture.
func (vm *VM) Screenshot(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "slate-screen-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "screen.ppm")
	if err := vm.command(ctx, "screendump", map[string]any{"filename": file}); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	img, err := decodePPM(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = png.Encode(&out, img)
	return out.Bytes(), err
}

func (vm *VM) command(ctx context.Context, name string, arguments any) error {
	_, err := vm.monitor.Command(ctx, name, arguments)
	return err
}

// decodePPM reads the raw form of ppm(5) that QEMU writes. Its PNG support is
// optional, so it is not relied on.
func decodePPM(r io.Reader) (image.Image, error) {
	br := bufio.NewReader(r)
	var w, h, maxval int
	if _, err := fmt.Fscanf(br, "P6\n%d %d\n%d\n", &w, &h, &maxval); err != nil {
		return nil, fmt.Errorf("screen picture: %w", err)
	}
	if maxval != 255 || w <= 0 || h <= 0 || w > 1<<14 || h > 1<<14 {
		return nil, errors.New("screen picture: not 24 bit")
	}
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	row := make([]byte, 3*w)
	for y := range h {
		if _, err := io.ReadFull(br, row); err != nil {
			return nil, fmt.Errorf("screen picture: %w", err)
		}
		for x := range w {
			img.SetRGBA(x, y, color.RGBA{row[3*x], row[3*x+1], row[3*x+2], 255})
		}
	}
	return img, nil
}

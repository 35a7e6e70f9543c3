// SPDX-License-Identifier: GPL-2.0-or-later

// Package qemu runs virtual machines: options to argv, the process, its serial
// port and its monitor.
//
// It knows what QEMU and Debian's firmware files need, see qemu(1) and the QMP
// reference; networks are handed in as descriptors.
package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Firmware is what a machine starts with.
type Firmware string

// The kinds of firmware. UEFISecure has Microsoft's keys enrolled and enforces
// them. UEFIARM64 is that of another processor, which the machine then has.
const (
	BIOS       Firmware = "bios"
	UEFI       Firmware = "uefi"
	UEFISecure Firmware = "uefi-secure"
	UEFIARM64  Firmware = "uefi-arm64"
)

// FirmwareFiles returns the code and the template of the variables, from Debian's
// packages ovmf and qemu-efi-aarch64; none for BIOS, which QEMU carries.
func (f Firmware) FirmwareFiles() (code, vars string) {
	const x64, arm64 = "/usr/share/OVMF/", "/usr/share/AAVMF/"
	switch f {
	case UEFI:
		return x64 + "OVMF_CODE_4M.fd", x64 + "OVMF_VARS_4M.fd"
	case UEFISecure:
		return x64 + "OVMF_CODE_4M.ms.fd", x64 + "OVMF_VARS_4M.ms.fd"
	case UEFIARM64:
		return arm64 + "AAVMF_CODE.fd", arm64 + "AAVMF_VARS.fd"
	}
	return "", ""
}

// Program is the emulator of the processor that runs the firmware.
func (f Firmware) Program() string {
	if f == UEFIARM64 {
		return "qemu-system-aarch64"
	}
	return Program
}

// Config describes a machine. The zero value of a field is its default.
type Config struct {
	Name     string    // for messages and the process list
	Firmware Firmware  // default: BIOS
	Memory   int       // MiB; default: 1024
	CPUs     int       // default: 1
	Accel    Accel     // default: TCG
	UUID     string    // SMBIOS; default: none
	Serial   string    // SMBIOS serial number; default: none
	Clock    time.Time // the machine's clock at power-on; default: now

	NICs  []NIC
	Disks []Disk
	// Boot orders the devices: each "net" or "disk" stands for all of that kind,
	// net0, net1, disk0, … for one. Default: net, disk.
	Boot []string
	// VarsFile keeps the variables of UEFI; it must exist and is written to.
	VarsFile string
	// UEFINet turns PXE over "ipv4" and "ipv6" on or off under UEFI. Default:
	// both on. With both off the firmware goes to HTTP boot at once, instead of
	// after minutes of waiting for the others.
	UEFINet map[string]bool

	// Kernel, Initrd and Append start a Linux kernel without firmware's help.
	Kernel, Initrd, Append string

	Extra []string // further arguments, last
}

// NIC is a network card.
type NIC struct {
	Model string // QEMU's device name; default: virtio-net-pci
	MAC   net.HardwareAddr
	// ROM is the card's boot ROM: a file, "none", "default" (QEMU's, an iPXE),
	// or empty: "none" for virtio under UEFI, whose own driver then boots by
	// plain PXE, else "default", for it is the only driver.
	ROM string
	// File carries the frames: a tap device, or with Datagrams a connected
	// datagram socket that takes and gives one frame per packet.
	File      *os.File
	Datagrams bool
}

// Disk is a drive.
type Disk struct {
	File     string
	Format   string // raw or qcow2; default: raw
	Dir      string // instead of File: a FAT partition with the files of this directory
	Bus      string // virtio, sata, nvme, scsi, usb; default: virtio
	Serial   string // default: disk and its number
	ReadOnly bool
	CDROM    bool    // on sata, scsi or usb
	Faults   []Fault // errors to inject, see QEMU's blkdebug
	Record   string  // file that gets a record of all writes, see package writelog
}

// Fault makes accesses to a disk fail. The fields are those of blkdebug's
// inject-error; Event "write_aio" with Errno 5 is a medium that cannot be written.
type Fault struct {
	Event  string `json:"event"`
	Errno  int    `json:"errno"`
	Sector *int64 `json:"sector,omitempty"`
	Once   bool   `json:"once"`
}

// Descriptors the process is started with; those of the cards follow.
const (
	serialFd = 3
	qmpFd    = 4
	nicFd    = 5
)

// Args returns the arguments of the firmware's Program for c, without its name. The
// process needs the serial port's socket as descriptor 3, the monitor's as 4, and
// then the files of the cards.
func Args(c Config) ([]string, error) {
	if c.Firmware == "" {
		c.Firmware = BIOS
	}
	if c.Memory == 0 {
		c.Memory = 1024
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Boot == nil {
		c.Boot = []string{"net", "disk"}
	}
	a := args{"-no-user-config", "-nodefaults", "-name", "guest=" + escape(c.Name)}
	if err := a.machine(c); err != nil {
		return nil, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	order, err := bootOrder(c)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	for i, n := range c.NICs {
		if err := a.nic(c.Firmware, i, n, order); err != nil {
			return nil, fmt.Errorf("machine %s: network card %d: %w", c.Name, i, err)
		}
	}
	if err := a.disks(c, order); err != nil {
		return nil, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	if c.Kernel != "" {
		a.add("-kernel", c.Kernel, "-append", c.Append)
		if c.Initrd != "" {
			a.add("-initrd", c.Initrd)
		}
	}
	return append(a, c.Extra...), nil
}

type args []string

func (a *args) add(s ...string) { *a = append(*a, s...) }

func (a *args) machine(c Config) error {
	// graphics=off makes SeaBIOS show its screen on the serial port as well.
	machine := "q35,graphics=off"
	screen := []string{"-vga", "std"}
	switch c.Firmware {
	case BIOS:
	case UEFI, UEFISecure, UEFIARM64:
		code, _ := c.Firmware.FirmwareFiles()
		if c.VarsFile == "" {
			return errors.New("UEFI without a file for its variables")
		}
		if c.Firmware == UEFIARM64 {
			machine, screen = "virt", []string{"-device", "virtio-gpu-pci"}
		}
		if c.Firmware == UEFISecure {
			// Only code in system management mode may write the variables.
			machine += ",smm=on"
			a.add("-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
		}
		a.add("-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+escape(code),
			"-drive", "if=pflash,format=raw,unit=1,file="+escape(c.VarsFile))
	default:
		return fmt.Errorf("firmware %q: not one of bios, uefi, uefi-secure, uefi-arm64", c.Firmware)
	}
	a.add("-machine", machine, "-accel", c.Accel.arg(), "-cpu", "max",
		"-smp", strconv.Itoa(c.CPUs), "-m", strconv.Itoa(c.Memory))
	if c.UUID != "" {
		a.add("-uuid", c.UUID)
	}
	if c.Serial != "" {
		a.add("-smbios", "type=1,serial="+escape(c.Serial))
	}
	if !c.Clock.IsZero() {
		a.add("-rtc", "base="+c.Clock.UTC().Format("2006-01-02T15:04:05"))
	}
	for _, v := range []string{"ipv4", "ipv6"} {
		if on, ok := c.UEFINet[v]; ok {
			a.add("-fw_cfg", fmt.Sprintf("name=opt/org.tianocore/IP%sPXESupport,string=%s", v[2:], yesNo(on)))
		}
	}
	a.add("-display", "none")
	a.add(screen...)
	a.add("-device", "virtio-rng-pci",
		"-chardev", fmt.Sprintf("socket,id=serial,fd=%d", serialFd), "-serial", "chardev:serial",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", qmpFd), "-mon", "chardev=monitor,mode=control")
	return nil
}

func (a *args) nic(fw Firmware, i int, n NIC, order map[string]int) error {
	model := n.Model
	if model == "" {
		model = "virtio-net-pci"
	}
	if len(n.MAC) != 6 {
		return fmt.Errorf("MAC address %q", n.MAC)
	}
	id := "net" + strconv.Itoa(i)
	backend := "tap,id=%s,fd=%d"
	if n.Datagrams {
		backend = "dgram,id=%s,local.type=fd,local.str=%d"
	}
	a.add("-netdev", fmt.Sprintf(backend, id, nicFd+i))
	dev := fmt.Sprintf("%s,netdev=%s,id=%s-card,mac=%s", escape(model), id, id, n.MAC)
	rom := n.ROM
	if rom == "" && fw != BIOS && strings.HasPrefix(model, "virtio-net") {
		rom = "none"
	}
	switch rom {
	case "", "default":
	case "none":
		dev += ",romfile="
	default:
		dev += ",romfile=" + escape(rom)
	}
	a.add("-device", dev+bootIndex(order, id))
	return nil
}

func (a *args) disks(c Config, order map[string]int) error {
	controllers := map[string]string{"scsi": "virtio-scsi-pci,id=scsi", "usb": "qemu-xhci,id=usb"}
	for i, d := range c.Disks {
		id := "disk" + strconv.Itoa(i)
		bus := d.Bus
		if bus == "" {
			bus = "virtio"
		}
		if ctl := controllers[bus]; ctl != "" {
			a.add("-device", ctl)
			delete(controllers, bus)
		}
		kinds := map[string]string{"virtio": "virtio-blk-pci", "sata": "ide-hd,bus=ide." + strconv.Itoa(i), "nvme": "nvme",
			"scsi": "scsi-hd,bus=scsi.0", "usb": "usb-storage,bus=usb.0,removable=on"}
		if d.CDROM {
			kinds = map[string]string{"sata": "ide-cd,bus=ide." + strconv.Itoa(i), "scsi": "scsi-cd,bus=scsi.0", "usb": "usb-storage,bus=usb.0"}
		}
		dev, ok := kinds[bus]
		if !ok {
			return fmt.Errorf("disk %d (%s): no such disk on bus %q", i, d.File, bus)
		}
		if d.Record != "" && bus == "virtio" {
			// A merged request can have as many parts as the host takes in one call; with
			// what the record adds it would fail.
			dev += ",request-merging=off"
		}
		serial := d.Serial
		if serial == "" {
			serial = id
		}
		node, err := blockdev(id, d)
		if err != nil {
			return fmt.Errorf("disk %d (%s): %w", i, d.File, err)
		}
		a.add("-blockdev", node, "-device", fmt.Sprintf("%s,drive=%s,id=%s-drive,serial=%s", dev, id, id, escape(serial))+bootIndex(order, id))
	}
	return nil
}

// Recorded is the description of a layer that keeps a record, in the file log, of what
// is written to the one below.
func Recorded(below map[string]any, log string) map[string]any {
	return map[string]any{"driver": "blklogwrites", "file": below, "log": map[string]any{"driver": "file", "filename": log}, "log-sector-size": 512}
}

// blockdev describes the layers of a disk in QEMU's JSON: format on top of the
// faults, if any, on top of the file.
func blockdev(id string, d Disk) (string, error) {
	type object = map[string]any
	format := d.Format
	if format == "" {
		format = "raw"
	}
	file := object{"driver": "file", "filename": d.File}
	if d.Dir != "" {
		file = object{"driver": "vvfat", "dir": d.Dir, "rw": false}
	}
	if d.Record != "" {
		file = Recorded(file, d.Record)
	}
	if len(d.Faults) > 0 {
		file = object{"driver": "blkdebug", "inject-error": d.Faults, "image": file}
	}
	top := object{"driver": format, "node-name": id, "file": file, "discard": "unmap", "read-only": d.ReadOnly || d.CDROM || d.Dir != ""}
	b, err := json.Marshal(top)
	return string(b), err
}

// bootOrder gives each device that is named in Boot its place.
func bootOrder(c Config) (map[string]int, error) {
	order := map[string]int{}
	put := func(id string) {
		if _, ok := order[id]; !ok {
			order[id] = len(order) + 1
		}
	}
	count := map[string]int{"net": len(c.NICs), "disk": len(c.Disks)}
	for _, b := range c.Boot {
		kind := strings.TrimRight(b, "0123456789")
		n, ok := count[kind]
		if !ok {
			return nil, fmt.Errorf("boot device %q: not net or disk", b)
		}
		if kind == b {
			for i := range n {
				put(kind + strconv.Itoa(i))
			}
			continue
		}
		if i, err := strconv.Atoi(b[len(kind):]); err != nil || i >= n {
			return nil, fmt.Errorf("boot device %q: the machine has %d of that kind", b, n)
		}
		put(b)
	}
	return order, nil
}

func bootIndex(order map[string]int, id string) string {
	if n, ok := order[id]; ok {
		return ",bootindex=" + strconv.Itoa(n)
	}
	return ""
}

// escape protects a value inside a comma separated option.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

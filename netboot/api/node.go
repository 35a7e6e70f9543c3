// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"errors"
	"fmt"
	"time"
)

// Node is one client machine as the appliance knows it.
type Node struct {
	Name     string    `json:"name"`
	MACs     []string  `json:"macs"`
	UUID     string    `json:"uuid,omitempty"`
	Serial   string    `json:"serial,omitempty"`
	Product  string    `json:"product,omitempty"`
	Firmware string    `json:"firmware,omitempty"`
	Address  string    `json:"address,omitempty"`
	Seen     time.Time `json:"seen"`
	Groups   []string  `json:"groups,omitempty"` // the later ones have precedence
	Set      Set       `json:"set,omitzero"`
	Install  bool      `json:"install,omitempty"` // at its next start, once
	Hardware *Facts    `json:"hardware,omitempty"`
	Report   *Report   `json:"report,omitempty"` // of its agent, the last one
	Boots    []Boot    `json:"boots,omitempty"`  // newest first; the status has only the newest
	Older    []string  `json:"older,omitempty"`  // ids of the boots before Boots, newest first

	// Progress is worked out when somebody asks, and so is the version that the node
	// is to run; they are not kept.
	Progress *Progress `json:"progress,omitempty"`
	Assigned string    `json:"assigned,omitempty"`
}

// Runs is the version that the node runs, or was sent last: what its agent says goes
// before what the appliance knows of the start.
func (n Node) Runs() string {
	switch {
	case len(n.Boots) == 0:
		return ""
	case n.Report != nil && n.Report.Version != "" && n.Report.Time.After(n.Boots[0].Started):
		return n.Report.Version
	}
	return n.Boots[0].Image
}

// Set is what the admin set for one node. Empty fields leave the matter to config.d.
type Set struct {
	Image   string   `json:"image,omitempty"`
	Mode    string   `json:"mode,omitempty"`
	Cmdline []string `json:"cmdline,omitempty"`
}

// IsZero tells whether nothing is set.
func (s Set) IsZero() bool { return s.Image == "" && s.Mode == "" && len(s.Cmdline) == 0 }

// Condition is how a node is, as far as the appliance can tell.
type Condition string

// The conditions.
const (
	Off     Condition = "off"
	Booting Condition = "booting"
	Failed  Condition = "failed"
	Running Condition = "running"
	Ignored Condition = "ignored"
)

// Progress says how a node is, since when, and why.
type Progress struct {
	Condition Condition `json:"condition"`
	Step      Step      `json:"step,omitempty"` // the last one it came to
	Since     time.Time `json:"since,omitzero"`
	Text      string    `json:"text,omitempty"`
}

// Facts are what the controller finds out about the hardware it runs on.
type Facts struct {
	Vendor      string `json:"vendor,omitempty"`
	Product     string `json:"product,omitempty"`
	Serial      string `json:"serial,omitempty"`
	UUID        string `json:"uuid,omitempty"`
	BIOSVersion string `json:"biosVersion,omitempty"`
	Firmware    string `json:"firmware,omitempty"` // "BIOS" or "UEFI"
	SecureBoot  bool   `json:"secureBoot,omitempty"`
	CPU         string `json:"cpu,omitempty"`   // model name
	Cores       int    `json:"cores,omitempty"` // as the kernel counts processors
	MemoryMiB   int    `json:"memoryMiB,omitempty"`
	Disks       []Disk `json:"disks,omitempty"`
	NICs        []NIC  `json:"nics,omitempty"`
}

// Disk is a drive of a node.
type Disk struct {
	Name      string `json:"name"` // as the kernel calls it
	Model     string `json:"model,omitempty"`
	Serial    string `json:"serial,omitempty"`
	Size      int64  `json:"size"`                // bytes
	Transport string `json:"transport,omitempty"` // sata, nvme, usb, virtio, …
	ID        string `json:"id,omitempty"`        // as below /dev/disk/by-id
	Path      string `json:"path,omitempty"`      // where it is plugged in, as below /dev/disk/by-path
}

// NIC is a wired network interface of a node.
type NIC struct {
	Name   string `json:"name"`
	MAC    string `json:"mac"`
	Driver string `json:"driver,omitempty"`
	Speed  int    `json:"speed,omitempty"` // Mbit/s, 0 if unknown
	Link   bool   `json:"link,omitempty"`
}

// Limits on the facts that a machine may post.
const (
	MaxFactsBytes  = 64 << 10
	maxFactsText   = 128
	maxFactsDisks  = 64
	maxFactsNICs   = 32
	maxFactsCores  = 1 << 16
	maxFactsMemory = 1 << 30 // MiB
)

// Check reports what is wrong with facts that came from outside.
func (f Facts) Check() error {
	var errs []error
	text := func(what string, values ...string) {
		for _, v := range values {
			if len(v) > maxFactsText {
				errs = append(errs, fmt.Errorf("facts: %s is %d bytes long, over the limit of %d", what, len(v), maxFactsText))
			}
		}
	}
	text("machine", f.Vendor, f.Product, f.Serial, f.UUID, f.BIOSVersion, f.Firmware, f.CPU)
	if f.Cores < 0 || f.Cores > maxFactsCores || f.MemoryMiB < 0 || f.MemoryMiB > maxFactsMemory {
		errs = append(errs, fmt.Errorf("facts: %d cores and %d MiB of memory cannot be", f.Cores, f.MemoryMiB))
	}
	if len(f.Disks) > maxFactsDisks || len(f.NICs) > maxFactsNICs {
		errs = append(errs, fmt.Errorf("facts: %d disks and %d network interfaces are over the limits of %d and %d", len(f.Disks), len(f.NICs), maxFactsDisks, maxFactsNICs))
	}
	for _, d := range f.Disks {
		text("disk", d.Name, d.Model, d.Serial, d.Transport, d.ID, d.Path)
		if d.Size < 0 {
			errs = append(errs, fmt.Errorf("facts: disk %q has a negative size", d.Name))
		}
	}
	for _, n := range f.NICs {
		text("network interface", n.Name, n.MAC, n.Driver)
	}
	return errors.Join(errs...)
}

// Targets say which nodes a request is about: names, globs, and groups as @name.
type Targets struct {
	Targets []string `json:"targets"`
}

// Change is what an admin changes of nodes. A nil field stays as it is; one that
// is not nil but empty is left to config.d again.
type Change struct {
	Targets
	Image    *string   `json:"image,omitempty"`
	Mode     *string   `json:"mode,omitempty"`
	Cmdline  *[]string `json:"cmdline,omitempty"`
	Install  *bool     `json:"install,omitempty"` // at the next start
	Join     []string  `json:"join,omitempty"`    // groups; the last has the highest precedence
	Leave    []string  `json:"leave,omitempty"`   // groups
	LeaveAll bool      `json:"leaveAll,omitempty"`
}

// Done is what became of a request, node by node.
type Done struct {
	Node  string `json:"node"`
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}

// Order is what the appliance tells a running node to do.
type Order struct {
	Do string `json:"do"`
}

// The orders.
const (
	OrderReboot = "reboot" // restart in an orderly way
	OrderUpdate = "update" // go to the version that the appliance has for the node now
	OrderVerify = "verify" // compare all files of the system that runs from the node's drive
	OrderConfig = "config" // config.d has changed for the node: fetch it
)

// Explanation is a boot decision in words.
type Explanation struct {
	Node  string   `json:"node"`
	Lines []Reason `json:"lines"`
	// Version is what the node would run, e.g. lab/3; empty if it is not started.
	Version string `json:"version,omitempty"`
	// Error says why the node is not started, with what to do about it.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// Reason is one part of a decision: what is decided, what for, and why.
type Reason struct {
	What  string `json:"what"` // e.g. image
	Value string `json:"value"`
	Why   string `json:"why"`
}

// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"slate/installer/machine"

	"golang.org/x/sys/unix"
)

// Lower says what the image's tree is mounted from: the appliance's export on a
// diskless machine, a slot of its own disk on an installed one. Either is mounted
// read-only at Sysroot; what comes on top is the same for both.
type Lower struct {
	NFS machine.Export
	// Slot is the file system of a slot, as mount(2) takes it: What, Type and Data
	// ("subvol=@a"). Where it goes, and that it is read-only, is decided here.
	Slot machine.Mount
}

// Local reports whether the tree lies on a disk of this machine.
func (l Lower) Local() bool { return l.Slot.What != "" }

// Valid reports whether there is a tree at all.
func (l Lower) Valid() bool { return l.Local() || l.NFS.Server.IsValid() }

// String names the tree for people.
func (l Lower) String() string {
	switch {
	case !l.Local():
		return l.NFS.String()
	case l.Slot.Data != "":
		return l.Slot.What + " (" + l.Slot.Data + ")"
	}
	return l.Slot.What
}

func (l Lower) mount() machine.Mount {
	if !l.Local() {
		return machine.Mount{What: source(l.NFS), Where: Sysroot, Type: "nfs", Flags: unix.MS_RDONLY | unix.MS_NOATIME, Data: NFSOptions(l.NFS.Server)}
	}
	m := l.Slot
	m.Where, m.Flags = Sysroot, m.Flags|unix.MS_RDONLY|unix.MS_NOATIME
	return m
}

// userData gives the mount of the file system that keeps what a machine may keep.
// A machine without one has the same directories in memory.
func (in Input) userData() machine.Mount {
	if in.UserData.What == "" {
		return machine.Mount{What: Upper + "/user-data", Where: UserData, Flags: unix.MS_BIND}
	}
	m := in.UserData
	m.Where, m.Flags = UserData, m.Flags|unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV
	return m
}

// SPDX-License-Identifier: GPL-2.0-or-later

package update

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/installer/machine"
	"slate/installer/root"
	"slate/installer/servers"
	"slate/installer/slot"
	"slate/netboot/api"
)

// Order is what the running system is told to fetch.
type Order struct {
	Assigned api.Assigned  `json:"assigned"`
	Servers  []string      `json:"servers"` // as slate.server has them
	Boot     string        `json:"boot"`    // the id of this start at the first of them
	Disk     string        `json:"disk"`
	Target   string        `json:"target"` // the slot to fill
	Mount    machine.Mount `json:"mount"`  // of that slot, without a place
	Rate     int64         `json:"rate"`   // bytes a second; 0: as fast as it goes
}

// Result is what came of it.
type Result struct {
	Version string `json:"version"`
	Bytes   int64  `json:"bytes"` // fetched over the network
}

// Places in the running system.
const (
	runDir  = "/run/slate"
	runBoot = runDir + "/boot"
	runSlot = runDir + "/update" // the slot, while it is filled
	runKeys = runDir + "/site.pub"
)

// Serve reads an Order and fills the slot, as a process of its own inside the running
// system, which must not be kept from its work by that. What it mounts goes with it.
// Notes are written to log, the Result to out.
func Serve(ctx context.Context, in io.Reader, out, log io.Writer) error {
	var o Order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("what to fetch: %w", err)
	}
	machine.StepBack()
	_ = unix.Unmount(runSlot, unix.MNT_DETACH) // of one that was ended
	m := o.Mount
	m.Where, m.Flags = runSlot, unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV
	if err := m.Do(); err != nil {
		return fmt.Errorf("system %s: %w", o.Target, err)
	}
	defer unix.Unmount(runSlot, unix.MNT_DETACH)
	keys, err := images.LoadPublicKeys(runKeys)
	if err != nil {
		return err
	}
	rec, err := slot.Read(root.Bare, keys)
	if err != nil {
		return fmt.Errorf("the system that runs: %w", err)
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	fleet, err := newFleet(o)
	if err != nil {
		return err
	}
	note := func(format string, a ...any) { fmt.Fprintf(log, format+"\n", a...) }
	c := fleet.Transfer(keys, note)
	c.Rate, c.Memory, c.Connections = o.Rate, 32<<20, 2
	if err := Forget(runBoot, o.Target); err != nil {
		return err
	}
	j := Job{Boot: runBoot, Target: o.Target, Dir: runSlot, Disk: o.Disk, Running: rec, Root: root.Bare, Cmdline: string(cmdline), Assigned: o.Assigned,
		Client: c, Controller: fleet.Controller, Note: note}
	fresh, err := j.Run(ctx)
	if err == nil {
		err = unix.Unmount(runSlot, 0)
	}
	if err == nil {
		err = Trial(runBoot, o.Target, fresh.Tree)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(Result{fresh.Ref(), c.Stats().Bytes})
}

func newFleet(o Order) (*servers.Fleet, error) {
	var list []machine.Server
	for _, text := range o.Servers {
		s, err := machine.ParseServer(text)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil, errors.New("no appliance to fetch from")
	}
	return servers.NewFleet(list, o.Boot), nil
}

// NightLeft tells how much is left, at a time of day, of hours such as 22:00-05:00;
// 0 outside them, or if they are empty.
func NightLeft(hours string, now time.Time) time.Duration {
	var h1, m1, h2, m2 int
	if _, err := fmt.Sscanf(hours, "%d:%d-%d:%d", &h1, &m1, &h2, &m2); err != nil {
		return 0
	}
	const day = 24 * 60
	from, to, at := h1*60+m1, h2*60+m2, now.Hour()*60+now.Minute()
	long, gone := (to-from+day)%day, (at-from+day)%day
	return time.Duration(max(0, long-gone)) * time.Minute
}

// Rate reads a rate of update.chk.conf, such as 500K; 0: none.
func Rate(text string) int64 {
	var n int64
	unit := ""
	fmt.Sscanf(text, "%d%s", &n, &unit)
	return n * map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[unit]
}

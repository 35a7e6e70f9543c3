// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slate/installer/bootpart"
	"slate/installer/machine"
	"slate/installer/slot"
	"slate/netboot/api"
)

// userDir is where user-data is, below the agent's directory.
const userDir = "user-data"

// updateCycle changes the record of a cycle of the machine whose files are in dir.
func updateCycle(dir string, number int, change func(*slot.Cycle)) error {
	if number == 0 {
		return nil // it has none, which was said when it should have got one
	}
	key, err := slot.LoadKey(filepath.Join(dir, BootDir))
	if err != nil {
		return err
	}
	r := slot.Records{Key: key}
	at := filepath.Join(dir, userDir, slot.CyclesDir)
	c, err := r.Cycle(at, number)
	if err != nil {
		return err
	}
	change(&c)
	return r.SaveCycle(at, c)
}

// becameHealthy records that the start-up was healthy, and tells the loader: the tries
// of the slot begin anew.
func (a *Agent) becameHealthy(c Config) {
	if c.Slot == "" {
		a.tell(c.Grant, 1)
		return
	}
	now := a.now().UTC().Truncate(time.Second)
	err := updateCycle(a.Dir, c.Cycle, func(r *slot.Cycle) {
		if r.Healthy.IsZero() {
			r.Healthy, r.Failed = now, ""
		}
	})
	if err != nil {
		a.logf("that this start is healthy is not recorded: %v", err)
	}
	tries := c.Tries
	if tries == 0 {
		tries = bootpart.DefaultTries
	}
	a.tell(c.Slot, tries)
}

// tell tells the loader how many tries a slot has.
func (a *Agent) tell(s string, tries int) {
	if s == "" {
		return
	}
	dir := filepath.Join(a.Dir, BootDir)
	env, err := bootpart.ReadEnv(dir)
	if err == nil && env.Tries[s] != tries {
		env.Tries[s] = tries
		err = bootpart.WriteEnv(dir, env)
	}
	if err != nil {
		a.logf("the loader is not told that the system came up: %v", err)
	}
}

// failed records that the start-up was not healthy in time, and restarts the machine
// if a further try is left, here or in the other slot. It returns false if the system
// is to go on as it is.
func (a *Agent) failed(ctx context.Context, c Config, why string, tell func(api.Event)) bool {
	if c.Slot == "" {
		return false
	}
	if err := updateCycle(a.Dir, c.Cycle, func(r *slot.Cycle) { r.Failed = why }); err != nil {
		a.logf("that this start failed is not recorded: %v", err)
	}
	note := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		a.logf("%s", text)
		tell(api.Event{Step: api.StepHealth, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	}
	next, ok := a.nextTry(c)
	if !ok {
		note("no try is left, so the machine goes on as it is")
		return false
	}
	note("this start has failed: restarting, with system %s", strings.ToUpper(next))
	if err := a.restart(); err != nil {
		note("cannot restart in order: %v", err)
	}
	select {
	case <-time.After(a.stopped):
	case <-ctx.Done():
		return true
	}
	a.logf("the system does not restart; doing it")
	if err := a.force(); err != nil {
		note("cannot restart: %v", err)
		return false
	}
	return true
}

// nextTry tells which slot the loader will start, if one has tries left.
func (a *Agent) nextTry(c Config) (string, bool) {
	env, err := bootpart.ReadEnv(filepath.Join(a.Dir, BootDir))
	if err != nil || c.Last {
		return "", false
	}
	if env.Tries[c.Slot] > 0 {
		return c.Slot, true
	}
	other := slot.Other(c.Slot)
	return other, env.Tries[other] > 0 && bootpart.Has(filepath.Join(a.Dir, BootDir), other)
}

// forceRestart restarts the machine without its system's help.
func forceRestart() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// RecordEnd records that the machine was shut down in order. It runs inside the system,
// as the last thing before what is kept is unmounted; dir is the agent's directory.
func RecordEnd(dir string) error {
	var c Config
	b, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("%s: %w", ConfigFile, err)
	}
	if c.Slot == "" {
		return nil
	}
	return updateCycle(dir, c.Cycle, func(r *slot.Cycle) { r.Ended = time.Now().UTC().Truncate(time.Second) })
}

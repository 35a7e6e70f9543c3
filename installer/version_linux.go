// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"slate/installer/bootpart"
	"slate/installer/screen"
	"slate/installer/slot"
	"slate/installer/update"
	"slate/netboot/api"
	"slate/netboot/config"

	"golang.org/x/sys/unix"
)

// hasVersion tells whether there is a version to compare: a system of the machine's
// own that is about to start.
func hasVersion(b *Boot) (bool, string) {
	if b == nil || !b.installed() {
		return false, "there is no local system to compare"
	}
	if b.Settings.Last {
		return false, "the system that starts is the last that this machine has"
	}
	return true, ""
}

// updateState is what is kept of updates on the boot partition.
func updateState() update.State { return update.State{Dir: filepath.Join(bootMount, update.Dir)} }

// checkVersion compares the system that is about to start with what the appliance says
// that this machine is to run, and does what update.chk.conf and the person at the
// machine want. Whatever goes wrong, the system starts as it is.
func checkVersion(ctx context.Context, b *Boot) error {
	state := updateState()
	open := b.openAssigned()
	var a *api.Assigned
	err := errors.New("there is no appliance to ask")
	if b.hasAppliance() && b.Lease.Address.IsValid() {
		a, err = b.askAssigned(ctx, state, open)
	}
	if err != nil {
		b.Note("what this machine is to run is not known: %v", err)
		var older *update.OlderError
		if errors.As(err, &older) {
			b.Note("%s", older.Hint())
		}
		if a, err = state.Last(open); err != nil || a == nil || b.backup().Tree != a.Tree.String() {
			return nil // what is here already can be switched to all the same
		}
	}
	p := update.Decide(update.Facts{Conf: b.config().Update, Running: b.System.Record, Backup: b.backup(), Assigned: a, Known: state.Known(), NextStart: state.NextStart()})
	b.Note("%s: %s", map[update.Do]string{update.Nothing: "no update", update.Ask: "there is another version", update.Fetch: "update", update.Switch: "update"}[p.Do], p.Why)
	if p.Do == update.Ask {
		if p.Do, err = b.askPerson(ctx, state, *a, p.Then); err != nil {
			return err
		}
	}
	if p.Do == update.Nothing {
		return nil
	}
	return b.update(ctx, state, *a, p.Do)
}

// backup is the slot that does not run.
func (b *Boot) backup() slot.SlotState { return b.Local.Slots[slot.Other(b.System.Slot)] }

func (b *Boot) openAssigned() func([]byte) (api.Assigned, error) {
	return func(data []byte) (api.Assigned, error) {
		keys, err := b.siteKeys()
		if err != nil {
			return api.Assigned{}, err
		}
		return api.OpenAssigned(keys, b.Settings.Node, data)
	}
}

// assignedLimit is how long the appliance may take to say what the machine is to run.
const assignedLimit = 10 * time.Second

func (b *Boot) askAssigned(ctx context.Context, state update.State, open func([]byte) (api.Assigned, error)) (*api.Assigned, error) {
	ctx, cancel := context.WithTimeout(ctx, assignedLimit)
	defer cancel()
	data, err := b.Fleet.Assigned(ctx)
	if err != nil {
		return nil, err
	}
	return state.Accept(data, open)
}

// Answers to the question.
const (
	answerNow   = config.SilenceNow
	answerNext  = config.SilenceNextStart
	answerLater = config.SilenceLater
)

// askPerson asks on the screen and on the serial lines.
func (b *Boot) askPerson(ctx context.Context, state update.State, a api.Assigned, then update.Do) (update.Do, error) {
	size := "it is on this machine already"
	if then == update.Fetch {
		if b.config().Update.DownloadFirst {
			if err := b.fetchVersion(ctx, a); err != nil {
				b.Note("%s is not fetched: %v", a.Version, oneLine(err))
				return update.Nothing, nil
			}
			then = update.Switch
		} else if err := b.withJob(ctx, a, false, func(j update.Job) error {
			n, err := j.Size(ctx)
			size = fmt.Sprintf("up to %.1f MB to fetch, and what starts it", float64(n)/1e6)
			return err
		}); err != nil {
			b.Note("%s cannot be had: %v", a.Version, oneLine(err))
			return update.Nothing, nil
		}
	}
	id, err := b.Console.Choose(ctx, b.updateMenu(a, size, time.Now()))
	if err != nil {
		return update.Nothing, err
	}
	switch id {
	case answerNow:
		b.Note("%s: now", a.Version)
		return then, nil
	case answerNext:
		b.Note("%s: at the next start", a.Version)
		return update.Nothing, state.PutOff(a)
	}
	b.Note("%s: later", a.Version)
	return update.Nothing, nil
}

// updateMenu is the question.
func (b *Boot) updateMenu(a api.Assigned, size string, now time.Time) *screen.Menu {
	c, runs := b.config().Update, b.System.Record
	m := &screen.Menu{Node: b.node(), Title: "There is another version of this machine's system.",
		Detail: []string{fmt.Sprintf("It has %s, of %s, and is to have %s: %s.", runs.Ref(), runs.Time.Local().Format(time.DateOnly), a.Version, size)},
		Items: []screen.Item{
			{ID: answerNow, Text: "Update now, then start", Next: "Updating"},
			{ID: answerNext, Text: "Start " + runs.Ref() + " now, update at the next start", Next: "Starting as it is, updating at the next start"},
			{ID: answerLater, Text: "Start " + runs.Ref() + ", and ask again at the next start", Next: "Starting as it is"},
		},
		Facts: b.facts(),
	}
	if a.Note != "" {
		m.Detail = append(m.Detail, "The administrator's note: "+a.Note)
	}
	for i, it := range m.Items {
		if it.ID == c.Silence {
			m.Selected, m.Default = i, i
		}
	}
	if c.Timeout > 0 {
		m.Deadline = now.Add(time.Duration(c.Timeout) * time.Second)
	}
	return m
}

// update brings the version into the other slot, if it is not there, and starts that.
func (b *Boot) update(ctx context.Context, state update.State, a api.Assigned, do update.Do) error {
	if err := state.Obey(a); err != nil {
		return err
	}
	if do == update.Fetch {
		start := time.Now()
		b.event(api.StepVersion, api.StateStart, "fetching "+a.Version)
		if err := b.fetchVersion(ctx, a); err != nil {
			return fmt.Errorf("%s is not installed, going on with %s: %w", a.Version, b.System.Record.Ref(), err)
		}
		b.Note("%s is there, in %.0f s", a.Version, time.Since(start).Seconds())
	}
	return b.switchTo(ctx, slot.Other(b.System.Slot))
}

// switchTo starts the other slot in the place of the one that was about to start.
func (b *Boot) switchTo(ctx context.Context, target string) error {
	was := *b.System
	st := b.Local.Slots[target]
	rec := b.Local.records[target]
	if err := update.Start(bootMount, target, rec, st.State == slot.Trial, b.config().Update.Tries); err != nil {
		return err
	}
	env := b.Local.Env
	if err := b.reread(); err != nil {
		return err
	}
	if err := b.useSystem(ctx, b.Local.system(target)); err != nil {
		b.Note("%s cannot be started, going on with %s: %v", rec.Ref(), was.Record.Ref(), err)
		b.Local.Env = env
		return b.useSystem(ctx, was)
	}
	b.Note("system %s, %s, is on trial: if it does not become healthy, %s is started again", strings.ToUpper(target), rec.Ref(), was.Record.Ref())
	return nil
}

// fetchVersion fills the other slot.
func (b *Boot) fetchVersion(ctx context.Context, a api.Assigned) error {
	target := slot.Other(b.System.Slot)
	err := b.withJob(ctx, a, true, func(j update.Job) error {
		if err := update.Forget(bootMount, target); err != nil {
			return err
		}
		_, err := j.Run(ctx)
		if s := j.Client.Stats(); err == nil {
			b.Note("%d KB were fetched for %s", s.Bytes/1000, a.Version)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := update.Trial(bootMount, target, a.Tree); err != nil {
		return err
	}
	return b.reread()
}

// reread looks at the slots again, after one was filled.
func (b *Boot) reread() error {
	keys, err := b.siteKeys()
	if err != nil {
		return err
	}
	l := b.Local
	if l.Env, err = bootpart.ReadEnv(bootMount); err != nil {
		return err
	}
	b.lookAtSlots(l, keys, b.config().Update)
	return nil
}

// withJob mounts what an update works on. fill: the other slot is to be written to.
func (b *Boot) withJob(ctx context.Context, a api.Assigned, fill bool, do func(update.Job) error) error {
	keys, err := b.siteKeys()
	if err != nil {
		return err
	}
	target := slot.Other(b.System.Slot)
	from := b.System.Mount
	from.Where, from.Flags = otherMount, unix.MS_RDONLY|unix.MS_NOATIME
	if err := from.Do(); err != nil {
		return err
	}
	defer unix.Unmount(otherMount, 0)
	if fill {
		if err := b.mountTarget(ctx, b.Local.Drive, target); err != nil {
			return err
		}
		defer unix.Unmount(slotMount, 0)
	}
	c := b.Fleet.Transfer(keys, b.Note)
	c.Memory = max(b.Memory.Available/4, 32<<20)
	r := newRate(time.Now)
	c.Progress = progressNote(b, r)
	return do(update.Job{Boot: bootMount, Target: target, Dir: slotMount, Disk: b.Local.Drive.GUID, Running: b.System.Record, Root: otherMount,
		Cmdline: readText(b.path("/proc/cmdline")), Assigned: a, Client: c, Controller: b.Fleet.Controller, Note: b.Note, Progress: b.verifying()})
}

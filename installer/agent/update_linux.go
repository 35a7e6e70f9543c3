// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"slate/builder/command"
	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/machine"
	"slate/installer/servers"
	"slate/installer/slot"
	"slate/installer/update"
	"slate/netboot/api"
	"slate/netboot/config"
)

// UpdateRole is the argument with which the agent's program fills a slot.
const UpdateRole = "update"

// Drive is what the agent needs to know of an installed machine's drive.
type Drive struct {
	Disk    string                    `json:"disk"` // GUID of its partition table
	Mounts  map[string]machine.Mount  `json:"mounts"`
	Running images.Record             `json:"running"`
	Slots   map[string]slot.SlotState `json:"slots"` // as the controller found them
	Cycles  []slot.Cycle              `json:"cycles,omitempty"`
}

// updates is the work of fetching versions. One is fetched at a time.
type updates struct {
	busy sync.Mutex // held while one is fetched

	mu     sync.Mutex
	report api.UpdateReport
	slots  map[string]slot.SlotState
}

// Filler returns a function that fills a slot by a process inside the system; notes
// are told as they come.
func Filler(program string, proc *os.File) func(context.Context, update.Order, func(string)) (update.Result, error) {
	return func(ctx context.Context, o update.Order, note func(string)) (r update.Result, err error) {
		text, err := json.Marshal(o)
		if err != nil {
			return r, err
		}
		out, err := command.Output(ctx, command.Cmd{Args: []string{program, UpdateRole}, Stdin: bytes.NewReader(text), Files: []*os.File{proc}, Line: note})
		if err != nil {
			return r, err
		}
		return r, json.Unmarshal([]byte(out), &r)
	}
}

func (a *Agent) setUpdate(r api.UpdateReport) {
	a.updates.mu.Lock()
	defer a.updates.mu.Unlock()
	a.updates.report = r
}

var errDiskless = errors.New("this machine is diskless: it gets its version at its next start")

// update brings the version that the appliance has for this machine into the slot that
// does not run, and has the loader start it next. ordered: somebody wants it now,
// whatever update.chk.conf says. It tells whether a restart would start another version.
func (a *Agent) update(ctx context.Context, c Config, fleet *servers.Fleet, conf config.UpdateCheck, ordered bool) (text string, ready bool, err error) {
	if c.Drive == nil {
		return "", false, errDiskless
	}
	if !a.updates.busy.TryLock() {
		return "", false, errors.New("a version is being fetched already")
	}
	defer a.updates.busy.Unlock()
	boot := filepath.Join(a.Dir, BootDir)
	state := update.State{Dir: filepath.Join(boot, update.Dir)}
	keys, err := images.LoadPublicKeys(filepath.Join(a.Dir, KeysFile))
	if err != nil {
		return "", false, err
	}
	data, err := fleet.Assigned(ctx)
	if err != nil {
		return "", false, fmt.Errorf("what this machine is to run is not known: %w", err)
	}
	assigned, err := state.Accept(data, func(d []byte) (api.Assigned, error) { return api.OpenAssigned(keys, c.Named, d) })
	if err != nil {
		return "", false, err
	}
	target := slot.Other(c.Slot)
	backup := a.slots(c)[target]
	p := update.Decide(update.Facts{Conf: conf, Running: c.Drive.Running, Backup: backup, Assigned: assigned, Known: state.Known(), NextStart: state.NextStart(), Ordered: ordered})
	if p.Do == update.Nothing || p.Do == update.Ask {
		return p.Why, false, nil
	}
	a.logf("update: %s", p.Why)
	if err := state.Obey(*assigned); err != nil {
		return "", false, err
	}
	done := api.UpdateReport{Version: assigned.Version, State: api.UpdateReady, Text: "is started at the next start"}
	fresh := backup.State == slot.Trial
	if p.Do == update.Fetch {
		fresh = true
		if done.Bytes, err = a.fetch(ctx, c, fleet, conf, *assigned); err != nil {
			return "", false, fmt.Errorf("%s is not installed: %w", assigned.Version, err)
		}
	}
	tries := c.Tries
	if tries == 0 {
		tries = bootpart.DefaultTries
	}
	if err := update.Start(boot, target, images.Record{Tree: assigned.Tree}, fresh, tries); err != nil {
		return "", false, err
	}
	a.setUpdate(done)
	text = assigned.Version + " is there, and is started at the next start"
	if done.Bytes > 0 {
		text += fmt.Sprintf(" (%d KB fetched)", done.Bytes/1000)
	}
	return text, true, nil
}

func (a *Agent) fetch(ctx context.Context, c Config, fleet *servers.Fleet, conf config.UpdateCheck, assigned api.Assigned) (int64, error) {
	target := slot.Other(c.Slot)
	o := update.Order{Assigned: assigned, Disk: c.Drive.Disk, Target: target, Mount: c.Drive.Mounts[target], Rate: update.Rate(conf.Rate)}
	_, o.Boot = fleet.Known()
	for _, s := range fleet.Servers() {
		o.Servers = append(o.Servers, s.String())
	}
	a.setSlot(target, slot.SlotState{Slot: target, State: slot.Incomplete, Why: "it is being filled"})
	r, err := a.Fill(ctx, o, func(line string) {
		a.logf("update: %s", line)
		a.setUpdate(api.UpdateReport{Version: assigned.Version, State: api.UpdateFetching, Text: line})
	})
	if err != nil {
		return 0, err
	}
	a.setSlot(target, slot.SlotState{Slot: target, State: slot.Trial, Version: assigned.Version, Tree: assigned.Tree.String(), Tries: 1})
	return r.Bytes, nil
}

// slots are the states of the slots as far as the agent knows: as the controller found
// them, and what has become of them since.
func (a *Agent) slots(c Config) map[string]slot.SlotState {
	a.updates.mu.Lock()
	defer a.updates.mu.Unlock()
	out := map[string]slot.SlotState{}
	if c.Drive == nil {
		return out
	}
	for name, s := range c.Drive.Slots {
		out[name] = s
	}
	for name, s := range a.updates.slots {
		out[name] = s
	}
	return out
}

func (a *Agent) setSlot(name string, s slot.SlotState) {
	a.updates.mu.Lock()
	defer a.updates.mu.Unlock()
	if a.updates.slots == nil {
		a.updates.slots = map[string]slot.SlotState{}
	}
	a.updates.slots[name] = s
}

// reportSlots is what the drive holds and how its starts went.
func (a *Agent) reportSlots(c Config, r *api.Report) {
	if c.Drive == nil {
		return
	}
	env, _ := bootpart.ReadEnv(filepath.Join(a.Dir, BootDir))
	slots := a.slots(c)
	for _, name := range []string{"a", "b"} {
		s, ok := slots[name]
		if !ok {
			continue
		}
		state := string(s.State)
		if s.Why != "" {
			state += " (" + s.Why + ")"
		}
		if name == c.Slot {
			state = "running, " + state
		}
		r.Slots = append(r.Slots, api.SlotReport{Slot: name, Version: s.Version, State: state, Tries: env.Tries[name]})
	}
	cycles := c.Drive.Cycles
	if now, _ := a.cycles(); len(now) > 0 {
		cycles = now
	}
	for i := len(cycles) - 1; i >= 0 && len(r.Cycles) < reportCycles; i-- {
		k := cycles[i]
		outcome := k.State()
		if k.Failed != "" {
			outcome += ": " + k.Failed
		}
		r.Cycles = append(r.Cycles, api.Cycle{Version: k.Version, Slot: k.Slot, Started: k.Started, Outcome: outcome})
	}
	r.Failure = failure(cycles, slots)
	a.updates.mu.Lock()
	r.Update = a.updates.report
	a.updates.mu.Unlock()
	if s := slots[c.Slot]; r.Update.State == "" && s.State == slot.Trial && c.Drive.Running.Ref() == s.Version {
		r.Update = api.UpdateReport{Version: s.Version, State: api.UpdateTrial, Text: "its next start makes it permanent if this one is healthy"}
	}
}

// reportCycles is how many cycles a report has.
const reportCycles = 5

// cycles are the records as they are now.
func (a *Agent) cycles() ([]slot.Cycle, error) {
	key, err := slot.LoadKey(filepath.Join(a.Dir, BootDir))
	if err != nil {
		return nil, err
	}
	all, _ := slot.Records{Key: key}.Cycles(filepath.Join(a.Dir, userDir, slot.CyclesDir))
	return all, nil
}

// failure says what went wrong last: a version whose trial came to nothing, with what
// its last start said.
func failure(cycles []slot.Cycle, slots map[string]slot.SlotState) string {
	for _, name := range []string{"a", "b"} {
		s := slots[name]
		if s.State != slot.Failed && s.State != slot.Damaged {
			continue
		}
		text := fmt.Sprintf("system %s, %s, %s", strings.ToUpper(name), s.Version, s.State)
		if s.Why != "" {
			text += ": " + s.Why
		}
		for i := len(cycles) - 1; i >= 0; i-- {
			if c := cycles[i]; c.Slot == name && c.Tree == s.Tree {
				if c.Failed != "" {
					return text + ": " + c.Failed
				}
				return fmt.Sprintf("%s; its start at %s got no further than %q", text, c.Started.Format(time.DateTime), c.State())
			}
		}
		if s.State == slot.Failed {
			text += "; it got no further than its kernel or its controller"
		}
		return text
	}
	return ""
}

// Pauses of the nightly look.
const (
	nightLook  = time.Minute
	nightPause = 15 * time.Minute
	nightSpray = 20 * time.Minute // so that a room does not begin all at once
)

// watchNight fetches new versions in the hours that update.chk.conf gives.
func (a *Agent) watchNight(ctx context.Context, c Config, fleet *servers.Fleet, tell func(api.Event)) {
	pause := nightLook
	began := false
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = nightLook
		conf := a.updateConf()
		left := update.NightLeft(conf.Night, a.now().Local())
		if conf.Mode == config.UpdateOff || left == 0 {
			began = false
			continue
		}
		if !began {
			began, pause = true, rand.N(min(nightSpray, left/2))+time.Second
			continue
		}
		pause = nightPause
		conf.Mode = config.UpdateAuto // the hours are the admin's consent
		text, ready, err := a.update(ctx, c, fleet, conf, false)
		if err != nil {
			text = err.Error()
		}
		if ready || err != nil {
			a.logf("%s", text)
			tell(api.Event{Step: api.StepVersion, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
		}
	}
}

// updateNow carries out the admin's order: fetch, and restart into it.
func (a *Agent) updateNow(ctx context.Context, c Config, fleet *servers.Fleet, tell func(api.Event)) {
	note := func(text string) { // the machine itself is none the worse for what fails here
		a.logf("%s", text)
		tell(api.Event{Step: api.StepVersion, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	}
	note("told to update")
	text, ready, err := a.update(ctx, c, fleet, a.updateConf(), true)
	if err != nil {
		a.setUpdate(api.UpdateReport{State: api.UpdateFailed, Text: oneLine(err)})
		text = err.Error()
	}
	note(text)
	if !ready {
		return
	}
	if err := a.restart(); err != nil {
		note("cannot restart: " + err.Error())
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

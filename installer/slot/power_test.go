// SPDX-License-Identifier: GPL-2.0-or-later

package slot_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slate/images"
	"slate/images/durable"
	"slate/installer/bootpart"
	"slate/installer/slot"
)

// The moments of a file's replacement at which the power can go, as durable.Write goes
// about it. After any of them the name has the old content or the new.
const (
	beforeAll = iota
	halfWritten
	notRenamed
	renamed // and whoever wrote does not know
	moments
)

// machine is the drive of a machine whose power goes at the nth moment of writing.
type powered struct {
	boot, slot, user string
	r                slot.Records
	left             int // moments until the power goes; negative: never
	healthy          bool
}

func newPowered(t *testing.T) *powered {
	r, boot := newRecords(t)
	p := &powered{boot: boot, slot: t.TempDir(), user: t.TempDir(), left: -1}
	p.r = r.WithPower(p.write)
	if err := os.Mkdir(filepath.Join(p.slot, slot.Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

// write is asked before a file is replaced. If the power goes during that, it leaves
// behind what would be found.
func (p *powered) write(path string, data []byte) error {
	if p.left < 0 {
		return nil
	}
	if p.left >= moments {
		p.left -= moments
		return nil
	}
	temp := filepath.Join(filepath.Dir(path), durable.TempPrefix+"123")
	switch p.left {
	case halfWritten:
		os.WriteFile(temp, data[:len(data)/2], 0o600)
	case notRenamed:
		os.WriteFile(temp, data, 0o600)
	case renamed:
		if err := durable.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	p.left = 0
	return errPower
}

// env replaces the loader's counters, or loses power over it.
func (p *powered) env(e bootpart.Env) error {
	if p.left >= 0 && p.left < moments {
		if p.left == renamed {
			if err := bootpart.WriteEnv(p.boot, e); err != nil {
				return err
			}
		}
		p.left = 0
		return errPower
	}
	if p.left >= 0 {
		p.left -= moments
	}
	return bootpart.WriteEnv(p.boot, e)
}

var poweredRecord = images.Record{Name: "demo", Number: 1, Tree: images.Digest{7}}

// live is a cycle of the machine: the loader, the controller, the agent. It returns what
// the controller took the slot for.
func (p *powered) live(healthy, ended bool) (slot.SlotState, error) {
	want := slot.Flag{Tree: poweredRecord.Tree.String(), Disk: "guid", Slot: "a"}
	e, err := bootpart.ReadEnv(p.boot)
	if err != nil {
		return slot.SlotState{}, err
	}
	e.Tries["a"] = max(e.Tries["a"]-1, 0) // the loader's write is its own, in place
	if err := bootpart.WriteEnv(p.boot, e); err != nil {
		return slot.SlotState{}, err
	}
	dir := filepath.Join(p.user, slot.CyclesDir)
	cycles, _ := p.r.Cycles(dir)
	flag := p.r.CheckFlag(p.slot, want)
	if c, ok := slot.Earned(cycles, e.Trial["a"], want, false); ok {
		endTrial := func() error { flag = nil; delete(e.Trial, "a"); return p.env(e) }
		if flag == nil {
			err = endTrial()
		} else {
			err = p.r.Earn(p.slot, want, c, endTrial)
		}
		if err != nil {
			return slot.SlotState{}, err
		}
	}
	state := slot.Judge(slot.Seen{Slot: "a", Record: poweredRecord, Flag: flag, Trial: e.Trial["a"], Tries: e.Tries["a"], Started: true})
	c, err := p.r.Begin(dir, slot.Cycle{Slot: "a", Tree: want.Tree, Disk: "guid", Trial: e.Trial["a"], Started: time.Unix(1, 0)})
	if err != nil || !healthy {
		return state, err
	}
	p.healthy = true // from here on it may be recorded
	c.Healthy = time.Unix(2, 0)
	if err := p.r.SaveCycle(dir, c); err != nil {
		return state, err
	}
	e.Tries["a"] = 3
	if err := p.env(e); err != nil || !ended {
		return state, err
	}
	c.Ended = time.Unix(3, 0)
	return state, p.r.SaveCycle(dir, c)
}

// The power goes at every moment of the writing that leads to a boot flag: the slot is
// never damaged by it, and never has a flag that no healthy cycle earned.
func TestPowerCutsOfTheFlag(t *testing.T) {
	n := 0
	for cut := 0; ; cut++ {
		p := newPowered(t)
		if err := bootpart.WriteEnv(p.boot, bootpart.Env{Slot: "a", Tries: map[string]int{"a": 3}, Trial: map[string]string{"a": bootpart.NewTrial(poweredRecord.Tree)}}); err != nil {
			t.Fatal(err)
		}
		p.left = cut
		cycle, dead := 0, false
		// The first start is not healthy, the second is, the third and fourth earn and go on.
		for ; cycle < 4 && !dead; cycle++ {
			state, err := p.live(cycle > 0, true)
			if dead = errors.Is(err, errPower); err != nil && !dead {
				t.Fatal(err)
			}
			p.check(t, cut, cycle, state)
		}
		if !dead {
			break // the moment lies after all that is written
		}
		n++
		p.left = -1
		for range 3 {
			state, err := p.live(false, false)
			if err != nil {
				t.Fatalf("moment %d, cycle %d: after the power cut: %v", cut, cycle, err)
			}
			p.check(t, cut, cycle, state)
		}
	}
	t.Logf("%d moments", n)
	if n < 30 {
		t.Errorf("only %d moments were tried", n)
	}
}

func (p *powered) check(t *testing.T, cut, cycle int, state slot.SlotState) {
	t.Helper()
	if state.State == slot.Good && !p.healthy {
		t.Errorf("moment %d, cycle %d: a flag that was not earned", cut, cycle)
	}
	if state.State == slot.Damaged || state.State == slot.Failed {
		t.Errorf("moment %d, cycle %d: the slot is %s (%s)", cut, cycle, state.State, state.Why)
	}
}

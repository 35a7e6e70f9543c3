// SPDX-License-Identifier: GPL-2.0-or-later

package update_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slate/images"
	"slate/installer/slot"
	"slate/installer/update"
	"slate/netboot/api"
	"slate/netboot/config"
)

func TestDecide(t *testing.T) {
	one, two := images.Digest{1}, images.Digest{2}
	running := images.Record{Name: "demo", Number: 1, Tree: one}
	ask, auto, off := config.UpdateCheck{Mode: config.UpdateAsk}, config.UpdateCheck{Mode: config.UpdateAuto}, config.UpdateCheck{Mode: config.UpdateOff}
	same, newer := &api.Assigned{Version: "demo/1", Tree: one, Revision: 7}, &api.Assigned{Version: "demo/2", Tree: two, Revision: 7}
	backup := func(s slot.State) slot.SlotState {
		return slot.SlotState{Slot: "b", State: s, Version: "demo/2", Tree: two.String()}
	}
	none := slot.SlotState{State: slot.Empty}
	for _, c := range []struct {
		name string
		f    update.Facts
		want update.Do
		then update.Do
	}{
		{"nobody says anything", update.Facts{Conf: auto, Backup: none}, update.Nothing, ""},
		{"up to date", update.Facts{Conf: auto, Assigned: same, Backup: none}, update.Nothing, ""},
		{"up to date, though ordered", update.Facts{Conf: auto, Assigned: same, Backup: none, Ordered: true}, update.Nothing, ""},
		{"ask", update.Facts{Conf: ask, Assigned: newer, Backup: none}, update.Ask, update.Fetch},
		{"ask, with the version there", update.Facts{Conf: ask, Assigned: newer, Backup: backup(slot.Trial)}, update.Ask, update.Switch},
		{"unasked", update.Facts{Conf: auto, Assigned: newer, Backup: none}, update.Fetch, update.Fetch},
		{"unasked, with the version there", update.Facts{Conf: auto, Assigned: newer, Backup: backup(slot.Good)}, update.Switch, update.Switch},
		{"half there", update.Facts{Conf: auto, Assigned: newer, Backup: backup(slot.Incomplete)}, update.Fetch, update.Fetch},
		{"damaged there", update.Facts{Conf: auto, Assigned: newer, Backup: backup(slot.Damaged)}, update.Fetch, update.Fetch},
		{"off", update.Facts{Conf: off, Assigned: newer, Backup: none}, update.Nothing, ""},
		{"off, ordered", update.Facts{Conf: off, Assigned: newer, Backup: none, Ordered: true}, update.Fetch, update.Fetch},
		{"put off to this start", update.Facts{Conf: ask, Assigned: newer, Backup: none, NextStart: 7}, update.Fetch, update.Fetch},
		{"another was put off", update.Facts{Conf: ask, Assigned: newer, Backup: none, NextStart: 6}, update.Ask, update.Fetch},
		{"has failed here", update.Facts{Conf: auto, Assigned: newer, Backup: backup(slot.Failed), Known: 7}, update.Nothing, ""},
		{"has failed here, said anew", update.Facts{Conf: auto, Assigned: newer, Backup: backup(slot.Failed), Known: 6}, update.Fetch, update.Fetch},
		{"has failed here, ordered", update.Facts{Conf: auto, Assigned: newer, Backup: backup(slot.Failed), Known: 7, Ordered: true}, update.Fetch, update.Fetch},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.Running = running
			if p := update.Decide(c.f); p.Do != c.want || p.Then != c.then || p.Why == "" {
				t.Errorf("Decide = %+v, want %s then %s, with a reason", p, c.want, c.then)
			}
		})
	}
}

// What the appliance said earlier cannot be said again by somebody else; what it says
// newly counts, even if the version is an older one.
func TestAccept(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	open := func(data []byte) (api.Assigned, error) {
		return api.OpenAssigned([]ed25519.PublicKey{pub}, "pc1", data)
	}
	say := func(version string, tree byte, revision int64) api.Assigned {
		return api.Assigned{Node: "pc1", Version: version, Tree: images.Digest{tree}, Revision: revision}
	}
	s := update.State{Dir: filepath.Join(t.TempDir(), "update")}
	other := say("demo/9", 9, 100)
	other.Node = "pc2"
	for _, c := range []struct {
		name string
		data []byte
		want string // the version; "": refused
	}{
		{"the first", say("demo/1", 1, 10).Sign(key), "demo/1"},
		{"forged", say("demo/9", 9, 99).Sign(stranger), ""},
		{"not signed", say("demo/9", 9, 99).Sign(key)[100:], ""},
		{"another node's", other.Sign(key), ""},
		{"newer", say("demo/2", 2, 11).Sign(key), "demo/2"},
		{"played again", say("demo/1", 1, 10).Sign(key), ""},
		{"two under one number", say("demo/3", 3, 11).Sign(key), ""},
		{"the same from another appliance", say("demo/2", 2, 5).Sign(key), "demo/2"},
		{"rolled back by the admin", say("demo/1", 1, 12).Sign(key), "demo/1"},
	} {
		a, err := s.Accept(c.data, open)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: %s is accepted", c.name, a.Version)
			}
			continue
		}
		if err != nil || a.Version != c.want {
			t.Errorf("%s: %+v, %v, want %s", c.name, a, err, c.want)
		}
	}
	var older *update.OlderError
	if _, err := s.Accept(say("demo/2", 2, 11).Sign(key), open); !errors.As(err, &older) || older.Hint() == "" {
		t.Errorf("an older one is refused by %v, want an OlderError with a hint", err)
	}
	a, err := s.Last(open)
	if err != nil || a.Version != "demo/1" {
		t.Errorf("the last is %+v, %v", a, err)
	}
	if err := s.PutOff(*a); err != nil || s.NextStart() != 12 {
		t.Errorf("put off to the next start: %d, %v", s.NextStart(), err)
	}
	if err := s.Obey(*a); err != nil || s.Known() != 12 || s.NextStart() != 0 {
		t.Errorf("obeyed: %d, next start %d, %v", s.Known(), s.NextStart(), err)
	}
	// What is damaged does not keep the machine from following its appliance.
	if err := os.WriteFile(filepath.Join(s.Dir, "assigned"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Accept(say("demo/2", 2, 13).Sign(key), open); err != nil || a.Version != "demo/2" {
		t.Errorf("after damage: %v, %v", a, err)
	}
}

func TestNightLeft(t *testing.T) {
	for _, c := range []struct {
		hours, now string
		want       time.Duration
	}{
		{"", "03:00", 0}, {"22:00-05:00", "21:59", 0}, {"22:00-05:00", "22:00", 7 * time.Hour}, {"22:00-05:00", "00:30", 4*time.Hour + 30*time.Minute},
		{"22:00-05:00", "04:59", time.Minute}, {"22:00-05:00", "05:00", 0}, {"01:30-02:00", "01:30", 30 * time.Minute}, {"01:30-02:00", "12:00", 0},
	} {
		now, err := time.Parse("15:04", c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := update.NightLeft(c.hours, now); got != c.want {
			t.Errorf("NightLeft(%q, %s) = %v, want %v", c.hours, c.now, got, c.want)
		}
	}
	for text, want := range map[string]int64{"": 0, "900": 900, "500K": 500 << 10, "2M": 2 << 20} {
		if got := update.Rate(text); got != want {
			t.Errorf("Rate(%q) = %d, want %d", text, got, want)
		}
	}
}

func FuzzOpenAssigned(f *testing.F) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(api.Assigned{Node: "n", Version: "demo/1", Tree: images.Digest{1}, Revision: 1}.Sign(key))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := api.OpenAssigned([]ed25519.PublicKey{pub}, "", data); err == nil && (a.Revision <= 0 || a.Tree.IsZero()) {
			t.Errorf("accepted: %+v", a)
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Report is how a running machine is, in the words of its agent.
type Report struct {
	Version string `json:"version,omitempty"` // it runs, e.g. lab/3
	// Slot is the system of its own drive that runs, a or b; empty: it is diskless.
	Slot   string       `json:"slot,omitempty"`
	Uptime float64      `json:"uptime"` // seconds
	Load   float64      `json:"load"`   // of the last minute
	Free   int          `json:"free"`   // memory that programs can have, MiB
	Agent  int          `json:"agent"`  // memory that the agent takes, KiB
	Config ConfigReport `json:"config"`
	Slots  []SlotReport `json:"slots,omitempty"`
	Cycles []Cycle      `json:"cycles,omitempty"` // newest first
	Update UpdateReport `json:"update,omitzero"`
	// Failure is the last thing that went wrong with a start or an update, and was
	// not followed by a healthy start-up of another version.
	Failure string    `json:"failure,omitempty"`
	Time    time.Time `json:"time,omitzero"` // set by the appliance
}

// ConfigReport is what the machine is configured by.
type ConfigReport struct {
	Revision int64  `json:"revision,omitempty"` // 0: the defaults
	From     string `json:"from,omitempty"`     // for people
	// Waits are changes that take effect at the machine's next start.
	Waits []string `json:"waits,omitempty"`
}

// SlotReport is one of the systems on the machine's drive.
type SlotReport struct {
	Slot    string `json:"slot"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"` // for people
	Tries   int    `json:"tries"` // that its loader has left for it
}

// Cycle is one start-up to one shut-down.
type Cycle struct {
	Version string    `json:"version"`
	Slot    string    `json:"slot,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Outcome string    `json:"outcome"` // for people: healthy, not healthy and why, no clean end
}

// UpdateReport is how far a new version has come on the machine's own drive.
type UpdateReport struct {
	Version string `json:"version,omitempty"` // that it is about
	State   string `json:"state,omitempty"`   // one of the Update constants
	Text    string `json:"text,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"` // fetched over the network
}

// What an UpdateReport says.
const (
	UpdateFetching = "fetching"
	UpdateReady    = "ready" // it is started next
	UpdateTrial    = "trial" // it runs, and has yet to prove itself
	UpdateFailed   = "failed"
)

// Limits on what a machine may report.
const (
	MaxReportBytes  = 64 << 10
	maxReportText   = 1 << 10
	maxReportCycles = 32
	maxReportWaits  = 256
)

// Check reports what is wrong with a report that came from outside.
func (r Report) Check() error {
	texts := []string{r.Version, r.Slot, r.Config.From, r.Update.Version, r.Update.State, r.Update.Text, r.Failure}
	texts = append(texts, r.Config.Waits...)
	for _, s := range r.Slots {
		texts = append(texts, s.Slot, s.Version, s.State)
	}
	for _, c := range r.Cycles {
		texts = append(texts, c.Version, c.Slot, c.Outcome)
	}
	for _, t := range texts {
		if len(t) > maxReportText {
			return fmt.Errorf("report: a text of %d bytes is over the limit of %d", len(t), maxReportText)
		}
	}
	switch {
	case len(r.Slots) > 2 || len(r.Cycles) > maxReportCycles || len(r.Config.Waits) > maxReportWaits:
		return fmt.Errorf("report: %d slots, %d cycles, %d changes that wait: one of these is too many", len(r.Slots), len(r.Cycles), len(r.Config.Waits))
	case !(r.Uptime >= 0 && r.Uptime < 1e9) || !(r.Load >= 0 && r.Load < 1e6) || r.Free < 0 || r.Agent < 0 || r.Config.Revision < 0 || r.Update.Bytes < 0:
		return errors.New("report: a number in it cannot be")
	}
	return nil
}

// ReportPath is where the machine of a boot posts how it is.
func ReportPath(boot string) string { return PathBoots + boot + "/report" }

// PostReport says how the machine is that runs the boot.
func (c *Client) PostReport(ctx context.Context, boot string, r Report) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, ReportPath(boot), body, nil)
}

// ReportLine is one thing that a report says.
type ReportLine struct{ What, Text string }

// Lines says in words what the report has beside the version that runs.
func (r Report) Lines() []ReportLine {
	var out []ReportLine
	add := func(what, format string, args ...any) {
		out = append(out, ReportLine{what, fmt.Sprintf(format, args...)})
	}
	switch {
	case r.Config.Revision > 0:
		add("configuration", "revision %d, from %s", r.Config.Revision, r.Config.From)
	case r.Config.From != "":
		add("configuration", "%s", r.Config.From)
	}
	for i, w := range r.Config.Waits {
		what := ""
		if i == 0 {
			what = "after restart"
		}
		add(what, "%s", w)
	}
	for _, s := range r.Slots {
		text := s.Version
		if text == "" {
			text = "empty"
		}
		add("system "+strings.ToUpper(s.Slot), "%s, %s, %d tries left", text, s.State, s.Tries)
	}
	if u := r.Update; u.State != "" {
		text := u.Version + " " + u.State
		if u.Text != "" {
			text += ": " + u.Text
		}
		add("update", "%s", text)
	}
	for i, c := range r.Cycles {
		what := ""
		if i == 0 {
			what = "last cycles"
		}
		add(what, "%s", strings.TrimSpace(fmt.Sprintf("%s %s %s: %s", c.Started.Local().Format(time.DateTime), c.Version, c.Slot, c.Outcome)))
	}
	if r.Failure != "" {
		add("last failure", "%s", r.Failure)
	}
	return out
}

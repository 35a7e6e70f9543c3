// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"slate/netboot/api"
)

// Outcome says what follows a stage that failed for good.
type Outcome string

// The outcomes.
const (
	Ask    Outcome = "ask"     // show what happened; try again, shell, restart, power off
	MoveOn Outcome = "move on" // say so and go on with the next stage
)

// OnFail is the edge that leaves a failed stage.
type OnFail struct {
	Retries int // tries by itself before Then
	Then    Outcome
	// Again is the stage that "try again" goes back to; empty: the same one.
	Again api.Step
	// MayMoveOn adds going on without the stage to what a person may choose.
	MayMoveOn bool
}

// String describes the edge in words.
func (o OnFail) String() string {
	var parts []string
	if o.Retries > 0 {
		parts = append(parts, fmt.Sprintf("%d more tries", o.Retries))
	}
	then := string(o.Then)
	if o.Again != "" {
		then += " (again from " + string(o.Again) + ")"
	}
	if o.MayMoveOn {
		then += " (may move on)"
	}
	return strings.Join(append(parts, then), ", then ")
}

// Stage is one step of a machine's way from the kernel to its own system.
type Stage struct {
	Name api.Step
	What string // what it does, for people
	// When says whether the stage has anything to do, and why not.
	When func(*Boot) (bool, string)
	Run  func(context.Context, *Boot) error
	// Limit bounds one try; 0 only where a person is waited for.
	Limit  time.Duration
	OnFail OnFail
	// WithSystem bounds the stage on a machine that has a system of its own, which can
	// start without it: then it is tried once, and its failure is no reason to stop.
	// 0: no difference.
	WithSystem time.Duration
}

// of gives the stage as it is for a machine: with or without a system of its own.
func (s Stage) of(b *Boot) Stage {
	switch {
	case s.WithSystem == 0 || b == nil:
	case b.System != nil:
		s.Limit, s.OnFail = s.WithSystem, OnFail{Then: MoveOn}
	case b.anySystem(): // that is damaged: an appliance helps, and it may be mended without
		s.Limit, s.OnFail = min(s.Limit, 3*s.WithSystem), OnFail{Then: MoveOn}
	}
	return s
}

func always(*Boot) (bool, string) { return true, "" }

// Stages gives the ten steps of the design, in order.
func Stages() []Stage {
	return []Stage{
		{api.StepEarly, "mounts, consoles, log", always, early, 20 * time.Second, OnFail{Then: Ask, MayMoveOn: true}, 0},
		{api.StepSelfCheck, "own files, memory, modules for this kernel", always, selfCheck, time.Minute, OnFail{Then: Ask, MayMoveOn: true}, 0},
		{api.StepHardware, "drivers for what is there", always, hardware, 2 * time.Minute, OnFail{Retries: 1, Then: Ask, MayMoveOn: true}, 0},
		{api.StepNetwork, "link, address, routes", always, connect, 6 * time.Minute, OnFail{Then: Ask}, 25 * time.Second},
		{api.StepServer, "the best of the servers", hasServer, chooseServer, 90 * time.Second, OnFail{Then: MoveOn}, 10 * time.Second},
		{api.StepConfig, "config.d of this node", hasConfig, configure, 45 * time.Second, OnFail{Then: MoveOn}, 15 * time.Second},
		{api.StepSystem, "a local system, or the choice what to do without", always, chooseSystem, 0, OnFail{Then: Ask}, 0},
		{api.StepVersion, "compare the local system with what it is to be", hasVersion, checkVersion, 0, OnFail{Then: MoveOn}, 0},
		{api.StepRoot, "mount the image, read-only, with memory on top", always, assemble, 3 * time.Minute, OnFail{Retries: 1, Then: Ask, Again: api.StepNetwork}, 0},
		{api.StepHandover, "leave the agent behind, start the system", always, handOver, 2 * time.Minute, OnFail{Then: Ask, Again: api.StepRoot}, 0},
	}
}

// FormatStages prints the plan of a boot.
func FormatStages(stages []Stage) string {
	var b strings.Builder
	for i, s := range stages {
		limit := "no limit: a person or a count-down decides"
		switch {
		case s.Run == nil:
			_, why := s.When(nil)
			limit = "skipped: " + why
		case s.Limit > 0:
			limit = "up to " + s.Limit.String()
		}
		fmt.Fprintf(&b, "%2d  %-11s %s\n    %s\n    on failure: %s\n", i+1, s.Name, s.What, limit, s.OnFail)
		if s.WithSystem > 0 {
			fmt.Fprintf(&b, "    with a system of its own: up to %v, then %s\n", s.WithSystem, MoveOn)
		}
	}
	return b.String()
}

// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slate/builder/command"
	"slate/images"
	"slate/installer/machine"
	"slate/installer/slot"
	"slate/netboot/api"
)

// VerifyRole is the argument with which the agent's program compares files.
const VerifyRole = "verify"

// bareDir is the bare tree of the running system, below the agent's directory.
const bareDir = "root"

// Pauses before the first look whether it is time to compare files, and between two.
const (
	verifyFirst = 10 * time.Minute
	verifyPause = time.Hour
)

// VerifyJob is what is compared: a part of the files of the tree that lies in Dir.
type VerifyJob struct {
	Dir   string `json:"dir"`
	Tree  string `json:"tree"`
	Part  int    `json:"part"`
	Parts int    `json:"parts"`
}

// Verifier returns a function that compares files in a process of its own, which takes
// the processor and the disk only when nobody else wants them, and returns the paths of
// what is wrong.
func Verifier(program string) func(context.Context, VerifyJob) ([]string, error) {
	return func(ctx context.Context, j VerifyJob) (faults []string, err error) {
		in, err := json.Marshal(j)
		if err != nil {
			return nil, err
		}
		out, err := command.Output(ctx, command.Cmd{Args: []string{program, VerifyRole}, Stdin: bytes.NewReader(in)})
		if err != nil {
			return nil, err
		}
		return faults, json.Unmarshal([]byte(out), &faults)
	}
}

// ServeVerify reads a VerifyJob, does it, and writes the paths of what is wrong.
func ServeVerify(ctx context.Context, in io.Reader, out io.Writer) error {
	machine.StepBack()
	var j VerifyJob
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return fmt.Errorf("what to verify: %w", err)
	}
	d, err := images.ParseDigest(j.Tree)
	if err != nil {
		return err
	}
	t, err := slot.ReadTree(j.Dir, d)
	if err != nil {
		return err
	}
	faults, err := slot.Check(ctx, j.Dir, t, slot.Share(j.Part, j.Parts), nil)
	if err != nil {
		return err
	}
	paths := []string{}
	for _, f := range faults {
		paths = append(paths, f.Path)
	}
	return json.NewEncoder(out).Encode(paths)
}

// verifyAtPace compares the files of the running system as often as config.d says.
// Comparing at each start is the controller's.
func (a *Agent) verifyAtPace(ctx context.Context, c Config, tell func(api.Event)) {
	boot := filepath.Join(a.Dir, BootDir)
	for pause := verifyFirst; ; pause = verifyPause {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if slot.LoadVerified(boot)[c.Slot].Due(c.Verify.At, c.Tree, a.now()) {
			if _, err := a.VerifyNow(ctx, c, false, tell); err != nil && ctx.Err() == nil {
				a.logf("the files of this system could not be compared: %v", err)
			}
		}
	}
}

// verifyOrdered compares all files because somebody said so.
func (a *Agent) verifyOrdered(ctx context.Context, c Config, tell func(api.Event)) {
	if _, err := a.VerifyNow(ctx, c, true, tell); err != nil && ctx.Err() == nil {
		text := fmt.Sprintf("the files of this system could not be compared: %v", err)
		a.logf("%s", text)
		tell(api.Event{Step: api.StepHealth, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	}
}

// VerifyNow compares the files of the running system with its tree list, the next share
// of them or all. What is wrong is told, and mended at the next start.
func (a *Agent) VerifyNow(ctx context.Context, c Config, all bool, tell func(api.Event)) (faults []string, err error) {
	a.verifyOne.Lock()
	defer a.verifyOne.Unlock()
	boot := filepath.Join(a.Dir, BootDir)
	known, parts := slot.LoadVerified(boot)[c.Slot], slot.Parts(c.Verify.Share)
	j := VerifyJob{Dir: filepath.Join(a.Dir, bareDir), Tree: c.Tree, Part: known.Part, Parts: parts}
	if all {
		j.Part, j.Parts = 0, 1
	}
	began := time.Now()
	if faults, err = a.Verify(ctx, j); err != nil {
		return nil, err
	}
	next := known.Next(c.Tree, a.now(), parts, nil)
	next.Faults = faults[:min(len(faults), 100)]
	if known.Suspect(c.Tree) && !all { // in a part that was not read now
		next.Faults = slices.Compact(slices.Sorted(slices.Values(slices.Concat(known.Faults, next.Faults))))
	}
	text := fmt.Sprintf("the files of this system are the image's (one part in %d, %.0f s)", j.Parts, time.Since(began).Seconds())
	if len(faults) > 0 {
		text = fmt.Sprintf("%d files of this system are not the image's, and will be mended at the next start: /%s", len(faults), strings.Join(faults[:min(len(faults), 5)], ", /"))
	}
	a.logf("%s", text)
	tell(api.Event{Step: api.StepHealth, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	return faults, slot.SaveVerified(boot, c.Slot, next)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"slate/builder/command"
	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/conf"
	"slate/installer/live"
	"slate/netboot/api"
	"slate/netboot/config"
)

// LiveRole is the argument with which the agent's program changes the running system.
const LiveRole = "live"

// Files that the controller leaves for the agent, below its directory.
const (
	BundleFile = "bundle"   // the signed configuration that the system was started with, if there was one
	KeysFile   = "site.pub" // the site's public keys
)

// configState is what the machine is configured by while it runs.
type configState struct {
	mu     sync.Mutex
	boot   *config.Bundle // the system was started with; nil: the defaults
	last   []byte         // signed, applied last; nil: the defaults
	seen   int64          // revision of the last bundle that came, whatever became of it
	now    api.ConfigReport
	failed []live.Failed // what could not be done to the running system
	node   *config.Node  // what holds now
}

// updateConf is what update.chk.conf says now.
func (a *Agent) updateConf() config.UpdateCheck {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	if a.config.node == nil {
		return config.Defaults().Update
	}
	return a.config.node.Update
}

// loadConfig reads what the system was started with.
func (a *Agent) loadConfig(from string) {
	s := &a.config
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.From = from
	data, err := conf.Store{Dir: a.Dir}.Load()
	if err == nil && data != nil {
		var b config.Bundle
		if b, err = a.openBundle(data); err == nil {
			s.boot, s.last, s.seen = &b, data, b.Revision
			s.node, err = b.Config()
			s.now.Revision = b.Revision
		}
	}
	if err != nil {
		a.logf("the configuration of this start: %v", err)
	}
}

func (a *Agent) openBundle(data []byte) (config.Bundle, error) {
	keys, err := images.LoadPublicKeys(filepath.Join(a.Dir, KeysFile))
	if err != nil {
		return config.Bundle{}, err
	}
	return config.OpenBundle(keys, data)
}

// seenRevision is what the appliance is told when it is asked for orders.
func (a *Agent) seenRevision() int64 {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	return a.config.seen
}

// configReport is what the machine is configured by.
func (a *Agent) configReport() api.ConfigReport {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	c := a.config.now
	c.Waits = slices.Clone(c.Waits)
	return c
}

// Apply returns a function that changes the running system. It is a process that
// enters through /proc, like the one that looks at its health.
func Apply(program string, proc *os.File) func(context.Context, live.Input) (live.Result, error) {
	return func(ctx context.Context, in live.Input) (r live.Result, err error) {
		text, err := json.Marshal(in)
		if err != nil {
			return r, err
		}
		out, err := command.Output(ctx, command.Cmd{Args: []string{program, LiveRole}, Stdin: bytes.NewReader(text), Files: []*os.File{proc}})
		if err != nil {
			return r, err
		}
		return r, json.Unmarshal([]byte(out), &r)
	}
}

// reconfigure fetches the configuration, brings it to the running system as far as
// that is safe, and says what waits for the next start. What the appliance sends is
// refused as it is at the start.
func (a *Agent) reconfigure(ctx context.Context, node string, fetch func(context.Context) ([]byte, error)) (string, error) {
	data, err := fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("the new configuration was not fetched: %w", err)
	}
	s := &a.config
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, err := images.LoadPublicKeys(filepath.Join(a.Dir, KeysFile))
	if err != nil {
		return "", err
	}
	c := conf.Choose(conf.Facts{Keys: keys, Node: node, Fetched: data, Kept: s.last})
	if c.Refused != nil {
		return "", c.Refused
	}
	b, err := config.OpenBundle(keys, data)
	if err != nil {
		return "", err
	}
	s.seen = b.Revision
	if !c.Keep {
		return fmt.Sprintf("the configuration is revision %d, as before", b.Revision), nil
	}
	var last *config.Bundle
	if s.last != nil {
		l, err := config.OpenBundle(keys, s.last)
		if err != nil {
			return "", err
		}
		last = &l
	}
	r, err := a.Live(ctx, live.Input{Boot: s.boot, Last: last, Next: &b})
	if err != nil {
		return "", fmt.Errorf("the new configuration, revision %d, was not applied: %w", b.Revision, err)
	}
	s.last, s.node = data, c.Config
	s.failed = remember(s.failed, r)
	s.now = api.ConfigReport{Revision: b.Revision, From: conf.FromAppliance, Waits: r.Waits}
	for _, f := range s.failed {
		s.now.Waits = append(s.now.Waits, f.What+": "+f.Why)
	}
	text := summary(b.Revision, r, s.now.Waits)
	return text, a.keepBundle(data)
}

// keepBundle keeps the configuration on the boot partition for a start without an
// appliance.
func (a *Agent) keepBundle(data []byte) error {
	dir := filepath.Join(a.Dir, BootDir, bootpart.ConfigDir)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil // a diskless machine
	}
	if err := (conf.Store{Dir: dir}).Save(data); err != nil {
		return fmt.Errorf("the configuration is not kept: %w", err)
	}
	return nil
}

// remember goes on from what had failed before: what was done since is not waited for.
func remember(failed []live.Failed, r live.Result) []live.Failed {
	var out []live.Failed
	for _, f := range failed {
		again := slices.ContainsFunc(r.Failed, func(x live.Failed) bool { return x.What == f.What })
		if !again && !slices.Contains(r.Done, f.What) && !slices.Contains(r.Done, "un"+f.What) {
			out = append(out, f)
		}
	}
	return append(out, r.Failed...)
}

// summary says what became of a new configuration.
func summary(revision int64, r live.Result, waits []string) string {
	text := fmt.Sprintf("configuration revision %d", revision)
	if len(r.Done) > 0 {
		text += "; done: " + strings.Join(r.Done, ", ")
	}
	if len(waits) > 0 {
		text += "; waits for a restart: " + strings.Join(waits, ", ")
	}
	if len(r.Done)+len(waits) == 0 {
		text += "; nothing of it changes the running system"
	}
	return text
}

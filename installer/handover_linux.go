// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/installer/agent"
	"slate/installer/health"
	"slate/installer/machine"
	"slate/installer/root"
	"slate/netboot/api"
)

// handoverFile is what the controller leaves for PID 1.
const handoverFile = RunDir + "/handover.json"

// agentProgram is the copy of this program that outlives the initramfs. OpenRC's systems
// forbid that programs run from /run; this file system in memory is ours.
const agentProgram = root.Program

// handover is what PID 1 does once the controller has ended well.
type handover struct {
	Init string   `json:"init"`
	Args []string `json:"args,omitempty"`
}

// handOver leaves behind what the running system needs of us. After it the
// controller ends, and PID 1 goes on.
func handOver(_ context.Context, b *Boot) error {
	if err := os.MkdirAll(RunDir, 0o755); err != nil {
		return err
	}
	self, err := os.Readlink("/proc/self/exe") // os.Executable looked before /proc was there
	if err != nil {
		return err
	}
	if err := copyProgram(self, agentProgram); err != nil {
		return fmt.Errorf("copy the agent: %w", err)
	}
	if err := b.leaveConfig(); err != nil {
		return err
	}
	if b.Lease.Address.IsValid() { // an installed machine starts without a network
		if err := b.Lease.Save(filepath.Join(RunDir, agent.LeaseFile)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(RunDir, "facts"), []byte(b.factsFile()), 0o644); err != nil {
		return err
	}
	if b.installed() {
		b.beginCycle()
	}
	text, err := json.Marshal(handover{Init: b.Init, Args: b.Args})
	if err != nil {
		return err
	}
	if err := os.WriteFile(handoverFile, text, 0o600); err != nil {
		return err
	}
	b.Note("starting %s", b.Init)
	return nil
}

// leaveConfig leaves what the agent needs to follow changes of the configuration.
func (b *Boot) leaveConfig() error {
	key, err := os.ReadFile(b.path(sitePub))
	if errors.Is(err, os.ErrNotExist) {
		return nil // then nothing can be verified, and nothing is
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(RunDir, agent.KeysFile), key, 0o644)
	}
	if err == nil && b.inForce != nil { // there may be secrets in it
		err = os.WriteFile(filepath.Join(RunDir, agent.BundleFile), b.inForce, 0o600)
	}
	return err
}

// finish is the end of the controller: what the kernel was told is undone, the
// events that could not be sent yet go to the agent, the consoles are given back.
func (b *Boot) finish() error {
	for _, undo := range b.restore {
		undo()
	}
	// The agent delivers what the appliance did not take in time.
	c := agent.Config{Node: b.node(), Pending: b.Reporter.Stop(500 * time.Millisecond), Spaces: b.spaces(), Health: health.Spec{Services: b.healthy},
		Version: b.Settings.Image, From: b.confFrom, Named: b.Settings.Node}
	for _, check := range b.config().Health.Check {
		c.Health.Checks = append(c.Health.Checks, health.Check{Name: check.Name, Run: check.Args(), Limit: time.Duration(check.Limit) * time.Second})
	}
	c.Grant = b.grant
	c.HealthLimit = time.Duration(b.config().Update.HealthLimit) * time.Second
	if b.installed() {
		l := b.Local
		c.Drive = &agent.Drive{Disk: l.Drive.GUID, Mounts: map[string]machine.Mount{"a": l.mount("a"), "b": l.mount("b")}, Running: b.System.Record, Slots: l.Slots, Cycles: b.Cycles}
		c.Slot, c.Cycle, c.Tries, c.Last = b.System.Slot, b.Cycle.Number, b.config().Update.Tries, b.Settings.Last
		c.Tree, c.Verify = b.System.Record.Tree.String(), b.config().Update.Verify
	}
	if in := b.rootInput(); !in.Lower.Local() && in.Lower.Valid() {
		c.Tree, c.Root = b.Settings.Tree, in.Lower.NFS.Server.String()
	}
	if u, boot := b.Fleet.Known(); u != nil {
		c.Server, c.Boot, c.Hello = u.String(), boot, b.Fleet.Introduction()
		for _, s := range b.Fleet.Servers() {
			c.Servers = append(c.Servers, s.String())
		}
	}
	if !b.Lease.Address.IsValid() {
		c.Late = &agent.Late{Card: b.Settings.BootMAC.String(), Hostname: b.Settings.Node, Hello: b.hello(), Network: b.config().Network}
	}
	if b.Settings.Move == machine.MoveNever {
		c.Servers, c.Hello = nil, api.Hello{}
	}
	if err := c.Save(RunDir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(RunDir, agent.LogFile), []byte(b.Log()), 0o644); err != nil {
		return err
	}
	if b.installed() {
		b.keepLog()
	}
	if b.Console != nil {
		b.Console.Close()
	}
	return nil
}

// spaces are the file systems that the agent keeps an eye on.
func (b *Boot) spaces() []agent.Space {
	out := []agent.Space{{Dir: relative(root.Upper), What: "The memory for what is written on this machine"}}
	for _, m := range b.Mounts {
		if m.Type == "tmpfs" && strings.HasPrefix(m.Where, root.Upper+"/") {
			dir, _ := url.PathUnescape(strings.TrimPrefix(m.Where, root.Upper+"/"))
			out = append(out, agent.Space{Dir: relative(m.Where), What: "The memory for what is written to /" + dir})
		}
	}
	if b.UserData.What != "" {
		out = append(out, agent.Space{Dir: relative(root.UserData), What: "The disk for what this machine keeps (user-data)"})
	}
	return out
}

func relative(dir string) string { return strings.TrimPrefix(dir, RunDir+"/") }

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// leave tells the appliance that a person, or a count-down, ended the boot.
func (b *Boot) leave(what string) {
	b.mu.Lock()
	step := b.step
	b.mu.Unlock()
	b.event(step, api.StateNote, what)
	if b.Local != nil {
		b.keepLog()
	}
	b.Reporter.Stop(500 * time.Millisecond)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"slate/installer/machine"
	"slate/installer/screen"
)

// noSystem is the message of the chooser.
const noSystem = "No system image was found on this machine."

// failWait is how long a failure stays on the screen before the machine starts
// over: nobody may be there, and the cause may have gone away by then.
const failWait = 2 * time.Minute

// chooserItems are the choices that exist, in the order of the screen.
func chooserItems(image string) []screen.Item {
	if image == "" {
		image = "the appliance's image"
	}
	return []screen.Item{
		{ID: string(machine.ChooseDiskless), Text: "Run " + image + " diskless, from the appliance", Next: "Running diskless"},
		{ID: string(machine.ChooseInstall), Text: "Install " + image + " on this machine"},
		{ID: string(machine.ChooseShell), Text: "Open a shell", Next: "A shell opens"},
		{ID: string(machine.ChooseReboot), Text: "Restart", Next: "Restarting"},
		{ID: string(machine.ChoosePowerOff), Text: "Power off", Next: "Powering off"},
	}
}

// chooser makes the menu of the chooser.
func (b *Boot) chooser(now time.Time) *screen.Menu {
	m := &screen.Menu{Node: b.node(), Title: noSystem, Items: chooserItems(b.Settings.Image), Facts: b.facts()}
	for i, it := range m.Items {
		if it.ID == string(b.Settings.Choice) {
			m.Selected, m.Default = i, i
		}
	}
	if b.Settings.Timeout > 0 {
		m.Deadline = now.Add(b.Settings.Timeout)
	}
	b.offerMedium(m)
	return m
}

// chooseSystem starts the machine's own system, or what can be had in its place.
// Without one, policy or a person decides.
func chooseSystem(ctx context.Context, b *Boot) error {
	why := ""
	if b.Local != nil && !b.Settings.Install && b.Settings.Medium == "" && (b.Settings.Mode != machine.Diskless || b.Settings.Slot != "") {
		var done bool
		if done, why = b.runLocal(ctx); done {
			return nil
		}
	}
	if b.System == nil {
		b.Note("%s", or2(why, noSystem))
	}
	if b.Interrupted != "" {
		b.Note("%s", b.Interrupted)
	}
	m := b.chooser(time.Now())
	if b.System != nil && b.Settings.Medium != "" {
		m.Title = "This machine has a system, and was started from a medium."
	}
	switch {
	case why != "":
		b.cannotStart(m, why, time.Now())
	case b.Settings.Mode == machine.Installed || b.Settings.Install:
		err := b.unattended(ctx)
		if err == nil {
			return b.useSystem(ctx, *b.System)
		}
		if ctx.Err() != nil {
			return err
		}
		b.noteLines("not installed: " + err.Error())
		m = b.chooser(time.Now())
		m.Title = "This machine could not be installed."
		m.Detail, m.Hint = strings.Split(err.Error(), "\n"), hintOf(err)
		if m.Deadline.IsZero() {
			break
		}
		m.Deadline = time.Now().Add(failWait)
	case b.Settings.Mode == machine.Diskless && b.canRun():
		return b.withoutAsking()
	}
	for {
		id, err := b.Console.Choose(ctx, m)
		if err != nil {
			return err
		}
		if id == string(machine.ChooseDiskless) {
			b.Note("running diskless")
			return nil
		}
		if id == chooseMedium {
			return b.runFromMedium()
		}
		if id == string(machine.ChooseInstall) {
			if b.installHere(ctx) {
				return b.useSystem(ctx, *b.System)
			}
			m.Deadline = time.Time{}
			continue
		}
		if err := b.do(ctx, id); err != nil {
			return err
		}
		m.Deadline = time.Time{} // a person was here
	}
}

// cannotStart makes the chooser that of a machine that nothing more can be done for. If it
// needs an appliance and none is there, it starts over after a while, if it may count down
// at all: there may be one by then.
func (b *Boot) cannotStart(m *screen.Menu, why string, now time.Time) {
	m.Title, m.Detail = "The system of this machine cannot be started.", append([]string{why}, m.Detail...)
	if b.hasAppliance() || b.hasMediumRoot() {
		return
	}
	m.Detail = append(m.Detail, "Without an appliance it can neither be mended nor run over the network.")
	if m.Deadline.IsZero() {
		return
	}
	m.Deadline = now.Add(failWait)
	m.Default = slices.IndexFunc(m.Items, func(i screen.Item) bool { return i.ID == reboot })
	m.Selected = m.Default
}

// noteLines tells what has several lines.
func (b *Boot) noteLines(text string) {
	for line := range strings.Lines(text) {
		b.Note("%s", strings.TrimSpace(line))
	}
}

// do carries out a choice that is common to all menus.
func (b *Boot) do(ctx context.Context, id string) error {
	switch id {
	case string(machine.ChooseShell):
		b.shell(ctx)
	case string(machine.ChooseReboot):
		b.printf("slate: restarting\n")
		b.leave("restart")
		return machine.End(machine.Restart)
	case string(machine.ChoosePowerOff):
		b.printf("slate: powering off\n")
		b.leave("power off")
		return machine.End(machine.Off)
	}
	return nil
}

// Choices of the failure screen beside those of the chooser.
const (
	again    = "again"
	moveOn   = "move-on"
	powerOff = string(machine.ChoosePowerOff)
	reboot   = string(machine.ChooseReboot)
	shellID  = string(machine.ChooseShell)
)

// crashTitle heads the failure screen when it was no stage that failed.
const crashTitle = "The start was interrupted."

// failMenu shows what went wrong and what can be done about it.
func (b *Boot) failMenu(f Failure, now time.Time) *screen.Menu {
	m := &screen.Menu{
		Node:   b.node(),
		Title:  or2(f.Title, "The start stopped at step "+f.Position+", "+string(f.Stage.Name)+"."),
		Detail: strings.Split(f.Err.Error(), "\n"), Facts: b.facts(), Deadline: now.Add(failWait),
	}
	m.Hint = hintOf(f.Err)
	if f.Stage.Run != nil {
		m.Items = append(m.Items, screen.Item{ID: again, Text: "Try again"})
	}
	if f.Stage.OnFail.MayMoveOn || f.Stage.OnFail.Then == MoveOn {
		m.Items = append(m.Items, screen.Item{ID: moveOn, Text: "Go on without it"})
	}
	m.Items = append(m.Items,
		screen.Item{ID: shellID, Text: "Open a shell"},
		screen.Item{ID: reboot, Text: "Restart", Next: "Restarting"},
		screen.Item{ID: powerOff, Text: "Power off"})
	for i, it := range m.Items {
		if it.ID == reboot {
			m.Default = i
		}
	}
	return m
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// failed asks what to do about a stage that failed for good.
func (b *Boot) failed(ctx context.Context, f Failure) Decision {
	if b.Console == nil {
		b.openConsoles()
	}
	m := b.failMenu(f, time.Now())
	for {
		id, err := b.Console.Choose(ctx, m)
		switch {
		case err != nil:
			return GiveUp
		case id == again:
			return TryAgain
		case id == moveOn:
			return GoOn
		}
		if err := b.do(ctx, id); err != nil {
			b.printf("slate: %s: %v\n", id, err)
		}
		m.Deadline = time.Time{}
	}
}

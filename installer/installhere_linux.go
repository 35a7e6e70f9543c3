// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"slate/installer/disk"
	"slate/installer/screen"
)

const backID = "back"

// installHere lets a person choose a drive, shows what will be done to it, and does it
// once that is confirmed. It returns false if the person went back, or if it failed.
func (b *Boot) installHere(ctx context.Context) bool {
	if b.NoInstall != "" {
		b.tell(ctx, "Nothing can be installed here.", b.NoInstall, "")
		return false
	}
	c, signed, err := b.version(ctx)
	if err != nil {
		b.tell(ctx, "The image cannot be had.", err.Error(), hintOf(err))
		return false
	}
	for {
		verdicts := b.verdicts(ctx, signed.Size)
		id, err := b.Console.Choose(ctx, drivesMenu(b.node(), signed.Ref(), verdicts))
		if err != nil || id == backID {
			return false
		}
		i, err := strconv.Atoi(id)
		if err != nil || !b.confirm(ctx, verdicts[i], signed.Size) {
			continue
		}
		err = b.install(ctx, c, signed, verdicts[i])
		if err == nil {
			return true
		}
		b.noteLines("not installed: " + err.Error())
		b.tell(ctx, "The installation did not come to its end.", err.Error(), hintOf(err))
	}
}

// tell shows something and waits for a key.
func (b *Boot) tell(ctx context.Context, title, text, hint string) {
	m := &screen.Menu{Node: b.node(), Title: title, Detail: strings.Split(text, "\n"), Hint: hint, Items: []screen.Item{{ID: backID, Text: "Go back"}}}
	_, _ = b.Console.Choose(ctx, m)
}

// drivesMenu lists the drives: those that can be chosen, and why others cannot.
func drivesMenu(node, version string, verdicts []disk.Verdict) *screen.Menu {
	m := &screen.Menu{Node: node, Title: "Install " + version + " on which drive?"}
	for i, v := range verdicts {
		holds := strings.Join(v.Drive.Holds(), "; ")
		if v.Use == disk.Never {
			m.Detail = append(m.Detail, fmt.Sprintf("Not %s: %s.", v.Drive, v.Reason))
			continue
		}
		m.Items = append(m.Items, screen.Item{ID: strconv.Itoa(i), Text: v.Drive.String() + ": " + holds})
	}
	if len(verdicts) == 0 {
		m.Detail = append(m.Detail, "This machine has no drive.")
	}
	m.Items = append(m.Items, screen.Item{ID: backID, Text: "Go back, nothing is changed"})
	return m
}

// confirm shows the plan and has the person type what nobody types by mistake: the
// drive's name, if something on it would be lost.
func (b *Boot) confirm(ctx context.Context, v disk.Verdict, need int64) bool {
	plan, err := b.installPlan(v, need)
	if err != nil {
		b.tell(ctx, "That drive cannot be used.", err.Error(), "")
		return false
	}
	b.Console.Paint("\x1b[?25h\x1b[2J\x1b[H")
	for _, l := range plan.Tell() {
		for _, w := range screen.Wrap(l, "  ", 6) {
			b.Console.Paint(w + "\n")
		}
	}
	want, prompt := "yes", "Type yes to install, or press Enter to go back: "
	if v.Lost {
		want, prompt = v.Drive.Name, fmt.Sprintf("Type the drive's name, %s, to overwrite it, or press Enter to go back: ", v.Drive.Name)
	}
	line, err := b.Console.Line(ctx, "\n"+prompt)
	if err != nil || strings.TrimSpace(line) != want {
		b.printf("slate: nothing was changed\n")
		return false
	}
	b.printf("slate: confirmed: %s\n", v.Drive)
	return true
}

// cmdInstall shows what an installation would do.
func cmdInstall(ctx context.Context, b *Boot, w io.Writer, args []string) error {
	if b.NoInstall != "" {
		return fmt.Errorf("nothing can be installed: %s", b.NoInstall)
	}
	_, signed, err := b.version(ctx)
	if err != nil {
		return err
	}
	verdicts := b.verdicts(ctx, signed.Size)
	for _, v := range verdicts {
		if len(args) > 1 && v.Drive.Name != args[1] {
			continue
		}
		fmt.Fprintf(w, "%s\n  holds: %s\n  %s: %s\n", v.Drive, strings.Join(v.Drive.Holds(), "; "), v.Use, v.Reason)
		if len(args) == 0 || args[0] != "--dry-run" || v.Use == disk.Never {
			continue
		}
		plan, err := b.installPlan(v, signed.Size)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n", plan)
	}
	return nil
}

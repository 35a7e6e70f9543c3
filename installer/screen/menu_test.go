// SPDX-License-Identifier: GPL-2.0-or-later

package screen_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"slate/installer/screen"
	"slate/testbed/golden"
)

var now = time.Unix(1_700_000_000, 0)

func chooser() *screen.Menu {
	return &screen.Menu{
		Node: "lab-0a1b2c", Title: "No system image was found on this machine.",
		Items: []screen.Item{
			{ID: "diskless", Text: "Run demo/1 diskless, from the appliance", Next: "Running diskless"},
			{ID: "shell", Text: "Open a shell", Next: "A shell opens"},
			{ID: "reboot", Text: "Restart", Next: "Restarting"},
			{ID: "poweroff", Text: "Power off", Next: "Powering off"},
		},
		Facts: []screen.Fact{
			{Name: "Machine", Value: "ACME Box 1 SN123"},
			{Name: "Address", Value: "10.77.0.52 on eth0 (52:54:00:12:34:56)"},
			{Name: "Server", Value: "http://10.77.0.1:8070"},
			{Name: "Image", Value: "demo/1 (0123456789ab)"},
		},
		Deadline: now.Add(10 * time.Second),
	}
}

func failure(detail ...string) *screen.Menu {
	m := chooser()
	m.Title = "The start stopped at step 4/10, network."
	m.Detail, m.Hint = detail, "Check the cable and the switch port, and that a DHCP server serves this network."
	m.Items = []screen.Item{{Text: "Try again"}, {Text: "Open a shell"}, {Text: "Restart", Next: "Restarting"}, {Text: "Power off"}}
	m.Default, m.Deadline = 2, now.Add(2*time.Minute)
	return m
}

// text shows what stands on the screen, with the marked line set off and a frame,
// so that a golden file shows what fits.
func text(m *screen.Menu) []byte {
	var b strings.Builder
	for _, l := range m.Lines(now) {
		mark := ' '
		if strings.HasPrefix(l, "\x00") {
			mark, l = '>', l[1:]
		}
		fmt.Fprintf(&b, "%c|%-*s|\n", mark, screen.Columns, l)
	}
	return []byte(b.String())
}

func TestScreens(t *testing.T) {
	waiting := chooser()
	waiting.Deadline, waiting.Selected = time.Time{}, 2
	bare := &screen.Menu{Node: "node", Title: "No system image was found on this machine.", Items: chooser().Items}
	long := failure(strings.Repeat("the server said something that goes on and on ", 40), "and\x1b[2J then\nmore", strings.Repeat("x", 300))
	long.Node = strings.Repeat("n", 200)
	long.Facts[0].Value = strings.Repeat("very ", 40)
	drives := &screen.Menu{Node: "node", Title: "Install demo/1 on which drive?", Detail: []string{"Not sdb, 8.0 GB, usb: it is slate's start medium."}, Selected: 1, Items: []screen.Item{
		{Text: "sda, 1.0 TB, sata, Samsung SSD 870 EVO 1TB, serial S6PTNM0T512345A: partition 1: EFI system; partition 2: ext4 \"root\""},
		{Text: "nvme0n1, 512 GB, nvme, KIOXIA KXG60ZNV512G, serial 20AS10J4T9K1: partition 1: EFI system: vfat \"SYSTEM\"; partition 2: Windows's file system (NTFS) \"Windows\""},
		{Text: "Go back, nothing is changed"},
	}}
	for name, m := range map[string]*screen.Menu{
		"drives":  drives,
		"chooser": chooser(), "chooser-waiting": waiting, "chooser-bare": bare,
		"failure":      failure("eth0 (52:54:00:12:34:56): no DHCP server answered; eth1 (52:54:00:12:34:57): no link: is the cable in?"),
		"failure-long": long,
	} {
		t.Run(name, func(t *testing.T) {
			golden.Check(t, "testdata/"+name+".golden", text(m))
			lines := m.Lines(now)
			if len(lines) >= screen.Rows {
				t.Errorf("%d lines do not fit on %d rows", len(lines), screen.Rows)
			}
			for _, l := range lines {
				if l = strings.TrimPrefix(l, "\x00"); len(l) > screen.Columns {
					t.Errorf("line of %d columns: %q", len(l), l)
				}
				if strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("line with more than ASCII: %q", l)
				}
			}
		})
	}
}

// The bytes themselves: what a terminal is told.
func TestDraw(t *testing.T) {
	golden.Check(t, "testdata/chooser-ansi.golden", []byte(strings.ReplaceAll(chooser().Draw(now), "\x1b", "\n^[")+"\n"))
	golden.Check(t, "testdata/countdown-ansi.golden", []byte(strings.ReplaceAll(chooser().DrawCountdown(now.Add(time.Second)), "\x1b", "\n^[")+"\n"))
}

func TestDrawCountdownPaintsTheLineOfDraw(t *testing.T) {
	m := chooser()
	whole, part := m.Draw(now), m.DrawCountdown(now)
	place, words, _ := strings.Cut(strings.TrimPrefix(part, "\x1b"), "\x1b[0m\x1b[2K")
	words, _, _ = strings.Cut(words, "\x1b")
	if !strings.Contains(whole, "\x1b"+place+words) {
		t.Errorf("DrawCountdown() paints %q at %q; Draw() does not", words, place)
	}
}

func TestMenuPress(t *testing.T) {
	const none = -1
	for _, tt := range []struct {
		name     string
		keys     []screen.Key
		chosen   int // of the last key
		selected int
	}{
		{"Enter takes the default", []screen.Key{screen.Enter}, 0, 0},
		{"down, down, Enter", []screen.Key{screen.Down, screen.Down, screen.Enter}, 2, 2},
		{"up goes round", []screen.Key{screen.Up, screen.Enter}, 3, 3},
		{"down goes round", []screen.Key{screen.Down, screen.Down, screen.Down, screen.Down}, none, 0},
		{"digit", []screen.Key{'3'}, 2, 2},
		{"digit of nothing", []screen.Key{'9'}, none, 0},
		{"zero", []screen.Key{'0'}, none, 0},
		{"vi", []screen.Key{'j', 'j', 'k', screen.Enter}, 1, 1},
		{"Home and End", []screen.Key{screen.End, screen.Home, screen.End}, none, 3},
		{"any key", []screen.Key{'x'}, none, 0},
		{"a key without a name", []screen.Key{screen.Other}, none, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, chosen := chooser(), none
			for _, k := range tt.keys {
				chosen = m.Press(k)
			}
			if chosen != tt.chosen || m.Selected != tt.selected {
				t.Errorf("chosen %d, selected %d; want %d, %d", chosen, m.Selected, tt.chosen, tt.selected)
			}
			if !m.Deadline.IsZero() || m.Tick(now.Add(time.Hour)) != none {
				t.Error("the count-down goes on although somebody is there")
			}
		})
	}
}

func TestMenuTick(t *testing.T) {
	m := failure("x")
	if got := m.Tick(now.Add(2*time.Minute - 1)); got != -1 {
		t.Errorf("Tick() before the time = %d", got)
	}
	if got := m.Tick(now.Add(2 * time.Minute)); got != 2 {
		t.Errorf("Tick() at the time = %d, want the default, 2", got)
	}
	m.Deadline = time.Time{}
	if got := m.Tick(now.Add(time.Hour)); got != -1 {
		t.Errorf("Tick() without a time = %d", got)
	}
}

func TestDecoder(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []screen.Key
	}{
		{"letters", "aZ~ ", []screen.Key{'a', 'Z', '~', ' '}},
		{"arrows", "\x1b[A\x1b[B\x1bOA\x1bOB", []screen.Key{screen.Up, screen.Down, screen.Up, screen.Down}},
		{"Home, End", "\x1b[H\x1bOF", []screen.Key{screen.Home, screen.End}},
		{"arrows with a modifier", "\x1b[1;5A", []screen.Key{screen.Up}},
		{"function keys", "\x1b[15~\x1b[[A", []screen.Key{screen.Other, screen.Up}},
		{"CR, LF and both are one Enter each", "\r\n\n\r", []screen.Key{screen.Enter, screen.Enter, screen.Enter}},
		{"Backspace of both kinds", "\x08\x7f", []screen.Key{screen.Backspace, screen.Backspace}},
		{"control", "\x03\x04\x0c\x15", []screen.Key{screen.CtrlC, screen.CtrlD, screen.CtrlL, screen.CtrlU}},
		{"line noise", "\x00\xff\x01", []screen.Key{screen.Other, screen.Other}},
		{"Esc, then a key", "\x1b\x1b[A", []screen.Key{screen.Other, screen.Up}},
		{"half a sequence", "\x1b[", nil},
	} {
		var d screen.Decoder
		var got []screen.Key
		for _, b := range []byte(tt.in) {
			if k := d.Byte(b); k != screen.None {
				got = append(got, k)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %q decodes to %v, want %v", tt.name, tt.in, got, tt.want)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"slate/netboot/api"
)

var testPalette = palette{bad: "\x1b[1;31m", busy: "\x1b[33m", good: "\x1b[32m", plain: "\x1b[0m"}

func TestFrame(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	st := api.Status{Version: "v", Started: now, Address: "10.0.0.1", DHCP: "proxy", Images: []string{"demo@stable = demo/1"}}
	for k, p := range []api.Progress{
		{Condition: api.Running, Step: api.StepLogin, Since: now.Add(-3 * time.Hour)},
		{Condition: api.Failed, Step: api.StepRoot, Since: now.Add(-90 * time.Second), Text: "no\x1b[2J export"},
		{Condition: api.Booting, Step: api.StepKernel, Since: now.Add(-5 * time.Second)},
		{Condition: api.Off},
	} {
		st.Nodes = append(st.Nodes, api.Node{Name: fmt.Sprintf("pc%d", k), Boots: []api.Boot{{Image: "demo/1"}}, Progress: &p})
	}
	st.Nodes[0].Assigned = "demo/2"
	st.Nodes[0].Report = &api.Report{Config: api.ConfigReport{Waits: []string{"a", "b"}}, Update: api.UpdateReport{Version: "demo/2", State: api.UpdateReady}}
	codes := regexp.MustCompile("\x1b\\[[?0-9;]*[a-zA-Z]")
	text := string(frame(st, nil, now, 100, 24, testPalette))
	plain := strings.Split(codes.ReplaceAllString(text, ""), "\r\n")
	var rest []string
	for _, l := range plain {
		rest = append(rest, strings.TrimRight(l, " "))
	}
	got := strings.Join(rest[3:], "\n")
	want := `4 nodes, 1 failed, 1 booting, 1 running, 1 off

NODE  VERSION  ASSIGNED  ADDRESS  STATE
pc1   demo/1   -         -        failed at root for 1 min: no [2J export
pc2   demo/1   -         -        booting at kernel for 5 s
pc0   demo/1   demo/2    -        running for 3 h 00 min; demo/2 ready; 2 settings await a restart
pc3   demo/1   -         -        off
` + now.Local().Format(time.TimeOnly) + "  q ends"
	if got != want {
		t.Errorf("frame =\n%s\nwant\n%s", got, want)
	}
	if strings.Contains(text, "\x1b[2J") || strings.Count(text, "\n") != len(plain)-1 {
		t.Error("a frame clears the screen, or has lines that do not start at the left")
	}
	for _, size := range [][2]int{{20, 5}, {1, 1}, {300, 100}} {
		lines := strings.Split(codes.ReplaceAllString(string(frame(st, nil, now, size[0], size[1], testPalette)), ""), "\r\n")
		if len(lines) > max(size[1], 2) {
			t.Errorf("%d lines on a screen of %d", len(lines), size[1])
		}
		for _, l := range lines {
			if len([]rune(l)) > size[0] {
				t.Errorf("line %q on a screen of %d columns", l, size[0])
			}
		}
	}
	if small := string(frame(st, nil, now, 80, 5, palette{})); !strings.Contains(small, "lines more") {
		t.Errorf("a small screen does not say that there is more: %q", small)
	}
	if gone := string(frame(api.Status{}, errors.New("connection refused"), now, 80, 24, palette{})); !strings.Contains(gone, "connection refused") {
		t.Errorf("frame without an appliance = %q", gone)
	}
}

// The network's own DHCP server is no rival of a proxy; queues show while somebody waits.
func TestStatusOfServersAndQueues(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	st := api.Status{
		Version: "v", Started: now, Address: "10.0.0.1", DHCP: "proxy",
		Queues: []api.Queue{{Kind: api.QueueBoots, Busy: 64, Waiting: 12, Limit: 64}, {Kind: api.QueueFetches, Busy: 3, Limit: 16}},
		Rivals: []api.Rival{{Address: "10.0.0.254", MAC: "02:00:00:00:00:01", Offers: "offers 10.0.0.9", Gives: true, Seen: now}, {Address: "10.0.0.7", Offers: "answers as proxyDHCP", Seen: now}},
	}
	seen := now.Local().Format(time.DateTime)
	text := func(mode string) string {
		st.DHCP = mode
		var b strings.Builder
		printStatus(&b, st, now, palette{})
		lines := strings.SplitN(b.String(), "\n", 3)
		return lines[2]
	}
	const queue = "64 machines load their kernel, 12 wait for their turn ([queue] boots = 64)\n"
	rest := "another DHCP server, 10.0.0.7 , answers as proxyDHCP; seen " + seen + "\nno nodes yet\n"
	if got, want := text("proxy"), queue+"the network's DHCP server: 10.0.0.254 02:00:00:00:00:01, offers 10.0.0.9; seen "+seen+"\n"+rest; got != want {
		t.Errorf("beside a DHCP server:\n%s\nwant\n%s", got, want)
	}
	if got, want := text("server"), queue+"another DHCP server, 10.0.0.254 02:00:00:00:00:01, offers 10.0.0.9; seen "+seen+"\n"+rest; got != want {
		t.Errorf("as the DHCP server:\n%s\nwant\n%s", got, want)
	}
}

func TestKeysThatEndTheWatch(t *testing.T) {
	for _, key := range []byte("qQ\x03") {
		in := &endless{key: key}
		ended := false
		quitOnKey(in, func() { ended = true })
		if in.reads != 3 || !ended {
			t.Errorf("key %q: ended %v after %d reads, want at the third, which has it", key, ended, in.reads)
		}
	}
	ended := false
	if quitOnKey(strings.NewReader("xyz"), func() { ended = true }); !ended {
		t.Error("the end of the terminal does not end the watch")
	}
}

// endless gives other keys, then the key, then other keys for ever.
type endless struct {
	key   byte
	reads int
}

func (e *endless) Read(b []byte) (int, error) {
	e.reads++
	b[0] = 'x'
	if e.reads == 3 {
		b[0] = e.key
	}
	return 1, nil
}

func TestPrintBoot(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	b := api.Boot{ID: "b1", Started: start, Image: "demo/1", Events: []api.Event{
		{Time: at(0), Step: api.StepDHCP, State: api.StateDone, Text: "BIOS"},
		{Time: at(1), Step: api.StepNetwork, State: api.StateStart},
		{Time: at(3.5), Step: api.StepNetwork, State: api.StateDone, Text: "2.50 s"},
		{Time: at(4), Step: api.StepRoot, State: api.StateStart},
		{Time: at(5), Step: api.StepServer, State: api.StateNote, Text: "slow"},
		{Time: at(6), Step: api.StepRoot, State: api.StateFailed, Text: "refused"},
		{Time: at(7), Step: api.StepRoot, State: api.StateStart},
	}}
	var out bytes.Buffer
	printBoot(&out, b, testPalette)
	_, got, _ := strings.Cut(out.String(), "\n")
	want := "" +
		"     0.00 s  dhcp                  BIOS\n" +
		"     3.50 s  network       2.50 s\n" +
		"     4.00 s  root                  …\n" +
		"     5.00 s  server                slow\n" +
		"     6.00 s  root          2.00 s  \x1b[1;31mFAILED refused\x1b[0m\n" +
		"     7.00 s  root                  …\n"
	if got != want {
		t.Errorf("printBoot =\n%s\nwant\n%s", got, want)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package qemu_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"slate/testbed/qemu"
)

// fakeQEMU greets and answers each command by its name.
func fakeQEMU(c net.Conn, answer func(command string, id int) string) {
	defer c.Close()
	io.WriteString(c, `{"QMP": {"version": {}, "capabilities": []}}`+"\r\n")
	for s := bufio.NewScanner(c); s.Scan(); {
		var cmd struct {
			Execute string
			ID      int
		}
		if json.Unmarshal(s.Bytes(), &cmd) != nil {
			return
		}
		text := answer(cmd.Execute, cmd.ID)
		if text == "" {
			return
		}
		io.WriteString(c, text+"\r\n")
	}
}

func TestMonitor(t *testing.T) {
	near, far := net.Pipe()
	go fakeQEMU(far, func(command string, id int) string {
		switch command {
		case "bad":
			return fmt.Sprintf(`{"id": %d, "error": {"class": "GenericError", "desc": "no such thing"}}`, id)
		case "quit":
			return ""
		case "eventful":
			return fmt.Sprintf(`{"event": "RESET", "data": {"guest": true}} {"id": 999, "return": {}} {"id": %d, "return": {"x": 1}}`, id)
		}
		return fmt.Sprintf(`{"id": %d, "return": {}}`, id)
	})
	var events []string
	m, err := qemu.NewMonitor(t.Context(), near, func(e qemu.Event) { events = append(events, e.Name) })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if b, err := m.Command(t.Context(), "eventful", nil); err != nil || string(b) != `{"x": 1}` {
		t.Errorf("result %s, %v", b, err)
	}
	if !slices.Equal(events, []string{"RESET"}) {
		t.Errorf("events %v", events)
	}
	var refused *qemu.CommandError
	if _, err := m.Command(t.Context(), "bad", map[string]int{"a": 1}); !errors.As(err, &refused) || refused.Error() != "qemu: bad: no such thing" {
		t.Errorf("bad command: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Command(ctx, "slow", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled command: %v", err)
	}
	if _, err := m.Command(t.Context(), "quit", nil); !errors.Is(err, io.EOF) {
		t.Errorf("command at the end: %v", err)
	}
	if _, err := m.Command(t.Context(), "late", nil); err == nil {
		t.Error("command after the end succeeded")
	}
}

func TestMonitorWithoutGreeting(t *testing.T) {
	near, far := net.Pipe()
	far.Close()
	if _, err := qemu.NewMonitor(t.Context(), near, nil); err == nil {
		t.Error("no greeting, no error")
	}
}

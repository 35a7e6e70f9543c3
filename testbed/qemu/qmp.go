// SPDX-License-Identifier: GPL-2.0-or-later

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Monitor speaks QMP, QEMU's machine protocol, over a stream.
type Monitor struct {
	rwc    io.ReadWriteCloser
	events func(Event)

	mu      sync.Mutex
	next    int
	waiting map[int]chan reply
	err     error         // why nothing more comes
	done    chan struct{} // closed after err is set
}

// Event is something QEMU tells unasked, such as SHUTDOWN, RESET, POWERDOWN.
type Event struct {
	Name string
	Data json.RawMessage
}

// CommandError is QEMU's refusal of a command.
type CommandError struct {
	Command string
	Class   string
	Desc    string
}

func (e *CommandError) Error() string { return fmt.Sprintf("qemu: %s: %s", e.Command, e.Desc) }

type reply struct {
	result json.RawMessage
	err    *CommandError
}

// NewMonitor negotiates on rwc, which it closes at its end. events, if not nil,
// gets the events in order and must not block.
func NewMonitor(ctx context.Context, rwc io.ReadWriteCloser, events func(Event)) (*Monitor, error) {
	m := &Monitor{rwc: rwc, events: events, waiting: map[int]chan reply{}, done: make(chan struct{})}
	greeted := make(chan struct{})
	go m.read(greeted)
	select {
	case <-greeted:
	case <-m.done:
		return nil, m.err
	case <-ctx.Done():
		m.Close()
		return nil, fmt.Errorf("qemu: no greeting from the monitor: %w", context.Cause(ctx))
	}
	if _, err := m.Command(ctx, "qmp_capabilities", nil); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Close ends the conversation; QEMU goes on.
func (m *Monitor) Close() error {
	err := m.rwc.Close()
	<-m.done
	return err
}

// read takes what QEMU says until it says no more.
func (m *Monitor) read(greeted chan<- struct{}) {
	dec := json.NewDecoder(m.rwc)
	for {
		var msg struct {
			QMP    json.RawMessage
			ID     *int
			Return json.RawMessage
			Error  *struct{ Class, Desc string }
			Event  string
			Data   json.RawMessage
		}
		if err := dec.Decode(&msg); err != nil {
			m.mu.Lock()
			m.err = fmt.Errorf("qemu: monitor closed: %w", err)
			m.mu.Unlock()
			close(m.done)
			return
		}
		switch {
		case msg.QMP != nil:
			close(greeted)
			greeted = make(chan struct{}) // a second greeting is QEMU's fault, not our panic
		case msg.Event != "":
			if m.events != nil {
				m.events(Event{msg.Event, msg.Data})
			}
		case msg.ID != nil:
			m.mu.Lock()
			c := m.waiting[*msg.ID]
			delete(m.waiting, *msg.ID)
			m.mu.Unlock()
			if c == nil {
				continue
			}
			r := reply{result: msg.Return}
			if msg.Error != nil {
				r.err = &CommandError{Class: msg.Error.Class, Desc: msg.Error.Desc}
			}
			c <- r
		}
	}
}

// Command executes a QMP command and returns its result.
func (m *Monitor) Command(ctx context.Context, name string, arguments any) (json.RawMessage, error) {
	c := make(chan reply, 1)
	m.mu.Lock()
	m.next++
	id := m.next
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{name, arguments, id})
	if err == nil {
		m.waiting[id] = c
		_, err = m.rwc.Write(append(line, '\n'))
	}
	m.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("qemu: %s: %w", name, err)
	}
	select {
	case r := <-c:
		if r.err != nil {
			r.err.Command = name
			return nil, r.err
		}
		return r.result, nil
	case <-m.done:
		// The answer to quit and the end of the stream come together.
		select {
		case r := <-c:
			if r.err == nil {
				return r.result, nil
			}
		default:
		}
		return nil, fmt.Errorf("qemu: %s: %w", name, m.err)
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("qemu: %s: no answer", name), context.Cause(ctx))
	}
}

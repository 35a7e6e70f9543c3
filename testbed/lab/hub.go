// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"context"
	"io"
	"sync"
)

// scrollback is how much of a serial line somebody sees who attaches late.
const scrollback = 64 << 10

// Hub lets any number of people watch a serial line and type on it. It stays when
// the machine's power goes and comes.
type Hub struct {
	mu      sync.Mutex
	history []byte
	serial  io.Writer // nil: off
	viewers map[*viewer]bool
}

// viewer is somebody attached. What is too slow for it is dropped: a person who
// stops reading must not stop the machine.
type viewer struct{ out chan []byte }

func newHub() *Hub { return &Hub{viewers: map[*viewer]bool{}} }

// Write hands what the machine wrote to all viewers. It never fails.
func (h *Hub) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history = append(h.history, b...)
	if len(h.history) > 2*scrollback {
		h.history = append([]byte(nil), h.history[len(h.history)-scrollback:]...)
	}
	chunk := append([]byte(nil), b...)
	for v := range h.viewers {
		select {
		case v.out <- chunk:
		default:
		}
	}
	return len(b), nil
}

// plug connects the line of a machine that is on, or with nil takes it away.
func (h *Hub) plug(serial io.Writer) {
	h.mu.Lock()
	h.serial = serial
	h.mu.Unlock()
	if serial == nil {
		_, _ = h.Write([]byte("\r\n[slate lab: the machine is off]\r\n"))
	}
}

// Attach shows rw what was written lately and what is written from now on, and
// types what it reads from rw, until ctx ends or rw fails. The caller closes rw.
func (h *Hub) Attach(ctx context.Context, rw io.ReadWriter) error {
	v := &viewer{make(chan []byte, 1024)}
	h.mu.Lock()
	past := append([]byte(nil), h.history[max(0, len(h.history)-scrollback):]...)
	h.viewers[v] = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.viewers, v)
		h.mu.Unlock()
	}()
	if _, err := rw.Write(past); err != nil {
		return err
	}
	typed := make(chan error, 1)
	go func() {
		_, err := io.Copy(keyboard{h}, rw)
		typed <- err
	}()
	for {
		select {
		case b := <-v.out:
			if _, err := rw.Write(b); err != nil {
				return err
			}
		case err := <-typed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// keyboard types on the hub's line; on a machine that is off, nowhere.
type keyboard struct{ h *Hub }

func (k keyboard) Write(b []byte) (int, error) {
	k.h.mu.Lock()
	serial := k.h.serial
	k.h.mu.Unlock()
	if serial != nil {
		_, _ = serial.Write(b) // it may go off just now
	}
	return len(b), nil
}

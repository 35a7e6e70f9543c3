// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import "context"

// slots bound how many do something at a time.
type slots chan struct{}

// try takes a slot if one is free.
func (s slots) try() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// take waits for a slot.
func (s slots) take(ctx context.Context) error {
	if s.try() {
		return nil
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slots) give() { <-s }

func (s slots) full() bool { return len(s) == cap(s) }

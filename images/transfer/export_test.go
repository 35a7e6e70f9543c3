// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"crypto/ed25519"
	"time"
)

// NewTestClient returns a client that does not wait between its tries.
func NewTestClient(base string, keys []ed25519.PublicKey, work string) *Client {
	return &Client{Base: base, Keys: keys, Work: work, backoff: func(int) time.Duration { return time.Millisecond }}
}

// SetStall sets how long an answer may bring nothing.
func (c *Client) SetStall(d time.Duration) { c.stall = d }

// SetAfter replaces time.After in a server's queue.
func (c *Client) SetAfter(after func(time.Duration) <-chan time.Time) { c.after = after }

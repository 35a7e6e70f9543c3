// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"crypto/ed25519"
	"time"

	"slate/images/transfer"
)

// Transfer makes a client that fetches versions from the server that is spoken
// to, and from the next when that dies: then the fleet speaks to that one too. note is
// told when the server has it wait for its turn.
func (f *Fleet) Transfer(keys []ed25519.PublicKey, note func(string, ...any)) *transfer.Client {
	c := &transfer.Client{Keys: keys, Moved: func(from, _ string, why error) { f.Failed(from, why) }}
	c.Waiting = func(why string, again time.Duration) {
		note("%s: %s; asking again in %.0f s", c.Server(), why, again.Seconds())
	}
	if m := f.Mirrors(); len(m) > 0 {
		c.Base, c.Mirrors = m[0], m[1:]
	}
	return c
}

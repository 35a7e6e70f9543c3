// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"crypto/ed25519"

	"slate/images/transfer"
)

// Transfer makes a client that fetches versions from the server that is spoken
// to, and from the next when that dies: then the fleet speaks to that one too.
func (f *Fleet) Transfer(keys []ed25519.PublicKey) *transfer.Client {
	c := &transfer.Client{Keys: keys, Moved: func(from, _ string, why error) { f.Failed(from, why) }}
	if m := f.Mirrors(); len(m) > 0 {
		c.Base, c.Mirrors = m[0], m[1:]
	}
	return c
}

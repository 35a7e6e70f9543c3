// SPDX-License-Identifier: GPL-2.0-or-later

package store

import "time"

// SetNow gives the store another clock.
func (s *Store) SetNow(now func() time.Time) { s.now = now }

// SPDX-License-Identifier: GPL-2.0-or-later

package slot

// WithPower gives records whose writes ask first whether there is power.
func (r Records) WithPower(ask func(path string, data []byte) error) Records {
	r.before = ask
	return r
}

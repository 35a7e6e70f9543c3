// SPDX-License-Identifier: GPL-2.0-or-later

package config

// FileKeys gives the keys that each file of config.d takes.
func FileKeys() map[string][]string {
	out := map[string][]string{}
	for _, p := range defaultNode().parts() {
		name := p.path
		if name == healthDir {
			name = healthExample
		}
		out[name] = structKeys(p.value)
	}
	return out
}

// SPDX-License-Identifier: GPL-2.0-or-later

//go:build race

package nodes

// raceEnabled tells that the race detector slows everything down.
const raceEnabled = true

// SPDX-License-Identifier: GPL-2.0-or-later

//go:build !race

package nfsbench

// raceEnabled says that memory is not worth measuring.
const raceEnabled = false

// SPDX-License-Identifier: GPL-2.0-or-later

//go:build race

package transfer_test

// raceCost is how many times the memory a process takes whose accesses are watched.
const raceCost = 3

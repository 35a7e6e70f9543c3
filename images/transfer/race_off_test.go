// SPDX-License-Identifier: GPL-2.0-or-later

//go:build !race

package transfer_test

const raceCost = 1

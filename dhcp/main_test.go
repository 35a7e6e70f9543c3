// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"os"
	"testing"

	"slate/testbed/netns"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(benchServerEnv); dir != "" {
		os.Exit(benchServer(dir))
	}
	netns.Main(m)
}

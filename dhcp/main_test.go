// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"testing"

	"slate/testbed/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

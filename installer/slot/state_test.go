// SPDX-License-Identifier: GPL-2.0-or-later

package slot_test

import (
	"testing"
	"time"

	"slate/installer/slot"
)

func TestCycleState(t *testing.T) {
	at := time.Unix(1, 0)
	for _, tt := range []struct {
		c    slot.Cycle
		want string
	}{
		{slot.Cycle{}, "started"},
		{slot.Cycle{Healthy: at}, "healthy"},
		{slot.Cycle{Healthy: at, Ended: at}, "ended"},
		{slot.Cycle{Ended: at}, "ended without having been healthy"}, // somebody restarted it early
		{slot.Cycle{Failed: "ssh"}, "failed"},
		{slot.Cycle{Failed: "ssh", Ended: at}, "failed"}, // it was restarted for that
		{slot.Cycle{Failed: "ssh", Healthy: at, Ended: at}, "ended"},
	} {
		if got := tt.c.State(); got != tt.want {
			t.Errorf("State of %+v = %q, want %q", tt.c, got, tt.want)
		}
	}
}

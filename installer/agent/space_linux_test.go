// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"slate/netboot/api"
)

// A warning at 90 percent and another when it is full, each once, on the console and
// in the timeline; after room was made it may come again.
func TestWatchSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var used atomic.Uint64
		var log strings.Builder
		var events []string
		a := Agent{Dir: "/x", Log: &log, spaceLook: time.Second, usage: func(dir string) (uint64, uint64, error) {
			if dir != "/x/rw" {
				t.Errorf("looked at %s", dir)
			}
			return used.Load() << 20, 200 << 20, nil
		}}
		go a.watchSpace(ctx, []Space{{Dir: "rw", What: "The memory"}}, func(e api.Event) { events = append(events, e.Text) })
		for _, step := range []struct {
			used uint64
			want string // the newest event
			n    int    // of all events
		}{
			{10, "", 0}, {179, "", 0}, {180, "The memory is 90% full: 180 of 200 MB", 1}, {190, "", 1},
			{200, "The memory is full: 200 MB", 2}, {200, "", 2}, {170, "", 2}, {200, "", 2}, {100, "", 2}, {185, "The memory is 92% full", 3},
		} {
			used.Store(step.used)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if len(events) != step.n || step.want != "" && !strings.HasPrefix(events[len(events)-1], step.want) {
				t.Errorf("with %d MB in use: %d events, %q; want %d, the last %q", step.used, len(events), events, step.n, step.want)
			}
		}
		cancel()
		synctest.Wait()
		if n := strings.Count(log.String(), "<3>slate: The memory is "); n != 3 {
			t.Errorf("the console has %d warnings:\n%s", n, log.String())
		}
	})
}

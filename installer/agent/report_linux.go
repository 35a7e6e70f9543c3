// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"io/fs"
	"reflect"
	"strconv"
	"strings"
	"time"

	"slate/installer/machine"
	"slate/netboot/api"
)

// Pauses of the reports: between two looks whether there is something to say, and
// the longest silence, since the load changes all the time.
const (
	reportLook  = 5 * time.Second
	reportPause = 5 * time.Minute
)

// report is how the machine is now.
func (a *Agent) report(c Config) api.Report {
	r := api.Report{Version: c.Version, Slot: c.Slot, Uptime: machine.Uptime(), Config: a.configReport()}
	loadavg, _ := fs.ReadFile(a.Proc, "loadavg")
	if f := strings.Fields(string(loadavg)); len(f) > 0 {
		r.Load, _ = strconv.ParseFloat(f[0], 64)
	}
	r.Free = procKiB(a.Proc, "meminfo", "MemAvailable:") >> 10
	r.Agent = procKiB(a.Proc, "self/status", "VmRSS:")
	a.reportSlots(c, &r)
	return r
}

// procKiB reads a number of KiB from a file of /proc with a name before each value.
func procKiB(proc fs.FS, file, name string) int {
	text, _ := fs.ReadFile(proc, file)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

// tellReports sends reports: the first at once, then when something has changed that
// does not change all the time, and at least every few minutes.
func (a *Agent) tellReports(ctx context.Context, c Config, post func(context.Context, api.Report) error) {
	var told api.Report
	var when time.Time
	tick := time.NewTicker(reportLook)
	defer tick.Stop()
	for {
		r := a.report(c)
		if when.IsZero() || !reflect.DeepEqual(steady(r), steady(told)) || a.now().Sub(when) >= reportPause {
			if post(ctx, r) == nil {
				told, when = r, a.now()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// steady leaves out what is never the same twice.
func steady(r api.Report) api.Report {
	r.Uptime, r.Load, r.Free, r.Agent = 0, 0, 0, 0
	return r
}

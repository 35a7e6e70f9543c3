// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"slate/installer/machine"
	"slate/netboot/api"
)

// restart asks the system to restart in its own way: every init takes SIGINT as
// what the kernel sends it for Ctrl-Alt-Del.
func restart() error { return unix.Kill(1, unix.SIGINT) }

// The pauses after a question for orders that failed.
const (
	orderPause    = 5 * time.Second
	orderPauseMax = time.Minute
)

// takeOrders asks the appliance for orders, one question after the other, until
// ctx ends. That it asks tells the appliance that the machine runs.
func (a *Agent) takeOrders(ctx context.Context, ask func(context.Context) (api.Order, error), tell func(api.Event)) {
	pause := orderPause
	for ctx.Err() == nil {
		began := time.Now()
		o, err := ask(ctx)
		if err == nil {
			pause = orderPause
			a.obey(o, tell)
			if o.Do != "" || time.Since(began) > orderPause {
				continue
			} // else whoever answers does not wait: no reason to hurry
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, orderPauseMax)
	}
}

func (a *Agent) obey(o api.Order, tell func(api.Event)) {
	note := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		a.logf("%s", text)
		tell(api.Event{Step: api.StepLogin, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	}
	switch o.Do {
	case "": // none came for a while
	case api.OrderReboot, api.OrderUpdate: // a machine without a disk gets its version at the start
		note("told to %s", map[string]string{api.OrderReboot: "restart", api.OrderUpdate: "update: restarting"}[o.Do])
		if err := a.restart(); err != nil {
			note("cannot restart: %v", err)
		}
	default:
		note("this agent does not know the order %q", o.Do)
	}
}

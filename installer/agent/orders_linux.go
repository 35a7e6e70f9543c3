// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/installer/machine"
	"slate/netboot/api"
	"slate/netboot/config"
)

// restart asks the system to restart in its own way: every init takes SIGINT as
// what the kernel sends it for Ctrl-Alt-Del.
func restart() error { return unix.Kill(1, unix.SIGINT) }

// The pauses after a question for orders that failed.
const (
	orderPause    = 5 * time.Second
	orderPauseMax = time.Minute
)

// commander gives orders, and the configuration.
type commander interface {
	WaitOrder(ctx context.Context, revision int64) (api.Order, error)
	Config(ctx context.Context, keys []ed25519.PublicKey, limit int64) ([]byte, error)
}

// takeOrders asks the appliance for orders, one question after the other, until
// ctx ends. That it asks tells the appliance that the machine runs. configured is called
// after a configuration was taken.
func (a *Agent) takeOrders(ctx context.Context, node string, from commander, tell func(api.Event), updating, configured func()) {
	pause := orderPause
	for ctx.Err() == nil {
		began := time.Now()
		o, err := from.WaitOrder(ctx, a.seenRevision())
		if err == nil && o.Do == api.OrderConfig {
			if err = a.takeConfig(ctx, node, from, tell); err == nil {
				configured()
			}
		} else if err == nil {
			a.obey(o, tell, updating)
		}
		if err == nil {
			pause = orderPause
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

// takeConfig fetches the configuration and tells what became of it.
func (a *Agent) takeConfig(ctx context.Context, node string, from commander, tell func(api.Event)) error {
	text, err := a.reconfigure(ctx, node, func(ctx context.Context) ([]byte, error) {
		keys, err := images.LoadPublicKeys(filepath.Join(a.Dir, KeysFile))
		if err != nil {
			return nil, err
		}
		return from.Config(ctx, keys, config.MaxBundle)
	})
	if err != nil {
		text = err.Error()
	}
	a.logf("%s", text)
	tell(api.Event{Step: api.StepConfig, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	if waits := a.configReport().Waits; err == nil && len(waits) > 0 {
		// The kernel shows this level on the consoles even with "quiet".
		fmt.Fprintf(a.Log, "<3>slate: the configuration has changed; this waits for a restart: %s\n", strings.Join(waits, ", "))
	}
	return err
}

// obey carries out an order. updating, if it is not nil, brings a machine with a drive of
// its own to its version; it does not wait.
func (a *Agent) obey(o api.Order, tell func(api.Event), updating func()) {
	note := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		a.logf("%s", text)
		tell(api.Event{Step: api.StepLogin, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	}
	switch o.Do {
	case "": // none came for a while
	case api.OrderUpdate:
		if updating != nil {
			updating()
			return
		}
		fallthrough
	case api.OrderReboot: // a machine without a disk gets its version at the start
		note("told to %s", map[string]string{api.OrderReboot: "restart", api.OrderUpdate: "update: restarting"}[o.Do])
		if err := a.restart(); err != nil {
			note("cannot restart: %v", err)
		}
	case api.OrderVerify:
		if a.verifying == nil {
			note("told to compare files, but the system is not on a drive of this machine")
			return
		}
		a.verifying()
	default:
		note("this agent does not know the order %q", o.Do)
	}
}

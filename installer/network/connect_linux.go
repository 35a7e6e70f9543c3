// SPDX-License-Identifier: GPL-2.0-or-later

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Connector finds the interface that leads to an address.
type Connector struct {
	Root     string // of /sys; "" is /
	Boot     net.HardwareAddr
	Hostname string
	Patience Patience
	Note     func(format string, a ...any)
	// Check, if set, is asked on a machine with several interfaces whether a lease
	// leads where the machine has to go; Drop undoes what it did when it does not.
	// With no lease that does, the first one is taken.
	Check func(context.Context, Lease) error
	Drop  func(Lease)

	// Replaced in tests.
	list    func() []Interface
	up      func([]Interface) error
	acquire func(context.Context, Interface) (Lease, error)
	look    time.Duration // between two looks at a link
}

func (c *Connector) defaults() {
	if c.list == nil {
		c.list = func() []Interface { return List(c.Root) }
	}
	if c.up == nil {
		c.up = Up
	}
	if c.acquire == nil {
		c.acquire = func(ctx context.Context, i Interface) (Lease, error) {
			return Client{Interface: i, Hostname: c.Hostname, Note: c.Note}.Acquire(ctx)
		}
	}
	if c.look == 0 {
		c.look = 50 * time.Millisecond
	}
	if c.Note == nil {
		c.Note = func(string, ...any) {}
	}
}

// errNoLink keeps the unplugged interfaces out of the way of the error that matters.
var errNoLink = errors.New("no link: is the cable in?")

// Connect gets a lease: on the interface the machine booted from, else on any
// other with a link, in rounds. Interfaces without a link cost little: a machine
// with an unplugged second card must not wait for it.
func (c *Connector) Connect(ctx context.Context) (Lease, error) {
	c.defaults()
	all, err := c.appear(ctx)
	if err != nil {
		return Lease{}, err
	}
	why := map[string]error{}
	var second *Lease // best so far: an address, but not the way to the server
	for round := range max(c.Patience.Rounds, 1) {
		order := Order(c.list(), c.Boot)
		if err := c.up(order); err != nil {
			c.Note("%v", err)
		}
		for n, i := range order {
			wait := c.Patience.Other
			if n == 0 && round == 0 {
				wait = c.Patience.Link
			}
			// A link elsewhere ends the wait for this one early in the second half.
			if !c.link(ctx, i, wait, n == 0 && round == 0) {
				why[i.Name] = fmt.Errorf("%s: %w", i, errNoLink)
				continue
			}
			c.Note("waiting for a DHCP answer on %s, up to %v", i, c.Patience.DHCP)
			actx, cancel := context.WithTimeout(ctx, c.Patience.DHCP)
			l, err := c.acquire(actx, i)
			cancel()
			if err == nil && c.Check != nil && len(order) > 1 {
				if err = c.Check(ctx, l); err != nil {
					err = fmt.Errorf("%s has the address %v, but %w", i.Name, l.Address, err)
					c.Drop(l)
					if second == nil {
						second = &l
					}
				}
			}
			if err == nil {
				return l, nil
			}
			why[i.Name] = err
			c.Note("%v", err)
		}
		if second != nil {
			return *second, nil
		}
		if ctx.Err() != nil {
			break
		}
		all = order
	}
	return Lease{}, &ConnectError{reasons(all, why)}
}

// ConnectError lists why each interface gave no address.
type ConnectError struct{ Reasons []string }

func (e *ConnectError) Error() string { return strings.Join(e.Reasons, "; ") }

// Hint says what a person standing there can do.
func (e *ConnectError) Hint() string {
	return "Check the cable and the switch port, and that a DHCP server serves this network."
}

func reasons(all []Interface, why map[string]error) (out []string) {
	for _, i := range all {
		if err := why[i.Name]; err != nil && !slices.Contains(out, err.Error()) {
			out = append(out, err.Error())
		}
	}
	return out
}

// appear waits for a wired interface to exist; if the firmware named one, for that
// one during half of the time.
func (c *Connector) appear(ctx context.Context) ([]Interface, error) {
	start, told := time.Now(), false
	for {
		all := c.list()
		booted := slices.ContainsFunc(all, func(i Interface) bool { return i.MAC.String() == c.Boot.String() })
		waited := time.Since(start)
		if len(all) > 0 && (len(c.Boot) == 0 || booted || waited >= c.Patience.Appear/2) {
			if len(c.Boot) > 0 && !booted {
				c.Note("the interface the machine booted from, %s, is not there; its driver may be missing", c.Boot)
			}
			return all, nil
		}
		if waited >= c.Patience.Appear || ctx.Err() != nil {
			return nil, &ConnectError{[]string{"no wired network interface was found; the driver may be missing from the image's kernel"}}
		}
		if !told {
			c.Note("waiting for a network interface to appear, up to %v", c.Patience.Appear)
			told = true
		}
		sleep(ctx, c.look)
	}
}

// link waits for an interface's link. With patience for the boot interface it
// still goes on once half of it is used and another interface has a link.
func (c *Connector) link(ctx context.Context, i Interface, wait time.Duration, preferred bool) bool {
	start, told := time.Now(), false
	for {
		other := false
		for _, now := range c.list() {
			if now.Index == i.Index && now.Carrier {
				return true
			}
			other = other || now.Carrier
		}
		waited := time.Since(start)
		if waited >= wait || preferred && other && waited >= wait/2 || ctx.Err() != nil {
			return false
		}
		if !told {
			c.Note("waiting for the link of %s, up to %v", i, wait)
			told = true
		}
		sleep(ctx, c.look)
	}
}

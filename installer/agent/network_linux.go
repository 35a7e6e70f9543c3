// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/builder/command"
	"slate/installer/machine"
	"slate/installer/network"
	"slate/installer/root"
	"slate/installer/servers"
	"slate/netboot/api"
	"slate/netboot/config"
)

// NetworkRole is the argument with which the agent's program gets an address.
const NetworkRole = "network"

// Late is what a machine needs to come into the network after it has started without
// one.
type Late struct {
	Card     string    `json:"card,omitempty"` // MAC address of the one that it booted from, if it did
	Hostname string    `json:"hostname"`
	Hello    api.Hello `json:"hello"` // but for the card's address
	// Network is what config.d says about DNS.
	Network config.Network `json:"network"`
}

// Pauses between two tries to get into the network. A room whose switch comes back does not
// ask at the same moment.
const (
	latePause = 15 * time.Second
	lateSpray = 15 * time.Second
)

// latePatience is for one try, on a machine that does something else meanwhile.
var latePatience = network.Patience{Appear: time.Second, Link: 2 * time.Second, Other: time.Second, DHCP: 15 * time.Second, Rounds: 1}

// Networker returns a function that gets an address, by a process inside the system,
// which sees the network cards there and writes who resolves names.
func Networker(program string, proc *os.File) func(context.Context, Late) (network.Lease, error) {
	return func(ctx context.Context, l Late) (lease network.Lease, err error) {
		in, err := json.Marshal(l)
		if err != nil {
			return lease, err
		}
		out, err := command.Output(ctx, command.Cmd{Args: []string{program, NetworkRole}, Stdin: bytes.NewReader(in), Files: []*os.File{proc}})
		if err != nil {
			return lease, err
		}
		return lease, json.Unmarshal([]byte(out), &lease)
	}
}

// ServeNetwork reads a Late, gets an address, and writes the lease. It runs inside the
// system.
func ServeNetwork(ctx context.Context, in io.Reader, out io.Writer) error {
	var l Late
	if err := json.NewDecoder(in).Decode(&l); err != nil {
		return fmt.Errorf("which network: %w", err)
	}
	card, _ := net.ParseMAC(l.Card)
	c := network.Connector{Boot: card, Hostname: l.Hostname, Patience: latePatience}
	lease, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	if err := network.Apply(lease); err != nil {
		return err
	}
	node := config.Defaults()
	node.Network = l.Network
	changes := root.Resolver(os.DirFS("/"), root.Facts{DNS: lease.DNS, Search: lease.Search, Config: node})
	if err := root.Apply("/", changes); err != nil {
		return err
	}
	for _, c := range changes {
		if strings.Contains(c.Path, "resolved") {
			_, _ = command.Output(ctx, command.Cmd{Args: []string{"systemctl", "try-restart", "systemd-resolved"}}) // it may not run
		}
	}
	return json.NewEncoder(out).Encode(lease)
}

// joinLate gets an address for a machine that started without a network, however long
// that takes, and tells the fleet who it is. false: ctx has ended before.
func (a *Agent) joinLate(ctx context.Context, late Late, fleet *servers.Fleet) bool {
	said := ""
	for {
		l, err := a.Network(ctx, late)
		if err == nil {
			err = l.Save(filepath.Join(a.Dir, LeaseFile))
		}
		if err == nil {
			a.logf("there is a network now: %s has the address %s from %s", l.Interface, l.Address, l.Server)
			close(a.leased)
			late.Hello.MAC = l.MAC
			fleet.Introduce(late.Hello)
			return true
		}
		if text := oneLine(err); text != said {
			said = text
			a.logf("no network yet: %s", text)
		}
		select {
		case <-time.After(latePause + rand.N(lateSpray)):
		case <-ctx.Done():
			return false
		}
	}
}

// tellLate tells the appliance of a start that it did not see.
func tellLate(rep *servers.Reporter) {
	rep.Add(api.Event{Step: api.StepNetwork, State: api.StateNote, Text: "this machine started without a network, and has found one", Uptime: machine.Uptime()})
}

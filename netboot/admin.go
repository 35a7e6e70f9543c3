// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"slate/netboot/api"
	"slate/netboot/httpd"
	"slate/netboot/nodes"
)

// listenAdmin opens the admin's socket. The caller holds the state file, so a
// socket that is there already belongs to an appliance that ended in a hurry.
func listenAdmin(file string) (net.Listener, error) {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	short, done, err := api.ShortSocket(file)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	defer done()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// Set before the socket gets its name, so that it is never open to others.
		var chmod error
		err := c.Control(func(fd uintptr) { chmod = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmod)
	}}
	l, err := lc.Listen(context.Background(), "unix", short)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", file, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its short name means nothing by then
	return adminListener{l, file}, nil
}

// adminListener removes its socket when it is closed.
type adminListener struct {
	net.Listener
	file string
}

func (l adminListener) Close() error {
	return errors.Join(l.Listener.Close(), os.Remove(l.file))
}

func (s *Server) adminHandler() http.Handler {
	return httpd.NewAdmin(httpd.AdminOptions{
		Nodes:   s.selectNodes,
		Node:    s.node,
		Explain: s.explain,
		Change:  s.change,
		Acts: map[string]func(context.Context, []string) ([]api.Done, error){
			"forget":   s.forget,
			"wake":     s.wake,
			"reboot":   s.order(api.OrderReboot, "told to restart"),
			"update":   s.order(api.OrderUpdate, "told to update"),
			"rollback": s.rollback,
			"verify":   s.order(api.OrderVerify, "told to compare its system's files; what comes of it: slate node show"),
		},
		Logs:   nodeLogs{s.logs, s.nodes.Get},
		Status: s.adminStatus,
		Log:    s.Log,
	})
}

func (s *Server) selectNodes(targets ...string) ([]api.Node, error) {
	if len(targets) == 0 {
		return s.listNodes(false), nil
	}
	list, err := s.nodes.Select(targets...)
	s.addProgress(list)
	return list, err
}

func (s *Server) node(name string) (api.Node, error) {
	n, err := s.nodes.Get(name)
	if err != nil {
		return n, err
	}
	one := []api.Node{n}
	s.addProgress(one)
	return one[0], nil
}

func (s *Server) forget(ctx context.Context, targets []string) ([]api.Done, error) {
	names, err := s.nodes.Forget(ctx, targets)
	var done []api.Done
	for _, name := range names {
		s.modes.Delete(name)
		err = errors.Join(err, s.logs.Forget(name))
		done = append(done, api.Done{Node: name, Text: "forgotten"})
	}
	return done, err
}

// each does something with each node that the targets name.
func (s *Server) each(targets []string, do func(api.Node) (string, error)) ([]api.Done, error) {
	list, err := s.nodes.Select(targets...)
	if err != nil {
		return nil, err
	}
	var done []api.Done
	for _, n := range list {
		text, err := do(n)
		if err != nil {
			done = append(done, api.Done{Node: n.Name, Error: err.Error()})
			continue
		}
		done = append(done, api.Done{Node: n.Name, Text: text})
	}
	return done, nil
}

// order gives the agents of running nodes an order.
func (s *Server) order(do, said string) func(context.Context, []string) ([]api.Done, error) {
	return func(_ context.Context, targets []string) ([]api.Done, error) {
		return s.each(targets, func(n api.Node) (string, error) {
			return said, s.nodes.Order(n.Name, api.Order{Do: do})
		})
	}
}

// rollback sets the version that each node had before as its image, and has it go there.
func (s *Server) rollback(ctx context.Context, targets []string) ([]api.Done, error) {
	list, err := s.nodes.Select(targets...)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, n := range list {
		names[i] = n.Name
	}
	return s.each(names, func(n api.Node) (string, error) {
		full, err := s.nodes.Get(n.Name)
		if err != nil {
			return "", err
		}
		before := previous(full)
		if before == "" {
			return "", &nodes.ChangeError{Text: "no version before " + full.Runs() + " is known of it"}
		}
		if _, err := s.change(ctx, api.Change{Targets: api.Targets{Targets: []string{n.Name}}, Image: &before}); err != nil {
			return "", err
		}
		text := "goes back to " + before + ", and stays there until: slate node set " + n.Name + " --unset image"
		if err := s.nodes.Order(n.Name, api.Order{Do: api.OrderUpdate}); err != nil {
			return text + "; at its next start, since it does not listen now", nil
		}
		return text, nil
	})
}

// previous is the version that a node had before the one that it runs: in its other
// slot, or else in an earlier boot.
func previous(n api.Node) string {
	runs := n.Runs()
	if r := n.Report; r != nil && r.Slot != "" {
		for _, s := range r.Slots {
			if s.Slot != r.Slot && s.Version != "" && s.Version != runs {
				return s.Version
			}
		}
	}
	for _, b := range n.Boots {
		if b.Image != "" && b.Image != runs {
			return b.Image
		}
	}
	return ""
}

// wake sends each card of the nodes a magic packet.
func (s *Server) wake(ctx context.Context, targets []string) ([]api.Done, error) {
	return s.each(targets, func(n api.Node) (string, error) {
		if len(n.MACs) == 0 {
			return "", &nodes.ChangeError{Text: "none of its MAC addresses is known"}
		}
		for _, mac := range n.MACs {
			hw, err := net.ParseMAC(mac)
			if err != nil {
				return "", err
			}
			for _, nw := range s.local() {
				if err := sendMagic(ctx, nw.addr, nw.prefix, hw); err != nil {
					return "", err
				}
			}
		}
		return "magic packet sent to " + strings.Join(n.MACs, ", "), nil
	})
}

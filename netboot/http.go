// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"slate/images/transfer"
	"slate/netboot/api"
	"slate/netboot/boot"
	"slate/netboot/httpd"
	"slate/netboot/ipxe"
	"slate/netboot/nodes"
)

func (s *Server) httpHandler() http.Handler {
	s.sync = &transfer.Handler{Source: s.store, Log: s.Log, Cache: filepath.Join(s.Settings.Data, "cache", "sync")}
	return httpd.New(httpd.Options{
		Script:           s.script,
		Loader:           s.loaders.open,
		Loaded:           s.loaded,
		Controller:       s.controller,
		ControllerDigest: s.controllerDigest,
		Blob:             s.store.OpenBlob,
		Report:           s.report,
		Facts:            s.nodes.Hardware,
		Orders:           s.orders,
		Running:          s.nodes.Running,
		Config:           s.bundle,
		Assigned:         s.assigned,
		TakeLog:          s.takeLog,
		Status:           s.publicStatus,
		Load:             s.load,
		Sign:             s.sign,
		Hello:            s.hello,
		Secured:          s.secured,
		Sync:             s.fetchTurns(s.sync),
		Log:              s.Log,
	})
}

// script writes the boot script for the machine that asks. A machine that did
// not say who it is gets the script that asks again with all it knows; one that
// cannot be started gets a script that says why.
func (s *Server) script(_ context.Context, q httpd.ScriptQuery) ([]byte, error) {
	srv := s.bootServer(s.towardsText(q.Address))
	if q.MAC == "" {
		return s.scripts.Ask(srv.URL(""), srv.URL(api.PathScript))
	}
	facts := nodes.Facts{MAC: q.MAC, UUID: q.UUID, Serial: q.Serial, Product: q.Product, Address: q.Address}
	d, no := s.admit(facts)
	if no != nil {
		return s.scripts.Refuse(no.node, no.reason, no.hint)
	}
	place := s.turnOf(facts)
	if place == 0 {
		return s.bootScript(facts, d)
	}
	return s.scripts.Wait(srv.URL(""), srv.URL(api.PathScript), d.Start.Node, place, pauseOf(place))
}

// loaded puts a loader's download by UEFI HTTP boot into the machine's timeline.
func (s *Server) loaded(name, addr string, size int64, took time.Duration) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return
	}
	s.loaderStep(a.Unmap(), api.Event{Step: api.StepLoader, State: api.StateDone,
		Text: fmt.Sprintf("%s: %d KB by HTTP in %.2f s", name, size/1000, took.Seconds())})
}

// report puts an event into a boot's timeline. Once the last file before the kernel
// is loaded, or the controller says anything, it is another machine's turn to load.
func (s *Server) report(boot string, e api.Event) bool {
	if e.Step != api.StepKernel || e.State == api.StateDone {
		s.queue.done(boot)
	}
	return s.nodes.Report(boot, e)
}

func (s *Server) bootScript(facts nodes.Facts, d boot.Decision) ([]byte, error) {
	start := d.Start
	text := start.Version.Ref() + ", " + d.Why
	var ok bool
	if start.Node, start.BootID, ok = s.nodes.Script(facts, start.Version.Ref(), text); !ok {
		return nil, errors.New("no room for this node")
	}
	s.queue.start(facts.MAC, start.BootID)
	kernel, initrds, err := start.Files(s.controllerDigest)
	if err != nil {
		return nil, err
	}
	b := ipxe.Boot{
		Node: start.Node, Image: start.Version.Ref(), BootID: start.BootID, Server: start.Server.URL(""),
		Kernel: kernel.URL, Cmdline: start.Cmdline(),
	}
	for _, v := range start.Config.Servers.Servers {
		if v.URL != start.Server.URL("") {
			b.Others = append(b.Others, strings.TrimSuffix(v.URL, "/")+api.PathScript)
		}
	}
	for _, f := range initrds {
		b.Initrds = append(b.Initrds, ipxe.File(f))
	}
	return s.scripts.Boot(b)
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

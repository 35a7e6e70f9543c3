// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"slate/netboot/api"
	"slate/netboot/boot"
	"slate/netboot/nodes"
	"slate/tftp"
)

func (s *Server) serveTFTP(ctx context.Context) error {
	srv := &tftp.Server{Open: s.openTFTP, Events: s.tftpEvent, Log: s.Log}
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range s.tftp {
		g.Go(func() error { return srv.Serve(ctx, c) })
	}
	return g.Wait()
}

// tftpEvent puts the loader's download into the timeline of the machine that
// fetches it.
func (s *Server) tftpEvent(ev tftp.Event) {
	e, ok := tftpStep(ev.Name)
	if !ok {
		return
	}
	switch ev.Kind {
	case tftp.Requested, tftp.Probed:
		return
	case tftp.Done:
		e.Text += fmt.Sprintf(": %d KB by TFTP in %.2f s", ev.Bytes/1000, ev.Duration.Seconds())
	default:
		e.State = api.StateFailed
		e.Text += ": " + ev.Reason
	}
	s.loaderStep(ev.Client.Addr().Unmap(), e)
	if ev.Name == boot.LoaderGRUB && ev.Kind == tftp.Done {
		if why := grubAstray(s.Settings.DHCP.Mode, s.rivals.list(), s.networks); why != "" {
			s.loaderStep(ev.Client.Addr().Unmap(), api.Event{Step: api.StepLoader, State: api.StateNote, Text: why})
		}
	}
}

// loaderStep puts what the firmware or a loader did into the timeline of the machine,
// whose address another server may have given it.
func (s *Server) loaderStep(addr netip.Addr, e api.Event) {
	if mac := macOf(addr); mac != "" {
		if e.Step == api.StepKernel && e.State == api.StateDone {
			s.queue.left(mac)
		}
		s.nodes.Firmware(nodes.Facts{MAC: mac, Address: addr.String()}, e)
		return
	}
	s.nodes.ByAddress(addr.String(), e)
}

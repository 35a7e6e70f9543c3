// SPDX-License-Identifier: GPL-2.0-or-later

package process

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// watchReady prepares for the sign that r names. The channel gets nil when it
// came.
func (p *Process) watchReady(ctx context.Context, r *Ready) (<-chan error, error) {
	ready := make(chan error, 1)
	if r.Line != nil {
		found := p.out.watch(r.Line)
		go func() {
			select {
			case <-found:
				ready <- nil
			case <-p.done:
			case <-ctx.Done():
			}
		}()
		return ready, nil
	}
	// An earlier program may have left the socket's file.
	_ = os.Remove(r.Notify)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.Notify, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("socket for its readiness: %w", err)
	}
	p.cmd.Env = append(p.cmd.Env, "NOTIFY_SOCKET="+r.Notify)
	go func() {
		select {
		case <-p.done:
		case <-ctx.Done():
		}
		c.Close()
	}()
	// The socket stays open as long as the program: it goes on sending states.
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
				select {
				case ready <- nil:
				default:
				}
			}
		}
	}()
	return ready, nil
}

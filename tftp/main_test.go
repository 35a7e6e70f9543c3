// SPDX-License-Identifier: GPL-2.0-or-later

package tftp_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"testing"

	pin "github.com/pin/tftp/v3"

	"slate/testbed/netns"
	"slate/tftp"
)

// serveEnv makes the test binary a TFTP server: "slate" or "pin". The comparison
// of servers needs each in a process of its own.
const serveEnv = "SLATE_TFTP_SERVE"

func TestMain(m *testing.M) {
	if kind := os.Getenv(serveEnv); kind != "" {
		if err := serve(kind, os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	netns.Main(m)
}

func serve(kind, addr, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	conn, err := tftp.Listen(ctx, netip.MustParseAddrPort(addr))
	if err != nil {
		return err
	}
	if kind == "slate" {
		s := &tftp.Server{Open: tftp.Dir(root), MaxPerClient: 1000}
		return s.Serve(ctx, conn)
	}
	s := pin.NewServer(func(name string, to io.ReaderFrom) error {
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = to.ReadFrom(f)
		return err
	}, nil)
	context.AfterFunc(ctx, s.Shutdown)
	return s.Serve(conn)
}

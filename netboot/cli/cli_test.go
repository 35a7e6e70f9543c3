// SPDX-License-Identifier: GPL-2.0-or-later

package cli_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"slate/netboot/cli"
	"slate/testbed/netns"
)

// TestMain lets the scripts run the slate command, in a network of their own.
func TestMain(m *testing.M) { netns.Main(scripts{m}) }

type scripts struct{ m *testing.M }

// Run makes slate a command of the scripts.
func (s scripts) Run() int {
	testscript.Main(s.m, map[string]func(){
		"slate": func() { os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
	return 0
}

// TestScripts runs testdata/*.txtar: the commands as a user types them, on a
// machine whose only network is lab0, 10.77.0.1/24.
func TestScripts(t *testing.T) {
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for _, err := range []error{
		ns.Bridge("lab0"),
		ns.Address("lab0", netip.MustParsePrefix("10.77.0.1/24")),
		ns.Up("lab0"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor, "fetch": fetch, "alone": alone, "mount": mount},
		Setup: func(e *testscript.Env) error {
			// The commands run in this test's network.
			for _, name := range []string{"SLATE_NETNS", "SLATE_TEST"} {
				e.Setenv(name, os.Getenv(name))
			}
			e.Setenv("SLATE_CONFIG", e.WorkDir+"/etc/slate.toml")
			e.Setenv("SLATE_DATA", e.WorkDir+"/data")
			return nil
		},
	})
}

// applianceTurn is held by the script whose appliance has the ports.
var applianceTurn = make(chan struct{}, 1)

// alone is the command "alone": scripts run side by side, and those that start an
// appliance begin with it, to have the network for themselves until they end.
func alone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: alone")
	}
	applianceTurn <- struct{}{}
	ts.Defer(func() { <-applianceTurn })
}

// mount is the command "mount ADDRESS PATH": it asks the NFS server for the export
// and its root's attributes, as a client does, and stays connected until the
// script ends.
func mount(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mount ADDRESS PATH")
	}
	conn, err := net.Dial("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { conn.Close() })
	const mountProgram, nfsProgram = 100005, 100003
	root := rpcCall(ts, conn, mountProgram, []byte(args[1]))
	rpcCall(ts, conn, nfsProgram, root[4:4+binary.BigEndian.Uint32(root)])
}

// rpcCall calls procedure 1 of version 3 of a program, MNT or GETATTR, with one
// argument of variable length, and returns what follows the status.
func rpcCall(ts *testscript.TestScript, conn net.Conn, program uint32, arg []byte) []byte {
	be := binary.BigEndian
	var call []byte
	// Transaction, call, RPC version, program, version, procedure, no credentials, no verifier.
	for _, word := range []uint32{7, 0, 2, program, 3, 1, 0, 0, 0, 0, uint32(len(arg))} {
		call = be.AppendUint32(call, word)
	}
	call = append(append(call, arg...), make([]byte, -len(arg)&3)...)
	_, err := conn.Write(append(be.AppendUint32(nil, 1<<31|uint32(len(call))), call...))
	ts.Check(err)
	mark := make([]byte, 4)
	_, err = io.ReadFull(conn, mark)
	ts.Check(err)
	reply := make([]byte, be.Uint32(mark)&^(1<<31))
	_, err = io.ReadFull(conn, reply)
	ts.Check(err)
	const header = 24
	if len(reply) < header+8 || be.Uint32(reply[header:]) != 0 {
		ts.Fatalf("program %d answers % x", program, reply)
	}
	return reply[header+4:]
}

// fetch is the command "fetch URL": the answer is its output.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: fetch URL")
	}
	resp, err := http.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if good := resp.StatusCode == http.StatusOK; good == neg {
		ts.Fatalf("%s: %s: %s", args[0], resp.Status, text)
	}
	fmt.Fprintf(ts.Stdout(), "%s", text)
}

// waitFor is the command "waitfor URL": it waits until the URL answers.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor URL")
	}
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get(args[0])
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waitfor: %v", err)
		}
		<-tick.C
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"net"
	"slices"
	"strconv"
	"testing"

	"slate/nfs"
)

func TestPortmap(t *testing.T) {
	const progPortmap, null, set, getport, dump, callit = 100000, 0, 1, 3, 4, 5
	const tcp, udp = 6, 17
	s := newSite(t)
	for _, told := range []uint16{0, 2049} {
		addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, Port: told})
		_, here, _ := net.SplitHostPort(addr)
		asked, _ := strconv.ParseUint(here, 10, 16)
		port := uint64(told)
		if told == 0 {
			port = asked
		}
		c := dial(t, addr)
		c.rpc(progPortmap, 2, null).end()
		for _, tc := range []struct {
			prog, vers, proto int
			want              uint64
		}{
			{progNFS, 3, tcp, port}, {progMount, 3, tcp, port}, {progPortmap, 2, tcp, asked},
			{progNFS, 4, tcp, 0}, {progNFS, 3, udp, 0}, {progMount, 1, tcp, 0}, {100021, 4, tcp, 0},
		} {
			a := c.rpc(progPortmap, 2, getport, tc.prog, tc.vers, tc.proto, 0)
			a.want("port", uint64(a.Uint32()), tc.want)
			a.end()
		}
		a := c.rpc(progPortmap, 2, dump)
		var progs []uint32
		for a.Bool() {
			progs = append(progs, a.Uint32())
			a.Uint32()
			a.want("protocol", uint64(a.Uint32()), tcp)
			a.Uint32()
		}
		a.end()
		if !slices.Equal(progs, []uint32{progPortmap, progNFS, progMount, 100227}) {
			t.Errorf("DUMP = %d", progs)
		}
		for _, proc := range []int{set, 2, callit} {
			if a := c.rpc(progPortmap, 2, proc, progNFS, 3, tcp, 99); a.stat != 3 {
				t.Errorf("procedure %d: accept_stat %d, want PROC_UNAVAIL", proc, a.stat)
			}
		}
		if a := c.rpc(progPortmap, 2, getport, progNFS); a.stat != 4 {
			t.Errorf("GETPORT cut short: accept_stat %d, want GARBAGE_ARGS", a.stat)
		}
		if a := c.rpc(progPortmap, 4, 3); a.stat != 2 {
			t.Errorf("version 4: accept_stat %d, want PROG_MISMATCH", a.stat)
		}
	}
}

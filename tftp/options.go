// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"strconv"
	"time"
)

// Option names; clients write them in any case (RFC 2347).
const (
	optBlockSize = "blksize"    // RFC 2348
	optTimeout   = "timeout"    // RFC 2349
	optSize      = "tsize"      // RFC 2349
	optWindow    = "windowsize" // RFC 7440
)

const (
	defaultBlockSize = 512
	minBlockSize     = 8
	maxBlockSize     = 65464

	// maxInFlight bounds the memory of a transfer, and what a burst does to the
	// receive buffer of a client.
	maxInFlight = 256 << 10
)

// bounds is what the server and the path allow a client to choose.
type bounds struct {
	blockSize int // largest
	window    int // largest
}

// terms is how a transfer runs, as agreed with the client.
type terms struct {
	blockSize int
	window    int
	timeout   time.Duration // the client's wish, 0: none
	oack      []option      // what to confirm; none: no OACK is sent
}

// negotiate answers the options of a request for a file of the given size. An
// option that is unknown, repeated or senseless is left out of the answer, which
// by RFC 2347 means that it does not hold.
func negotiate(asked []option, size int64, b bounds) terms {
	t := terms{blockSize: defaultBlockSize, window: 1}
	for _, o := range asked { // the window depends on it, wherever it stands
		if v, ok := o.number(); ok && o.is(optBlockSize) && v >= minBlockSize {
			t.blockSize = int(min(v, int64(b.blockSize)))
			break
		}
	}
	seen := make(map[string]bool)
	confirm := func(o option, name string, value int64) {
		seen[name] = true
		// The client's own spelling: some compare the name byte by byte.
		t.oack = append(t.oack, option{o.name, strconv.FormatInt(value, 10)})
	}
	for _, o := range asked {
		v, ok := o.number()
		if !ok {
			continue
		}
		switch {
		case o.is(optBlockSize) && !seen[optBlockSize] && v >= minBlockSize:
			confirm(o, optBlockSize, int64(t.blockSize))
		case o.is(optWindow) && !seen[optWindow] && v >= 1 && v <= 65535:
			fits := max(1, maxInFlight/(t.blockSize+headerLen))
			t.window = int(min(v, int64(b.window), int64(fits)))
			confirm(o, optWindow, int64(t.window))
		case o.is(optTimeout) && !seen[optTimeout] && v >= 1 && v <= 255:
			t.timeout = time.Duration(v) * time.Second
			confirm(o, optTimeout, v)
		case o.is(optSize) && !seen[optSize] && size > 0: // curl takes 0 for an error
			confirm(o, optSize, size)
		}
	}
	return t
}

// number is the value of an option that is a decimal number.
func (o option) number() (int64, bool) {
	v, err := strconv.ParseUint(o.value, 10, 63)
	return int64(v), err == nil
}

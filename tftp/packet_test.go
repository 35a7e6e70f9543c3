// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var cmpPackets = cmp.AllowUnexported(request{}, option{}, reply{})

func TestParseRequest(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want request
		err  string
	}{
		{"plain", "\x00\x01a\x00octet\x00", request{name: "a", mode: "octet"}, ""},
		{"mode in capitals", "\x00\x01a\x00OCTET\x00", request{name: "a", mode: "octet"}, ""},
		{"write", "\x00\x02a\x00octet\x00", request{write: true, name: "a", mode: "octet"}, ""},
		{"options", "\x00\x01a\x00octet\x00BLKSIZE\x001456\x00tsize\x000\x00",
			request{name: "a", mode: "octet", options: []option{{"BLKSIZE", "1456"}, {"tsize", "0"}}}, ""},
		{"padded", "\x00\x01a\x00octet\x00tsize\x000\x00\x00\x00\x00",
			request{name: "a", mode: "octet", options: []option{{"tsize", "0"}}}, ""},
		{"empty", "", request{}, "packet of 0 bytes"},
		{"one byte", "\x00", request{}, "packet of 1 bytes"},
		{"stray ACK", "\x00\x04\x00\x01", request{}, "opcode 4"},
		{"no name", "\x00\x01\x00octet\x00", request{}, "without a file name"},
		{"endless name", "\x00\x01abc", request{}, "without a file name"},
		{"no mode", "\x00\x01a\x00", request{}, "without a mode"},
		{"endless mode", "\x00\x01a\x00octet", request{}, "without a mode"},
		{"endless option", "\x00\x01a\x00octet\x00tsize", request{}, "unfinished option"},
		{"option without value", "\x00\x01a\x00octet\x00tsize\x00", request{}, `option "tsize" without a value`},
		{"endless value", "\x00\x01a\x00octet\x00tsize\x000", request{}, `option "tsize" without a value`},
		{"too many options", "\x00\x01a\x00octet\x00" + strings.Repeat("x\x00y\x00", 17), request{}, "more than 16 options"},
		{"too long", "\x00\x01" + strings.Repeat("a", 1500) + "\x00octet\x00", request{}, "longer than 1500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseRequest([]byte(tt.in))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("parseRequest(%q) = %v, %v, want an error with %q", tt.in, got, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("parseRequest(%q): %v", tt.in, err)
			}
			if diff := cmp.Diff(tt.want, got, cmpPackets); diff != "" {
				t.Errorf("parseRequest(%q): -want +got\n%s", tt.in, diff)
			}
		})
	}
}

func TestParseReply(t *testing.T) {
	tests := []struct {
		name, in string
		want     reply
		ok       bool
	}{
		{"ack", "\x00\x04\x12\x34", reply{op: opACK, block: 0x1234}, true},
		{"ack with more behind", "\x00\x04\x12\x34junk", reply{op: opACK, block: 0x1234}, true},
		{"error", "\x00\x05\x00\x08no\x00", reply{op: opERROR, code: 8, text: "no"}, true},
		{"error without end", "\x00\x05\x00\x00TFTP Aborted", reply{op: opERROR, text: "TFTP Aborted"}, true},
		{"error with line breaks", "\x00\x05\x00\x00a\r\nb\x1b[2J\x00", reply{op: opERROR, text: "a??b?[2J"}, true},
		{"data", "\x00\x03\x00\x01x", reply{}, false},
		{"short", "\x00\x04\x00", reply{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseReply([]byte(tt.in))
			if ok != tt.ok || ok && got != tt.want {
				t.Errorf("parseReply(%q) = %+v, %v, want %+v, %v", tt.in, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x00\x01undionly.kpxe\x00octet\x00blksize\x001456\x00tsize\x000\x00"))
	f.Add([]byte("\x00\x02a\x00NETASCII\x00windowsize\x0016\x00"))
	f.Add([]byte("\x00\x04\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := parseRequest(in)
		if err != nil {
			return
		}
		again, err := parseRequest(first.encode())
		if err != nil {
			t.Fatalf("encode made %q of %q, which does not parse: %v", first.encode(), in, err)
		}
		if diff := cmp.Diff(first, again, cmpPackets); diff != "" {
			t.Fatalf("not the same after encode and parse:\n%s", diff)
		}
		terms := negotiate(first.options, 1<<40, bounds{blockSize: 1468, window: 64})
		if b := terms.blockSize; b < minBlockSize || b > 1468 {
			t.Fatalf("negotiate(%q) gives block size %d", first.options, b)
		}
		if w := terms.window; w < 1 || w > 64 {
			t.Fatalf("negotiate(%q) gives window %d", first.options, w)
		}
		if len(terms.oack) > len(first.options) {
			t.Fatalf("negotiate(%q) confirms more than was asked: %q", first.options, terms.oack)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("\x00\x04\x00\x01"))
	f.Add([]byte("\x00\x05\x00\x08user aborted\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, ok := parseReply(in)
		if !ok {
			return
		}
		if strings.ContainsFunc(r.text, unicode.IsControl) {
			t.Fatalf("control characters in %q", r.text)
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("undionly.kpxe")
	f.Add(`\boot\x86\wdsnbp.com`)
	f.Add("a/../../b")
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := cleanName(raw)
		if err != nil {
			return
		}
		for part := range strings.SplitSeq(name, "/") {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\\\x00") {
				t.Fatalf("cleanName(%q) = %q", raw, name)
			}
		}
		if again, err := cleanName(name); err != nil || again != name {
			t.Fatalf("cleanName(%q) = %q, %v, want it unchanged", name, again, err)
		}
	})
}

func TestNotRequestIsTold(t *testing.T) {
	if _, err := parseRequest([]byte("\x00\x09")); !errors.Is(err, errNotRequest) {
		t.Errorf("parseRequest of opcode 9: %v, want errNotRequest", err)
	}
}

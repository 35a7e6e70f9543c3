// SPDX-License-Identifier: GPL-2.0-or-later

package xdr_test

import (
	"bytes"
	"testing"

	"slate/nfs/internal/xdr"
)

func TestRoundTrip(t *testing.T) {
	var b []byte
	b = xdr.AppendUint32(b, 0xdeadbeef)
	b = xdr.AppendUint64(b, 1<<63|5)
	b = xdr.AppendBool(b, true)
	b = xdr.AppendBool(b, false)
	for _, s := range []string{"", "a", "ab", "abc", "abcd", "abcde"} {
		b = xdr.AppendOpaque(b, s)
	}
	want := []byte("\xde\xad\xbe\xef\x80\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x01\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x00\x00\x02ab\x00\x00\x00\x00\x00\x03abc\x00" +
		"\x00\x00\x00\x04abcd\x00\x00\x00\x05abcde\x00\x00\x00")
	if !bytes.Equal(b, want) {
		t.Fatalf("encoded %q, want %q", b, want)
	}
	d := xdr.NewDecoder(b)
	if v := d.Uint32(); v != 0xdeadbeef {
		t.Errorf("Uint32 = %#x", v)
	}
	if v := d.Uint64(); v != 1<<63|5 {
		t.Errorf("Uint64 = %#x", v)
	}
	if !d.Bool() || d.Bool() {
		t.Error("Bool differs")
	}
	for _, s := range []string{"", "a", "ab", "abc", "abcd", "abcde"} {
		if got := d.Opaque(5); string(got) != s {
			t.Errorf("Opaque = %q, want %q", got, s)
		}
	}
	if !d.Ok() || d.Len() != 0 {
		t.Errorf("Ok = %v with %d bytes left", d.Ok(), d.Len())
	}
}

func TestMalformed(t *testing.T) {
	for name, read := range map[string]func(*xdr.Decoder){
		"uint32":         func(d *xdr.Decoder) { d.Uint32() },
		"uint64":         func(d *xdr.Decoder) { d.Uint64() },
		"opaque":         func(d *xdr.Decoder) { d.Opaque(100) },
		"fixed":          func(d *xdr.Decoder) { d.Fixed(4) },
		"negative fixed": func(d *xdr.Decoder) { d.Fixed(-1) },
	} {
		d := xdr.NewDecoder([]byte{0, 0, 1})
		if read(&d); d.Ok() {
			t.Errorf("%s: three bytes are enough", name)
		}
	}
	for name, b := range map[string][]byte{
		"longer than allowed": xdr.AppendOpaque(nil, "abcdef"),
		"longer than there":   {0, 0, 0, 5, 'a', 'b', 'c', 'd'},
		"no padding":          {0, 0, 0, 3, 'a', 'b', 'c'},
		"4 GiB":               {255, 255, 255, 255, 0, 0, 0, 0},
	} {
		d := xdr.NewDecoder(b)
		if got := d.Opaque(5); d.Ok() || got != nil {
			t.Errorf("%s: Opaque = %q, Ok = %v", name, got, d.Ok())
		}
	}
	d := xdr.NewDecoder([]byte{0, 0, 0, 2})
	if d.Bool(); d.Ok() {
		t.Error("a boolean of 2 is accepted")
	}
}

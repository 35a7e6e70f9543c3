// SPDX-License-Identifier: GPL-2.0-or-later

package rpc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"slate/nfs/internal/rpc"
)

// records reads a whole stream, step bytes at a time.
func records(stream []byte, size, step int) (got [][]byte, err error) {
	var r rpc.Records
	r.Use(make([]byte, size))
	for {
		record, err := r.Next()
		if err != nil {
			return got, err
		}
		if record != nil {
			got = append(got, bytes.Clone(record))
			continue
		}
		if len(stream) == 0 {
			return got, nil
		}
		free := r.Free()
		if len(free) == 0 {
			return got, errors.New("BUG: no room for the rest of a record")
		}
		n := copy(free[:min(step, len(free))], stream)
		r.Filled(n)
		stream = stream[n:]
	}
}

func fragment(last bool, data string) []byte {
	head := uint32(len(data))
	if last {
		head |= 1 << 31
	}
	return append(binary.BigEndian.AppendUint32(nil, head), data...)
}

func TestRecords(t *testing.T) {
	many := make([]byte, 4*64)
	for _, tc := range []struct {
		name   string
		stream [][]byte
		want   []string
		bad    bool
	}{
		{name: "nothing"},
		{name: "one", stream: [][]byte{fragment(true, "hello")}, want: []string{"hello"}},
		{name: "two", stream: [][]byte{fragment(true, "a"), fragment(true, "bb")}, want: []string{"a", "bb"}},
		{name: "empty", stream: [][]byte{fragment(true, ""), fragment(true, "x")}, want: []string{"", "x"}},
		{name: "fragments", stream: [][]byte{fragment(false, "hel"), fragment(false, ""), fragment(true, "lo"), fragment(true, "x")}, want: []string{"hello", "x"}},
		{name: "last fragment empty", stream: [][]byte{fragment(false, "hello"), fragment(true, "")}, want: []string{"hello"}},
		{name: "incomplete", stream: [][]byte{fragment(true, "a"), fragment(true, "bb")[:5]}, want: []string{"a"}},
		{name: "as large as fits", stream: [][]byte{fragment(true, string(make([]byte, 296)))}, want: []string{string(make([]byte, 296))}},
		{name: "too large", stream: [][]byte{fragment(true, "a"), fragment(true, string(make([]byte, 297)))}, want: []string{"a"}, bad: true},
		{name: "too large in sum", stream: [][]byte{fragment(false, string(make([]byte, 200))), fragment(true, string(make([]byte, 97)))}, bad: true},
		{name: "64 fragments", stream: [][]byte{many[:4*63], fragment(true, "end")}, want: []string{"end"}},
		{name: "66 fragments", stream: [][]byte{many, make([]byte, 4), fragment(true, "end")}, bad: true},
	} {
		stream := bytes.Join(tc.stream, nil)
		for _, step := range []int{1, 2, 7, 100, 10000} {
			got, err := records(stream, 300, step)
			var re *rpc.RecordError
			if tc.bad != errors.As(err, &re) || !tc.bad && err != nil {
				t.Errorf("%s, %d at a time: error %v, want one: %v", tc.name, step, err, tc.bad)
			}
			if len(got) != len(tc.want) {
				t.Errorf("%s, %d at a time: %d records, want %d", tc.name, step, len(got), len(tc.want))
				continue
			}
			for i := range got {
				if string(got[i]) != tc.want[i] {
					t.Errorf("%s, %d at a time: record %d = %q, want %q", tc.name, step, i, got[i], tc.want[i])
				}
			}
		}
	}
}

func TestRecordsMove(t *testing.T) {
	var r rpc.Records
	big, small := make([]byte, 100), make([]byte, 20)
	r.Use(big)
	r.Filled(copy(r.Free(), append(fragment(true, "done"), append(fragment(false, "ab"), fragment(true, "cd")[:5]...)...)))
	if got, _ := r.Next(); string(got) != "done" {
		t.Fatalf("first record %q", got)
	}
	if got, err := r.Next(); got != nil || err != nil {
		t.Fatalf("half a record: %q, %v", got, err)
	}
	if old := r.Move(small); &old[0] != &big[0] {
		t.Error("Move returns another buffer than the one in use")
	}
	r.Move(big)
	r.Filled(copy(r.Free(), "d"))
	if got, _ := r.Next(); string(got) != "abcd" {
		t.Errorf("record after Move = %q, want abcd", got)
	}
	if r.Pending() != 0 {
		t.Errorf("%d bytes pending", r.Pending())
	}
}

// The records of a stream do not depend on how it arrives.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{}, 1)
	f.Add(append(fragment(false, "ab"), fragment(true, "c")...), 3)
	f.Add([]byte("GET / HTTP/1.1"), 5)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		if step < 1 || len(stream) > 1<<16 {
			return
		}
		want, wantErr := records(stream, 1000, len(stream)+1)
		got, err := records(stream, 1000, step)
		if (err == nil) != (wantErr == nil) || len(got) != len(want) {
			t.Fatalf("%d records, %v; at once %d, %v", len(got), err, len(want), wantErr)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("record %d = %q, at once %q", i, got[i], want[i])
			}
		}
	})
}

func FuzzParseCall(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 134, 163, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, record []byte) {
		var c rpc.Call
		if rpc.ParseCall(record, &c) != rpc.None {
			return
		}
		if len(c.Cred) > rpc.MaxAuth || len(c.Args) > len(record)-40 {
			t.Errorf("credential of %d and arguments of %d in a record of %d bytes", len(c.Cred), len(c.Args), len(record))
		}
		var cred rpc.Cred
		if rpc.ParseCred(&c, &cred) == rpc.AuthOK && cred.NGIDs > 16 {
			t.Errorf("%d groups", cred.NGIDs)
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package images_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/images"
)

func TestParseRef(t *testing.T) {
	hex64 := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		in   string
		want images.Ref
		ok   bool
	}{
		{"demo", images.Ref{Name: "demo"}, true},
		{"demo@stable", images.Ref{Name: "demo", Channel: "stable"}, true},
		{"demo/3", images.Ref{Name: "demo", Number: 3}, true},
		{"demo/ab12cd", images.Ref{Name: "demo", Digest: "ab12cd"}, true},
		{"demo/123456", images.Ref{Name: "demo", Number: 123456}, true},
		{"demo/0123456", images.Ref{Name: "demo", Digest: "0123456"}, true},
		{"demo/" + hex64, images.Ref{Name: "demo", Digest: hex64}, true},
		{"demo/" + strings.Repeat("12", 32), images.Ref{Name: "demo", Digest: strings.Repeat("12", 32)}, true},
		{in: ""}, {in: "/3"}, {in: "@x"}, {in: "demo/"}, {in: "demo@"}, {in: "demo/0"}, {in: "demo/-1"},
		{in: "demo/ab12c"}, {in: "demo/AB12CD"}, {in: "demo/" + hex64 + "0"}, {in: "../demo"}, {in: "demo/../x"},
		{in: ".demo"}, {in: "Demo"}, {in: "de mo"}, {in: "demo@Stable"}, {in: "demo@a/1"}, {in: strings.Repeat("a", 65)},
	} {
		got, err := images.ParseRef(tt.in)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("ParseRef(%q) = %+v, %v, want %+v, ok %v", tt.in, got, err, tt.want, tt.ok)
		}
		if err == nil && got.String() != tt.in {
			t.Errorf("ParseRef(%q).String() = %q", tt.in, got.String())
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("demo/3")
	f.Add("demo@stable")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := images.ParseRef(s)
		if err != nil {
			return
		}
		again, err := images.ParseRef(r.String())
		if err != nil || again != r {
			t.Fatalf("ParseRef(%q) = %+v, its String %q parses as %+v, %v", s, r, r.String(), again, err)
		}
	})
}

func digest(b byte) (d images.Digest) {
	for i := range d {
		d[i] = b
	}
	return d
}

func sample() images.Record {
	return images.Record{
		Name: "demo", Number: 3, Tree: digest(1), Entries: 17, Size: 1 << 33, Arch: "amd64", Init: "systemd",
		Kernel:  &images.Kernel{Release: "6.1.0-56-amd64", Path: "boot/vmlinuz-6.1.0-56-amd64", Blob: images.Blob{Digest: digest(2), Size: 8 << 20}},
		Modules: &images.Blob{Digest: digest(3), Size: 20 << 20},
		Parent:  digest(4), Time: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC), Recipe: "tar demo.tar", Note: "with \"quotes\"\nand lines",
	}
}

func TestRecordRoundTrip(t *testing.T) {
	lean := images.Record{Name: "x", Number: 1, Tree: digest(9), Entries: 1, Time: sample().Time}
	for name, want := range map[string]images.Record{"full": sample(), "lean": lean} {
		t.Run(name, func(t *testing.T) {
			text, err := images.MarshalRecord(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := images.ParseRecord(text)
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("parsed record differs (-want +got):\n%s\n%s", d, text)
			}
			again, err := images.MarshalRecord(got)
			if err != nil || string(again) != string(text) {
				t.Errorf("second text differs: %v\n%s\n%s", err, text, again)
			}
		})
	}
}

func TestParseRecordRefuses(t *testing.T) {
	text, err := images.MarshalRecord(sample())
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(string) string{
		"unknown key":    func(s string) string { return "colour = \"red\"\n" + s },
		"no number":      func(s string) string { return strings.Replace(s, "number = 3", "number = 0", 1) },
		"upper digest":   func(s string) string { return strings.Replace(s, "0101", "0A01", 1) },
		"short digest":   func(s string) string { return strings.Replace(s, "0101", "01", 1) },
		"bad name":       func(s string) string { return strings.Replace(s, "\"demo\"", "\"../demo\"", 1) },
		"empty kernel":   func(s string) string { return strings.Replace(s, strings.Repeat("02", 32), "", 1) },
		"no TOML at all": func(string) string { return "\x00\x01" },
		"empty":          func(string) string { return "" },
		"huge":           func(s string) string { return s + strings.Repeat("# padding\n", 200000) },
	} {
		if r, err := images.ParseRecord([]byte(edit(string(text)))); err == nil {
			t.Errorf("%s: ParseRecord = %+v, want an error", name, r)
		}
	}
}

func TestSame(t *testing.T) {
	a, b := sample(), sample()
	b.Number, b.Note, b.Time = 9, "other", time.Time{}
	if !a.Same(b) {
		t.Error("records that differ in number, note and time only are not Same")
	}
	b.Modules = &images.Blob{Digest: digest(7), Size: 1}
	if a.Same(b) {
		t.Error("records with different modules are Same")
	}
}

func TestPreviousVersion(t *testing.T) {
	move := func(from, to int, back bool) images.Change {
		return images.Change{Channel: "stable", From: from, To: to, Rollback: back}
	}
	for _, tt := range []struct {
		name   string
		change []images.Change
		want   int
	}{
		{"never moved", nil, 0},
		{"first", []images.Change{move(0, 1, false)}, 0},
		{"second", []images.Change{move(0, 1, false), move(1, 2, false)}, 1},
		{"rolled back once", []images.Change{move(0, 1, false), move(1, 2, false), move(2, 3, false), move(3, 2, true)}, 1},
		{"rolled back twice", []images.Change{move(0, 1, false), move(1, 2, false), move(2, 3, false), move(3, 2, true), move(2, 1, true)}, 0},
		{"forward again", []images.Change{move(0, 1, false), move(1, 2, false), move(2, 1, true), move(1, 4, false)}, 1},
		{"other channel", []images.Change{move(0, 1, false), {Channel: "testing", From: 1, To: 2}}, 0},
	} {
		if got := (images.Channels{Change: tt.change}).Previous("stable"); got != tt.want {
			t.Errorf("%s: Previous = %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestChannelsRoundTrip(t *testing.T) {
	want := images.Channels{
		Channel: map[string]images.Channel{"stable": {Version: 2, Tree: digest(2)}, "testing": {Version: 3, Tree: digest(3)}},
		Change: []images.Change{
			{Channel: "stable", From: 0, To: 2, Who: "root", Time: sample().Time},
			{Channel: "testing", From: 2, To: 3, Who: "ann", Time: sample().Time, Rollback: true},
		},
	}
	text, err := images.MarshalChannels(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := images.ParseChannels(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("parsed channels differ (-want +got):\n%s\n%s", d, text)
	}
	for _, bad := range []string{"[channel.Stable]\nversion = 1\n", "[channel.stable]\nversion = 0\n", "x = 1\n", "[[["} {
		if _, err := images.ParseChannels([]byte(bad)); err == nil {
			t.Errorf("ParseChannels(%q): no error", bad)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNegotiate(t *testing.T) {
	wide := bounds{blockSize: maxBlockSize, window: 64}
	path := bounds{blockSize: 1468, window: 64}
	tests := []struct {
		name  string
		asked []option
		b     bounds
		want  terms
	}{
		{"nothing", nil, wide, terms{blockSize: 512, window: 1}},
		{"PXE ROM", []option{{"tsize", "0"}, {"blksize", "1456"}}, path,
			terms{blockSize: 1456, window: 1, oack: []option{{"tsize", "4711"}, {"blksize", "1456"}}}},
		{"capitals are given back", []option{{"BLKSIZE", "1024"}, {"TSize", "0"}}, path,
			terms{blockSize: 1024, window: 1, oack: []option{{"BLKSIZE", "1024"}, {"TSize", "4711"}}}},
		{"capped by the path", []option{{"blksize", "8192"}}, path,
			terms{blockSize: 1468, window: 1, oack: []option{{"blksize", "1468"}}}},
		{"window and time-out", []option{{"windowsize", "16"}, {"timeout", "5"}}, path,
			terms{blockSize: 512, window: 16, timeout: 5 * time.Second, oack: []option{{"windowsize", "16"}, {"timeout", "5"}}}},
		{"window capped", []option{{"windowsize", "65535"}}, path,
			terms{blockSize: 512, window: 64, oack: []option{{"windowsize", "64"}}}},
		{"window capped by memory, block size behind it", []option{{"windowsize", "64"}, {"blksize", "65464"}}, wide,
			terms{blockSize: 65464, window: 4, oack: []option{{"windowsize", "4"}, {"blksize", "65464"}}}},
		{"unknown", []option{{"multicast", ""}, {"rollover", "1"}}, path, terms{blockSize: 512, window: 1}},
		{"senseless", []option{{"blksize", "7"}, {"blksize", "-1"}, {"windowsize", "0"}, {"windowsize", "65536"}, {"timeout", "0"}, {"timeout", "256"}, {"tsize", "x"}}, path,
			terms{blockSize: 512, window: 1}},
		{"first valid counts", []option{{"blksize", "x"}, {"blksize", "1000"}, {"blksize", "2000"}, {"tsize", "0"}, {"tsize", "0"}}, path,
			terms{blockSize: 1000, window: 1, oack: []option{{"blksize", "1000"}, {"tsize", "4711"}}}},
		{"more than a number can hold", []option{{"blksize", "99999999999999999999"}}, path, terms{blockSize: 512, window: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := negotiate(tt.asked, 4711, tt.b)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(terms{}, option{})); diff != "" {
				t.Errorf("negotiate(%v): -want +got\n%s", tt.asked, diff)
			}
		})
	}
}

// curl gives up when it is told that a file has 0 bytes.
func TestEmptyFileHasNoSizeOption(t *testing.T) {
	if got := negotiate([]option{{"tsize", "0"}}, 0, bounds{blockSize: 1468, window: 1}); len(got.oack) > 0 {
		t.Errorf("negotiate for an empty file confirms %v", got.oack)
	}
}

func TestCleanName(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{"undionly.kpxe", "undionly.kpxe", ""},
		{"/undionly.kpxe", "undionly.kpxe", ""},
		{"//grub//grub.cfg", "grub/grub.cfg", ""},
		{"./a/./b", "a/b", ""},
		{`\boot\x64\wdsmgfw.efi`, "boot/x64/wdsmgfw.efi", ""},
		{"undionly.kpxe\xff", "undionly.kpxe", ""},
		{"undionly.kpxe\xff\xff", "undionly.kpxe", ""},
		{"..a/b..", "..a/b..", ""},
		{"größe.efi", "größe.efi", ""},
		{"../etc/passwd", "", "leads out"},
		{"../../etc/passwd", "", "leads out"},
		{"/../../etc/passwd", "", "leads out"},
		{`..\..\etc\passwd`, "", "leads out"},
		{`a\..\b`, "", "leads out"},
		{"a/../b", "", "leads out"},
		{"a/..", "", "leads out"},
		{"..", "", "leads out"},
		{".", "", "empty"},
		{"/", "", "empty"},
		{"a\x00b", "", "control"},
		{"a\nb", "", "control"},
		{"a\u009bb", "", "control"},
		{"a\xfeb", "", "UTF-8"},
	}
	for _, tt := range tests {
		got, err := cleanName(tt.in)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("cleanName(%q) = %q, %v, want %q, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestSpareName(t *testing.T) {
	for in, want := range map[string]string{"undionly.kpxe.0": "undionly.kpxe", "x/y.0": "x/y", "pxelinux.0": "pxelinux", "a": "", "a/.0": "", ".0": ""} {
		got, ok := spareName(in)
		if ok != (want != "") || ok && got != want {
			t.Errorf("spareName(%q) = %q, %v, want %q", in, got, ok, want)
		}
	}
}

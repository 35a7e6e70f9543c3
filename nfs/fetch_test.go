// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"strings"
	"testing"

	"slate/nfs"
)

func TestFetch(t *testing.T) {
	site := newSite(t)
	s, _ := start(t, &nfs.Server{Exports: site, Blobs: site})
	for _, path := range []string{"etc/shadow", "usr/bin/su"} {
		want := content(path)
		got, err := nfs.Fetch(t.Context(), s, "/demo/1", path, 4)
		if err != nil || got.Size != uint64(len(want)) || !bytes.Equal(got.Content, want[:4]) {
			t.Errorf("Fetch(%s) = %+v, %v, want the first 4 of %d bytes", path, got, err, len(want))
		}
	}
	for _, c := range []struct{ export, path, want string }{
		{"/nope/1", "etc/passwd", "MOUNT: status 2"},
		{"/demo/1", "etc/nope", `LOOKUP "nope": status 2`},
		{"/demo/1", "etc", "READ: status 21"},
	} {
		if _, err := nfs.Fetch(t.Context(), s, c.export, c.path, 4); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("Fetch(%s, %s) error = %v, want %s", c.export, c.path, err, c.want)
		}
	}
	if _, err := nfs.Fetch(t.Context(), "127.0.0.1:1", "/demo/1", "x", 4); err == nil {
		t.Error("Fetch from nobody gave no error")
	}
}

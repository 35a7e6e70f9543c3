// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// The logs of the last starts are kept, the newest under the highest number, and all
// together stay below their cap.
func TestSaveLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	for n := 1; n <= 30; n++ {
		if err := saveLog(dir, n, "start"); err != nil {
			t.Fatal(err)
		}
	}
	// A start without a record, and one whose records were lost, follow the last one.
	for range 2 {
		if err := saveLog(dir, 0, "a start that came to nothing"); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != keptLogs || entries[keptLogs-1].Name() != "00032.log.zst" || entries[0].Name() != "00013.log.zst" {
		t.Fatalf("kept: %v, %v", entries, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "00032.log.zst"))
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	if text, err := dec.DecodeAll(data, nil); err != nil || string(text) != "a start that came to nothing" {
		t.Errorf("the log says %q, %v", text, err)
	}
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	for range 10 {
		if err := saveLog(dir, 0, hex.EncodeToString(noise)); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	entries, _ = os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > keptLogSize || len(entries) < 2 {
		t.Errorf("%d logs have %d bytes", len(entries), size)
	}
}

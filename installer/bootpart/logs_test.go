// SPDX-License-Identifier: GPL-2.0-or-later

package bootpart

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The logs of the last starts are kept, the newest under the highest number, and all
// together stay below their cap.
func TestSaveLog(t *testing.T) {
	dir := t.TempDir()
	for n := 1; n <= 30; n++ {
		if err := SaveLog(dir, n, "start", true); err != nil {
			t.Fatal(err)
		}
	}
	// A start without a record, and one whose records were lost, follow the last one.
	for range 2 {
		if err := SaveLog(dir, 0, "a start that came to nothing", false); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, LogDir))
	if err != nil || len(entries) != keptLogs || entries[keptLogs-1].Name() != "00032.unsent.log.zst" || entries[0].Name() != "00013.log.zst" {
		t.Fatalf("kept: %v, %v", entries, err)
	}
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	for range 10 {
		if err := SaveLog(dir, 0, hex.EncodeToString(noise), true); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	logs, err := Logs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		size += l.size
	}
	if size > keptLogSize || len(logs) < 2 {
		t.Errorf("%d logs have %d bytes", len(logs), size)
	}
}

// A log that no appliance was told stays so until it is marked, and what else lies in
// the directory is left alone.
func TestUnsentLogs(t *testing.T) {
	dir := t.TempDir()
	for n, sent := range []bool{true, false, false} {
		if err := SaveLog(dir, n+1, strings.Repeat("x", n+1), sent); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, LogDir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unsent := func() (out []int) {
		logs, err := Logs(dir)
		if err != nil || len(logs) != 3 {
			t.Fatalf("Logs = %v, %v", logs, err)
		}
		for _, l := range logs {
			if !l.Sent {
				out = append(out, l.Number)
			}
		}
		return out
	}
	if got := unsent(); len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Fatalf("unsent: %v, want 2 and 3", got)
	}
	logs, _ := Logs(dir)
	if text, err := ReadLog(dir, logs[1]); err != nil || text != "xx" {
		t.Errorf("ReadLog = %q, %v", text, err)
	}
	if err := MarkSent(dir, logs[1]); err != nil {
		t.Fatal(err)
	}
	if got := unsent(); len(got) != 1 || got[0] != 3 {
		t.Errorf("unsent: %v, want 3", got)
	}
	if err := os.WriteFile(filepath.Join(dir, LogDir, logs[2].name()), []byte("no zstd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLog(dir, logs[2]); err == nil {
		t.Error("a damaged log is read")
	}
}

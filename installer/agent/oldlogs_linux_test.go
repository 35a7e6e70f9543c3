// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slate/installer/bootpart"
)

// What earlier starts could not tell an appliance goes into this one's log, once.
func TestOldLogsAreTold(t *testing.T) {
	a := &Agent{Dir: t.TempDir(), Log: io.Discard}
	a.tellOldLogs(0) // a machine without a drive
	boot := filepath.Join(a.Dir, BootDir)
	for n, sent := range []bool{true, false, false} {
		if err := bootpart.SaveLog(boot, n+1, "first\nsecond of "+string(rune('1'+n))+"\n", sent); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		a.tellOldLogs(0)
	}
	text, err := os.ReadFile(filepath.Join(a.Dir, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the log of start 2, in which", "  2| first\n  2| second of 2\n", "  3| second of 3\n"} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("the log does not have %q once:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "of 1") {
		t.Errorf("a log that was sent is told again:\n%s", text)
	}
	// This start's own goes to the appliance as it is.
	if err := bootpart.SaveLog(boot, 4, "of now", false); err != nil {
		t.Fatal(err)
	}
	a.tellOldLogs(4)
	if logs, err := bootpart.Logs(boot); err != nil || !logs[3].Sent {
		t.Errorf("the log of this start is %+v, %v", logs, err)
	}
	if text, err := os.ReadFile(filepath.Join(a.Dir, LogFile)); err != nil || strings.Contains(string(text), "of now") {
		t.Errorf("this start's log is told as an old one: %v\n%s", err, text)
	}
	// With no room left the log stays what it is: unsent.
	if err := bootpart.SaveLog(boot, 5, "late", false); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(a.Dir, LogFile), maxLog); err != nil {
		t.Fatal(err)
	}
	a.tellOldLogs(0)
	if logs, err := bootpart.Logs(boot); err != nil || logs[4].Sent {
		t.Errorf("a log that found no room is %+v, %v", logs, err)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What PID 1 says of a controller that ended, for each way to end. The test plays
// PID 1 for a shell script; it cannot play the rest of PID 1's part.
func TestRunController(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"well", "exit 0", ""},
		{"badly", "echo panic: it broke >&2; exit 2", "the controller ended with status 2: panic: it broke"},
		{"killed", "kill -9 $$", "the controller was ended by signal 9 (killed)"},
		{"told what went wrong before", `test "$SLATE_FAILED" = "no luck" || exit 7`, ""},
		{"its orphans do not matter", "(sleep 0 & sleep 0 &) ; exit 3", "the controller ended with status 3"},
		{"the beginning of its words is kept", "i=0; while [ $i -lt 500 ]; do echo word$i >&2; i=$((i+1)); done; exit 4", "the controller ended with status 4: word0\nword1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "controller")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			err := runController(program, nil, append(os.Environ(), envFailed+"=no luck"))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" || len(got) > 600 {
				t.Errorf("runController() = %q, want %q", got, tt.want)
			}
		})
	}
	if err := runController("/does/not/exist", nil, nil); err == nil || !strings.Contains(err.Error(), "start the controller") {
		t.Errorf("runController() of nothing = %v", err)
	}
}

// A controller that leaves a process behind which holds its output must not hold PID 1.
func TestRunControllerDoesNotWaitForWords(t *testing.T) {
	program := filepath.Join(t.TempDir(), "controller")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nsleep 5 & exit 9\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := runController(program, nil, os.Environ()); err == nil || time.Since(start) > 4*time.Second {
		t.Errorf("runController() = %v after %v", err, time.Since(start))
	}
}

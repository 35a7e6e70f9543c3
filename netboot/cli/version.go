// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// versionFlag prints versionString and exits.
type versionFlag bool

// BeforeReset makes --version win over a missing verb.
func (versionFlag) BeforeReset(k *kong.Kong) error {
	fmt.Fprintln(k.Stdout, versionString())
	k.Exit(exitOK)
	return nil
}

// versionString names the commit and date of the build. A plain "go build" in a
// checkout has no -ldflags; then the toolchain's own stamp is used, if any.
func versionString() string {
	commit, date := buildCommit, buildDate
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value
			case "vcs.time":
				date = s.Value
			}
		}
	}
	if commit == "" {
		commit, date = "unknown", "unknown date"
	}
	return fmt.Sprintf("slate commit %s, %s, %s %s/%s", commit, date, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

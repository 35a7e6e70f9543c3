// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slate/installer/machine"
	"slate/netboot/api"
)

// Space is a file system that takes what is written on the machine.
type Space struct {
	Dir  string `json:"dir"`  // below the agent's directory
	What string `json:"what"` // what is written there, for people
}

// When the person at the machine, and the admin, are warned; and below what it may
// happen again.
const (
	spaceLow   = 90 // percent
	spaceFull  = 100
	spaceCalm  = 80
	spacePause = 5 * time.Second
)

// usage gives how much of a file system is in use.
func usage(dir string) (used, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	size := uint64(st.Bsize)
	return (st.Blocks - st.Bavail) * size, st.Blocks * size, nil
}

// watchSpace warns before a file system is full, and when it is. The machine goes on:
// who writes gets an error.
func (a *Agent) watchSpace(ctx context.Context, spaces []Space, report func(api.Event)) {
	warned := make([]int, len(spaces))
	tick := time.NewTicker(a.spaceLook)
	defer tick.Stop()
	for {
		for i, s := range spaces {
			var text string
			if text, warned[i] = a.lookAt(s, warned[i]); text != "" {
				// The kernel shows this level on the consoles even with "quiet".
				fmt.Fprintf(a.Log, "<3>slate: %s\n", text)
				report(api.Event{Step: api.StepLogin, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAt looks at one file system: it gives what to say, if anything, and what has
// been said by then.
func (a *Agent) lookAt(s Space, warned int) (text string, said int) {
	used, total, err := a.usage(filepath.Join(a.Dir, s.Dir))
	if err != nil || total == 0 {
		return "", warned
	}
	percent := int(used * 100 / total)
	switch {
	case percent >= spaceFull && warned < spaceFull:
		return fmt.Sprintf("%s is full: %d MB. Writing there fails now; a restart clears what is in memory.", s.What, total>>20), spaceFull
	case percent >= spaceLow && warned < spaceLow:
		return fmt.Sprintf("%s is %d%% full: %d of %d MB. When it is full, writing there fails.", s.What, percent, used>>20, total>>20), spaceLow
	case percent < spaceCalm:
		return "", 0
	}
	return "", warned
}

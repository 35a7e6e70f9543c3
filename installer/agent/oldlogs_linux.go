// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"slate/installer/bootpart"
)

// maxOldLog is how much of the log of an earlier start is told, the end of it.
const maxOldLog = 64 << 10

// tellOldLogs adds the logs of starts in which no appliance was reached to this one's,
// which an appliance gets: what a start failed of is most wanted when it could not tell.
// now is this start, whose log the appliance gets anyway.
func (a *Agent) tellOldLogs(now int) {
	dir := filepath.Join(a.Dir, BootDir)
	logs, err := bootpart.Logs(dir)
	if err != nil {
		return // no boot partition
	}
	for _, l := range logs {
		if l.Sent {
			continue
		}
		if l.Number != now {
			text, err := bootpart.ReadLog(dir, l)
			if err != nil {
				text = fmt.Sprintf("it cannot be read: %v\n", err)
			}
			if err := a.addLog(l.Number, text); err != nil {
				a.logf("the log of start %d: %v", l.Number, err)
				return
			}
		}
		if err := bootpart.MarkSent(dir, l); err != nil {
			a.logf("the log of start %d: %v", l.Number, err)
			return
		}
	}
}

// addLog adds the log of an earlier start to the log, each line with its number.
func (a *Agent) addLog(number int, text string) error {
	if cut := len(text) - maxOldLog; cut > 0 {
		text = "...\n" + text[cut:]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "slate-agent: the log of start %d, in which no appliance was reached:\n", number)
	for line := range strings.Lines(text) {
		fmt.Fprintf(&b, "  %d| %s\n", number, strings.TrimRight(line, "\n"))
	}
	f, err := os.OpenFile(filepath.Join(a.Dir, LogFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() >= maxLog {
		err = errors.New("there is no room in this start's log; it stays on the boot partition")
	}
	if err == nil {
		_, err = f.WriteString(b.String())
	}
	return err
}

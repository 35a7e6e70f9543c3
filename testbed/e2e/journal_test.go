// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"regexp"
	"testing"
)

// The journal of earlier starts is there where config.d keeps /var/log, also when the
// power was cut.
func TestJournalKept(t *testing.T) {
	m := keptMachine(t)
	m.conf("nodes/"+cycleNode+"/system/overlays.conf", "[[overlay]]\npath = \"/var/log\"\nupper = \"user-data\"\n")
	look := func(starts ...string) {
		t.Helper()
		got := m.Run(m.n, commandLimit, "journalctl --no-pager --list-boots")
		for _, s := range starts {
			if !regexp.MustCompile(`(?m)^ *` + s + ` [0-9a-f]{32} `).MatchString(got) {
				t.Errorf("the journal of start %s is not there:\n%s\n%s", s, got,
					m.Run(m.n, commandLimit, "find /run/slate/user-data -path '*log*' -ls; ls -lR /var/log/journal; cat /etc/machine-id; grep /var/log /proc/mounts; journalctl -b -u systemd-journald -u systemd-journal-flush --no-pager; df -h /var/log"))
			}
		}
	}
	m.start()
	m.loginAfter(startsB, m.n)
	look("0")
	m.Run(m.n, commandLimit, "journalctl --sync; sync; find /run/slate/user-data -path '*log*' -ls; cat /etc/machine-id; df -h /var/log")
	m.n.PowerCut()
	t.Log(m.on("user", "find . -path '*log*' -ls"))
	m.start()
	m.loginAfter(startsB, m.n)
	look("0", "-1")
	m.halt()
	m.start()
	m.loginAfter(startsB, m.n)
	look("0", "-1", "-2")
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"strings"
	"testing"
)

// A machine that starts over the network with the kernel of another image starts its own
// system all the same, with the kernel of that.
func TestOwnKernel(t *testing.T) {
	m := keptMachine(t)
	if _, err := m.try("image", "show", "cloud@stable"); err != nil {
		t.Fatalf("the store has no image cloud: make soak builds it (%v)", err)
	}
	m.slate("image", "sign", "cloud@stable")
	m.conf("system/boot.conf", "image = \"cloud@stable\"\ntimeout = 3\n"+slowMachine)
	m.conf("controller/update.chk.conf", "mode = \"off\"\n")
	m.n.Spec.Boot = []string{"net"}
	m.start()
	m.Expect(m.n, bootLimit, `demo/[0-9]+ on vda needs the kernel \S+, and \S+-cloud-\S+ runs: starting its own`, startsB)
	if err := m.n.Console().Login(t.Context(), bootLimit, "root", "slate"); err != nil {
		t.Fatal(err)
	}
	if got := m.runsNow(m.n) + m.Run(m.n, commandLimit, "uname -r"); !strings.Contains(got, "demo/1, system B") || strings.Contains(got, "cloud") {
		t.Errorf("the machine runs\n%s", got)
	}
	m.wantEvents(m.n, "health done")
	m.halt()
}

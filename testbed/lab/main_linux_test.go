// SPDX-License-Identifier: GPL-2.0-or-later

package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/netns"
	"slate/testbed/process"
)

// victimEnv makes the test binary the process that TestNothingSurvivesKill kills.
const victimEnv = "SLATE_LAB_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victim()
	}
	netns.Main(m)
}

// debianIPXE is where the package ipxe has its loaders.
const debianIPXE = "/usr/lib/ipxe"

// serveBoot runs dnsmasq for DHCP and TFTP in the lab: iPXE gets the script, UEFI
// gets iPXE first. It returns when it serves.
func serveBoot(t *testing.T, l *labtest.Lab, script string, more ...string) {
	t.Helper()
	labtest.Need(t, "dnsmasq")
	labtest.NeedFile(t, debianIPXE+"/snponly.efi", debianIPXE+"/undionly.kpxe")
	root := filepath.Join(l.Dir(), "tftp")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"snponly.efi", "undionly.kpxe"} {
		b, err := os.ReadFile(filepath.Join(debianIPXE, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, f), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "boot.ipxe"), []byte("#!ipxe\n"+script), 0o644); err != nil {
		t.Fatal(err)
	}
	argv := []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root", "--log-facility=-", "--log-dhcp",
		"--interface=" + lab.MainBridge, "--bind-dynamic", "--dhcp-leasefile=" + filepath.Join(l.Dir(), "leases"), "--no-ping",
		"--dhcp-range=10.77.0.100,10.77.0.200,1h", "--enable-tftp", "--tftp-root=" + root,
		"--dhcp-match=set:efi,option:client-arch,7", "--dhcp-userclass=set:ipxe,iPXE",
		"--dhcp-boot=tag:efi,tag:!ipxe,snponly.efi", "--dhcp-boot=tag:ipxe,boot.ipxe"}
	_, err := l.StartSpec(t.Context(), process.Spec{Name: "dnsmasq", Argv: append(argv, more...), Ready: &process.Ready{Line: dnsmasqReady}})
	if err != nil {
		t.Fatal(err)
	}
}

// victim is a lab whose owner is going to be killed: it says which processes and
// which directory are in it, and waits.
func victim() {
	fail := func(err error) {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	ctx := context.Background()
	l, err := lab.Open(ctx, lab.Options{})
	if err != nil {
		fail(err)
	}
	fmt.Println("dir", l.Dir())
	// One that tries hard to stay: a session of its own, no parent.
	p, err := l.Start(ctx, "daemon", "sh", "-c", "setsid sh -c 'trap \"\" HUP TERM INT; echo ready; sleep 987654321' & wait")
	if err != nil {
		fail(err)
	}
	if _, err := p.WaitLine(ctx, readyLine); err != nil {
		fail(err)
	}
	n, err := l.AddNode(lab.NodeSpec{Name: "n", Memory: 64})
	if err == nil {
		err = n.Start(ctx)
	}
	if err != nil {
		fail(err)
	}
	fmt.Println("pid", p.Pid())
	fmt.Println("pid", n.VM().Process().Pid())
	for _, pid := range children(p.Pid()) {
		fmt.Println("pid", pid)
	}
	fmt.Println("up")
	time.Sleep(time.Hour) // it is killed now
	os.Exit(1)
}

// children lists the children of a process, and theirs.
func children(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var all []string
	for _, c := range strings.Fields(string(b)) {
		all = append(all, c)
		var n int
		fmt.Sscan(c, &n)
		all = append(all, children(n)...)
	}
	return all
}

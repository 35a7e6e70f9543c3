// SPDX-License-Identifier: GPL-2.0-or-later

package lab_test

import (
	"os"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/netns"
	"slate/testbed/qemu"
)

func TestMain(m *testing.M) { netns.Main(m) }

func TestTry(t *testing.T) {
	l := labtest.New(t, lab.Options{})
	if _, err := l.Start(t.Context(), "dnsmasq", "dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=lab0", "--bind-interfaces",
		"--log-dhcp", "--log-facility=-", "--user=root", "--dhcp-leasefile=/dev/null", "--dhcp-range=10.77.0.100,10.77.0.200,1h", "--enable-tftp", "--tftp-root=/tmp/lab/tftp",
		"--dhcp-match=set:efi,option:client-arch,7", "--dhcp-userclass=set:ipxe,iPXE", "--dhcp-boot=tag:efi,tag:!ipxe,snponly.efi", "--dhcp-boot=tag:ipxe,boot.ipxe"); err != nil {
		t.Fatal(err)
	}
	fw := qemu.Firmware(os.Getenv("FW"))
	n := l.Node(lab.NodeSpec{Name: "n", Firmware: fw, Memory: 1024})
	l.Expect(n, 2*time.Minute, "iPXE")
	l.Expect(n, 2*time.Minute, "SCRIPT")
	l.Expect(n, 2*time.Minute, "Linux version")
	l.Expect(n, 2*time.Minute, "initramfs")
	l.Expect(n, 2*time.Minute, "neverseen")
}

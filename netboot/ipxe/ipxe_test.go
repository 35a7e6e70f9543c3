// SPDX-License-Identifier: GPL-2.0-or-later

package ipxe_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"slate/netboot/ipxe"
	"slate/testbed/golden"
)

func scripts(t *testing.T) map[string][]byte {
	t.Helper()
	s, err := ipxe.New()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	keep := func(name string, text []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		out[name] = text
	}
	const server = "http://10.77.0.1:8070"
	text, err := s.Boot(ipxe.Boot{
		Node: "node-123456", Image: "demo/3", BootID: "0123456789abcdef", Server: server,
		Kernel: server + "/blobs/sha256/aa?boot=0123456789abcdef&part=kernel",
		Initrds: []ipxe.File{
			{Name: "controller.cpio", URL: server + "/controller/bb.cpio?boot=0123456789abcdef&part=controller.cpio"},
			{Name: "modules.cpio", URL: server + "/blobs/sha256/cc?boot=0123456789abcdef&part=modules.cpio&last=1"},
		},
		Cmdline: []string{"console=ttyS0,115200", "quiet", "slate.server=" + server, "BOOTIF=01-${netX/mac:hexhyp}"},
		Others:  []string{"http://10.77.0.2:8070/boot.ipxe", "http://10.77.0.3:8070/boot.ipxe"},
	})
	keep("boot", text, err)
	text, err = s.Ask(server, server+"/boot.ipxe")
	keep("ask", text, err)
	text, err = s.Wait(server, server+"/boot.ipxe", "node-123456", 17, 4*time.Second)
	keep("wait", text, err)
	text, err = s.Refuse("node-123456", "no image is published: \"demo\" || reboot ${x}\nsecond line", "publish one with: slate image publish demo --channel stable")
	keep("refuse", text, err)
	return out
}

func TestScripts(t *testing.T) {
	for name, text := range scripts(t) {
		golden.Check(t, "testdata/"+name+".ipxe.golden", text)
	}
}

// Whatever goes wrong, the firmware must go on to its next boot device: each
// script ends in exit 1, each command that can fail says where to go, and each
// place it goes to exists.
func TestEveryFailurePathEndsInExit1(t *testing.T) {
	canFail := regexp.MustCompile(`^(kernel|initrd|chain|boot)\b`)
	for name, text := range scripts(t) {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if last := lines[len(lines)-1]; last != "exit 1" {
			t.Errorf("%s ends in %q, not in exit 1", name, last)
		}
		for _, line := range lines {
			// Another server's script is tried at the end, and what follows is the way out.
			last := strings.HasPrefix(line, "chain --autofree ") && strings.HasSuffix(line, " ||")
			if canFail.MatchString(line) && !strings.HasSuffix(line, " || goto failed") && !last {
				t.Errorf("%s: %q has no way out", name, line)
			}
			if _, label, ok := strings.Cut(line, "goto "); ok {
				label = strings.Fields(label)[0]
				if !strings.Contains(string(text), "\n:"+label+"\n") {
					t.Errorf("%s goes to %q, which is not there", name, label)
				}
			}
			if strings.HasPrefix(line, "exit") && line != "exit 1" {
				t.Errorf("%s: %q would leave the machine in its firmware set-up", name, line)
			}
		}
	}
}

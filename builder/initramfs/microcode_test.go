// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs_test

import (
	"bytes"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"slate/builder/initramfs"
	"slate/testbed/labtest"
)

// The kernel looks for updates of processors at the very beginning, in an archive
// that is not compressed; the modules follow.
func TestMicrocode(t *testing.T) {
	labtest.Need(t, "cpio")
	tree := fakeModules(t)
	plain, rep, err := initramfs.ModulesCPIO(t.Context(), tree, release, initramfs.ModulesOptions{})
	if err != nil || rep.Microcode != 0 {
		t.Fatalf("without microcode: %+v, %v", rep, err)
	}
	with := maps.Clone(tree)
	for name, data := range map[string]string{
		"intel-ucode/06-55-04": "intel one ", "intel-ucode/06-55-07": "intel two ", "intel-ucode/06-55-04.initramfs": "not this ",
		"amd-ucode/microcode_amd.bin": "amd one ", "amd-ucode/microcode_amd_fam17h.bin": "amd two ", "amd-ucode/microcode_amd.bin.asc": "nor this ", "amd-ucode/README": "nor that ",
	} {
		with["usr/lib/firmware/"+name] = &fstest.MapFile{Data: []byte(data)}
	}
	got, rep, err := initramfs.ModulesCPIO(t.Context(), with, release, initramfs.ModulesOptions{})
	if err != nil || rep.Microcode != int64(len("intel one intel two amd one amd two ")) {
		t.Fatalf("report = %+v, %v", rep, err)
	}
	if !bytes.HasPrefix(got, []byte("070701")) || !bytes.HasSuffix(got, plain) || (len(got)-len(plain))%512 != 0 {
		t.Errorf("%d bytes: want an archive that is not compressed, and then the %d bytes of the modules", len(got), len(plain))
	}
	cmd := exec.Command("sh", "-c", "d=$(mktemp -d); cd $d && cpio -idm --quiet; cat kernel/x86/microcode/GenuineIntel.bin; echo; cat kernel/x86/microcode/AuthenticAMD.bin; rm -r $d")
	cmd.Stdin = bytes.NewReader(got)
	if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != "intel one intel two \namd one amd two" {
		t.Errorf("the archive holds %q, %v", out, err)
	}
	without, rep, err := initramfs.ModulesCPIO(t.Context(), with, release, initramfs.ModulesOptions{NoMicrocode: true})
	if err != nil || !bytes.Equal(without, plain) || rep.Microcode != 0 {
		t.Errorf("left out: %d bytes, %v", len(without), err)
	}
}

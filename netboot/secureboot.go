// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"

	"slate/images"
	"slate/netboot/api"
	"slate/netboot/grub"
	"slate/netboot/nodes"
	"slate/tftp"
)

// tftpBoot is below which GRUB finds kernels and initramfs parts:
// boot/<digest>/<what it is>, and of the last one boot/<digest>/last/<what it is>.
const (
	tftpBoot = "boot/"
	tftpLast = "last/"
)

// openTFTP opens what may be fetched by TFTP: the loaders and, for GRUB, which
// has nothing else, its configurations and the files of a boot.
func (s *Server) openTFTP(name string, client netip.AddrPort) (tftp.File, error) {
	if name == grub.MainFile {
		return tftpText(s.grub.Main(s.towards(client.Addr().Unmap()).String()))
	}
	if mac, ok := grub.NodeMAC(name); ok {
		return tftpText(s.grubConfig(nodes.Facts{MAC: mac.String(), Address: client.Addr().Unmap().String()}))
	}
	if rest, ok := strings.CutPrefix(name, tftpBoot); ok {
		return s.openBootFile(rest)
	}
	f, err := s.loaders.open(name)
	if err != nil {
		return nil, err
	}
	return tftp.OSFile(f)
}

func tftpText(text []byte, err error) (tftp.File, error) {
	if err != nil {
		return nil, err
	}
	return tftp.Bytes(text), nil
}

// openBootFile opens the controller, or a kernel or modules of a version. Nothing
// else of the store can be had by TFTP.
func (s *Server) openBootFile(name string) (tftp.File, error) {
	hex, _, _ := strings.Cut(name, "/")
	d, err := images.ParseDigest(hex)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if d == s.controllerDigest {
		return tftp.Bytes(s.controller), nil
	}
	names, err := s.store.Images()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		versions, err := s.store.Versions(n)
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if slices.ContainsFunc(v.Parts(), func(p images.Part) bool { return p.Digest == d }) {
				f, err := s.store.OpenBlob(d)
				if err != nil {
					return nil, err
				}
				return tftp.OSFile(f)
			}
		}
	}
	return nil, fmt.Errorf("no version boots with %s: %w", d.Short(), fs.ErrNotExist)
}

// grubConfig writes GRUB's configuration for a machine, as script does for iPXE.
func (s *Server) grubConfig(facts nodes.Facts) ([]byte, error) {
	d, no := s.admit(facts)
	if no != nil {
		return s.grub.Refuse(no.node, no.reason, no.hint)
	}
	start, v := d.Start, d.Start.Version
	if place := s.turnOf(facts); place > 0 {
		return s.grub.Wait(start.Node, place, pauseOf(place))
	}
	var ok bool
	if start.Node, start.BootID, ok = s.nodes.Script(facts, v.Ref(), v.Ref()+", "+d.Why); !ok {
		return nil, errors.New("no room for this node")
	}
	s.queue.start(facts.MAC, start.BootID)
	part := func(d images.Digest, name string) string { return tftpBoot + d.String() + "/" + name }
	b := grub.Boot{
		Node: start.Node, Image: v.Ref(), BootID: start.BootID, Server: start.Server.Addr.String(),
		Kernel: part(v.Kernel.Digest, "kernel"), Cmdline: start.Cmdline(),
	}
	for _, p := range start.Initramfs() {
		b.Initrds = append(b.Initrds, part(p.Digest, p.Name+".cpio"))
	}
	b.Initrds = append(b.Initrds, part(s.controllerDigest, "controller.cpio")) // last: see boot.Start.Files
	last := &b.Initrds[len(b.Initrds)-1]
	dir, name := path.Split(*last)
	*last = dir + tftpLast + name
	return s.grub.Boot(b)
}

// grubAstray says why GRUB will not ask here for its configuration; "" if it will, as
// far as is known. It reads only the answer that gave the machine its address, and
// goes on at the server that is named there, whatever a proxy said.
func grubAstray(mode DHCPMode, others []api.Rival, ours []network) string {
	if mode != DHCPProxy {
		return ""
	}
	for _, r := range others {
		if r.Gives && !slices.ContainsFunc(ours, func(n network) bool { return n.addr.String() == r.Next }) {
			return fmt.Sprintf("GRUB asks %s for its configuration, which the DHCP server %s names as next-server, not this appliance: set next-server to %s there",
				cmp.Or(r.Next, "nobody"), r.Address, ours[0].addr)
		}
	}
	return ""
}

// tftpStep says what of a boot a name stands for, as an event that it is done:
// loaders, and the files of a boot, which count as loading the kernel. GRUB's
// configuration is in the timeline as the boot script. Firmware, shim and GRUB ask
// for many more names, which need not exist and are nobody's step.
func tftpStep(name string) (e api.Event, ok bool) {
	if rest, ok := strings.CutPrefix(name, tftpBoot); ok {
		e = api.Event{Step: api.StepKernel, State: api.StateNote, Text: path.Base(rest)}
		if strings.Contains(rest, "/"+tftpLast) {
			e.State = api.StateDone
		}
		return e, true
	}
	for _, lf := range loaderFiles {
		if lf.name == name {
			return api.Event{Step: api.StepLoader, State: api.StateDone, Text: name}, true
		}
	}
	return e, false
}

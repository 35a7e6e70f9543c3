// SPDX-License-Identifier: GPL-2.0-or-later

package boot

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"slate/images"
	"slate/netboot/api"
	"slate/netboot/config"
)

// StableChannel is the channel that is booted where config.d names no image.
const StableChannel = "stable"

// NoImageError says why there is no image to boot.
type NoImageError struct {
	Text string
	Help string
}

func (e *NoImageError) Error() string { return e.Text }

// Hint says how to get one.
func (e *NoImageError) Hint() string { return e.Help }

// ChooseImage decides which image a node boots: the one that config.d names, or
// the only one with a stable channel. published maps image names to their channels.
func ChooseImage(configured string, published map[string][]string) (ref images.Ref, reason string, err error) {
	if configured != "" {
		ref, err := images.ParseRef(configured)
		if err != nil {
			return ref, "", fmt.Errorf("system/boot.conf image: %w", err)
		}
		return ref, "named by system/boot.conf", nil
	}
	var stable, others []string
	for name, channels := range published {
		if slices.Contains(channels, StableChannel) {
			stable = append(stable, name)
		} else {
			others = append(others, name)
		}
	}
	slices.Sort(stable)
	slices.Sort(others)
	switch {
	case len(stable) == 1:
		return images.Ref{Name: stable[0], Channel: StableChannel}, "the only image with a stable channel", nil
	case len(stable) > 1:
		return images.Ref{}, "", &NoImageError{
			fmt.Sprintf("several images have a stable channel (%s) and config.d names none", strings.Join(stable, ", ")),
			fmt.Sprintf("set image = %q in config.d/system/boot.conf", stable[0]+"@"+StableChannel)}
	case len(others) > 0:
		return images.Ref{}, "", &NoImageError{
			fmt.Sprintf("no image is published: none of %s has a version in channel %q", strings.Join(others, ", "), StableChannel),
			fmt.Sprintf("publish one with: slate image publish %s --channel %s", others[0], StableChannel)}
	}
	return images.Ref{}, "", &NoImageError{"no image is published: the store is empty",
		"build one with: slate build debian --name demo --publish stable"}
}

// Start is all that the kernel of one boot is told.
type Start struct {
	Node    string
	BootID  string
	Install bool // now, even if the node has a system
	Server  Server
	NFSPort int
	Version images.Record
	Config  *config.Node
	Medium  string // id of a medium that is made; "": a boot over the network
	BootIF  string // the interface iPXE uses, as BOOTIF takes it; may be an iPXE setting
}

// Cmdline returns the kernel command line: the consoles and words of config.d,
// then what the controller needs to know.
func (s Start) Cmdline() []string {
	b := s.Config.Boot
	var words []string
	for _, c := range b.Console {
		words = append(words, "console="+c)
	}
	words = append(words, b.Cmdline...)
	words = append(words, serverWords(s.Server.URL(""), s.Config.Servers)...)
	if s.Medium != "" {
		// It starts any machine, and a server says where the root is.
		return append(words, "slate.medium="+s.Medium, "slate.image="+s.Version.Ref(), "slate.tree="+s.Version.Tree.String(),
			"slate.mode="+b.Mode, "slate.choice="+b.Choice, "slate.timeout="+strconv.Itoa(b.Timeout))
	}
	if s.Install {
		words = append(words, "slate.install=now")
	}
	return append(words,
		"slate.node="+s.Node,
		"slate.boot="+s.BootID,
		"slate.image="+s.Version.Ref(),
		"slate.tree="+s.Version.Tree.String(),
		fmt.Sprintf("slate.nfs=%s:%d:%s", s.Server.Addr, s.NFSPort, s.Version.Export()),
		"slate.mode="+b.Mode,
		"slate.choice="+b.Choice,
		"slate.timeout="+strconv.Itoa(b.Timeout),
		"BOOTIF="+s.BootIF,
	)
}

// serverWords name the servers. The first is the one that speaks here, which knows
// the boot; if the site's list does not have it, it is the last resort.
func serverWords(own string, info config.ServerInfo) []string {
	if len(info.Servers) == 0 {
		return []string{"slate.server=" + own}
	}
	first := config.Server{URL: own, Standby: true}
	var others []string
	for _, v := range info.Servers {
		if v.URL == own {
			first = v
		} else {
			others = append(others, "slate.server="+v.Word())
		}
	}
	words := append([]string{"slate.server=" + first.Word()}, others...)
	return append(words, fmt.Sprintf("slate.measure=%d,%d", info.Measure.Timeout, info.Measure.Samples), "slate.move="+info.Running.Move)
}

// Files returns what the loader fetches: the kernel, then the parts of the
// initramfs in the order in which the kernel unpacks them. The modules come first,
// since updates for processors lie in front of them and the kernel looks for these
// at the very beginning; the controller last, so that nothing replaces it. The URLs
// name the boot and the part, so that the appliance knows how far a machine got.
func (s Start) Files(controller images.Digest) (kernel File, initrds []File, err error) {
	v := s.Version
	if v.Kernel == nil {
		return File{}, nil, &NoImageError{v.Ref() + " has no kernel: it cannot be booted", "add a kernel package to the image and build it again"}
	}
	part := func(name, path string) File {
		q := url.Values{api.QueryBoot: {s.BootID}, api.QueryPart: {name}}
		return File{name, s.Server.URL(path) + "?" + q.Encode()}
	}
	for _, p := range s.Initramfs() {
		initrds = append(initrds, part(p.Name+".cpio", api.BlobPath(p.Digest)))
	}
	initrds = append(initrds, part("controller.cpio", api.ControllerPath(controller)))
	initrds[len(initrds)-1].URL += "&" + api.QueryLast + "=1"
	return part("kernel", api.BlobPath(v.Kernel.Digest)), initrds, nil
}

// Initramfs lists the version's parts of the initramfs, in order; the controller
// follows them. The tools are sent only to a node that may be installed.
func (s Start) Initramfs() []images.Part {
	return slices.DeleteFunc(s.Version.Parts(), func(p images.Part) bool {
		return p.Name == "kernel" || p.Name == "tools" && !s.MayInstall()
	})
}

// MayInstall tells whether the node may be, or become, one that is installed.
func (s Start) MayInstall() bool { return s.Install || s.Config.Boot.Mode != config.ModeDiskless }

// File is something to fetch, and the name it is given.
type File struct{ Name, URL string }

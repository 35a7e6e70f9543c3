// SPDX-License-Identifier: GPL-2.0-or-later

package boot

import (
	"cmp"
	"fmt"
	"strings"

	"slate/images"
	"slate/netboot/api"
	"slate/netboot/config"
)

// Facts are all that a boot decision depends on.
type Facts struct {
	Node      string   // its name
	Install   bool     // the admin asked that it is installed at its next start
	Groups    []string // those it is in, by rising precedence
	Firmware  string   // as Arch's String gives it; empty: not known yet
	MAC       string   // of the card it boots by
	Config    *config.Node
	Published map[string][]string                     // images and their channels
	Resolve   func(images.Ref) (images.Record, error) // the version a reference means

	Server     Server
	NFSPort    int
	Controller images.Digest
}

// Decision is what a node gets, and why.
type Decision struct {
	// Start is complete but for the id of the boot. It means something only if
	// Ignore is false and Err is nil.
	Start  Start
	Why    string // why this image
	Ignore bool   // the node is to be left alone
	Err    error  // why the node cannot be started; may have a Hint
	Lines  []api.Reason
}

// ReasonIgnored is what is said about a node that the admin wants left alone.
const ReasonIgnored = "left alone: its mode is " + config.ModeIgnore

// file is where the settings of a decision lie in config.d.
const file = "system/boot.conf"

// Decide decides what a node boots.
func Decide(f Facts) Decision {
	var d Decision
	say := func(what, value, why string, args ...any) {
		d.Lines = append(d.Lines, api.Reason{What: what, Value: value, Why: fmt.Sprintf(why, args...)})
	}
	b := f.Config.Boot
	if len(f.Groups) > 0 {
		say("groups", strings.Join(f.Groups, ", "), "the last has precedence")
	}
	say("mode", b.Mode, "%s", f.Config.Origin(file, "mode"))
	if b.Mode == config.ModeIgnore {
		d.Ignore = true
		say("answer", "none", "DHCP gives it no loader, the boot script ends at once")
		return d
	}
	d.Lines = append(d.Lines, f.loaderLines()...)

	ref, why, err := ChooseImage(b.Image, f.Published)
	if err != nil {
		d.Err = err
		return d
	}
	if b.Image != "" {
		why = "named by " + f.Config.Origin(file, "image")
	}
	d.Why = why
	say("image", ref.String(), "%s", why)
	rec, err := f.Resolve(ref)
	if err != nil {
		d.Err = fmt.Errorf("image %s (%s): %w", ref, why, err)
		return d
	}
	say("version", rec.Ref(), "%s", describe(ref))
	d.Start = Start{Node: f.Node, Install: f.Install, Server: f.Server, NFSPort: f.NFSPort, Version: rec, Config: f.Config,
		BootIF: "01-" + strings.ReplaceAll(f.MAC, ":", "-")}
	if _, _, err := d.Start.Files(f.Controller); err != nil {
		d.Err = err
		return d
	}
	if p := processor(f.Firmware); p != "" && rec.Arch != "" && rec.Arch != p && !(p == "amd64" && rec.Arch == "i386") {
		d.Err = &NoImageError{fmt.Sprintf("%s is for %s, and this machine is %s", rec.Ref(), rec.Arch, f.Firmware),
			"name an image for " + p + " in its boot.conf, or with slate node set --image"}
		return d
	}
	say("kernel", rec.Kernel.Release, "of %s, with the appliance's controller%s", rec.Ref(), map[bool]string{true: " and the version's modules"}[rec.Modules != nil])
	if line, ok := f.installLine(rec); ok {
		d.Lines = append(d.Lines, line)
	}
	if b.Mode == config.ModeAsk {
		limit := fmt.Sprintf("after %d s", b.Timeout)
		if b.Timeout == 0 {
			limit = "never: it waits for ever"
		}
		say("choice", b.Choice, "%s; when nobody answers: %s, %s", f.Config.Origin(file, "choice"), limit, f.Config.Origin(file, "timeout"))
	}
	show := d.Start
	show.BootID = "<new>"
	say("command line", strings.Join(show.Cmdline(), " "), "words: %s; consoles: %s; the rest is the appliance's", f.Config.Origin(file, "cmdline"), f.Config.Origin(file, "console"))
	return d
}

// processor is what runs the firmware, in the words of an image's record; "" if
// that cannot be told.
func processor(firmware string) string {
	switch firmware {
	case ArchBIOS.String(), ArchX64.String(), ArchX64HTTP.String():
		return "amd64"
	case ArchARM64.String(), ArchARM64HTTP.String():
		return "arm64"
	}
	return ""
}

// installLine says what becomes of an installation that is wanted.
func (f Facts) installLine(rec images.Record) (api.Reason, bool) {
	const rule = "on the drive that controller/drives.conf allows to be used"
	switch {
	case !f.Install && f.Config.Boot.Mode != config.ModeInstalled:
		return api.Reason{}, false
	case rec.Tools == nil:
		return api.Reason{What: "install", Value: "not possible", Why: rec.Ref() + " lacks the programs for it: slate image lint " + rec.Ref() + " says which"}, true
	case f.Install:
		return api.Reason{What: "install", Value: "at its next start", Why: "asked for by slate node install, " + rule}, true
	}
	return api.Reason{What: "install", Value: "if it has no system", Why: rule}, true
}

func describe(ref images.Ref) string {
	switch {
	case ref.Channel != "":
		return "now in channel " + ref.Channel
	case ref.Number != 0:
		return "named by its number"
	case ref.Digest != "":
		return "named by its digest"
	}
	return "the newest"
}

// explained are the kinds of firmware for which the loader is shown as long as
// a node's own is not known.
var explained = []Arch{ArchBIOS, ArchX64, ArchX64HTTP, ArchARM64}

func (f Facts) loaderLines() []api.Reason {
	var lines []api.Reason
	for _, a := range explained {
		if f.Firmware != "" && f.Firmware != a.String() {
			continue
		}
		http := a == ArchX64HTTP || a == ArchARM64HTTP
		l, ok := ChooseLoader(Client{Arch: a, PXE: !http, HTTPClient: http, Loader: f.Config.Boot.Loader}, f.Server)
		value := cmp.Or(l.File, l.URL)
		if !ok {
			value = "none"
		}
		why := l.Reason
		if f.Firmware == "" {
			why += "; its firmware is not known yet"
		}
		lines = append(lines, api.Reason{What: "loader", Value: value, Why: why})
	}
	if len(lines) == 0 {
		lines = append(lines, api.Reason{What: "loader", Value: "none", Why: "no loader for " + f.Firmware})
	}
	return lines
}

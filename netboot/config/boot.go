// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"slate/images"
)

// What a node does when it has no system of its own (Boot.Mode).
const (
	ModeAsk       = "ask"       // the chooser asks the person at the console
	ModeDiskless  = "diskless"  // run diskless without asking
	ModeInstalled = "installed" // run from its own drive; install there if there is no system yet
	ModeIgnore    = "ignore"    // the appliance gives it nothing to boot
)

// What the chooser takes when nobody answers (Boot.Choice).
const (
	ChoiceDiskless = "diskless"
	ChoiceShell    = "shell"
	ChoiceReboot   = "reboot"
	ChoicePowerOff = "poweroff"
)

// Loader is a network boot loader by its name in config.d.
type Loader string

// The loaders (Boot.Loader). A machine that cannot run the one that is named gets
// the one that its firmware needs.
const (
	LoaderAuto     Loader = ""
	LoaderUndionly Loader = "undionly" // BIOS: iPXE on the firmware's driver
	LoaderSNPOnly  Loader = "snponly"  // UEFI: iPXE on the firmware's driver
	LoaderIPXE     Loader = "ipxe"     // UEFI: iPXE with drivers of its own
	LoaderGRUB     Loader = "grub"     // UEFI x64: shim and GRUB, signed for Secure Boot
)

// Boot is system/boot.conf: what a node boots, and how.
type Boot struct {
	Image   string `toml:"image"`   // image reference; empty: the only image that has a stable channel
	Mode    string `toml:"mode"`    // one of the Mode constants
	Loader  Loader `toml:"loader"`  // one of the Loader constants
	Choice  string `toml:"choice"`  // one of the Choice constants
	Timeout int    `toml:"timeout"` // seconds the chooser waits; 0 waits for ever
	// LoaderTimeout is how many seconds the loader on a node's own drive shows its systems.
	LoaderTimeout int      `toml:"loader-timeout"`
	Cmdline       []string `toml:"cmdline"` // words added to the kernel command line
	Console       []string `toml:"console"` // consoles, as the kernel's console= takes them; the last is the main one
}

func defaultBoot() Boot {
	return Boot{Mode: ModeAsk, Choice: ChoiceDiskless, Timeout: 10, LoaderTimeout: 2, Cmdline: []string{"quiet", "panic=30"}, Console: []string{"tty0", "ttyS0,115200"}}
}

func (b *Boot) check(d *Doc) []error {
	var errs []error
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			errs = append(errs, d.Errorf(key, "%q is not one of %s", value, strings.Join(allowed, ", ")))
		}
	}
	oneOf("mode", b.Mode, ModeAsk, ModeDiskless, ModeInstalled, ModeIgnore)
	oneOf("loader", string(b.Loader), "", string(LoaderUndionly), string(LoaderSNPOnly), string(LoaderIPXE), string(LoaderGRUB))
	oneOf("choice", b.Choice, ChoiceDiskless, ChoiceShell, ChoiceReboot, ChoicePowerOff)
	if b.Image != "" {
		if _, err := images.ParseRef(b.Image); err != nil {
			errs = append(errs, d.Errorf("image", "%v", err))
		}
	}
	if b.Timeout < 0 || b.Timeout > 24*60*60 {
		errs = append(errs, d.Errorf("timeout", "%d seconds is not between 0 and a day", b.Timeout))
	}
	if b.LoaderTimeout < 0 || b.LoaderTimeout > 60*60 {
		errs = append(errs, d.Errorf("loader-timeout", "%d seconds is not between 0 and an hour", b.LoaderTimeout))
	}
	errs = append(errs, checkWords(d, "cmdline", b.Cmdline)...)
	errs = append(errs, checkWords(d, "console", b.Console)...)
	return errs
}

// bootFile is where Boot lies.
const bootFile = "system/boot.conf"

// SetOrigin is the origin of values that were set for a node beside config.d.
const SetOrigin = "slate node set"

// Set is what the admin sets for one node without a file: keys of boot.conf.
// Empty fields set nothing. It beats boot.conf of site, group and node; a
// cboot.conf beats it.
type Set struct {
	Image   string   `toml:"image,omitempty" json:"image,omitempty"`
	Mode    string   `toml:"mode,omitempty" json:"mode,omitempty"`
	Cmdline []string `toml:"cmdline,omitempty" json:"cmdline,omitempty"`
}

// Check reports what is wrong with what is to be set.
func (s Set) Check() error {
	b := defaultBoot()
	d, err := Decode(SetOrigin, s.toml(), &b)
	if err != nil {
		return err
	}
	return errors.Join(b.check(&Doc{Name: d.Name})...)
}

func (s Set) isZero() bool { return s.Image == "" && s.Mode == "" && len(s.Cmdline) == 0 }

func (s Set) toml() []byte {
	data, err := toml.Marshal(s)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return data
}

// checkWords refuses what would break the kernel command line or the boot
// script that carries it.
func checkWords(d *Doc, key string, words []string) []error {
	var errs []error
	for _, w := range words {
		switch {
		case w == "" || strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			errs = append(errs, d.Errorf(key, "%q is not one word: give each parameter its own string", w))
		case strings.ContainsAny(w, "$|&#"):
			errs = append(errs, d.Errorf(key, "%q has one of $ | & #, which the boot loader would take for itself", w))
		case strings.HasPrefix(w, "slate.") || strings.HasPrefix(w, "BOOTIF="):
			errs = append(errs, d.Errorf(key, "%q is the appliance's to set", w))
		}
	}
	return errs
}

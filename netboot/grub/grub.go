// SPDX-License-Identifier: GPL-2.0-or-later

// Package grub writes configurations for GRUB's network image, the only loader
// that Secure Boot lets start (GRUB manual, "Networking"). It fetches everything by
// TFTP: the signed image has no HTTP. The package knows nothing of nodes or images
// beyond the text it is given.
package grub

import (
	"bytes"
	"embed"
	"fmt"
	"net"
	"strings"
	"text/template"
	"time"
)

// Names under which GRUB asks for its configurations by TFTP: the first is built
// into the signed image, the second is what the first sends a machine to.
const (
	MainFile   = "grub/grub.cfg"
	nodePrefix = "grub/node-"
	nodeSuffix = ".cfg"
)

// NodeMAC returns the hardware address in the name of a node's configuration.
func NodeMAC(file string) (net.HardwareAddr, bool) {
	s, ok := strings.CutPrefix(file, nodePrefix)
	s, ok2 := strings.CutSuffix(s, nodeSuffix)
	mac, err := net.ParseMAC(s)
	return mac, ok && ok2 && err == nil && len(mac) == 6
}

//go:embed *.cfg.tmpl
var files embed.FS

// How the configurations retry, in seconds. GRUB itself asks a server that does not
// answer for almost three minutes: a third try would keep a machine from its disk for
// too long.
const (
	tries       = "1 2"
	lastTry     = 2
	pause       = 5
	giveUpPause = 10
)

// nextLoaders are the loaders that are looked for on a machine's drives when it is not to
// start from here: the removable media path (UEFI specification, 3.5.1.1), which slate's own drives
// have, then those of usual systems that may lack it.
var nextLoaders = []string{"/EFI/BOOT/BOOTX64.EFI", "/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/debian/shimx64.efi",
	"/EFI/ubuntu/shimx64.efi", "/EFI/fedora/shimx64.efi", "/EFI/gentoo/shimx64.efi"}

// Configs renders configurations. Make one with New.
type Configs struct{ t *template.Template }

// New parses the templates.
func New() (*Configs, error) {
	t := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"quote": quote, "nextLoaders": func() []string { return nextLoaders }})
	if _, err := t.ParseFS(files, "*.cfg.tmpl"); err != nil {
		return nil, fmt.Errorf("GRUB templates: %w", err)
	}
	return &Configs{t}, nil
}

// Boot is what a node's configuration needs to know.
type Boot struct {
	Node, Image, BootID string
	Server              string // address of the TFTP server
	Kernel              string // its name there
	Initrds             []string
	Cmdline             []string
}

// Main returns the configuration that sends each machine to its own.
func (c *Configs) Main(server string) ([]byte, error) {
	return c.render("main.cfg.tmpl", map[string]any{"Server": server, "Prefix": nodePrefix, "Suffix": nodeSuffix, "GiveUpPause": giveUpPause})
}

// Boot returns the configuration that loads and starts a kernel.
func (c *Configs) Boot(b Boot) ([]byte, error) {
	return c.render("boot.cfg.tmpl", struct {
		Boot
		Tries                       string
		LastTry, Pause, GiveUpPause int
	}{b, tries, lastTry, pause, giveUpPause})
}

// Wait returns the configuration that tells a machine its place in the queue, and
// has the main one ask again after a while.
func (c *Configs) Wait(node string, place int, pause time.Duration) ([]byte, error) {
	return c.render("wait.cfg.tmpl", map[string]any{"Node": node, "Place": place, "Wait": int(pause.Seconds())})
}

// Refuse returns the configuration that says why a machine is not started.
func (c *Configs) Refuse(node, reason, hint string) ([]byte, error) {
	return c.render("refuse.cfg.tmpl", map[string]any{"Node": node, "Reason": reason, "Hint": hint, "GiveUpPause": giveUpPause})
}

func (c *Configs) render(name string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := c.t.ExecuteTemplate(&b, name, data); err != nil {
		return nil, fmt.Errorf("GRUB configuration %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// quote makes text one word of GRUB's language that nothing in is expanded: single
// quotes keep everything but themselves. What its console cannot show becomes a space.
func quote(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, text)
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

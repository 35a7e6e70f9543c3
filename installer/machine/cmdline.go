// SPDX-License-Identifier: GPL-2.0-or-later

// Package machine knows the computer below the controller: the kernel's command
// line, its own mounts, devices and the modules that drive them, memory, identity
// and power. It knows nothing of images, servers or screens.
//
// Every path under /proc, /sys, /dev, /run and /lib hangs off a root directory
// that the caller gives, so that tests run on a directory of their own.
package machine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Mode says what a machine without a local system does.
type Mode string

// The modes of slate.mode.
const (
	Ask       Mode = "ask"       // show the chooser
	Diskless  Mode = "diskless"  // run the appliance's image at once
	Installed Mode = "installed" // install it where drives.conf allows that
)

// Choice is an answer to the chooser, given by a person or, when nobody answers, by slate.choice.
type Choice string

// The choices of slate.choice.
const (
	ChooseDiskless Choice = "diskless"
	ChooseInstall  Choice = "install" // by a person only
	ChooseShell    Choice = "shell"
	ChooseReboot   Choice = "reboot"
	ChoosePowerOff Choice = "poweroff"
)

// Export names a read-only NFS export: MOUNT and NFS share the port.
type Export struct {
	Server netip.AddrPort
	Path   string
}

// String gives the form of the command line, address:port:/path.
func (e Export) String() string {
	if !e.Server.IsValid() {
		return ""
	}
	return e.Server.String() + ":" + e.Path
}

// Move says when a running machine may report to another server.
type Move string

// The answers of slate.move.
const (
	MoveOnFailure Move = "failure"
	MoveNever     Move = "never"
)

// Settings is what the kernel's command line tells the controller. The zero
// value of a field means that the word was absent; ParseCmdline fills defaults.
type Settings struct {
	Server  *url.URL // slate.server: the first, which gave this boot its identity
	Servers []Server // all of them
	Measure Measure  // slate.measure, default 2,3
	Move    Move     // slate.move, default failure
	Medium  string   // slate.medium: id of the stick or disc that the machine started from
	Node    string   // slate.node: node name, host name of the system
	Boot    string   // slate.boot: identity of this boot, for events
	Image   string   // slate.image: name/number, for people
	Tree    string   // slate.tree: digest of the tree list
	NFS     Export   // slate.nfs
	Mode    Mode     // slate.mode, default ask
	Install bool     // slate.install=now
	Slot    string   // slate.slot: a or b
	Disk    string   // slate.disk: GUID of the drive's partition table
	Last    bool     // slate.last: the loader found no tries left
	Choice  Choice   // slate.choice, default diskless
	Timeout time.Duration
	BootMAC net.HardwareAddr
	Speeds  map[string]int // console=ttyS0,115200: speeds of serial consoles
	Init    string         // init: program to start in the root instead of /sbin/init

	// ModuleOptions are the words module.option=value, which the kernel leaves
	// to whoever loads the module; Blacklist are the modules not to load by alias.
	ModuleOptions map[string][]string
	Blacklist     map[string]bool

	// Problems are words that were wrong, with the default taken instead.
	Problems []string
}

// ParseCmdline reads a kernel command line. It never fails: a word that is wrong
// is listed in Problems and its default is taken, because a machine with a typing
// error in its command line must still come up as far as it can.
func ParseCmdline(line string) Settings {
	s := Settings{
		Mode: Ask, Choice: ChooseDiskless, Timeout: 10 * time.Second,
		Measure: Measure{Timeout: 2 * time.Second, Samples: 3}, Move: MoveOnFailure,
		ModuleOptions: map[string][]string{}, Blacklist: map[string]bool{}, Speeds: map[string]int{},
	}
	for _, w := range splitWords(line) {
		if err := s.word(w); err != nil {
			s.Problems = append(s.Problems, fmt.Sprintf("kernel command line: %s: %v", w.key, err))
		}
	}
	return s
}

type word struct {
	key, value string
	hasValue   bool
}

// splitWords follows the kernel's next_arg: double quotes group, a quoted value
// loses its quotes, and a word "--" ends what is meant for the kernel.
func splitWords(line string) []word {
	var out []word
	for line = strings.TrimLeft(line, " \t\r\n"); line != ""; line = strings.TrimLeft(line, " \t\r\n") {
		end, quoted := 0, false
		for end < len(line) && (quoted || !isSpace(line[end])) {
			if line[end] == '"' {
				quoted = !quoted
			}
			end++
		}
		raw := line[:end]
		line = line[end:]
		if raw == "--" {
			break
		}
		key, value, has := strings.Cut(unquote(raw), "=")
		out = append(out, word{key: key, value: unquote(value), hasValue: has})
	}
	return out
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func unquote(s string) string {
	if strings.HasPrefix(s, `"`) {
		return strings.TrimSuffix(s[1:], `"`)
	}
	return s
}

func (s *Settings) word(w word) (err error) {
	switch w.key {
	case "slate.server":
		err = s.addServer(w.value)
	case "slate.medium":
		s.Medium, err = parseToken(w.value)
	case "slate.measure":
		s.Measure, err = parseMeasure(w.value, s.Measure)
	case "slate.move":
		s.Move, err = oneOf(w.value, s.Move, MoveOnFailure, MoveNever)
	case "slate.node":
		s.Node, err = parseName(w.value)
	case "slate.boot":
		s.Boot, err = parseToken(w.value)
	case "slate.image":
		s.Image, err = parsePrintable(w.value)
	case "slate.tree":
		s.Tree, err = parseHex(w.value)
	case "slate.nfs":
		s.NFS, err = parseExport(w.value)
	case "slate.mode":
		s.Mode, err = oneOf(w.value, s.Mode, Ask, Diskless, Installed)
	case "slate.install":
		var now string
		now, err = oneOf(w.value, "", "now")
		s.Install = now != ""
	case "slate.slot":
		s.Slot, err = oneOf(w.value, "", "a", "b")
	case "slate.last":
		s.Last = true
	case "slate.disk":
		s.Disk, err = parseToken(strings.ToLower(w.value))
	case "slate.choice":
		s.Choice, err = oneOf(w.value, s.Choice, ChooseDiskless, ChooseShell, ChooseReboot, ChoosePowerOff)
	case "slate.timeout":
		s.Timeout, err = parseSeconds(w.value, s.Timeout)
	case "BOOTIF":
		s.BootMAC, err = parseBootIF(w.value)
	case "console":
		name, options, _ := strings.Cut(w.value, ",")
		if n, err := strconv.Atoi(options[:len(options)-len(strings.TrimLeft(options, "0123456789"))]); err == nil {
			s.Speeds[name] = n
		}
	case "init":
		s.Init, err = parsePath(w.value)
	case "modprobe.blacklist":
		for _, m := range strings.Split(w.value, ",") {
			s.Blacklist[ModuleName(m)] = true
		}
	default:
		module, option, dotted := strings.Cut(w.key, ".")
		if module == "slate" && dotted {
			return errors.New("unknown word, ignored")
		}
		if dotted && option != "" {
			if w.hasValue {
				option += "=" + w.value
			}
			module = ModuleName(module)
			s.ModuleOptions[module] = append(s.ModuleOptions[module], option)
		}
	}
	return err
}

func parseServer(v string) (*url.URL, error) {
	u, err := url.Parse(v)
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL", v)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%q: want http://address:port", v)
	}
	return u, nil
}

// parseName takes what RFC 1123 allows in a host name, because that is what it becomes.
func parseName(v string) (string, error) {
	if v == "" || len(v) > 63 || strings.Trim(v, "-") != v {
		return "", fmt.Errorf("%q is not a host name", v)
	}
	for _, c := range []byte(v) {
		if !isAlnum(c) && c != '-' {
			return "", fmt.Errorf("%q is not a host name", v)
		}
	}
	return v, nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// parseToken takes what may stand in a URL path without escaping.
func parseToken(v string) (string, error) {
	if v == "" || len(v) > 128 || v == "." || v == ".." {
		return "", fmt.Errorf("%q is not an identity", v)
	}
	for _, c := range []byte(v) {
		if !isAlnum(c) && !strings.ContainsRune("-_.", rune(c)) {
			return "", fmt.Errorf("%q is not an identity", v)
		}
	}
	return v, nil
}

func parsePrintable(v string) (string, error) {
	if v == "" || len(v) > 128 || strings.IndexFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return "", fmt.Errorf("%q is not a name", v)
	}
	return v, nil
}

func parseHex(v string) (string, error) {
	if len(v) != 64 || strings.Trim(v, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%q is not a digest of 64 hexadecimal digits", v)
	}
	return v, nil
}

func parseExport(v string) (Export, error) {
	i := strings.Index(v, ":/")
	if i < 0 {
		return Export{}, fmt.Errorf("%q: want address:port:/path", v)
	}
	ap, err := netip.ParseAddrPort(v[:i])
	if err != nil || ap.Port() == 0 {
		return Export{}, fmt.Errorf("%q: want address:port:/path", v)
	}
	dir := v[i+1:]
	// A comma would start another mount option, a control character another line on the screen.
	if len(dir) > 1024 || strings.IndexFunc(dir, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) >= 0 {
		return Export{}, fmt.Errorf("%q is not an export path", dir)
	}
	return Export{Server: ap, Path: dir}, nil
}

func parsePath(v string) (string, error) {
	if !strings.HasPrefix(v, "/") || path.Clean(v) != v {
		return "", fmt.Errorf("%q is not the path of a program", v)
	}
	return v, nil
}

func oneOf[T ~string](v string, old T, all ...T) (T, error) {
	for _, a := range all {
		if v == string(a) {
			return a, nil
		}
	}
	return old, fmt.Errorf("%q is none of %v, taking %q", v, all, old)
}

func parseSeconds(v string, old time.Duration) (time.Duration, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 86400 {
		return old, fmt.Errorf("%q is not a number of seconds up to 86400, taking %v", v, old)
	}
	return time.Duration(n) * time.Second, nil
}

// parseBootIF reads what PXELINUX and iPXE write: the hardware type, then the
// address, with dashes. Some loaders leave the type out.
func parseBootIF(v string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(strings.ReplaceAll(v, "-", ":"))
	if err != nil && len(v) == 20 {
		mac, err = net.ParseMAC(strings.ReplaceAll(v[3:], "-", ":"))
	}
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("%q is not a hardware address like 01-52-54-00-12-34-56", v)
	}
	return mac, nil
}

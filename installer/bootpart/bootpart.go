// SPDX-License-Identifier: GPL-2.0-or-later

// Package bootpart writes the boot partition of an installed machine: loaders for
// BIOS and UEFI, a kernel with its initramfs for each slot, and the counters by which
// the loader itself falls back to the other slot when one does not come up. Files are
// replaced by renaming whole new ones, so that there is a way to start at any moment.
package bootpart

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"slate/images"
	"slate/images/durable"
)

// Places on the boot partition.
const (
	Dir        = "slate" // ours
	configFile = "slate/grub.cfg"
	envFile    = "slate/grubenv"
	waitFile   = "slate/timeout"
	ConfigDir  = "slate/config" // the last good bundle of config.d
	LogDir     = "logs"
)

// Files of a slot, below Dir/<slot>.
const (
	kernelFile  = "vmlinuz"
	initrdFile  = "initrd.img"
	cmdlineFile = "cmdline"
	titleFile   = "title"
)

// DefaultTries is how often a slot is tried before the other one is.
const DefaultTries = 3

// Entry is what the loader needs to start a slot.
type Entry struct {
	Slot    string // a or b
	Title   string // the version, for people
	Kernel  io.Reader
	Initrd  []io.Reader // parts, put after one another
	Cmdline []string
}

// WriteVersion writes what starts a version from a slot: its kernel, and the controller
// with the archives that go with it. open gives the contents of the version's parts.
func WriteVersion(dir, slot string, rec images.Record, controller []byte, cmdline []string, open func(images.Digest) (*os.File, error)) error {
	e := Entry{Slot: slot, Title: rec.Ref(), Initrd: []io.Reader{bytes.NewReader(controller)}, Cmdline: cmdline}
	for _, p := range rec.Parts() {
		f, err := open(p.Digest)
		if err != nil {
			return err
		}
		defer f.Close()
		if p.Name == "kernel" {
			e.Kernel = f
		} else {
			e.Initrd = append(e.Initrd, f)
		}
	}
	return WriteEntry(dir, e)
}

// WriteEntry writes the files of a slot, each whole or not at all, and then the
// loader's configuration.
func WriteEntry(dir string, e Entry) error {
	at := filepath.Join(dir, Dir, e.Slot)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := durable.RemoveTemps(at); err != nil {
		return err
	}
	write := func(name string, r io.Reader) error {
		return durable.Write(filepath.Join(at, name), 0o600, func(w io.Writer) error {
			_, err := io.Copy(w, r)
			return err
		})
	}
	if err := write(kernelFile, e.Kernel); err != nil {
		return err
	}
	if err := write(initrdFile, io.MultiReader(e.Initrd...)); err != nil {
		return err
	}
	if err := write(titleFile, strings.NewReader(e.Title+"\n")); err != nil {
		return err
	}
	if err := write(cmdlineFile, strings.NewReader(strings.Join(e.Cmdline, " ")+"\n")); err != nil {
		return err
	}
	return WriteConfig(dir)
}

// Has tells whether a slot has what starts it.
func Has(dir, slot string) bool {
	_, err := os.Stat(filepath.Join(dir, Dir, slot, cmdlineFile)) // written last
	return err == nil
}

// KernelPath is where the kernel of a slot lies.
func KernelPath(dir, slot string) string { return filepath.Join(dir, Dir, slot, kernelFile) }

// InitrdPath is where the initramfs of a slot lies.
func InitrdPath(dir, slot string) string { return filepath.Join(dir, Dir, slot, initrdFile) }

// Cmdline is the command line that a slot is started with.
func Cmdline(dir, slot string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, Dir, slot, cmdlineFile))
	return strings.TrimSpace(string(text)), err
}

// WriteConfig writes the loader's configuration for the slots that have kernels, if it
// is not that already.
func WriteConfig(dir string) error {
	var entries []Entry
	for _, slot := range []string{"a", "b"} {
		at := filepath.Join(dir, Dir, slot)
		cmdline, err := os.ReadFile(filepath.Join(at, cmdlineFile)) // written last
		if err != nil {
			continue
		}
		title, _ := os.ReadFile(filepath.Join(at, titleFile))
		entries = append(entries, Entry{Slot: slot, Title: strings.TrimSpace(string(title)), Cmdline: strings.Fields(string(cmdline))})
	}
	name, text := filepath.Join(dir, configFile), []byte(Config(entries, readTimeout(dir)))
	if have, err := os.ReadFile(name); err == nil && bytes.Equal(have, text) {
		return nil
	}
	return durable.WriteFile(name, text, 0o600)
}

// DefaultTimeout is how many seconds the loader waits where nothing else was said.
const DefaultTimeout = 2

// SetTimeout says how many seconds the loader shows the slots.
func SetTimeout(dir string, seconds int) error {
	if readTimeout(dir) == seconds {
		return nil
	}
	if err := durable.WriteFile(filepath.Join(dir, waitFile), []byte(strconv.Itoa(seconds)+"\n"), 0o600); err != nil {
		return err
	}
	return WriteConfig(dir)
}

func readTimeout(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, waitFile))
	n, aerr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || aerr != nil || n < 0 {
		return DefaultTimeout
	}
	return n
}

// Config is the loader's configuration: the slot that grubenv names, unless its tries
// are used up and the other has some. It is shown for timeout seconds. Where nothing can
// be loaded a BIOS goes on to its next device; UEFI may show its set-up.
func Config(entries []Entry, timeout int) string {
	var b strings.Builder
	b.WriteString("# Written by slate; what is changed here is lost.\n" +
		"set env=/" + envFile + "\nload_env --file $env slot tries_a tries_b\n" +
		"if [ \"$slot\" != b ]; then set slot=a; fi\nset default=$slot\n")
	if len(entries) == 2 {
		b.WriteString("if [ \"$slot\" = a -a \"$tries_a\" = 0 -a \"$tries_b\" != 0 ]; then\n" +
			"\techo 'Slate: system A did not come up; starting system B.'\n\tset default=b\nfi\n" +
			"if [ \"$slot\" = b -a \"$tries_b\" = 0 -a \"$tries_a\" != 0 ]; then\n" +
			"\techo 'Slate: system B did not come up; starting system A.'\n\tset default=a\nfi\n" +
			"if [ \"$default\" = a ]; then set fallback='1 2'; else set fallback='0 2'; fi\n") // the places of the entries below
	} else if len(entries) == 1 {
		fmt.Fprintf(&b, "set default=%s\nset fallback=1\n", entries[0].Slot)
	} else {
		b.WriteString("set default=next\n")
	}
	fmt.Fprintf(&b, "set timeout=%d\n", timeout)
	for _, e := range entries {
		fmt.Fprintf(&b, "\nmenuentry %s --id %s {\n", quote("Slate: "+e.Title+", system "+strings.ToUpper(e.Slot)), e.Slot)
		fmt.Fprintf(&b, "\tset last=\n\tif [ \"$tries_%s\" = 0 ]; then set last='%s'; fi\n", e.Slot, lastWords)
		// There is no arithmetic in this language.
		b.WriteString("\tset left=0\n")
		for n := maxTries; n > 1; n-- {
			fmt.Fprintf(&b, "\tif [ \"$tries_%s\" = %d ]; then set left=%d; fi\n", e.Slot, n, n-1)
		}
		fmt.Fprintf(&b, "\tset tries_%s=$left\n\tsave_env --file $env tries_%[1]s\n", e.Slot)
		fmt.Fprintf(&b, "\tlinux /%s/%s/%s", Dir, e.Slot, kernelFile)
		for _, w := range e.Cmdline {
			b.WriteString(" " + quote(w))
		}
		fmt.Fprintf(&b, " $last\n\tinitrd /%s/%s/%s\n}\n", Dir, e.Slot, initrdFile)
	}
	b.WriteString("\nmenuentry 'Slate: the next device that this machine starts from' --id next {\n\texit\n}\n")
	return b.String()
}

// LastWord is on the command line of a slot that is started though it has no tries left.
const LastWord = "slate.last"

// lastWords are all that such a start gets: one that fails stays where it is, so that it
// does not go round for ever.
const lastWords = "panic=0 " + LastWord

// maxTries is the most that the loader counts down from.
const maxTries = 9

// quote makes text one word of GRUB's language in which nothing is expanded.
func quote(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Env is what the loader keeps between starts.
type Env struct {
	Slot  string         // the active slot
	Tries map[string]int // left, by slot
	// Trial is the version that a slot has on trial, as NewTrial gives it, by slot: it is
	// whole, and has yet to come through a healthy cycle to earn its boot flag.
	Trial map[string]string
}

// NewTrial names a trial of a version: by its tree, and at random, so that a healthy
// cycle of an earlier trial of the same version does not count for this one.
func NewTrial(tree images.Digest) string {
	var r [4]byte
	rand.Read(r[:])
	return fmt.Sprintf("%s-%x", tree.String()[:16], r)
}

// OnTrial tells whether a trial is one of a version.
func OnTrial(trial string, tree images.Digest) bool {
	return strings.HasPrefix(trial, tree.String()[:16]+"-")
}

const (
	envSize   = 1024 // GRUB wants just this, and writes into it in place
	envHeader = "# GRUB Environment Block\n"
)

// ReadEnv reads the counters. A block that is missing or damaged has no slot.
func ReadEnv(dir string) (Env, error) {
	e := Env{Tries: map[string]int{}, Trial: map[string]string{}}
	b, err := os.ReadFile(filepath.Join(dir, envFile))
	if err != nil {
		return e, err
	}
	if len(b) != envSize || !bytes.HasPrefix(b, []byte(envHeader)) {
		return e, fmt.Errorf("%s is damaged", envFile)
	}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k == "slot" && (v == "a" || v == "b") {
			e.Slot = v
		}
		if s, ok := strings.CutPrefix(k, "trial_"); ok && (s == "a" || s == "b") && v != "" {
			e.Trial[s] = v
		}
		if s, ok := strings.CutPrefix(k, "tries_"); ok && (s == "a" || s == "b") {
			if n, err := strconv.Atoi(v); err == nil && n >= 0 && n <= maxTries {
				e.Tries[s] = n
			}
		}
	}
	return e, nil
}

// WriteEnv replaces the counters, in place as GRUB does: all that changes lies in one
// sector, and a full boot partition is no reason not to count.
func WriteEnv(dir string, e Env) error {
	var b bytes.Buffer
	b.WriteString(envHeader)
	fmt.Fprintf(&b, "slot=%s\ntries_a=%d\ntries_b=%d\n", e.Slot, min(e.Tries["a"], maxTries), min(e.Tries["b"], maxTries))
	for _, s := range []string{"a", "b"} {
		if e.Trial[s] != "" {
			fmt.Fprintf(&b, "trial_%s=%s\n", s, e.Trial[s])
		}
	}
	for b.Len() < envSize {
		b.WriteByte('#')
	}
	name := filepath.Join(dir, envFile)
	if fi, err := os.Stat(name); err == nil && fi.Size() == envSize {
		return overwrite(name, b.Bytes())
	}
	return durable.WriteFile(name, b.Bytes(), 0o600)
}

func overwrite(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"slate/images/durable"
)

// The places of what is bound to the machine.
const (
	KeyFile   = "slate/flag.key"    // on the boot partition
	CyclesDir = "persistent/cycles" // on user-data
	flagFile  = "flag"              // below Dir, in a slot
)

// keptCycles bounds the records that are kept.
const keptCycles = 50

// Key binds flags and cycles to a machine. It lies beside the loader: it is there to
// tell this machine's records from another's and from what a fault made of them, and
// is no secret from whoever can read the drive.
type Key []byte

const keySize = 32

// LoadKey reads the machine's key from its boot partition.
func LoadKey(boot string) (Key, error) {
	k, err := os.ReadFile(filepath.Join(boot, KeyFile))
	if err == nil && len(k) != keySize {
		return nil, fmt.Errorf("%s is damaged", KeyFile)
	}
	return k, err
}

// MakeKey reads the machine's key, and makes one if there is none that can be used.
func MakeKey(boot string) (k Key, fresh bool, err error) {
	if k, err := LoadKey(boot); err == nil {
		return k, false, nil
	}
	k = make(Key, keySize)
	rand.Read(k)
	return k, true, durable.WriteFile(filepath.Join(boot, KeyFile), k, 0o600)
}

// Records reads and writes what is bound to the machine by its key.
type Records struct {
	Key Key
	// before is told of each write; an error is what a power cut would be. nil: nothing.
	before func(path string, data []byte) error
}

// seal is a record as it is kept: a line of JSON, and a line that binds it. kind keeps
// a record of one kind from being taken for another.
func (r Records) seal(kind string, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return fmt.Appendf(nil, "%s\n%x\n", text, r.mac(kind, text))
}

func (r Records) mac(kind string, text []byte) []byte {
	h := hmac.New(sha256.New, r.Key)
	fmt.Fprintf(h, "slate %s\n", kind)
	h.Write(text)
	return h.Sum(nil)
}

var errAltered = errors.New("it is altered, or another machine's")

func (r Records) open(kind string, data []byte, v any) error {
	text, rest, _ := bytes.Cut(data, []byte("\n"))
	mac, err := hex.DecodeString(string(bytes.TrimSpace(rest)))
	if err != nil || len(r.Key) != keySize || !hmac.Equal(mac, r.mac(kind, text)) {
		return errAltered
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func (r Records) write(path string, data []byte) error {
	if r.before != nil {
		if err := r.before(path, data); err != nil {
			return err
		}
	}
	return durable.WriteFile(path, data, 0o600)
}

// ErrNoFlag says that a slot has no boot flag.
var ErrNoFlag = errors.New("its boot flag is missing")

// CheckFlag tells whether the slot mounted at dir has the boot flag of a version in
// this slot of this machine's drive. nil: it has.
func (r Records) CheckFlag(dir string, want Flag) error {
	data, err := readSmall(filepath.Join(dir, Dir, flagFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoFlag
	}
	if err != nil {
		return fmt.Errorf("its boot flag: %w", err)
	}
	var f Flag
	if err := r.open("flag", data, &f); err != nil {
		return fmt.Errorf("its boot flag: %w", err)
	}
	switch {
	case f.Disk != want.Disk:
		return errors.New("its boot flag is that of another drive")
	case f.Slot != want.Slot:
		return errors.New("its boot flag is that of the other slot")
	case f.Tree != want.Tree:
		return errors.New("its boot flag is that of another version")
	}
	return nil
}

// WriteFlag gives the slot mounted at dir its boot flag.
func (r Records) WriteFlag(dir string, f Flag) error {
	return r.write(filepath.Join(dir, Dir, flagFile), r.seal("flag", f))
}

// Earn gives the slot mounted at dir the boot flag that a healthy cycle has earned it,
// and then has its trial ended: with both, the flag counts.
func (r Records) Earn(dir string, f Flag, c Cycle, endTrial func() error) error {
	f.Cycle = c.ID
	if err := r.WriteFlag(dir, f); err != nil {
		return err
	}
	return endTrial()
}

// RemoveFlag takes the boot flag away: what is in the slot is about to change.
func RemoveFlag(dir string) error { return durable.Remove(filepath.Join(dir, Dir, flagFile)) }

// Cycles reads the records of cycles that are kept below dir, the newest last. Those
// that are damaged, or another machine's, are left out and counted.
func (r Records) Cycles(dir string) (out []Cycle, bad int) {
	for _, n := range numbers(dir) {
		c, err := r.Cycle(dir, n)
		if err != nil {
			bad++
			continue
		}
		out = append(out, c)
	}
	return out, bad
}

// Cycle reads one record.
func (r Records) Cycle(dir string, n int) (c Cycle, err error) {
	data, err := readSmall(filepath.Join(dir, strconv.Itoa(n)))
	if err == nil {
		err = r.open("cycle", data, &c)
	}
	if err == nil && c.Number != n {
		err = errAltered
	}
	if err != nil {
		return Cycle{}, fmt.Errorf("record of cycle %d: %w", n, err)
	}
	return c, nil
}

// numbers are those of the records in dir, whatever is in them, in order.
func numbers(dir string) (out []int) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && strconv.Itoa(n) == e.Name() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// Begin records a new cycle, with the next number and an id of its own, and removes
// the records that are too old.
func (r Records) Begin(dir string, c Cycle) (Cycle, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	if err := durable.RemoveTemps(dir); err != nil {
		return c, err
	}
	all := numbers(dir)
	c.Number = 1
	if len(all) > 0 {
		c.Number = all[len(all)-1] + 1
	}
	c.ID = rand.Text()
	for len(all) >= keptCycles {
		if err := os.Remove(filepath.Join(dir, strconv.Itoa(all[0]))); err != nil {
			return c, err
		}
		all = all[1:]
	}
	return c, r.SaveCycle(dir, c)
}

// SaveCycle writes the record of a cycle.
func (r Records) SaveCycle(dir string, c Cycle) error {
	return r.write(filepath.Join(dir, strconv.Itoa(c.Number)), r.seal("cycle", c))
}

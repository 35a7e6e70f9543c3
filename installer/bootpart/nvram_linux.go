// SPDX-License-Identifier: GPL-2.0-or-later

package bootpart

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// The global variables of UEFI (specification 2.10, section 3.3) as efivarfs shows
// them: four bytes of attributes, then the value.
const (
	efiGlobal = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	efiAttrs  = 7 // kept, for boot services, at run time
	nvramName = "Slate"
)

// Target is the loader's file on a partition.
type Target struct {
	Part        int
	Start, Size int64  // bytes
	Sector      int64  // bytes
	GUID        string // of the partition
	File        string // \EFI\slate\shimx64.efi
}

// AddNVRAM makes the firmware know the loader by an entry of its own, after the one
// this machine was started by. What the firmware refuses is an error, but no machine
// needs it: the loader lies also where firmware looks by itself.
func AddNVRAM(efivars string, t Target) error {
	option, err := loadOption(t)
	if err != nil {
		return err
	}
	current, err := readVar(efivars, "BootCurrent")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	order, err := readVar(efivars, "BootOrder")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	number, err := entryNumber(efivars, option)
	if err != nil {
		return err
	}
	if err := writeVar(efivars, fmt.Sprintf("Boot%04X", number), option); err != nil {
		return err
	}
	return writeVar(efivars, "BootOrder", insert(order, current, number))
}

// entryNumber finds the entry that is ours, or the first free number.
func entryNumber(efivars string, option []byte) (uint16, error) {
	names, err := filepath.Glob(filepath.Join(efivars, "Boot[0-9A-F][0-9A-F][0-9A-F][0-9A-F]-"+efiGlobal))
	if err != nil {
		return 0, err
	}
	taken := map[uint16]bool{}
	ours := utf16Bytes(nvramName)
	for _, name := range names {
		n, err := strconv.ParseUint(filepath.Base(name)[4:8], 16, 16)
		if err != nil {
			continue
		}
		taken[uint16(n)] = true
		if old, err := readVar(efivars, filepath.Base(name)[:8]); err == nil && len(old) > 6 && bytes.HasPrefix(old[6:], ours) {
			return uint16(n), nil
		}
	}
	for n := uint16(0); n < 0x1000; n++ {
		if !taken[n] {
			return n, nil
		}
	}
	return 0, errors.New("no free boot entry")
}

// insert puts a number into BootOrder, after current.
func insert(order, current []byte, number uint16) []byte {
	var list []uint16
	for i := 0; i+1 < len(order); i += 2 {
		if n := binary.LittleEndian.Uint16(order[i:]); n != number {
			list = append(list, n)
		}
	}
	at := 0
	if len(current) == 2 {
		at = slices.Index(list, binary.LittleEndian.Uint16(current)) + 1
	}
	list = slices.Insert(list, at, number)
	var out []byte
	for _, n := range list {
		out = binary.LittleEndian.AppendUint16(out, n)
	}
	return out
}

// loadOption is an EFI_LOAD_OPTION (section 3.1.3) with a hard drive's and a file's
// device path (sections 10.3.5.1 and 10.3.5.4).
func loadOption(t Target) ([]byte, error) {
	guid, err := guidBytes(t.GUID)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	hd := []byte{4, 1, 42, 0}
	hd = le.AppendUint32(hd, uint32(t.Part))
	hd = le.AppendUint64(hd, uint64(t.Start/t.Sector))
	hd = le.AppendUint64(hd, uint64(t.Size/t.Sector))
	hd = append(append(hd, guid...), 2, 2)
	file := utf16Bytes(t.File)
	path := append(le.AppendUint16([]byte{4, 4}, uint16(4+len(file))), file...)
	list := append(append(hd, path...), 0x7f, 0xff, 4, 0)
	out := le.AppendUint32(nil, 1) // active
	out = le.AppendUint16(out, uint16(len(list)))
	return append(append(out, utf16Bytes(nvramName)...), list...), nil
}

func utf16Bytes(s string) []byte {
	var out []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// guidBytes gives a GUID as firmware stores it: the first three groups turned round.
func guidBytes(s string) ([]byte, error) {
	hex := strings.ReplaceAll(s, "-", "")
	if len(hex) != 32 {
		return nil, fmt.Errorf("%q is not a GUID", s)
	}
	var b [16]byte
	for i := range b {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			return nil, fmt.Errorf("%q is not a GUID", s)
		}
		b[i] = byte(n)
	}
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b[:], nil
}

func readVar(efivars, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(efivars, name+"-"+efiGlobal))
	if err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("the firmware's variable %s is damaged", name)
	}
	return b[4:], nil
}

// writeVar writes a variable that has another value. The kernel protects variables
// from slips by making their files immutable.
func writeVar(efivars, name string, value []byte) error {
	if old, err := readVar(efivars, name); err == nil && bytes.Equal(old, value) {
		return nil
	}
	file := filepath.Join(efivars, name+"-"+efiGlobal)
	if f, err := os.Open(file); err == nil {
		const immutable = 0x10 // FS_IMMUTABLE_FL
		if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil && flags&immutable != 0 {
			_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable)
		}
		f.Close()
	}
	// One write makes one call to the firmware.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte{efiAttrs, 0, 0, 0}, value...))
	return errors.Join(err, f.Close())
}

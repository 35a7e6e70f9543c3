// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"debug/elf"
	"encoding/binary"
)

// elfArch names the machine in an ELF header by Debian's and Go's word for it,
// "" if b is no ELF header.
func ELFArch(b []byte) string {
	if len(b) < 20 || string(b[:4]) != "\x7fELF" {
		return ""
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if b[5] == 2 {
		order = binary.BigEndian
	}
	switch m := elf.Machine(order.Uint16(b[18:])); m {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_386:
		return "i386"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_ARM:
		return "arm"
	case elf.EM_RISCV:
		return "riscv64"
	case elf.EM_PPC64:
		return "ppc64el"
	case elf.EM_S390:
		return "s390x"
	case elf.EM_LOONGARCH:
		return "loong64"
	default:
		return m.String()
	}
}

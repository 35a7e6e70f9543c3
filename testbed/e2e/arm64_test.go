// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

// armMessage is what armProgram says.
const armMessage = "The loader for arm64 runs"

// armProgram is a UEFI application for arm64 that says armMessage and ends: a
// PE32+ file (Microsoft PE format, UEFI 2.10 section 2.1.1) with one section.
func armProgram() []byte {
	const page, file = 0x1000, 0x200 // where the section lies in memory and in the file
	code := []uint32{
		0xa9bf7bfd,          // stp x29, x30, [sp, #-16]!
		0xf9402020,          // ldr x0, [x1, #64]   SystemTable.ConOut
		0xf9400408,          // ldr x8, [x0, #8]    its OutputString
		0x10000001 | 5*4<<3, // adr x1, text
		0xd63f0100,          // blr x8
		0xa8c17bfd,          // ldp x29, x30, [sp], #16
		0xd2800000,          // mov x0, #0
		0xd65f03c0,          // ret
	}
	text := append(utf16.Encode([]rune("\r\n"+armMessage+"\r\n")), 0)
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	zeros := func(n int) []byte { return make([]byte, n) }
	put([]byte("MZ"), zeros(0x3a), uint32(0x40))                                      // the DOS header points to
	put([]byte("PE\x00\x00"), uint16(0xaa64), uint16(1), zeros(12))                   // arm64, one section
	put(uint16(240), uint16(0x22))                                                    // size of the optional header; executable
	put(uint16(0x20b), uint16(0), uint32(file), zeros(8), uint32(page), uint32(page)) // PE32+, size of code, entry, base
	put(uint64(0), uint32(page), uint32(file), zeros(16))                             // alignments; versions
	put(uint32(2*page), uint32(file), uint32(0), uint16(10), uint16(0))               // sizes of image and headers; a UEFI application
	put(zeros(32), uint32(0), uint32(16), zeros(16*8))                                // stack and heap; no directories
	put([]byte(".text\x00\x00\x00"), uint32(page), uint32(page), uint32(file), uint32(file), zeros(12), uint32(0x60000020))
	put(zeros(file-b.Len()), code, text)
	put(zeros(2*file - b.Len()))
	return b.Bytes()
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package repack takes gzip members apart and puts them together again, bit for
// bit: into their content, and a recipe by which the compressed bytes can be
// made from it. So a transfer can compare what is inside two compressed files.
//
// No program that compresses is needed to put a member together, whichever one
// made it. Deflate (RFC 1951) leaves the encoder free where to find repetitions
// and where to begin a block. Most encoders choose as Deutsch's and Gailly's do,
// so we choose like them, and the recipe holds the blocks and the places where
// the encoder did otherwise. An encoder with ways of its own makes a long recipe;
// what comes out is right all the same.
//
// Recipe and content are both one stream for the whole file. What is not
// deflated, such as the header and trailer of a member (RFC 1952) or an
// uncompressed archive in front of it, is part of the content as it is.
package repack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrNone says that there is nothing in a file that could be taken apart.
var ErrNone = errors.New("no gzip member that can be taken apart")

// maxPlain bounds the content of one member. Positions fit 32 bits.
const maxPlain = 1 << 31

// The recipe is a sequence of: how many bytes are taken from the content as they
// are, then one deflate stream; see writeBlock.

// Unpack writes the content of src to plain and returns the recipe. It gives up
// with ErrNone if the recipe gets longer than maxRecipe.
func Unpack(src io.ReaderAt, size int64, plain io.Writer, maxRecipe int) ([]byte, error) {
	u := &unpacker{plain: plain, limit: maxRecipe}
	return u.recipe, u.run(src, size)
}

// Plain writes the content of src to plain, without making a recipe.
func Plain(src io.ReaderAt, size int64, plain io.Writer) error {
	u := &unpacker{plain: plain, contentOnly: true}
	return u.run(src, size)
}

// Looks reports whether what begins with head may hold something to take apart:
// a gzip member, or a cpio archive with one behind it, as with microcode in
// front of an initramfs.
func Looks(head []byte) bool { return isMember(head) || bytes.HasPrefix(head, cpioMagic) }

// HeadSize is how many bytes Looks wants to see.
const HeadSize = 10

var cpioMagic = []byte("070701")

func isMember(head []byte) bool {
	return len(head) >= HeadSize && head[0] == 0x1f && head[1] == 0x8b && head[2] == 8 && head[3]&^0x1f == 0
}

// run walks over the members of a file.
func (u *unpacker) run(src io.ReaderAt, size int64) error {
	head := make([]byte, HeadSize)
	if n, err := src.ReadAt(head, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(head)) {
		return ErrNone
	}
	from := int64(0)
	if !isMember(head) {
		var err error
		if !bytes.HasPrefix(head, cpioMagic) {
			return ErrNone
		}
		if from, err = findMember(src, size); err != nil {
			return err
		}
	}
	in := newBitReader(io.NewSectionReader(src, 0, size))
	if err := u.raw(in, from); err != nil {
		return err
	}
	for {
		if err := u.header(in); err != nil {
			return err
		}
		if err := u.member(in); err != nil {
			return err
		}
		if err := u.raw(in, trailerSize); err != nil {
			return err
		}
		if !isMember(in.peekBytes(HeadSize)) {
			return u.rest(in)
		}
	}
}

// findMember returns where the first member behind an archive begins.
func findMember(src io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for off := int64(0); off < size; off += int64(len(buf)) - HeadSize {
		n, err := src.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := 0; i+HeadSize <= n; i++ {
			if (off+int64(i))%4 == 0 && isMember(buf[i:n]) {
				return off + int64(i), nil
			}
		}
		if n < len(buf) {
			break
		}
	}
	return 0, ErrNone
}

const trailerSize = 8

// header takes over the header of a member.
func (u *unpacker) header(in *bitReader) error {
	h := in.peekBytes(HeadSize)
	flags := h[3]
	if err := u.raw(in, HeadSize); err != nil {
		return err
	}
	if flags&4 != 0 { // an extra field with its length in front
		b := in.peekBytes(2)
		if len(b) < 2 {
			return ErrNone
		}
		if err := u.raw(in, 2+int64(b[0])+int64(b[1])<<8); err != nil {
			return err
		}
	}
	for _, flag := range []byte{8, 16} { // name, comment
		for flags&flag != 0 {
			b := in.peekBytes(1)
			if err := u.raw(in, 1); err != nil {
				return err
			}
			if b[0] == 0 {
				break
			}
		}
	}
	if flags&2 != 0 {
		return u.raw(in, 2)
	}
	return nil
}

// Repack makes the compressed file of a recipe and its content.
func Repack(recipe []byte, plain io.Reader, out io.Writer) error {
	r := &repacker{recipe: recipe, plain: plain, out: newBitWriter(out)}
	for len(r.recipe) > 0 {
		n, err := r.uvarint(1 << 62)
		if err != nil {
			return err
		}
		if err := r.raw(int64(n)); err != nil {
			return err
		}
		if len(r.recipe) > 0 {
			if err := r.stream(); err != nil {
				return err
			}
		}
	}
	if n, err := plain.Read(make([]byte, 1)); n > 0 || err == nil {
		return errRecipe("there is content left")
	}
	return r.out.flush()
}

func errRecipe(what string) error { return fmt.Errorf("recipe for a gzip member: %s", what) }

// SPDX-License-Identifier: GPL-2.0-or-later

package tree

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strconv"

	"slate/images"
)

// firstLine is the signature by which programs know the format.
const firstLine = "#mtree\n"

// WriteTo writes the tree list's text.
func (t *Tree) WriteTo(w io.Writer) (int64, error) {
	cw := &countingWriter{w: w}
	bw := bufio.NewWriterSize(cw, 1<<16)
	bw.WriteString(firstLine)
	var dir, line []byte
	parent := uint32(0)
	for i := range uint32(len(t.nodes)) {
		if p := t.nodes[i].parent; p != parent || i <= 1 {
			parent = p
			dir = appendDir(dir[:0], t.nodes, t.names, p)
		}
		line = t.appendLine(line[:0], i, dir)
		if _, err := bw.Write(line); err != nil {
			return cw.n, err
		}
	}
	err := bw.Flush()
	return cw.n, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (t *Tree) sum() (d images.Digest) {
	h := sha256.New()
	t.WriteTo(h) // a hash does not fail
	h.Sum(d[:0])
	return d
}

// Line returns the line of entry i, with its newline: what an administrator
// sees of an entry, and what makes two entries equal.
func (t *Tree) Line(i uint32) string {
	return string(t.appendLine(nil, i, appendDir(nil, t.nodes, t.names, t.nodes[i].parent)))
}

// appendDir appends the escaped path of directory i with a slash at its end.
func appendDir[S string | []byte](b []byte, nodes []node, names S, i uint32) []byte {
	if i == 0 {
		return append(b, "./"...)
	}
	n := &nodes[i]
	b = appendDir(b, nodes, names, n.parent)
	end := n.name + 1 + uint32(names[n.name])
	return append(appendEscaped(b, names[n.name+1:end]), '/')
}

// pathLen returns the length of the unescaped path of directory i with a slash
// at its end, 0 for the root.
func pathLen(nodes []node, names []byte, i uint32) int {
	n := 0
	for ; i != 0; i = nodes[i].parent {
		n += int(names[nodes[i].name]) + 1
	}
	return n
}

func (t *Tree) appendLine(b []byte, i uint32, dir []byte) []byte {
	n := &t.nodes[i]
	o := &t.owners[n.owner]
	if i == 0 {
		b = append(b, '.')
	} else {
		b = appendEscaped(append(b, dir...), t.Name(i))
	}
	b = append(append(b, " type="...), typeNames[o.typ]...)
	b = append(b, " mode="...)
	for shift := 9; shift >= 0; shift -= 3 {
		b = append(b, '0'+byte(o.mode>>shift&7))
	}
	b = strconv.AppendUint(append(b, " uid="...), uint64(o.uid), 10)
	b = strconv.AppendUint(append(b, " gid="...), uint64(o.gid), 10)
	b = appendTime(append(b, " time="...), n.mtime)
	if o.typ != Dir && n.links > 1 {
		b = strconv.AppendUint(append(b, " nlink="...), uint64(n.links), 10)
		b = strconv.AppendUint(append(b, " inode="...), uint64(n.b), 10)
	}
	switch o.typ {
	case File:
		blob := &t.blobs[n.a]
		b = strconv.AppendInt(append(b, " size="...), blob.Size, 10)
		b = hex.AppendEncode(append(b, " sha256digest="...), blob.Digest[:])
	case Symlink:
		b = appendEscaped(append(b, " link="...), t.target(n.a))
	case Block, Char:
		major, minor := unpackDevice(n.a)
		b = strconv.AppendUint(append(b, " device=linux,"...), uint64(major), 10)
		b = strconv.AppendUint(append(b, ','), uint64(minor), 10)
	}
	if o.xattr {
		for _, x := range t.xattrs[t.Canonical(i)] {
			b = appendEscaped(append(b, " xattr."...), x.Name)
			b = base64.StdEncoding.AppendEncode(append(b, '='), x.Value)
		}
	}
	return append(b, '\n')
}

// appendTime writes seconds rounded down, and the nanoseconds above them.
func appendTime(b []byte, ns int64) []byte {
	sec, frac := ns/1e9, ns%1e9
	if frac < 0 {
		sec, frac = sec-1, frac+1e9
	}
	b = append(strconv.AppendInt(b, sec, 10), '.')
	for div := int64(1e8); div > 0; div /= 10 {
		b = append(b, '0'+byte(frac/div%10))
	}
	return b
}

// plain tells which bytes stand for themselves.
var plain = func() (p [256]bool) {
	for c := 0x21; c < 0x7f; c++ {
		p[c] = true
	}
	for _, c := range `\#=*?[` {
		p[c] = false
	}
	return p
}()

func appendEscaped[S string | []byte](b []byte, s S) []byte {
	for i := range len(s) {
		if c := s[i]; plain[c] {
			b = append(b, c)
		} else {
			b = append(b, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
		}
	}
	return b
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tree

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
)

// maxLine bounds a line of the text: a path, a target and attributes with
// every byte escaped.
const maxLine = 4*(MaxPath+MaxTarget) + 4*MaxXattrs + 1024

// A SyntaxError says where a tree list is not one.
type SyntaxError struct {
	Line   int
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("tree list, line %d: %s", e.Line, e.Reason) }

// Parse reads a tree list. It accepts canonical text only, which is what
// WriteTo writes, so the digest of the tree is the SHA-256 of what was read.
func Parse(r io.Reader) (*Tree, error) {
	p := &parser{a: newAssembler(0), sum: sha256.New(), groups: map[uint32]*group{}}
	p.src = bufio.NewReaderSize(r, 1<<18)
	t, err := p.run()
	var se *SyntaxError
	if errors.As(err, &se) {
		se.Line = p.line
	}
	return t, err
}

type parser struct {
	src    *bufio.Reader
	sum    hash.Hash
	a      *assembler
	line   int
	long   []byte // a line that did not fit the reader's buffer
	dir    []byte // escaped path of the directory whose children come, with a slash
	dirNum uint32
	dirLen int               // of dir without escapes
	groups map[uint32]*group // by the first entry
	elem   []byte
	rest   []byte // of the line
}

// A group is an inode with several names.
type group struct {
	Entry
	seen uint32
}

func bad(format string, args ...any) error { return &SyntaxError{Reason: fmt.Sprintf(format, args...)} }

func (p *parser) run() (*Tree, error) {
	first, err := p.next()
	if err != nil && err != io.EOF {
		return nil, err
	}
	if string(first) != firstLine {
		return nil, bad("does not start with %q", firstLine)
	}
	for {
		line, err := p.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = p.entry(line[:len(line)-1])
		}
		if err != nil {
			return nil, err
		}
	}
	return p.finish()
}

func (p *parser) finish() (*Tree, error) {
	t, err := p.a.finish()
	if err != nil {
		return nil, err
	}
	if len(t.nodes) == 0 {
		return nil, bad("ends before the root")
	}
	for first, g := range p.groups {
		if g.Nlink != g.seen {
			return nil, bad("entry %d has nlink=%d, but %d names", first, g.Nlink, g.seen)
		}
	}
	t.nodes = slices.Clip(t.nodes)
	p.sum.Sum(t.digest[:0])
	return t, nil
}

// next returns the next line with its newline, and io.EOF after the last.
func (p *parser) next() ([]byte, error) {
	p.line++
	line, err := p.src.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		p.long = p.long[:0]
		for err == bufio.ErrBufferFull {
			p.long = append(p.long, line...)
			if len(p.long) > maxLine {
				return nil, bad("longer than %d bytes", maxLine)
			}
			line, err = p.src.ReadSlice('\n')
		}
		p.long = append(p.long, line...)
		line = p.long
	}
	if err == io.EOF && len(line) > 0 {
		return nil, bad("is cut off: no newline at its end")
	}
	if err != nil {
		return nil, err
	}
	p.sum.Write(line)
	return line, nil
}

// entry parses one line. The order of the keywords is fixed, so this reads
// like the line does.
func (p *parser) entry(line []byte) error {
	num := uint32(len(p.a.t.nodes))
	if num >= MaxEntries {
		return bad("more than %d entries", MaxEntries)
	}
	path := line
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		path, p.rest = line[:i], line[i:]
	} else {
		p.rest = nil
	}
	if err := p.place(num, path); err != nil {
		return err
	}
	var e Entry
	var links, first uint64
	err := p.common(&e)
	if err == nil && e.Type != Dir && p.has(" nlink=") {
		links, err = p.number(math.MaxUint32)
		if err == nil {
			first, err = p.key(" inode=", uint64(num))
		}
		if err == nil && links < 2 {
			err = bad("nlink=%d", links)
		}
	}
	if err == nil {
		err = p.special(&e)
	}
	if err == nil {
		err = p.attributes(&e)
	}
	if err != nil {
		return err
	}
	if num == 0 && e.Type != Dir {
		return bad("the root is a %s, not a directory", e.Type)
	}
	p.a.add(p.dirNum, p.elem, &e)
	if p.a.tooLarge {
		return bad("too much text before it")
	}
	return p.linkUp(num, uint32(links), uint32(first), &e)
}

// place checks that the entry called path may come now, finds its parent, and
// leaves its last element, unescaped, in p.elem.
func (p *parser) place(num uint32, path []byte) error {
	if num == 0 {
		if string(path) != "." {
			return bad("the first entry is %q, not the root", path)
		}
		p.dir = append(p.dir[:0], "./"...)
		p.elem = p.elem[:0]
		return nil
	}
	cut := bytes.LastIndexByte(path, '/') + 1
	same := num > 1 && bytes.Equal(path[:cut], p.dir)
	if !same {
		if err := p.advance(num, path[:cut]); err != nil {
			return err
		}
	}
	var err error
	if p.elem, err = unescape(p.elem[:0], path[cut:]); err != nil {
		return err
	}
	if err := checkName(string(p.elem)); err != nil {
		return bad("%v", err)
	}
	if p.dirLen+len(p.elem) > MaxPath {
		return bad("path is longer than %d bytes", MaxPath)
	}
	if same && p.a.lastName() >= string(p.elem) {
		return bad("%q is there twice or out of order", path)
	}
	return nil
}

// advance moves on to the directory called dir. Directories come in the order
// of their numbers, so this looks at each once.
func (p *parser) advance(num uint32, dir []byte) error {
	t := p.a.t
	start := p.dirNum + 1
	if num == 1 {
		start = 0
	}
	for d := start; d < num; d++ {
		if t.owners[t.nodes[d].owner].typ != Dir {
			continue
		}
		p.dir = appendDir(p.dir[:0], t.nodes, p.a.names, d)
		if bytes.Equal(p.dir, dir) {
			p.dirNum, p.dirLen = d, pathLen(t.nodes, p.a.names, d)
			p.a.openDir(d)
			return nil
		}
	}
	return bad("%q does not lie in a directory that may come here: not in order, or no such directory", dir)
}

func (p *parser) common(e *Entry) error {
	if !p.has(" type=") {
		return bad("no type= after the path")
	}
	word := p.word()
	for t := File; t <= Socket; t++ {
		if string(word) == typeNames[t] {
			e.Type = t
		}
	}
	if e.Type == 0 {
		return bad("unknown type %q", word)
	}
	if !p.has(" mode=") || len(p.rest) < 4 {
		return bad("no mode= of four digits")
	}
	for _, c := range p.rest[:4] {
		if c < '0' || c > '7' {
			return bad("mode %q is not octal", p.rest[:4])
		}
		e.Mode = e.Mode<<3 | uint32(c-'0')
	}
	p.rest = p.rest[4:]
	uid, err := p.key(" uid=", math.MaxUint32)
	if err != nil {
		return err
	}
	gid, err := p.key(" gid=", math.MaxUint32)
	if err != nil {
		return err
	}
	e.UID, e.GID = uint32(uid), uint32(gid)
	if !p.has(" time=") {
		return bad("no time= after gid=")
	}
	e.MtimeNs, err = p.time()
	return err
}

// special parses what only some types have.
func (p *parser) special(e *Entry) error {
	switch e.Type {
	case File:
		size, err := p.key(" size=", math.MaxInt64)
		if err != nil {
			return err
		}
		e.Size = int64(size)
		if !p.has(" sha256digest=") {
			return bad("no sha256digest= after size=")
		}
		word := p.word()
		if len(word) != 64 {
			return bad("sha256digest= does not have 64 digits")
		}
		for i := range e.Digest {
			hi, lo := hexDigit[word[2*i]], hexDigit[word[2*i+1]]
			if hi|lo > 15 {
				return bad("sha256digest= is not lower-case hexadecimal")
			}
			e.Digest[i] = hi<<4 | lo
		}
		if e.Digest.IsZero() {
			return bad("sha256digest= is all zero")
		}
	case Symlink:
		if !p.has(" link=") {
			return bad("no link= for a symbolic link")
		}
		target, err := unescape(nil, p.word())
		if err != nil {
			return err
		}
		if e.Target = string(target); e.Target == "" || len(e.Target) > MaxTarget || bytes.IndexByte(target, 0) >= 0 {
			return bad("link= must have 1 to %d bytes, none of them zero", MaxTarget)
		}
	case Block, Char:
		major, err := p.key(" device=linux,", maxMajor)
		if err != nil {
			return err
		}
		minor, err := p.key(",", maxMinor)
		if err != nil {
			return err
		}
		e.Major, e.Minor = uint32(major), uint32(minor)
	}
	return nil
}

// hexDigit maps lower-case digits to their value and all else to 255.
var hexDigit = func() (h [256]byte) {
	for i := range h {
		h[i] = 255
	}
	for i, c := range []byte("0123456789abcdef") {
		h[c] = byte(i)
	}
	return h
}()

func (p *parser) attributes(e *Entry) error {
	last := ""
	for p.has(" xattr.") {
		word := p.word()
		i := bytes.IndexByte(word, '=')
		if i < 0 {
			return bad("xattr without a value")
		}
		name, err := unescape(nil, word[:i])
		if err != nil {
			return err
		}
		value, err := base64.StdEncoding.Strict().AppendDecode(nil, word[i+1:])
		if err != nil {
			return bad("xattr.%s: %v", word[:i], err)
		}
		if string(name) <= last {
			return bad("xattr.%s is there twice, out of order or has no name", word[:i])
		}
		last = string(name)
		e.Xattrs = append(e.Xattrs, Xattr{Name: last, Value: value})
	}
	if len(p.rest) > 0 {
		return bad("%q is not understood, or not at its place", clip(p.rest))
	}
	if len(e.Xattrs) > 0 {
		if err := checkXattrs(e.Xattrs); err != nil {
			return bad("%v", err)
		}
	}
	return nil
}

// linkUp stores what the inode holds, or ties entry num to the first name of
// its inode, with which it must agree in everything.
func (p *parser) linkUp(num, links, first uint32, e *Entry) error {
	t := p.a.t
	if e.Type == Dir {
		return nil
	}
	e.Nlink = links
	if links == 0 || first == num {
		p.a.payload(num, e)
		if links > 0 {
			t.nodes[num].links = links
			p.groups[num] = &group{Entry: *e, seen: 1}
		}
		return nil
	}
	g := p.groups[first]
	if g == nil {
		return bad("inode=%d is not the first name of an inode", first)
	}
	g.seen++
	p.a.link(num, first)
	t.nodes[num].links = links
	if !sameInode(&g.Entry, e) {
		return bad("differs from entry %d, with which it shares an inode", first)
	}
	return nil
}

func sameInode(x, y *Entry) bool {
	return x.Type == y.Type && x.Mode == y.Mode && x.UID == y.UID && x.GID == y.GID && x.MtimeNs == y.MtimeNs &&
		x.Nlink == y.Nlink && x.Size == y.Size && x.Digest == y.Digest && x.Target == y.Target &&
		x.Major == y.Major && x.Minor == y.Minor && slices.EqualFunc(x.Xattrs, y.Xattrs, sameXattr)
}

func sameXattr(x, y Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) }

// has consumes word if the rest of the line starts with it.
func (p *parser) has(word string) bool {
	if len(p.rest) >= len(word) && string(p.rest[:len(word)]) == word {
		p.rest = p.rest[len(word):]
		return true
	}
	return false
}

// word consumes everything up to the next space.
func (p *parser) word() []byte {
	w := p.rest
	if i := bytes.IndexByte(w, ' '); i >= 0 {
		w = w[:i]
	}
	p.rest = p.rest[len(w):]
	return w
}

func (p *parser) key(key string, most uint64) (uint64, error) {
	if !p.has(key) {
		return 0, bad("no %s at %q", key, clip(p.rest))
	}
	return p.number(most)
}

// number consumes a decimal number without leading zeros.
func (p *parser) number(most uint64) (uint64, error) {
	var v uint64
	i := 0
	for ; i < len(p.rest) && p.rest[i] >= '0' && p.rest[i] <= '9'; i++ {
		d := uint64(p.rest[i] - '0')
		if v > (most-d)/10 || d > most {
			return 0, bad("number is above %d", most)
		}
		v = v*10 + d
	}
	if i == 0 || i > 1 && p.rest[0] == '0' {
		return 0, bad("want a number without leading zeros at %q", clip(p.rest))
	}
	p.rest = p.rest[i:]
	return v, nil
}

// maxSeconds is how many seconds fit an int64 of nanoseconds.
const maxSeconds = uint64(math.MaxInt64 / 1_000_000_000)

func (p *parser) time() (int64, error) {
	negative := p.has("-")
	sec, err := p.number(maxSeconds + 1)
	if err != nil {
		return 0, err
	}
	if !p.has(".") || len(p.rest) < 9 {
		return 0, bad("time= without nine digits after the point")
	}
	frac := int64(0)
	for _, c := range p.rest[:9] {
		if c < '0' || c > '9' {
			return 0, bad("time= without nine digits after the point")
		}
		frac = frac*10 + int64(c-'0')
	}
	p.rest = p.rest[9:]
	if !negative {
		if sec > maxSeconds || int64(sec)*1e9 > math.MaxInt64-frac {
			return 0, bad("time= is out of range")
		}
		return int64(sec)*1e9 + frac, nil
	}
	// The seconds are rounded down, so the last second before the range ends
	// may only hold its upper part: add the fraction before the multiplication
	// can overflow.
	if sec == 0 {
		return 0, bad("time=-0")
	}
	whole, up := -(int64(sec)-1)*1e9, 1e9-frac
	if whole < math.MinInt64+up {
		return 0, bad("time= is out of range")
	}
	return whole - up, nil
}

// unescape appends s with its octal escapes undone. It refuses whatever
// appendEscaped would have written otherwise.
func unescape(dst, s []byte) ([]byte, error) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if plain[c] {
			dst = append(dst, c)
			continue
		}
		if c != '\\' || i+3 >= len(s) || s[i+1] > '3' {
			return nil, bad("byte %q must be written as a backslash and three octal digits", c)
		}
		v := byte(0)
		for _, d := range s[i+1 : i+4] {
			if d < '0' || d > '7' {
				return nil, bad("%q is not a backslash and three octal digits", s[i:i+4])
			}
			v = v<<3 | (d - '0')
		}
		if plain[v] {
			return nil, bad("byte %q must not be escaped", v)
		}
		dst = append(dst, v)
		i += 3
	}
	return dst, nil
}

func clip(b []byte) []byte { return b[:min(len(b), 40)] }

// lastName returns the name of the entry added last.
func (a *assembler) lastName() string {
	off := a.t.nodes[len(a.t.nodes)-1].name
	return string(a.names[off+1:])
}

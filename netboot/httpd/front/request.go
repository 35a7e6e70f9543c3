// SPDX-License-Identifier: GPL-2.0-or-later

package front

import (
	"bytes"
	"encoding/hex"
	"strconv"

	"slate/images"
)

// A request is one for a file.
type request struct {
	head   bool
	close  bool
	digest images.Digest
	ranged bool
	from   int64 // -1: the last to bytes
	to     int64 // last byte; -1: to the end
}

// parse reads a request that is complete. False means that it is for net/http,
// and may be anything: other methods and paths, queries, conditions, bodies,
// nonsense.
func (s *Server) parse(b []byte) (r request, ok bool) {
	line, rest, _ := bytes.Cut(b, []byte("\r\n"))
	path, isGet := bytes.CutPrefix(line, []byte("GET "))
	if !isGet {
		if path, r.head = bytes.CutPrefix(line, []byte("HEAD ")); !r.head {
			return r, false
		}
	}
	if path, ok = bytes.CutSuffix(path, []byte(" HTTP/1.1")); !ok || len(path) != len(s.Prefix)+hex.EncodedLen(len(r.digest)) || string(path[:len(s.Prefix)]) != s.Prefix {
		return r, false
	}
	name := path[len(s.Prefix):]
	if _, err := hex.Decode(r.digest[:], name); err != nil || bytes.ContainsAny(name, "ABCDEF") {
		return r, false
	}
	hosts := 0
	for {
		line, rest, ok = bytes.Cut(rest, []byte("\r\n"))
		if !ok {
			return r, false
		}
		if len(line) == 0 {
			return r, len(rest) == 0 && hosts == 1 && !(r.head && r.ranged)
		}
		key, value, found := bytes.Cut(line, []byte(":"))
		if !found || !isToken(key) || !isText(value) {
			return r, false
		}
		if value = bytes.Trim(value, " \t"); !r.header(key, value, &hosts) {
			return r, false
		}
	}
}

// header takes one line; false if it is one that net/http must see.
func (r *request) header(key, value []byte, hosts *int) bool {
	is := func(name string) bool { return len(key) == len(name) && bytes.EqualFold(key, []byte(name)) }
	switch {
	case is("Host"):
		*hosts++
		return isHost(value)
	case is("Connection"):
		r.close = r.close || bytes.EqualFold(value, []byte("close"))
		return r.close || bytes.EqualFold(value, []byte("keep-alive"))
	case is("Range"):
		return !r.ranged && r.setRange(value)
	case is("Content-Length"), is("Transfer-Encoding"), is("Expect"), is("Upgrade"), is("TE"), is("Trailer"):
		return false
	}
	return !(len(key) > 3 && bytes.EqualFold(key[:3], []byte("If-")))
}

func (r *request) setRange(value []byte) bool {
	spec, ok := bytes.CutPrefix(value, []byte("bytes="))
	a, b, dash := bytes.Cut(spec, []byte("-"))
	if !ok || !dash || len(a)+len(b) == 0 {
		return false
	}
	r.ranged, r.from, r.to = true, -1, -1
	return number(a, &r.from) && number(b, &r.to)
}

// number reads digits; none leave n as it is.
func number(b []byte, n *int64) bool {
	if len(b) == 0 {
		return true
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	v, err := strconv.ParseInt(string(b), 10, 64)
	*n = v
	return err == nil
}

// part returns which bytes of a file of the given size are asked for; false if
// net/http has to say that there are none.
func (r *request) part(size int64) (from, n int64, ok bool) {
	switch {
	case !r.ranged:
		return 0, size, true
	case r.from < 0:
		n = min(r.to, size)
		return size - n, n, n > 0
	case r.from >= size || r.to >= 0 && r.to < r.from:
		return 0, 0, false
	case r.to < 0 || r.to >= size:
		return r.from, size - r.from, true
	}
	return r.from, r.to - r.from + 1, true
}

func isToken(b []byte) bool {
	for _, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return len(b) > 0
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isHost(b []byte) bool {
	for _, c := range b {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return len(b) > 0
}

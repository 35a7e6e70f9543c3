// SPDX-License-Identifier: GPL-2.0-or-later

package httpd

import (
	"io"
	"net/http"
)

// sent counts what of an answer went out, and notes why no more did.
type sent struct {
	http.ResponseWriter
	n   int64
	err error
}

func (s *sent) Write(b []byte) (int, error) {
	n, err := s.ResponseWriter.Write(b)
	s.add(int64(n), err)
	return n, err
}

// ReadFrom keeps the server's way to hand a file to the kernel, sendfile(2).
func (s *sent) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(s.ResponseWriter, r)
	s.add(n, err)
	return n, err
}

func (s *sent) add(n int64, err error) {
	s.n += n
	if s.err == nil {
		s.err = err
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package debian

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"slate/images"
)

// Inputs are the states of the archives a build takes its packages from. The
// same inputs and the same recipe make the same tree.
type Inputs struct {
	Release map[string]images.Digest // source → digest of its InRelease file
	Date    time.Time                // of the newest of them: every file's time is at most this
}

// maxInRelease bounds one InRelease file; Debian's have 140 kB.
const maxInRelease = 16 << 20

// inputTimeout bounds the look at all archives. It is a handful of small files.
const inputTimeout = 60 * time.Second

// ReadInputs fetches the InRelease file of each source. It does not check their
// signatures: apt does that when it reads the same files for the build, and the
// digests are only compared with what apt had then.
func ReadInputs(ctx context.Context, client *http.Client, sources []Source) (Inputs, error) {
	if client == nil {
		client = http.DefaultClient
	}
	ctx, cancel := context.WithTimeout(ctx, inputTimeout)
	defer cancel()
	in := Inputs{Release: map[string]images.Digest{}}
	for _, s := range sources {
		b, err := readInRelease(ctx, client, s)
		if err != nil {
			return Inputs{}, fmt.Errorf("suite %s: %w", s.Suite, err)
		}
		date, err := releaseDate(b)
		if err != nil {
			return Inputs{}, fmt.Errorf("suite %s of %s: %w", s.Suite, s.URI, err)
		}
		in.Release[s.String()] = sha256.Sum256(b)
		if date.After(in.Date) {
			in.Date = date
		}
	}
	return in, nil
}

func readInRelease(ctx context.Context, client *http.Client, s Source) ([]byte, error) {
	where := s.URI + "/dists/" + s.Suite + "/InRelease"
	u, err := url.Parse(where)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "http", "https":
	case "file", "copy":
		f, err := os.Open(u.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readBounded(f)
	default:
		return nil, fmt.Errorf("%s: cannot look at a %s: mirror beforehand", where, u.Scheme)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", where, resp.Status)
	}
	return readBounded(resp.Body)
}

func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxInRelease+1))
	if err == nil && len(b) > maxInRelease {
		err = errors.New("InRelease is too large to be one")
	}
	return b, err
}

// releaseDate reads the Date field of a Release file.
func releaseDate(b []byte) (time.Time, error) {
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "Date:"); ok {
			v = strings.TrimSpace(v)
			for _, layout := range []string{time.RFC1123, "Mon, _2 Jan 2006 15:04:05 MST"} {
				if t, err := time.Parse(layout, v); err == nil {
					return t.UTC(), nil
				}
			}
			return time.Time{}, fmt.Errorf("InRelease: date %q", v)
		}
	}
	return time.Time{}, errors.New("InRelease has no date: not a Debian archive?")
}

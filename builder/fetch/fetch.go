// SPDX-License-Identifier: GPL-2.0-or-later

// Package fetch gets large files over HTTP that may take hours and break off: it
// goes on where it stopped, gives up on a server that stalls, and never takes
// more than it was told to expect. Whether a file is the right one is for its
// caller to check.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slate/images/durable"
)

// Options are how to fetch. The zero value is useful.
type Options struct {
	Client   *http.Client            // nil: http.DefaultClient
	Size     int64                   // the file's, if it is known; 0: as large as the server says
	Max      int64                   // no more bytes than this; 0: 16 GiB
	Stall    time.Duration           // give up on a connection after so long without a byte; 0: 60 s
	Tries    int                     // attempts that make no progress before giving up; 0: 5
	Pause    time.Duration           // before the second attempt, doubled for each further; 0: 1 s
	Progress func(done, total int64) // total is 0 if not known; may be nil
}

const (
	defaultMax   = 16 << 30
	defaultStall = 60 * time.Second
	defaultTries = 5
	defaultPause = time.Second
	maxPause     = 30 * time.Second
)

// StatusError is an answer other than the file.
type StatusError struct {
	URL    string
	Status int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
}

// SizeError is a file of another size than it should have.
type SizeError struct {
	URL        string
	Got, Limit int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s: %d bytes or more, expected %d", e.URL, e.Got, e.Limit)
}

// ErrStalled is a server that stopped sending.
var ErrStalled = errors.New("the server stopped sending")

// File fetches url into the file path, which appears when it is whole. What came
// before a failure is kept beside it, as path.part, and used the next time.
func File(ctx context.Context, url, path string, o Options) error {
	o = o.withDefaults()
	part, err := os.OpenFile(path+".part", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer part.Close()
	pause, most := o.Pause, int64(0)
	for failures := 0; ; {
		before, err := part.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		err = attempt(ctx, url, part, before, o)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !worthRetrying(err) {
			return err
		}
		after, serr := part.Seek(0, io.SeekEnd)
		if serr != nil {
			return serr
		}
		// Slow is not broken. But only what is beyond all we ever had counts, or a
		// server could make us begin again for ever.
		if most = max(most, before); after > most {
			failures, pause, most = 0, o.Pause, after
		}
		if failures++; failures >= o.Tries {
			return fmt.Errorf("%w (after %d attempts)", err, failures)
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, maxPause)
	}
	if err := part.Sync(); err != nil {
		return err
	}
	if err := os.Rename(path+".part", path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// Discard removes what a failed fetch has kept, after a check of it failed.
func Discard(path string) error {
	return errors.Join(ignoreMissing(os.Remove(path)), ignoreMissing(os.Remove(path+".part")))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (o Options) withDefaults() Options {
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	if o.Size > 0 {
		o.Max = o.Size
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Tries <= 0 {
		o.Tries = defaultTries
	}
	if o.Pause <= 0 {
		o.Pause = defaultPause
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o
}

// worthRetrying tells trouble that may pass from an answer that will not change.
func worthRetrying(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status >= 500 || status.Status == http.StatusRequestTimeout || status.Status == http.StatusTooManyRequests
	}
	var size *SizeError
	var disk *os.PathError
	return !errors.As(err, &size) && !errors.As(err, &disk)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// attempt asks for what is missing after the first have bytes, once.
func attempt(ctx context.Context, url string, part *os.File, have int64, o Options) error {
	if o.Size > 0 && have == o.Size {
		return nil
	}
	if have > o.Max {
		if err := part.Truncate(0); err != nil {
			return err
		}
		have = 0
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(o.Stall, func() { cancel(ErrStalled) })
	defer stall.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if have > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(have, 10)+"-")
	}
	resp, err := o.Client.Do(req)
	if err != nil {
		return stalled(ctx, url, err)
	}
	defer resp.Body.Close()
	total := o.Size
	switch resp.StatusCode {
	case http.StatusPartialContent:
		from, all := contentRange(resp.Header.Get("Content-Range"))
		if from != have {
			return restart(part, fmt.Errorf("%s: asked for bytes from %d on, got them from %d on", url, have, from))
		}
		total = max(total, all)
	case http.StatusOK: // no ranges here: from the start
		if err := part.Truncate(0); err != nil {
			return err
		}
		have = 0
		total = max(total, resp.ContentLength, 0)
	case http.StatusRequestedRangeNotSatisfiable:
		return restart(part, fmt.Errorf("%s: there are no more than %d bytes of it there", url, have))
	default:
		return &StatusError{url, resp.StatusCode}
	}
	if total > o.Max {
		return &SizeError{url, total, o.Max}
	}
	if _, err := part.Seek(have, io.SeekStart); err != nil {
		return err
	}
	w := &meter{w: part, done: have, total: total, url: url, o: o, alive: func() { stall.Reset(o.Stall) }}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return stalled(ctx, url, err)
	}
	if total > 0 && w.done < total {
		return fmt.Errorf("%s: broke off after %d of %d bytes", url, w.done, total)
	}
	return nil
}

// restart makes the next attempt begin at the first byte.
func restart(part *os.File, why error) error {
	if err := part.Truncate(0); err != nil {
		return err
	}
	return why
}

// stalled names the stall, which net/http reports as a cancellation.
func stalled(ctx context.Context, url string, err error) error {
	if errors.Is(context.Cause(ctx), ErrStalled) {
		return fmt.Errorf("%s: %w", url, ErrStalled)
	}
	return err
}

// contentRange reads "bytes 100-199/1000"; all is 0 if it is not known.
func contentRange(h string) (from, all int64) {
	rest, ok := strings.CutPrefix(h, "bytes ")
	if !ok {
		return -1, 0
	}
	span, size, _ := strings.Cut(rest, "/")
	first, _, _ := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return -1, 0
	}
	all, err = strconv.ParseInt(size, 10, 64)
	if err != nil {
		all = 0
	}
	return from, all
}

// meter counts what is written, and stops when it is too much.
type meter struct {
	w           io.Writer
	done, total int64
	url         string
	o           Options
	alive       func()
}

func (m *meter) Write(p []byte) (int, error) {
	m.alive()
	if m.done+int64(len(p)) > m.o.Max {
		return 0, &SizeError{m.url, m.done + int64(len(p)), m.o.Max}
	}
	n, err := m.w.Write(p)
	m.done += int64(n)
	m.o.Progress(m.done, m.total)
	return n, err
}

// maxSmall bounds what Bytes takes.
const maxSmall = 4 << 20

// Bytes fetches a small file, with the same patience.
func Bytes(ctx context.Context, url string, o Options) ([]byte, error) {
	dir, err := os.MkdirTemp("", "slate-fetch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if o.Max <= 0 || o.Max > maxSmall {
		o.Max = maxSmall
	}
	p := filepath.Join(dir, "file")
	if err := File(ctx, url, p, o); err != nil {
		return nil, err
	}
	return os.ReadFile(p)
}

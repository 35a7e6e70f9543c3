// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"slate/images"
	"slate/images/tree"
)

// A Client fetches from a server, or from the next when that dies. Its fields must not change once it is used.
type Client struct {
	Base string // base URL of the server; the addresses below /v1/ are appended
	// Mirrors are base URLs of further servers. When one does not answer, or lacks
	// what is asked for, the next goes on where it stopped.
	Mirrors []string
	// Moved, if set, is told when another server is taken.
	Moved func(from, to string, why error)
	Keys  []ed25519.PublicKey // whose signatures on records are believed
	HTTP  *http.Client        // nil: one that notices within 15 s when a server has lost its power

	Connections int            // requests at once; 0: 4
	Memory      int64          // bytes of packs held at once; 0: 128 MiB
	Rate        int64          // bytes a second; 0: no limit
	Work        string         // directory for parts of large files; "": the system's for temporary files
	Progress    func(Progress) // called often, one call at a time; may be nil
	// Waiting is told when the server has no room now (status 503 with Retry-After),
	// with the server's words, and when it is asked again; may be nil.
	Waiting func(why string, again time.Duration)

	once    sync.Once
	limit   *rate.Limiter
	stats   counters
	progMu  sync.Mutex
	server  atomic.Int64                         // which of Base and Mirrors is asked
	stall   time.Duration                        // 0: defaultStall; set in tests
	backoff func(try int) time.Duration          // replaced in tests
	after   func(time.Duration) <-chan time.Time // time.After, but in tests
}

// Progress says how far a Fetch is.
type Progress struct {
	Have    int64 // bytes of contents that are there
	Total   int64 // bytes of contents that were missing
	Fetched int64 // bytes that came over the network
}

// Stats counts what a client did since it was made.
type Stats struct {
	Requests int64 // answered or not
	Bytes    int64 // of answers
	Retries  int64
	Blobs    int64 // contents put
	Reused   int64 // bytes of large contents that came from what was there
}

type counters struct{ requests, bytes, retries, blobs, reused atomic.Int64 }

// Stats returns what the client did so far.
func (c *Client) Stats() Stats {
	s := &c.stats
	return Stats{Requests: s.requests.Load(), Bytes: s.bytes.Load(), Retries: s.retries.Load(), Blobs: s.blobs.Load(), Reused: s.reused.Load()}
}

const (
	defaultConnections = 4
	defaultMemory      = 128 << 20
	maxTries           = 6 // without a byte of progress
	maxAnswer          = 1 << 30
	limitPiece         = 64 << 10
	defaultStall       = 30 * time.Second // without a byte of an answer that has begun
	maxPause           = time.Minute      // between two questions, whatever the server says
	maxQueue           = time.Hour        // for one answer, in the server's queue
)

func (c *Client) init() {
	c.once.Do(func() {
		if c.HTTP == nil {
			c.HTTP = &http.Client{Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, ResponseHeaderTimeout: 5 * time.Minute, IdleConnTimeout: time.Minute,
				DialContext: dialer().DialContext,
			}}
		}
		if c.Connections <= 0 {
			c.Connections = defaultConnections
		}
		if c.Memory <= 0 {
			c.Memory = defaultMemory
		}
		if c.Rate > 0 {
			c.limit = rate.NewLimiter(rate.Limit(c.Rate), int(max(c.Rate/4, limitPiece)))
		}
		if c.after == nil {
			c.after = time.After
		}
		if c.backoff == nil {
			c.backoff = func(try int) time.Duration { return min(time.Second<<try, 20*time.Second) / 2 }
		}
	})
}

// A StatusError is an answer other than the one asked for.
type StatusError struct {
	URL    string
	Status int
	Text   string
	Again  time.Duration // after which to ask again; 0: the server does not say
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: %d %s: %s", e.URL, e.Status, http.StatusText(e.Status), e.Text)
}

// Is makes "not found" an fs.ErrNotExist.
func (e *StatusError) Is(target error) bool {
	return target == fs.ErrNotExist && e.Status == http.StatusNotFound
}

// get fetches the whole answer to one address, of at most limit bytes. A
// transfer that breaks is resumed where it broke.
func (c *Client) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	c.init()
	var body bytes.Buffer
	etag := ""
	lacking := 0 // servers that do not have it
	queued := time.Duration(0)
	for try := 0; ; try++ {
		before, at := body.Len(), c.server.Load()
		done, err := c.attempt(ctx, c.base(at), path, &body, &etag, limit)
		missing := errors.Is(err, fs.ErrNotExist)
		if missing && lacking < len(c.Mirrors) {
			lacking++
			done = false
		}
		if done || ctx.Err() != nil {
			return body.Bytes(), err
		}
		if busy := (*StatusError)(nil); errors.As(err, &busy) && busy.Again > 0 && queued < maxQueue {
			if err := c.queue(ctx, busy); err != nil {
				return nil, err
			}
			queued += busy.Again
			try-- // being told to wait is no failure
			continue
		}
		if body.Len() > before {
			try = 0 // it is slow going, but going
		}
		if try+1 >= maxTries {
			return nil, err
		}
		c.stats.retries.Add(1)
		// With others to ask, one is given a second chance only if it was at it.
		if body.Len() == before {
			c.next(at, err)
			if missing || try < len(c.Mirrors) {
				continue // the next one has kept nobody waiting yet
			}
		}
		select {
		case <-time.After(c.backoff(try)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// queue waits as long as a server with no room asks for.
func (c *Client) queue(ctx context.Context, busy *StatusError) error {
	if c.Waiting != nil {
		c.progMu.Lock()
		c.Waiting(busy.Text, busy.Again)
		c.progMu.Unlock()
	}
	select {
	case <-c.after(busy.Again):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// base is the URL of the nth server that is tried.
func (c *Client) base(n int64) string {
	if n %= int64(1 + len(c.Mirrors)); n > 0 {
		return c.Mirrors[n-1]
	}
	return c.Base
}

// Server is the base URL of the server that is asked now.
func (c *Client) Server() string { return c.base(c.server.Load()) }

// next leaves the server that failed, unless another connection has already.
func (c *Client) next(at int64, why error) {
	if len(c.Mirrors) == 0 || !c.server.CompareAndSwap(at, at+1) {
		return
	}
	if c.Moved != nil {
		c.Moved(c.base(at), c.base(at+1), why)
	}
}

// attempt makes one request for what is missing of body. It is done if that is
// now all there, or will never be.
func (c *Client) attempt(ctx context.Context, base, path string, body *bytes.Buffer, etag *string, limit int64) (done bool, err error) {
	url := strings.TrimSuffix(base, "/") + "/v1/" + path
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return true, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	if body.Len() > 0 && *etag != "" {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", body.Len()))
		req.Header.Set("If-Range", *etag)
	}
	c.stats.requests.Add(1)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		body.Reset() // the server, or a proxy, begins anew
	case http.StatusPartialContent:
		if want := fmt.Sprintf("bytes %d-", body.Len()); !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
			return true, fmt.Errorf("%s: answer has %q, want %q", url, resp.Header.Get("Content-Range"), want)
		}
	default:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		err := &StatusError{URL: url, Status: resp.StatusCode, Text: strings.TrimSpace(string(text))}
		if seconds, aerr := strconv.Atoi(resp.Header.Get("Retry-After")); aerr == nil && seconds > 0 && resp.StatusCode == http.StatusServiceUnavailable {
			err.Again = min(time.Duration(seconds)*time.Second, maxPause)
		}
		retry := resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests
		return !retry, err
	}
	*etag = resp.Header.Get("ETag")
	if resp.ContentLength > limit-int64(body.Len()) {
		return true, fmt.Errorf("%s: answer of %d bytes, at most %d were expected", url, resp.ContentLength, limit)
	}
	// A server that hangs keeps its connections alive.
	stall := max(c.stall, 0)
	if stall == 0 {
		stall = defaultStall
	}
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()
	alive := readerFunc(func(p []byte) (int, error) {
		n, err := resp.Body.Read(p)
		watch.Reset(stall)
		return n, err
	})
	n, err := io.Copy(body, io.LimitReader(c.slow(ctx, alive), limit+1-int64(body.Len())))
	c.stats.bytes.Add(n)
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		return false, fmt.Errorf("%s: %w", url, err)
	}
	if int64(body.Len()) > limit {
		return true, fmt.Errorf("%s: answer is longer than the %d bytes expected", url, limit)
	}
	return true, nil
}

var errStalled = errors.New("nothing more came")

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// slow keeps a reader within the rate.
func (c *Client) slow(ctx context.Context, r io.Reader) io.Reader {
	if c.limit == nil {
		return r
	}
	return &slowReader{ctx, c.limit, r}
}

type slowReader struct {
	ctx   context.Context
	limit *rate.Limiter
	r     io.Reader
}

func (s *slowReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), limitPiece)])
	if n > 0 {
		if werr := s.limit.WaitN(s.ctx, n); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// A Policy says which records are accepted.
type Policy struct {
	AllowUnsigned bool           // a record without a signature is accepted; one with a wrong one never
	Have          *images.Record // the version that is there: nothing older of the same image is accepted
	AllowOlder    bool           // but for this: an admin's roll back
}

// A DowngradeError says that a server offered an older version.
type DowngradeError struct{ Have, Offered images.Record }

func (e *DowngradeError) Error() string {
	return fmt.Sprintf("%s, committed %s, is older than %s, committed %s, which is here", e.Offered.Ref(), e.Offered.Time.Format(time.DateTime),
		e.Have.Ref(), e.Have.Time.Format(time.DateTime))
}

// Hint says how an older version can be had.
func (e *DowngradeError) Hint() string { return "going back must be allowed by the policy" }

// A Signed record is one that was verified, with the bytes that were.
type Signed struct {
	images.Record
	Text, Signature []byte
}

// Record asks which version ref means and returns its record, if the policy
// accepts it.
func (c *Client) Record(ctx context.Context, ref images.Ref, p Policy) (Signed, error) {
	body, err := c.get(ctx, "record/"+ref.String(), 1<<20)
	if err != nil {
		return Signed{}, err
	}
	var a recordAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return Signed{}, fmt.Errorf("record of %s: %w", ref, err)
	}
	s := Signed{Text: []byte(a.Record), Signature: []byte(a.Signature)}
	err = images.Verify(c.Keys, images.PurposeRecord, s.Text, s.Signature)
	if err != nil && !(p.AllowUnsigned && errors.Is(err, images.ErrUnsigned)) {
		return Signed{}, fmt.Errorf("record of %s from %s: %w", ref, c.Server(), err)
	}
	// Only now that it is known to come from the site is it looked into.
	if s.Record, err = images.ParseRecord(s.Text); err != nil {
		return Signed{}, fmt.Errorf("record of %s: %w", ref, err)
	}
	if s.Name != ref.Name || ref.Number != 0 && s.Number != ref.Number || !strings.HasPrefix(s.Tree.String(), ref.Digest) {
		return Signed{}, fmt.Errorf("asked for %s, the server answered with %s", ref, s.Ref())
	}
	if h := p.Have; h != nil && !p.AllowOlder && h.Name == s.Name && h.Tree != s.Tree && (s.Number < h.Number || s.Time.Before(h.Time)) {
		return Signed{}, &DowngradeError{Have: *h, Offered: s.Record}
	}
	return s, nil
}

// maxTreeText bounds a tree list; 400,000 entries have 80 MB.
const maxTreeText = 4 << 30

// Tree fetches a tree list and verifies it. If old is not nil, only what differs
// from it comes over the network, as long as the server has it too.
func (c *Client) Tree(ctx context.Context, d images.Digest, old *tree.Tree) (*tree.Tree, error) {
	if old != nil {
		t, err := c.treeFrom(ctx, d, old)
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errPack) {
			return t, err
		}
	}
	frame, err := c.get(ctx, "tree/"+d.String(), maxAnswer)
	if err != nil {
		return nil, err
	}
	dec, err := newStreamDecoder(frame)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return parseTree(io.LimitReader(dec, maxTreeText), d)
}

func (c *Client) treeFrom(ctx context.Context, d images.Digest, old *tree.Tree) (*tree.Tree, error) {
	frame, err := c.get(ctx, "tree/"+d.String()+"/"+old.Digest().String(), maxDictText)
	if err != nil {
		return nil, err
	}
	dict, err := treeText(old)
	if err != nil {
		return nil, err
	}
	text, err := decompressUpTo(frame, dict, maxDictText)
	if err != nil {
		return nil, err
	}
	return parseTree(bytes.NewReader(text), d)
}

func parseTree(r io.Reader, want images.Digest) (*tree.Tree, error) {
	t, err := tree.Parse(r)
	if err != nil {
		return nil, fmt.Errorf("tree list %s: %w", want.Short(), err)
	}
	if got := t.Digest(); got != want {
		return nil, fmt.Errorf("tree list %s: what came has the digest %s", want, got)
	}
	return t, nil
}

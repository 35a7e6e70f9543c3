// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"slate/images"
	"slate/images/chunk"
	"slate/images/durable"
	"slate/images/tree"
)

// Source is what a Handler serves. What is not there is an fs.ErrNotExist.
type Source interface {
	// Signed returns the text of a version's record and the signature on it.
	Signed(images.Ref) (text, sig []byte, err error)
	Tree(context.Context, images.Digest) (*tree.Tree, error)
	OpenBlob(images.Digest) (*os.File, error)
}

// A Handler serves the addresses below /v1/ that the package describes. Its
// fields must not change once it serves.
type Handler struct {
	Source Source
	Log    *slog.Logger // nil: silent
	// Cache is a directory for what takes time to make: packs, tree lists,
	// lists of chunks. "": nothing is kept, and a transfer that breaks within
	// a pack makes it again.
	Cache string
	// CacheBytes bounds the cache; 0: 2 GiB. What was made longest ago goes first.
	CacheBytes int64
	// Workers is how many packs are made at once; 0: one for each CPU.
	Workers int

	once   sync.Once
	busy   *semaphore.Weighted
	flight singleflight.Group
	making sync.WaitGroup
	sweep  sync.Mutex
}

const (
	defaultCacheBytes = 2 << 30
	rangeBytes        = 16 << 20 // the longest range in one answer
	maxDictText       = 64 << 20 // tree lists longer than this are sent whole
)

// recordAnswer is the answer to /v1/record/.
type recordAnswer struct {
	Record    string `json:"record"`
	Signature string `json:"signature,omitempty"`
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.once.Do(func() {
		if h.Workers <= 0 {
			h.Workers = runtime.NumCPU()
		}
		if h.CacheBytes == 0 {
			h.CacheBytes = defaultCacheBytes
		}
		if h.Log == nil {
			h.Log = slog.New(slog.DiscardHandler)
		}
		h.busy = semaphore.NewWeighted(int64(h.Workers))
	})
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	kind, arg, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	var err error
	if kind == "record" {
		err = h.record(w, arg)
	} else {
		err = h.immutable(w, r, kind, strings.Split(arg, "/"))
	}
	if err == nil {
		return
	}
	status := http.StatusInternalServerError
	var be *badRequest
	switch {
	case errors.As(err, &be):
		status = http.StatusBadRequest
	case errors.Is(err, fs.ErrNotExist):
		status = http.StatusNotFound
	case r.Context().Err() != nil:
		return
	default:
		h.Log.Error("sync request failed", "path", r.URL.Path, "addr", r.RemoteAddr, "err", err)
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, err.Error(), status)
}

type badRequest struct{ what string }

func (e *badRequest) Error() string { return e.what }

func (h *Handler) record(w http.ResponseWriter, arg string) error {
	ref, err := images.ParseRef(arg)
	if err != nil {
		return &badRequest{err.Error()}
	}
	text, sig, err := h.Source.Signed(ref)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(recordAnswer{Record: string(text), Signature: string(sig)})
}

// immutable serves what its address says once and for all.
func (h *Handler) immutable(w http.ResponseWriter, r *http.Request, kind string, args []string) error {
	fill, err := h.maker(kind, args)
	if err != nil {
		return err
	}
	body, sum, err := h.cached(r.Context(), kind+"/"+strings.Join(args, "/"), fill)
	if err != nil {
		return err
	}
	if c, ok := body.(io.Closer); ok {
		defer c.Close()
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+sum+`"`)
	http.ServeContent(w, r, "", time.Time{}, body) // ranges: a broken transfer goes on where it broke
	return nil
}

// maker checks the address and returns what makes the answer.
func (h *Handler) maker(kind string, args []string) (func(context.Context) ([]byte, error), error) {
	digest := func(i int) (images.Digest, error) {
		d, err := images.ParseDigest(args[i])
		if err != nil {
			return d, &badRequest{err.Error()}
		}
		return d, nil
	}
	var a, b images.Digest
	var err error
	switch {
	case kind == "tree" && len(args) == 1:
		a, err = digest(0)
		return func(ctx context.Context) ([]byte, error) { return h.treeList(ctx, a, images.Digest{}) }, err
	case kind == "tree" && len(args) == 2:
		a, err = digest(0)
		if err == nil {
			b, err = digest(1)
		}
		return func(ctx context.Context) ([]byte, error) { return h.treeList(ctx, a, b) }, err
	case kind == "pack" && len(args) == 3:
		a, err = digest(0)
		if err == nil && args[1] != noTree {
			b, err = digest(1)
		}
		n, nerr := strconv.ParseUint(args[2], 10, 31)
		if err == nil && (nerr != nil || strconv.FormatUint(n, 10) != args[2]) {
			err = &badRequest{fmt.Sprintf("pack number %q", args[2])}
		}
		return func(ctx context.Context) ([]byte, error) { return h.pack(ctx, a, b, int(n)) }, err
	case kind == "chunks" && len(args) == 1:
		a, err = digest(0)
		return func(ctx context.Context) ([]byte, error) { return h.chunks(ctx, a) }, err
	case kind == "delta" && len(args) == 2:
		a, err = digest(0)
		if err == nil {
			b, err = digest(1)
		}
		return func(ctx context.Context) ([]byte, error) { return h.delta(ctx, a, b) }, err
	case kind == "range" && len(args) == 2:
		a, err = digest(0)
		from, to, rerr := parseRange(args[1])
		if err == nil {
			err = rerr
		}
		return func(ctx context.Context) ([]byte, error) { return h.blobRange(ctx, a, from, to) }, err
	}
	return nil, fmt.Errorf("no such address: %w", fs.ErrNotExist)
}

// noTree stands in addresses for no old tree.
const noTree = "-"

func parseRange(s string) (from, to int64, err error) {
	a, b, _ := strings.Cut(s, "-")
	from, err1 := strconv.ParseInt(a, 10, 64)
	to, err2 := strconv.ParseInt(b, 10, 64)
	if err1 != nil || err2 != nil || from < 0 || to < from || to-from > rangeBytes || formatRange(from, to) != s {
		return 0, 0, &badRequest{fmt.Sprintf("range %q", s)}
	}
	return from, to, nil
}

func formatRange(from, to int64) string {
	return strconv.FormatInt(from, 10) + "-" + strconv.FormatInt(to, 10)
}

func (h *Handler) treeList(ctx context.Context, new, old images.Digest) ([]byte, error) {
	text, err := h.treeText(ctx, new)
	if err != nil {
		return nil, err
	}
	if old.IsZero() {
		return compress(text, nil, thorough)
	}
	dict, err := h.treeText(ctx, old)
	if err != nil {
		return nil, err
	}
	if len(text)+len(dict) > maxDictText {
		return nil, fmt.Errorf("tree lists too long for a delta: %w", fs.ErrNotExist)
	}
	return compress(text, dict, thorough)
}

func (h *Handler) treeText(ctx context.Context, d images.Digest) ([]byte, error) {
	t, err := h.Source.Tree(ctx, d)
	if err != nil {
		return nil, err
	}
	return treeText(t)
}

func treeText(t *tree.Tree) ([]byte, error) {
	var b bytes.Buffer
	_, err := t.WriteTo(&b)
	return b.Bytes(), err
}

func (h *Handler) pack(ctx context.Context, new, old images.Digest, n int) ([]byte, error) {
	nt, err := h.Source.Tree(ctx, new)
	if err != nil {
		return nil, err
	}
	var ot *tree.Tree
	if !old.IsZero() {
		if ot, err = h.Source.Tree(ctx, old); err != nil {
			return nil, err
		}
	}
	p := makePlan(nt, ot)
	if n >= len(p.packs) {
		return nil, fmt.Errorf("the plan has %d packs: %w", len(p.packs), fs.ErrNotExist)
	}
	return encodePack(p.packs[n], h.read, effort(ot != nil))
}

func (h *Handler) read(d images.Digest) ([]byte, error) {
	f, err := h.Source.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	return readAll(f)
}

func (h *Handler) chunks(ctx context.Context, d images.Digest) ([]byte, error) {
	f, err := h.Source.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return encodeChunks(ctx, f)
}

func (h *Handler) blobRange(_ context.Context, d images.Digest, from, to int64) ([]byte, error) {
	f, err := h.Source.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, to-from)
	if _, err := f.ReadAt(data, from); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &badRequest{"range beyond the end"}
		}
		return nil, err
	}
	return compress(data, nil, quick)
}

// cached returns what make makes for the key, from the cache if it is there.
// One that many ask for at once is made once.
func (h *Handler) cached(ctx context.Context, key string, fill func(context.Context) ([]byte, error)) (io.ReadSeeker, string, error) {
	name := sha256.Sum256([]byte(key))
	path := filepath.Join(h.Cache, hex.EncodeToString(name[:]))
	if h.Cache != "" {
		if f, err := os.Open(path); err == nil {
			return cachedFile(f)
		}
	}
	type made struct {
		data []byte
		sum  string
	}
	// What is being made goes on when the first who asked hangs up: others may
	// wait for it too, and whoever comes back finds it in the cache.
	h.making.Add(1)
	ch := h.flight.DoChan(key, func() (any, error) {
		ctx := context.WithoutCancel(ctx)
		if err := h.busy.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer h.busy.Release(1)
		data, err := fill(ctx)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		if h.Cache != "" {
			h.keep(path, data, sum[:])
		}
		return made{data, hex.EncodeToString(sum[:])}, nil
	})
	select {
	case res := <-ch:
		h.making.Done()
		if res.Err != nil {
			return nil, "", res.Err
		}
		m := res.Val.(made)
		return bytes.NewReader(m.data), m.sum, nil
	case <-ctx.Done():
		go func() {
			<-ch
			h.making.Done()
		}()
		return nil, "", context.Cause(ctx)
	}
}

// Wait returns when nothing is being made any more for those who hung up. The
// server must have stopped before.
func (h *Handler) Wait() { h.making.Wait() }

// sectionFile is a cached answer without the sum that stands behind it.
type sectionFile struct {
	*io.SectionReader
	f *os.File
}

func (s sectionFile) Close() error { return s.f.Close() }

func cachedFile(f *os.File) (io.ReadSeeker, string, error) {
	fi, err := f.Stat()
	if err == nil && fi.Size() < sha256.Size {
		err = fmt.Errorf("%s: cut off", f.Name())
	}
	var sum [sha256.Size]byte
	if err == nil {
		_, err = f.ReadAt(sum[:], fi.Size()-sha256.Size)
	}
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return sectionFile{io.NewSectionReader(f, 0, fi.Size()-sha256.Size), f}, hex.EncodeToString(sum[:]), nil
}

// keep stores an answer in the cache. A cache that cannot be written is no
// reason not to answer.
func (h *Handler) keep(path string, data, sum []byte) {
	err := durable.MkdirAll(h.Cache, 0o700)
	if err == nil {
		err = durable.WriteFile(path, append(slices.Clip(data), sum...), 0o600)
	}
	if err == nil {
		err = h.trim()
	}
	if err != nil {
		h.Log.Warn("sync cache", "err", err)
	}
}

// trim deletes what was made longest ago until the cache is within its bound.
func (h *Handler) trim() error {
	h.sweep.Lock()
	defer h.sweep.Unlock()
	list, err := os.ReadDir(h.Cache)
	if err != nil {
		return err
	}
	var files []os.FileInfo
	total := int64(0)
	for _, e := range list {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			files = append(files, fi)
			total += fi.Size()
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, fi := range files {
		if total <= h.CacheBytes {
			break
		}
		if err := os.Remove(filepath.Join(h.Cache, fi.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= fi.Size()
	}
	return nil
}

// encodeChunks lists the chunks of a blob: for each its length in four bytes,
// then its digest.
func encodeChunks(ctx context.Context, r io.Reader) ([]byte, error) {
	var out []byte
	for c, err := range chunk.Default.All(r) {
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		out = append(out, byte(c.Size>>24), byte(c.Size>>16), byte(c.Size>>8), byte(c.Size))
		out = append(out, c.Digest[:]...)
	}
	return out, nil
}

// decodeChunks reads what encodeChunks wrote, for a blob of the given size.
func decodeChunks(text []byte, size int64) ([]chunk.Chunk, error) {
	const entry = 4 + sha256.Size
	if len(text)%entry != 0 {
		return nil, errors.New("list of chunks is cut off")
	}
	var list []chunk.Chunk
	off := int64(0)
	for ; len(text) > 0; text = text[entry:] {
		c := chunk.Chunk{Offset: off, Size: int(text[0])<<24 | int(text[1])<<16 | int(text[2])<<8 | int(text[3])}
		copy(c.Digest[:], text[4:])
		if c.Size <= 0 || c.Size > chunk.Default.Max {
			return nil, fmt.Errorf("list of chunks holds one of %d bytes", c.Size)
		}
		off += int64(c.Size)
		list = append(list, c)
	}
	if off != size {
		return nil, fmt.Errorf("chunks add up to %d bytes, not to %d", off, size)
	}
	return list, nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pin/tftp/v3/netascii"
)

var (
	errSuperseded = errors.New("the client asked again")
	errStopping   = errors.New("the server is stopping")
)

// session is one request and the transfer it leads to.
type session struct {
	client  netip.AddrPort
	to      arrival
	packet  string // the request as it came
	cancel  context.CancelCauseFunc
	started time.Time

	mu   sync.Mutex
	xfer *transfer // once it runs
}

// quiet is how long nothing has been heard from the client; false before its
// first answer.
func (s *session) quiet(now time.Time) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.xfer == nil || s.xfer.heard.Load() == 0 {
		return 0, false
	}
	return now.Sub(time.Unix(0, s.xfer.heard.Load())), true
}

// Serve answers the requests that come to conn until ctx ends, then ends all
// transfers and returns nil. It closes conn.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = wantArrival(raw) // for a socket that Listen has not made
	}
	if err != nil {
		return fmt.Errorf("tftp: %w", err)
	}
	lp, err := newLoop()
	if err != nil {
		return fmt.Errorf("tftp: %w", err)
	}
	defer lp.close()

	var transfers sync.WaitGroup
	defer transfers.Wait()
	sctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errStopping)

	buf, oob := make([]byte, maxRequest+1), make([]byte, 128)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("tftp: receive on %s: %w", conn.LocalAddr(), err)
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		req, err := parseRequest(buf[:n])
		if err != nil || from.Port() == 0 {
			s.noise.log(s.Log, slog.LevelWarn, "tftp: packet ignored", "addr", from, "err", err)
			continue
		}
		ses := &session{client: from, to: parseArrival(oob[:oobn]), packet: string(buf[:n]), started: time.Now()}
		xctx, xcancel := context.WithCancelCause(sctx)
		ses.cancel = xcancel
		if reason, ok := s.enter(ses); !ok {
			xcancel(nil)
			if reason != "" {
				s.refuse(ses, nil, printable(req.name), &refusal{text: reason, level: slog.LevelWarn})
			}
			continue
		}
		transfers.Go(func() {
			defer s.leave(ses)
			defer xcancel(nil)
			s.answer(xctx, lp, ses, req)
		})
	}
}

// enter puts a session on the books, unless its request is a duplicate (no
// reason given) or one too many.
func (s *Server) enter(ses *session) (reason string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.sessions[ses.client]; old != nil {
		// The same request again is a duplicate made on the way, or comes from a
		// client that has not had the answer yet, which is repeated anyway. Only a
		// client that was heard of and then fell silent has started over.
		quiet, heard := old.quiet(ses.started)
		if old.packet == ses.packet && (!heard || quiet < orDefault(s.Timeout, defaultTimeout)) {
			return "", false
		}
		old.cancel(errSuperseded) // ROMs use one port for one request after the other
	}
	addr := ses.client.Addr()
	switch {
	case s.running >= orDefault(s.MaxTransfers, defaultMaxTransfers):
		return "too many transfers, left unanswered", false
	case s.perAddr[addr] >= orDefault(s.MaxPerClient, defaultMaxPerClient):
		return "too many transfers of this client, left unanswered", false
	}
	if s.sessions == nil {
		s.sessions = make(map[netip.AddrPort]*session)
		s.perAddr = make(map[netip.Addr]int)
	}
	s.sessions[ses.client] = ses
	s.perAddr[addr]++
	s.running++
	return "", true
}

func (s *Server) leave(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	addr := ses.client.Addr()
	if s.perAddr[addr]--; s.perAddr[addr] == 0 {
		delete(s.perAddr, addr)
	}
	if s.sessions[ses.client] == ses { // and not one that superseded it
		delete(s.sessions, ses.client)
	}
}

// textUnreadable is all that a client hears of a fault of ours; the log has more.
const textUnreadable = "the server cannot read the file"

// refusal is an error that the client is told of in its own words.
type refusal struct {
	code  uint16
	text  string // for the client
	err   error  // for the log; nil: the same
	level slog.Level
}

func (r *refusal) Error() string {
	if r.err != nil {
		return r.err.Error()
	}
	return r.text
}

// answer serves one request from its first to its last packet.
func (s *Server) answer(ctx context.Context, lp *loop, ses *session, req request) {
	l, err := dialClient(ses.to, ses.client)
	if err != nil {
		s.refuse(ses, nil, printable(req.name), &refusal{err: err, level: slog.LevelError})
		return
	}
	defer l.close()
	name, err := checkRequest(req)
	if err == nil {
		s.emit(ses, Event{Kind: Requested, Name: name})
		var file File
		if file, name, err = s.open(name, ses.client, req.mode == "netascii"); err == nil {
			defer file.Close()
			s.send(ctx, lp, ses, l, req, name, file)
			return
		}
	}
	var ref *refusal
	if !errors.As(err, &ref) {
		ref = &refusal{text: textUnreadable, err: err, level: slog.LevelError}
	}
	s.refuse(ses, l, name, ref)
}

// checkRequest returns the name asked for, cleaned if that is possible.
func checkRequest(req request) (string, error) {
	if req.write {
		return printable(req.name), &refusal{code: codeAccess, text: "this server only sends files", level: slog.LevelWarn}
	}
	if req.mode != "octet" && req.mode != "netascii" {
		return printable(req.name), &refusal{code: codeIllegal, text: "mode " + printable(req.mode) + " is not supported, use octet", level: slog.LevelWarn}
	}
	name, err := cleanName(req.name)
	if err != nil {
		return printable(req.name), &refusal{code: codeAccess, text: "access violation", err: err, level: slog.LevelWarn}
	}
	return name, nil
}

// open finds the file of a name and returns the name it was found under.
func (s *Server) open(name string, client netip.AddrPort, ascii bool) (File, string, error) {
	file, err := s.Open(name, client)
	if spare, ok := spareName(name); ok && errors.Is(err, fs.ErrNotExist) {
		if f, serr := s.Open(spare, client); serr == nil {
			file, name, err = f, spare, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Firmware probes for many names that need not exist.
		return nil, name, &refusal{code: codeNotFound, text: "file not found", level: slog.LevelInfo}
	case errors.Is(err, fs.ErrPermission):
		return nil, name, &refusal{code: codeAccess, text: "access violation", err: err, level: slog.LevelWarn}
	case err != nil:
		return nil, name, err
	}
	if ascii {
		file, err = toNetascii(file)
	}
	return file, name, err
}

// maxText is the largest file translated to netascii, which is meant for text
// and is done in memory: offsets and size are those of the translation.
const maxText = 1 << 20

func toNetascii(f File) (File, error) {
	defer f.Close()
	if f.Size() > maxText {
		return nil, &refusal{code: codeIllegal, text: "too large for netascii, use octet", level: slog.LevelWarn}
	}
	plain := make([]byte, f.Size())
	if n, err := f.ReadAt(plain, 0); n < len(plain) {
		return nil, err
	}
	// bytes.Reader and not a reader on f: the library loses what a reader returns
	// together with its io.EOF.
	text, err := io.ReadAll(netascii.ToReader(bytes.NewReader(plain)))
	return Bytes(text), err
}

// send runs the transfer and reports how it ended.
func (s *Server) send(ctx context.Context, lp *loop, ses *session, l *link, req request, name string, file File) {
	limit := bounds{
		blockSize: min(orDefault(s.MaxBlockSize, maxBlockSize), l.block),
		window:    orDefault(s.MaxWindow, defaultMaxWindow),
	}
	t := &transfer{
		send: l.send, file: file, size: file.Size(), terms: negotiate(req.options, file.Size(), limit),
		timeout:    orDefault(s.Timeout, defaultTimeout),
		maxTimeout: orDefault(s.MaxTimeout, defaultMaxTimeout),
		retries:    orDefault(s.Retries, defaultRetries),
	}
	buf := s.buffer(bufferSize(t.terms))
	defer s.buffers.Put(buf)
	t.buf = *buf
	ses.mu.Lock()
	ses.xfer = t
	ses.mu.Unlock()

	t.start(time.Now())
	lp.transfer(ctx, l, t)
	kind, reason := t.verdict()
	if kind == Failed {
		tellFailure(l, t.err)
	}
	took := time.Since(ses.started)
	s.emit(ses, Event{
		Kind: kind, Name: name, Reason: reason, Size: t.size, Bytes: t.bytes(), Duration: took,
		BlockSize: t.terms.blockSize, Window: t.terms.window, Retransmitted: t.retransmitted,
	})
	args := []any{"name", name, "addr", ses.client, "bytes", t.bytes(), "took", took.Round(time.Millisecond),
		"block", t.terms.blockSize, "window", t.terms.window, "retransmitted", t.retransmitted}
	switch kind {
	case Done:
		s.results.log(s.Log, slog.LevelInfo, "tftp: sent", args...)
	case Probed:
		s.results.log(s.Log, slog.LevelDebug, "tftp: size asked", args...)
	default:
		s.results.log(s.Log, slog.LevelWarn, "tftp: not sent", append(args, "reason", reason)...)
	}
}

func (s *Server) buffer(size int) *[]byte {
	if b, _ := s.buffers.Get().(*[]byte); b != nil && cap(*b) >= size {
		*b = (*b)[:size]
		return b
	}
	b := make([]byte, size)
	return &b
}

// refuse ends a request that leads to no transfer.
func (s *Server) refuse(ses *session, l *link, name string, r *refusal) {
	if l != nil {
		sendError(l, r.code, r.text)
	}
	s.noise.log(s.Log, r.level, "tftp: refused", "name", name, "addr", ses.client, "reason", r.Error())
	s.emit(ses, Event{Kind: Refused, Name: name, Reason: r.Error(), Duration: time.Since(ses.started)})
}

// tellFailure says to a client why its transfer ends, if it should hear that.
func tellFailure(l *link, err error) {
	var fromPeer *peerError
	var ours *refusal
	switch {
	case errors.As(err, &fromPeer), errors.Is(err, errSuperseded): // its port is already about the next file
	case errors.As(err, &ours):
		sendError(l, ours.code, ours.text)
	default:
		sendError(l, codeUndefined, err.Error())
	}
}

// sendError tells the client, who may be gone.
func sendError(l *link, code uint16, text string) {
	b := encodeERROR(code, text)
	_ = l.send(b, len(b))
}

func (s *Server) emit(ses *session, e Event) {
	if s.Events == nil {
		return
	}
	e.Time, e.Client, e.Local = time.Now(), ses.client, ses.to.addr
	s.Events(e)
}

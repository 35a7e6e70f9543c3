// SPDX-License-Identifier: GPL-2.0-or-later

// Package httpd serves the appliance's HTTP: boot scripts, loaders, kernels and
// the other files of a boot, the events that machines report, and the status. It
// decides nothing; what it serves comes from the options.
package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"slate/images"
	"slate/netboot/api"
)

// Options are what the handlers need.
type Options struct {
	// Script writes the boot script for the machine that asks.
	Script func(ctx context.Context, q ScriptQuery) ([]byte, error)
	// Loader opens a loader by name; fs.ErrNotExist if it is not published.
	Loader func(name string) (*os.File, error)
	// Loaded is told of each loader that was fetched; nil: nobody asks.
	Loaded func(name, addr string, size int64, took time.Duration)
	// Controller is the controller's part of the initramfs, and its digest.
	Controller       []byte
	ControllerDigest images.Digest
	// Blob opens a file of the store; fs.ErrNotExist if there is none.
	Blob func(images.Digest) (*os.File, error)
	// Report takes an event of the boot with the id; false if there is no such boot.
	Report func(boot string, e api.Event) bool
	// Facts takes what the machine of the boot says about its hardware; false likewise.
	Facts func(boot string, f api.Facts) bool
	// Orders waits until there is an order for the machine of the boot, or ctx ends; false
	// likewise. config is the revision of the configuration that the machine has seen
	// last; -1: it does not want to know.
	Orders func(ctx context.Context, boot string, config int64) (api.Order, bool)
	// Running takes what the agent of the boot's machine reports; false likewise.
	Running func(boot string, r api.Report) bool
	// TakeLog takes a part of the log of the boot, and returns how much of it is here; false likewise.
	TakeLog func(boot string, from int64, text []byte) (int64, bool, error)
	// Config gives the signed bundle of config.d for the node of the boot;
	// fs.ErrNotExist if there is no such boot.
	Config func(ctx context.Context, boot string) ([]byte, error)
	// Assigned gives what the node of the boot is to run, signed; likewise.
	Assigned func(ctx context.Context, boot string) ([]byte, error)
	Status   func(events bool) (api.Status, error)
	// Load says how much there is to do, and whether the tree is here.
	Load func(tree images.Digest) api.Load
	// Sign signs with the site key; "" if this appliance does not have it.
	Sign func(purpose string, text []byte) string
	// Hello takes in a machine that comes by itself, from the address.
	Hello func(h api.Hello, addr string) (api.Welcome, error)
	// Secured is the signed text that says with which key TLS is served.
	Secured []byte
	// Sync serves versions to machines and other appliances, below api.PathSync;
	// nil: it is not served.
	Sync http.Handler
	Log  *slog.Logger // nil: silent
}

// ScriptQuery is what a loader says about the machine it runs on.
type ScriptQuery struct {
	MAC, UUID, Serial, Product, Platform, Arch string
	Address                                    string // of the machine
}

// immutable is the cache policy of what is named by its digest.
const immutable = "public, max-age=31536000, immutable"

type handler struct{ Options }

// New returns the appliance's handler.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &handler{o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathScript, h.script)
	mux.HandleFunc("GET "+api.PathLoader+"{name}", h.loader)
	mux.HandleFunc("GET "+api.PathController+"{name}", h.controller)
	mux.HandleFunc("GET "+api.PathBlob+"{digest}", h.blob)
	mux.HandleFunc("POST "+api.PathBoots+"{boot}/events", h.event)
	mux.HandleFunc("POST "+api.PathBoots+"{boot}/facts", h.facts)
	mux.HandleFunc("GET "+api.PathBoots+"{boot}/orders", h.orders)
	mux.HandleFunc("POST "+api.PathBoots+"{boot}/report", h.running)
	mux.HandleFunc("POST "+api.PathBoots+"{boot}/log", h.takeLog)
	mux.HandleFunc("GET "+api.PathBoots+"{boot}/config", onlyTLS(h.signed("configuration of a node", func(r *http.Request) ([]byte, error) { return h.Config(r.Context(), r.PathValue("boot")) })))
	mux.HandleFunc("GET "+api.PathBoots+"{boot}/version", h.signed("version of a node", func(r *http.Request) ([]byte, error) { return h.Assigned(r.Context(), r.PathValue("boot")) }))
	mux.HandleFunc("GET "+api.PathTLS, h.pin)
	mux.HandleFunc("GET "+api.PathStatus, serveStatus(h.Status))
	mux.HandleFunc("GET "+api.PathLoad, h.load)
	mux.HandleFunc("POST "+api.PathHello, h.hello)
	if h.Sync != nil {
		mux.Handle(api.PathSync, h.Sync)
	}
	return mux
}

// maxQuery bounds each word of a script query.
const maxQuery = 128

func (h *handler) script(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	var long string
	get := func(key string) string {
		if s := v.Get(key); len(s) <= maxQuery {
			return strings.TrimSpace(s)
		}
		long = key
		return ""
	}
	q := ScriptQuery{MAC: get("mac"), UUID: get("uuid"), Serial: get("serial"), Product: get("product"), Platform: get("platform"), Arch: get("arch"), Address: remote(r)}
	if long != "" {
		http.Error(w, fmt.Sprintf("%s is longer than %d characters", long, maxQuery), http.StatusBadRequest)
		return
	}
	if q.MAC != "" {
		mac, err := net.ParseMAC(q.MAC)
		if err != nil {
			http.Error(w, fmt.Sprintf("mac %q: not a MAC address", q.MAC), http.StatusBadRequest)
			return
		}
		q.MAC = mac.String()
	}
	text, err := h.Script(r.Context(), q)
	if err != nil {
		h.Log.Error("boot script", "mac", q.MAC, "addr", q.Address, "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(text)
}

func (h *handler) loader(w http.ResponseWriter, r *http.Request) {
	f, err := h.Loader(r.PathValue("name"))
	if err != nil {
		h.openError(w, r, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		h.openError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	start := time.Now()
	http.ServeContent(w, r, "", info.ModTime(), f)
	if h.Loaded != nil && r.Method == http.MethodGet && r.Context().Err() == nil { // firmware asks for the size first, with HEAD
		h.Loaded(r.PathValue("name"), remote(r), info.Size(), time.Since(start))
	}
}

func (h *handler) controller(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("name") != h.ControllerDigest.String()+".cpio" {
		http.Error(w, "no such controller: the appliance was updated; fetch the boot script again", http.StatusNotFound)
		return
	}
	h.immutable(w, r, h.ControllerDigest, bytes.NewReader(h.Controller))
}

func (h *handler) blob(w http.ResponseWriter, r *http.Request) {
	d, err := images.ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f, err := h.Blob(d)
	if err != nil {
		h.openError(w, r, err)
		return
	}
	defer f.Close()
	h.immutable(w, r, d, f)
}

// immutable serves content that its digest names. If a boot's loader fetches it,
// the boot's timeline says so.
func (h *handler) immutable(w http.ResponseWriter, r *http.Request, d images.Digest, content io.ReadSeeker) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+d.String()+`"`)
	w.Header().Set("Cache-Control", immutable)
	start := time.Now()
	out := &sent{ResponseWriter: w}
	http.ServeContent(out, r, "", time.Time{}, content)

	q := r.URL.Query()
	boot, part := q.Get(api.QueryBoot), q.Get(api.QueryPart)
	if boot == "" || len(part) > maxQuery {
		return
	}
	size, err := content.Seek(0, io.SeekEnd)
	if err != nil {
		return
	}
	e := api.Event{Step: api.StepKernel, State: api.StateNote}
	length, _ := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	switch {
	case r.Method == http.MethodHead:
		return
	case out.err != nil || out.n < length: // that it hangs up after the last byte is no fault
		e.State = api.StateFailed
		e.Text = fmt.Sprintf("%s: the connection broke after %.1f of %.1f MB and %.0f s", part, float64(out.n)/1e6, float64(size)/1e6, time.Since(start).Seconds())
	default:
		e.Text = fmt.Sprintf("%s: %.1f MB in %.2f s", part, float64(size)/1e6, time.Since(start).Seconds())
		if q.Get(api.QueryLast) != "" {
			e.State = api.StateDone
		}
	}
	h.Report(boot, e)
}

// onlyTLS refuses what carries secrets over plain HTTP.
func onlyTLS(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "this carries secrets: ask by TLS; where and with which key says "+api.PathTLS, http.StatusUpgradeRequired)
			return
		}
		serve(w, r)
	}
}

// pin says where TLS is served and with which key.
func (h *handler) pin(w http.ResponseWriter, _ *http.Request) {
	if h.Secured == nil {
		http.Error(w, "this appliance does not have the site key, and cannot vouch for its TLS", http.StatusServiceUnavailable) // another one can
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(h.Secured)
}

func (h *handler) event(w http.ResponseWriter, r *http.Request) {
	var e api.Event
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, api.MaxEventBytes))
	if err := dec.Decode(&e); err != nil {
		http.Error(w, "event: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := e.Check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !h.Report(r.PathValue("boot"), e) {
		http.Error(w, "no such boot", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// signed serves what the appliance signs for the node of a boot.
func (h *handler) signed(what string, give func(*http.Request) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := give(r)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			http.Error(w, "no such boot", http.StatusNotFound)
			return
		case err != nil:
			h.Log.Error(what, "boot", r.PathValue("boot"), "addr", remote(r), "err", err)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(data)
	}
}

func (h *handler) openError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		h.Log.Warn("asked for what is not here", "path", r.URL.Path, "addr", remote(r))
		http.NotFound(w, r)
		return
	}
	h.Log.Error("open", "path", r.URL.Path, "err", err)
	http.Error(w, "the appliance cannot read it; its log says why", http.StatusInternalServerError)
}

func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

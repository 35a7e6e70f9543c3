// SPDX-License-Identifier: GPL-2.0-or-later

package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"slate/netboot/api"
	"slate/netboot/config"
	"slate/netboot/nodes"
)

// AdminOptions are what the handlers of the admin's socket need.
type AdminOptions struct {
	Nodes   func(targets ...string) ([]api.Node, error) // all without targets
	Node    func(name string) (api.Node, error)
	Explain func(ctx context.Context, name string) (api.Explanation, error)
	Change  func(ctx context.Context, c api.Change) ([]api.Done, error)
	// Acts are what else can be done with nodes, by the last part of the path.
	Acts   map[string]func(ctx context.Context, targets []string) ([]api.Done, error)
	Logs   NodeLogs
	Status func(events bool) (api.Status, error)
	Log    *slog.Logger // nil: silent
}

// NodeLogs are the logs that nodes sent.
type NodeLogs interface {
	// List gives the logs of a node, the newest first.
	List(node string) ([]api.LogEntry, error)
	// ReadFrom gives what the log of a boot holds from an offset on, and a channel
	// that is closed when there may be more.
	ReadFrom(node, boot string, from int64) ([]byte, <-chan struct{}, error)
}

type admin struct{ AdminOptions }

// NewAdmin returns the handler of what only the admin may ask and do. It asks for
// no credentials: whoever can open its socket may do it all.
func NewAdmin(o AdminOptions) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &admin{o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathStatus, serveStatus(o.Status))
	mux.HandleFunc("GET "+api.PathNodes, a.nodes)
	mux.HandleFunc("POST "+api.PathNodes, a.change)
	mux.HandleFunc("GET "+api.PathNodes+"/{name}", a.node)
	mux.HandleFunc("GET "+api.PathNodes+"/{name}/explain", a.explain)
	mux.HandleFunc("GET "+api.PathNodes+"/{name}/logs", a.logs)
	mux.HandleFunc("GET "+api.PathNodes+"/{name}/logs/{boot}", a.log)
	for verb, act := range o.Acts {
		mux.HandleFunc("POST "+api.PathNodes+"/"+verb, a.act(verb, act))
	}
	return mux
}

func (a *admin) nodes(w http.ResponseWriter, r *http.Request) {
	list, err := a.Nodes(r.URL.Query()["target"]...)
	answer(w, a.Log, list, err)
}

func (a *admin) node(w http.ResponseWriter, r *http.Request) {
	n, err := a.Node(r.PathValue("name"))
	answer(w, a.Log, n, err)
}

func (a *admin) explain(w http.ResponseWriter, r *http.Request) {
	e, err := a.Explain(r.Context(), r.PathValue("name"))
	answer(w, a.Log, e, err)
}

// errNoTargets is the answer to a request that would change no node.
var errNoTargets = &nodes.ChangeError{Text: "no nodes are named", Help: "name nodes, globs or groups: pc1, 'pc*', @room1"}

func (a *admin) change(w http.ResponseWriter, r *http.Request) {
	var c api.Change
	if !decode(w, r, maxAdminBytes, "change", &c) {
		return
	}
	if len(c.Targets.Targets) == 0 {
		answer(w, a.Log, nil, errNoTargets)
		return
	}
	a.Log.Info("nodes are changed", "targets", c.Targets.Targets)
	done, err := a.Change(r.Context(), c)
	answer(w, a.Log, done, err)
}

func (a *admin) act(verb string, act func(context.Context, []string) ([]api.Done, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var t api.Targets
		if !decode(w, r, maxAdminBytes, verb, &t) {
			return
		}
		if len(t.Targets) == 0 {
			answer(w, a.Log, nil, errNoTargets)
			return
		}
		a.Log.Info("nodes: "+verb, "targets", t.Targets)
		done, err := act(r.Context(), t.Targets)
		answer(w, a.Log, done, err)
	}
}

// maxAdminBytes bounds a request of the admin's.
const maxAdminBytes = 1 << 20

// decode reads a JSON request strictly, and answers itself if it is none.
func decode(w http.ResponseWriter, r *http.Request, limit int64, what string, v any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil && dec.Decode(&struct{}{}) != io.EOF {
		err = errors.New("more than one JSON value")
	}
	if err == nil {
		return true
	}
	status := http.StatusBadRequest
	if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
		status = http.StatusRequestEntityTooLarge
		err = fmt.Errorf("longer than %d bytes", big.Limit)
	}
	http.Error(w, what+": "+err.Error(), status)
	return false
}

// answer sends v as JSON, or says what is wrong: 404 for nodes that are not there,
// 400 for what makes no sense, 500 for the appliance's own trouble.
func answer(w http.ResponseWriter, log *slog.Logger, v any, err error) {
	if err == nil {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(v)
		return
	}
	status := http.StatusInternalServerError
	if target := (*nodes.TargetError)(nil); errors.As(err, &target) {
		status = http.StatusNotFound
	}
	change, conf := (*nodes.ChangeError)(nil), (*config.Error)(nil)
	if errors.As(err, &change) || errors.As(err, &conf) {
		status = http.StatusBadRequest
	}
	if status == http.StatusInternalServerError {
		log.Error("request of the admin", "err", err)
	}
	if h := (interface{ Hint() string })(nil); errors.As(err, &h) && h.Hint() != "" {
		w.Header().Set(api.HintHeader, strings.Join(strings.Fields(h.Hint()), " "))
	}
	http.Error(w, err.Error(), status)
}

// serveStatus answers with the status, without the events of boots if the query
// says so. A HEAD request only asks whether somebody is there.
func serveStatus(status func(events bool) (api.Status, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if r.Method == http.MethodHead {
			return
		}
		s, err := status(r.URL.Query().Get(api.QueryEvents) != "no")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(s)
	}
}

// facts takes what a machine says about its hardware.
func (h *handler) facts(w http.ResponseWriter, r *http.Request) {
	var f api.Facts
	if !decode(w, r, api.MaxFactsBytes, "facts", &f) {
		return
	}
	if err := f.Check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !h.Facts(r.PathValue("boot"), f) {
		http.Error(w, "no such boot", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// running takes what the agent says about the machine.
func (h *handler) running(w http.ResponseWriter, r *http.Request) {
	var rep api.Report
	if !decode(w, r, api.MaxReportBytes, "report", &rep) {
		return
	}
	if err := rep.Check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !h.Running(r.PathValue("boot"), rep) {
		http.Error(w, "no such boot", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// orderWait is how long a machine that waits for orders is left without an answer.
const orderWait = time.Minute

func (h *handler) orders(w http.ResponseWriter, r *http.Request) {
	revision := int64(-1)
	if text := r.URL.Query().Get(api.QueryConfig); text != "" {
		var err error
		if revision, err = strconv.ParseInt(text, 10, 64); err != nil || revision < 0 {
			http.Error(w, fmt.Sprintf("%s: %q is no revision", api.QueryConfig, text), http.StatusBadRequest)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), orderWait)
	defer cancel()
	o, ok := h.Orders(ctx, r.PathValue("boot"), revision)
	if !ok {
		http.Error(w, "no such boot", http.StatusNotFound)
		return
	}
	answer(w, h.Log, o, nil)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package httpd

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"slate/netboot/api"
	"slate/netboot/nodes"
)

// takeLog takes a part of the log of a boot.
func (h *handler) takeLog(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseInt(r.URL.Query().Get(api.QueryFrom), 10, 64)
	if err != nil || from < 0 {
		http.Error(w, "log: it does not say from where on", http.StatusBadRequest)
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxLogBytes))
	if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
		http.Error(w, fmt.Sprintf("log: longer than %d bytes at once", big.Limit), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, "log: "+err.Error(), http.StatusBadRequest)
		return
	}
	size, ok, err := h.TakeLog(r.PathValue("boot"), from, text)
	if err == nil && !ok {
		http.Error(w, "no such boot", http.StatusNotFound)
		return
	}
	answer(w, h.Log, api.LogSize{Size: size}, err)
}

func (a *admin) logs(w http.ResponseWriter, r *http.Request) {
	list, err := a.Logs.List(r.PathValue("name"))
	answer(w, a.Log, list, err)
}

// log sends the log of a boot, and with follow what is added to it and to the logs
// of later boots.
func (a *admin) log(w http.ResponseWriter, r *http.Request) {
	node, follow := r.PathValue("name"), r.URL.Query().Get(api.QueryFollow) != ""
	e, err := a.findLog(node, r.PathValue("boot"))
	if err != nil {
		answer(w, a.Log, nil, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	boot, from := e.Boot, int64(0)
	for {
		text, more, err := a.Logs.ReadFrom(node, boot, from)
		if err != nil {
			if from == 0 {
				answer(w, a.Log, nil, err)
			}
			return
		}
		if _, err := w.Write(text); err != nil || !follow {
			return
		}
		from += int64(len(text))
		if len(text) > 0 {
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			continue // until there is no more here, which may take time
		}
		if list, err := a.Logs.List(node); err == nil && len(list) > 0 && list[0].Boot != boot && list[0].Number == 1 {
			boot, from = list[0].Boot, 0
			fmt.Fprintf(w, "\n--- boot %s ---\n", boot)
			continue
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

// findLog finds a log by the boot's id, or its number, 1 being the newest.
func (a *admin) findLog(node, which string) (api.LogEntry, error) {
	list, err := a.Logs.List(node)
	if err != nil {
		return api.LogEntry{}, err
	}
	for _, e := range list {
		if e.Boot == which || strconv.Itoa(e.Number) == which {
			return e, nil
		}
	}
	if len(list) == 0 {
		return api.LogEntry{}, &nodes.ChangeError{Text: "there is no log of node " + node + " yet",
			Help: "a machine sends its log once its network is up: see slate node show " + node}
	}
	return api.LogEntry{}, &nodes.ChangeError{Text: fmt.Sprintf("there is no log of a boot %q of node %s", which, node),
		Help: fmt.Sprintf("there are 1 (the newest) to %d: slate node logs %s --list", len(list), node)}
}

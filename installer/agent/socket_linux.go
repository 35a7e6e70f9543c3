// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"slate/installer/servers"
	"slate/netboot/api"
)

// SocketFile is where the agent answers the machine's own root, below its directory.
const SocketFile = "agent.sock"

// Paths of the socket.
const (
	pathStatus = "/status" // GET: LocalStatus
	pathVerify = "/verify" // POST: compare all files; answers in words when it is done
	pathUpdate = "/update" // POST: fetch the version that is assigned; answers in words when it is done
)

// LocalStatus is what the agent says to somebody at the machine.
type LocalStatus struct {
	Node   string `json:"node"`
	Server string `json:"server,omitempty"`
	api.Report
}

// serveSocket answers slate-agent until ctx ends.
func (a *Agent) serveSocket(ctx context.Context, h http.Handler) error {
	name := filepath.Join(a.Dir, SocketFile)
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return err
	}
	if err := os.Chmod(name, 0o600); err != nil { // until then it is below a directory of root's, and nobody knows of it
		return errors.Join(err, l.Close())
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// local is what the socket answers.
func (a *Agent) local(c Config, fleet *servers.Fleet) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathStatus, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(LocalStatus{Node: c.Node, Server: server(fleet), Report: a.report(c)})
	})
	mux.HandleFunc("POST "+pathUpdate, func(w http.ResponseWriter, r *http.Request) {
		text, _, err := a.update(context.WithoutCancel(r.Context()), c, fleet, a.updateConf(), true)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		fmt.Fprintln(w, text)
	})
	mux.HandleFunc("POST "+pathVerify, func(w http.ResponseWriter, r *http.Request) {
		if a.verifying == nil {
			http.Error(w, "the system is not on a drive of this machine", http.StatusConflict)
			return
		}
		text := ""
		if _, err := a.VerifyNow(r.Context(), c, true, func(e api.Event) { text = e.Text }); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, text)
	})
	return mux
}

// server gives the URL of the appliance that is spoken to.
func server(f *servers.Fleet) string {
	if u, _ := f.Known(); u != nil {
		return u.String()
	}
	return ""
}

// ask sends a request to the agent of this machine.
func ask(ctx context.Context, dir, method, path string, out io.Writer) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, SocketFile))
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return errors.New("the agent answers root only")
		}
		return fmt.Errorf("the agent does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s", trimLine(text))
	}
	_, err = io.Copy(out, resp.Body)
	return err
}

// SPDX-License-Identifier: GPL-2.0-or-later

package servers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"slate/installer/servers"
	"slate/netboot/api"

	"github.com/google/go-cmp/cmp"
)

// appliance takes events and can be told to refuse them.
type appliance struct {
	mu     sync.Mutex
	refuse int
	events []api.Event
	paths  []string
	news   chan struct{}
}

func (a *appliance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse > 0 {
		a.refuse--
		http.Error(w, "later", http.StatusServiceUnavailable)
		return
	}
	if r.Method == http.MethodPost {
		var e api.Event
		b, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(b, &e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.events, a.paths = append(a.events, e), append(a.paths, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
		a.news <- struct{}{}
	}
}

func start(t *testing.T, a *appliance) servers.Client {
	t.Helper()
	a.news = make(chan struct{}, 1000)
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return servers.Client{Server: u, Boot: "b1"}
}

func (a *appliance) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-a.news:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d events came, want %d", len(a.events), n)
		}
	}
}

func TestReporterKeepsOrderAndEarlyEvents(t *testing.T) {
	a := &appliance{refuse: 1}
	c := start(t, a)
	r := servers.NewReporter(api.Event{Step: "early", State: "done"})
	for i := range 5 {
		r.Add(api.Event{Step: "network", State: "note", Text: fmt.Sprint(i), Uptime: 1.5})
	}
	r.Start(t.Context(), c)
	a.wait(t, 6) // one was refused and came again
	if left := r.Stop(time.Second); len(left) != 0 {
		t.Errorf("Stop() = %v, want nothing left", left)
	}
	if a.events[0].Step != "early" || a.events[5].Text != "4" || a.events[5].Uptime != 1.5 || a.paths[0] != "/api/v1/boots/b1/events" {
		t.Errorf("events %v at %q", a.events, a.paths)
	}
}

func TestReporterGivesBackWhatWasNotSent(t *testing.T) {
	dead := servers.Client{Server: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Boot: "b1"}
	for name, r := range map[string]*servers.Reporter{"never started": servers.NewReporter(), "nobody there": servers.NewReporter()} {
		want := []api.Event{{Step: "a"}, {Step: "b"}}
		for _, e := range want {
			r.Add(e)
		}
		if name == "nobody there" {
			r.Start(t.Context(), dead)
		}
		begin := time.Now()
		if d := cmp.Diff(want, r.Stop(50*time.Millisecond)); d != "" {
			t.Errorf("%s: left (- want, + got):\n%s", name, d)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: Stop took %v", name, took)
		}
	}
}

func TestReporterIsBounded(t *testing.T) {
	r := servers.NewReporter()
	for i := range 1000 {
		r.Add(api.Event{Step: "a", Text: fmt.Sprint(i) + strings.Repeat("é", 2000)})
	}
	left := r.Stop(0)
	if len(left) != 256 || !strings.HasPrefix(left[255].Text, "999") {
		t.Errorf("%d events kept, the last is %.5q", len(left), left[len(left)-1].Text)
	}
	for _, e := range left {
		if e.State = api.StateNote; e.Check() != nil {
			t.Fatalf("the appliance would refuse it: %v", e.Check())
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package servers_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"slate/images"
	"slate/installer/machine"
	"slate/installer/servers"
	"slate/netboot/api"
)

// peer is an appliance as far as a fleet sees one.
type peer struct {
	*httptest.Server
	key   ed25519.PrivateKey
	load  api.Load
	wait  time.Duration // before each answer
	nonce string        // said instead of the one that was asked

	mu     sync.Mutex
	boots  map[string]bool
	hellos []api.Hello
	events []string
}

func newPeer(t *testing.T, key ed25519.PrivateKey, edit ...func(*peer)) *peer {
	t.Helper()
	p := &peer{key: key, load: api.Load{NFSPort: 2049, Has: true}, boots: map[string]bool{}}
	for _, e := range edit {
		e(p)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathLoad, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(p.wait):
		case <-r.Context().Done():
		}
		l := p.load
		if l.Nonce = p.nonce; l.Nonce == "" {
			l.Nonce = r.URL.Query().Get(api.QueryNonce)
		}
		body, _ := json.Marshal(l)
		if p.key != nil {
			w.Header().Set(api.SignatureHeader, strings.TrimSpace(string(images.Sign(p.key, api.PurposeLoad, body))))
		}
		w.Write(body)
	})
	mux.HandleFunc("POST "+api.PathHello, func(w http.ResponseWriter, r *http.Request) {
		var h api.Hello
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil || h.Check() != nil {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.hellos = append(p.hellos, h)
		id := fmt.Sprint("given", len(p.hellos))
		p.boots[id] = true
		json.NewEncoder(w).Encode(api.Welcome{Node: "pc1", Boot: id})
	})
	mux.HandleFunc("POST "+api.PathBoots+"{boot}/events", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var e api.Event
		if err := json.Unmarshal(body, &e); err != nil {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.boots[r.PathValue("boot")] {
			http.Error(w, "no such boot", http.StatusNotFound)
			return
		}
		p.events = append(p.events, e.Text)
		w.WriteHeader(http.StatusNoContent)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *peer) server(t *testing.T) machine.Server {
	t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return machine.Server{URL: u, Weight: 1}
}

func siteKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// Of one that is slow, one that is dead, one without the image, strangers, and a
// good one, the good one is taken.
func TestProbe(t *testing.T) {
	key, other := siteKey(t), siteKey(t)
	slow := newPeer(t, key, func(p *peer) { p.wait = 120 * time.Millisecond })
	stuck := newPeer(t, key, func(p *peer) { p.wait = time.Minute })
	dead := newPeer(t, key)
	dead.Close()
	bare := newPeer(t, key, func(p *peer) { p.load.Has = false })
	stranger := newPeer(t, other)
	unsigned := newPeer(t, nil)
	replay := newPeer(t, key, func(p *peer) { p.nonce = "0123456789abcdef0" })
	good := newPeer(t, key)
	partner := newPeer(t, other)

	var list []machine.Server
	for _, p := range []*peer{slow, stuck, dead, bare, stranger, unsigned, replay, good, partner} {
		list = append(list, p.server(t))
	}
	list[8].Key, list[8].Standby = public(other), true // another site's, by its own key
	p := servers.Probe{Measure: machine.Measure{Timeout: 500 * time.Millisecond, Samples: 3}, Keys: []ed25519.PublicKey{public(key)}, Tree: strings.Repeat("ab", 32), Name: "lab/3"}
	got := servers.Rank(p.All(t.Context(), list), "pc1")
	want := []struct {
		p        *peer
		why      string
		stranger bool
	}{
		{good, "answers in", false}, {slow, "answers in 1", false}, {partner, "standby", false},
	}
	for i, w := range want {
		if r := got[i]; r.Server.URL.String() != w.p.URL || !strings.Contains(r.Why, w.why) || !r.Usable() {
			t.Errorf("place %d: %s: %s, want %s", i, r.Server.URL, r.Why, w.p.URL)
		}
	}
	why := map[string]string{
		stuck.URL: "does not answer in time", dead.URL: "connection refused", bare.URL: "does not have lab/3",
		stranger.URL: "not trusted here", unsigned.URL: "not signed", replay.URL: "not to our question",
	}
	for _, r := range got[len(want):] {
		u := r.Server.URL.String()
		if !strings.Contains(r.Why, why[u]) || r.Usable() {
			t.Errorf("%s: %s, want %q", u, r.Why, why[u])
		}
		if strange := u == stranger.URL || u == unsigned.URL || u == replay.URL; r.Stranger != strange {
			t.Errorf("%s: Stranger = %v", u, r.Stranger)
		}
	}
	if got[0].Asked != 3 || got[0].RoundTrip <= 0 || got[0].Clock.IsZero() || got[0].Load.NFSPort != 2049 {
		t.Errorf("the good one: %+v", got[0].Finding)
	}
}

func TestFleetGoesToTheNextServer(t *testing.T) {
	a, b := newPeer(t, nil), newPeer(t, nil)
	a.boots["b1"] = true
	f := servers.NewFleet([]machine.Server{a.server(t), b.server(t)}, "b1")
	f.Introduce(api.Hello{MAC: "52:54:00:00:00:01", Image: "lab/3", From: a.URL})
	var moves []string
	f.Moved = func(from, to machine.Server, why error) {
		moves = append(moves, from.URL.String()+" "+to.URL.String())
		if why == nil {
			t.Error("moved without a reason")
		}
	}
	post := func(text string) {
		t.Helper()
		if err := f.Post(t.Context(), api.Event{Step: "root", State: "note", Text: text}); err != nil {
			t.Fatalf("post %s: %v", text, err)
		}
	}
	post("one")
	a.Close()
	post("two")
	post("three")
	if len(moves) != 1 || moves[0] != a.URL+" "+b.URL {
		t.Errorf("moves = %q", moves)
	}
	if u, boot := f.Known(); u.String() != b.URL || boot != "given1" {
		t.Errorf("Known = %s %s", u, boot)
	}
	if len(a.events) != 1 || strings.Join(b.events, " ") != "two three" || len(b.hellos) != 1 || b.hellos[0].Image != "lab/3" {
		t.Errorf("a has %q, b has %q and was greeted with %+v", a.events, b.events, b.hellos)
	}
	// The appliance's state is lost: it is told again who this is.
	b.mu.Lock()
	clear(b.boots)
	b.mu.Unlock()
	post("four")
	if len(b.hellos) != 2 || b.events[2] != "four" {
		t.Errorf("after the loss of its state b has %q and %d greetings", b.events, len(b.hellos))
	}
	if got := f.Servers(); len(got) != 2 || got[0].URL.String() != b.URL {
		t.Errorf("Servers = %v", got)
	}
}

func TestFleetTakesARefusalForAnAnswer(t *testing.T) {
	a, b := newPeer(t, nil), newPeer(t, nil)
	a.boots["b1"] = true
	f := servers.NewFleet([]machine.Server{a.server(t), b.server(t)}, "b1")
	refusal := &api.Error{Status: http.StatusBadRequest, Text: "no"}
	n := 0
	err := f.Do(t.Context(), func(context.Context, servers.Client) error { n++; return refusal })
	if !errors.Is(err, refusal) || n != 1 {
		t.Errorf("Do = %v after %d calls", err, n)
	}
	n = 0
	f.Introduce(api.Hello{MAC: "52:54:00:00:00:01"})
	err = f.Do(t.Context(), func(context.Context, servers.Client) error { n++; return &api.Error{Status: 503, Text: "busy"} })
	if err == nil || n != 2 {
		t.Errorf("with both in trouble Do = %v after %d calls, want 2", err, n)
	}
	if err := servers.NewFleet(nil, "").Post(t.Context(), api.Event{}); err == nil {
		t.Error("no server at all, and no error")
	}
}

func TestFleetOrderKeepsWhatIsKnown(t *testing.T) {
	a, b, c := newPeer(t, nil), newPeer(t, nil), newPeer(t, nil)
	f := servers.NewFleet([]machine.Server{a.server(t), b.server(t)}, "b1")
	f.Order([]machine.Server{c.server(t), a.server(t)})
	if got := strings.Join(f.Mirrors(), " "); got != c.URL+" "+a.URL {
		t.Errorf("Mirrors = %s", got)
	}
	f.Failed(c.URL, errors.New("cut off"))
	f.Failed(c.URL, errors.New("again, from another connection"))
	if u, boot := f.Known(); u.String() != a.URL || boot != "b1" {
		t.Errorf("Known = %s %q, want the first server and its id", u, boot)
	}
}

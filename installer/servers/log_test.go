// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"slate/netboot/api"
)

// shelf is an appliance's end: it appends what fits.
type shelf struct {
	mu   sync.Mutex
	text string
	fail error
	asks int
}

func (s *shelf) post(_ context.Context, from int64, text []byte) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asks++; s.fail != nil {
		return 0, s.fail
	}
	if int(from) == len(s.text) {
		s.text += string(text)
	}
	return int64(len(s.text)), nil
}

func TestShipLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		log := "one\n"
		read := func(from int64) []byte {
			mu.Lock()
			defer mu.Unlock()
			return []byte(log[min(int(from), len(log)):])
		}
		add := func(text string) {
			mu.Lock()
			log += text
			mu.Unlock()
		}
		s := &shelf{}
		done := make(chan bool)
		go func() { ShipLog(ctx, read, s.post); close(done) }()
		arrived := func(what string, after time.Duration) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.text != log {
				t.Errorf("%s: the appliance has %d bytes, want %d", what, len(s.text), len(log))
			}
		}
		arrived("at first", 0)
		add("two\n")
		arrived("more", logPause)
		add(strings.Repeat("x", 3*api.MaxLogBytes))
		arrived("much", logPause)
		set := func(f func()) {
			s.mu.Lock()
			defer s.mu.Unlock()
			f()
		}
		set(func() { s.fail = errors.New("no route to host") })
		add("three\n")
		time.Sleep(10 * time.Minute)
		set(func() { s.fail = nil })
		arrived("after a time without network", logPauseMax)
		set(func() { s.text = s.text[:2] }) // restored from an old copy
		add("four\n")
		arrived("the appliance lost some", logPauseMax)
		set(func() { s.fail = &api.Error{Status: http.StatusNotFound} })
		add("five\n")
		time.Sleep(logPauseMax)
		synctest.Wait()
		var asks, later int
		set(func() { asks = s.asks })
		add("six\n")
		time.Sleep(time.Hour)
		set(func() { later = s.asks })
		if later != asks {
			t.Errorf("asked %d times more after the boot was unknown", later-asks)
		}
		cancel()
		<-done
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package servers speaks to the appliance: it asks whether it is there and tells
// it how the boot goes. Whatever the network or the appliance does, a boot never
// waits for this package longer than the caller allows.
package servers

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"slate/images"
	"slate/netboot/api"
)

// Client speaks to one appliance about one boot.
type Client struct {
	Server *url.URL
	Boot   string
	HTTP   *http.Client // nil: one with short time-outs
}

// Usable reports whether there is anything to speak to.
func (c Client) Usable() bool { return c.Server != nil && c.Boot != "" }

func (c Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return &http.Client{Timeout: 2 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Post reports one event.
func (c Client) Post(ctx context.Context, e api.Event) error {
	a := api.Client{Base: c.Server.String(), HTTP: c.http()}
	return a.PostEvent(ctx, c.Boot, e)
}

// PostFacts reports the machine's hardware.
func (c Client) PostFacts(ctx context.Context, f api.Facts) error {
	a := api.Client{Base: c.Server.String(), HTTP: c.http()}
	return a.PostFacts(ctx, c.Boot, f)
}

// Assigned fetches what the machine is to run, as it is signed.
func (c Client) Assigned(ctx context.Context) ([]byte, error) {
	h := *c.http()
	h.Timeout = 10 * time.Second
	a := api.Client{Base: c.Server.String(), HTTP: &h}
	return a.Assigned(ctx, c.Boot)
}

// Controller fetches the archive of the controller with a digest.
func (c Client) Controller(ctx context.Context, d images.Digest) ([]byte, error) {
	h := *c.http()
	h.Timeout = 5 * time.Minute
	a := api.Client{Base: c.Server.String(), HTTP: &h}
	return a.Controller(ctx, d)
}

// PostReport says how the running machine is.
func (c Client) PostReport(ctx context.Context, r api.Report) error {
	a := api.Client{Base: c.Server.String(), HTTP: c.http()}
	return a.PostReport(ctx, c.Boot, r)
}

// Config fetches the signed configuration of this node, by TLS with a key that one
// of the site's keys vouches for.
func (c Client) Config(ctx context.Context, keys []ed25519.PublicKey, limit int64) ([]byte, error) {
	a, err := api.Secure(ctx, c.Server.String(), keys)
	if err != nil {
		return nil, err
	}
	defer a.HTTP.CloseIdleConnections()
	a.HTTP.Timeout = 10 * time.Second
	return a.Config(ctx, c.Boot, limit)
}

// WaitOrder waits for an order of the appliance; an empty one says to ask again.
func (c Client) WaitOrder(ctx context.Context, revision int64) (api.Order, error) {
	h := *c.http()
	h.Timeout = 90 * time.Second // the appliance leaves the question open for a minute
	a := api.Client{Base: c.Server.String(), HTTP: &h}
	return a.WaitOrder(ctx, c.Boot, revision)
}

// maxQueue bounds the events kept for an appliance that does not answer.
const maxQueue = 256

// Reporter sends events in their order, in the background. Its zero value keeps
// events until Start gives it somewhere to send them.
type Reporter struct {
	mu      sync.Mutex
	queue   []api.Event
	wake    chan struct{}
	idle    *sync.Cond
	stopped chan struct{}
	cancel  context.CancelFunc
}

// NewReporter makes a reporter that holds the given events already.
func NewReporter(pending ...api.Event) *Reporter {
	r := &Reporter{queue: pending, wake: make(chan struct{}, 1)}
	r.idle = sync.NewCond(&r.mu)
	return r
}

// Add puts an event in the queue. With a full queue the oldest note goes.
func (r *Reporter) Add(e api.Event) {
	if len(e.Text) > api.MaxEventText {
		e.Text = strings.ToValidUTF8(e.Text[:api.MaxEventText-3], "") + "..."
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= maxQueue {
		r.queue = r.queue[1:]
	}
	r.queue = append(r.queue, e)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Poster is where events go: a Client, or a Fleet.
type Poster interface {
	Usable() bool
	Post(context.Context, api.Event) error
}

// Start sends in the background. The pause after a failure grows to 30 s.
func (r *Reporter) Start(ctx context.Context, c Poster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil || !c.Usable() {
		return
	}
	ctx, r.cancel = context.WithCancel(ctx)
	r.stopped = make(chan struct{})
	go r.run(ctx, c)
}

func (r *Reporter) run(ctx context.Context, c Poster) {
	defer close(r.stopped)
	pause := time.Second
	for ctx.Err() == nil {
		r.mu.Lock()
		var next api.Event
		have := len(r.queue) > 0
		if have {
			next = r.queue[0]
		} else {
			r.idle.Broadcast()
		}
		r.mu.Unlock()
		if !have {
			select {
			case <-r.wake:
			case <-ctx.Done():
			}
			continue
		}
		if err := c.Post(ctx, next); err != nil {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(pause*2, 30*time.Second)
			continue
		}
		pause = time.Second
		r.mu.Lock()
		if len(r.queue) > 0 && r.queue[0] == next {
			r.queue = r.queue[1:]
		}
		r.mu.Unlock()
	}
}

// Stop gives the sender up to wait to empty the queue, ends it, and returns what
// was not sent.
func (r *Reporter) Stop(wait time.Duration) []api.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		over := false
		timer := time.AfterFunc(wait, func() { r.mu.Lock(); over = true; r.mu.Unlock(); r.idle.Broadcast() })
		for len(r.queue) > 0 && !over {
			r.idle.Wait()
		}
		timer.Stop()
		r.cancel()
		r.cancel = nil
		r.mu.Unlock()
		<-r.stopped
		r.mu.Lock()
	}
	left := r.queue
	r.queue = nil
	return left
}

// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"slate/images"
	"slate/installer/machine"
	"slate/netboot/api"
)

// Fleet is the servers of a site as one boot speaks to them: always to one, and to
// the next when that does not answer. It is safe for concurrent use.
type Fleet struct {
	// Moved, if set, is told when another server is taken.
	Moved func(from, to machine.Server, why error)
	HTTP  *http.Client // see Client

	mu      sync.Mutex
	hello   api.Hello
	list    []member // best first
	current int
}

// member is a server, and what this boot is called there.
type member struct {
	machine.Server
	boot string
}

// NewFleet makes a fleet of servers in the order of preference. The boot is known
// by its id to the first; the others get to know it when they are needed.
func NewFleet(list []machine.Server, boot string) *Fleet {
	f := &Fleet{}
	for i, s := range list {
		m := member{Server: s}
		if i == 0 {
			m.boot = boot
		}
		f.list = append(f.list, m)
	}
	return f
}

// Introduce sets what the machine says to a server that does not know this boot
// yet. Without a MAC address it goes to no other.
func (f *Fleet) Introduce(h api.Hello) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hello = h
}

// Introduction is what Introduce set.
func (f *Fleet) Introduction() api.Hello {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hello
}

// Order puts the servers into another order and takes the first. Those that are
// not in it are forgotten, new ones are added.
func (f *Fleet) Order(list []machine.Server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.list
	f.list, f.current = nil, 0
	for _, s := range list {
		m := member{Server: s}
		if i := slices.IndexFunc(old, func(o member) bool { return o.URL.String() == s.URL.String() }); i >= 0 {
			m.boot = old[i].boot
		}
		f.list = append(f.list, m)
	}
}

// Servers lists the servers, the one that is spoken to now first.
func (f *Fleet) Servers() []machine.Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []machine.Server
	for i := range f.list {
		out = append(out, f.list[(f.current+i)%len(f.list)].Server)
	}
	return out
}

// Known gives the server that is spoken to, and the boot's id there.
func (f *Fleet) Known() (u *url.URL, boot string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) == 0 {
		return nil, ""
	}
	return f.list[f.current].URL, f.list[f.current].boot
}

// Adopt notes that a server knows this boot by an id, and speaks to it from now on.
func (f *Fleet) Adopt(u *url.URL, boot string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.list {
		if f.list[i].URL.String() == u.String() {
			f.list[i].boot, f.current = boot, i
		}
	}
}

// Usable reports whether there is anything to speak to.
func (f *Fleet) Usable() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.list, func(m member) bool { return m.boot != "" || f.hello.MAC != "" })
}

// errNoServer is the end of a list without any server.
var errNoServer = errors.New("no server is named")

// Do calls fn with a client of the present server. If that server is dead, or in
// trouble of its own, the next one is taken and fn is called again: once with each
// server at most. What a server refuses is the answer.
func (f *Fleet) Do(ctx context.Context, fn func(context.Context, Client) error) error {
	f.mu.Lock()
	n, at := len(f.list), f.current
	f.mu.Unlock()
	err := errNoServer
	for i := range n {
		c, m, ierr := f.client(ctx, (at+i)%n)
		if ierr == nil {
			ierr = fn(ctx, c)
			if forgotten(ierr) && f.forget(m) {
				// Its state was lost, or it is another one at the same address.
				if c, m, ierr = f.client(ctx, (at+i)%n); ierr == nil {
					ierr = fn(ctx, c)
				}
			}
			if ierr == nil || !dead(ierr) || ctx.Err() != nil {
				if ierr == nil {
					f.take((at+i)%n, m, err)
				}
				return ierr
			}
		}
		if i == 0 || errors.Is(err, errNoServer) {
			err = ierr // of several, the error of the preferred one says most
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// take makes the server that answered the one that is spoken to.
func (f *Fleet) take(i int, m member, why error) {
	f.mu.Lock()
	if i >= len(f.list) || f.list[i].URL != m.URL || f.current == i {
		f.mu.Unlock()
		return
	}
	from := f.list[f.current].Server
	f.current = i
	moved := f.Moved
	f.mu.Unlock()
	if moved != nil {
		moved(from, m.Server, why)
	}
}

// client makes the client of server i, which is told of this boot if need be.
func (f *Fleet) client(ctx context.Context, i int) (Client, member, error) {
	f.mu.Lock()
	if i >= len(f.list) {
		f.mu.Unlock()
		return Client{}, member{}, errNoServer
	}
	m, hello := f.list[i], f.hello
	f.mu.Unlock()
	c := Client{Server: m.URL, Boot: m.boot, HTTP: f.HTTP}
	if m.boot != "" {
		return c, m, nil
	}
	if hello.MAC == "" {
		return c, m, errors.New("that server does not know this machine, and the machine has no address yet")
	}
	w, err := c.Hello(ctx, hello)
	if err != nil {
		return c, m, err
	}
	if w.Boot == "" {
		return c, m, &refusedError{w}
	}
	c.Boot, m.boot = w.Boot, w.Boot
	f.mu.Lock()
	if i < len(f.list) && f.list[i].URL == m.URL {
		f.list[i].boot = w.Boot
	}
	f.mu.Unlock()
	return c, m, nil
}

// refusedError is a server that gives this machine nothing to boot.
type refusedError struct{ w api.Welcome }

func (e *refusedError) Error() string { return e.w.Refused }

// Hint is the server's.
func (e *refusedError) Hint() string { return e.w.Hint }

// forgotten tells whether the server does not know this boot any more.
func forgotten(err error) bool {
	var a *api.Error
	return errors.As(err, &a) && a.Status == http.StatusNotFound
}

// forget makes the next client of a server introduce this boot again, if it can.
func (f *Fleet) forget(m member) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.list, func(o member) bool { return o.URL.String() == m.URL.String() })
	if i < 0 || f.hello.MAC == "" {
		return false
	}
	f.list[i].boot = ""
	return true
}

// dead tells whether another server may do better: this one did not answer, or
// said that it cannot; what it refuses, another one would too.
func dead(err error) bool {
	var a *api.Error
	if !errors.As(err, &a) {
		return true
	}
	return a.Status >= 500 || a.Status == http.StatusTooManyRequests
}

// Post reports one event.
func (f *Fleet) Post(ctx context.Context, e api.Event) error {
	return f.Do(ctx, func(ctx context.Context, c Client) error { return c.Post(ctx, e) })
}

// PostFacts reports the machine's hardware.
func (f *Fleet) PostFacts(ctx context.Context, facts api.Facts) error {
	return f.Do(ctx, func(ctx context.Context, c Client) error { return c.PostFacts(ctx, facts) })
}

// PostLog sends a part of the boot's log. A server that did not have the parts
// before asks for them.
func (f *Fleet) PostLog(ctx context.Context, from int64, text []byte) (size int64, err error) {
	err = f.Do(ctx, func(ctx context.Context, c Client) (err error) { size, err = c.PostLog(ctx, from, text); return err })
	return size, err
}

// Config asks for the signed configuration of the boot's node, of so many bytes at most.
// keys are the site's.
func (f *Fleet) Config(ctx context.Context, keys []ed25519.PublicKey, limit int64) (data []byte, err error) {
	err = f.Do(ctx, func(ctx context.Context, c Client) (err error) { data, err = c.Config(ctx, keys, limit); return err })
	return data, err
}

// Assigned fetches what the machine is to run, as it is signed.
func (f *Fleet) Assigned(ctx context.Context) (data []byte, err error) {
	err = f.Do(ctx, func(ctx context.Context, c Client) (err error) { data, err = c.Assigned(ctx); return err })
	return data, err
}

// Controller fetches the archive of the controller with a digest, and verifies it.
func (f *Fleet) Controller(ctx context.Context, d images.Digest) (data []byte, err error) {
	err = f.Do(ctx, func(ctx context.Context, c Client) (err error) {
		data, err = c.Controller(ctx, d)
		if err == nil && images.Digest(sha256.Sum256(data)) != d {
			err = fmt.Errorf("%s sent another controller than %s", c.Server, d.Short())
		}
		return err
	})
	return data, err
}

// PostReport says how the running machine is.
func (f *Fleet) PostReport(ctx context.Context, r api.Report) error {
	return f.Do(ctx, func(ctx context.Context, c Client) error { return c.PostReport(ctx, r) })
}

// WaitOrder waits for an order of the server that is spoken to. revision is that of
// the configuration that the machine has seen last.
func (f *Fleet) WaitOrder(ctx context.Context, revision int64) (api.Order, error) {
	var o api.Order
	err := f.Do(ctx, func(ctx context.Context, c Client) (err error) { o, err = c.WaitOrder(ctx, revision); return err })
	return o, err
}

// Mirrors are the base URLs for a transfer (see images/transfer), best first.
func (f *Fleet) Mirrors() []string {
	var out []string
	for _, s := range f.Servers() {
		out = append(out, s.URL.String())
	}
	return out
}

// Failed says that a transfer found the server at the base URL dead: the next one
// is spoken to from now on.
func (f *Fleet) Failed(base string, why error) {
	f.mu.Lock()
	if len(f.list) < 2 || f.list[f.current].URL.String() != base {
		f.mu.Unlock()
		return
	}
	from := f.list[f.current].Server
	f.current = (f.current + 1) % len(f.list)
	to, moved := f.list[f.current].Server, f.Moved
	f.mu.Unlock()
	if moved != nil {
		moved(from, to, why)
	}
}

// helloTimeout is for the answer to a greeting: the server may have to read config.d.
const helloTimeout = 10 * time.Second

// Hello introduces the machine.
func (c Client) Hello(ctx context.Context, h api.Hello) (api.Welcome, error) {
	client := *c.http()
	client.Timeout = helloTimeout
	a := api.Client{Base: c.Server.String(), HTTP: &client}
	return a.Hello(ctx, h)
}

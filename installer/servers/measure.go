// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"slate/images"
	"slate/installer/machine"
	"slate/netboot/api"
)

// Probe looks at servers.
type Probe struct {
	machine.Measure
	Keys []ed25519.PublicKey // the site's; none: no proof is asked for
	Tree string              // digest of the tree that is needed; "": none
	Name string              // of its image, for people
}

// All looks at all servers at once.
func (p Probe) All(ctx context.Context, list []machine.Server) []Finding {
	out := make([]Finding, len(list))
	var wg sync.WaitGroup
	for i, s := range list {
		wg.Go(func() { out[i] = p.one(ctx, s) })
	}
	wg.Wait()
	return out
}

// one asks one server several times, over one connection. The first answer
// tells whether it is the right one at all.
func (p Probe) one(ctx context.Context, s machine.Server) Finding {
	f := Finding{Server: s}
	t := &http.Transport{DisableCompression: true}
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, Timeout: p.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var last error
	for f.Asked < max(1, p.Samples) && ctx.Err() == nil {
		f.Asked++
		took, err := p.ask(ctx, client, &f)
		if err != nil {
			f.Failed++
			last = err
			if !soft(err) || f.Failed > 1 && f.Failed == f.Asked {
				break // a stranger, or as good as dead: more questions are lost time
			}
			continue
		}
		if f.RoundTrip == 0 || took < f.RoundTrip {
			f.RoundTrip = took
		}
	}
	if last != nil && (!soft(last) || f.Failed == f.Asked) {
		f.Err, f.Stranger = last, !soft(last)
	}
	if f.Asked == 0 {
		f.Err = context.Cause(ctx)
	}
	if f.Err == nil && p.Tree != "" && !f.Load.Has {
		f.Lacks = cmpOr(p.Name, "the image")
	}
	return f
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// strangerError says that what answers is not an appliance of the site.
type strangerError struct{ err error }

func (e *strangerError) Error() string { return e.err.Error() }
func (e *strangerError) Unwrap() error { return e.err }

// soft tells whether asking again may help.
func soft(err error) bool {
	var s *strangerError
	return !errors.As(err, &s)
}

func (p Probe) ask(ctx context.Context, client *http.Client, f *Finding) (time.Duration, error) {
	nonce := rand.Text()
	q := url.Values{api.QueryNonce: {nonce}}
	if p.Tree != "" {
		q.Set(api.QueryTree, p.Tree)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(f.Server.URL.String(), "/")+api.PathLoad+"?"+q.Encode(), nil)
	if err != nil {
		return 0, &strangerError{err}
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, plain(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	took := time.Since(start)
	if err != nil {
		return 0, plain(err)
	}
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("answers %q", resp.Status)
		if resp.StatusCode >= 500 {
			return 0, err
		}
		return 0, &strangerError{err}
	}
	if err := p.verify(f.Server, body, resp.Header.Get(api.SignatureHeader)); err != nil {
		return 0, &strangerError{fmt.Errorf("refused: it does not prove the site's key: %w", err)}
	}
	var l api.Load
	if err := json.Unmarshal(body, &l); err != nil || l.Nonce != nonce {
		return 0, &strangerError{errors.New("refused: its answer is not to our question")}
	}
	f.Load = l
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		f.Clock = t
	}
	return took, nil
}

func (p Probe) verify(s machine.Server, body []byte, sig string) error {
	keys := p.Keys
	if s.Key != nil {
		keys = []ed25519.PublicKey{s.Key}
	}
	if len(keys) == 0 {
		return nil
	}
	return images.Verify(keys, api.PurposeLoad, body, []byte(sig))
}

// plain takes the method and the URL, which are said anyway, off a transport error.
func plain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return errors.New("does not answer in time")
	}
	return err
}

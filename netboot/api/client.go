// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Client talks to an appliance.
type Client struct {
	Base string       // base URL, e.g. http://10.77.0.1:8070
	HTTP *http.Client // nil: http.DefaultClient
}

// PostEvent reports an event of the boot with the given id.
func (c *Client) PostEvent(ctx context.Context, boot string, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, EventsPath(boot), body, nil)
}

// PostFacts reports the hardware of the machine that the boot runs on.
func (c *Client) PostFacts(ctx context.Context, boot string, f Facts) error {
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, FactsPath(boot), body, nil)
}

// Config fetches the signed bundle of config.d for the node of the boot, of at most
// limit bytes.
func (c *Client) Config(ctx context.Context, boot string, limit int64) ([]byte, error) {
	return c.fetch(ctx, ConfigPath(boot), limit)
}

// WaitOrder waits until the appliance has an order for the machine that runs the
// boot; an empty one says that there was none for a while: ask again. revision is
// that of the configuration that the machine has seen last.
func (c *Client) WaitOrder(ctx context.Context, boot string, revision int64) (Order, error) {
	var o Order
	err := c.do(ctx, http.MethodGet, OrdersPath(boot)+"?"+QueryConfig+"="+strconv.FormatInt(revision, 10), nil, &o)
	return o, err
}

// Error is a request that the appliance refused, in its own words.
type Error struct {
	Status int
	Text   string
	Help   string
}

func (e *Error) Error() string { return e.Text }

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Help }

// HintHeader carries the hint of a refusal.
const HintHeader = "Slate-Hint"

// Summary asks the appliance for its status, without the events of boots.
func (c *Client) Summary(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, PathStatus+"?"+QueryEvents+"=no", nil, &s)
	return s, err
}

// Status asks the appliance for its status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, PathStatus, nil, &s)
	return s, err
}

// do sends one request and decodes the JSON answer into out unless that is nil.
// The error of a refused request carries the appliance's own words.
func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 256<<20)).Decode(out); err != nil {
		return fmt.Errorf("%s %s: answer: %w", method, resp.Request.URL, err)
	}
	return nil
}

// send sends one request; the answer to one that was not refused is the caller's
// to close.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		words, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, &Error{resp.StatusCode, fmt.Sprintf("appliance: %s (%s)", strings.TrimSpace(string(words)), strings.ToLower(http.StatusText(resp.StatusCode))), resp.Header.Get(HintHeader)}
	}
	return resp, nil
}

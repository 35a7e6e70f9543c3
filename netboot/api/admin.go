// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
)

// AdminSocket is the name of the admin's socket below the data directory. Only
// whoever may read the appliance's state can open it; the nodes cannot.
const AdminSocket = "admin.sock"

// ShortSocket gives a name of the socket file that fits the 108 bytes which the
// kernel allows, however long its own is, for as long as it is not closed.
func ShortSocket(file string) (short string, closer func() error, err error) {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(file)), dir.Close, nil
}

// DialAdmin returns a client for the admin's socket of an appliance on this
// machine. It sees what an ordinary client sees, and more.
func DialAdmin(socket string) *Client {
	return &Client{Base: "http://appliance", HTTP: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			short, closer, err := ShortSocket(socket)
			if err != nil {
				return nil, err
			}
			defer closer()
			conn, err := new(net.Dialer).DialContext(ctx, "unix", short)
			var errno syscall.Errno
			if errors.As(err, &errno) { // the short name says nothing to a person
				err = fmt.Errorf("%s: %w", socket, errno)
			}
			return conn, err
		},
	}}}
}

// Nodes lists the nodes that the targets name, or all without any. They come
// with their newest boot only.
func (c *Client) Nodes(ctx context.Context, targets ...string) ([]Node, error) {
	var out []Node
	path := PathNodes
	if len(targets) > 0 {
		path += "?" + url.Values{"target": targets}.Encode()
	}
	err := c.do(ctx, http.MethodGet, path, nil, &out)
	return out, err
}

// Node asks for one node with all boots that are kept.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	var n Node
	err := c.do(ctx, http.MethodGet, NodePath(name), nil, &n)
	return n, err
}

// Explain asks what the node would boot now, and why.
func (c *Client) Explain(ctx context.Context, name string) (Explanation, error) {
	var e Explanation
	err := c.do(ctx, http.MethodGet, NodePath(name)+"/explain", nil, &e)
	return e, err
}

// Change changes nodes.
func (c *Client) Change(ctx context.Context, change Change) ([]Done, error) {
	return c.act(ctx, PathNodes, change)
}

// Act does something with nodes: forget, wake, reboot, update, rollback or verify.
func (c *Client) Act(ctx context.Context, verb string, targets ...string) ([]Done, error) {
	return c.act(ctx, PathNodes+"/"+verb, Targets{targets})
}

func (c *Client) act(ctx context.Context, path string, what any) ([]Done, error) {
	body, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	var out []Done
	err = c.do(ctx, http.MethodPost, path, body, &out)
	return out, err
}

// SPDX-License-Identifier: GPL-2.0-or-later

package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Client talks to the supervisor of the lab in Dir.
type Client struct{ Dir string }

// ErrNotUp is the error when there is no lab in the directory.
var ErrNotUp = errors.New("no such lab is up")

// line reads what may have been read ahead, and writes to the connection.
type line struct {
	io.Reader
	io.Writer
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(c.Dir, controlSocket))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNotUp
	}
	return conn, err
}

// Status returns the state of the lab.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	b, err := c.do(ctx, "GET", "/status")
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	return st, err
}

// Down ends the lab. It is gone, with all its processes and files, when Down
// returns.
func (c *Client) Down(ctx context.Context) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(st.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("the lab's supervisor, process %d: %w", st.Pid, err)
	}
	defer unix.Close(fd)
	if _, err := c.do(ctx, "POST", "/down"); err != nil {
		return err
	}
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the lab's supervisor: %w", err)
		}
	}
	return context.Cause(ctx)
}

// Screen returns a PNG picture of a machine's screen. A machine is named by its
// name or its number, from 1.
func (c *Client) Screen(ctx context.Context, node string) ([]byte, error) {
	return c.do(ctx, "GET", "/nodes/"+url.PathEscape(node)+"/screen")
}

// Power does one of start, reset, poweroff, powercut to a machine.
func (c *Client) Power(ctx context.Context, node, action string) error {
	_, err := c.do(ctx, "POST", "/nodes/"+url.PathEscape(node)+"/"+url.PathEscape(action))
	return err
}

// Console connects rw with a machine's console until either ends.
func (c *Client) Console(ctx context.Context, node string, rw io.ReadWriter) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://lab/nodes/"+url.PathEscape(node)+"/console", nil)
	if err != nil {
		return err
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return answerError(resp)
	}
	ended := make(chan error, 2)
	go func() { _, err := io.Copy(conn, rw); ended <- err }()
	go func() { _, err := io.Copy(rw, br); ended <- err }()
	return <-ended
}

func (c *Client) do(ctx context.Context, method, path string) ([]byte, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }}
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return nil, answerError(resp)
	}
	return io.ReadAll(resp.Body)
}

// answerError is the supervisor's own words.
func answerError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return fmt.Errorf("the lab answers %s", resp.Status)
	}
	return errors.New(strings.TrimSpace(string(b)))
}

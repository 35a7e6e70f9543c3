// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// LogSize is the answer to a part of a log: how much of it the appliance has. The
// sender goes on from there.
type LogSize struct {
	Size int64 `json:"size"`
}

// LogEntry is one log that the appliance keeps.
type LogEntry struct {
	Number  int       `json:"number"` // 1 is the newest
	Boot    string    `json:"boot"`
	Changed time.Time `json:"changed"` // when it grew last
}

// PostLog sends what the boot's log holds from an offset on, MaxLogBytes at most,
// and returns how much of it the appliance has then.
func (c *Client) PostLog(ctx context.Context, boot string, from int64, text []byte) (int64, error) {
	var size LogSize
	err := c.do(ctx, http.MethodPost, LogPath(boot, from), text, &size)
	return size.Size, err
}

// Logs lists the logs that are kept of a node, the newest first.
func (c *Client) Logs(ctx context.Context, node string) ([]LogEntry, error) {
	var out []LogEntry
	err := c.do(ctx, http.MethodGet, NodePath(node)+"/logs", nil, &out)
	return out, err
}

// Log copies a log of a node to w. The boot is a number, 1 for the newest, or a
// boot's id. With follow it goes on until ctx ends, and to the next boot when one
// starts.
func (c *Client) Log(ctx context.Context, node, boot string, follow bool, w io.Writer) error {
	q := url.Values{}
	if follow {
		q.Set(QueryFollow, strconv.FormatBool(follow))
	}
	resp, err := c.send(ctx, http.MethodGet, NodePath(node)+"/logs/"+url.PathEscape(boot)+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

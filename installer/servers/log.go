// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"context"
	"net/http"
	"time"

	"slate/netboot/api"
)

// PostLog sends what this boot's log holds from an offset on, and returns how much
// of it the appliance has then.
func (c Client) PostLog(ctx context.Context, from int64, text []byte) (int64, error) {
	h := *c.http()
	h.Timeout = 10 * time.Second // 64 KiB over a bad cable
	a := api.Client{Base: c.Server.String(), HTTP: &h}
	return a.PostLog(ctx, c.Boot, from, text)
}

// logPause is between two looks whether the log has grown, and grows to
// logPauseMax while nobody takes it.
const (
	logPause    = 2 * time.Second
	logPauseMax = time.Minute
)

// ShipLog sends a growing log until ctx ends. read gives what the log holds from an
// offset on. An appliance that has less than was sent, because it lost it, gets it
// again; one that refuses the log for good is not asked again.
func ShipLog(ctx context.Context, read func(from int64) []byte, post func(ctx context.Context, from int64, text []byte) (int64, error)) {
	var sent int64
	pause := logPause
	for {
		text := read(sent)
		text = text[:min(len(text), api.MaxLogBytes)]
		if len(text) > 0 {
			size, err := post(ctx, sent, text)
			switch {
			case err == nil && size != sent:
				sent, pause = size, logPause
				continue
			case refused(err):
				return
			}
			pause = min(2*pause, logPauseMax)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// refused tells an answer that will not change: this boot is unknown there.
func refused(err error) bool {
	e, ok := err.(*api.Error)
	return ok && e.Status == http.StatusNotFound
}

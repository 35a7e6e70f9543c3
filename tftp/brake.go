// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/time/rate"
)

// brake lets a burst of log lines through and then one a second, so that nobody
// can fill a disk by sending packets. The next line after a gap says how many
// were left out.
type brake struct {
	once    sync.Once
	limiter *rate.Limiter

	mu      sync.Mutex
	leftOut int
}

func (b *brake) log(l *slog.Logger, level slog.Level, msg string, args ...any) {
	ctx := context.Background()
	if l == nil || !l.Enabled(ctx, level) {
		return
	}
	b.once.Do(func() { b.limiter = rate.NewLimiter(1, 20) })
	b.mu.Lock()
	if !b.limiter.Allow() {
		b.leftOut++
		b.mu.Unlock()
		return
	}
	leftOut := b.leftOut
	b.leftOut = 0
	b.mu.Unlock()
	if leftOut > 0 {
		args = append(args, "left_out", leftOut)
	}
	l.Log(ctx, level, msg, args...)
}

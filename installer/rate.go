// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"fmt"
	"time"
)

// rate tells from time to time how far a transfer is, how fast, and how long it will
// still take.
type rate struct {
	now         func() time.Time
	start, last time.Time
	began       int64 // what was there at start, the first that was told
}

// tellEvery is how often progress is told: each is a line on a serial console.
const tellEvery = 3 * time.Second

func newRate(now func() time.Time) *rate { return &rate{now: now, last: now()} }

// tell gives the progress in words, if it is time to tell it again.
func (r *rate) tell(have, total int64) (string, bool) {
	now := r.now()
	if r.start.IsZero() {
		r.start, r.began = now, have
	}
	if have < total && now.Sub(r.last) < tellEvery || total <= 0 {
		return "", false
	}
	r.last = now
	speed := float64(have-r.began) / max(now.Sub(r.start).Seconds(), 0.1)
	text := fmt.Sprintf("%3d %% of %.0f MB, %.1f MB/s", have*100/total, float64(total)/1e6, speed/1e6)
	// Of a first few bytes nobody can tell how long the rest takes.
	if have < total && have-r.began >= total/100 {
		left := time.Duration(float64(total-have) / speed * float64(time.Second))
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	return text, true
}

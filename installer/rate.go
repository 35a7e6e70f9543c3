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
}

// tellEvery is how often progress is told: each is a line on a serial console.
const tellEvery = 3 * time.Second

func newRate(now func() time.Time) *rate { t := now(); return &rate{now: now, start: t, last: t} }

// tell gives the progress in words, if it is time to tell it again.
func (r *rate) tell(have, total int64) (string, bool) {
	now := r.now()
	if have < total && now.Sub(r.last) < tellEvery || total <= 0 {
		return "", false
	}
	r.last = now
	took := now.Sub(r.start).Seconds()
	if took < 0.1 {
		took = 0.1
	}
	speed := float64(have) / took
	text := fmt.Sprintf("%3d %% of %.0f MB, %.1f MB/s", have*100/total, float64(total)/1e6, speed/1e6)
	if have < total && speed > 0 {
		left := time.Duration(float64(total-have) / speed * float64(time.Second))
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	return text, true
}

// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"slate/installer/health"
	"slate/netboot/api"

	"github.com/google/go-cmp/cmp"
)

func TestWatchHealth(t *testing.T) {
	ill := health.Result{Waiting: []string{"ssh.service is failed"}}
	well := health.Result{Good: []string{"default.target"}}
	for _, c := range []struct {
		name string
		at   func(time.Duration) (health.Result, error)
		want []string
		one  string // name of process 1
	}{
		{"well after a while", func(age time.Duration) (health.Result, error) {
			if age < 20*time.Second {
				return ill, nil
			}
			return well, nil
		}, []string{"20s done default.target"}, "systemd"},
		{"never well", func(time.Duration) (health.Result, error) { return ill, nil },
			[]string{"5m0s failed ssh.service is failed"}, "systemd"},
		{"nobody to ask", func(time.Duration) (health.Result, error) { return health.Result{}, errors.New("no root") },
			[]string{"5m0s failed the system cannot be asked: no root"}, "init"},
		{"well, ill, and well again", func(age time.Duration) (health.Result, error) {
			if age > 10*time.Minute && age < 20*time.Minute {
				return ill, nil
			}
			return well, nil
		}, []string{"0s done default.target", "11m0s failed ssh.service is failed", "20m0s done default.target"}, "systemd"},
		{"shutting down is not ill", func(age time.Duration) (health.Result, error) {
			if age > 10*time.Minute {
				return health.Result{Waiting: ill.Waiting, Stopping: true}, nil
			}
			return well, nil
		}, []string{"0s done default.target"}, "systemd"},
		{"nor is one whose systemd has ended", func(age time.Duration) (health.Result, error) {
			if age > 10*time.Minute {
				return health.Result{Waiting: []string{"systemd does not say what runs"}}, nil
			}
			return well, nil
		}, []string{"0s done default.target"}, "systemd-shutdow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				var got []string
				a := Agent{Dir: t.TempDir(), Proc: fstest.MapFS{"1/comm": {Data: []byte(c.one + "\n")}}, Probe: func(context.Context, health.Spec) (health.Result, error) { return c.at(time.Since(start)) }}
				a.defaults("pc1")
				a.watchHealth(ctx, Config{}, func(e api.Event) {
					if e.Step != api.StepHealth {
						t.Errorf("event of step %q", e.Step)
					}
					got = append(got, fmt.Sprintf("%v %s %s", time.Since(start).Round(time.Second), e.State, e.Text))
				})
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("events (-want +got):\n%s", d)
				}
			})
		})
	}
}

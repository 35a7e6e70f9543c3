// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"slate/netboot/api"
)

// orders is an appliance that has only orders to give.
type orders func() (api.Order, error)

func (o orders) WaitOrder(context.Context, int64) (api.Order, error) { return o() }
func (o orders) Config(context.Context, []ed25519.PublicKey, int64) ([]byte, error) {
	return nil, errors.New("no configuration")
}

func TestTakeOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		restarts := 0
		var told, asked []string
		a := &Agent{Dir: t.TempDir(), Log: io.Discard, restart: func() error { restarts++; return errors.New("no init") }}
		answers := []struct {
			order api.Order
			err   error
		}{{}, {err: errors.New("refused")}, {err: errors.New("refused")}, {order: api.Order{Do: api.OrderReboot}}, {order: api.Order{Do: api.OrderUpdate}}, {order: api.Order{Do: api.OrderVerify}}, {order: api.Order{Do: "dance"}}}
		a.takeOrders(ctx, "", orders(func() (api.Order, error) {
			asked = append(asked, time.Since(start).String())
			if len(asked) > len(answers) {
				cancel()
				return api.Order{}, ctx.Err()
			}
			x := answers[len(asked)-1]
			return x.order, x.err
		}), func(e api.Event) { told = append(told, e.Text) }, nil, nil)
		if got, want := strings.Join(asked, " "), "0s 5s 15s 35s 35s 35s 35s 35s"; got != want {
			t.Errorf("asked at %s, want %s", got, want)
		}
		if got, want := strings.Join(told, "; "), `told to restart; cannot restart: no init; told to update: restarting; cannot restart: no init; told to compare files, but the system is not on a drive of this machine; this agent does not know the order "dance"`; got != want || restarts != 2 {
			t.Errorf("told %s, %d restarts, want %s", got, restarts, want)
		}
	})
}

// A diskless machine that is told to update restarts: it gets its version then.
func TestUpdateOfADisklessMachine(t *testing.T) {
	orders := make(chan string, 1)
	orders <- `{"do": "update"}`
	appliance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != api.OrdersPath("boot1") {
			return
		}
		select {
		case o := <-orders:
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, o)
		case <-r.Context().Done():
		}
	}))
	defer appliance.Close()
	dir := t.TempDir()
	if err := (Config{Server: appliance.URL, Boot: "boot1", Node: "pc1"}).Save(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	restarted := false
	a := &Agent{Dir: dir, Proc: fstest.MapFS{}, Log: io.Discard, restart: func() error { restarted = true; cancel(); return nil }}
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !restarted {
		t.Error("it does not restart")
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package httpd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"slate/netboot/api"
	"slate/netboot/config"
	"slate/netboot/httpd"
	"slate/netboot/nodes"
)

func TestAdminAnswers(t *testing.T) {
	var changed []api.Change
	srv := httptest.NewServer(httpd.NewAdmin(httpd.AdminOptions{
		Nodes: func(targets ...string) ([]api.Node, error) {
			if len(targets) > 0 && targets[0] == "nobody" {
				return nil, &nodes.TargetError{Text: "there is no node nobody", Help: "nodes:\r\n pc1"}
			}
			return []api.Node{{Name: "pc1"}}, nil
		},
		Node: func(name string) (api.Node, error) {
			if name != "pc1" {
				return api.Node{}, &nodes.TargetError{Text: "there is no node " + name}
			}
			return api.Node{Name: name}, nil
		},
		Explain: func(context.Context, string) (api.Explanation, error) {
			return api.Explanation{}, errors.New("the disk is on fire")
		},
		Change: func(_ context.Context, c api.Change) ([]api.Done, error) {
			changed = append(changed, c)
			if c.Mode != nil {
				return nil, fmt.Errorf("set: %w", config.Set{Mode: *c.Mode}.Check())
			}
			return []api.Done{{Node: "pc1"}}, nil
		},
		Acts: map[string]func(context.Context, []string) ([]api.Done, error){
			"wake": func(_ context.Context, t []string) ([]api.Done, error) {
				return []api.Done{{Node: t[0], Text: "woken"}}, nil
			},
		},
		Status: func(events bool) (api.Status, error) { return api.Status{Address: fmt.Sprint(events)}, nil },
	}))
	defer srv.Close()
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		answer, hint             string
	}{
		{"list", "GET", "", "", 200, `[{"name":"pc1"`, ""},
		{"list nobody", "GET", "?target=nobody", "", 404, "there is no node nobody", "nodes: pc1"},
		{"show", "GET", "/pc1", "", 200, `{"name":"pc1"`, ""},
		{"show nobody", "GET", "/pc2", "", 404, "there is no node pc2", ""},
		{"show a path", "GET", "/..%2Fpc2", "", 404, "there is no node ../pc2", ""},
		{"explain", "GET", "/pc1/explain", "", 500, "the disk is on fire", ""},
		{"change", "POST", "", `{"targets":["pc1"],"join":["a"]}`, 200, `[{"node":"pc1"}]`, ""},
		{"change nobody", "POST", "", `{"join":["a"]}`, 400, "no nodes are named", "name nodes"},
		{"change to nonsense", "POST", "", `{"targets":["pc1"],"mode":"maybe"}`, 400, `mode: "maybe" is not one of`, ""},
		{"misspelt", "POST", "", `{"targets":["pc1"],"imag":"x"}`, 400, `unknown field "imag"`, ""},
		{"no JSON", "POST", "", `hello`, 400, "change: ", ""},
		{"too long", "POST", "", `{"targets":["` + strings.Repeat("x", 2<<20) + `"]}`, 413, "longer than", ""},
		{"wake", "POST", "/wake", `{"targets":["pc1"]}`, 200, `"woken"`, ""},
		{"wake nobody", "POST", "/wake", `{}`, 400, "no nodes are named", ""},
		{"unknown verb", "POST", "/explode", `{"targets":["pc1"]}`, 405, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, srv.URL+api.PathNodes+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.status || !strings.Contains(string(text), c.answer) {
				t.Errorf("%s %s = %d %q, %v, want %d %q", c.method, c.path, resp.StatusCode, text, err, c.status, c.answer)
			}
			if got := resp.Header.Get(api.HintHeader); !strings.HasPrefix(got, c.hint) {
				t.Errorf("hint = %q, want %q", got, c.hint)
			}
		})
	}
	if len(changed) != 2 {
		t.Errorf("%d changes came through, want 2: %+v", len(changed), changed)
	}
	client := api.Client{Base: srv.URL}
	for want, ask := range map[string]func(context.Context) (api.Status, error){"true": client.Status, "false": client.Summary} {
		if st, err := ask(t.Context()); st.Address != want || err != nil {
			t.Errorf("status with events %s, %v, want %s", st.Address, err, want)
		}
	}
	_, err := client.Nodes(t.Context(), "nobody")
	var refused *api.Error
	if !errors.As(err, &refused) || refused.Status != 404 || refused.Hint() != "nodes: pc1" {
		t.Errorf("error = %#v, want the appliance's own with its hint", err)
	}
}

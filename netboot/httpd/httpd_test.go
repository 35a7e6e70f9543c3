// SPDX-License-Identifier: GPL-2.0-or-later

package httpd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/images"
	"slate/netboot/api"
	"slate/netboot/httpd"
)

type fixture struct {
	*httptest.Server
	events []string
	asked  httpd.ScriptQuery
	loaded chan string
}

var (
	controller = images.Digest{1}
	kernel     = images.Digest{2}
)

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"snponly.efi": "LOADER", "kernel": "0123456789"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{loaded: make(chan string, 10)}
	f.Server = httptest.NewServer(httpd.New(httpd.Options{
		Script: func(_ context.Context, q httpd.ScriptQuery) ([]byte, error) {
			f.asked = q
			if q.Serial == "broken" {
				return nil, errors.New("config.d is gone")
			}
			return []byte("#!ipxe\n"), nil
		},
		Loader: func(name string) (*os.File, error) {
			if name != "snponly.efi" {
				return nil, fs.ErrNotExist
			}
			return os.Open(filepath.Join(dir, name))
		},
		Loaded: func(name, addr string, size int64, _ time.Duration) {
			f.loaded <- fmt.Sprint(name, " ", addr, " ", size)
		},
		Controller: []byte("CPIO"), ControllerDigest: controller,
		Blob: func(d images.Digest) (*os.File, error) {
			if d != kernel {
				return nil, fs.ErrNotExist
			}
			return os.Open(filepath.Join(dir, "kernel"))
		},
		Report: func(boot string, e api.Event) bool {
			f.events = append(f.events, boot+" "+string(e.Step)+" "+string(e.State))
			return boot == "b1"
		},
		Facts: func(boot string, facts api.Facts) bool {
			f.events = append(f.events, boot+" "+facts.CPU)
			return boot == "b1"
		},
		Orders: func(_ context.Context, boot string, _ int64) (api.Order, bool) {
			return api.Order{Do: api.OrderReboot}, boot == "b1"
		},
		TakeLog: func(boot string, from int64, text []byte) (int64, bool, error) {
			return from + int64(len(text)), boot == "b1", nil
		},
		Load: func(tree images.Digest) api.Load { return api.Load{NFSPort: 2049, Has: tree == kernel, Waiting: 3} },
		Sign: func(purpose string, text []byte) string { return purpose + " signed" },
		Hello: func(h api.Hello, addr string) (api.Welcome, error) {
			return api.Welcome{Node: "node of " + h.MAC + " at " + addr, Boot: "b7", Words: []string{"slate.node=x"}}, nil
		},
		Status: func(bool) (api.Status, error) {
			return api.Status{Address: "10.0.0.1", Images: []string{"demo/1"}}, nil
		},
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fixture) do(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, f.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// Firmware asks for a loader's size first; only the download is reported.
func TestLoaderIsReportedOnce(t *testing.T) {
	f := newFixture(t)
	resp, err := http.Head(f.URL + "/loader/snponly.efi")
	if err != nil || resp.ContentLength != 6 {
		t.Fatalf("HEAD: %v, %d bytes", err, resp.ContentLength)
	}
	resp.Body.Close()
	if resp, err = http.Get(f.URL + "/loader/snponly.efi"); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got, want := <-f.loaded, "snponly.efi 127.0.0.1 6"; got != want {
		t.Errorf("reported %q, want %q", got, want)
	}
	if n := len(f.loaded); n != 0 {
		t.Errorf("%d more reports", n)
	}
}

func TestAnswers(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", 2000)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		answer                   string
	}{
		{"loader", "GET", "/loader/snponly.efi", "", 200, "LOADER"},
		{"other loader", "GET", "/loader/passwd", "", 404, ""},
		{"climbing out", "GET", "/loader/..%2f..%2fetc%2fpasswd", "", 404, ""},
		{"controller", "GET", api.ControllerPath(controller), "", 200, "CPIO"},
		{"old controller", "GET", api.ControllerPath(images.Digest{9}), "", 404, "the appliance was updated"},
		{"blob", "GET", api.BlobPath(kernel), "", 200, "0123456789"},
		{"no such blob", "GET", api.BlobPath(images.Digest{8}), "", 404, ""},
		{"no digest", "GET", "/blobs/sha256/../../etc", "", 404, ""},
		{"bad digest", "GET", "/blobs/sha256/xyz", "", 400, "hexadecimal"},
		{"script", "GET", "/boot.ipxe?mac=52-54-00-AA-BB-CC&uuid=u&serial=s%20", "", 200, "#!ipxe\n"},
		{"bad mac", "GET", "/boot.ipxe?mac=me", "", 400, "not a MAC address"},
		{"long serial", "GET", "/boot.ipxe?serial=" + long, "", 400, "serial is longer"},
		{"script error", "GET", "/boot.ipxe?serial=broken", "", 500, "config.d is gone"},
		{"event", "POST", api.EventsPath("b1"), `{"step":"root","state":"done"}`, 204, ""},
		{"facts", "POST", api.FactsPath("b1"), `{"cpu":"x","disks":[{"name":"sda","size":5}]}`, 204, ""},
		{"facts of an unknown boot", "POST", api.FactsPath("b2"), `{}`, 404, "no such boot"},
		{"facts, no JSON", "POST", api.FactsPath("b1"), `cpu`, 400, "facts: "},
		{"facts, wrong type", "POST", api.FactsPath("b1"), `{"cores":"two"}`, 400, "facts: "},
		{"facts, two values", "POST", api.FactsPath("b1"), `{}{}`, 400, "more than one"},
		{"facts, empty", "POST", api.FactsPath("b1"), ``, 400, "facts: EOF"},
		{"facts, too long", "POST", api.FactsPath("b1"), `{"cpu":"` + strings.Repeat("x", api.MaxFactsBytes) + `"}`, 413, "longer than"},
		{"facts, long word", "POST", api.FactsPath("b1"), `{"cpu":"` + long + `"}`, 400, "over the limit"},
		{"facts, impossible", "POST", api.FactsPath("b1"), `{"cores":-1}`, 400, "cannot be"},
		{"facts, negative disk", "POST", api.FactsPath("b1"), `{"disks":[{"name":"a","size":-1}]}`, 400, "negative size"},
		{"facts, many disks", "POST", api.FactsPath("b1"), `{"disks":[` + strings.Repeat(`{},`, 99) + `{}]}`, 400, "over the limits"},
		{"facts by GET", "GET", api.FactsPath("b1"), ``, 405, ""},
		{"orders", "GET", api.OrdersPath("b1"), ``, 200, `{"do":"reboot"}`},
		{"orders for nobody", "GET", api.OrdersPath("b2"), ``, 404, "no such boot"},
		{"log", "POST", api.LogPath("b1", 10), `hello`, 200, `{"size":15}`},
		{"log of nobody", "POST", api.LogPath("b2", 0), `hello`, 404, "no such boot"},
		{"log, from nowhere", "POST", api.PathBoots + "b1/log", `hello`, 400, "from where"},
		{"log, from before", "POST", api.LogPath("b1", -1), `hello`, 400, "from where"},
		{"log, too much", "POST", api.LogPath("b1", 0), strings.Repeat("x", api.MaxLogBytes+1), 413, "longer than"},
		{"the admin's", "GET", api.PathNodes, ``, 404, ""},
		{"the admin's change", "POST", api.PathNodes, `{}`, 404, ""},
		{"unknown boot", "POST", api.EventsPath("b2"), `{"step":"root","state":"done"}`, 404, "no such boot"},
		{"no JSON", "POST", api.EventsPath("b1"), `step=root`, 400, "event:"},
		{"bad state", "POST", api.EventsPath("b1"), `{"step":"root","state":"great"}`, 400, `unknown state "great"`},
		{"long event", "POST", api.EventsPath("b1"), `{"step":"root","state":"done","text":"` + strings.Repeat("x", 8000) + `"}`, 400, "too large"},
		{"long text", "POST", api.EventsPath("b1"), `{"step":"root","state":"done","text":"` + long + `"}`, 400, "over the limit"},
		{"status", "GET", api.PathStatus, "", 200, `"demo/1"`},
		{"wrong method", "POST", api.PathScript, "", 405, ""},
		{"nothing", "GET", "/", "", 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, text := f.do(t, c.method, c.path, c.body)
			if resp.StatusCode != c.status || !strings.Contains(text, c.answer) {
				t.Errorf("%s %.80s = %d %.200q, want %d %q", c.method, c.path, resp.StatusCode, text, c.status, c.answer)
			}
		})
	}
	f.do(t, "GET", "/boot.ipxe?mac=52-54-00-AA-BB-CC&uuid=u&serial=s%20", "")
	if f.asked.MAC != "52:54:00:aa:bb:cc" || f.asked.UUID != "u" || f.asked.Serial != "s" || f.asked.Address != "127.0.0.1" {
		t.Errorf("the script was asked for with %+v", f.asked)
	}
}

func TestImmutableContentIsCachedAndRanged(t *testing.T) {
	f := newFixture(t)
	resp, text := f.do(t, "GET", api.BlobPath(kernel), "", "Range", "bytes=2-4")
	if resp.StatusCode != http.StatusPartialContent || text != "234" {
		t.Errorf("range = %d %q, want 206 234", resp.StatusCode, text)
	}
	tag := resp.Header.Get("ETag")
	if want := `"` + kernel.String() + `"`; tag != want || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("ETag %s, Cache-Control %s; want %s, immutable", tag, resp.Header.Get("Cache-Control"), want)
	}
	if resp, _ = f.do(t, "GET", api.BlobPath(kernel), "", "If-None-Match", tag); resp.StatusCode != http.StatusNotModified {
		t.Errorf("with its ETag: %d, want 304", resp.StatusCode)
	}
}

func TestDownloadsOfABootAreReported(t *testing.T) {
	f := newFixture(t)
	f.do(t, "GET", api.BlobPath(kernel)+"?boot=b1&part=kernel", "")
	f.do(t, "GET", api.ControllerPath(controller)+"?boot=b1&part=controller.cpio&last=1", "")
	f.do(t, "GET", api.BlobPath(kernel), "")
	got := strings.Join(f.events, ", ")
	if want := "b1 kernel note, b1 kernel done"; got != want {
		t.Errorf("events = %q, want %q", got, want)
	}
}

// A machine that goes away in the middle of its kernel leaves a reason behind.
func TestBrokenDownloadIsReported(t *testing.T) {
	events := make(chan api.Event, 1)
	srv := httptest.NewServer(httpd.New(httpd.Options{
		Controller: make([]byte, 64<<20), ControllerDigest: controller,
		Report: func(_ string, e api.Event) bool { events <- e; return true },
	}))
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + api.ControllerPath(controller) + "?boot=b1&part=controller.cpio&last=1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	e := <-events
	if e.Step != api.StepKernel || e.State != api.StateFailed || !strings.Contains(e.Text, "controller.cpio: the connection broke after ") || !strings.Contains(e.Text, " of 67.1 MB") {
		t.Errorf("event = %+v, want kernel failed, with how much came through", e)
	}
}

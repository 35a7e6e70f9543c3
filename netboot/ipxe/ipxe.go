// SPDX-License-Identifier: GPL-2.0-or-later

// Package ipxe writes boot scripts in iPXE's language (https://ipxe.org/scripting).
// Every script retries with pauses, says on the screen what went wrong, and ends
// in "exit 1" when it gives up: with status 0 many firmwares stop in their set-up
// instead of going on to the next boot device. It knows nothing of nodes or images
// beyond the text it is given.
package ipxe

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"text/template"
	"time"
)

//go:embed *.ipxe.tmpl
var files embed.FS

// How the scripts retry.
const (
	tries       = 5
	pause       = 5 * time.Second
	giveUpPause = 10 * time.Second
)

// Scripts renders boot scripts. Make one with New.
type Scripts struct{ t *template.Template }

// New parses the templates.
func New() (*Scripts, error) {
	t := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"join": strings.Join})
	if _, err := t.ParseFS(files, "*.ipxe.tmpl"); err != nil {
		return nil, fmt.Errorf("boot script templates: %w", err)
	}
	return &Scripts{t}, nil
}

// File is something to fetch, and the name the loader gives it.
type File struct{ Name, URL string }

// Boot is what a node's boot script needs to know.
type Boot struct {
	Node, Image, BootID string
	Server              string // where the appliance answers, for the screen
	Kernel              string // URL
	Initrds             []File
	Cmdline             []string
	Others              []string // boot scripts of other servers, asked when this one fails
}

// query tells who asks, with what only the loader knows.
const query = "?mac=${netX/mac}&uuid=${uuid}&serial=${serial:uristring}&product=${product:uristring}&platform=${platform}&arch=${buildarch}"

// Boot returns the script that loads and starts a kernel.
func (s *Scripts) Boot(b Boot) ([]byte, error) {
	return s.render("boot.ipxe.tmpl", struct {
		Boot
		Query string
		retry
	}{b, query, newRetry()})
}

// Ask returns the script that asks the appliance again, with the facts that
// only the loader knows. script is the URL of the boot script, without a query.
func (s *Scripts) Ask(server, script string) ([]byte, error) {
	return s.render("ask.ipxe.tmpl", ask{Server: server, Script: script, Query: query, retry: newRetry()})
}

// Wait returns the script that tells a machine its place in the queue, waits, and
// asks again.
func (s *Scripts) Wait(server, script, node string, place int, wait time.Duration) ([]byte, error) {
	return s.render("ask.ipxe.tmpl", ask{Server: server, Script: script, Query: query, Node: node, Place: place, Wait: int(wait.Seconds()), retry: newRetry()})
}

type ask struct {
	Server, Script string
	Query          string
	Node           string // that waits for its turn; "": none
	Place, Wait    int
	retry
}

// Refuse returns the script that says why a machine is not started and goes on
// to its next boot device.
func (s *Scripts) Refuse(node, reason, hint string) ([]byte, error) {
	return s.render("refuse.ipxe.tmpl", struct {
		Node, Reason, Hint string
		retry
	}{node, printable(reason), printable(hint), newRetry()})
}

type retry struct {
	Tries, Pause, GiveUpPause int
}

func newRetry() retry {
	return retry{tries, int(pause.Seconds()), int(giveUpPause.Seconds())}
}

func (s *Scripts) render(name string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := s.t.ExecuteTemplate(&b, name, data); err != nil {
		return nil, fmt.Errorf("boot script %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// printable makes text safe to stand in an echo command: one line, and none of
// the characters with which iPXE's scripts expand settings or chain commands.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '$' || r == '|' || r == '&' || r == '#' || r == '"':
			return '\''
		case r < ' ' || r > '~':
			return ' '
		}
		return r
	}, text)
}

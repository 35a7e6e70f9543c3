// SPDX-License-Identifier: GPL-2.0-or-later

package process

import (
	"bytes"
	"io"
	"regexp"
	"sync"
)

const (
	tailLines  = 30
	watchLines = 4096 // how far back a later watch can look
)

// output takes what a program writes: passes it to the log, keeps the last
// lines, and tells who waits for one.
type output struct {
	mu       sync.Mutex
	log      io.Writer
	partial  []byte
	lines    []string
	watchers []watcher
}

type watcher struct {
	re    *regexp.Regexp
	found chan string
}

func newOutput(log io.Writer) *output { return &output{log: log} }

// Write never fails: a full disk must not look like a broken program.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log != nil {
		_, _ = o.log.Write(b)
	}
	o.partial = append(o.partial, b...)
	for {
		line, rest, ok := bytes.Cut(o.partial, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		o.line(string(bytes.TrimRight(line, "\r")))
		o.partial = rest
	}
}

func (o *output) line(s string) {
	if len(o.lines) == watchLines {
		o.lines = append(o.lines[:0], o.lines[watchLines/2:]...)
	}
	o.lines = append(o.lines, s)
	for i := 0; i < len(o.watchers); i++ {
		if w := o.watchers[i]; w.re.MatchString(s) {
			w.found <- s
			o.watchers = append(o.watchers[:i], o.watchers[i+1:]...)
			i--
		}
	}
}

// close makes a last line out of what had no end.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.partial) > 0 {
		o.line(string(o.partial))
		o.partial = nil
	}
}

// watch returns a channel that gets the first line, old or new, that matches.
func (o *output) watch(re *regexp.Regexp) <-chan string {
	o.mu.Lock()
	defer o.mu.Unlock()
	found := make(chan string, 1)
	for _, l := range o.lines {
		if re.MatchString(l) {
			found <- l
			return found
		}
	}
	o.watchers = append(o.watchers, watcher{re, found})
	return found
}

func (o *output) last() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.lines[max(0, len(o.lines)-tailLines):]...)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Every slate command that the documents show is one that there is. What is only hinted
// at, with "…" or brackets, is left out.
func TestDocumentsShowRealCommands(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, name := range append(files, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line, whole := range shown(string(text)) {
			count++
			err := parses(t, line)
			// A sentence may name a command without all that it needs.
			if err != nil && (whole || !strings.Contains(err.Error(), "missing flags") && !strings.Contains(err.Error(), "expected ")) {
				t.Errorf("%s: slate %s: %v", filepath.Base(name), line, err)
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d commands were found", count)
	}
}

var (
	fenced     = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```")
	inFence    = regexp.MustCompile(`(?m)^ *(?:\$ )?(?:sudo )?(?:bin/)?slate (.*)$`)
	inText     = regexp.MustCompile("`(?:sudo )?slate ([^`]*)`")
	comment    = regexp.MustCompile(`\s+#.*|\s*(?:[;|>]|&&).*`)
	hinted     = regexp.MustCompile(`…|\[|\.\.\.|<|=$`)
	shellWords = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
)

// shown are the arguments of the slate commands in a document; true: as a person
// would type them.
func shown(text string) map[string]bool {
	out := map[string]bool{}
	add := func(whole bool, matches [][]string) {
		for _, m := range matches {
			line := strings.TrimSpace(comment.ReplaceAllString(strings.ReplaceAll(m[1], "\n", " "), ""))
			if words := strings.Fields(line); !hinted.MatchString(line) && len(words) > 1 && strings.ToLower(words[0]) == words[0] {
				out[line] = out[line] || whole
			}
		}
	}
	for _, f := range fenced.FindAllStringSubmatch(text, -1) {
		add(true, inFence.FindAllStringSubmatch(f[1], -1))
	}
	add(false, inText.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1))
	return out
}

func parses(t *testing.T, line string) error {
	t.Helper()
	var args []string
	for _, w := range shellWords.FindAllString(line, -1) {
		args = append(args, strings.Trim(w, `'"`))
	}
	var cmds commands
	p, err := newParser(&cmds, kong.Writers(io.Discard, io.Discard), kong.Exit(func(int) { panic(exitPanic{}) }))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := parse(p, args); err != nil && !strings.Contains(err.Error(), "no such file") {
		return err
	}
	return nil
}

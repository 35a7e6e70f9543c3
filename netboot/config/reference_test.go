// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"slate/netboot/config"
	"slate/testbed/golden"
)

// reference is the page for people; what follows the mark is made from the examples.
const (
	reference = "../../docs/config.md"
	mark      = "<!-- What follows is made from the shipped files: SLATE_GOLDEN=write go test ./netboot/config -->\n"
)

func TestReferenceHasTheShippedFiles(t *testing.T) {
	page, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, ok := strings.Cut(string(page), mark)
	if !ok {
		t.Fatalf("%s lacks the line %q", reference, mark)
	}
	var b strings.Builder
	b.WriteString(intro + mark)
	for _, file := range slices.Sorted(maps.Keys(config.FileKeys())) {
		text, err := fs.ReadFile(config.Examples(), file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n### %s\n\n```toml\n%s```\n", file, text)
	}
	golden.Check(t, reference, []byte(b.String()))
}

// Each key is in its shipped file, if only in an example.
func TestExamplesHaveEveryKey(t *testing.T) {
	for file, keys := range config.FileKeys() {
		text, err := fs.ReadFile(config.Examples(), file)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			name := key[strings.LastIndex(key, ".")+1:]
			if !regexp.MustCompile(`(^|[^\w-])` + regexp.QuoteMeta(name) + `($|[^\w-])`).Match(text) {
				t.Errorf("the shipped %s does not mention %s", file, key)
			}
		}
	}
}

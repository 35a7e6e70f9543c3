// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"reflect"
	"strings"
)

// structKeys lists the dotted TOML keys that the struct behind v takes.
func structKeys(v any) []string {
	return typeKeys(reflect.TypeOf(v), "")
}

func typeKeys(t reflect.Type, prefix string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			keys = append(keys, typeKeys(f.Type, prefix)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "" || name == "-" {
			continue
		}
		keys = append(keys, prefix+name)
		keys = append(keys, typeKeys(f.Type, prefix+name+".")...)
	}
	return keys
}

// suggestion names the known key that the unknown one was probably meant to be.
func suggestion(unknown string, known []string) string {
	best, bestDist := "", 1+len(unknown)/3
	for _, k := range known {
		if d := editDistance(unknown, k); d <= bestDist {
			best, bestDist = k, d-1
		}
	}
	if best == "" {
		return "known keys: " + strings.Join(known, ", ")
	}
	return "did you mean " + best + "?"
}

// editDistance counts the insertions, deletions and replacements between two
// strings (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// results are the summaries of cells, by the cell's and the server's name.
type results map[string]map[string]summary

// promise is what is asked of the server, in one number.
type promise struct {
	what   string
	asked  float64
	atMost bool // asked is the most; otherwise the least
	// cells are those whose names begin so; the worst of them counts.
	cells string
	value func(slate, ganesha summary) float64
}

func speedRatio(s, g summary) float64 { return s.Speed / g.Speed }
func costRatio(s, g summary) float64  { return s.Cost / g.Cost }
func p99Ratio(s, g summary) float64   { return s.P99 / g.P99 }

var promises = []promise{
	{"boots/s of 64 clients to ganesha's", 2, false, "boot replay clients=64", speedRatio},
	{"CPU per boot of 64 clients to ganesha's", 0.4, true, "boot replay clients=64", costRatio},
	{"p99 of 64 clients to ganesha's", 1, true, "boot replay clients=64", p99Ratio},
	{"MB/s of READ 1 MiB to ganesha's", 1, false, "READ 1024 KiB", speedRatio},
	{"CPU per GB of READ 1 MiB to ganesha's", 0.6, true, "READ 1024 KiB", costRatio},
	{"operations/s of READ 4 KiB, 4 connections x 8, to ganesha's", 2.5, false, "READ 4 KiB random depth=8 conns=4", speedRatio},
	{"READDIRPLUS walks/s from a cold start to those of a warm ganesha", 1, false, "READDIRPLUS walk of . from a cold start", speedRatio},
	{"READDIR+LOOKUP+GETATTR operations/s to ganesha's", 1, false, "READDIR+LOOKUP+GETATTR", speedRatio},
	{"calls that failed", 0, true, "", func(s, _ summary) float64 { return float64(s.Errors) }},
}

// verdicts is a table of what is asked and what the cells measured say to it.
func verdicts(res results) string {
	var b strings.Builder
	b.WriteString("| asked | limit | measured | cell | |\n|---|---|---|---|---|\n")
	line := func(p promise, got float64, cell string) {
		sign, ok := "at least", got >= p.asked
		if p.atMost {
			sign, ok = "at most", got <= p.asked
		}
		verdict := "MISSED"
		if ok {
			verdict = "kept"
		}
		fmt.Fprintf(&b, "| %s | %s %g | %.2f | %s | %s |\n", p.what, sign, p.asked, got, cell, verdict)
	}
	for _, p := range promises {
		worst, where := math.NaN(), ""
		for _, cell := range slices.Sorted(maps.Keys(res)) {
			slate, ok := res[cell]["slate"]
			ganesha, compared := res[cell]["ganesha"]
			if !ok || !compared || !strings.HasPrefix(cell, p.cells) {
				continue
			}
			got := p.value(slate, ganesha)
			if where == "" || p.atMost && got > worst || !p.atMost && got < worst {
				worst, where = got, cell
			}
		}
		if where != "" {
			line(p, worst, where)
		}
	}
	one, ok := res["READ 1024 KiB sequential depth=32 conns=1"]
	for _, name := range []string{"READ 1024 KiB sequential depth=8 conns=4", "READ 1024 KiB sequential depth=32 conns=4"} {
		if four, also := res[name]; ok && also {
			line(promise{what: "MB/s of one connection at depth 32 to those of four", asked: 0.7}, one["slate"].Speed/four["slate"].Speed, name)
		}
	}
	if full, ok := res["READ 1024 KiB sequential depth=8 conns=64"]; ok {
		line(promise{what: "MB of memory above idle", asked: 64, atMost: true}, full["slate"].Above/1e6, "READ 1024 KiB sequential depth=8 conns=64")
	}
	return b.String()
}

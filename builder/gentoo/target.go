// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// levelFlags are the names CPU_FLAGS_X86 has for what each level of x86-64 adds
// (System V ABI, processor supplement, table 3.1), and those of /proc/cpuinfo.
var levelFlags = []struct {
	level string
	use   []string
	cpu   []string
}{
	{"x86-64", []string{"mmx", "mmxext", "sse", "sse2"}, nil},
	{"x86-64-v2", []string{"popcnt", "sse3", "sse4_1", "sse4_2", "ssse3"}, []string{"popcnt", "pni", "sse4_1", "sse4_2", "ssse3", "cx16", "lahf_lm"}},
	{"x86-64-v3", []string{"avx", "avx2", "bmi1", "bmi2", "f16c", "fma3"}, []string{"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}},
	{"x86-64-v4", []string{"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}, []string{"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}},
}

// CPUFlags are the values of CPU_FLAGS_X86 that every processor of the level
// has. What is no level of x86-64 has none that we know.
func CPUFlags(level string) []string {
	var out []string
	for _, l := range levelFlags {
		out = append(out, l.use...)
		if l.level == level {
			slices.Sort(out)
			return out
		}
	}
	return nil
}

// CanRun says why this machine cannot run programs of the level, as a build has
// to. cpuinfo is the text of /proc/cpuinfo.
func CanRun(level, cpuinfo string) error {
	known := slices.ContainsFunc(levelFlags, func(l struct {
		level string
		use   []string
		cpu   []string
	}) bool {
		return l.level == level
	})
	if !known {
		return nil
	}
	var have []string
	for line := range strings.SplitSeq(cpuinfo, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "flags" {
			have = strings.Fields(v)
			break
		}
	}
	if have == nil {
		return nil // not an x86 kernel, or one that does not say
	}
	var lacks []string
	for _, l := range levelFlags {
		for _, f := range l.cpu {
			if !slices.Contains(have, f) {
				lacks = append(lacks, f)
			}
		}
		if l.level == level {
			break
		}
	}
	if len(lacks) > 0 {
		return &LevelError{Level: level, Lacks: lacks}
	}
	return nil
}

// LevelError is a machine that cannot run what it would build.
type LevelError struct {
	Level string
	Lacks []string
}

func (e *LevelError) Error() string {
	return fmt.Sprintf("this machine cannot run programs for %s: its processor lacks %s", e.Level, strings.Join(e.Lacks, ", "))
}

// Hint says what to do about it.
func (e *LevelError) Hint() string {
	return "choose a lower target.level in sources.conf, or build on a machine like the nodes"
}

// HostCPU is the text that CanRun wants.
func HostCPU() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	return string(b)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package logs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slate/netboot/logs"
)

func open(t *testing.T) (*logs.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "logs")
	s, err := logs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, dir
}

func text(t *testing.T, s *logs.Store, node, boot string) string {
	t.Helper()
	b, _, err := s.ReadFrom(node, boot, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAppendGoesOnWhereTheLogEnds(t *testing.T) {
	s, _ := open(t)
	for _, step := range []struct {
		name string
		from int64
		text string
		size int64
		want string
	}{
		{"first", 0, "one\n", 4, "one\n"},
		{"next", 4, "two\n", 8, "one\ntwo\n"},
		{"the same again, its answer was lost", 4, "two\n", 8, "one\ntwo\n"},
		{"half of it is here", 4, "two\nthree\n", 14, "one\ntwo\nthree\n"},
		{"a gap: ask for what is missing", 20, "five\n", 14, "one\ntwo\nthree\n"},
		{"nothing", 14, "", 14, "one\ntwo\nthree\n"},
	} {
		size, err := s.Append("pc1", "b1", step.from, []byte(step.text))
		if err != nil || size != step.size {
			t.Errorf("%s: Append(%d, %q) = %d, %v, want %d", step.name, step.from, step.text, size, err, step.size)
		}
		if got := text(t, s, "pc1", "b1"); got != step.want {
			t.Errorf("%s: the log is %q, want %q", step.name, got, step.want)
		}
	}
}

func TestLogsFollowTheName(t *testing.T) {
	s, _ := open(t)
	for _, boot := range []string{"b1", "b2"} {
		if _, err := s.Append("node-1", boot, 0, []byte(boot)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time there is nothing to do
		if err := s.Rename("node-1", "pc1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Append("pc1", "b2", 2, []byte(" goes on")); err != nil {
		t.Fatal(err)
	}
	if got := text(t, s, "pc1", "b1") + ", " + text(t, s, "pc1", "b2"); got != "b1, b2 goes on" {
		t.Errorf("logs of the new name: %q", got)
	}
	if list, err := s.List("node-1"); err != nil || len(list) != 0 {
		t.Errorf("logs of the old name: %v, %v, want none", list, err)
	}
	if _, err := s.Append("node-1", "b3", 0, []byte("another machine")); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename("node-1", "pc1"); err == nil || text(t, s, "pc1", "b1") != "b1" {
		t.Errorf("renamed to a name that has logs: %v, want an error and the logs untouched", err)
	}
}

func TestALogIsBounded(t *testing.T) {
	s, _ := open(t)
	s.Bytes = 10
	size, err := s.Append("pc1", "b1", 0, []byte("0123456789abcdef"))
	if err != nil || size != 16 {
		t.Errorf("Append of 16 bytes = %d, %v, want 16: the rest counts as taken", size, err)
	}
	if size, err = s.Append("pc1", "b1", 16, []byte("more")); err != nil || size != 20 {
		t.Errorf("Append to a full log = %d, %v, want 20", size, err)
	}
	if got := text(t, s, "pc1", "b1"); got != "0123456789" {
		t.Errorf("the log is %q, want its first 10 bytes", got)
	}
}

func TestOlderLogsArePackedAndTheOldestGo(t *testing.T) {
	s, dir := open(t)
	s.Boots = 3
	for i := range 5 {
		boot := fmt.Sprint("b", i)
		if _, err := s.Append("pc1", boot, 0, []byte(strings.Repeat(boot+"\n", 100))); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "pc1"))
	var files []string
	for _, e := range entries {
		files = append(files, e.Name())
	}
	if want := []string{"00000003-b2.log.zst", "00000004-b3.log.zst", "00000005-b4.log"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("files are %v, %v, want %v", files, err, want)
	}
	list, err := s.List("pc1")
	if err != nil || len(list) != 3 || list[0].Boot != "b4" || list[2].Boot != "b2" {
		t.Errorf("List = %v, %v, want b4, b3, b2", list, err)
	}
	if got, want := text(t, s, "pc1", "b2"), strings.Repeat("b2\n", 100); got != want {
		t.Errorf("the packed log is %q, want %q", got, want)
	}
	// What a machine could not send before is late, but not lost.
	if size, err := s.Append("pc1", "b3", 300, []byte("late\n")); err != nil || size != 305 {
		t.Errorf("Append to a packed log = %d, %v, want 305", size, err)
	}
	if got, want := text(t, s, "pc1", "b3"), strings.Repeat("b3\n", 100)+"late\n"; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
	if list, err := s.List("pc1"); err != nil || list[0].Boot != "b4" {
		t.Errorf("List = %v, %v, want b4 first: a late word does not make a boot the newest", list, err)
	}
}

func TestAReaderHearsOfMore(t *testing.T) {
	s, _ := open(t)
	if _, err := s.Append("pc1", "b1", 0, []byte("one\n")); err != nil {
		t.Fatal(err)
	}
	got, more, err := s.ReadFrom("pc1", "b1", 4)
	if err != nil || len(got) != 0 {
		t.Fatalf("ReadFrom(4) = %q, %v", got, err)
	}
	select {
	case <-more:
		t.Fatal("told of more before there was any")
	default:
	}
	if _, err := s.Append("pc1", "b1", 4, []byte("two\n")); err != nil {
		t.Fatal(err)
	}
	<-more
	if got, _, err = s.ReadFrom("pc1", "b1", 4); err != nil || string(got) != "two\n" {
		t.Errorf("ReadFrom(4) = %q, %v, want the second line", got, err)
	}
}

func TestForeignNamesStayInside(t *testing.T) {
	s, dir := open(t)
	if _, err := s.Append("../outside", "b1", 0, []byte("x")); err == nil {
		t.Error("a log was written outside of the directory")
	}
	if _, err := os.Stat(filepath.Join(dir, "../outside")); err == nil {
		t.Error("../outside exists")
	}
	if _, _, err := s.ReadFrom("pc1", "b9", 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the log of an unknown boot: %v, want fs.ErrNotExist", err)
	}
	if _, err := s.Append("pc1", "b1", 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget("pc1"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List("pc1"); err != nil || len(list) != 0 {
		t.Errorf("after Forget: %v, %v", list, err)
	}
}

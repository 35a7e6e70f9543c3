// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"slate/nfs/internal/xdr"
)

// loadTrace reads a trace as nfs.Server.Trace writes it and makes the calls of
// it for a server whose handles are known. Objects that the tree does not have
// are counted, not called.
func loadTrace(r io.Reader, handles map[string][]byte) (calls []call, missing int, err error) {
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		if scan.Text() == "" || scan.Text()[0] == '#' {
			continue
		}
		op, rest, _ := strings.Cut(scan.Text(), " ")
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, 0, fmt.Errorf("trace: %q: %w", scan.Text(), err)
		}
		name, _ := strconv.Unquote(quoted)
		var nums []uint64
		for _, f := range strings.Fields(rest[len(quoted):]) {
			n, err := strconv.ParseUint(f, 10, 64)
			if err != nil {
				return nil, 0, fmt.Errorf("trace: %q: %w", scan.Text(), err)
			}
			nums = append(nums, n)
		}
		target := name
		if op == "lookup" {
			target = path.Dir(name)
		}
		fh := handles[target]
		if fh == nil {
			missing++
			continue
		}
		c, err := traceCall(op, fh, name, nums)
		if err != nil {
			return nil, 0, fmt.Errorf("trace: %q: %w", scan.Text(), err)
		}
		calls = append(calls, c)
	}
	return calls, missing, scan.Err()
}

func traceCall(op string, fh []byte, name string, nums []uint64) (call, error) {
	want := map[string]int{"access": 1, "read": 2, "readdir": 2, "readdirplus": 2, "getacl": 1}[op]
	if len(nums) != want {
		return nil, fmt.Errorf("%d numbers, want %d", len(nums), want)
	}
	switch op {
	case "getattr":
		return handleCall(procGetattr, fh), nil
	case "lookup":
		return lookupCall(fh, path.Base(name)), nil
	case "access":
		return handleCall(procAccess, fh, uint32(nums[0])), nil
	case "getacl":
		return newCall(progACL, procGetacl, xdr.AppendUint32(xdr.AppendOpaque(nil, fh), uint32(nums[0]))), nil
	case "readlink":
		return handleCall(procReadlink, fh), nil
	case "read":
		return readCall(fh, nums[0], uint32(nums[1])), nil
	case "readdir":
		return handleCall(procReaddir, fh, 0, 0, 0, 0, uint32(nums[1])), nil
	case "readdirplus":
		// From the start: cookies of one server mean nothing to another.
		return handleCall(procReaddirplus, fh, 0, 0, 0, 0, uint32(nums[1])/8, uint32(nums[1])), nil
	case "fsinfo":
		return handleCall(procFsinfo, fh), nil
	case "fsstat":
		return handleCall(procFsstat, fh), nil
	case "pathconf":
		return handleCall(procConf, fh), nil
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

// likeABoot makes a trace with the mix of operations that the boot of a Debian
// over NFS was seen to have: 2,338 GETATTR, 823 READ of 42 MB, 589 LOOKUP (a
// third of them for what is not there), 530 ACCESS, 135 READLINK, 56 listings.
// The same tree gives the same trace.
func likeABoot(files []file) string {
	r := rand.New(rand.NewPCG(1, 2))
	sort.Slice(files, func(i, j int) bool { return files[i].path < files[j].path })
	var dirs, regular, links []file
	for _, f := range files {
		switch {
		case f.dir:
			dirs = append(dirs, f)
		case f.link:
			links = append(links, f)
		case f.size > 0 && f.size < 8<<20:
			regular = append(regular, f)
		}
	}
	pick := func(from []file) file { return from[r.IntN(len(from))] }
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for range 2338 {
		add("getattr %q", pick(files).path)
	}
	for i := range 589 {
		if i%3 == 0 {
			add("lookup %q", pick(dirs).path+"/no-such-name")
		} else if p := pick(files).path; p != "." {
			add("lookup %q", p)
		}
	}
	for range 530 {
		add("access %q 63", pick(files).path)
	}
	for range 135 {
		add("readlink %q", pick(links).path)
	}
	for range 56 {
		add("readdirplus %q 0 65536", pick(dirs).path)
	}
	// Files of a boot are libraries and programs: larger than the average.
	for n, bytes := 0, int64(0); n < 823; {
		f := pick(regular)
		if f.size < 20<<10 && bytes < int64(n)*51000 {
			continue
		}
		for off := int64(0); off < f.size && n < 823; off += 128 << 10 {
			add("read %q %d %d", f.path, off, min(128<<10, f.size-off))
			bytes += min(128<<10, f.size-off)
			n++
			if bytes > int64(n)*55000 {
				break
			}
		}
	}
	r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	return strings.Join(lines, "\n")
}

// file is a file of the tree that is served.
type file struct {
	path      string
	size      int64
	dir, link bool
}

func listFiles(t testing.TB, dir string) (files []file) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		f := file{path: rel, dir: d.IsDir(), link: d.Type()&fs.ModeSymlink != 0}
		if d.Type().IsRegular() {
			f.size = info.Size()
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// recorded is a boot of a Debian 12 with systemd, made by TestRecord.
//
//go:embed testdata/debian-12-boot.trace.gz
var recorded []byte

// readTrace returns the recorded boot to replay, and a mix of operations like
// that of a boot with the kernel's default mount options. A recorded boot needs
// a tree like the one it was recorded with: for others the mix stands in.
func readTrace(t testing.TB, dir string) (boot, mix string) {
	t.Helper()
	files := listFiles(t, dir)
	mix = likeABoot(files)
	var data []byte
	var err error
	if *trace != "" {
		data, err = os.ReadFile(*trace)
	} else {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(recorded)); err == nil {
			data, err = io.ReadAll(z)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	known := map[string][]byte{}
	for _, f := range files {
		known[f.path] = []byte{}
	}
	calls, missing, err := loadTrace(bytes.NewReader(data), known)
	if err != nil {
		t.Fatal(err)
	}
	if missing > len(calls)/4 {
		t.Logf("%d of %d operations of the recorded boot are on objects that the tree does not have: the mix is replayed instead", missing, missing+len(calls))
		return mix, mix
	}
	return string(data), mix
}

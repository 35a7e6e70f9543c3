// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"slate/images"
	"slate/images/store"
)

// The test binary re-executes itself as a worker that can be killed.
const (
	envWorker = "SLATE_STORE_WORKER"
	envDir    = "SLATE_STORE_DIR"
	envSeed   = "SLATE_STORE_SEED"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(envWorker) {
	case "":
		os.Exit(m.Run())
	case "busy":
		err = busy(os.Getenv(envDir), os.Getenv(envSeed))
	case "full":
		err = fullDisk(os.Getenv(envDir))
	}
	if err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

func worker(t *testing.T, what, dir, seed string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envWorker+"="+what, envDir+"="+dir, envSeed+"="+seed)
	return cmd
}

// busy commits, publishes, rolls back and collects until it is killed, with a
// line for each step.
func busy(dir, seed string) error {
	s, err := store.Open(dir, store.Options{Who: seed})
	if err != nil {
		return err
	}
	ctx := context.Background()
	src, err := os.MkdirTemp(filepath.Dir(dir), "src-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	fmt.Println("up")
	for i := 0; ; i++ {
		for f := range 20 {
			name := filepath.Join(src, fmt.Sprint(f))
			if err := os.WriteFile(name, fmt.Appendf(nil, "%s %d", seed, rand.IntN(50)), 0o644); err != nil {
				return err
			}
		}
		_, d, err := s.AddDir(ctx, src)
		if err != nil {
			return err
		}
		_, _, err = s.Commit(ctx, images.Record{Name: "demo", Tree: d})
		var mb *store.MissingBlobError
		var mt *store.MissingTreeError
		switch {
		case errors.As(err, &mb) || errors.As(err, &mt): // the other worker's gc came between, as MinAge allows here
		case err != nil:
			return err
		default:
			if err := s.Publish(ctx, images.Ref{Name: "demo"}, "stable"); err != nil {
				return err
			}
		}
		if i%3 == 2 {
			if _, err := s.Rollback(ctx, "demo", "stable"); err != nil && !errors.Is(err, store.ErrNoEarlier) && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if _, err := s.GC(ctx, store.GCOptions{Delete: true, Keep: 2, MinAge: time.Nanosecond}); err != nil {
				return err
			}
		}
		fmt.Println("step", i)
	}
}

// output is what a worker prints; up is closed with its first word.
type output struct {
	text bytes.Buffer
	once sync.Once
	up   chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.once.Do(func() { close(o.up) })
	return o.text.Write(b)
}

// soak returns how many rounds of a trial to make: some, or with SLATE_SOAK, a
// directory, those of all that were not made yet. Done notes one there.
func soak(t *testing.T, name string, some, all int) (rounds int, done func(line string)) {
	dir := os.Getenv("SLATE_SOAK")
	if dir == "" {
		return some, func(string) {}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "store-"+name), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	made := bytes.Count(text, []byte("\n"))
	t.Logf("%d of %d rounds are done (%s)", made, all, f.Name())
	return max(all-made, 0), func(line string) {
		if _, err := fmt.Fprintln(f, line); err != nil {
			t.Fatal(err)
		}
	}
}

// Two processes work on one store and are killed at any point, again and
// again. Nothing that has a name may ever be damaged.
func TestKilledAtAnyPoint(t *testing.T) {
	base := "/dev/shm" // no disk to wait for, so there are more points to be killed at
	if f, err := os.MkdirTemp(base, "slate-*"); err == nil {
		base = f
		t.Cleanup(func() { os.RemoveAll(f) })
	} else {
		base = t.TempDir()
	}
	dir := filepath.Join(base, "store")
	s := openAt(t, dir, store.Options{})
	rounds, done := soak(t, "killed", 20, 3000)
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("SLATE_SOAK_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d (SLATE_SOAK_SEED)", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	highest, steps := 0, 0
	for round := range rounds {
		before := steps
		cmds := []*exec.Cmd{worker(t, "busy", dir, fmt.Sprint("a", round)), worker(t, "busy", dir, fmt.Sprint("b", round))}
		out := []*output{{up: make(chan struct{})}, {up: make(chan struct{})}}
		for i, cmd := range cmds {
			cmd.Stdout = out[i]
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
		}
		for i, cmd := range cmds {
			delay := time.Duration(rng.IntN(150)) * time.Millisecond
			kill := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
			go func() { <-out[i].up; kill.Reset(delay) }() // on a busy machine it is long in coming up
			cmd.Wait()
			kill.Stop()
			out[i].once.Do(func() { close(out[i].up) })
		}
		for _, o := range out {
			steps += strings.Count(o.text.String(), "step")
			if strings.Contains(o.text.String(), "FAIL") {
				t.Fatalf("round %d: %s", round, &o.text)
			}
		}
		sound(t, s)
		if t.Failed() {
			t.Fatalf("damage after round %d", round)
		}
		recs, err := s.Versions("demo")
		if err != nil && !errors.Is(err, os.ErrNotExist) { // killed before the first
			t.Fatal(err)
		}
		if len(recs) > 0 {
			n := recs[len(recs)-1].Number
			if n < highest {
				t.Fatalf("round %d: newest version is %d, it was %d", round, n, highest)
			}
			highest = n
		}
		done(fmt.Sprintf("seed %d round %d: %d whole steps, newest version %d", seed, round, steps-before, highest))
	}
	if _, err := s.GC(t.Context(), store.GCOptions{Delete: true, MinAge: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	clean(t, s)
	r := sound(t, s)
	t.Logf("%d rounds, %d whole steps, newest version %d; %d versions, %d blobs left", rounds, steps, highest, r.Versions, r.Blobs)
	if rounds > 10 && (steps == 0 || highest == 0) {
		t.Error("the workers got nothing done: the test shows nothing")
	}
}

// fullDisk fills a small file system of its own through a store on it.
func fullDisk(dir string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		return err
	}
	ctx := context.Background()
	src, err := os.MkdirTemp("", "full-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	if err := os.WriteFile(filepath.Join(src, "small"), []byte("small"), 0o644); err != nil {
		return err
	}
	_, d, err := s.AddDir(ctx, src)
	if err != nil {
		return err
	}
	if _, _, err := s.Commit(ctx, images.Record{Name: "demo", Tree: d}); err != nil {
		return err
	}
	for i := range 300 { // 600 kB in small files and 6 MB in a large one
		if err := os.WriteFile(filepath.Join(src, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1000), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(src, "large"), bytes.Repeat([]byte("0123456789"), 600_000), 0o644); err != nil {
		return err
	}
	_, _, err = s.AddDir(ctx, src)
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("AddDir on a full disk = %v, want ENOSPC", err)
	}
	_, err = s.PutBlob(ctx, io.LimitReader(rand.NewChaCha8([32]byte{}), 8<<20))
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("PutBlob on a full disk = %v, want ENOSPC", err)
	}
	r, err := s.Verify(ctx, store.VerifyOptions{})
	if err != nil || len(r.Damage) > 0 || r.Versions != 1 {
		return fmt.Errorf("after the full disk: %+v, %v", r, err)
	}
	// What failed has given its room back, so smaller things fit again.
	if err := os.Remove(filepath.Join(src, "large")); err != nil {
		return err
	}
	if _, _, err := s.AddDir(ctx, src); err != nil {
		return fmt.Errorf("AddDir after the full disk: %w", err)
	}
	fmt.Println("done")
	return nil
}

func TestFullDisk(t *testing.T) {
	cmd := worker(t, "full", t.TempDir(), "")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err == nil && bufio.NewScanner(bytes.NewReader(out)).Scan() && strings.Contains(string(out), "done") {
		return
	}
	if errors.Is(err, syscall.EPERM) && os.Getenv("SLATE_TEST") != "all" {
		t.Skipf("no mount namespace of our own: %v", err)
	}
	t.Fatalf("%v\n%s", err, out)
}

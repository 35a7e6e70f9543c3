// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Loader inserts modules into the kernel. It is safe for concurrent use.
type Loader struct {
	Root     string // of /sys and /lib; "" is /
	Index    *ModuleIndex
	Settings Settings // module options and blacklist
	Digests  Digests  // a module that differs from its digest is not inserted

	mu     sync.Mutex
	failed map[string]error
	insert func(file, options string) error // finit_module, replaced in tests
}

// Load inserts the named modules (or what an alias stands for) and everything
// they need. Modules that do not depend on each other go in side by side, since
// probing a device in an init function can take seconds. A module that fails is
// not tried again: the same hardware would give the same answer.
func (l *Loader) Load(ctx context.Context, names ...string) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Index == nil {
		return 0, errors.New("no modules for this kernel in the initramfs")
	}
	plan, missing := l.Index.Plan(names, l.isLoaded)
	var errs []error
	for _, m := range missing {
		errs = append(errs, fmt.Errorf("module %s: not in the initramfs", m))
	}
	results := make(chan error, len(plan))
	finished := map[string]chan struct{}{}
	for _, m := range plan {
		finished[m.Name] = make(chan struct{})
	}
	limit := make(chan struct{}, 8)
	for _, m := range plan {
		old := l.failed[m.Name]
		go func() {
			defer close(finished[m.Name])
			for _, d := range m.After {
				<-finished[d]
			}
			limit <- struct{}{}
			defer func() { <-limit }()
			switch {
			case ctx.Err() != nil:
				results <- ctx.Err()
			case old != nil:
				results <- old
			default:
				results <- l.one(m)
			}
		}()
	}
	for range plan {
		err := <-results
		var me *moduleError
		switch {
		case err == nil:
			n++
		case errors.As(err, &me):
			if l.failed == nil {
				l.failed = map[string]error{}
			}
			if l.failed[me.name] == nil {
				errs = append(errs, err)
			}
			l.failed[me.name] = err
		default:
			errs = append(errs, err)
		}
	}
	return n, errors.Join(errs...)
}

type moduleError struct {
	name string
	err  error
}

func (e *moduleError) Error() string { return "module " + e.name + ": " + e.err.Error() }
func (e *moduleError) Unwrap() error { return e.err }

func (l *Loader) one(m Load) error {
	insert := l.insert
	if insert == nil {
		insert = finit
	}
	if err := l.Digests.File(l.Root, "/"+m.File); err != nil {
		return &moduleError{m.Name, err}
	}
	err := insert(filepath.Join(l.Root, "/", m.File), strings.Join(l.Settings.ModuleOptions[m.Name], " "))
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENODEV):
		// The driver looked and found none of its devices: not a fault.
		return &moduleError{m.Name, errors.New("no such device here")}
	}
	return &moduleError{m.Name, err}
}

// finit lets the kernel read the file; a compressed one is the kernel's to unpack
// where it can (5.17 with CONFIG_MODULE_DECOMPRESS), the builder packs plain ones.
func finit(file, options string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), options, flags)
	if flags != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
		return fmt.Errorf("%s is compressed and this kernel cannot unpack it: %w", filepath.Base(file), err)
	}
	return err
}

func (l *Loader) isLoaded(name string) bool {
	// initstate is absent for a built-in module that only has parameters there.
	_, err := os.Stat(filepath.Join(l.Root, "/sys/module", name, "initstate"))
	return err == nil
}

// Coldplug loads the drivers of all devices that are there now and gives the
// number of modules inserted. New buses appear behind a driver, so the caller
// repeats it until nothing more comes.
func (l *Loader) Coldplug(ctx context.Context) (int, error) {
	return l.LoadFor(ctx, Modaliases(l.Root)...)
}

// LoadFor loads the drivers that claim the given modaliases.
func (l *Loader) LoadFor(ctx context.Context, aliases ...string) (int, error) {
	if l.Index == nil {
		return 0, nil
	}
	var want []string
	for _, a := range aliases {
		for _, m := range l.Index.Match(a) {
			if !l.Settings.Blacklist[m] && !slices.Contains(want, m) && !l.isLoaded(m) {
				want = append(want, m)
			}
		}
	}
	if len(want) == 0 {
		return 0, nil
	}
	return l.Load(ctx, want...)
}

// Modaliases gives what every device of every bus calls itself.
func Modaliases(root string) []string {
	files, _ := filepath.Glob(filepath.Join(root, "/sys/bus/*/devices/*/modalias"))
	var out []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			if s := strings.TrimSpace(string(b)); s != "" && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

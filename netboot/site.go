// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"slate/netboot/config"
)

// site gives the present config.d. A change on disk is taken over when it is
// asked for next; a config.d that has become bad is reported once, and the last
// good one stays in force.
type site struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	good   *config.Site
	stamp  string
	looked time.Time     // when the files were last looked at
	cost   time.Duration // how long that took
}

// slowLook is what a look at all of config.d may take without being saved on.
const slowLook = 20 * time.Millisecond

func openSite(dir string, log *slog.Logger) (*site, error) {
	s := &site{dir: dir, log: log, stamp: stampOf(dir)}
	if _, err := os.Stat(dir); err != nil {
		return nil, &settingsError{err, "write a starter config.d with: slate init"}
	}
	var err error
	s.good, err = config.Load(os.DirFS(dir))
	return s, err
}

// recentTime is how old the last look may be for those who ask with each packet.
const recentTime = time.Second

// recent is current without a look at the files if there was one just now.
func (s *site) recent() *config.Site {
	s.mu.Lock()
	good, looked := s.good, s.looked
	s.mu.Unlock()
	if time.Since(looked) < recentTime {
		return good
	}
	return s.current()
}

func (s *site) current() *config.Site {
	s.mu.Lock()
	defer s.mu.Unlock()
	// With files for thousands of nodes a look takes long, and machines come in
	// crowds: then looking takes no more than a twentieth of the time.
	if s.cost > slowLook && time.Since(s.looked) < 20*s.cost {
		return s.good
	}
	start := time.Now()
	stamp := stampOf(s.dir)
	s.looked, s.cost = time.Now(), time.Since(start)
	if stamp == s.stamp {
		return s.good
	}
	s.stamp = stamp
	fresh, err := config.Load(os.DirFS(s.dir))
	if err != nil {
		s.log.Error("config.d has errors; the last good one stays in force", "err", err)
		return s.good
	}
	s.log.Info("config.d was read again", "dir", s.dir)
	s.good = fresh
	return fresh
}

// stampOf changes when a file below dir does.
func stampOf(dir string) string {
	var b strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, p, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	return b.String()
}

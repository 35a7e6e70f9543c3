// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/durable"
	"slate/images/tree"
)

// A statCache remembers the digests of the files below one directory, so that
// committing it again need not read what has not changed. It believes an
// inode's size and times, as git and rsync do, and takes care of where those lie:
//
//   - Time stamps are coarse: a file changed a moment ago may change again under
//     the same stamp.
//   - Who writes through a mapping changes the stamp only when the page was clean
//     before.
//   - The modification time can be set by anybody, the change time cannot.
//
// So before the first file is read that may be remembered, the file system is
// synced, which leaves all pages clean, and only files are remembered whose
// change time is from well before that. Where stamps are made by another machine, or
// writing through a mapping makes none, nothing is.
type statCache struct {
	path  string
	dir   string
	fsid  [16]byte
	known map[uint64]statEntry // by inode; read only

	sync  sync.Once
	limit int64 // only files that changed before are remembered

	mu    sync.Mutex
	fresh map[uint64]statEntry // what the next commit may believe
}

// raceMargin is far above the grain of any time stamp that is believed.
const raceMargin = 2 * time.Second

type statEntry struct {
	stamp  statStamp
	digest images.Digest
	xattrs []tree.Xattr
}

// A statStamp is what changes whenever a file does.
type statStamp struct{ size, mtime, ctime int64 }

func stampOf(st *unix.Stat_t) statStamp {
	return statStamp{st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// cacheable are the file systems whose change times can be relied on.
var cacheable = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true,
	unix.F2FS_SUPER_MAGIC: true, unix.OVERLAYFS_SUPER_MAGIC: true,
}

// openStatCache returns what is known about the directory that is open as root;
// nil if nothing can be.
func (s *Store) openStatCache(root *os.File, st *unix.Stat_t) (*statCache, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &fs); err != nil {
		return nil, fmt.Errorf("file system of %s: %w", root.Name(), err)
	}
	if !cacheable[int64(fs.Type)] {
		return nil, nil
	}
	c := &statCache{dir: root.Name(), known: map[uint64]statEntry{}, fresh: map[uint64]statEntry{}}
	binary.LittleEndian.PutUint32(c.fsid[:], uint32(fs.Fsid.Val[0]))
	binary.LittleEndian.PutUint32(c.fsid[4:], uint32(fs.Fsid.Val[1]))
	binary.LittleEndian.PutUint64(c.fsid[8:], uint64(fs.Type))
	name := sha256.Sum256(binary.LittleEndian.AppendUint64(c.fsid[:], st.Ino))
	c.path = s.path("cache", "stat", hex.EncodeToString(name[:16]))
	text, err := os.ReadFile(c.path)
	if err == nil {
		err = c.parse(text)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Debug("what was known about the files is not used", "path", c.path, "err", err)
	}
	return c, nil
}

// find returns what is known about a file that has not changed.
func (c *statCache) find(st *unix.Stat_t) (statEntry, bool) {
	if c == nil {
		return statEntry{}, false
	}
	e, ok := c.known[st.Ino]
	if !ok || e.stamp != stampOf(st) {
		return statEntry{}, false
	}
	c.mu.Lock()
	c.fresh[st.Ino] = e
	c.mu.Unlock()
	return e, true
}

// prepare must be called before a file is read. It tells whether learn may
// remember the file: one that was changed a moment ago may change again unseen.
func (c *statCache) prepare(st *unix.Stat_t, now time.Time) bool {
	if c == nil || st.Ctim.Nano() >= now.Add(-raceMargin).UnixNano() {
		return false
	}
	c.sync.Do(func() {
		if syncFS(c.dir) == nil {
			c.limit = now.Add(-raceMargin).UnixNano()
		}
	})
	return st.Ctim.Nano() < c.limit
}

// learn remembers a file that was read; st is from before that.
func (c *statCache) learn(st *unix.Stat_t, e *tree.Entry) {
	c.mu.Lock()
	c.fresh[st.Ino] = statEntry{stampOf(st), e.Digest, e.Xattrs}
	c.mu.Unlock()
}

// save writes down what the next commit may believe. Losing it costs time only.
func (c *statCache) save(s *Store) {
	if c == nil || c.limit == 0 && len(c.fresh) == len(c.known) {
		return // nothing was learnt
	}
	err := durable.MkdirAll(s.path("cache", "stat"), 0o700)
	if err == nil {
		err = durable.WriteFile(c.path, c.text(), 0o600)
	}
	if err != nil {
		s.log.Warn("what is known about the files is not kept", "path", c.path, "err", err)
	}
}

// The file: magic, the file system's id, entries, and the SHA-256 of all that.
const statMagic = "slatest1"

func (c *statCache) text() []byte {
	b := append([]byte(statMagic), c.fsid[:]...)
	le := binary.LittleEndian
	for ino, e := range c.fresh {
		for _, v := range []uint64{ino, uint64(e.stamp.size), uint64(e.stamp.mtime), uint64(e.stamp.ctime)} {
			b = le.AppendUint64(b, v)
		}
		b = append(b, e.digest[:]...)
		b = binary.AppendUvarint(b, uint64(len(e.xattrs)))
		for _, x := range e.xattrs {
			b = append(binary.AppendUvarint(b, uint64(len(x.Name))), x.Name...)
			b = append(binary.AppendUvarint(b, uint64(len(x.Value))), x.Value...)
		}
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

var errStatCache = errors.New("it is damaged")

func (c *statCache) parse(text []byte) error {
	body := len(text) - sha256.Size
	if body < len(statMagic)+len(c.fsid) || sha256.Sum256(text[:body]) != [sha256.Size]byte(text[body:]) {
		return errStatCache
	}
	rest, ok := bytes.CutPrefix(text[:body], append([]byte(statMagic), c.fsid[:]...))
	if !ok {
		return errors.New("it is of another file system or version")
	}
	le := binary.LittleEndian
	r := bytes.NewReader(rest)
	var fixed [4*8 + sha256.Size]byte
	for r.Len() > 0 {
		if _, err := io.ReadFull(r, fixed[:]); err != nil {
			return errStatCache
		}
		e := statEntry{
			stamp:  statStamp{int64(le.Uint64(fixed[8:])), int64(le.Uint64(fixed[16:])), int64(le.Uint64(fixed[24:]))},
			digest: images.Digest(fixed[32:]),
		}
		n, err := binary.ReadUvarint(r)
		for range n {
			var name, value []byte
			if name, err = readString(r); err == nil {
				value, err = readString(r)
			}
			if err != nil {
				break
			}
			e.xattrs = append(e.xattrs, tree.Xattr{Name: string(name), Value: value})
		}
		if err != nil {
			return errStatCache
		}
		c.known[le.Uint64(fixed[:])] = e
	}
	return nil
}

func readString(r *bytes.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > uint64(r.Len()) {
		return nil, errStatCache
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

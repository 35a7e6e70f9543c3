// SPDX-License-Identifier: GPL-2.0-or-later

package leases

// Disk stands between a store and its journals: each write of leases waits for what
// comes from Let, and ends with that if it is an error.
type Disk struct {
	Entered chan struct{} // a write has begun
	Let     chan error
}

// Through puts the disk in front of the store's journals.
func (s *Store) Through(d *Disk) {
	for _, j := range []*journal{s.filling, s.other} {
		j.f = &slowFile{file: j.f, disk: d}
	}
}

type slowFile struct {
	file
	disk *Disk
}

func (f *slowFile) WriteAt(b []byte, off int64) (int, error) {
	f.disk.Entered <- struct{}{}
	if err := <-f.disk.Let; err != nil {
		return 0, err
	}
	return f.file.WriteAt(b, off)
}

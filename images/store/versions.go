// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/durable"
	"slate/images/tree"
)

// recordPath returns where the record of a version is kept; the signature has
// the same path and ".sig".
func (s *Store) recordPath(name string, number int) string {
	return s.path("images", name, strconv.Itoa(number)+".toml")
}

// lastFile holds the highest number ever given to a version of the image, so
// that a removed version's number is not given again.
const lastFile = "last"

// Commit makes a version of rec, which needs Name and Tree, gives it a number,
// and signs it if the store has a key. If the newest version of the image is
// the Same, that version is returned and isNew is false.
func (s *Store) Commit(ctx context.Context, rec images.Record) (out images.Record, isNew bool, err error) {
	if err := images.CheckName(rec.Name); err != nil {
		return images.Record{}, false, err
	}
	unlock, err := s.lock(ctx, "staging", false) // no gc between the check and the record
	if err != nil {
		return images.Record{}, false, err
	}
	defer unlock()
	t, err := s.Tree(ctx, rec.Tree)
	if err != nil {
		return images.Record{}, false, err
	}
	rec.Entries, rec.Size = t.Len(), t.Size()
	// What is a version already no gc has touched, and verify looks after it.
	if newest, err := s.Resolve(images.Ref{Name: rec.Name}); err == nil && newest.Same(rec) {
		return newest, false, nil
	}
	if err := s.complete(ctx, t, &rec); err != nil {
		return images.Record{}, false, err
	}
	unlockImages, err := s.lock(ctx, "images", true)
	if err != nil {
		return images.Record{}, false, err
	}
	defer unlockImages()

	numbers, err := s.numbers(rec.Name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return images.Record{}, false, err
	}
	rec.Number = s.lastNumber(rec.Name) + 1
	if len(numbers) > 0 {
		newest, err := s.record(rec.Name, numbers[len(numbers)-1])
		if err != nil {
			return images.Record{}, false, err
		}
		if newest.Same(rec) {
			return newest, false, nil
		}
		rec.Parent = newest.Tree
		rec.Number = max(rec.Number, newest.Number+1)
	}
	if rec.Time.IsZero() {
		rec.Time = s.now()
	}
	if err := s.writeRecord(rec); err != nil {
		return images.Record{}, false, err
	}
	out, err = s.record(rec.Name, rec.Number)
	if err == nil {
		s.log.Debug("committed", "image", out.Ref(), "tree", out.Tree.Short(), "entries", out.Entries, "bytes", out.Size)
	}
	return out, true, err
}

// complete checks that every blob of the version is there.
func (s *Store) complete(ctx context.Context, t *tree.Tree, rec *images.Record) error {
	dir, err := s.openBlobs()
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, b := range rec.Parts() {
		if ok, err := s.has(dir, b.Digest); err != nil || !ok {
			return errors.Join(err, &MissingBlobError{Digest: b.Digest})
		}
	}
	// Their time stamps matter no more: gc waits for the record.
	for b := range t.Blobs() {
		if err := unix.Faccessat(int(dir.Fd()), blobName(b.Digest), unix.F_OK, 0); errors.Is(err, unix.ENOENT) {
			return &MissingBlobError{Digest: b.Digest}
		} else if err != nil {
			return &os.PathError{Op: "access", Path: s.BlobPath(b.Digest), Err: err}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// writeRecord signs the record if there is a key. The signature is written
// first: the record is what makes the version visible.
func (s *Store) writeRecord(rec images.Record) error {
	text, err := images.MarshalRecord(rec)
	if err != nil {
		return err
	}
	var sig []byte
	if s.o.Key != nil {
		sig = images.Sign(s.o.Key, images.PurposeRecord, text)
	}
	return s.writeSigned(rec, text, sig)
}

func (s *Store) writeSigned(rec images.Record, text, sig []byte) error {
	path := s.recordPath(rec.Name, rec.Number)
	err := durable.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil && len(sig) == 0 {
		err = durable.Remove(path + ".sig")
	} else if err == nil {
		err = durable.WriteFile(path+".sig", sig, 0o644)
	}
	if err == nil {
		err = durable.WriteFile(path, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", rec.Ref(), err)
	}
	return nil
}

// Images returns the names of the images that have a version, sorted.
func (s *Store) Images() ([]string, error) {
	list, err := os.ReadDir(s.path("images"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if !e.IsDir() || images.CheckName(e.Name()) != nil {
			continue
		}
		if n, err := s.numbers(e.Name()); err != nil {
			return nil, err
		} else if len(n) > 0 {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// numbers returns the numbers of the image's versions, ascending.
func (s *Store) numbers(name string) ([]int, error) {
	list, err := os.ReadDir(s.path("images", name))
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range list {
		stem, ok := strings.CutSuffix(e.Name(), ".toml")
		if n, err := strconv.Atoi(stem); ok && err == nil && n > 0 && strconv.Itoa(n) == stem {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (s *Store) lastNumber(name string) int {
	text, err := os.ReadFile(s.path("images", name, lastFile))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return max(n, 0)
}

// SignedRecord returns the text of a version's record and the signature on it,
// which is empty if there is none.
func (s *Store) SignedRecord(name string, number int) (text, sig []byte, err error) {
	path := s.recordPath(name, number)
	if text, err = os.ReadFile(path); err != nil {
		return nil, nil, err
	}
	sig, err = os.ReadFile(path + ".sig")
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return text, sig, err
}

func (s *Store) record(name string, number int) (images.Record, error) {
	path := s.recordPath(name, number)
	text, err := os.ReadFile(path)
	if err != nil {
		return images.Record{}, err
	}
	rec, err := images.ParseRecord(text)
	if err != nil {
		return images.Record{}, &DamageError{Path: path, Reason: err.Error()}
	}
	if rec.Name != name || rec.Number != number {
		return images.Record{}, &DamageError{Path: path, Reason: "it is the record of " + rec.Ref()}
	}
	return rec, nil
}

// Versions returns the image's versions, oldest first. If some records are
// damaged, it returns the others and an error that joins one for each.
func (s *Store) Versions(name string) ([]images.Record, error) {
	numbers, err := s.existing(name)
	if err != nil {
		return nil, err
	}
	var recs []images.Record
	var errs []error
	for _, n := range numbers {
		if rec, err := s.record(name, n); err != nil {
			errs = append(errs, err)
		} else {
			recs = append(recs, rec)
		}
	}
	return recs, errors.Join(errs...)
}

// existing returns the numbers of an image, which must have at least one.
func (s *Store) existing(name string) ([]int, error) {
	if err := images.CheckName(name); err != nil {
		return nil, err
	}
	numbers, err := s.numbers(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if len(numbers) == 0 {
		have, err := s.Images()
		return nil, errors.Join(&NotFoundError{What: "image", Name: name, Have: have}, err)
	}
	return numbers, nil
}

// Resolve finds the version that ref names. What does not exist is a
// *NotFoundError.
func (s *Store) Resolve(ref images.Ref) (images.Record, error) {
	numbers, err := s.existing(ref.Name)
	if err != nil {
		return images.Record{}, err
	}
	switch {
	case ref.Number != 0:
		if !slices.Contains(numbers, ref.Number) {
			return images.Record{}, s.noVersion(ref, strconv.Itoa(ref.Number), numbers)
		}
		return s.record(ref.Name, ref.Number)
	case ref.Channel != "":
		ch, err := s.channel(ref)
		if err != nil {
			return images.Record{}, err
		}
		return s.record(ref.Name, ch.Version)
	case ref.Digest != "":
		return s.byDigest(ref, numbers)
	}
	return s.record(ref.Name, numbers[len(numbers)-1])
}

// byDigest finds the newest version whose tree digest starts with the digits
// given. Two versions can have one tree, if other things in them differ.
func (s *Store) byDigest(ref images.Ref, numbers []int) (images.Record, error) {
	var found []images.Record
	recs, err := s.Versions(ref.Name)
	for _, rec := range recs {
		if strings.HasPrefix(rec.Tree.String(), ref.Digest) {
			found = append(found, rec)
		}
	}
	if len(found) == 0 {
		return images.Record{}, errors.Join(s.noVersion(ref, ref.Digest, numbers), err)
	}
	for _, rec := range found[1:] {
		if rec.Tree != found[0].Tree {
			e := &AmbiguousError{Ref: ref}
			for _, r := range found {
				e.Have = append(e.Have, r.Ref()+" "+r.Tree.Short())
			}
			return images.Record{}, e
		}
	}
	return found[len(found)-1], nil
}

func (s *Store) noVersion(ref images.Ref, what string, numbers []int) error {
	e := &NotFoundError{What: "version", Name: what, In: ref.Name}
	for _, n := range slices.Backward(numbers) {
		e.Have = append(e.Have, fmt.Sprintf("%s/%d", ref.Name, n))
	}
	return e
}

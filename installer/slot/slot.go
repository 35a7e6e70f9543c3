// SPDX-License-Identifier: GPL-2.0-or-later

// Package slot knows the two systems of an installed machine: where they lie, which
// version each holds, whether it is whole, and how one is filled from an appliance.
// A slot's root holds the version's tree exactly, and one directory of ours beside
// it. What is damaged, unsigned or half there is never taken for a system.
package slot

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"slate/images"
	"slate/images/durable"
	"slate/images/transfer"
	"slate/images/tree"
)

// Our directory in a slot's root, and the files in it.
const (
	Dir        = ".slate"
	recordFile = "version.toml"
	sigFile    = "version.toml.sig"
	treeFile   = "tree.mtree.zst"
	// completeFile is written last, when everything in the slot was verified and is
	// on the disk. Its text is the digest of the tree.
	completeFile = "complete"
	blobDir      = "blobs" // what has been fetched, until the tree is whole
	// mendFile is there while files are replaced by good ones.
	mendFile = "mending"
)

// ErrEmpty says that there is no system in a slot.
var ErrEmpty = errors.New("no system in it")

// IncompleteError says that a slot was not filled to its end.
type IncompleteError struct{ Version string }

func (e *IncompleteError) Error() string {
	if e.Version == "" {
		return "its installation was interrupted"
	}
	return "the installation of " + e.Version + " was interrupted"
}

// Read returns the version that the slot mounted at dir holds, if its record is
// signed with one of the keys and the slot was filled to its end.
func Read(dir string, keys []ed25519.PublicKey) (images.Record, error) {
	ours := filepath.Join(dir, Dir)
	text, err := readSmall(filepath.Join(ours, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return images.Record{}, ErrEmpty
	}
	if err != nil {
		return images.Record{}, err
	}
	sig, err := readSmall(filepath.Join(ours, sigFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return images.Record{}, err
	}
	if err := images.Verify(keys, images.PurposeRecord, text, sig); err != nil {
		return images.Record{}, fmt.Errorf("its record: %w", err)
	}
	rec, err := images.ParseRecord(text)
	if err != nil {
		return images.Record{}, fmt.Errorf("its record: %w", err)
	}
	done, err := readSmall(filepath.Join(ours, completeFile))
	if err != nil || string(bytes.TrimSpace(done)) != rec.Tree.String() {
		return rec, &IncompleteError{rec.Ref()}
	}
	if _, err := os.Stat(filepath.Join(ours, mendFile)); err == nil {
		return rec, errors.New("its repair was interrupted")
	}
	return rec, nil
}

// ReadSigned returns the record of the slot mounted at dir, which Read found good, with
// its signature.
func ReadSigned(dir string, rec images.Record) (transfer.Signed, error) {
	text, err := readSmall(filepath.Join(dir, Dir, recordFile))
	if err != nil {
		return transfer.Signed{}, err
	}
	sig, err := readSmall(filepath.Join(dir, Dir, sigFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // a site whose key signs nothing
	}
	return transfer.Signed{Record: rec, Text: text, Signature: sig}, err
}

// ReadTree returns the tree list that is kept in the slot.
func ReadTree(dir string, want images.Digest) (*tree.Tree, error) {
	f, err := os.Open(filepath.Join(dir, Dir, treeFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dec, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	t, err := tree.Parse(io.LimitReader(dec, 4<<30))
	if err != nil {
		return nil, err
	}
	if t.Digest() != want {
		return nil, fmt.Errorf("the tree list in the slot is %s, not %s", t.Digest().Short(), want.Short())
	}
	return t, nil
}

// readSmall reads one of our files, which no fault makes larger than this.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}

// writeMeta keeps the record, its signature and the tree list in the slot.
func writeMeta(dir string, text, sig []byte, t *tree.Tree) error {
	ours := filepath.Join(dir, Dir)
	if err := durable.Write(filepath.Join(ours, treeFile), 0o600, func(w io.Writer) error {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		_, err = t.WriteTo(enc)
		return errors.Join(err, enc.Close())
	}); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(ours, sigFile), sig, 0o600); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(ours, recordFile), text, 0o600)
}

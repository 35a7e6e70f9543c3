// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"fmt"
	"io/fs"
	"strings"

	"slate/images"
)

// A NotFoundError says that there is no image, version or channel of a name.
type NotFoundError struct {
	What string   // image, version or channel
	Name string   // as asked for
	In   string   // the image, for versions and channels
	Have []string // what there is instead
}

func (e *NotFoundError) Error() string {
	if e.In == "" {
		return fmt.Sprintf("no %s %q", e.What, e.Name)
	}
	return fmt.Sprintf("image %s has no %s %q", e.In, e.What, e.Name)
}

// Is makes the error an fs.ErrNotExist.
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// maxHave is how many names a hint lists.
const maxHave = 12

// Hint names what exists.
func (e *NotFoundError) Hint() string {
	switch {
	case len(e.Have) == 0 && e.What == "image":
		return "the store is empty; slate build and slate image import make images"
	case len(e.Have) == 0 && e.What == "channel":
		return fmt.Sprintf("no version of %s is published yet; slate image publish %s --channel CHANNEL does it", e.In, e.In)
	case len(e.Have) == 0:
		return ""
	case len(e.Have) > maxHave:
		return fmt.Sprintf("there are %s and %d more", strings.Join(e.Have[:maxHave], ", "), len(e.Have)-maxHave)
	}
	return "there is " + strings.Join(e.Have, ", ")
}

// An AmbiguousError says that the beginning of a digest fits several versions.
type AmbiguousError struct {
	Ref  images.Ref
	Have []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s: fits %d versions", e.Ref, len(e.Have))
}

// Hint names the versions.
func (e *AmbiguousError) Hint() string { return "one of " + strings.Join(e.Have, ", ") }

// A MissingBlobError says that a blob is not in the store.
type MissingBlobError struct{ Digest images.Digest }

func (e *MissingBlobError) Error() string {
	return fmt.Sprintf("blob %s is not in the store", e.Digest)
}

// Is makes the error an fs.ErrNotExist.
func (e *MissingBlobError) Is(target error) bool { return target == fs.ErrNotExist }

// A DamageError says that something in the store is not what it must be.
type DamageError struct {
	Path   string
	Reason string
}

func (e *DamageError) Error() string { return fmt.Sprintf("%s is damaged: %s", e.Path, e.Reason) }

// Hint says how to find out the extent.
func (e *DamageError) Hint() string {
	return "slate image verify tells what else is damaged and which versions it touches"
}

// A MissingTreeError says that a tree list is not in the store.
type MissingTreeError struct{ Digest images.Digest }

func (e *MissingTreeError) Error() string {
	return fmt.Sprintf("tree list %s is not in the store", e.Digest)
}

// Is makes the error an fs.ErrNotExist.
func (e *MissingTreeError) Is(target error) bool { return target == fs.ErrNotExist }

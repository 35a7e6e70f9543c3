// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"cmp"
	"context"
	"errors"
	"io/fs"

	"slate/images"
	"slate/images/store"
	"slate/netboot"
)

// settings reads the appliance's settings; --data goes before the file.
func (a *app) settings() (netboot.Settings, error) {
	s, err := netboot.ReadSettings(a.Config)
	s.Data = cmp.Or(a.Data, s.Data)
	return s, err
}

// store opens the image store, to sign what is committed with the site key. With
// --data it does without a settings file, and then without a key if there is none.
func (a *app) store(context.Context) (*store.Store, error) {
	s, err := a.settings()
	if err != nil && (a.Data == "" || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	o := store.Options{Log: a.log}
	if err == nil {
		if o.Key, err = images.LoadKey(s.Key); err != nil {
			return nil, hintError{err, "make the site key with: slate init"}
		}
	}
	return store.Open(s.Data, o)
}

// hintError is an error with what to do about it.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

// Hint is what to do about it.
func (e hintError) Hint() string { return e.hint }

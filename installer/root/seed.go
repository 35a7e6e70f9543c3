// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"slate/images/durable"
)

// KeptSeed is where a machine with a disk keeps what its random numbers begin with.
const KeptSeed = UserData + "/persistent/.slate/random-seed"

const seedSize = 64

// StirSeed gives the kernel the seed that the last start has left in file, and leaves
// another for the next: one that was used once, or lies in an image, is no secret. The
// kernel counts nothing for it (random(4)); it only cannot get worse.
func StirSeed(file string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("random seed: %w", err)
	}
	if len(old) > 0 {
		if err := stir("/dev/urandom", old); err != nil {
			return fmt.Errorf("random seed: %w", err)
		}
	}
	next := make([]byte, seedSize)
	if _, err := rand.Read(next); err != nil {
		return fmt.Errorf("random seed: %w", err)
	}
	if err := durable.MkdirAll(path.Dir(file), 0o700); err != nil {
		return fmt.Errorf("random seed: %w", err)
	}
	return durable.WriteFile(file, next, 0o600)
}

func stir(device string, seed []byte) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(seed)
	return errors.Join(err, f.Close())
}

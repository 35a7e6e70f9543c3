// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"slate/builder/command"
	"slate/images"
	"slate/images/archive"
	"slate/images/tree"
)

// sendStream fills a file system in a file, which nobody else sees mounted, and
// sends it: arguments are the file, a directory to mount it on, and the name of
// the subvolume. The tree comes as a tar archive, the stream goes to standard
// output. The loop device goes with the mount, and that with the namespace.
const sendStream = `
img=$1 mnt=$2 name=$3
mkfs.btrfs --quiet "$img" >&2
mount -t btrfs -o loop,compress=zstd "$img" "$mnt"
btrfs subvolume create "$mnt/$name" >&2
tar --extract --numeric-owner --preserve-permissions --xattrs --xattrs-include='*' --delay-directory-restore --directory "$mnt/$name"
btrfs property set -ts "$mnt/$name" ro true
btrfs --quiet send "$mnt/$name"
umount "$mnt"
`

// btrfsStream writes the tree as what btrfs receive makes a read-only subvolume
// of. It needs root, and a kernel with btrfs.
func btrfsStream(ctx context.Context, blobs archive.Blobs, t *tree.Tree, rec images.Record, to string) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can make a btrfs stream: a file system has to be mounted")
	}
	return madeBy(to, func(tmp string) error {
		work, err := os.MkdirTemp(filepath.Dir(to), ".btrfs-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		img, mnt := filepath.Join(work, "image"), filepath.Join(work, "mnt")
		if err := os.Mkdir(mnt, 0o700); err != nil {
			return err
		}
		f, err := os.Create(img)
		if err != nil {
			return err
		}
		// A file with holes: what is not used takes no room.
		err = errors.Join(f.Truncate(2*t.Size()+int64(t.Len())*8192+(1<<30)), f.Close())
		if err != nil {
			return err
		}
		out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer out.Close()
		r, w := io.Pipe()
		defer r.Close()
		go func() { w.CloseWithError(archive.Tar(ctx, blobs, t, w)) }()
		name := fmt.Sprintf("%s-%d", rec.Name, rec.Number)
		err = command.Run(ctx, command.Cmd{Args: []string{"/bin/sh", "-euc", sendStream, "sh", img, mnt, name}, Stdin: r, Stdout: out, Isolate: true, NoNetwork: true})
		if err != nil {
			return err
		}
		return out.Sync()
	})
}

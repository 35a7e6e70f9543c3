#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes the two root trees that "make bench" updates between:
#   benchtrees.sh DIR   makes DIR/old and DIR/new, if they are not there
# Old is Debian's last point release. New has the packages that were mended
# since (but for the kernel, whose modules would hide all else) and three more with
# what they need, unpacked over a copy, and an initrd with what was mended, packed as
# initramfs-tools does it. No script of a package runs for it: they take the longest.
#
# A tree that is there is not made again, so it can be interrupted. What stands
# still for too long is stopped.
set -eu

dir=$1
mirror=${SLATE_BENCH_MIRROR:-http://deb.debian.org/debian}
limit=${SLATE_BENCH_LIMIT:-40m}
mkdir -p "$dir"

# With processes and mounts of its own, nothing of a run that is killed is left
# behind: neither a maintainer's script, nor a /proc in a tree to be removed.
if [ "${SLATE_BENCH_ALONE:-}" != 1 ]; then
	SLATE_BENCH_ALONE=1 exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
# And with devices of its own: mmdebstrap lends the machine's to the tree, where
# some script takes from /dev/null what others may do with it.
mkdir -p "$dir/dev"
mount -t tmpfs -o mode=755 dev "$dir/dev"
for d in full:1:7 null:1:3 random:1:8 tty:5:0 urandom:1:9 zero:1:5 console:5:1; do
	name=${d%%:*} numbers=${d#*:}
	mknod -m 666 "$dir/dev/$name" c "${numbers%:*}" "${numbers#*:}"
done
mkdir "$dir/dev/pts" "$dir/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 pts "$dir/dev/pts"
ln -s pts/ptmx "$dir/dev/ptmx"
ln -s /proc/self/fd "$dir/dev/fd"
mount --move "$dir/dev" /dev
rmdir "$dir/dev"

make_old() {
	SOURCE_DATE_EPOCH=1700000000 DEBIAN_FRONTEND=noninteractive INITRD=No timeout --kill-after=10s "$limit" \
		mmdebstrap --mode=root --format=directory --variant=minbase \
		--include="linux-image-amd64,systemd-sysv,udev,dbus,openssh-server,iproute2,kmod,ca-certificates,initramfs-tools,cpio" \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
		--aptopt='Acquire::http::Timeout "60"' --aptopt='Acquire::Retries "5"' \
		--customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt=force-unsafe-io \
		bookworm "$1" "deb $mirror bookworm main" </dev/null
	v=$(ls "$1/lib/modules")
	mount -t proc proc "$1/proc"
	SOURCE_DATE_EPOCH=1700000000 timeout --kill-after=10s "$limit" chroot "$1" mkinitramfs -o "/boot/initrd.img-$v" "$v"
	umount "$1/proc"
	rm -rf --one-file-system "$1"/dev/* "$1"/run/* # ostree takes no devices
}

# initrd puts the files of a tree that changed into the tree's initrd.
initrd() {
	(
		mkdir "$1/initrd.part"
		cd "$1/initrd.part"
		gzip -dc ../boot/initrd.img-* | cpio -idm --quiet
		find . -type f | while read -r f; do
			[ ! -f "../$f" ] || cmp -s "$f" "../$f" || cp -p "../$f" "$f"
		done
		find . -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z | cpio --reproducible --quiet -0 -o -H newc | gzip -n >../initrd.new
		mv ../initrd.new ../boot/initrd.img-*
	)
	rm -r "$1/initrd.part"
}

make_new() {
	cp -a "$dir/old" "$1"
	printf 'deb %s\n' "$mirror bookworm main" "$mirror bookworm-updates main" "${mirror}-security bookworm-security main" >"$1/etc/apt/sources.list"
	apt="timeout --kill-after=10s $limit apt-get -qq -y -o Dir=$1 -o Dir::State::status=$1/var/lib/dpkg/status -o APT::Sandbox::User=root
		-o APT::Install-Recommends=false -o Acquire::Languages=none -o Acquire::http::Timeout=60 -o Acquire::Retries=5"
	$apt update
	$apt --download-only dist-upgrade linux-image-amd64-
	$apt --download-only install python3 vim rsyslog
	for deb in "$1"/var/cache/apt/archives/*.deb; do
		name=$(dpkg-deb -f "$deb" Package)
		case $name in linux-*) continue ;; esac
		# What the old version had and the new one has not is gone.
		for list in "$1/var/lib/dpkg/info/$name.list" "$1/var/lib/dpkg/info/$name:amd64.list"; do
			[ ! -f "$list" ] || (cd "$1" && sed 's,^/,./,' "$list" | while read -r f; do [ -d "$f" ] || rm -f "$f"; done)
		done
		dpkg-deb --fsys-tarfile "$deb" | tar -x -p --keep-directory-symlink -C "$1" # /lib is a link to usr/lib
		rm "$deb"
	done
	rm -rf "$1"/usr/share/man/* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*
	initrd "$1"
}

# tree makes one and gives it its name.
tree() {
	[ ! -d "$dir/$1" ] || return 0
	rm -rf --one-file-system "$dir/$1.part"
	"make_$1" "$dir/$1.part"
	mv "$dir/$1.part" "$dir/$1"
}

tree old
tree new

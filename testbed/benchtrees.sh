#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes the two root trees that "make bench" updates between:
#   benchtrees.sh DIR   makes DIR/old and DIR/new, if they are not there
# Old is Debian's last point release. New has the packages that were mended
# since (but for the kernel, whose modules would hide all else), three more, and
# an initrd made anew, as initramfs-tools does it.
#
# A tree that is there is not made again, so it can be interrupted. What stands
# still for too long is stopped and begun anew, SLATE_BENCH_TRIES times.
set -eu

dir=$1
mirror=${SLATE_BENCH_MIRROR:-http://deb.debian.org/debian}
limit=${SLATE_BENCH_LIMIT:-20m} tries=${SLATE_BENCH_TRIES:-3}
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

# make NAME PACKAGES SOURCE... unpacks a Debian into $dir/NAME.part.
make() {
	name=$1 packages=$2
	shift 2
	rm -rf --one-file-system "$dir/$name.part"
	# INITRD=No: update-initramfs would be called twice, and does not return for half
	# an hour when others keep the disk busy, as it waits until all is written.
	SOURCE_DATE_EPOCH=1700000000 DEBIAN_FRONTEND=noninteractive INITRD=No timeout --kill-after=10s "$limit" \
		mmdebstrap --mode=root --format=directory --variant=minbase \
		--include="linux-image-amd64,systemd-sysv,udev,dbus,openssh-server,iproute2,kmod,ca-certificates,initramfs-tools,cpio$packages" \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
		--aptopt='Acquire::http::Timeout "60"' --aptopt='Acquire::Retries "5"' \
		--setup-hook='printf "Package: linux-image-amd64\nPin: release l=Debian\nPin-Priority: 1001\n" >"$1/etc/apt/preferences.d/kernel"' \
		--customize-hook='v=$(ls "$1/lib/modules") && chroot "$1" mkinitramfs -o "/boot/initrd.img-$v" "$v"' \
		--customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt=force-unsafe-io \
		bookworm "$dir/$name.part" "$@" </dev/null
}

# tree does so until it succeeds, and gives the tree its name.
tree() {
	[ ! -d "$dir/$1" ] || return 0
	try=1
	until make "$@"; do
		[ "$try" -lt "$tries" ] || { echo "benchtrees.sh: $dir/$1 could not be made in $tries tries of $limit" >&2; exit 1; }
		try=$((try + 1))
		echo "benchtrees.sh: $dir/$1: try $try" >&2
	done
	mv "$dir/$1.part" "$dir/$1"
}

main="deb $mirror bookworm main"
tree old "" "$main"
tree new ",python3,vim,rsyslog" "$main" "deb $mirror bookworm-updates main" "deb ${mirror}-security bookworm-security main"

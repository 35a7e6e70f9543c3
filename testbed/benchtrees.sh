#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makes the two root trees that "make bench" updates between:
#   benchtrees.sh DIR   makes DIR/old and DIR/new, if they are not there
# Old is Debian's last point release. New has the packages that were mended
# since (but for the kernel, whose modules would hide all else), three more, and
# an initrd made anew, as initramfs-tools does it.
set -eu

dir=$1
mirror=${SLATE_BENCH_MIRROR:-http://deb.debian.org/debian}
mkdir -p "$dir"

# tree NAME PACKAGES SOURCE... unpacks a Debian into $dir/NAME.
tree() {
	name=$1 packages=$2
	shift 2
	[ ! -d "$dir/$name" ] || return 0
	rm -rf "$dir/$name.part"
	SOURCE_DATE_EPOCH=1700000000 mmdebstrap --mode=root --format=directory --variant=minbase \
		--include="linux-image-amd64,systemd-sysv,udev,dbus,openssh-server,iproute2,kmod,ca-certificates,initramfs-tools,cpio$packages" \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
		--setup-hook='printf "Package: linux-image-amd64\nPin: release l=Debian\nPin-Priority: 1001\n" >"$1/etc/apt/preferences.d/kernel"' \
		--customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' --dpkgopt='path-exclude=/usr/share/man/*' \
		bookworm "$dir/$name.part" "$@"
	mv "$dir/$name.part" "$dir/$name"
}

main="deb $mirror bookworm main"
tree old "" "$main"
tree new ",python3,vim,rsyslog" "$main" "deb $mirror bookworm-updates main" "deb ${mirror}-security bookworm-security main"

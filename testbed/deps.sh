#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs what slate's build, tests and demo need on Debian and is not there:
#   deps.sh demo   what "make demo" needs
#   deps.sh test   what "make test" needs
#   deps.sh matrix what "make matrix" needs
#   deps.sh bench  what "make bench" needs: the programs to compare with
# Each line below is a file that a package brings, and the package.
set -eu

demo="
/usr/bin/qemu-system-x86_64 qemu-system-x86
/usr/bin/qemu-img qemu-utils
/usr/share/OVMF/OVMF_CODE_4M.fd ovmf
/usr/lib/ipxe/snponly.efi ipxe
/usr/bin/mmdebstrap mmdebstrap
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
/usr/bin/ip iproute2
/usr/bin/zstd zstd
/usr/bin/xz xz-utils
/usr/bin/tar tar
"
test="$demo
/usr/bin/git git
/usr/bin/gcc gcc
/usr/include/stdlib.h libc6-dev
/usr/lib/shim/shimx64.efi.signed shim-signed
/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed grub-efi-amd64-signed
/usr/bin/grub-script-check grub-common
/usr/sbin/dnsmasq dnsmasq-base
/usr/bin/bsdtar libarchive-tools
/usr/bin/nfs-ls libnfs-utils
/usr/sbin/dhclient isc-dhcp-client
/usr/sbin/udhcpc udhcpc
/usr/bin/tftp tftp-hpa
/usr/bin/curl curl
/usr/bin/openssl openssl
/usr/sbin/iptables-legacy iptables
/usr/bin/socat socat
/bin/busybox busybox
/usr/bin/python3 python3
/usr/bin/ssh-keygen openssh-client
/lib/systemd/systemd-networkd systemd
/usr/bin/cpio cpio
/usr/sbin/nft nftables
/usr/sbin/getcap libcap2-bin
/usr/bin/setfattr attr
/usr/sbin/modprobe kmod
/usr/bin/mcopy mtools
/usr/sbin/sfdisk fdisk
/usr/bin/xorriso xorriso
/usr/bin/mksquashfs squashfs-tools
/usr/bin/grub-mkimage grub-common
/usr/bin/grub-editenv grub-common
/usr/lib/grub/i386-pc/kernel.img grub-pc-bin
/usr/sbin/mkfs.ext4 e2fsprogs
/usr/sbin/mkfs.fat dosfstools
/usr/sbin/mkfs.btrfs btrfs-progs
/usr/sbin/mkfs.ntfs ntfs-3g
/usr/bin/mkfs.erofs erofs-utils
/usr/sbin/cryptsetup cryptsetup-bin
/usr/sbin/pvcreate lvm2
/usr/bin/qemu-system-aarch64 qemu-system-arm
/usr/share/AAVMF/AAVMF_CODE.fd qemu-efi-aarch64
"
matrix="$test
/usr/sbin/dhcrelay isc-dhcp-relay
"

bench="$test
/usr/sbin/atftpd atftpd
/usr/bin/ganesha.nfsd nfs-ganesha
/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so nfs-ganesha-vfs
/usr/sbin/rpcbind rpcbind
/usr/sbin/kea-dhcp4 kea-dhcp4-server
/usr/sbin/perfdhcp kea-admin
/usr/sbin/nginx nginx-core
/usr/bin/ostree ostree
/usr/bin/casync casync
"

case "${1:-}" in
demo) list=$demo ;;
test) list=$test ;;
matrix) list=$matrix ;;
bench) list=$bench ;;
*)
	echo "usage: deps.sh demo|test|matrix|bench" >&2
	exit 2
	;;
esac

if ! command -v go >/dev/null; then
	echo "deps.sh: Go is not installed (or not in PATH). Get 1.26 or newer from https://go.dev/dl/" >&2
	exit 1
fi

missing=$(printf '%s\n' "$list" | while read -r file pkg; do
	[ -z "$file" ] || [ -e "$file" ] || [ -e "${file#/usr}" ] || [ -e "/usr$file" ] || echo "$pkg"
done | sort -u | tr '\n' ' ')
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "deps.sh: there is no apt-get here. Install what has these files yourself: $missing" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps.sh: run as root, or install: $missing" >&2
		exit 1
	fi
	sudo=sudo
fi
echo "Installing: $missing"
export DEBIAN_FRONTEND=noninteractive
# A fresh machine has no package lists; a second try follows a transient failure.
$sudo apt-get -q update || $sudo apt-get -q update
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing

// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"path"
	"slices"
	"strings"
)

// class is a set of modules the controller may need. Directories are below the
// kernel's own tree of drivers; a name stands for a single module.
type class struct {
	name  string
	why   string
	dirs  []string // everything below, "drivers/net/ethernet/"
	not   []string // but not what is below these
	names []string // modules by name
}

// classes are all of them; all are packed unless ModulesOptions says otherwise.
var classes = []class{
	{
		name: "network", why: "wired interfaces",
		dirs: []string{"drivers/net/ethernet/", "drivers/net/phy/", "drivers/net/mdio/", "drivers/net/pcs/",
			"drivers/net/usb/", "drivers/net/hyperv/", "drivers/net/vmxnet3/"},
		// Switch chips, and telephones with a modem's manners.
		not: []string{"drivers/net/ethernet/mellanox/mlxsw/"},
		names: []string{"virtio_net", "xen_netfront", "mii", "dummy", "bonding", "team", "macvlan", "8021q",
			"af_packet", "unix", "ipv6", "igc", "failover", "net_failover"},
	},
	{
		name: "nfs", why: "the root file system of diskless nodes",
		dirs:  []string{"fs/nfs/", "fs/nfs_common/", "fs/lockd/", "net/sunrpc/"},
		not:   []string{"net/sunrpc/xprtrdma/"}, // pulls in all of InfiniBand
		names: []string{"nfs", "nfsv3", "nfsv4", "sunrpc", "lockd"},
	},
	{name: "overlay", why: "the writable layer", dirs: []string{"fs/overlayfs/"}, names: []string{"overlay", "tmpfs"}},
	{
		name: "storage", why: "local drives",
		dirs: []string{"drivers/ata/", "drivers/nvme/host/", "drivers/nvme/common/", "drivers/usb/storage/",
			"drivers/mmc/", "drivers/ufs/", "drivers/cdrom/", "drivers/message/fusion/",
			"drivers/scsi/aacraid/", "drivers/scsi/arcmsr/", "drivers/scsi/isci/", "drivers/scsi/libsas/",
			"drivers/scsi/megaraid/", "drivers/scsi/mpi3mr/", "drivers/scsi/mpt3sas/", "drivers/scsi/mvsas/",
			"drivers/scsi/pm8001/", "drivers/scsi/smartpqi/"},
		names: []string{"sd_mod", "sr_mod", "sg", "scsi_mod", "ses", "scsi_transport_sas", "scsi_transport_spi",
			"virtio_scsi", "virtio_blk", "hv_storvsc", "vmw_pvscsi", "xen_blkfront", "xen_scsifront",
			"hpsa", "3w_9xxx", "3w_sas", "stex", "mvumi", "loop", "nbd", "zram", "brd", "vmd",
			"md_mod", "raid0", "raid1", "raid10", "raid456", "linear",
			"dm_mod", "dm_crypt", "dm_mirror", "dm_snapshot", "dm_raid", "dm_verity", "dm_integrity"},
	},
	{
		name: "filesystems", why: "file systems of local drives and media",
		dirs: []string{"fs/ext4/", "fs/btrfs/", "fs/fat/", "fs/squashfs/", "fs/erofs/", "fs/isofs/", "fs/udf/",
			"fs/nls/", "fs/efivarfs/"},
	},
	{
		name: "console", why: "keyboards",
		dirs: []string{"drivers/hid/usbhid/"},
		names: []string{"hid", "hid_generic", "usbhid", "hid_apple", "hid_cherry", "hid_chicony", "hid_ezkey", "hid_lenovo",
			"hid_logitech", "hid_logitech_dj", "hid_logitech_hidpp", "hid_microsoft", "hid_monterey", "hid_samsung",
			"hid_sunplus", "hid_topseed", "hid_hyperv", "hyperv_keyboard", "xen_kbdfront", "virtio_input",
			"atkbd", "i8042", "serio", "libps2", "evdev", "input_leds"},
	},
	{
		name: "buses", why: "what the drives, interfaces and keyboards hang off",
		dirs: []string{"drivers/virtio/", "drivers/usb/host/", "drivers/usb/common/", "drivers/usb/core/", "drivers/hv/",
			"drivers/pci/controller/", "drivers/thunderbolt/"},
		names: []string{"virtio_console", "virtio_rng", "tpm_rng", "intel_rng", "amd_rng", "via_rng", "xhci_pci",
			"qemu_fw_cfg", "i2c_i801", "intel_lpss_pci", "rtsx_pci", "rtsx_usb", "sdhci_acpi"},
	},
	{
		// Found by name through the crypto API, so no dependency leads to them.
		name: "checksums", why: "digests and ciphers that file systems ask for by name",
		names: []string{"crc32c", "crc32c_generic", "crc32c_intel", "crc32_generic", "crc32_pclmul", "crct10dif_generic",
			"crct10dif_pclmul", "crc16", "crc_t10dif", "libcrc32c", "xxhash_generic", "blake2b_generic", "sha256_generic",
			"sha256_ssse3", "sha512_generic", "aes_generic", "aesni_intel", "cbc", "ecb", "xts", "hmac", "md5", "crypto_null"},
	},
}

// Classes returns the names of the classes of modules, for help texts.
func Classes() []string {
	var out []string
	for _, c := range classes {
		out = append(out, c.name)
	}
	return out
}

// outOfTree are the places of modules that replace or add to the kernel's own.
// Below them lies the same tree of directories, if their builders kept to it.
var outOfTree = []string{"kernel/", "updates/dkms/", "updates/", "extra/", "weak-updates/"}

func (c class) has(modulePath string) bool {
	if slices.Contains(c.names, moduleName(modulePath)) {
		return true
	}
	p := modulePath
	for _, prefix := range outOfTree {
		if rest, ok := strings.CutPrefix(p, prefix); ok {
			p = rest
			break
		}
	}
	below := func(dir string) bool { return strings.HasPrefix(p, dir) }
	return slices.ContainsFunc(c.dirs, below) && !slices.ContainsFunc(c.not, below)
}

// moduleName is a module's name as the kernel has it: without directory and
// suffixes, and with every dash an underscore.
func moduleName(p string) string {
	base := path.Base(p)
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return strings.ReplaceAll(base, "-", "_")
}

// SPDX-License-Identifier: GPL-2.0-or-later

package media

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Where Debian keeps GRUB's parts.
const (
	biosDir = "/usr/lib/grub/i386-pc"
	efiDir  = "/usr/lib/grub/x86_64-efi"
)

// signed are the loaders that Secure Boot lets start, by their names on the
// medium: firmware starts shim, shim starts GRUB.
var signed = map[string]string{
	"EFI/BOOT/BOOTX64.EFI": "/usr/lib/shim/shimx64.efi.signed",
	"EFI/BOOT/grubx64.efi": "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
	"EFI/BOOT/mmx64.efi":   "/usr/lib/shim/mmx64.efi.signed",
}

// signedConfig is where the signed GRUB looks for its configuration, on the file system
// that it came from.
const signedConfig = "EFI/debian/grub.cfg"

// modules are those of GRUB that a medium needs.
var modules = []string{"part_gpt", "part_msdos", "fat", "iso9660", "normal", "linux", "configfile", "search", "search_fs_file", "search_label",
	"echo", "test", "sleep", "serial", "terminal", "reboot", "halt", "ls", "cat"}

// findMedium is the configuration that GRUB starts with: it finds this very medium.
func (m *maker) findMedium() []byte {
	return fmt.Appendf(nil, "search --no-floppy --file --set=root /%s%s\nset prefix=($root)/slate\nconfigfile /%s\n", IDFile, m.ID, configFile)
}

// grubConfig is the medium's menu. The consoles of the kernel are those that GRUB
// shows itself on, as far as it can.
func (m *maker) grubConfig() []byte {
	var b strings.Builder
	b.WriteString("# Slate's medium. The words behind /slate/vmlinuz are explained in the guide.\n")
	b.WriteString("if serial --unit=0 --speed=115200; then\n  terminal_input console serial\n  terminal_output console serial\nfi\n")
	b.WriteString("set default=0\nset timeout=3\n\n")
	fmt.Fprintf(&b, "menuentry '%s' {\n  echo 'Slate: loading the kernel ...'\n  linux /slate/vmlinuz", m.Title)
	for _, w := range m.Cmdline {
		b.WriteString(" " + quote(w))
	}
	b.WriteString("\n  echo 'Slate: loading the controller ...'\n  initrd")
	for _, i := range m.Initrds {
		b.WriteString(" /slate/" + i.Name)
	}
	b.WriteString("\n}\n")
	b.WriteString("menuentry 'Restart' {\n  reboot\n}\nmenuentry 'Power off' {\n  halt\n}\n")
	return []byte(b.String())
}

// quote makes a word one that GRUB does not look into.
func quote(w string) string {
	if strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:/=_-@%+") == "" {
		return w
	}
	return "'" + w + "'"
}

// loaders makes the loaders' files.
func (m *maker) loaders(ctx context.Context) error {
	m.step("making the loaders")
	if err := os.WriteFile(m.path("find.cfg"), m.findMedium(), 0o644); err != nil {
		return err
	}
	// The early configuration runs before "normal" is there to read configfile's menu.
	bios := append([]string{"biosdisk"}, modules...)
	format := "i386-pc"
	if m.Kind == ISO {
		format = "i386-pc-eltorito"
	}
	if err := m.mkimage(ctx, format, biosDir, "core.img", bios); err != nil {
		return err
	}
	if Signed() {
		return nil
	}
	return m.mkimage(ctx, "x86_64-efi", efiDir, "bootx64.efi", append([]string{"efi_gop", "efi_uga"}, modules...))
}

func (m *maker) mkimage(ctx context.Context, format, dir, name string, mods []string) error {
	args := []string{"grub-mkimage", "-O", format, "-d", dir, "-o", m.path(name), "-p", "/slate", "-c", m.path("find.cfg")}
	return m.run(ctx, "", append(args, mods...)...)
}

// efiFiles are the loaders of the EFI system partition.
func (m *maker) efiFiles() []file {
	if !Signed() {
		return []file{{name: "EFI/BOOT/BOOTX64.EFI", from: m.path("bootx64.efi")}}
	}
	out := []file{{name: signedConfig, text: m.findMedium()}}
	for name, from := range signed {
		out = append(out, file{name: name, from: from})
	}
	return out
}

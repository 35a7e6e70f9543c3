// SPDX-License-Identifier: GPL-2.0-or-later

package doctor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slate/builder/command"
	"slate/dhcp"
	"slate/images"
	"slate/images/store"
	"slate/netboot"
	"slate/netboot/api"
	"slate/netboot/config"
	"slate/tftp"
)

// Options are what Gather goes by.
type Options struct {
	Settings netboot.Settings
	Version  string    // of this program
	Built    time.Time // zero: not known
}

// statusTime is how long the running appliance may take to say that it is there.
const statusTime = 5 * time.Second

// Gather looks at everything. What cannot be looked at is in the facts as an error.
func Gather(ctx context.Context, o Options) Facts {
	f := Facts{Settings: o.Settings, Version: o.Version, Built: o.Built, Now: time.Now(), Synced: clockSynced()}
	name := o.Settings.Network.Interface
	f.Interface, f.InterfaceErr = netboot.InterfaceByName(name)
	f.Link = hasLink(name)
	for _, n := range o.Settings.DHCP.Subnets {
		if n.Interface != "" {
			w := Wire{Name: n.Interface, Subnet: n.Subnet, Link: hasLink(n.Interface)}
			w.Interface, w.Err = netboot.InterfaceByName(n.Interface)
			f.More = append(f.More, w)
		}
	}
	f.Ruleset, f.RulesErr = readRuleset(ctx)
	if f.RulesErr == nil {
		f.Iptables, f.RulesErr = readIptables(ctx)
	}
	for _, l := range netboot.LoaderFiles(o.Settings.Data) {
		f.Loaders = append(f.Loaders, Loader{l, loaderVersion(l)})
	}
	f.Free, f.Total, f.DiskErr = space(o.Settings.Data)
	f.KeyMode, f.KeyErr = readKey(o.Settings.Key)
	tlsKey, _ := netboot.TLSFiles(o.Settings.Key)
	if info, err := os.Stat(tlsKey); err == nil {
		f.TLSMode = info.Mode()
	}
	st := f.gatherImages(ctx)
	if f.InterfaceErr != nil || !f.Interface.Up || len(f.Interface.Prefixes) == 0 {
		return f
	}
	self := o.Settings.Network.Address
	if !self.IsValid() {
		self = f.Interface.Prefixes[0].Addr()
	}
	f.probe(ctx)
	if site, err := config.Load(os.DirFS(o.Settings.ConfigD)); err == nil { // slate config check says what is wrong
		f.GRUB = site.Anywhere(func(n *config.Node) bool { return n.Boot.Loader == config.LoaderGRUB })
	}

	t := traveller{Options: o, self: self, link: f.Link, store: st}
	sctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	if status, err := (&api.Client{Base: t.url("")}).Status(sctx); err == nil {
		f.Running = &status
		f.Trips = t.all(ctx)
	} else {
		f.Ports = tryPorts(ctx, o.Settings, self)
	}
	return f
}

// probe looks for other DHCP servers on all interfaces that are up.
func (f *Facts) probe(ctx context.Context) {
	wires := append([]Wire{{Name: f.Interface.Name, Interface: f.Interface}}, f.More...)
	rivals, errs := make([][]dhcp.Rival, len(wires)), make([]error, len(wires))
	var wg sync.WaitGroup
	for i, w := range wires {
		if w.Interface.Up {
			wg.Go(func() { rivals[i], errs[i] = dhcp.Probe(ctx, w.Name) })
		}
	}
	wg.Wait()
	f.Rivals = slices.DeleteFunc(slices.Concat(rivals...), func(r dhcp.Rival) bool {
		return slices.ContainsFunc(wires, func(w Wire) bool {
			return slices.ContainsFunc(w.Interface.Prefixes, func(p netip.Prefix) bool { return p.Addr() == r.Server })
		})
	})
	f.RivalsErr = errors.Join(errs...)
}

// hasLink tells whether an interface has a carrier.
func hasLink(name string) bool {
	ifi, err := net.InterfaceByName(name)
	return err == nil && ifi.Flags&net.FlagRunning != 0
}

// clockSynced asks the kernel whether something keeps its clock right (adjtimex(2)).
func clockSynced() bool {
	state, err := unix.Adjtimex(&unix.Timex{})
	return err == nil && state != unix.TIME_ERROR
}

// sbin finds a program of the administrator; "" if there is none.
func sbin(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if _, err := os.Stat("/usr/sbin/" + name); err == nil {
		return "/usr/sbin/" + name
	}
	return ""
}

// nftIptables is the command of the iptables that works through nftables.
const nftIptables = "iptables"

// readIptables lists the rules of both kinds of iptables, of the legacy one only if
// the kernel has its table already: looking would make it.
func readIptables(ctx context.Context) ([]Iptables, error) {
	var out []Iptables
	read := func(name, save string) error {
		path := sbin(save)
		if path == "" {
			return nil
		}
		text, err := command.Output(ctx, command.Cmd{Args: []string{path, "-t", "filter"}})
		if strings.Contains(text, "*filter") { // a table that only nft understands is not printed
			out = append(out, Iptables{name, text})
		}
		return err
	}
	var errs []error
	errs = append(errs, read(nftIptables, "iptables-nft-save"))
	if names, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && slices.Contains(strings.Fields(string(names)), "filter") {
		errs = append(errs, read("iptables-legacy", "iptables-legacy-save"))
	}
	return out, errors.Join(errs...)
}

// readRuleset lists the firewall's rules; nil if there is no nft.
func readRuleset(ctx context.Context) ([]byte, error) {
	nft := sbin("nft")
	if nft == "" {
		return nil, nil
	}
	out, err := command.Output(ctx, command.Cmd{Args: []string{nft, "-j", "list", "ruleset"}})
	return []byte(out), err
}

// loaderVersion finds the version of a loader: iPXE's EFI binaries have it in
// them, for the others the package that the file is of tells.
func loaderVersion(l netboot.LoaderFile) string {
	if l.Path == "" {
		return ""
	}
	if b, err := os.ReadFile(l.Path); err == nil {
		if v := ipxeVersion(b); v != "" {
			return "iPXE " + v
		}
	}
	if !strings.HasPrefix(l.Path, "/usr/lib/") {
		return ""
	}
	f, err := os.Open("/var/lib/dpkg/status")
	if err != nil {
		return ""
	}
	defer f.Close()
	if v := packageVersion(f, l.Package); v != "" {
		return l.Package + " " + v
	}
	return ""
}

// ipxeVersion finds the string after which iPXE shows its version on the screen:
// its name, a NUL, and the version, in the order of its own version.c.
func ipxeVersion(b []byte) string {
	i := bytes.Index(b, []byte("\x00iPXE\x00"))
	if i < 0 {
		return ""
	}
	rest := bytes.TrimLeft(b[i+6:min(len(b), i+6+128)], "\x00")
	v, _, _ := bytes.Cut(rest, []byte{0})
	if len(v) == 0 || v[0] < '0' || v[0] > '9' {
		return ""
	}
	return string(v)
}

// space is how much room there is for the data directory.
func space(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// readKey looks at the site key and whether its public half belongs to it.
func readKey(file string) (fs.FileMode, error) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	key, err := images.LoadKey(file)
	if err != nil {
		return info.Mode(), err
	}
	pub, err := os.ReadFile(file + netboot.PublicKeySuffix)
	if err != nil {
		return info.Mode(), err
	}
	keys, err := images.ParsePublicKeys(pub)
	if err == nil && !slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return k.Equal(key.Public()) }) {
		err = fmt.Errorf("%s%s is not the public half of %s", file, netboot.PublicKeySuffix, file)
	}
	return info.Mode(), err
}

// gatherImages looks whether what is in channels is complete. It returns the
// store, nil if there is none.
func (f *Facts) gatherImages(ctx context.Context) *store.Store {
	if f.DiskErr != nil {
		return nil // opening a store would make it
	}
	st, err := store.Open(f.Settings.Data, store.Options{})
	if err != nil {
		f.ImageErr = err
		return nil
	}
	names, err := st.Images()
	f.ImageErr = err
	for _, name := range names {
		channels, err := st.Channels(name)
		f.ImageErr = errors.Join(f.ImageErr, err)
		for c := range channels {
			f.Images = append(f.Images, lookAt(ctx, st, images.Ref{Name: name, Channel: c}))
		}
	}
	slices.SortFunc(f.Images, func(a, b Image) int { return strings.Compare(a.Ref, b.Ref) })
	return st
}

// lookAt looks for each file of a version, and its size. Contents are read by
// slate image verify.
func lookAt(ctx context.Context, st *store.Store, ref images.Ref) Image {
	i := Image{Ref: ref.String()}
	rec, err := st.Resolve(ref)
	if err != nil {
		i.Err = err
		return i
	}
	i.Ref += " = " + rec.Ref()
	t, err := st.Tree(ctx, rec.Tree)
	if err != nil {
		i.Err = err
		return i
	}
	look := func(b images.Blob, what string) {
		i.Blobs++
		info, err := os.Stat(st.BlobPath(b.Digest))
		if err != nil || info.Size() != b.Size {
			i.Missing = append(i.Missing, what)
		}
	}
	if rec.Kernel != nil {
		i.Kernel = rec.Kernel.Release
	}
	for _, p := range rec.Parts() {
		look(p.Blob, "the "+p.Name)
	}
	for b := range t.Blobs() {
		look(b, b.Digest.String())
	}
	return i
}

// tryPorts opens what the appliance would open, and closes it at once.
func tryPorts(ctx context.Context, s netboot.Settings, self netip.Addr) []Port {
	var out []Port
	done := func(service string, close func() error, err error) {
		if err == nil {
			err = close()
		}
		out = append(out, Port{service, err})
	}
	for name, port := range map[string]int{"http": s.HTTP.Port, "https": s.HTTPS.Port, "nfs": s.NFS.Port} {
		l, err := net.Listen("tcp4", net.JoinHostPort(self.String(), strconv.Itoa(port)))
		if err != nil {
			done(name, nil, netboot.PortError(name, "tcp", port, err))
			continue
		}
		done(name, l.Close, nil)
	}
	c, err := tftp.Listen(ctx, netip.AddrPortFrom(self, uint16(s.TFTP.Port)))
	done("tftp", func() error { return c.Close() }, err)
	ports := map[netboot.DHCPMode][]int{netboot.DHCPServer: {67}, netboot.DHCPProxy: {67, 4011}}[s.DHCP.Mode]
	for _, port := range ports {
		c, err := dhcp.Listen(ctx, s.Network.Interface, port)
		done("dhcp", func() error { return c.Close() }, err)
	}
	slices.SortFunc(out, func(a, b Port) int { return strings.Compare(a.Service, b.Service) })
	return out
}

// packageVersion reads the version of an installed package out of dpkg's status
// file (deb-control(5)).
func packageVersion(status *os.File, name string) string {
	sc := bufio.NewScanner(status)
	sc.Buffer(nil, 1<<20)
	for mine := false; sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), ": ")
		switch {
		case key == "Package":
			mine = value == name
		case key == "Version" && mine:
			return value
		}
	}
	return ""
}

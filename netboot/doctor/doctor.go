// SPDX-License-Identifier: GPL-2.0-or-later

// Package doctor tells what keeps machines from booting from this appliance, and
// how to mend it. Gather looks at the machine, its network and the running
// appliance; Diagnose, which is pure, judges what was seen.
package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slate/dhcp"
	"slate/netboot"
	"slate/netboot/api"
)

// State is how bad a finding is.
type State string

// The states. With a problem, machines do not boot, or will soon not.
const (
	OK      State = "ok"
	Warning State = "warning"
	Problem State = "problem"
)

// Finding is the result of one check.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// Facts are what the findings are drawn from.
type Facts struct {
	Settings netboot.Settings
	Now      time.Time

	Built   time.Time // of this program; zero: not known
	Version string    // of this program
	Synced  bool      // the clock is kept right by the kernel's discipline

	Interface    netboot.Interface
	InterfaceErr error
	Link         bool   // a cable, or for a bridge a port
	More         []Wire // the interfaces of [[dhcp.subnet]]

	Running *api.Status // the appliance's own answer; nil: it does not run
	Ports   []Port      // tried only if it does not run

	Ruleset   []byte // nft -j list ruleset; nil: there is no nft
	Iptables  []Iptables
	RulesErr  error
	Rivals    []dhcp.Rival
	RivalsErr error
	GRUB      bool // config.d names it as the loader of some machines

	Loaders []Loader

	Free, Total uint64 // bytes of the data directory's file system; Total 0: not known
	DiskErr     error

	KeyMode fs.FileMode
	KeyErr  error       // it cannot be read, or its public half does not match
	TLSMode fs.FileMode // of the private key of TLS; 0: there is none yet

	Images   []Image
	ImageErr error

	Trips []Trip
}

// Wire is a further interface that machines are on.
type Wire struct {
	Name      string
	Subnet    netip.Prefix // zero: that of its first address
	Interface netboot.Interface
	Err       error
	Link      bool
}

// Port is a port that the appliance would open.
type Port struct {
	Service string
	Err     error
}

// Loader is a boot loader and what is known of its version.
type Loader struct {
	netboot.LoaderFile
	Version string
}

// Image is a version in a channel.
type Image struct {
	Ref     string // demo@stable = demo/1
	Kernel  string // release; "": none
	Blobs   int
	Missing []string // blobs that are not there or have a wrong size
	Err     error
}

// Trip is one service tried as a machine uses it.
type Trip struct {
	Service string
	Text    string // what came back
	Err     error
}

// Worst is the worst state of the findings.
func Worst(list []Finding) State {
	worst := OK
	for _, f := range list {
		if f.State == Problem || f.State == Warning && worst == OK {
			worst = f.State
		}
	}
	return worst
}

// Diagnose judges the facts, check by check.
func Diagnose(f Facts) []Finding {
	d := &diagnosis{Facts: f}
	for _, check := range []func(){
		d.networkInterface, d.appliance, d.firewall, d.rivals, d.loaders, d.disk, d.key, d.clock, d.images, d.trips,
	} {
		check()
	}
	return d.list
}

type diagnosis struct {
	Facts
	list []Finding
}

func (d *diagnosis) add(check string, s State, fix, format string, args ...any) {
	d.list = append(d.list, Finding{check, s, fmt.Sprintf(format, args...), fix})
}

// hint is what the error itself knows to do about it.
func hint(err error, otherwise string) string {
	if h := (interface{ Hint() string })(nil); errors.As(err, &h) && h.Hint() != "" {
		return h.Hint()
	}
	return otherwise
}

func (d *diagnosis) networkInterface() {
	set := d.Settings.Network
	d.wire(Wire{Name: set.Interface, Interface: d.Interface, Err: d.InterfaceErr, Link: d.Link}, set.Address)
	for _, w := range d.More {
		d.wire(w, netip.Addr{})
	}
}

// wire judges an interface, which must have the address, if one is wanted.
func (d *diagnosis) wire(w Wire, want netip.Addr) {
	i, name := w.Interface, w.Name
	switch {
	case w.Err != nil:
		d.add("interface", Problem, hint(w.Err, "correct network.interface, or the interface of the [[dhcp.subnet]], in slate.toml"), "%v", w.Err)
	case !i.Up:
		d.add("interface", Problem, "ip link set "+name+" up", "%s is down", name)
	case len(i.Prefixes) == 0:
		d.add("interface", Problem, "give it one, for instance: ip addr add 10.77.0.1/24 dev "+name, "%s has no IPv4 address", name)
	case want.IsValid() && !slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Addr() == want }):
		d.add("interface", Problem, fmt.Sprintf("ip addr add %s/24 dev %s, or set network.address in slate.toml", want, name), "%s does not have the address %s", name, want)
	case w.Subnet.IsValid() && !slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Masked() == w.Subnet }):
		d.add("interface", Problem, fmt.Sprintf("ip addr add %s/%d dev %s, or correct the [[dhcp.subnet]] in slate.toml", w.Subnet.Addr().Next(), w.Subnet.Bits(), name), "%s has no address in the subnet %s", name, w.Subnet)
	case !w.Link:
		d.add("interface", Warning, "plug its cable in; a bridge needs a port that is up", "%s has no link: no machine can reach it", name)
	default:
		d.add("interface", OK, "", "%s is up, %s", name, i.Prefixes[0])
	}
}

func (d *diagnosis) appliance() {
	if d.Running != nil {
		if d.Running.Version != d.Version {
			d.add("appliance", Warning, "restart it: systemctl restart slate", "it runs, but as another version than this program: %s", d.Running.Version)
			return
		}
		d.add("appliance", OK, "", "it runs since %s", d.Running.Started.Local().Format(time.DateTime))
		return
	}
	d.add("appliance", Warning, "start it: systemctl start slate, or slate serve", "it does not run: the services could not be tried")
	free := 0
	for _, p := range d.Ports {
		if p.Err != nil {
			d.add("ports", Problem, hint(p.Err, "see which ports other programs have: ss -lntup"), "%v", p.Err)
			continue
		}
		free++
	}
	if free > 0 && free == len(d.Ports) {
		d.add("ports", OK, "", "all that it needs are free")
	}
}

func (d *diagnosis) firewall() {
	if d.RulesErr != nil {
		d.add("firewall", Warning, "run slate doctor as root", "the rules could not be read: %v", d.RulesErr)
		return
	}
	rules := &ruleset{}
	if d.Ruleset != nil {
		var err error
		if rules, err = parseRuleset(d.Ruleset); err != nil {
			d.add("firewall", Warning, "look at: nft list ruleset", "the rules are not understood: %v", err)
			return
		}
	}
	tables := map[string]iptables{}
	for _, t := range d.Iptables {
		tables[t.Command] = parseIptables(t.Saved)
		if t.Command == nftIptables {
			rules.forget("ip", "filter")
		}
	}
	blocked := 0
	block := func(s service, p packet, where, fix string) {
		blocked++
		d.add("firewall", Problem, fix, "%s (%s port %d on %s) is dropped by %s", s.name, s.proto, s.port, p.iface, where)
	}
	for _, s := range d.services() {
		for _, iface := range d.interfaces() {
			p := packet{iface, s.proto, s.port}
			for command, t := range tables {
				if t.drops(p) {
					block(s, p, command+" INPUT", iptablesFix(command, t, p))
				}
			}
			if where := rules.drops(p); where != "" {
				block(s, p, where, nftFix(where, p))
			}
		}
	}
	switch {
	case blocked > 0:
	case d.Ruleset == nil && len(d.Iptables) == 0:
		d.add("firewall", OK, "", "neither nftables nor iptables here")
	default:
		d.add("firewall", OK, "", "nothing drops what machines send")
	}
}

// interfaces are those that machines are on.
func (d *diagnosis) interfaces() []string {
	list := []string{d.Settings.Network.Interface}
	for _, w := range d.More {
		list = append(list, w.Name)
	}
	return list
}

// nftFix is how to let the packet in where an nftables chain drops it.
func nftFix(where string, p packet) string {
	if strings.Contains(where, " firewalld ") {
		return fmt.Sprintf("let it in: firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface=%s) --add-port=%d/%s && firewall-cmd --reload", p.iface, p.port, p.proto)
	}
	return fmt.Sprintf("let it in, for instance: nft insert rule %s iifname %s %s dport %d accept", where, p.iface, p.proto, p.port)
}

// iptablesFix is the same for iptables.
func iptablesFix(command string, t iptables, p packet) string {
	if t.ufw() {
		return fmt.Sprintf("let it in: ufw allow in on %s proto %s to any port %d", p.iface, p.proto, p.port)
	}
	return fmt.Sprintf("let it in, for instance: %s -I INPUT -i %s -p %s --dport %d -j ACCEPT", command, p.iface, p.proto, p.port)
}

type service struct {
	name, proto string
	port        int
}

// services are what machines must be able to reach.
func (d *diagnosis) services() []service {
	list := []service{{"TFTP", "udp", d.Settings.TFTP.Port}, {"HTTP", "tcp", d.Settings.HTTP.Port}, {"HTTPS", "tcp", d.Settings.HTTPS.Port}, {"NFS", "tcp", d.Settings.NFS.Port}}
	if d.Settings.DHCP.Mode != netboot.DHCPOff {
		list = append(list, service{"DHCP", "udp", 67})
	}
	if d.Settings.DHCP.Mode == netboot.DHCPProxy {
		list = append(list, service{"proxyDHCP", "udp", 4011})
	}
	return list
}

func (d *diagnosis) rivals() {
	if d.RivalsErr != nil {
		d.add("other DHCP servers", Warning, hint(d.RivalsErr, "run slate doctor as root"), "could not look: %v", d.RivalsErr)
		return
	}
	gives := 0
	mode := d.Settings.DHCP.Mode
	for _, r := range d.Rivals {
		if !r.Proxy {
			gives++
		}
		switch {
		case mode == netboot.DHCPProxy && !r.Proxy && d.GRUB && r.NextBoot != d.self():
			d.add("other DHCP servers", Problem, fmt.Sprintf("set next-server (siaddr) to %s there", d.self()),
				"%s, and names %s as next-server: GRUB, which config.d names as loader, asks that one for its configuration", r, orNone(r.NextBoot))
		case mode == netboot.DHCPProxy && !r.Proxy && r.BootFile == "":
			d.add("other DHCP servers", OK, "", "%s, as it should be beside mode proxy", r)
		case mode == netboot.DHCPServer && !r.Proxy:
			d.add("other DHCP servers", Problem, `switch one of the two off, or set dhcp.mode = "proxy" in slate.toml`, "%s: two servers that give addresses get in each other's way", r)
		default:
			d.add("other DHCP servers", Warning, "take the boot options (66, 67) out of it, or switch it off", "%s: machines may boot what it says", r)
		}
	}
	switch {
	case mode == netboot.DHCPProxy && gives == 0:
		d.add("other DHCP servers", Problem, `start the network's DHCP server, or set dhcp.mode = "server" in slate.toml`, "none gives addresses, and mode proxy does not either")
	case len(d.Rivals) == 0:
		d.add("other DHCP servers", OK, "", "none answers")
	}
}

// self is the address that machines reach the appliance by.
func (d *diagnosis) self() netip.Addr {
	if a := d.Settings.Network.Address; a.IsValid() || len(d.Interface.Prefixes) == 0 {
		return a
	}
	return d.Interface.Prefixes[0].Addr()
}

func orNone(a netip.Addr) string {
	if !a.IsValid() {
		return "nobody"
	}
	return a.String()
}

func (d *diagnosis) loaders() {
	for _, l := range d.Loaders {
		switch {
		case l.Path != "":
			d.add("loader "+l.Name, OK, "", "%s, %s", cmp.Or(l.Version, "version unknown"), l.Path)
		case l.Required:
			d.add("loader "+l.Name, Problem, "apt-get install "+l.Package, "it is missing")
		}
	}
}

// Below these, the data directory is about to be full.
const (
	littleSpace   = 2 << 30
	noSpace       = 200 << 20
	maxKeyPerm    = 0o600
	clockTooEarly = 24 * time.Hour // build machines' clocks are not ours
)

func (d *diagnosis) disk() {
	gb := func(n uint64) string { return fmt.Sprintf("%.1f GB", float64(n)/1e9) }
	const fix = "see what can go: slate image gc"
	switch {
	case d.DiskErr != nil:
		d.add("disk space", Problem, "make it with: slate init", "%v", d.DiskErr)
	case d.Free < noSpace:
		d.add("disk space", Problem, fix, "%s is full: %s of %s free", d.Settings.Data, gb(d.Free), gb(d.Total))
	case d.Free < littleSpace:
		d.add("disk space", Warning, fix, "%s is nearly full: %s of %s free", d.Settings.Data, gb(d.Free), gb(d.Total))
	default:
		d.add("disk space", OK, "", "%s: %s of %s free", d.Settings.Data, gb(d.Free), gb(d.Total))
	}
}

func (d *diagnosis) key() {
	switch {
	case d.KeyErr != nil:
		d.add("site key", Problem, "make a new one with slate init, or put the right one back from its copy", "%v", d.KeyErr)
	case d.KeyMode.Perm()&^maxKeyPerm != 0:
		d.add("site key", Problem, "chmod 600 "+d.Settings.Key, "others can read %s (mode %04o)", d.Settings.Key, d.KeyMode.Perm())
	case d.TLSMode.Perm()&^maxKeyPerm != 0:
		file, _ := netboot.TLSFiles(d.Settings.Key)
		d.add("TLS key", Problem, "chmod 600 "+file, "others can read %s (mode %04o)", file, d.TLSMode.Perm())
	default:
		d.add("site key", OK, "", "%s, mode %04o", d.Settings.Key, d.KeyMode.Perm())
	}
}

func (d *diagnosis) clock() {
	switch {
	case !d.Built.IsZero() && d.Now.Before(d.Built.Add(-clockTooEarly)):
		d.add("clock", Problem, "set it, and keep it right with systemd-timesyncd or chrony", "it says %s, before this program was built (%s)", d.Now.Format(time.DateTime), d.Built.Format(time.DateOnly))
	case !d.Synced:
		d.add("clock", Warning, "keep it right with systemd-timesyncd or chrony", "nothing keeps it right; it says %s", d.Now.Format(time.DateTime))
	default:
		d.add("clock", OK, "", "%s, kept right", d.Now.Format(time.DateTime))
	}
}

func (d *diagnosis) images() {
	if d.ImageErr != nil {
		d.add("images", Problem, hint(d.ImageErr, "slate image verify says more"), "%v", d.ImageErr)
	}
	for _, i := range d.Images {
		switch {
		case i.Err != nil:
			d.add("images", Problem, "slate image verify says more", "%s: %v", i.Ref, i.Err)
		case len(i.Missing) > 0:
			d.add("images", Problem, "slate image verify says more; import or pull the version again", "%s: %d of %d files are missing or cut short, for instance %s", i.Ref, len(i.Missing), i.Blobs, i.Missing[0])
		case i.Kernel == "":
			d.add("images", Problem, "add a kernel package to the image and build it again", "%s has no kernel: it cannot be booted", i.Ref)
		default:
			d.add("images", OK, "", "%s, kernel %s, all %d files are there", i.Ref, i.Kernel, i.Blobs)
		}
	}
	if d.ImageErr == nil && len(d.Images) == 0 {
		d.add("images", Problem, "slate build debian --name demo --publish stable", "none is in a channel")
	}
}

func (d *diagnosis) trips() {
	for _, t := range d.Trips {
		if t.Err != nil {
			d.add(t.Service+" tried", Problem, hint(t.Err, "the appliance's log says more: journalctl -u slate"), "%s", strings.TrimSpace(t.Err.Error()))
			continue
		}
		d.add(t.Service+" tried", OK, "", "%s", t.Text)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/installer/machine"
	"slate/installer/network"
	"slate/installer/root"
	"slate/installer/screen"
	"slate/installer/servers"

	"golang.org/x/sys/unix"
)

// early mounts what the kernel offers, reads the command line and opens the consoles.
func early(_ context.Context, b *Boot) error {
	if err := machine.MountEarly(); err != nil {
		return err
	}
	b.Settings = machine.ParseCmdline(readText(b.path("/proc/cmdline")))
	b.Identity = machine.ReadIdentity(b.Root)
	if b.Console == nil {
		b.openConsoles()
	}
	b.Fleet = servers.NewFleet(b.Settings.Servers, b.Settings.Boot)
	b.Fleet.Moved = b.moved
	for _, p := range b.Settings.Problems {
		b.Note("%s", p)
	}
	b.restore = append(b.restore, machine.Quiet(b.Root), b.serveModprobe())
	machine.Stir(b.Settings.Boot, b.Settings.BootMAC.String(), b.Identity.UUID, b.Identity.Serial, time.Now().String())
	return nil
}

func (b *Boot) openConsoles() {
	var devices []string
	for _, c := range machine.Consoles(b.Root) {
		devices = append(devices, b.path("/dev/"+c))
	}
	if len(devices) == 0 {
		devices = []string{b.path("/dev/console")}
	}
	c := screen.NewConsole(devices...)
	// What was said before there was a console.
	fmt.Fprint(c, "\n")
	for line := range strings.Lines(b.Log()) {
		_, text, _ := strings.Cut(line, "] ")
		fmt.Fprint(c, screen.Plain(strings.TrimSuffix(text, "\n"))+"\n")
	}
	b.mu.Lock()
	b.Console = c
	b.mu.Unlock()
}

// serveModprobe makes the kernel call this program when it wants a module by name
// (a file system's, a checksum's): there is no modprobe in the initramfs.
func (b *Boot) serveModprobe() (restore func()) {
	self, err := os.Readlink("/proc/self/exe") // os.Executable looked before /proc was there
	if err != nil {
		return func() {}
	}
	return machine.Override(b.Root, "kernel/modprobe", self)
}

// minMemory is what the controller, the kernel's modules and a small system need.
const minMemory = 200 << 20

// selfCheck compares the initramfs with the digests packed into it: a bit that
// fell over in a loader or in bad memory must not become a strange failure later.
func selfCheck(_ context.Context, b *Boot) error {
	m, err := machine.ReadMemory(b.Root)
	if err != nil {
		return err
	}
	b.Memory = m
	if m.Total < minMemory {
		return fmt.Errorf("this machine has %d MB of memory; slate needs %d MB", m.Total>>20, int64(minMemory)>>20)
	}
	digests, good, err := b.checkOwnFiles()
	if err != nil {
		return fmt.Errorf("the start files are damaged: %w", err)
	}
	b.Note("%d MB of memory, %d MB free; %d files checked", m.Total>>20, m.Available>>20, good)
	release := machine.Release()
	x, err := machine.ReadModuleIndex(os.DirFS(or2(b.Root, "/")), release)
	if err != nil {
		return &noModulesError{release, b.otherReleases(release), err}
	}
	b.Loader = &machine.Loader{Root: b.Root, Index: x, Settings: b.Settings, Digests: digests}
	return nil
}

// checkOwnFiles compares all files that a digest list names, but for the modules:
// those are many, few are used, and each is compared before it is inserted.
func (b *Boot) checkOwnFiles() (machine.Digests, int, error) {
	digests, err := b.digests()
	if err != nil {
		return nil, 0, err
	}
	good, err := digests.Check(b.Root, func(name string) bool {
		return strings.HasPrefix(name, "/lib/modules/") && strings.Contains(filepath.Base(name), ".ko")
	})
	return digests, good, err
}

func (b *Boot) digests() (machine.Digests, error) {
	digests := machine.Digests{}
	lists, err := filepath.Glob(b.path(machine.DigestLists))
	if err != nil {
		return nil, err
	}
	for _, l := range lists {
		f, err := os.Open(l)
		if err != nil {
			return nil, err
		}
		err = digests.Read(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l, err)
		}
	}
	return digests, nil
}

func or2(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func (b *Boot) otherReleases(release string) (out []string) {
	entries, _ := os.ReadDir(b.path("/lib/modules"))
	for _, e := range entries {
		if e.Name() != release {
			out = append(out, e.Name())
		}
	}
	return out
}

type noModulesError struct {
	release string
	others  []string
	err     error
}

func (e *noModulesError) Error() string {
	if len(e.others) > 0 {
		return fmt.Sprintf("the kernel is %s, but the modules sent with it are for %s", e.release, strings.Join(e.others, ", "))
	}
	return fmt.Sprintf("no modules for the kernel %s came with it: %v", e.release, e.err)
}
func (e *noModulesError) Unwrap() error { return e.err }
func (e *noModulesError) Hint() string {
	return "Kernel and modules must come from the same image version; a kernel with everything built in can go on."
}

// wantedModules are those that no device asks for.
func wantedModules() []string {
	return []string{"af_packet", "nfs", "nfsv3", "overlay"}
}

// hardware loads drivers until nothing new appears, then keeps looking in the
// background: USB adapters come late.
func hardware(ctx context.Context, b *Boot) error {
	if b.Loader == nil {
		b.Note("no modules: relying on what is built into the kernel")
		b.findMedium(ctx)
		return nil
	}
	// The watch outlives the stage; it ends with this process.
	news, err := machine.Watch(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	wanted := wantedModules()
	if _, err := os.Stat(b.path("/sys/firmware/efi")); err == nil {
		wanted = append(wanted, "efivarfs")
	}
	n, err := b.Loader.Load(ctx, wanted...)
	if err != nil {
		b.Note("%v", err)
	}
	if err := machine.MountEarly(); err != nil { // what needed a module
		b.Note("%v", err)
	}
	sctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	m, err := b.Loader.Settle(sctx, news, 150*time.Millisecond)
	if err != nil {
		b.Note("%v", oneLine(err))
	}
	ifaces := network.List(b.Root)
	b.Note("%d modules loaded; wired interfaces: %d", n+m, len(ifaces))
	for _, i := range ifaces {
		b.Note("%s: driver %s", i, or2(i.Driver, "unknown"))
	}
	b.findSystem(ctx)
	go func() {
		for u := range news {
			if u.Action == "add" && u.Modalias != "" {
				_, _ = b.Loader.LoadFor(context.WithoutCancel(ctx), u.Modalias)
			}
		}
	}()
	b.findMedium(ctx) // while drivers for what appears late are loaded
	return nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// connect gets an address where the machine booted from, or elsewhere.
func connect(ctx context.Context, b *Boot) error {
	c := network.Connector{Root: b.Root, Boot: b.Settings.BootMAC, Hostname: b.Settings.Node, Patience: b.patience(), Note: b.Note,
		Check: b.leadsToServer, Drop: func(l network.Lease) { _ = network.Remove(l) }}
	l, err := c.Connect(ctx)
	if err != nil && b.Medium != nil && ctx.Err() == nil {
		b.Offline = err
		b.Note("no network: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	b.Offline = nil
	if err := network.Apply(l); err != nil {
		return err
	}
	b.Lease = l
	length := "without end"
	if l.Duration < network.Forever {
		length = "for " + l.Duration.String()
	}
	b.Note("%s has the address %s from %s, %s", l.Interface, l.Address, l.Server, length)
	b.Fleet.Introduce(b.hello())
	if b.Settings.Boot != "" { // else a server has yet to give the boot its id
		b.startReports(ctx)
	}
	return nil
}

// startReports tells the server how the boot goes, from now on.
func (b *Boot) startReports(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	b.Reporter.Start(ctx, b.Fleet)
	b.shipLog(ctx)
	go b.reportHardware(ctx) // it ends by its own limit
}

// leadsToServer tries a lease: a machine with two cards may get an address on a
// network that the appliance is not on.
func (b *Boot) leadsToServer(ctx context.Context, l network.Lease) error {
	if !b.Settings.NFS.Server.IsValid() {
		return nil
	}
	if err := network.Apply(l); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return root.Reach(ctx, b.Settings.NFS.Server.String(), b.Note)
}

// assemble mounts the root and makes it this machine's own.
func assemble(ctx context.Context, b *Boot) error {
	in := b.rootInput()
	if !in.Lower.Valid() {
		return errNoRoot
	}
	if err := b.checkRefused(); err != nil {
		return err
	}
	if err := b.mountLower(ctx, &in); err != nil {
		return err
	}
	w := root.PlanWritable(in, os.DirFS(root.Bare))
	b.problems(w.Problems)
	if err := root.MountWritable(w); err != nil {
		return err
	}
	b.Mounts = w.Mounts
	if in.UserData.What != "" {
		if err := root.StirSeed(root.KeptSeed); err != nil {
			b.Note("%v", err)
		}
	}
	if !in.Lower.Local() { // a disk carries capabilities, NFS does not
		capable, err := root.ReadCapable(root.CapableList)
		if err != nil {
			return err
		}
		if err := root.MountCapable(capable, root.Bare); err != nil {
			return err
		}
		b.Mounts = append(b.Mounts, root.Capable(capable)...)
	}
	for _, m := range root.Moves() {
		if _, err := os.Stat(m.Where); err != nil {
			return fmt.Errorf("the image has no directory %s", m.What)
		}
	}
	var err error
	if b.Init, err = root.FindInit(root.Sysroot, b.Settings.Init); err != nil {
		return err
	}
	return b.personalise(w.Dirs())
}

// problems tells the console and the timeline what config.d asks for and cannot get.
func (b *Boot) problems(list []string) {
	for _, p := range list {
		b.Note("%s", p)
	}
}

// rootInput is what the root is made of: the slot that step system chose, or the
// export that the command line names.
func (b *Boot) rootInput() root.Input {
	in := root.Input{Lower: b.Lower, UserData: b.UserData, Config: b.config()}
	if !in.Lower.Valid() {
		in.Lower = root.Lower{NFS: b.Settings.NFS}
	}
	return in
}

var errNoRoot = errors.New("the command line does not say where the root is (slate.nfs)")

// personalise writes into /etc what makes this machine itself.
func (b *Boot) personalise(mounted []string) error {
	tree, err := os.OpenRoot(root.Bare)
	if err != nil {
		return err
	}
	defer tree.Close()
	var problems []string
	b.Changes, problems = root.Changes(tree.FS(), root.Facts{
		Node: b.node(), MachineID: machine.MachineID(b.Identity, b.ownMAC()), Interface: b.Lease.Interface, MAC: b.Lease.MAC,
		DNS: b.Lease.DNS, Search: b.Lease.Search, Mounted: mounted,
		Consoles: b.consoles(), Config: b.config(), Others: b.otherInterfaces(),
	})
	b.problems(problems)
	if b.installed() {
		b.Changes = append(b.Changes, root.EndHook(tree.FS(), agentProgram+" "+endRole)...)
	}
	b.healthy = root.HealthyServices(tree.FS(), b.config().Services)
	if root.WantsHostKey(tree.FS(), b.config()) {
		keys, err := root.HostKeys("root@"+b.node(), b.UserData.What != "")
		if err != nil {
			return err
		}
		b.Changes = append(b.Changes, keys...)
	}
	if err := root.Apply(root.Sysroot, b.Changes); err != nil {
		return err
	}
	if err := root.Stamp(root.Sysroot); err != nil {
		b.Note("%v", err)
	}
	return unix.Sethostname([]byte(b.node()))
}

// otherInterfaces are the wired ones beside that which the root hangs on.
func (b *Boot) otherInterfaces() (out []root.Interface) {
	for _, i := range network.List(b.Root) {
		if i.MAC.String() != b.Lease.MAC {
			out = append(out, root.Interface{Name: i.Name, MAC: i.MAC.String()})
		}
	}
	return out
}

func (b *Boot) consoles() (out []root.Console) {
	for _, name := range machine.Consoles(b.Root) {
		out = append(out, root.Console{Name: name, Speed: b.Settings.Speeds[name]})
	}
	return out
}

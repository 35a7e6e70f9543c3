// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"slate/installer/root"
	"slate/installer/screen"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// command is one command of the shell.
type command struct {
	name, args, what string
	run              func(ctx context.Context, b *Boot, w io.Writer, args []string) error
}

// commands are what helps somebody in front of a machine that does not start.
// There is no other program in the initramfs.
func commands() []command {
	return []command{
		{"log", "", "what happened so far, with times", func(_ context.Context, b *Boot, w io.Writer, _ []string) error {
			_, err := io.WriteString(w, b.Log())
			return err
		}},
		{"dmesg", "[N]", "the kernel's last N messages (60)", cmdDmesg},
		{"steps", "", "the steps of a start and what follows a failure", func(_ context.Context, _ *Boot, w io.Writer, _ []string) error {
			_, err := io.WriteString(w, FormatStages(Stages()))
			return err
		}},
		{"ip", "", "interfaces, addresses, routes", cmdIP},
		{"ping", "ADDRESS", "three echo requests", cmdPing},
		{"connect", "ADDRESS:PORT", "does a TCP port answer?", cmdConnect},
		{"modules", "[NAME...]", "list loaded modules, or load some", cmdModules},
		{"devices", "", "devices without a driver", cmdDevices},
		{"drives", "", "drives, what is on them, which may be used and why", func(ctx context.Context, b *Boot, w io.Writer, _ []string) error {
			return cmdInstall(ctx, b, w, nil)
		}},
		{"install", "--dry-run [DRIVE]", "what an installation would do; nothing is done", func(ctx context.Context, b *Boot, w io.Writer, args []string) error {
			if len(args) == 0 || args[0] != "--dry-run" {
				return errors.New("it installs nothing by itself: go back (exit) and choose Install, or say --dry-run")
			}
			return cmdInstall(ctx, b, w, args)
		}},
		{"mount", "", "what is mounted where", func(_ context.Context, b *Boot, w io.Writer, _ []string) error {
			_, err := fmt.Fprintln(w, readText(b.path("/proc/self/mounts")))
			return err
		}},
		{"plan", "", "what the root will be made of", func(_ context.Context, b *Boot, w io.Writer, _ []string) error {
			_, err := io.WriteString(w, b.rootPlan())
			return err
		}},
		{"ls", "[PATH]", "list a directory", cmdLs},
		{"cat", "FILE...", "show files", cmdCat},
		{"reboot", "", "restart the machine", func(ctx context.Context, b *Boot, _ io.Writer, _ []string) error {
			return b.do(ctx, reboot)
		}},
		{"poweroff", "", "switch the machine off", func(ctx context.Context, b *Boot, _ io.Writer, _ []string) error {
			return b.do(ctx, powerOff)
		}},
	}
}

// shell reads commands until "exit"; then the menu it was called from comes back.
func (b *Boot) shell(ctx context.Context) {
	b.Console.Paint("\x1b[?25h\x1b[2J\x1b[H")
	fmt.Fprint(b.Console, "slate: shell of "+b.node()+": help lists the commands, exit goes back\n")
	for {
		line, err := b.Console.Line(ctx, "slate# ")
		if err != nil {
			return
		}
		args := strings.Fields(line)
		if len(args) == 0 {
			continue
		}
		if args[0] == "exit" || args[0] == "retry" {
			return
		}
		if err := b.command(ctx, args); err != nil {
			b.Console.Paint(args[0] + ": " + strings.ReplaceAll(err.Error(), "\n", "\n  ") + "\n")
		}
	}
}

// command runs one command and pages what it says.
func (b *Boot) command(ctx context.Context, args []string) error {
	var out bytes.Buffer
	err := runCommand(ctx, b, &out, args)
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	for n := 0; n < len(lines) && out.Len() > 0; {
		end := min(n+screen.Rows-2, len(lines))
		for _, l := range lines[n:end] {
			b.Console.Paint(screen.Plain(strings.ReplaceAll(l, "\t", "  ")) + "\n")
		}
		if n = end; n < len(lines) {
			b.Console.Paint(fmt.Sprintf("-- %d more lines; any key goes on, q ends --", len(lines)-n))
			k, kerr := b.Console.Key(ctx)
			b.Console.Paint("\r\x1b[K")
			if kerr != nil || k == 'q' || k == screen.CtrlC {
				break
			}
		}
	}
	return err
}

func runCommand(ctx context.Context, b *Boot, w io.Writer, args []string) error {
	all := commands()
	if args[0] == "help" || args[0] == "?" {
		for _, c := range all {
			fmt.Fprintf(w, "  %-22s %s\n", strings.TrimSpace(c.name+" "+c.args), c.what)
		}
		fmt.Fprintf(w, "  %-22s %s\n", "exit", "go back to the choice")
		return nil
	}
	i := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		return errors.New("no such command; help lists them")
	}
	return guarded(func() error { return all[i].run(ctx, b, w, args[1:]) })
}

func cmdDmesg(_ context.Context, _ *Boot, w io.Writer, args []string) error {
	n := 60
	if len(args) > 0 {
		v, err := strconv.Atoi(args[0])
		if err != nil || v < 1 {
			return fmt.Errorf("%q is not a number of lines", args[0])
		}
		n = v
	}
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return err
	}
	buf := make([]byte, size)
	got, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(buf[:got])), "\n")
	_, err = fmt.Fprintln(w, strings.Join(lines[max(len(lines)-n, 0):], "\n"))
	return err
}

func cmdIP(_ context.Context, _ *Boot, w io.Writer, _ []string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		state := "no link"
		if a.RawFlags&unix.IFF_LOWER_UP != 0 {
			state = "link"
		}
		fmt.Fprintf(w, "%-10s %s %s, mtu %d\n", a.Name, a.HardwareAddr, state, a.MTU)
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, ad := range addrs {
			fmt.Fprintf(w, "           %s\n", ad.IPNet)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range routes {
		to := "default"
		if r.Dst != nil && r.Dst.String() != "0.0.0.0/0" {
			to = r.Dst.String()
		}
		via := "on the link"
		if r.Gw != nil {
			via = "via " + r.Gw.String()
		}
		fmt.Fprintf(w, "%-18s %s\n", to, via)
	}
	return nil
}

func cmdConnect(ctx context.Context, _ *Boot, w io.Writer, args []string) error {
	if len(args) != 1 {
		return errors.New("want ADDRESS:PORT")
	}
	start := time.Now()
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = fmt.Fprintf(w, "%s answers in %v\n", args[0], time.Since(start).Round(10*time.Microsecond))
	return err
}

func cmdModules(ctx context.Context, b *Boot, w io.Writer, args []string) error {
	if len(args) > 0 {
		if b.Loader == nil {
			return errors.New("no modules for this kernel in the initramfs")
		}
		n, err := b.Loader.Load(ctx, args...)
		fmt.Fprintf(w, "%d loaded\n", n)
		return err
	}
	for line := range strings.Lines(readText(b.path("/proc/modules"))) {
		if f := strings.Fields(line); len(f) > 3 {
			fmt.Fprintf(w, "%-24s %8s  %s\n", f[0], f[1], strings.Trim(f[3], "-,"))
		}
	}
	return nil
}

func cmdDevices(_ context.Context, b *Boot, w io.Writer, _ []string) error {
	devices, err := filepath.Glob(b.path("/sys/bus/*/devices/*"))
	if err != nil {
		return err
	}
	for _, d := range devices {
		alias := readText(filepath.Join(d, "modalias"))
		if _, err := os.Stat(filepath.Join(d, "driver")); err == nil || alias == "" {
			continue
		}
		claims := "no module claims it"
		if b.Loader != nil {
			if m := b.Loader.Index.Match(alias); len(m) > 0 {
				claims = "claimed by " + strings.Join(m, ", ")
			}
		}
		fmt.Fprintf(w, "%s %s: %s\n", filepath.Base(d), alias, claims)
	}
	return nil
}

func cmdLs(_ context.Context, _ *Boot, w io.Writer, args []string) error {
	dir := "/"
	if len(args) > 0 {
		dir = args[0]
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			continue
		}
		name := e.Name()
		if l, err := os.Readlink(filepath.Join(dir, name)); err == nil {
			name += " -> " + l
		}
		fmt.Fprintf(w, "%s %10d  %s\n", fi.Mode(), fi.Size(), name)
	}
	return nil
}

func cmdCat(_ context.Context, _ *Boot, w io.Writer, args []string) error {
	for _, name := range args {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, io.LimitReader(f, 1<<20))
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// rootPlan prints the mounts and, once the image is there, the changes in /etc.
func (b *Boot) rootPlan() string {
	in := b.rootInput()
	s := root.Format(root.Base(in))
	if len(b.Mounts) == 0 {
		var dirs []string
		for _, o := range b.config().Overlays.Overlay {
			dirs = append(dirs, o.Path)
		}
		for _, t := range b.config().Tmpfs.Tmpfs {
			dirs = append(dirs, t.Path)
		}
		s += "on top, where the image has the directory: " + strings.Join(dirs, " ") + "\n"
	}
	s += root.Format(b.Mounts)
	for _, c := range b.Changes {
		s += c.String() + "\n"
	}
	return s + root.Format(root.Moves())
}

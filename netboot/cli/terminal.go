// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// leaveKey is Ctrl-], with which one leaves a console, as in telnet and virsh.
const leaveKey = 0x1d

// errLeft says that the person left the console.
var errLeft = errors.New("left the console")

// onTerminal tells whether a person sits at both ends of the command.
func (a *app) onTerminal() bool {
	in, ok1 := a.stdin.(*os.File)
	out, ok2 := a.stdout.(*os.File)
	return ok1 && ok2 && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
}

// console connects the terminal with a machine's console until the person types
// Ctrl-] or the console ends. Keys go through as they are, Ctrl-C too.
func (a *app) console(ctx context.Context, name string, attach func(context.Context, io.ReadWriter) error) error {
	in, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errors.New("a console needs a terminal")
	}
	fmt.Fprintf(a.stdout, "Console of %s. Ctrl-] leaves it.\r\n", name)
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer term.Restore(int(in.Fd()), old)
	err = attach(ctx, keys{in, a.stdout})
	fmt.Fprint(a.stdout, "\r\n")
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// keys is a terminal on which Ctrl-] ends the input.
type keys struct {
	in  io.Reader
	out io.Writer
}

func (k keys) Write(b []byte) (int, error) { return k.out.Write(b) }

func (k keys) Read(b []byte) (int, error) {
	n, err := k.in.Read(b)
	if i := bytes.IndexByte(b[:n], leaveKey); i >= 0 {
		return i, errLeft
	}
	return n, err
}

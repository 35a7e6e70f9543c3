// SPDX-License-Identifier: GPL-2.0-or-later

package console

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// retryEvery is how long an answer of a login or shell is waited for before the
// question is typed again: a getty that starts throws away what was typed early.
const retryEvery = 5 * time.Second

// errSlowLogin says that login(1) gave up waiting, as it does after a minute: on a
// starved machine it may take that long to ask for the password.
var errSlowLogin = errors.New("console: login timed out")

// Login waits for a login prompt, logs in and waits for a shell that answers. An
// empty password means that none is asked for. A login that the machine was too
// slow for is tried again while there is time.
func (c *Console) Login(ctx context.Context, timeout time.Duration, user, password string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrTimeout)
	defer cancel()
	for {
		err := c.login(ctx, timeout, user, password)
		if !errors.Is(err, errSlowLogin) {
			return err
		}
	}
}

func (c *Console) login(ctx context.Context, timeout time.Duration, user, password string) error {
	if _, err := c.Expect(ctx, timeout, `login: ?`); err != nil {
		return err
	}
	if err := c.SendLine(user); err != nil {
		return err
	}
	if password != "" {
		if _, err := c.Expect(ctx, timeout, `[Pp]assword: ?`); err != nil {
			return err
		}
		if err := c.SendLine(password); err != nil {
			return err
		}
	}
	return c.Shell(ctx, timeout)
}

// Shell waits until a shell answers, and makes it fit for Run.
func (c *Console) Shell(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrTimeout)
	defer cancel()
	for {
		begin, _ := c.marks()
		// No quotes: of a line that comes while the password is checked the beginning may be
		// lost, and half a pair would swallow all that follows.
		// Without line editing and echo, long commands are not wrapped on the
		// screen. Not every shell or terminal can be told so: no harm.
		if err := c.SendLine("stty -echo 2>/dev/null; set +o emacs 2>/dev/null; PS1=\\#\\ ; echo " + begin.typed); err != nil {
			return err
		}
		_, which, err := c.ExpectAny(ctx, retryEvery, begin.shown+`\b`, "Login incorrect", "timed out after [0-9]+ sec")
		switch {
		case err == nil && which == 1:
			return errors.New("console: login refused")
		case err == nil && which == 2:
			return errSlowLogin
		}
		var e *ExpectError
		if errors.As(err, &e) && e.Cause == ErrTimeout && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// Run runs a command line in the shell at the other end and returns what it
// wrote and its exit status. An error means that the shell did not answer.
func (c *Console) Run(ctx context.Context, timeout time.Duration, command string) (output string, status int, err error) {
	begin, end := c.marks()
	// A group, not a subshell: cd and variables stay. The newline lets the
	// command end in a comment or a here document.
	line := fmt.Sprintf("echo %s; { %s\n}; echo %s $?", begin.typed, command, end.typed)
	c.Skip()
	if err := c.SendLine(strings.ReplaceAll(line, "\n", "\r")); err != nil {
		return "", 0, err
	}
	first, err := c.Expect(ctx, timeout, begin.shown+`\b`)
	if err != nil {
		return "", 0, fmt.Errorf("run %q: %w", command, err)
	}
	last, err := c.Expect(ctx, timeout, end.shown+` (\d+)`)
	if err != nil {
		return "", 0, fmt.Errorf("run %q: %w", command, err)
	}
	status, err = strconv.Atoi(last[0].Groups[1])
	return c.between(first[0], last[0]), status, err
}

// between returns the text from the line after one match to the other match.
func (c *Console) between(from, to Match) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, after, _ := strings.Cut(string(c.text[from.begin:to.begin]), "\n")
	return after
}

// mark is a word that looks different typed and shown, so that the echo of a
// command is never taken for its output.
type mark struct{ typed, shown string }

func (c *Console) marks() (begin, end mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nonce++
	n := strconv.Itoa(c.nonce)
	return mark{`sl\ate-begin-` + n, "slate-begin-" + n}, mark{`sl\ate-end-` + n, "slate-end-" + n}
}

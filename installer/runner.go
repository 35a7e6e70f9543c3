// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"slate/installer/screen"
	"slate/netboot/api"
)

// Runner takes a Boot through its stages.
type Runner struct {
	Stages []Stage
	// Fail asks what to do about a stage that failed for good.
	Fail func(context.Context, Failure) Decision

	remind time.Duration // between two reminders of what is waited for; 0: 5 s
	grace  time.Duration // for a stage to notice that its time is up; 0: 5 s
}

// Failure is what a person is told.
type Failure struct {
	Stage    Stage
	Position string // "4/10"
	Title    string // instead of one made of stage and position
	Err      error
}

// Decision is what a person, or a count-down, answers to a failure. Restart and
// power-off are not among them: they do not return.
type Decision int

// The decisions.
const (
	TryAgain Decision = iota
	GoOn
	GiveUp // only when ctx has ended
)

// Run runs the stages in order. It returns nil after the last one, and an error
// only when ctx has ended: every failure of a stage ends in Fail.
func (r *Runner) Run(ctx context.Context, b *Boot) error {
	tries := map[api.Step]int{}
	for i := 0; i < len(r.Stages); {
		s := r.Stages[i].of(b)
		position := fmt.Sprintf("%d/%d", i+1, len(r.Stages))
		if ok, why := s.When(b); !ok {
			b.printf("slate: step %s (%s) skipped: %s\n", s.Name, position, why)
			i++
			continue
		}
		err := r.one(ctx, b, s, position)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			i++
			continue
		}
		person := errors.Is(err, errInterrupted)
		if tries[s.Name]++; tries[s.Name] <= s.OnFail.Retries && !person {
			b.printf("slate: step %s: trying again\n", s.Name)
			continue
		}
		if s.OnFail.Then == MoveOn && !person {
			b.printf("slate: step %s: going on without\n", s.Name)
			i++
			continue
		}
		switch r.Fail(ctx, Failure{Stage: s, Position: position, Err: err}) {
		case GoOn:
			i++
		case GiveUp:
			return err
		default:
			clear(tries)
			i = r.back(i, s.OnFail.Again)
		}
	}
	return nil
}

func (r *Runner) back(i int, to api.Step) int {
	for j, s := range r.Stages[:i] {
		if s.Name == to {
			return j
		}
	}
	return i
}

// one runs a stage once: it tells when it starts, what it waits for and how long
// it took, turns a panic into an error, and leaves a stage behind that does not
// notice that its time is up.
func (r *Runner) one(ctx context.Context, b *Boot, s Stage, position string) error {
	start := time.Now()
	b.begin(s.Name)
	b.printf("slate: step %s (%s) ...\n", s.Name, position)
	b.event(s.Name, api.StateStart, "")
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var limit <-chan time.Time
	if s.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Limit, s.late())
		defer cancel()
		t := time.NewTimer(s.Limit + or(r.grace, 5*time.Second))
		defer t.Stop()
		limit = t.C
	}
	done := make(chan error, 1)
	go func() { done <- guarded(func() error { return s.Run(ctx, b) }) }()
	err := r.wait(ctx, b, s, done, limit, stop)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	took := time.Since(start).Seconds()
	if err != nil {
		b.printf("slate: step %s failed after %.2f s: %v\n", s.Name, took, err)
		b.event(s.Name, api.StateFailed, err.Error())
		return err
	}
	b.printf("slate: step %s done in %.2f s\n", s.Name, took)
	b.event(s.Name, api.StateDone, fmt.Sprintf("%.2f s", took))
	return nil
}

func (r *Runner) wait(ctx context.Context, b *Boot, s Stage, done <-chan error, limit <-chan time.Time, stop context.CancelCauseFunc) error {
	var keys <-chan screen.Key
	if s.Limit > 0 { // a stage without a limit reads the keys itself
		keys = b.keys()
	}
	told := false
	tick := time.NewTicker(or(r.remind, 5*time.Second))
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case k := <-keys:
			if k == screen.CtrlC {
				stop(errInterrupted)
			}
		case <-limit:
			cause := context.Cause(ctx)
			if cause == nil { // a busy machine: that timer comes after this one
				cause = s.late()
			}
			return fmt.Errorf("%w, and it does not stop: %w", cause, errStuck)
		case <-tick.C:
			if s.Limit > 0 {
				what, so := b.waitingFor()
				b.printf("slate:   %s, %.0f s\n", what, so.Seconds())
				if !told && keys != nil {
					b.printf("slate:   Ctrl-C interrupts step %s\n", s.Name)
				}
				told = true
			}
		}
	}
}

// late is what becomes of a stage whose time is up.
func (s Stage) late() error { return fmt.Errorf("not done within %v", s.Limit) }

var (
	errStuck       = errors.New("left behind")
	errInterrupted = errors.New("interrupted at the console")
)

// guarded turns a panic into an error with the stack in it.
func guarded(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: string(debug.Stack())}
		}
	}()
	return fn()
}

// PanicError is a fault of ours that was caught.
type PanicError struct {
	Value any
	Stack string
}

func (e *PanicError) Error() string { return fmt.Sprintf("BUG: %v", e.Value) }

// Hint asks for a report.
func (e *PanicError) Hint() string {
	return "This is a fault of the controller; please report it with the log (shell, command log)."
}

func or(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// loop drives all transfers from one goroutine with an epoll of its own. With a
// goroutine for each transfer, blocked in the runtime's poller, each block woke a
// goroutine and often a thread, which cost more than sending it.
type loop struct {
	epoll, event int
	members      map[int32]*member // by descriptor
	next         time.Time         // no deadline is before it; zero: there is none
	ended        chan struct{}

	mu      sync.Mutex
	joining []*member
	leaving []leave
	closing bool
}

// member is a transfer in the loop.
type member struct {
	link *link
	t    *transfer
	done chan struct{}
}

type leave struct {
	m     *member
	cause error
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &loop{epoll: epoll, event: event, members: make(map[int32]*member), ended: make(chan struct{})}
	if err := l.watch(event); err != nil {
		unix.Close(epoll)
		unix.Close(event)
		return nil, err
	}
	go l.run()
	return l, nil
}

func (l *loop) watch(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

// close ends the loop, which has no members any more.
func (l *loop) close() {
	l.mail(func() { l.closing = true })
	<-l.ended
	unix.Close(l.epoll)
	unix.Close(l.event)
}

// mail changes what the loop looks at next, and makes it look.
func (l *loop) mail(change func()) {
	l.mu.Lock()
	change()
	l.mu.Unlock()
	// The counter cannot overflow, and nothing else can go wrong.
	_, _ = unix.Write(l.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// transfer runs t, which has been started, to its end, or to that of ctx.
func (l *loop) transfer(ctx context.Context, k *link, t *transfer) {
	if t.over {
		return
	}
	m := &member{link: k, t: t, done: make(chan struct{})}
	l.mail(func() { l.joining = append(l.joining, m) })
	stop := context.AfterFunc(ctx, func() {
		l.mail(func() { l.leaving = append(l.leaving, leave{m, context.Cause(ctx)}) })
	})
	<-m.done
	stop()
}

func (l *loop) run() {
	defer close(l.ended)
	events := make([]unix.EpollEvent, 64)
	in := make([]byte, 512) // an ACK or ERROR; a longer packet is none
	for {
		n, err := unix.EpollWait(l.epoll, events, l.patience(time.Now()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic("BUG: epoll_wait: " + err.Error())
		}
		now := time.Now()
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == l.event {
				if !l.readMail(now) {
					return
				}
			} else if m := l.members[e.Fd]; m != nil { // nil: ended by an event before this one
				m.read(in, now)
				l.settle(m)
			}
		}
		if !l.next.IsZero() && !now.Before(l.next) {
			l.expire(in, now)
		}
	}
}

// patience is how long to wait for packets, in milliseconds; -1: for ever.
func (l *loop) patience(now time.Time) int {
	if l.next.IsZero() {
		return -1
	}
	return max(0, int((l.next.Sub(now)+time.Millisecond-1)/time.Millisecond))
}

// read takes one packet. If there are more, the next round says so; in most
// cases there are not, and finding that out would cost a system call.
func (m *member) read(in []byte, now time.Time) {
	n, err := m.link.receive(in)
	switch {
	case err == nil:
		m.t.packet(in[:n], now)
	case errors.Is(err, unix.ECONNREFUSED):
		m.t.end(errGone)
	case !errors.Is(err, unix.EAGAIN):
		m.t.end(os.NewSyscallError("receive", err))
	}
}

// settle lets go of a transfer that has ended, or notes when to look at it.
func (l *loop) settle(m *member) {
	if !m.t.over {
		// A deadline that moves back leaves an early wake-up behind, which is
		// cheaper than a queue of deadlines.
		if l.next.IsZero() || m.t.deadline.Before(l.next) {
			l.next = m.t.deadline
		}
		return
	}
	// The descriptor is closed by its owner after this.
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, m.link.fd, nil)
	delete(l.members, int32(m.link.fd))
	close(m.done)
}

func (l *loop) expire(in []byte, now time.Time) {
	l.next = time.Time{}
	for _, m := range l.members {
		if !now.Before(m.t.deadline) {
			m.read(in, now) // on a busy machine the answer may lie there, and only we be late
		}
		if !m.t.over && !now.Before(m.t.deadline) {
			m.t.expire(now)
		}
		l.settle(m)
	}
}

// readMail takes in and lets go of members; false: the loop is to end.
func (l *loop) readMail(now time.Time) bool {
	var counter [8]byte
	_, _ = unix.Read(l.event, counter[:])
	l.mu.Lock()
	joining, leaving, closing := l.joining, l.leaving, l.closing
	l.joining, l.leaving = nil, nil
	l.mu.Unlock()
	for _, m := range joining {
		l.members[int32(m.link.fd)] = m
		if err := l.watch(m.link.fd); err != nil {
			m.t.end(err)
		}
		l.settle(m)
	}
	for _, q := range leaving {
		if l.members[int32(q.m.link.fd)] == q.m {
			q.m.t.end(q.cause)
			l.settle(q.m)
		}
	}
	return !closing
}

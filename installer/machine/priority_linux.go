// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// StepBack makes this process the last to get processor and disk: nice 19, and the
// idle class of ioprio_set(2). Linux keeps both by thread; new ones have what the thread
// has that makes them. Where that cannot be, it works all the same.
func StepBack() {
	const whoProcess, idle = 1, 3 << 13
	threads := []int{0} // this one, if there is no /proc
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			threads = append(threads, tid)
		}
	}
	for _, tid := range threads {
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 19)
		_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(tid), idle)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

// slate-init is /init of the initramfs: the controller that takes a machine from
// the kernel to its own system, and the agent that stays while that runs. The
// kernel parameters and files it knows are listed at package installer.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"slate/installer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(installer.Main(ctx, os.Args, os.Stdout, os.Stderr))
}

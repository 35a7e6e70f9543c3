// SPDX-License-Identifier: GPL-2.0-or-later

// Slate turns one Linux box into the home of a room of machines: it boots them
// over the network and keeps the image they run.
package main

import (
	"context"
	"os"

	"slate/netboot/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

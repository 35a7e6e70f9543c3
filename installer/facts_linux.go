// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slate/installer/machine"
	"slate/installer/network"
	"slate/netboot/api"
)

// factsLimit is how long the report of the hardware may take. Nothing waits for it.
const factsLimit = 20 * time.Second

// reportHardware tells the appliance what the machine is made of.
func (b *Boot) reportHardware(ctx context.Context) {
	if !b.Fleet.Usable() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, factsLimit)
	defer cancel()
	f := machine.ReadFacts(b.Root)
	f.NICs = readNICs(b.Root)
	if err := b.Fleet.PostFacts(ctx, f); err != nil {
		b.Note("the appliance was not told of the hardware: %v", err)
	}
}

// maxNICs is how many interfaces the appliance is told of.
const maxNICs = 16

func readNICs(root string) []api.NIC {
	var out []api.NIC
	for _, i := range network.List(root) {
		if len(out) == maxNICs {
			break
		}
		dir := filepath.Join(root, "/sys/class/net", i.Name)
		speed, _ := os.ReadFile(filepath.Join(dir, "speed")) // -1 without a link, an error for some drivers
		n, err := strconv.Atoi(strings.TrimSpace(string(speed)))
		if err != nil || n < 0 {
			n = 0
		}
		out = append(out, api.NIC{Name: i.Name, MAC: i.MAC.String(), Driver: i.Driver, Speed: n, Link: i.Carrier})
	}
	return out
}

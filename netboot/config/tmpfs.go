// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"regexp"
	"strconv"
	"strings"
)

// Tmpfs is controller/tmpfs.conf: what of a node's tree lives in memory.
type Tmpfs struct {
	Limit TmpfsLimit `toml:"limit"`
}

// TmpfsLimit caps the memory that writes on a node may take.
type TmpfsLimit struct {
	// Total is the cap of the writable layer: percent of the node's RAM ("50%")
	// or a size in units of 1024 ("512M", "4G").
	Total string `toml:"total"`
}

func defaultTmpfs() Tmpfs { return Tmpfs{Limit: TmpfsLimit{Total: "50%"}} }

var sizePattern = regexp.MustCompile(`^[1-9][0-9]{0,9}[%KMG]$`)

func (t *Tmpfs) check(d *Doc) []error {
	total := t.Limit.Total
	if !sizePattern.MatchString(total) {
		return []error{d.Errorf("limit.total", "%q is not a size: write percent of memory (50%%) or a number with K, M or G", total)}
	}
	if percent, ok := strings.CutSuffix(total, "%"); ok {
		if n, err := strconv.Atoi(percent); err != nil || n > 90 {
			return []error{d.Errorf("limit.total", "%s leaves the system no memory to work in: 90%% is the most", total)}
		}
	}
	return nil
}

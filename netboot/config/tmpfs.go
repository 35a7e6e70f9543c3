// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Tmpfs is controller/tmpfs.conf: what of a node's tree lives in memory.
type Tmpfs struct {
	Limit TmpfsLimit `toml:"limit"`
	Tmpfs []TmpfsDir `toml:"tmpfs"`
}

// TmpfsLimit caps the memory that writes on a node may take.
type TmpfsLimit struct {
	// Total is the cap of the writable layer: percent of the node's RAM ("50%")
	// or a size in units of 1024 ("512M", "4G").
	Total string `toml:"total"`
}

// TmpfsDir is a directory that is empty memory at each start but for what is
// copied into it. It goes before an overlay of the same path.
type TmpfsDir struct {
	Path   string   `toml:"path"`
	Size   string   `toml:"size"` // its cap
	Mode   string   `toml:"mode"` // octal; empty: the image's
	Copy   []string `toml:"copy"` // below Path in the image, e.g. "lib/dpkg"; "." is all
	Remove bool     `toml:"remove"`
}

func (t TmpfsDir) id() string    { return t.Path }
func (t TmpfsDir) removed() bool { return t.Remove }

func (t *Tmpfs) lists() []keyedList { return []keyedList{entries[TmpfsDir]{"tmpfs", &t.Tmpfs}} }

const tmpfsFile = "controller/tmpfs.conf"

func defaultTmpfs() Tmpfs {
	return Tmpfs{Limit: TmpfsLimit{Total: "50%"}, Tmpfs: []TmpfsDir{{Path: "/tmp", Size: "25%", Mode: "1777", Copy: []string{}}}}
}

var (
	sizePattern = regexp.MustCompile(`^[1-9][0-9]{0,9}[%KMG]$`)
	modePattern = regexp.MustCompile(`^[0-7]{3,4}$`)
)

func (t *Tmpfs) check(d *Doc) (errs []error) {
	if why := badSize(t.Limit.Total); why != "" {
		errs = append(errs, d.Errorf("limit.total", "%q %s", t.Limit.Total, why))
	}
	for i := range t.Tmpfs {
		e := &t.Tmpfs[i]
		if e.Copy == nil {
			e.Copy = []string{}
		}
		if why := badDirectory(e.Path); why != "" {
			errs = append(errs, d.at("tmpfs", i, "path", "%q %s", e.Path, why))
		}
		if e.Remove {
			continue
		}
		errs = append(errs, d.checkSize("tmpfs", i, "size", e.Size)...)
		if e.Mode != "" && !modePattern.MatchString(e.Mode) {
			errs = append(errs, d.at("tmpfs", i, "mode", "%q is not a mode in octal, such as \"0755\"", e.Mode))
		}
		for _, c := range e.Copy {
			if c == "" || path.IsAbs(c) || path.Clean(c) != c || c == ".." || strings.HasPrefix(c, "../") {
				errs = append(errs, d.at("tmpfs", i, "copy", "%q is not a path below %s: write it without %s in front", c, e.Path, e.Path+"/"))
			}
		}
		if e.Path == "/etc" && !slices.Contains(e.Copy, ".") {
			errs = append(errs, d.at("tmpfs", i, "copy", "/etc must be copied as a whole: copy = [\".\"]"))
		}
	}
	return errs
}

// checkSize looks at a size in an entry of a list.
func (d *Doc) checkSize(list string, i int, key, size string) []error {
	if why := badSize(size); why != "" {
		return []error{d.at(list, i, key, "%q %s", size, why)}
	}
	return nil
}

func badSize(size string) string {
	if !sizePattern.MatchString(size) {
		return "is not a size: write percent of memory (50%) or a number with K, M or G"
	}
	if percent, ok := strings.CutSuffix(size, "%"); ok {
		if n, err := strconv.Atoi(percent); err != nil || n > 90 {
			return "leaves the system no memory to work in: 90% is the most"
		}
	}
	return ""
}

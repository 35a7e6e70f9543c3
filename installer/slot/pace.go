// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"slate/images/durable"
	"slate/netboot/config"
)

// verifiedFile, on the boot partition, says what came of comparing the slots' files.
const verifiedFile = "slate/verified.json"

// Verified is what came of comparing a slot's files with its tree list.
type Verified struct {
	Tree   string    `json:"tree"`             // of the version that was compared
	At     time.Time `json:"at"`               // the last time
	Part   int       `json:"part"`             // of the files, that is read next
	Faults []string  `json:"faults,omitempty"` // paths that were wrong and are not mended yet
}

// LoadVerified reads what is known of each slot. Without the file, or with a damaged
// one, that is nothing: then it is time to compare.
func LoadVerified(boot string) map[string]Verified {
	out := map[string]Verified{}
	if b, err := os.ReadFile(filepath.Join(boot, verifiedFile)); err != nil || json.Unmarshal(b, &out) != nil || out == nil {
		return map[string]Verified{}
	}
	return out
}

// SaveVerified keeps what is known of a slot.
func SaveVerified(boot, s string, v Verified) error {
	all := LoadVerified(boot)
	all[s] = v
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(boot, verifiedFile), append(b, '\n'), 0o600)
}

// Suspect tells whether something was wrong in the version and is not mended.
func (v Verified) Suspect(tree string) bool { return v.Tree == tree && len(v.Faults) > 0 }

// Due tells whether it is time to compare the files of a version again. A clock that
// was set back makes it time.
func (v Verified) Due(at, tree string, now time.Time) bool {
	period, ok := map[string]time.Duration{config.VerifyBoot: 0, config.VerifyDaily: 24 * time.Hour, config.VerifyWeekly: 7 * 24 * time.Hour}[at]
	return ok && (v.Tree != tree || v.At.After(now) || now.Sub(v.At) >= period)
}

// Next is what is known after a comparison of one of the parts.
func (v Verified) Next(tree string, now time.Time, parts int, faults []Fault) Verified {
	part := 0
	if v.Tree == tree {
		part = v.Part
	}
	n := Verified{Tree: tree, At: now.UTC().Truncate(time.Second), Part: (part + 1) % parts}
	for _, f := range faults[:min(len(faults), 100)] {
		n.Faults = append(n.Faults, f.Path)
	}
	return n
}

// Parts is how many times a share of so many percent is read until all files were.
func Parts(share int) int { return (100 + max(share, 1) - 1) / max(share, 1) }

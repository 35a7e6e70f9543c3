// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"regexp"
	"slices"
	"strings"
)

// How a machine comes to a new version (UpdateCheck.Mode).
const (
	UpdateAsk  = "ask"  // a question on its screen
	UpdateAuto = "auto" // unasked
	UpdateOff  = "off"  // only when the admin orders it
)

// What it means that nobody answers the question (UpdateCheck.Silence).
const (
	SilenceNow       = "now"        // update, then start
	SilenceLater     = "later"      // start as it is, ask again at the next start
	SilenceNextStart = "next-start" // start as it is, update at the next start
)

// What is done about a damaged slot (UpdateCheck.Damaged).
const (
	DamagedBailout = "bailout" // start the backup
	DamagedClone   = "clone"   // copy the backup over it, then start it
	DamagedSync    = "sync"    // make it whole from an appliance, then start it
)

// What a start-up that was not followed by a clean end counts for (UpdateCheck.Unclean).
const (
	UncleanIgnore = "ignore" // a cycle that was healthy earns the flag, however it ended
	UncleanCount  = "count"  // only one that ended clean does
)

// When the files of a slot are compared with its tree list (Verify.At).
const (
	VerifyBoot   = "boot"
	VerifyDaily  = "daily"
	VerifyWeekly = "weekly"
	VerifyNever  = "never" // only on demand
)

// UpdateCheck is controller/update.chk.conf: how an installed node comes to a new
// version, and what it does when a version fails it.
type UpdateCheck struct {
	Channel       string `toml:"channel"`        // empty: the node's image
	Mode          string `toml:"mode"`           // one of the Update constants
	Timeout       int    `toml:"timeout"`        // seconds that the question waits; 0: for ever
	Silence       string `toml:"silence"`        // one of the Silence constants
	DownloadFirst bool   `toml:"download-first"` // before the question
	Night         string `toml:"night"`          // hours when the running system fetches, e.g. 22:00-05:00; empty: never
	Rate          string `toml:"rate"`           // bytes a second that it fetches then, e.g. 2M; empty: as fast as it goes

	Damaged     string      `toml:"damaged"`      // one of the Damaged constants
	Tries       int         `toml:"tries"`        // starts of a slot that may fail before the other is started
	HealthLimit int         `toml:"health-limit"` // seconds until a start-up that is not healthy has failed
	Unclean     string      `toml:"unclean"`      // one of the Unclean constants
	Verify      VerifyFiles `toml:"verify"`
}

// VerifyFiles says when the files of a slot are read and compared.
type VerifyFiles struct {
	At    string `toml:"at"`    // one of the Verify constants
	Share int    `toml:"share"` // percent of the files that are read each time
}

const updateFile = "controller/update.chk.conf"

func defaultUpdateCheck() UpdateCheck {
	return UpdateCheck{Mode: UpdateAsk, Timeout: 30, Silence: SilenceLater,
		Damaged: DamagedBailout, Tries: 3, HealthLimit: 300, Unclean: UncleanIgnore, Verify: VerifyFiles{At: VerifyWeekly, Share: 100}}
}

var (
	nightPattern = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$`)
	ratePattern  = regexp.MustCompile(`^[1-9][0-9]{0,8}[KMG]?$`)
)

func (u *UpdateCheck) check(d *Doc) (errs []error) {
	for _, w := range []struct {
		key, value string
		words      []string
	}{
		{"mode", u.Mode, []string{UpdateAsk, UpdateAuto, UpdateOff}},
		{"silence", u.Silence, []string{SilenceNow, SilenceLater, SilenceNextStart}},
		{"damaged", u.Damaged, []string{DamagedBailout, DamagedClone, DamagedSync}},
		{"unclean", u.Unclean, []string{UncleanIgnore, UncleanCount}},
		{"verify.at", u.Verify.At, []string{VerifyBoot, VerifyDaily, VerifyWeekly, VerifyNever}},
	} {
		if !slices.Contains(w.words, w.value) {
			errs = append(errs, d.Errorf(w.key, "%q is not one of %s", w.value, strings.Join(w.words, ", ")))
		}
	}
	for _, n := range []struct {
		key              string
		value, low, high int
	}{
		{"timeout", u.Timeout, 0, 24 * 60 * 60},
		{"tries", u.Tries, 1, 9},
		{"health-limit", u.HealthLimit, 10, 60 * 60},
		{"verify.share", u.Verify.Share, 1, 100},
	} {
		if n.value < n.low || n.value > n.high {
			errs = append(errs, d.Errorf(n.key, "%d is not between %d and %d", n.value, n.low, n.high))
		}
	}
	if u.Channel != "" && (strings.Count(u.Channel, "@") != 1 || strings.ContainsAny(u.Channel, " \t/")) {
		errs = append(errs, d.Errorf("channel", "%q is not a channel such as lab@stable", u.Channel))
	}
	if from, to, ok := strings.Cut(u.Night, "-"); u.Night != "" && (!ok || !nightPattern.MatchString(u.Night) || from == to) {
		errs = append(errs, d.Errorf("night", "%q are not hours such as 22:00-05:00", u.Night))
	}
	if u.Rate != "" && !ratePattern.MatchString(u.Rate) {
		errs = append(errs, d.Errorf("rate", "%q is not a number of bytes a second, such as 500K or 2M", u.Rate))
	}
	return errs
}

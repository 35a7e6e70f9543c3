// SPDX-License-Identifier: GPL-2.0-or-later

package bootpart

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"slate/images/durable"
)

// The logs of starts that are kept on the boot partition.
const (
	keptLogs    = 20
	keptLogSize = 4 << 20 // of all of them
	maxLogText  = 1 << 20 // of one, when it is read
)

// The names of logs end so. An unsent one has not been told to an appliance yet.
const (
	logSuffix    = ".log.zst"
	unsentSuffix = ".unsent" + logSuffix
)

// StartLog is the log of one start that is kept on the boot partition.
type StartLog struct {
	Number int // of the start
	Sent   bool
	size   int64
}

func (l StartLog) name() string {
	if l.Sent {
		return fmt.Sprintf("%05d%s", l.Number, logSuffix)
	}
	return fmt.Sprintf("%05d%s", l.Number, unsentSuffix)
}

// Logs lists the logs that are kept, the oldest first.
func Logs(dir string) ([]StartLog, error) {
	entries, err := os.ReadDir(filepath.Join(dir, LogDir))
	if err != nil {
		return nil, err
	}
	var all []StartLog
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), logSuffix)
		if !ok {
			continue
		}
		name, unsent := strings.CutSuffix(name, strings.TrimSuffix(unsentSuffix, logSuffix))
		n, err := strconv.Atoi(name)
		if info, ierr := e.Info(); err == nil && ierr == nil {
			all = append(all, StartLog{n, !unsent, info.Size()})
		}
	}
	slices.SortFunc(all, func(a, b StartLog) int { return cmp.Compare(a.Number, b.Number) })
	return all, nil
}

// SaveLog keeps the log of a start, compressed, and removes old ones that are too much.
// A start without a number, one that came to nothing, follows the last one.
func SaveLog(dir string, number int, text string, sent bool) error {
	at := filepath.Join(dir, LogDir)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := durable.RemoveTemps(at); err != nil {
		return err
	}
	all, err := Logs(dir)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		number = max(number, all[len(all)-1].Number+1)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	data := enc.EncodeAll([]byte(text), nil)
	size := int64(len(data))
	for _, l := range all {
		size += l.size
	}
	for len(all) > 0 && (len(all) >= keptLogs || size > keptLogSize) {
		if err := os.Remove(filepath.Join(at, all[0].name())); err != nil {
			return err
		}
		size -= all[0].size
		all = all[1:]
	}
	return durable.WriteFile(filepath.Join(at, StartLog{Number: max(number, 1), Sent: sent}.name()), data, 0o600)
}

// ReadLog gives the text of a log that is kept; of one too long, the end.
func ReadLog(dir string, l StartLog) (string, error) {
	f, err := os.Open(filepath.Join(dir, LogDir, l.name()))
	if err != nil {
		return "", err
	}
	defer f.Close()
	dec, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(16<<20))
	if err != nil {
		return "", err
	}
	defer dec.Close()
	text, err := io.ReadAll(io.LimitReader(dec, 16<<20))
	return string(text[max(len(text)-maxLogText, 0):]), err
}

// MarkSent notes that an appliance has been told a log.
func MarkSent(dir string, l StartLog) error {
	from := filepath.Join(dir, LogDir, l.name())
	l.Sent = true
	if err := os.Rename(from, filepath.Join(dir, LogDir, l.name())); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Join(dir, LogDir))
}

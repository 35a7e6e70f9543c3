// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"slate/images"
	"slate/netboot/api"
	"slate/netboot/nodes"
)

// load says how much the appliance has to do, and whether it has a tree.
func (s *Server) load(tree images.Digest) api.Load {
	l := api.Load{NFSPort: s.Settings.NFS.Port, CPU: s.meter.cpu(), Speed: s.meter.speed(s.Settings.Network.Interface)}
	l.Loading, l.Waiting = s.queue.length()
	l.Limit = s.Settings.Queue.Boots
	l.Sent = s.meter.sent(s.Settings.Network.Interface)
	found, err := s.exports.find([16]byte(tree[:16]))
	l.Has = err == nil && found == tree
	return l
}

// sign signs with the site key; "" without its private half.
func (s *Server) sign(purpose string, text []byte) string {
	if s.key == nil {
		return ""
	}
	return strings.TrimSpace(string(images.Sign(s.key, purpose, text)))
}

// hello takes in a machine that comes from a medium, its own disk or another
// appliance, and tells it what its boot script would have.
func (s *Server) hello(h api.Hello, addr string) (api.Welcome, error) {
	facts := nodes.Facts{MAC: h.MAC, UUID: h.UUID, Serial: h.Serial, Product: h.Product, Firmware: h.Firmware, Address: addr}
	if h.Image != "" {
		// It has its kernel, and its root: all it needs here is a place for its events.
		node, id, ok := s.nodes.Script(facts, h.Image, fmt.Sprintf("%s, came from %s", h.Image, cmp.Or(h.From, "elsewhere")))
		if !ok {
			return api.Welcome{Refused: "the appliance knows too many nodes already"}, nil
		}
		return api.Welcome{Node: node, Boot: id}, nil
	}
	d, no := s.admit(facts)
	if no != nil {
		return api.Welcome{Node: no.node, Refused: no.reason, Hint: no.hint}, nil
	}
	start := d.Start
	text := fmt.Sprintf("%s, %s; came from %s", start.Version.Ref(), d.Why, cmp.Or(h.From, "elsewhere"))
	var ok bool
	if start.Node, start.BootID, ok = s.nodes.Script(facts, start.Version.Ref(), text); !ok {
		return api.Welcome{Refused: "the appliance knows too many nodes already"}, nil
	}
	return api.Welcome{Node: start.Node, Boot: start.BootID, Words: start.Cmdline()}, nil
}

// meter reads the load of the machine that the appliance runs on.
type meter struct {
	root string // of /proc and /sys in tests
	now  func() time.Time

	mu    sync.Mutex
	since time.Time
	bytes float64
	rate  float64 // megabytes a second
}

// cpu is the load average of the last minute for each processor.
func (m *meter) cpu() float64 {
	text, _ := os.ReadFile(filepath.Join(m.root, "/proc/loadavg"))
	f := strings.Fields(string(text))
	if len(f) == 0 {
		return 0
	}
	load, err := strconv.ParseFloat(f[0], 64)
	if err != nil {
		return 0
	}
	info, _ := os.ReadFile(filepath.Join(m.root, "/proc/cpuinfo"))
	return load / float64(max(1, strings.Count("\n"+string(info), "\nprocessor")))
}

// meterPause is how long what was sent is counted for one figure.
const meterPause = 2 * time.Second

// sent is what the interface sends, in megabytes a second, over the last seconds.
func (m *meter) sent(ifc string) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	bytes, now := m.number(ifc, "statistics/tx_bytes"), m.now()
	switch past := now.Sub(m.since); {
	case m.since.IsZero():
		m.since, m.bytes = now, bytes
	case past >= meterPause:
		m.rate = max(0, bytes-m.bytes) / 1e6 / past.Seconds()
		m.since, m.bytes = now, bytes
	}
	return m.rate
}

// speed is the interface's, in Mbit/s; 0 if it does not say.
func (m *meter) speed(ifc string) int { return int(max(0, m.number(ifc, "speed"))) }

func (m *meter) number(ifc, name string) float64 {
	text, err := os.ReadFile(filepath.Join(m.root, "/sys/class/net", ifc, name))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil {
		return 0
	}
	return n
}

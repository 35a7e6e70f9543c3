// SPDX-License-Identifier: GPL-2.0-or-later

// Package api holds what the appliance and its clients say to each other over
// HTTP: paths, request and response types, and a small client for the
// controller and the command line. It knows nothing of how either side works.
package api

import (
	"fmt"
	"net/url"
	"time"

	"slate/images"
)

// Paths of the appliance's HTTP server.
const (
	PathScript     = "/boot.ipxe"     // boot script for iPXE; queries: mac, uuid, serial, …
	PathLoader     = "/loader/"       // + file name of a loader
	PathController = "/controller/"   // + <digest>.cpio: the controller's part of the initramfs
	PathBlob       = "/blobs/sha256/" // + digest: a file of the store; never changes
	PathBoots      = "/api/v1/boots/" // + boot id + "/events": POST Event
	PathTLS        = "/tls.pin"       // GET: where TLS is served and with which key, signed by the site key
	PathSync       = "/v1/"           // versions by content: see package images/transfer
	PathStatus     = "/api/v1/status" // GET Status
	PathNodes      = "/api/v1/nodes"  // below it: what only the admin's socket answers
)

// Queries by which a loader says what it fetches for which boot.
const (
	QueryBoot = "boot" // boot id
	QueryPart = "part" // what the file is, e.g. kernel
	QueryLast = "last" // set on the last file before the kernel starts
)

// Queries about logs.
const (
	QueryFrom   = "from"   // offset, in bytes
	QueryFollow = "follow" // set: the answer goes on as the log grows
)

// QueryConfig of OrdersPath is the revision of the configuration that the machine
// has seen last; one that names none is not told of changes.
const QueryConfig = "config"

// QueryEvents set to "no" leaves the events of boots out of the status.
const QueryEvents = "events"

// BlobPath is where the appliance serves the blob d.
func BlobPath(d images.Digest) string { return PathBlob + d.String() }

// ControllerPath is where the appliance serves the controller whose file has the digest d.
func ControllerPath(d images.Digest) string { return PathController + d.String() + ".cpio" }

// EventsPath is where the events of a boot are posted.
func EventsPath(boot string) string { return PathBoots + boot + "/events" }

// FactsPath is where the hardware facts of a boot's machine are posted.
func FactsPath(boot string) string { return PathBoots + boot + "/facts" }

// OrdersPath is where a running machine waits for orders.
func OrdersPath(boot string) string { return PathBoots + boot + "/orders" }

// LogPath is where a boot's log is posted: POST what it holds from the offset on.
func LogPath(boot string, from int64) string {
	return fmt.Sprintf("%s%s/log?%s=%d", PathBoots, boot, QueryFrom, from)
}

// ConfigPath is where the signed bundle of config.d for a boot's node is.
func ConfigPath(boot string) string { return PathBoots + boot + "/config" }

// NodePath is where one node is on the admin's socket.
func NodePath(name string) string { return PathNodes + "/" + url.PathEscape(name) }

// Step names a station on a machine's way from power on to login, in order.
type Step string

// The steps of a boot: those before StepEarly are seen by the appliance, the
// others are reported by the controller, the last by its agent.
const (
	StepDHCP      Step = "dhcp"
	StepLoader    Step = "loader"
	StepScript    Step = "script"
	StepKernel    Step = "kernel"
	StepEarly     Step = "early"
	StepSelfCheck Step = "self-check"
	StepHardware  Step = "hardware"
	StepNetwork   Step = "network"
	StepServer    Step = "server"
	StepConfig    Step = "config"
	StepSystem    Step = "system"
	StepInstall   Step = "install" // only where a version is put on a drive
	StepVersion   Step = "version"
	StepRoot      Step = "root"
	StepHandover  Step = "handover"
	StepLogin     Step = "login"
	StepHealth    Step = "health" // whether all runs that must; it can change while the system runs
)

// State says what became of a step.
type State string

// The states of a step. A note is a remark that changes nothing.
const (
	StateStart  State = "start"
	StateDone   State = "done"
	StateFailed State = "failed"
	StateNote   State = "note"
)

// Event is one thing that happened during a boot.
type Event struct {
	Step  Step   `json:"step"`
	State State  `json:"state"`
	Text  string `json:"text,omitempty"`
	// Uptime is the machine's time since its kernel started, in seconds; 0 for
	// events that the appliance saw itself.
	Uptime float64 `json:"uptime,omitempty"`
	// Time is when it happened by the appliance's clock; set by the appliance.
	Time time.Time `json:"time,omitzero"`
}

// Limits on what a machine may post.
const (
	MaxEventBytes = 4 << 10
	MaxEventText  = 1 << 10
	MaxLogBytes   = 64 << 10 // of a log, in one request
)

// Check reports what is wrong with an event that came from outside.
func (e Event) Check() error {
	switch e.State {
	case StateStart, StateDone, StateFailed, StateNote:
	default:
		return fmt.Errorf("event has the unknown state %q", e.State)
	}
	if e.Step == "" || len(e.Step) > 32 {
		return fmt.Errorf("event has no usable step name (%d bytes)", len(e.Step))
	}
	if len(e.Text) > MaxEventText {
		return fmt.Errorf("event text is %d bytes long, over the limit of %d", len(e.Text), MaxEventText)
	}
	if e.Uptime < 0 || e.Uptime > 1e9 {
		return fmt.Errorf("event has an impossible uptime: %v s", e.Uptime)
	}
	return nil
}

// Boot is one start of a node, as far as it got.
type Boot struct {
	ID      string    `json:"id"`
	Started time.Time `json:"started"`
	Kernel  time.Time `json:"kernel,omitzero"` // when its kernel started, as far as can be told
	Image   string    `json:"image,omitempty"` // version it was sent, e.g. demo/3
	Heard   time.Time `json:"heard,omitzero"`  // when its agent was last known to listen; zero: it never did
	Last    Event     `json:"last,omitzero"`   // the last event that is no mere remark
	Word    time.Time `json:"word,omitzero"`   // when the last event of all was
	Events  []Event   `json:"events,omitempty"`
}

// Status is what the appliance says about itself.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Address string    `json:"address"`
	DHCP    string    `json:"dhcp"` // server, proxy or off
	Images  []string  `json:"images"`
	Nodes   []Node    `json:"nodes"`
	Rivals  []Rival   `json:"rivals,omitempty"` // seen while serving, newest first
	Queues  []Queue   `json:"queues,omitempty"`
	Mounts  []Mount   `json:"mounts,omitempty"` // only the admin's socket says so
}

// Queue is how many machines do the same at the same time, and wait to.
type Queue struct {
	Kind    string `json:"kind"`
	Busy    int    `json:"busy"`
	Waiting int    `json:"waiting"`
	Limit   int    `json:"limit"` // of Busy; 0: none
}

// The kinds of queues, by their names in slate.toml.
const (
	QueueBoots   = "boots"   // for kernel and initramfs
	QueueFetches = "fetches" // for the contents of versions
)

// Mount is a machine that is connected to the NFS server, and the tree it uses.
type Mount struct {
	Address string        `json:"address"`
	Tree    images.Digest `json:"tree"`
}

// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// PathLoad is where an appliance says how much it has to do, and proves its key:
// GET with the queries below.
const PathLoad = "/api/v1/load"

// Queries of PathLoad.
const (
	QueryNonce = "nonce" // 16 to 64 letters or digits, which come back signed
	QueryTree  = "tree"  // digest of the tree list that the machine needs
)

// SignatureHeader carries the signature on the body of an answer, made with the
// appliance's key for PurposeLoad.
const (
	SignatureHeader = "Slate-Signature"
	PurposeLoad     = "load"
)

// Load is how much an appliance has to do, and what a machine needs to know
// before it chooses the appliance.
type Load struct {
	Nonce   string `json:"nonce"`
	NFSPort int    `json:"nfsPort"`
	Has     bool   `json:"has"` // it has the tree that was asked for

	CPU     float64 `json:"cpu"`     // load average of a minute for each processor
	Loading int     `json:"loading"` // machines that load their kernel
	Waiting int     `json:"waiting"` // machines that wait for their turn to
	Limit   int     `json:"limit"`   // of Loading; 0: none
	Sent    float64 `json:"sent"`    // megabytes a second to the nodes' network
	Speed   int     `json:"speed"`   // Mbit/s of that network; 0: not known
}

// Busy puts the load into one number: 0 has nothing to do, 1 is full.
func (l Load) Busy() float64 {
	busy := max(0, l.CPU)
	if l.Limit > 0 {
		busy = max(busy, float64(l.Loading)/float64(l.Limit)) + max(0, float64(l.Waiting)/float64(l.Limit))
	}
	if l.Speed > 0 {
		busy = max(busy, l.Sent*8/float64(l.Speed))
	}
	return busy
}

// Hello is what a machine says that comes to an appliance without having been
// sent there by its boot script: from a medium, its own disk, or another appliance.
type Hello struct {
	MAC      string `json:"mac"`
	UUID     string `json:"uuid,omitempty"`
	Serial   string `json:"serial,omitempty"`
	Product  string `json:"product,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	From     string `json:"from"` // where it comes from, for people
	// Image is what it runs already (lab/3); empty: it asks what to run.
	Image string `json:"image,omitempty"`
}

// Limits on what a machine may say.
const (
	MaxHelloBytes = 4 << 10
	maxHelloText  = 128
)

// Check reports what is wrong with a greeting that came from outside.
func (h Hello) Check() error {
	if h.MAC == "" {
		return errors.New("hello: no MAC address")
	}
	for _, s := range []string{h.MAC, h.UUID, h.Serial, h.Product, h.Firmware, h.From, h.Image} {
		if len(s) > maxHelloText {
			return fmt.Errorf("hello: a text of %d bytes is over the limit of %d", len(s), maxHelloText)
		}
	}
	return nil
}

// Welcome is the answer: who the machine is here, and what it boots.
type Welcome struct {
	Node string `json:"node"`
	Boot string `json:"boot,omitempty"` // id, for events; empty if it is refused
	// Words are those of the kernel command line that a boot script would have had.
	Words []string `json:"words,omitempty"`
	// Refused says why the machine gets nothing to boot, Hint what to do about it.
	Refused string `json:"refused,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// Hello introduces a machine.
func (c *Client) Hello(ctx context.Context, h Hello) (Welcome, error) {
	var w Welcome
	body, err := json.Marshal(h)
	if err != nil {
		return w, err
	}
	err = c.do(ctx, http.MethodPost, PathHello, body, &w)
	return w, err
}

// PathHello is where a machine introduces itself: POST Hello.
const PathHello = "/api/v1/hello"

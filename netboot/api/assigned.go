// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"slate/images"
)

// Assigned is the version that an installed node is to run. It is signed, and its
// revision grows with each change: so what an earlier one said cannot be said again
// by somebody else, and an older version is only gone back to when the admin says so.
type Assigned struct {
	Node       string        `json:"node"`
	Version    string        `json:"version"` // e.g. lab/4
	Tree       images.Digest `json:"tree"`
	Controller images.Digest `json:"controller"` // that goes with it; see ControllerPath
	Note       string        `json:"note,omitempty"`
	Revision   int64         `json:"revision"`
}

// AssignedPath is where the version is that the node of a boot is to run.
func AssignedPath(boot string) string { return PathBoots + boot + "/version" }

// maxAssigned bounds what is read of one.
const maxAssigned = 64 << 10

// Content is what the revision numbers.
func (a Assigned) Content() []byte {
	a.Revision = 0
	return a.encode()
}

func (a Assigned) encode() []byte {
	text, err := json.Marshal(a)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(text, '\n')
}

// Sign gives it as it is sent and kept: a line with the signature, then the text.
func (a Assigned) Sign(key ed25519.PrivateKey) []byte {
	text := a.encode()
	return append(images.Sign(key, images.PurposeAssigned, text), text...)
}

// OpenAssigned reads what Sign wrote, if one of the keys has signed it, and it is for
// the node; "": for any.
func OpenAssigned(keys []ed25519.PublicKey, node string, data []byte) (Assigned, error) {
	var a Assigned
	sig, text, _ := bytes.Cut(data, []byte("\n"))
	if len(data) > maxAssigned {
		return a, fmt.Errorf("what the node is to run: %d bytes are more than %d", len(data), maxAssigned)
	}
	if bytes.HasPrefix(data, []byte("{")) {
		sig, text = nil, data
	}
	if err := images.Verify(keys, images.PurposeAssigned, text, sig); err != nil {
		return a, fmt.Errorf("what the node is to run: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return a, fmt.Errorf("what the node is to run: %w", err)
	}
	_, err := images.ParseRef(a.Version)
	switch {
	case err != nil:
	case node != "" && a.Node != node:
		err = fmt.Errorf("it is for the node %q, and this is %q", a.Node, node)
	case a.Tree.IsZero() || a.Revision <= 0:
		err = errors.New("it lacks the version's digest, or its revision")
	}
	if err != nil {
		return Assigned{}, fmt.Errorf("what the node is to run: %w", err)
	}
	return a, nil
}

// Assigned fetches what the node of the boot is to run, as it is signed.
func (c *Client) Assigned(ctx context.Context, boot string) ([]byte, error) {
	return c.fetch(ctx, AssignedPath(boot), maxAssigned)
}

// Controller fetches the archive with a digest.
func (c *Client) Controller(ctx context.Context, d images.Digest) ([]byte, error) {
	return c.fetch(ctx, ControllerPath(d), 256<<20)
}

func (c *Client) fetch(ctx context.Context, path string, limit int64) ([]byte, error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

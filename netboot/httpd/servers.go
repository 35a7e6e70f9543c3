// SPDX-License-Identifier: GPL-2.0-or-later

package httpd

import (
	"encoding/json"
	"net"
	"net/http"
	"regexp"

	"slate/images"
	"slate/netboot/api"
)

var noncePattern = regexp.MustCompile(`^[0-9A-Za-z]{16,64}$`)

// load says how much there is to do. The answer is signed together with the
// asker's own random word, so that it proves the key now and not some time ago.
func (h *handler) load(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	nonce := q.Get(api.QueryNonce)
	if !noncePattern.MatchString(nonce) {
		http.Error(w, "nonce: want 16 to 64 letters and digits", http.StatusBadRequest)
		return
	}
	var tree images.Digest
	if text := q.Get(api.QueryTree); text != "" {
		var err error
		if tree, err = images.ParseDigest(text); err != nil {
			http.Error(w, "tree: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	l := h.Load(tree)
	l.Nonce = nonce
	body, err := json.Marshal(l)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if sig := h.Sign(api.PurposeLoad, body); sig != "" {
		w.Header().Set(api.SignatureHeader, sig)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(body)
}

// hello takes in a machine that no boot script of ours has sent here.
func (h *handler) hello(w http.ResponseWriter, r *http.Request) {
	var in api.Hello
	if !decode(w, r, api.MaxHelloBytes, "hello", &in) {
		return
	}
	err := in.Check()
	var mac net.HardwareAddr
	if err == nil {
		mac, err = net.ParseMAC(in.MAC)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in.MAC = mac.String()
	out, err := h.Hello(in, remote(r))
	answer(w, h.Log, out, err)
}

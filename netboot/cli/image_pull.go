// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"slate/images"
	"slate/images/store"
	"slate/images/transfer"
	"slate/images/tree"
)

type imagePullCmd struct {
	Ref         string `arg:"" help:"Version to fetch, as the other appliance names it."`
	From        string `required:"" help:"Base URL of the other appliance." placeholder:"URL"`
	Key         string `help:"File with the public keys that the version may be signed with. Default: this site's own." type:"existingfile" placeholder:"FILE"`
	Unsigned    bool   `help:"Also accept a version that is not signed."`
	AllowOlder  bool   `help:"Also accept a version older than the one the same channel points to here."`
	Publish     string `help:"Point this channel to the version." placeholder:"CHANNEL"`
	Rate        int64  `help:"Kilobytes a second at most. 0: no limit." default:"0" placeholder:"N"`
	Connections int    `help:"Requests at once." default:"4" placeholder:"N"`
}

// Help says what comes over the network.
func (c *imagePullCmd) Help() string {
	return "Only what no version here holds is fetched, and every byte of it is checked against the signed record. A broken transfer goes on where it broke when the command is given again. " + refHelp
}

// Run fetches a version from another appliance.
func (c *imagePullCmd) Run(ctx context.Context, a *app) error {
	ref, err := images.ParseRef(c.Ref)
	if err == nil && c.Publish != "" {
		err = images.CheckChannel(c.Publish)
	}
	if err == nil && (c.Rate < 0 || c.Connections < 1) {
		err = errors.New("--rate and --connections must not be negative")
	}
	if err != nil {
		return usageError{err}
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	keys, err := c.keys(a)
	if err != nil {
		return err
	}
	bar := a.progressLine()
	client := &transfer.Client{
		Base: c.From, Keys: keys, Connections: c.Connections, Rate: c.Rate * 1000, Work: st.WorkDir(),
		Progress: func(p transfer.Progress) {
			bar.store(store.Progress{Stage: "fetching", Bytes: p.Have, Total: p.Total, Name: formatBytes(p.Fetched) + " over the network"})
		},
		Waiting: func(why string, again time.Duration) {
			bar.step("waiting:", fmt.Sprintf("%s; asking again in %.0f s", printable(why), again.Seconds()))
		},
	}
	start := time.Now()
	rec, err := c.pull(ctx, st, client, ref)
	bar.clear()
	if err != nil {
		return err
	}
	s := client.Stats()
	fmt.Fprintf(a.stdout, "%s: %s fetched with %d requests in %s\n", rec.Ref(), formatBytes(s.Bytes), s.Requests, time.Since(start).Round(100*time.Millisecond))
	if c.Publish == "" {
		return nil
	}
	return publish(ctx, a, st, images.Ref{Name: rec.Name, Number: rec.Number}, c.Publish)
}

// keys are whose signatures are believed.
func (c *imagePullCmd) keys(a *app) ([]ed25519.PublicKey, error) {
	if c.Key != "" {
		return images.LoadPublicKeys(c.Key)
	}
	s, err := a.settings()
	if errors.Is(err, fs.ErrNotExist) && c.Unsigned {
		return nil, nil
	}
	if err != nil {
		return nil, hintError{err, "without a site key of its own, this command needs --key"}
	}
	key, err := images.LoadKey(s.Key)
	if err != nil {
		return nil, err
	}
	return images.ParsePublicKeys(images.FormatPublicKey(key))
}

func (c *imagePullCmd) pull(ctx context.Context, st *store.Store, client *transfer.Client, ref images.Ref) (images.Record, error) {
	policy := transfer.Policy{AllowUnsigned: c.Unsigned, AllowOlder: c.AllowOlder}
	if have, err := st.Resolve(ref); err == nil && ref.Channel != "" {
		policy.Have = &have
	}
	signed, err := client.Record(ctx, ref, policy)
	if err != nil {
		return images.Record{}, err
	}
	rec := signed.Record
	if text, _, err := st.SignedRecord(rec.Name, rec.Number); err == nil && slices.Equal(text, signed.Text) {
		return rec, nil // nothing new
	}
	olds, err := newestTrees(ctx, st, rec.Name)
	if err != nil {
		return rec, err
	}
	var old *tree.Tree
	if len(olds) > 0 {
		old = olds[0]
	}
	t, err := client.Tree(ctx, rec.Tree, old)
	if err != nil {
		return rec, err
	}
	in, err := st.NewIntake(ctx)
	if err != nil {
		return rec, err
	}
	// Closing keeps what has arrived, whatever comes of the rest.
	err = client.Fetch(ctx, t, extraBlobs(rec), olds, pullSink{st, in})
	if err == nil {
		_, err = in.Accept(ctx, t, signed.Text, signed.Signature)
	}
	return rec, errors.Join(err, in.Close())
}

// extraBlobs are what a version has beside its tree.
func extraBlobs(rec images.Record) (list []images.Blob) {
	for _, p := range rec.Parts() {
		list = append(list, p.Blob)
	}
	return list
}

// maxBases is how many versions here are looked at for what they share with the
// one that is fetched.
const maxBases = 3

func newestTrees(ctx context.Context, st *store.Store, name string) ([]*tree.Tree, error) {
	recs, err := st.Versions(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*tree.Tree
	for _, rec := range slices.Backward(recs) {
		if len(list) == maxBases {
			break
		}
		t, err := st.Tree(ctx, rec.Tree)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// pullSink is the store as a transfer sees it.
type pullSink struct {
	*store.Store
	*store.Intake
}

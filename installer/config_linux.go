// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/conf"
	"slate/installer/machine"
	"slate/netboot/api"
	"slate/netboot/config"
)

// siteKeys has the site's public keys, in the initramfs.
const siteKeys = "/etc/slate/site.pub"

// config is how this node is configured: the defaults until step config is over.
func (b *Boot) config() *config.Node {
	if b.Config == nil {
		b.Config = config.Defaults()
	}
	return b.Config
}

func hasConfig(b *Boot) (bool, string) {
	if b != nil && !b.Fleet.Usable() && b.ConfigDir == "" {
		return false, "no appliance to ask, and nothing is kept here: the defaults hold"
	}
	return true, ""
}

// configure finds out how this node is configured. It fails only when what the
// appliance sent is refused; even then there is a configuration to go on with.
func configure(ctx context.Context, b *Boot) error {
	f := conf.Facts{Node: b.Settings.Node}
	store := conf.Store{Dir: b.ConfigDir}
	var err error
	if f.Kept, err = store.Load(); err != nil {
		b.Note("the kept configuration cannot be read: %v", err)
	}
	if f.Keys, err = images.LoadPublicKeys(b.path(siteKeys)); err != nil {
		b.Note("no key to verify a configuration with: %v", err)
	}
	f.Fetched, f.FetchErr = b.fetchConfig(ctx, f.Keys)
	c := conf.Choose(f)
	b.Config, b.configRefused, b.confFrom = c.Config, c.Refused, c.From
	switch c.From {
	case conf.FromAppliance:
		b.inForce = f.Fetched
	case conf.FromKept:
		b.inForce = f.Kept
	}
	if f.FetchErr != nil {
		b.Note("the appliance gives no configuration: %v", f.FetchErr)
	}
	if c.Unusable != nil {
		b.Note("the kept configuration does not count: %v", c.Unusable)
	}
	if c.Keep {
		b.bundle = f.Fetched
	}
	if c.Keep && store.Dir != "" {
		if err := store.Save(f.Fetched); err != nil {
			b.Note("the configuration is not kept: %v", err)
		}
	}
	if c.From != conf.FromDefaults {
		boot := c.Config.Boot
		if b.System != nil {
			if err := bootpart.SetTimeout(bootMount, boot.LoaderTimeout); err != nil {
				b.Note("the loader keeps its time-out: %v", err)
			}
		}
		b.Settings.Choice, b.Settings.Timeout = machine.Choice(boot.Choice), time.Duration(boot.Timeout)*time.Second
		if boot.Mode != config.ModeIgnore { // whoever was started all the same goes by its command line
			b.Settings.Mode = machine.Mode(boot.Mode)
		}
	}
	if c.Refused != nil {
		b.Note("going on with %s", c.From)
		return c.Refused
	}
	b.Note("configured by %s, revision %d", c.From, c.Revision)
	b.followServers(ctx)
	return nil
}

// configTries is how often the appliance is asked for the configuration.
const configTries = 3

// fetchConfig asks the appliance for this node's part of config.d, by TLS: there may
// be secrets in it.
func (b *Boot) fetchConfig(ctx context.Context, keys []ed25519.PublicKey) (data []byte, err error) {
	if !b.Fleet.Usable() {
		return nil, errors.New("there is none")
	}
	for try := range configTries {
		if try > 0 {
			b.Note("asking for the configuration again: %v", err)
			select {
			case <-time.After(time.Second + rand.N(time.Second)):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		data, err = b.Fleet.Config(ctx, keys, config.MaxBundle)
		var refused *api.Error
		if err == nil || errors.As(err, &refused) && refused.Status < 500 {
			return data, err
		}
	}
	return nil, err
}

// checkRefused keeps a diskless machine from running by the defaults when somebody
// sends it a configuration that is not its site's: what it would run comes over the
// same network.
func (b *Boot) checkRefused() error {
	if b.configRefused == nil || b.Lower.Local() {
		return nil
	}
	return fmt.Errorf("not starting without the site's word: %w", b.configRefused)
}

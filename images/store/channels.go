// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"slate/images"
	"slate/images/durable"
)

func (s *Store) channelsPath(name string) string { return s.path("images", name, "channels.toml") }

// ChannelHistory returns the channels of an image and all their moves.
func (s *Store) ChannelHistory(name string) (images.Channels, error) {
	if err := images.CheckName(name); err != nil {
		return images.Channels{}, err
	}
	path := s.channelsPath(name)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return images.Channels{Channel: map[string]images.Channel{}}, nil
	}
	if err != nil {
		return images.Channels{}, err
	}
	c, err := images.ParseChannels(text)
	if err != nil {
		return images.Channels{}, &DamageError{Path: path, Reason: err.Error()}
	}
	return c, nil
}

// Channels returns where the channels of an image point.
func (s *Store) Channels(name string) (map[string]images.Channel, error) {
	c, err := s.ChannelHistory(name)
	return c.Channel, err
}

func (s *Store) channel(ref images.Ref) (images.Channel, error) {
	all, err := s.Channels(ref.Name)
	if err != nil {
		return images.Channel{}, err
	}
	ch, ok := all[ref.Channel]
	if !ok {
		e := &NotFoundError{What: "channel", Name: ref.Channel, In: ref.Name}
		for _, c := range slices.Sorted(maps.Keys(all)) {
			e.Have = append(e.Have, ref.Name+"@"+c)
		}
		return images.Channel{}, e
	}
	return ch, nil
}

// Publish points the channel to the version that ref names. Pointing it to
// where it points already changes nothing.
func (s *Store) Publish(ctx context.Context, ref images.Ref, channel string) error {
	if err := images.CheckChannel(channel); err != nil {
		return err
	}
	unlock, err := s.lock(ctx, "images", true)
	if err != nil {
		return err
	}
	defer unlock()
	rec, err := s.Resolve(ref)
	if err != nil {
		return err
	}
	return s.move(rec, channel, false)
}

// ErrNoEarlier says that a channel cannot be rolled back any further.
var ErrNoEarlier = errors.New("has no earlier version to roll back to")

// Rollback points the channel to the version it pointed to before, and returns
// that version. Again and again, it goes back the whole history.
func (s *Store) Rollback(ctx context.Context, name, channel string) (images.Record, error) {
	unlock, err := s.lock(ctx, "images", true)
	if err != nil {
		return images.Record{}, err
	}
	defer unlock()
	if _, err := s.existing(name); err != nil {
		return images.Record{}, err
	}
	if _, err := s.channel(images.Ref{Name: name, Channel: channel}); err != nil {
		return images.Record{}, err
	}
	c, err := s.ChannelHistory(name)
	if err != nil {
		return images.Record{}, err
	}
	number := c.Previous(channel)
	if number == 0 {
		return images.Record{}, fmt.Errorf("%s@%s %w", name, channel, ErrNoEarlier)
	}
	rec, err := s.Resolve(images.Ref{Name: name, Number: number})
	if err != nil {
		return images.Record{}, err
	}
	return rec, s.move(rec, channel, true)
}

// move writes the channel's new place and the change in one file, by one
// rename. The caller holds the lock.
func (s *Store) move(rec images.Record, channel string, rollback bool) error {
	c, err := s.ChannelHistory(rec.Name)
	if err != nil {
		return err
	}
	from := c.Channel[channel].Version
	if from == rec.Number {
		return nil
	}
	c.Channel[channel] = images.Channel{Version: rec.Number, Tree: rec.Tree}
	c.Change = append(c.Change, images.Change{
		Channel: channel, From: from, To: rec.Number, Who: s.who(),
		Time: s.now().UTC().Truncate(time.Second), Rollback: rollback,
	})
	text, err := images.MarshalChannels(c)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(s.channelsPath(rec.Name), text, 0o644); err != nil {
		return fmt.Errorf("channel %s@%s: %w", rec.Name, channel, err)
	}
	s.log.Debug("published", "image", rec.Ref(), "channel", channel, "from", from, "rollback", rollback)
	return nil
}

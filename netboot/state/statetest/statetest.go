// SPDX-License-Identifier: GPL-2.0-or-later

// Package statetest is the contract of state.Store as code: what every store
// must do, to be run by the tests of each.
//
//	for _, c := range statetest.Contract() {
//		t.Run(c.Name, func(t *testing.T) {
//			if err := c.Run(t.Context(), open); err != nil { t.Error(err) }
//		})
//	}
package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"slate/netboot/state"
)

// Opener opens a store. The stores that one Opener gives have the same content,
// and one is closed before the next is opened.
type Opener func() (state.Store, error)

// Case is one clause of the contract. Run gets an Opener of its own, to a store
// that is empty, and returns what is not as it must be.
type Case struct {
	Name string
	Run  func(ctx context.Context, open Opener) error
}

// Contract lists all clauses.
func Contract() []Case {
	return []Case{
		{"put, get, delete", withStore(putGetDelete)},
		{"what is not there", withStore(notThere)},
		{"order and prefix", withStore(orderAndPrefix)},
		{"iteration ends with the error of its function", withStore(eachError)},
		{"all or nothing", withStore(allOrNothing)},
		{"own writes are read", withStore(ownWrites)},
		{"a view does not change", withStore(viewIsSnapshot)},
		{"a view does not write", withStore(viewIsReadOnly)},
		{"values are copied", withStore(valuesAreCopied)},
		{"impossible names", withStore(impossibleNames)},
		{"concurrent use", withStore(concurrentUse)},
		{"one failed update among many", withStore(failedAmongMany)},
		{"cancelled context", withStore(cancelledContext)},
		{"10,000 records, reopened", manyRecords},
		{"closed", closed},
	}
}

func withStore(f func(context.Context, state.Store) error) func(context.Context, Opener) error {
	return func(ctx context.Context, open Opener) error {
		s, err := open()
		if err != nil {
			return err
		}
		return errors.Join(f(ctx, s), s.Close())
	}
}

// put is an Update of one key.
func put(ctx context.Context, s state.Store, bucket, key, value string) error {
	return s.Update(ctx, func(tx state.Tx) error { return tx.Put(bucket, key, []byte(value)) })
}

// expect compares one key with a value; "-": there is none.
func expect(ctx context.Context, s state.Store, bucket, key, want string) error {
	got := "-"
	err := s.View(ctx, func(tx state.Tx) error {
		v, err := tx.Get(bucket, key)
		if err == nil {
			got = string(v)
		}
		return err
	})
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	if got != want {
		return fmt.Errorf("Get(%q, %q) = %q, want %q", bucket, key, got, want)
	}
	return nil
}

// keys are those of a bucket that start with prefix, in the order of Each.
func keys(ctx context.Context, s state.Store, bucket, prefix string) ([]string, error) {
	var got []string
	err := s.View(ctx, func(tx state.Tx) error {
		return tx.Each(bucket, prefix, func(key string, _ []byte) error {
			got = append(got, key)
			return nil
		})
	})
	return got, err
}

func putGetDelete(ctx context.Context, s state.Store) error {
	big := strings.Repeat("x", 1<<20)
	return errors.Join(
		put(ctx, s, "a", "k", "one"), expect(ctx, s, "a", "k", "one"),
		put(ctx, s, "a", "k", "two"), expect(ctx, s, "a", "k", "two"),
		put(ctx, s, "b", "k", "other bucket"), expect(ctx, s, "a", "k", "two"),
		put(ctx, s, "a", "empty", ""), expect(ctx, s, "a", "empty", ""),
		put(ctx, s, "a", "big", big), expect(ctx, s, "a", "big", big),
		put(ctx, s, "a", "\x00\xff", "\x00"), expect(ctx, s, "a", "\x00\xff", "\x00"),
		s.Update(ctx, func(tx state.Tx) error { return tx.Delete("a", "k") }),
		expect(ctx, s, "a", "k", "-"), expect(ctx, s, "b", "k", "other bucket"),
	)
}

func notThere(ctx context.Context, s state.Store) error {
	err := s.View(ctx, func(tx state.Tx) error {
		_, err := tx.Get("bucket", "key")
		return err
	})
	if !errors.Is(err, state.ErrNotFound) || !strings.Contains(err.Error(), "bucket") || !strings.Contains(err.Error(), "key") {
		return fmt.Errorf("call of Get without a bucket: %v, want ErrNotFound with bucket and key", err)
	}
	if got, err := keys(ctx, s, "bucket", ""); err != nil || got != nil {
		return fmt.Errorf("call of Each without a bucket: %q, %v, want nothing", got, err)
	}
	if err := s.Update(ctx, func(tx state.Tx) error { return tx.Delete("bucket", "key") }); err != nil {
		return fmt.Errorf("call of Delete without a bucket: %w", err)
	}
	return errors.Join(put(ctx, s, "bucket", "key2", "x"), expect(ctx, s, "bucket", "key", "-"),
		s.Update(ctx, func(tx state.Tx) error { return tx.Delete("bucket", "key") }))
}

func orderAndPrefix(ctx context.Context, s state.Store) error {
	all := []string{"\x00", "A", "a", "a/", "a/1", "a/10", "a/2", "a0", "b", "ä", "\xff", "\xff\xff"}
	for i := range all { // put in an order that is not the right one
		if err := put(ctx, s, "b", all[(i*5)%len(all)], "x"); err != nil {
			return err
		}
	}
	for prefix, want := range map[string][]string{
		"": all, "a": all[2:8], "a/": all[3:7], "a/1": all[4:6], "a/3": nil, "\xff": all[10:], "\xff\xff\xff": nil, "c": nil,
	} {
		got, err := keys(ctx, s, "b", prefix)
		if err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("call of Each with prefix %q gives %q, %v; want %q", prefix, got, err, want)
		}
	}
	return nil
}

func eachError(ctx context.Context, s state.Store) error {
	stop := errors.New("enough")
	if err := errors.Join(put(ctx, s, "b", "1", ""), put(ctx, s, "b", "2", ""), put(ctx, s, "b", "3", "")); err != nil {
		return err
	}
	n := 0
	err := s.View(ctx, func(tx state.Tx) error {
		return tx.Each("b", "", func(string, []byte) error {
			if n++; n == 2 {
				return stop
			}
			return nil
		})
	})
	if !errors.Is(err, stop) || n != 2 {
		return fmt.Errorf("call of Each went on to key %d and returned %v", n, err)
	}
	return nil
}

func allOrNothing(ctx context.Context, s state.Store) error {
	if err := put(ctx, s, "b", "old", "1"); err != nil {
		return err
	}
	change := errors.New("changed my mind")
	err := s.Update(ctx, func(tx state.Tx) error {
		return errors.Join(tx.Put("b", "old", []byte("2")), tx.Put("new", "k", nil), tx.Delete("b", "old"), change)
	})
	if !errors.Is(err, change) {
		return fmt.Errorf("call of Update = %v, want the error of its function", err)
	}
	return errors.Join(expect(ctx, s, "b", "old", "1"), expect(ctx, s, "new", "k", "-"))
}

func ownWrites(ctx context.Context, s state.Store) error {
	return s.Update(ctx, func(tx state.Tx) error {
		if err := errors.Join(tx.Put("b", "1", []byte("x")), tx.Put("b", "2", nil), tx.Put("b", "3", nil), tx.Delete("b", "3")); err != nil {
			return err
		}
		var got []string
		err := tx.Each("b", "", func(key string, value []byte) error { got = append(got, key+"="+string(value)); return nil })
		if want := []string{"1=x", "2="}; err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("call of Each inside Update gives %q, %v; want %q", got, err, want)
		}
		if v, err := tx.Get("b", "2"); err != nil || len(v) != 0 {
			return fmt.Errorf("call of Get inside Update of an empty value: %q, %v", v, err)
		}
		if _, err := tx.Get("b", "3"); !errors.Is(err, state.ErrNotFound) {
			return fmt.Errorf("call of Get inside Update of a deleted key: %v, want ErrNotFound", err)
		}
		return nil
	})
}

func viewIsSnapshot(ctx context.Context, s state.Store) error {
	if err := put(ctx, s, "b", "k", "before"); err != nil {
		return err
	}
	return errors.Join(s.View(ctx, func(tx state.Tx) error {
		// Not from this goroutine: a store may forbid a write inside a view.
		written := make(chan error)
		go func() { written <- put(ctx, s, "b", "k", "after") }()
		if err := <-written; err != nil {
			return err
		}
		if v, err := tx.Get("b", "k"); err != nil || string(v) != "before" {
			return fmt.Errorf("a view began before an update and reads %q, %v", v, err)
		}
		return nil
	}), expect(ctx, s, "b", "k", "after"))
}

func viewIsReadOnly(ctx context.Context, s state.Store) error {
	if err := put(ctx, s, "b", "k", "1"); err != nil {
		return err
	}
	return errors.Join(s.View(ctx, func(tx state.Tx) error {
		if tx.Put("b", "k", []byte("2")) == nil || tx.Put("new", "k", nil) == nil || tx.Delete("b", "k") == nil {
			return errors.New("call of Put or Delete inside View returned no error")
		}
		return nil
	}), expect(ctx, s, "b", "k", "1"), expect(ctx, s, "new", "k", "-"))
}

func valuesAreCopied(ctx context.Context, s state.Store) error {
	value := []byte("right")
	err := s.Update(ctx, func(tx state.Tx) error {
		err := tx.Put("b", "k", value)
		copy(value, "wrong")
		return err
	})
	return errors.Join(err, expect(ctx, s, "b", "k", "right"))
}

func impossibleNames(ctx context.Context, s state.Store) error {
	if put(ctx, s, "", "k", "x") == nil || put(ctx, s, "b", "", "x") == nil {
		return errors.New("call of Put with an empty bucket or key returned no error")
	}
	return errors.Join(expect(ctx, s, "", "k", "-"), expect(ctx, s, "b", "", "-"))
}

// concurrentUse counts up with many goroutines: no update may be lost.
func concurrentUse(ctx context.Context, s state.Store) error {
	const workers, rounds = 8, 25
	var wg sync.WaitGroup
	errs := make(chan error, 2*workers)
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				err := s.Update(ctx, func(tx state.Tx) error {
					v, err := tx.Get("b", "sum")
					if err != nil && !errors.Is(err, state.ErrNotFound) {
						return err
					}
					return errors.Join(tx.Put("b", "sum", []byte(string(v)+"|")), tx.Put("w", fmt.Sprint(w), v))
				})
				if err != nil {
					errs <- err
					return
				}
			}
		})
		wg.Go(func() {
			seen := 0
			for range rounds {
				err := s.View(ctx, func(tx state.Tx) error {
					v, err := tx.Get("b", "sum")
					if errors.Is(err, state.ErrNotFound) {
						return nil
					}
					if len(v) < seen {
						return fmt.Errorf("a view went back from %d to %d updates", seen, len(v))
					}
					seen = len(v)
					return err
				})
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		return err
	}
	return expect(ctx, s, "b", "sum", strings.Repeat("|", workers*rounds))
}

// failedAmongMany: a store that joins updates must still tell them apart.
func failedAmongMany(ctx context.Context, s state.Store) error {
	const updates = 40
	broken := errors.New("broken")
	got := make([]error, updates)
	var wg sync.WaitGroup
	for i := range updates {
		wg.Go(func() {
			got[i] = s.Update(ctx, func(tx state.Tx) error {
				if err := tx.Put("b", fmt.Sprintf("%03d", i), nil); err != nil {
					return err
				}
				if i%10 == 3 {
					return broken
				}
				return nil
			})
		})
	}
	wg.Wait()
	var want []string
	for i, err := range got {
		if bad := i%10 == 3; bad != errors.Is(err, broken) || !bad && err != nil {
			return fmt.Errorf("update %d returned %v", i, err)
		} else if !bad {
			want = append(want, fmt.Sprintf("%03d", i))
		}
	}
	if have, err := keys(ctx, s, "b", ""); err != nil || !slices.Equal(have, want) {
		return fmt.Errorf("keys %q, %v; want %q", have, err, want)
	}
	return nil
}

func cancelledContext(ctx context.Context, s state.Store) error {
	if err := errors.Join(put(ctx, s, "b", "1", "x"), put(ctx, s, "b", "2", "x")); err != nil {
		return err
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	called := func(state.Tx) error { return errors.New("called with a cancelled context") }
	if err := s.Update(over, called); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("call of Update = %v, want context.Canceled", err)
	}
	if err := s.View(over, called); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("call of View = %v, want context.Canceled", err)
	}

	during, cancel := context.WithCancel(ctx)
	err := s.Update(during, func(tx state.Tx) error {
		cancel()
		return tx.Put("b", "1", []byte("y"))
	})
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("call of Update cancelled on the way = %v, want context.Canceled", err)
	}
	during, cancel = context.WithCancel(ctx)
	n := 0
	err = s.View(during, func(tx state.Tx) error {
		return tx.Each("b", "", func(string, []byte) error { n++; cancel(); return nil })
	})
	if !errors.Is(err, context.Canceled) || n != 1 {
		return fmt.Errorf("call of View cancelled on the way went on to key %d and returned %v", n, err)
	}
	return expect(ctx, s, "b", "1", "x")
}

func manyRecords(ctx context.Context, open Opener) error {
	const records = 10_000
	name := func(i int) string { return fmt.Sprintf("node-%05d", i) }
	s, err := open()
	if err != nil {
		return err
	}
	err = s.Update(ctx, func(tx state.Tx) error {
		for i := range records {
			if err := tx.Put("nodes", name(i*7919%records), []byte(strings.Repeat(name(i*7919%records), 50))); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, put(ctx, s, "other", "k", "x"), s.Close()); err != nil {
		return err
	}
	if s, err = open(); err != nil {
		return err
	}
	i := 0
	err = s.View(ctx, func(tx state.Tx) error {
		return tx.Each("nodes", "", func(key string, value []byte) error {
			if key != name(i) || string(value) != strings.Repeat(name(i), 50) {
				return fmt.Errorf("record %d is %q with %d bytes", i, key, len(value))
			}
			i++
			return nil
		})
	})
	if err == nil && i != records {
		err = fmt.Errorf("%d records after reopening, want %d", i, records)
	}
	return errors.Join(err, expect(ctx, s, "other", "k", "x"), s.Close())
}

func closed(ctx context.Context, open Opener) error {
	s, err := open()
	if err != nil {
		return err
	}
	if err := errors.Join(put(ctx, s, "b", "k", "x"), s.Close(), s.Close()); err != nil {
		return fmt.Errorf("close, twice: %w", err)
	}
	if put(ctx, s, "b", "k", "y") == nil || s.View(ctx, func(state.Tx) error { return nil }) == nil {
		return errors.New("a closed store returned no error")
	}
	return nil
}

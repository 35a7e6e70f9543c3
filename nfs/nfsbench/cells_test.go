// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// cell is one load.
type cell struct {
	name string
	unit string // MB, op, boot, walk
	cold bool   // our server is started for it and has loaded nothing
	run  func(*target) (result, float64, error)
}

// parallel runs one load on several connections.
func parallel(addr string, conns, depth int, next func(conn int) source) (total result, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			r, e := run(addr, depth, next(i))
			mu.Lock()
			defer mu.Unlock()
			total.add(r)
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	return total, err
}

// reads is READ for a time, from one place on or from anywhere in the file.
func reads(size, depth, conns int, random bool) cell {
	kind := "sequential"
	if random {
		kind = "random"
	}
	unit := "MB"
	if size <= 4096 {
		unit = "op"
	}
	name := fmt.Sprintf("READ %d KiB %s depth=%d conns=%d", size>>10, kind, depth, conns)
	return cell{name: name, unit: unit, run: func(tg *target) (result, float64, error) {
		var stop atomic.Bool
		timer := time.AfterFunc(*duration, func() { stop.Store(true) })
		defer timer.Stop()
		r, err := parallel(tg.nfs, conns, depth, func(conn int) source {
			rnd := rand.New(rand.NewPCG(uint64(conn), 7))
			at := int64(conn) * (bigSize / 64)
			c := readCall(tg.big, 0, uint32(size))
			off := len(c) - 12
			return func() call {
				if stop.Load() {
					return nil
				}
				if random {
					at = rnd.Int64N(bigSize/int64(size)) * int64(size)
				}
				for i := range 8 {
					c[off+i] = byte(at >> (56 - 8*i))
				}
				at = (at + int64(size)) % bigSize
				return c
			}
		})
		if unit == "MB" {
			return r, float64(r.bytes) / 1e6, err
		}
		return r, float64(r.ops), err
	}}
}

// walks reads a tree, one call at a time on each of conns connections.
func walks(plus bool, top string, conns, times int) cell {
	name := "READDIRPLUS walk"
	if !plus {
		name = "READDIR+LOOKUP+GETATTR walk"
	}
	name = fmt.Sprintf("%s of %s conns=%d", name, top, conns)
	return cell{name: name, unit: "walk", run: func(tg *target) (total result, units float64, err error) {
		for range times {
			r, err := walk(tg, plus, tg.handles[top], conns)
			if err != nil {
				return r, 0, err
			}
			total.add(r)
		}
		return total, float64(times), nil
	}}
}

func walk(tg *target, plus bool, top []byte, conns int) (total result, err error) {
	queue := make(chan []byte, 1<<16)
	queue <- top
	var left atomic.Int64
	left.Store(1)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			s, e := open(tg.nfs)
			if e == nil {
				defer s.nc.Close()
				for dir := range queue {
					var entries []entry
					if plus {
						entries, e = s.listPlus(dir)
					} else {
						entries, e = s.listPlain(dir)
					}
					for _, x := range entries {
						if x.dir {
							left.Add(1)
							queue <- x.fh
						}
					}
					if left.Add(-1) == 0 || e != nil {
						close(queue)
						break
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if e != nil {
				err = e
			} else {
				total.add(result{ops: s.ops, latencies: s.lat})
			}
		})
	}
	wg.Wait()
	return total, err
}

// boots replays the trace for a number of clients, four calls in flight each.
func boots(clients, times int, mixed bool) cell {
	name := "boot replay"
	if mixed {
		name = "default options mix"
	}
	name = fmt.Sprintf("%s clients=%d", name, clients)
	return cell{name: name, unit: "boot", run: func(tg *target) (result, float64, error) {
		calls := tg.boot
		if mixed {
			calls = tg.mix
		}
		r, err := parallel(tg.nfs, clients, 4, func(int) source {
			i := 0
			return func() call {
				if i == len(calls)*times {
					return nil
				}
				i++
				return calls[(i-1)%len(calls)]
			}
		})
		return r, float64(clients * times), err
	}}
}

// coldWalk mounts and walks the whole tree. Our server has just been started and
// has to read the tree list first; the other one has all in its cache.
func coldWalk() cell {
	return cell{name: "READDIRPLUS walk of . from a cold start", unit: "walk", cold: true, run: func(tg *target) (result, float64, error) {
		root, err := mount(tg.mount, tg.rootPath)
		if err != nil {
			return result{}, 0, err
		}
		r, err := walk(tg, true, root, 1)
		return r, 1, err
	}}
}

// cells are all loads there are.
func cells() []cell {
	all := []cell{
		boots(1, 8, false), boots(8, 4, false), boots(64, 2, false),
		boots(1, 4, true), boots(8, 2, true), boots(64, 1, true),
	}
	for _, conns := range []int{1, 4, 16, 64} {
		for _, depth := range []int{1, 8, 32} {
			all = append(all, reads(1<<20, depth, conns, false))
		}
	}
	for _, size := range []int{16 << 10, 32 << 10, 64 << 10} {
		all = append(all, reads(size, 8, 4, false))
	}
	return append(all,
		reads(128<<10, 1, 1, false), reads(128<<10, 8, 4, false), reads(128<<10, 32, 16, false),
		reads(4096, 1, 1, true), reads(4096, 8, 4, true), reads(4096, 32, 1, true), reads(4096, 32, 4, true), reads(4096, 8, 64, true),
		coldWalk(), walks(true, ".", 1, 2), walks(true, ".", 16, 4),
		walks(false, "etc", 1, 5), walks(false, "etc", 16, 10), walks(false, ".", 1, 1))
}

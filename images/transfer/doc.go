// SPDX-License-Identifier: GPL-2.0-or-later

// Package transfer brings versions from an appliance to whoever asks: nodes
// that install or update themselves, and other appliances. It is both ends of
// the sync, and knows neither the store nor a node's disk, only the small
// interfaces Source and Sink.
//
// Everything goes by GET. The address of everything but a record holds the
// digests of what it is about, so the answer never changes and any HTTP cache
// between the two may keep it:
//
//	/v1/record/NAME[@CHANNEL|/NUMBER]  record and signature; changes
//	/v1/tree/NEW                       tree list, zstd
//	/v1/tree/NEW/OLD                   the same, compressed with tree list OLD as dictionary
//	/v1/pack/NEW/OLD/N                 pack N of the plan that leads from tree OLD to tree NEW
//	/v1/delta/NEW/OLD                  blob NEW from what is inside it and inside blob OLD
//	/v1/chunks/DIGEST                  where the chunks of a blob begin, and their digests
//	/v1/range/DIGEST/FROM-TO           a part of a blob, zstd
//
// The plan is a function of the two trees alone, so both ends find the same
// one: which contents are new, from which old file each is best made, and
// which go together into a pack. A pack is small enough to be held in memory and
// large enough that there are few of them. Contents that are too large for a
// pack are fetched by content-defined chunks, leaving out those that lie in a
// similar file at the receiver or came before a broken transfer.
//
// Compression hides that two files are alike. So gzip files, the initrd among
// them, are compared by what is inside them, and put together again by the receiver
// (package repack). Where that is no gain, or does not give the very same bytes,
// they are fetched like others.
//
// Nothing that comes over the network is believed. A record must be signed with
// a trusted key, its tree list must have the digest that the record says, and
// each content the digest that the tree list says.
package transfer

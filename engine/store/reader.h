/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Immutable objects of a store as sources, read as a far store wants it.
 *
 *  (1) Objects are read in chunks of READER_CHUNK bytes.  Chunks that lie beside each other come by
 *      one request, of at most READER_PIECE bytes; a small object comes whole; the end of an object,
 *      where its index is, comes in a piece of at least half a chunk, or a 1024th of it, up to 96 KiB.
 *  (2) Who reads on is recognised, be it one or several threads that take parts in turn, and read
 *      ahead for: some requests are then under way at once, and nothing comes twice.  What was read
 *      ahead and read to its end is the first to go.
 *      Who knows what will be read says so (source.h, expect()): that comes at once; an object that
 *      is read all over is brought into a file without a name (staged.h); an index that lies beyond
 *      what is read ahead comes before it is needed, and stays until then.
 *  (3) Of many who want a chunk one asks for it.
 *  (4) Chunks that were asked for are kept in a local folder, if there is one (kept.h); what was read
 *      ahead of a run is not, so that a restore leaves in it what mounts need.
 *  (5) Memory is bounded by `memory_bytes`, by what those who wait have asked for, and by a piece for
 *      each of the `n_ahead` requests and of those who wait while staged objects come: by default
 *      24 + 16 MiB, and 1 MiB for each who waits.  (So many requests, of a piece each, because a
 *      store can take 100 ms to begin an answer, in which a gigabit a second is 12 MiB.)
 *  (6) What does not match its hash, or is not there, is asked for again without what is kept, and
 *      then in the other stores (source.h, pread_again).  There must be an object under the same
 *      key; that it is the same one only the hash tells.
 *
 * Objects of a store that is not remote are read as they are; only (6) holds.
 */
#ifndef ASOF_STORE_READER_H
#define ASOF_STORE_READER_H

#include "engine/store/kept.h"
#include "engine/store/store.h"

#define READER_CHUNK (64u << 10)
#define READER_PIECE (1u << 20)

struct reader_options {
	/* The first is asked, the others when it has not got it; borrowed. */
	struct store *const *stores;
	size_t n_stores;
	struct kept *kept;   /* NULL: nothing is kept; borrowed */
	size_t memory_bytes; /* 0: 24 MiB */
	unsigned n_ahead;    /* requests under way for those who read on; 0: 16 */
};

struct store_reader;
int store_reader_new(const struct reader_options *options, struct store_reader **ret,
                     struct err *err) MUST_USE;
/* After its sources. */
void store_reader_free(struct store_reader *r);
/*
 * The object that store number `place` has under `key`; size and time of its last change as listed,
 * UINT64_MAX and 0 where they are not known (then its size is asked for).
 */
int store_reader_open(struct store_reader *r, size_t place, const char *key, uint64_t bytes,
                      int64_t modified_us, struct source **ret, struct err *err) MUST_USE;

/* What is kept of it, in memory or in the folder, is not what it should be: it goes.  For those who
 * check bytes as they parse them, and not by source_read_checked(). */
void store_reader_forget(struct store_reader *r, size_t place, const char *key, uint64_t bytes,
                         int64_t modified_us);

DEFINE_CLEANUP(struct store_reader, store_reader_free);
#define cleanup_store_reader CLEANUP(store_reader_free_p)

#endif

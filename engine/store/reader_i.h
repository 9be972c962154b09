/* SPDX-License-Identifier: Apache-2.0 */
/* What reader.c, which gives what is asked for, and reader_ahead.c, which knows what will be, share. */
#ifndef ASOF_STORE_READER_I_H
#define ASOF_STORE_READER_I_H

#include "engine/store/reader.h"
#include "engine/store/staged.h"

#include <pthread.h>
#include <stdatomic.h>

#define PIECE_CHUNKS (READER_PIECE / READER_CHUNK)
#define QUEUE 64u

/* Chunks that are read one after the other. */
struct run {
	uint64_t last; /* NOTHING: none was read */
	uint64_t n;    /* chunks that it went on by */
};
#define NOTHING UINT64_MAX
#define OTHER_RUNS 8u

/* An object being read. */
struct remote {
	struct source base;
	struct store_reader *reader;
	size_t place;
	struct source *inner;
	uint64_t bytes, n_chunks;
	struct hash128 id; /* of store, key and size: what pieces and kept chunks go by */
	_Atomic unsigned refs;
	/* Under reader->lock; see follow(). */
	struct run run, others[OTHER_RUNS];
	unsigned next_other;
	uint64_t ahead; /* where reading ahead of `run` goes on */
	struct staged *_Atomic staged;
	struct remote *next_staged; /* with a reference: not all of it was asked for yet */
};

enum piece_state { LOADING, READY, FAILED };

/* A stretch of an object that is in memory, or on its way.  Pieces of an object do not overlap. */
struct piece {
	struct piece *next;
	struct remote *of; /* with a reference while LOADING; compared by id later */
	struct hash128 id;
	uint64_t first, n; /* chunks */
	size_t len;
	uint8_t *data;
	enum piece_state state;
	bool unlinked; /* no longer in the list: the last pin frees it */
	bool ahead;    /* whoever wants it asks for it himself when it failed */
	bool passing;  /* of a run: not kept, and the first to go when it is through */
	unsigned pins;
	size_t taken; /* bytes handed out */
	uint64_t used;
	struct err err;
};

struct store_reader {
	struct reader_options options;
	struct store **stores;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t loaded, more;
	struct piece *pieces;
	size_t bytes; /* of all pieces */
	uint64_t uses;
	struct piece *queue[QUEUE];
	size_t queue_head, queue_n;
	struct remote *staging;
	bool stop, threads_started;
	size_t n_threads;
	pthread_t *threads;
};

/* ---- reader.c ---- */

/* Under lock.  The piece that has a chunk, loaded or not. */
struct piece *piece_at(struct store_reader *r, const struct remote *o, uint64_t chunk);
/* Under lock.  `o`: the object to be read ahead of; what lies before its run stays.  NULL: there is
 * need.  False: there is no room without what is in use. */
bool make_room(struct store_reader *r, size_t len, const struct remote *o);
size_t stretch_bytes(const struct remote *o, uint64_t first, uint64_t n);
/* Under lock.  Begins a piece of chunks of which none is there, with a pin. */
struct piece *begin_piece(struct store_reader *r, struct remote *o, uint64_t first, uint64_t n);
/* Under lock: the stretch to ask for when chunk `c` is wanted, and those after it up to `end`. */
void choose_stretch(struct store_reader *r, const struct remote *o, uint64_t c, uint64_t end,
                    uint64_t *ret_first, uint64_t *ret_n);
/* Without the lock; gives up the pin of begin_piece() unless `keep_pin`. */
int load_piece(struct store_reader *r, struct piece *p, bool keep_pin, struct err *err) MUST_USE;
/* Without the lock: a piece of which all is in the local folder need not come. */
bool forgo_if_kept(struct store_reader *r, struct piece *p);
void remote_unref(struct remote *o);

/* ---- reader_ahead.c ---- */

/* Under lock: chunk `c` is being read. */
void follow(struct store_reader *r, struct remote *o, uint64_t c);
void remote_expect(struct source *s, enum source_use use);
void remote_expect_bytes(struct source *s, uint64_t offset, size_t len);

#endif

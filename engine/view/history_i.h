/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of view/ share.  Not for others. */
#ifndef ASOF_VIEW_HISTORY_I_H
#define ASOF_VIEW_HISTORY_I_H

#include "engine/archive/grow.h"
#include "engine/archive/head.h"
#include "engine/archive/names.h"
#include "engine/archive/notes.h"
#include "engine/archive/sealed.h"
#include "engine/archive/snapshot.h"
#include "engine/base/bitset.h"
#include "engine/view/history.h"

#include <pthread.h>
#include <stdatomic.h>

/* An open object, shared by the catalog and by views; freed with its last reference. */
struct object {
	_Atomic unsigned refs;
	struct grow_reader *grow; /* one of the three */
	struct sealed *sealed;
	struct snapshot *snapshot;
};
struct object *object_ref(struct object *o);
void object_unref(struct object *o);

/* One object of the archive, as its name tells, opened when needed. */
struct entry {
	struct object_name name;
	char file[OBJECT_NAME_MAX];
	uint64_t bytes;
	struct object *open; /* NULL: not open */
	uint64_t used;       /* when it was last asked for: a counter */
	bool broken;         /* a growing segment that could not be read */
};

/* The objects of one folder, sorted by name.first_txid, then last_txid. */
struct entries {
	struct entry *e;
	size_t n, cap;
};

struct history {
	struct archive *archive;
	struct history *next;
	unsigned refs; /* under archive->lock */
	char *name;
	int dir_fd;
	int snapshot_fd, segment_fd, coalesced_fd, head_fd;
	struct source_note source;

	pthread_mutex_t lock; /* all below */
	struct head head;
	bool have_head;
	uint64_t listed_generation;
	bool listed;
	int64_t refreshed_us; /* monotonic */
	struct entries snapshots, segments, coalesced;
	struct gap_note *gaps;
	size_t n_gaps;
	uint32_t lineage; /* newest */
	uint64_t use_counter;
	size_t n_open;
};

struct archive {
	char *root;
	int root_fd, local_fd; /* local_fd may be -1: nothing there yet */
	struct cache *cache;
	struct prefetch *prefetch;
	pthread_mutex_t lock;
	struct history *histories; /* under lock */
};

/* ---- catalog.c: under h->lock ---- */
int catalog_list(struct history *h, struct err *err) MUST_USE;
int catalog_refresh(struct history *h, bool now, struct err *err) MUST_USE;
void catalog_release(struct history *h);
/* Opens what `e` names (or gives what is open), with a reference of its own. */
int catalog_open(struct history *h, struct entries *in, struct entry *e, struct object **ret,
                 struct err *err) MUST_USE;
/* The segment that holds `txid`, or NULL. */
struct entry *catalog_segment_of(struct history *h, uint64_t txid);

/* ---- resolve.c: under h->lock ---- */
int resolve_commit(struct history *h, uint64_t txid, struct commit *ret, struct entry **ret_entry,
                   struct err *err) MUST_USE;
/* The error of an entry that is marked so. */
int resolve_broken(const struct entry *e, struct err *err);
/* Whether an object was not there that should be: list anew, and ask again. */
bool resolve_vanished(const struct err *why);
/* Whether the image of this commit can be put together. */
bool resolve_viewable(struct history *h, const struct commit *c);
int resolve_fill(struct history *h, const struct commit *c, struct entry *e, struct moment *ret,
                 struct err *err) MUST_USE;
int resolve_moment(struct history *h, uint64_t txid, struct moment *ret, struct err *err) MUST_USE;

/* ---- segment access, growing or sealed ---- */
uint64_t object_n_commits(struct object *o);
int object_commit(struct object *o, uint64_t i, struct commit *ret, struct err *err) MUST_USE;
int object_commits_until(struct object *o, int64_t time_us, uint64_t *ret,
                         struct err *err) MUST_USE;
int object_find_frame(struct object *o, uint32_t pgno, uint64_t max_frame, uint64_t *ret,
                      struct err *err) MUST_USE;
int object_read(struct object *o, uint64_t offset, void *buf, size_t len, struct err *err) MUST_USE;
/* Adds the pages <= max_pgno that frames up to max_frame hold. */
int object_add_pages(struct object *o, uint64_t max_frame, uint32_t max_pgno, struct bitset *pages,
                     struct err *err) MUST_USE;
uint32_t object_page_size(struct object *o);
const char *object_label(struct object *o);

/* ---- prefetch.c ---- */
int prefetch_new(size_t n_threads, struct prefetch **ret, struct err *err) MUST_USE;
void prefetch_free(struct prefetch *p);
/* Asks for block `block` of a snapshot; forgotten when too much is asked for. */
void prefetch_add(struct prefetch *p, struct object *snapshot, uint64_t block);

DEFINE_CLEANUP(struct object, object_unref);
#define cleanup_object CLEANUP(object_unref_p)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The past of the databases of one archive: which moments there are, and what each held.
 *
 *   struct archive   an archive opened for reading, with one block cache
 *   struct history   one database of it; follows the writer, no reopening needed
 *   struct view      (database, txid): an immutable image, read by byte range
 *
 * Everything that reads the past (mount, restore, query, verify, diff) reads through this.
 * All functions may be called from any thread.  Nothing here writes to the archive.
 *
 * Errors: NOT_FOUND (no such database, txid or time), GAP (the moment lies in a declared
 * gap; the message names both edges), DAMAGED (bytes failed their checksum: the message
 * names the object; also logged), VERSION, IO.
 */
#ifndef ASOF_VIEW_HISTORY_H
#define ASOF_VIEW_HISTORY_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/base/hash.h"

#include <stddef.h>
#include <stdint.h>

struct archive;
struct history;
struct view;

struct store;
struct store_options;

struct archive_options {
	size_t cache_bytes;                /* decoded blocks kept; 0: the default, 32 MiB */
	const struct store_options *store; /* for URLs; may be NULL */
	/* Archives that have copies of this one's objects, ended by NULL: what is missing or damaged
	 * is taken from them.  May be NULL; those that cannot be opened are passed over. */
	const char *const *others;
	/* More of these, opened: they become the archive's, whatever happens. */
	struct store *const *other_stores;
	size_t n_other_stores;
	/* Where stretches of far objects are kept (store/kept.h); NULL: nowhere. */
	const char *keep_dir;
	uint64_t keep_bytes;
};

/* A directory, which must exist and be an archive (or empty), or the URL of a store. */
int archive_open(const char *root, const struct archive_options *options, struct archive **ret,
                 struct err *err) MUST_USE;
/* The same of stores, the first of which is the archive and the others stand in for it.  They
 * become the archive's, whatever happens.  `options`: less `store` and `others`. */
int archive_open_stores(struct store *const *stores, size_t n_stores,
                        const struct archive_options *options, struct archive **ret,
                        struct err *err) MUST_USE;
/* The store that it is read from; borrowed. */
struct store *archive_store(struct archive *a);
void archive_free(struct archive *a);
const char *archive_root(const struct archive *a);

/* Names of the databases, sorted; *ret is an array of `*ret_n` strings, ended by NULL, in one
 * allocation: free() it. */
int archive_list(struct archive *a, char ***ret, size_t *ret_n, struct err *err) MUST_USE;

/* Opens a database of the archive, or gives the one already open: each history_get() takes a
 * reference that history_put() gives back. */
int history_get(struct archive *a, const char *name, struct history **ret,
                struct err *err) MUST_USE;
void history_put(struct history *h);
const char *history_name(const struct history *h);
/* A random number of 32 bits, stable over time and processes for one database of one archive
 * (stored in it), never 0: part of inode numbers. */
uint32_t history_id(const struct history *h);

/* Looks at the archive for news.  Cheap (one small read) when there are none; of a bucket: one
 * request, and none within a second of the last.  The resolving
 * functions below do it themselves at most once every 100 ms; a look-up of something newer
 * than what is known always does it first. */
int history_refresh(struct history *h, struct err *err) MUST_USE;

enum moment_flags {
	MOMENT_PROVISIONAL = 1, /* later than what the archive can know */
	MOMENT_HEALED = 2,      /* the first state after a declared gap */
};

/* A commit, as resolved. */
struct moment {
	uint64_t txid;
	int64_t time_us;       /* of the commit */
	int64_t not_before_us; /* it was known not to exist yet at this moment; 0 unknown */
	uint32_t lineage;
	uint32_t flags; /* enum moment_flags */
	uint32_t page_size;
	uint32_t n_pages;     /* size of the database after it */
	uint32_t n_frames;    /* pages written by it; 0: only the state is left */
	uint64_t wal_bytes;   /* bytes of its segment's content up to and with it; 0: likewise */
	struct hash128 state; /* zero when not known */
};

/*
 * The state as of `time_us`: the last commit at or before it.  Before the first moment:
 * NOT_FOUND naming that one.  Inside a gap: GAP.  Later than the newest commit and than the
 * word of a running replicator: the newest state with MOMENT_PROVISIONAL.  A time later than
 * `now_us` is NOT_FOUND ("in the future").
 */
int history_at(struct history *h, int64_t time_us, int64_t now_us, struct moment *ret,
               struct err *err) MUST_USE;
int history_tx(struct history *h, uint64_t txid, struct moment *ret, struct err *err) MUST_USE;
int history_latest(struct history *h, struct moment *ret, struct err *err) MUST_USE;
int history_first(struct history *h, struct moment *ret, struct err *err) MUST_USE;

/*
 * The first viewable commit with txid >= `txid` (NOT_FOUND: there is none).  Walking a history
 * is repeated calls with the last txid + 1; neighbouring calls are cheap.
 */
int history_next(struct history *h, uint64_t txid, struct moment *ret, struct err *err) MUST_USE;
/* The same, but damage is an error where a child goes on behind it, too (see struct jump): history_next()
 * passes over that. */
int history_next_strict(struct history *h, uint64_t txid, struct moment *ret,
                        struct err *err) MUST_USE;
/* The first viewable commit with time >= `time_us`. */
int history_after(struct history *h, int64_t time_us, struct moment *ret, struct err *err) MUST_USE;

/*
 * At most `max` viewable commits of [from_us, to_us), evenly chosen by txid, first and last of
 * the span among them, in order.  *ret_total is the number of commits in the span.  The array
 * `out` has room for `max`.
 */
int history_sample(struct history *h, int64_t from_us, int64_t to_us, size_t max,
                   struct moment *out, size_t *ret_n, uint64_t *ret_total,
                   struct err *err) MUST_USE;

/* A declared gap: nothing is known between the two. */
struct gap {
	uint64_t before_txid, after_txid;
	int64_t before_us, after_us;
};
/* Gap number `i` from 0, oldest first; NOT_FOUND past the last. */
int history_gap(struct history *h, size_t i, struct gap *ret, struct err *err) MUST_USE;

/*
 * The end of a lineage that was damaged, or missing, when its writer began: a child goes on above
 * all that may have been acknowledged, with a base of its own (FORMAT.md, the note of a lineage).
 */
struct jump {
	uint32_t lineage; /* the child */
	/* Nothing is known between the two; what was put back since moves the first. */
	uint64_t from_txid, first_txid;
	int64_t from_us;    /* 0: not known here */
	uint64_t told_txid; /* the last that was known to be acknowledged, and until when all was */
	int64_t told_us;
	char lost[208]; /* FOLDER/FILE of what was damaged or missing; "": not known */
};
/* Jump number `i` from 0; NOT_FOUND past the last. */
int history_jump(struct history *h, size_t i, struct jump *ret, struct err *err) MUST_USE;

/* Transactions in a row, and the times between which they lie. */
struct damage {
	uint64_t first_txid, last_txid;
	int64_t after_us, until_us;
	char object[208]; /* FOLDER/FILE, or "" */
};
/* Of the ends that jumps left behind, number `i` of those that cannot be read (to this day); NOT_FOUND
 * past the last. */
int history_lost(struct history *h, size_t i, struct damage *ret, struct err *err) MUST_USE;
/* The same, and those of which retention has let go meanwhile, but for the damaged object. */
int history_left_behind(struct history *h, size_t i, struct damage *ret, struct err *err) MUST_USE;
/* What is lost as a line for people, with the way out. */
void history_lost_text(const struct damage *d, char *out, size_t size);

/* The state that snapshot number `i` holds, from 0, oldest first; NOT_FOUND past the last. */
int history_snapshot(struct history *h, size_t i, struct moment *ret, struct err *err) MUST_USE;

/*
 * The last viewable commit at or before a time, whatever is known of what followed it (plans
 * that choose moments to keep ask this; people ask history_at()).
 */
int history_before(struct history *h, int64_t time_us, struct moment *ret,
                   struct err *err) MUST_USE;

/* ---- marks: named moments ---- */

struct mark {
	char name[201];
	uint64_t txid;
	int64_t time_us; /* of the commit */
	int64_t made_us; /* when the mark was made */
};
/* All marks of the database, sorted by name; malloc'ed. */
int history_marks(struct history *h, struct mark **ret, size_t *ret_n, struct err *err) MUST_USE;
int history_mark(struct history *h, const char *name, struct mark *ret, struct err *err) MUST_USE;

struct history_status {
	uint64_t first_txid, last_txid; /* viewable; 0: none yet */
	int64_t first_us, last_us;
	int64_t known_until_us; /* the running replicator's word; else last_us */
	uint64_t told_txid;     /* the newest durable one by the writer's word; 0: it left none */
	int64_t told_us;
	bool writer_alive;          /* a replicator holds the archive's lock */
	char writer_hindrance[208]; /* why it cannot capture, by its own word, or "" */
	uint32_t lineage;
	uint64_t gaps;
	uint64_t archive_bytes; /* stored bytes of this database */
	uint64_t n_snapshots, n_segments, n_coalesced;
	uint64_t unsealed_bytes; /* growing and not yet sealed segments */
	char source_path[512];   /* of the live database */
};
int history_get_status(struct history *h, struct history_status *ret, struct err *err) MUST_USE;

/* What verification found of this database, with the time of each finding; see
 * engine/archive/notes.h.  NOT_FOUND: it was never verified. */
struct verified_note;
int history_get_verified(struct history *h, struct verified_note *ret, struct err *err) MUST_USE;

/* ---- views ---- */

/* Whether views that cannot be opened or read are logged; off for who looks for just that, in very
 * many.  Not while others use the history. */
void history_log_damage(struct history *h, bool on);
/* Plans and opens: reads indexes only, no page. */
int view_open(struct history *h, uint64_t txid, struct view **ret, struct err *err) MUST_USE;
void view_free(struct view *v);
const struct moment *view_moment(const struct view *v);
/* Its database, and the name of that; both live as long as the view. */
struct history *view_history(const struct view *v);
const char *view_database(const struct view *v);
/* Size of the image in bytes: page size times pages. */
uint64_t view_size(const struct view *v);
/* Objects lying over the base. */
size_t view_depth(const struct view *v);

enum view_read_flags {
	/* Header bytes 18 and 19 read 1 instead of 2, so that any SQLite client opens the
	 * image from a read-only place; all else is as it was. */
	VIEW_READ_PATCHED = 1,
};
/* A hint: the whole image will be read soon, once, about in order.  From far away its objects come
 * several requests at once from now on. */
void view_expect(struct view *v);
/*
 * Reads `len` bytes at `offset`; all of them or an error, but that a read past the end gives
 * what there is (*ret_len).  Safe from many threads at once on one view.  Sequential reads
 * are recognised and read ahead.
 */
int view_read(struct view *v, uint64_t offset, void *buf, size_t len, unsigned flags,
              size_t *ret_len, struct err *err) MUST_USE;
/* One page, exact bytes; `buf` has room for the page size. */
int view_page(struct view *v, uint32_t pgno, void *buf, struct err *err) MUST_USE;
/* The state checksum computed anew from every page, to be compared with the moment's. */
int view_state(struct view *v, struct hash128 *ret, struct err *err) MUST_USE;

DEFINE_CLEANUP(struct view, view_free);
DEFINE_CLEANUP(struct archive, archive_free);
DEFINE_CLEANUP(struct history, history_put);
#define cleanup_view CLEANUP(view_free_p)
#define cleanup_archive CLEANUP(archive_free_p)
#define cleanup_history CLEANUP(history_put_p)

#endif

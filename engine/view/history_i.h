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
#include "engine/store/reader.h"
#include "engine/store/store.h"
#include "engine/view/history.h"

#include <pthread.h>
#include <stdatomic.h>

/* An open object, shared by the catalog and by views; freed with its last reference. */
struct object {
	_Atomic unsigned refs;
	size_t place;             /* which of the archive's stores it is of */
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
	int64_t modified_us;  /* in a bucket */
	size_t place;         /* the first of the archive's stores to be asked for it */
	struct object *open;  /* NULL: not open */
	uint64_t used;        /* when it was last asked for: a counter */
	bool broken;          /* a growing segment that could not be read */
	enum err_kind unread; /* why not: of what may pass; else DAMAGED, or 0 */
	bool lent;            /* the archive has not got it; `place` has (borrow.c) */
	bool told;            /* of a lent one: that it is read there */
	uint16_t distrusted;  /* a bit for each place where it was found damaged */
};

/* The objects of one folder, sorted by name.first_txid, then last_txid. */
struct entries {
	struct entry *e;
	size_t n, cap;
};

#define HISTORY_PLACES_MAX 16u
enum place_state { PLACE_UNKNOWN, PLACE_SAME, PLACE_OTHER };

struct history {
	struct archive *archive;
	struct history *next;
	unsigned refs; /* under archive->lock */
	char *name;
	bool quiet;     /* history_log_damage() */
	bool in_bucket; /* bucket.c tells what there is, and there is no folder: */
	int dir_fd;
	int snapshot_fd, segment_fd, coalesced_fd, head_fd;
	struct source_note source;

	pthread_mutex_t lock; /* all below */
	struct head head;
	bool have_head;
	uint64_t listed_generation;
	bool listed;
	int64_t refreshed_us;          /* monotonic, as those below */
	bool has_broken;               /* a segment of the listing; somebody may put it right */
	int64_t relisted_us, retry_us; /* in a bucket */
	unsigned n_followed;           /* segments that came since all was listed */
	struct entries snapshots, segments, coalesced;
	struct entries fences; /* in a bucket: those that were read, and are fences */
	struct {
		struct entries snapshots, segments;
	} lent;                 /* what other places have, and the archive had not (borrow.c) */
	struct entries shunned; /* what no place has whole under its name */
	bool shunned_spare;     /* not only segments */
	bool shunned_more;      /* since the last borrow_more() */
	int64_t borrowed_us;
	uint8_t places[HISTORY_PLACES_MAX]; /* enum place_state */
	/* Of one that is the same: up to here that is proved (way.h), its newest, and when that was. */
	uint64_t shared_txid[HISTORY_PLACES_MAX], newest_txid[HISTORY_PLACES_MAX];
	int64_t compared_us[HISTORY_PLACES_MAX];
	struct gap_note *gaps;
	size_t n_gaps;
	/* All whose notes were read, in the order of their first txids; most are no jumps (jumps.c). */
	struct jump *lineages;
	size_t n_lineages;
	struct {
		uint32_t lineage; /* of the child; 0: none was */
		int64_t changed_us;
		bool damaged;
	} lost_checked;              /* the object that was left behind, as that file was */
	struct thinned_note thinned; /* until_txid 0: nothing was thinned */
	uint32_t lineage;            /* newest */
	uint64_t use_counter;
	size_t n_open;
};

struct archive {
	char *root;
	struct store **stores; /* the first is the archive; the others stand in for it */
	size_t n_stores;
	struct store_reader *reader;
	struct kept *kept;     /* may be NULL */
	int root_fd, local_fd; /* root_fd -1: no directory; local_fd -1: nothing there yet */
	struct cache *cache;
	struct prefetch *prefetch;
	uint64_t ahead_bytes; /* that are inflated ahead of who reads in sequence */
	pthread_mutex_t lock;
	struct history *histories; /* under lock */
	_Atomic size_t n_histories;
	size_t idle_files; /* that may stay open for all histories together */
};

/* ---- catalog.c: under h->lock ---- */
int catalog_list(struct history *h, struct err *err) MUST_USE;
int catalog_refresh(struct history *h, bool now, struct err *err) MUST_USE;
void catalog_release(struct history *h);
/* Opens what `e` names (or gives what is open), with a reference of its own. */
int catalog_open(struct history *h, struct entries *in, struct entry *e, struct object **ret,
                 struct err *err) MUST_USE;
/* Of a bucket: what opening it will read comes from now on. */
void catalog_expect(struct history *h, struct entries *in, const struct entry *e);
void entries_release(struct history *h, struct entries *es);
int entries_add(struct entries *es, const struct entry *e, struct err *err) MUST_USE;
void entries_sort(struct entries *es);
/* Whether a name counts in the folder of this kind. */
bool catalog_belongs(struct object_name *n, enum object_type folder);
/* What was open under the same name stays open.  `old` is sorted. */
void catalog_keep_open(struct entries *old, struct entry *e);
/* `o` was found damaged, or is gone: it is opened anew from the next store that may have it.  False:
 * there is none. */
bool catalog_distrust(struct history *h, struct object *o);
/* The segment that holds `txid`, or NULL. */
struct entry *catalog_segment_of(struct history *h, uint64_t txid);

/* ---- bucket.c: under h->lock ---- */
int bucket_refresh(struct history *h, bool now, struct err *err) MUST_USE;
/* What a segment of level 0 tells of itself, once it is open. */
int bucket_take_extent(struct history *h, struct entry *e, struct object *o,
                       struct err *err) MUST_USE;
/* Before it is opened at another place, which may have it in pieces: it reaches as far as the next begins,
 * and what it told where it was damaged counts no more. */
void bucket_forget_extent(struct history *h, struct entry *e);
/* A note, with a NUL behind it; free() it.  Without the lock, too. */
int place_note(struct history *h, const char *file, char **ret, size_t *ret_len,
               struct err *err) MUST_USE;

/* ---- borrow.c: under h->lock ---- */
/* Whether a place has the history of this very database: then its objects can stand in. */
bool borrow_same_database(struct history *h, size_t place);
/* Whether what that place has of transactions up to this one is proved to be of this history. */
bool borrow_is_shared(struct history *h, size_t place, uint64_t last_txid);
/* After an error, which may come of what is missing: whether other places have more than what is
 * listed.  Then it is worth another try. */
bool borrow_more(struct history *h, const struct err *why);
/* A segment could not be had from any place: what others have of its transactions, cut otherwise,
 * comes into its place; into that of a coalesced object or a snapshot, the segments. */
void borrow_shun(struct history *h, const struct entry *e);
/* Once, that a lent one is read from there. */
void borrow_tell(struct history *h, const struct entry *e, size_t place);
/* To a fresh listing, out of which goes what is shunned. */
int borrow_add(struct history *h, struct err *err) MUST_USE;

/* ---- jumps.c: under h->lock ---- */
/* Takes the note of a lineage into account, once. */
int jumps_read_note(struct history *h, const char *file, uint32_t lineage,
                    struct err *err) MUST_USE;
/* In a bucket fences tell: from behind `from_txid` a writer went on with `first_txid`. */
int jumps_add(struct history *h, const struct jump *one, struct err *err) MUST_USE;
/* To a listing: how far what was put back reaches. */
void jumps_settle(struct history *h);
/* What begins at `first_txid` ends before `end`, and where a lineage was left for another. */
uint64_t jumps_bound(const struct history *h, uint64_t first_txid, uint64_t end);
/* The jump that `txid` lies in; NULL: none. */
const struct jump *jumps_over(const struct history *h, uint64_t txid);
/* The jump that begins with what this transaction belongs to: one object, or nothing at all, from there
 * up to the last that was acknowledged.  NULL: none does. */
const struct jump *jumps_lost_with(struct history *h, uint64_t txid);
/* What was lost with this transaction, as far as a jump tells; "": it does not. */
const char *jumps_lost(const struct history *h, uint64_t txid);

/* ---- resolve.c: under h->lock ---- */
int resolve_commit(struct history *h, uint64_t txid, struct commit *ret, struct entry **ret_entry,
                   struct err *err) MUST_USE;
/* What retention left, up to the note's until_txid; see thinned.c.  NULL: there is none. */
const struct thinned_point *thinned_at_or_before(const struct history *h, uint64_t txid);
const struct thinned_point *thinned_at_or_after(const struct history *h, uint64_t txid);
const struct thinned_point *thinned_by_time(const struct history *h, int64_t time_us);
/* Transactions that can be asked for, counted: that of rank thinned_rank(t) is t, or the last
 * before it. */
uint64_t thinned_rank(const struct history *h, uint64_t txid);
uint64_t thinned_nth(const struct history *h, uint64_t rank);
/*
 * Where a segment of level 0 ends is told by the next one (bucket.c (2)); but of what was thinned that one
 * can be gone, or, in a copy, never have come.  No point needs such a segment: what else there is tells.
 */
bool thinned_is_vague(const struct history *h, const struct entry *segment);
/* A moment up to until_txid. */
int thinned_moment(struct history *h, uint64_t txid, struct moment *ret, struct err *err) MUST_USE;
/* "thinned out: the nearest that are kept are …" for what lies between two points. */
int thinned_error(const struct history *h, const struct thinned_point *before, const char *what,
                  struct err *err);
/* A moment that a snapshot alone tells of. */
int resolve_snapshot(struct history *h, struct entry *e, struct moment *ret,
                     struct err *err) MUST_USE;
/* The error of an entry that is marked so. */
int resolve_broken(const struct entry *e, struct err *err);
/* Whether an object was not there that should be: list anew, and ask again. */
bool resolve_vanished(const struct err *why);
/* As history_next() and history_latest(). */
int resolve_next(struct history *h, uint64_t txid, struct moment *ret, struct err *err) MUST_USE;
int resolve_last(struct history *h, struct moment *ret, struct err *err) MUST_USE;
/* The last settled moment at or before `txid`, whatever is known of what followed it. */
int resolve_settled_before(struct history *h, uint64_t txid, struct moment *ret,
                           struct err *err) MUST_USE;
/* Whether the image of this commit can be put together. */
bool resolve_viewable(struct history *h, const struct commit *c);
/* `in`: the list that `e` is in. */
int resolve_fill(struct history *h, const struct commit *c, struct entries *in, struct entry *e,
                 struct moment *ret, struct err *err) MUST_USE;
int resolve_moment(struct history *h, uint64_t txid, struct moment *ret, struct err *err) MUST_USE;

/* ---- segment access, growing or sealed ---- */
uint64_t object_n_commits(struct object *o);
int object_commit(struct object *o, uint64_t i, struct commit *ret, struct err *err) MUST_USE;
int object_commits_until(struct object *o, int64_t time_us, uint64_t *ret,
                         struct err *err) MUST_USE;
int object_find_frame(struct object *o, uint32_t pgno, uint64_t max_frame, uint64_t *ret,
                      struct err *err) MUST_USE;
int object_read(struct object *o, uint64_t offset, void *buf, size_t len, struct err *err) MUST_USE;
/* Adds the pages <= max_pgno that the frames min_frame < f <= max_frame hold. */
int object_add_pages(struct object *o, uint64_t min_frame, uint64_t max_frame, uint32_t max_pgno,
                     struct bitset *pages, struct err *err) MUST_USE;
/* A hint: source_expect(). */
void object_expect(struct object *o, enum source_use use);
uint32_t object_page_size(struct object *o);
const char *object_label(struct object *o);

/* ---- prefetch.c ---- */
int prefetch_new(size_t n_threads, struct prefetch **ret, struct err *err) MUST_USE;
void prefetch_free(struct prefetch *p);
/* Asks for the blocks [first, end) of a snapshot, as far as it has them; forgotten when too much is
 * asked for. */
void prefetch_add(struct prefetch *p, struct object *snapshot, uint64_t first, uint64_t end);

DEFINE_CLEANUP(struct object, object_unref);
#define cleanup_object CLEANUP(object_unref_p)

#endif

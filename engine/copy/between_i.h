/* SPDX-License-Identifier: Apache-2.0 */
/* What between.c and things.c share: copying from store to store. */
#ifndef ASOF_COPY_BETWEEN_I_H
#define ASOF_COPY_BETWEEN_I_H

#include "engine/archive/names.h"
#include "engine/archive/notes.h"
#include "engine/base/hash.h"
#include "engine/base/spans.h"
#include "engine/copy/copy_i.h"

/* ---- things.c: what a store has below one prefix, by its names ---- */

enum thing_kind {
	THING_OTHER, /* of one machine, or of the place itself: it stays where it is */
	THING_LINEAGE,
	THING_GAP,
	THING_MARK,
	THING_SOURCE,
	THING_THINNED,
	THING_WRITER,
	THING_HEAD,
	THING_TABLE,
	THING_LEVEL0,
	THING_SEALED,
	THING_COALESCED,
	THING_SNAPSHOT,
};

struct thing {
	char file[OBJECT_NAME_MAX + 16]; /* behind the prefix */
	enum thing_kind kind;
	uint64_t bytes;
	struct object_name name; /* of objects */
};

struct things {
	struct thing *v; /* sorted by file as listed; what was added since stands behind it */
	size_t n, n_sorted, cap;
	const struct thing **order; /* all as listed, in the order in which they are put */
};

/* Instead of what `ts` had. */
int things_list(struct things *ts, struct store *store, const char *prefix,
                struct err *err) MUST_USE;
void things_release(struct things *ts);
int things_add(struct things *ts, const struct thing *t, struct err *err) MUST_USE;
/* By its name; NULL: it is not there. */
const struct thing *things_find(const struct things *ts, const char *file);

/* A segment, a coalesced object or a snapshot. */
bool thing_is_object(const struct thing *t);
struct history_object thing_object(const struct thing *t);

/* Where the segments begin; UINT64_MAX: there are none. */
uint64_t things_first(const struct things *ts);
/* Whether sealed segments of `ts` hold all that level 0 `t` does, which lies in `in`. */
bool things_cover(const struct things *ts, const struct thing *t, const struct things *in);
/* Whether a longer sealed segment holds all of `t`. */
bool things_wider(const struct things *ts, const struct thing *t);
/* The newest, of which no name tells where it ends; NULL: there is none. */
const struct thing *things_last_level0(const struct things *ts);
/* Which transactions one of `in` holds, as far as names tell: a segment, or the snapshot of a state that was
 * found idle.  False: it is none. */
bool thing_holds(const struct things *in, const struct thing *t, struct span *ret);
/* Level 0 that is the last of its lineage, where another lineage follows: it goes on until that begins, if
 * nothing is missing.  False: it is none. */
bool thing_reaches_next(const struct things *in, const struct thing *t, struct span *ret);
/* Whether what else `ts` has of its lineage, sealed or as a snapshot, holds all of its level 0 `t`. */
bool things_hold_otherwise(const struct things *ts, const struct thing *t);
/* Those behind `after_txid` that `ts` holds, but by snapshots that `other` (may be NULL) has, too; added to
 * `ret`. */
int things_held(const struct things *ts, uint64_t after_txid, const struct things *other,
                struct spans *ret, struct err *err) MUST_USE;
/* Whether with what `more` brings every transaction is there from where `ts` begins. */
int things_are_whole(const struct things *ts, const struct things *more, bool *ret,
                     struct err *err) MUST_USE;
/* The first of `ts` that `other` lacks and that cannot be of one history with what it has, by number,
 * size and time; NULL: all can. */
const struct thing *things_misfit(const struct things *ts, const struct things *other);

/* ---- between.c ---- */

struct between {
	struct copying *c;
	struct store *from, *to; /* at the layer where their bytes are the same; borrowed */
	bool sealed;             /* what they hold is, and nobody looks into it but for notes: */
	struct store *open_from, *open_to; /* where notes can be read and put; NULL: nowhere */
	const char *name;                  /* of the database at hand */
	bool is_new;                       /* the second does not have it yet */
	int64_t looked_us;                 /* monotonic: for a writer's note there */
	struct things here, there;
	bool thinned_later; /* the second's note is to be this, or to go, once all segments are there */
	struct buf thinned;
	uint64_t until_txid; /* of that note */
	uint64_t n_backups;
};

/* local/NAME/FILE */
void between_key(const struct between *b, const char *file, char out[STORE_KEY_MAX + 1]);
int between_get(struct store *s, const struct between *b, const char *file, struct buf *ret,
                struct err *err) MUST_USE;
/* One of this database; then it is there.  *ret_damaged: it was told of, and not put. */
int between_bring(struct between *b, const struct thing *t, unsigned flags, bool *ret_damaged,
                  struct err *err) MUST_USE;
/* False: it is of level 0, and the second has what comes behind it, but not what it holds. */
bool between_can_bring(const struct between *b, const struct thing *t);
/* Of its objects all that the second lacks; not `segments`: but for these. */
int between_bring_objects(struct between *b, bool segments, struct err *err) MUST_USE;

/* ---- thinned.c ---- */
/* What the second is to say of what was thinned, before segments are put, and after. */
int between_thinned_before(struct between *b, struct err *err) MUST_USE;
int between_thinned_after(struct between *b, struct err *err) MUST_USE;

/* ---- between_marks.c ---- */
int between_marks(struct between *b, struct err *err) MUST_USE;

/* ---- way.c: REFUSED, the second went another way ---- */
int between_check_names(struct between *b, struct err *err) MUST_USE;
/* Opens both. */
int between_check_commits(struct between *b, struct err *err) MUST_USE;

#endif

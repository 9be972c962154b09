/* SPDX-License-Identifier: Apache-2.0 */
/* What between.c and things.c share: copying from store to store. */
#ifndef ASOF_COPY_BETWEEN_I_H
#define ASOF_COPY_BETWEEN_I_H

#include "engine/archive/names.h"
#include "engine/archive/notes.h"
#include "engine/base/hash.h"
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
/* Whether with what `more` brings every transaction is there from where `ts` begins. */
bool things_are_whole(const struct things *ts, const struct things *more);
/* The first of `ts` that `other` lacks and that cannot be of one history with what it has, by number,
 * size and time; NULL: all can. */
const struct thing *things_misfit(const struct things *ts, const struct things *other);

/* ---- between.c ---- */

struct between {
	struct copying *c;
	struct store *from, *to; /* at the layer where their bytes are the same; borrowed */
	bool sealed;             /* what they hold is, and nobody looks into it */
	const char *name;        /* of the database at hand */
	bool is_new;             /* the second does not have it yet */
	int64_t looked_us;       /* monotonic: for a writer's note there */
	struct things here, there;
	uint64_t n_backups;
};

/* ---- way.c: REFUSED, the second went another way ---- */
int between_check_names(struct between *b, struct err *err) MUST_USE;
/* Opens both. */
int between_check_commits(struct between *b, struct err *err) MUST_USE;

#endif

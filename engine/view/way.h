/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far two histories of one database tell the same.
 *
 * Copies of an archive that both went on, each by itself, are of one database and of one lineage, and
 * give the same numbers to other transactions.  But no two commits were captured at one time, to the
 * microsecond, and what agrees in one transaction agrees in all before it: so the newest that both know
 * tells.  What one of them cannot tell, since it thinned that or is behind, tells nothing: behind the
 * newest that agrees they may have parted all the same, in what is damaged or missing in one of them.
 * Who takes the one's bytes for the other's asks way_shared() up to where that is proved.
 */
#ifndef ASOF_VIEW_WAY_H
#define ASOF_VIEW_WAY_H

#include "engine/base/source.h"
#include "engine/view/history.h"

#include <stdbool.h>

/* A transaction and its time, as one of them has it. */
struct way_known {
	uint64_t txid;
	int64_t time_us;
};
/* For qsort(). */
int way_newest_first(const void *a, const void *b);

struct way {
	uint64_t
	        differs_txid; /* the newest that both know and that is another there; 0: none was seen */
	uint64_t
	        agrees_txid; /* the newest that both know, and that is the same; 0: none was seen */
	uint64_t other_txid; /* the newest of the second, where both were compared whole */
};

/* Looks at one in the other history; of several, the newest first.  False: they agree, and older ones
 * do. */
bool way_look(struct way *w, const struct way_known *k, struct history *other);
/* Of both whole, up to the newest that both know: so one of the two numbers is 0. */
void way_compare(struct history *a, struct history *b, struct way *ret);

/* The history that lies there, by itself: nothing else stands in for it, and its damage is not logged.
 * *ret_archive is to be freed behind it, also after an error; `at` outlives both. */
struct store;
int way_open(struct store *at, const char *name, struct archive **ret_archive, struct history **ret,
             struct err *err) MUST_USE;
/* What is left of a damaged segment says the same of a transaction as the other history: then
 * agrees_txid goes up to it.  That it says something else proves nothing.  *ret_last: the last that it
 * held; 0: that cannot be told.  Errors of memory alone. */
int way_tell(struct source *damaged, struct history *other, struct way *way, uint64_t *ret_last,
             struct err *err) MUST_USE;
/*
 * way_compare_places(), and agrees_txid is the newest that is proved to be the same in both: also by the
 * names of what is damaged in `own`, and what is left of it.
 */
void way_shared(struct store *own, struct store *other, const char *name, struct way *ret);
/* Of what lies at two places; where one of them cannot be opened nothing was seen. */
void way_compare_places(struct store *a, struct store *b, const char *name, struct way *ret);

#endif

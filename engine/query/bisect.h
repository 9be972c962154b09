/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit between two moments with which the answer of a query changed.
 *
 * Found by halving: of a history of 1,000,000 commits about twenty moments are asked.  Where the
 * answer changes several times, one of the changes is found: one whose answer before is that of
 * the first moment.  An answer is its rows in the order in which they come, with types and every
 * bit; that the statement cannot be run (no such table) is an answer, too.
 */
#ifndef ASOF_QUERY_BISECT_H
#define ASOF_QUERY_BISECT_H

#include "engine/base/err.h"
#include "engine/view/history.h"

#include <sqlite3.h>

struct bisect_options {
	const char *sql; /* one statement */
	/* Makes a connection ready (an authorizer), and a statement (parameters); may be NULL. */
	int (*prepare)(void *ctx, sqlite3 *db, struct err *err);
	int (*bind)(void *ctx, sqlite3_stmt *s, struct err *err);
	/* Before each moment is asked; false ends it with CANCELLED.  May be NULL. */
	bool (*progress)(void *ctx, const struct moment *m);
	void *ctx;
};

/*
 * Between the moments of txids first < last: *ret_before has the first one's answer, *ret_after,
 * the next viewable one, another.  NOT_FOUND: first and last answer alike.  SQL: neither can
 * answer.
 */
int bisect(struct history *h, uint64_t first_txid, uint64_t last_txid,
           const struct bisect_options *options, struct moment *ret_before,
           struct moment *ret_after, struct err *err) MUST_USE;

#endif

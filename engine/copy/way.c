/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the second archive is the first as it once was, or went on by itself: two copies that both
 * captured give the same numbers to other transactions, and of each what the other has would be taken
 * for its own.  No two commits were captured at one time, to the microsecond, and what agrees in one
 * transaction agrees in all before it: so the newest that both know tells.
 */
#include "engine/copy/between_i.h"

#include "engine/store/borrowed.h"

#include <inttypes.h>
#include <stdlib.h>

#define LOOKS 4096

/* Of a commit, whole database or not (a gap can hide all in which two differ); else of a moment. */
static bool time_of(struct history *h, uint64_t txid, int64_t *ret_us)
{
	struct commit c;
	struct moment m;

	if (history_commit(h, txid, &c, NULL) == 0)
		*ret_us = c.time_us;
	else if (history_tx(h, txid, &m, NULL) == 0)
		*ret_us = m.time_us;
	else
		return false;
	return true;
}

/* *ret_known: both have a transaction of that number, be it the same or not. */
static int compare(const struct copying *c, struct history *from, struct history *there,
                   const char *name, uint64_t txid, bool *ret_known, struct err *err)
{
	int64_t from_us, there_us;

	*ret_known = txid && time_of(there, txid, &there_us) && time_of(from, txid, &from_us);
	if (!*ret_known || from_us == there_us)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "archive '%s' went another way: txid %" PRIu64
	               " of '%s' is another commit there (copy to another archive)",
	               c->options->to, txid, name);
}

static uint64_t newest(const struct history_object *objects, size_t n)
{
	uint64_t txid = 0;

	for (size_t i = 0; i < n; i++)
		if (objects[i].last_txid > txid)
			txid = objects[i].last_txid;
	return txid;
}

static int compare_all(const struct copying *c, struct history *from, struct history *there,
                       const char *name, struct err *err)
{
	cleanup_free struct history_object *ours = NULL, *theirs = NULL;
	size_t n_ours = 0, n_theirs = 0;
	bool known = false;
	int rc = 0;

	if (history_objects(there, &theirs, &n_theirs, NULL) < 0 ||
	    history_objects(from, &ours, &n_ours, NULL) < 0)
		n_ours = n_theirs = 0;
	uint64_t last = newest(ours, n_ours), txid = newest(theirs, n_theirs);
	if (txid > last)
		txid = last;
	for (unsigned i = 0; rc == 0 && !known && txid > 0 && i < LOOKS; i++, txid--)
		rc = compare(c, from, there, name, txid, &known, err);
	/* Where one of them was thinned, so many may be gone. */
	while (rc == 0 && !known && n_theirs-- > 0)
		rc = compare(c, from, there, name, theirs[n_theirs].last_txid, &known, err);
	return rc;
}

int copy_check_way(const struct copying *c, struct history *from, const char *name, struct err *err)
{
	const struct archive_options o = {.cache_bytes = 1u << 20};
	cleanup_archive struct archive *archive = NULL;
	struct history *there = NULL;

	/* What cannot be read there is no reason to leave it so. */
	if (archive_open(c->options->to, &o, &archive, NULL) < 0 ||
	    history_get(archive, name, &there, NULL) < 0)
		return 0;
	history_log_damage(there, false);
	int rc = compare_all(c, from, there, name, err);
	history_put(there);
	return rc;
}

/* ---- from store to store ---- */

int between_check_names(struct between *b, struct err *err)
{
	const struct thing *misfit = things_misfit(&b->there, &b->here);

	if (!misfit)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "archive '%.200s' went another way: '%s' of '%s' there is none of '%.200s' "
	               "(copy to another archive)",
	               b->c->options->to, misfit->file, b->name, b->c->options->from);
}

static bool open_history(struct store *at, const char *name, struct archive **ret_archive,
                         struct history **ret)
{
	const struct archive_options o = {.cache_bytes = 1u << 20};
	struct store *store;

	if (store_borrow(at, &store, NULL) < 0 ||
	    archive_open_stores(&store, 1, &o, ret_archive, NULL) < 0 ||
	    history_get(*ret_archive, name, ret, NULL) < 0)
		return false;
	history_log_damage(*ret, false);
	return true;
}

int between_check_commits(struct between *b, struct err *err)
{
	struct archive *archives[2] = {NULL, NULL};
	struct history *from = NULL, *there = NULL;
	int rc = 0;

	if (open_history(b->from, b->name, &archives[0], &from) &&
	    open_history(b->to, b->name, &archives[1], &there))
		rc = compare_all(b->c, from, there, b->name, err);
	if (from)
		history_put(from);
	if (there)
		history_put(there);
	archive_free(archives[0]);
	archive_free(archives[1]);
	return rc;
}

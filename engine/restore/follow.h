/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A standby: a copy of a database that is kept up to date as its archive grows.
 *
 * It is a plain database in rollback-journal mode: bytes 18 and 19 of the header read 1, and the
 * change counter (24 and 92) goes up with each update, so that readers drop what they cached; every
 * other byte is the primary's.  Any SQLite client reads it at any time, holding an update up for as
 * long as its transaction lasts, and sees one whole state of the primary, never two.  An update is
 * one transaction (inplace.c) of the pages that changed; who dies in it leaves a journal that
 * SQLite plays back.
 *
 * Before a page is written the state that will be there is compared with the checksum of its commit.
 * TARGET.asof-follow says what the standby holds:
 *
 *   asof-follow 1
 *   database NAME
 *   txid N            0: the first copy is being made
 *   state HEX         32 digits: state checksum (base/hash.h) of the file as it lies there
 *   next_txid N       0: no update is under way
 *   next_state HEX    what it will be
 *   sum HEX           16 digits: hash64 of all before this line, seed 0
 *
 *   (1) The standby is the old state or the new state of the note, or somebody else wrote to it.
 *   (2) In the last case it is not touched without `force`.
 *
 * To promote a standby end the follower, remove the note, and set its journal mode.
 */
#ifndef ASOF_RESTORE_FOLLOW_H
#define ASOF_RESTORE_FOLLOW_H

#include "engine/base/err.h"
#include "engine/view/history.h"

#include <stdbool.h>
#include <stdint.h>

/* What an update did. */
struct follow_news {
	struct moment moment; /* that the standby is at */
	/* What the primary committed longer ago than that is here.  It grows while there is no word of a
	 * replicator, too: the archive cannot know what is missing. */
	int64_t lag_us;
	uint64_t pages;         /* that were written; 0: a new file was */
	uint64_t written_bytes; /* journal included */
	bool whole;             /* compared or copied from end to end */
	bool waiting;           /* nothing was done: somebody reads the standby */
	bool idle;              /* nothing was to be done; told once a second, not with `once` */
};

struct follow_options {
	bool force;         /* take over a file that is no standby, or was written to */
	bool once;          /* until it is up to date */
	unsigned n_threads; /* of a first copy, as in restore.h */
	/* Waits so long (0: not at all) and says whether to go on. */
	bool (*wait)(void *ctx, int64_t us);
	void (*tell)(void *ctx, const struct follow_news *news);
	void *ctx;
};

/*
 * Returns 0 when `wait` says so, or up to date with `once`.  Errors: EXISTS (a file that is no
 * standby of this database), REFUSED (the live database itself; a standby that was written to), BUSY
 * (another follower; with `once` also readers), and those of restore_to_file().
 */
int follow_run(struct archive *a, struct history *h, const char *target,
               const struct follow_options *options, struct err *err) MUST_USE;

#endif

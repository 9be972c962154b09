/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing one archive up to another: what the first holds and the second lacks is copied.
 *
 *  (1) Both may be in use.  The second is written to by nobody else meanwhile: its lock and its
 *      upkeep lock are taken for each database (BUSY).
 *      Of a store (a bucket, a server) what its writer put there is copied as it is: a directory
 *      reads small whole segments as it reads those that a writer left, and seals them by and by.
 *  (2) An object appears in the second whole, read back and verified, or not at all.  What is
 *      damaged in the first is not copied: it is named, and the rest goes on.
 *  (3) Of a segment that is written to just then what is durable is copied, and no byte more;
 *      the next run appends.
 *  (4) Nothing that the second has is deleted but segments whose transactions it now has in others:
 *      in a sealed or joined one, or in the first's where those were cut otherwise.  So it may keep
 *      more than the first, by a retention of its own, or less: what ends in what it thinned is not
 *      copied again.  Where the first has thinned what the second never got, the second gets the
 *      points that are left, beside its own.  And marks that the first gave it, and took away or gave anew since.
 *  (5) A run that was ended anywhere left a history that is right, as of some moment; the next
 *      goes on where it was.
 *  (6) A store gets what a replicator would send there, by the same rules (ship/ship.h,
 *      backup/send.h): this archive becomes its writer; where another is, it is REFUSED.  What is
 *      captured meanwhile is left to the next run.
 *  (7) From store to store objects go as they lie (between.c): what is sealed goes sealed, with its
 *      keys, and nobody looks into it; all else is read in full before it is put.  No writer is named
 *      there: who is to send there next claims the place.
 *  (8) A place that a writer's note says is somebody's destination, store or directory, is REFUSED.
 */
#ifndef ASOF_COPY_COPY_H
#define ASOF_COPY_COPY_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct store;
struct store_options;

struct copy_options {
	const char *from; /* an archive: a directory, or the URL of a store */
	const char *to;   /* likewise; a directory is made if it is not there */
	const struct store_options *from_store; /* for a URL; may be NULL */
	const struct store_options *to_store;
	/* Either, opened, or NULL; becomes the copy's, whatever happens. */
	struct store *from_open, *to_open;
	const char *db;           /* NULL: all, and the backups */
	const _Atomic bool *stop; /* may be NULL; CANCELLED once it is true */
	/* Now and then; may be NULL.  False: stop. */
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx;
};

struct copy_result {
	uint64_t databases;
	uint64_t objects, bytes; /* copied, backups among them */
	uint64_t present;        /* objects and backups that were there already */
	uint64_t damaged;        /* not copied */
	char damage[480];        /* the first of them */
};

/* DAMAGED when there was any, after all else was copied.  REFUSED: `to` has the history of another
 * database under that name, or went another way since it was a copy of this one.  BUSY, NOT_FOUND, NO_SPACE, IO, CANCELLED. */
int copy_archive(const struct copy_options *options, struct copy_result *ret,
                 struct err *err) MUST_USE;

#endif

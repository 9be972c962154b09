/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the history of a database is what was written, and still a database.
 *
 *   notes       every note is whole, and those that the objects prove are there
 *   objects     every stored byte that the scope names is read and held against its hash
 *   nothing     that must be there is missing: transactions, and what retention kept (FULL)
 *   state       the image at N is read from the archive, and its state checksum compared with
 *               the one that its commit carries
 *   integrity   PRAGMA integrity_check and foreign_key_check on the image at N, through the
 *               read-only VFS: no temporary copy
 *
 * `verified through N`: the image at N was read in full and its state checksum matched.  A run of
 * scope NEW reads the pages that changed since the last verified moment and takes the others from
 * there, objects that came since, and nothing else; FULL reads everything anew.  So the state of N
 * is always one of bytes that were read, and no byte stays unread for longer than the interval of
 * FULL.
 *
 * A run opens the archive for itself, with a small cache of its own, so that what it reads comes
 * from the disk.  It needs no lock and may run beside capture, upkeep and readers.  Its result is
 * kept with the history (FORMAT.md, the note `verified`).  One that is stopped (`stop`, or killed)
 * is taken up again by the next of its scope where the last piece was kept.
 */
#ifndef ASOF_VERIFY_VERIFY_H
#define ASOF_VERIFY_VERIFY_H

#include "engine/archive/notes.h"
#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store_options;

enum verify_scope {
	VERIFY_NEW,    /* what came since the last run: cheap, for every hour */
	VERIFY_FULL,   /* everything: for every night, and for people who ask */
	VERIFY_SAMPLE, /* a share, by chance: objects and moments */
};

struct verify_options {
	enum verify_scope scope;
	double sample_percent;             /* SAMPLE: of the stored bytes, above 0 up to 100 */
	uint64_t seed;                     /* SAMPLE: the same seed takes the same sample */
	bool integrity;                    /* integrity_check and foreign_key_check, too */
	const struct store_options *store; /* where the archive is a URL; may be NULL */
	struct store *opened;      /* the archive itself, which becomes ours; NULL: by its root */
	uint64_t bytes_per_second; /* stored bytes read; 0: as fast as it goes */
	/* For the pages of integrity_check, which looks each row up in each index; 0: 64 MiB.  With
	 * less than the indexes take it reads the same pages again and again. */
	size_t memory_bytes;
	const _Atomic bool *stop; /* may be NULL; true ends the run soon: CANCELLED */
	/* Now and then, from the calling thread; may be NULL.  False ends the run. */
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx;
};

/* Moments in a row. */
struct verify_range {
	uint64_t first_txid, last_txid;
	int64_t first_us, last_us; /* 0: not known */
};

struct verify_damage {
	/* FOLDER/FILE, or FILE of a note; "" where none is to blame (a state that differs, transactions
	 * that are missing). */
	char object[224];
	char reason[480]; /* one line, names the object */
	/* Moments that cannot be restored because of it, in order. */
	struct verify_range *affected;
	size_t n_affected;
	bool at_most; /* looking at each would have taken too long: some of them may restore */
	/* The nearest ones outside of all that is affected; txid 0: there is none. */
	uint64_t good_before, good_after;
	int64_t good_before_us, good_after_us;
};

struct verify_report {
	char database[201];
	int64_t started_us, ended_us;
	uint64_t verified_txid; /* through which moment; 0: none */
	int64_t verified_us;    /* its time */
	uint64_t n_objects, n_moments, bytes_read;
	struct verify_damage *damages;
	size_t n_damages;
	bool integrity_done;
	uint64_t integrity_problems; /* lines of integrity_check */
	uint64_t foreign_key_problems;
	char integrity[480]; /* "ok", or the first problem */
};

/*
 * Runs one verification.  0 also when damage was found: that is in the report.  Errors are what
 * keeps it from looking: NOT_FOUND, IO, CANCELLED (the report then says how far it came).  A folder
 * without the note `source` that objects lie in is damaged; without objects it is NOT_FOUND.
 */
int verify_history(const char *archive_root, const char *name, const struct verify_options *options,
                   struct verify_report *ret, struct err *err) MUST_USE;
void verify_report_release(struct verify_report *r);
/* Whether it is what was written, and a database.  Rows that break a foreign key are the
 * application's own affair, and only told. */
bool verify_report_ok(const struct verify_report *r);

#define cleanup_verify_report CLEANUP(verify_report_release)

#endif

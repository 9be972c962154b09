/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the archive.  Pure.
 *
 *   local/NAME/segment/LLLLLLLL-FIRST.wal.gz                          growing
 *   local/NAME/segment/LLLLLLLL-FIRST-LAST-TIME-TIME-MINPAGES.wal.gz  sealed
 *   local/NAME/segment/…same….commits.gz                              its commits, as text
 *   local/NAME/coalesced/…as a sealed segment….wal.gz
 *   local/NAME/snapshot/LLLLLLLL-TXID-REDO-TIME.db.gz
 *   local/NAME/LLLLLLLL.lineage
 *
 * LLLLLLLL lineage, 8 digits; txids 16 digits; MINPAGES 10 digits; TIME as
 * 20240115T103000.123456Z; all of fixed width, so that names sort as they happened.
 * FIRST and LAST are the first and the last txid within, the TIMEs theirs; MINPAGES is the
 * smallest size of the database after any commit within.  REDO: the segments after that
 * txid must be applied to a snapshot before it is the image of TXID (equal: none).
 */
#ifndef ASOF_ARCHIVE_NAMES_H
#define ASOF_ARCHIVE_NAMES_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define TXID_MAX UINT64_C(9999999999999999)
#define OBJECT_NAME_MAX 192
#define DB_NAME_MAX 200

enum object_type {
	OBJECT_GROWING,
	OBJECT_SEALED,
	OBJECT_COMMITS,
	OBJECT_COALESCED, /* named as SEALED: the folder tells them apart */
	OBJECT_SNAPSHOT,
	OBJECT_LINEAGE,
};

struct object_name {
	enum object_type type;
	uint32_t lineage;
	uint64_t first_txid; /* of a snapshot: REDO + 1; of a growing segment: its key */
	uint64_t last_txid;  /* of a snapshot: TXID; of a growing segment: 0, not known */
	int64_t first_us, last_us;
	uint32_t min_pages;
};

void object_name_format(const struct object_name *n, char out[OBJECT_NAME_MAX]);
/* False when the text is not exactly what object_name_format() writes.  Sealed segments and
 * coalesced objects both give OBJECT_SEALED. */
bool object_name_parse(const char *text, struct object_name *ret);

/*
 * A damaged file that a repair replaced keeps its bytes under another name, FILE.damaged-TIME with the
 * UTC time of that as 20240115T103000Z, which no reader looks at; it goes after ASIDE_KEEP_US.
 */
#define ASIDE_SUFFIX ".damaged-"
#define ASIDE_KEEP_US (INT64_C(30) * 86400 * 1000000)
/* Whether it is such a name, and of when. */
bool aside_name_parse(const char *file, int64_t *ret_us);

/* 1 to 200 bytes of UTF-8, no '/', no control bytes, not beginning with '.', not ending in
 * -wal, -shm, -journal: else ERR_USAGE saying which. */
int db_name_check(const char *name, struct err *err) MUST_USE;

#endif

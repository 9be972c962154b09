/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The database that a file holds, to be restored or looked into, told by content and not by name:
 *
 *   a database          read where it lies; what a -wal beside it has committed counts, as
 *                       SQLite would have it (a pair that a restore set aside is a source too)
 *   a backup of asof    a seekable pack (gz/pack.h): read at random, every block by its hash;
 *                       of a raw copy (NAME.db.gz with NAME.db-wal.gz) the -wal counts, too
 *   gzip of others      in order only, every member's CRC checked
 *   NAME.gpg            one of these through gpg(1), in order only
 *
 * The file is opened for reading, and the -wal beside it; nothing is written to either.  Not for a
 * process that captures the same file: closing a descriptor drops its locks.
 *
 * Errors: NOT_FOUND (no such file, or no gpg), DAMAGED (neither database nor gzip, empty, shorter
 * than its header says, checksums), REFUSED (a folder or device; a database that another process
 * has open, or with a -journal of an interrupted transaction: it is no state of its own), VERSION.
 */
#ifndef ASOF_RESTORE_FILE_H
#define ASOF_RESTORE_FILE_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/base/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A whole database.  Either `read` is there, for many threads, or `next`, for one. */
struct restore_image {
	void *ctx;
	const char *label; /* for messages */
	uint32_t page_size;
	uint64_t size_bytes; /* with `next`: what its header says, 0 unknown; the end tells */
	/* A hint that all of it will be read now; may be NULL. */
	void (*expect)(void *ctx);
	/* Exactly `len` bytes at `offset`, which lie within the size, or an error. */
	int (*read)(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err);
	/* The next bytes, fewer than `len` only at the end, where the whole is known to be right. */
	int (*next)(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err);
	struct hash128 state; /* that it must have; zero: not known */
};

struct restore_file;
int restore_file_open(const char *path, struct restore_file **ret, struct err *err) MUST_USE;
void restore_file_free(struct restore_file *f);
/* An image with `next` can be read once. */
const struct restore_image *restore_file_image(const struct restore_file *f);

/* Makes an image with `next` one with `read`: all of it is read, into an unlinked file in $TMPDIR
 * or /var/tmp.  `progress` as in struct restore_options, may be NULL. */
int restore_file_stage(struct restore_file *f,
                       bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes),
                       void *ctx, struct err *err) MUST_USE;

enum restore_file_kind { RESTORE_FILE_DATABASE, RESTORE_FILE_PACK, RESTORE_FILE_GZIP };
enum restore_file_kind restore_file_kind(const struct restore_file *f);
bool restore_file_encrypted(const struct restore_file *f);
/* Bytes of the file itself. */
uint64_t restore_file_stored_bytes(const struct restore_file *f);

DEFINE_CLEANUP(struct restore_file, restore_file_free);
#define cleanup_restore_file CLEANUP(restore_file_free_p)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A history of a real database, without capture: SQL is run on a plain file, and what it changed
 * becomes the next transaction of an archive of synth.h.
 */
#ifndef ASOF_TESTS_REALDB_H
#define ASOF_TESTS_REALDB_H

#include "tests/lib/synth.h"

#include <sqlite3.h>

struct realdb {
	struct synth *s;
	sqlite3 *db; /* in WAL mode, so is every image */
	char path[512];
	uint8_t *image; /* of the newest transaction */
	size_t len;
};

/* An empty database FOLDER/NAME, and its archive at FOLDER/archive. */
void realdb_new(struct realdb *r, const char *folder, const char *name, uint32_t page_size,
                const struct synth_options *o);
void realdb_free(struct realdb *r);
/* Runs SQL (it must succeed) and records the state behind it; the txid of that, which is the one
 * before when nothing changed. */
uint64_t realdb_exec(struct realdb *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The bytes of a file; free() them. */
uint8_t *realdb_file(const char *path, size_t *ret_len);

/* What a query answers, as text with types told apart; free() it.  An error is text, too. */
char *answer_of(sqlite3 *db, const char *sql);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: what was run on a schedule and how it ended, kept in the archive.
 *
 * ARCHIVE/journal (and journal.1, the older half) are text, one JSON object a line:
 *
 *     {"job":"backup nightly","database":"trades.db","scheduled":"2024-01-15T02:00:00Z",
 *      "began":"2024-01-15T02:00:07Z","ended":"2024-01-15T02:00:09.5Z","ok":true,"message":""}
 *
 *     job        what ran: "backup NAME", "verify", "verify-full", "retain", "cleanup"
 *     database   its name in the archive; "" where it was for all
 *     scheduled  the moment that it ran for; the latest one, when it made up for several
 *     began      when it began
 *     ended      when it ended; null: the job was first seen then, and has not run yet
 *     ok         false: it failed, and `message` says why
 *
 *   (1) A line is written by one write(2) at the end of the file, then fsynced.  A last line
 *       without its end, or one that is no JSON object, is passed over: a crash, no damage.  The
 *       next writer ends such a line first.
 *   (2) When the file passes JOURNAL_BYTES (and what (2) puts there) it becomes journal.1, in place of the older one.  What
 *       jobs need to know of their last run is written anew then (journal_append()).
 *   (3) One process writes: the one that holds the file's lock.
 *
 * Functions of one journal are called by one thread at a time.
 */
#ifndef ASOF_MONITOR_JOURNAL_H
#define ASOF_MONITOR_JOURNAL_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define JOURNAL_NAME "journal"
#define JOURNAL_NAME_OLD "journal.1"
#define JOURNAL_BYTES (1u << 20)
#define JOURNAL_LINE_MAX 8192

struct journal_entry {
	char job[64];
	char database[256];
	int64_t scheduled_us, began_us;
	int64_t ended_us; /* 0: first seen at began_us */
	bool ok;
	char message[400];
};

/* ---- writing ---- */
struct journal;
/* `root` is the archive, which must exist.  BUSY: another process writes. */
int journal_open(const char *root, struct journal **ret, struct err *err) MUST_USE;
void journal_free(struct journal *j);
int journal_append(struct journal *j, const struct journal_entry *e, struct err *err) MUST_USE;
/* The same without waiting for the disk: many at once, the last of them by journal_append(), or
 * journal_sync() after them. */
int journal_add(struct journal *j, const struct journal_entry *e, struct err *err) MUST_USE;
int journal_sync(struct journal *j, struct err *err) MUST_USE;
/* The newest entry of a job for a database; false: there is none. */
bool journal_last(const struct journal *j, const char *job, const char *database,
                  struct journal_entry *ret);

/* ---- reading, also beside a writer ---- */

struct journal_list {
	struct journal_entry *entries; /* oldest first */
	size_t n;
};
/* The newest `max` entries of runs.  No journal: none. */
int journal_read(const char *root, size_t max, struct journal_list *ret, struct err *err) MUST_USE;
void journal_list_release(struct journal_list *l);
/* Text of one line (without its end) -> entry; false: it is none. */
bool journal_parse(const char *line, size_t len, struct journal_entry *ret);

#define cleanup_journal_list CLEANUP(journal_list_release)

#endif

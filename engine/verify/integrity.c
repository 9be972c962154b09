/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/verify/verify_i.h"

#include "engine/base/clock.h"
#include "engine/view/vfs.h"

#include <inttypes.h>

#define MEMORY_BYTES ((size_t)64 << 20)
/* Instructions of SQLite between two looks at the clock and at `stop`. */
#define STEPS 20000

struct watch {
	struct run *run;
	struct err why;
};

static int on_steps(void *ctx)
{
	struct watch *w = ctx;

	return run_tick(w->run, 0, &w->why) < 0;
}

/* Rows of a PRAGMA that tells of problems; `first` keeps the first one. */
static int count_problems(sqlite3 *db, const char *sql, const char *fine, uint64_t *ret_n,
                          char *first, size_t size, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	int code = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

	*ret_n = 0;
	while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(s, 0);
		code = SQLITE_OK;
		if (!text || (fine && strcmp(text, fine) == 0))
			continue;
		if (++*ret_n == 1)
			snprintf(first, size, "%s", text);
	}
	return code == SQLITE_DONE ? vfs_error(db, err) : vfs_sqlite_error(db, err, "%s", sql);
}

static int check(struct run *r, sqlite3 *db, struct err *err)
{
	struct verify_report *rep = r->report;
	char table[160] = "", memory[64];
	size_t bytes = r->options->memory_bytes ? r->options->memory_bytes : MEMORY_BYTES;

	snprintf(memory, sizeof(memory), "PRAGMA cache_size = -%zu", bytes / 1024 + 1);
	sqlite3_exec(db, memory, NULL, NULL, NULL); /* without it, it is only slower */
	int rc = count_problems(db, "PRAGMA integrity_check", "ok", &rep->integrity_problems,
	                        rep->integrity, sizeof(rep->integrity), err);
	if (rc)
		return rc;
	/* A schema whose foreign keys do not fit (no such parent) is an error of this PRAGMA; the
	 * database is what it was. */
	struct err why = ERR_INIT;
	rc = count_problems(db, "PRAGMA foreign_key_check", NULL, &rep->foreign_key_problems, table,
	                    sizeof(table), &why);
	if (rc && why.kind != ERR_SQL)
		return err_copy(err, &why);
	if (rep->integrity_problems == 0 && rep->foreign_key_problems)
		snprintf(rep->integrity, sizeof(rep->integrity),
		         "%" PRIu64 " rows break a foreign key, the first in table %s",
		         rep->foreign_key_problems, table);
	else if (rep->integrity_problems == 0)
		snprintf(rep->integrity, sizeof(rep->integrity), "ok");
	return 0;
}

/* An image that cannot be read was named by the other checks; one that is no database is a
 * problem of its own. */
static int no_database(struct verify_report *rep, const struct err *why, struct err *err)
{
	if (why->kind != ERR_DAMAGED)
		return err_copy(err, why);
	rep->integrity_problems++;
	snprintf(rep->integrity, sizeof(rep->integrity), "%s", why->msg);
	return 0;
}

int verify_integrity(struct run *r, const struct moment *m, struct err *err)
{
	cleanup_view struct view *v = NULL;
	cleanup_vfs sqlite3 *db = NULL;
	struct watch w = {.run = r};
	struct err why = ERR_INIT;

	int rc = view_open(r->h, m->txid, &v, &why);
	rc = rc ? rc : vfs_open_view(v, &db, &why);
	if (!rc) {
		sqlite3_progress_handler(db, STEPS, on_steps, &w);
		rc = check(r, db, &why);
	}
	if (w.why.kind)
		return err_copy(err, &w.why);
	if (rc && (rc = no_database(r->report, &why, err)) < 0)
		return rc;
	r->report->integrity_done = true;
	r->note.integrity_txid = m->txid;
	r->note.integrity_at_us = clock_now_us();
	r->note.foreign_keys = r->report->foreign_key_problems;
	snprintf(r->note.integrity, sizeof(r->note.integrity), "%s", r->report->integrity);
	return 0;
}

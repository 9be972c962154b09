/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /api/v1/page/moment?db=NAME&(tx=N | at=TIME)
 *
 *   {"txid", "time_us", "not_before_us", "lineage", "bytes", "pages", "healed", "provisional",
 *    "previous": TXID or null,
 *    "tables": [{"name", "rows": N or null}], "tables_left_out": N,
 *    "changes": [{"type", "name", "how", "added", "removed", "changed"}] or null, "problem": TEXT}
 *
 * Counting may take COUNT_US, comparing with the commit before COMPARE_US: rows are null past that,
 * and changes too, with the reason in "problem".
 */
#include "engine/base/clock.h"
#include "engine/base/json.h"
#include "engine/observe/page_i.h"
#include "engine/query/diff.h"
#include "engine/view/vfs.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define COUNT_US (2 * US_PER_SECOND)
#define COMPARE_US (2 * US_PER_SECOND)
#define TABLES_MAX 200
#define PROGRESS_STEPS 2000

/* ---- tables and their rows ---- */

static int past_deadline(void *ctx)
{
	const int64_t *deadline_us = ctx;

	return clock_mono_us() > *deadline_us;
}

/* null: it took too long, or cannot be told. */
static json_t *count_rows(sqlite3 *db, const char *table, int64_t deadline_us)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	json_t *rows = NULL;

	if (clock_mono_us() > deadline_us)
		return json_null();
	char *sql = sqlite3_mprintf("SELECT count(*) FROM main.\"%w\"", table);
	if (sql && sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK &&
	    sqlite3_step(s) == SQLITE_ROW)
		rows = json_integer(sqlite3_column_int64(s, 0));
	sqlite3_free(sql);
	return rows ? rows : json_null();
}

/* What runs code of the database's choosing is left out: virtual tables. */
static const char tables_sql[] = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND "
                                 "rootpage > 0 ORDER BY name";

static int list_tables(sqlite3 *db, int64_t *deadline_us, json_t *list, uint64_t *ret_left_out,
                       struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	int rc;

	if (sqlite3_prepare_v2(db, tables_sql, -1, &s, NULL) != SQLITE_OK)
		return vfs_sqlite_error(db, err, "tables");
	while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(s, 0);
		if (json_array_size(list) >= TABLES_MAX) {
			++*ret_left_out;
			continue;
		}
		json_array_append_new(list,
		                      json_pack("{so so}", "name", json_text(name), "rows",
		                                count_rows(db, name ? name : "", *deadline_us)));
	}
	return rc == SQLITE_DONE ? 0 : vfs_sqlite_error(db, err, "tables");
}

static int tables_of(struct view *v, json_t *list, uint64_t *ret_left_out, struct err *err)
{
	cleanup_vfs sqlite3 *db = NULL;
	int64_t deadline_us = clock_mono_us() + COUNT_US;

	int rc = vfs_open_view(v, &db, err);
	if (rc < 0)
		return rc;
	sqlite3_progress_handler(db, PROGRESS_STEPS, past_deadline, &deadline_us);
	rc = list_tables(db, &deadline_us, list, ret_left_out, err);
	/* The handler's end of a count is no error of the image. */
	struct err why = ERR_INIT;
	return rc < 0 ? rc : vfs_error(db, &why) < 0 ? err_copy(err, &why) : 0;
}

/* ---- what changed ---- */

struct alarm_clock {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
	_Atomic bool stop;
};

static void *ring(void *ctx)
{
	struct alarm_clock *a = ctx;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += COMPARE_US / US_PER_SECOND;
	pthread_mutex_lock(&a->lock);
	while (!a->done && pthread_cond_timedwait(&a->changed, &a->lock, &until) != ETIMEDOUT)
		;
	a->stop = true;
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

static int compare_in_time(struct view *from, struct view *to, struct diff_summary *ret,
                           struct err *err)
{
	struct alarm_clock a = {.lock = PTHREAD_MUTEX_INITIALIZER,
	                        .changed = PTHREAD_COND_INITIALIZER};
	const struct diff_options options = {.stop = &a.stop};

	if (pthread_create(&a.thread, NULL, ring, &a) != 0)
		return err_set(err, ERR_NOMEM, 0, "no thread");
	int rc = diff_summarize(from, to, &options, ret, err);
	pthread_mutex_lock(&a.lock);
	a.done = true;
	pthread_cond_signal(&a.changed);
	pthread_mutex_unlock(&a.lock);
	pthread_join(a.thread, NULL);
	return err_kind_of(rc) == ERR_CANCELLED
	               ? err_set(err, ERR_CANCELLED, 0,
	                         "comparing took more than %d s (asof diff takes its time)",
	                         (int)(COMPARE_US / US_PER_SECOND))
	               : rc;
}

static json_t *changes_json(const struct diff_summary *s)
{
	static const char *const how[] = {[DIFF_SAME] = "same",
	                                  [DIFF_CHANGED] = "changed",
	                                  [DIFF_CREATED] = "created",
	                                  [DIFF_DROPPED] = "dropped"};
	json_t *list = json_array();

	for (size_t i = 0; i < s->n_objects && i < TABLES_MAX; i++) {
		const struct diff_object *o = &s->objects[i];
		json_array_append_new(
		        list, json_pack("{so so ss so so so}", "type", json_text(o->type), "name",
		                        json_text(o->name), "how", how[o->how], "added",
		                        page_int(o->added), "removed", page_int(o->removed),
		                        "changed", page_int(o->changed)));
	}
	return list;
}

static int changes_of(struct history *h, const struct moment *m, struct view *to, json_t *into,
                      struct err *err)
{
	cleanup_view struct view *from = NULL;
	cleanup_diff_summary struct diff_summary s = {.objects = NULL};
	struct err ignored = ERR_INIT;
	struct moment before;

	if (history_before(h, m->time_us - 1, &before, &ignored) < 0)
		return 0; /* the first one */
	json_object_set_new(into, "previous", page_int(before.txid));
	int rc = view_open(h, before.txid, &from, err);
	rc = rc ? rc : compare_in_time(from, to, &s, err);
	if (rc == 0)
		json_object_set_new(into, "changes", changes_json(&s));
	return rc;
}

/* ---- */

static void tell_problem(json_t *o, int rc, const struct err *why)
{
	if (rc < 0)
		json_object_set_new(o, "problem", json_text(why->msg));
}

int page_get_moment(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_page_db struct page_db p;
	cleanup_view struct view *v = NULL;
	struct err why = ERR_INIT;
	uint64_t left_out = 0;
	struct moment m;

	int rc = page_open(q, &p, err);
	rc = rc ? rc : page_moment(q, p.history, &m, err);
	rc = rc ? rc : view_open(p.history, m.txid, &v, err);
	if (rc < 0)
		return rc;
	json_t *tables = json_array();
	json_t *o = json_pack(
	        "{so sI sI si so so sb sb sn sn ss}", "txid", page_int(m.txid), "time_us",
	        (json_int_t)m.time_us, "not_before_us", (json_int_t)m.not_before_us, "lineage",
	        (int)m.lineage, "bytes", page_int(view_size(v)), "pages", page_int(m.n_frames),
	        "healed", (m.flags & MOMENT_HEALED) != 0, "provisional",
	        (m.flags & MOMENT_PROVISIONAL) != 0, "previous", "changes", "problem", "");
	rc = tables_of(v, tables, &left_out, &why);
	tell_problem(o, rc, &why);
	json_object_set_new(o, "tables", tables);
	json_object_set_new(o, "tables_left_out", page_int(left_out));
	if (rc == 0)
		tell_problem(o, changes_of(p.history, &m, v, o, &why), &why);
	/* The view lies in the history that page_close() gives back. */
	view_free(take_ptr(v));
	return http_json(r, o, err);
}

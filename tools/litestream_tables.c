/* SPDX-License-Identifier: Apache-2.0 */
/* The lists, with the columns that scripts know. */
#include "tools/litestream.h"

#include "engine/base/clock.h"
#include "engine/view/history.h"
#include "engine/view/replay.h"
#include "tools/cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#define GENERATION_FMT "%016" PRIx32
#define INDEX_FMT "%08" PRIx64

/* Names of the archive and of the destinations, with commas. */
static void format_replicas(const struct config_database *d, char *out, size_t out_bytes)
{
	size_t used = (size_t)snprintf(out, out_bytes, "file");

	for (size_t i = 0; i < d->n_destinations && used < out_bytes; i++)
		used += (size_t)snprintf(out + used, out_bytes - used, ",%s",
		                         d->destinations[i].name);
}

int litestream_databases(const struct litestream *l, struct err *err)
{
	static const char *const header[] = {"path", "replicas"};
	cleanup_config struct config *config = NULL;
	cleanup_table struct table *t = NULL;
	char replicas[512];
	int rc = litestream_load_config(l, false, &config, err);

	rc = rc ? rc : table_new(header, 2, &t, err);
	for (size_t i = 0; !rc && i < config->n_databases; i++) {
		const struct config_database *d = &config->databases[i];
		format_replicas(d, replicas, sizeof(replicas));
		rc = d->path ? table_cell(t, err, "%s", d->path)
		             : table_cell(t, err, "%s/%s", d->dir, d->pattern);
		rc = rc ? rc : table_cell(t, err, "%s", replicas);
	}
	if (!rc)
		table_print(t, stdout);
	return rc;
}

/*
 * Calls `row` for each replica of the database that is meant.  One that has nothing of it is
 * passed over, one that fails is named; it is an error if none was good.
 */
typedef int row_fn(const struct litestream *l, const struct litestream_target *target,
                   const char *replica, struct history *h, struct table *t, struct err *err);

static int print_rows(const struct litestream *l, const char *const *header, size_t n_columns,
                      row_fn *row, struct err *err)
{
	cleanup_litestream_target struct litestream_target target = {0};
	cleanup_table struct table *t = NULL;
	size_t n_good = 0;
	struct err why = ERR_INIT;
	int rc = litestream_find(l, l->args[0], &target, err);

	rc = rc ? rc : table_new(header, n_columns, &t, err);
	for (size_t i = 0; !rc && i < target.n_replicas; i++) {
		cleanup_archive struct archive *a = NULL;
		cleanup_history struct history *h = NULL;
		const struct litestream_replica *r = &target.replicas[i];
		if (litestream_open(&target, r, &a, &h, &why)) {
			if (why.kind != ERR_NOT_FOUND && i + 1 < target.n_replicas)
				fprintf(stderr, "litestream: %s: %s\n", r->name, why.msg);
			continue;
		}
		n_good++;
		rc = row(l, &target, r->name, h, t, err);
	}
	if (rc)
		return rc;
	if (!n_good)
		return err_copy(err, &why);
	table_print(t, stdout);
	return 0;
}

/* ---- generations ---- */

/* As Go prints durations, to what matters. */
static void format_lag(int64_t us, char out[AGE_STR_MAX])
{
	int64_t s = us / US_PER_SECOND;

	if (us < US_PER_SECOND)
		snprintf(out, AGE_STR_MAX, "%" PRId64 "ms", us / 1000);
	else if (s < 60)
		snprintf(out, AGE_STR_MAX, "%.1fs", (double)us / (double)US_PER_SECOND);
	else if (s < 3600)
		snprintf(out, AGE_STR_MAX, "%" PRId64 "m%" PRId64 "s", s / 60, s % 60);
	else
		snprintf(out, AGE_STR_MAX, "%" PRId64 "h%" PRId64 "m", s / 3600, s / 60 % 60);
}

static int64_t changed_us(const char *path, const char *end)
{
	char name[4096];
	struct stat st;

	if ((size_t)snprintf(name, sizeof(name), "%s%s", path, end) >= sizeof(name) ||
	    stat(name, &st))
		return 0;
	return st.st_mtim.tv_sec * US_PER_SECOND + st.st_mtim.tv_nsec / 1000;
}

/* By how much what is known ends before the last change of the live files (of a URL: before
 * now).  A lineage that was left does not lag. */
static int64_t lag_of(const struct litestream_target *target, const struct history_status *s)
{
	int64_t until = clock_now_us();

	if (target->db_path) {
		int64_t wal = changed_us(target->db_path, "-wal");
		until = changed_us(target->db_path, "");
		until = wal > until ? wal : until;
	}
	return until > s->known_until_us ? until - s->known_until_us : 0;
}

static int generation_rows(const struct litestream *l, const struct litestream_target *target,
                           const char *replica, struct history *h, struct table *t, struct err *err)
{
	struct litestream_bounds b = {.max_txid = UINT64_MAX, .max_us = INT64_MAX};
	struct history_status s;
	struct moment first, last;
	char lag[AGE_STR_MAX];
	struct err why = ERR_INIT;
	int rc = history_get_status(h, &s, err);

	for (uint64_t txid = 1; !rc; txid = last.txid + 1) {
		if (history_next(h, txid, &first, &why))
			return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
		b.lineage = first.lineage;
		if ((rc = litestream_newest(h, &b, &last, err)))
			break;
		format_lag(last.txid == s.last_txid ? lag_of(target, &s) : 0, lag);
		rc = table_cell(t, err, "%s", replica);
		rc = rc ? rc : table_cell(t, err, GENERATION_FMT, first.lineage);
		rc = rc ? rc : table_cell(t, err, "%s", lag);
		rc = rc ? rc : table_time(t, first.time_us, err);
		rc = rc ? rc : table_time(t, last.time_us, err);
	}
	return rc;
}

int litestream_generations(const struct litestream *l, struct err *err)
{
	static const char *const header[] = {"name", "generation", "lag", "start", "end"};

	return print_rows(l, header, 5, generation_rows, err);
}

/* ---- snapshots and wal ---- */

static int object_row(const struct history_object *o, const char *replica, bool with_offset,
                      struct table *t, struct err *err)
{
	int rc = table_cell(t, err, "%s", replica);

	rc = rc ? rc : table_cell(t, err, GENERATION_FMT, o->lineage);
	rc = rc ? rc : table_cell(t, err, INDEX_FMT, o->last_txid);
	if (with_offset) /* each object is a WAL of its own */
		rc = rc ? rc : table_cell(t, err, "0");
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, o->bytes);
	return rc ? rc : table_time(t, o->last_us, err);
}

static int snapshot_rows(const struct litestream *l, const struct litestream_target *target,
                         const char *replica, struct history *h, struct table *t, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	size_t n = 0;
	int rc = history_objects(h, &objects, &n, err);

	for (size_t i = 0; !rc && i < n; i++)
		if (objects[i].type == HISTORY_SNAPSHOT)
			rc = object_row(&objects[i], replica, false, t, err);
	return rc;
}

static int wal_rows(const struct litestream *l, const struct litestream_target *target,
                    const char *replica, struct history *h, struct table *t, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	uint32_t lineage = 0;
	size_t n = 0;
	int rc = l->generation ? litestream_generation(l, &lineage, err) : 0;

	rc = rc ? rc : history_objects(h, &objects, &n, err);
	for (size_t i = 0; !rc && i < n; i++) {
		const struct history_object *o = &objects[i];
		bool fine = o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
		if (fine && o->last_txid >= o->first_txid && (!lineage || o->lineage == lineage))
			rc = object_row(o, replica, true, t, err);
	}
	return rc;
}

int litestream_snapshots(const struct litestream *l, struct err *err)
{
	static const char *const header[] = {"replica", "generation", "index", "size", "created"};

	return print_rows(l, header, 5, snapshot_rows, err);
}

int litestream_wal(const struct litestream *l, struct err *err)
{
	static const char *const header[] = {"replica", "generation", "index",
	                                     "offset",  "size",       "created"};

	return print_rows(l, header, 6, wal_rows, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/api.h"

#include "engine/backup/backup.h"
#include "engine/base/clock.h"
#include "engine/base/json.h"
#include "engine/monitor/journal.h"
#include "engine/observe/observe.h"
#include "engine/observe/routes.h"
#include "engine/observe/sent.h"

#include <string.h>

#define COMMITS_DEFAULT 100
#define COMMITS_MAX 1000
#define ROWS_DEFAULT 100
#define ROWS_MAX 5000
#define RUNS_READ 20000
/* Of the newest. */
#define GAPS_READ 1000

/* ---- status, databases ---- */

static json_t *databases_json(const struct health_facts *f)
{
	json_t *list = json_array();

	for (size_t i = 0; i < f->n_databases; i++)
		json_array_append_new(list, api_database_json(&f->databases[i]));
	return list;
}

static json_t *daemon_json(const struct health_facts *f)
{
	return json_pack("{sb so* si so* so}", "answers", (int)f->daemon_answers, "problem",
	                 f->daemon_problem[0] ? json_text(f->daemon_problem) : NULL, "pid", f->pid,
	                 "version", f->version[0] ? json_text(f->version) : NULL, "started",
	                 json_moment(f->started_us));
}

static json_t *status_json(const struct health_facts *f, const struct health_verdict *v)
{
	json_t *checks = json_array(), *archives = json_array(), *jobs = json_array();

	for (size_t i = 0; i < v->n; i++)
		json_array_append_new(checks, api_check_json(&v->lines[i]));
	for (size_t i = 0; i < f->n_archives; i++)
		json_array_append_new(archives, api_archive_json(&f->archives[i]));
	for (size_t i = 0; i < f->n_jobs; i++)
		json_array_append_new(jobs, api_job_json(&f->jobs[i]));
	return json_pack("{sb ss so so so so so so}", "healthy", (int)v->healthy, "status",
	                 health_level_name(v->level), "at", json_moment(f->at_us), "daemon",
	                 daemon_json(f), "checks", checks, "archives", archives, "databases",
	                 databases_json(f), "jobs", jobs);
}

static int get_status(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);
	cleanup_health_verdict struct health_verdict v = {0};
	struct health_limits limits;

	if (!f)
		return -(int)err->kind;
	health_limits_default(&limits);
	int rc = health_judge(&f->f, &limits, clock_now_us(), &v, err);
	return rc ? rc : http_json(r, status_json(&f->f, &v), err);
}

static int get_databases(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);

	if (!f)
		return -(int)err->kind;
	return http_json(r, json_pack("{so}", "databases", databases_json(&f->f)), err);
}

/* ---- commits ---- */

struct commits_request {
	int64_t since_us, until_us;
	uint64_t from_txid, limit;
	bool newest; /* neither since nor from_txid */
};

static int parse_commits(const struct http_request *q, struct commits_request *c, struct err *err)
{
	*c = (struct commits_request){.until_us = INT64_MAX};
	int rc = http_query_time(q, "since", &c->since_us, err);

	rc = rc ? rc : http_query_time(q, "until", &c->until_us, err);
	rc = rc ? rc : http_query_uint(q, "from_txid", 0, UINT64_MAX, 0, &c->from_txid, err);
	rc = rc ? rc : http_query_uint(q, "limit", 1, COMMITS_MAX, COMMITS_DEFAULT, &c->limit, err);
	c->newest = !http_query(q, "since") && !http_query(q, "from_txid");
	return rc;
}

static json_t *commit_json(const struct moment *m, uint64_t bytes)
{
	return json_pack("{sI so so si sI si sI sb}", "txid", (json_int_t)m->txid, "time",
	                 json_moment(m->time_us), "not_before", json_moment(m->not_before_us),
	                 "pages", (int)m->n_frames, "bytes", (json_int_t)bytes, "lineage",
	                 (int)m->lineage, "database_bytes",
	                 (json_int_t)m->page_size * (json_int_t)m->n_pages, "after_gap",
	                 (int)((m->flags & MOMENT_HEALED) != 0));
}

/* 1: *ret; 0: no more. */
static int next_commit(struct history *h, uint64_t txid, int64_t until_us, struct moment *ret,
                       struct err *err)
{
	struct err why = ERR_INIT;
	int rc = history_next(h, txid, ret, &why);

	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	return rc ? err_copy(err, &why) : ret->time_us <= until_us;
}

/* The commits from `txid` on, at most `limit`, into `list`; *ret_next: 0, or where more begin. */
static int walk(struct history *h, uint64_t txid, const struct commits_request *c, json_t *list,
                uint64_t *ret_next, struct err *err)
{
	struct moment m;
	int more = 1;

	*ret_next = 0;
	while ((more = next_commit(h, txid, c->until_us, &m, err)) > 0) {
		if (json_array_size(list) == c->limit) {
			*ret_next = m.txid;
			return 0;
		}
		/* As a WAL has them: a page and its frame's header. */
		json_array_append_new(list,
		                      commit_json(&m, (uint64_t)m.n_frames * (m.page_size + 24)));
		txid = m.txid + 1;
	}
	return more;
}

/*
 * The txid at which the newest `limit` commits begin.  Txids have holes where commits were thinned
 * out, so the span is widened until it holds enough of them.
 */
static int find_newest(struct history *h, const struct commits_request *c, uint64_t *ret,
                       struct err *err)
{
	cleanup_free uint64_t *ring = calloc(c->limit, sizeof(*ring));
	struct moment last, first, m;

	if (!ring)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	int rc = c->until_us == INT64_MAX ? history_latest(h, &last, err)
	                                  : history_before(h, c->until_us, &last, err);
	rc = rc ? rc : history_first(h, &first, err);
	for (uint64_t span = c->limit; rc == 0;
	     span = span > UINT64_MAX / 4 ? UINT64_MAX : 4 * span) {
		uint64_t txid = last.txid - first.txid < span ? first.txid : last.txid - span + 1;
		bool whole = txid == first.txid;
		uint64_t n = 0;
		int more = 1;
		for (; txid <= last.txid; txid = m.txid + 1) {
			more = next_commit(h, txid, last.time_us, &m, err);
			if (more <= 0)
				break;
			ring[n++ % c->limit] = m.txid;
		}
		if (more < 0)
			return more;
		if (n < c->limit && !whole)
			continue;
		*ret = n < c->limit ? first.txid : ring[n % c->limit];
		break;
	}
	return rc;
}

static int list_commits(struct history *h, const struct commits_request *c, json_t *list,
                        uint64_t *ret_next, struct err *err)
{
	uint64_t txid = c->from_txid;
	struct err why = ERR_INIT;
	struct moment m;

	*ret_next = 0;
	int rc = history_refresh(h, &why);
	if (rc == 0 && c->newest)
		rc = find_newest(h, c, &txid, &why);
	else if (rc == 0 && c->since_us) {
		rc = history_after(h, c->since_us, &m, &why);
		if (rc == 0 && m.txid > txid)
			txid = m.txid;
	}
	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0; /* none there */
	if (rc)
		return err_copy(err, &why);
	return walk(h, txid, c, list, ret_next, err);
}

/* Of the query's db, or of the only one there is. */
static int find_database(const struct http_request *q, const struct health_facts *f,
                         const struct health_database **ret, struct err *err)
{
	const char *name = http_query(q, "db");

	if (!name && f->n_databases == 1) {
		*ret = &f->databases[0];
		return 0;
	}
	return name ? observe_find(f, name, ret, err)
	            : err_set(err, ERR_USAGE, 0, "db: which database? (?db=NAME)");
}

static int get_commits(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);
	const struct health_database *d;
	struct commits_request c;
	struct archive *a;
	struct history *h;
	uint64_t next = 0;

	if (!f)
		return -(int)err->kind;
	int rc = parse_commits(q, &c, err);
	rc = rc ? rc : find_database(q, &f->f, &d, err);
	rc = rc ? rc : observe_open(q->observe, d, &a, &h, err);
	if (rc)
		return rc;
	json_t *list = json_array();
	rc = list_commits(h, &c, list, &next, err);
	history_put(h);
	archives_put(observe_archives(q->observe), a);
	if (rc) {
		json_decref(list);
		return rc;
	}
	return http_json(r,
	                 json_pack("{so so so}", "database", json_text(d->name), "commits", list,
	                           "next_txid",
	                           next ? json_integer((json_int_t)next) : json_null()),
	                 err);
}

/* ---- backups ---- */

static bool stem_is(const char *database, const char *stem)
{
	const char *dot = strrchr(database, '.');
	size_t len = dot && dot != database ? (size_t)(dot - database) : strlen(database);

	return strlen(stem) == len && strncmp(database, stem, len) == 0;
}

static json_t *backup_json(const struct backup_entry *e, const char *root,
                           const struct sent_places *sent)
{
	return json_pack("{so so ss so so sI sb sb so so so so}", "name", json_text(e->name),
	                 "archive", json_text(root), "type", backup_type_names[e->type], "database",
	                 json_text(e->db), "time", json_moment(e->time_us), "bytes",
	                 (json_int_t)(e->size_bytes + e->companion_bytes), "compressed",
	                 (int)e->compressed, "encrypted", (int)e->encrypted, "sha256",
	                 e->sha256[0] ? json_text(e->sha256) : json_null(), "txid",
	                 e->txid ? json_integer((json_int_t)e->txid) : json_null(), "label",
	                 e->label && e->label[0] ? json_text(e->label) : json_null(),
	                 "destinations", sent_places_of(sent, e));
}

struct dated {
	int64_t time_us;
	json_t *value;
};

static int newest_first(const void *a, const void *b)
{
	const struct dated *x = a, *y = b;
	return (x->time_us < y->time_us) - (x->time_us > y->time_us);
}

/* The newest `limit` of `rows`, whose values it takes over, all of them. */
static json_t *take_newest(struct dated *rows, size_t n, uint64_t limit)
{
	json_t *list = json_array();

	if (n)
		qsort(rows, n, sizeof(*rows), newest_first);
	for (size_t i = 0; i < n; i++) {
		if (i < limit)
			json_array_append_new(list, rows[i].value);
		else
			json_decref(rows[i].value);
	}
	return list;
}

static int add_dated(struct dated **rows, size_t *n, int64_t time_us, json_t *value,
                     struct err *err)
{
	struct dated *row = value ? facts_add(rows, n, sizeof(*row)) : NULL;

	if (!row) {
		json_decref(value);
		return err_set(err, ERR_NOMEM, 0, "no memory");
	}
	*row = (struct dated){time_us, value};
	return 0;
}

static int add_backups(const struct http_request *q, const struct config *config, const char *root,
                       struct dated **rows, size_t *n, struct err *err)
{
	const char *db = http_query(q, "db"), *type = http_query(q, "type");
	cleanup_backup_list struct backup_list list = {0};
	cleanup_sent_places struct sent_places sent = {0};
	enum backup_type wanted = BACKUP_MANUAL;

	int rc = type ? backup_type_parse(type, &wanted, err) : 0;
	rc = rc ? rc : backup_list_read(root, &list, err);
	rc = rc ? rc : sent_places_read(config, root, &sent, err);
	for (size_t i = 0; i < list.n && rc == 0; i++) {
		const struct backup_entry *e = &list.entries[i];
		if ((type && e->type != wanted) ||
		    (db && !stem_is(db, e->db) && strcmp(db, e->db) != 0))
			continue;
		rc = add_dated(rows, n, e->time_us, backup_json(e, root, &sent), err);
	}
	return rc;
}

/* What lies elsewhere, of the databases that were asked for. */
static json_t *destinations_of_backups(const struct health_facts *f, const char *db)
{
	json_t *list = json_array();

	for (size_t i = 0; i < f->n_sent; i++)
		if (!db || strcmp(db, f->sent[i].database) == 0 || stem_is(f->sent[i].database, db))
			json_array_append_new(list, api_sent_json(&f->sent[i]));
	return list;
}

static int get_backups(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);
	cleanup_free struct dated *rows = NULL;
	uint64_t limit;
	size_t n = 0;

	if (!f)
		return -(int)err->kind;
	int rc = http_query_uint(q, "limit", 1, ROWS_MAX, ROWS_DEFAULT, &limit, err);
	struct config_ref *c = observe_config(q->observe);
	for (size_t i = 0; i < f->f.n_archives && rc == 0; i++)
		if (!f->f.archives[i].unreadable[0])
			rc = add_backups(q, c->config, f->f.archives[i].root, &rows, &n, err);
	config_ref_put(c);
	json_t *list = take_newest(rows, n, rc ? 0 : limit);
	if (rc) {
		json_decref(list);
		return rc;
	}
	return http_json(r,
	                 json_pack("{so sI so}", "backups", list, "total", (json_int_t)n,
	                           "destinations",
	                           destinations_of_backups(&f->f, http_query(q, "db"))),
	                 err);
}

/* ---- events ---- */

static json_t *run_json(const struct journal_entry *e)
{
	return json_pack("{ss so so so so so sb so}", "event", "run", "time",
	                 json_moment(e->ended_us), "database",
	                 e->database[0] ? json_text(e->database) : json_null(), "job",
	                 json_text(e->job), "began", json_moment(e->began_us), "scheduled",
	                 json_moment(e->scheduled_us), "ok", (int)e->ok, "message",
	                 e->message[0] ? json_text(e->message) : json_null());
}

static json_t *gap_json(const struct health_database *d, const struct gap *g)
{
	return json_pack("{ss so so so so sI sI}", "event", "gap", "time", json_moment(g->after_us),
	                 "database", json_text(d->name), "from", json_moment(g->before_us), "to",
	                 json_moment(g->after_us), "from_txid", (json_int_t)g->before_txid,
	                 "to_txid", (json_int_t)g->after_txid);
}

static int add_runs(const char *root, const char *db, int64_t since_us, struct dated **rows,
                    size_t *n, struct err *err)
{
	cleanup_journal_list struct journal_list runs = {0};
	int rc = journal_read(root, RUNS_READ, &runs, err);

	for (size_t i = 0; i < runs.n && rc == 0; i++) {
		const struct journal_entry *e = &runs.entries[i];
		if (e->ended_us && e->ended_us >= since_us && (!db || strcmp(db, e->database) == 0))
			rc = add_dated(rows, n, e->ended_us, run_json(e), err);
	}
	return rc;
}

static int add_gaps(struct observe *o, const struct health_database *d, int64_t since_us,
                    struct dated **rows, size_t *n, struct err *err)
{
	size_t first = d->gaps > GAPS_READ ? (size_t)d->gaps - GAPS_READ : 0;
	struct err why = ERR_INIT;
	struct archive *a;
	struct history *h;
	struct gap g;

	if (d->gaps == 0 || !d->stored)
		return 0;
	int rc = observe_open(o, d, &a, &h, err);
	if (rc)
		return rc;
	for (size_t i = first; rc == 0 && history_gap(h, i, &g, &why) == 0; i++)
		if (g.after_us >= since_us)
			rc = add_dated(rows, n, g.after_us, gap_json(d, &g), err);
	history_put(h);
	archives_put(observe_archives(o), a);
	return rc;
}

static int get_events(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);
	const struct health_database *only = NULL;
	const char *db = http_query(q, "db");
	cleanup_free struct dated *rows = NULL;
	int64_t since_us = INT64_MIN;
	uint64_t limit;
	size_t n = 0;

	if (!f)
		return -(int)err->kind;
	int rc = http_query_uint(q, "limit", 1, ROWS_MAX, ROWS_DEFAULT, &limit, err);
	rc = rc ? rc : http_query_time(q, "since", &since_us, err);
	rc = rc || !db ? rc : observe_find(&f->f, db, &only, err);
	for (size_t i = 0; i < f->f.n_archives && rc == 0; i++)
		if (!f->f.archives[i].unreadable[0])
			rc = add_runs(f->f.archives[i].root, only ? only->name : NULL, since_us,
			              &rows, &n, err);
	for (size_t i = 0; i < f->f.n_databases && rc == 0; i++)
		if (!only || only == &f->f.databases[i])
			rc = add_gaps(q->observe, &f->f.databases[i], since_us, &rows, &n, err);
	json_t *list = take_newest(rows, n, rc ? 0 : limit);
	if (rc) {
		json_decref(list);
		return rc;
	}
	return http_json(r, json_pack("{so}", "events", list), err);
}

const struct http_route routes_api[] = {{"GET", "/api/v1/status", HTTP_ALL, get_status},
                                        {"GET", "/api/v1/databases", HTTP_ALL, get_databases},
                                        {"GET", "/api/v1/commits", HTTP_ALL, get_commits},
                                        {"GET", "/api/v1/backups", HTTP_ALL, get_backups},
                                        {"GET", "/api/v1/events", HTTP_ALL, get_events},
                                        {0}};

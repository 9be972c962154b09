/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page at / and what it alone asks for.  Times are µs since 1970 (_us); 0: never, or not known.
 *
 *   GET /  /page.css  /page.js        files of engine/observe/page, embedded
 *   POST /api/v1/page/login           with the token: sets the cookie (http.h); …/logout takes it away
 *   GET /api/v1/page/overview         what one could restore: each database, and all that is wrong
 *   GET /api/v1/page/timeline?db=NAME&from=TIME&to=TIME[&buckets=N]
 *       N spans (240; 500 at most) with the commits made in each and the size at its end, and the
 *       gaps, snapshots (the newest …_MAX), marks and verifications of that time.  Costs N look-ups,
 *       however many commits there are.
 *   GET /api/v1/page/download?db=NAME&tx=N      the database as of then, as asof restore writes it
 *
 * page_moment.c has what a moment held, page_jobs.c what is ordered from here.
 */
#include "engine/backup/backup.h"
#include "engine/base/clock.h"
#include "engine/base/json.h"
#include "engine/monitor/journal.h"
#include "engine/observe/page_i.h"
#include "engine/observe/routes.h"

#include <page_files.h> /* generated: see embed.py */

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS_MAX 500
#define BUCKETS_DEFAULT 240
#define PAGE_GAPS_MAX 500
#define PAGE_MARKS_MAX 500
#define PAGE_SNAPSHOTS_MAX 200
#define PAGE_RUNS_READ 2000

/* ---- files ---- */

static void strict(struct http_response *r)
{
	http_set_header(r, "Content-Security-Policy",
	                "default-src 'none'; script-src 'self'; style-src 'self'; "
	                "connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
	                "form-action 'none'; frame-ancestors 'none'");
	http_set_header(r, "Cross-Origin-Opener-Policy", "same-origin");
}

static int get_html(const struct http_request *q, struct http_response *r, struct err *err)
{
	http_static(r, "text/html; charset=utf-8", page_index_html, sizeof(page_index_html));
	strict(r);
	return 0;
}

static int get_css(const struct http_request *q, struct http_response *r, struct err *err)
{
	http_static(r, "text/css; charset=utf-8", page_page_css, sizeof(page_page_css));
	return 0;
}

static int get_js(const struct http_request *q, struct http_response *r, struct err *err)
{
	http_static(r, "text/javascript; charset=utf-8", page_page_js, sizeof(page_page_js));
	return 0;
}

/* That it came so far is what logs in. */
static int post_login(const struct http_request *q, struct http_response *r, struct err *err)
{
	http_log_in(q, r);
	return http_json(r, json_object(), err);
}

static int post_logout(const struct http_request *q, struct http_response *r, struct err *err)
{
	http_log_out(q, r);
	return http_json(r, json_object(), err);
}

/* ---- a database that was asked for ---- */

int page_open(const struct http_request *q, struct page_db *ret, struct err *err)
{
	const char *name = http_query(q, "db");

	*ret = (struct page_db){.observe = q->observe};
	if (!name)
		return err_set(err, ERR_USAGE, 0, "db: the name of a database is needed");
	ret->facts = observe_facts(q->observe, err);
	if (!ret->facts)
		return -(int)ERR_NOMEM;
	int rc = observe_find(&ret->facts->f, name, &ret->database, err);
	if (rc == 0)
		rc = observe_open(q->observe, ret->database, &ret->archive, &ret->history, err);
	if (rc < 0)
		page_close(ret);
	return rc;
}

void page_close(struct page_db *p)
{
	history_put(take_ptr(p->history));
	if (p->archive)
		archives_put(observe_archives(p->observe), take_ptr(p->archive));
	if (p->facts)
		facts_put(take_ptr(p->facts));
}

int page_moment(const struct http_request *q, struct history *h, struct moment *ret,
                struct err *err)
{
	const char *tx = http_query(q, "tx"), *at = http_query(q, "at");
	uint64_t txid;
	int64_t at_us = 0;

	if (!tx == !at)
		return err_set(err, ERR_USAGE, 0, "either tx or at is needed");
	if (tx) {
		int rc = http_query_uint(q, "tx", 1, INT64_MAX, 0, &txid, err);
		return rc ? rc : history_tx(h, txid, ret, err);
	}
	int rc = http_query_time(q, "at", &at_us, err);
	return rc ? rc : history_at(h, at_us, clock_now_us(), ret, err);
}

json_t *page_int(uint64_t n)
{
	return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

/* ---- overview ---- */

static json_t *verdict_json(const struct health_verdict *v)
{
	json_t *problems = json_array();

	for (size_t i = 0; i < v->n; i++) {
		const struct health_line *l = &v->lines[i];
		if (l->level == HEALTH_OK)
			continue;
		json_array_append_new(
		        problems,
		        json_pack("{ss so so ss ss so}", "subject", health_subject_name(l->subject),
		                  "name", json_text(l->name), "database", json_text(l->database),
		                  "level", health_level_name(l->level), "code",
		                  health_code_name(l->code), "reason", json_text(l->reason)));
	}
	return problems;
}

static json_t *destinations_json(const struct health_database *d)
{
	json_t *list = json_array();

	for (size_t i = 0; i < d->n_destinations; i++) {
		const struct health_destination *t = &d->destinations[i];
		json_array_append_new(list,
		                      json_pack("{so so so sI sI so}", "name", json_text(t->name),
		                                "url", json_text(t->url), "txid",
		                                page_int(t->replicated_txid), "replicated_us",
		                                (json_int_t)t->replicated_us, "behind_since_us",
		                                (json_int_t)t->behind_since_us, "problem",
		                                json_text(t->not_configured[0] ? t->not_configured
		                                                               : t->unreadable)));
	}
	return list;
}

/* The worst line of each database and of its destinations, which stand behind it in the order of the
 * facts. */
static void take_levels(const struct health_verdict *v, enum health_level *levels)
{
	size_t n = 0;

	for (size_t i = 0; i < v->n; i++) {
		const struct health_line *l = &v->lines[i];
		if (l->subject == HEALTH_DATABASE)
			levels[n++] = l->level;
		else if (l->subject == HEALTH_DESTINATION && n && l->level > levels[n - 1])
			levels[n - 1] = l->level;
	}
}

/* Several archives may have one name. */
static bool is_alone(const struct health_name *names, size_t n, const char *name)
{
	size_t k = health_names_find(names, n, name);

	return k + 1 >= n || strcmp(names[k + 1].name, name) != 0;
}

static json_t *database_json(const struct health_database *d, bool alone, enum health_level level)
{
	char id[HEALTH_PATH_MAX + HEALTH_NAME_MAX + 2];

	snprintf(id, sizeof(id), "%s%s%s", alone ? "" : d->archive, alone ? "" : ":", d->name);
	json_t *o =
	        json_pack("{so so so so ss so sb sb sb ss}", "id", json_text(id), "name",
	                  json_text(d->name), "path", json_text(d->path), "archive",
	                  json_text(d->archive), "state", d->told ? d->state : "unknown", "reason",
	                  json_text(d->reason), "absent", health_is_absent(d), "stored", d->stored,
	                  "restorable", d->restorable_at_us != 0 && !d->not_restorable[0], "level",
	                  health_level_name(level));
	const struct {
		const char *name;
		int64_t us;
	} times[] = {{"first_us", d->first_us},
	             {"last_us", d->last_us},
	             {"known_until_us", d->known_until_us},
	             {"verified_through_us", d->verified.through_us},
	             {"verified_at_us", d->verified.at_us},
	             {"integrity_at_us", d->verified.integrity_at_us}};
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		json_object_set_new(o, times[i].name, json_integer(times[i].us));
	const struct {
		const char *name;
		uint64_t n;
	} numbers[] = {{"first_txid", d->first_txid},     {"last_txid", d->last_txid},
	               {"db_bytes", d->db_bytes},         {"wal_bytes", d->wal_bytes},
	               {"stored_bytes", d->stored_bytes}, {"gaps", d->gaps},
	               {"snapshots", d->n_snapshots},     {"damaged", d->verified.damaged},
	               {"commits", d->commits},           {"queued_bytes", d->queued_bytes}};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		json_object_set_new(o, numbers[i].name, page_int(numbers[i].n));
	json_object_set_new(o, "integrity", json_text(d->verified.integrity));
	json_object_set_new(o, "destinations", destinations_json(d));
	return o;
}

static int get_overview(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);
	cleanup_health_verdict struct health_verdict v = {0};
	struct health_limits limits;

	if (!f)
		return -(int)ERR_NOMEM;
	int64_t now_us = clock_now_us();
	health_limits_default(&limits);
	int rc = health_judge(&f->f, &limits, now_us, &v, err);
	if (rc < 0)
		return rc;
	const size_t n = f->f.n_databases;
	cleanup_free struct health_name *names = health_names(&f->f);
	cleanup_free enum health_level *levels = calloc(n + 1, sizeof(*levels));
	if (!names || !levels)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	take_levels(&v, levels);
	struct config_ref *c = observe_config(q->observe);
	json_t *databases = json_array();
	for (size_t i = 0; i < n; i++) {
		const struct health_database *d = &f->f.databases[i];
		json_array_append_new(databases,
		                      database_json(d, is_alone(names, n, d->name), levels[i]));
	}
	json_t *o =
	        json_pack("{sI sI sb sb ss ss so so so}", "now_us", (json_int_t)now_us, "at_us",
	                  (json_int_t)f->f.at_us, "logged_in", q->logged_in, "healthy", v.healthy,
	                  "level", health_level_name(v.level), "version", ASOF_VERSION, "mount",
	                  json_text(c->config->mount.dir ? c->config->mount.dir : ""), "problems",
	                  verdict_json(&v), "databases", databases);
	config_ref_put(c);
	return http_json(r, o, err);
}

/* ---- timeline ---- */

static json_t *gaps_json(struct history *h, uint64_t n, int64_t from_us, int64_t to_us)
{
	json_t *list = json_array();
	struct err ignored = ERR_INIT;
	struct gap g;

	for (uint64_t i = n > PAGE_GAPS_MAX ? n - PAGE_GAPS_MAX : 0; i < n; i++)
		if (history_gap(h, i, &g, &ignored) == 0 && g.after_us >= from_us &&
		    g.before_us <= to_us)
			json_array_append_new(list, json_pack("{sI sI}", "from_us",
			                                      (json_int_t)g.before_us, "to_us",
			                                      (json_int_t)g.after_us));
	return list;
}

static json_t *marks_json(struct history *h, int64_t from_us, int64_t to_us)
{
	json_t *list = json_array();
	cleanup_free struct mark *marks = NULL;
	struct err ignored = ERR_INIT;
	size_t n = 0;

	if (history_marks(h, &marks, &n, &ignored) < 0)
		n = 0;
	for (size_t i = 0; i < n && json_array_size(list) < PAGE_MARKS_MAX; i++)
		if (marks[i].time_us >= from_us && marks[i].time_us <= to_us)
			json_array_append_new(list, json_pack("{so sI so}", "name",
			                                      json_text(marks[i].name), "time_us",
			                                      (json_int_t)marks[i].time_us, "txid",
			                                      page_int(marks[i].txid)));
	return list;
}

static json_t *snapshots_json(struct history *h, uint64_t n, int64_t from_us, int64_t to_us)
{
	json_t *list = json_array();
	struct err ignored = ERR_INIT;
	struct moment m;

	for (uint64_t i = n > PAGE_SNAPSHOTS_MAX ? n - PAGE_SNAPSHOTS_MAX : 0; i < n; i++)
		if (history_snapshot(h, i, &m, &ignored) == 0 && m.time_us >= from_us &&
		    m.time_us <= to_us)
			json_array_append_new(list, json_pack("{so sI}", "txid", page_int(m.txid),
			                                      "time_us", (json_int_t)m.time_us));
	return list;
}

/* By the clock of this daemon; of `asof verify` by hand there is no journal. */
static json_t *verifications_json(const struct health_database *d, int64_t from_us, int64_t to_us)
{
	cleanup_journal_list struct journal_list runs = {0};
	json_t *list = json_array();
	struct err ignored = ERR_INIT;

	if (journal_read(d->archive, PAGE_RUNS_READ, &runs, &ignored) < 0)
		return list;
	for (size_t i = 0; i < runs.n; i++) {
		const struct journal_entry *e = &runs.entries[i];
		if (strncmp(e->job, "verify", strlen("verify")) == 0 &&
		    strcmp(e->database, d->name) == 0 && e->ended_us >= from_us &&
		    e->ended_us <= to_us)
			json_array_append_new(list,
			                      json_pack("{sI sb}", "time_us",
			                                (json_int_t)e->ended_us, "ok", (int)e->ok));
	}
	return list;
}

/* The last moment before an edge; zeros: there is none yet. */
static int edge(struct history *h, int64_t us, struct moment *ret, struct err *err)
{
	struct err why = ERR_INIT;
	int rc = history_before(h, us, ret, &why);

	if (rc == 0)
		return 0;
	*ret = (struct moment){0};
	return err_kind_of(rc) == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
}

static int buckets_json(struct history *h, int64_t from_us, int64_t to_us, uint64_t n,
                        json_t *commits, json_t *bytes, struct err *err)
{
	struct moment before, m;
	struct err ignored = ERR_INIT;
	struct moment first;
	int64_t span_us = to_us - from_us;

	int rc = edge(h, from_us - 1, &before, err);
	if (before.txid == 0 && history_first(h, &first, &ignored) == 0)
		before.txid = first.txid - 1;
	for (uint64_t i = 0; i < n && rc == 0; i++) {
		int64_t k = (int64_t)i + 1, parts = (int64_t)n;
		int64_t end_us = from_us + span_us / parts * k + span_us % parts * k / parts;
		rc = edge(h, end_us - 1, &m, err);
		json_array_append_new(commits,
		                      page_int(m.txid > before.txid ? m.txid - before.txid : 0));
		json_array_append_new(bytes, page_int((uint64_t)m.n_pages * m.page_size));
		if (m.txid > before.txid)
			before = m;
	}
	return rc;
}

static int get_timeline(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_page_db struct page_db p;
	struct history_status s;
	uint64_t n;
	int64_t from_us = INT64_MIN, to_us = INT64_MIN;

	int rc = page_open(q, &p, err);
	rc = rc ? rc : http_query_uint(q, "buckets", 1, BUCKETS_MAX, BUCKETS_DEFAULT, &n, err);
	rc = rc ? rc : http_query_time(q, "from", &from_us, err);
	rc = rc ? rc : http_query_time(q, "to", &to_us, err);
	rc = rc ? rc : history_get_status(p.history, &s, err);
	if (rc < 0)
		return rc;
	from_us = from_us == INT64_MIN ? s.first_us : from_us;
	to_us = to_us == INT64_MIN ? s.known_until_us + 1 : to_us;
	if (to_us <= from_us)
		return err_set(err, ERR_USAGE, 0, "from is not before to");
	json_t *commits = json_array(), *bytes = json_array();
	rc = buckets_json(p.history, from_us, to_us, n, commits, bytes, err);
	json_t *o = json_pack("{sI sI so so so so so so}", "from_us", (json_int_t)from_us, "to_us",
	                      (json_int_t)to_us, "commits", commits, "bytes", bytes, "gaps",
	                      gaps_json(p.history, s.gaps, from_us, to_us), "marks",
	                      marks_json(p.history, from_us, to_us), "snapshots",
	                      snapshots_json(p.history, s.n_snapshots, from_us, to_us),
	                      "verifications", verifications_json(p.database, from_us, to_us));
	if (rc < 0) {
		json_decref(o);
		return rc;
	}
	return http_json(r, o, err);
}

/* ---- download ---- */

struct download {
	struct page_db p;
	struct view *view;
};

static ssize_t read_download(void *ctx, uint64_t offset, char *out, size_t size)
{
	struct download *d = ctx;
	struct err ignored = ERR_INIT; /* damage is logged where it is found */
	size_t len = 0;

	if (view_read(d->view, offset, out, size, 0, &len, &ignored) < 0)
		return -1;
	return (ssize_t)len;
}

static void close_download(void *ctx)
{
	struct download *d = ctx;

	view_free(d->view);
	page_close(&d->p);
	free(d);
}

static int open_download(const struct http_request *q, struct download *d, struct err *err)
{
	struct moment m;
	int rc = page_open(q, &d->p, err);

	rc = rc ? rc : page_moment(q, d->p.history, &m, err);
	return rc ? rc : view_open(d->p.history, m.txid, &d->view, err);
}

static int get_download(const struct http_request *q, struct http_response *r, struct err *err)
{
	struct download *d = calloc(1, sizeof(*d));
	char file[HEALTH_NAME_MAX];

	if (!d)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	int rc = open_download(q, d, err);
	if (rc < 0) {
		close_download(d);
		return rc;
	}
	snprintf(file, sizeof(file), "%s", d->p.database->name);
	for (char *c = file; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			*c = '_';
	const struct moment *m = view_moment(d->view);
	http_set_header(r, "Content-Disposition", "attachment; filename=\"tx%llu-%.150s\"",
	                (unsigned long long)m->txid, file);
	http_set_header(r, "X-Asof-Txid", "%llu", (unsigned long long)m->txid);
	http_stream(r, "application/vnd.sqlite3", view_size(d->view), read_download, close_download,
	            d);
	return 0;
}

const struct http_route routes_page[] = {
        {"GET", "/", HTTP_FILES, get_html},
        {"GET", "/page.css", HTTP_FILES, get_css},
        {"GET", "/page.js", HTTP_FILES, get_js},
        {"POST", "/api/v1/page/login", HTTP_ALL, post_login},
        {"POST", "/api/v1/page/logout", HTTP_ALL, post_logout},
        {"GET", "/api/v1/page/overview", HTTP_ALL, get_overview},
        {"GET", "/api/v1/page/timeline", HTTP_ALL, get_timeline},
        {"GET", "/api/v1/page/download", HTTP_ALL, get_download},
        {"GET", "/api/v1/page/moment", HTTP_ALL, page_get_moment},
        {"GET", "/api/v1/page/backups", HTTP_ALL, page_get_backups},
        {"POST", "/api/v1/page/backup", HTTP_ALL, page_post_backup},
        {"POST", "/api/v1/page/validate", HTTP_ALL, page_post_validate},
        {0}};

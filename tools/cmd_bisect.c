/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"
#include "tools/progress.h"
#include "tools/reading.h"

#include "engine/query/bisect.h"
#include "engine/query/diff.h"

#include <inttypes.h>
#include <string.h>

enum { OPT_SINCE = OPT_FIRST_OWN, OPT_UNTIL };

struct bisect_request {
	const struct cli *c;
	const char *archive, *since, *until;
	bool json;
	struct reading reading;
	struct progress progress;
	unsigned asked;
};

static int on_prepare(void *ctx, sqlite3 *db, struct err *err)
{
	reading_only(&((struct bisect_request *)ctx)->reading, db);
	return 0;
}

static int on_bind(void *ctx, sqlite3_stmt *s, struct err *err)
{
	struct bisect_request *q = ctx;

	return reading_bind(&q->reading, q->c, s, err);
}

static bool on_progress(void *ctx, const struct moment *m)
{
	struct bisect_request *q = ctx;
	char what[64];

	snprintf(what, sizeof(what), "txid %" PRIu64 ", %u asked", m->txid, q->asked++);
	progress_what(&q->progress, what);
	return progress_tell(&q->progress, 0, 0);
}

/* ---- output ---- */

static json_t *moment_json(const struct moment *m)
{
	return json_pack("{so so}", "txid", cli_json_uint(m->txid), "time",
	                 cli_json_time(m->time_us));
}

static int print_json(struct history *h, const struct moment *before, const struct moment *after,
                      const struct diff_summary *s, struct err *err)
{
	json_t *tables = json_array();

	for (size_t i = 0; i < s->n_objects; i++) {
		const struct diff_object *o = &s->objects[i];
		if (strcmp(o->type, "table") == 0)
			json_array_append_new(tables,
			                      json_pack("{ss so so so}", "table", o->name, "added",
			                                cli_json_uint(o->added), "removed",
			                                cli_json_uint(o->removed), "changed",
			                                cli_json_uint(o->changed)));
	}
	return cli_print_json(json_pack("{ss so so so so so}", "database", history_name(h), "txid",
	                                cli_json_uint(after->txid), "time",
	                                cli_json_time(after->time_us), "not_before",
	                                cli_json_time(after->not_before_us), "before",
	                                moment_json(before), "tables", tables),
	                      err);
}

static void print_text(struct history *h, const struct moment *before, const struct moment *after,
                       const struct diff_summary *s)
{
	char a[TIME_STR_MAX], b[TIME_STR_MAX];

	time_format(before->time_us, a);
	time_format(after->time_us, b);
	printf("%s: the answer changed with txid %" PRIu64 " at %s\n", history_name(h), after->txid,
	       b);
	printf("  as before      txid %" PRIu64 " at %s\n", before->txid, a);
	for (size_t i = 0; i < s->n_objects; i++) {
		const struct diff_object *o = &s->objects[i];
		char name[256];
		snprintf(name, sizeof(name), "%s %s", o->type, o->name);
		cli_one_line(name);
		printf("  %s: %" PRIu64 " added, %" PRIu64 " removed, %" PRIu64 " changed\n", name,
		       o->added, o->removed, o->changed);
	}
	printf("  (asof diff tx:%" PRIu64 " tx:%" PRIu64 " --sql shows the rows)\n", before->txid,
	       after->txid);
}

static int show(struct history *h, const struct bisect_request *q, const struct moment *before,
                const struct moment *after, struct err *err)
{
	static const struct diff_options all = {.table = NULL};
	cleanup_view struct view *a = NULL, *b = NULL;
	cleanup_diff_summary struct diff_summary s = {.objects = NULL};

	int rc = view_open(h, before->txid, &a, err);
	rc = rc ? rc : view_open(h, after->txid, &b, err);
	rc = rc ? rc : diff_summarize(a, b, &all, &s, err);
	if (rc)
		return rc;
	if (q->json)
		return print_json(h, before, after, &s, err);
	print_text(h, before, after, &s);
	return 0;
}

/* ---- */

static int search(struct cli *c, struct bisect_request *q, struct history *h, const char *sql,
                  struct err *err)
{
	const struct bisect_options o = {.sql = sql,
	                                 .prepare = on_prepare,
	                                 .bind = on_bind,
	                                 .progress = on_progress,
	                                 .ctx = q};
	int64_t now_us = clock_now_us();
	struct moment first, last, before, after;

	int rc = q->since ? cli_moment(c, h, "--since", q->since, now_us, &first, err)
	                  : history_first(h, &first, err);
	rc = rc         ? rc
	     : q->until ? cli_moment(c, h, "--until", q->until, now_us, &last, err)
	                : history_latest(h, &last, err);
	if (rc)
		return rc;
	if (first.txid >= last.txid)
		return cli_usage(c, err, "there is no transaction between --since and --until");
	progress_begin(&q->progress);
	rc = bisect(h, first.txid, last.txid, &o, &before, &after, err);
	progress_clear(&q->progress);
	if (rc && q->reading.denied[0])
		return reading_denied(&q->reading, "bisect", err);
	if (!rc)
		rc = reading_all_used(&q->reading, c, err);
	return rc ? err_wrap(err, rc, "bisect") : show(h, q, &before, &after, err);
}

static int run_bisect(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct bisect_request q = {.c = c};
	int id, rc = 0;

	while (!rc && (id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			q.archive = c->arg;
		else if (id == OPT_SINCE)
			q.since = c->arg;
		else if (id == OPT_UNTIL)
			q.until = c->arg;
		else if (id == 'p')
			rc = reading_param(&q.reading, c, err);
		else
			q.json = true;
	}
	if (rc || id < 0)
		return rc ? rc : id;
	if ((rc = cli_check_args(c, 1, 2, "the SQL is", err)))
		return rc;
	const char *db = c->n_args == 2 ? c->args[0] : NULL;
	if ((rc = cli_open_archive_of(c, q.archive, db, &a, err)) ||
	    (rc = cli_open_database(c, a, db, &h, err)))
		return rc;
	return search(c, &q, h, c->args[c->n_args - 1], err);
}

static const struct cli_option bisect_options[] = {
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_ALSO,
        {OPT_SINCE, "since", "TIME", "from this moment (default: the first there is)"},
        {OPT_UNTIL, "until", "TIME", "to this one (default: latest)"},
        READING_OPTION_PARAM,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_bisect = {
        .name = "bisect",
        .usage = "[DB] SQL [OPTION]...",
        .summary = "Finds the commit with which the answer of a query changed.",
        .details =
                "SQL is one statement; its rows, in their order, are the answer.  The history is\n"
                "halved again and again: where the answer changed several times, one of the\n"
                "changes is found.  TIME also is latest, tx:N or mark:NAME.\n",
        .example = "asof bisect trades.db 'SELECT count(*) FROM trades WHERE id = 4711'",
        .options = bisect_options,
        .run = run_bisect,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/query/diff.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { OPT_SQL = OPT_FIRST_OWN, OPT_SUMMARY, OPT_TABLE };

struct diff_request {
	const char *archive;
	bool json, sql, summary;
	struct diff_options options;
};

static const char *how_name(enum diff_how how)
{
	static const char *const names[] = {
	        [DIFF_SAME] = "same",
	        [DIFF_CHANGED] = "changed",
	        [DIFF_CREATED] = "created",
	        [DIFF_DROPPED] = "dropped",
	};

	return names[how];
}

/* ---- JSON ---- */

static json_t *moment_json(const struct moment *m)
{
	return json_pack("{so so}", "txid", cli_json_uint(m->txid), "time",
	                 cli_json_time(m->time_us));
}

static int print_json(struct history *h, const struct moment *from, const struct moment *to,
                      const struct diff_summary *s, struct err *err)
{
	json_t *tables = json_array(), *schema = json_array();

	for (size_t i = 0; i < s->n_objects; i++) {
		const struct diff_object *o = &s->objects[i];
		if (strcmp(o->type, "table") == 0)
			json_array_append_new(tables,
			                      json_pack("{ss ss so so so}", "table", o->name,
			                                "schema", how_name(o->how), "added",
			                                cli_json_uint(o->added), "removed",
			                                cli_json_uint(o->removed), "changed",
			                                cli_json_uint(o->changed)));
		else
			json_array_append_new(schema,
			                      json_pack("{ss ss ss}", "type", o->type, "name",
			                                o->name, "schema", how_name(o->how)));
	}
	return cli_print_json(
	        json_pack("{ss so so so so so so so}", "database", history_name(h), "from",
	                  moment_json(from), "to", moment_json(to), "added",
	                  cli_json_uint(s->added), "removed", cli_json_uint(s->removed), "changed",
	                  cli_json_uint(s->changed), "tables", tables, "schema", schema),
	        err);
}

/* ---- text ---- */

static int print_tables(const struct diff_summary *s, struct err *err)
{
	static const char *const header[] = {"TABLE", ">ADDED", ">REMOVED", ">CHANGED", "SCHEMA"};
	cleanup_table struct table *t = NULL;
	size_t n = 0;
	int rc = table_new(header, 5, &t, err);

	for (size_t i = 0; i < s->n_objects && !rc; i++) {
		const struct diff_object *o = &s->objects[i];
		if (strcmp(o->type, "table") != 0)
			continue;
		n++;
		rc = table_cell(t, err, "%s", o->name);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, o->added);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, o->removed);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, o->changed);
		rc = rc ? rc
		        : table_cell(t, err, "%s", o->how == DIFF_SAME ? "-" : how_name(o->how));
	}
	if (!rc && n)
		table_print(t, stdout);
	return rc;
}

static int print_summary(struct history *h, const struct moment *from, const struct moment *to,
                         const struct diff_summary *s, struct err *err)
{
	char a[TIME_STR_MAX], b[TIME_STR_MAX];

	time_format(from->time_us, a);
	time_format(to->time_us, b);
	printf("%s from %s (txid %" PRIu64 ") to %s (txid %" PRIu64 ")%s\n", history_name(h), a,
	       from->txid, b, to->txid, s->n_objects ? ":" : ": nothing differs");
	int rc = print_tables(s, err);
	for (size_t i = 0; i < s->n_objects && !rc; i++) {
		const struct diff_object *o = &s->objects[i];
		char name[256];
		if (strcmp(o->type, "table") == 0)
			continue;
		snprintf(name, sizeof(name), "%s", o->name);
		cli_one_line(name);
		printf("%s %s: %s\n", o->type, name, how_name(o->how));
	}
	return rc;
}

static int to_stdout(void *ctx, const char *text, size_t len, struct err *err)
{
	if (fwrite(text, 1, len, stdout) != len)
		return err_set(err, ERR_IO, errno, "write standard output");
	return 0;
}

/* ---- */

static int show(struct history *h, const struct diff_request *q, const struct moment *from,
                const struct moment *to, struct err *err)
{
	cleanup_view struct view *a = NULL, *b = NULL;
	cleanup_diff_summary struct diff_summary s = {.objects = NULL};

	int rc = view_open(h, from->txid, &a, err);
	rc = rc ? rc : view_open(h, to->txid, &b, err);
	if (rc)
		return rc;
	if (q->sql)
		return diff_write_sql(a, b, &q->options, to_stdout, NULL, err);
	rc = diff_summarize(a, b, &q->options, &s, err);
	if (rc)
		return rc;
	return q->json ? print_json(h, from, to, &s, err) : print_summary(h, from, to, &s, err);
}

static int run_diff(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct diff_request q = {.archive = NULL};
	int64_t now_us = clock_now_us();
	struct moment from, to;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			q.archive = c->arg;
		else if (id == OPT_TABLE)
			q.options.table = c->arg;
		q.json = q.json || id == OPT_JSON;
		q.sql = q.sql || id == OPT_SQL;
		q.summary = q.summary || id == OPT_SUMMARY;
	}
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 2, 3, "two moments are", err)))
		return rc;
	if (q.sql && (q.json || q.summary))
		return cli_usage(c, err, "--sql is neither --json nor --summary");
	const char *db = c->n_args == 3 ? c->args[0] : NULL;
	char **moments = c->args + c->n_args - 2;
	if ((rc = cli_open_archive_of(c, q.archive, db, &a, err)) ||
	    (rc = cli_open_database(c, a, db, &h, err)) ||
	    (rc = cli_moment(c, h, "T1", moments[0], now_us, &from, err)) ||
	    (rc = cli_moment(c, h, "T2", moments[1], now_us, &to, err)))
		return rc;
	return show(h, &q, &from, &to, err);
}

static const struct cli_option diff_options[] = {
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_ALSO,
        {OPT_SUMMARY, "summary", NULL, "print how many rows differ in each table (the default)"},
        {OPT_SQL, "sql", NULL, "print SQL that turns the state at T1 into that at T2"},
        {OPT_TABLE, "table", "NAME", "only this table, its indexes and triggers"},
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_diff = {
        .name = "diff",
        .usage = "[DB] T1 T2 [OPTION]...",
        .summary = "Shows which rows differ between two moments, as numbers or as SQL.",
        .details =
                "T1, T2: a TIME, latest, tx:N or mark:NAME; in either order.  With T1 later than "
                "T2 the SQL\nundoes what came between.  Rows are told apart by rowid or PRIMARY "
                "KEY.\n"
                "TIME: 2024-01-15T10:30:00Z, '2024-01-15 10:30', @1705314600, -5m,\n"
                "'2 hours ago', 'yesterday 14:30'; without a zone that of `timezone:`, else UTC.\n",
        .example = "asof diff trades.db -1h latest --sql --table trades",
        .options = diff_options,
        .prints = true,
        .run = run_diff,
};

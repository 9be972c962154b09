/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"
#include "tools/reading.h"
#include "tools/rows.h"

#include "engine/base/buf.h"
#include "engine/view/vfs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SQL_MAX (16u << 20) /* from standard input */

enum { OPT_AT = OPT_FIRST_OWN, OPT_TX, OPT_LATEST, OPT_DB, OPT_CSV };

struct query_request {
	const char *archive, *db, *sql;
	const char *at, *tx;
	unsigned n_points; /* of --latest, --at and --tx that were given */
	enum rows_format format;
	unsigned n_formats;
	struct reading reading;
};

/* ---- running ---- */

static int sql_error(sqlite3 *db, struct query_request *q, struct err *err)
{
	return q->reading.denied[0] ? reading_denied(&q->reading, "query", err)
	                            : vfs_sqlite_error(db, err, "query");
}

static int run_statement(struct cli *c, struct query_request *q, sqlite3 *db, sqlite3_stmt *s,
                         struct err *err)
{
	int code;

	if (!sqlite3_stmt_readonly(s))
		return err_set(err, ERR_REFUSED, 0,
		               "query: the statement would write: the past can only be read");
	int rc = reading_bind(&q->reading, c, s, err);
	rc = rc ? rc : rows_print(s, q->format, &code, err);
	if (rc)
		return rc;
	return code == SQLITE_DONE ? vfs_error(db, err) : sql_error(db, q, err);
}

static int run_sql(struct cli *c, struct query_request *q, sqlite3 *db, struct err *err)
{
	const char *rest = q->sql;
	unsigned n = 0;

	reading_only(&q->reading, db);
	while (*rest) {
		cleanup_stmt sqlite3_stmt *s = NULL;
		if (sqlite3_prepare_v2(db, rest, -1, &s, &rest) != SQLITE_OK)
			return sql_error(db, q, err);
		if (!s)
			continue;
		n++;
		int rc = run_statement(c, q, db, s, err);
		if (rc)
			return rc;
	}
	if (n == 0)
		return cli_usage(c, err, "there is no statement in the SQL");
	return reading_all_used(&q->reading, c, err);
}

static int read_sql(struct buf *b, struct err *err)
{
	for (;;) {
		int rc = buf_reserve(b, 4096, err);
		if (rc)
			return err_wrap(err, rc, "query: standard input");
		size_t n = fread(b->data + b->len, 1, 4095, stdin);
		b->len += n;
		if (n == 0)
			break;
	}
	if (ferror(stdin))
		return err_set(err, ERR_IO, errno, "query: read standard input");
	b->data[b->len] = '\0';
	if (strlen((char *)b->data) != b->len)
		return err_set(err, ERR_USAGE, 0, "query: there is a NUL byte in the SQL");
	return 0;
}

static int find_moment(struct cli *c, const struct query_request *q, struct history *h,
                       struct moment *ret, struct err *err)
{
	uint64_t txid;

	if (q->at)
		return cli_moment(c, h, "--at", q->at, clock_now_us(), ret, err);
	if (!q->tx)
		return history_latest(h, ret, err);
	int rc = cli_number(c, "--tx", q->tx, 1, UINT64_MAX, &txid, err);
	return rc ? rc : history_tx(h, txid, ret, err);
}

static int parse_option(struct cli *c, struct query_request *q, int id, struct err *err)
{
	switch (id) {
	case OPT_ARCHIVE:
		q->archive = c->arg;
		return 0;
	case OPT_JSON:
	case OPT_CSV:
		q->format = id == OPT_CSV ? ROWS_CSV : ROWS_JSON;
		q->n_formats++;
		return 0;
	case OPT_AT:
	case OPT_TX:
	case OPT_LATEST:
		q->at = id == OPT_AT ? c->arg : q->at;
		q->tx = id == OPT_TX ? c->arg : q->tx;
		q->n_points++;
		return 0;
	case OPT_DB:
		q->db = c->arg;
		return 0;
	default: /* -p */
		return reading_param(&q->reading, c, err);
	}
}

static int run_query(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	cleanup_view struct view *v = NULL;
	cleanup_vfs sqlite3 *db = NULL;
	cleanup_buf struct buf input = BUF_INIT(SQL_MAX);
	struct query_request q = {.format = ROWS_TABLE};
	struct moment m;
	int id, rc;

	while ((id = cli_option(c, err)) > 0)
		if ((rc = parse_option(c, &q, id, err)))
			return rc;
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 1, 2, "the SQL is", err)))
		return rc;
	if (q.n_points > 1)
		return cli_usage(c, err, "give one of --latest, --at TIME and --tx N");
	if (q.n_formats > 1)
		return cli_usage(c, err, "give one of --json and --csv");
	if (c->n_args == 2 && q.db)
		return cli_usage(c, err, "the database is named twice");
	if (c->n_args == 2)
		q.db = c->args[0];
	q.sql = c->args[c->n_args - 1];
	if (strcmp(q.sql, "-") == 0) {
		if ((rc = read_sql(&input, err)))
			return rc;
		q.sql = (const char *)input.data;
	}
	if ((rc = cli_open_archive_of(c, q.archive, q.db, &a, err)) ||
	    (rc = cli_open_database(c, a, q.db, &h, err)) ||
	    (rc = find_moment(c, &q, h, &m, err)) || (rc = view_open(h, m.txid, &v, err)) ||
	    (rc = vfs_open_view(v, &db, err)))
		return rc;
	return run_sql(c, &q, db, err);
}

static const struct cli_option query_options[] = {
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_ALSO,
        {OPT_DB, "db", "NAME", "the database, where the archive has several"},
        {OPT_AT, "at", "TIME", "the state as of TIME; also tx:N, mark:NAME"},
        {OPT_TX, "tx", "N", "the state after transaction N"},
        {OPT_LATEST, "latest", NULL, "the newest captured state (as without any of these)"},
        READING_OPTION_PARAM,
        {OPT_CSV, "csv", NULL, "print CSV"},
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_query = {
        .name = "query",
        .usage = "[DB] SQL [OPTION]...",
        .summary = "Reads a past state with SQL, without a mount and without a copy.",
        .details =
                "SQL: one statement or several, '-' reads them from standard input.  Only "
                "reading is possible.\n"
                "A table cuts long values; --csv and --json have all of them.  In JSON each "
                "statement is an\n"
                "array of objects, a blob {\"hex\": \"…\"}; in CSV a blob is x'…', NULL nothing.\n"
                "TIME: 2024-01-15T10:30:00Z, '2024-01-15 10:30', @1705314600, -5m,\n"
                "'2 hours ago', 'yesterday 14:30'; without a zone that of `timezone:`, else UTC.\n",
        .example = "asof query --at -1h trades.db 'SELECT count(*) FROM trades'",
        .options = query_options,
        .prints = true,
        .run = run_query,
};

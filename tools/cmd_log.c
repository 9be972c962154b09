/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log is streamed: memory does not grow with the number of commits.  Times bound it at
 * both ends, both inclusive, so that a printed time can be pasted into --since and --until.
 */
#include "tools/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_SINCE = OPT_FIRST_OWN, OPT_UNTIL };

#define FRAME_HEADER_BYTES 24

struct log_request {
	const char *archive, *db;
	bool json;
	int64_t since_us, until_us;
	uint64_t limit; /* 0: none */
};

/* One walk from a txid to a time. */
struct log_walk {
	struct history *h;
	int64_t until_us;
	uint64_t next_txid;
};

/* 1: *ret is the next commit; 0: no more. */
static int walk_next(struct log_walk *w, struct moment *ret, struct err *err)
{
	struct err local = ERR_INIT;
	int rc = history_next(w->h, w->next_txid, ret, &local);

	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	if (rc)
		return err_copy(err, &local);
	if (ret->time_us > w->until_us)
		return 0;
	w->next_txid = ret->txid + 1;
	return 1;
}

/*
 * The txid at which the last `limit` commits up to `until_us` begin, not before `first`.
 * Txids have holes where commits were thinned out, so the span is widened until it holds
 * enough of them.
 */
static int find_tail(const struct log_walk *from, uint64_t first, uint64_t last, uint64_t limit,
                     uint64_t *ret, struct err *err)
{
	if (limit > last - first)
		limit = last - first + 1;
	cleanup_free uint64_t *ring = calloc(limit, sizeof(*ring));
	if (!ring)
		return err_set(err, ERR_NOMEM, 0, "--limit %" PRIu64 ": out of memory", limit);
	for (uint64_t span = limit;; span = span > UINT64_MAX / 4 ? UINT64_MAX : 4 * span) {
		struct log_walk w = *from;
		struct moment m;
		uint64_t n = 0, at = 0;
		int more;

		w.next_txid = last - first < span ? first : last - span + 1;
		bool whole = w.next_txid == first;
		for (; (more = walk_next(&w, &m, err)) > 0; n++) {
			ring[at] = m.txid;
			at = at + 1 < limit ? at + 1 : 0;
		}
		if (more < 0)
			return more;
		if (n >= limit || whole) {
			*ret = n >= limit ? ring[at] : first;
			return 0;
		}
	}
}

static int nothing_between(struct history *h, const struct log_request *q, struct err *err)
{
	struct moment first, last;
	char a[TIME_STR_MAX], b[TIME_STR_MAX];
	int rc;

	if ((rc = history_first(h, &first, err)) || (rc = history_latest(h, &last, err)))
		return rc;
	time_format(first.time_us, a);
	time_format(last.time_us, b);
	return err_set(err, ERR_NOT_FOUND, 0,
	               "%s: no commit in that span (the history goes from %s to %s)",
	               history_name(h), a, b);
}

static uint64_t commit_bytes(const struct moment *m)
{
	return (uint64_t)m->n_frames * (m->page_size + FRAME_HEADER_BYTES);
}

static int print_gap(const struct gap *g, bool json, const char *separator)
{
	char from[TIME_STR_MAX], to[TIME_STR_MAX];

	time_format(g->before_us, from);
	time_format(g->after_us, to);
	if (json)
		return printf("%s{\"gap\": {\"from_txid\": %" PRIu64 ", \"to_txid\": %" PRIu64
		              ", \"from\": \"%s\", \"to\": \"%s\"}}",
		              separator, g->before_txid, g->after_txid, from, to);
	return printf("%12s  gap: nothing is known between %s and %s\n", "-", from, to);
}

static int print_commit(const struct moment *m, bool json, const char *separator)
{
	char when[TIME_STR_MAX], bytes[SIZE_STR_MAX], size[SIZE_STR_MAX];
	uint64_t db_bytes = (uint64_t)m->n_pages * m->page_size;

	time_format(m->time_us, when);
	if (json)
		return printf("%s{\"txid\": %" PRIu64 ", \"time\": \"%s\", \"pages\": %" PRIu32
		              ", \"bytes\": %" PRIu64 ", \"database_bytes\": %" PRIu64
		              ", \"lineage\": %" PRIu32 ", \"healed\": %s}",
		              separator, m->txid, when, m->n_frames, commit_bytes(m), db_bytes,
		              m->lineage, m->flags & MOMENT_HEALED ? "true" : "false");
	cli_format_size(commit_bytes(m), bytes);
	cli_format_size(db_bytes, size);
	return printf("%12" PRIu64 "  %-27s  %7" PRIu32 "  %10s  %10s%s\n", m->txid, when,
	              m->n_frames, bytes, size, m->flags & MOMENT_HEALED ? "  healed" : "");
}

/* Gap number *ret_i is the first that ends behind `txid`. */
static int skip_gaps(struct history *h, uint64_t txid, size_t *i, struct gap *gap, bool *has_gap,
                     struct err *err)
{
	struct err local = ERR_INIT;

	for (;; (*i)++) {
		int rc = history_gap(h, *i, gap, &local);
		*has_gap = !rc;
		if (err_kind_of(rc) == ERR_NOT_FOUND)
			return 0;
		if (rc)
			return err_copy(err, &local);
		if (gap->after_txid > txid)
			return 0;
	}
}

/* One commit a line, so that a long log can be read by line as well as whole. */
static int print_json_head(const char *name, struct err *err)
{
	json_t *text = json_string(name);

	if (!text)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	printf("{\"database\": ");
	json_dumpf(text, stdout, JSON_ENCODE_ANY);
	json_decref(text);
	printf(", \"commits\": [");
	return 0;
}

static int print_walk(struct log_walk *w, bool json, struct err *err)
{
	struct moment m;
	struct gap gap;
	bool has_gap;
	size_t gap_index = 0;
	const char *separator = "\n  ";
	int more = skip_gaps(w->h, w->next_txid, &gap_index, &gap, &has_gap, err);

	if (more)
		return more;
	if (json)
		more = print_json_head(history_name(w->h), err);
	else
		printf("%12s  %-27s  %7s  %10s  %10s\n", "TXID", "TIME", "PAGES", "BYTES",
		       "DATABASE");
	if (more)
		return more;
	while ((more = walk_next(w, &m, err)) > 0) {
		if (has_gap && m.txid >= gap.after_txid) {
			print_gap(&gap, json, separator);
			separator = ",\n  ";
			int rc = skip_gaps(w->h, m.txid, &gap_index, &gap, &has_gap, err);
			if (rc)
				return rc;
		}
		if (print_commit(&m, json, separator) < 0)
			return err_set(err, ERR_IO, errno, "write standard output");
		separator = ",\n  ";
	}
	if (json)
		printf("\n]}\n");
	return more;
}

static int show_log(struct history *h, const struct log_request *q, struct err *err)
{
	struct log_walk w = {.h = h, .until_us = q->until_us};
	struct err local = ERR_INIT;
	struct moment m;
	int rc = history_after(h, q->since_us, &m, &local);

	if (err_kind_of(rc) == ERR_NOT_FOUND || (!rc && m.time_us > q->until_us))
		return nothing_between(h, q, err);
	if (rc)
		return err_copy(err, &local);
	w.next_txid = m.txid;
	if (q->limit) {
		struct moment last;
		if ((rc = history_latest(h, &last, err)))
			return rc;
		if (last.time_us > q->until_us) {
			/* The first commit behind the span bounds its txids well enough. */
			if ((rc = history_after(h, q->until_us + 1, &last, err)))
				return rc;
		}
		if ((rc = find_tail(&w, m.txid, last.txid, q->limit, &w.next_txid, err)))
			return rc;
	}
	return print_walk(&w, q->json, err);
}

static int run_log(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct log_request q = {.since_us = TIME_MIN_US, .until_us = TIME_MAX_US};
	int64_t now_us = clock_now_us();
	int id, rc = 0;

	while (!rc && (id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_ARCHIVE:
			q.archive = c->arg;
			break;
		case OPT_JSON:
			q.json = true;
			break;
		case OPT_SINCE:
			rc = cli_time_configured(c, "log: --since", c->arg, now_us, &q.since_us,
			                         err);
			break;
		case OPT_UNTIL:
			rc = cli_time_configured(c, "log: --until", c->arg, now_us, &q.until_us,
			                         err);
			break;
		case 'n':
			rc = cli_number(c, "--limit", c->arg, 1, 100 * 1000 * 1000, &q.limit, err);
			break;
		}
	}
	if (rc || id < 0)
		return rc ? rc : id;
	if ((rc = cli_check_args(c, 0, 1, "", err)))
		return rc;
	if (q.since_us > q.until_us)
		return cli_usage(c, err, "--since is later than --until");
	q.db = c->n_args ? c->args[0] : NULL;
	if ((rc = cli_open_archive_of(c, q.archive, q.db, &a, err)) ||
	    (rc = cli_open_database(c, a, q.db, &h, err)))
		return rc;
	return show_log(h, &q, err);
}

static const struct cli_option log_options[] = {
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_ALSO,
        {OPT_SINCE, "since", "TIME", "from this moment on"},
        {OPT_UNTIL, "until", "TIME", "up to and with this moment"},
        {'n', "limit", "N", "the last N commits of that span"},
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_log = {
        .name = "log",
        .usage = "[DB] [OPTION]...",
        .summary = "Lists commits, oldest first: txid, time, pages and bytes written.",
        .details =
                "DB may be left out where the archive has one database.\n"
                "TIME: 2024-01-15T10:30:00Z, '2024-01-15 10:30', @1705314600, -5m,\n"
                "'2 hours ago', 'yesterday 14:30'; without a zone that of `timezone:`, else UTC.\n",
        .example = "asof log futures_trades.db --since -10m --limit 20",
        .options = log_options,
        .prints = true,
        .run = run_log,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/restore/restore.h"

#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

enum { OPT_LATEST = OPT_FIRST_OWN, OPT_AT, OPT_TX, OPT_DB, OPT_FORCE, OPT_DRY_RUN };

struct restore_request {
	const char *archive, *db, *out;
	bool json;
	const char *at, *tx;
	unsigned n_points; /* of --latest, --at and --tx that were given */
	struct restore_point point;
	struct restore_options options;
};

static int parse_options(struct cli *c, struct restore_request *q, struct err *err)
{
	int id;

	while ((id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_ARCHIVE:
			q->archive = c->arg;
			break;
		case OPT_JSON:
			q->json = true;
			break;
		case OPT_LATEST:
			q->point.pick = RESTORE_LATEST;
			q->n_points++;
			break;
		case OPT_AT:
			q->point.pick = RESTORE_AT;
			q->at = c->arg;
			q->n_points++;
			break;
		case OPT_TX:
			q->point.pick = RESTORE_TX;
			q->tx = c->arg;
			q->n_points++;
			break;
		case OPT_DB:
			q->db = c->arg;
			break;
		case OPT_FORCE:
			q->options.force = true;
			break;
		case OPT_DRY_RUN:
			q->options.dry_run = true;
			break;
		case 'o':
			q->out = c->arg;
			break;
		}
	}
	return id;
}

/* What is wrong with the words is said before the archive is looked at. */
static int check_options(struct cli *c, struct restore_request *q, int64_t now_us, struct err *err)
{
	int rc = cli_check_args(c, 0, 0, "", err);

	if (rc)
		return rc;
	if (q->n_points != 1)
		return cli_usage(c, err, "give one of --latest, --at TIME and --tx N");
	if (q->out && !*q->out)
		return cli_usage(c, err, "-o is empty");
	if (q->at)
		return cli_time("restore: --at", q->at, now_us, &q->point.time_us, err);
	if (q->tx)
		return cli_number(c, "--tx", q->tx, 1, UINT64_MAX, &q->point.txid, err);
	return 0;
}

/* SIGINT and SIGTERM are blocked and looked for here, so that a restore that is broken off
 * tidies up after itself. */
static bool asked_to_stop(void)
{
	sigset_t pending;

	sigpending(&pending);
	return sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM);
}

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static bool on_progress(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	const bool *shown = ctx;
	char done[SIZE_STR_MAX], total[SIZE_STR_MAX];

	if (*shown && total_bytes) {
		cli_format_size(done_bytes, done);
		cli_format_size(total_bytes, total);
		fprintf(stderr, "\r\033[K%3.0f %%  %s of %s%s",
		        100.0 * (double)done_bytes / (double)total_bytes, done, total,
		        done_bytes == total_bytes ? "\r\033[K" : "");
	}
	return !asked_to_stop();
}

static int print_result(const struct history *h, const struct moment *m,
                        const struct restore_request *q, const struct restore_result *r,
                        struct err *err)
{
	char when[TIME_STR_MAX], size[SIZE_STR_MAX];
	bool dry = q->options.dry_run;

	if (q->json)
		return cli_print_json(
		        json_pack("{ss ss so so so sb sb sb ss}", "target", r->target, "database",
		                  history_name(h), "txid", cli_json_uint(m->txid), "time",
		                  cli_json_time(m->time_us), "bytes", cli_json_uint(r->bytes),
		                  "checked", (int)r->checked, "replaced", (int)r->replaced,
		                  "dry_run", (int)dry, "set_aside", r->set_aside),
		        err);
	time_format(m->time_us, when);
	cli_format_size(r->bytes, size);
	printf("%s %s as of %s (txid %" PRIu64 ") to %s: %s%s%s\n",
	       dry ? "would restore" : "restored", history_name(h), when, m->txid, r->target, size,
	       r->checked ? ", state checksum right" : "",
	       m->flags & MOMENT_PROVISIONAL ? ", provisional: later commits may be missing" : "");
	if (r->undid_interrupted)
		printf("an interrupted restore was put back first\n");
	if (r->set_aside[0])
		printf("%s: %s\n", dry ? "the old database would go to" : "the old database is now",
		       r->set_aside);
	return 0;
}

static int run_restore(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct restore_request q = {0};
	struct restore_result result;
	struct history_status status;
	struct moment m;
	int64_t now_us = clock_now_us();
	int rc;

	if ((rc = parse_options(c, &q, err)) || (rc = check_options(c, &q, now_us, err)) ||
	    (rc = cli_open_archive(c, q.archive, &a, err)) ||
	    (rc = cli_open_database(c, a, q.db, &h, err)) ||
	    (rc = restore_resolve(h, &q.point, now_us, &m, err)))
		return rc;
	if (!q.out) {
		if ((rc = history_get_status(h, &status, err)))
			return rc;
		q.out = status.source_path;
	}
	bool shown = isatty(STDERR_FILENO) && !q.json;
	q.options.progress = on_progress;
	q.options.ctx = &shown;
	block_signals();
	rc = restore_to_file(a, h, m.txid, q.out, &q.options, &result, err);
	return rc ? rc : print_result(h, &m, &q, &result, err);
}

static const struct cli_option options_table[] = {
        {OPT_LATEST, "latest", NULL, "the newest captured state"},
        {OPT_AT, "at", "TIME", "the state as of a moment"},
        {OPT_TX, "tx", "N", "the state after commit N (asof log lists them)"},
        {OPT_DB, "db", "NAME", "the database, where the archive has several"},
        {'o', "output", "OUT", "the file to write (default: where the database was)"},
        {OPT_FORCE, "force", NULL, "replace what is there; a WAL beside it is set aside"},
        {OPT_DRY_RUN, "dry-run", NULL, "say what would be done"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_restore = {
        .name = "restore",
        .usage = "(--latest | --at TIME | --tx N) [-o OUT] [OPTION]...",
        .summary = "Writes the exact bytes of a past state to a file.",
        .details = "The file appears under its name when it is whole, checked and on disk; until\n"
                   "then what was there is as it was.  Mode and owner of a file are kept.\n"
                   "TIME: 2024-01-15T10:30:00Z, '2024-01-15 10:30', @1705314600, -5m,\n"
                   "'2 hours ago', 'yesterday 14:30'; without a zone it is UTC.\n",
        .example = "asof restore --at -10m -o /tmp/trades.db --archive /backups",
        .options = options_table,
        .prints = true,
        .run = run_restore,
};

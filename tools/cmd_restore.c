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

/* ---- while it works ---- */

struct progress {
	bool terminal; /* standard error is one */
	bool shown;
	sigset_t stops;
};

/* What would end the program is blocked and looked for while it works, so that a restore that
 * is broken off removes its temporary file. */
static void progress_begin(struct progress *p)
{
	*p = (struct progress){.terminal = isatty(STDERR_FILENO)};
	sigemptyset(&p->stops);
	sigaddset(&p->stops, SIGINT);
	sigaddset(&p->stops, SIGTERM);
	sigaddset(&p->stops, SIGHUP);
	sigprocmask(SIG_BLOCK, &p->stops, NULL);
}

static bool on_progress(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	static const struct timespec at_once = {0, 0};
	struct progress *p = ctx;
	char done[SIZE_STR_MAX], total[SIZE_STR_MAX];

	if (p->terminal && total_bytes) {
		cli_format_size(done_bytes, done);
		cli_format_size(total_bytes, total);
		fprintf(stderr, "\r%3.0f %%  %s of %s\033[K",
		        100.0 * (double)done_bytes / (double)total_bytes, done, total);
		p->shown = true;
	}
	return sigtimedwait(&p->stops, NULL, &at_once) < 0;
}

static void progress_end(const struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
}

/* ---- output ---- */

static int print_json(const struct history *h, const struct moment *m,
                      const struct restore_request *q, const struct restore_result *r,
                      struct err *err)
{
	json_t *aside = r->set_aside[0] ? json_string(r->set_aside) : json_null();

	return cli_print_json(
	        json_pack("{ss ss so so so so so so sb sb sb sb so sb}", "target", r->target,
	                  "database", history_name(h), "txid", cli_json_uint(m->txid), "time",
	                  cli_json_time(m->time_us), "lineage", cli_json_uint(m->lineage), "pages",
	                  cli_json_uint(m->n_pages), "page_size", cli_json_uint(m->page_size),
	                  "bytes", cli_json_uint(r->bytes), "provisional",
	                  (int)!!(m->flags & MOMENT_PROVISIONAL), "checked", (int)r->checked,
	                  "replaced", (int)r->replaced, "dry_run", (int)q->options.dry_run,
	                  "set_aside", aside, "undid_interrupted", (int)r->undid_interrupted),
	        err);
}

static void print_text(const struct history *h, const struct moment *m,
                       const struct restore_request *q, const struct restore_result *r)
{
	char when[TIME_STR_MAX], size[SIZE_STR_MAX];
	bool dry = q->options.dry_run;

	time_format(m->time_us, when);
	cli_format_size(r->bytes, size);
	printf("%s %s as of %s to %s\n", dry ? "would restore" : "restored", history_name(h), when,
	       r->target);
	printf("  %-10s txid %" PRIu64 ", lineage %" PRIu32 "\n", "commit", m->txid, m->lineage);
	printf("  %-10s %" PRIu32 " pages of %" PRIu32 " bytes, %s\n", "size", m->n_pages,
	       m->page_size, size);
	if (!dry)
		printf("  %-10s %s\n", "checksum", r->checked ? "right" : "none known");
	if (m->flags & MOMENT_PROVISIONAL)
		printf("  %-10s provisional: no replicator was running, later commits may be "
		       "missing\n",
		       "note");
	if (r->undid_interrupted)
		printf("  %-10s an earlier restore died half-way%s\n", "note",
		       dry ? "; it would be undone first" : "; it was undone first");
	if (r->set_aside[0])
		printf("  %-10s %s\n", dry ? "would keep" : "kept", r->set_aside);
	else if (r->replaced)
		printf("  %-10s the file that %s there\n", "replaced", dry ? "is" : "was");
}

/* ---- */

static int run_restore(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct restore_request q = {0};
	struct restore_result result;
	struct history_status status;
	struct progress progress;
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
		if (!status.source_path[0])
			return err_set(err, ERR_USAGE, 0,
			               "restore: the archive does not say where '%s' lay (-o OUT "
			               "says where to put it)",
			               history_name(h));
		q.out = status.source_path;
	}
	progress_begin(&progress);
	q.options.progress = on_progress;
	q.options.ctx = &progress;
	rc = restore_to_file(a, h, m.txid, q.out, &q.options, &result, err);
	progress_end(&progress);
	if (rc)
		return rc;
	if (q.json)
		return print_json(h, &m, &q, &result, err);
	print_text(h, &m, &q, &result);
	return 0;
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
                   "A file that another process has open is not replaced, with --force neither:\n"
                   "stop the application first.  asof replicate may go on, it notices.  With a\n"
                   "-wal or -journal beside it the old database is kept, together with those,\n"
                   "as OUT.before-restore-TIME.\n"
                   "TIME: 2024-01-15T10:30:00Z, '2024-01-15 10:30', @1705314600, -5m,\n"
                   "'2 hours ago', 'yesterday 14:30'; without a zone it is UTC.\n",
        .example = "asof restore --at -10m -o /tmp/trades.db --archive /backups",
        .options = options_table,
        .run = run_restore,
};

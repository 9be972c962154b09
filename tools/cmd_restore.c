/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/restore/restore.h"

#include <inttypes.h>

enum { OPT_LATEST = OPT_FIRST_OWN, OPT_AT, OPT_TX, OPT_DB, OPT_FORCE };

struct restore_request {
	const char *archive, *db, *out;
	bool latest, force;
	const char *at, *tx;
};

static int parse(struct cli *c, struct restore_request *q, struct err *err)
{
	int id;

	while ((id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_ARCHIVE:
			q->archive = c->arg;
			break;
		case OPT_LATEST:
			q->latest = true;
			break;
		case OPT_AT:
			q->at = c->arg;
			break;
		case OPT_TX:
			q->tx = c->arg;
			break;
		case OPT_DB:
			q->db = c->arg;
			break;
		case OPT_FORCE:
			q->force = true;
			break;
		case 'o':
			q->out = c->arg;
			break;
		}
	}
	if (id < 0)
		return id;
	int rc = cli_check_args(c, 0, 0, "", err);
	if (rc)
		return rc;
	if (q->latest + !!q->at + !!q->tx != 1)
		return cli_usage(c, err, "give one of --latest, --at TIME and --tx N");
	if (!q->out || !*q->out)
		return cli_usage(c, err, "-o OUT says where to put it");
	return 0;
}

/* The commit that is asked for.  What is wrong with a number or a time is said before the
 * archive is looked at. */
static int resolve(struct history *h, const struct restore_request *q, int64_t at_us, uint64_t txid,
                   int64_t now_us, struct moment *ret, struct err *err)
{
	if (q->latest)
		return history_latest(h, ret, err);
	if (q->at)
		return history_at(h, at_us, now_us, ret, err);
	return history_tx(h, txid, ret, err);
}

static int run_restore(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct restore_request q = {0};
	struct moment m;
	int64_t now_us = clock_now_us(), at_us = 0;
	uint64_t txid = 0;
	char when[TIME_STR_MAX], size[SIZE_STR_MAX];
	int rc;

	if ((rc = parse(c, &q, err)) ||
	    (q.at && (rc = cli_time("restore: --at", q.at, now_us, &at_us, err))) ||
	    (q.tx && (rc = cli_number(c, "--tx", q.tx, 1, UINT64_MAX, &txid, err))) ||
	    (rc = cli_open_archive(c, q.archive, &a, err)) ||
	    (rc = cli_open_database(c, a, q.db, &h, err)) ||
	    (rc = resolve(h, &q, at_us, txid, now_us, &m, err)) ||
	    (rc = restore_file(h, m.txid, q.out, q.force ? RESTORE_FORCE : 0, err)))
		return rc;
	time_format(m.time_us, when);
	cli_format_size((uint64_t)m.n_pages * m.page_size, size);
	printf("%s: %s as of %s, txid %" PRIu64 ", %s\n", q.out, history_name(h), when, m.txid,
	       size);
	return 0;
}

static const struct cli_option restore_options[] = {
        {OPT_LATEST, "latest", NULL, "the newest captured state"},
        {OPT_AT, "at", "TIME", "the state as of a moment"},
        {OPT_TX, "tx", "N", "the state after commit N (asof log lists them)"},
        {OPT_DB, "db", "NAME", "the database, where the archive has several"},
        {'o', "output", "OUT", "the file to write; a folder is no file"},
        {OPT_FORCE, "force", NULL, "replace an existing file, keeping its mode"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_END,
};

const struct cli_command cmd_restore = {
        .name = "restore",
        .usage = "(--latest | --at TIME | --tx N) -o OUT [OPTION]...",
        .summary = "Writes the exact bytes of a past state to a file.",
        .details = "The file appears under its name when it is whole, checked and on disk.\n"
                   "TIME: 2024-01-15T10:30:00Z, '2024-01-15 10:30', @1705314600, -5m,\n"
                   "'2 hours ago', 'yesterday 14:30'; without a zone it is UTC.\n",
        .example = "asof restore --at -10m -o /tmp/trades.db --archive /backups",
        .options = restore_options,
        .prints = true,
        .run = run_restore,
};

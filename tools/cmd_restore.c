/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/restore.h"

#include "engine/archive/names.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

enum {
	OPT_LATEST = OPT_FIRST_OWN,
	OPT_AT,
	OPT_TX,
	OPT_FROM,
	OPT_INTERACTIVE,
	OPT_DB,
	OPT_FORCE,
	OPT_NO_SAFETY,
	OPT_DRY_RUN,
	OPT_DELTA,
	OPT_FOLLOW,
	OPT_ONCE,
	OPT_VALIDATE,
	OPT_NO_VALIDATE,
	OPT_IF_DB_NOT_EXISTS,
	OPT_IF_REPLICA_EXISTS,
	OPT_EXPECT_TXID,
};

/* ---- words ---- */

static void take_point(struct restore_request *q, enum restore_pick pick)
{
	q->point.pick = pick;
	q->n_points++;
}

static void take_option(struct cli *c, int id, struct restore_request *q)
{
	switch (id) {
	case OPT_ARCHIVE:
		q->archive_name = c->arg;
		break;
	case OPT_JSON:
		q->json = true;
		break;
	case OPT_LATEST:
		take_point(q, RESTORE_LATEST);
		break;
	case OPT_AT:
		take_point(q, RESTORE_AT);
		q->at = c->arg;
		break;
	case OPT_TX:
		take_point(q, RESTORE_TX);
		q->tx = c->arg;
		break;
	case OPT_FROM:
		q->from = c->arg;
		q->n_points++;
		break;
	case OPT_INTERACTIVE:
		q->interactive = true;
		q->n_points++;
		break;
	case OPT_DB:
		q->db = c->arg;
		break;
	case OPT_FORCE:
		q->options.force = true;
		break;
	case OPT_NO_SAFETY:
		q->no_safety = true;
		break;
	case OPT_DRY_RUN:
		q->options.dry_run = true;
		break;
	case OPT_DELTA:
		q->options.delta = true;
		break;
	case OPT_FOLLOW:
		q->follow = true;
		break;
	case OPT_ONCE:
		q->once = true;
		break;
	case OPT_VALIDATE:
		q->options.check = RESTORE_CHECK_ALWAYS;
		break;
	case OPT_NO_VALIDATE:
		q->options.check = RESTORE_CHECK_NEVER;
		break;
	case OPT_IF_DB_NOT_EXISTS:
		q->if_db_not_exists = true;
		break;
	case OPT_IF_REPLICA_EXISTS:
		q->if_replica_exists = true;
		break;
	case OPT_EXPECT_TXID:
		q->expect = c->arg;
		break;
	case 'o':
		q->out = c->arg;
		break;
	}
}

/* A standby is at the newest state, in a file of its own. */
static int check_follow(struct cli *c, const struct restore_request *q, struct err *err)
{
	if (!q->out || !*q->out)
		return cli_usage(c, err, "--follow needs -o OUT, the standby");
	if (q->n_points > 1 || q->at || q->tx || q->from || q->interactive || q->options.delta ||
	    q->options.dry_run)
		return cli_usage(c, err,
		                 "--follow keeps to the newest state, and takes none of "
		                 "--at, --tx, --from, --interactive, --delta, --dry-run");
	return 0;
}

/* What is wrong with the words is said before the archive is looked at. */
static int parse(struct cli *c, struct restore_request *q, struct err *err)
{
	int id, rc;

	while ((id = cli_option(c, err)) > 0)
		take_option(c, id, q);
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, 0, "", err)))
		return rc;
	if (q->expect &&
	    (rc = cli_number(c, "--expect-txid", q->expect, 1, TXID_MAX, &q->expect_txid, err)))
		return rc;
	if (q->expect && q->from)
		return cli_usage(c, err,
		                 "--expect-txid asks the history, and --from does not read it");
	if (q->follow)
		return check_follow(c, q, err);
	if (q->once)
		return cli_usage(c, err, "--once goes with --follow");
	if (q->n_points != 1)
		return cli_usage(c, err,
		                 "give one of --latest, --at TIME, --tx N, --from FILE, "
		                 "--interactive and --follow");
	if (q->out && !*q->out)
		return cli_usage(c, err, "-o is empty");
	if (q->from && !*q->from)
		return cli_usage(c, err, "--from is empty");
	if (q->interactive && !restore_can_ask())
		return cli_usage(c, err,
		                 "--interactive needs a terminal (--latest, --at, --tx and "
		                 "--from say what to restore, --force goes ahead)");
	/* Others are asked of the history, once it is open. */
	if (q->at && !cli_moment_is_named(q->at))
		return cli_time_configured(c, "restore: --at", q->at, q->now_us, &q->point.time_us,
		                           err);
	if (q->tx)
		return cli_number(c, "--tx", q->tx, 1, UINT64_MAX, &q->point.txid, err);
	return 0;
}

/* ---- doing it ---- */

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static bool tell_progress(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct restore_request *q = ctx;

	return progress_tell(&q->progress, done_bytes, total_bytes);
}

/* Without an archive there is no folder for a safety backup: the old file itself stays, then. */
static void prepare(struct restore_request *q)
{
	struct restore_options *o = &q->options;

	o->progress = tell_progress;
	o->ctx = q;
	o->archive_root = q->archive ? archive_root(q->archive) : NULL;
	o->lock_path = q->lock_path[0] ? q->lock_path : NULL;
	if (!q->no_safety && q->backups)
		o->safety = restore_take_safety;
	o->keep_old = !q->no_safety && !q->backups;
}

static int restore(struct restore_request *q, struct restore_result *result, struct err *err)
{
	int rc = 0;

	prepare(q);
	progress_begin(&q->progress);
	if (q->file && q->options.delta) /* compared page by page, at random */
		rc = restore_file_stage(q->file, tell_progress, q, err);
	if (!rc)
		rc = q->file ? restore_from_file(q->file, q->target, &q->options, result, err)
		             : restore_to_file(q->archive, q->history, q->moment.txid, q->target,
		                               &q->options, result, err);
	progress_clear(&q->progress);
	return rc;
}

/* Litestream's words: nothing to do is no failure. */
static bool is_nothing_to_do(const struct restore_request *q, int rc)
{
	return q->if_replica_exists && err_kind_of(rc) == ERR_NOT_FOUND && !q->file &&
	       !q->moment.txid;
}

static int choose_and_restore(struct cli *c, struct restore_request *q, struct err *err)
{
	struct restore_result result;
	struct err why = ERR_INIT;
	bool left = false;
	int rc;

	if (q->out && q->if_db_not_exists && exists(q->out)) {
		printf("%s exists, nothing was done\n", q->out);
		return 0;
	}
	if (q->interactive && ((rc = restore_choose(c, q, &left, err)) || left))
		return rc;
	rc = restore_pick(c, q, &why);
	if (is_nothing_to_do(q, rc)) {
		printf("nothing to restore from: %s\n", why.msg);
		return 0;
	}
	if (rc)
		return err_copy(err, &why);
	if ((rc = restore_pick_target(c, q, err)))
		return rc;
	if (q->if_db_not_exists && exists(q->target)) {
		printf("%s exists, nothing was done\n", q->target);
		return 0;
	}
	if ((rc = restore_confirm(q, &left, err)) || left)
		return rc;
	rc = restore(q, &result, err);
	return rc ? rc : restore_say(q, &result, err);
}

static int run_restore(struct cli *c, struct err *err)
{
	CLEANUP(restore_request_release) struct restore_request q = {.now_us = clock_now_us()};
	int rc = parse(c, &q, err);

	if (rc)
		return rc;
	return q.follow ? restore_follow(c, &q, err) : choose_and_restore(c, &q, err);
}

static const struct cli_option options_table[] = {
        {OPT_LATEST, "latest", NULL, "the newest captured state"},
        {OPT_AT, "at", "TIME", "the state as of a moment"},
        {OPT_TX, "tx", "N", "the state after commit N (asof log lists them)"},
        {OPT_FROM, "from", "FILE", "what a backup holds: .db.gz, .db, .db.gz.gpg"},
        {OPT_INTERACTIVE, "interactive", NULL, "choose on the terminal, look into it, confirm"},
        {OPT_DB, "db", "NAME", "the database, where the archive has several"},
        {'o', "output", "OUT", "the file to write (default: where the database was)"},
        {OPT_FORCE, "force", NULL, "replace what is there, without a question"},
        {OPT_NO_SAFETY, "no-safety", NULL, "no backup of the present database first"},
        {OPT_DRY_RUN, "dry-run", NULL, "say what would be done"},
        {OPT_DELTA, "delta", NULL, "write only what differs from the file that is there"},
        {OPT_FOLLOW, "follow", NULL, "keep OUT, a standby, up to date until SIGTERM"},
        {OPT_ONCE, "once", NULL, "with --follow: until it is up to date"},
        {OPT_VALIDATE, "validate", NULL, "integrity_check, also where the checksum is right"},
        {OPT_NO_VALIDATE, "no-validate", NULL, "no integrity_check of what a backup holds"},
        {OPT_IF_DB_NOT_EXISTS, "if-db-not-exists", NULL, "do nothing where there is a file"},
        {OPT_IF_REPLICA_EXISTS, "if-replica-exists", NULL, "do nothing where there is no history"},
        {OPT_EXPECT_TXID, "expect-txid", "N", "fail if the history ends before commit N"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_ALSO,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_restore = {
        .name = "restore",
        .usage = "(--latest|--at TIME|--tx N|--from FILE|--interactive|--follow) [OPTION]...",
        .summary = "Puts a past state, or a backup, in place of a file.",
        .details =
                "The file appears under its name when it is whole, checked and on disk; until\n"
                "then what was there is as it was.  Mode and owner of a file are kept.\n"
                "A database that is there is backed up into safety/ of the archive first.  With a\n"
                "-wal or -journal beside it, or open in a process, it is also kept as\n"
                "OUT.before-restore-TIME, together with those.\n"
                "On a terminal it asks before it replaces something; elsewhere that takes\n"
                "--force.  An application that has the file open goes on with the old one until\n"
                "it is restarted: stop it first.  asof replicate may go on, it notices.\n"
                "--delta changes a file that nobody has open in place, in one transaction.\n"
                "--follow keeps a copy that any SQLite reads meanwhile; OUT.asof-follow tells\n"
                "what it holds, and it goes on from there however it ended.\n"
                "TIME: 2024-01-15T10:30:00Z, '2024-01-15 10:30', @1705314600, -5m,\n"
                "'2 hours ago', 'yesterday 14:30'; without a zone that of `timezone:`, else UTC.\n",
        .example = "asof restore --at -10m -o /tmp/trades.db --archive /backups",
        .options = options_table,
        .run = run_restore,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asof guard: a safety point, a command, and what the command changed.
 *
 * The safety point is a moment of the history, where a replicator runs and has captured all that
 * was committed when guard began; else it is a safety backup.  The command has standard input
 * and output to itself: all that is said here goes to standard error.
 */
#include "engine/config/config.h"
#include "tools/backups.h"
#include "tools/guard.h"
#include "tools/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_US 20000
#define CAUGHT_UP_S_DEFAULT 10

enum { OPT_DB = OPT_FIRST_OWN, OPT_DB_PATH, OPT_WAIT };

/* A database under guard. */
struct guarded {
	char name[256];
	char path[PATH_MAX];
	struct history *history; /* NULL: none */
	struct moment before;    /* txid 0: a backup was made */
	struct backup_result backup;
	struct diff_summary changes;
	bool compared;
	char problem[400];                /* why it was not */
	char restore[2 * PATH_MAX + 400]; /* the line that takes it back */
};

struct guard_request {
	const char *archive_name, *db, *db_path, *backups;
	bool json;
	uint64_t wait_s;
	struct archive *archive;
	struct guarded *v;
	size_t n;
	int status; /* of the command, as a shell has it */
	int64_t took_us;
};

static void release(struct guard_request *q)
{
	for (size_t i = 0; i < q->n; i++) {
		diff_summary_release(&q->v[i].changes);
		if (q->v[i].history)
			history_put(q->v[i].history);
	}
	free(q->v);
	archive_free(q->archive);
}

/* ---- what is guarded ---- */

static int add(struct guard_request *q, const char *name, const char *path, struct history *h,
               struct err *err)
{
	struct guarded *more = realloc(q->v, (q->n + 1) * sizeof(*more));

	if (!more)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	q->v = more;
	q->v[q->n] = (struct guarded){.history = h};
	snprintf(q->v[q->n].name, sizeof(q->v->name), "%s", name);
	snprintf(q->v[q->n].path, sizeof(q->v->path), "%s", path);
	q->n++;
	return 0;
}

static int add_history(struct cli *c, struct guard_request *q, struct history *h, struct err *err)
{
	struct history_status st;
	const struct config *config;
	char here[PATH_MAX];
	int rc = history_get_status(h, &st, err);

	if (!rc)
		rc = cli_config(c, &config, err);
	if (!rc)
		rc = add(q, history_name(h),
		         cli_path_on_host(config, st.source_path, here) ? here : st.source_path, h,
		         err);
	if (rc)
		history_put(h);
	return rc;
}

static int add_path(struct guard_request *q, struct err *err)
{
	char path[PATH_MAX];

	if (!realpath(q->db_path, path))
		return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno,
		               "database '%.200s'", q->db_path);
	return add(q, strrchr(path, '/') + 1, path, NULL, err);
}

static int find_databases(struct cli *c, struct guard_request *q, struct err *err)
{
	cleanup_free char **names = NULL;
	struct history *h = NULL;
	size_t n = 0;
	int rc;

	if ((rc = cli_open_archive_of(c, q->archive_name, q->db, &q->archive, err)) ||
	    (rc = backups_root(c, q->archive_name, &q->backups, err)))
		return rc;
	if (q->db_path)
		return add_path(q, err);
	if (q->db) {
		rc = cli_open_database(c, q->archive, q->db, &h, err);
		return rc ? rc : add_history(c, q, h, err);
	}
	if ((rc = archive_list(q->archive, &names, &n, err)))
		return rc;
	for (size_t i = 0; i < n && !rc; i++) {
		rc = history_get(q->archive, names[i], &h, err);
		rc = rc ? rc : add_history(c, q, h, err);
	}
	return rc || n ? rc
	               : err_set(err, ERR_NOT_FOUND, 0,
	                         "no database in archive '%s' yet (--db-path DB names one)",
	                         archive_root(q->archive));
}

/* ---- the safety point ---- */

/* Whether the replicator has captured all that was committed by now. */
static bool wait_until_captured(struct guarded *g, const struct guard_request *q)
{
	int64_t now_us = clock_now_us(),
	        until_us = clock_mono_us() + (int64_t)q->wait_s * US_PER_SECOND;
	struct history_status st;

	while (g->history && history_refresh(g->history, NULL) == 0 &&
	       history_get_status(g->history, &st, NULL) == 0 && st.writer_alive) {
		if (st.known_until_us >= now_us)
			return true;
		if (clock_mono_us() >= until_us)
			return false;
		clock_sleep_us(POLL_US);
	}
	return false;
}

static int take_backup(struct guarded *g, const struct guard_request *q, struct err *err)
{
	const struct backup_options options = {
	        .type = BACKUP_SAFETY, .label = "guard", .level = 1, .keep_damaged = true};
	char from[PATH_MAX + 64], to[PATH_MAX + 64];

	if (access(g->path, F_OK))
		return err_set(
		        err, ERR_NOT_FOUND, errno,
		        "no replicator runs for '%s', and '%s' cannot be backed up (--db names "
		        "another database)",
		        g->name, g->path);
	int rc = backup_create(q->backups, g->path, &options, &g->backup, err);
	if (rc)
		return rc;
	cli_quote(g->backup.path, from, sizeof(from));
	cli_quote(g->path, to, sizeof(to));
	snprintf(g->restore, sizeof(g->restore), "asof restore --from %s -o %s --force", from, to);
	fprintf(stderr, "asof guard: %s: no replicator runs, safety backup %s\n", g->name,
	        g->backup.path);
	return 0;
}

static int take_point(struct guarded *g, const struct guard_request *q, struct err *err)
{
	char when[TIME_STR_MAX], name[600], archive[PATH_MAX + 64];

	if (!wait_until_captured(g, q))
		return take_backup(g, q, err);
	int rc = history_latest(g->history, &g->before, err);
	if (rc)
		return rc;
	time_format(g->before.time_us, when);
	cli_quote(g->name, name, sizeof(name));
	cli_quote(archive_root(q->archive), archive, sizeof(archive));
	snprintf(g->restore, sizeof(g->restore),
	         "asof restore --tx %" PRIu64 " --db %s --archive %s --force", g->before.txid, name,
	         archive);
	fprintf(stderr, "asof guard: %s: safety point txid %" PRIu64 " of %s\n", g->name,
	        g->before.txid, when);
	return 0;
}

/* ---- the command ---- */

static int wait_for_child(pid_t pid, const sigset_t *signals)
{
	int status, sig;

	/* A terminal's signals reach the command by themselves; those sent to us are passed on. */
	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);
		if (got == pid)
			break;
		if (got < 0 && errno != EINTR)
			return 127;
		sig = sigwaitinfo(signals, NULL);
		if (sig == SIGTERM || sig == SIGHUP)
			kill(pid, sig);
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_command(struct cli *c, struct guard_request *q, struct err *err)
{
	sigset_t signals, before;
	int64_t started_us = clock_mono_us();

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGQUIT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGCHLD);
	signal(SIGCHLD, SIG_DFL); /* who ignores it is told of no child */
	sigprocmask(SIG_BLOCK, &signals, &before);
	pid_t pid = fork();
	if (pid < 0)
		return err_set(err, ERR_IO, errno, "start a process");
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		signal(SIGPIPE, SIG_DFL);
		execvp(c->args[0], c->args);
		int e = errno;
		fprintf(stderr, "asof: guard: run '%s': %s\n", c->args[0], strerror(e));
		_exit(e == ENOENT ? 127 : 126);
	}
	q->status = wait_for_child(pid, &signals);
	sigprocmask(SIG_SETMASK, &before, NULL);
	q->took_us = clock_mono_us() - started_us;
	return 0;
}

/* ---- what it changed ---- */

static int compare_moments(struct guarded *g, const struct guard_request *q, struct err *err)
{
	const struct diff_options options = {.table = NULL};
	cleanup_view struct view *a = NULL, *b = NULL;
	struct moment after;
	int rc;

	if (!wait_until_captured(g, q))
		return err_set(err, ERR_BUSY, 0,
		               "the replicator has not captured the end of it yet (asof diff tells "
		               "later)");
	if ((rc = history_latest(g->history, &after, err)) || after.txid == g->before.txid)
		return rc;
	if ((rc = view_open(g->history, g->before.txid, &a, err)) ||
	    (rc = view_open(g->history, after.txid, &b, err)))
		return rc;
	return diff_summarize(a, b, &options, &g->changes, err);
}

/* A second copy, for as long as it is looked at. */
static int compare_copies(struct guarded *g, struct err *err)
{
	const struct backup_options options = {
	        .level = 1, .no_validate = true, .keep_damaged = true};
	cleanup_restore_file struct restore_file *a = NULL, *b = NULL;
	struct backup_result now;
	const char *tmp = getenv("TMPDIR");
	char root[PATH_MAX], folder[PATH_MAX + 16];

	snprintf(root, sizeof(root), "%s/asof-guard-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
	if (!mkdtemp(root))
		return err_set(err, ERR_IO, errno, "make a temporary folder");
	snprintf(folder, sizeof(folder), "%s/manual", root);
	int rc = backup_create(root, g->path, &options, &now, err);
	if (!rc)
		rc = restore_file_open(g->backup.path, &a, err);
	if (!rc)
		rc = restore_file_open(now.path, &b, err);
	if (!rc && !g->backup.damaged && !now.damaged)
		rc = guard_compare(a, b, &g->changes, err);
	else if (!rc)
		rc = err_set(err, ERR_DAMAGED, 0, "the database is damaged: %s",
		             now.damaged ? now.manifest.warning : g->backup.manifest.warning);
	unlink(now.path);
	unlink(now.manifest_path);
	rmdir(folder);
	rmdir(root);
	return rc;
}

static void look_at_changes(struct guarded *g, const struct guard_request *q)
{
	struct err why = ERR_INIT;
	int rc = g->before.txid ? compare_moments(g, q, &why) : compare_copies(g, &why);

	g->compared = rc == 0;
	if (rc)
		snprintf(g->problem, sizeof(g->problem), "%.380s", why.msg);
}

/* ---- telling ---- */

static const char *const how_names[] = {
        [DIFF_SAME] = "same",
        [DIFF_CHANGED] = "changed",
        [DIFF_CREATED] = "created",
        [DIFF_DROPPED] = "dropped",
};

static int tell_changes(const struct diff_summary *s, struct err *err)
{
	static const char *const header[] = {"  table", ">added", ">removed", ">changed", "schema"};
	cleanup_table struct table *t = NULL;
	int rc = table_new(header, 5, &t, err);

	for (size_t i = 0; i < s->n_objects && !rc; i++) {
		const struct diff_object *o = &s->objects[i];
		if (strcmp(o->type, "table") == 0)
			rc = table_cell(t, err, "  %s", o->name);
		else
			rc = table_cell(t, err, "  %s (%s)", o->name, o->type);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, o->added);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, o->removed);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, o->changed);
		rc = rc ? rc
		        : table_cell(t, err, "%s", o->how == DIFF_SAME ? "-" : how_names[o->how]);
	}
	if (!rc)
		table_print(t, stderr);
	return rc;
}

static int tell(const struct guard_request *q, struct err *err)
{
	fprintf(stderr, "asof guard: the command ended with status %d after %.1f s\n", q->status,
	        (double)q->took_us / (double)US_PER_SECOND);
	for (size_t i = 0; i < q->n; i++) {
		const struct guarded *g = &q->v[i];
		if (!g->compared) {
			fprintf(stderr, "%s: what changed is not known: %s\n", g->name, g->problem);
		} else if (g->changes.n_objects == 0) {
			fprintf(stderr, "%s: nothing changed\n", g->name);
			continue;
		} else {
			fprintf(stderr, "%s:\n", g->name);
			int rc = tell_changes(&g->changes, err);
			if (rc)
				return rc;
		}
		fprintf(stderr, "to take it back: %s\n", g->restore);
	}
	return 0;
}

static json_t *changes_json(const struct guarded *g)
{
	json_t *all = json_array();

	for (size_t i = 0; i < g->changes.n_objects; i++) {
		const struct diff_object *o = &g->changes.objects[i];
		json_array_append_new(all,
		                      json_pack("{ss so ss so so so}", "type", o->type, "name",
		                                json_text(o->name), "schema", how_names[o->how],
		                                "added", cli_json_uint(o->added), "removed",
		                                cli_json_uint(o->removed), "changed",
		                                cli_json_uint(o->changed)));
	}
	return all;
}

/* On standard error, too: one line, the last. */
static int tell_json(const struct guard_request *q, struct err *err)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < q->n; i++) {
		const struct guarded *g = &q->v[i];
		json_array_append_new(
		        rows,
		        json_pack("{ss so so so so so}", "database", g->name, "txid",
		                  g->before.txid ? cli_json_uint(g->before.txid) : json_null(),
		                  "backup",
		                  g->before.txid ? json_null() : json_text(g->backup.path),
		                  "changes", g->compared ? changes_json(g) : json_null(), "problem",
		                  g->compared ? json_null() : json_text(g->problem), "restore",
		                  json_text(g->restore)));
	}
	json_t *all = json_pack("{si sf so}", "status", q->status, "seconds",
	                        (double)q->took_us / (double)US_PER_SECOND, "databases", rows);
	char *text = all ? json_dumps(all, 0) : NULL;
	json_decref(all);
	if (!text)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	fprintf(stderr, "%s\n", text);
	free(text);
	return 0;
}

/* ---- */

static int parse(struct cli *c, struct guard_request *q, struct err *err)
{
	const char *wait_s = NULL;
	int id;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			q->archive_name = c->arg;
		else if (id == OPT_DB)
			q->db = c->arg;
		else if (id == OPT_DB_PATH)
			q->db_path = c->arg;
		else if (id == OPT_WAIT)
			wait_s = c->arg;
		q->json = q->json || id == OPT_JSON;
	}
	if (id < 0)
		return id;
	if (c->n_args == 0)
		return cli_usage(c, err, "no command given (asof guard -- CMD ARGUMENT...)");
	if (q->db && q->db_path)
		return cli_usage(c, err, "give one of --db and --db-path");
	q->wait_s = CAUGHT_UP_S_DEFAULT;
	return wait_s ? cli_number(c, "--wait", wait_s, 0, 86400, &q->wait_s, err) : 0;
}

static int guard(struct cli *c, struct guard_request *q, struct err *err)
{
	int rc = find_databases(c, q, err);

	for (size_t i = 0; i < q->n && !rc; i++)
		rc = take_point(&q->v[i], q, err);
	if (rc || (rc = run_command(c, q, err)))
		return rc;
	for (size_t i = 0; i < q->n; i++)
		look_at_changes(&q->v[i], q);
	return q->json ? tell_json(q, err) : tell(q, err);
}

static int run_guard(struct cli *c, struct err *err)
{
	struct guard_request q = {.archive_name = NULL};
	int rc = parse(c, &q, err);

	if (!rc)
		rc = guard(c, &q, err);
	int status = q.status;
	release(&q);
	/* The command's own status is ours. */
	if (!rc && status)
		exit(status);
	return rc;
}

static const struct cli_option options_table[] = {
        {OPT_DB, "db", "NAME", "this database alone (default: all of the archive)"},
        {OPT_DB_PATH, "db-path", "DB", "this file, replicated or not"},
        {OPT_WAIT, "wait", "SECONDS", "for the replicator to have captured everything (10)"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_guard = {
        .name = "guard",
        .usage = "[OPTION]... -- CMD [ARGUMENT]...",
        .summary = "Takes a safety point, runs a command, shows what it changed.",
        .details = "The safety point is the newest commit of the history, if a replicator runs, "
                   "else a\nsafety backup.  Afterwards it shows, on standard error, how many rows "
                   "of which tables\ndiffer, and the command that takes it all back.  Exits with "
                   "the status of CMD.\n",
        .example = "asof guard --archive /backups -- sqlite3 trades.db < migration.sql",
        .options = options_table,
        .run = run_guard,
};

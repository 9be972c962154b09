/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/restore.h"

#include "engine/config/config.h"
#include "engine/store/store.h"
#include "tools/backups.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void restore_request_release(struct restore_request *q)
{
	restore_file_free(q->file);
	backup_fetched_release(&q->fetched);
	if (q->history)
		history_put(q->history);
	archive_free(q->archive);
}

/* ---- what ---- */

static bool tell_fetching(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct restore_request *q = ctx;

	return progress_tell(&q->progress, done_bytes, total_bytes);
}

/* A bare name may be one of the archive's backups, and so is what lies in a store, be it that archive or
 * another; that is brought here first. */
static int find_backup(struct cli *c, struct restore_request *q, char out[PATH_MAX],
                       struct err *err)
{
	cleanup_backup_list struct backup_list list = {0};
	const char *root = q->far_backups ? q->far_backups : q->backups;
	const struct backup_entry *e = NULL;
	char above[PATH_MAX];
	struct stat st;
	int rc = 0;

	snprintf(out, PATH_MAX, "%s", q->from);
	bool far = store_is_url(q->from);
	if (far && !(root && cli_lies_below(q->from, root))) {
		root = above;
		rc = cli_archive_above(c, q->from, above, err);
	}
	if (rc || !root || (!far && (stat(q->from, &st) == 0 || strchr(q->from, '/'))))
		return rc;
	size_t n = far ? strcspn(q->from, "?") : strlen(q->from);
	rc = cli_read_backups(c, root, false, &list, err);
	for (size_t i = 0; i < list.n && !rc && !e; i++)
		if (strcmp(list.entries[i].name, q->from) == 0 ||
		    (strncmp(list.entries[i].path, q->from, n) == 0 && !list.entries[i].path[n]))
			e = &list.entries[i];
	if (rc || !e)
		return rc || !(far || q->far_backups)
		               ? rc
		               : err_set(err, ERR_NOT_FOUND, 0,
		                         "restore: no backup '%.200s' in '%.200s' (asof list "
		                         "--archive shows them)",
		                         q->from, root);
	progress_begin(&q->progress);
	progress_what(&q->progress, e->name);
	rc = backup_fetch(&list, e, tell_fetching, q, &q->fetched, err);
	progress_clear(&q->progress);
	if (!rc)
		snprintf(out, PATH_MAX, "%s", q->fetched.entry.path);
	return rc;
}

static int pick_file(struct cli *c, struct restore_request *q, struct err *err)
{
	char path[PATH_MAX];
	int rc = find_backup(c, q, path, err);

	return rc ? rc : restore_file_open(path, &q->file, err);
}

int restore_check_end(struct history *h, uint64_t expect_txid, struct err *err)
{
	struct moment newest;
	int rc = expect_txid ? history_latest(h, &newest, err) : 0;

	if (rc || !expect_txid || newest.txid >= expect_txid)
		return rc;
	return err_set(err, ERR_DAMAGED, 0,
	               "the history of '%.200s' ends at commit %" PRIu64 ", and %" PRIu64
	               " was seen before: its end is missing (look at other destinations)",
	               history_name(h), newest.txid, expect_txid);
}

static int pick_moment(struct cli *c, struct restore_request *q, struct err *err)
{
	int rc = cli_open_database(c, q->archive, q->db, &q->history, err);

	rc = rc ? rc : restore_check_end(q->history, q->expect_txid, err);
	if (!rc && q->at && cli_moment_is_named(q->at))
		return cli_moment(c, q->history, "--at", q->at, q->now_us, &q->moment, err);
	return rc ? rc : restore_resolve(q->history, &q->point, q->now_us, &q->moment, err);
}

int restore_open_archive(struct cli *c, struct restore_request *q, struct err *err)
{
	const struct config *config;
	struct err why = ERR_INIT;
	int rc = cli_config(c, &config, err);

	if (rc)
		return rc;
	q->data_dir = config && config->data_dir ? config->data_dir : getenv("DATA_DIR");
	rc = cli_open_archive_of(c, q->archive_name, q->db, &q->archive, &why);
	if (!rc)
		rc = backups_root(c, q->archive_name, &q->backups, &why);
	if (!rc && store_is_url(q->backups)) { /* the old file is kept beside the new one instead */
		q->far_backups = q->backups;
		q->backups = NULL;
	}
	/* A file needs none: then there is no place for a safety backup.  What lies in a store is asked
	 * for where the archive is gone. */
	if (rc && q->from && !q->archive_name &&
	    (why.kind == ERR_USAGE || (why.kind == ERR_NOT_FOUND && store_is_url(q->from))))
		return 0;
	return rc ? err_copy(err, &why) : 0;
}

int restore_pick(struct cli *c, struct restore_request *q, struct err *err)
{
	int rc = 0;

	if (q->file || q->moment.txid) /* chosen in a conversation */
		return 0;
	if (!q->archive)
		rc = restore_open_archive(c, q, err);
	if (rc)
		return rc;
	return q->from ? pick_file(c, q, err) : pick_moment(c, q, err);
}

/* ---- where ---- */

/*
 * In a container a database lies at /data/db/x.db, on its host at $DATA_DIR/db/x.db, and one
 * archive serves both.  `was`: where the archive says it lay, "" not known.
 */
static int match_by_name(struct restore_request *q, const char *was, const char *name,
                         struct err *err)
{
	const char *data = q->data_dir;
	char dir[PATH_MAX];

	if (was[0] && cli_has_its_folder(was)) {
		snprintf(q->target, sizeof(q->target), "%s", was);
		return 0;
	}
	if (data && *data) {
		snprintf(dir, sizeof(dir), "%s/db", data);
		if (cli_is_folder(dir)) {
			snprintf(q->target, sizeof(q->target), "%s/%s", dir, name);
			if (was[0])
				snprintf(q->target_note, sizeof(q->target_note),
				         "%s, where it lay, is not on this machine: matched by "
				         "name in $DATA_DIR/db",
				         was);
			return 0;
		}
	}
	if (was[0])
		return err_set(err, ERR_NOT_FOUND, 0,
		               "restore: '%s', where '%s' lay, is not on this machine (-o OUT says "
		               "where to put it; with DATA_DIR set, $DATA_DIR/db is looked into)",
		               was, name);
	return err_set(err, ERR_USAGE, 0,
	               "restore: nothing says where '%s' lay (-o OUT says where to put it)", name);
}

static int target_of_history(struct restore_request *q, struct history *h, struct err *err)
{
	struct history_status status;
	int rc = history_get_status(h, &status, err);

	if (rc)
		return rc;
	snprintf(q->lock_path, sizeof(q->lock_path), "%s/local/%s/lock", archive_root(q->archive),
	         history_name(h));
	return match_by_name(q, status.source_path, history_name(h), err);
}

/* A database of the archive called so, its last suffix aside; NULL when there is none. */
static int find_history(struct restore_request *q, const char *stem, char *const *names, size_t n,
                        struct history **ret, struct err *err)
{
	size_t len = strlen(stem);

	*ret = NULL;
	for (size_t i = 0; i < n; i++) {
		const char *dot = strrchr(names[i], '.');
		if (strcmp(names[i], stem) == 0 ||
		    (dot && (size_t)(dot - names[i]) == len && strncmp(names[i], stem, len) == 0))
			return history_get(q->archive, names[i], ret, err);
	}
	return 0;
}

static int target_of_file(struct restore_request *q, struct err *err)
{
	cleanup_history struct history *h = NULL;
	cleanup_free char **names = NULL;
	const char *slash = strrchr(q->from, '/'), *file = slash ? slash + 1 : q->from;
	char stem[BACKUP_FILE_MAX], name[BACKUP_FILE_MAX + 8];
	struct backup_name parsed;
	size_t n = 0;
	int rc = 0;

	if (q->db)
		snprintf(stem, sizeof(stem), "%.200s", q->db);
	else
		snprintf(stem, sizeof(stem), "%.200s",
		         backup_name_parse(file, &parsed) ? parsed.stem : file);
	if (q->archive && (rc = archive_list(q->archive, &names, &n, err)) == 0)
		rc = find_history(q, stem, names, n, &h, err);
	if (rc)
		return rc;
	if (h)
		return target_of_history(q, h, err);
	snprintf(name, sizeof(name), "%s%s", stem, strchr(stem, '.') ? "" : ".db");
	return match_by_name(q, "", name, err);
}

int restore_pick_target(struct cli *c, struct restore_request *q, struct err *err)
{
	if (q->out) {
		if (strlen(q->out) >= sizeof(q->target))
			return cli_usage(c, err, "-o: the path is too long");
		snprintf(q->target, sizeof(q->target), "%s", q->out);
		if (q->history)
			snprintf(q->lock_path, sizeof(q->lock_path), "%s/local/%s/lock",
			         archive_root(q->archive), history_name(q->history));
		return 0;
	}
	return q->history ? target_of_history(q, q->history, err) : target_of_file(q, err);
}

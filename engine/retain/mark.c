/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/given.h"
#include "engine/archive/notes.h"
#include "engine/archive/upkeep.h"
#include "engine/base/file.h"
#include "engine/retain/retain.h"
#include "engine/view/history.h"

#include <fcntl.h>
#include <limits.h>

#define LOCK_WAIT_US (30 * US_PER_SECOND)

static int open_database(const char *root, const char *db, int *ret_fd, struct err *err)
{
	char path[PATH_MAX];
	struct err why = ERR_INIT;

	int rc = db_name_check(db, err);
	if (rc < 0)
		return rc;
	if (snprintf(path, sizeof(path), "%s/local/%s", root, db) >= (int)sizeof(path))
		return err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long", root);
	rc = file_open_dir(AT_FDCWD, path, false, ret_fd, &why);
	if (rc < 0 && why.kind == ERR_NOT_FOUND)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "archive '%s' has no database '%s' (asof list shows those it has)",
		               root, db);
	return rc < 0 ? err_copy(err, &why) : 0;
}

/* Under the lock of upkeep: what is restorable now is not on its way out. */
static int check_moment(const char *root, const char *db, uint64_t txid, struct moment *ret,
                        struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;

	int rc = archive_open(root, NULL, &a, err);
	if (rc == 0)
		rc = history_get(a, db, &h, err);
	if (rc == 0)
		rc = history_tx(h, txid, ret, err);
	return rc;
}

int retain_mark(const char *root, const char *db, const char *mark, uint64_t txid, struct err *err)
{
	cleanup_fd int dir = -1, lock = -1;
	struct moment m;

	int rc = mark_name_check(mark, err);
	if (rc == 0)
		rc = open_database(root, db, &dir, err);
	if (rc == 0)
		rc = upkeep_lock(dir, db, LOCK_WAIT_US, &lock, err);
	if (rc == 0)
		rc = check_moment(root, db, txid, &m, err);
	if (rc < 0)
		return rc;
	const struct mark_note n = {txid, m.time_us, clock_now_us()};
	return mark_note_put(dir, mark, &n, err);
}

int retain_unmark(const char *root, const char *db, const char *mark, struct err *err)
{
	cleanup_fd int dir = -1, lock = -1;
	char file[DB_NAME_MAX + 8];

	int rc = mark_name_check(mark, err);
	if (rc == 0)
		rc = open_database(root, db, &dir, err);
	if (rc == 0)
		rc = upkeep_lock(dir, db, LOCK_WAIT_US, &lock, err);
	if (rc < 0)
		return rc;
	/* What sends to destinations, if it runs at all, may not have seen the mark yet. */
	snprintf(file, sizeof(file), "%s.mark", mark);
	rc = given_note_removal(dir, file, err);
	return rc < 0 ? rc : mark_note_delete(dir, mark, err);
}

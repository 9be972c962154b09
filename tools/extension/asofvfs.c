/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libasofvfs.so: past states in any program that can load an extension of SQLite, for places with
 * no FUSE.
 *
 *     .load libasofvfs
 *     .open 'file:trades.db?vfs=asof&archive=/backups&at=-1h'
 *
 * Parameters: archive (default: $ASOF_ARCHIVE), and one of at (a TIME) and tx; neither is the
 * newest captured state.  The path is the name of the database in the archive.
 *
 * It works on the SQLite library of the system.  A program that brings one of its own would not see
 * the VFS: it is told so when it loads this.
 */
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/view/history.h"
#include "engine/view/vfs.h"

#include <errno.h>
#include <sqlite3ext.h>
#include <stdlib.h>
#include <string.h>
#undef sqlite3_vfs_register /* the library's own, not the loading program's */
#undef sqlite3_uri_parameter
#undef sqlite3_mprintf

/* What an open file holds. */
struct past {
	struct archive *archive;
	struct history *history;
	struct view *view;
};

static void past_free(struct past *p)
{
	if (!p)
		return;
	view_free(p->view);
	if (p->history)
		history_put(p->history);
	archive_free(p->archive);
	free(p);
}
DEFINE_CLEANUP(struct past, past_free);

static void release(void *ctx)
{
	past_free(ctx);
}

static int read_past(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	size_t got;
	int rc = view_read(((struct past *)ctx)->view, offset, buf, len, 0, &got, err);

	if (!rc && got != len)
		rc = err_set(err, ERR_DAMAGED, 0, "the image ends early");
	return rc;
}

static int find_moment(struct history *h, const char *at, const char *tx, struct moment *ret,
                       struct err *err)
{
	int64_t now_us = clock_now_us(), time_us;
	char *end;

	if (at && tx)
		return err_set(err, ERR_USAGE, 0, "give one of at and tx");
	if (at) {
		int rc = time_parse(at, now_us, TIME_ZONE_UTC, &time_us, NULL, err);
		return rc ? rc : history_at(h, time_us, now_us, ret, err);
	}
	if (!tx)
		return history_latest(h, ret, err);
	errno = 0;
	unsigned long long txid = strtoull(tx, &end, 10);
	if (errno || end == tx || *end || *tx == '-')
		return err_set(err, ERR_USAGE, 0, "tx: '%.60s' is no number", tx);
	return history_tx(h, txid, ret, err);
}

static int open_past(const char *name, struct vfs_image *ret, struct err *err)
{
	CLEANUP(past_free_p) struct past *p = calloc(1, sizeof(*p));
	const char *archive = sqlite3_uri_parameter(name, "archive");
	const char *slash = strrchr(name, '/');
	struct moment m;

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%.100s'", name);
	if (!archive)
		archive = getenv("ASOF_ARCHIVE");
	if (!archive)
		return err_set(err, ERR_USAGE, 0, "no archive named: add archive=DIR");
	int rc = archive_open(archive, NULL, &p->archive, err);
	rc = rc ? rc : history_get(p->archive, slash ? slash + 1 : name, &p->history, err);
	rc = rc ? rc
	        : find_moment(p->history, sqlite3_uri_parameter(name, "at"),
	                      sqlite3_uri_parameter(name, "tx"), &m, err);
	rc = rc ? rc : view_open(p->history, m.txid, &p->view, err);
	if (rc < 0)
		return rc;
	*ret = (struct vfs_image){
	        .ctx = p, .size_bytes = view_size(p->view), .read = read_past, .release = release};
	p = NULL;
	return 0;
}

__attribute__((visibility("default"))) int sqlite3_asofvfs_init(sqlite3 *db, char **ret_error,
                                                                const sqlite3_api_routines *api);

int sqlite3_asofvfs_init(sqlite3 *db, char **ret_error, const sqlite3_api_routines *api)
{
	struct err err = ERR_INIT;

	if (api->vfs_register != sqlite3_vfs_register) {
		*ret_error = api->mprintf(
		        "this program has an SQLite of its own: asofvfs needs one that "
		        "uses the system's libsqlite3");
		return SQLITE_ERROR;
	}
	if (vfs_register("asof", open_past, &err) < 0) {
		*ret_error = api->mprintf("%s", err.msg);
		return SQLITE_ERROR;
	}
	return SQLITE_OK_LOAD_PERMANENTLY;
}

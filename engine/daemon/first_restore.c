/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/first_restore.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/restore/restore.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

static bool go_on(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	sigset_t pending;

	return sigpending(&pending) < 0 ||
	       (!sigismember(&pending, SIGTERM) && !sigismember(&pending, SIGINT));
}

/* *ret_done is false, without an error, when `root` does not have it. */
static int restore_from(const char *root, const char *name, const char *path, bool *ret_done,
                        struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	const struct restore_options o = {.progress = go_on};
	struct restore_result result;
	struct err why = ERR_INIT;
	struct moment m;

	*ret_done = false;
	int rc = archive_open(root, NULL, &a, &why);
	if (rc == 0)
		rc = history_get(a, name, &h, &why);
	if (rc == 0)
		rc = history_latest(h, &m, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	log_info("run", "the database is missing, restoring it db=%s archive=%s txid=%" PRIu64,
	         path, root, m.txid);
	rc = restore_to_file(a, h, m.txid, path, &o, &result, err);
	*ret_done = rc == 0;
	if (rc == 0)
		log_info("run", "restored db=%s bytes=%" PRIu64, path, result.bytes);
	return rc;
}

static int restore_one(const struct config_database *d, struct err *err)
{
	const char *slash = strrchr(d->path, '/');
	const char *name = d->name ? d->name : slash ? slash + 1 : d->path;
	struct stat st;
	bool done = false;

	if (lstat(d->path, &st) == 0 || errno != ENOENT)
		return 0;
	int rc = restore_from(d->archive, name, d->path, &done, err);
	for (size_t i = 0; i < d->n_destinations && rc == 0 && !done; i++)
		if (d->destinations[i].type == CONFIG_DEST_FILE)
			rc = restore_from(d->destinations[i].url, name, d->path, &done, err);
	if (rc == 0 && !done)
		log_info("run", "nothing to restore, it is new db=%s", d->path);
	return rc < 0 ? err_wrap(err, rc, "restore '%s' at start", d->path) : 0;
}

int first_restore(const struct config *c, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < c->n_databases && rc == 0; i++)
		if (c->databases[i].path && c->databases[i].restore_if_missing)
			rc = restore_one(&c->databases[i], err);
	return rc;
}

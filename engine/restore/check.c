/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore/restore_i.h"

#include "engine/base/file.h"
#include "engine/view/vfs.h"

#include <string.h>

int check_integrity(const struct restore_image *image, struct err *err)
{
	const struct vfs_image bytes = {.ctx = image->ctx,
	                                .size_bytes = image->size_bytes,
	                                .read = image->read,
	                                .name = image->label};
	cleanup_vfs sqlite3 *db = NULL;
	cleanup_stmt sqlite3_stmt *statement = NULL;
	char said[200] = "";

	int rc = vfs_open(&bytes, &db, err);
	if (rc)
		return rc;
	if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &statement, NULL) ==
	            SQLITE_OK &&
	    sqlite3_step(statement) == SQLITE_ROW)
		snprintf(said, sizeof(said), "%s", (const char *)sqlite3_column_text(statement, 0));
	if ((rc = vfs_error(db, err)))
		return rc;
	if (!said[0])
		return vfs_sqlite_error(db, err, "integrity_check of '%s'", image->label);
	if (strcmp(said, "ok") == 0)
		return 0;
	for (char *c = said; *c; c++)
		if (*c == '\n')
			*c = ' ';
	return err_set(err, ERR_DAMAGED, 0,
	               "integrity_check of '%s': %s (--no-validate restores it all the same)",
	               image->label, said);
}

struct file_bytes {
	int fd;
	const char *path;
};

static int read_file(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	const struct file_bytes *f = ctx;

	return file_pread(f->fd, buf, len, offset, f->path, err);
}

int check_integrity_fd(int fd, const char *path, uint64_t size_bytes, struct err *err)
{
	struct file_bytes f = {fd, path};
	const struct restore_image image = {
	        .ctx = &f, .label = path, .size_bytes = size_bytes, .read = read_file};

	return check_integrity(&image, err);
}

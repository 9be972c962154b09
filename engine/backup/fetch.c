/* SPDX-License-Identifier: Apache-2.0 */
/* Backups that lie in a store, brought here one at a time. */
#include "engine/backup/backup_i.h"
#include "engine/base/file.h"
#include "engine/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE_BYTES (1u << 20)

struct fetching {
	struct store *store;
	enum backup_type type;
	const char *dir;
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx;
	uint64_t done_bytes, total_bytes;
	uint8_t *buf;
};

static int copy(struct fetching *f, struct source *from, int fd, const char *name, struct err *err)
{
	uint64_t bytes = 0;
	int rc = from->size(from, &bytes, err);

	for (uint64_t at = 0; at < bytes && !rc;) {
		size_t n = bytes - at < PIECE_BYTES ? (size_t)(bytes - at) : PIECE_BYTES;
		rc = from->pread(from, f->buf, n, at, err);
		rc = rc ? rc : file_pwrite(fd, f->buf, n, at, name, err);
		at += n;
		f->done_bytes += n;
		if (!rc && f->progress && !f->progress(f->ctx, f->done_bytes, f->total_bytes))
			rc = err_set(err, ERR_CANCELLED, 0, "cancelled");
	}
	return rc;
}

/* *path: of the file that lies there; then of the one that is here. */
static int fetch_file(struct fetching *f, char **path, struct err *err)
{
	cleanup_source struct source *from = NULL;
	cleanup_fd int fd = -1;
	const char *name = strrchr(*path, '/') + 1;
	char key[BACKUP_FILE_MAX + 32], *here = NULL;

	snprintf(key, sizeof(key), "%s/%s", backup_type_names[f->type], name);
	if (asprintf(&here, "%s/%s", f->dir, name) < 0)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", *path);
	int rc = store_open_object(f->store, key, UINT64_MAX, &from, err);
	rc = rc ? rc : file_open(AT_FDCWD, here, O_RDWR | O_CREAT | O_EXCL, 0600, &fd, err);
	rc = rc ? rc : copy(f, from, fd, here, err);
	free(*path);
	*path = here;
	return rc;
}

static int make_folder(char out[PATH_MAX], struct err *err)
{
	const char *tmp = getenv("TMPDIR");

	if (snprintf(out, PATH_MAX, "%s/asof-XXXXXX", tmp && *tmp ? tmp : "/var/tmp") >= PATH_MAX)
		return err_set(err, ERR_USAGE, 0, "TMPDIR: the path is too long");
	if (mkdtemp(out))
		return 0;
	int rc = err_set(err, ERR_IO, errno, "make a folder '%.200s'", out);
	out[0] = '\0';
	return rc;
}

static int copy_entry(const struct backup_entry *e, struct backup_entry *ret, struct err *err)
{
	bool whole = true;

	*ret = *e;
	ret->path = strdup(e->path);
	ret->db = strdup(e->db);
	ret->label = strdup(e->label);
	ret->manifest_path = NULL;
	for (size_t i = 0; i < e->n_companions; i++) {
		ret->companions[i] = strdup(e->companions[i]);
		whole = whole && ret->companions[i];
	}
	if (!whole || !ret->path || !ret->db || !ret->label)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", e->path);
	ret->name = strrchr(ret->path, '/') + 1;
	return 0;
}

void backup_fetched_release(struct backup_fetched *f)
{
	struct backup_entry *e = &f->entry;

	for (size_t i = 0; i < e->n_companions && f->dir[0]; i++)
		if (e->companions[i])
			unlink(e->companions[i]);
	if (f->dir[0] && e->path)
		unlink(e->path);
	if (f->dir[0])
		rmdir(f->dir);
	for (size_t i = 0; i < e->n_companions; i++)
		free(e->companions[i]);
	free(e->path);
	free(e->db);
	free(e->label);
	*f = (struct backup_fetched){0};
}

int backup_fetch(const struct backup_list *list, const struct backup_entry *e,
                 bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes), void *ctx,
                 struct backup_fetched *ret, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	struct fetching f = {.store = list->store,
	                     .type = e->type,
	                     .dir = ret->dir,
	                     .progress = progress,
	                     .ctx = ctx,
	                     .total_bytes = e->size_bytes + e->companion_bytes,
	                     .buf = buf};

	*ret = (struct backup_fetched){0};
	int rc = buf ? 0 : err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", e->path);
	rc = rc ? rc : copy_entry(e, &ret->entry, err);
	if (rc || !list->store)
		return rc;
	rc = make_folder(ret->dir, err);
	for (size_t i = 0; i < e->n_companions && !rc; i++)
		rc = fetch_file(&f, &ret->entry.companions[i], err);
	rc = rc ? rc : fetch_file(&f, &ret->entry.path, err);
	if (!rc)
		ret->entry.name = strrchr(ret->entry.path, '/') + 1;
	return rc;
}

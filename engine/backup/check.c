/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a backup is good.  Two passes: all of its bytes, in order, against every checksum that
 * there is; then SQLite's own checks of the database within, through engine/view/vfs.h.  A pack
 * is read at random, so there is no copy; what comes in order only (gzip of others, gpg) goes
 * into an unlinked file first.
 *
 * integrity_check decides.  Rows that violate a foreign key do not: SQLite lets applications have
 * them, and the copy is what the application had; they are told.
 */
#include "engine/backup/backup_i.h"

#include "engine/base/file.h"
#include "engine/gz/pack.h"
#include "engine/sqlite/format.h"
#include "engine/view/vfs.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (1u << 18)
#define MAX_PROBLEMS 3
#define CACHE_BYTES (16u << 20)

int backup_checked(struct backup_checking *c, size_t more_bytes, struct err *err)
{
	c->done_bytes += more_bytes;
	if (c->done_bytes > c->total_bytes)
		c->total_bytes = c->done_bytes;
	if (c->progress && !c->progress(c->ctx, c->done_bytes, c->total_bytes))
		return err_set(err, ERR_CANCELLED, 0, "cancelled");
	return 0;
}

/* What speaks of the backup is the answer; the rest is an error. */
int backup_content_answer(struct backup_content *ret, int rc, const struct err *why,
                          struct err *err)
{
	enum err_kind k = err_kind_of(rc);

	if (!rc)
		return 0;
	if (k != ERR_DAMAGED && k != ERR_VERSION && k != ERR_SQL)
		return err_copy(err, why);
	ret->ok = false;
	snprintf(ret->problem, sizeof(ret->problem), "%.390s", why->msg);
	return 0;
}

/* ---- all bytes ---- */

static void hash_pages(struct backup_checking *c, uint64_t offset, uint32_t page_size, size_t len)
{
	uint64_t first = offset / page_size + 1;

	for (size_t at = 0; at + page_size <= len; at += page_size) {
		uint64_t pgno = first + at / page_size;
		if (pgno != lock_page(page_size))
			state_add(&c->ret->state,
			          page_hash((uint32_t)pgno, c->buf + at, page_size));
	}
}

static int read_all(struct backup_checking *c, const struct vfs_image *image, uint32_t page_size,
                    struct err *err)
{
	uint64_t size = image->size_bytes;
	int rc = 0;

	for (uint64_t at = 0; at < size && !rc;) {
		size_t n = size - at < PIECE_BYTES ? (size_t)(size - at) : PIECE_BYTES;
		rc = image->read(image->ctx, at, c->buf, n, err);
		if (!rc)
			hash_pages(c, at, page_size, n);
		at += n;
		rc = rc ? rc : backup_checked(c, n, err);
	}
	return rc;
}

/* ---- what SQLite says ---- */

static int on_sqlite_step(void *ctx)
{
	struct backup_checking *c = ctx;

	return c->progress && !c->progress(c->ctx, c->done_bytes, c->total_bytes);
}

/* Text of up to MAX_PROBLEMS rows that are not "ok". */
static int run_integrity_check(sqlite3 *db, char *out, size_t size, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	size_t used = 0;
	int n = 0, code;

	out[0] = '\0';
	if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(3)", -1, &s, NULL) != SQLITE_OK)
		return vfs_sqlite_error(db, err, "integrity_check");
	while ((code = sqlite3_step(s)) == SQLITE_ROW) {
		const char *row = (const char *)sqlite3_column_text(s, 0);
		if (!row || (n == 0 && strcmp(row, "ok") == 0) || n >= MAX_PROBLEMS)
			continue;
		used += (size_t)snprintf(out + used, size - used, "%s%.100s",
		                         n ? "; " : "integrity_check: ", row);
		n++;
	}
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 0x20)
			*p = ' ';
	return code == SQLITE_DONE ? vfs_error(db, err)
	                           : vfs_sqlite_error(db, err, "integrity_check");
}

static int run_foreign_key_check(sqlite3 *db, struct backup_content *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	int code = sqlite3_prepare_v2(db, "PRAGMA foreign_key_check", -1, &s, NULL);

	while (code == SQLITE_OK || code == SQLITE_ROW) {
		code = sqlite3_step(s);
		if (code != SQLITE_ROW)
			break;
		const char *table = (const char *)sqlite3_column_text(s, 0);
		if (ret->foreign_key_rows++ == 0)
			snprintf(ret->foreign_key_table, sizeof(ret->foreign_key_table), "%.100s",
			         table ? table : "?");
	}
	/* "foreign key mismatch": the schema refers to a key that is none.  The application lives
	 * with it. */
	if (code == SQLITE_ERROR) {
		snprintf(ret->foreign_key_table, sizeof(ret->foreign_key_table), "%.100s",
		         sqlite3_errmsg(db));
		ret->foreign_key_rows++;
		return vfs_error(db, err);
	}
	return code == SQLITE_DONE ? vfs_error(db, err)
	                           : vfs_sqlite_error(db, err, "foreign_key_check");
}

static int ask_sqlite(struct backup_checking *c, const struct vfs_image *image, struct err *err)
{
	cleanup_vfs sqlite3 *db = NULL;
	char problems[400];
	int rc = vfs_open(image, &db, err);

	if (rc)
		return rc;
	sqlite3_progress_handler(db, 100000, on_sqlite_step, c);
	if ((rc = run_integrity_check(db, problems, sizeof(problems), err)))
		return rc;
	if (problems[0])
		return err_set(err, ERR_DAMAGED, 0, "%s", problems);
	return run_foreign_key_check(db, c->ret, err);
}

/* ---- an image ---- */

int backup_check_image(const struct vfs_image *image, uint32_t page_size, bool bytes_alone,
                       backup_progress_fn *progress, void *ctx, struct backup_content *ret,
                       struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	struct backup_checking c = {.ret = ret,
	                            .progress = progress,
	                            .ctx = ctx,
	                            .total_bytes = image->size_bytes,
	                            .buf = buf};
	struct err why = ERR_INIT;

	*ret = (struct backup_content){.ok = true, .size_bytes = image->size_bytes};
	if (!buf)
		return err_set(err, ERR_NOMEM, 0, "no memory to check a backup");
	int rc = read_all(&c, image, page_size, &why);
	if (!rc && !bytes_alone)
		rc = ask_sqlite(&c, image, &why);
	return backup_content_answer(ret, rc, &why, err);
}

/* ---- a file that was just written ---- */

static int read_fd(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	const int *fd = ctx;

	return file_pread(*fd, buf, len, offset, "what was written", err);
}

static int read_pack(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return pack_read(ctx, offset, buf, len, err);
}

int backup_check_made(int fd, bool is_pack, uint32_t page_size, bool bytes_alone,
                      backup_progress_fn *progress, void *ctx, struct backup_content *ret,
                      struct err *err)
{
	cleanup_cache struct cache *cache = NULL; /* outlives the pack */
	cleanup_source struct source *src = NULL;
	cleanup_pack struct pack *pack = NULL;
	struct vfs_image image = {.ctx = &fd, .read = read_fd};
	char path[64];
	int rc;

	if (!is_pack) {
		rc = file_size(fd, &image.size_bytes, "what was written", err);
		return rc ? rc
		          : backup_check_image(&image, page_size, bytes_alone, progress, ctx, ret,
		                               err);
	}
	/* Another description of the file, which need not have a name. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if ((rc = cache_new(CACHE_BYTES, &cache, err)) ||
	    (rc = source_open_file(AT_FDCWD, path, "what was written", &src, err)) ||
	    (rc = pack_open(src, cache, &pack, err)))
		return rc;
	src = NULL; /* the pack's now */
	image.ctx = pack;
	image.read = read_pack;
	image.size_bytes = pack_size(pack);
	return backup_check_image(&image, page_size, bytes_alone, progress, ctx, ret, err);
}

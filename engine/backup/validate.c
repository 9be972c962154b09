/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a backup that lies there is good: its stored bytes against the sha256 of its manifest,
 * then what it holds, by check.c.  What can be read in order only (gzip of others, gpg) goes into
 * an unlinked file first.
 */
#include "engine/backup/backup_i.h"

#include "engine/base/file.h"
#include "engine/gz/gunzip.h"
#include "engine/gz/pack.h"
#include "engine/restore/file.h"
#include "engine/sqlite/format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE_BYTES (1u << 18)

static int sha256_of(const char *path, struct backup_checking *c, char out[BACKUP_SHA256_MAX],
                     struct err *err)
{
	struct sha256_ctx sha;
	cleanup_fd int fd = -1;
	uint64_t at = 0;
	size_t got = 1;
	int rc = file_open(AT_FDCWD, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);

	sha256_init(&sha);
	while (!rc) {
		rc = file_pread_some(fd, c->buf, PIECE_BYTES, at, &got, path, err);
		if (rc || got == 0)
			break;
		sha256_update(&sha, got, c->buf);
		at += got;
		rc = backup_checked(c, 0, err);
	}
	backup_sha_text(&sha, out);
	return rc;
}

/* The bytes of a raw copy are what they were; what they are worth is for the one who repairs it. */
static int inflate_all(const char *path, struct backup_checking *c, struct err *err)
{
	cleanup_gunzip struct gunzip *g = NULL;
	cleanup_fd int fd = -1;
	size_t got = 1;
	int rc = file_open(AT_FDCWD, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);

	rc = rc ? rc : gunzip_new_fd(fd, path, &g, err);
	while (!rc && got > 0) {
		rc = gunzip_read(g, c->buf, PIECE_BYTES, &got, err);
		c->ret->size_bytes += rc ? 0 : got;
		rc = rc ? rc : backup_checked(c, got, err);
	}
	return rc;
}

static int check_raw(const struct backup_entry *e, struct backup_checking *c, struct err *err)
{
	int rc = e->compressed && !e->encrypted ? inflate_all(e->path, c, err) : 0;

	for (size_t i = 0; i < e->n_companions && !rc; i++)
		if (!e->encrypted)
			rc = inflate_all(e->companions[i], c, err);
	return rc;
}

/*
 * A pack whose first bytes are damaged is still gzip, and would pass for that of another.  Its last
 * member begins with constants (gz/member.h, gz/pack.h); most of them are enough.
 */
static int refuse_half_pack(const char *path, struct err *err)
{
	static const uint8_t begin[] = {0x1f,
	                                0x8b,
	                                8,
	                                4,
	                                0,
	                                0,
	                                0,
	                                0,
	                                0,
	                                0xff,
	                                4 + PACK_TRAILER_PAYLOAD,
	                                0,
	                                'a',
	                                'T',
	                                PACK_TRAILER_PAYLOAD,
	                                0,
	                                'a',
	                                's',
	                                'o',
	                                'f',
	                                't',
	                                'a',
	                                'i',
	                                'l'};
	uint8_t end[PACK_TRAILER_SIZE];
	cleanup_fd int fd = -1;
	uint64_t size;
	size_t n_same = 0;
	int rc = file_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0, &fd, err);

	rc = rc ? rc : file_size(fd, &size, path, err);
	if (rc || size < sizeof(end))
		return rc;
	rc = file_pread(fd, end, sizeof(end), size - sizeof(end), path, err);
	for (size_t i = 0; i < sizeof(begin); i++)
		n_same += end[i] == begin[i];
	if (rc || n_same < sizeof(begin) - 4)
		return rc;
	return err_set(err, ERR_DAMAGED, 0, "'%.300s' is damaged at byte 0: no header", path);
}

/* A plain database with nothing beside it: whoever has it open (a mount) reads it, too. */
static int is_plain(const struct backup_entry *e, bool *ret, struct err *err)
{
	static const char magic[] = "SQLite format 3";
	char head[sizeof(magic)] = "", wal[PATH_MAX];
	cleanup_fd int fd = -1;
	size_t got;
	int rc = file_open(AT_FDCWD, e->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);

	rc = rc ? rc : file_pread_some(fd, head, sizeof(head), 0, &got, e->path, err);
	snprintf(wal, sizeof(wal), "%s-wal", e->path);
	*ret = !rc && memcmp(head, magic, sizeof(magic)) == 0 && access(wal, F_OK) != 0;
	return rc;
}

static int check_plain(const struct backup_entry *e, struct backup_checking *c,
                       struct backup_check *ret, struct err *err)
{
	uint8_t head[SQLITE_HEADER_SIZE];
	cleanup_fd int fd = -1;
	struct err why = ERR_INIT;
	struct db_header h;
	uint64_t size;
	int rc = file_open(AT_FDCWD, e->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd, err);

	if (rc || (rc = file_size(fd, &size, e->path, err)))
		return rc;
	ret->opened = true;
	if ((rc = file_pread(fd, head, sizeof(head), 0, e->path, &why)) ||
	    (rc = db_header_parse(head, sizeof(head), &h, &why)))
		return backup_content_answer(c->ret, rc, &why, err);
	if (size % h.page_size != 0)
		rc = err_set(&why, ERR_DAMAGED, 0,
		             "it is not whole: %" PRIu64 " bytes, pages of %" PRIu32, size,
		             h.page_size);
	return rc ? backup_content_answer(c->ret, rc, &why, err)
	          : backup_check_made(fd, false, h.page_size, false, c->progress, c->ctx, c->ret,
	                              err);
}

static int check_database(const struct backup_entry *e, struct backup_checking *c,
                          struct backup_check *ret, struct err *err)
{
	cleanup_restore_file struct restore_file *f = NULL;
	struct err why = ERR_INIT;

	/* Without gpg or the secret key its stored bytes are all that can be looked at. */
	if (e->encrypted && !backup_gpg_has_key(e->path, &why)) {
		snprintf(ret->note, sizeof(ret->note), "not opened: %.180s", why.msg);
		return 0;
	}
	bool plain = false;
	int rc = is_plain(e, &plain, err);
	if (rc || plain)
		return rc ? rc : check_plain(e, c, ret, err);
	rc = restore_file_open(e->path, &f, &why);
	if (err_kind_of(rc) == ERR_REFUSED) { /* somebody writes to it, a journal lies beside it */
		snprintf(ret->note, sizeof(ret->note), "not opened: %.180s", why.msg);
		return 0;
	}
	if (rc)
		return backup_content_answer(c->ret, rc, &why, err);
	const struct restore_image *from = restore_file_image(f);
	ret->opened = true;
	if (restore_file_kind(f) == RESTORE_FILE_GZIP && !e->encrypted &&
	    (rc = refuse_half_pack(e->path, &why)))
		return backup_content_answer(c->ret, rc, &why, err);
	if (from->next && (rc = restore_file_stage(f, c->progress, c->ctx, &why)))
		return backup_content_answer(c->ret, rc, &why, err);
	from = restore_file_image(f);
	const struct vfs_image image = {
	        .ctx = from->ctx, .size_bytes = from->size_bytes, .read = from->read};
	return backup_check_image(&image, from->page_size, false, c->progress, c->ctx, c->ret, err);
}

static void judge(struct backup_check *ret, const struct backup_content *content)
{
	if (!content->ok && !ret->problem[0])
		snprintf(ret->problem, sizeof(ret->problem), "%s", content->problem);
	ret->valid = ret->problem[0] == '\0';
	ret->content_bytes = content->size_bytes;
	ret->foreign_key_rows = content->foreign_key_rows;
	if (content->foreign_key_rows && !ret->note[0])
		snprintf(ret->note, sizeof(ret->note),
		         "foreign_key_check: %" PRIu64 " row%s, the first of %.100s",
		         content->foreign_key_rows, content->foreign_key_rows == 1 ? "" : "s",
		         content->foreign_key_table);
}

int backup_check(const struct backup_entry *e,
                 bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes), void *ctx,
                 struct backup_check *ret, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	struct backup_content content = {.ok = true};
	struct backup_checking c = {.ret = &content,
	                            .progress = progress,
	                            .ctx = ctx,
	                            .total_bytes = e->source_size_bytes,
	                            .buf = buf};
	char sha[BACKUP_SHA256_MAX];
	struct err why = ERR_INIT;

	*ret = (struct backup_check){.sha256_known = e->sha256[0] != '\0'};
	if (!buf)
		return err_set(err, ERR_NOMEM, 0, "no memory to check '%s'", e->path);
	int rc = ret->sha256_known ? sha256_of(e->path, &c, sha, err) : 0;
	if (rc)
		return rc;
	if (ret->sha256_known && strcmp(sha, e->sha256) != 0)
		snprintf(ret->problem, sizeof(ret->problem),
		         "its sha256 is not the one in its manifest");
	if (e->raw) {
		snprintf(ret->note, sizeof(ret->note),
		         "raw copy of a damaged database, not opened");
		rc = backup_content_answer(&content, check_raw(e, &c, &why), &why, err);
	} else {
		rc = check_database(e, &c, ret, err);
	}
	if (!rc)
		judge(ret, &content);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore/file.h"

#include "engine/base/bytes.h"
#include "engine/base/command.h"
#include "engine/base/file.h"
#include "engine/gz/gunzip.h"
#include "engine/gz/pack.h"
#include "engine/restore/overlay.h"
#include "engine/restore/restore_i.h"
#include "engine/sqlite/format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#define HEAD_BYTES 4096u
#define CACHE_BYTES (8u << 20)
#define PIECE_BYTES ((size_t)1 << 20)

struct restore_file {
	char path[PATH_MAX];
	int fd, wal_fd;
	uint64_t stored_bytes;
	enum restore_file_kind kind;
	bool encrypted;
	struct restore_image image;

	/* A database */
	struct overlay *overlay;
	uint64_t file_bytes; /* without the overlay */
	/* A pack */
	struct cache *cache;
	struct pack *pack;
	/* In order only: bytes of the file or of gpg, the first of them taken in to be looked at. */
	struct command gpg;
	uint8_t head[HEAD_BYTES];
	size_t head_len, head_at;
	struct gunzip *gunzip; /* NULL: they are the database already */
	uint8_t first[SQLITE_HEADER_SIZE];
	size_t first_at; /* of `first`, which was read to look at it, handed out so far */
	bool ended;
};

/* ---- at random: the file or the pack, and a -wal over it ---- */

/* What lies behind the end reads as zeros: pages that are in the -wal alone, the lock page. */
static int read_base(const struct restore_file *f, uint64_t offset, void *buf, size_t len,
                     struct err *err)
{
	uint64_t left = offset < f->file_bytes ? f->file_bytes - offset : 0;
	size_t n = len < left ? len : (size_t)left;

	memset((uint8_t *)buf + n, 0, len - n);
	if (n == 0)
		return 0;
	return f->pack ? pack_read(f->pack, offset, buf, n, err)
	               : file_pread(f->fd, buf, n, offset, f->path, err);
}

static int read_at_random(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	const struct restore_file *f = ctx;
	uint32_t page_size = f->image.page_size;
	uint8_t page[PAGE_SIZE_MAX], *out = buf;

	if (!f->overlay)
		return read_base(f, offset, buf, len, err);
	while (len > 0) {
		uint32_t pgno = (uint32_t)(offset / page_size) + 1;
		size_t in = (size_t)(offset % page_size), n = page_size - in;
		int rc;
		n = n < len ? n : len;
		if (overlay_has(f->overlay, pgno)) {
			rc = overlay_read(f->overlay, pgno, page, err);
			if (!rc)
				memcpy(out, page + in, n);
		} else {
			rc = read_base(f, offset, out, n, err);
		}
		if (rc)
			return rc;
		out += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int refuse_users(const struct restore_file *f, const struct stat *st, struct err *err)
{
	struct found found;
	int rc = look_for_holders(st, NULL, &found, err);

	if (rc || found.n_holders == 0)
		return rc;
	return err_set(err, ERR_REFUSED, 0,
	               "'%s' is open in process %d (%s), and no state of its own (asof backup "
	               "--db-path takes one)",
	               f->path, (int)found.holder.pid, found.holder.command);
}

static int take_overlay(struct restore_file *f, const char *path, struct err *err)
{
	return overlay_open(f->wal_fd, path, f->image.page_size, f->file_bytes / f->image.page_size,
	                    &f->overlay, err);
}

/* SQLite, too, asks for the first byte: a zero there is what a transaction leaves that ended. */
static bool is_hot_journal(const char *path)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t first = 0;

	return fd >= 0 && pread(fd, &first, 1, 0) == 1 && first != 0;
}

static int open_overlay(struct restore_file *f, struct err *err)
{
	char path[PATH_MAX + 16];
	struct err why = ERR_INIT;
	struct stat st;

	snprintf(path, sizeof(path), "%s-journal", f->path);
	if (is_hot_journal(path))
		return err_set(err, ERR_REFUSED, 0,
		               "'%s' lies there: a transaction was broken off (open the database "
		               "once with sqlite3, then try again)",
		               path);
	snprintf(path, sizeof(path), "%s-wal", f->path);
	int rc = file_open(AT_FDCWD, path, O_RDONLY, 0, &f->wal_fd, &why);
	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	if (rc || fstat(f->wal_fd, &st) < 0)
		return rc ? err_copy(err, &why) : err_set(err, ERR_IO, errno, "stat '%s'", path);
	rc = st.st_size ? refuse_users(f, &st, err) : 0;
	return rc ? rc : take_overlay(f, path, err);
}

/* A database that is shorter than it says lacks its end. */
static int check_size(const struct restore_file *f, const uint8_t *head, uint64_t size_bytes,
                      struct err *err)
{
	uint64_t said = restore_header_bytes(head);

	if (size_bytes < said || size_bytes % f->image.page_size != 0)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' is not whole: %" PRIu64 " bytes, pages of %u, %" PRIu64
		               " bytes by its header",
		               f->path, size_bytes, f->image.page_size, said);
	return 0;
}

static int finish_at_random(struct restore_file *f, const uint8_t *head, struct err *err)
{
	int rc = f->overlay ? 0 : check_size(f, head, f->file_bytes, err);

	f->image.size_bytes = f->overlay ? (uint64_t)overlay_pages(f->overlay) * f->image.page_size
	                                 : f->file_bytes;
	f->image.read = read_at_random;
	return rc;
}

static int open_database(struct restore_file *f, const struct stat *st, struct err *err)
{
	int rc = refuse_users(f, st, err);

	f->kind = RESTORE_FILE_DATABASE;
	f->file_bytes = (uint64_t)st->st_size;
	if (rc || (rc = open_overlay(f, err)))
		return rc;
	return finish_at_random(f, f->head, err);
}

/* ---- a pack ---- */

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static bool looks_like_pack(const uint8_t *p, size_t len)
{
	static const uint8_t begin[] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff};

	return len >= GZ_PAYLOAD_OFFSET + 8 && memcmp(p, begin, sizeof(begin)) == 0 &&
	       p[12] == 'a' && p[13] == GZ_HEADER &&
	       memcmp(p + GZ_PAYLOAD_OFFSET, "asofpack", 8) == 0;
}

static int set_page_size(struct restore_file *f, const void *first, size_t len, struct err *err)
{
	struct db_header h;
	int rc = db_header_parse(first, len, &h, err);

	if (rc)
		return err_set(err, ERR_DAMAGED, 0, "'%s' holds no SQLite database", f->path);
	f->image.page_size = h.page_size;
	return 0;
}

/* Into an unlinked file. */
static int inflate_to_scratch(struct gunzip *g, int *ret_fd, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	cleanup_fd int fd = -1;
	uint64_t at = 0;
	size_t got = 1;
	int rc = file_open_unlinked(0, &fd, err);

	if (!rc && !buf)
		rc = err_set(err, ERR_NOMEM, 0, "out of memory");
	while (!rc && got > 0) {
		rc = gunzip_read(g, buf, PIECE_BYTES, &got, err);
		if (!rc && got > 0)
			rc = file_pwrite(fd, buf, got, at, "temporary file", err);
		at += got;
	}
	if (!rc)
		*ret_fd = take_fd(&fd);
	return rc;
}

/* Of a raw copy: NAME.db.gz has NAME.db-wal.gz beside it. */
static int open_companion(struct restore_file *f, struct err *err)
{
	char path[PATH_MAX + 16];
	cleanup_fd int fd = -1;
	cleanup_gunzip struct gunzip *g = NULL;
	struct err why = ERR_INIT;

	if (!ends_with(f->path, ".gz"))
		return 0;
	int stem = (int)strlen(f->path) - 3;
	snprintf(path, sizeof(path), "%.*s-journal.gz", stem, f->path);
	if (access(path, F_OK) == 0)
		return err_set(err, ERR_REFUSED, 0,
		               "'%s' belongs to it: a transaction was broken off (gunzip both, "
		               "open the database with sqlite3, then restore from that)",
		               path);
	snprintf(path, sizeof(path), "%.*s-wal.gz", stem, f->path);
	int rc = file_open(AT_FDCWD, path, O_RDONLY, 0, &fd, &why);
	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	if (rc)
		return err_copy(err, &why);
	if ((rc = gunzip_new_fd(fd, path, &g, err)) ||
	    (rc = inflate_to_scratch(g, &f->wal_fd, err)))
		return rc;
	return take_overlay(f, path, err);
}

static int open_pack(struct restore_file *f, struct err *err)
{
	cleanup_source struct source *src = NULL;
	uint8_t first[SQLITE_HEADER_SIZE];
	int rc;

	f->kind = RESTORE_FILE_PACK;
	if ((rc = cache_new(CACHE_BYTES, &f->cache, err)) ||
	    (rc = source_open_file(AT_FDCWD, f->path, NULL, &src, err)) ||
	    (rc = pack_open(src, f->cache, &f->pack, err)))
		return rc;
	src = NULL; /* the pack's now */
	f->file_bytes = pack_size(f->pack);
	if (f->file_bytes < sizeof(first))
		return err_set(err, ERR_DAMAGED, 0, "'%s' holds no SQLite database", f->path);
	if ((rc = pack_read(f->pack, 0, first, sizeof(first), err)) ||
	    (rc = set_page_size(f, first, sizeof(first), err)) || (rc = open_companion(f, err)))
		return rc;
	return finish_at_random(f, first, err);
}

/* ---- in order ---- */

/* Bytes of the file, or of what gpg makes of it. */
static int next_stored(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct restore_file *f = ctx;
	int fd = f->encrypted ? f->gpg.out_fd : f->fd;
	size_t n = f->head_len - f->head_at;
	ssize_t got;

	if (n > 0) {
		n = n < len ? n : len;
		memcpy(buf, f->head + f->head_at, n);
		f->head_at += n;
		*ret_len = n;
		return 0;
	}
	do
		got = read(fd, buf, len);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return err_set(err, ERR_IO, errno, "read '%s'", f->path);
	*ret_len = (size_t)got;
	return 0;
}

static int fill(struct restore_file *f, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	size_t done = 0, got = 1;
	int rc = 0;

	if (f->gunzip)
		return gunzip_read(f->gunzip, buf, len, ret_len, err);
	while (!rc && got > 0 && done < len) {
		rc = next_stored(f, (uint8_t *)buf + done, len - done, &got, err);
		done += rc ? 0 : got;
	}
	*ret_len = done;
	return rc;
}

static int next_content(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct restore_file *f = ctx;
	size_t n = sizeof(f->first) - f->first_at, got = 0;

	n = n < len ? n : len;
	memcpy(buf, f->first + f->first_at, n);
	f->first_at += n;
	*ret_len = n;
	if (n == len || f->ended)
		return 0;
	int rc = fill(f, (uint8_t *)buf + n, len - n, &got, err);
	if (rc)
		return rc;
	*ret_len += got;
	if (*ret_len == len)
		return 0;
	f->ended = true;
	/* gpg tells at its end whether the message was whole and untouched. */
	rc = f->encrypted ? command_finish(&f->gpg, ERR_DAMAGED, err) : 0;
	return rc ? err_wrap(err, rc, "decrypt '%s'", f->path) : 0;
}

static int open_in_order(struct restore_file *f, struct err *err)
{
	size_t got;
	int rc = 0;

	if (gunzip_looks_like_it(f->head, f->head_len))
		rc = gunzip_new(next_stored, f, f->path, &f->gunzip, err);
	f->kind = f->gunzip ? RESTORE_FILE_GZIP : RESTORE_FILE_DATABASE;
	if (rc || (rc = fill(f, f->first, sizeof(f->first), &got, err)) ||
	    (rc = set_page_size(f, f->first, got, err)))
		return rc;
	f->image.size_bytes = restore_header_bytes(f->first);
	f->image.next = next_content;
	return 0;
}

int restore_file_stage(struct restore_file *f,
                       bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes),
                       void *ctx, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	cleanup_fd int fd = -1;
	uint64_t at = 0, said = f->image.size_bytes;
	size_t got = PIECE_BYTES;
	int rc;

	if (f->image.read)
		return 0;
	if (!buf)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	if ((rc = file_open_unlinked(0, &fd, err)))
		return rc;
	while (got == PIECE_BYTES) {
		if ((rc = next_content(f, buf, PIECE_BYTES, &got, err)) ||
		    (rc = file_pwrite(fd, buf, got, at, "temporary file", err)))
			return rc;
		at += got;
		if (progress && !progress(ctx, at, said > at ? said : at))
			return err_set(err, ERR_CANCELLED, 0, "cancelled");
	}
	close(f->fd);
	f->fd = take_fd(&fd);
	f->file_bytes = at;
	f->image.next = NULL;
	return finish_at_random(f, f->first, err);
}

/* ---- which of them ---- */

static int look_at_head(struct restore_file *f, struct err *err)
{
	const char *const argv[] = {"gpg",       "--batch", "--quiet", "--no-tty",
	                            "--decrypt", "--",      f->path,   NULL};
	ssize_t got;

	f->encrypted = ends_with(f->path, ".gpg") || ends_with(f->path, ".pgp");
	if (f->encrypted) {
		int rc = command_start(&f->gpg, argv, -1, err);
		if (rc)
			return err_wrap(err, rc, "decrypt '%s'", f->path);
	}
	int fd = f->encrypted ? f->gpg.out_fd : f->fd;
	while (f->head_len < HEAD_BYTES) {
		got = read(fd, f->head + f->head_len, HEAD_BYTES - f->head_len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set(err, ERR_IO, errno, "read '%s'", f->path);
		if (got == 0)
			break;
		f->head_len += (size_t)got;
	}
	if (f->head_len > 0)
		return 0;
	int rc = f->encrypted ? command_finish(&f->gpg, ERR_DAMAGED, err) : 0;
	return rc ? err_wrap(err, rc, "decrypt '%s'", f->path)
	          : err_set(err, ERR_DAMAGED, 0, "'%s' is empty", f->path);
}

static int open_by_content(struct restore_file *f, const struct stat *st, struct err *err)
{
	int rc = look_at_head(f, err);

	if (rc)
		return rc;
	bool database = db_header_parse(f->head, f->head_len, &(struct db_header){0}, NULL) == 0;
	if (!database && !gunzip_looks_like_it(f->head, f->head_len))
		return err_set(err, ERR_DAMAGED, 0, "'%s' is neither an SQLite database nor gzip",
		               f->path);
	if (f->encrypted)
		return open_in_order(f, err);
	if (database) {
		rc = set_page_size(f, f->head, f->head_len, err);
		return rc ? rc : open_database(f, st, err);
	}
	return looks_like_pack(f->head, f->head_len) ? open_pack(f, err) : open_in_order(f, err);
}

int restore_file_open(const char *path, struct restore_file **ret, struct err *err)
{
	cleanup_restore_file struct restore_file *f = calloc(1, sizeof(*f));
	struct stat st;

	if (!f)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	f->fd = f->wal_fd = -1;
	f->gpg = (struct command)COMMAND_INIT;
	/* SQLite's side files are named after what a link points at. */
	if (!realpath(path, f->path))
		return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
		               errno, "backup '%.200s'", path);
	if (stat(f->path, &st) == 0 && !S_ISREG(st.st_mode))
		return err_set(err, ERR_REFUSED, 0, "'%s' is no regular file (name a backup)",
		               f->path);
	int rc = file_open(AT_FDCWD, f->path, O_RDONLY | O_NONBLOCK, 0, &f->fd, err);
	if (rc)
		return rc;
	if (fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(err, ERR_REFUSED, 0, "'%s' is no regular file (name a backup)",
		               f->path);
	f->stored_bytes = (uint64_t)st.st_size;
	f->image.ctx = f;
	f->image.label = f->path;
	rc = open_by_content(f, &st, err);
	if (!rc)
		*ret = take_ptr(f);
	return rc;
}

void restore_file_free(struct restore_file *f)
{
	if (!f)
		return;
	gunzip_free(f->gunzip);
	command_release(&f->gpg);
	pack_free(f->pack);
	cache_free(f->cache);
	overlay_free(f->overlay);
	if (f->wal_fd >= 0)
		close(f->wal_fd);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

const struct restore_image *restore_file_image(const struct restore_file *f)
{
	return &f->image;
}

bool restore_file_overlays(const struct restore_file *f, uint32_t pgno)
{
	return f->overlay && overlay_has(f->overlay, pgno);
}

enum restore_file_kind restore_file_kind(const struct restore_file *f)
{
	return f->kind;
}

bool restore_file_encrypted(const struct restore_file *f)
{
	return f->encrypted;
}

uint64_t restore_file_stored_bytes(const struct restore_file *f)
{
	return f->stored_bytes;
}

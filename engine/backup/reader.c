/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child process that reads a live database: `PROGRAM asof-read-database HOW PATH [SCRATCH]`,
 * what it read on standard output as records (reader.h).
 *
 * SQLite takes the locks, checks for journals to be rolled back, and waits for those who are
 * busy, as for any reader; but its bytes are read below it, through the descriptors that it holds.
 * So what comes out is exact, byte for byte, and memory does not grow with the database.  How:
 * the system's VFS, with three methods of the database's file looked over:
 *
 *   xShmMap   remembers where the wal-index is
 *   xShmLock  a shared lock on READ(i): this is the read mark that SQLite goes for.  The header
 *             of the wal-index is copied then.  SQLite compares it once more behind the lock with
 *             what it read before; when it says OK in the end, the copy of its last try is the
 *             snapshot that it reads.
 *   xRead     see (3)
 *
 * (1) Rollback journal: SHARED is held, nobody can change the file.
 * (2) WAL: with READ(i > 0) nobody resets the -wal or checkpoints past the mark.  The snapshot is
 *     the newest frame up to mxFrame for each page that has one, else the main file: a page of
 *     it that a checkpoint is at has such a frame.  With READ(0) nobody checkpoints at all, and
 *     the main file is the snapshot.
 * (3) WAL mode without a -wal: opening it as WAL would make a -wal and a -shm, and cannot where the
 *     folder is read-only.  Bytes 18 and 19 are read as 1, so that SQLite takes SHARED, as (1).
 *     With SHARED held nobody can remove a -wal.  So if none is there at the end, either, then
 *     nothing was ever committed to one meanwhile; else the parent is told to try again.  The same
 *     goes for an empty -wal without a -shm, by the -shm: whoever opens it makes one.
 * (4) A hot journal, or a -wal in a folder where no -shm can be made: the files are copied while
 *     SHARED is held, and SQLite repairs the copy.
 *
 * Nothing is written to the database: the connection is read-only, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE
 * keeps the close from checkpointing.  A -shm that was missing beside a -wal is made, as by any
 * reader.
 */
#include "engine/backup/reader.h"

#include "engine/backup/backup_i.h"
#include "engine/base/bytes.h"
#include "engine/base/file.h"
#include "engine/sqlite/format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUSY_MS 30000
#define PIECE_BYTES (1u << 18)
#define SHM_READ_FIRST 3 /* xShmLock counts WRITE, CKPT, RECOVER, READ(0) ... */
#define SHM_REGION_BYTES 32768

struct frame_ref {
	uint32_t pgno, frame;
};

struct reader {
	const char *path;
	bool patched;      /* (3) */
	const char *watch; /* the side file that must still be missing at the end then */
	/* What the methods saw */
	sqlite3_vfs vfs, *system;
	sqlite3_io_methods methods;
	const sqlite3_io_methods *real;
	sqlite3_file *main, *wal;
	const volatile void *shm;
	bool shm_unreliable;
	int read_slot; /* -1: none */
	uint8_t index_copy[WAL_INDEX_HEADER_BYTES];
	/* The snapshot */
	sqlite3 *db;
	uint32_t page_size, n_pages;
	uint64_t file_bytes;
	struct frame_ref *refs; /* by page, the newest frame of each */
	size_t n_refs;
};

/* ---- records ---- */

static int put(const void *p, size_t len, struct err *err)
{
	const char *at = p;

	while (len > 0) {
		ssize_t n = write(STDOUT_FILENO, at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, ERR_CANCELLED, errno, "nobody takes what was read");
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int put_record(enum reader_record kind, const void *p, size_t len, struct err *err)
{
	uint8_t head[READER_RECORD_HEAD];

	head[0] = (uint8_t)kind;
	store_le32(head + 1, (uint32_t)len);
	int rc = put(head, sizeof(head), err);
	return rc ? rc : put(p, len, err);
}

static int put_begin(uint32_t page_size, uint64_t size_bytes, bool blocks_writers, struct err *err)
{
	uint8_t b[READER_BEGIN_BYTES];

	store_le32(b, page_size);
	store_le64(b + 4, size_bytes);
	b[12] = blocks_writers;
	return put_record(READER_BEGIN, b, sizeof(b), err);
}

static int finish(int rc, bool again, const struct err *why)
{
	uint8_t b[READER_ERROR_HEAD + sizeof(why->msg)];
	size_t n = strlen(why->msg);

	if (!rc)
		return put_record(READER_END, NULL, 0, NULL) ? 1 : 0;
	store_le32(b, (uint32_t)why->kind);
	b[4] = again;
	memcpy(b + READER_ERROR_HEAD, why->msg, n);
	return put_record(READER_ERROR, b, READER_ERROR_HEAD + n, NULL) ? 1 : 0;
}

/* ---- what SQLite does, looked over ---- */

static struct reader *reader_of(sqlite3_file *file)
{
	return (struct reader *)((char *)(uintptr_t)file->pMethods -
	                         offsetof(struct reader, methods));
}

static int on_read(sqlite3_file *file, void *buf, int len, sqlite3_int64 at)
{
	struct reader *r = reader_of(file);
	int code = r->real->xRead(file, buf, len, at);

	if (code == SQLITE_OK && r->patched)
		for (sqlite3_int64 i = 18; i < 20; i++)
			if (i >= at && i < at + len)
				((uint8_t *)buf)[i - at] = 1;
	return code;
}

static int on_shm_map(sqlite3_file *file, int region, int bytes, int extend, void volatile **ret)
{
	struct reader *r = reader_of(file);
	int code = r->real->xShmMap(file, region, bytes, extend, ret);

	if (region == 0)
		r->shm = *ret;
	if (code == SQLITE_READONLY_CANTINIT)
		r->shm_unreliable = true;
	return code;
}

static int on_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
	struct reader *r = reader_of(file);
	int code = r->real->xShmLock(file, offset, n, flags);

	if (code != SQLITE_OK || offset < SHM_READ_FIRST || !(flags & SQLITE_SHM_SHARED))
		return code;
	r->read_slot = flags & SQLITE_SHM_LOCK ? offset - SHM_READ_FIRST : -1;
	if (r->read_slot >= 0 && r->shm) {
		const volatile uint32_t *from = r->shm;
		/* The first copy of the header alone, as SQLite compares it: the other is
		 * written first, and may tell of a commit to come. */
		for (size_t i = 0; i < WAL_INDEX_HEADER_BYTES / 4; i++) {
			uint32_t v = from[i];
			memcpy(r->index_copy + 4 * i, &v, 4);
		}
		memcpy(r->index_copy + 48, r->index_copy, 48);
	}
	return code;
}

static int on_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret)
{
	struct reader *r = (struct reader *)((char *)vfs - offsetof(struct reader, vfs));
	int code = r->system->xOpen(r->system, name, file, flags, ret);

	if (code == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB) && !r->main) {
		r->main = file;
		r->real = file->pMethods;
		r->methods = *file->pMethods;
		r->methods.iVersion = 2; /* no mapping: all reads go through xRead */
		r->methods.xRead = on_read;
		r->methods.xShmMap = on_shm_map;
		r->methods.xShmLock = on_shm_lock;
		file->pMethods = &r->methods;
	}
	if (code == SQLITE_OK && (flags & SQLITE_OPEN_WAL))
		r->wal = file;
	return code;
}

/* ---- opening ---- */

static bool exists(const char *path, const char *suffix)
{
	char full[PATH_MAX + 16];

	snprintf(full, sizeof(full), "%s%s", path, suffix);
	return access(full, F_OK) == 0;
}

static int sqlite_error(const struct reader *r, int code, struct err *err)
{
	int extended = r->db ? sqlite3_extended_errcode(r->db) : code;
	enum err_kind kind;

	switch (code & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		kind = ERR_BUSY;
		break;
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		kind = ERR_DAMAGED;
		break;
	case SQLITE_NOMEM:
		kind = ERR_NOMEM;
		break;
	case SQLITE_PERM:
	case SQLITE_AUTH:
		kind = ERR_DENIED;
		break;
	default:
		kind = ERR_IO;
	}
	return err_set(err, kind, 0, "read database '%.300s': %s (%d)", r->path,
	               r->db ? sqlite3_errmsg(r->db) : sqlite3_errstr(code), extended);
}

/* Opens it and begins a read transaction.  *ret_code is what SQLite said. */
static int begin(struct reader *r, int flags, int *ret_code, struct err *err)
{
	r->system = sqlite3_vfs_find(NULL);
	if (!r->system)
		return err_set(err, ERR_NOMEM, 0, "SQLite does not start");
	r->vfs = *r->system;
	r->vfs.pNext = NULL;
	r->vfs.zName = "asof-reader";
	r->vfs.xOpen = on_open;
	r->read_slot = -1;
	*ret_code = sqlite3_vfs_register(&r->vfs, 0);
	if (*ret_code == SQLITE_OK)
		*ret_code = sqlite3_open_v2(r->path, &r->db, flags, r->vfs.zName);
	if (*ret_code == SQLITE_OK) {
		sqlite3_db_config(r->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		sqlite3_busy_timeout(r->db, BUSY_MS);
		*ret_code = sqlite3_exec(r->db, "BEGIN", NULL, NULL, NULL);
	}
	/* Reads the header, and no schema: that may be damaged. */
	if (*ret_code == SQLITE_OK)
		*ret_code = sqlite3_exec(r->db, "PRAGMA user_version", NULL, NULL, NULL);
	return *ret_code == SQLITE_OK ? 0 : sqlite_error(r, *ret_code, err);
}

static void end(struct reader *r)
{
	sqlite3_close(r->db);
	if (r->vfs.zName)
		sqlite3_vfs_unregister(&r->vfs);
	free(r->refs);
	*r = (struct reader){.path = r->path};
}

/* ---- the snapshot ---- */

static int read_main(struct reader *r, void *buf, size_t len, uint64_t at, struct err *err)
{
	int code = r->real->xRead(r->main, buf, (int)len, (sqlite3_int64)at);

	if (code == SQLITE_OK)
		return 0;
	if (code == SQLITE_IOERR_SHORT_READ)
		return err_set(err, ERR_DAMAGED, 0, "'%.300s' ends before byte %" PRIu64, r->path,
		               at + len);
	return err_set(err, ERR_IO, 0, "read '%.300s' at %" PRIu64 ": %s", r->path, at,
	               sqlite3_errstr(code));
}

static int read_wal(struct reader *r, void *buf, size_t len, uint64_t at, struct err *err)
{
	int code = r->wal ? r->wal->pMethods->xRead(r->wal, buf, (int)len, (sqlite3_int64)at)
	                  : SQLITE_IOERR_SHORT_READ;

	if (code == SQLITE_OK)
		return 0;
	return err_set(err, code == SQLITE_IOERR_SHORT_READ ? ERR_DAMAGED : ERR_IO, 0,
	               "read '%.300s-wal' at %" PRIu64 ": %s", r->path, at, sqlite3_errstr(code));
}

/* What the main file says of itself. */
static int size_by_main(struct reader *r, struct err *err)
{
	uint8_t head[SQLITE_HEADER_SIZE];
	struct db_header h;
	int rc = read_main(r, head, sizeof(head), 0, err);

	if (rc || (rc = db_header_parse(head, sizeof(head), &h, err)))
		return rc;
	r->page_size = h.page_size;
	uint64_t pages = r->file_bytes / h.page_size;
	/* As SQLite: the count in the header, if it was written with its last change. */
	if (h.n_pages && load_be32(head + 92) == h.change_counter) {
		if (h.n_pages > pages)
			return err_set(err, ERR_DAMAGED, 0,
			               "'%.300s' is cut short: %" PRIu64 " pages of %" PRIu32,
			               r->path, pages, h.n_pages);
		pages = h.n_pages;
	}
	r->n_pages = (uint32_t)pages;
	return 0;
}

static int by_page_then_frame(const void *a, const void *b)
{
	const struct frame_ref *x = a, *y = b;

	if (x->pgno != y->pgno)
		return x->pgno < y->pgno ? -1 : 1;
	return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static int read_refs(struct reader *r, const struct wal_index *index, struct err *err)
{
	uint8_t head[WAL_FRAME_HEADER_SIZE];
	struct wal_frame_header h;
	size_t kept = 0;

	r->refs = calloc((size_t)index->max_frame + 1, sizeof(*r->refs));
	if (!r->refs)
		return err_set(err, ERR_NOMEM, 0, "no memory for an index of %" PRIu32 " frames",
		               index->max_frame);
	for (uint32_t i = 1; i <= index->max_frame; i++) {
		int rc = read_wal(r, head, sizeof(head), wal_frame_offset(i, r->page_size), err);
		if (rc)
			return rc;
		wal_frame_header_parse(head, &h);
		if (h.salt1 != index->salt1 || h.salt2 != index->salt2 || h.pgno == 0)
			return err_set(err, ERR_DAMAGED, 0,
			               "frame %" PRIu32 " of '%.300s-wal' is none", i, r->path);
		if (h.pgno <= r->n_pages)
			r->refs[r->n_refs++] = (struct frame_ref){h.pgno, i};
	}
	qsort(r->refs, r->n_refs, sizeof(*r->refs), by_page_then_frame);
	for (size_t i = 0; i < r->n_refs; i++)
		if (i + 1 == r->n_refs || r->refs[i + 1].pgno != r->refs[i].pgno)
			r->refs[kept++] = r->refs[i];
	r->n_refs = kept;
	return 0;
}

static int take_snapshot(struct reader *r, struct err *err)
{
	struct wal_index index;
	sqlite3_int64 size;

	if (r->real->xFileSize(r->main, &size) != SQLITE_OK)
		return err_set(err, ERR_IO, 0, "ask for the size of '%.300s'", r->path);
	r->file_bytes = (uint64_t)size;
	if (r->read_slot < 0)
		return size_by_main(r, err);
	if (!wal_index_parse(r->index_copy, &index))
		return err_set(err, ERR_BUSY, 0, "the wal-index of '%.300s' is being written",
		               r->path);
	if (index.n_pages == 0 || index.page_size == 0)
		return size_by_main(r, err);
	r->page_size = index.page_size;
	r->n_pages = index.n_pages;
	return r->read_slot > 0 ? read_refs(r, &index, err) : 0;
}

/* ---- its bytes ---- */

/* Pages [pgno, pgno + n), none of them in the -wal. */
static int put_main(struct reader *r, uint32_t pgno, uint32_t n, uint8_t *buf, struct err *err)
{
	uint32_t lock = lock_page(r->page_size);
	size_t len = (size_t)n * r->page_size;
	int rc = read_main(r, buf, len, (uint64_t)(pgno - 1) * r->page_size, err);

	if (rc)
		return rc;
	if (lock >= pgno && lock - pgno < n)
		memset(buf + (size_t)(lock - pgno) * r->page_size, 0, r->page_size);
	return put_record(READER_DATA, buf, len, err);
}

static int put_pages(struct reader *r, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	uint32_t per_piece = PIECE_BYTES / r->page_size, pgno = 1;
	size_t next = 0; /* in refs */
	int rc = 0;

	if (!buf)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%.300s'", r->path);
	while (!rc && pgno <= r->n_pages) {
		uint32_t until = next < r->n_refs ? r->refs[next].pgno : r->n_pages + 1;
		uint32_t n = until - pgno < per_piece ? until - pgno : per_piece;
		if (n > 0) {
			rc = put_main(r, pgno, n, buf, err);
			pgno += n;
			continue;
		}
		rc = read_wal(r, buf, r->page_size,
		              wal_frame_offset(r->refs[next].frame, r->page_size) +
		                      WAL_FRAME_HEADER_SIZE,
		              err);
		if (!rc)
			rc = put_record(READER_DATA, buf, r->page_size, err);
		next++;
		pgno++;
	}
	return rc;
}

/* ---- (4): a copy, repaired ---- */

static int copy_file(const char *from, const char *to, struct err *err)
{
	cleanup_fd int in = -1, out = -1;
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	uint64_t at = 0;
	size_t got = 1;
	int rc = buf ? 0 : err_set(err, ERR_NOMEM, 0, "no memory to copy '%.300s'", from);

	rc = rc ? rc : file_open(AT_FDCWD, from, O_RDONLY, 0, &in, err);
	rc = rc ? rc : file_open(AT_FDCWD, to, O_WRONLY | O_CREAT | O_EXCL, 0600, &out, err);
	while (!rc) {
		rc = file_pread_some(in, buf, PIECE_BYTES, at, &got, from, err);
		if (rc || got == 0)
			break;
		rc = file_pwrite(out, buf, got, at, to, err);
		at += got;
	}
	return rc;
}

/* SHARED as SQLite has it, without SQLite. */
static int lock_shared(const char *path, int *ret_fd, struct err *err)
{
	struct flock l = {.l_type = F_RDLCK, .l_start = SQLITE_PENDING_BYTE + 2, .l_len = 510};
	int rc = file_open(AT_FDCWD, path, O_RDONLY, 0, ret_fd, err);

	if (rc || fcntl(*ret_fd, F_OFD_SETLK, &l) == 0)
		return rc;
	return err_set(err, ERR_BUSY, 0, "'%.300s' is locked by its application", path);
}

static int copy_aside(const char *path, const char *copy, bool *ret_again, struct err *err)
{
	static const char *const suffixes[] = {"", "-journal", "-wal"};
	char from[PATH_MAX + 16], to[PATH_MAX + 16];
	cleanup_fd int lock_fd = -1;
	bool had_shm = exists(path, "-shm");
	int rc = lock_shared(path, &lock_fd, err);

	for (size_t i = 0; i < 3 && !rc; i++) {
		snprintf(from, sizeof(from), "%s%s", path, suffixes[i]);
		snprintf(to, sizeof(to), "%s%s", copy, suffixes[i]);
		if (i == 0 || access(from, F_OK) == 0)
			rc = copy_file(from, to, err);
	}
	/* Whoever uses the -wal has a -shm, and cannot remove it while SHARED is held. */
	if (!rc && !had_shm && exists(path, "-shm")) {
		*ret_again = true;
		rc = err_set(err, ERR_BUSY, 0, "'%.300s' was opened meanwhile", path);
	}
	return rc;
}

static void remove_copy(const char *dir, const char *copy)
{
	static const char *const suffixes[] = {"", "-journal", "-wal", "-shm"};
	char path[PATH_MAX + 16];

	for (size_t i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s%s", copy, suffixes[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/lock", dir);
	unlink(path);
	rmdir(dir);
}

static int read_open(struct reader *r, bool *ret_again, struct err *err);

static int read_copy(const char *path, const char *scratch, bool *ret_again, struct err *err)
{
	char dir[PATH_MAX], copy[PATH_MAX + 8], lock[PATH_MAX + 8];
	cleanup_fd int lock_fd = -1;
	struct reader r = {.path = copy};
	int code, rc;

	snprintf(dir, sizeof(dir), "%s/" BACKUP_TMP_PREFIX "XXXXXX", scratch);
	if (!mkdtemp(dir))
		return err_set(err, ERR_IO, errno, "make a folder in '%.300s'", scratch);
	snprintf(copy, sizeof(copy), "%s/db", dir);
	snprintf(lock, sizeof(lock), "%s/lock", dir);
	rc = file_open(AT_FDCWD, lock, O_WRONLY | O_CREAT | O_EXCL, 0600, &lock_fd, err);
	rc = rc ? rc : file_lock(lock_fd, lock, err);
	rc = rc ? rc : copy_aside(path, copy, ret_again, err);
	rc = rc ? rc : begin(&r, SQLITE_OPEN_READWRITE, &code, err);
	rc = rc ? rc : read_open(&r, ret_again, err);
	end(&r);
	remove_copy(dir, copy);
	return rc;
}

/* ---- all of it ---- */

static int read_open(struct reader *r, bool *ret_again, struct err *err)
{
	int rc = take_snapshot(r, err);

	if (rc) {
		*ret_again = err_kind_of(rc) == ERR_BUSY;
		return rc;
	}
	rc = put_begin(r->page_size, (uint64_t)r->n_pages * r->page_size, r->read_slot < 0, err);
	rc = rc ? rc : put_pages(r, err);
	if (!rc && r->patched && exists(r->path, r->watch)) {
		*ret_again = true;
		rc = err_set(err, ERR_BUSY, 0, "'%.300s' was opened for writing meanwhile",
		             r->path);
	}
	return rc;
}

/* (3): what SQLite makes of the file when nobody has it open. */
static int look_at_mode(struct reader *r, struct err *err)
{
	const char *path = r->path;
	char wal[PATH_MAX + 8];
	uint8_t head[SQLITE_HEADER_SIZE];
	struct stat st;
	cleanup_fd int fd = -1;
	size_t got;
	int rc = file_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0, &fd, err);

	if (rc)
		return err_kind_of(rc) == ERR_NOT_FOUND
		               ? err_set(err, ERR_NOT_FOUND, 0, "database not found: %.300s", path)
		               : rc;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(err, ERR_NOT_FOUND, 0, "database not found: '%.300s' is no file",
		               path);
	if ((rc = file_pread_some(fd, head, sizeof(head), 0, &got, path, err)))
		return rc;
	if (got == 0)
		return err_set(err, ERR_DAMAGED, 0, "'%.300s' is empty", path);
	if (got < sizeof(head))
		return err_set(err, ERR_DAMAGED, 0, "'%.300s' is no SQLite database", path);
	if (head[18] != 2 || head[19] != 2)
		return 0;
	snprintf(wal, sizeof(wal), "%s-wal", path);
	if (stat(wal, &st) < 0)
		r->watch = "-wal";
	else if (st.st_size == 0 && !exists(path, "-shm"))
		r->watch = "-shm";
	r->patched = r->watch != NULL;
	return 0;
}

static bool needs_repair(const struct reader *r, int code)
{
	int extended = r->db ? sqlite3_extended_errcode(r->db) : code;

	return extended == SQLITE_READONLY_ROLLBACK || extended == SQLITE_READONLY_RECOVERY ||
	       (code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_READONLY;
}

static int read_database(const char *path, const char *scratch, bool *ret_again, struct err *err)
{
	struct reader r = {.path = path};
	int code, rc = look_at_mode(&r, err);

	if (rc)
		return rc;
	rc = begin(&r, SQLITE_OPEN_READONLY, &code, err);
	bool copy = rc ? needs_repair(&r, code) : r.shm_unreliable;
	if (!rc && !copy)
		rc = read_open(&r, ret_again, err);
	end(&r);
	return copy ? read_copy(path, scratch, ret_again, err) : rc;
}

static int read_raw(const char *path, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	cleanup_fd int fd = -1;
	uint64_t at = 0, size = 0;
	size_t got = 1;
	int rc = buf ? 0 : err_set(err, ERR_NOMEM, 0, "no memory to read '%.300s'", path);

	rc = rc ? rc : file_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0, &fd, err);
	rc = rc ? rc : file_size(fd, &size, path, err);
	rc = rc ? rc : put_begin(0, size, false, err);
	while (!rc) {
		rc = file_pread_some(fd, buf, PIECE_BYTES, at, &got, path, err);
		if (rc || got == 0)
			break;
		rc = put_record(READER_DATA, buf, got, err);
		at += got;
	}
	return rc;
}

bool backup_is_reader(int argc, char **argv)
{
	return argc >= 4 && strcmp(argv[1], READER_WORD) == 0;
}

int backup_reader_main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	bool again = false;
	int rc;

	signal(SIGPIPE, SIG_IGN);
	if (strcmp(argv[2], READER_RAW) == 0)
		rc = read_raw(argv[3], &err);
	else
		rc = read_database(argv[3], argc > 4 ? argv[4] : "/var/tmp", &again, &err);
	return finish(rc, again, &err);
}

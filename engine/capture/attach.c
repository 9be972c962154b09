/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching: descriptors of our own, SQLite's connection L, and whether both still stand
 * for what lies at the path.
 *
 * POSIX drops all locks of a process on a file when the process closes any descriptor of it.
 * So db_fd and shm_fd are opened once for an attachment and closed only after SQLite's
 * connections are; other threads read the database through db_fd and never open it.  The
 * -wal carries no locks.
 */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/capture/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define REPLACING_MAX_S 30
#define BUSY_TIMEOUT_MS 100
#define ENABLE_WAL_TIMEOUT_MS 2000
#define SHM_REGION_BYTES 32768

static void cleanup_sqlite(sqlite3 **db)
{
	if (*db)
		sqlite3_close(*db);
}

static int sqlite_error(sqlite3 *db, int rc, const char *path, const char *doing, struct err *err)
{
	const char *text = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);

	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, ERR_BUSY, 0,
		               "%s: another process has it locked exclusively (asof needs "
		               "locking_mode=NORMAL in the application)",
		               path);
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		return err_set(err, ERR_DAMAGED, 0, "%s: not an SQLite database: %s", path, text);
	case SQLITE_NOMEM:
		return err_set(err, ERR_NOMEM, 0, "%s: %s", path, text);
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_READONLY:
	case SQLITE_AUTH:
		return err_set(err, ERR_DENIED, 0,
		               "%s: %s: %s (run asof as the application's user: the -shm beside "
		               "the database must be writable)",
		               path, doing, text);
	default:
		return err_set(err, ERR_IO, 0, "%s: %s: %s", path, doing, text);
	}
}

static int open_connection(const char *path, int flags, sqlite3 **ret, struct err *err)
{
	sqlite3 *db CLEANUP(cleanup_sqlite) = NULL;
	int rc = sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_PRIVATECACHE, NULL);

	if (rc != SQLITE_OK)
		return sqlite_error(db, rc, path, "open", err);
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 0, 0);
	sqlite3_wal_autocheckpoint(db, 0);
	sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
	*ret = take_ptr(db);
	return 0;
}

/* One statement, its first column as text. */
static int ask(sqlite3 *db, const char *path, const char *sql, char *ret, size_t ret_size,
               struct err *err)
{
	sqlite3_stmt *statement = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

	ret[0] = 0;
	if (rc == SQLITE_OK) {
		rc = sqlite3_step(statement);
		if (rc == SQLITE_ROW) {
			const unsigned char *text = sqlite3_column_text(statement, 0);
			snprintf(ret, ret_size, "%s", text ? (const char *)text : "");
			rc = SQLITE_DONE;
		}
	}
	int result = rc == SQLITE_DONE ? 0 : sqlite_error(db, rc, path, sql, err);
	sqlite3_finalize(statement);
	return result;
}

static int read_header(int fd, const char *path, struct db_header *ret, struct err *err)
{
	uint8_t bytes[SQLITE_HEADER_SIZE];
	size_t got;
	int rc = file_pread_some(fd, bytes, sizeof(bytes), 0, &got, path, err);

	if (rc)
		return rc;
	if (got == 0)
		return err_set(err, ERR_DAMAGED, 0, "%s: the file is empty, no database yet", path);
	rc = db_header_parse(bytes, got, ret, err);
	return rc ? err_wrap(err, rc, "%s", path) : 0;
}

static int refuse_rollback(const char *path, struct err *err)
{
	return err_set(err, ERR_REFUSED, 0,
	               "%s: is in rollback-journal mode (run `sqlite3 %s 'PRAGMA "
	               "journal_mode=wal'` or give --enable-wal)",
	               path, path);
}

static bool is_wal(const struct db_header *h)
{
	return h->write_version == 2 && h->read_version == 2;
}

static int open_database(const char *path, int *ret_fd, struct err *err)
{
	struct stat st;
	int rc = file_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, ret_fd, err);

	if (rc == 0 && (fstat(*ret_fd, &st) || !S_ISREG(st.st_mode))) {
		close(take_fd(ret_fd));
		return err_set(err, ERR_DAMAGED, 0, "%s: not a regular file", path);
	}
	return rc;
}

int capture_inspect(const char *path, struct db_header *ret, struct err *err)
{
	int fd cleanup_fd = -1;
	int rc = open_database(path, &fd, err);

	if (rc == 0)
		rc = read_header(fd, path, ret, err);
	return rc;
}

static int enable_wal(const char *path, struct err *err)
{
	sqlite3 *db CLEANUP(cleanup_sqlite) = NULL;
	char mode[32];
	int rc = open_connection(path, SQLITE_OPEN_READWRITE, &db, err);

	if (rc)
		return rc;
	sqlite3_busy_timeout(db, ENABLE_WAL_TIMEOUT_MS);
	rc = ask(db, path, "PRAGMA journal_mode=wal", mode, sizeof(mode), err);
	if (rc)
		return rc;
	if (strcmp(mode, "wal") != 0)
		return err_set(err, ERR_REFUSED, 0, "%s: cannot be switched to WAL, stays %s", path,
		               mode);
	log_info(LOG_MODULE, "switched to WAL mode db=%s", path);
	return 0;
}

/*
 * Between statements a connection keeps SHARED on the database in WAL mode, and only there.  To ask
 * PRAGMA journal_mode would be to read the schema, and that of an application with a newer SQLite
 * can have words that ours does not know.
 */
static bool is_in_wal_mode(sqlite3 *db)
{
	int lock = SQLITE_LOCK_NONE;

	return sqlite3_file_control(db, "main", SQLITE_FCNTL_LOCKSTATE, &lock) == SQLITE_OK &&
	       lock == SQLITE_LOCK_SHARED;
}

/* L: one read of page 1, so that SQLite opens WAL and wal-index; no SQL ever after. */
static int open_lock_connection(struct attachment *at, struct err *err)
{
	volatile void *shm = NULL;
	char answer[64];
	int rc = open_connection(at->path, SQLITE_OPEN_READONLY, &at->lock_db, err);

	if (rc == 0)
		rc = ask(at->lock_db, at->path, "PRAGMA schema_version", answer, sizeof(answer),
		         err);
	if (rc)
		return rc;
	if (!is_in_wal_mode(at->lock_db))
		return refuse_rollback(at->path, err);
	sqlite3_db_release_memory(at->lock_db);
	sqlite3_busy_timeout(at->lock_db, 0);

	rc = sqlite3_file_control(at->lock_db, "main", SQLITE_FCNTL_FILE_POINTER, &at->file);
	if (rc == SQLITE_OK &&
	    (!at->file || !at->file->pMethods || at->file->pMethods->iVersion < 2))
		rc = SQLITE_ERROR;
	if (rc == SQLITE_OK)
		rc = at->file->pMethods->xShmMap(at->file, 0, SHM_REGION_BYTES, 0, &shm);
	if (rc != SQLITE_OK || !shm)
		return sqlite_error(NULL, rc ? rc : SQLITE_ERROR, at->path, "map the wal-index",
		                    err);
	at->shm = shm;
	return 0;
}

static int open_sidecars(struct attachment *at, struct err *err)
{
	int rc = file_open(AT_FDCWD, at->wal_path, O_RDONLY, 0, &at->wal_fd, err);

	if (rc == 0)
		rc = file_open(AT_FDCWD, at->shm_path, O_RDONLY, 0, &at->shm_fd, err);
	if (rc)
		return rc;
	if (fstat(at->db_fd, &at->db_stat) || fstat(at->wal_fd, &at->wal_stat) ||
	    fstat(at->shm_fd, &at->shm_stat))
		return err_set(err, ERR_IO, errno, "%s: stat", at->path);
	return 0;
}

static bool same_inode(const char *path, const struct stat *ours)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_dev == ours->st_dev && st.st_ino == ours->st_ino;
}

static bool files_in_place(const struct attachment *at)
{
	return same_inode(at->path, &at->db_stat) && same_inode(at->wal_path, &at->wal_stat) &&
	       same_inode(at->shm_path, &at->shm_stat);
}

bool capture_in_place(const struct capture *c)
{
	return files_in_place(&c->at);
}

/* SQLite opened by name what we opened by name: the same, or did someone step between? */
static int check_same_files(struct attachment *at, struct err *err)
{
	int moved = 0;

	sqlite3_file_control(at->lock_db, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
	if (moved || !files_in_place(at))
		return err_set(err, ERR_BUSY, 0, "%s: was replaced while asof attached", at->path);
	return 0;
}

static int attach_names(struct capture *c, struct attachment *at, struct err *err)
{
	at->path = realpath(c->path, NULL);
	if (!at->path)
		return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "%s", c->path);
	if (asprintf(&at->wal_path, "%s-wal", at->path) < 0 ||
	    asprintf(&at->shm_path, "%s-shm", at->path) < 0)
		return err_set(err, ERR_NOMEM, 0, "%s: no memory", at->path);
	return 0;
}

/* A future time counts as now: clocks are set back. */
static int wait_for_replacement(const struct capture *c, const char *path, struct err *err)
{
	char name[PATH_MAX];
	struct stat st;
	struct err why = ERR_INIT;
	int rc = 0;

	if (snprintf(name, sizeof(name), "%s" CAPTURE_REPLACING_SUFFIX, path) >=
	            (int)sizeof(name) ||
	    lstat(name, &st) < 0)
		return 0;
	if (c->options.take_up)
		rc = c->options.take_up(c->options.take_up_ctx, path, &why);
	if (c->options.take_up && rc == 0)
		return 0;
	if (time(NULL) - st.st_mtim.tv_sec <= REPLACING_MAX_S)
		return err_set(err, ERR_BUSY, 0, "%s: is being replaced by a restore", path);
	if (rc < 0)
		log_error("capture", "attached all the same db=%s: %s", path, why.msg);
	return 0;
}

static int attach_steps(struct capture *c, struct attachment *at, struct err *err)
{
	struct db_header header;
	int rc = attach_names(c, at, err);

	if (rc == 0)
		rc = wait_for_replacement(c, at->path, err);
	if (rc == 0)
		rc = open_database(at->path, &at->db_fd, err);
	if (rc == 0)
		rc = read_header(at->db_fd, at->path, &header, err);
	if (rc)
		return rc;
	if (capture_foreign_exclusive(at->db_fd))
		return sqlite_error(NULL, SQLITE_BUSY, at->path, "attach", err);
	if (!is_wal(&header)) {
		if (!c->options.enable_wal)
			return refuse_rollback(at->path, err);
		rc = enable_wal(at->path, err);
		if (rc)
			return rc;
	}
	at->db_page_size = header.page_size;
	rc = open_lock_connection(at, err);
	if (rc == 0)
		rc = open_sidecars(at, err);
	if (rc == 0)
		rc = check_same_files(at, err);
	return rc;
}

static void release_attachment(struct attachment *at)
{
	if (at->lock_db)
		sqlite3_close(at->lock_db);
	/* From here on SQLite has no locks in this process that closing could drop. */
	for (int i = 0; i < 3; i++) {
		int *fd = i == 0 ? &at->shm_fd : i == 1 ? &at->wal_fd : &at->db_fd;
		if (*fd >= 0)
			close(take_fd(fd));
	}
	free(at->path);
	free(at->wal_path);
	free(at->shm_path);
	*at = (struct attachment){.db_fd = -1, .wal_fd = -1, .shm_fd = -1};
}

int capture_attach(struct capture *c, struct err *err)
{
	struct attachment *at = &c->at;

	*at = (struct attachment){.db_fd = -1, .wal_fd = -1, .shm_fd = -1};
	int rc = attach_steps(c, at, err);
	if (rc) {
		release_attachment(at);
		return rc;
	}
	if (c->was_attached &&
	    (c->last_dev != at->db_stat.st_dev || c->last_ino != at->db_stat.st_ino))
		capture_break_due(c, CAPTURE_REPLACED, "another file lies at the path");
	if (c->have_pos && c->page_size && c->page_size != at->db_page_size)
		capture_break_due(c, CAPTURE_PAGE_SIZE, "pages have %u bytes now, not %u",
		                  at->db_page_size, c->page_size);
	c->page_size = at->db_page_size;
	c->was_attached = true;
	c->last_dev = at->db_stat.st_dev;
	c->last_ino = at->db_stat.st_ino;
	c->file_look = (struct file_look){0};
	c->file_changed_once = false;
	c->header_was_rollback = false;
	c->header_mtime = (struct timespec){0};
	c->torn_since_us = 0;
	c->foreign_since_us = 0;
	watch_attach(c);
	if (at->db_stat.st_nlink > 1)
		log_warn(LOG_MODULE,
		         "the file has %lu names (hard links): commits that an application makes "
		         "through another than this go to another -wal, are not captured, and "
		         "corrupt it db=%s",
		         (unsigned long)at->db_stat.st_nlink, at->path);

	LOCK_SCOPE(&c->lock);
	c->attached = true;
	c->status.attached = true;
	c->status.waiting_for[0] = 0;
	if (!c->status.page_size)
		c->status.page_size = c->page_size;
	pthread_cond_broadcast(&c->changed);
	return 0;
}

void capture_detach(struct capture *c)
{
	capture_drop_mark(c);
	capture_drop_park(c);
	capture_allow_recovery(c);
	c->covered = false;
	c->target_pending = false;
	c->batch_ready = false;
	c->captured = false;
	watch_detach(c);

	pthread_mutex_lock(&c->lock);
	c->attached = false;
	c->status.attached = false;
	c->status.locked = false;
	if (c->due.set) { /* a break will come: those who read for the old one can stop */
		c->epoch++;
		c->status.epoch = c->epoch;
	}
	pthread_cond_broadcast(&c->changed);
	while (c->readers)
		pthread_cond_wait(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
	release_attachment(&c->at);
}

void capture_provoke_recovery(struct capture *c)
{
	sqlite3 *db CLEANUP(cleanup_sqlite) = NULL;
	char answer[32];
	struct err err = ERR_INIT;
	int rc = open_connection(c->at.path, SQLITE_OPEN_READONLY, &db, &err);

	if (rc == 0)
		rc = ask(db, c->at.path, "PRAGMA schema_version", answer, sizeof(answer), &err);
	if (rc)
		log_warn(LOG_MODULE, "wal-index header stays torn db=%s error=\"%s\"", c->path,
		         err.msg);
}

/* True when the bytes of the database were written by no checkpoint. */
static bool bytes_replaced(struct capture *c)
{
	struct file_look now, *then = &c->file_look;
	struct look before, after;
	struct stat st;

	if (!capture_look(c, &before) || capture_checkpoint_locked(c) || fstat(c->at.db_fd, &st) ||
	    !capture_look(c, &after) || before.index.n_backfill != after.index.n_backfill ||
	    before.index.n_backfill_attempted != after.index.n_backfill_attempted ||
	    before.index.salt1 != after.index.salt1 || before.index.salt2 != after.index.salt2) {
		then->valid = false; /* a checkpoint may have been at work: nothing to compare */
		c->file_changed_once = false;
		return false;
	}
	now = (struct file_look){.valid = true,
	                         .salt1 = after.index.salt1,
	                         .salt2 = after.index.salt2,
	                         .n_backfill = after.index.n_backfill,
	                         .n_backfill_attempted = after.index.n_backfill_attempted,
	                         .mtime = st.st_mtim,
	                         .size = st.st_size};
	bool comparable = then->valid && now.salt1 == then->salt1 && now.salt2 == then->salt2 &&
	                  now.n_backfill == then->n_backfill &&
	                  now.n_backfill_attempted == then->n_backfill_attempted;
	if (comparable && (now.size != then->size || now.mtime.tv_sec != then->mtime.tv_sec ||
	                   now.mtime.tv_nsec != then->mtime.tv_nsec)) {
		if (c->file_changed_once) {
			c->file_changed_once = false;
			*then = now;
			return true;
		}
		c->file_changed_once = true; /* the next look must say so too */
		return false;
	}
	c->file_changed_once = false;
	*then = now;
	return false;
}

static bool header_turned_to_rollback(struct capture *c)
{
	struct db_header h;
	struct stat st;

	if (fstat(c->at.db_fd, &st) || (st.st_mtim.tv_sec == c->header_mtime.tv_sec &&
	                                st.st_mtim.tv_nsec == c->header_mtime.tv_nsec))
		return false;
	c->header_mtime = st.st_mtim;
	if (read_header(c->at.db_fd, c->at.path, &h, NULL) || is_wal(&h)) {
		c->header_was_rollback = false;
		return false;
	}
	bool turned = !c->header_was_rollback;
	c->header_was_rollback = true;
	return turned;
}

enum identity capture_identity(struct capture *c, enum capture_break *why, const char **reason)
{
	struct attachment *at = &c->at;

	*why = CAPTURE_REPLACED;
	if (!same_inode(c->path, &at->db_stat) || !same_inode(at->path, &at->db_stat))
		*reason = "another file lies at the path, or none";
	else if (!same_inode(at->shm_path, &at->shm_stat))
		*reason = "the -shm beside the database was removed or replaced";
	else if (!same_inode(at->wal_path, &at->wal_stat))
		*reason = "the -wal beside the database was removed or replaced";
	else if (header_turned_to_rollback(c)) {
		*reason = "the database was overwritten by one in rollback-journal mode";
		return SAME_FILE_NEW_BYTES;
	} else if (bytes_replaced(c)) {
		*reason = "the database was written to, but by no checkpoint";
		return SAME_FILE_NEW_BYTES;
	} else
		return SAME_FILE;
	return OTHER_FILE;
}

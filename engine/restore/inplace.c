/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transaction on a database file from outside of SQLite, in SQLite's own terms: its locks keep
 * readers away while pages change, and its rollback journal puts the old state back if we die,
 * whoever opens the database next (https://www.sqlite.org/fileformat2.html section 3, pager.c):
 *
 *   NAME-journal  0: d9 d5 05 f9 20 a1 63 d7 · 8: u32 records · 12: u32 nonce · 16: u32 pages of
 *                 the old state · 20: u32 sector size (512) · 24: u32 page size · zeros up to 512
 *                 then records: u32 page number, the page, u32 nonce + every 200th byte of it,
 *                 counted from page size - 200 down to 1; all big-endian
 *
 *   1  lock exclusively, as a writer of SQLite would (PENDING, RESERVED, all of SHARED)
 *   2  the records, the first 512 bytes zero: to SQLite that is no journal; fsync
 *   3  the header; fsync of the journal, then of the folder.  From here on the database *is* the
 *      old state, whatever its file holds: SQLite plays the journal back before it reads a page
 *   4  the pages, the size; fsync
 *   5  the journal is removed: the new state is there; fsync of the folder
 *
 * A -wal that lies beside it at 3 is part of the old state.  Its pages are saved as it has them, so
 * that it may be removed after 3: with it or without it the old state is the same.
 *
 * The locks are open file description locks: they conflict with SQLite's, and no close(2) elsewhere
 * in the process drops them.
 */
#include "engine/restore/restore_i.h"

#include "engine/base/bytes.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>

#define SECTOR 512u
#define OUT_BYTES ((size_t)1 << 20)
#define LOCK_RETRY_US 5000
#define SHARED_FIRST ((off_t)SQLITE_PENDING_BYTE + 2)
#define SHARED_SIZE 510

static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};

/* ---- locks ---- */

static int lock_range(const struct inplace *x, off_t start, off_t len, int64_t until_us,
                      struct err *err)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	while (fcntl(x->fd, F_OFD_SETLK, &l) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return err_set(err, ERR_IO, errno, "lock '%s'", x->place->path);
		if (clock_mono_us() >= until_us)
			return err_set(err, ERR_BUSY, 0,
			               "'%s' is being read or written to (end that, or try again)",
			               x->place->path);
		clock_sleep_us(LOCK_RETRY_US);
	}
	return 0;
}

/* PENDING first: who reads may finish, nobody begins. */
static int lock_all(const struct inplace *x, int64_t patience_us, struct err *err)
{
	int64_t until_us = clock_mono_us() + patience_us;
	int rc = lock_range(x, SQLITE_PENDING_BYTE, 1, until_us, err);

	if (!rc)
		rc = lock_range(x, SQLITE_PENDING_BYTE + 1, 1, until_us, err);
	return rc ? rc : lock_range(x, SHARED_FIRST, SHARED_SIZE, until_us, err);
}

/* ---- the journal ---- */

/* SQLite asks for the first byte: a zero there, or none, is what a transaction leaves that ended,
 * or had not changed anything. */
static int is_hot(const struct place *p, const char *journal, bool *ret, struct err *err)
{
	cleanup_fd int fd = -1;
	struct err why = ERR_INIT;
	uint8_t first = 0;
	size_t got = 0;
	int rc = file_open(p->dir_fd, journal, O_RDONLY | O_NOFOLLOW, 0, &fd, &why);

	*ret = false;
	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	if (rc)
		return err_copy(err, &why);
	rc = file_pread_some(fd, &first, 1, 0, &got, journal, err);
	*ret = first != 0;
	return rc;
}

/* With the database locked no other writer is at work: a journal that is not hot is a dead one's. */
static int create_journal(struct inplace *x, struct err *err)
{
	static const uint8_t zeros[SECTOR];
	struct stat st;
	bool hot;
	int rc = is_hot(x->place, x->journal, &hot, err);

	if (rc)
		return rc;
	if (hot)
		return err_set(err, ERR_BUSY, 0, "'%s' lies there: a transaction was broken off",
		               x->label);
	if ((rc = file_open(x->place->dir_fd, x->journal, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW,
	                    0600, &x->journal_fd, err)))
		return rc;
	/* Who may write the database may have to play it back. */
	if (fstat(x->fd, &st) < 0 ||
	    (geteuid() == 0 && fchown(x->journal_fd, st.st_uid, st.st_gid) < 0) ||
	    fchmod(x->journal_fd, st.st_mode & 0777) < 0)
		return err_set(err, ERR_IO, errno, "give '%s' the owner and mode of the database",
		               x->label);
	x->journal_bytes = SECTOR;
	return file_pwrite(x->journal_fd, zeros, sizeof(zeros), 0, x->label, err);
}

int inplace_begin(struct inplace *x, const struct place *p, uint32_t page_size, uint32_t old_pages,
                  int64_t patience_us, struct err *err)
{
	*x = (struct inplace){
	        .place = p,
	        .fd = -1,
	        .journal_fd = -1,
	        .page_size = page_size,
	        .old_pages = old_pages,
	        .out = BUF_INIT(2 * OUT_BYTES),
	};
	snprintf(x->journal, sizeof(x->journal), "%s-journal", p->name);
	snprintf(x->label, sizeof(x->label), "%s-journal", p->path);
	if (getrandom(&x->nonce, sizeof(x->nonce), 0) < 0)
		x->nonce = (uint32_t)clock_mono_us();
	int rc = file_open(p->dir_fd, p->name, O_RDWR | O_NOFOLLOW, 0, &x->fd, err);
	if (!rc)
		rc = lock_all(x, patience_us, err);
	return rc ? rc : create_journal(x, err);
}

static int flush(struct inplace *x, struct err *err)
{
	int rc = file_pwrite(x->journal_fd, x->out.data, x->out.len, x->journal_bytes, x->label,
	                     err);

	if (rc)
		return rc;
	file_start_writing(x->journal_fd, x->journal_bytes, x->out.len);
	x->journal_bytes += x->out.len;
	buf_clear(&x->out);
	return 0;
}

int inplace_save(struct inplace *x, uint32_t pgno, const void *page, struct err *err)
{
	const uint8_t *p = page;
	uint8_t word[4];
	uint32_t sum = x->nonce;
	int rc;

	/* SQLite neither writes nor restores the page of the lock bytes. */
	if (pgno == lock_page(x->page_size))
		return 0;
	for (int i = (int)x->page_size - 200; i > 0; i -= 200)
		sum += p[i];
	store_be32(word, pgno);
	if ((rc = buf_append(&x->out, word, 4, err)) ||
	    (rc = buf_append(&x->out, page, x->page_size, err)))
		return rc;
	store_be32(word, sum);
	if ((rc = buf_append(&x->out, word, 4, err)))
		return rc;
	x->n_records++;
	return x->out.len >= OUT_BYTES ? flush(x, err) : 0;
}

int inplace_seal(struct inplace *x, struct err *err)
{
	uint8_t head[28];
	int rc;

	memcpy(head, magic, sizeof(magic));
	store_be32(head + 8, x->n_records);
	store_be32(head + 12, x->nonce);
	store_be32(head + 16, x->old_pages);
	store_be32(head + 20, SECTOR);
	store_be32(head + 24, x->page_size);
	if ((x->out.len && (rc = flush(x, err))) ||
	    (rc = file_datasync(x->journal_fd, x->label, err)) ||
	    (rc = file_pwrite(x->journal_fd, head, sizeof(head), 0, x->label, err)) ||
	    (rc = file_datasync(x->journal_fd, x->label, err)) ||
	    (rc = file_sync_dir(x->place->dir_fd, x->place->dir, err)))
		return rc;
	x->sealed = true;
	x->written_bytes += x->journal_bytes;
	return 0;
}

int inplace_write(struct inplace *x, uint32_t pgno, const void *page, struct err *err)
{
	uint64_t offset = (uint64_t)(pgno - 1) * x->page_size;

	x->written_bytes += x->page_size;
	return file_pwrite(x->fd, page, x->page_size, offset, x->place->path, err);
}

int inplace_commit(struct inplace *x, uint32_t n_pages, struct err *err)
{
	int rc;

	if (ftruncate(x->fd, (off_t)n_pages * x->page_size) < 0)
		return err_set(err, ERR_IO, errno, "size '%s'", x->place->path);
	if ((rc = file_datasync(x->fd, x->place->path, err)))
		return rc;
	if (unlinkat(x->place->dir_fd, x->journal, 0) < 0)
		return err_set(err, ERR_IO, errno, "remove '%s'", x->label);
	x->done = true;
	return file_sync_dir(x->place->dir_fd, x->place->dir, err);
}

void inplace_end(struct inplace *x)
{
	bool recovered;

	if (x->journal_fd >= 0 && !x->done && !x->sealed)
		unlinkat(x->place->dir_fd, x->journal, 0);
	if (x->journal_fd >= 0)
		close(take_fd(&x->journal_fd));
	if (x->fd >= 0)
		close(take_fd(&x->fd));
	buf_release(&x->out);
	/* If that fails, too, the next one who opens the database does it. */
	if (x->sealed && !x->done && inplace_recover(x->place, &recovered, NULL))
		return;
}

/* ---- afterwards ---- */

/* In a child: SQLite's locks and descriptors are then nobody's but its own. */
static int recover_by_sqlite(const char *path)
{
	sqlite3 *db = NULL;
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);

	if (rc == SQLITE_OK) {
		sqlite3_busy_timeout(db, 10000);
		sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		rc = sqlite3_exec(db, "PRAGMA schema_version", NULL, NULL, NULL);
	}
	sqlite3_close(db);
	return rc & 0xff;
}

int inplace_recover(const struct place *p, bool *ret_recovered, struct err *err)
{
	char journal[RESTORE_NAME_MAX];
	bool hot;
	int status;

	*ret_recovered = false;
	snprintf(journal, sizeof(journal), "%s-journal", p->name);
	int rc = is_hot(p, journal, &hot, err);
	if (rc || !hot)
		return rc;
	pid_t pid = fork();
	if (pid < 0)
		return err_set(err, ERR_IO, errno, "start a process");
	if (pid == 0)
		_exit(recover_by_sqlite(p->path));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_set(err, ERR_IO, errno, "wait for a process");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != SQLITE_OK)
		return err_set(err, ERR_IO, 0, "roll back the transaction that '%s/%s' is of: %s",
		               p->dir, journal,
		               WIFEXITED(status) ? sqlite3_errstr(WEXITSTATUS(status)) : "it died");
	if ((rc = is_hot(p, journal, &hot, err)))
		return rc;
	if (hot)
		return err_set(err, ERR_BUSY, 0,
		               "'%s/%s' is of a transaction that is at work (end it, or wait)",
		               p->dir, journal);
	*ret_recovered = true;
	return file_sync_dir(p->dir_fd, p->dir, err);
}

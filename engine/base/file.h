/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files: whole reads and writes, names that appear atomically, locks, scratch space.
 *
 * Error texts name the path.  Nothing here retries but EINTR and short transfers.
 * A failed fsync is final for that file: it is reported, never tried again as if the
 * second success meant anything.
 */
#ifndef ASOF_BASE_FILE_H
#define ASOF_BASE_FILE_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* openat(2) with O_CLOEXEC.  ENOENT gives ERR_NOT_FOUND, EEXIST gives ERR_EXISTS. */
int file_open(int dir_fd, const char *path, int flags, mode_t mode, int *ret_fd,
              struct err *err) MUST_USE;
/* Exactly `len` bytes at `offset`; a shorter file is ERR_DAMAGED. */
int file_pread(int fd, void *p, size_t len, uint64_t offset, const char *path,
               struct err *err) MUST_USE;
/* Up to `len` bytes, fewer only at the end of the file. */
int file_pread_some(int fd, void *p, size_t len, uint64_t offset, size_t *ret_len, const char *path,
                    struct err *err) MUST_USE;
int file_pwrite(int fd, const void *p, size_t len, uint64_t offset, const char *path,
                struct err *err) MUST_USE;
int file_size(int fd, uint64_t *ret_bytes, const char *path, struct err *err) MUST_USE;
int file_datasync(int fd, const char *path, struct err *err) MUST_USE;
/* Has the disk begin with those bytes, so that a later file_datasync() waits for less.  Promises
 * nothing. */
void file_start_writing(int fd, uint64_t offset, size_t len);
/* Takes those bytes out of the page cache where they are on the disk already.  Promises nothing. */
void file_drop_cached(int fd, uint64_t offset, uint64_t len);
/* Makes the names in a directory durable. */
int file_sync_dir(int dir_fd, const char *path, struct err *err) MUST_USE;

/*
 * Writes `name` in `dir_fd` as a whole: temporary file (`name` + ".tmp"), fsync, rename,
 * fsync of the directory.  Mode 0600 less the umask.
 */
int file_put(int dir_fd, const char *name, const void *p, size_t len, struct err *err) MUST_USE;
/* Reads a whole file of at most `max_bytes` into malloc'ed memory with a NUL behind it;
 * free() it.  Missing: ERR_NOT_FOUND. */
int file_get(int dir_fd, const char *name, size_t max_bytes, char **ret, size_t *ret_len,
             struct err *err) MUST_USE;

/*
 * Gives a file another name that nobody has yet, else ERR_EXISTS; of many who ask for one name one
 * gets it.  Where the filesystem has neither RENAME_NOREPLACE nor hard links an empty file holds
 * the name for a moment.
 */
int file_rename_new(int dir_fd, const char *from, const char *to, struct err *err) MUST_USE;

/* A new file without a name in $TMPDIR or /var/tmp, for reading and writing, with so many bytes of
 * space taken. */
int file_open_unlinked(uint64_t reserve_bytes, int *ret_fd, struct err *err) MUST_USE;

/* mkdir -p with mode 0700; existing folders are left alone. */
int file_make_dirs(const char *path, struct err *err) MUST_USE;
/* Opens a folder below `dir_fd`, making it (0700) if `create`. */
int file_open_dir(int dir_fd, const char *path, bool create, int *ret_fd, struct err *err) MUST_USE;
/* Two spellings of one folder that is there. */
bool file_same_folder(const char *a, const char *b);
/* Exclusive lock of the whole file for as long as `fd` (open for writing) lives; held by
 * another: ERR_BUSY.  An open file description lock: asking does not take it. */
int file_lock(int fd, const char *path, struct err *err) MUST_USE;
bool file_is_locked(int fd);

/*
 * Scratch memory that does not count as the process's own: an unlinked file in
 * `dir_fd`, mapped.  Grows by scratch_reserve(), which may move it.  Contents start
 * zeroed.  Space is allocated before it is touched, so a full disk is an error here
 * and never a SIGBUS later.
 */
struct scratch {
	int fd;
	uint8_t *data;
	size_t cap_bytes;
};
#define SCRATCH_INIT                                                                               \
	{                                                                                          \
		.fd = -1                                                                           \
	}
int scratch_open(int dir_fd, struct scratch *s, struct err *err) MUST_USE;
int scratch_reserve(struct scratch *s, size_t bytes, struct err *err) MUST_USE;
void scratch_release(struct scratch *s);

#endif

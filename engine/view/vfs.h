/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images of the past as read-only SQLite databases: no mount, no temporary copy.
 *
 * A connection reads its database through a callback.  The image is immutable: no locks, no
 * journal, no -wal is looked for, and SQLite's page cache stays valid for good.  Header bytes 18
 * and 19 read 1 where the image has 2 (WAL mode), so that it opens without a -wal beside it.
 * Scratch files of large sorts are the system's own VFS's.
 *
 * Any number of images may be open at once, in one connection (vfs_attach()) or in many; a
 * connection belongs to one thread at a time, as ever with SQLite.
 *
 * Errors of the callback: SQLite says SQLITE_IOERR, and here and there (PRAGMA integrity_check)
 * only prints something about it.  The callback's own error is kept with the image: who has read,
 * asks vfs_error() before believing anything; who got an error code asks vfs_sqlite_error().
 */
#ifndef ASOF_VIEW_VFS_H
#define ASOF_VIEW_VFS_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

struct view;

struct vfs_image {
	void *ctx;
	uint64_t size_bytes;
	/* Exactly `len` bytes at `offset`, which lie within the size, or an error. */
	int (*read)(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err);
	/* What PRAGMA database_list shows; NULL: "image". */
	const char *name;
	/* Called when SQLite closes the file; NULL: ctx is somebody else's. */
	void (*release)(void *ctx);
};

/* Opens an image.  *image is copied; what its ctx points to must live longer than the connection.
 * Reads the first bytes.  Close with vfs_close(). */
int vfs_open(const struct vfs_image *image, sqlite3 **ret, struct err *err) MUST_USE;
/* Adds an image to a connection of vfs_open() as `schema`. */
int vfs_attach(sqlite3 *db, const char *schema, const struct vfs_image *image,
               struct err *err) MUST_USE;
/* The same of a view, which stays the caller's and must live longer than the connection. */
int vfs_open_view(struct view *v, sqlite3 **ret, struct err *err) MUST_USE;
int vfs_attach_view(sqlite3 *db, const char *schema, struct view *v, struct err *err) MUST_USE;
/* Its statements are ended before; NULL is nothing. */
void vfs_close(sqlite3 *db);

/* Makes an image of a name that SQLite was asked to open: its path, and behind it its URI
 * parameters (sqlite3_uri_parameter()). */
typedef int vfs_open_name_fn(const char *name, struct vfs_image *ret, struct err *err);
/* Registers with SQLite, for as long as the process lives, a VFS under which names are opened so. */
int vfs_register(const char *vfs_name, vfs_open_name_fn *open_name, struct err *err) MUST_USE;

/* The first error of a callback since the last call of this, or 0: of all images of the
 * connection. */
int vfs_error(sqlite3 *db, struct err *err) MUST_USE;
/*
 * Why the last call of SQLite failed: the callback's error if there is one, else what SQLite says,
 * "WHAT: MESSAGE".  DAMAGED: the image is no database, or a malformed one.  SQL: the statement is
 * wrong, or wants what cannot be.  REFUSED: it would write.  CANCELLED: sqlite3_interrupt().
 */
int vfs_sqlite_error(sqlite3 *db, struct err *err, const char *what, ...)
        __attribute__((format(printf, 3, 4)));

DEFINE_CLEANUP(sqlite3, vfs_close);
#define cleanup_vfs CLEANUP(vfs_close_p)
static inline void cleanup_stmt_(sqlite3_stmt **s)
{
	sqlite3_finalize(*s);
}
#define cleanup_stmt CLEANUP(cleanup_stmt_)

#endif

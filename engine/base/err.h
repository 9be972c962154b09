/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: a kind for the program, a message for the person.
 *
 * A function that can fail returns 0 or -(enum err_kind), and fills the
 * caller's `struct err` (which may be NULL).  The message is complete: it names
 * the thing, the reason and, where there is something to do, what to do.
 * A kind is tested, a text never.
 *
 * A function either propagates an error or handles it, never both; only main(),
 * the loops of worker threads and the FUSE callbacks log one.
 */
#ifndef ASOF_BASE_ERR_H
#define ASOF_BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>

/*
 * The one table of kinds: name, exit status of the program, errno that a FUSE
 * reply carries, and whether trying again later may help.
 */
/* clang-format off */
#define ERR_KINDS(X)                                                                               \
	X(USAGE, "usage", 2, EINVAL, false)             /* wrong argument or configuration */       \
	X(IO, "io", 1, EIO, true)                       /* the system refused a read or write */    \
	X(NOMEM, "nomem", 1, ENOMEM, true)              /* out of memory */                         \
	X(NOT_FOUND, "not-found", 3, ENOENT, false)     /* no such database, time, object */        \
	X(GAP, "gap", 3, ENOENT, false)                 /* the moment lies in a declared gap */     \
	X(DAMAGED, "damaged", 4, EIO, false)            /* bytes that are not what was written */   \
	X(VERSION, "version", 1, EIO, false)            /* written by a newer asof */               \
	X(BUSY, "busy", 1, EBUSY, true)                 /* held by another process */               \
	X(NO_SPACE, "no-space", 1, ENOSPC, true)        /* disk or quota full */                    \
	X(REFUSED, "refused", 1, EPERM, false)          /* would be unsafe */                       \
	X(EXISTS, "exists", 1, EEXIST, false)           /* target is there already */               \
	X(DENIED, "denied", 1, EACCES, false)           /* permissions */                           \
	X(READ_ONLY, "read-only", 1, EROFS, false)      /* read-only filesystem */                  \
	X(UNAVAILABLE, "unavailable", 5, EIO, true)     /* a destination does not answer */         \
	X(SQL, "sql", 1, EIO, false)                    /* SQLite does not take the statement */    \
	X(CANCELLED, "cancelled", 1, EINTR, false)      /* asked to stop */
/* clang-format on */

enum err_kind {
	ERR_NONE = 0,
#define X(id, name, exit_status, fuse_errno, retry) ERR_##id,
	ERR_KINDS(X)
#undef X
	        ERR_KIND_COUNT
};

struct err {
	enum err_kind kind;
	int sys_errno; /* errno behind it, or 0 */
	char msg[480];
};

#define ERR_INIT                                                                                   \
	{                                                                                          \
		.kind = ERR_NONE                                                                   \
	}

/* Fills `err` (may be NULL) and returns -kind.  With `sys_errno` != 0 its text is
 * appended after ": "; ENOSPC, EDQUOT, EROFS, EACCES, EPERM and ENOMEM turn ERR_IO into
 * the kind of their own. */
int err_set(struct err *err, enum err_kind kind, int sys_errno, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
/* Tells compilers and analyzers, which look at one file at a time, that it never gives 0. */
static inline int err_negative(int rc)
{
	if (rc >= 0)
		__builtin_unreachable();
	return rc;
}
#define err_set(...) err_negative(err_set(__VA_ARGS__))

/* Puts "text: " before the message that is already there and returns `rc` unchanged. */
int err_wrap(struct err *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Copies `from` to `to` (may be NULL) and returns -from->kind. */
int err_copy(struct err *to, const struct err *from);

const char *err_kind_name(enum err_kind kind);
int err_exit_status(enum err_kind kind);
int err_errno(enum err_kind kind);
bool err_retryable(enum err_kind kind);

/* The kind that a return value stands for. */
static inline enum err_kind err_kind_of(int rc)
{
	return rc < 0 ? (enum err_kind)(-rc) : ERR_NONE;
}

#define MUST_USE __attribute__((warn_unused_result))

#endif

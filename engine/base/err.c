/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct kind_row {
	const char *name;
	int exit_status;
	int fuse_errno;
	bool retry;
};

static const struct kind_row kind_rows[ERR_KIND_COUNT] = {[ERR_NONE] = {"none", 0, 0, false},
#define X(id, name, exit_status, fuse_errno, retry)                                                \
	[ERR_##id] = {name, exit_status, fuse_errno, retry},
                                                          ERR_KINDS(X)
#undef X
};

static enum err_kind kind_for_errno(enum err_kind kind, int sys_errno)
{
	if (kind != ERR_IO)
		return kind;
	switch (sys_errno) {
	case ENOSPC:
	case EDQUOT:
		return ERR_NO_SPACE;
	case EROFS:
		return ERR_READ_ONLY;
	case EACCES:
	case EPERM:
		return ERR_DENIED;
	case ENOMEM:
		return ERR_NOMEM;
	default:
		return kind;
	}
}

#undef err_set
int err_set(struct err *err, enum err_kind kind, int sys_errno, const char *fmt, ...)
{
	kind = kind_for_errno(kind, sys_errno);
	if (err) {
		va_list ap;

		err->kind = kind;
		err->sys_errno = sys_errno;
		va_start(ap, fmt);
		int n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
		if (sys_errno && n >= 0 && (size_t)n < sizeof(err->msg)) {
			char text[128];
			snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s",
			         strerror_r(sys_errno, text, sizeof(text)));
		}
	}
	return -(int)kind;
}

int err_wrap(struct err *err, int rc, const char *fmt, ...)
{
	if (err) {
		char prefix[sizeof(err->msg)], old[sizeof(err->msg)];
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(prefix, sizeof(prefix), fmt, ap);
		va_end(ap);
		memcpy(old, err->msg, sizeof(old));
		/* A message cut at the buffer's end is still a message. */
		int n = snprintf(err->msg, sizeof(err->msg), "%.200s: %s", prefix, old);
		(void)n;
	}
	return rc;
}

int err_copy(struct err *to, const struct err *from)
{
	if (to)
		*to = *from;
	return -(int)from->kind;
}

static const struct kind_row *row(enum err_kind kind)
{
	return &kind_rows[(unsigned)kind < ERR_KIND_COUNT ? kind : ERR_IO];
}

const char *err_kind_name(enum err_kind kind)
{
	return row(kind)->name;
}

int err_exit_status(enum err_kind kind)
{
	return row(kind)->exit_status;
}

int err_errno(enum err_kind kind)
{
	return row(kind)->fuse_errno;
}

bool err_retryable(enum err_kind kind)
{
	return row(kind)->retry;
}

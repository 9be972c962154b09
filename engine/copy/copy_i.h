/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ASOF_COPY_COPY_I_H
#define ASOF_COPY_COPY_I_H

#include "engine/copy/copy.h"
#include "engine/view/replay.h"

struct copying {
	const struct copy_options *options;
	struct copy_result *result;
};

/* The bytes [0, len) of a file, as `tmp_name`, fsynced; NOT_FOUND: it is gone. */
int copy_bytes(struct copying *c, int from_fd, const char *name, uint64_t len, int to_fd,
               const char *tmp_name, struct err *err) MUST_USE;
/* A whole file under the same name, verified by reading it back; keeps its modification time. */
int copy_plain(struct copying *c, int from_fd, int to_fd, const char *name,
               struct err *err) MUST_USE;
/* A snapshot, sealed segment or coalesced object: every byte of the copy against its hash.  DAMAGED
 * is counted and told of in the result, and is no error here. */
int copy_object(struct copying *c, int from_fd, int to_fd, const struct history_object *o,
                struct err *err) MUST_USE;
/* A growing segment up to `len`: made, or appended to. */
int copy_growing(struct copying *c, int from_fd, int to_fd, const struct history_object *o,
                 uint64_t len, struct err *err) MUST_USE;
/* Up to which length it is whole: of a segment that its writer left. */
int copy_whole_length(int fd, const char *name, uint64_t *ret_len, struct err *err) MUST_USE;
int copy_database(struct copying *c, struct history *h, const char *name, struct err *err) MUST_USE;
int copy_stopped(const struct copying *c, struct err *err);
/* The object is gone: it was joined into another, or deleted, since it was listed. */
bool copy_vanished(const struct err *why);

#endif

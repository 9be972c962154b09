/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ASOF_COPY_COPY_I_H
#define ASOF_COPY_COPY_I_H

#include "engine/archive/notes.h"
#include "engine/copy/copy.h"
#include "engine/store/store.h"
#include "engine/view/replay.h"

struct copying {
	const struct copy_options *options;
	struct copy_result *result;
	struct archive *from;
};

/* ---- files.c: one object of the first becomes a file of the second ---- */

struct copy_from {
	struct store *store;
	char key[STORE_KEY_MAX + 1];
	uint64_t bytes;      /* UINT64_MAX: no listing told */
	int64_t modified_us; /* 0: not known; of a directory not needed */
};
/* Its content is text of at most this. */
#define COPY_NOTE_MAX ((size_t)64 << 20)

/* A whole file, verified by reading it back; keeps its modification time. */
int copy_plain(struct copying *c, const struct copy_from *f, int to_fd, const char *name,
               struct err *err) MUST_USE;
/* A snapshot, sealed segment or coalesced object: every byte of the copy against its hash.  DAMAGED
 * is counted and told of in the result, and is no error here. */
int copy_object(struct copying *c, const struct copy_from *f, int to_fd,
                const struct history_object *o, struct err *err) MUST_USE;
/* A growing segment up to `len`: made, or appended to, or, where another one with fewer transactions
 * has its name, put in its place; `anew`: in any case. */
int copy_growing(struct copying *c, const struct copy_from *f, int to_fd,
                 const struct history_object *o, uint64_t len, bool anew, struct err *err) MUST_USE;

/* f->bytes bytes of it, into an open file. */
int copy_fetch(struct copying *c, const struct copy_from *f, int fd, struct err *err) MUST_USE;
/* What was fetched so: every byte of a whole object, also of level 0 and of a fence, against its hash,
 * and that it is what is named. */
int copy_check_fetched(int fd, const struct history_object *o, struct err *err) MUST_USE;
/* Counted, and told of in the result; 0. */
int copy_damaged(struct copying *c, const struct err *why);

/* Up to where a segment that its writer left is whole. */
struct copy_extent {
	uint64_t bytes, id, last_txid; /* last_txid 0: it holds nothing */
};
/* Takes `src` over, whatever happens. */
int copy_whole_length(struct source *src, struct copy_extent *ret, struct err *err) MUST_USE;
int copy_extent_there(int to_fd, const char *name, struct copy_extent *ret,
                      struct err *err) MUST_USE;

/* ---- there.c: segments that the second has, cut otherwise than those of the first ---- */

struct copy_there {
	struct copy_segment *e;
	size_t n;
};
int copy_list_there(int segment_fd, struct copy_there *ret, struct err *err) MUST_USE;
void copy_there_release(struct copy_there *t);
/* Whether a sealed segment there holds all that this one does. */
bool copy_holds_all(const struct copy_there *t, const struct history_object *o);
/* The next segment there, sealed or growing, that ends within this one, and begins before it.  Each is
 * given once; NULL: none is left. */
const struct object_name *copy_next_straddled(struct copy_there *t, const struct history_object *o);

/* Of a directory that is somebody's destination: REFUSED. */
int copy_check_writer(const struct copying *c, int to_fd, const char *name,
                      struct err *err) MUST_USE;
int copy_refuse_writer(const struct copying *c, const char *name, const char *file,
                       struct err *err);

/* ---- copy.c ---- */
/* LLLLLLLL.writer: who writes there. */
bool copy_is_writer(const char *file);
#define COPY_BACKUP_FOLDERS 4
const char *copy_backup_folder(size_t i);
/* NOT_FOUND, in words. */
int copy_no_database(const struct copying *c, struct err *err);
int copy_nothing(const struct copying *c, struct err *err);

/* ---- between.c ---- */
/* Of one store what the other lacks. */
int copy_between(struct copying *c, struct store *from, struct store *to, struct err *err) MUST_USE;

/* ---- thinned.c ---- */
/* The points and roots of both, up to ret->until_txid, which is set; release it in any case. */
int copy_unite_points(const struct thinned_note *a, const struct thinned_note *b,
                      struct thinned_note *ret, struct err *err) MUST_USE;

/* ---- marks.c ---- */
/* Of two folders of one database: what the first gave and took away since, or gave anew, the second no
 * longer has. */
int copy_take_marks(int from_fd, int to_fd, const char *to, struct err *err) MUST_USE;

/* ---- way.c ---- */
/* REFUSED: `to` went another way than `from`. */
int copy_check_way(const struct copying *c, struct history *from, const char *name,
                   struct err *err) MUST_USE;

/* ---- send.c ---- */
/* Of a directory what `to` lacks. */
int copy_to_store(struct copying *c, struct store *to, struct err *err) MUST_USE;

/* ---- database.c ---- */
int copy_database(struct copying *c, struct history *h, const char *name, struct err *err) MUST_USE;
int copy_stopped(const struct copying *c, struct err *err);
/* The object is gone: it was joined into another, or deleted, since it was listed. */
bool copy_vanished(const struct err *why);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What create.c, output.c and publish.c share: one backup on its way. */
#ifndef ASOF_BACKUP_CREATE_I_H
#define ASOF_BACKUP_CREATE_I_H

#include "engine/backup/backup_i.h"
#include "engine/gz/pack.h"

#include <nettle/sha2.h>

#define BACKUP_PIECE_BYTES (1u << 18)

/* A file on its way to a name. */
struct making {
	int fd;
	char tmp[64];
	bool there;
	char name[BACKUP_FILE_MAX]; /* once it has one */
};
#define MAKING_INIT                                                                                \
	{                                                                                          \
		.fd = -1                                                                           \
	}

struct job {
	const struct backup_options *options;
	const char *db_path;      /* as given */
	char real_path[PATH_MAX]; /* links resolved */
	const char *archive_root;
	char dir[PATH_MAX];
	int dir_fd;
	char stem[BACKUP_FILE_MAX];
	int64_t begun_us;
	uint64_t done_bytes, total_bytes;
	bool checking; /* what is wrong from here on shows in what was written */
	uint8_t *buf;
	struct backup_result *ret;
};

/* ---- output.c: stored bytes ---- */

struct output {
	int fd;
	const char *name; /* for messages */
	struct sha256_ctx sha;
	uint64_t stored_bytes, content_bytes;
	struct pack_writer *pack; /* NULL: plain */
	uint32_t page_size;       /* 0: raw */
	struct hash128 state;
};

int output_open(struct output *o, int fd, const char *name, const struct backup_input *in,
                const struct backup_options *options, struct err *err) MUST_USE;
/* Whole pages but at the end. */
int output_append(struct output *o, const uint8_t *p, size_t len, struct err *err) MUST_USE;
/* Bytes that are stored as they are. */
int output_store(void *ctx, const void *p, size_t len, uint64_t offset, struct err *err);
/* The trailer; nothing may follow. */
int output_finish(struct output *o, const struct backup_input *in, struct err *err) MUST_USE;
void output_release(struct output *o);

/* ---- publish.c: files and their names ---- */

/* A new temporary file, locked. */
int making_open(const struct job *j, struct making *m, struct err *err) MUST_USE;
/* Removes it if it has no other name by now. */
void making_release(const struct job *j, struct making *m);
/* A file without a name, in the same place. */
int making_open_scratch(const struct job *j, int *ret_fd, struct err *err) MUST_USE;

/*
 * Gives files [0, n), each with a tail of its own, one base that is free: the companions, and last
 * the backup itself.  All of them or none.
 */
int publish_all(const struct job *j, struct making *files, const char *const *tails, size_t n,
                struct err *err) MUST_USE;
void publish_take_back(const struct job *j, struct making *m);
/* The manifest in j->ret; its path goes there, too. */
int publish_manifest(const struct job *j, struct err *err) MUST_USE;

#endif

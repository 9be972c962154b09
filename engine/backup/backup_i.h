/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of backup/ share.  Not for others, tests excepted. */
#ifndef ASOF_BACKUP_BACKUP_I_H
#define ASOF_BACKUP_BACKUP_I_H

#include "engine/backup/backup.h"
#include "engine/base/buf.h"
#include "engine/store/reader.h"
#include "engine/view/vfs.h"

#define BACKUP_MANIFEST_BYTES_MAX (1u << 20)
#define BACKUP_TMP_PREFIX ".asof-backup-"
#define BACKUP_TMP_SUFFIX ".tmp"

/* ---- names.c: pure but for the local zone's tables ---- */

/* "YYYYmmdd_HHMMSS", local. */
#define BACKUP_STAMP_MAX 24
void backup_stamp(int64_t time_us, char out[BACKUP_STAMP_MAX]);

/* ---- manifest.c ---- */

struct backup_manifest_files {
	char (*names)[BACKUP_FILE_MAX]; /* last parts, of all backups that it tells of */
	size_t n;
};
/* Appends the JSON text. */
int backup_manifest_format(const struct backup_manifest *m, struct buf *out,
                           struct err *err) MUST_USE;
/*
 * Reads either shape.  `file` chooses the file whose size is meant where a manifest tells of
 * several (NULL: the first).  `files` may be NULL; free its names.  DAMAGED: no JSON, no object,
 * or one that names no backup.
 */
int backup_manifest_parse(const char *text, size_t len, const char *file,
                          struct backup_manifest *ret, struct backup_manifest_files *files,
                          struct err *err) MUST_USE;

/* ---- manifests.c ---- */

/* One that a store has, as listed; then what is in it, or why it cannot be had. */
struct backup_far_manifest {
	enum backup_type type;
	char *name;
	uint64_t bytes;
	int64_t modified_us;
	struct buf text; /* bound by BACKUP_MANIFEST_BYTES_MAX */
	struct err why;
};
/* Reads them all, some at once.  An error is one that is not of one manifest alone; those are in
 * `why`. */
int backup_manifests_read(struct store_reader *reader, struct backup_far_manifest *items, size_t n,
                          struct err *err) MUST_USE;
/* What a store says for as long as it does not answer is not said of one manifest. */
bool backup_manifest_ends_all(const struct err *why);

/* ---- reader.c, source.c: where bytes come from ---- */

struct backup_input {
	enum backup_source source;
	uint32_t page_size;  /* 0: raw */
	uint64_t size_bytes; /* of the database */
	uint64_t txid;       /* 0: not known */
	uint32_t lineage;
	int64_t state_us;
	struct hash128 state; /* that it must have; zero: not known */
	bool blocks_writers;  /* for as long as it is read the application cannot commit */
	/* Set when an error of next() means that another try may do; NULL: never. */
	const bool *again;
	void *ctx;
	/* Up to `len` bytes in order, fewer only at the end, where they are known to be whole. */
	int (*next)(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err);
	void (*release)(void *ctx);
};
void backup_input_release(struct backup_input *in);

/* From the history, if a running replicator has the state as of now; NOT_FOUND: it has not. */
int backup_input_history(const char *archive_root, const char *db_path, int64_t now_us,
                         struct backup_input *ret, struct err *err) MUST_USE;
/* From the live file.  `scratch_dir` takes copies of files that SQLite must repair first.
 * *ret_again is set when an error means that another try may do. */
int backup_input_live(const char *db_path, const char *scratch_dir, const char *program,
                      struct backup_input *ret, bool *ret_again, struct err *err) MUST_USE;
/* The bytes of one file as they lie there; NOT_FOUND: there is no such file. */
int backup_input_raw(const char *path, const char *program, struct backup_input *ret,
                     struct err *err) MUST_USE;

/* ---- output.c ---- */

/* The digest, in hex; the context begins anew. */
struct sha256_ctx;
void backup_sha_text(struct sha256_ctx *sha, char out[BACKUP_SHA256_MAX]);

/* ---- check.c ---- */

struct backup_content {
	bool ok;
	uint64_t size_bytes;
	struct hash128 state; /* of the pages */
	char problem[400];
	uint64_t foreign_key_rows; /* that violate one; the copy is as good as its source was */
	char foreign_key_table[104];
};
typedef bool backup_progress_fn(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
/* A backup that is being read to be checked. */
struct backup_checking {
	struct backup_content *ret;
	backup_progress_fn *progress;
	void *ctx;
	uint64_t done_bytes, total_bytes; /* what is said of it may be less than there is */
	uint8_t *buf;
};
/* So many bytes more; CANCELLED when progress() says so. */
int backup_checked(struct backup_checking *c, size_t more_bytes, struct err *err) MUST_USE;
/* Reads all of it and asks SQLite about it (unless `bytes_alone`).  What is wrong with it is no
 * error: ret->ok is false. */
int backup_check_image(const struct vfs_image *image, uint32_t page_size, bool bytes_alone,
                       backup_progress_fn *progress, void *ctx, struct backup_content *ret,
                       struct err *err) MUST_USE;
/* An error that speaks of what the backup holds becomes ret->problem; others stay errors. */
int backup_content_answer(struct backup_content *ret, int rc, const struct err *why,
                          struct err *err) MUST_USE;
/* The same of a file that was just written and may have no name: a pack or a plain database. */
int backup_check_made(int fd, bool is_pack, uint32_t page_size, bool bytes_alone,
                      backup_progress_fn *progress, void *ctx, struct backup_content *ret,
                      struct err *err) MUST_USE;

/* ---- gpg.c ---- */

/* Whether gpg is there and has the secret key to a file; if not, *why says which. */
bool backup_gpg_has_key(const char *path, struct err *why);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Single files and objects: copied under a temporary name, read back, renamed. */
#include "engine/archive/grow.h"
#include "engine/archive/sealed.h"
#include "engine/archive/snapshot.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/copy/copy_i.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE (1u << 20)
#define CACHE_BYTES (1u << 20)

int copy_stopped(const struct copying *c, struct err *err)
{
	const struct copy_options *o = c->options;

	if ((o->stop && *o->stop) || (o->progress && !o->progress(o->ctx, c->result->bytes, 0)))
		return err_set(err, ERR_CANCELLED, 0, "stopped");
	return 0;
}

bool copy_vanished(const struct err *why)
{
	return why->kind == ERR_NOT_FOUND && why->sys_errno == ENOENT;
}

static void temporary(const char *name, char out[300])
{
	snprintf(out, 300, "%.250s.tmp", name);
}

/* The bytes [from, to) of one file at their place in another, durable. */
static int copy_range(struct copying *c, int in, int out, uint64_t from, uint64_t to,
                      const char *name, struct err *err)
{
	cleanup_free uint8_t *b = malloc(PIECE);
	int rc = b ? 0 : err_set(err, ERR_NOMEM, 0, "no memory to copy");

	for (uint64_t at = from; at < to && rc == 0;) {
		size_t n = to - at < PIECE ? (size_t)(to - at) : PIECE;
		rc = file_pread(in, b, n, at, name, err);
		if (rc == 0)
			rc = file_pwrite(out, b, n, at, name, err);
		at += n;
		c->result->bytes += n;
		if (rc == 0)
			rc = copy_stopped(c, err);
	}
	return rc < 0 ? rc : file_datasync(out, name, err);
}

int copy_bytes(struct copying *c, int from_fd, const char *name, uint64_t len, int to_fd,
               const char *tmp_name, struct err *err)
{
	cleanup_fd int in = -1, out = -1;

	int rc = file_open(from_fd, name, O_RDONLY, 0, &in, err);
	if (rc == 0)
		rc = file_open(to_fd, tmp_name, O_RDWR | O_CREAT | O_TRUNC, 0600, &out, err);
	return rc < 0 ? rc : copy_range(c, in, out, 0, len, name, err);
}

static int hash_of(int dir_fd, const char *name, uint64_t *ret, uint64_t *ret_len, struct err *err)
{
	cleanup_fd int fd = -1;
	cleanup_free uint8_t *b = malloc(PIECE);
	uint64_t at = 0, sum = 0;
	size_t n = PIECE;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to copy");
	int rc = file_open(dir_fd, name, O_RDONLY, 0, &fd, err);
	for (; rc == 0 && n == PIECE; at += n) {
		rc = file_pread_some(fd, b, PIECE, at, &n, name, err);
		sum = hash64(b, n, sum);
	}
	*ret = sum;
	*ret_len = at;
	return rc;
}

static int finish(int from_fd, int to_fd, const char *name, const char *tmp, struct err *err)
{
	struct stat st;

	if (fstatat(from_fd, name, &st, 0) == 0) {
		const struct timespec times[2] = {st.st_atim, st.st_mtim};
		(void)!utimensat(to_fd, tmp, times, 0);
	}
	if (renameat(to_fd, tmp, to_fd, name) < 0)
		return err_set(err, ERR_IO, errno, "rename '%s' to '%s'", tmp, name);
	return file_sync_dir(to_fd, name, err);
}

int copy_plain(struct copying *c, int from_fd, int to_fd, const char *name, struct err *err)
{
	char tmp[300];
	struct stat st;
	uint64_t a, b, len_a, len_b;

	temporary(name, tmp);
	if (fstatat(from_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "'%s'", name);
	int rc = copy_bytes(c, from_fd, name, (uint64_t)st.st_size, to_fd, tmp, err);
	if (rc == 0)
		rc = hash_of(from_fd, name, &a, &len_a, err);
	if (rc == 0)
		rc = hash_of(to_fd, tmp, &b, &len_b, err);
	if (rc == 0 && (a != b || len_a != len_b))
		rc = err_set(err, ERR_IO, 0, "the copy of '%s' is not what was read", name);
	if (rc == 0)
		rc = finish(from_fd, to_fd, name, tmp, err);
	if (rc < 0)
		unlinkat(to_fd, tmp, 0);
	else
		c->result->objects++;
	return rc;
}

/* ---- objects ---- */

static int read_all(struct pack *p, struct err *err)
{
	cleanup_free uint8_t *b = malloc(PIECE);
	int rc = 0;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read an object");
	for (uint64_t at = 0; at < pack_size(p) && rc == 0; at += PIECE) {
		uint64_t left = pack_size(p) - at;
		rc = pack_read(p, at, b, left < PIECE ? (size_t)left : PIECE, err);
	}
	return rc;
}

static int wrong_name(const struct history_object *o, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0,
	               "'%s' is damaged: its content is that of another object", o->file);
}

static int verify_sealed(struct sealed *s, const struct history_object *o, struct err *err)
{
	const struct sealed_info *i = sealed_get_info(s);
	struct frame_entry e;
	struct commit commit;

	if (i->lineage != o->lineage || i->first_txid != o->first_txid ||
	    i->last_txid != o->last_txid || i->first_us != o->first_us ||
	    i->last_us != o->last_us || i->min_pages != o->min_pages)
		return wrong_name(o, err);
	int rc = read_all(sealed_pack(s), err);
	for (uint64_t k = 0; k < sealed_n_commits(s) && rc == 0; k += COMMITS_PER_LEAF)
		rc = sealed_get_commit(s, k, &commit, err);
	for (uint64_t k = 0; k < i->n_frames && rc == 0; k += ENTRIES_PER_LEAF)
		rc = sealed_get_entry(s, k, &e, err);
	return rc;
}

static int verify_object(int dir_fd, const char *tmp, const struct history_object *o,
                         struct err *err)
{
	cleanup_sealed struct sealed *sealed = NULL;
	cleanup_snapshot struct snapshot *snapshot = NULL;
	struct cache *cache = NULL;
	struct source *src;

	int rc = source_open_file(dir_fd, tmp, o->file, &src, err);
	if (rc == 0 && (rc = cache_new(CACHE_BYTES, &cache, err)) < 0)
		source_free(src);
	if (rc < 0)
		return rc;
	if (o->type == HISTORY_SNAPSHOT) {
		rc = snapshot_open(src, cache, &snapshot, err);
		if (rc == 0) {
			const struct snapshot_info *i = snapshot_get_info(snapshot);
			bool same = i->lineage == o->lineage && i->txid == o->last_txid &&
			            i->redo_txid + 1 == o->first_txid && i->time_us == o->last_us;
			rc = same ? read_all(snapshot_pack(snapshot), err) : wrong_name(o, err);
		}
	} else {
		rc = sealed_open(src, cache, &sealed, err);
		if (rc == 0)
			rc = verify_sealed(sealed, o, err);
	}
	sealed_free(take_ptr(sealed)); /* before the cache */
	snapshot_free(take_ptr(snapshot));
	cache_free(cache);
	return rc;
}

static int damaged(struct copying *c, const struct err *why)
{
	if (c->result->damaged++ == 0)
		snprintf(c->result->damage, sizeof(c->result->damage), "%s", why->msg);
	log_error("copy", "not copied: %s", why->msg);
	return 0;
}

int copy_object(struct copying *c, int from_fd, int to_fd, const struct history_object *o,
                struct err *err)
{
	char tmp[300];
	struct err why = ERR_INIT;

	temporary(o->file, tmp);
	int rc = copy_bytes(c, from_fd, o->file, o->bytes, to_fd, tmp, &why);
	if (rc == 0)
		rc = verify_object(to_fd, tmp, o, &why);
	if (rc == 0)
		rc = finish(from_fd, to_fd, o->file, tmp, &why);
	if (rc < 0)
		unlinkat(to_fd, tmp, 0);
	else
		c->result->objects++;
	if (why.kind == ERR_DAMAGED)
		return damaged(c, &why);
	return rc < 0 ? err_copy(err, &why) : 0;
}

/* ---- growing segments ---- */

static int open_grow(int fd, const char *name, struct cache **ret_cache, struct grow_reader **ret,
                     struct err *err)
{
	struct source *src;

	int rc = source_open_file(fd, name, name, &src, err);
	if (rc == 0 && (rc = cache_new(CACHE_BYTES, ret_cache, err)) < 0)
		source_free(src);
	if (rc == 0 && (rc = grow_open(src, *ret_cache, ret, err)) < 0)
		source_free(src);
	return rc;
}

int copy_whole_length(int fd, const char *name, uint64_t *ret_len, struct err *err)
{
	struct cache *cache = NULL;
	struct grow_reader *r = NULL;

	int rc = open_grow(fd, name, &cache, &r, err);
	if (rc == 0)
		rc = grow_refresh_all(r, ret_len, err);
	grow_free(r);
	cache_free(cache);
	return rc;
}

/* All of its records and all of its data, up to exactly `len`. */
static int verify_growing(int fd, const char *name, uint64_t len, struct err *err)
{
	cleanup_free uint8_t *b = malloc(PIECE);
	struct cache *cache = NULL;
	struct grow_reader *r = NULL;
	struct commit last;
	uint64_t end = 0;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read a segment");
	int rc = open_grow(fd, name, &cache, &r, err);
	if (rc == 0)
		rc = grow_refresh(r, len, err);
	uint64_t n = rc == 0 ? grow_n_commits(r) : 0;
	if (n > 0 && grow_get_commit(r, n - 1, &last))
		end = WAL_HEADER_SIZE +
		      last.last_frame * wal_frame_size(grow_reader_info(r)->page_size);
	for (uint64_t at = 0; at < end && rc == 0; at += PIECE)
		rc = grow_read_content(r, at, b, end - at < PIECE ? (size_t)(end - at) : PIECE,
		                       err);
	grow_free(r);
	cache_free(cache);
	return rc;
}

/* Behind what is whole in the copy so far. */
static int append(struct copying *c, int from_fd, int to_fd, const char *name, uint64_t from,
                  uint64_t len, struct err *err)
{
	cleanup_fd int in = -1, out = -1;

	int rc = file_open(from_fd, name, O_RDONLY, 0, &in, err);
	if (rc == 0)
		rc = file_open(to_fd, name, O_RDWR, 0, &out, err);
	if (rc == 0 && ftruncate(out, (off_t)from) < 0)
		rc = err_set(err, ERR_IO, errno, "cut '%s'", name);
	return rc < 0 ? rc : copy_range(c, in, out, from, len, name, err);
}

static int copy_growing_try(struct copying *c, int from_fd, int to_fd,
                            const struct history_object *o, uint64_t len, struct err *err)
{
	char tmp[300];
	uint64_t have = 0;
	struct err why = ERR_INIT;

	temporary(o->file, tmp);
	if (copy_whole_length(to_fd, o->file, &have, &why) == 0) {
		if (have >= len) {
			c->result->present++;
			return 0;
		}
		c->result->objects++;
		int rc = append(c, from_fd, to_fd, o->file, have, len, err);
		return rc < 0 ? rc : verify_growing(to_fd, o->file, len, err);
	}
	int rc = copy_bytes(c, from_fd, o->file, len, to_fd, tmp, err);
	if (rc == 0)
		rc = verify_growing(to_fd, tmp, len, err);
	if (rc == 0)
		rc = finish(from_fd, to_fd, o->file, tmp, err);
	if (rc < 0)
		unlinkat(to_fd, tmp, 0);
	else
		c->result->objects++;
	return rc;
}

int copy_growing(struct copying *c, int from_fd, int to_fd, const struct history_object *o,
                 uint64_t len, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = copy_growing_try(c, from_fd, to_fd, o, len, &why);
	if (why.kind == ERR_DAMAGED && rc < 0)
		return damaged(c, &why);
	return rc < 0 ? err_copy(err, &why) : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Single files and objects: copied under a temporary name, read back, renamed. */
#include "engine/archive/grow_i.h"
#include "engine/archive/sealed.h"
#include "engine/archive/snapshot.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/copy/copy_i.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE (1u << 20)
#define FAR_PIECE (8u << 20) /* what one request brings */
#define TRIES 2              /* of what came damaged from afar: perhaps it only came so */
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

/* The bytes [from, to) of an object at their place in a file; *sum goes on over them. */
static int copy_range(struct copying *c, const struct copy_from *f, int out, uint64_t from,
                      uint64_t to, uint64_t *sum, struct err *err)
{
	cleanup_source struct source *in = NULL;
	size_t piece = f->store->remote ? FAR_PIECE : PIECE;
	cleanup_free uint8_t *b = malloc(piece);

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to copy");
	int rc = store_open_object(f->store, f->key, f->bytes, &in, err);
	for (uint64_t at = from; at < to && rc == 0;) {
		size_t n = to - at < piece ? (size_t)(to - at) : piece;
		rc = in->pread(in, b, n, at, err);
		if (rc == 0)
			rc = file_pwrite(out, b, n, at, f->key, err);
		if (rc < 0)
			break;
		*sum = hash64(b, n, *sum);
		at += n;
		c->result->bytes += n;
		rc = copy_stopped(c, err);
	}
	return rc;
}

int copy_fetch(struct copying *c, const struct copy_from *f, int fd, struct err *err)
{
	uint64_t sum = 0;

	return copy_range(c, f, fd, 0, f->bytes, &sum, err);
}

/* The first `len` bytes of an object as a file; *sum is over them. */
static int copy_bytes(struct copying *c, const struct copy_from *f, uint64_t len, int to_fd,
                      const char *tmp, uint64_t *sum, struct err *err)
{
	cleanup_fd int out = -1;

	*sum = 0;
	int rc = file_open(to_fd, tmp, O_RDWR | O_CREAT | O_TRUNC, 0600, &out, err);
	if (rc == 0)
		rc = copy_range(c, f, out, 0, len, sum, err);
	return rc < 0 ? rc : file_datasync(out, f->key, err);
}

/* As copy_range() has it, over a file; *ret_len: how long that is. */
static int hash_of(int dir_fd, const char *name, size_t piece, uint64_t *ret, uint64_t *ret_len,
                   struct err *err)
{
	cleanup_fd int fd = -1;
	cleanup_free uint8_t *b = malloc(piece);
	uint64_t at = 0, sum = 0;
	size_t n = piece;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to copy");
	int rc = file_open(dir_fd, name, O_RDONLY, 0, &fd, err);
	for (; rc == 0 && n == piece; at += n) {
		rc = file_pread_some(fd, b, piece, at, &n, name, err);
		if (rc == 0 && n > 0)
			sum = hash64(b, n, sum);
	}
	*ret = sum;
	*ret_len = at;
	return rc;
}

/* It is as old as what it was copied from. */
static void keep_time(const struct copy_from *f, int to_fd, const char *tmp)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
	struct stat st;

	if (f->store->dir_fd >= 0 && fstatat(f->store->dir_fd, f->key, &st, 0) == 0) {
		times[0] = st.st_atim;
		times[1] = st.st_mtim;
	} else if (f->modified_us > 0) {
		times[1] = (struct timespec){.tv_sec = f->modified_us / US_PER_SECOND,
		                             .tv_nsec = f->modified_us % US_PER_SECOND * 1000};
	}
	(void)!utimensat(to_fd, tmp, times, 0);
}

static int finish(const struct copy_from *f, int to_fd, const char *name, const char *tmp,
                  struct err *err)
{
	keep_time(f, to_fd, tmp);
	if (renameat(to_fd, tmp, to_fd, name) < 0)
		return err_set(err, ERR_IO, errno, "rename '%s' to '%s'", tmp, name);
	return file_sync_dir(to_fd, name, err);
}

/* Where no listing told its size. */
static int find_size(struct copy_from *f, struct err *err)
{
	cleanup_source struct source *src = NULL;

	if (f->bytes != UINT64_MAX)
		return 0;
	int rc = store_open_object(f->store, f->key, UINT64_MAX, &src, err);
	return rc < 0 ? rc : src->size(src, &f->bytes, err);
}

int copy_plain(struct copying *c, const struct copy_from *from, int to_fd, const char *name,
               struct err *err)
{
	struct copy_from f = *from;
	char tmp[300];
	uint64_t a = 0, b = 0, len = 0;

	temporary(name, tmp);
	int rc = find_size(&f, err);
	if (rc < 0)
		return rc;
	rc = copy_bytes(c, &f, f.bytes, to_fd, tmp, &a, err);
	if (rc == 0)
		rc = hash_of(to_fd, tmp, f.store->remote ? FAR_PIECE : PIECE, &b, &len, err);
	if (rc == 0 && (a != b || len != f.bytes))
		rc = err_set(err, ERR_IO, 0, "the copy of '%s' is not what was read", name);
	if (rc == 0)
		rc = finish(&f, to_fd, name, tmp, err);
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

/* Takes `src` over. */
static int verify_object(struct source *src, const struct history_object *o, struct err *err)
{
	cleanup_sealed struct sealed *sealed = NULL;
	cleanup_snapshot struct snapshot *snapshot = NULL;
	struct cache *cache = NULL;

	int rc = cache_new(CACHE_BYTES, &cache, err);
	if (rc < 0) {
		source_free(src);
		return rc;
	}
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

int copy_damaged(struct copying *c, const struct err *why)
{
	if (c->result->damaged++ == 0)
		snprintf(c->result->damage, sizeof(c->result->damage), "%s", why->msg);
	log_error("copy", "not copied: %s", why->msg);
	return 0;
}

static int copy_object_try(struct copying *c, const struct copy_from *f, int to_fd,
                           const struct history_object *o, struct err *err)
{
	struct source *src;
	char tmp[300];
	uint64_t sum;

	temporary(o->file, tmp);
	int rc = copy_bytes(c, f, o->bytes, to_fd, tmp, &sum, err);
	if (rc == 0)
		rc = source_open_file(to_fd, tmp, o->file, &src, err);
	if (rc == 0)
		rc = verify_object(src, o, err);
	if (rc == 0)
		rc = finish(f, to_fd, o->file, tmp, err);
	if (rc < 0)
		unlinkat(to_fd, tmp, 0);
	else
		c->result->objects++;
	return rc;
}

int copy_object(struct copying *c, const struct copy_from *f, int to_fd,
                const struct history_object *o, struct err *err)
{
	struct err why = {.kind = ERR_DAMAGED};
	int rc = -1;

	for (int i = 0; i < (f->store->remote ? TRIES : 1) && why.kind == ERR_DAMAGED; i++) {
		why = (struct err)ERR_INIT;
		rc = copy_object_try(c, f, to_fd, o, &why);
	}
	if (why.kind == ERR_DAMAGED)
		return copy_damaged(c, &why);
	return rc < 0 ? err_copy(err, &why) : 0;
}

/* ---- growing segments ---- */

/* Takes `src` over. */
static int open_grow(struct source *src, struct cache **ret_cache, struct grow_reader **ret,
                     struct err *err)
{
	int rc = cache_new(CACHE_BYTES, ret_cache, err);

	if (rc == 0)
		rc = grow_open(src, *ret_cache, ret, err);
	if (rc < 0)
		source_free(src);
	return rc;
}

int copy_whole_length(struct source *src, struct copy_extent *ret, struct err *err)
{
	struct cache *cache = NULL;
	struct grow_reader *r = NULL;
	struct commit last;

	*ret = (struct copy_extent){0};
	int rc = open_grow(src, &cache, &r, err);
	if (rc == 0)
		rc = grow_refresh_all(r, &ret->bytes, err);
	uint64_t n = rc == 0 ? grow_n_commits(r) : 0;
	if (rc == 0)
		ret->id = grow_reader_info(r)->id;
	if (n > 0 && grow_get_commit(r, n - 1, &last))
		ret->last_txid = last.txid;
	grow_free(r);
	cache_free(cache);
	return rc;
}

int copy_extent_there(int to_fd, const char *name, struct copy_extent *ret, struct err *err)
{
	struct source *src;

	*ret = (struct copy_extent){0};
	int rc = source_open_file(to_fd, name, name, &src, err);
	return rc < 0 ? rc : copy_whole_length(src, ret, err);
}

/* All of its records and all of its data, up to exactly `len`, and that it is what is named.  Takes
 * `src` over. */
static int verify_source(struct source *src, const struct history_object *o, uint64_t len,
                         struct err *err)
{
	cleanup_free uint8_t *b = malloc(PIECE);
	struct cache *cache = NULL;
	struct grow_reader *r = NULL;
	struct commit last;
	uint64_t end = 0;

	if (!b) {
		source_free(src);
		return err_set(err, ERR_NOMEM, 0, "no memory to read a segment");
	}
	int rc = open_grow(src, &cache, &r, err);
	if (rc == 0 && (grow_reader_info(r)->lineage != o->lineage ||
	                grow_reader_info(r)->first_txid != o->first_txid))
		rc = wrong_name(o, err);
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

static int verify_growing(int fd, const char *name, const struct history_object *o, uint64_t len,
                          struct err *err)
{
	struct source *src;

	int rc = source_open_file(fd, name, o->file, &src, err);
	return rc < 0 ? rc : verify_source(src, o, len, err);
}

static int verify_fence(struct source *src, const struct history_object *o, struct err *err)
{
	uint8_t b[GROW_HEADER_SIZE];
	uint64_t goes_on;

	int rc = src->pread(src, b, sizeof(b), 0, err);
	source_free(src);
	return rc < 0 ? rc
	              : grow_fence_get(b, sizeof(b), o->file, o->lineage, o->first_txid, &goes_on,
	                               err);
}

int copy_check_fetched(int fd, const struct history_object *o, struct err *err)
{
	cleanup_fd int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	struct source *src;

	if (own < 0)
		return err_set(err, ERR_IO, errno, "read '%s'", o->file);
	int rc = source_open_fd(take_fd(&own), o->file, &src, err);
	if (rc < 0)
		return rc;
	if (o->type != HISTORY_GROWING)
		return verify_object(src, o, err);
	return o->bytes == GROW_HEADER_SIZE ? verify_fence(src, o, err)
	                                    : verify_source(src, o, o->bytes, err);
}

/* Behind what is whole in the copy so far. */
static int append(struct copying *c, const struct copy_from *f, int to_fd,
                  const struct history_object *o, uint64_t from, uint64_t len, struct err *err)
{
	cleanup_fd int out = -1;
	uint64_t sum = 0;

	int rc = file_open(to_fd, o->file, O_RDWR, 0, &out, err);
	if (rc == 0 && ftruncate(out, (off_t)from) < 0)
		rc = err_set(err, ERR_IO, errno, "cut '%s'", o->file);
	if (rc == 0)
		rc = copy_range(c, f, out, from, len, &sum, err);
	return rc < 0 ? rc : file_datasync(out, f->key, err);
}

static int copy_growing_whole(struct copying *c, const struct copy_from *f, int to_fd,
                              const struct history_object *o, uint64_t len, struct err *err)
{
	char tmp[300];
	uint64_t sum;

	temporary(o->file, tmp);
	int rc = copy_bytes(c, f, len, to_fd, tmp, &sum, err);
	if (rc == 0)
		rc = verify_growing(to_fd, tmp, o, len, err);
	if (rc == 0)
		rc = finish(f, to_fd, o->file, tmp, err);
	if (rc < 0)
		unlinkat(to_fd, tmp, 0);
	else
		c->result->objects++;
	return rc;
}

/* Of which segment it is: what is there under that name may be another, cut elsewhere. */
static int id_of(const struct copy_from *f, uint64_t *ret, struct err *err)
{
	cleanup_source struct source *src = NULL;
	uint8_t header[GROW_HEADER_SIZE];
	struct grow_info info;
	uint64_t hash;

	int rc = store_open_object(f->store, f->key, f->bytes, &src, err);
	if (rc == 0)
		rc = src->pread(src, header, sizeof(header), 0, err);
	if (rc == 0)
		rc = grow_header_get(header, sizeof(header), f->key, &info, &hash, err);
	if (rc == 0)
		*ret = info.id;
	return rc;
}

static int copy_growing_try(struct copying *c, const struct copy_from *f, int to_fd,
                            const struct history_object *o, uint64_t len, bool anew,
                            struct err *err)
{
	struct copy_extent have;
	struct err why = ERR_INIT;
	uint64_t id;

	if (anew || copy_extent_there(to_fd, o->file, &have, &why) < 0)
		return copy_growing_whole(c, f, to_fd, o, len, err);
	int rc = id_of(f, &id, err);
	if (rc < 0)
		return rc;
	if (have.id == id ? have.bytes >= len : have.last_txid >= o->last_txid) {
		c->result->present++;
		return 0;
	}
	if (have.id != id)
		return copy_growing_whole(c, f, to_fd, o, len, err);
	c->result->objects++;
	rc = append(c, f, to_fd, o, have.bytes, len, err);
	return rc < 0 ? rc : verify_growing(to_fd, o->file, o, len, err);
}

int copy_growing(struct copying *c, const struct copy_from *f, int to_fd,
                 const struct history_object *o, uint64_t len, bool anew, struct err *err)
{
	struct err why = {.kind = ERR_DAMAGED};
	int rc = -1;

	for (int i = 0; i < (f->store->remote ? TRIES : 1) && why.kind == ERR_DAMAGED; i++) {
		why = (struct err)ERR_INIT;
		rc = copy_growing_try(c, f, to_fd, o, len, anew, &why);
	}
	if (why.kind == ERR_DAMAGED && rc < 0)
		return copy_damaged(c, &why);
	return rc < 0 ? err_copy(err, &why) : 0;
}

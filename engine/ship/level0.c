/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Level 0: the commits of an interval as a segment of their own, in the format of a growing one
 * (archive/grow.h), compressed and complete.
 */
#include "engine/archive/grow_i.h"
#include "engine/base/file.h"
#include "engine/ship/ship_i.h"

#include <inttypes.h>
#include <string.h>

#define LEVEL 1                            /* of deflate: what is captured is sent a second later */
#define LEVEL0_MAX_BYTES ((size_t)1 << 30) /* of one that is read back; a commit of 4 GB */

void level0_file(uint32_t lineage, uint64_t first_txid, char out[OBJECT_NAME_MAX + 16])
{
	struct object_name n = {
	        .type = OBJECT_GROWING, .lineage = lineage, .first_txid = first_txid};
	char name[OBJECT_NAME_MAX];

	object_name_format(&n, name);
	snprintf(out, OBJECT_NAME_MAX + 16, "segment/%s", name);
}

/* ---- making one ---- */

struct making {
	uint32_t lineage;
	uint64_t first_txid;
	int fd;
	struct grow_writer *w; /* made at the first frame */
	struct commit last;
	bool full;
};

static int make_frame(void *ctx, const struct replay_frame *f, struct err *err)
{
	static const struct source_position nowhere;
	struct making *m = ctx;
	int rc = 0;

	if (!m->w)
		rc = grow_create_unnamed(take_fd(&m->fd), m->lineage, m->first_txid, f->page_size,
		                         LEVEL, &m->w, err);
	if (rc == 0 && grow_batch_full(m->w))
		rc = grow_end_batch(m->w, &nowhere, false, err);
	if (rc == 0)
		rc = grow_frame(m->w, f->pgno, f->commit ? f->commit->n_pages : 0, f->page, err);
	if (rc < 0 || !f->commit)
		return rc;
	m->last = *f->commit;
	rc = grow_commit(m->w, &m->last, err);
	m->full = grow_content_len(m->w) >= LEVEL0_CONTENT_BYTES;
	return rc == 0 && m->full ? err_set(err, ERR_EXISTS, 0, "full") : rc;
}

static int finish(struct making *m, const char *file, struct source **ret, uint64_t *ret_bytes,
                  struct commit *ret_last, struct err *err)
{
	static const struct source_position nowhere;

	int rc = grow_end_batch(m->w, &nowhere, true, err);
	if (rc < 0)
		return rc;
	*ret_bytes = grow_length(m->w);
	*ret_last = m->last;
	return source_open_fd(grow_writer_take_fd(m->w), file, ret, err);
}

int level0_make(struct shipper *s, uint32_t lineage, uint64_t first_txid, uint64_t last_txid,
                struct source **ret, uint64_t *ret_bytes, struct commit *ret_last, struct err *err)
{
	struct making m = {.lineage = lineage, .first_txid = first_txid, .fd = -1};
	char file[OBJECT_NAME_MAX + 16];
	struct err why = ERR_INIT;

	level0_file(lineage, first_txid, file);
	int rc = file_open_unlinked(0, &m.fd, err);
	if (rc < 0)
		return rc;
	rc = history_replay(s->history, first_txid - 1, last_txid, make_frame, &m, &why);
	if (rc < 0 && !m.full)
		err_copy(err, &why);
	else if (!m.w)
		rc = err_set(err, ERR_DAMAGED, 0,
		             "the history of '%s' has no frames of transaction %" PRIu64, s->name,
		             first_txid);
	else
		rc = finish(&m, file, ret, ret_bytes, ret_last, err);
	grow_writer_free(m.w);
	if (m.fd >= 0)
		close(m.fd);
	return rc;
}

int level0_make_idle(struct shipper *s, const struct history_object *o, struct source **ret,
                     uint64_t *ret_bytes, struct commit *ret_last, struct err *err)
{
	struct making m = {.lineage = o->lineage, .first_txid = o->last_txid, .fd = -1};
	cleanup_view struct view *v = NULL;
	char file[OBJECT_NAME_MAX + 16];
	struct err why = ERR_INIT;

	int rc = view_open(s->history, o->last_txid, &v, err);
	if (rc < 0)
		return rc;
	const struct moment *now = view_moment(v);
	cleanup_free uint8_t *page = malloc(now->page_size);
	const struct commit c = {.txid = o->last_txid,
	                         .time_us = now->time_us,
	                         .n_pages = now->n_pages,
	                         .not_before_us = now->not_before_us,
	                         .state = now->state,
	                         .flags = COMMIT_UNSETTLED};
	const struct replay_frame f = {1, now->page_size, page, &c};
	level0_file(m.lineage, m.first_txid, file);
	rc = page ? view_page(v, 1, page, err) : err_set(err, ERR_NOMEM, 0, "no memory for a page");
	if (rc == 0)
		rc = file_open_unlinked(0, &m.fd, err);
	if (rc == 0)
		rc = make_frame(&m, &f, &why);
	if (rc < 0)
		err_copy(err, &why);
	else
		rc = finish(&m, file, ret, ret_bytes, ret_last, err);
	grow_writer_free(m.w);
	if (m.fd >= 0)
		close(m.fd);
	return rc;
}

/* ---- reading one back ---- */

struct read_back {
	struct buf bytes;
	struct cache *cache;
	struct grow_reader *r; /* NULL: nothing follows its header */
};

static void read_back_release(struct read_back *b)
{
	grow_free(b->r);
	cache_free(b->cache);
	buf_release(&b->bytes);
}

static int read_back(struct shipper *s, uint32_t lineage, uint64_t first_txid, struct read_back *b,
                     struct level0_info *ret, struct err *err)
{
	char file[OBJECT_NAME_MAX + 16];
	struct source *src;
	struct grow_info info;
	uint64_t hash, len;

	level0_file(lineage, first_txid, file);
	*ret = (struct level0_info){0};
	int rc = ship_get(s, file, LEVEL0_MAX_BYTES, &b->bytes, err);
	if (rc == 0)
		rc = grow_header_get(b->bytes.data, b->bytes.len, file, &info, &hash, err);
	if (rc < 0)
		return rc;
	if (info.lineage != lineage || info.first_txid != first_txid)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' is damaged: its content is that of another object", file);
	if (b->bytes.len == GROW_HEADER_SIZE) {
		rc = grow_fence_get(b->bytes.data, b->bytes.len, file, lineage, first_txid,
		                    &ret->goes_on, err);
		ret->closes = rc == 0 && ret->goes_on == 0;
		return rc;
	}
	rc = source_open_bytes(b->bytes.data, b->bytes.len, file, &src, err);
	if (rc == 0 && (rc = cache_new(1u << 20, &b->cache, err)) < 0)
		source_free(src);
	if (rc == 0 && (rc = grow_open(src, b->cache, &b->r, err)) < 0)
		source_free(src);
	if (rc == 0)
		rc = grow_refresh(b->r, b->bytes.len, err);
	if (rc < 0)
		return rc;
	len = grow_n_commits(b->r);
	if (len == 0 || !grow_get_commit(b->r, len - 1, &ret->last))
		return err_set(err, ERR_DAMAGED, 0, "'%s' is damaged: it has no commit", file);
	return 0;
}

int level0_read(struct shipper *s, uint32_t lineage, uint64_t first_txid, struct level0_info *ret,
                struct err *err)
{
	struct read_back b = {.bytes = BUF_INIT(LEVEL0_MAX_BYTES)};

	int rc = read_back(s, lineage, first_txid, &b, ret, err);
	read_back_release(&b);
	return rc;
}

static bool same_commit(const struct commit *a, const struct commit *b)
{
	return a->txid == b->txid && a->time_us == b->time_us && a->n_pages == b->n_pages &&
	       a->n_frames == b->n_frames && a->flags == b->flags && a->state.lo == b->state.lo &&
	       a->state.hi == b->state.hi;
}

/* What a snapshot alone holds: see level0_make_idle(). */
static bool same_idle_state(struct shipper *s, const struct commit *theirs)
{
	struct moment m;

	return (theirs->flags & COMMIT_UNSETTLED) && theirs->n_frames == 1 &&
	       history_tx(s->history, theirs->txid, &m, NULL) == 0 &&
	       m.time_us == theirs->time_us && m.n_pages == theirs->n_pages &&
	       hash128_equal(m.state, theirs->state);
}

/* Damaged, or gone, and a child went on behind it. */
static bool is_lost(struct shipper *s, uint64_t txid)
{
	struct jump j;

	for (size_t i = 0; history_jump(s->history, i, &j, NULL) == 0; i++)
		if (txid < j.first_txid && j.told_us)
			return true;
	return false;
}

/* What is damaged here cannot be compared; whose the object is its writer's note has said. */
static int same_as_archive(struct shipper *s, const struct commit *theirs, bool *ret,
                           struct err *err)
{
	struct err why = ERR_INIT;
	struct commit ours;

	if (history_commit(s->history, theirs->txid, &ours, &why) == 0)
		*ret = same_commit(theirs, &ours);
	else
		*ret = same_idle_state(s, theirs) || is_lost(s, theirs->txid);
	/* Where no child goes on yet it is no other history, and not known to be the same. */
	return !*ret && why.kind == ERR_DAMAGED ? err_copy(err, &why) : 0;
}

static int compare(struct shipper *s, struct grow_reader *r, bool *ret, struct err *err)
{
	struct commit theirs;
	int rc = 0;

	*ret = true;
	for (uint64_t i = 0; rc == 0 && *ret && grow_get_commit(r, i, &theirs); i++)
		rc = same_as_archive(s, &theirs, ret, err);
	return rc;
}

int level0_is_ours(struct shipper *s, uint32_t lineage, uint64_t first_txid, bool *ret,
                   struct level0_info *ret_info, struct err *err)
{
	struct read_back b = {.bytes = BUF_INIT(LEVEL0_MAX_BYTES)};

	*ret = false;
	int rc = read_back(s, lineage, first_txid, &b, ret_info, err);
	if (rc == 0 && b.r)
		rc = compare(s, b.r, ret, err);
	read_back_release(&b);
	return rc;
}

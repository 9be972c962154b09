/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/retain/check.h"

#include "engine/archive/sealed.h"
#include "engine/base/bitset.h"
#include "engine/base/bytes.h"
#include "engine/sqlite/format.h"

struct check {
	struct view *before;
	const struct moment *m; /* of it */
	struct sealed *after;
	struct hash128 sum;
	uint8_t *page;
};

static void subtract(struct hash128 *sum, struct hash128 h)
{
	uint64_t lo = sum->lo - h.lo;

	sum->hi = sum->hi - h.hi - (sum->lo < h.lo ? 1u : 0u);
	sum->lo = lo;
}

/* The page as it was goes out of the sum. */
static int take_out(struct check *c, uint32_t pgno, struct err *err)
{
	if (pgno > c->m->n_pages || pgno == lock_page(c->m->page_size))
		return 0;
	int rc = view_page(c->before, pgno, c->page, err);
	if (rc == 0)
		subtract(&c->sum, page_hash(pgno, c->page, c->m->page_size));
	return rc;
}

static int put_in(struct check *c, uint64_t frame, uint32_t pgno, struct err *err)
{
	uint64_t at = wal_frame_offset(frame, c->m->page_size);
	uint8_t head[4];

	int rc = sealed_read_content(c->after, at, head, sizeof(head), err);
	if (rc == 0 && load_be32(head) != pgno)
		rc = err_set(err, ERR_DAMAGED, 0, "'%s' is damaged: a frame holds another page",
		             sealed_name(c->after));
	if (rc == 0)
		rc = sealed_read_content(c->after, at + WAL_FRAME_HEADER_SIZE, c->page,
		                         c->m->page_size, err);
	if (rc == 0 && pgno != lock_page(c->m->page_size))
		state_add(&c->sum, page_hash(pgno, c->page, c->m->page_size));
	return rc;
}

static int exchange_pages(struct check *c, struct bitset *held, const _Atomic bool *stop,
                          struct err *err)
{
	const struct sealed_info *i = sealed_get_info(c->after);
	int rc = 0;

	for (uint64_t f = 0; f < i->n_frames && rc == 0; f++) {
		struct frame_entry e;
		rc = sealed_get_entry(c->after, f, &e, err);
		if (rc == 0)
			rc = bitset_add(held, e.pgno, err);
		if (rc == 0)
			rc = take_out(c, e.pgno, err);
		if (rc == 0)
			rc = put_in(c, e.frame, e.pgno, err);
		if (rc == 0 && stop && *stop)
			rc = err_set(err, ERR_CANCELLED, 0, "stopped");
	}
	/* Cut off: behind the new end, or behind a smaller one in between and not written since. */
	for (uint64_t p = (uint64_t)i->min_pages + 1; p <= c->m->n_pages && rc == 0; p++)
		if (!bitset_has(held, p))
			rc = take_out(c, (uint32_t)p, err);
	return rc;
}

static int check(struct check *c, const _Atomic bool *stop, struct err *err)
{
	struct bitset held = {0};
	struct commit last;

	int rc = sealed_get_commit(c->after, 0, &last, err);
	if (rc < 0 || last.flags & COMMIT_NO_STATE || hash128_zero(c->m->state) ||
	    c->m->page_size != sealed_get_info(c->after)->page_size)
		return rc;
	c->sum = c->m->state;
	c->page = malloc(c->m->page_size);
	if (!c->page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	rc = exchange_pages(c, &held, stop, err);
	bitset_release(&held);
	if (rc == 0 && !hash128_equal(c->sum, last.state))
		rc = err_set(err, ERR_DAMAGED, 0,
		             "'%s' does not give the state whose checksum was recorded "
		             "(nothing was deleted)",
		             sealed_name(c->after));
	return rc;
}

int check_coalesced(struct history *h, int coalesced_fd, const char *file, uint64_t after_txid,
                    const _Atomic bool *stop, struct err *err)
{
	cleanup_view struct view *before = NULL;
	cleanup_sealed struct sealed *after = NULL;
	struct source *src = NULL;
	struct cache *cache = NULL;
	struct err why = ERR_INIT;

	if (view_open(h, after_txid, &before, &why) < 0) /* of a base that is no state by itself */
		return why.kind == ERR_NOT_FOUND || why.kind == ERR_GAP ? 0 : err_copy(err, &why);
	int rc = cache_new(1u << 20, &cache, err);
	if (rc == 0)
		rc = source_open_file(coalesced_fd, file, file, &src, err);
	if (rc == 0)
		rc = sealed_open(src, cache, &after, err);
	struct check c = {.before = before, .m = view_moment(before), .after = after};
	if (rc == 0)
		rc = check(&c, stop, err);
	free(c.page);
	sealed_free(take_ptr(after));
	cache_free(cache);
	return rc;
}

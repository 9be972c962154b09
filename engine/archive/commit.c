/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/commit.h"

#include <stdlib.h>

void source_position_put(uint8_t p[SOURCE_POSITION_SIZE], const struct source_position *pos)
{
	store_le32(p, pos->salt1);
	store_le32(p + 4, pos->salt2);
	store_le64(p + 8, pos->frame);
	store_le32(p + 16, pos->cksum.s0);
	store_le32(p + 20, pos->cksum.s1);
	store_le32(p + 24, pos->change);
	store_le32(p + 28, 0);
}

struct source_position source_position_get(const uint8_t p[SOURCE_POSITION_SIZE])
{
	return (struct source_position){
	        .salt1 = load_le32(p),
	        .salt2 = load_le32(p + 4),
	        .frame = load_le64(p + 8),
	        .cksum = {load_le32(p + 16), load_le32(p + 20)},
	        .change = load_le32(p + 24),
	};
}

int commit_put(struct buf *out, const struct commit *c, const struct commit *prev, struct err *err)
{
	uint8_t b[5 * VARINT_MAX + 16];
	size_t n = 0;

	n += store_varint(b + n, c->n_frames);
	n += store_varint(b + n, c->n_pages);
	n += store_varint(b + n, (uint64_t)(c->time_us - (prev ? prev->time_us : 0)));
	n += store_varint(b + n,
	                  c->not_before_us ? (uint64_t)(c->time_us - c->not_before_us) + 1 : 0);
	n += store_varint(b + n, c->flags);
	if (!(c->flags & COMMIT_NO_STATE)) {
		store_le64(b + n, c->state.lo);
		store_le64(b + n + 8, c->state.hi);
		n += 16;
	}
	return buf_append(out, b, n, err);
}

void commit_get(struct cursor *cur, const struct commit *prev, struct commit *ret)
{
	struct commit c = {.txid = prev->txid + 1};

	c.n_frames = cursor_varint(cur);
	uint64_t n_pages = cursor_varint(cur);
	c.time_us = (int64_t)((uint64_t)prev->time_us + cursor_varint(cur));
	uint64_t since = cursor_varint(cur);
	c.not_before_us = since ? (int64_t)((uint64_t)c.time_us - (since - 1)) : 0;
	uint64_t flags = cursor_varint(cur);
	c.flags = (uint32_t)flags;
	if (!(flags & COMMIT_NO_STATE)) {
		c.state.lo = cursor_le64(cur);
		c.state.hi = cursor_le64(cur);
	}
	c.last_frame = prev->last_frame + c.n_frames;
	c.n_pages = (uint32_t)n_pages;
	c.min_pages = c.n_pages < prev->min_pages ? c.n_pages : prev->min_pages;
	if (n_pages == 0 || n_pages > UINT32_MAX || c.n_frames == 0 ||
	    flags & ~(uint64_t)COMMIT_FLAGS_KNOWN || c.last_frame < prev->last_frame ||
	    c.time_us < prev->time_us)
		cur->bad = true;
	*ret = c;
}

size_t frame_entry_put(uint8_t *p, const struct frame_entry *prev, const struct frame_entry *e)
{
	bool same = e->pgno == prev->pgno;
	size_t n = store_varint(p, e->pgno - prev->pgno);

	return n + store_varint(p + n, same ? e->frame - prev->frame : e->frame);
}

int frame_run_put(struct buf *out, const struct frame_entry *e, size_t n, struct err *err)
{
	struct frame_entry prev = {0, 0};

	int rc = buf_reserve(out, n * 15, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		out->len += frame_entry_put(out->data + out->len, &prev, &e[i]);
		prev = e[i];
	}
	return 0;
}

bool frame_run_get(struct cursor *cur, struct frame_entry *e, size_t n, uint64_t max_frame)
{
	struct frame_entry prev = {0, 0};

	for (size_t i = 0; i < n; i++) {
		uint64_t step = cursor_varint(cur);
		uint64_t frame = cursor_varint(cur);
		uint64_t pgno = prev.pgno + step;
		if (step == 0)
			frame += prev.frame;
		if (!cursor_ok(cur) || pgno == 0 || pgno > UINT32_MAX || frame == 0 ||
		    frame > max_frame || (step == 0 && frame <= prev.frame))
			return false;
		prev = e[i] = (struct frame_entry){(uint32_t)pgno, frame};
	}
	return true;
}

static int entry_compare(const void *a, const void *b)
{
	const struct frame_entry *x = a, *y = b;

	if (x->pgno != y->pgno)
		return x->pgno < y->pgno ? -1 : 1;
	return x->frame < y->frame ? -1 : x->frame > y->frame;
}

void frame_run_sort(struct frame_entry *e, size_t n)
{
	qsort(e, n, sizeof(*e), entry_compare);
}

size_t frame_run_find(const struct frame_entry *e, size_t n, uint32_t pgno, uint64_t frame)
{
	size_t lo = 0, hi = n; /* e[lo - 1] <= key < e[hi] */

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (e[mid].pgno < pgno || (e[mid].pgno == pgno && e[mid].frame <= frame))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo == 0 ? SIZE_MAX : lo - 1;
}

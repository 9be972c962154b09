/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/commit_list.h"

#include "engine/base/array.h"

#include <stdlib.h>

int commit_list_add(struct commit_list *l, const struct commit *c, struct err *err)
{
	size_t block = l->n / COMMIT_BLOCK;
	int rc;

	l->bytes.max_bytes = SIZE_MAX / 2;
	if (l->n % COMMIT_BLOCK == 0) {
		rc = array_room(l->blocks, block, l->cap_blocks, "a segment's commits", err);
		if (rc == 0)
			l->blocks[block] = (struct commit_block){*c, l->bytes.len};
	} else {
		rc = commit_put(&l->bytes, c, &l->last, err);
	}
	if (rc == 0) {
		l->last = *c;
		l->n++;
	}
	return rc;
}

/* What is behind the block's first commit. */
static struct cursor rest_of(const struct commit_list *l, const struct commit_block *b)
{
	return l->bytes.len > b->at ? cursor_init(l->bytes.data + b->at, l->bytes.len - b->at)
	                            : cursor_init("", 0);
}

static void next(struct cursor *rest, struct commit *c)
{
	struct commit before = *c;

	commit_get(rest, &before, c);
}

/* Commit i, and where in `bytes` the one behind it begins. */
static struct commit get(const struct commit_list *l, size_t i, size_t *ret_behind)
{
	const struct commit_block *b = &l->blocks[i / COMMIT_BLOCK];
	struct cursor rest = rest_of(l, b);
	struct commit c = b->first;

	for (size_t k = i % COMMIT_BLOCK; k > 0; k--)
		next(&rest, &c);
	*ret_behind = l->bytes.len - cursor_left(&rest);
	return c;
}

struct commit commit_list_get(const struct commit_list *l, size_t i)
{
	size_t behind;

	return get(l, i, &behind);
}

size_t commit_list_until(const struct commit_list *l, size_t n, int64_t time_us)
{
	size_t lo = 0, hi = (n + COMMIT_BLOCK - 1) / COMMIT_BLOCK;

	while (lo < hi) { /* blocks[lo - 1] begins in time, blocks[hi] after it */
		size_t mid = lo + (hi - lo) / 2;
		if (l->blocks[mid].first.time_us <= time_us)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0)
		return 0;
	const struct commit_block *b = &l->blocks[lo - 1];
	struct cursor rest = rest_of(l, b);
	struct commit c = b->first;
	size_t i = (lo - 1) * COMMIT_BLOCK + 1;
	for (; i < n && i < lo * COMMIT_BLOCK; i++) {
		next(&rest, &c);
		if (c.time_us > time_us)
			break;
	}
	return i;
}

void commit_list_cut(struct commit_list *l, size_t n)
{
	if (n >= l->n)
		return;
	l->n = n;
	if (n == 0)
		l->bytes.len = 0;
	else
		l->last = get(l, n - 1, &l->bytes.len);
}

void commit_list_release(struct commit_list *l)
{
	free(take_ptr(l->blocks));
	buf_release(&l->bytes);
	l->n = l->cap_blocks = 0;
}

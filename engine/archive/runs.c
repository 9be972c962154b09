/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/runs.h"

#include "engine/base/array.h"

#include <stdlib.h>

static bool entry_less(const struct frame_entry *a, const struct frame_entry *b)
{
	return a->pgno != b->pgno ? a->pgno < b->pgno : a->frame < b->frame;
}

static void run_release(struct frame_run *run)
{
	free(take_ptr(run->blocks));
	buf_release(&run->bytes);
	run->n = run->cap_blocks = 0;
}
#define cleanup_run CLEANUP(run_release)

/* ---- reading one ---- */

struct walk {
	const struct frame_run *run;
	size_t i; /* of `e`; the run's n at its end */
	struct cursor rest;
	struct frame_entry e;
};

static void walk_block(struct walk *w, size_t block)
{
	const struct frame_block *b = &w->run->blocks[block];

	w->i = block * RUN_BLOCK_ENTRIES;
	w->e = b->first;
	w->rest = w->run->bytes.len > b->at
	                  ? cursor_init(w->run->bytes.data + b->at, w->run->bytes.len - b->at)
	                  : cursor_init("", 0);
}

static struct walk walk_begin(const struct frame_run *run)
{
	struct walk w = {.run = run};

	if (run->n)
		walk_block(&w, 0);
	return w;
}

static bool walk_ended(const struct walk *w)
{
	return w->i == w->run->n;
}

static void walk_next(struct walk *w)
{
	if (++w->i == w->run->n)
		return;
	if (w->i % RUN_BLOCK_ENTRIES == 0) {
		walk_block(w, w->i / RUN_BLOCK_ENTRIES);
		return;
	}
	uint64_t step = cursor_varint(&w->rest), frame = cursor_varint(&w->rest);
	w->e.pgno += (uint32_t)step;
	w->e.frame = step == 0 ? w->e.frame + frame : frame;
}

/* ---- making one ---- */

static int put(struct frame_run *run, struct frame_entry *prev, struct frame_entry e,
               struct err *err)
{
	size_t block = run->n / RUN_BLOCK_ENTRIES;
	int rc = 0;

	if (run->n % RUN_BLOCK_ENTRIES == 0) {
		rc = array_room(run->blocks, block, run->cap_blocks, "a page index", err);
		if (rc == 0)
			run->blocks[block] = (struct frame_block){e, run->bytes.len};
	} else {
		rc = buf_reserve(&run->bytes, 2 * VARINT_MAX, err);
		if (rc == 0)
			run->bytes.len +=
			        frame_entry_put(run->bytes.data + run->bytes.len, prev, &e);
	}
	if (rc == 0) {
		run->n++;
		*prev = e;
	}
	return rc;
}

/* Handed over; what was taken too much of is given back, where it is worth it. */
static struct frame_run finish(struct frame_run *run)
{
	struct frame_run done;
	bool much = run->bytes.cap > run->bytes.len + run->bytes.len / 8;
	void *bytes = much && run->bytes.len ? realloc(run->bytes.data, run->bytes.len) : NULL;

	if (bytes) {
		run->bytes.data = bytes;
		run->bytes.cap = run->bytes.len;
	}
	done = *run;
	*run = (struct frame_run){0};
	return done;
}

static int make_run(const struct frame_entry *e, size_t n, struct frame_run *ret, struct err *err)
{
	cleanup_run struct frame_run run = {.bytes = BUF_INIT(SIZE_MAX / 2)};
	struct frame_entry prev = {0, 0};
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = put(&run, &prev, e[i], err);
	if (rc == 0)
		*ret = finish(&run);
	return rc;
}

static int merge(const struct frame_run *a, const struct frame_run *b, struct frame_run *ret,
                 struct err *err)
{
	cleanup_run struct frame_run run = {.bytes = BUF_INIT(SIZE_MAX / 2)};
	struct walk i = walk_begin(a), j = walk_begin(b);
	struct frame_entry prev = {0, 0};
	int rc = buf_reserve(&run.bytes, a->bytes.len + b->bytes.len + 2 * VARINT_MAX, err);

	while (rc == 0 && !(walk_ended(&i) && walk_ended(&j))) {
		bool second = walk_ended(&i) || (!walk_ended(&j) && entry_less(&j.e, &i.e));
		struct walk *w = second ? &j : &i;
		rc = put(&run, &prev, w->e, err);
		walk_next(w);
	}
	if (rc == 0)
		*ret = finish(&run);
	return rc;
}

/* ---- all of them ---- */

int frame_runs_add(struct frame_runs *r, const struct frame_entry *e, size_t n, struct err *err)
{
	cleanup_run struct frame_run run = {0};
	size_t k = r->count;

	if (n == 0)
		return 0;
	int rc = make_run(e, n, &run, err);
	for (; rc == 0 && k > 0 && r->run[k - 1].n <= 2 * run.n; k--) {
		struct frame_run both;
		rc = merge(&r->run[k - 1], &run, &both, err);
		if (rc < 0)
			return rc;
		run_release(&run);
		run = both;
	}
	if (rc < 0)
		return rc;
	while (r->count > k)
		run_release(&r->run[--r->count]);
	r->run[r->count++] = run; /* count < RUNS_MAX: sizes more than double from run to run */
	run = (struct frame_run){0};
	return 0;
}

static uint64_t find(const struct frame_run *run, uint32_t pgno, uint64_t max_frame)
{
	struct frame_entry key = {pgno, max_frame}, last;
	struct walk w = {.run = run};
	size_t lo = 0, hi = (run->n + RUN_BLOCK_ENTRIES - 1) / RUN_BLOCK_ENTRIES;

	while (lo < hi) { /* blocks[lo - 1].first <= key < blocks[hi].first */
		size_t mid = lo + (hi - lo) / 2;
		if (entry_less(&key, &run->blocks[mid].first))
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == 0)
		return 0;
	walk_block(&w, lo - 1);
	do {
		last = w.e;
		walk_next(&w);
	} while (!walk_ended(&w) && !entry_less(&key, &w.e));
	return last.pgno == pgno ? last.frame : 0;
}

uint64_t frame_runs_find(const struct frame_runs *r, uint32_t pgno, uint64_t max_frame)
{
	uint64_t frame = 0;

	/* Later runs hold later frames. */
	for (size_t i = r->count; i-- > 0 && frame == 0;)
		frame = find(&r->run[i], pgno, max_frame);
	return frame;
}

int frame_runs_pages(const struct frame_runs *r, uint64_t max_frame, uint32_t max_pgno,
                     struct bitset *pages, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < r->count; i++)
		for (struct walk w = walk_begin(&r->run[i]); rc == 0 && !walk_ended(&w);
		     walk_next(&w))
			if (w.e.frame <= max_frame && w.e.pgno <= max_pgno)
				rc = bitset_add(pages, w.e.pgno, err);
	return rc;
}

void frame_runs_release(struct frame_runs *r)
{
	for (size_t i = 0; i < r->count; i++)
		run_release(&r->run[i]);
	r->count = 0;
}

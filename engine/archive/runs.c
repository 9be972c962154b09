/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/runs.h"

#include <stdlib.h>

static bool entry_less(const struct frame_entry *a, const struct frame_entry *b)
{
	return a->pgno != b->pgno ? a->pgno < b->pgno : a->frame < b->frame;
}

static int merge_last_two(struct frame_runs *r, struct err *err)
{
	struct frame_entry *a = r->run[r->count - 2], *b = r->run[r->count - 1];
	size_t na = r->n[r->count - 2], nb = r->n[r->count - 1], i = 0, j = 0, k = 0;
	struct frame_entry *m = malloc((na + nb) * sizeof(*m));

	if (!m)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page index of %zu entries",
		               na + nb);
	while (i < na && j < nb)
		m[k++] = entry_less(&b[j], &a[i]) ? b[j++] : a[i++];
	while (i < na)
		m[k++] = a[i++];
	while (j < nb)
		m[k++] = b[j++];
	free(a);
	free(b);
	r->count--;
	r->run[r->count - 1] = m;
	r->n[r->count - 1] = k;
	return 0;
}

int frame_runs_add(struct frame_runs *r, struct frame_entry *e, size_t n, struct err *err)
{
	r->run[r->count] = e; /* count < RUNS_MAX: sizes at least double from run to run */
	r->n[r->count] = n;
	r->count++;
	while (r->count >= 2 && r->n[r->count - 2] <= 2 * r->n[r->count - 1]) {
		int rc = merge_last_two(r, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

uint64_t frame_runs_find(const struct frame_runs *r, uint32_t pgno, uint64_t max_frame)
{
	/* Later runs hold later frames. */
	for (size_t i = r->count; i-- > 0;) {
		size_t at = frame_run_find(r->run[i], r->n[i], pgno, max_frame);
		if (at != SIZE_MAX && r->run[i][at].pgno == pgno)
			return r->run[i][at].frame;
	}
	return 0;
}

void frame_runs_release(struct frame_runs *r)
{
	for (size_t i = 0; i < r->count; i++)
		free(r->run[i]);
	r->count = 0;
}

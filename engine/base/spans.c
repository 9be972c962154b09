/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/spans.h"

#include "engine/base/array.h"

#include <stdlib.h>

int spans_add(struct spans *s, uint64_t first, uint64_t last, struct err *err)
{
	int rc = array_room(s->v, s->n, s->cap, "a list of transactions", err);

	if (rc == 0)
		s->v[s->n++] = (struct span){first, last};
	return rc;
}

static int compare(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

void spans_sort(struct spans *s)
{
	if (s->n)
		qsort(s->v, s->n, sizeof(*s->v), compare);
}

uint64_t spans_reach(const struct spans *s, uint64_t from)
{
	for (size_t i = 0; i < s->n && s->v[i].first <= from; i++)
		if (s->v[i].last >= from)
			from = s->v[i].last + 1;
	return from;
}

uint64_t spans_next(const struct spans *s, uint64_t after)
{
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].first > after && s->v[i].last >= s->v[i].first && s->v[i].first < next)
			next = s->v[i].first;
	return next;
}

void spans_release(struct spans *s)
{
	free(s->v);
	*s = (struct spans){.n = 0};
}

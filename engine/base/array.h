/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays that grow: items, how many there are, and for how many there is room, all the caller's own.
 *
 *	struct list { struct item *v; size_t n, cap; };
 *
 *	int rc = array_room(l->v, l->n, l->cap, "a list of items", err);
 *	if (rc == 0)
 *		l->v[l->n++] = item;
 *
 * Room grows by doubling, so adding costs the same however many there are.  What is new of it is not
 * initialised.  Freed by free().  Not thread-safe.
 */
#ifndef ASOF_BASE_ARRAY_H
#define ASOF_BASE_ARRAY_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stddef.h>

/* Room for one more behind `n` items.  NOMEM, "no memory for WHAT": the array is as it was. */
#define array_room(v, n, cap, what, err) array_reserve(v, n, cap, 1, what, err)
/* Room for `more`. */
#define array_reserve(v, n, cap, more, what, err)                                                  \
	array_grow(&(v), n, &(cap), more, sizeof(*(v)), what, err)

/* `items` is the address of the pointer to them. */
int array_grow(void *items, size_t n, size_t *cap, size_t more, size_t item_bytes, const char *what,
               struct err *err) MUST_USE;

#endif

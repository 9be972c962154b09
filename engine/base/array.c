/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/array.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LEAST 16u

int array_grow(void *items, size_t n, size_t *cap, size_t more, size_t item_bytes, const char *what,
               struct err *err)
{
	size_t need, room = *cap < LEAST ? LEAST : *cap;
	void *v;

	bool fits = !__builtin_add_overflow(n, more, &need);
	if (fits && need <= *cap)
		return 0;
	while (fits && room < need)
		fits = !__builtin_mul_overflow(room, (size_t)2, &room);
	/* The pointer has a type of its own: it is read and written as bytes. */
	memcpy(&v, items, sizeof(v));
	v = fits ? reallocarray(v, room, item_bytes) : NULL;
	if (!v)
		return err_set(err, ERR_NOMEM, 0, "no memory for %s", what);
	memcpy(items, &v, sizeof(v));
	*cap = room;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/json.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"

#include <stdbool.h>
#include <string.h>

#define CHARACTER_MAX 4u

/* The bytes of the character at `p`; 0: there is none. */
static size_t character(const char *p)
{
	size_t left = strnlen(p, CHARACTER_MAX);

	for (size_t n = 1; n <= left; n++) {
		json_t *one = json_stringn(p, n);
		if (one) {
			json_decref(one);
			return n;
		}
	}
	return 0;
}

json_t *json_text(const char *text)
{
	json_t *s = text ? json_string(text) : json_null();

	if (s)
		return s;
	cleanup_free char *copy = strdup(text);
	for (char *p = copy; p && *p;) {
		size_t n = character(p);
		if (n == 0)
			*p = '?';
		p += n ? n : 1;
	}
	return copy ? json_string(copy) : NULL;
}

json_t *json_moment(int64_t time_us)
{
	char text[TIME_STR_MAX];

	if (time_us == 0)
		return json_null();
	time_format(time_us, text);
	return json_string(text);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config/config_i.h"

#include "engine/base/clock.h"
#include "engine/base/units.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

bool value_bool(struct loader *l, unsigned line, const char *key, const char *text, bool *ret)
{
	static const char *const words[2][5] = {{"false", "no", "off", "n", "0"},
	                                        {"true", "yes", "on", "y", "1"}};

	for (int v = 0; v < 2; v++)
		for (int i = 0; i < 5; i++)
			if (strcasecmp(text, words[v][i]) == 0) {
				*ret = v;
				return true;
			}
	load_error(l, line, "%s: '%.60s' is neither true nor false", key, text);
	return false;
}

bool value_uint(struct loader *l, unsigned line, const char *key, const char *text, uint64_t min,
                uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;
	const char *p = text;

	for (; isdigit((unsigned char)*p) && p - text < 18; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	if (p == text || *p) {
		load_error(l, line, "%s: '%.60s' is not a whole number", key, text);
		return false;
	}
	if (v < min || v > max) {
		load_error(l, line, "%s: %" PRIu64 " is not in %" PRIu64 " to %" PRIu64, key, v,
		           min, max);
		return false;
	}
	*ret = v;
	return true;
}

bool value_duration(struct loader *l, unsigned line, const char *key, const char *text,
                    int64_t min_us, int64_t max_us, int64_t *ret_us)
{
	char low[DURATION_STR_MAX], high[DURATION_STR_MAX];
	struct err err = ERR_INIT;
	int64_t us;

	if (duration_parse(text, &us, &err)) {
		load_error(l, line, "%s: %s", key, err.msg);
		return false;
	}
	if (us < min_us || us > max_us) {
		duration_format(min_us, low);
		duration_format(max_us, high);
		load_error(l, line, "%s: %.40s is not in %s to %s", key, text, low, high);
		return false;
	}
	*ret_us = us;
	return true;
}

bool value_age(struct loader *l, unsigned line, const char *key, const char *text, int64_t *ret_us)
{
	if (strcasecmp(text, "forever") == 0) {
		*ret_us = INT64_MAX;
		return true;
	}
	return value_duration(l, line, key, text, US_PER_SECOND, INT64_MAX - 1, ret_us);
}

bool value_size(struct loader *l, unsigned line, const char *key, const char *text, uint64_t *ret)
{
	struct err err = ERR_INIT;

	if (size_parse(text, ret, &err) == 0)
		return true;
	load_error(l, line, "%s: %s", key, err.msg);
	return false;
}

bool value_schedule(struct loader *l, unsigned line, const char *key, const char *text,
                    struct schedule *ret)
{
	struct err err = ERR_INIT;
	int64_t us;

	/* A bare duration is an interval: validation-interval: 1h. */
	if (duration_parse(text, &us, NULL) == 0) {
		if (us && us < US_PER_SECOND) {
			load_error(l, line, "%s: '%.60s' is less than a second", key, text);
			return false;
		}
		schedule_every(us, ret);
		return true;
	}
	if (schedule_parse(text, ret, &err) == 0)
		return true;
	load_error(l, line, "%s: %s", key, err.msg);
	return false;
}

void known_schedule(const char *text, struct schedule *ret)
{
	int rc = schedule_parse(text, ret, NULL);

	assert(rc == 0);
}

/* ---- addresses ---- */

bool value_listen(struct loader *l, unsigned line, const char *key, const char *text,
                  const char **ret)
{
	uint64_t port;

	if (strcmp(text, LISTEN_NONE) == 0) {
		*ret = text;
		return true;
	}
	if (strncmp(text, "unix:", 5) == 0) {
		const char *path = text[5] ? load_path(l, l->folder, text + 5) : NULL;
		if (!path) {
			load_error(l, line,
			           "%s: '%.60s' names no socket (write unix:/run/asof.sock)", key,
			           text);
			return false;
		}
		*ret = memory_printf(l->memory, "unix:%s", path);
		if (!*ret)
			load_nomem(l);
		return *ret != NULL;
	}
	const char *colon = strrchr(text, ':');
	if (!colon || strpbrk(text, "/ \t") || (text[0] != '[' && strchr(text, ':') != colon)) {
		load_error(
		        l, line,
		        "%s: '%.60s' is no address (write 127.0.0.1:8080, :9090, [::1]:80, none)",
		        key, text);
		return false;
	}
	if (!value_uint(l, line, key, colon + 1, 1, 65535, &port))
		return false;
	*ret = text;
	return true;
}

bool listens_openly(const char *listen)
{
	static const char *const inside[] = {"127.", "localhost:", "[::1]:", "unix:"};

	for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
		if (strncmp(listen, inside[i], strlen(inside[i])) == 0)
			return false;
	return true;
}

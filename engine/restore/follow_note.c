/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore/follow_i.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTE_MAX 2048

int follow_note_put(const struct place *p, const struct follow_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	char name[RESTORE_NAME_MAX];
	int rc = buf_printf(&b, err,
	                    "asof-follow 1\ndatabase %s\ntxid %" PRIu64 "\nstate %016" PRIx64
	                    "%016" PRIx64 "\nnext_txid %" PRIu64 "\nnext_state %016" PRIx64
	                    "%016" PRIx64 "\n",
	                    n->database, n->txid, n->state.hi, n->state.lo, n->next_txid,
	                    n->next_state.hi, n->next_state.lo);

	snprintf(name, sizeof(name), "%s" FOLLOW_NOTE_SUFFIX, p->name);
	if (!rc)
		rc = buf_printf(&b, err, "sum %016" PRIx64 "\n", hash64(b.data, b.len, 0));
	return rc ? rc : file_put(p->dir_fd, name, b.data, b.len, err);
}

/* The value of the next line, "KEY VALUE", ended by a NUL; NULL: another line comes. */
static char *take_line(char **text, const char *key)
{
	size_t n = strlen(key);
	char *end = strchr(*text, '\n'), *value = *text + n + 1;

	if (!end || strncmp(*text, key, n) != 0 || (*text)[n] != ' ' || value > end)
		return NULL;
	*end = '\0';
	*text = end + 1;
	return value;
}

/* Digits of `base` alone, `max_digits` at most. */
static bool take_number(const char *p, int base, size_t max_digits, uint64_t *ret)
{
	const char *digits = base == 16 ? "0123456789abcdef" : "0123456789";
	size_t n = strspn(p, digits);

	if (n == 0 || n > max_digits || p[n])
		return false;
	errno = 0;
	*ret = strtoull(p, NULL, base);
	return errno == 0;
}

static bool take_txid(char **text, const char *key, uint64_t *ret)
{
	const char *p = take_line(text, key);

	return p && take_number(p, 10, 20, ret);
}

static bool take_state(char **text, const char *key, struct hash128 *ret)
{
	const char *p = take_line(text, key);
	char half[17];

	if (!p || strlen(p) != 32)
		return false;
	snprintf(half, sizeof(half), "%.16s", p);
	return take_number(half, 16, 16, &ret->hi) && take_number(p + 16, 16, 16, &ret->lo);
}

/* All before the sum is what it was when it was written; cuts the sum off. */
static bool check_sum(char *text, size_t len)
{
	char want[32];
	char *last = strlen(text) == len ? strstr(text, "\nsum ") : NULL;

	if (!last)
		return false;
	snprintf(want, sizeof(want), "sum %016" PRIx64 "\n",
	         hash64(text, (size_t)(last + 1 - text), 0));
	if (strcmp(last + 1, want) != 0)
		return false;
	last[1] = '\0';
	return true;
}

int follow_note_parse(char *text, size_t len, struct follow_note *ret)
{
	uint64_t version;

	*ret = (struct follow_note){0};
	if (!check_sum(text, len) || !take_txid(&text, "asof-follow", &version))
		return -ERR_DAMAGED;
	if (version != 1)
		return -ERR_VERSION;
	const char *name = take_line(&text, "database");
	if (!name || strlen(name) >= sizeof(ret->database))
		return -ERR_DAMAGED;
	snprintf(ret->database, sizeof(ret->database), "%s", name);
	return take_txid(&text, "txid", &ret->txid) && take_state(&text, "state", &ret->state) &&
	                       take_txid(&text, "next_txid", &ret->next_txid) &&
	                       take_state(&text, "next_state", &ret->next_state) && !*text
	               ? 0
	               : -ERR_DAMAGED;
}

int follow_note_get(const struct place *p, struct follow_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	char name[RESTORE_NAME_MAX];
	size_t len;

	snprintf(name, sizeof(name), "%s" FOLLOW_NOTE_SUFFIX, p->name);
	int rc = file_get(p->dir_fd, name, NOTE_MAX, &text, &len, err);
	if (rc)
		return rc;
	rc = follow_note_parse(text, len, ret);
	if (err_kind_of(rc) == ERR_VERSION)
		return err_set(err, ERR_VERSION, 0, "'%s/%s' is of a newer asof (use that)", p->dir,
		               name);
	if (rc)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s/%s' is damaged (remove it, and --force makes a standby anew)",
		               p->dir, name);
	return 0;
}

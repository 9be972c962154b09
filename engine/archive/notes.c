/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/notes.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NOTE_MAX 4096

static int put_note(int dir_fd, const char *name, struct buf *b, struct err *err)
{
	int rc = buf_printf(b, err, "sum %016" PRIx64 "\n", hash64(b->data, b->len, 0));
	return rc < 0 ? rc : file_put(dir_fd, name, b->data, b->len, err);
}

/* Gives the text without its sum line; checks kind and sum. */
static int get_note(int dir_fd, const char *name, const char *kind, char **ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;
	char first[40];
	uint64_t sum;
	unsigned version;

	int rc = file_get(dir_fd, name, NOTE_MAX, &text, &len, err);
	if (rc < 0)
		return rc;
	snprintf(first, sizeof(first), "asof-%s %%u\n", kind);
	char *last = strlen(text) == len ? strstr(text, "\nsum ") : NULL;
	char want[40] = "";
	if (last) {
		sum = hash64(text, (size_t)(last + 1 - text), 0);
		snprintf(want, sizeof(want), "sum %016" PRIx64 "\n", sum);
	}
	if (!last || strcmp(last + 1, want) != 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' does not match its sum", name);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	int n = sscanf(text, first, &version);
#pragma GCC diagnostic pop
	if (n != 1)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is no %s note", name, kind);
	if (version != 1)
		return err_set(err, ERR_VERSION, 0,
		               "'%s' has format %u, this asof reads 1 (use a newer asof)", name,
		               version);
	last[1] = '\0';
	*ret = take_ptr(text);
	return 0;
}

/* The value of `key`: to the end of its line.  False when it is not there. */
static bool value(const char *text, const char *key, char *out, size_t size)
{
	char find[40];

	snprintf(find, sizeof(find), "\n%s ", key);
	const char *p = strstr(text, find);
	if (!p)
		return false;
	p += strlen(find);
	size_t n = strcspn(p, "\n");
	if (n >= size)
		return false;
	memcpy(out, p, n);
	out[n] = '\0';
	return true;
}

static uint64_t number(const char *text, const char *key, bool *ok)
{
	char v[32], *end;

	if (!value(text, key, v, sizeof(v))) {
		*ok = false;
		return 0;
	}
	errno = 0;
	unsigned long long n = strtoull(v, &end, 10);
	if (*end || end == v || errno)
		*ok = false;
	return n;
}

static int checked(bool ok, const char *name, struct err *err)
{
	return ok ? 0 : err_set(err, ERR_DAMAGED, 0, "'%s' lacks a line that it must have", name);
}

/* A value ends with its line. */
static int check_line(const char *text, struct err *err)
{
	if (strchr(text, '\n'))
		return err_set(err, ERR_USAGE, 0, "'%.200s' goes over more than one line", text);
	return 0;
}

int source_note_put(int dir_fd, const struct source_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	int rc = check_line(n->path, err);
	if (rc == 0)
		rc = buf_printf(&b, err, "asof-source 1\nid %" PRIu32 "\npath %s\n", n->id,
		                n->path);
	return rc < 0 ? rc : put_note(dir_fd, "source", &b, err);
}

int source_note_get(int dir_fd, struct source_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	bool ok = true;

	int rc = get_note(dir_fd, "source", "source", &text, err);
	if (rc < 0)
		return rc;
	ret->id = (uint32_t)number(text, "id", &ok);
	ok = ok && ret->id != 0 && value(text, "path", ret->path, sizeof(ret->path));
	return checked(ok, "source", err);
}

int lineage_note_put(int dir_fd, const struct lineage_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	struct object_name name = {.type = OBJECT_LINEAGE, .lineage = n->lineage};
	char text[OBJECT_NAME_MAX];

	int rc = check_line(n->reason, err);
	if (rc == 0)
		rc = buf_printf(&b, err,
		                "asof-lineage 1\nlineage %" PRIu32 "\nparent %" PRIu32
		                "\nfrom_txid %" PRIu64 "\nfirst_txid %" PRIu64 "\nlive_us %" PRId64
		                "\npage_size %" PRIu32 "\nreason %s\n",
		                n->lineage, n->parent, n->from_txid, n->first_txid, n->live_us,
		                n->page_size, n->reason);
	object_name_format(&name, text);
	return rc < 0 ? rc : put_note(dir_fd, text, &b, err);
}

int lineage_note_get(int dir_fd, const char *name, struct lineage_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	bool ok = true;

	int rc = get_note(dir_fd, name, "lineage", &text, err);
	if (rc < 0)
		return rc;
	ret->lineage = (uint32_t)number(text, "lineage", &ok);
	ret->parent = (uint32_t)number(text, "parent", &ok);
	ret->from_txid = number(text, "from_txid", &ok);
	ret->first_txid = number(text, "first_txid", &ok);
	ret->live_us = (int64_t)number(text, "live_us", &ok);
	ret->page_size = (uint32_t)number(text, "page_size", &ok);
	ok = ok && value(text, "reason", ret->reason, sizeof(ret->reason));
	return checked(ok, name, err);
}

int gap_note_put(int dir_fd, const struct gap_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	char name[40];

	int rc = check_line(n->reason, err);
	if (rc == 0)
		rc = buf_printf(&b, err,
		                "asof-gap 1\nbefore_txid %" PRIu64 "\nbefore_us %" PRId64
		                "\nafter_txid %" PRIu64 "\nafter_us %" PRId64 "\nreason %s\n",
		                n->before_txid, n->before_us, n->after_txid, n->after_us,
		                n->reason);
	snprintf(name, sizeof(name), "%016" PRIu64 ".gap", n->after_txid);
	return rc < 0 ? rc : put_note(dir_fd, name, &b, err);
}

int gap_note_get(int dir_fd, const char *name, struct gap_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	bool ok = true;

	int rc = get_note(dir_fd, name, "gap", &text, err);
	if (rc < 0)
		return rc;
	ret->before_txid = number(text, "before_txid", &ok);
	ret->before_us = (int64_t)number(text, "before_us", &ok);
	ret->after_txid = number(text, "after_txid", &ok);
	ret->after_us = (int64_t)number(text, "after_us", &ok);
	ok = ok && value(text, "reason", ret->reason, sizeof(ret->reason));
	return checked(ok, name, err);
}

bool gap_name_parse(const char *name, uint64_t *ret_txid)
{
	uint64_t v = 0;

	for (int i = 0; i < 16; i++) {
		if (name[i] < '0' || name[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(name[i] - '0');
	}
	*ret_txid = v;
	return strcmp(name + 16, ".gap") == 0;
}

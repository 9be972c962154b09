/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/realdb.h"

#include "engine/base/buf.h"
#include "engine/base/hash.h"
#include "tests/lib/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static void run(struct realdb *r, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(r->db, sql, NULL, NULL, &why) != SQLITE_OK)
		synth_die("%s: %s", sql, why ? why : "?");
}

uint8_t *realdb_file(const char *path, size_t *ret_len)
{
	return read_whole(AT_FDCWD, path, ret_len);
}

void realdb_new(struct realdb *r, const char *folder, const char *name, uint32_t page_size,
                const struct synth_options *o)
{
	char root[512], sql[64];

	*r = (struct realdb){0};
	snprintf(r->path, sizeof(r->path), "%s/%s", folder, name);
	snprintf(root, sizeof(root), "%s/archive", folder);
	struct synth_options mine = *o;
	mine.page_size = page_size;
	r->s = synth_new(root, name, &mine);
	if (sqlite3_open(r->path, &r->db) != SQLITE_OK)
		synth_die("open %s", r->path);
	snprintf(sql, sizeof(sql), "PRAGMA page_size = %" PRIu32, page_size);
	run(r, sql);
	run(r, "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA user_version = 1;"
	       "PRAGMA wal_checkpoint(TRUNCATE)");
	r->image = realdb_file(r->path, &r->len);
	synth_found(r->s, page_size, r->image, r->len);
}

void realdb_free(struct realdb *r)
{
	sqlite3_close(r->db);
	synth_free(r->s);
	free(r->image);
}

static uint64_t record(struct realdb *r)
{
	uint32_t page_size = r->s->page_size;
	size_t len, n = 0;
	uint8_t *now = realdb_file(r->path, &len);
	size_t pages = len / page_size;
	cleanup_free struct synth_page **frames = calloc(pages + 1, sizeof(*frames));

	for (size_t p = 0; p < pages; p++) {
		size_t at = p * page_size;
		if (p + 1 == 0x40000000u / page_size + 1)
			continue;
		if (at >= r->len || memcmp(now + at, r->image + at, page_size) != 0)
			frames[n++] = synth_page(r->s, (uint32_t)p + 1, now + at);
	}
	if (n)
		synth_commit(r->s, (uint32_t)pages, frames, n, 0);
	synth_publish(r->s);
	free(r->image);
	r->image = now;
	r->len = len;
	return r->s->n_states;
}

uint64_t realdb_exec(struct realdb *r, const char *fmt, ...)
{
	cleanup_free char *sql = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&sql, fmt, ap) < 0)
		synth_die("no memory");
	va_end(ap);
	run(r, sql);
	run(r, "PRAGMA wal_checkpoint(TRUNCATE)");
	return record(r);
}

static void put_value(struct buf *b, sqlite3_stmt *s, int i)
{
	struct err err = ERR_INIT;
	const uint8_t *p = NULL;
	int rc = 0, n = 0;

	switch (sqlite3_column_type(s, i)) {
	case SQLITE_NULL:
		rc = buf_printf(b, &err, "null|");
		break;
	case SQLITE_INTEGER:
		rc = buf_printf(b, &err, "i%" PRId64 "|", (int64_t)sqlite3_column_int64(s, i));
		break;
	case SQLITE_FLOAT:
		rc = buf_printf(b, &err, "r%a|", sqlite3_column_double(s, i));
		break;
	default:
		p = sqlite3_column_blob(s, i);
		n = sqlite3_column_bytes(s, i);
		rc = buf_printf(b, &err,
		                "%c%d:", sqlite3_column_type(s, i) == SQLITE_BLOB ? 'x' : 't', n);
		if (!rc && n <= 32 && (!n || !memchr(p, 0, (size_t)n)))
			rc = buf_append(b, p, (size_t)n, &err);
		else if (!rc) /* long, or nothing for strcmp() */
			rc = buf_printf(b, &err, "%016" PRIx64, hash64(p, (size_t)n, 0));
		if (!rc)
			rc = buf_printf(b, &err, "|");
	}
	synth_must(rc, &err, "answer");
}

char *answer_of(sqlite3 *db, const char *sql)
{
	struct buf b = BUF_INIT(256u << 20);
	struct err err = ERR_INIT;
	sqlite3_stmt *s = NULL;
	int code = sqlite3_prepare_v2(db, sql, -1, &s, NULL);

	while (code == SQLITE_OK && s && (code = sqlite3_step(s)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(s); i++)
			put_value(&b, s, i);
		synth_must(buf_printf(&b, &err, "\n"), &err, "answer");
		code = SQLITE_OK;
	}
	if (code != SQLITE_DONE && code != SQLITE_OK)
		synth_must(buf_printf(&b, &err, "error %d: %s", code, sqlite3_errmsg(db)), &err,
		           "answer");
	sqlite3_finalize(s);
	synth_must(buf_append(&b, "", 1, &err), &err, "answer");
	return (char *)b.data;
}

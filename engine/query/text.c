/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as SQL that any SQLite reads back as exactly what they were.
 *
 *   text   'it''s'; a NUL ends the text of a statement, so one is ||char(0)||; what is no UTF-8 is
 *          CAST(x'…' AS TEXT)
 *   real   15 or 17 digits when SQLite reads them back to the bit (its reading of decimals is not
 *          the nearest number in each case, nor the same in each version); else a quotient of a
 *          whole number and powers of two, each step of which is exact
 */
#include "engine/query/diff_i.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#define TEXT_MAX ((size_t)3 << 30) /* a value of a gigabyte, as hexadecimal, and more */
#define FLUSH_AT (64u << 10)

int text_open(struct text *t, sqlite3 *db, diff_write_fn *fn, void *ctx, struct err *err)
{
	*t = (struct text){.buf = BUF_INIT(TEXT_MAX), .fn = fn, .ctx = ctx};
	if (sqlite3_prepare_v2(db, "SELECT CAST(?1 AS REAL)", -1, &t->reads, NULL) != SQLITE_OK)
		return vfs_sqlite_error(db, err, "diff");
	return 0;
}

void text_release(struct text *t)
{
	sqlite3_finalize(t->reads);
	buf_release(&t->buf);
}

int text_flush(struct text *t, struct err *err)
{
	if (!t->buf.len)
		return 0;
	int rc = t->fn(t->ctx, (const char *)t->buf.data, t->buf.len, err);
	buf_clear(&t->buf);
	return rc;
}

int text_put(struct text *t, struct err *err, const char *fmt, ...)
{
	char piece[512];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(piece, sizeof(piece), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(piece))
		return err_set(err, ERR_NOMEM, 0, "a piece of SQL is too long");
	int rc = buf_append(&t->buf, piece, (size_t)n, err);
	return rc == 0 && t->buf.len > FLUSH_AT ? text_flush(t, err) : rc;
}

/* `len` bytes between quotes, each quote within doubled. */
static int put_quoted(struct text *t, const char *p, size_t len, char quote, struct err *err)
{
	int rc = buf_append(&t->buf, &quote, 1, err);

	while (len > 0 && !rc) {
		const char *at = memchr(p, quote, len);
		size_t n = at ? (size_t)(at - p) + 1 : len;
		rc = buf_append(&t->buf, p, n, err);
		if (!rc && at)
			rc = buf_append(&t->buf, &quote, 1, err);
		p += n;
		len -= n;
	}
	return rc ? rc : buf_append(&t->buf, &quote, 1, err);
}

int text_name(struct text *t, const char *name, struct err *err)
{
	return put_quoted(t, name, strlen(name), '"', err);
}

static int put_hex(struct text *t, const uint8_t *p, size_t len, struct err *err)
{
	static const char digits[] = "0123456789abcdef";
	int rc = buf_append(&t->buf, "x'", 2, err);

	rc = rc ? rc : buf_reserve(&t->buf, 2 * len + 1, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < len; i++) {
		t->buf.data[t->buf.len++] = (uint8_t)digits[p[i] >> 4];
		t->buf.data[t->buf.len++] = (uint8_t)digits[p[i] & 15];
	}
	return buf_append(&t->buf, "'", 1, err);
}

/* As RFC 3629 has it: no overlong forms, no surrogates. */
static bool is_utf8(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint8_t c = p[i];
		size_t n = c < 0x80                ? 1
		           : c >= 0xc2 && c < 0xe0 ? 2
		           : (c & 0xf0) == 0xe0    ? 3
		           : c >= 0xf0 && c < 0xf5 ? 4
		                                   : 0;
		if (n == 0 || n > len - i)
			return false;
		for (size_t k = 1; k < n; k++)
			if ((p[i + k] & 0xc0) != 0x80)
				return false;
		if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f) ||
		    (c == 0xf0 && p[i + 1] < 0x90) || (c == 0xf4 && p[i + 1] > 0x8f))
			return false;
		i += n;
	}
	return true;
}

static int put_text(struct text *t, const char *p, size_t len, struct err *err)
{
	int rc;

	if (!is_utf8((const uint8_t *)p, len)) {
		rc = buf_append(&t->buf, "CAST(", 5, err);
		rc = rc ? rc : put_hex(t, (const uint8_t *)p, len, err);
		return rc ? rc : buf_append(&t->buf, " AS TEXT)", 9, err);
	}
	if (!memchr(p, 0, len))
		return put_quoted(t, p, len, '\'', err);
	rc = buf_append(&t->buf, "(", 1, err);
	for (;;) {
		const char *nul = memchr(p, 0, len);
		size_t n = nul ? (size_t)(nul - p) : len;
		rc = rc ? rc : put_quoted(t, p, n, '\'', err);
		if (rc || !nul)
			return rc ? rc : buf_append(&t->buf, ")", 1, err);
		rc = buf_append(&t->buf, "||char(0)||", 11, err);
		p += n + 1;
		len -= n + 1;
	}
}

static bool reads_back(struct text *t, const char *literal, double v)
{
	sqlite3_reset(t->reads);
	sqlite3_bind_text(t->reads, 1, literal, -1, SQLITE_TRANSIENT);
	if (sqlite3_step(t->reads) != SQLITE_ROW)
		return false;
	return real_bits(sqlite3_column_double(t->reads, 0)) == real_bits(v);
}

/* m * 2^e, m whole: every step is exact down to the smallest numbers, as m has no more digits than
 * the result. */
static int put_exact(struct text *t, double v, struct err *err)
{
	int e;
	int64_t m = (int64_t)ldexp(frexp(v, &e), 53);

	for (e -= 53; m % 2 == 0 && m; e++)
		m /= 2;
	int rc = text_put(t, err, "(CAST(%" PRId64 " AS REAL)", m);
	for (; e < 0 && !rc; e += e < -62 ? 62 : -e)
		rc = text_put(t, err, "/%" PRId64 ".0", INT64_C(1) << (e < -62 ? 62 : -e));
	for (; e > 0 && !rc; e -= e > 62 ? 62 : e)
		rc = text_put(t, err, "*%" PRId64 ".0", INT64_C(1) << (e > 62 ? 62 : e));
	return rc ? rc : text_put(t, err, ")");
}

static int put_real(struct text *t, double v, struct err *err)
{
	char literal[48];

	if (isinf(v))
		return text_put(t, err, v < 0 ? "-9.0e+999" : "9.0e+999");
	for (int digits = 15; digits <= 17; digits += 2) {
		int n = snprintf(literal, sizeof(literal), "%.*g", digits, v);
		if (!strpbrk(literal, ".e"))
			snprintf(literal + n, sizeof(literal) - (size_t)n, ".0");
		if (reads_back(t, literal, v))
			return text_put(t, err, "%s", literal);
	}
	return put_exact(t, v, err);
}

int text_value(struct text *t, sqlite3_stmt *s, int column, struct err *err)
{
	const void *p;
	size_t len;

	switch (sqlite3_column_type(s, column)) {
	case SQLITE_NULL:
		return text_put(t, err, "NULL");
	case SQLITE_INTEGER: {
		int64_t v = sqlite3_column_int64(s, column);
		/* The smallest one has no literal: its positive is too large. */
		if (v == INT64_MIN)
			return text_put(t, err, "(-9223372036854775807-1)");
		return text_put(t, err, "%" PRId64, v);
	}
	case SQLITE_FLOAT:
		return put_real(t, sqlite3_column_double(s, column), err);
	case SQLITE_BLOB:
		p = sqlite3_column_blob(s, column);
		return put_hex(t, p, (size_t)sqlite3_column_bytes(s, column), err);
	default:
		p = sqlite3_column_text(s, column);
		len = (size_t)sqlite3_column_bytes(s, column);
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory for a value");
		return put_text(t, p, len, err);
	}
}

int text_statement(struct text *t, const char *sql, struct err *err)
{
	cleanup_free char *whole = NULL;

	if (asprintf(&whole, "%s;", sql) < 0)
		return err_set(err, ERR_NOMEM, 0, "no memory for a statement");
	int rc = buf_append(&t->buf, sql, strlen(sql), err);
	/* A comment to the end of the line would take the semicolon in. */
	return rc ? rc : text_put(t, err, sqlite3_complete(whole) ? ";\n" : "\n;\n");
}

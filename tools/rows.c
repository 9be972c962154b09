/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/rows.h"

#include "tools/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_ROWS_AT_ONCE 500
#define CELL_MAX 200 /* bytes of a value in a table */

struct rows {
	sqlite3_stmt *s;
	enum rows_format format;
	int n;
	char **names;
	struct table *table; /* TABLE, from the first row on */
	uint64_t n_rows;
};

static int out_of_memory(struct err *err)
{
	return err_set(err, ERR_NOMEM, 0, "out of memory");
}

/* ---- values ---- */

static void put_hex(FILE *out, const uint8_t *p, int len)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < len; i++) {
		fputc(digits[p[i] >> 4], out);
		fputc(digits[p[i] & 15], out);
	}
}

/* The shortest of the usual spellings that reads back as the same number. */
static void format_real(double v, char out[40])
{
	for (int digits = 15; digits <= 17; digits += 2) {
		snprintf(out, 40, "%.*g", digits, v);
		if (strtod(out, NULL) == v)
			break;
	}
	if (isinf(v))
		snprintf(out, 40, v < 0 ? "-9.0e+999" : "9.0e+999");
	else if (!strpbrk(out, ".e"))
		snprintf(out + strlen(out), 40 - strlen(out), ".0");
}

/* ---- table ---- */

static int table_text(struct rows *r, const char *text, int len, struct err *err)
{
	int cut = len;

	if (memchr(text, 0, (size_t)len)) /* a NUL is a byte like others: shown as '?' */
		cut = (int)strlen(text);
	if (cut == len && len <= CELL_MAX)
		return table_cell(r->table, err, "%.*s", len, text);
	if (cut > CELL_MAX)
		cut = CELL_MAX;
	while (cut > 0 && ((unsigned char)text[cut] & 0xc0) == 0x80)
		cut--;
	return table_cell(r->table, err, "%.*s…", cut, text);
}

static int table_blob(struct rows *r, const uint8_t *p, int len, struct err *err)
{
	char hex[2 * 32 + 1];
	int shown = len < 32 ? len : 32;

	for (int i = 0; i < shown; i++)
		snprintf(hex + 2 * i, 3, "%02x", p[i]);
	hex[2 * shown] = '\0';
	return table_cell(r->table, err, "x'%s'%s", hex, shown < len ? "…" : "");
}

static int table_value(struct rows *r, int i, struct err *err)
{
	char real[40];

	switch (sqlite3_column_type(r->s, i)) {
	case SQLITE_NULL:
		return table_cell(r->table, err, "NULL");
	case SQLITE_INTEGER:
		return table_cell(r->table, err, "%" PRId64,
		                  (int64_t)sqlite3_column_int64(r->s, i));
	case SQLITE_FLOAT:
		format_real(sqlite3_column_double(r->s, i), real);
		return table_cell(r->table, err, "%s", real);
	case SQLITE_BLOB:
		return table_blob(r, sqlite3_column_blob(r->s, i), sqlite3_column_bytes(r->s, i),
		                  err);
	default: {
		const char *text = (const char *)sqlite3_column_text(r->s, i);
		return text ? table_text(r, text, sqlite3_column_bytes(r->s, i), err)
		            : out_of_memory(err);
	}
	}
}

/* Numbers to the right, where the first row has one. */
static int table_header(struct rows *r, bool has_row, struct err *err)
{
	for (int i = 0; i < r->n; i++) {
		int type = has_row ? sqlite3_column_type(r->s, i) : SQLITE_NULL;
		bool right = type == SQLITE_INTEGER || type == SQLITE_FLOAT;
		char *name = NULL;
		/* One that begins with '>' means something else to the table. */
		const char *mark = right ? ">" : r->names[i][0] == '>' ? " " : "";
		if (asprintf(&name, "%s%s", mark, r->names[i]) < 0)
			return out_of_memory(err);
		cli_one_line(name);
		free(r->names[i]);
		r->names[i] = name;
	}
	return table_new((const char *const *)r->names, (size_t)r->n, &r->table, err);
}

static int table_row(struct rows *r, struct err *err)
{
	int rc = r->table ? 0 : table_header(r, true, err);

	for (int i = 0; i < r->n && !rc; i++)
		rc = table_value(r, i, err);
	if (!rc && r->n_rows % TABLE_ROWS_AT_ONCE == TABLE_ROWS_AT_ONCE - 1)
		table_flush(r->table, stdout);
	return rc;
}

/* ---- CSV ---- */

static void csv_text(const char *text, int len)
{
	bool quote = len == 0;

	for (int i = 0; i < len; i++)
		quote = quote || strchr("\",\r\n", text[i]) || text[i] == '\0';
	if (!quote) {
		fwrite(text, 1, (size_t)len, stdout);
		return;
	}
	putchar('"');
	for (int i = 0; i < len; i++) {
		if (text[i] == '"')
			putchar('"');
		putchar(text[i]);
	}
	putchar('"');
}

static int csv_value(struct rows *r, int i, struct err *err)
{
	const char *text;
	char real[40];

	switch (sqlite3_column_type(r->s, i)) {
	case SQLITE_NULL:
		return 0;
	case SQLITE_FLOAT:
		format_real(sqlite3_column_double(r->s, i), real);
		fputs(real, stdout);
		return 0;
	case SQLITE_BLOB:
		fputs("x'", stdout);
		put_hex(stdout, sqlite3_column_blob(r->s, i), sqlite3_column_bytes(r->s, i));
		putchar('\'');
		return 0;
	default:
		text = (const char *)sqlite3_column_text(r->s, i);
		if (!text)
			return out_of_memory(err);
		csv_text(text, sqlite3_column_bytes(r->s, i));
		return 0;
	}
}

static void csv_header(struct rows *r)
{
	for (int i = 0; i < r->n; i++) {
		csv_text(r->names[i], (int)strlen(r->names[i]));
		putchar(i + 1 < r->n ? ',' : '\n');
	}
}

static int csv_row(struct rows *r, struct err *err)
{
	if (r->n_rows == 0)
		csv_header(r);
	for (int i = 0; i < r->n; i++) {
		int rc = csv_value(r, i, err);
		if (rc)
			return rc;
		putchar(i + 1 < r->n ? ',' : '\n');
	}
	return 0;
}

/* ---- JSON ---- */

static int text_json(const char *text, int len, struct err *err)
{
	json_t *v = json_stringn(text, (size_t)len);

	if (!v) { /* no UTF-8 */
		fputs("{\"hex\": \"", stdout);
		put_hex(stdout, (const uint8_t *)text, len);
		fputs("\"}", stdout);
		return 0;
	}
	int failed = json_dumpf(v, stdout, JSON_ENCODE_ANY);
	json_decref(v);
	return failed ? out_of_memory(err) : 0;
}

static int json_value(struct rows *r, int i, struct err *err)
{
	const char *text;
	char real[40];

	switch (sqlite3_column_type(r->s, i)) {
	case SQLITE_NULL:
		fputs("null", stdout);
		return 0;
	case SQLITE_INTEGER:
		printf("%" PRId64, (int64_t)sqlite3_column_int64(r->s, i));
		return 0;
	case SQLITE_FLOAT:
		format_real(sqlite3_column_double(r->s, i), real);
		fputs(real, stdout);
		return 0;
	case SQLITE_BLOB:
		fputs("{\"hex\": \"", stdout);
		put_hex(stdout, sqlite3_column_blob(r->s, i), sqlite3_column_bytes(r->s, i));
		fputs("\"}", stdout);
		return 0;
	default:
		text = (const char *)sqlite3_column_text(r->s, i);
		return text ? text_json(text, sqlite3_column_bytes(r->s, i), err)
		            : out_of_memory(err);
	}
}

static int json_row(struct rows *r, struct err *err)
{
	fputs(r->n_rows ? ",\n  {" : "[\n  {", stdout);
	for (int i = 0; i < r->n; i++) {
		int rc = text_json(r->names[i], (int)strlen(r->names[i]), err);
		fputs(": ", stdout);
		rc = rc ? rc : json_value(r, i, err);
		if (rc)
			return rc;
		if (i + 1 < r->n)
			fputs(", ", stdout);
	}
	putchar('}');
	return 0;
}

/* ---- */

static int take_names(struct rows *r, struct err *err)
{
	r->names = calloc((size_t)r->n + 1, sizeof(*r->names));
	if (!r->names)
		return out_of_memory(err);
	for (int i = 0; i < r->n; i++) {
		const char *name = sqlite3_column_name(r->s, i);
		int same = 0;
		if (!name)
			return out_of_memory(err);
		for (int k = 0; k < i && r->format == ROWS_JSON; k++)
			same += strcmp(sqlite3_column_name(r->s, k), name) == 0;
		int n = same ? asprintf(&r->names[i], "%s:%d", name, same)
		             : asprintf(&r->names[i], "%s", name);
		if (n < 0) {
			r->names[i] = NULL;
			return out_of_memory(err);
		}
	}
	return 0;
}

static int print_row(struct rows *r, struct err *err)
{
	int rc = r->format == ROWS_TABLE ? table_row(r, err)
	         : r->format == ROWS_CSV ? csv_row(r, err)
	                                 : json_row(r, err);

	r->n_rows++;
	if (!rc && ferror(stdout))
		return err_set(err, ERR_IO, errno, "write standard output");
	return rc;
}

static int print_end(struct rows *r, struct err *err)
{
	int rc = 0;

	switch (r->format) {
	case ROWS_TABLE:
		rc = r->table ? 0 : table_header(r, false, err);
		if (!rc)
			table_flush(r->table, stdout);
		return rc;
	case ROWS_CSV:
		if (r->n_rows == 0)
			csv_header(r);
		return 0;
	default:
		fputs(r->n_rows ? "\n]\n" : "[]\n", stdout);
		return 0;
	}
}

int rows_print(sqlite3_stmt *s, enum rows_format format, int *ret_code, struct err *err)
{
	struct rows r = {.s = s, .format = format, .n = sqlite3_column_count(s)};
	int rc = take_names(&r, err);

	*ret_code = SQLITE_OK;
	while (!rc && (*ret_code = sqlite3_step(s)) == SQLITE_ROW)
		rc = print_row(&r, err);
	if (!rc && r.n && *ret_code == SQLITE_DONE)
		rc = print_end(&r, err);
	else if (!rc && r.table)
		table_flush(r.table, stdout);
	table_free(r.table);
	for (int i = 0; r.names && i < r.n; i++)
		free(r.names[i]);
	free(r.names);
	return rc;
}

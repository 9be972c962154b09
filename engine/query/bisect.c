/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/query/bisect.h"

#include "engine/base/buf.h"
#include "engine/view/vfs.h"

#include <inttypes.h>
#include <string.h>

#define ROW_MAX ((size_t)2 << 30)

struct answer {
	struct hash128 hash;
	uint64_t n_rows;
	struct err failed; /* kind SQL: it could not be run */
};

static int add_value(struct buf *b, sqlite3_stmt *s, int i, struct err *err)
{
	uint8_t head[9] = {(uint8_t)sqlite3_column_type(s, i)};
	const void *p = NULL;
	uint64_t n = 0;

	switch (head[0]) {
	case SQLITE_INTEGER:
		n = (uint64_t)sqlite3_column_int64(s, i);
		break;
	case SQLITE_FLOAT: {
		double v = sqlite3_column_double(s, i);
		memcpy(&n, &v, sizeof(n));
		break;
	}
	case SQLITE_TEXT:
		p = sqlite3_column_text(s, i);
		n = (uint64_t)sqlite3_column_bytes(s, i);
		break;
	case SQLITE_BLOB:
		p = sqlite3_column_blob(s, i);
		n = (uint64_t)sqlite3_column_bytes(s, i);
		break;
	default:
		break;
	}
	store_le64(head + 1, n);
	int rc = buf_append(b, head, sizeof(head), err);
	return rc == 0 && p ? buf_append(b, p, (size_t)n, err) : rc;
}

/* Each row's hash goes into the next one's: their order counts. */
static int add_row(struct answer *a, sqlite3_stmt *s, struct buf *b, struct err *err)
{
	int rc = 0;

	buf_clear(b);
	for (int i = 0; i < sqlite3_column_count(s) && !rc; i++)
		rc = add_value(b, s, i, err);
	a->hash.lo = hash64(b->data, b->len, a->hash.lo + 1);
	a->hash.hi = hash64(b->data, b->len, a->hash.hi ^ UINT64_C(0x9e3779b97f4a7c15));
	a->n_rows++;
	return rc;
}

static int run(sqlite3 *db, const struct bisect_options *o, struct answer *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	cleanup_buf struct buf b = BUF_INIT(ROW_MAX);
	const char *rest;

	int rc = o->prepare ? o->prepare(o->ctx, db, err) : 0;
	if (rc)
		return rc;
	if (sqlite3_prepare_v2(db, o->sql, -1, &s, &rest) != SQLITE_OK)
		return vfs_sqlite_error(db, err, "query");
	if (!s || strspn(rest, " \t\r\n;") != strlen(rest))
		return err_set(err, ERR_USAGE, 0, "one statement is needed");
	if (!sqlite3_stmt_readonly(s))
		return err_set(err, ERR_REFUSED, 0, "the statement would write: the past is read");
	rc = o->bind ? o->bind(o->ctx, s, err) : 0;
	int code = SQLITE_DONE;
	while (!rc && (code = sqlite3_step(s)) == SQLITE_ROW)
		rc = add_row(ret, s, &b, err);
	if (rc)
		return rc;
	return code == SQLITE_DONE ? vfs_error(db, err) : vfs_sqlite_error(db, err, "query");
}

static int ask(struct history *h, const struct moment *m, const struct bisect_options *o,
               struct answer *ret, struct err *err)
{
	cleanup_view struct view *v = NULL;
	cleanup_vfs sqlite3 *db = NULL;
	struct err why = ERR_INIT;

	*ret = (struct answer){.n_rows = 0};
	if (o->progress && !o->progress(o->ctx, m))
		return err_set(err, ERR_CANCELLED, 0, "the search was stopped");
	int rc = view_open(h, m->txid, &v, err);
	rc = rc ? rc : vfs_open_view(v, &db, err);
	if (rc)
		return rc;
	rc = run(db, o, ret, &why);
	if (rc && why.kind != ERR_SQL)
		return err_copy(err, &why);
	if (rc)
		ret->failed = why;
	return 0;
}

static bool same_answer(const struct answer *a, const struct answer *b)
{
	if (a->failed.kind || b->failed.kind)
		return strcmp(a->failed.msg, b->failed.msg) == 0;
	return a->n_rows == b->n_rows && hash128_equal(a->hash, b->hash);
}

int bisect(struct history *h, uint64_t first_txid, uint64_t last_txid,
           const struct bisect_options *options, struct moment *ret_before,
           struct moment *ret_after, struct err *err)
{
	struct moment lo, hi, m;
	struct answer first, last, a;

	int rc = history_tx(h, first_txid, &lo, err);
	rc = rc ? rc : history_tx(h, last_txid, &hi, err);
	rc = rc ? rc : ask(h, &lo, options, &first, err);
	rc = rc ? rc : ask(h, &hi, options, &last, err);
	if (rc)
		return rc;
	if (first.failed.kind && last.failed.kind)
		return err_copy(err, &last.failed);
	if (same_answer(&first, &last))
		return err_set(err, ERR_NOT_FOUND, 0,
		               "the answer at txid %" PRIu64 " is the same as at txid %" PRIu64,
		               lo.txid, hi.txid);
	/* No viewable moment lies in [end, hi): what is left is (lo, end). */
	for (uint64_t end = hi.txid; end > lo.txid + 1;) {
		uint64_t middle = lo.txid + (end - lo.txid) / 2;
		rc = history_next(h, middle, &m, err);
		if (rc)
			return rc;
		if (m.txid >= end) {
			end = middle;
			continue;
		}
		rc = ask(h, &m, options, &a, err);
		if (rc)
			return rc;
		if (same_answer(&first, &a)) {
			lo = m;
		} else {
			hi = m;
			end = m.txid;
		}
	}
	*ret_before = lo;
	*ret_after = hi;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differences of two moments of a random history, forwards and backwards: the SQL, run on the one
 * image, gives the content of the other, with rowids, types and every bit; and the numbers are
 * those that a plain comparison of the two files counts.
 */
#include "engine/base/log.h"
#include "engine/query/bisect.h"
#include "engine/query/diff_i.h"
#include "tests/lib/realdb.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct place {
	char *folder;
	struct realdb r;
	struct archive *a;
	struct history *h;
	struct rng rng;
	unsigned n_extra; /* tables made on the way */
};

/* ---- a random application ---- */

static const char *const schema =
        "CREATE TABLE plain(id INTEGER PRIMARY KEY, k INT, t TEXT, b BLOB, r REAL);"
        "CREATE INDEX plain_k ON plain(k);"
        "CREATE TABLE \"we\"\"ird 'x\"(\"a b\" TEXT, \"\"\"q\"\"\" , rowid INT);"
        "CREATE TABLE uniq(name TEXT UNIQUE, n INT, g INT AS (n * 2), s INT AS (n + 1) STORED);"
        "CREATE UNIQUE INDEX uniq_n ON uniq(n);"
        "CREATE TABLE norowid(a TEXT COLLATE NOCASE, b INT, c, PRIMARY KEY(b, a)) WITHOUT ROWID;"
        "CREATE TABLE nokey(rowid, _rowid_, oid);"
        "CREATE TABLE seq(id INTEGER PRIMARY KEY AUTOINCREMENT, v);"
        "CREATE TABLE logged(v);"
        "CREATE TRIGGER plain_log AFTER UPDATE ON plain BEGIN INSERT INTO logged(v) "
        "VALUES(new.id); "
        "END;"
        "CREATE TABLE child(p INT REFERENCES plain(id) ON DELETE CASCADE, x INT CHECK(x <> 13));"
        "CREATE VIEW big AS SELECT * FROM plain WHERE k > 10;"
        "CREATE TRIGGER big_del INSTEAD OF DELETE ON big BEGIN DELETE FROM plain WHERE id = "
        "old.id; END;"
        "CREATE TABLE desc_key(id INTEGER PRIMARY KEY DESC, v);"
        "CREATE TABLE wide(id INTEGER PRIMARY KEY, doc TEXT);"
        "CREATE VIRTUAL TABLE fts USING fts5(words);"
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)";

static void one_change(struct place *p)
{
	struct realdb *r = &p->r;
	unsigned n = (unsigned)rng_below(&p->rng, 40) + 1, m = (unsigned)rng_below(&p->rng, 900);

	switch (rng_below(&p->rng, 27)) {
	case 0:
	case 1:
	case 2:
		realdb_exec(r,
		            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE "
		            "i < %u) INSERT INTO plain(k, t, b, r) SELECT abs(random()) %% 20, "
		            "hex(randomblob(i)), randomblob(i * %u), random() / 1e%u FROM c",
		            n, m, m % 30);
		return;
	case 3:
		realdb_exec(r, "UPDATE plain SET r = r * 1.1, k = k + 1 WHERE id %% 50 = %u", n);
		return;
	case 4:
		realdb_exec(r, "DELETE FROM plain WHERE id BETWEEN %u AND %u", m, m + n);
		return;
	case 5: /* the same length: an overflow page is written in place */
		realdb_exec(r,
		            "UPDATE wide SET doc = substr(doc, 1, length(doc) - 4) || '%04u' "
		            "WHERE length(doc) > 4 AND id %% 3 = %u",
		            m, n % 3);
		return;
	case 6:
		realdb_exec(r, "INSERT INTO wide(doc) VALUES (hex(randomblob(%u)))", 4 * m + 2);
		return;
	case 7:
		realdb_exec(r,
		            "INSERT INTO \"we\"\"ird 'x\" VALUES ('it''s %u', x'00', -0.0), "
		            "('nul' || char(0) || '%u', CAST(x'ff41' AS TEXT), 9e999), "
		            "(NULL, -9223372036854775808, -9e999), ('', x'', 5e-324)",
		            m, n);
		return;
	case 8:
		realdb_exec(r, "DELETE FROM \"we\"\"ird 'x\" WHERE _rowid_ %% 5 = %u", n % 5);
		return;
	case 9:
		realdb_exec(r,
		            "INSERT OR IGNORE INTO uniq(name, n) VALUES ('n%u', %u), ('m%u', %u)",
		            m, m, n, 1000 + n);
		return;
	case 10: /* names and numbers change hands */
		realdb_exec(r, "UPDATE uniq SET name = name || '_', n = -n;"
		               "UPDATE uniq SET name = 'n' || (1000 - abs(n)), n = 2000 + n");
		return;
	case 11:
		realdb_exec(r,
		            "INSERT OR REPLACE INTO norowid VALUES ('Key%u', %u, randomblob(%u)), "
		            "('kEY%u', %u, 'x')",
		            n, m % 7, m, n + 1, m % 5);
		return;
	case 12:
		realdb_exec(r, "UPDATE norowid SET a = upper(a) WHERE b = %u", m % 7);
		return;
	case 13:
		realdb_exec(r,
		            "INSERT INTO nokey VALUES (%u, %u, 'x'); DELETE FROM nokey WHERE "
		            "\"rowid\" < %u",
		            m, n, n);
		return;
	case 14:
		realdb_exec(
		        r,
		        "INSERT INTO seq(v) VALUES (%u), ('%u'); DELETE FROM seq WHERE id %% 7 = 1",
		        m, n);
		return;
	case 15:
		realdb_exec(r,
		            "PRAGMA foreign_keys = ON; INSERT INTO child SELECT id, %u FROM plain "
		            "LIMIT 3",
		            m + 14);
		return;
	case 16:
		realdb_exec(r, "PRAGMA ignore_check_constraints = ON; INSERT INTO child VALUES "
		               "(NULL, 13)");
		return;
	case 17:
		realdb_exec(r,
		            "CREATE TABLE extra%u(a, b UNIQUE, c REAL); INSERT INTO extra%u VALUES "
		            "(%u, 'x', 0.1), (2, 'y', 1e22)",
		            p->n_extra, p->n_extra, m);
		p->n_extra++;
		return;
	case 18:
		if (p->n_extra)
			realdb_exec(r, "DROP TABLE IF EXISTS extra%u",
			            (unsigned)rng_below(&p->rng, p->n_extra));
		return;
	case 19:
		realdb_exec(r, "ALTER TABLE logged ADD COLUMN c%u DEFAULT %u",
		            (unsigned)r->s->n_states, n);
		return;
	case 20:
		realdb_exec(r,
		            "DROP INDEX IF EXISTS plain_t; CREATE INDEX plain_t ON plain(t) /* -- "
		            "%u */",
		            n);
		return;
	case 21:
		realdb_exec(r,
		            "DROP VIEW IF EXISTS some; CREATE VIEW some AS SELECT %u AS n /* ; */",
		            n);
		return;
	case 22:
		realdb_exec(r,
		            "DROP TRIGGER IF EXISTS more; CREATE TRIGGER more AFTER INSERT ON seq "
		            "BEGIN UPDATE plain SET k = %u WHERE id = new.id; END",
		            n);
		return;
	case 23:
		realdb_exec(r,
		            "INSERT INTO fts VALUES ('word%u and word%u'); INSERT OR REPLACE INTO "
		            "boxes VALUES (%u, %u, %u)",
		            n, m, n, m, m + 1);
		return;
	case 24:
		realdb_exec(r, "PRAGMA user_version = %u; ANALYZE", n);
		return;
	case 25:
		realdb_exec(
		        r,
		        "DROP TABLE fts; CREATE VIRTUAL TABLE fts USING fts5(words, prefix = '%u');"
		        "INSERT INTO fts VALUES ('anew')",
		        n % 3 + 1);
		return;
	default:
		realdb_exec(r, n < 6 ? "VACUUM -- %u" : "INSERT INTO desc_key VALUES (NULL, %u)",
		            n);
	}
}

static struct place new_place(uint64_t seed, uint32_t page_size, bool auto_vacuum)
{
	struct place p = {.folder = test_folder(), .rng = {seed}};
	const struct synth_options o = {.seed = seed, .max_pages = 10, .max_frames = 4};
	const struct archive_options ao = {.cache_bytes = 4 << 20};
	struct err err = ERR_INIT;

	realdb_new(&p.r, p.folder, "x.db", page_size, &o);
	if (auto_vacuum)
		realdb_exec(&p.r, "PRAGMA auto_vacuum = FULL; VACUUM");
	realdb_exec(&p.r, "%s", schema);
	synth_must(archive_open(p.r.s->root, &ao, &p.a, &err), &err, "archive_open");
	synth_must(history_get(p.a, "x.db", &p.h, &err), &err, "history_get");
	return p;
}

static void free_place(struct place *p)
{
	history_put(p->h);
	archive_free(p->a);
	realdb_free(&p->r);
	test_remove(p->folder);
	free(p->folder);
}

/* ---- the oracle ---- */

static void image_to_file(struct view *v, const char *path)
{
	struct err err = ERR_INIT;
	size_t got, len = (size_t)view_size(v);
	cleanup_free uint8_t *image = malloc(len ? len : 1);
	cleanup_fd int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	synth_must(view_read(v, 0, image, len, VIEW_READ_PATCHED, &got, &err), &err, "view_read");
	if (got != len || pwrite(fd, image, len, 0) != (ssize_t)len)
		synth_die("write %s", path);
}

static sqlite3 *open_file(const char *path)
{
	sqlite3 *db;

	if (sqlite3_open(path, &db) != SQLITE_OK)
		synth_die("open %s", path);
	return db;
}

static void add(struct buf *b, const char *text)
{
	struct err err = ERR_INIT;

	synth_must(buf_append(b, text, strlen(text), &err), &err, "content");
}

/* Everything that a database holds, as text. */
static char *content_of(sqlite3 *db)
{
	struct buf b = BUF_INIT(256u << 20);
	sqlite3_stmt *tables;
	struct err err = ERR_INIT;
	char *piece = answer_of(db, "SELECT type, name, tbl_name, sql FROM sqlite_schema "
	                            "WHERE name NOT LIKE 'sqlite_stat4' ORDER BY 1, 2");

	add(&b, piece);
	free(piece);
	add(&b, piece = answer_of(db, "PRAGMA user_version"));
	free(piece);
	if (sqlite3_prepare_v2(
	            db,
	            "SELECT name, wr, name LIKE '%key%' AND name <> 'desc_key' FROM "
	            "pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') "
	            "AND name NOT IN ('sqlite_schema', 'sqlite_stat4') ORDER BY name",
	            -1, &tables, NULL))
		synth_die("tables: %s", sqlite3_errmsg(db));
	while (sqlite3_step(tables) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(tables, 0);
		bool wr = sqlite3_column_int(tables, 1), nokey = sqlite3_column_int(tables, 2);
		char *sql =
		        sqlite3_mprintf(wr || nokey ? "SELECT * FROM \"%w\" ORDER BY 1, 2"
		                                    : "SELECT _rowid_, * FROM \"%w\" ORDER BY 1",
		                        name);
		add(&b, name);
		add(&b, "\n");
		add(&b, piece = answer_of(db, sql));
		free(piece);
		sqlite3_free(sql);
	}
	sqlite3_finalize(tables);
	synth_must(buf_append(&b, "", 1, &err), &err, "content");
	return (char *)b.data;
}

static int to_buf(void *ctx, const char *text, size_t len, struct err *err)
{
	return buf_append(ctx, text, len, err);
}

static void first_difference(const char *a, const char *b)
{
	size_t i = 0;

	while (a[i] && a[i] == b[i])
		i++;
	size_t from = i > 200 ? i - 200 : 0;
	fprintf(stderr, "want …%.400s\ngot  …%.400s\n", a + from, b + from);
}

/* Rows whose key the other side lacks, counted by SQLite on the files. */
static uint64_t count_in(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *s;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) || sqlite3_step(s) != SQLITE_ROW)
		synth_die("%s: %s", sql, sqlite3_errmsg(db));
	uint64_t n = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return n;
}

static const struct diff_object *object_in(const struct diff_summary *s, const char *name)
{
	static const struct diff_object none;

	for (size_t i = 0; i < s->n_objects; i++)
		if (strcmp(s->objects[i].name, name) == 0)
			return &s->objects[i];
	return &none;
}

static void check_counts(const struct diff_summary *s, const char *path_a, const char *path_b)
{
	sqlite3 *db = open_file(path_a);
	char *attach = sqlite3_mprintf("ATTACH %Q AS b", path_b);
	const struct diff_object *o;

	if (sqlite3_exec(db, attach, NULL, NULL, NULL))
		synth_die("attach");
	sqlite3_free(attach);
	o = object_in(s, "plain");
	assert_int_equal(o->added,
	                 count_in(db, "SELECT count(*) FROM b.plain WHERE id NOT IN (SELECT "
	                              "id FROM main.plain)"));
	assert_int_equal(o->removed, count_in(db, "SELECT count(*) FROM main.plain WHERE id NOT IN "
	                                          "(SELECT id FROM b.plain)"));
	assert_int_equal(
	        o->changed,
	        count_in(db, "SELECT count(*) FROM main.plain x JOIN b.plain y USING (id) "
	                     "WHERE (x.k, x.t, x.b) IS NOT (y.k, y.t, y.b) OR x.r IS NOT y.r"));
	o = object_in(s, "norowid");
	assert_int_equal(o->added,
	                 count_in(db, "SELECT count(*) FROM b.norowid y WHERE NOT EXISTS (SELECT "
	                              "1 FROM main.norowid x WHERE x.a = y.a AND x.b = y.b)"));
	assert_int_equal(
	        o->changed,
	        count_in(db, "SELECT count(*) FROM main.norowid x JOIN b.norowid y ON x.a = y.a "
	                     "AND x.b = y.b WHERE x.a COLLATE BINARY <> y.a OR x.c IS NOT y.c"));
	o = object_in(s, "wide");
	assert_int_equal(o->changed, count_in(db, "SELECT count(*) FROM main.wide x JOIN b.wide y "
	                                          "USING (id) WHERE x.doc IS NOT y.doc"));
	sqlite3_close(db);
}

static void compare(struct place *p, uint64_t a, uint64_t b)
{
	cleanup_view struct view *va = NULL, *vb = NULL;
	cleanup_diff_summary struct diff_summary summary = {.n_objects = 0};
	cleanup_buf struct buf sql = BUF_INIT(256u << 20);
	const struct diff_options o = {.table = NULL};
	char path_a[300], path_b[300], *why = NULL;
	struct err err = ERR_INIT;

	snprintf(path_a, sizeof(path_a), "%s/a.db", p->folder);
	snprintf(path_b, sizeof(path_b), "%s/b.db", p->folder);
	synth_must(view_open(p->h, a, &va, &err), &err, "view_open");
	synth_must(view_open(p->h, b, &vb, &err), &err, "view_open");
	image_to_file(va, path_a);
	image_to_file(vb, path_b);
	synth_must(diff_summarize(va, vb, &o, &summary, &err), &err, "diff_summarize");
	check_counts(&summary, path_a, path_b);
	synth_must(diff_write_sql(va, vb, &o, to_buf, &sql, &err), &err, "diff_write_sql");
	synth_must(buf_append(&sql, "", 1, &err), &err, "sql");
	sqlite3 *da = open_file(path_a), *db = open_file(path_b);
	cleanup_free char *before = content_of(da), *want = content_of(db);
	if (sqlite3_exec(da, (const char *)sql.data, NULL, NULL, &why) != SQLITE_OK) {
		fprintf(stderr, "%.3000s\n", (const char *)sql.data);
		synth_die("%" PRIu64 " to %" PRIu64 ": %s", a, b, why);
	}
	cleanup_free char *got = content_of(da);
	if (strcmp(got, want) != 0) {
		first_difference(want, got);
		synth_die("%" PRIu64 " to %" PRIu64 ": not the same content", a, b);
	}
	/* An FTS index and an R-tree that are whole, and constraints that hold. */
	cleanup_free char *check = answer_of(da, "PRAGMA integrity_check");
	if (!strstr(want, "|i13|") && strcmp(check, "t2:ok|\n") != 0)
		synth_die("%" PRIu64 " to %" PRIu64 ": %s", a, b, check);
	if (strcmp(before, want) == 0 && summary.n_objects)
		synth_die("%" PRIu64 " to %" PRIu64 ": %s differs?", a, b, summary.objects[0].name);
	sqlite3_close(da);
	sqlite3_close(db);
}

static void test_random(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(6); i++) {
		struct place p = new_place(seed + i, 512u << (i % 4), i % 3 == 2);
		uint64_t first = p.r.s->n_states;
		fprintf(stderr, "history %" PRIu64 "\n", seed + i);
		for (unsigned k = 0; k < 60; k++)
			one_change(&p);
		for (unsigned k = 0; k < 25; k++) {
			uint64_t n = p.r.s->n_states - first;
			uint64_t a = first + rng_below(&p.rng, n + 1);
			uint64_t b = k % 2 && a < p.r.s->n_states
			                     ? a + 1
			                     : first + rng_below(&p.rng, n + 1);
			compare(&p, a, b);
			compare(&p, b, a);
		}
		free_place(&p);
	}
}

/* Numbers of every size, through SQL and back, to the bit. */
static int write_values(void *ctx, const char *text, size_t len, struct err *err)
{
	return buf_append(ctx, text, len, err);
}

static void test_reals(void **state)
{
	struct rng rng = {test_seed()};
	sqlite3 *db;
	sqlite3_stmt *bind, *got;
	struct text t;
	struct err err = ERR_INIT;
	unsigned n = test_rounds(20000);

	sqlite3_open(":memory:", &db);
	struct buf b = BUF_INIT(1 << 20);
	synth_must(text_open(&t, db, write_values, &b, &err), &err, "text_open");
	sqlite3_prepare_v2(db, "SELECT ?1", -1, &bind, NULL);
	for (unsigned i = 0; i < n; i++) {
		uint64_t bits = rng_next(&rng);
		double v, back;
		if (i % 7 == 0)
			bits &= UINT64_C(0x800fffffffffffff); /* the smallest */
		memcpy(&v, &bits, 8);
		if (i % 5 == 0)
			v = (double)(int64_t)bits / 100;
		if (i == 0)
			v = -0.0;
		if (isnan(v))
			continue;
		sqlite3_reset(bind);
		sqlite3_bind_double(bind, 1, v);
		assert_int_equal(sqlite3_step(bind), SQLITE_ROW);
		buf_clear(&b);
		synth_must(text_put(&t, &err, "SELECT "), &err, "text");
		synth_must(text_value(&t, bind, 0, &err), &err, "text");
		synth_must(text_flush(&t, &err), &err, "text");
		synth_must(buf_append(&b, "", 1, &err), &err, "text");
		assert_int_equal(sqlite3_prepare_v2(db, (char *)b.data, -1, &got, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(got), SQLITE_ROW);
		back = sqlite3_column_double(got, 0);
		if (memcmp(&v, &back, 8) != 0 || sqlite3_column_type(got, 0) != SQLITE_FLOAT)
			synth_die("%a came back as %a: %s", v, back, (char *)b.data);
		sqlite3_finalize(got);
	}
	sqlite3_finalize(bind);
	text_release(&t);
	buf_release(&b);
	sqlite3_close(db);
}

/* A large table with one row changed: only a few pages of it are read. */
static void few_pages(struct place *at)
{
	struct place p = *at;
	const struct diff_options o = {.table = NULL};
	struct err err = ERR_INIT;
	struct diff d;

	realdb_exec(&p.r,
	            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < "
	            "20000) INSERT INTO plain(t) SELECT hex(randomblob(30)) FROM c");
	uint64_t a = p.r.s->n_states;
	realdb_exec(&p.r, "INSERT INTO uniq(name) VALUES ('x')");
	uint64_t b = realdb_exec(&p.r, "UPDATE plain SET t = 'y' WHERE id IN (7, 15000)");
	cleanup_view struct view *va = NULL, *vb = NULL;
	synth_must(view_open(p.h, a, &va, &err), &err, "view_open");
	synth_must(view_open(p.h, b, &vb, &err), &err, "view_open");
	synth_must(diff_open(&d, va, vb, &o, &err), &err, "diff_open");
	assert_non_null(d.map);
	cleanup_ranges struct ranges r = {.all = true}, none = {.all = true};
	const struct entry_info *from = side_find(&d.from, "table", "plain");
	synth_must(page_map_ranges(&d, from, side_find(&d.to, "table", "plain"), &r, &err), &err,
	           "page_map_ranges");
	assert_false(r.all);
	assert_int_equal(r.n, 2);
	for (size_t i = 0; i < r.n; i++)
		assert_true(r.r[i].last < (r.r[i].first > 0 ? r.r[i].first : 0) + 100);
	from = side_find(&d.from, "table", "seq");
	synth_must(page_map_ranges(&d, from, side_find(&d.to, "table", "seq"), &none, &err), &err,
	           "page_map_ranges");
	assert_false(none.all);
	assert_int_equal(none.n, 0);
	diff_close(&d);
	*at = p;
}

static void test_few_pages(void **state)
{
	struct place p = new_place(test_seed(), 1024, false);

	few_pages(&p);
	free_place(&p);
}

/* ---- bisect ---- */

static char *answer_at(struct place *p, uint64_t txid, const char *sql)
{
	cleanup_view struct view *v = NULL;
	cleanup_vfs sqlite3 *db = NULL;
	struct err err = ERR_INIT;

	synth_must(view_open(p->h, txid, &v, &err), &err, "view_open");
	synth_must(vfs_open_view(v, &db, &err), &err, "vfs_open_view");
	return answer_of(db, sql);
}

/* What it finds is a change, and one from the first answer; where there is one at all. */
static void test_bisect(void **state)
{
	static const char *const queries[] = {"SELECT count(*) FROM plain",
	                                      "SELECT max(id), total(r) FROM plain",
	                                      "SELECT * FROM uniq ORDER BY 1",
	                                      "SELECT n FROM some",
	                                      "SELECT sql FROM sqlite_schema ORDER BY 1",
	                                      "SELECT * FROM norowid"};
	struct place p = new_place(test_seed() + 5, 1024, false);
	uint64_t first = p.r.s->n_states;
	unsigned found = 0;

	for (unsigned k = 0; k < 40; k++)
		one_change(&p);
	uint64_t last = p.r.s->n_states;
	for (unsigned i = 0; i < 60; i++) {
		const struct bisect_options o = {.sql = queries[i % 6]};
		uint64_t a = first + rng_below(&p.rng, last - first),
		         b = a + 1 + rng_below(&p.rng, last - a);
		struct moment before, after;
		struct err err = ERR_INIT;
		char *at_a = answer_at(&p, a, o.sql), *at_b = answer_at(&p, b, o.sql);
		int rc = bisect(p.h, a, b, &o, &before, &after, &err);
		if (strcmp(at_a, at_b) == 0) {
			bool fails = strncmp(at_a, "error", 5) == 0;
			assert_int_equal(rc, fails ? -ERR_SQL : -ERR_NOT_FOUND);
		} else {
			synth_must(rc, &err, "bisect");
			char *old = answer_at(&p, before.txid, o.sql),
			     *new = answer_at(&p, after.txid, o.sql);
			assert_int_equal(before.txid + 1, after.txid);
			assert_true(before.txid >= a && after.txid <= b);
			assert_string_equal(old, at_a);
			assert_string_not_equal(new, at_a);
			free(old);
			free(new);
			found++;
		}
		free(at_a);
		free(at_b);
	}
	assert_true(found > 5);
	free_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_reals),
	        cmocka_unit_test(test_few_pages),
	        cmocka_unit_test(test_bisect),
	        cmocka_unit_test(test_random),
	};
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQL on images against SQL on the plain file: the same answers for random databases of every
 * page size, from WAL mode too, from many threads, from two moments at once; and an error that
 * tells of the callback's, at whichever read it comes.
 */
#include "engine/view/vfs.h"
#include "tests/lib/realdb.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

/* A file in memory, which may fail. */
struct memory {
	const uint8_t *data;
	size_t len;
	unsigned reads;
	unsigned fail_at; /* this read and all behind it; 0: none */
};

static int read_memory(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	struct memory *m = ctx;

	if (offset + len > m->len)
		synth_die("read of %zu bytes at %" PRIu64 " of %zu", len, offset, m->len);
	m->reads++;
	if (m->fail_at && m->reads >= m->fail_at)
		return err_set(err, ERR_DAMAGED, 0, "'object 17' is damaged");
	memcpy(buf, m->data + offset, len);
	return 0;
}

static sqlite3 *open_memory(struct memory *m)
{
	const struct vfs_image image = {.ctx = m, .size_bytes = m->len, .read = read_memory};
	sqlite3 *db;
	struct err err = ERR_INIT;

	synth_must(vfs_open(&image, &db, &err), &err, "vfs_open");
	return db;
}

static sqlite3 *plain(const char *path)
{
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL))
		synth_die("open %s", path);
	return db;
}

static void run(sqlite3 *db, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &why))
		synth_die("%s: %s", sql, why ? why : "?");
}

/* Tables of several kinds, with overflow pages, indexes, and some pages free again. */
static void fill(sqlite3 *db, uint32_t page_size, bool wal, struct rng *rng)
{
	char sql[512];

	snprintf(sql, sizeof(sql), "PRAGMA page_size = %u; PRAGMA journal_mode = %s", page_size,
	         wal ? "WAL" : "DELETE");
	run(db, sql);
	run(db, "PRAGMA synchronous = OFF;"
	        "CREATE TABLE a(id INTEGER PRIMARY KEY, k INT, t TEXT, b BLOB, r REAL);"
	        "CREATE INDEX a_k ON a(k); CREATE INDEX a_t ON a(t, r);"
	        "CREATE TABLE w(x TEXT, y INT, z, PRIMARY KEY(x, y)) WITHOUT ROWID;"
	        "CREATE VIEW v AS SELECT a.id, w.z FROM a JOIN w ON w.y = a.k");
	unsigned n = 50 + (unsigned)rng_below(rng, 300);
	snprintf(sql, sizeof(sql),
	         "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < %u) "
	         "INSERT INTO a SELECT i, abs(random() %% 20), hex(randomblob(i %% 40)), "
	         "randomblob(CASE WHEN i %% 17 = 0 THEN %u ELSE i %% 9 END), "
	         "CASE WHEN i %% 3 THEN i / 7.0 END FROM c",
	         n, 3 * page_size);
	run(db, sql);
	run(db, "INSERT OR IGNORE INTO w SELECT t, k, b FROM a");
	snprintf(sql, sizeof(sql), "DELETE FROM a WHERE k = %u", (unsigned)rng_below(rng, 20));
	run(db, sql);
	if (wal)
		run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
}

static const char *const queries[] = {
        "SELECT * FROM a ORDER BY id",
        "SELECT k, count(*), sum(r), min(t), max(length(b)) FROM a GROUP BY k",
        "SELECT * FROM w WHERE x > '8' ORDER BY x DESC, y",
        "SELECT * FROM a INDEXED BY a_t WHERE t BETWEEN '2' AND '7' ORDER BY t, r, id",
        "SELECT * FROM v ORDER BY 1, 2",
        "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema",
        "SELECT b, t FROM a ORDER BY b, t, id",
        "PRAGMA page_size",
        "PRAGMA page_count",
        "PRAGMA freelist_count",
        "PRAGMA user_version",
        "PRAGMA integrity_check",
        "SELECT x.id, y.id FROM a x, a y WHERE x.k = y.k AND x.id < y.id ORDER BY 1, 2 LIMIT 500",
};
#define N_QUERIES (sizeof(queries) / sizeof(*queries))

static void compare(sqlite3 *want, sqlite3 *got, const char *what)
{
	for (size_t i = 0; i < N_QUERIES; i++) {
		cleanup_free char *a = answer_of(want, queries[i]), *b = answer_of(got, queries[i]);
		if (strcmp(a, b) != 0)
			synth_die("%s: %s\nwant %.300s\ngot  %.300s", what, queries[i], a, b);
	}
	struct err err = ERR_INIT;
	synth_must(vfs_error(got, &err), &err, "vfs_error");
}

static void test_same_answers(void **state)
{
	struct rng rng = {test_seed()};

	for (unsigned i = 0; i < test_rounds(32); i++) {
		cleanup_free char *folder = test_folder();
		char path[300];
		uint32_t page_size = 512u << (i % 8);
		struct memory m = {0};

		snprintf(path, sizeof(path), "%s/x.db", folder);
		sqlite3 *file = plain(path);
		fill(file, page_size, i / 8 % 2, &rng);
		m.data = realdb_file(path, &m.len);
		sqlite3 *db = open_memory(&m);
		compare(file, db, path);
		assert_int_equal(sqlite3_db_readonly(db, "main"), 1);
		vfs_close(db);
		sqlite3_close(file);
		free((void *)m.data);
		test_remove(folder);
	}
}

/* Nothing can be written, in whatever way it is asked for. */
static void test_read_only(void **state)
{
	static const char *const writes[] = {
	        "INSERT INTO a(k) VALUES (1)",
	        "DELETE FROM a",
	        "CREATE TABLE n(x)",
	        "PRAGMA user_version = 7",
	        "VACUUM",
	        "DROP TABLE a",
	        "BEGIN IMMEDIATE; DELETE FROM w",
	        "UPDATE a SET k = k + 1",
	        "ATTACH 'y.db' AS y",
	        "ATTACH 'asof-image' AS y",
	};
	cleanup_free char *folder = test_folder();
	struct rng rng = {test_seed()};
	struct memory m = {0};
	char path[300];

	snprintf(path, sizeof(path), "%s/x.db", folder);
	sqlite3 *file = plain(path);
	fill(file, 1024, true, &rng);
	run(file, "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('red fox');"
	          "PRAGMA wal_checkpoint(TRUNCATE)");
	sqlite3_close(file);
	m.data = realdb_file(path, &m.len);
	cleanup_free uint8_t *before = malloc(m.len);
	memcpy(before, m.data, m.len);
	for (size_t i = 0; i < sizeof(writes) / sizeof(*writes); i++) {
		struct err err = ERR_INIT;
		sqlite3 *db = open_memory(&m);
		if (sqlite3_exec(db, writes[i], NULL, NULL, NULL) == SQLITE_OK)
			synth_die("not refused: %s", writes[i]);
		assert_true(vfs_sqlite_error(db, &err, "it") < 0);
		if (!strstr(err.msg, "it: "))
			synth_die("%s: %s", writes[i], err.msg);
		vfs_close(db);
	}
	/* A journal mode that cannot be had stays what it is, and temporary tables can be. */
	sqlite3 *db = open_memory(&m);
	run(db, "PRAGMA journal_mode = WAL; PRAGMA wal_checkpoint(TRUNCATE)");
	/* Virtual tables have statements of their own. */
	cleanup_free char *found = answer_of(db, "SELECT * FROM f WHERE f MATCH 'fox'");
	assert_string_equal(found, "t7:red fox|\n");
	run(db, "CREATE TEMP TABLE s AS SELECT * FROM a; PRAGMA cache_spill = 1; DELETE FROM s");
	vfs_close(db);
	assert_memory_equal(before, m.data, m.len);
	free((void *)m.data);
	test_remove(folder);
}

/* A sort that does not fit memory goes to scratch files of the system's own VFS. */
static void test_large_sort(void **state)
{
	cleanup_free char *folder = test_folder();
	struct memory m = {0};
	char path[300];

	snprintf(path, sizeof(path), "%s/x.db", folder);
	sqlite3 *file = plain(path);
	run(file,
	    "CREATE TABLE l(a); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
	    "WHERE i < 20000) INSERT INTO l SELECT randomblob(100) FROM c");
	m.data = realdb_file(path, &m.len);
	sqlite3 *db = open_memory(&m);
	run(db, "PRAGMA cache_size = 10; PRAGMA temp_store = FILE");
	const char *sql = "SELECT a FROM l ORDER BY a DESC";
	cleanup_free char *want = answer_of(file, sql), *got = answer_of(db, sql);
	assert_string_equal(want, got);
	vfs_close(db);
	sqlite3_close(file);
	free((void *)m.data);
	test_remove(folder);
}

/* Whichever read fails: the right answer, or an error that is the callback's. */
static void test_fault_at_every_read(void **state)
{
	cleanup_free char *folder = test_folder();
	struct rng rng = {test_seed()};
	struct memory m = {0};
	char path[300];
	unsigned faults = 0;

	snprintf(path, sizeof(path), "%s/x.db", folder);
	sqlite3 *file = plain(path);
	fill(file, 512, true, &rng);
	m.data = realdb_file(path, &m.len);
	for (size_t q = 0; q < N_QUERIES; q++) {
		unsigned n, step = getenv("ASOF_TEST_SHORT") ? 37 : 1;
		sqlite3 *db = open_memory(&m);
		m.fail_at = m.reads = 0;
		free(answer_of(db, queries[q]));
		n = m.reads;
		vfs_close(db);
		for (unsigned i = 1; i <= n; i += step) {
			struct err err = ERR_INIT;
			m.reads = 0;
			m.fail_at = i;
			const struct vfs_image image = {
			        .ctx = &m, .size_bytes = m.len, .read = read_memory};
			int rc = vfs_open(&image, &db, &err);
			if (!rc) {
				free(answer_of(db, queries[q]));
				rc = vfs_error(db, &err);
			}
			if (rc != -ERR_DAMAGED || !strstr(err.msg, "object 17"))
				synth_die("%s: read %u of %u failed and nothing told: %s",
				          queries[q], i, n, err.msg);
			faults++;
			/* It is told once. */
			if (db)
				assert_int_equal(vfs_error(db, &err), 0);
			vfs_close(db);
		}
		m.fail_at = 0;
	}
	printf("%u faults\n", faults);
	assert_true(faults > 100 || getenv("ASOF_TEST_SHORT"));
	sqlite3_close(file);
	free((void *)m.data);
	test_remove(folder);
}

/* What SQLite itself finds wrong is told apart from what the callback says. */
static void test_errors(void **state)
{
	static const char junk[8192] = "this is no database";
	struct memory m = {.data = (const uint8_t *)junk, .len = sizeof(junk)};
	struct err err = ERR_INIT;
	sqlite3 *db = open_memory(&m);

	assert_int_equal(sqlite3_exec(db, "SELECT * FROM sqlite_schema", NULL, NULL, NULL),
	                 SQLITE_NOTADB);
	assert_int_equal(vfs_sqlite_error(db, &err, "read %d", 5), -ERR_DAMAGED);
	assert_string_equal(err.msg, "read 5: file is not a database");
	vfs_close(db);

	m.fail_at = 2;
	m.reads = 0;
	db = open_memory(&m);
	assert_true(sqlite3_exec(db, "SELECT * FROM sqlite_schema", NULL, NULL, NULL) != SQLITE_OK);
	assert_int_equal(vfs_sqlite_error(db, &err, "read"), -ERR_DAMAGED);
	assert_string_equal(err.msg, "'object 17' is damaged");
	vfs_close(db);

	m.len = 0; /* an empty file is an empty database */
	m.fail_at = 0;
	db = open_memory(&m);
	assert_int_equal(sqlite3_exec(db, "SELCT", NULL, NULL, NULL), SQLITE_ERROR);
	assert_int_equal(vfs_sqlite_error(db, &err, "query"), -ERR_SQL);
	assert_non_null(strstr(err.msg, "query: near \"SELCT\""));
	vfs_close(db);

	const struct vfs_image bad = {.ctx = &m, .read = read_memory, .name = ":memory:"};
	assert_int_equal(vfs_open(&bad, &db, &err), -ERR_USAGE);
	assert_null(db);
}

/* ---- threads ---- */

struct reader {
	pthread_t thread;
	struct view *view;
	const char *sql;
	char *want;
	_Atomic unsigned *done;
};

static void *read_thread(void *arg)
{
	struct reader *r = arg;

	for (unsigned i = 0; i < 5; i++) {
		sqlite3 *db;
		struct err err = ERR_INIT;
		synth_must(vfs_open_view(r->view, &db, &err), &err, "vfs_open_view");
		cleanup_free char *got = answer_of(db, r->sql);
		if (strcmp(got, r->want) != 0)
			synth_die("%s from a thread", r->sql);
		vfs_close(db);
		++*r->done;
	}
	return NULL;
}

static const struct synth_options synth_plain = {.seed = 7, .max_pages = 10, .max_frames = 4};

static struct view *view_of(struct history *h, uint64_t txid)
{
	struct view *v;
	struct err err = ERR_INIT;

	synth_must(view_open(h, txid, &v, &err), &err, "view_open");
	return v;
}

static void open_history(const struct realdb *r, struct archive **ret_a, struct history **ret_h)
{
	struct err err = ERR_INIT;
	const struct archive_options o = {.cache_bytes = 1 << 20};

	synth_must(archive_open(r->s->root, &o, ret_a, &err), &err, "archive_open");
	synth_must(history_get(*ret_a, r->s->name, ret_h, &err), &err, "history_get");
}

static void test_threads(void **state)
{
	cleanup_free char *folder = test_folder();
	struct reader readers[6];
	_Atomic unsigned done = 0;
	struct realdb r;
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;

	realdb_new(&r, folder, "x.db", 1024, &synth_plain);
	realdb_exec(&r, "CREATE TABLE a(id INTEGER PRIMARY KEY, t)");
	for (unsigned i = 0; i < 20; i++)
		realdb_exec(&r, "INSERT INTO a(t) SELECT hex(randomblob(200)) FROM "
		                "(VALUES (1), (2), (3), (4), (5), (6), (7), (8))");
	open_history(&r, &a, &h);
	cleanup_view struct view *v = view_of(h, r.s->n_states);
	for (size_t i = 0; i < 6; i++) {
		readers[i] = (struct reader){.view = v,
		                             .sql = i % 2 ? "SELECT * FROM a ORDER BY t"
		                                          : "PRAGMA integrity_check",
		                             .done = &done};
		readers[i].want = answer_of(r.db, readers[i].sql);
		assert_int_equal(pthread_create(&readers[i].thread, NULL, read_thread, &readers[i]),
		                 0);
	}
	for (size_t i = 0; i < 6; i++) {
		pthread_join(readers[i].thread, NULL);
		free(readers[i].want);
	}
	assert_int_equal(done, 30);
	realdb_free(&r);
	test_remove(folder);
}

/* Every moment of a real history, and two of them in one connection. */
static void test_moments(void **state)
{
	cleanup_free char *folder = test_folder();
	struct realdb r;
	char *want[40];
	size_t n = 0;
	const char *sql = "SELECT id, t FROM main.a ORDER BY id";
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct err err = ERR_INIT;

	realdb_new(&r, folder, "x.db", 512, &synth_plain);
	uint64_t first = realdb_exec(&r, "CREATE TABLE a(id INTEGER PRIMARY KEY, t)");
	for (unsigned i = 0; i < 40; i++) {
		realdb_exec(&r,
		            i % 3 == 2 ? "DELETE FROM a WHERE id %% 3 = 1"
		                       : "INSERT INTO a(t) VALUES (randomblob(300)), (%u)",
		            i);
		want[n++] = answer_of(r.db, sql);
	}
	open_history(&r, &a, &h);
	for (size_t i = 0; i < n; i++) {
		cleanup_view struct view *v = view_of(h, first + 1 + i);
		cleanup_view struct view *w = view_of(h, first + 1 + (i * 7 + 3) % n);
		cleanup_vfs sqlite3 *db = NULL;
		synth_must(vfs_open_view(v, &db, &err), &err, "vfs_open_view");
		synth_must(vfs_attach_view(db, "other", w, &err), &err, "vfs_attach_view");
		cleanup_free char *got = answer_of(db, sql);
		cleanup_free char *other = answer_of(db, "SELECT id, t FROM other.a ORDER BY id");
		cleanup_free char *mode = answer_of(db, "PRAGMA other.journal_mode");
		assert_string_equal(got, want[i]);
		assert_string_equal(other, want[(i * 7 + 3) % n]);
		assert_null(strstr(mode, "wal"));
	}
	for (size_t i = 0; i < n; i++)
		free(want[i]);
	realdb_free(&r);
	test_remove(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_same_answers), cmocka_unit_test(test_read_only),
	        cmocka_unit_test(test_large_sort),   cmocka_unit_test(test_fault_at_every_read),
	        cmocka_unit_test(test_errors),       cmocka_unit_test(test_threads),
	        cmocka_unit_test(test_moments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Files as sources, against SQLite itself: a database with its -wal at any moment, cut and flipped;
 * and a transaction on a file from outside, broken off anywhere. */
#include "engine/restore/follow_i.h"
#include "engine/restore/overlay.h"
#include "engine/restore/restore_i.h"

#include "engine/base/bytes.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
	char *dir;
	char live[256], db[256], other[256]; /* the application's; a copy at rest; SQLite's turn */
	sqlite3 *app;
	struct rng rng;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	log_set_fd(-1);
	f->dir = test_folder();
	f->rng.s = test_seed();
	snprintf(f->live, sizeof(f->live), "%s/live.db", f->dir);
	snprintf(f->db, sizeof(f->db), "%s/copy.db", f->dir);
	snprintf(f->other, sizeof(f->other), "%s/other.db", f->dir);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sqlite3_close(f->app);
	test_remove(f->dir);
	free(f->dir);
	free(f);
	return 0;
}

static void sql(sqlite3 *db, const char *fmt, ...)
{
	char *text, *why = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = sqlite3_vmprintf(fmt, ap);
	va_end(ap);
	if (sqlite3_exec(db, text, NULL, NULL, &why) != SQLITE_OK)
		synth_die("%s: %s", text, why);
	sqlite3_free(text);
}

static void open_app(struct fixture *f, unsigned page_size)
{
	assert_int_equal(sqlite3_open(f->live, &f->app), SQLITE_OK);
	sql(f->app,
	    "PRAGMA page_size = %u; PRAGMA journal_mode = WAL; PRAGMA cache_size = 10;"
	    "PRAGMA wal_autocheckpoint = 30; CREATE TABLE t (id INTEGER PRIMARY KEY, x)",
	    page_size);
}

/* A transaction of any kind; it may be left open, with frames of it in the -wal. */
static void do_something(struct fixture *f)
{
	sql(f->app, "BEGIN");
	sql(f->app,
	    "INSERT INTO t (x) SELECT randomblob(%d) FROM (WITH RECURSIVE n(i) AS (SELECT 1 "
	    "UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i FROM n)",
	    (int)rng_below(&f->rng, 3000), 1 + (int)rng_below(&f->rng, 60));
	if (rng_chance(&f->rng, 40))
		sql(f->app, "DELETE FROM t WHERE id %% 3 = %d", (int)rng_below(&f->rng, 3));
	if (rng_chance(&f->rng, 20))
		return;
	sql(f->app, rng_chance(&f->rng, 20) ? "ROLLBACK" : "COMMIT");
	if (rng_chance(&f->rng, 10))
		sql(f->app, "VACUUM");
	if (rng_chance(&f->rng, 15))
		sql(f->app, "PRAGMA wal_checkpoint(TRUNCATE)");
}

static uint8_t *read_all(const char *path, size_t *ret_len)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	*ret_len = 0;
	if (fd < 0)
		return NULL;
	assert_int_equal(fstat(fd, &st), 0);
	uint8_t *p = malloc((size_t)st.st_size + 1);
	synth_must(file_pread(fd, p, (size_t)st.st_size, 0, path, NULL), NULL, path);
	*ret_len = (size_t)st.st_size;
	return p;
}

static void write_all(const char *path, const void *p, size_t len)
{
	cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	synth_must(file_pwrite(fd, p, len, 0, path, NULL), NULL, path);
}

static void copy_file(const char *from, const char *to, const char *suffix)
{
	char a[300], b[300];
	size_t len;

	snprintf(a, sizeof(a), "%s%s", from, suffix);
	snprintf(b, sizeof(b), "%s%s", to, suffix);
	cleanup_free uint8_t *p = read_all(a, &len);
	if (p)
		write_all(b, p, len);
	else
		unlink(b);
}

/* The bytes after SQLite has checkpointed everything that it recovers. */
static uint8_t *by_sqlite(struct fixture *f, size_t *ret_len)
{
	sqlite3 *db;

	copy_file(f->db, f->other, "");
	copy_file(f->db, f->other, "-wal");
	assert_int_equal(sqlite3_open(f->other, &db), SQLITE_OK);
	sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
	sqlite3_close(db);
	return read_all(f->other, ret_len);
}

/* What we say of the copy is what SQLite says. */
static void compare_with_sqlite(struct fixture *f)
{
	cleanup_restore_file struct restore_file *file = NULL;
	size_t len, piece;

	synth_must(restore_file_open(f->db, &file, &f->err), &f->err, "open");
	const struct restore_image *image = restore_file_image(file);
	cleanup_free uint8_t *want = by_sqlite(f, &len), *got = malloc(len + 1);
	assert_int_equal(image->size_bytes, len);
	for (size_t at = 0; at < len; at += piece) {
		piece = 1 + (size_t)rng_below(&f->rng, 9000);
		piece = piece < len - at ? piece : len - at;
		synth_must(image->read(image->ctx, at, got + at, piece, &f->err), &f->err, "read");
	}
	assert_memory_equal(got, want, len);
}

static void check_page_size(struct fixture *f, unsigned page_size)
{
	open_app(f, page_size);
	for (unsigned i = 0; i < test_rounds(60); i++) {
		do_something(f);
		copy_file(f->live, f->db, "");
		copy_file(f->live, f->db, "-wal");
		compare_with_sqlite(f);
		if (!sqlite3_get_autocommit(f->app))
			sql(f->app, rng_chance(&f->rng, 50) ? "ROLLBACK" : "COMMIT");
	}
}

static void test_overlay_512(void **state)
{
	check_page_size(*state, 512);
}

static void test_overlay_4096(void **state)
{
	check_page_size(*state, 4096);
}

static void test_overlay_65536(void **state)
{
	check_page_size(*state, 65536);
}

/* A -wal that was cut or changed anywhere counts for as much as it does to SQLite. */
static void test_overlay_of_torn_files(void **state)
{
	struct fixture *f = *state;
	char wal[300];
	size_t len;

	open_app(f, 1024);
	sql(f->app, "PRAGMA wal_autocheckpoint = 0");
	for (int i = 0; i < 12; i++) {
		do_something(f);
		if (!sqlite3_get_autocommit(f->app))
			sql(f->app, "COMMIT");
	}
	/* The last of that may have been a checkpoint that left nothing of the WAL. */
	sql(f->app, "CREATE TABLE last_of_all(x)");
	copy_file(f->live, f->db, "");
	snprintf(wal, sizeof(wal), "%s-wal", f->live);
	cleanup_free uint8_t *p = read_all(wal, &len);
	assert_true(len > 200);
	snprintf(wal, sizeof(wal), "%s-wal", f->db);
	for (unsigned i = 0; i < test_rounds(150); i++) {
		size_t at = (size_t)rng_below(&f->rng, i % 4 == 0 ? 200 : len);
		bool cut = rng_chance(&f->rng, 40);
		uint8_t bit = (uint8_t)(1u << rng_below(&f->rng, 8));
		p[at] ^= cut ? 0 : bit;
		write_all(wal, p, cut ? at : len);
		p[at] ^= cut ? 0 : bit;
		compare_with_sqlite(f);
	}
}

static void test_overlay_that_lies(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[WAL_HEADER_SIZE + WAL_FRAME_HEADER_SIZE + 512] = {0};
	struct wal_header head = {.page_size = 512, .salt1 = 1, .salt2 = 2};
	struct wal_frame_header frame = {
	        .pgno = 4000000000u, .n_truncate = 4000000000u, .salt1 = 1, .salt2 = 2};
	struct overlay *o;

	wal_header_write(&head, bytes);
	frame.cksum = head.cksum;
	wal_frame_header_write(&frame, bytes + WAL_HEADER_SIZE);
	wal_cksum_add(&frame.cksum, bytes + WAL_HEADER_SIZE, 8, head.big_endian_cksum);
	wal_cksum_add(&frame.cksum, bytes + WAL_HEADER_SIZE + WAL_FRAME_HEADER_SIZE, 512,
	              head.big_endian_cksum);
	wal_frame_header_write(&frame, bytes + WAL_HEADER_SIZE);
	write_all(f->db, bytes, sizeof(bytes));
	cleanup_fd int fd = open(f->db, O_RDONLY | O_CLOEXEC);
	assert_int_equal(overlay_open(fd, "x-wal", 512, 10, &o, &f->err), -ERR_DAMAGED);
	assert_non_null(strstr(f->err.msg, "x-wal"));
	assert_int_equal(overlay_open(fd, "x-wal", 4096, 10, &o, &f->err), -ERR_DAMAGED);
}

/* ---- a transaction in place ---- */

static void make_database(struct fixture *f, const char *path, int rows)
{
	sqlite3 *db;

	unlink(path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sql(db,
	    "PRAGMA page_size = 1024; CREATE TABLE t (id INTEGER PRIMARY KEY, x);"
	    "INSERT INTO t (x) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
	    "WHERE i < %d) SELECT hex(randomblob(100)) FROM n",
	    rows);
	sqlite3_close(db);
}

static const struct restore_options none = {.patience_us = 1};

static int apply(struct fixture *f, struct restore_file *to)
{
	CLEANUP(place_release) struct place place;
	uint64_t written;

	synth_must(place_open(f->db, &place, &f->err), &f->err, "place");
	return delta_apply(restore_file_image(to), &place, &none, &written, &f->err);
}

static void test_in_place(void **state)
{
	struct fixture *f = *state;
	size_t len, now;

	for (unsigned i = 0; i < test_rounds(20); i++) {
		cleanup_restore_file struct restore_file *to = NULL;
		make_database(f, f->db, 1 + (int)rng_below(&f->rng, 400));
		make_database(f, f->other, 1 + (int)rng_below(&f->rng, 400));
		synth_must(restore_file_open(f->other, &to, &f->err), &f->err, "open");
		synth_must(apply(f, to), &f->err, "apply");
		cleanup_free uint8_t *want = read_all(f->other, &len), *got = read_all(f->db, &now);
		assert_int_equal(len, now);
		assert_memory_equal(want, got, len);
	}
}

/* An image whose pages stop coming: in the comparison, or among the writes. */
struct brittle {
	const struct restore_image *image;
	long left;
};

static int read_brittle(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	struct brittle *b = ctx;

	if (b->left-- == 0)
		return err_set(err, ERR_IO, 0, "no more");
	return b->image->read(b->image->ctx, offset, buf, len, err);
}

static void test_in_place_fails(void **state)
{
	struct fixture *f = *state;
	CLEANUP(place_release) struct place place;
	cleanup_restore_file struct restore_file *to = NULL;
	char journal[300];
	size_t len, now;
	uint64_t written;
	int rc = -1;

	make_database(f, f->db, 60);
	make_database(f, f->other, 80);
	snprintf(journal, sizeof(journal), "%s-journal", f->db);
	cleanup_free uint8_t *old = read_all(f->db, &len);
	synth_must(restore_file_open(f->other, &to, &f->err), &f->err, "open");
	synth_must(place_open(f->db, &place, &f->err), &f->err, "place");
	long n = 0;
	for (; rc != 0 && n < 1000; n++) {
		struct brittle b = {restore_file_image(to), n};
		struct restore_image image = *restore_file_image(to);
		image.ctx = &b;
		image.read = read_brittle;
		rc = delta_apply(&image, &place, &none, &written, &f->err);
		if (rc == 0)
			break;
		assert_int_equal(rc, -ERR_IO);
		cleanup_free uint8_t *got = read_all(f->db, &now);
		assert_int_equal(now, len);
		assert_memory_equal(got, old, len);
		assert_int_equal(access(journal, F_OK), -1);
	}
	assert_true(n > 5);
	cleanup_free uint8_t *want = read_all(f->other, &len), *got = read_all(f->db, &now);
	assert_int_equal(now, len);
	assert_memory_equal(got, want, len);
}

/* The image is not what its checksum says: nothing is written. */
static void test_in_place_of_a_wrong_image(void **state)
{
	struct fixture *f = *state;
	CLEANUP(place_release) struct place place;
	cleanup_restore_file struct restore_file *to = NULL;
	size_t len, now;
	uint64_t written;

	make_database(f, f->db, 60);
	make_database(f, f->other, 80);
	cleanup_free uint8_t *old = read_all(f->db, &len);
	synth_must(restore_file_open(f->other, &to, &f->err), &f->err, "open");
	synth_must(place_open(f->db, &place, &f->err), &f->err, "place");
	struct restore_image image = *restore_file_image(to);
	image.state = (struct hash128){1, 2};
	assert_int_equal(delta_apply(&image, &place, &none, &written, &f->err), -ERR_DAMAGED);
	cleanup_free uint8_t *got = read_all(f->db, &now);
	assert_int_equal(now, len);
	assert_memory_equal(got, old, len);
}

/* A reader in its transaction keeps it out, and is not disturbed. */
static void test_in_place_waits_for_readers(void **state)
{
	struct fixture *f = *state;
	CLEANUP(place_release) struct place place;
	struct inplace x;
	sqlite3 *db;

	make_database(f, f->db, 60);
	synth_must(place_open(f->db, &place, &f->err), &f->err, "place");
	assert_int_equal(sqlite3_open(f->db, &db), SQLITE_OK);
	sql(db, "BEGIN; SELECT count(*) FROM t");
	assert_int_equal(inplace_begin(&x, &place, 1024, 10, 50000, &f->err), -ERR_BUSY);
	inplace_end(&x);
	sql(db, "SELECT count(*) FROM t; COMMIT");
	synth_must(inplace_begin(&x, &place, 1024, 10, 50000, &f->err), &f->err, "begin");
	assert_int_equal(sqlite3_exec(db, "SELECT count(*) FROM t", NULL, NULL, NULL), SQLITE_BUSY);
	inplace_end(&x);
	sql(db, "SELECT count(*) FROM t");
	sqlite3_close(db);
}

/* ---- notes of standbys ---- */

static void test_notes(void **state)
{
	struct fixture *f = *state;
	CLEANUP(place_release) struct place place;
	char path[300];
	size_t len;

	synth_must(place_open(f->db, &place, &f->err), &f->err, "place");
	snprintf(path, sizeof(path), "%s" FOLLOW_NOTE_SUFFIX, f->db);
	struct follow_note note = {.database = "a name with blanks.db",
	                           .txid = UINT64_MAX,
	                           .next_txid = 7,
	                           .state = {1, UINT64_MAX},
	                           .next_state = {UINT64_MAX, 0}},
	                   back;
	assert_int_equal(follow_note_get(&place, &back, &f->err), -ERR_NOT_FOUND);
	synth_must(follow_note_put(&place, &note, &f->err), &f->err, "put");
	synth_must(follow_note_get(&place, &back, &f->err), &f->err, "get");
	assert_memory_equal(&note, &back, sizeof(note));
	cleanup_free uint8_t *text = read_all(path, &len);
	for (size_t i = 0; i < len; i++) {
		for (int bit = 0; bit < 8; bit++) {
			text[i] ^= (uint8_t)(1u << bit);
			write_all(path, text, len);
			text[i] ^= (uint8_t)(1u << bit);
			int rc = follow_note_get(&place, &back, &f->err);
			assert_int_equal(rc, -ERR_DAMAGED);
		}
		write_all(path, text, i);
		assert_int_equal(follow_note_get(&place, &back, &f->err), -ERR_DAMAGED);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_overlay_512),
	        CASE(test_overlay_4096),
	        CASE(test_overlay_65536),
	        CASE(test_overlay_of_torn_files),
	        CASE(test_overlay_that_lies),
	        CASE(test_in_place),
	        CASE(test_in_place_fails),
	        CASE(test_in_place_of_a_wrong_image),
	        CASE(test_in_place_waits_for_readers),
	        CASE(test_notes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

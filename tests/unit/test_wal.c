/* SPDX-License-Identifier: Apache-2.0 */
/* WAL headers, frames and checksums against files that SQLite itself wrote. */
#include "engine/sqlite/format.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <cmocka.h>

static void sql(sqlite3 *db, const char *text)
{
	char *msg = NULL;

	if (sqlite3_exec(db, text, NULL, NULL, &msg) != SQLITE_OK)
		synth_die("%s: %s", text, msg);
}

static sqlite3 *make_wal(const char *path, uint32_t page_size, unsigned commits)
{
	sqlite3 *db;
	char text[200];

	if (sqlite3_open(path, &db) != SQLITE_OK)
		synth_die("open %s", path);
	snprintf(text, sizeof(text),
	         "PRAGMA page_size=%u; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF", page_size);
	sql(db, text);
	sql(db, "PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
	for (unsigned i = 0; i < commits; i++) {
		snprintf(text, sizeof(text), "INSERT INTO t(b) VALUES(randomblob(%u))",
		         10 + i * 37);
		sql(db, text);
	}
	return db;
}

/* Walks the chain; gives the number of frames whose checksum holds, and of commits. */
static uint64_t walk(const uint8_t *wal, size_t len, struct wal_header *h, unsigned *ret_commits)
{
	struct err err = ERR_INIT;
	uint64_t n = 0;

	synth_must(wal_header_parse(wal, len, h, &err), &err, "wal_header_parse");
	struct wal_cksum c = h->cksum;
	*ret_commits = 0;
	while (wal_frame_offset(n + 2, h->page_size) <= len) {
		const uint8_t *p = wal + wal_frame_offset(n + 1, h->page_size);
		struct wal_frame_header f;
		wal_frame_header_parse(p, &f);
		wal_cksum_add(&c, p, 8, h->big_endian_cksum);
		wal_cksum_add(&c, p + WAL_FRAME_HEADER_SIZE, h->page_size, h->big_endian_cksum);
		if (f.salt1 != h->salt1 || f.salt2 != h->salt2 || f.cksum.s0 != c.s0 ||
		    f.cksum.s1 != c.s1)
			break;
		uint8_t again[WAL_FRAME_HEADER_SIZE];
		wal_frame_header_write(&f, again);
		assert_memory_equal(again, p, sizeof(again));
		*ret_commits += f.n_truncate != 0;
		n++;
	}
	return n;
}

static void test_real_wal(void **state)
{
	for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
		cleanup_free char *root = test_folder();
		cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
		char path[300];
		struct wal_header h;
		struct wal_index ix;
		struct db_header dbh;
		struct err err = ERR_INIT;
		unsigned commits;
		size_t len, shm_len;

		snprintf(path, sizeof(path), "%s/x.db", root);
		sqlite3 *db = make_wal(path, page_size, 20);
		cleanup_free uint8_t *wal = read_whole(dir, "x.db-wal", &len);
		cleanup_free uint8_t *shm = read_whole(dir, "x.db-shm", &shm_len);
		assert_true(wal_index_parse(shm, &ix));
		uint64_t n = walk(wal, len, &h, &commits);
		assert_int_equal(h.page_size, page_size);
		assert_int_equal(n, ix.max_frame);
		assert_int_equal(commits, 21); /* the table, and the rows */
		assert_int_equal(ix.page_size, page_size);
		assert_int_equal(ix.salt1, h.salt1);
		assert_int_equal(ix.salt2, h.salt2);
		struct wal_frame_header last;
		wal_frame_header_parse(wal + wal_frame_offset(n, page_size), &last);
		assert_int_equal(last.n_truncate, ix.n_pages);
		assert_int_equal(last.cksum.s0, ix.frame_cksum.s0);
		assert_int_equal(last.cksum.s1, ix.frame_cksum.s1);
		uint8_t again[WAL_HEADER_SIZE];
		wal_header_write(&h, again);
		assert_memory_equal(again, wal, sizeof(again));

		/* Every flipped bit of the header shows; so does one of a copy of the index header. */
		for (unsigned i = 0; i < 8 * WAL_HEADER_SIZE; i++) {
			wal[i / 8] ^= (uint8_t)(1u << i % 8);
			assert_int_equal(wal_header_parse(wal, len, &h, &err), -ERR_DAMAGED);
			wal[i / 8] ^= (uint8_t)(1u << i % 8);
		}
		for (unsigned i = 0; i < 96; i++) {
			shm[i] ^= 0x40;
			assert_false(wal_index_parse(shm, &ix));
			shm[i] ^= 0x40;
		}
		for (size_t i = 0; i < WAL_HEADER_SIZE; i++)
			assert_int_equal(wal_header_parse(wal, i, &h, &err), -ERR_DAMAGED);
		sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
		cleanup_free uint8_t *file = read_whole(dir, "x.db", &len);
		synth_must(db_header_parse(file, len, &dbh, &err), &err, "db_header_parse");
		assert_int_equal(dbh.page_size, page_size);
		assert_int_equal(dbh.write_version, 2);
		assert_int_equal(dbh.read_version, 2);
		assert_int_equal((uint64_t)dbh.n_pages * page_size, len);
		assert_int_equal(db_header_parse(file, 99, &dbh, &err), -ERR_DAMAGED);
		file[3] ^= 1;
		assert_int_equal(db_header_parse(file, len, &dbh, &err), -ERR_DAMAGED);
		sqlite3_close(db);
		test_remove(root);
	}
}

/* The other byte order, and two chains at once: the same sums as one word after the other. */
static void test_sums(void **state)
{
	struct rng r = {test_seed()};
	uint8_t b[4096];

	for (unsigned i = 0; i < 200; i++) {
		size_t len = 8 * (size_t)rng_below(&r, sizeof(b) / 8 + 1);
		for (size_t k = 0; k < sizeof(b); k++)
			b[k] = (uint8_t)rng_next(&r);
		struct wal_cksum a = {(uint32_t)rng_next(&r), 1}, c = {3, (uint32_t)rng_next(&r)},
		                 a2 = a, c2 = c;
		wal_cksum_add(&a, b, len, false);
		wal_cksum_add(&c, b, len, false);
		wal_cksum_add2(&a2, &c2, b, len);
		assert_memory_equal(&a, &a2, sizeof(a));
		assert_memory_equal(&c, &c2, sizeof(c));
		struct wal_cksum le = {5, 6}, be = {5, 6};
		wal_cksum_add(&le, b, len, false);
		for (size_t k = 0; k < len; k += 4)
			store_be32(b + k, load_le32(b + k));
		wal_cksum_add(&be, b, len, true);
		assert_memory_equal(&le, &be, sizeof(le));
	}
	struct wal_header h = {.big_endian_cksum = true,
	                       .page_size = 65536,
	                       .sequence = 9,
	                       .salt1 = 1,
	                       .salt2 = 2},
	                  back;
	uint8_t out[WAL_HEADER_SIZE];
	struct err err = ERR_INIT;
	wal_header_write(&h, out);
	synth_must(wal_header_parse(out, sizeof(out), &back, &err), &err, "big-endian");
	assert_true(back.big_endian_cksum && back.page_size == 65536 && back.sequence == 9);
}

static void test_lock_page(void **state)
{
	assert_int_equal(lock_page(512), 2097153);
	assert_int_equal(lock_page(4096), 262145);
	assert_int_equal(lock_page(65536), 16385);
	assert_true(page_size_valid(512) && page_size_valid(65536));
	assert_false(page_size_valid(0) || page_size_valid(256) || page_size_valid(513) ||
	             page_size_valid(131072));
}

/* A segment's content is a WAL that SQLite takes. */
static void test_sqlite_takes_it(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	char path[300], command[800];
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct wal_header h;
	size_t len;
	unsigned commits;

	snprintf(path, sizeof(path), "%s/x.db", root);
	sqlite3 *db = make_wal(path, 1024, 30);
	cleanup_free uint8_t *wal = read_whole(dir, "x.db-wal", &len);
	uint64_t n = walk(wal, len, &h, &commits);
	synth_must(grow_create(dir, 1, 1, 1024, 1, &w, &err), &err, "grow_create");
	struct commit c = {.time_us = 1};
	for (uint64_t i = 1; i <= n; i++) {
		const uint8_t *p = wal + wal_frame_offset(i, 1024);
		synth_must(grow_frame(w, load_be32(p), load_be32(p + 4), p + 24, &err), &err,
		           "grow_frame");
		if (!load_be32(p + 4))
			continue;
		c.txid++;
		c.time_us++;
		c.n_pages = load_be32(p + 4);
		synth_must(grow_commit(w, &c, &err), &err, "grow_commit");
		struct source_position pos = {0};
		if (c.txid % 7 == 0)
			synth_must(grow_end_batch(w, &pos, true, &err), &err, "grow_end_batch");
	}
	struct source_position pos = {0};
	synth_must(grow_end_batch(w, &pos, true, &err), &err, "grow_end_batch");
	grow_writer_free(w);
	/* The database as it was before its first checkpoint is an empty file that is in WAL mode:
	 * what make_wal() left in the main file. */
	snprintf(
	        command, sizeof(command),
	        "cd %s && cp x.db y.db && gunzip -c 00000001-0000000000000001.wal.gz > y.db-wal && "
	        "sqlite3 y.db 'PRAGMA wal_checkpoint(TRUNCATE); PRAGMA integrity_check; SELECT "
	        "count(*) FROM t'",
	        root);
	size_t got;
	cleanup_free uint8_t *out = output_of(command, &got);
	assert_true(got > 0);
	if (!memmem(out, got, "ok\n30\n", 6))
		synth_die("sqlite3 said: %.*s", (int)got, (char *)out);
	sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
	sqlite3_close(db);
	snprintf(command, sizeof(command), "cd %s && cmp x.db y.db && echo same", root);
	free(out);
	out = output_of(command, &got);
	assert_memory_equal(out, "same\n", 5);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_real_wal),
	        cmocka_unit_test(test_sums),
	        cmocka_unit_test(test_lock_page),
	        cmocka_unit_test(test_sqlite_takes_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of the mount: its listings, attributes, status, and backups in it. */
#include "tests/lib/fake_tree.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

/* ---- listings ---- */

static size_t walk_all(struct fs_tree *t, uint64_t ino)
{
	struct fs_dir *dir;
	struct fs_dirent d;
	size_t n = 0;

	assert_int_equal(fs_dir_open(t, ino, &dir, NULL), 0);
	for (uint64_t cookie = 0;; cookie = d.cookie) {
		struct fs_entry e;
		assert_int_equal(fs_dir_next(dir, cookie, &d, NULL), 0);
		if (!d.name[0])
			break;
		if (!strcmp(d.name, ".") || !strcmp(d.name, ".."))
			continue;
		n++;
		assert_int_equal(fs_tree_lookup(t, ino, d.name, &e, NULL), 0);
		assert_int_equal(e.ino, d.ino);
		if (e.is_dir)
			n += walk_all(t, e.ino);
		fs_tree_forget(t, e.ino, 1);
	}
	fs_dir_close(dir);
	return n;
}

static void test_walk_is_bounded(void **state)
{
	static const struct {
		size_t n_dbs;
		uint64_t n;
		int64_t step_us;
	} rows[] = {
	        {1, 1, MINUTE},
	        {1, 100000000, US_PER_SECOND}, /* three years, one commit a second */
	        {1, 10000000, 1},              /* ten seconds */
	        {1, 40000000, 12 * MINUTE},    /* a thousand years */
	        {1, 200000, MINUTE},
	        {2, 10000000, 30 * US_PER_SECOND},
	        {7, 1000000, MINUTE},
	        {100, 1000000, MINUTE},
	        {1000, 1000000, MINUTE},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t k = 0; k < rows[i].n_dbs; k++) {
			char name[16];
			snprintf(name, sizeof(name), "%03u.db", (unsigned)k % 1000);
			set_db(f, k, name, rows[i].n, rows[i].step_us);
			f->dbs[k].first_us = START - (int64_t)rows[i].n * rows[i].step_us;
		}
		f->archive.n_dbs = rows[i].n_dbs;
		start(f, NULL);
		size_t n = walk_all(f->tree, FS_ROOT_INO);
		print_message("%zu databases of %llu commits: %zu entries\n", rows[i].n_dbs,
		              (unsigned long long)rows[i].n, n);
		assert_true(n <= 200000);
		assert_int_equal(fs_tree_count_nodes(f->tree), 1);
	}
}

static void test_listings(void **state)
{
	struct fixture *f = *state;
	size_t n;

	start(f, NULL);
	char *text = list(f, "tx/trades.db", &n);
	assert_int_equal(n, 100);
	assert_memory_equal(text, "1 11 21 31 ", 11);
	assert_non_null(strstr(text, " 1000"));
	free(text);
	text = list(f, "at", &n);
	assert_int_equal(n, 100);
	assert_memory_equal(text, "2024-01-15T10-30-00Z 2024-01-15T10-30-0", 39);
	assert_null(strchr(text, ':'));
	free(text);
	text = list(f, "history/trades.db/2024-01-15/10/31", &n);
	assert_int_equal(n, 100);
	assert_memory_equal(text, "10-31-00.000000Z.txid241.db ", 28);
	assert_non_null(strstr(text, "10-31-59.750000Z.txid480.db"));
	free(text);
}

static void test_list_all(void **state)
{
	struct fixture *f = *state;
	struct fs_tree_options options = {.list_all = true};
	size_t n;

	start(f, &options);
	char *text = list(f, "tx/trades.db", &n);
	assert_int_equal(n, 1000);
	assert_memory_equal(text, "1 2 3 4 5 6 7 8 9 10 11 ", 24);
	free(text);
	text = list(f, "history/trades.db/2024-01-15/10/31", &n);
	assert_int_equal(n, 240);
	assert_non_null(strstr(text, "10-31-00.250000Z.txid242.db"));
	free(text);
	text = list(f, "at", &n);
	/* users.db's first five coincide with commits of trades.db, which end before 10:34:10. */
	assert_int_equal(n, 1005);
	assert_non_null(strstr(text, " 2024-01-15T10-34-09.750Z 2024-01-15T10-35-00Z "));
	free(text);
}

static void test_rewind(void **state)
{
	struct fixture *f = *state;
	struct fs_entry e;
	struct fs_dir *dir;
	struct fs_dirent d;
	int n[2] = {0, 0};

	start(f, NULL);
	e = entry(f, "tx/users.db");
	assert_int_equal(fs_dir_open(f->tree, e.ino, &dir, NULL), 0);
	for (int round = 0; round < 2; round++) {
		for (uint64_t cookie = 0;; cookie = d.cookie) {
			assert_int_equal(fs_dir_next(dir, cookie, &d, NULL), 0);
			if (!d.name[0])
				break;
			n[round]++;
		}
		f->dbs[1].n += 3;
	}
	assert_int_equal(n[0], 12);
	assert_int_equal(n[1], 15);
	fs_dir_close(dir);
	fs_tree_forget(f->tree, e.ino, 1);
}

/* ---- attributes and status ---- */

static void assert_xattr(struct fixture *f, const char *path, const char *name, const char *want)
{
	char value[FS_XATTR_VALUE_MAX];
	struct fs_entry e = entry(f, path);
	int rc = fs_tree_xattr(f->tree, e.ino, name, value, NULL);

	fs_tree_forget(f->tree, e.ino, 1);
	if (!want) {
		assert_int_equal(rc, -ERR_NOT_FOUND);
		return;
	}
	assert_int_equal(rc, 0);
	assert_string_equal(value, want);
}

static void test_xattrs(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
	assert_xattr(f, "tx/trades.db/9", "user.asof.txid", "9");
	assert_xattr(f, "tx/trades.db/10", "user.asof.time", "2024-01-15T10:30:02.250Z");
	assert_xattr(f, "tx/trades.db/9", "user.asof.lineage", "1");
	assert_xattr(f, "tx/trades.db/9", "user.asof.page_size", "4096");
	assert_xattr(f, "tx/trades.db/9", "user.asof.journal_mode", "wal");
	assert_xattr(f, ".raw/tx/trades.db/9", "user.asof.journal_mode", "wal");
	assert_xattr(f, "tx/trades.db/9", "user.asof.provisional", "0");
	assert_xattr(f, "latest/trades.db", "user.asof.provisional", "1");
	assert_xattr(f, "tx/trades.db/9", "user.asof.uncertain_us", "250000");
	assert_xattr(f, "tx/trades.db/1", "user.asof.uncertain_us", NULL);
	assert_xattr(f, "tx/trades.db/1", "user.asof.x", NULL);
	assert_xattr(f, "tx/trades.db/1", "security.capability", NULL);
	assert_xattr(f, "tx/trades.db/1", "system.posix_acl_access", NULL);
	assert_xattr(f, "README", "user.asof.txid", NULL);
	assert_xattr(f, "latest", "user.asof.txid", NULL);
	assert_xattr(f, "at/@1705314602", "user.asof.time", "2024-01-15T10:30:02Z");
	size_t n = 0;
	while (fs_tree_xattr_name(n))
		n++;
	assert_int_equal(n, 7);
}

static void test_status(void **state)
{
	struct fixture *f = *state;
	size_t len;

	f->dbs[1].gap_from_us = START + 2 * MINUTE;
	f->dbs[1].gap_to_us = START + 3 * MINUTE;
	set_db(f, 2, "empty.db", 0, MINUTE);
	start(f, NULL);
	assert_list(f, "latest", "trades.db users.db");
	char *text = content(f, ".asof/status.json", &len);
	json_t *root = json_loads(text, 0, NULL);
	assert_non_null(root);
	json_t *dbs = json_object_get(root, "databases");
	assert_int_equal(json_array_size(dbs), 3);
	assert_true(json_is_null(json_object_get(json_array_get(dbs, 0), "last")));
	json_t *users = json_array_get(dbs, 2);
	assert_string_equal(json_string_value(json_object_get(users, "name")), "users.db");
	assert_int_equal(json_array_size(json_object_get(users, "gaps")), 1);
	assert_int_equal(
	        json_integer_value(json_object_get(json_object_get(users, "last"), "txid")), 10);
	json_decref(root);
	free(text);
	/* What is open does not change; a second later there is another file. */
	uint64_t ino = ino_of(f, ".asof/status.json");
	clock_sleep_us(1100000);
	assert_true(ino_of(f, ".asof/status.json") != ino);
}

/* ---- backups ---- */

static void write_file(struct fixture *f, const char *name, const void *p, size_t len)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", f->root, name);
	*strrchr(path, '/') = 0;
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/%s", f->root, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, len), len);
	close(fd);
}

/* A gzip file of `n_members` members; returns its length. */
static size_t gzip(const uint8_t *p, size_t len, size_t n_members, uint8_t *out, size_t room)
{
	size_t done = 0, used = 0;

	for (size_t i = 0; i < n_members; i++) {
		size_t part = i + 1 < n_members ? len / n_members : len - done;
		z_stream z = {.next_in = (Bytef *)(uintptr_t)(p + done),
		              .avail_in = (uInt)part,
		              .next_out = out + used,
		              .avail_out = (uInt)(room - used)};
		assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
		assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
		used += z.total_out;
		done += part;
		deflateEnd(&z);
	}
	return used;
}

/* A database of 300 pages, as its header says. */
static uint8_t *fake_database(size_t *ret_len)
{
	size_t len = 300 * 4096;
	uint8_t *p = malloc(len);
	uint32_t s = 1;

	for (size_t i = 0; i < len; i++) {
		s = s * 1664525 + 1013904223;
		p[i] = (uint8_t)(s >> 24 & 0x1f);
	}
	memset(p, 0, 100);
	memcpy(p, "SQLite format 3", 16);
	p[16] = 0x10;
	p[18] = p[19] = 2;
	p[27] = p[95] = 9;
	p[30] = 300 >> 8;
	p[31] = 300 & 255;
	*ret_len = len;
	return p;
}

static void assert_backup(struct fixture *f, const char *path, const uint8_t *want, size_t len)
{
	size_t got;
	char *text = content(f, path, &got);

	assert_int_equal(got, len);
	assert_true(text[18] == 1 && text[19] == 1);
	assert_memory_equal(text, want, 18);
	assert_memory_equal(text + 20, want + 20, len - 20);
	free(text);
}

static void test_backups(void **state)
{
	struct fixture *f = *state;
	size_t len, room = 2 << 20;
	uint8_t *db = fake_database(&len), *gz = malloc(room);
	char path[64];

	write_file(f, "manual/plain_20240115_143000.db", db, len);
	size_t n = gzip(db, len, 1, gz, room);
	write_file(f, "manual/one_20240115_143000.db.gz", gz, n);
	write_file(f, "manual/plain_20240115_143000.db.gz", gz, n);
	gz[n / 2] ^= 4;
	write_file(f, "safety/bad_20240117_000000.db.gz", gz, n);
	write_file(f, "safety/cut_20240117_000000.db.gz", gz, n / 3);
	gz[n / 2] ^= 4;
	write_file(f, "manual/manifest_20240115_143000.json", "{}", 2);
	write_file(f, "manual/two.db.gz.tmp", "x", 1);
	n = gzip(db, len, 3, gz, room);
	write_file(f, "automated/many_20240116_000000.db.gz", gz, n);
	write_file(f, "automated/undated.db", db, len);
	write_file(f, "compressed/x_20240101_000000.db.gz", "garbage garbage garbage", 23);
	n = gzip(db, 4096, 1, gz, room);
	/* A header that says more pages than there are. */
	write_file(f, "automated/lies_20240118_000000.db.gz", gz, n);

	start(f, NULL);
	assert_list(f, "manual", "2024-01-15");
	assert_list(f, "manual/2024-01-15", "one_20240115_143000.db plain_20240115_143000.db");
	assert_backup(f, "manual/2024-01-15/plain_20240115_143000.db", db, len);
	assert_backup(f, "manual/2024-01-15/one_20240115_143000.db", db, len);
	assert_backup(f, "automated/2024-01-16/many_20240116_000000.db", db, len);
	assert_int_equal(entry(f, "automated/2024-01-18/lies_20240118_000000.db").size, 4096);
	assert_missing(f, "manual/2024-01-16", ERR_NOT_FOUND);
	assert_missing(f, "manual/2024-01-15/none.db", ERR_NOT_FOUND);
	assert_missing(f, "manual/2024-01-15/one_20240115_143000.db.gz", ERR_NOT_FOUND);
	assert_missing(f, "manual/2024-01-15/manifest_20240115_143000.json", ERR_NOT_FOUND);
	char *text = list(f, "automated", NULL);
	assert_non_null(strstr(text, "2024-01-16 2024-01-18 "));
	snprintf(path, sizeof(path), "automated/%s/undated.db", strrchr(text, ' ') + 1);
	free(text);
	assert_backup(f, path, db, len);

	/* Damage: an error, never other bytes. */
	struct fs_entry e;
	struct err err = ERR_INIT;
	struct fs_file *file;
	uint8_t buf[4096];
	size_t got;
	e = entry(f, "safety/2024-01-17/bad_20240117_000000.db");
	assert_int_equal(fs_file_open(f->tree, e.ino, &file, &err), 0);
	assert_int_equal(fs_file_read(file, 0, buf, sizeof(buf), &got, &err), -ERR_DAMAGED);
	assert_non_null(strstr(err.msg, "bad_20240117_000000.db.gz"));
	fs_file_close(file);
	assert_int_equal(walk_to(f->tree, "safety/2024-01-17/cut_20240117_000000.db", &e, &err),
	                 -ERR_DAMAGED);
	assert_int_equal(walk_to(f->tree, "compressed/2024-01-01/x_20240101_000000.db", &e, &err),
	                 -ERR_DAMAGED);

	/* Another file of the same name is another file. */
	uint64_t ino = ino_of(f, "manual/2024-01-15/plain_20240115_143000.db");
	write_file(f, "manual/plain_20240115_143000.db", db, len - 4096);
	assert_true(ino_of(f, "manual/2024-01-15/plain_20240115_143000.db") != ino);
	free(db);
	free(gz);
}

static void test_many_backups(void **state)
{
	struct fixture *f = *state;
	char name[64];

	for (int i = 0; i < 2500; i++) {
		snprintf(name, sizeof(name), "safety/x_%04d0101_000000.db", 1000 + i);
		write_file(f, name, "x", 1);
	}
	start(f, NULL);
	struct fs_entry e = entry(f, "safety");
	assert_int_equal(walk_all(f->tree, e.ino), 4000);
	ino_of(f, "safety/1000-01-01/x_10000101_000000.db");
	fs_tree_forget(f->tree, e.ino, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_walk_is_bounded), CASE(test_listings),     CASE(test_list_all),
	        CASE(test_rewind),          CASE(test_xattrs),       CASE(test_status),
	        CASE(test_backups),         CASE(test_many_backups),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of the mount: what is where, and what it holds. */
#include "tests/lib/fake_tree.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the tree ---- */

static void test_root(void **state)
{
	struct fixture *f = *state;
	size_t len;

	start(f, NULL);
	assert_list(f, "",
	            "README latest at tx history marks manual automated safety compressed .asof");
	assert_list(f, ".raw", "latest at tx history marks");
	assert_list(f, "marks", "");
	assert_list(f, "manual", "");
	assert_list(f, "latest", "trades.db users.db");
	assert_list(f, "tx", "trades.db users.db");
	assert_list(f, "at/2024-01-15T10-30-01Z", "trades.db users.db");
	assert_list(f, "tx/users.db", "1 2 3 4 5 6 7 8 9 10");
	assert_list(f, "history/users.db", "2024-01-15");
	assert_list(f, "history/users.db/2024-01-15", "10");
	assert_list(f, "history/users.db/2024-01-15/10", "30 31 32 33 34 35 36 37 38 39");
	assert_list(f, "history/users.db/2024-01-15/10/35", "10-35-00.000000Z.txid6.db");
	char *text = content(f, "README", &len);
	assert_non_null(strstr(text, f->root));
	free(text);
	assert_missing(f, "nothing", ERR_NOT_FOUND);
	assert_missing(f, ".raw/README", ERR_NOT_FOUND);
	assert_missing(f, "latest/none.db", ERR_NOT_FOUND);
	assert_missing(f, "marks/x", ERR_NOT_FOUND);
	assert_missing(f, ".asof/x", ERR_NOT_FOUND);
}

/* A mark is a folder of the databases that have it; its file is that of the commit. */
static void test_marks(void **state)
{
	static const struct mark trades[] = {
	        {"before", 7, 0, 1}, {"both", 9, 0, 2}, {"gone", 3, 0, 3}};
	static const struct mark users[] = {{"a b", 2, 0, 4}, {"both", 5, 0, 5}};
	static const struct mark later[] = {{"both", 6, 0, 6}};
	struct fixture *f = *state;

	f->dbs[0].marks = trades;
	f->dbs[0].n_marks = 3;
	f->dbs[1].marks = users;
	f->dbs[1].n_marks = 2;
	f->dbs[0].first = 5; /* what one of them names is no more */
	start(f, NULL);
	assert_list(f, "marks", "a b before both gone");
	assert_list(f, ".raw/marks", "a b before both gone");
	assert_list(f, "marks/both", "trades.db users.db");
	assert_list(f, "marks/before", "trades.db");
	assert_list(f, "marks/gone", "");
	assert_int_equal(entry(f, "marks/both/trades.db").ino, entry(f, "tx/trades.db/9").ino);
	assert_int_equal(entry(f, "marks/both/users.db").ino, entry(f, "tx/users.db/5").ino);
	assert_int_equal(entry(f, ".raw/marks/both/users.db").ino,
	                 entry(f, ".raw/tx/users.db/5").ino);
	assert_true(entry(f, "marks/both/users.db").entry_timeout_s <= FS_MOVING_S);
	assert_missing(f, "marks/before/users.db", ERR_NOT_FOUND);
	assert_missing(f, "marks/gone/trades.db", ERR_NOT_FOUND);
	assert_missing(f, "marks/none", ERR_NOT_FOUND);
	/* The name moves to another number; the folder stays, as one may stand in it. */
	uint64_t folder = entry(f, "marks/both").ino;
	f->dbs[1].marks = later;
	f->dbs[1].n_marks = 1;
	assert_int_equal(entry(f, "marks/both").ino, folder);
	assert_int_equal(entry(f, "marks/both/users.db").ino, entry(f, "tx/users.db/6").ino);
	assert_missing(f, "marks/a b", ERR_NOT_FOUND);
	f->dbs[0].first = 0;
}

/* The newest of many, so that a walk of the whole mount ends. */
static void test_many_marks(void **state)
{
	struct fixture *f = *state;
	const struct fs_tree_options all = {.list_all = true};
	size_t n = 5000, listed;
	struct mark *marks = calloc(n, sizeof(*marks));

	assert_non_null(marks);
	for (size_t i = 0; i < n; i++) {
		snprintf(marks[i].name, sizeof(marks[i].name), "m%05zu", i);
		marks[i].txid = 1 + i % 10;
		marks[i].made_us = (int64_t)(n - i); /* the first ones were made last */
	}
	f->dbs[0].marks = marks;
	f->dbs[0].n_marks = n;
	start(f, NULL);
	char *names = list(f, "marks", &listed);
	assert_true(listed >= 1000 && listed <= 2000);
	assert_int_equal(strncmp(names, "m00000 ", 7), 0);
	free(names);
	assert_int_equal(entry(f, "marks/m04999/trades.db").ino, entry(f, "tx/trades.db/10").ino);
	start(f, &all);
	names = list(f, "marks", &listed);
	assert_int_equal(listed, n);
	free(names);
	f->dbs[0].n_marks = 0;
	free(marks);
}

/* Retention deletes what is read: who has it open goes on. */
static void test_open_file_outlives_its_moment(void **state)
{
	struct fixture *f = *state;
	struct fs_file *file;
	struct fs_entry e, again;
	struct err err = ERR_INIT;
	uint8_t buf[100];
	size_t n;

	start(f, NULL);
	e = entry(f, "tx/trades.db/4");
	assert_int_equal(fs_file_open(f->tree, e.ino, &file, &err), 0);
	f->dbs[0].first = 100;
	assert_int_equal(fs_tree_getattr(f->tree, e.ino, &again, &err), 0);
	assert_int_equal(again.size, e.size);
	assert_int_equal(again.mtime_us, e.mtime_us);
	assert_int_equal(fs_file_read(file, 4096, buf, sizeof(buf), &n, &err), 0);
	assert_int_equal(n, sizeof(buf));
	fs_file_close(file);
	f->dbs[0].first = 0;
}

static void test_same_commit_same_number(void **state)
{
	struct fixture *f = *state;
	static const char *const same[] = {
	        "at/2024-01-15T10:30:02Z/trades.db",
	        "at/2024-01-15T10-30-02.1Z/trades.db",
	        "at/2024-01-15 12:30:02+02:00/trades.db",
	        "at/20240115T103002.249999Z/trades.db",
	        "at/@1705314602/trades.db",
	        "tx/trades.db/9",
	        "history/trades.db/2024-01-15/10/30/10-30-02.000000Z.txid9.db",
	};

	start(f, NULL);
	uint64_t ino = ino_of(f, same[0]), raw = ino_of(f, ".raw/tx/trades.db/9");
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_int_equal(ino_of(f, same[i]), ino);
		char path[FS_NAME_MAX];
		snprintf(path, sizeof(path), ".raw/%s", same[i]);
		assert_int_equal(ino_of(f, path), raw);
	}
	assert_true(raw != ino);
	assert_int_equal(ino_of(f, "latest/trades.db"), ino_of(f, "tx/trades.db/1000"));
	assert_true(ino_of(f, "tx/users.db/9") != ino);
	assert_true(ino_of(f, "tx/trades.db/10") != ino);
	/* The same after a remount, and nothing is kept for it. */
	start(f, NULL);
	assert_int_equal(ino_of(f, same[0]), ino);
	assert_int_equal(fs_tree_count_nodes(f->tree), 1);
}

static void test_folders_differ(void **state)
{
	struct fixture *f = *state;
	static const char *const paths[] = {"",
	                                    "latest",
	                                    "at",
	                                    "tx",
	                                    "history",
	                                    "marks",
	                                    ".raw/marks",
	                                    "manual",
	                                    "safety",
	                                    ".raw",
	                                    ".raw/at",
	                                    ".raw/latest",
	                                    ".asof",
	                                    "at/2024-01-15T10:30:02Z",
	                                    "at/2024-01-15T10-30-02Z",
	                                    "at/@1705314602",
	                                    ".raw/at/@1705314602",
	                                    "tx/trades.db",
	                                    "history/trades.db",
	                                    "history/trades.db/2024-01-15",
	                                    "history/users.db/2024-01-15",
	                                    "history/users.db/2024-01-15/10",
	                                    "history/users.db/2024-01-15/10/31"};
	enum { N = sizeof(paths) / sizeof(paths[0]) };
	uint64_t ino[N];

	start(f, NULL);
	for (size_t i = 0; i < N; i++) {
		struct fs_entry e = entry(f, paths[i]);
		assert_true(e.is_dir);
		ino[i] = e.ino;
		for (size_t k = 0; k < i; k++)
			assert_true(ino[k] != ino[i]);
	}
	assert_true(fs_tree_count_nodes(f->tree) >= N);
	for (size_t i = 1; i < N; i++)
		fs_tree_forget(f->tree, ino[i], 1);
	assert_int_equal(fs_tree_count_nodes(f->tree), 1);
}

static void test_attributes(void **state)
{
	struct fixture *f = *state;
	struct fs_entry e, again;

	start(f, NULL);
	e = entry(f, "tx/trades.db/9");
	assert_false(e.is_dir);
	assert_int_equal(e.size, (10 + 9 % 7) * FAKE_PAGE);
	assert_int_equal(e.mtime_us, START + 8 * 250000);
	assert_true(e.entry_timeout_s >= 3600 && e.attr_timeout_s >= 3600);
	assert_int_equal(fs_tree_getattr(f->tree, e.ino, &again, NULL), 0);
	assert_int_equal(again.size, e.size);
	assert_int_equal(again.mtime_us, e.mtime_us);
	e = entry(f, "at/2024-01-15T10:30:02Z");
	assert_int_equal(e.mtime_us, START + 2 * US_PER_SECOND);
	assert_true(e.entry_timeout_s >= 3600);
	fs_tree_forget(f->tree, e.ino, 1);
	assert_int_equal(fs_tree_getattr(f->tree, 12345, &again, NULL), -ERR_NOT_FOUND);
}

static void test_content(void **state)
{
	struct fixture *f = *state;
	struct fs_entry e, raw;
	struct fs_file *file, *raw_file;
	uint8_t buf[64];
	size_t got;

	start(f, NULL);
	e = entry(f, "tx/trades.db/9");
	raw = entry(f, ".raw/tx/trades.db/9");
	assert_int_equal(fs_file_open(f->tree, e.ino, &file, NULL), 0);
	assert_int_equal(fs_file_open(f->tree, raw.ino, &raw_file, NULL), 0);
	assert_int_equal(fs_file_read(file, 0, buf, 32, &got, NULL), 0);
	assert_memory_equal(buf, "SQLite format 3", 16);
	assert_true(buf[18] == 1 && buf[19] == 1);
	assert_int_equal(fs_file_read(raw_file, 0, buf, 32, &got, NULL), 0);
	assert_true(buf[18] == 2 && buf[19] == 2);
	assert_int_equal(fs_file_read(file, e.size - 10, buf, 64, &got, NULL), 0);
	assert_int_equal(got, 10);
	assert_int_equal(fs_file_read(file, e.size, buf, 64, &got, NULL), 0);
	assert_int_equal(got, 0);
	assert_int_equal(fs_file_read(file, e.size + 12345, buf, 64, &got, NULL), 0);
	assert_int_equal(got, 0);
	fs_file_close(file);
	fs_file_close(raw_file);
	/* One view for all that open the commit. */
	assert_int_equal(f->dbs[0].n_opens, 1);
	assert_int_equal(fs_tree_count_views(f->tree), 1);
	assert_int_equal(fs_file_open(f->tree, FS_ROOT_INO, &file, NULL), -ERR_USAGE);
}

static void test_views_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct fs_tree_options options = {.max_idle_views = 8};
	struct fs_file *file;
	char path[64];

	start(f, &options);
	for (int round = 0; round < 2; round++) {
		for (int i = 1; i <= 100; i++) {
			snprintf(path, sizeof(path), "tx/trades.db/%d", i);
			assert_int_equal(fs_file_open(f->tree, ino_of(f, path), &file, NULL), 0);
			fs_file_close(file);
			assert_true(fs_tree_count_views(f->tree) <= 8);
		}
	}
	assert_int_equal(f->dbs[0].n_opens, 200);
	assert_int_equal(fs_file_open(f->tree, ino_of(f, "tx/trades.db/100"), &file, NULL), 0);
	fs_file_close(file);
	assert_int_equal(f->dbs[0].n_opens, 200);
}

static void test_missing(void **state)
{
	struct fixture *f = *state;
	struct fs_entry e;

	f->dbs[1].gap_from_us = START + 2 * MINUTE;
	f->dbs[1].gap_to_us = START + 3 * MINUTE;
	start(f, NULL);
	assert_missing(f, "at/garbage", ERR_NOT_FOUND);
	assert_missing(f, "at/2024-13-01", ERR_NOT_FOUND);
	assert_missing(f, "at/2024-01-15T10:29:59.999999Z", ERR_NOT_FOUND);
	assert_missing(f, "at/9999-01-01", ERR_NOT_FOUND);
	assert_missing(f, "at/2024-01-15T10:32:30Z/users.db", ERR_GAP);
	assert_int_equal(ino_of(f, "at/2024-01-15T10:32:00Z/users.db"), ino_of(f, "tx/users.db/3"));
	assert_missing(f, "at/2024-01-15T10:32:30Z/none.db", ERR_NOT_FOUND);
	assert_list(f, "at/2024-01-15T10:32:30Z", "trades.db");
	assert_missing(f, "tx/none.db", ERR_NOT_FOUND);
	assert_missing(f, "tx/trades.db/0", ERR_NOT_FOUND);
	assert_missing(f, "tx/trades.db/1001", ERR_NOT_FOUND);
	assert_missing(f, "tx/trades.db/x", ERR_NOT_FOUND);
	assert_missing(f, "history/trades.db/2024-01-16", ERR_NOT_FOUND);
	assert_missing(f, "history/trades.db/2024-01-15/09", ERR_NOT_FOUND);
	assert_missing(f, "history/trades.db/2024-01-15/10/29", ERR_NOT_FOUND);
	assert_missing(f, "history/users.db/2024-01-15/10/30/10-31-00.000000Z.txid2.db",
	               ERR_NOT_FOUND);
	assert_missing(f, "history/users.db/2024-01-15/10/31/10-30-00.000000Z.txid2.db",
	               ERR_NOT_FOUND);
	/* What SQLite looks for is known to be missing, whatever the folder. */
	static const char *const sidecars[] = {
	        "latest/trades.db-wal",        "latest/trades.db-journal", "tx/trades.db/9-wal",
	        "at/@1705314602/users.db-shm", "history/none-wal",         "trades.db-journal"};
	for (size_t i = 0; i < sizeof(sidecars) / sizeof(sidecars[0]); i++) {
		e = entry(f, sidecars[i]);
		assert_int_equal(e.ino, 0);
		assert_true(e.entry_timeout_s >= 3600);
	}
}

static void test_provisional(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
	struct fs_entry e = entry(f, "at/2025-01-01/trades.db");
	assert_int_equal(e.ino, ino_of(f, "tx/trades.db/1000"));
	assert_true(e.entry_timeout_s <= 0);
	assert_true(e.attr_timeout_s >= 3600);
	e = entry(f, "at/2025-01-01");
	assert_true(e.entry_timeout_s <= 1.0);
	fs_tree_forget(f->tree, e.ino, 1);
	f->dbs[0].known_until_us = INT64_MAX;
	e = entry(f, "at/2025-01-01/trades.db");
	assert_true(e.entry_timeout_s >= 3600);
}

static void test_latest_is_a_set(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
	struct fs_entry e = entry(f, "latest/trades.db");
	uint64_t before = e.ino;
	assert_true(e.entry_timeout_s <= 1.0);
	f->dbs[0].n++;
	f->dbs[1].n++;
	/* Within the second neither moves. */
	assert_int_equal(ino_of(f, "latest/trades.db"), before);
	assert_int_equal(ino_of(f, "latest/users.db"), ino_of(f, "tx/users.db/10"));
	clock_sleep_us(1100000);
	assert_int_equal(ino_of(f, "latest/trades.db"), ino_of(f, "tx/trades.db/1001"));
	assert_int_equal(ino_of(f, "latest/users.db"), ino_of(f, "tx/users.db/11"));
	/* A database that appears is there within a second. */
	set_db(f, 2, "late.db", 5, MINUTE);
	clock_sleep_us(1100000);
	assert_list(f, "latest", "late.db trades.db users.db");
	assert_int_equal(ino_of(f, "latest/late.db"), ino_of(f, "tx/late.db/5"));
}

static void test_relative(void **state)
{
	struct fixture *f = *state;

	f->dbs[0].first_us = clock_now_us() - 1000 * 250000;
	f->dbs[0].known_until_us = INT64_MAX;
	start(f, NULL);
	struct fs_entry e = entry(f, "at/-1m");
	assert_true(e.entry_timeout_s <= 1.0);
	assert_int_equal(ino_of(f, "at/-1m"), e.ino);
	assert_int_equal(e.mtime_us / MINUTE, (clock_now_us() - MINUTE) / MINUTE);
	struct fs_entry child;
	assert_int_equal(fs_tree_lookup(f->tree, e.ino, "trades.db", &child, NULL), 0);
	assert_true(child.entry_timeout_s >= 3600);
	clock_sleep_us(1100000);
	/* Another second, another folder; who is in the old one stays where he was. */
	assert_true(ino_of(f, "at/-1m") != e.ino);
	struct fs_entry same;
	assert_int_equal(fs_tree_lookup(f->tree, e.ino, "trades.db", &same, NULL), 0);
	assert_int_equal(same.ino, child.ino);
	fs_tree_forget(f->tree, e.ino, 1);
	assert_int_equal(ino_of(f, "at/now/trades.db"), ino_of(f, "tx/trades.db/1000"));
	assert_missing(f, "at/-2000w", ERR_NOT_FOUND);
}

static void test_damage(void **state)
{
	struct fixture *f = *state;
	struct fs_file *file;
	struct err err = ERR_INIT;
	uint8_t buf[16];
	size_t got;

	f->dbs[0].damaged_txid = 9;
	start(f, NULL);
	assert_int_equal(fs_file_open(f->tree, ino_of(f, "tx/trades.db/9"), &file, NULL), 0);
	assert_int_equal(fs_file_read(file, 0, buf, 16, &got, &err), -ERR_DAMAGED);
	assert_int_equal(err_errno(err.kind), EIO);
	fs_file_close(file);
	/* One database that cannot be opened keeps no other from view. */
	f->dbs[1].refuses_open = true;
	log_set_fd(-1);
	start(f, NULL);
	assert_list(f, "latest", "trades.db");
	struct fs_entry e;
	assert_int_equal(walk_to(f->tree, "tx/users.db", &e, &err), -ERR_DAMAGED);
	f->dbs[1].refuses_open = false;
	ino_of(f, "tx/users.db/3");
	log_set_fd(2);
}

static void test_large_numbers(void **state)
{
	struct fixture *f = *state;

	/* Two databases that share an id, and txids past what a number holds. */
	f->dbs[0].id = f->dbs[1].id = UINT32_MAX;
	f->dbs[1].n = UINT64_C(1) << 41;
	f->dbs[1].step_us = 1;
	start(f, NULL);
	uint64_t a = ino_of(f, "tx/trades.db/9");
	assert_true(a != ino_of(f, "tx/trades.db/10"));
	assert_int_equal(ino_of(f, "at/@1705314602/trades.db"), a);
	assert_true(ino_of(f, ".raw/tx/trades.db/9") != a);
	struct fs_entry e = entry(f, "tx/trades.db/9"), again;
	assert_int_equal(fs_tree_getattr(f->tree, e.ino, &again, NULL), 0);
	assert_int_equal(again.size, e.size);
	char *text = list(f, "tx/trades.db", NULL);
	free(text);
	fs_tree_forget(f->tree, e.ino, 1);
	e = entry(f, "tx/users.db/2199023255552");
	assert_int_equal(entry(f, "latest/users.db").ino, e.ino);
	fs_tree_forget(f->tree, e.ino, 2);
	assert_true(ino_of(f, "tx/users.db/9") != ino_of(f, "tx/trades.db/9"));
	assert_int_equal(fs_tree_count_nodes(f->tree), 1);
}

/* ---- threads ---- */

struct worker {
	struct fixture *f;
	pthread_t thread;
	uint64_t s;
	bool failed;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	static const char *const paths[] = {
	        "at/@1705314602/trades.db",
	        "latest/trades.db",
	        "latest/users.db",
	        "tx/trades.db/9",
	        "at/-5m",
	        "history/trades.db/2024-01-15/10/31/10-31-00.000000Z.txid241.db",
	        "README",
	        ".asof/status.json",
	        "tx/users.db/3"};

	for (int i = 0; i < 3000; i++) {
		struct fs_entry e;
		struct fs_file *file;
		char buf[256];
		size_t got;
		w->s = w->s * 6364136223846793005u + 1442695040888963407u;
		const char *path = paths[(w->s >> 33) % (sizeof(paths) / sizeof(paths[0]))];
		if (walk_to(w->f->tree, path, &e, NULL) < 0) {
			w->failed = true;
			continue;
		}
		if (!e.is_dir) {
			if (fs_file_open(w->f->tree, e.ino, &file, NULL) < 0) {
				w->failed = true;
				continue;
			}
			if (fs_file_read(file, 100, buf, sizeof(buf), &got, NULL) < 0 || got < 256)
				w->failed = true;
			fs_file_close(file);
		} else {
			struct fs_dir *dir;
			if (fs_dir_open(w->f->tree, e.ino, &dir, NULL) < 0)
				w->failed = true;
			else
				fs_dir_close(dir);
		}
		fs_tree_forget(w->f->tree, e.ino, 1);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	struct fs_tree_options options = {.max_idle_views = 2};
	struct worker workers[8];

	start(f, &options);
	for (size_t i = 0; i < 8; i++) {
		workers[i] = (struct worker){.f = f, .s = i * 7919 + 1};
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (size_t i = 0; i < 8; i++) {
		pthread_join(workers[i].thread, NULL);
		assert_false(workers[i].failed);
	}
	assert_int_equal(fs_tree_count_nodes(f->tree), 1);
	assert_true(fs_tree_count_views(f->tree) <= 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_root),
	        CASE(test_marks),
	        CASE(test_many_marks),
	        CASE(test_open_file_outlives_its_moment),
	        CASE(test_same_commit_same_number),
	        CASE(test_folders_differ),
	        CASE(test_attributes),
	        CASE(test_content),
	        CASE(test_views_are_bounded),
	        CASE(test_missing),
	        CASE(test_provisional),
	        CASE(test_latest_is_a_set),
	        CASE(test_relative),
	        CASE(test_damage),
	        CASE(test_large_numbers),
	        CASE(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of the mount, unmounted, over histories that are made up. */
#include "fs/tree.h"
#include "tests/lib/fake_history.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#define MINUTE (60 * US_PER_SECOND)
/* 2024-01-15T10:30:00Z */
#define START INT64_C(1705314600000000)
#define MAX_DBS 1000

struct fixture {
	struct archive archive;
	struct history dbs[MAX_DBS];
	char names[MAX_DBS][16];
	char root[32];
	struct fs_tree *tree;
};

static void set_db(struct fixture *f, size_t i, const char *name, uint64_t n, int64_t step_us)
{
	snprintf(f->names[i], sizeof(f->names[i]), "%s", name);
	f->dbs[i] = (struct history){.name = f->names[i],
	                             .id = (uint32_t)i + 1,
	                             .n = n,
	                             .first_us = START,
	                             .step_us = step_us,
	                             .known_until_us = START + (int64_t)n * step_us};
	if (f->archive.n_dbs <= i)
		f->archive.n_dbs = i + 1;
}

/* trades.db: 1,000 commits, one every 250 ms; users.db: 10, one a minute. */
static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->root, "/tmp/asof-fstree-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	f->archive.root = f->root;
	f->archive.dbs = f->dbs;
	set_db(f, 0, "trades.db", 1000, 250000);
	set_db(f, 1, "users.db", 10, MINUTE);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[64];

	fs_tree_free(f->tree);
	snprintf(command, sizeof(command), "rm -rf %s", f->root);
	(void)!system(command);
	free(f);
	return 0;
}

static void start(struct fixture *f, const struct fs_tree_options *options)
{
	struct err err = ERR_INIT;

	fs_tree_free(f->tree);
	f->tree = NULL;
	if (fs_tree_new(&f->archive, options, &f->tree, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Walks a path; gives back the look-ups of the folders on it. */
static int walk_to(struct fs_tree *t, const char *path, struct fs_entry *ret, struct err *err)
{
	uint64_t dir = FS_ROOT_INO;
	char part[FS_NAME_MAX];

	*ret = (struct fs_entry){.ino = dir, .is_dir = true};
	while (*path) {
		size_t n = strcspn(path, "/");
		memcpy(part, path, n);
		part[n] = 0;
		path += n + (path[n] == '/');
		int rc = fs_tree_lookup(t, dir, part, ret, err);
		if (dir != FS_ROOT_INO)
			fs_tree_forget(t, dir, 1);
		if (rc < 0)
			return rc;
		dir = ret->ino;
	}
	return 0;
}

static struct fs_entry entry(struct fixture *f, const char *path)
{
	struct err err = ERR_INIT;
	struct fs_entry e;

	if (walk_to(f->tree, path, &e, &err) < 0)
		fail_msg("%s: %s", path, err.msg);
	return e;
}

/* The number behind a path, whose look-up is given back. */
static uint64_t ino_of(struct fixture *f, const char *path)
{
	uint64_t ino = entry(f, path).ino;

	fs_tree_forget(f->tree, ino, 1);
	return ino;
}

static void assert_missing(struct fixture *f, const char *path, enum err_kind kind)
{
	struct err err = ERR_INIT;
	struct fs_entry e;

	if (walk_to(f->tree, path, &e, &err) == 0)
		fail_msg("%s is there", path);
	if (err.kind != kind)
		fail_msg("%s: %s: %s", path, err_kind_name(err.kind), err.msg);
	assert_int_equal(err_errno(err.kind), ENOENT);
}

/* The names of a folder joined by blanks; free(). */
static char *list(struct fixture *f, const char *path, size_t *ret_n)
{
	struct fs_entry e = entry(f, path);
	struct fs_dir *dir;
	struct fs_dirent d;
	struct err err = ERR_INIT;
	size_t n = 0, len = 0, cap = 1 << 16;
	char *text = calloc(1, cap);

	if (fs_dir_open(f->tree, e.ino, &dir, &err) < 0)
		fail_msg("%s: %s", path, err.msg);
	for (uint64_t cookie = 0;; cookie = d.cookie) {
		assert_int_equal(fs_dir_next(dir, cookie, &d, &err), 0);
		if (!d.name[0])
			break;
		if (d.name[0] == '.' && (!d.name[1] || !strcmp(d.name, "..")))
			continue;
		struct fs_entry child;
		if (fs_tree_lookup(f->tree, e.ino, d.name, &child, &err) < 0)
			fail_msg("%s/%s is listed: %s", path, d.name, err.msg);
		assert_int_equal(child.ino, d.ino);
		assert_int_equal(child.is_dir, d.is_dir);
		fs_tree_forget(f->tree, child.ino, 1);
		if (len + FS_NAME_MAX > cap)
			assert_non_null(text = realloc(text, cap *= 2));
		len += (size_t)snprintf(text + len, cap - len, "%s%s", n ? " " : "", d.name);
		n++;
	}
	fs_dir_close(dir);
	fs_tree_forget(f->tree, e.ino, 1);
	if (ret_n)
		*ret_n = n;
	return text;
}

static void assert_list(struct fixture *f, const char *path, const char *want)
{
	char *text = list(f, path, NULL);
	assert_string_equal(text, want);
	free(text);
}

static char *content(struct fixture *f, const char *path, size_t *ret_len)
{
	struct fs_entry e = entry(f, path);
	struct err err = ERR_INIT;
	struct fs_file *file;
	char *text = malloc((size_t)e.size + 2);

	if (fs_file_open(f->tree, e.ino, &file, &err) < 0 ||
	    fs_file_read(file, 0, text, (size_t)e.size + 1, ret_len, &err) < 0)
		fail_msg("%s: %s", path, err.msg);
	fs_file_close(file);
	fs_tree_forget(f->tree, e.ino, 1);
	assert_int_equal(*ret_len, e.size);
	text[*ret_len] = 0;
	return text;
}

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

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

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
	        CASE(test_walk_is_bounded),
	        CASE(test_listings),
	        CASE(test_list_all),
	        CASE(test_rewind),
	        CASE(test_xattrs),
	        CASE(test_status),
	        CASE(test_backups),
	        CASE(test_many_backups),
	        CASE(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

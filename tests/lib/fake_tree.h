/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of the mount, unmounted, over histories that are made up: what its tests share.
 * Included, as fake_history.h is, by programs that do not link the engine's own.
 */
#ifndef ASOF_TESTS_LIB_FAKE_TREE_H
#define ASOF_TESTS_LIB_FAKE_TREE_H

#include "fs/tree.h"
#include "tests/lib/fake_history.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

static inline void set_db(struct fixture *f, size_t i, const char *name, uint64_t n,
                          int64_t step_us)
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
static inline int set_up(void **state)
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

static inline int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[64];

	fs_tree_free(f->tree);
	snprintf(command, sizeof(command), "rm -rf %s", f->root);
	(void)!system(command);
	free(f);
	return 0;
}

static inline void start(struct fixture *f, const struct fs_tree_options *options)
{
	struct err err = ERR_INIT;

	fs_tree_free(f->tree);
	f->tree = NULL;
	if (fs_tree_new(&f->archive, options, &f->tree, &err) < 0)
		fail_msg("%s", err.msg);
}

/* Walks a path; gives back the look-ups of the folders on it. */
static inline int walk_to(struct fs_tree *t, const char *path, struct fs_entry *ret,
                          struct err *err)
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

static inline struct fs_entry entry(struct fixture *f, const char *path)
{
	struct err err = ERR_INIT;
	struct fs_entry e;

	if (walk_to(f->tree, path, &e, &err) < 0)
		fail_msg("%s: %s", path, err.msg);
	return e;
}

/* The number behind a path, whose look-up is given back. */
static inline uint64_t ino_of(struct fixture *f, const char *path)
{
	uint64_t ino = entry(f, path).ino;

	fs_tree_forget(f->tree, ino, 1);
	return ino;
}

static inline void assert_missing(struct fixture *f, const char *path, enum err_kind kind)
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
static inline char *list(struct fixture *f, const char *path, size_t *ret_n)
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

static inline void assert_list(struct fixture *f, const char *path, const char *want)
{
	char *text = list(f, path, NULL);
	assert_string_equal(text, want);
	free(text);
}

static inline char *content(struct fixture *f, const char *path, size_t *ret_len)
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

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

#endif

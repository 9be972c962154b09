/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/file.h"
#include "engine/copy/copy_i.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

const char *copy_backup_folder(size_t i)
{
	static const char *const folders[COPY_BACKUP_FOLDERS] = {"manual", "automated", "safety",
	                                                         "compressed"};

	return folders[i];
}

bool copy_is_writer(const char *file)
{
	size_t n = strlen(file);

	return n > 7 && strcmp(file + n - 7, ".writer") == 0;
}

int copy_no_database(const struct copying *c, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, 0,
	               "archive '%s' has no database '%s' (asof list shows those it has)",
	               c->options->from, c->options->db);
}

int copy_nothing(const struct copying *c, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, 0,
	               "'%s' holds no archive (check the bucket and the prefix)", c->options->from);
}

/* ---- backups: whole files, which nobody changes ---- */

struct backups {
	struct copying *c;
	struct store *store;
	size_t prefix_len;
	int to_root, to; /* `to`: -1 until there is one */
	const char *folder;
	uint64_t n;
};

static int copy_backup(void *ctx, const struct store_entry *e, struct err *err)
{
	struct backups *b = ctx;
	const char *name = e->key + b->prefix_len;
	struct copy_from f = {.store = b->store, .bytes = e->bytes, .modified_us = e->modified_us};
	size_t n = strlen(name);
	struct stat there;
	struct err why = ERR_INIT;

	if (name[0] == '.' || strchr(name, '/') || n > 255 ||
	    (n > 4 && strcmp(name + n - 4, ".tmp") == 0))
		return 0;
	b->n++;
	if (b->to < 0) {
		int rc = file_open_dir(b->to_root, b->folder, true, &b->to, err);
		if (rc < 0)
			return rc;
	}
	if (fstatat(b->to, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    (uint64_t)there.st_size == e->bytes) {
		b->c->result->present++;
		return 0;
	}
	snprintf(f.key, sizeof(f.key), "%s", e->key);
	int rc = copy_plain(b->c, &f, b->to, name, &why);
	if (rc < 0 && copy_vanished(&why)) /* cleaned up meanwhile */
		return 0;
	return rc < 0 ? err_copy(err, &why) : copy_stopped(b->c, err);
}

static int copy_backups(struct copying *c, int to_root, uint64_t *ret_n, struct err *err)
{
	struct backups b = {.c = c, .store = archive_store(c->from), .to_root = to_root};
	int rc = 0;

	for (size_t i = 0; i < COPY_BACKUP_FOLDERS && rc == 0; i++) {
		char prefix[32];
		b.folder = copy_backup_folder(i);
		b.prefix_len = (size_t)snprintf(prefix, sizeof(prefix), "%s/", b.folder);
		b.to = -1;
		/* One that holds nothing, too, is there in the copy. */
		if (b.store->dir_fd >= 0 && faccessat(b.store->dir_fd, b.folder, F_OK, 0) == 0)
			rc = file_open_dir(to_root, b.folder, true, &b.to, err);
		if (rc == 0)
			rc = store_list(b.store, prefix, NULL, false, copy_backup, &b, err);
		if (b.to >= 0)
			close(b.to);
	}
	*ret_n = b.n;
	return rc;
}

/* ---- */

static bool same_folder(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int copy_history(struct copying *c, const char *name, struct err *err)
{
	cleanup_history struct history *h = NULL;
	struct err why = ERR_INIT;

	int rc = history_get(c->from, name, &h, &why);
	/* Of a store the list has every folder that holds something. */
	if (rc < 0 && why.kind == ERR_NOT_FOUND && archive_store(c->from)->dir_fd < 0 &&
	    !c->options->db)
		return 0;
	if (rc < 0)
		return err_copy(err, &why);
	rc = copy_database(c, h, name, err);
	c->result->databases += rc == 0;
	return rc;
}

static int copy_histories(struct copying *c, struct err *err)
{
	cleanup_free char **names = NULL;
	size_t n;
	int rc = archive_list(c->from, &names, &n, err);

	for (size_t i = 0; i < n && rc == 0; i++)
		if (!c->options->db || strcmp(names[i], c->options->db) == 0)
			rc = copy_history(c, names[i], err);
	if (rc == 0 && c->options->db && c->result->databases == 0)
		rc = copy_no_database(c, err);
	return rc;
}

/* Takes what was opened over. */
static int open_from(struct store *opened, struct archive **ret, struct err *err)
{
	const struct archive_options small = {.cache_bytes = 1u << 20};

	return archive_open_stores(&opened, 1, &small, ret, err);
}

static int copy_to_folder(struct copying *c, struct err *err)
{
	const struct copy_options *o = c->options;
	cleanup_fd int to = -1;
	uint64_t n_backups = 0;

	int rc = file_open_dir(AT_FDCWD, o->to, true, &to, err);
	if (rc == 0)
		rc = copy_histories(c, err);
	if (rc == 0 && !o->db)
		rc = copy_backups(c, to, &n_backups, err);
	if (rc == 0 && archive_store(c->from)->dir_fd < 0 && c->result->databases == 0 &&
	    n_backups == 0)
		rc = copy_nothing(c, err);
	return rc;
}

/* Whether it goes to a store; *ret: opened.  A folder that is encrypted is one, too. */
static int open_to(const struct copy_options *o, struct store **ret, struct err *err)
{
	cleanup_store struct store *to = NULL;

	*ret = o->to_open;
	if (o->to_open ||
	    (!store_is_url(o->to) && !strstr(o->to, "://") && access(o->to, F_OK) < 0))
		return 0;
	int rc = store_open(o->to, o->to_store, &to, err);
	if (rc == 0 && to->dir_fd < 0)
		*ret = take_ptr(to);
	return rc;
}

/* Takes `*from` over where it becomes an archive. */
static int copy_opened(struct copying *c, struct store **from, struct store *to, struct err *err)
{
	const struct copy_options *o = c->options;

	if (strcmp(o->from, o->to) == 0 || (!to && same_folder(o->from, o->to)))
		return err_set(err, ERR_USAGE, 0, "'%s' and '%s' are one archive", o->from, o->to);
	if (to && (*from)->dir_fd < 0)
		return copy_between(c, *from, to, err);
	int rc = open_from(take_ptr(*from), &c->from, err);
	if (rc == 0)
		rc = to ? copy_to_store(c, to, err) : copy_to_folder(c, err);
	return rc;
}

int copy_archive(const struct copy_options *o, struct copy_result *ret, struct err *err)
{
	struct copying c = {.options = o, .result = ret};
	cleanup_store struct store *to = NULL, *from = o->from_open;

	*ret = (struct copy_result){0};
	int rc = open_to(o, &to, err);
	if (rc == 0 && !from)
		rc = store_open(o->from, o->from_store, &from, err);
	if (rc == 0)
		rc = copy_opened(&c, &from, to, err);
	archive_free(c.from);
	if (rc == 0 && ret->damaged > 0)
		rc = err_set(err, ERR_DAMAGED, 0, "%s (the rest was copied)", ret->damage);
	return rc;
}

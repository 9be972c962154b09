/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies in the folders of backups.  A manifest belongs to the backups that it names; where
 * two name one, the one written last (greater name) is it.
 */
#include "engine/backup/backup_i.h"

#include "engine/archive/names.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Times before that come of file systems and archives that keep none. */
#define MTIME_SENSIBLE_US (INT64_C(365) * 86400 * US_PER_SECOND)

/* A manifest and what it tells, while the list is made. */
struct read_manifest {
	char *name;
	struct backup_manifest *m; /* what it says of all of its files */
	struct backup_manifest_files files;
	bool used;
};

struct folder {
	enum backup_type type;
	const char *root;
	int fd;   /* -1: in a store */
	bool far; /* its manifests are read when all is listed */
	bool plain;
	struct backup_list *list;
	size_t first; /* entry of this folder in the list */
	struct read_manifest *manifests;
	size_t n_manifests;
	struct backup_far_manifest *to_read;
	size_t n_to_read;
	struct companion {
		char *name;
		uint64_t bytes;
	} * companions;
	size_t n_companions;
};

/* A file of it, as a folder or a store lists it. */
struct listed {
	const char *name;
	uint64_t bytes;
	int64_t modified_us;
};

/* ---- growing things ---- */

static int out_of_memory(struct err *err)
{
	return err_set(err, ERR_NOMEM, 0, "no memory for the list of backups");
}

/* Room for one more in an array that doubles at powers of two. */
static void *grow(void *array, size_t n, size_t item_bytes)
{
	if (n & (n - 1))
		return array;
	return realloc(array, (n ? 2 * n : 1) * item_bytes);
}

static int add_string(char ***array, size_t *n, char *text, struct err *err)
{
	char **more = text ? grow(*array, *n, sizeof(**array)) : NULL;

	if (!more) {
		free(text);
		return out_of_memory(err);
	}
	*array = more;
	more[(*n)++] = text;
	return 0;
}

static char *path_of(const struct folder *f, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s/%s", f->root, backup_type_names[f->type], name) < 0)
		return NULL;
	return path;
}

static void release_folder(struct folder *f)
{
	for (size_t i = 0; i < f->n_manifests; i++) {
		free(f->manifests[i].name);
		free(f->manifests[i].m);
		free(f->manifests[i].files.names);
	}
	free(f->manifests);
	for (size_t i = 0; i < f->n_to_read; i++) {
		free(f->to_read[i].name);
		buf_release(&f->to_read[i].text);
	}
	free(f->to_read);
	for (size_t i = 0; i < f->n_companions; i++)
		free(f->companions[i].name);
	free(f->companions);
	if (f->fd >= 0)
		close(f->fd);
}

static void release_entry(struct backup_entry *e)
{
	free(e->path);
	free(e->db);
	free(e->label);
	free(e->manifest_path);
	for (size_t i = 0; i < e->n_companions; i++)
		free(e->companions[i]);
}

void backup_list_release(struct backup_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		release_entry(&list->entries[i]);
	for (size_t i = 0; i < list->n_orphans; i++)
		free(list->orphans[i]);
	for (size_t i = 0; i < list->n_leftovers; i++)
		free(list->leftovers[i]);
	free(list->entries);
	free(list->orphans);
	free(list->leftovers);
	store_free(list->store);
	*list = (struct backup_list){0};
}

/* ---- one file ---- */

static int64_t mtime_us(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * US_PER_SECOND + st->st_mtim.tv_nsec / 1000;
}

static int64_t entry_time(const struct backup_name *n, const struct listed *l)
{
	int64_t m = l->modified_us;

	if (!n->has_time || (m < n->time_us && m > MTIME_SENSIBLE_US))
		return m;
	return n->time_us;
}

static int add_entry(struct folder *f, const struct listed *l, const struct backup_name *n,
                     struct err *err)
{
	struct backup_list *list = f->list;
	void *more = grow(list->entries, list->n, sizeof(*list->entries));

	if (!more)
		return out_of_memory(err);
	list->entries = more;
	struct backup_entry *e = &list->entries[list->n];
	*e = (struct backup_entry){
	        .type = f->type,
	        .path = path_of(f, l->name),
	        .db = strdup(n->stem),
	        .label = strdup(n->label),
	        .time_us = entry_time(n, l),
	        .size_bytes = l->bytes,
	        .compressed = n->compressed,
	        .encrypted = n->encrypted,
	        .foreign = !n->has_time,
	};
	list->n++;
	if (!e->path || !e->db || !e->label)
		return out_of_memory(err);
	e->name = strrchr(e->path, '/') + 1;
	return 0;
}

/* `rc`, `why`: of reading it. */
static int take_manifest(struct folder *f, const char *file, const char *text, size_t len, int rc,
                         struct err *why, struct err *err)
{
	struct read_manifest m = {.m = calloc(1, sizeof(*m.m))};

	if (!m.m)
		return out_of_memory(err);
	if (!rc)
		rc = backup_manifest_parse(text, len, NULL, m.m, &m.files, why);
	if (rc) {
		free(m.m);
		if (backup_manifest_ends_all(why))
			return err_copy(err, why);
		log_warn("backup",
		         "manifest passed over, its backup is not held against it type=%s "
		         "name=%s: %s",
		         backup_type_names[f->type], file, why->msg);
		return 0;
	}
	m.name = strdup(file);
	void *more = m.name ? grow(f->manifests, f->n_manifests, sizeof(m)) : NULL;
	if (!more) {
		free(m.name);
		free(m.m);
		free(m.files.names);
		return out_of_memory(err);
	}
	f->manifests = more;
	f->manifests[f->n_manifests++] = m;
	return 0;
}

static int add_manifest(struct folder *f, const char *file, struct err *err)
{
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	size_t len = 0;
	int rc = file_get(f->fd, file, BACKUP_MANIFEST_BYTES_MAX, &text, &len, &why);

	return take_manifest(f, file, text, len, rc, &why, err);
}

/* Of a store: it is read when all is listed. */
static int note_manifest(struct folder *f, const struct listed *l, struct err *err)
{
	struct backup_far_manifest *more = grow(f->to_read, f->n_to_read, sizeof(*more));
	char *name = strdup(l->name);

	if (more)
		f->to_read = more;
	if (!more || !name) {
		free(name);
		return out_of_memory(err);
	}
	more[f->n_to_read++] =
	        (struct backup_far_manifest){.type = f->type,
	                                     .name = name,
	                                     .bytes = l->bytes,
	                                     .modified_us = l->modified_us,
	                                     .text = BUF_INIT(BACKUP_MANIFEST_BYTES_MAX),
	                                     .why = ERR_INIT};
	return 0;
}

/* What is listed is enough: raw copies are safety backups.  One manifest is read all the same, since an
 * archive that nobody here may read, or without its key, is an error and no list. */
static bool is_known(const struct folder *f)
{
	return f->plain && f->type != BACKUP_SAFETY;
}

static int read_noted(struct folder *f, struct store_reader *reader, struct err *err)
{
	int rc = backup_manifests_read(reader, f->to_read, f->n_to_read, err);

	if (is_known(f))
		return rc;
	for (size_t i = 0; i < f->n_to_read && !rc; i++) {
		struct backup_far_manifest *m = &f->to_read[i];
		rc = take_manifest(f, m->name, (const char *)m->text.data, m->text.len,
		                   -(int)m->why.kind, &m->why, err);
	}
	return rc;
}

static bool is_leftover(const char *file)
{
	int64_t aside_us;

	if (aside_name_parse(file, &aside_us)) /* by a repair; kept for a while */
		return aside_us < clock_now_us() - ASIDE_KEEP_US;
	return strncmp(file, BACKUP_TMP_PREFIX, strlen(BACKUP_TMP_PREFIX)) == 0;
}

static int add_companion(struct folder *f, const struct listed *l, struct err *err)
{
	struct companion *more = grow(f->companions, f->n_companions, sizeof(*more));
	char *name = strdup(l->name);

	if (more)
		f->companions = more;
	if (!more || !name) {
		free(name);
		return out_of_memory(err);
	}
	more[f->n_companions++] = (struct companion){name, l->bytes};
	return 0;
}

static int add_listed(struct folder *f, const struct listed *l, struct err *err)
{
	struct backup_name n;

	if (!backup_name_parse(l->name, &n))
		return 0;
	if (n.kind == BACKUP_FILE_MANIFEST && !f->far)
		return add_manifest(f, l->name, err);
	if (n.kind == BACKUP_FILE_MANIFEST)
		return is_known(f) && f->n_to_read ? 0 : note_manifest(f, l, err);
	if (n.kind == BACKUP_FILE_COMPANION)
		return add_companion(f, l, err);
	return add_entry(f, l, &n, err);
}

static int add_file(struct folder *f, const char *file, struct err *err)
{
	struct stat st;

	if (is_leftover(file))
		return add_string(&f->list->leftovers, &f->list->n_leftovers, path_of(f, file),
		                  err);
	if (fstatat(f->fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	const struct listed l = {file, (uint64_t)st.st_size, mtime_us(&st)};
	return add_listed(f, &l, err);
}

/* ---- what belongs together ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct backup_entry *)a)->name,
	              ((const struct backup_entry *)b)->name);
}

static int manifest_by_name(const void *a, const void *b)
{
	return strcmp(((const struct read_manifest *)a)->name,
	              ((const struct read_manifest *)b)->name);
}

static struct backup_entry *find(struct folder *f, const char *name)
{
	struct backup_entry key = {.name = name};

	return bsearch(&key, f->list->entries + f->first, f->list->n - f->first, sizeof(key),
	               by_name);
}

/* The old scripts name the file before gzip, or a Python path: x.db for x.db.gz. */
static struct backup_entry *find_loosely(struct folder *f, const char *name)
{
	static const char *const tails[] = {"", ".gz", ".gz.gpg", ".gpg"};
	char full[BACKUP_FILE_MAX + 8];
	struct backup_entry *e = NULL;

	for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]) && !e; i++) {
		snprintf(full, sizeof(full), "%s%s", name, tails[i]);
		e = find(f, full);
	}
	return e;
}

/* The name in the manifest says which part of the file's name is the database's. */
static int take_stem(struct backup_entry *e, const struct backup_manifest *m, struct err *err)
{
	char stem[BACKUP_FILE_MAX];
	size_t n;

	if (!m->source_database[0] || backup_stem(m->source_database, stem, NULL))
		return 0;
	n = strlen(stem);
	if (strncmp(e->name, stem, n) != 0 || e->name[n] != '_' || strcmp(e->db, stem) == 0)
		return 0;
	/* What stands between the two is the label. */
	char *label =
	        strncmp(e->db, stem, n) == 0 && e->db[n] == '_' ? strdup(e->db + n + 1) : NULL;
	char *db = strdup(stem);
	if (!db) {
		free(label);
		return out_of_memory(err);
	}
	free(e->db);
	e->db = db;
	if (label) {
		free(e->label);
		e->label = label;
	}
	return 0;
}

static int apply_manifest(struct folder *f, struct backup_entry *e, const struct read_manifest *r,
                          struct err *err)
{
	const struct backup_manifest *m = r->m;
	char *path = path_of(f, r->name);

	if (!path)
		return out_of_memory(err);
	free(e->manifest_path);
	e->manifest_path = path;
	if (r->files.n > 1)
		return 0; /* it says nothing of one alone */
	memcpy(e->sha256, m->sha256, sizeof(e->sha256));
	e->source_size_bytes = m->source_size_bytes;
	e->txid = m->txid;
	e->source = m->source;
	e->state_us = m->state_us;
	e->raw = m->source == BACKUP_FROM_RAW;
	return take_stem(e, m, err);
}

static int join_manifests(struct folder *f, struct err *err)
{
	int rc = 0;

	if (f->n_manifests)
		qsort(f->manifests, f->n_manifests, sizeof(*f->manifests), manifest_by_name);
	for (size_t i = 0; i < f->n_manifests && !rc; i++) {
		struct read_manifest *r = &f->manifests[i];
		for (size_t k = 0; k < r->files.n && !rc; k++) {
			struct backup_entry *e = find_loosely(f, r->files.names[k]);
			if (!e)
				continue;
			r->used = true;
			rc = apply_manifest(f, e, r, err);
		}
		if (!rc && !r->used)
			rc = add_string(&f->list->orphans, &f->list->n_orphans, path_of(f, r->name),
			                err);
	}
	return rc;
}

/* x_20240115_143000.db-wal.gz belongs to x_20240115_143000.db.gz. */
static int join_companions(struct folder *f, struct err *err)
{
	for (size_t i = 0; i < f->n_companions; i++) {
		struct backup_name n;
		char owner[BACKUP_FILE_MAX + 16];
		char *path = path_of(f, f->companions[i].name);
		if (!path)
			return out_of_memory(err);
		if (!backup_name_parse(f->companions[i].name, &n))
			n = (struct backup_name){0};
		snprintf(owner, sizeof(owner), "%s.db", n.base);
		struct backup_entry *e = find_loosely(f, owner);
		if (!e || e->n_companions == BACKUP_COMPANIONS_MAX) {
			int rc = add_string(&f->list->orphans, &f->list->n_orphans, path, err);
			if (rc)
				return rc;
			continue;
		}
		e->companions[e->n_companions++] = path;
		e->companion_bytes += f->companions[i].bytes;
	}
	return 0;
}

/* ---- all of them ---- */

static int join(struct folder *f, struct err *err)
{
	if (f->list->n > f->first)
		qsort(f->list->entries + f->first, f->list->n - f->first, sizeof(*f->list->entries),
		      by_name);
	int rc = join_manifests(f, err);
	return rc ? rc : join_companions(f, err);
}

static int read_folder(struct folder *f, struct err *err)
{
	struct dirent *d;
	int fd = dup(f->fd), rc = 0;
	cleanup_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		return err_set(err, ERR_IO, errno, "list '%s/%s'", f->root,
		               backup_type_names[f->type]);
	errno = 0;
	while (!rc && (d = readdir(dir))) {
		rc = add_file(f, d->d_name, err);
		errno = 0;
	}
	if (!rc && errno)
		rc = err_set(err, ERR_IO, errno, "list '%s/%s'", f->root,
		             backup_type_names[f->type]);
	return rc ? rc : join(f, err);
}

static int read_type(const char *root, int root_fd, enum backup_type type, struct backup_list *list,
                     struct err *err)
{
	CLEANUP(release_folder)
	struct folder f = {.type = type, .root = root, .fd = -1, .list = list, .first = list->n};
	struct err why = ERR_INIT;
	int rc = file_open_dir(root_fd, backup_type_names[type], false, &f.fd, &why);

	if (err_kind_of(rc) == ERR_NOT_FOUND || (rc && why.sys_errno == ENOTDIR))
		return 0;
	return rc ? err_copy(err, &why) : read_folder(&f, err);
}

static int add_stored(void *ctx, const struct store_entry *e, struct err *err)
{
	struct folder *f = ctx;
	const char *slash = strrchr(e->key, '/');
	const struct listed l = {slash ? slash + 1 : e->key, e->bytes, e->modified_us};

	return *l.name ? add_listed(f, &l, err) : 0;
}

static int read_stored(const char *root, enum backup_type type, struct store_reader *reader,
                       bool plain, struct backup_list *list, struct err *err)
{
	CLEANUP(release_folder)
	struct folder f = {.type = type,
	                   .root = root,
	                   .fd = -1,
	                   .far = true,
	                   .plain = plain,
	                   .list = list,
	                   .first = list->n};
	char prefix[32];

	snprintf(prefix, sizeof(prefix), "%s/", backup_type_names[type]);
	int rc = store_list(list->store, prefix, NULL, false, add_stored, &f, err);
	rc = rc ? rc : read_noted(&f, reader, err);
	return rc ? rc : join(&f, err);
}

static int newest_first(const void *a, const void *b)
{
	const struct backup_entry *x = a, *y = b;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->time_us != y->time_us)
		return x->time_us > y->time_us ? -1 : 1;
	return -strcmp(x->name, y->name); /* _2 came after the one without */
}

/* Paths are as in a folder: what a URL says besides is left out. */
static int read_store(const char *url, const struct backup_list_options *options,
                      struct backup_list *list, struct err *err)
{
	cleanup_free char *root = strdup(url);
	cleanup_kept struct kept *kept = NULL;
	cleanup_store_reader struct store_reader *reader = NULL;
	struct err why = ERR_INIT;
	int rc = root ? store_open(url, options->store, &list->store, err) : out_of_memory(err);

	if (rc)
		return rc;
	if (options->keep_dir && !list->store->sealed &&
	    kept_open(options->keep_dir, options->keep_bytes, &kept, &why) < 0)
		log_warn("backup", "nothing is kept of what is read from '%s': %s",
		         list->store->label, why.msg);
	struct store *const stores[] = {list->store};
	const struct reader_options ro = {.stores = stores, .n_stores = 1, .kept = kept};
	rc = store_reader_new(&ro, &reader, err);
	root[strcspn(root, "?")] = '\0';
	for (size_t n = strlen(root); n > 0 && root[n - 1] == '/';)
		root[--n] = '\0';
	for (int type = 0; type < BACKUP_N_TYPES && !rc; type++)
		rc = read_stored(root, (enum backup_type)type, reader, options->plain, list, err);
	return rc;
}

static int read_directory(const char *root, struct backup_list *list, struct err *err)
{
	cleanup_fd int root_fd = -1;
	int rc = file_open(AT_FDCWD, root, O_RDONLY | O_DIRECTORY, 0, &root_fd, err);

	for (int type = 0; type < BACKUP_N_TYPES && !rc; type++)
		rc = read_type(root, root_fd, (enum backup_type)type, list, err);
	return rc;
}

int backup_list_read(const char *archive_root, struct backup_list *ret, struct err *err)
{
	return backup_list_read_at(archive_root, NULL, ret, err);
}

int backup_list_read_at(const char *archive_root, const struct backup_list_options *options,
                        struct backup_list *ret, struct err *err)
{
	static const struct backup_list_options standard;
	cleanup_backup_list struct backup_list list = {0};

	*ret = list;
	options = options ? options : &standard;
	int rc = store_is_url(archive_root) ? read_store(archive_root, options, &list, err)
	                                    : read_directory(archive_root, &list, err);
	if (rc)
		return rc;
	if (list.n)
		qsort(list.entries, list.n, sizeof(*list.entries), newest_first);
	*ret = list;
	list = (struct backup_list){0};
	return 0;
}

const struct backup_entry *backup_list_find(const struct backup_list *list, const char *text)
{
	const struct backup_entry *found = NULL;
	size_t n = strlen(text);

	for (size_t i = 0; i < list->n; i++) {
		const struct backup_entry *e = &list->entries[i];
		if (strcmp(e->path, text) == 0)
			return e;
		if (strcmp(e->name, text) != 0 &&
		    (strncmp(e->name, text, n) != 0 || strncmp(e->name + n, ".db", 3) != 0))
			continue;
		if (found)
			return NULL;
		found = e;
	}
	return found;
}

int backup_manifest_read(const struct backup_entry *e, struct backup_manifest *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	*ret = (struct backup_manifest){0};
	if (!e->manifest_path)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no manifest", e->path);
	if (store_is_url(e->manifest_path))
		return err_set(err, ERR_USAGE, 0, "'%s' lies in a store", e->manifest_path);
	int rc = file_get(AT_FDCWD, e->manifest_path, BACKUP_MANIFEST_BYTES_MAX, &text, &len, err);
	if (!rc && (rc = backup_manifest_parse(text, len, e->name, ret, NULL, err)))
		err_wrap(err, rc, "'%s'", e->manifest_path);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files are shared, like views: one that was inflated is worth keeping for the next who
 * opens it.  A few that nobody uses are kept, bounded by number; what they hold is unlinked
 * and goes with the process.
 */
#include "fs/backups.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/gz/pack.h"
#include "engine/store/store.h"
#include "fs/gunzip.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define LIST_FRESH_US INT64_C(1000000)
#define MAX_IDLE_FILES 4
#define CACHE_BYTES (8u << 20)
#define MAX_BACKUPS 1000000
/* Sizes that were found by looking into a file. */
#define N_KNOWN_SIZES 4096

const char *const fs_backup_types[FS_N_BACKUP_TYPES] = {"manual", "automated", "safety",
                                                        "compressed"};

struct known_size {
	uint64_t version, size;
};

struct fs_backup_file {
	uint64_t version, size;
	char *path;
	int fd;            /* of the file itself */
	struct pack *pack; /* asof's own gzip files; else NULL */
	bool foreign_gz;
	pthread_mutex_t inflate;     /* held while inflating */
	int inflated_fd;             /* under inflate until set, then constant; -1: not yet */
	unsigned n_refs;             /* under fs_backups.lock */
	struct fs_backup_file *next; /* under fs_backups.lock */
};

struct fs_backups {
	int root_fd;
	struct cache *cache;
	pthread_mutex_t lock;
	struct fs_backup_set *sets[FS_N_BACKUP_TYPES]; /* under lock, as is all below */
	struct fs_backup_file *files;                  /* most recently used first */
	struct known_size sizes[N_KNOWN_SIZES];
};

int fs_backups_new(const char *archive_root, struct fs_backups **ret, struct err *err)
{
	struct fs_backups *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory for the list of backups");
	b->root_fd = -1;
	rc = store_is_url(archive_root)
	             ? 0
	             : file_open(AT_FDCWD, archive_root, O_PATH | O_DIRECTORY, 0, &b->root_fd, err);
	if (rc == 0) {
		rc = cache_new(CACHE_BYTES, &b->cache, err);
		if (rc < 0 && b->root_fd >= 0)
			if (b->root_fd >= 0)
				close(b->root_fd);
	}
	if (rc < 0) {
		free(b);
		return rc;
	}
	pthread_mutex_init(&b->lock, NULL);
	*ret = b;
	return 0;
}

static void free_file(struct fs_backup_file *f)
{
	if (f->pack)
		pack_free(f->pack);
	if (f->fd >= 0)
		close(f->fd);
	if (f->inflated_fd >= 0)
		close(f->inflated_fd);
	pthread_mutex_destroy(&f->inflate);
	free(f->path);
	free(f);
}
DEFINE_CLEANUP(struct fs_backup_file, free_file);

void fs_backups_free(struct fs_backups *b)
{
	if (!b)
		return;
	while (b->files) {
		struct fs_backup_file *f = b->files;
		b->files = f->next;
		free_file(f);
	}
	for (int type = 0; type < FS_N_BACKUP_TYPES; type++)
		if (b->sets[type])
			fs_backup_set_unref(b->sets[type]);
	cache_free(b->cache);
	if (b->root_fd >= 0)
		close(b->root_fd);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

/* ---- what there is ---- */

void fs_backup_set_unref(struct fs_backup_set *set)
{
	if (atomic_fetch_sub(&set->n_refs, 1) != 1)
		return;
	for (size_t i = 0; i < set->n; i++)
		free(set->rows[i].shown);
	free(set);
}

static int compare_rows(const void *a, const void *b)
{
	const struct fs_backup *x = a, *y = b;

	if (x->day_us != y->day_us)
		return x->day_us < y->day_us ? -1 : 1;
	int c = strcmp(x->shown, y->shown);
	return c ? c : (int)x->gz - (int)y->gz;
}

static bool read_row(int dir_fd, const char *name, struct fs_backup *row)
{
	char shown[FS_NAME_MAX];
	struct stat st;

	if (!fs_name_backup(name, shown, &row->gz))
		return false;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return false;
	if (!fs_name_backup_day(name, &row->day_us)) {
		int64_t day = st.st_mtim.tv_sec / 86400 - (st.st_mtim.tv_sec % 86400 < 0);
		row->day_us = day * FS_DAY_US;
	}
	row->shown = strdup(shown);
	return row->shown;
}

static void sort_set(struct fs_backup_set *set)
{
	size_t kept = 0;

	qsort(set->rows, set->n, sizeof(set->rows[0]), compare_rows);
	for (size_t i = 0; i < set->n; i++) {
		if (kept && set->rows[kept - 1].day_us == set->rows[i].day_us &&
		    strcmp(set->rows[kept - 1].shown, set->rows[i].shown) == 0)
			free(set->rows[i].shown); /* x.db.gz beside x.db */
		else
			set->rows[kept++] = set->rows[i];
	}
	set->n = kept;
}

static int scan(struct fs_backups *b, int type, struct fs_backup_set **ret, struct err *err)
{
	const char *name = fs_backup_types[type];
	size_t cap = 64;
	struct fs_backup_set *set = calloc(1, sizeof(*set) + cap * sizeof(set->rows[0]));
	int fd = b->root_fd < 0 ? -1 : openat(b->root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int failed = b->root_fd < 0 ? ENOENT : fd < 0 ? errno : 0; /* far away none is looked for */
	DIR *dir cleanup_dir = fd < 0 ? NULL : fdopendir(fd);

	if (!set || (!dir && failed != ENOENT && failed != ENOTDIR)) {
		free(set);
		return err_set(err, set ? ERR_IO : ERR_NOMEM, failed, "list '%s'", name);
	}
	set->n_refs = 1;
	for (struct dirent *entry; dir && set->n < MAX_BACKUPS && (entry = readdir(dir));) {
		if (set->n == cap) {
			cap *= 2;
			struct fs_backup_set *more =
			        realloc(set, sizeof(*set) + cap * sizeof(set->rows[0]));
			if (!more) {
				fs_backup_set_unref(set);
				return err_set(err, ERR_NOMEM, 0, "no memory to list '%s'", name);
			}
			set = more;
		}
		if (read_row(dirfd(dir), entry->d_name, &set->rows[set->n]))
			set->n++;
	}
	sort_set(set);
	set->made_mono_us = clock_mono_us();
	*ret = set;
	return 0;
}

int fs_backups_list(struct fs_backups *b, int type, struct fs_backup_set **ret, struct err *err)
{
	struct fs_backup_set *set, *old;

	pthread_mutex_lock(&b->lock);
	set = b->sets[type];
	if (set && clock_mono_us() - set->made_mono_us < LIST_FRESH_US)
		atomic_fetch_add(&set->n_refs, 1);
	else
		set = NULL;
	pthread_mutex_unlock(&b->lock);
	if (!set) {
		int rc = scan(b, type, &set, err);
		if (rc < 0)
			return rc;
		atomic_fetch_add(&set->n_refs, 1);
		pthread_mutex_lock(&b->lock);
		old = b->sets[type];
		b->sets[type] = set;
		pthread_mutex_unlock(&b->lock);
		if (old)
			fs_backup_set_unref(old);
	}
	*ret = set;
	return 0;
}

void fs_backup_set_day(const struct fs_backup_set *set, int64_t day_us, size_t *ret_from,
                       size_t *ret_to)
{
	size_t i = 0, k;

	while (i < set->n && set->rows[i].day_us < day_us)
		i++;
	for (k = i; k < set->n && set->rows[k].day_us == day_us;)
		k++;
	*ret_from = i;
	*ret_to = k;
}

/* ---- one of them ---- */

static int open_file(struct fs_backups *b, int type, const char *shown, bool gz,
                     struct fs_backup_file **ret, int64_t *ret_mtime_us, struct err *err)
{
	struct fs_backup_file *f CLEANUP(free_file_p) = calloc(1, sizeof(*f));
	struct stat st;

	if (!f)
		return err_set(err, ERR_NOMEM, 0, "no memory for a backup");
	pthread_mutex_init(&f->inflate, NULL);
	f->fd = f->inflated_fd = -1;
	if (asprintf(&f->path, "%s/%s%s", fs_backup_types[type], shown, gz ? ".gz" : "") < 0) {
		f->path = NULL;
		return err_set(err, ERR_NOMEM, 0, "no memory for a backup");
	}
	int rc = file_open(b->root_fd, f->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, &f->fd, err);
	if (rc < 0)
		return rc;
	if (fstat(f->fd, &st) < 0)
		return err_set(err, ERR_IO, errno, "stat '%s'", f->path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' is no file", f->path);
	int64_t identity[] = {(int64_t)st.st_dev, (int64_t)st.st_ino, st.st_size, st.st_mtim.tv_sec,
	                      st.st_mtim.tv_nsec};
	f->version = hash64(identity, sizeof(identity), 0);
	f->size = (uint64_t)st.st_size;
	*ret_mtime_us = st.st_mtim.tv_sec * US_PER_SECOND + st.st_mtim.tv_nsec / 1000;
	*ret = take_ptr(f);
	return 0;
}

/* Tells asof's own files by how they begin, and opens those. */
static int look_into(struct fs_backups *b, struct fs_backup_file *f, struct err *err)
{
	uint8_t head[PACK_HEADER_SIZE];
	size_t got;
	int rc = file_pread_some(f->fd, head, sizeof(head), 0, &got, f->path, err);

	if (rc < 0)
		return rc;
	f->foreign_gz = got < sizeof(head) || head[12] != 'a' || head[13] != GZ_HEADER ||
	                memcmp(head + GZ_PAYLOAD_OFFSET, "asofpack", 8) != 0;
	if (f->foreign_gz)
		return 0;
	struct source *src cleanup_source = NULL;
	rc = source_open_file(b->root_fd, f->path, NULL, &src, err);
	if (rc == 0)
		rc = pack_open(src, b->cache, &f->pack, err);
	if (rc == 0)
		src = NULL; /* it is the pack's now */
	return rc;
}

static bool recall_size(struct fs_backups *b, uint64_t version, uint64_t *ret)
{
	LOCK_SCOPE(&b->lock);
	const struct known_size *slot = &b->sizes[version % N_KNOWN_SIZES];
	*ret = slot->size;
	return slot->version == version;
}

static void remember_size(struct fs_backups *b, uint64_t version, uint64_t size)
{
	LOCK_SCOPE(&b->lock);
	b->sizes[version % N_KNOWN_SIZES] = (struct known_size){version, size};
}

int fs_backups_stat(struct fs_backups *b, int type, const char *shown, bool gz, bool want_size,
                    struct fs_backup_stat *ret, struct err *err)
{
	struct fs_backup_file *f CLEANUP(free_file_p) = NULL;
	int rc = open_file(b, type, shown, gz, &f, &ret->mtime_us, err);

	if (rc < 0)
		return rc;
	ret->version = f->version;
	ret->size = f->size;
	if (!gz || !want_size || recall_size(b, f->version, &ret->size))
		return 0;
	rc = look_into(b, f, err);
	if (rc < 0)
		return rc;
	if (f->pack)
		ret->size = pack_size(f->pack);
	else
		rc = fs_gunzip_size(f->fd, f->path, &ret->size, err);
	if (rc == 0)
		remember_size(b, f->version, ret->size);
	return rc;
}

/* The one that is open already, moved to the front; under lock. */
static struct fs_backup_file *find_file(struct fs_backups *b, uint64_t version)
{
	for (struct fs_backup_file **at = &b->files; *at; at = &(*at)->next) {
		struct fs_backup_file *f = *at;
		if (f->version != version)
			continue;
		*at = f->next;
		f->next = b->files;
		b->files = f;
		f->n_refs++;
		return f;
	}
	return NULL;
}

int fs_backups_open(struct fs_backups *b, int type, const char *shown, bool gz, uint64_t version,
                    uint64_t size, struct fs_backup_file **ret, struct err *err)
{
	struct fs_backup_file *f CLEANUP(free_file_p) = NULL;
	int64_t mtime_us;
	int rc = 0;

	pthread_mutex_lock(&b->lock);
	*ret = find_file(b, version);
	pthread_mutex_unlock(&b->lock);
	if (*ret)
		return 0;
	rc = open_file(b, type, shown, gz, &f, &mtime_us, err);
	if (rc == 0 && gz)
		rc = look_into(b, f, err);
	if (rc < 0)
		return rc;
	if (f->version != version)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' has been replaced", f->path);
	f->size = size;
	LOCK_SCOPE(&b->lock);
	if ((*ret = find_file(b, version)))
		return 0; /* another was quicker */
	f->n_refs = 1;
	f->next = b->files;
	b->files = f;
	*ret = take_ptr(f);
	return 0;
}

void fs_backups_close(struct fs_backups *b, struct fs_backup_file *f)
{
	struct fs_backup_file *unused = NULL;
	unsigned n_idle = 0;

	pthread_mutex_lock(&b->lock);
	f->n_refs--;
	for (struct fs_backup_file **at = &b->files; *at && !unused;) {
		if ((*at)->n_refs == 0 && ++n_idle > MAX_IDLE_FILES) {
			unused = *at;
			*at = unused->next;
		} else {
			at = &(*at)->next;
		}
	}
	pthread_mutex_unlock(&b->lock);
	if (unused)
		free_file(unused);
}

static int inflate_once(struct fs_backup_file *f, struct err *err)
{
	LOCK_SCOPE(&f->inflate);
	return f->inflated_fd >= 0
	               ? 0
	               : fs_gunzip_to_file(f->fd, f->path, f->size, &f->inflated_fd, err);
}

static int read_exact(struct fs_backup_file *f, uint64_t offset, void *buf, size_t len,
                      struct err *err)
{
	if (f->pack)
		return pack_read(f->pack, offset, buf, len, err);
	int fd = f->fd;
	if (f->foreign_gz) {
		int rc = inflate_once(f, err);
		if (rc < 0)
			return rc;
		fd = f->inflated_fd;
	}
	return file_pread(fd, buf, len, offset, f->path, err);
}

int fs_backup_read(struct fs_backup_file *f, uint64_t offset, void *buf, size_t len,
                   size_t *ret_len, struct err *err)
{
	uint8_t head[20];
	int rc;

	if (offset >= f->size) {
		*ret_len = 0;
		return 0;
	}
	if (len > f->size - offset)
		len = (size_t)(f->size - offset);
	*ret_len = len;
	rc = read_exact(f, offset, buf, len, err);
	if (rc < 0 || offset >= 20 || offset + len <= 18 || f->size < sizeof(head))
		return rc;
	rc = read_exact(f, 0, head, sizeof(head), err);
	if (rc < 0 || memcmp(head, "SQLite format 3", 16) != 0 || head[18] != 2 || head[19] != 2)
		return rc;
	for (uint64_t at = 18; at < 20; at++)
		if (at >= offset && at < offset + len)
			((uint8_t *)buf)[at - offset] = 1;
	return 0;
}

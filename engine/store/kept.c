/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/kept.h"

#include "engine/base/bytes.h"
#include "engine/base/file.h"
#include "engine/base/units.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#define HEADER 48u
#define USED_AGAIN_S 60  /* how exact "not used for longest" is */
#define ABANDONED_S 3600 /* temporary files of those who died */
#define SWEEP_PART 16u   /* after so much of the limit was put, it is held to */
#define LOCK_NAME "lock"

struct kept {
	int dir_fd;
	uint64_t max_bytes;
	_Atomic uint64_t put_bytes; /* since it was last swept */
	_Atomic unsigned puts;
	pthread_mutex_t sweeping;
};

int kept_open(const char *dir, uint64_t max_bytes, struct kept **ret, struct err *err)
{
	cleanup_kept struct kept *k = calloc(1, sizeof(*k));

	if (!k)
		return err_set(err, ERR_NOMEM, 0, "no memory for a cache");
	k->dir_fd = -1;
	k->max_bytes = max_bytes;
	k->put_bytes = max_bytes; /* others may have left too much */
	pthread_mutex_init(&k->sweeping, NULL);
	int rc = file_make_dirs(dir, err);
	rc = rc ? rc : file_open_dir(AT_FDCWD, dir, false, &k->dir_fd, err);
	if (rc == 0)
		*ret = take_ptr(k);
	return rc;
}

int kept_default(char dir[PATH_MAX], uint64_t *ret_bytes, bool *ret_keep, struct err *err)
{
	const char *own = getenv("ASOF_CACHE_DIR"), *size = getenv("ASOF_CACHE_SIZE");
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int rc = size && *size ? size_parse(size, ret_bytes, err) : 0;

	if (rc < 0)
		return err_wrap(err, rc, "ASOF_CACHE_SIZE");
	if (!size || !*size)
		*ret_bytes = UINT64_C(1) << 30;
	if (*ret_bytes < KEPT_MIN_BYTES)
		*ret_bytes = KEPT_MIN_BYTES;
	if (own)
		snprintf(dir, PATH_MAX, "%s", own);
	else if (geteuid() == 0)
		snprintf(dir, PATH_MAX, "/var/cache/asof");
	else if (xdg && *xdg)
		snprintf(dir, PATH_MAX, "%s/asof", xdg);
	else
		snprintf(dir, PATH_MAX, "%s%s", home && *home ? home : "",
		         home && *home ? "/.cache/asof" : "");
	*ret_keep = *dir != '\0';
	return 0;
}

void kept_free(struct kept *k)
{
	if (!k)
		return;
	if (k->dir_fd >= 0)
		close(k->dir_fd);
	pthread_mutex_destroy(&k->sweeping);
	free(k);
}

static void file_of(struct kept_key key, char out[64])
{
	uint64_t h = hash64(&key, sizeof(key), 0);

	snprintf(out, 64, "%02x/%016" PRIx64 "%016" PRIx64 "-%016" PRIx64, (unsigned)(h & 255),
	         key.object.hi, key.object.lo, key.chunk);
}

/* All but the hash, which is that of the rest of the header and of the bytes. */
static void make_header(uint8_t h[HEADER], struct kept_key key, const void *p, size_t len)
{
	memcpy(h, "asofkept", 8);
	store_le32(h + 8, 1);
	store_le32(h + 12, (uint32_t)len);
	store_le64(h + 16, key.object.lo);
	store_le64(h + 24, key.object.hi);
	store_le64(h + 32, key.chunk);
	store_le64(h + 40, hash64(p, len, hash64(h, 40, 0)));
}

static void was_used(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && time(NULL) - st.st_mtim.tv_sec > USED_AGAIN_S)
		(void)!futimens(fd, NULL);
}

bool kept_get(struct kept *k, struct kept_key key, void *buf, size_t len)
{
	uint8_t got[HEADER], want[HEADER];
	char name[64];
	size_t n = 0, m = 0;
	uint64_t size = 0;
	struct err why = ERR_INIT;

	file_of(key, name);
	cleanup_fd int fd = openat(k->dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool ok = file_size(fd, &size, name, &why) == 0 && size == HEADER + len &&
	          file_pread_some(fd, got, HEADER, 0, &n, name, &why) == 0 && n == HEADER &&
	          file_pread_some(fd, buf, len, HEADER, &m, name, &why) == 0 && m == len;
	if (ok) {
		make_header(want, key, buf, len);
		ok = memcmp(got, want, HEADER) == 0;
	}
	if (ok)
		was_used(fd);
	else
		unlinkat(k->dir_fd, name, 0);
	return ok;
}

bool kept_has(struct kept *k, struct kept_key key)
{
	char name[64];

	file_of(key, name);
	return faccessat(k->dir_fd, name, F_OK, 0) == 0;
}

void kept_drop(struct kept *k, struct kept_key key)
{
	char name[64];

	file_of(key, name);
	unlinkat(k->dir_fd, name, 0);
}

/* ---- the limit ---- */

struct item {
	char name[64];
	time_t used;
	uint64_t bytes;
};
struct items {
	struct item *e;
	size_t n, cap;
	uint64_t bytes;
};

static int older_first(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

static bool add_item(struct items *l, const struct item *item)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 1024;
		struct item *p = realloc(l->e, cap * sizeof(*p));
		if (!p)
			return false;
		l->e = p;
		l->cap = cap;
	}
	l->e[l->n++] = *item;
	l->bytes += item->bytes;
	return true;
}

static bool read_folder(struct kept *k, const char *folder, struct items *l)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	bool ok = true;

	int fd = openat(k->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return true;
	if (!(dir = fdopendir(fd))) {
		close(fd);
		return false;
	}
	while (ok && (d = readdir(dir))) {
		struct item item;
		struct stat st;
		if (d->d_name[0] == '.' || fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode))
			continue;
		if (strstr(d->d_name, ".tmp") && time(NULL) - st.st_mtim.tv_sec > ABANDONED_S) {
			unlinkat(fd, d->d_name, 0);
			continue;
		}
		snprintf(item.name, sizeof(item.name), "%s/%.58s", folder, d->d_name);
		item.used = st.st_mtim.tv_sec;
		item.bytes = (uint64_t)st.st_size;
		ok = add_item(l, &item);
	}
	return ok;
}

static void sweep(struct kept *k)
{
	struct items l = {0};
	struct err why = ERR_INIT;
	cleanup_fd int lock = -1;
	char folder[4];
	bool ok = true;

	/* One at a time: another process that sweeps does it for all. */
	if (file_open(k->dir_fd, LOCK_NAME, O_RDWR | O_CREAT, 0600, &lock, &why) < 0 ||
	    file_lock(lock, LOCK_NAME, &why) < 0)
		return;
	for (unsigned i = 0; i < 256 && ok; i++) {
		snprintf(folder, sizeof(folder), "%02x", i);
		ok = read_folder(k, folder, &l);
	}
	if (l.bytes > k->max_bytes - k->max_bytes / 8) {
		qsort(l.e, l.n, sizeof(*l.e), older_first);
		for (size_t i = 0; i < l.n && l.bytes > k->max_bytes / 4 * 3; i++) {
			unlinkat(k->dir_fd, l.e[i].name, 0);
			l.bytes -= l.e[i].bytes;
		}
	}
	free(l.e);
}

static bool has_room(struct kept *k, size_t len)
{
	struct statvfs v;

	if (len > k->max_bytes / SWEEP_PART || fstatvfs(k->dir_fd, &v) < 0)
		return false;
	if ((uint64_t)v.f_bavail < v.f_blocks / 20)
		return false;
	k->put_bytes += len;
	if (k->put_bytes > k->max_bytes / SWEEP_PART && pthread_mutex_trylock(&k->sweeping) == 0) {
		k->put_bytes = len;
		sweep(k);
		pthread_mutex_unlock(&k->sweeping);
	}
	return true;
}

void kept_put(struct kept *k, struct kept_key key, const void *p, size_t len)
{
	uint8_t header[HEADER];
	char name[64], tmp[96];
	struct err why = ERR_INIT;
	cleanup_fd int fd = -1;

	if (!has_room(k, len))
		return;
	file_of(key, name);
	make_header(header, key, p, len);
	snprintf(tmp, sizeof(tmp), "%.2s/%d-%p-%u.tmp", name, (int)getpid(), (void *)k, k->puts++);
	if (file_open(k->dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, &why) < 0) {
		char folder[4] = {name[0], name[1]};
		if (why.kind != ERR_NOT_FOUND || mkdirat(k->dir_fd, folder, 0700) < 0)
			return;
		if (file_open(k->dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, &why) < 0)
			return;
	}
	if (file_pwrite(fd, header, HEADER, 0, tmp, &why) < 0 ||
	    file_pwrite(fd, p, len, HEADER, tmp, &why) < 0 ||
	    renameat(k->dir_fd, tmp, k->dir_fd, name) < 0)
		unlinkat(k->dir_fd, tmp, 0);
}

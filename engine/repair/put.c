/* SPDX-License-Identifier: Apache-2.0 */
/* What a repair writes: to a scratch folder first, from there to its place. */
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/repair/repair_i.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1u << 20)

int repair_stopped(const struct repair *r, struct err *err)
{
	return r->options->stop && *r->options->stop ? err_set(err, ERR_CANCELLED, 0, "stopped")
	                                             : 0;
}

/* Whether an error is of the run, and not of one object or one place. */
bool repair_ends(int rc, const struct err *why)
{
	return rc < 0 &&
	       (why->kind == ERR_NOMEM || why->kind == ERR_CANCELLED || why->kind == ERR_NO_SPACE);
}

void repair_tell(struct repair *r, const char *key, bool missing, enum repair_outcome outcome,
                 const char *from, const char *why)
{
	const struct repair_step s = {key, missing, outcome, from, why ? why : "", 0};

	r->result->n[outcome]++;
	if (outcome == REPAIR_DONE)
		log_debug("repair", "put back key=%s from=%s", key, from);
	if (r->options->told)
		r->options->told(r->options->ctx, &s);
}

void repair_tell_by_hand(struct repair *r, const char *key, const char *from, uint64_t txid)
{
	const struct repair_step s = {key, true, REPAIR_BY_HAND, from, "", txid};

	r->result->n[REPAIR_BY_HAND]++;
	if (r->options->told)
		r->options->told(r->options->ctx, &s);
}

/* ---- the scratch folder ---- */

#define SCRATCH "asof-repair-"
/* Between its making and its lock. */
#define ABANDONED_S 60

void put_empty(int dir_fd)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;

	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	while (dir && (d = readdir(dir)))
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
			unlinkat(dir_fd, d->d_name, 0);
}

/* What runs that were killed left, which is in clear even of an encrypted archive.  One that is under
 * way holds a lock on its folder. */
static void sweep(const char *tmp)
{
	cleanup_dir DIR *dir = opendir(tmp);
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		cleanup_fd int fd = -1;
		struct stat st;
		if (strncmp(d->d_name, SCRATCH, strlen(SCRATCH)) != 0)
			continue;
		fd = openat(dirfd(dir), d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid() ||
		    time(NULL) - st.st_mtime < ABANDONED_S || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		put_empty(fd);
		unlinkat(dirfd(dir), d->d_name, AT_REMOVEDIR);
	}
}

int put_scratch(struct repair *r, struct err *err)
{
	const char *tmp = getenv("TMPDIR");

	if (r->scratch[0])
		return 0;
	tmp = tmp && *tmp ? tmp : "/var/tmp";
	sweep(tmp);
	if (snprintf(r->scratch, sizeof(r->scratch), "%s/" SCRATCH "XXXXXX", tmp) >=
	    (int)sizeof(r->scratch)) {
		r->scratch[0] = '\0';
		return err_set(err, ERR_USAGE, 0, "TMPDIR: the path is too long");
	}
	if (!mkdtemp(r->scratch)) {
		int rc = err_set(err, ERR_IO, errno, "make a folder '%.200s'", r->scratch);
		r->scratch[0] = '\0';
		return rc;
	}
	int rc = file_open_dir(AT_FDCWD, r->scratch, false, &r->scratch_fd, err);
	/* Where locks fail, that of a sweep does, too. */
	if (rc == 0 && flock(r->scratch_fd, LOCK_EX | LOCK_NB) < 0)
		log_debug("repair", "folder=%s is not locked", r->scratch);
	return rc;
}

void put_drop(struct repair *r, const char *name)
{
	unlinkat(r->scratch_fd, name, 0);
}

static int copy(struct repair *r, struct source *from, int fd, const char *name, struct err *err)
{
	cleanup_free uint8_t *b = malloc(PIECE);
	uint64_t bytes = 0;
	int rc =
	        b ? from->size(from, &bytes, err) : err_set(err, ERR_NOMEM, 0, "no memory to copy");

	for (uint64_t at = 0; at < bytes && rc == 0; at += PIECE) {
		size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
		rc = from->pread(from, b, n, at, err);
		rc = rc ? rc : file_pwrite(fd, b, n, at, name, err);
		rc = rc ? rc : repair_stopped(r, err);
	}
	return rc;
}

int put_fetch(struct repair *r, const struct site *from, const char *key, const char *name,
              struct err *err)
{
	cleanup_source struct source *src = NULL;
	cleanup_fd int fd = -1;

	int rc = put_scratch(r, err);
	rc = rc ? rc : store_open_object(from->at.store, key, UINT64_MAX, &src, err);
	rc = rc ? rc : file_open(r->scratch_fd, name, O_RDWR | O_CREAT | O_TRUNC, 0600, &fd, err);
	return rc ? rc : copy(r, src, fd, name, err);
}

/* ---- aside ---- */

static int aside_name(const char *key, char out[PATH_MAX], struct err *err)
{
	time_t now = (time_t)(clock_now_us() / US_PER_SECOND);
	struct tm tm;
	char when[32];

	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	if (snprintf(out, PATH_MAX, "%s" ASIDE_SUFFIX "%s", key, when) >= PATH_MAX)
		return err_set(err, ERR_USAGE, 0, "the path of '%.60s…' is too long", key);
	return 0;
}

int put_aside(struct repair *r, const char *key, bool keep, struct err *err)
{
	int dir = r->target.at.store->dir_fd;
	char aside[PATH_MAX];

	int rc = aside_name(key, aside, err);
	if (rc < 0)
		return rc;
	/* A second name first: so that there is no moment without a file under the key. */
	if (keep && (linkat(dir, key, dir, aside, 0) == 0 || errno == EEXIST))
		return 0;
	if (renameat(dir, key, dir, aside) < 0)
		return err_set(err, ERR_IO, errno, "move '%s' aside", key);
	r->changed = true;
	return 0;
}

int put_away(struct repair *r, const char *key, struct err *err)
{
	struct store *s = r->target.at.store;

	return s->dir_fd >= 0 ? put_aside(r, key, false, err) : store_remove(s, key, err);
}

/* ---- to its place ---- */

static int put_source(struct repair *r, struct source *src, uint64_t bytes, const char *key,
                      bool missing, struct err *err)
{
	struct store *s = r->target.at.store;
	struct err why = ERR_INIT;
	int rc = repair_stopped(r, err);

	if (rc == 0 && !missing && s->dir_fd >= 0)
		rc = put_aside(r, key, true, err);
	if (rc < 0)
		return rc;
	rc = store_put(s, key, src, bytes, missing ? STORE_CREATE : 0, &why);
	/* A store without conditional writes: it was seen not to be there. */
	if (missing && err_kind_of(rc) == ERR_REFUSED) {
		why = (struct err)ERR_INIT;
		rc = store_put(s, key, src, bytes, 0, &why);
	}
	/* Somebody else has just put it: what is there is looked at as if it were ours. */
	if (err_kind_of(rc) == ERR_EXISTS)
		return 0;
	if (rc < 0)
		return err_copy(err, &why);
	r->result->bytes += bytes;
	r->changed = true;
	return 0;
}

int put_file(struct repair *r, const char *name, const char *key, bool missing, struct err *err)
{
	cleanup_source struct source *src = NULL;
	uint64_t bytes = 0;

	int rc = source_open_file(r->scratch_fd, name, key, &src, err);
	rc = rc ? rc : src->size(src, &bytes, err);
	return rc ? rc : put_source(r, src, bytes, key, missing, err);
}

int put_bytes(struct repair *r, const char *key, const void *p, size_t len, bool missing,
              struct err *err)
{
	cleanup_source struct source *src = NULL;

	int rc = source_open_bytes(p, len, key, &src, err);
	return rc ? rc : put_source(r, src, len, key, missing, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary files, and the exclusive renames that make backups and manifests of them. */
#include "engine/backup/create_i.h"

#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define MAX_NUMBER 9999

/* ---- temporary files ---- */

void making_release(const struct job *j, struct making *m)
{
	if (m->there)
		unlinkat(j->dir_fd, m->tmp, 0);
	if (m->fd >= 0)
		close(m->fd);
	*m = (struct making)MAKING_INIT;
}

int making_open(const struct job *j, struct making *m, struct err *err)
{
	struct stat st;
	uint64_t chance;

	for (int tries = 0; tries < 10; tries++) {
		if (getrandom(&chance, sizeof(chance), 0) != (ssize_t)sizeof(chance))
			return err_set(err, ERR_IO, errno, "get random bytes");
		snprintf(m->tmp, sizeof(m->tmp),
		         BACKUP_TMP_PREFIX "%d-%016" PRIx64 BACKUP_TMP_SUFFIX, (int)getpid(),
		         chance);
		int rc = file_open(j->dir_fd, m->tmp, O_RDWR | O_CREAT | O_EXCL, 0600, &m->fd, err);
		if (err_kind_of(rc) == ERR_EXISTS)
			continue;
		if (rc)
			return err_wrap(err, rc, "write into '%s'", j->dir);
		/* A cleanup can have taken it for a leftover between the two calls. */
		if (file_lock(m->fd, m->tmp, NULL) == 0 && fstat(m->fd, &st) == 0 && st.st_nlink) {
			m->there = true;
			return 0;
		}
		close(take_fd(&m->fd));
	}
	return err_set(err, ERR_IO, 0, "cannot make a temporary file in '%s'", j->dir);
}

/* A file without a name, in the same place. */
int making_open_scratch(const struct job *j, int *ret_fd, struct err *err)
{
	struct making m = MAKING_INIT;
	int rc = making_open(j, &m, err);

	if (rc)
		return rc;
	unlinkat(j->dir_fd, m.tmp, 0);
	*ret_fd = m.fd;
	return 0;
}

/* ---- names ---- */

/* Any form of a backup of that name: the mount shows one file for all of them. */
static bool base_taken(const struct job *j, const char *base)
{
	static const char *const tails[] = {
	        ".db",        ".db.gz",         ".db.gpg",        ".db.gz.gpg",
	        ".db-wal.gz", ".db-journal.gz", ".db-wal.gz.gpg", ".db-journal.gz.gpg"};
	char name[BACKUP_FILE_MAX + 24];

	for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", base, tails[i]);
		if (faccessat(j->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	}
	return false;
}

static void make_base(const struct job *j, const char *prefix, unsigned number, char *out)
{
	char stamp[BACKUP_STAMP_MAX], tail[16] = "";

	backup_stamp(j->begun_us, stamp);
	if (number > 1)
		snprintf(tail, sizeof(tail), "_%u", number);
	snprintf(out, BACKUP_FILE_MAX, "%s_%s%s", prefix, stamp, tail);
}

/* Gives the file that name; EXISTS: another has it. */
static int publish(const struct job *j, struct making *m, const char *name, struct err *err)
{
	int rc = file_rename_new(j->dir_fd, m->tmp, name, err);

	if (rc)
		return rc;
	m->there = false;
	snprintf(m->name, sizeof(m->name), "%s", name);
	return 0;
}

void publish_take_back(const struct job *j, struct making *m)
{
	if (m->name[0])
		unlinkat(j->dir_fd, m->name, 0);
	m->name[0] = '\0';
}

int publish_manifest(const struct job *j, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(BACKUP_MANIFEST_BYTES_MAX);
	struct making m = MAKING_INIT;
	char base[BACKUP_FILE_MAX], name[BACKUP_FILE_MAX + 8];
	struct err why = ERR_INIT;
	int rc = backup_manifest_format(&j->ret->manifest, &text, err);

	rc = rc ? rc : making_open(j, &m, err);
	rc = rc ? rc : file_pwrite(m.fd, text.data, text.len, 0, m.tmp, err);
	rc = rc ? rc : file_datasync(m.fd, m.tmp, err);
	for (unsigned n = 1; !rc; n++) {
		make_base(j, "manifest", n, base);
		snprintf(name, sizeof(name), "%s.json", base);
		int failed = publish(j, &m, name, &why);
		if (!failed)
			break;
		if (err_kind_of(failed) != ERR_EXISTS || n == MAX_NUMBER)
			rc = err_copy(err, &why);
	}
	rc = rc ? rc : file_sync_dir(j->dir_fd, j->dir, err);
	if (rc)
		publish_take_back(j, &m);
	else
		snprintf(j->ret->manifest_path, sizeof(j->ret->manifest_path), "%.*s/%s",
		         (int)(sizeof(j->ret->manifest_path) - sizeof(name) - 1), j->dir, name);
	making_release(j, &m);
	return rc;
}

/* Files [0, n) under one base: the companions, and the backup itself, which is the last. */
static int publish_under(const struct job *j, struct making *files, const char *const *tails,
                         size_t n, const char *base, struct err *err)
{
	char name[BACKUP_FILE_MAX + 24];
	int rc = 0;
	size_t i;

	for (i = 0; i < n && !rc; i++) {
		snprintf(name, sizeof(name), "%s%s", base, tails[i]);
		rc = publish(j, &files[i], name, err);
		/* Before the backup itself has its name they must be there to stay. */
		if (!rc && i + 1 < n && i + 2 == n)
			rc = file_sync_dir(j->dir_fd, j->dir, err);
	}
	rc = rc ? rc : file_sync_dir(j->dir_fd, j->dir, err);
	return rc;
}

/* Takes names back, to be tried under others. */
static int unpublish(const struct job *j, struct making *files, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (!files[i].name[0])
			continue;
		if (renameat(j->dir_fd, files[i].name, j->dir_fd, files[i].tmp) < 0)
			return err_set(err, ERR_IO, errno, "rename '%s/%s'", j->dir, files[i].name);
		files[i].there = true;
		files[i].name[0] = '\0';
	}
	return 0;
}

int publish_all(const struct job *j, struct making *files, const char *const *tails, size_t n,
                struct err *err)
{
	char prefix[BACKUP_FILE_MAX], base[BACKUP_FILE_MAX];
	const char *label = j->options->label;
	struct err why = ERR_INIT;

	snprintf(prefix, sizeof(prefix), "%s%s%s", j->stem, label ? "_" : "", label ? label : "");
	for (unsigned number = 1; number <= MAX_NUMBER; number++) {
		make_base(j, prefix, number, base);
		if (base_taken(j, base))
			continue;
		int rc = publish_under(j, files, tails, n, base, &why);
		if (!rc)
			return 0;
		int back = unpublish(j, files, n, err);
		if (back)
			return back;
		if (err_kind_of(rc) != ERR_EXISTS)
			return err_copy(err, &why);
	}
	return err_set(err, ERR_EXISTS, 0, "no name is left for a backup in '%s'", j->dir);
}

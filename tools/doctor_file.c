/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/doctor.h"

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/sqlite/format.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define PATIENCE_MS 10000
#define FUTURE_S 60
#define WAL_LARGE (UINT64_C(128) << 20)
#define WAL_CAP_DEFAULT (UINT64_C(1) << 30) /* as capture.h says */
#define LOCK_LOOKS 5
#define LOCK_LOOK_US 100000

enum doctor_storage doctor_storage_of(unsigned long f_type)
{
	/* As the kernel's magic.h and the filesystems' own headers have them. */
	static const unsigned network[] = {
	        0x6969,     0x517B,     0xFF534D42, 0xFE534D42, 0x00C36400, 0x01021997, 0x73757245,
	        0x5346414F, 0x6B414653, 0x0BD00BD0, 0x786F4256, 0x47504653, 0xBACBACBC, 0x013111A8,
	};

	for (size_t i = 0; i < sizeof(network) / sizeof(network[0]); i++)
		if ((unsigned)f_type == network[i])
			return DOCTOR_NETWORK;
	switch ((unsigned)f_type) {
	case 0x65735546:
		return DOCTOR_FUSE;
	case 0x794C7630:
		return DOCTOR_OVERLAY;
	case 0x01021994:
	case 0x858458F6:
		return DOCTOR_MEMORY;
	default:
		return DOCTOR_LOCAL;
	}
}

/* ---- looking, in a child that may hang ---- */

struct look {
	int error; /* errno; 0: all of the below */
	struct stat st;
	unsigned long f_type;
	size_t n_header;
	uint8_t header[SQLITE_HEADER_SIZE];
	bool readable, folder_writable, shm_there, shm_writable;
	bool exclusive; /* held so at each of several looks */
	bool reserved;
	uint64_t wal_bytes, journal_bytes;
	uint8_t journal_magic[8];
	mode_t wal_mode, shm_mode; /* 0: not there */
};

static bool held_by_another(int fd, off_t start, off_t len)
{
	struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, F_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static void look_at_locks(int fd, struct look *k)
{
	const off_t pending = SQLITE_PENDING_BYTE;

	k->exclusive = true;
	for (int i = 0; i < LOCK_LOOKS && k->exclusive; i++) {
		k->exclusive =
		        held_by_another(fd, pending, 1) || held_by_another(fd, pending + 2, 510);
		if (k->exclusive)
			clock_sleep_us(LOCK_LOOK_US);
	}
	k->reserved = held_by_another(fd, pending + 1, 1);
}

static mode_t side_file(const char *db, const char *end, uint64_t *ret_bytes)
{
	char path[PATH_MAX + 16];
	struct stat st;

	snprintf(path, sizeof(path), "%s%s", db, end);
	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return 0;
	if (ret_bytes)
		*ret_bytes = (uint64_t)st.st_size;
	return st.st_mode;
}

static void look_at_side_files(const char *path, struct look *k)
{
	char name[PATH_MAX + 16];

	k->wal_mode = side_file(path, "-wal", &k->wal_bytes);
	k->shm_mode = side_file(path, "-shm", NULL);
	k->shm_there = k->shm_mode != 0;
	snprintf(name, sizeof(name), "%s-shm", path);
	k->shm_writable = access(name, R_OK | W_OK) == 0;
	snprintf(name, sizeof(name), "%s", path);
	char *slash = strrchr(name, '/');
	snprintf(slash ? slash + 1 : name, 2, ".");
	k->folder_writable = access(name, W_OK | X_OK) == 0;
	if (side_file(path, "-journal", &k->journal_bytes) && k->journal_bytes) {
		snprintf(name, sizeof(name), "%s-journal", path);
		cleanup_fd int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		ssize_t n = fd >= 0 ? pread(fd, k->journal_magic, 8, 0) : -1;
		(void)n; /* shorter: it stays zeros, which are no magic */
	}
}

static void look(const char *path, struct look *k)
{
	struct statfs fs;

	if (stat(path, &k->st)) {
		k->error = errno;
		return;
	}
	if (statfs(path, &fs) == 0)
		k->f_type = (unsigned long)fs.f_type;
	if (!S_ISREG(k->st.st_mode))
		return;
	look_at_side_files(path, k);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return;
	k->readable = true;
	ssize_t n = pread(fd, k->header, sizeof(k->header), 0);
	k->n_header = n > 0 ? (size_t)n : 0;
	look_at_locks(fd, k);
}

/* What `ask` says of a path: false if it did not come back in time. */
static bool ask_child(const char *path, void (*ask)(const char *path, struct look *k),
                      struct look *ret)
{
	int fds[2];
	size_t got = 0;

	*ret = (struct look){0};
	if (pipe2(fds, O_CLOEXEC) < 0)
		return false;
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		struct look k = {0};
		ask(path, &k);
		ssize_t n = write(fds[1], &k, sizeof(k));
		_exit(n == (ssize_t)sizeof(k) ? 0 : 1);
	}
	close(fds[1]);
	int64_t until_us = clock_mono_us() + PATIENCE_MS * INT64_C(1000);
	while (child > 0 && got < sizeof(*ret)) {
		int64_t left_ms = (until_us - clock_mono_us()) / 1000;
		struct pollfd p = {.fd = fds[0], .events = POLLIN};
		if (left_ms <= 0 || (poll(&p, 1, (int)left_ms) < 0 && errno != EINTR))
			break;
		ssize_t n = p.revents ? read(fds[0], (char *)ret + got, sizeof(*ret) - got) : 0;
		if (p.revents && n <= 0)
			break;
		got += (size_t)n;
	}
	close(fds[0]);
	if (child > 0) {
		kill(child, SIGKILL); /* it has said all, or hangs */
		/* One that hangs in the kernel is left to whoever comes after us. */
		waitpid(child, NULL, got == sizeof(*ret) ? 0 : WNOHANG);
	}
	return got == sizeof(*ret);
}

static void only_stat(const char *path, struct look *k)
{
	struct statfs fs;

	/* The kernel may know what stat(2) gives; statfs(2) goes to the server. */
	k->error = stat(path, &k->st) || statfs(path, &fs) ? errno : 0;
}

bool doctor_answers(const char *path)
{
	struct look k;

	return ask_child(path, only_stat, &k);
}

/* ---- judging ---- */

static void judge_storage(struct doctor *d, const char *path, unsigned long f_type)
{
	switch (doctor_storage_of(f_type)) {
	case DOCTOR_NETWORK:
		doctor_add(d, DOCTOR_SERIOUS, "network-filesystem", path,
		           "put the database on a local disk",
		           "lies on a network filesystem: WAL needs memory shared between its "
		           "processes, and locks that hold; SQLite does not support it there");
		break;
	case DOCTOR_FUSE:
		doctor_add(d, DOCTOR_SERIOUS, "network-filesystem", path,
		           "put the database on a local disk",
		           "lies on a FUSE filesystem, whose locks and shared memory are whatever "
		           "its server makes of them");
		break;
	case DOCTOR_OVERLAY:
		doctor_add(d, DOCTOR_SERIOUS, "container-layer", path,
		           "put the database on a volume that both containers mount",
		           "lies in a container's own layer (overlayfs): it goes with the "
		           "container, and no other container shares its -shm");
		break;
	case DOCTOR_MEMORY:
		doctor_add(d, DOCTOR_WARNING, "memory-filesystem", path,
		           "put the database on a disk",
		           "lies in memory (tmpfs): it goes with the power");
		break;
	case DOCTOR_LOCAL:
		break;
	}
}

/* Permission bits of others that `mode` has beyond those of the database. */
static bool is_wider(mode_t mode, mode_t db)
{
	return (mode & 0077) & ~(db & 0077);
}

static void judge_modes(struct doctor *d, const struct doctor_database *db, const struct look *k)
{
	if (k->st.st_mode & S_IWOTH)
		doctor_add(d, DOCTOR_WARNING, "modes", db->path, "chmod o-w",
		           "everybody can write it (mode %04o)", (unsigned)(k->st.st_mode & 07777));
	if ((k->wal_mode && is_wider(k->wal_mode, k->st.st_mode)) ||
	    (k->shm_mode && is_wider(k->shm_mode, k->st.st_mode)))
		doctor_add(d, DOCTOR_WARNING, "modes", db->path,
		           "chmod --reference=DATABASE DATABASE-wal DATABASE-shm",
		           "its -wal (%04o) or -shm (%04o) lets others in whom the database "
		           "(%04o) shuts out",
		           (unsigned)(k->wal_mode & 0777), (unsigned)(k->shm_mode & 0777),
		           (unsigned)(k->st.st_mode & 0777));
	if (k->st.st_nlink > 1)
		doctor_add(d, DOCTOR_SERIOUS, "two-names", db->path,
		           "leave it one name; a symbolic link does no harm",
		           "is one file under %u names (hard links): each name gets a -wal of its "
		           "own, which corrupts the database",
		           (unsigned)k->st.st_nlink);
}

static void judge_access(struct doctor *d, const struct doctor_database *db, const struct look *k)
{
	if (!k->readable)
		doctor_add(d, DOCTOR_SERIOUS, "permission", db->path,
		           "run asof, and asof doctor, as the application's user",
		           "cannot be read by uid %u; it belongs to uid %u", (unsigned)geteuid(),
		           (unsigned)k->st.st_uid);
	else if (k->shm_there ? !k->shm_writable : !k->folder_writable)
		doctor_add(d, DOCTOR_SERIOUS, "permission", db->path,
		           "run asof as the application's user",
		           "its -shm cannot be %s by uid %u, which readers of a WAL database need; "
		           "the database belongs to uid %u",
		           k->shm_there ? "written" : "made", (unsigned)geteuid(),
		           (unsigned)k->st.st_uid);
}

static void judge_journals(struct doctor *d, const struct doctor_database *db, const struct look *k)
{
	static const uint8_t magic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
	uint64_t cap = db->config && db->config->wal_cap_bytes ? db->config->wal_cap_bytes
	                                                       : WAL_CAP_DEFAULT;
	char size[SIZE_STR_MAX], cap_text[SIZE_STR_MAX];

	if (!db->is_wal && k->wal_bytes)
		doctor_add(d, DOCTOR_SERIOUS, "stale-wal", db->path,
		           "move the -wal away if this file was copied over the database",
		           "is in rollback-journal mode and has a -wal beside it: the next "
		           "connection applies that, whatever the file now is");
	if (memcmp(k->journal_magic, magic, sizeof(magic)) == 0 && !k->reserved && !k->exclusive)
		doctor_add(d, db->is_wal ? DOCTOR_SERIOUS : DOCTOR_WARNING, "hot-journal", db->path,
		           "open it once with sqlite3 if it belongs there, else move it away",
		           "a -journal of nobody's lies beside it, of a crash or of another "
		           "database: the next connection rolls the file back by it");
	cli_format_size(k->wal_bytes, size);
	cli_format_size(cap, cap_text);
	if (db->is_wal && k->wal_bytes > cap)
		doctor_add(d, DOCTOR_SERIOUS, "wal-size", db->path,
		           "end the long reader, then PRAGMA wal_checkpoint(TRUNCATE)",
		           "its -wal has %s, past the cap of %s where asof lets go and declares a "
		           "gap",
		           size, cap_text);
	else if (db->is_wal && k->wal_bytes >= (cap / 2 < WAL_LARGE ? cap / 2 : WAL_LARGE))
		doctor_add(
		        d, DOCTOR_WARNING, "wal-size", db->path,
		        "look for a reader that never ends; PRAGMA wal_checkpoint(TRUNCATE)",
		        "its -wal has grown to %s: checkpoints do not come through (asof lets go "
		        "at %s)",
		        size, cap_text);
}

static void judge_header(struct doctor *d, struct doctor_database *db, const struct look *k)
{
	struct db_header h;
	struct err err = ERR_INIT;

	if (k->readable && k->n_header == 0) {
		doctor_add(d, DOCTOR_NOTE, "empty", db->path, "none is needed",
		           "is empty: no database yet, it is waited for");
		return;
	}
	if (!k->readable)
		return;
	if (db_header_parse(k->header, k->n_header, &h, &err)) {
		doctor_add(d, DOCTOR_SERIOUS, "not-a-database", db->path,
		           "correct the path; encrypted databases are not captured", "%s", err.msg);
		return;
	}
	db->there = true;
	db->is_wal = h.write_version == 2;
	if (!db->is_wal)
		doctor_add(d,
		           db->config && db->config->enable_wal ? DOCTOR_WARNING : DOCTOR_SERIOUS,
		           "journal-mode", db->path,
		           "PRAGMA journal_mode=WAL once, and no journal_mode=DELETE anywhere in "
		           "the application",
		           "is in rollback-journal mode, no commit is captured; a module that sets "
		           "journal_mode=DELETE at each connect switches it back whenever it is "
		           "alone");
	if (h.page_size < 4096 || h.page_size > 16384)
		doctor_add(d, DOCTOR_NOTE, "page-size", db->path,
		           "PRAGMA page_size=4096; VACUUM; in rollback-journal mode",
		           "has pages of %u bytes: %s", h.page_size,
		           h.page_size < 4096
		                   ? "many small frames for each commit"
		                   : "each small commit writes whole pages of that size");
	judge_journals(d, db, k);
}

void doctor_file(struct doctor *d, struct doctor_database *db)
{
	struct look k;

	if (db->hangs || !ask_child(db->path, look, &k)) {
		db->hangs = true;
		doctor_add(d, DOCTOR_SERIOUS, "no-answer", db->path,
		           "look at its filesystem (a file server that hangs?)",
		           "does not answer within %d s", PATIENCE_MS / 1000);
		return;
	}
	if (k.error) {
		doctor_add(d, k.error == ENOENT ? DOCTOR_NOTE : DOCTOR_SERIOUS, "missing", db->path,
		           k.error == ENOENT ? "none is needed if the application makes it"
		                             : "mend the path or its permissions",
		           "%s%s", strerror(k.error),
		           k.error == ENOENT ? "; it is waited for" : "");
		return;
	}
	if (!S_ISREG(k.st.st_mode)) {
		doctor_add(d, DOCTOR_SERIOUS, "not-a-database", db->path, "correct the path",
		           "is no regular file");
		return;
	}
	db->dev = k.st.st_dev;
	db->ino = k.st.st_ino;
	db->mode = k.st.st_mode;
	db->owner = k.st.st_uid;
	db->bytes = (uint64_t)k.st.st_size;
	db->wal_bytes = k.wal_bytes;
	judge_header(d, db, &k);
	judge_storage(d, db->path, k.f_type);
	judge_modes(d, db, &k);
	judge_access(d, db, &k);
	if (k.exclusive)
		doctor_add(d, DOCTOR_SERIOUS, "exclusive", db->path,
		           "take locking_mode=EXCLUSIVE out of the application",
		           "another process holds it exclusively for half a second and more: asof "
		           "cannot attach");
	if ((int64_t)k.st.st_mtim.tv_sec > d->now_us / US_PER_SECOND + FUTURE_S)
		doctor_add(d, DOCTOR_WARNING, "clock", db->path,
		           "set the clock, keep it by chrony or systemd-timesyncd",
		           "was last written in the future: the clock went back");
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds the databases open (/proc/PID/fd), and which SQLite is mapped there (/proc/PID/maps).
 *
 * A library or a program that has SQLite in it has SQLite's file magic in it and a source id,
 * "2022-12-28 14:03:47 df5c253c...", and the version as a text of its own.  A program can have other
 * texts that look like a version; then the date decides.  A distribution may have mended a bug and
 * kept the version: that cannot be seen.
 */
#include "tools/doctor.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define SCAN_CHUNK (1u << 20)
#define SCAN_OVERLAP 128u
#define SCAN_MAX (UINT64_C(1) << 30)
#define PIDS_NAMED 3

/* ---- one file ---- */

static const char file_magic[] = "SQLite format 3";
/* "YYYY-MM-DD HH:MM:SS " and 40 digits of a hash at least */
#define SOURCE_ID_LEN (20 + 40)

static bool is_source_id(const unsigned char *p)
{
	static const char form[] = "dddd-dd-dd dd:dd:dd ";

	for (size_t i = 0; form[i]; i++)
		if (form[i] == 'd' ? !isdigit(p[i]) : p[i] != (unsigned char)form[i])
			return false;
	for (size_t i = 20; i < SOURCE_ID_LEN; i++)
		if (!isxdigit(p[i]))
			return false;
	return true;
}

/* "3.40.1", at the beginning of `text`: three numbers of at most 999. */
static bool read_version(const char *text, unsigned v[3])
{
	for (int i = 0; i < 3; i++) {
		char *end;
		unsigned long n = strtoul(text, &end, 10);
		if (end == text || n > 999 || (i < 2 && *end != '.'))
			return false;
		v[i] = (unsigned)n;
		text = end + 1;
	}
	return true;
}

/* "\0" "3.40.1" "\0" at p: its length without the ends, else 0. */
static size_t version_len(const unsigned char *p, size_t len)
{
	char text[16], again[40];
	unsigned v[3];

	if (len < sizeof(text) + 1 || p[0] != 0 || p[1] != '3' || p[2] != '.')
		return 0;
	memcpy(text, p + 1, sizeof(text));
	if (!memchr(text, 0, sizeof(text)) || !read_version(text, v))
		return 0;
	snprintf(again, sizeof(again), "%u.%u.%u", v[0], v[1], v[2]);
	return strcmp(text, again) == 0 && v[1] >= 7 ? strlen(text) : 0;
}

struct scan {
	bool magic, ambiguous;
	struct doctor_sqlite found;
};

static void scan_bytes(struct scan *s, const unsigned char *p, size_t len)
{
	if (!s->magic && memmem(p, len, file_magic, sizeof(file_magic)))
		s->magic = true;
	for (size_t i = 0; i + SOURCE_ID_LEN <= len; i++) {
		size_t n;
		if (p[i] == '2' && p[i + 1] == '0' && is_source_id(p + i)) {
			/* The newest, should there be several. */
			if (strncmp(s->found.date, (const char *)p + i, 10) < 0)
				snprintf(s->found.date, sizeof(s->found.date), "%.10s", p + i);
		} else if (p[i] == 0 && p[i + 1] == '3' && (n = version_len(p + i, len - i))) {
			const char *text = (const char *)p + i + 1;
			if (s->found.version[0] && strcmp(s->found.version, text) != 0)
				s->ambiguous = true;
			memcpy(s->found.version, text, n + 1);
		}
	}
}

bool doctor_sqlite_in_file(const char *path, struct doctor_sqlite *ret)
{
	cleanup_free unsigned char *buf = malloc(SCAN_OVERLAP + SCAN_CHUNK);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct scan s = {0};
	struct stat st;
	size_t kept = 0;

	if (fd < 0 || !buf || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	for (uint64_t at = 0; at < SCAN_MAX;) {
		ssize_t n = pread(fd, buf + kept, SCAN_CHUNK, (off_t)at);
		if (n <= 0)
			break;
		size_t len = kept + (size_t)n;
		scan_bytes(&s, buf, len);
		kept = len < SCAN_OVERLAP ? len : SCAN_OVERLAP;
		memmove(buf, buf + len - kept, kept);
		at += (uint64_t)n;
	}
	if (!s.magic || !s.found.date[0])
		return false;
	*ret = s.found;
	if (s.ambiguous)
		ret->version[0] = '\0';
	return true;
}

static unsigned version_number(const struct doctor_sqlite *s)
{
	unsigned v[3];

	return read_version(s->version, v) ? v[0] * 1000000 + v[1] * 1000 + v[2] : 0;
}

bool doctor_sqlite_has_reset_bug(const struct doctor_sqlite *s)
{
	unsigned v = version_number(s);

	if (!v) /* 3.51.2 is of January 2026, the mended 3.44.6, 3.50.7, 3.51.3 of March */
		return strcmp(s->date, "2026-03") < 0;
	if (v / 1000 == 3044)
		return v < 3044006;
	if (v / 1000 == 3050)
		return v < 3050007;
	return v >= 3007000 && v < 3051003;
}

bool doctor_sqlite_has_checksum_bug(const struct doctor_sqlite *s)
{
	unsigned v = version_number(s);

	return v ? v < 3050002 : strcmp(s->date, "2025-06-28") < 0;
}

/* ---- all of them ---- */

/* A file that is mapped somewhere, looked at once. */
struct library {
	uint64_t dev, ino;
	bool has_sqlite;
	struct doctor_sqlite sqlite;
	char path[PATH_MAX];
	size_t *users; /* per database: processes that hold it open and have this mapped */
	char pids[PIDS_NAMED * 40];
	size_t n_pids;
};

struct process {
	char pid[16], name[32];
};

struct census {
	struct doctor *d;
	struct library *libraries;
	size_t n_libraries;
	size_t *held; /* database numbers that the process in hand holds */
	size_t n_held;
	ino_t self_ino;
	dev_t self_dev;
};

static void census_release(struct census *c)
{
	for (size_t i = 0; i < c->n_libraries; i++)
		free(c->libraries[i].users);
	free(c->libraries);
	free(c->held);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static struct library *library_of(struct census *c, const struct process *p, uint64_t dev,
                                  uint64_t ino, const char *path)
{
	char inside[PATH_MAX + 64];

	for (size_t i = 0; i < c->n_libraries; i++)
		if (c->libraries[i].dev == dev && c->libraries[i].ino == ino)
			return &c->libraries[i];
	struct library *more = realloc(c->libraries, (c->n_libraries + 1) * sizeof(*more));
	if (!more)
		return NULL;
	c->libraries = more;
	struct library *l = &more[c->n_libraries];
	*l = (struct library){.dev = dev, .ino = ino};
	l->users = calloc(c->d->n_databases + 1, sizeof(*l->users));
	if (!l->users)
		return NULL;
	c->n_libraries++;
	snprintf(l->path, sizeof(l->path), "%s", path);
	/* A container's paths are those below its root. */
	snprintf(inside, sizeof(inside), "/proc/%s/root%s", p->pid, path);
	l->has_sqlite = doctor_sqlite_in_file(inside, &l->sqlite) ||
	                doctor_sqlite_in_file(path, &l->sqlite);
	return l;
}

static void name_user(struct library *l, const struct process *p)
{
	size_t used = strlen(l->pids);

	if (l->n_pids++ < PIDS_NAMED)
		snprintf(l->pids + used, sizeof(l->pids) - used, "%s%s (%s)", used ? ", " : "",
		         p->pid, p->name);
}

/* "from-to rwxp offset major:minor inode   path", all but the last two hexadecimal. */
static bool read_mapping(const char *line, uint64_t *ret_dev, uint64_t *ret_ino, size_t *ret_at)
{
	const char *p = line;
	char *end;

	for (int i = 0; i < 3; i++) { /* the range, what it may be used for, the offset */
		p += strcspn(p, " ");
		p += strspn(p, " ");
	}
	*ret_dev = (uint64_t)strtoul(p, &end, 16) << 32;
	if (end == p || *end != ':')
		return false;
	*ret_dev |= strtoul(end + 1, &end, 16);
	p = end;
	*ret_ino = strtoull(p, &end, 10);
	if (end == p)
		return false;
	*ret_at = (size_t)(end - line) + strspn(end, " ");
	return true;
}

/* The libraries of a process that holds a database open. */
static void look_at_maps(struct census *c, const struct process *p)
{
	char path[64], line[PATH_MAX + 128];
	size_t with_sqlite[2], n = 0; /* by number: the array moves as it grows */

	snprintf(path, sizeof(path), "/proc/%s/maps", p->pid);
	cleanup_file FILE *f = fopen(path, "re");
	if (!f)
		return;
	uint64_t last_ino = 0;
	while (fgets(line, sizeof(line), f)) {
		uint64_t dev, ino;
		size_t at = 0;
		line[strcspn(line, "\n")] = '\0';
		if (!read_mapping(line, &dev, &ino, &at) || line[at] != '/' || ino == last_ino)
			continue;
		last_ino = ino;
		/* Not the database itself, its -shm, or a device. */
		if (strncmp(line + at, "/dev/", 5) == 0 || strstr(line + at, "-shm"))
			continue;
		struct library *l = library_of(c, p, dev, ino, line + at);
		size_t number = l ? (size_t)(l - c->libraries) : 0;
		if (!l || !l->has_sqlite || (n && with_sqlite[0] == number) ||
		    (n > 1 && with_sqlite[1] == number))
			continue;
		with_sqlite[n ? 1 : 0] = number;
		n++;
		name_user(l, p);
		for (size_t i = 0; i < c->n_held; i++)
			l->users[c->held[i]]++;
		if (n == 2)
			doctor_add(c->d, DOCTOR_WARNING, "two-sqlites",
			           c->d->databases[c->held[0]].path,
			           "let one of the two open the database",
			           "process %s (%s) has two copies of SQLite, the second in "
			           "%.200s: if both open one database, closing it in the one drops "
			           "the locks of the other",
			           p->pid, p->name, l->path);
	}
}

static bool is_held(const struct census *c, size_t i)
{
	for (size_t k = 0; k < c->n_held; k++)
		if (c->held[k] == i)
			return true;
	return false;
}

/* The name of a file that is no longer there, without what the kernel puts behind it. */
static bool was_deleted(char *target)
{
	static const char end[] = " (deleted)";
	size_t len = strlen(target), n = sizeof(end) - 1;

	if (len <= n || strcmp(target + len - n, end) != 0)
		return false;
	target[len - n] = '\0';
	return true;
}

static void look_at_fd(struct census *c, const struct process *p, int fds, const char *fd)
{
	char target[PATH_MAX];
	struct stat st;
	ssize_t n = readlinkat(fds, fd, target, sizeof(target) - 1);

	if (n <= 0 || target[0] != '/')
		return;
	target[n] = '\0';
	bool deleted = was_deleted(target);
	for (size_t i = 0; i < c->d->n_databases; i++) {
		struct doctor_database *db = &c->d->databases[i];
		const char *name = last_part(db->path);
		size_t len = strlen(name);
		/* Files of other names are not touched: one may lie on a server that hangs. */
		if (!db->there || strncmp(last_part(target), name, len) != 0)
			continue;
		const char *end = last_part(target) + len;
		if (deleted && (strcmp(end, "-wal") == 0 || !*end) &&
		    strlen(db->path) + strlen(end) == strlen(target) &&
		    strncmp(target, db->path, strlen(db->path)) == 0)
			doctor_add(c->d, DOCTOR_SERIOUS, "deleted-file", db->path,
			           "end that process, then start it again",
			           "process %s (%s) has a %s of this name open that was deleted: "
			           "what it commits there is lost",
			           p->pid, p->name, *end ? "-wal" : "database");
		else if (!*end && !is_held(c, i) && fstatat(fds, fd, &st, 0) == 0 &&
		         st.st_dev == db->dev && st.st_ino == db->ino)
			c->held[c->n_held++] = i;
	}
}

/* asof's own processes are no applications. */
static bool is_asof(const struct census *c, const char *pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%s/exe", pid);
	return stat(path, &st) == 0 && st.st_dev == c->self_dev && st.st_ino == c->self_ino;
}

static void get_name(struct process *p)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%s/comm", p->pid);
	snprintf(p->name, sizeof(p->name), "?");
	cleanup_file FILE *f = fopen(path, "re");
	if (f && fgets(p->name, sizeof(p->name), f))
		p->name[strcspn(p->name, "\n")] = '\0';
	cli_one_line(p->name);
}

static void look_at_process(struct census *c, const char *pid)
{
	struct process p;
	char path[64];
	const struct dirent *e;

	snprintf(p.pid, sizeof(p.pid), "%s", pid);
	get_name(&p);
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	cleanup_dir DIR *dir = opendir(path);
	if (!dir) {
		c->d->n_unseen += errno == EACCES;
		return;
	}
	c->n_held = 0;
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.')
			look_at_fd(c, &p, dirfd(dir), e->d_name);
	if (!c->n_held || is_asof(c, pid))
		return;
	for (size_t i = 0; i < c->n_held; i++)
		c->d->databases[c->held[i]].n_holders++;
	look_at_maps(c, &p);
}

static void judge_library(struct doctor *d, const struct library *l)
{
	char version[64];
	size_t n_shared = 0, example = 0, n_used = 0;

	for (size_t i = 0; i < d->n_databases; i++) {
		n_shared += l->users[i] && d->databases[i].n_holders > 1;
		if (l->users[i] && !n_used++)
			example = i;
	}
	if (!l->has_sqlite || !n_used)
		return;
	if (l->sqlite.version[0])
		snprintf(version, sizeof(version), "SQLite %s", l->sqlite.version);
	else
		snprintf(version, sizeof(version), "an SQLite of %s", l->sqlite.date);
	const char *thing = d->databases[example].path;
	if (doctor_sqlite_has_reset_bug(&l->sqlite))
		doctor_add(d, DOCTOR_WARNING, "sqlite-version", thing,
		           "update the application's SQLite to 3.51.3, 3.50.7 or 3.44.6, or later",
		           "the application runs %s (%.100s, process %s%s): before 3.51.3 two "
		           "connections that write and checkpoint at once can corrupt the "
		           "database%s",
		           version, l->path, l->pids, l->n_pids > PIDS_NAMED ? ", ..." : "",
		           n_shared ? "; several processes have it open" : "");
	if (doctor_sqlite_has_checksum_bug(&l->sqlite))
		doctor_add(d, DOCTOR_WARNING, "sqlite-checksums", thing,
		           "update the application's SQLite to 3.50.2 or later",
		           "%s (%.150s): before 3.50.2 a rolled back savepoint can leave bad "
		           "checksums in the -wal, after which a crash loses commits",
		           version, l->path);
}

void doctor_processes(struct doctor *d)
{
	struct census c CLEANUP(census_release) = {.d = d};
	struct stat self;
	const struct dirent *e;

	cleanup_dir DIR *proc = opendir("/proc");
	c.held = calloc(d->n_databases + 1, sizeof(*c.held));
	if (!c.held)
		d->out_of_memory = true;
	if (!proc || !c.held)
		return;
	if (stat("/proc/self/exe", &self) == 0) {
		c.self_dev = self.st_dev;
		c.self_ino = self.st_ino;
	}
	while ((e = readdir(proc)))
		if (isdigit((unsigned char)e->d_name[0]) && strlen(e->d_name) < 12)
			look_at_process(&c, e->d_name);
	for (size_t i = 0; i < c.n_libraries; i++)
		judge_library(d, &c.libraries[i]);
}

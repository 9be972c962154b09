/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/log.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/json.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define MESSAGE_MAX 1024
#define LOOK_AGAIN_US US_PER_SECOND

/* The log sink is, with the clock, one of the two seams that a process has only one of. */
static _Atomic int sink_level = LOG_INFO;
static _Atomic int sink_format = LOG_TEXT;
static _Atomic int sink_fd = STDERR_FILENO;

/* A file of ours: `fd` is sink_fd too while there is one. */
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	int fd;
	char path[PATH_MAX];
	uint64_t max_bytes, bytes;
	unsigned keep;
	dev_t dev;
	ino_t ino;
	int64_t looked_us; /* when it was last seen at its path */
} file = {.fd = -1};
static atomic_bool file_used;

void log_set_level(enum log_level level)
{
	sink_level = (int)level;
}

void log_set_format(enum log_format format)
{
	sink_format = (int)format;
}

void log_set_fd(int fd)
{
	LOCK_SCOPE(&sink_lock);
	sink_fd = fd;
	file_used = false;
	if (file.fd >= 0)
		close(take_fd(&file.fd));
}

/* ---- the file ---- */

/* Takes what lies at the path, or makes it; the one that is open goes. */
static int open_file(struct err *err)
{
	struct stat st;
	int fd = -1;
	int rc = file_open(AT_FDCWD, file.path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY, 0600, &fd,
	                   err);

	if (rc)
		return rc;
	if (fstat(fd, &st)) {
		close(fd);
		return err_set(err, ERR_IO, errno, "log '%s'", file.path);
	}
	sink_fd = fd;
	if (file.fd >= 0)
		close(file.fd);
	file.fd = fd;
	file.dev = st.st_dev;
	file.ino = st.st_ino;
	file.bytes = (uint64_t)st.st_size;
	file.looked_us = clock_mono_us();
	return 0;
}

int log_set_file(const char *path, uint64_t max_bytes, unsigned keep, struct err *err)
{
	LOCK_SCOPE(&sink_lock);
	char before[PATH_MAX];

	if (strlen(path) > PATH_MAX - 16)
		return err_set(err, ERR_USAGE, 0, "log '%.60s...': the path is too long", path);
	memcpy(before, file.path, sizeof(before));
	snprintf(file.path, sizeof(file.path), "%s", path);
	int rc = open_file(err);
	if (rc) {
		memcpy(file.path, before, sizeof(before));
		return rc;
	}
	file.max_bytes = max_bytes;
	file.keep = keep;
	file_used = true;
	return 0;
}

/* FILE, FILE.1, ... each become the next; the last one goes. */
static void turn_over(void)
{
	char from[PATH_MAX + 16], to[PATH_MAX + 16];
	bool moved = true;

	for (unsigned i = file.keep; i > 0; i--) {
		snprintf(to, sizeof(to), "%s.%u", file.path, i);
		snprintf(from, sizeof(from), i > 1 ? "%s.%u" : "%s", file.path, i - 1);
		moved = rename(from, to) == 0;
	}
	if (file.keep == 0)
		moved = unlink(file.path) == 0;
	/* If not it would only be opened again, and tried again with each line. */
	if (!moved || open_file(NULL))
		file.bytes = 0;
}

static void before_line(size_t len)
{
	int64_t now_us = clock_mono_us();
	struct stat st;

	if (now_us - file.looked_us >= LOOK_AGAIN_US) {
		file.looked_us = now_us;
		if (stat(file.path, &st) || st.st_dev != file.dev || st.st_ino != file.ino) {
			int rc = open_file(NULL);
			(void)rc; /* then the one that is open goes on */
		}
	}
	if (file.max_bytes && file.bytes && file.bytes + len > file.max_bytes)
		turn_over();
}

static void put(const char *line, size_t len)
{
	ssize_t written;

	if (!file_used) {
		written = write(sink_fd, line, len);
	} else {
		LOCK_SCOPE(&sink_lock);
		if (file.fd >= 0)
			before_line(len);
		written = write(sink_fd, line, len);
		file.bytes += written > 0 ? (size_t)written : 0;
	}
	(void)written; /* there is nowhere to report a log that cannot be written */
}

/* ---- lines ---- */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* False without memory. */
static bool put_json(enum log_level level, const char *when, const char *module,
                     const char *message)
{
	json_t *o = json_pack("{ss ss so so}", "time", when, "level", level_names[level], "module",
	                      json_text(module), "message", json_text(message));
	cleanup_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(o);
	if (!text)
		return false;
	text[len] = '\n'; /* in place of its end */
	put(text, len + 1);
	return true;
}

static void put_text(enum log_level level, const char *when, const char *module,
                     const char *message)
{
	char line[MESSAGE_MAX + 128];
	int n = snprintf(line, sizeof(line) - 1, "%s %s %s %s", when, level_names[level], module,
	                 message);
	size_t len = n < (int)sizeof(line) - 1 ? (size_t)n : sizeof(line) - 2;

	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = line[i] == '\n' || line[i] == '\r' || line[i] == '\t' ? ' ' : '?';
	line[len++] = '\n';
	put(line, len);
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
	char message[MESSAGE_MAX], when[TIME_STR_MAX];
	va_list ap;

	if ((int)level > sink_level || sink_fd < 0)
		return;
	time_format(clock_now_us(), when);
	va_start(ap, fmt);
	if (vsnprintf(message, sizeof(message), fmt, ap) < 0)
		message[0] = '\0';
	va_end(ap);
	if (sink_format != LOG_JSON || !put_json(level, when, module, message))
		put_text(level, when, module, message);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/check.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/capture/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 10000
#define TRIAL_NAME ".asof-check.tmp"

const char *check_state_name(enum check_state state)
{
	return state == CHECK_OK ? "ok" : state == CHECK_WAITING ? "waiting" : "problem";
}

static void set(struct check_result *r, enum check_state state, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
static void set(struct check_result *r, enum check_state state, const char *fmt, ...)
{
	va_list ap;

	r->state = state;
	va_start(ap, fmt);
	vsnprintf(r->text, sizeof(r->text), fmt, ap);
	va_end(ap);
}

/* ---- databases ---- */

static int no_break(void *ctx, enum capture_break why, const char *reason, uint32_t page_size,
                    uint64_t epoch, struct err *err)
{
	return err_set(err, ERR_CANCELLED, 0, "only looked at");
}

static int no_batch(void *ctx, const struct capture_batch *batch, struct err *err)
{
	return err_set(err, ERR_CANCELLED, 0, "only looked at");
}

/* What capture would say of it goes through the pipe as it is. */
static void look_as_child(const char *path, bool enable_wal, int out_fd)
{
	struct capture_options options = {.enable_wal = enable_wal};
	struct capture_sink sink = {.on_break = no_break, .on_batch = no_batch};
	struct capture *capture = NULL;
	struct err err = ERR_INIT;

	int rc = capture_open(path, &options, &sink, &capture, &err);
	err.kind = err_kind_of(rc);
	ssize_t n = write(out_fd, &err, sizeof(err));
	_exit(n == sizeof(err) ? 0 : 1);
}

/* False when nothing came in time. */
static bool hear_child(int fd, struct err *ret)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int64_t until_us = clock_mono_us() + PATIENCE_MS * INT64_C(1000);
	int n;

	do {
		int64_t left_ms = (until_us - clock_mono_us()) / 1000;
		n = poll(&p, 1, left_ms > 0 ? (int)left_ms : 0);
	} while (n < 0 && errno == EINTR);
	return n == 1 && read(fd, ret, sizeof(*ret)) == (ssize_t)sizeof(*ret);
}

void check_database(const char *path, bool enable_wal, struct check_result *ret)
{
	struct err err = ERR_INIT;
	struct stat st;
	int fds[2];

	*ret = (struct check_result){0};
	if (stat(path, &st) < 0 && errno == ENOENT) {
		set(ret, CHECK_WAITING, "no such file yet; it is waited for");
		return;
	}
	ret->bytes = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	if (pipe2(fds, O_CLOEXEC) < 0) {
		set(ret, CHECK_PROBLEM, "no pipe: %s", strerror(errno));
		return;
	}
	fflush(NULL);
	pid_t child = fork();
	if (child == 0)
		look_as_child(path, enable_wal, fds[1]);
	close(fds[1]);
	bool heard = child > 0 && hear_child(fds[0], &err);
	close(fds[0]);
	if (child > 0) {
		kill(child, SIGKILL); /* it has said all, or never will */
		waitpid(child, NULL, 0);
	}
	err.msg[sizeof(err.msg) - 1] = '\0';
	if (!heard)
		set(ret, CHECK_PROBLEM, "'%.300s' does not answer (does its filesystem hang?)",
		    path);
	else if (err.kind)
		set(ret, CHECK_PROBLEM, "%s", err.msg);
	else
		set(ret, CHECK_OK, "readable, in WAL mode");
}

/* ---- archives ---- */

/* The nearest folder above that exists; false: none can be reached. */
static bool existing_parent(const char *path, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s", path);
	while (access(out, F_OK) < 0) {
		char *slash = strrchr(out, '/');
		if (errno != ENOENT || !slash)
			return false;
		slash[slash == out] = '\0';
		if (slash == out && access(out, F_OK) < 0)
			return false;
	}
	return true;
}

static bool try_writing(const char *root, struct check_result *ret)
{
	struct err err = ERR_INIT;
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0) {
		set(ret, CHECK_PROBLEM, "archive '%.300s': %s", root, strerror(errno));
		return false;
	}
	/* Left behind by one that was ended in the middle. */
	unlinkat(dir, TRIAL_NAME, 0);
	int rc = file_put(dir, TRIAL_NAME, "asof check\n", 11, &err);
	unlinkat(dir, TRIAL_NAME, 0);
	if (rc)
		set(ret, CHECK_PROBLEM, "archive '%.200s' cannot be written: %.200s", root,
		    err.msg);
	return rc == 0;
}

uint64_t check_kept_free(const struct config_retention *r, uint64_t total_bytes)
{
	uint64_t part = total_bytes / 100 * r->min_free_percent;

	if (!r->min_free_percent)
		return r->min_free_bytes;
	return r->min_free_bytes && r->min_free_bytes < part ? r->min_free_bytes : part;
}

static void check_space(const char *folder, const struct config_retention *retention,
                        struct check_result *ret)
{
	struct statvfs fs;

	if (statvfs(folder, &fs) < 0)
		return; /* nothing is known of it then */
	ret->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	ret->needed_bytes = check_kept_free(retention, (uint64_t)fs.f_blocks * fs.f_frsize);
	if (ret->free_bytes <= ret->needed_bytes)
		set(ret, CHECK_PROBLEM,
		    "archive '%.200s': its filesystem has less free space than is kept free "
		    "(min-free), nothing would be captured (make room)",
		    folder);
}

void check_archive(const char *root, const struct config_retention *retention,
                   struct check_result *ret)
{
	char parent[PATH_MAX];
	struct stat st;

	*ret = (struct check_result){0};
	if (!existing_parent(root, parent)) {
		set(ret, CHECK_PROBLEM, "archive '%.300s': %s", root, strerror(errno));
		return;
	}
	bool exists = strcmp(parent, root) == 0;
	if (stat(parent, &st) < 0 || !S_ISDIR(st.st_mode)) {
		set(ret, CHECK_PROBLEM, "archive '%.200s': '%.200s' is no folder", root, parent);
		return;
	}
	if (exists) {
		if (!try_writing(root, ret))
			return;
		set(ret, CHECK_OK, "writable");
	} else if (access(parent, W_OK | X_OK) < 0) {
		set(ret, CHECK_PROBLEM, "archive '%.200s' cannot be made in '%.200s': %s", root,
		    parent, strerror(errno));
		return;
	} else {
		set(ret, CHECK_OK, "not there yet, can be made");
	}
	check_space(parent, retention, ret);
}

void check_mount(const struct config_mount *mount, struct check_result *ret)
{
	struct stat st;

	*ret = (struct check_result){0};
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		set(ret, CHECK_PROBLEM, "mount: /dev/fuse: %s (in a container: --device /dev/fuse)",
		    strerror(errno));
	else if (stat(mount->dir, &st) < 0 && errno != ENOTCONN)
		set(ret, CHECK_PROBLEM, "mount: '%.300s': %s (mkdir -p makes it)", mount->dir,
		    strerror(errno));
	else
		set(ret, CHECK_OK, "can be mounted on");
}

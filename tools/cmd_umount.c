/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a mount down: as root by umount2(2), else by fusermount3, which is setuid.
 * The mount point is found in /proc/self/mountinfo, never by looking into it: a mount whose
 * server died answers ENOTCONN to everything, and is to be taken down all the same.
 */
#include "tools/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* The absolute path of a mount point: its folder resolved, its last part as it is. */
static int mount_point_path(const char *dir, char out[PATH_MAX], struct err *err)
{
	char copy[PATH_MAX], parent[PATH_MAX];
	size_t len = strlen(dir);

	if (len >= sizeof(copy))
		return err_set(err, ERR_USAGE, 0, "umount: the path is too long");
	memcpy(copy, dir, len + 1);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	if (realpath(copy, out))
		return 0;
	if (errno != ENOTCONN)
		return err_set(err, ERR_NOT_FOUND, errno, "umount '%.200s'", dir);
	char *slash = strrchr(copy, '/');
	const char *last = slash ? slash + 1 : copy;
	if (slash)
		*slash = '\0';
	if (!realpath(!slash ? "." : slash == copy ? "/" : copy, parent))
		return err_set(err, ERR_NOT_FOUND, errno, "umount '%.200s'", dir);
	int n = snprintf(out, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", last);
	return n < PATH_MAX ? 0 : err_set(err, ERR_USAGE, 0, "umount: the path is too long");
}

/* mountinfo writes blank, tab, newline and backslash as \ooo. */
static void unescape_octal(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* The last mount on that path decides: mounts stack. */
static int check_is_ours(const char *path, struct err *err)
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;
	bool mounted = false, ours = false;

	if (!f)
		return err_set(err, ERR_IO, errno, "open /proc/self/mountinfo");
	while (getline(&line, &cap, f) > 0) {
		char *save, *type = strstr(line, " - ");
		char *field = strtok_r(line, " ", &save);
		for (int i = 0; field && i < 4; i++)
			field = strtok_r(NULL, " ", &save);
		if (!field || !type)
			continue;
		unescape_octal(field);
		if (strcmp(field, path) == 0) {
			mounted = true;
			ours = strncmp(type + 3, "fuse.asof ", 10) == 0;
		}
	}
	if (!ours)
		return err_set(err, ERR_NOT_FOUND, 0, "umount '%.200s': %s", path,
		               mounted ? "mounted, but not by asof" : "not mounted");
	return 0;
}

static int busy(const char *path, struct err *err)
{
	return err_set(err, ERR_BUSY, 0,
	               "umount '%.200s': in use (end what reads there, or use --lazy)", path);
}

static int run_fusermount(const char *path, bool lazy, struct err *err)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0)
		return err_set(err, ERR_IO, errno, "fork");
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", lazy ? "-uzq" : "-uq", "--", path,
		       (char *)NULL);
		_exit(127);
	}
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_set(err, ERR_IO, errno, "wait for fusermount3");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(err, ERR_IO, 0,
		               "umount '%.200s': fusermount3 cannot be run (install fuse3)", path);
	return lazy ? err_set(err, ERR_DENIED, 0, "umount '%.200s': fusermount3 refused", path)
	            : busy(path, err);
}

static int run_umount(struct cli *c, struct err *err)
{
	char path[PATH_MAX];
	bool lazy = false;
	int id, rc;

	while ((id = cli_option(c, err)) > 0)
		lazy = true;
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 1, 1, "DIR", err)) ||
	    (rc = mount_point_path(c->args[0], path, err)) || (rc = check_is_ours(path, err)))
		return rc;
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EPERM)
		return run_fusermount(path, lazy, err);
	return errno == EBUSY ? busy(path, err)
	                      : err_set(err, ERR_IO, errno, "umount '%.200s'", path);
}

static const struct cli_option umount_options[] = {
        {'z', "lazy", NULL, "take it out of the tree now, end it with its last user"},
        CLI_OPTION_END,
};

const struct cli_command cmd_umount = {
        .name = "umount",
        .usage = "DIR [--lazy]",
        .summary = "Takes a mount down (fusermount3 -u DIR does it as well).",
        .example = "asof umount /mnt",
        .options = umount_options,
        .prints = true,
        .run = run_umount,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/mounted.h"

#include "engine/base/cleanup.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* The absolute path of a mount point: its folder resolved, its last part as it is. */
static int mount_point_path(const char *dir, char out[PATH_MAX], struct err *err)
{
	char copy[PATH_MAX], parent[PATH_MAX];
	size_t len = strlen(dir);

	if (len >= sizeof(copy))
		return err_set(err, ERR_USAGE, 0, "the path of the mount point is too long");
	memcpy(copy, dir, len + 1);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	if (realpath(copy, out))
		return 0;
	if (errno != ENOTCONN)
		return err_set(err, ERR_NOT_FOUND, errno, "mount point '%.200s'", dir);
	char *slash = strrchr(copy, '/');
	const char *last = slash ? slash + 1 : copy;
	if (slash)
		*slash = '\0';
	if (!realpath(!slash ? "." : slash == copy ? "/" : copy, parent))
		return err_set(err, ERR_NOT_FOUND, errno, "mount point '%.200s'", dir);
	int n = snprintf(out, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", last);
	return n < PATH_MAX ? 0
	                    : err_set(err, ERR_USAGE, 0, "the path of the mount point is too long");
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

struct mount_line {
	char *device, *point, *source; /* "0:52"; the others unescaped */
	bool ours;
};

/* A line of mountinfo, which is taken apart; false: not as proc(5) has it. */
static bool parse_mount_line(char *line, struct mount_line *ret)
{
	char *save, *type = strstr(line, " - ");
	char *field = strtok_r(line, " ", &save);

	for (int i = 0; field && i < 4; i++) {
		field = strtok_r(NULL, " ", &save);
		if (i == 1)
			ret->device = field;
	}
	if (!field || !type)
		return false;
	unescape_octal(field);
	ret->point = field;
	ret->ours = strncmp(type + 3, "fuse.asof ", 10) == 0;
	ret->source = ret->ours ? strtok_r(type + 13, " ", &save) : NULL;
	if (ret->source)
		unescape_octal(ret->source);
	return true;
}

/* The last mount on that path decides: mounts stack. */
static int check_is_ours(const char *path, struct err *err)
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	struct mount_line m;
	size_t cap = 0;
	bool mounted = false, ours = false;

	if (!f)
		return err_set(err, ERR_IO, errno, "open /proc/self/mountinfo");
	while (getline(&line, &cap, f) > 0) {
		if (parse_mount_line(line, &m) && strcmp(m.point, path) == 0) {
			mounted = true;
			ours = m.ours;
		}
	}
	if (!ours)
		return err_set(err, ERR_NOT_FOUND, 0, "'%.200s' is %s", path,
		               mounted ? "mounted, but not by asof" : "not mounted");
	return 0;
}

bool fs_mounted_device(dev_t dev, const char *path, struct fs_mounted *ret)
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	struct mount_line m;
	char device[32];
	size_t cap = 0;
	bool found = false;

	snprintf(device, sizeof(device), "%u:%u", major(dev), minor(dev));
	while (f && getline(&line, &cap, f) > 0) {
		if (!parse_mount_line(line, &m) || !m.ours || strcmp(m.device, device) != 0)
			continue;
		if (found && strcmp(m.point, path) != 0)
			continue; /* a bind mount of the same */
		snprintf(ret->point, sizeof(ret->point), "%s", m.point);
		snprintf(ret->source, sizeof(ret->source), "%s", m.source ? m.source : "");
		found = true;
	}
	return found;
}

int fs_mounted_path(const char *dir, char ret[PATH_MAX], struct err *err)
{
	int rc = mount_point_path(dir, ret, err);

	return rc ? rc : check_is_ours(ret, err);
}

/* The last mount on that path, as above. */
static bool device_of(const char *path, char device[32])
{
	cleanup_file FILE *f = fopen("/proc/self/mountinfo", "re");
	cleanup_free char *line = NULL;
	struct mount_line m;
	size_t cap = 0;
	bool ours = false;

	while (f && getline(&line, &cap, f) > 0) {
		if (!parse_mount_line(line, &m) || strcmp(m.point, path) != 0)
			continue;
		ours = m.ours;
		snprintf(device, 32, "%s", m.device);
	}
	return ours;
}

void fs_mounted_read_ahead(const char *point, unsigned kib)
{
	char device[32], file[80];

	if (!device_of(point, device))
		return;
	snprintf(file, sizeof(file), "/sys/class/bdi/%s/read_ahead_kb", device);
	cleanup_file FILE *f = fopen(file, "we");
	if (f)
		fprintf(f, "%u\n", kib);
}

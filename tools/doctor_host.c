/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/doctor.h"

#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <sys/vfs.h>

#define FDS_PER_DATABASE 12
#define FDS_BESIDES 100
#define WATCHES_PER_DATABASE 3
#define FEW_WATCHES 1024
#define CAP_SYS_ADMIN_BIT 21
#define CAP_SYS_NICE_BIT 23

static void look_at_clock(struct doctor *d)
{
	struct timex t = {0};
	int state = adjtimex(&t);

	if (state >= 0 && (state == TIME_ERROR || (t.status & STA_UNSYNC)))
		doctor_add(d, DOCTOR_WARNING, "clock", "clock",
		           "install chrony, or systemctl enable --now systemd-timesyncd",
		           "nothing keeps the clock: the kernel calls it unsynchronised, and a "
		           "clock that steps back makes `at TIME` uncertain");
}

/* A line "NAME:\tVALUE" of /proc/self/status. */
static bool own_status(const char *name, char *ret, size_t size)
{
	char line[256];
	cleanup_file FILE *f = fopen("/proc/self/status", "re");
	size_t n = strlen(name);

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, n) == 0 && line[n] == ':') {
			snprintf(ret, size, "%s", line + n + 1 + strspn(line + n + 1, " \t"));
			ret[strcspn(ret, "\n")] = '\0';
			return true;
		}
	return false;
}

static bool has_capability(int bit)
{
	char text[32];

	return own_status("CapEff", text, sizeof(text)) && ((strtoull(text, NULL, 16) >> bit) & 1);
}

/* A number that a file of /proc/sys holds; 0: none. */
static unsigned long long read_number(const char *path)
{
	char text[32] = "";
	cleanup_file FILE *f = fopen(path, "re");

	return f && fgets(text, sizeof(text), f) ? strtoull(text, NULL, 10) : 0;
}

static bool in_container(void)
{
	char line[256];
	cleanup_file FILE *f = fopen("/proc/1/cgroup", "re");

	if (access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0)
		return true;
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "docker") || strstr(line, "kubepods") || strstr(line, "lxc"))
			return true;
	return false;
}

/* ---- FUSE ---- */

static bool fuse_conf_allows_others(void)
{
	char line[256];
	cleanup_file FILE *f = fopen("/etc/fuse.conf", "re");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line + strspn(line, " \t"), "user_allow_other", 16) == 0)
			return true;
	return false;
}

static bool find_program(const char *name)
{
	const char *path = getenv("PATH");
	char file[4096];

	for (const char *p = path ? path : "/usr/bin:/bin"; *p;) {
		size_t n = strcspn(p, ":");
		snprintf(file, sizeof(file), "%.*s/%s", (int)n, p, name);
		if (access(file, X_OK) == 0)
			return true;
		p += n + (p[n] == ':');
	}
	return false;
}

/* `mount` NULL: none is configured, then it is only worth a note. */
static void look_at_fuse(struct doctor *d, const struct config_mount *mount)
{
	enum doctor_severity bad = mount ? DOCTOR_SERIOUS : DOCTOR_NOTE;
	const char *thing = mount ? mount->dir : "mount";
	bool root = geteuid() == 0;
	char text[32];
	struct statfs fs;

	if (access("/dev/fuse", R_OK | W_OK) < 0)
		doctor_add(d, bad, "fuse", thing,
		           in_container() ? "docker run --device /dev/fuse --cap-add SYS_ADMIN"
		                          : "modprobe fuse; or use asof query, which needs none",
		           "nothing can be mounted: /dev/fuse: %s", strerror(errno));
	else if (root && !has_capability(CAP_SYS_ADMIN_BIT))
		doctor_add(d, bad, "fuse", thing,
		           "docker run --cap-add SYS_ADMIN --device /dev/fuse",
		           "nothing can be mounted: root without CAP_SYS_ADMIN");
	else if (!root && !find_program("fusermount3"))
		doctor_add(d, bad, "fuse", thing, "apt install fuse3",
		           "nothing can be mounted: fusermount3 is not there");
	else if (!root && own_status("NoNewPrivs", text, sizeof(text)) && strcmp(text, "1") == 0)
		doctor_add(
		        d, bad, "fuse", thing,
		        "NoNewPrivileges=no, or let root mount it (fstab, type fuse.asof)",
		        "nothing can be mounted: no_new_privs keeps fusermount3 from being root");
	if (!mount)
		return;
	if (mount->options && strstr(mount->options, "allow_other") && !root &&
	    !fuse_conf_allows_others())
		doctor_add(
		        d, DOCTOR_SERIOUS, "fuse", thing,
		        "write user_allow_other in /etc/fuse.conf",
		        "allow_other is configured, and /etc/fuse.conf does not let users do that");
	if (!doctor_answers(mount->dir))
		doctor_add(d, DOCTOR_SERIOUS, "no-answer", thing, "look at asof mount there",
		           "the mount does not answer");
	else if (statfs(mount->dir, &fs) < 0 && errno == ENOTCONN)
		doctor_add(d, DOCTOR_SERIOUS, "dead-mount", thing, "fusermount3 -uz it",
		           "is the mount of a process that has died");
}

/* ---- limits ---- */

static void look_at_inotify(struct doctor *d)
{
	unsigned long long watches = read_number("/proc/sys/fs/inotify/max_user_watches");
	unsigned long long wanted = WATCHES_PER_DATABASE * d->n_databases + FEW_WATCHES;
	cleanup_fd int fd = inotify_init1(IN_CLOEXEC);

	if (fd < 0)
		doctor_add(d, DOCTOR_WARNING, "inotify", "inotify",
		           "sysctl fs.inotify.max_user_instances=1024",
		           "no instance is to be had (%s): capture then looks by the clock alone",
		           strerror(errno));
	else if (watches && watches < wanted)
		doctor_add(d, DOCTOR_WARNING, "inotify", "inotify",
		           "sysctl fs.inotify.max_user_watches=524288",
		           "fs.inotify.max_user_watches is %llu, asof and others want %llu",
		           watches, wanted);
}

static void look_at_limits(struct doctor *d)
{
	rlim_t wanted = FDS_PER_DATABASE * d->n_databases + FDS_BESIDES;
	struct rlimit l;

	/* asof run raises its soft limit itself. */
	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_max != RLIM_INFINITY && l.rlim_max < wanted)
		doctor_add(d, DOCTOR_SERIOUS, "open-files", "ulimit -n",
		           "LimitNOFILE=65536 in the unit, or ulimit -Hn 65536",
		           "%llu files may be open at once, %zu databases need %llu",
		           (unsigned long long)l.rlim_max, d->n_databases,
		           (unsigned long long)wanted);
	if (!has_capability(CAP_SYS_NICE_BIT) && getrlimit(RLIMIT_RTPRIO, &l) == 0 &&
	    l.rlim_max == 0)
		doctor_add(d, DOCTOR_NOTE, "priority", "priority",
		           "LimitRTPRIO=1 in the unit, or docker run --cap-add SYS_NICE",
		           "this user may not ask for real-time scheduling: where all processors "
		           "are taken capture can come late, which is a declared gap");
}

void doctor_host(struct doctor *d)
{
	look_at_clock(d);
	look_at_fuse(d, d->config && d->config->mount.dir ? &d->config->mount : NULL);
	look_at_inotify(d);
	look_at_limits(d);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of events, background:
 *
 *   parent                         child
 *   checks options and paths
 *   fork ------------------------> setsid, open the archive, load, mount, start the session
 *   waits for the report <-------- report: ready, or the error
 *   returns                        detaches from the terminal, serves, returns at the end
 *
 * Forking comes first, since neither threads nor the FUSE connection survive it.
 */
#include "fs/mount.h"

#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/store/store.h"
#include "fs/mounted.h"
#include "fs/ops.h"
#include "fs/options.h"

#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

/* How long open files may go on after the mount was detached. */
#define LINGER_SECONDS 10
/* How often, and after how long, what nobody reads is let go of. */
#define TIDY_SECONDS 5
#define SOURCE_HEAD "asof:"

struct mount {
	struct fs_options options;
	const struct fs_mount_options *given;
	char *archive_path, *mountpoint; /* resolved */
	struct fs_ops ops;
	struct fs_tree *tree;
	sem_t tidy_end;
	struct fuse_session *session;
	int report_fd;        /* to the parent, until ready; -1: none */
	bool there_already;   /* nothing is left to do */
	atomic_bool detached; /* by us: what is mounted there now is not ours to unmount */
	atomic_bool over;     /* the loop has ended */
};

/* ---- checks ---- */

static bool is_within(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	if (strcmp(folder, "/") == 0)
		return true;
	return strncmp(path, folder, n) == 0 && (!path[n] || path[n] == '/');
}

/*
 * One over the other would hide what is there from everybody, and be left when one is taken down;
 * one in the other would hold it.  But `mount -a` asks for what is there already: it is.
 */
static int refuse_mounted(struct mount *m, dev_t dev, struct err *err)
{
	struct fs_mounted there;

	if (!fs_mounted_device(dev, m->mountpoint, &there))
		return 0;
	bool same_point = strcmp(there.point, m->mountpoint) == 0;
	m->there_already = m->given->from_fstab && same_point &&
	                   strncmp(there.source, SOURCE_HEAD, strlen(SOURCE_HEAD)) == 0 &&
	                   strcmp(there.source + strlen(SOURCE_HEAD), m->archive_path) == 0;
	if (m->there_already)
		return 0;
	return err_set(err, ERR_USAGE, 0,
	               "mount point '%.150s': a mount of asof lies %s (run: asof umount '%.150s', "
	               "or choose another directory)",
	               m->mountpoint, same_point ? "there already" : "over it", there.point);
}

static int resolve(struct mount *m, const struct fs_mount_options *options, struct err *err)
{
	struct statvfs fs;
	struct stat st;

	bool far = store_is_url(options->archive);
	m->archive_path = far ? strdup(options->archive) : realpath(options->archive, NULL);
	if (!m->archive_path)
		return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "archive '%s'",
		               options->archive);
	/* Of a server that is gone the kernel may know the folder's attributes still; not statfs(). */
	if ((stat(options->mountpoint, &st) < 0 || statvfs(options->mountpoint, &fs) < 0) &&
	    errno == ENOTCONN)
		return err_set(
		        err, ERR_IO, 0,
		        "'%s' is a stale mount whose server is gone (run: fusermount3 -uz '%s')",
		        options->mountpoint, options->mountpoint);
	m->mountpoint = realpath(options->mountpoint, NULL);
	if (!m->mountpoint)
		return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno,
		               "mount point '%s'", options->mountpoint);
	if (stat(m->mountpoint, &st) < 0 || !S_ISDIR(st.st_mode))
		return err_set(err, ERR_USAGE, 0, "mount point '%s' is not a directory",
		               m->mountpoint);
	int rc = refuse_mounted(m, st.st_dev, err);
	if (rc || far)
		return rc;
	if (is_within(m->mountpoint, m->archive_path) || is_within(m->archive_path, m->mountpoint))
		return err_set(
		        err, ERR_USAGE, 0,
		        "mount point '%s' and archive '%s' overlap (choose another directory)",
		        m->mountpoint, m->archive_path);
	return 0;
}

/* ---- the session ---- */

/* fsname=asof:/path with what the option syntax needs escaped. */
static char *session_words(const struct mount *m)
{
	static const char head[] =
	        "ro,nosuid,nodev,noexec,default_permissions,subtype=asof,fsname=" SOURCE_HEAD;
	static const char others[] = ",allow_other";
	char *words = malloc(sizeof(head) + 2 * strlen(m->archive_path) + sizeof(others));

	if (!words)
		return NULL;
	char *p = stpcpy(words, head);
	for (const char *s = m->archive_path; *s; s++) {
		if (*s == ',' || *s == '\\')
			*p++ = '\\';
		*p++ = *s;
	}
	stpcpy(p, m->options.allow_other ? ",allow_other" : "");
	return words;
}

static int start_session(struct mount *m, struct err *err)
{
	char *words cleanup_free = session_words(m);
	char name[] = "asof", flag[] = "-o";
	char *argv[] = {name, flag, words, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	if (!words)
		return err_set(err, ERR_NOMEM, 0, "no memory for mount options");
	m->session = fuse_session_new(&args, &fs_callbacks, sizeof(fs_callbacks), &m->ops);
	fuse_opt_free_args(&args);
	if (!m->session)
		return err_set(err, ERR_IO, 0, "cannot start a FUSE session");
	if (fuse_session_mount(m->session, m->mountpoint) == 0)
		return 0;
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		return err_set(err, ERR_IO, errno,
		               "mount '%s': /dev/fuse (in a container: --device /dev/fuse "
		               "--cap-add SYS_ADMIN)",
		               m->mountpoint);
	return err_set(err, ERR_IO, 0, "cannot mount '%s'%s", m->mountpoint,
	               m->options.allow_other && getuid() != 0
	                       ? " (allow_other needs user_allow_other in /etc/fuse.conf)"
	                       : " (reason above)");
}

static unsigned n_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n > 2 ? (unsigned)(2 * n) : 4;
}

static int serve(struct mount *m, struct err *err)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();

	if (!config)
		return err_set(err, ERR_NOMEM, 0, "no memory for the session");
	fuse_loop_cfg_set_clone_fd(config, 0);
	fuse_loop_cfg_set_max_threads(config, n_threads());
	int rc = fuse_session_loop_mt(m->session, config);
	fuse_loop_cfg_destroy(config);
	atomic_store(&m->over, true);
	/* ENODEV: unmounted from outside.  A positive value is a signal that libfuse took. */
	if (rc < 0 && rc != -ENODEV && !atomic_load(&m->detached))
		return err_set(err, ERR_IO, -rc, "serving '%s'", m->mountpoint);
	return 0;
}

static int run_fusermount(const char *mountpoint, const char *flag)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execlp("fusermount3", "fusermount3", flag, "--", mountpoint, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static void detach(struct mount *m)
{
	if (atomic_exchange(&m->detached, true))
		return;
	if (umount2(m->mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
		run_fusermount(m->mountpoint, "-uz");
}

/*
 * Waits for a signal that asks to stop.  SIGUSR2 wakes it without that, when the loop has
 * ended by itself.  After the detaching the loop ends with the last close.  If that takes too
 * long the process ends, and its connection with it: there is nothing here to be lost.
 */
static void *watch_signals(void *arg)
{
	struct mount *m = arg;
	sigset_t set;
	int signal_number;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	if (sigwait(&set, &signal_number) != 0 || signal_number == SIGUSR2)
		return NULL;
	log_info("fs", "detaching mount=%s signal=%d", m->mountpoint, signal_number);
	detach(m);
	for (int step = 0; step < LINGER_SECONDS * 20; step++) {
		if (atomic_load(&m->over))
			return NULL;
		clock_sleep_us(50000);
	}
	log_warn("fs", "files still open, giving up mount=%s after=%ds", m->mountpoint,
	         LINGER_SECONDS);
	_exit(0);
}

/* A thread of its own: an archive that does not answer must not keep signals waiting. */
static void *tidy(void *arg)
{
	struct mount *m = arg;
	struct timespec until;
	int failed;

	do {
		fs_tree_tidy(m->tree, TIDY_SECONDS * US_PER_SECOND);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += TIDY_SECONDS;
		do
			failed = sem_clockwait(&m->tidy_end, CLOCK_MONOTONIC, &until);
		while (failed && errno == EINTR);
	} while (failed && errno == ETIMEDOUT);
	return NULL;
}

static int serve_tidily(struct mount *m, struct err *err)
{
	pthread_t tidier;

	if (store_is_url(
	            m->archive_path)) /* nothing there is held by being open, and a look costs */
		return serve(m, err);
	sem_init(&m->tidy_end, 0, 0);
	if (pthread_create(&tidier, NULL, tidy, m) != 0)
		return err_set(err, ERR_NOMEM, errno, "start a thread");
	int rc = serve(m, err);
	sem_post(&m->tidy_end);
	pthread_join(tidier, NULL);
	sem_destroy(&m->tidy_end);
	return rc;
}

static void block_signals(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

/* ---- readiness ---- */

static void notify_manager(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	static const char ready[] = "READY=1";

	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, strlen(path));
	if (path[0] == '@')
		to.sun_path[0] = 0;
	int fd cleanup_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 &&
	    sendto(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL, (struct sockaddr *)&to,
	           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		log_warn("fs", "service manager not told errno=%d", errno);
}

/* The system's log takes a line per datagram. */
static int open_system_log(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	int fd cleanup_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return -1;
	return take_fd(&fd);
}

/* Lets go of the caller's terminal, pipes and folder: whoever waits for their end is done. */
static void go_background(int log_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_set_fd(log_fd >= 0 ? log_fd : open_system_log());
	if (chdir("/") < 0)
		log_warn("fs", "stays in its folder errno=%d", errno);
	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

/*
 * libfuse unmounts by path unless the connection is gone.  After our own detaching, with files
 * still open, that path may be another's mount already.
 */
static void end_session(struct mount *m)
{
	struct pollfd fd = {.fd = fuse_session_fd(m->session)};

	if (!atomic_load(&m->detached) || (poll(&fd, 1, 0) == 1 && fd.revents & POLLERR))
		fuse_session_unmount(m->session);
	fuse_session_destroy(m->session);
}

/* ---- the whole ---- */

/* To the parent, once; false: it has had its report. */
static bool report(struct mount *m, const struct err *what)
{
	if (m->report_fd < 0)
		return false;
	if (write(m->report_fd, what, sizeof(*what)) < 0)
		log_warn("fs", "caller is gone mount=%s", m->mountpoint);
	close(m->report_fd);
	m->report_fd = -1;
	return true;
}

/* Of those that stand in: what was named opens, or is an error; what is configured is told of. */
static int open_places(struct mount *m, struct store **stores, size_t *n, struct err *err)
{
	const struct fs_options *o = &m->options;

	for (size_t i = 0; i < o->n_also; i++) {
		int rc = store_open(o->also[i], NULL, &stores[*n], err);
		if (rc < 0) {
			while (*n > 0)
				store_free(stores[--*n]);
			return err_wrap(err, rc, "also=");
		}
		++*n;
	}
	for (size_t i = 0; i < m->given->n_also && *n < FS_ALSO_MAX; i++) {
		struct err why = ERR_INIT;
		if (store_open(m->given->also[i].url, &m->given->also[i].options, &stores[*n],
		               &why) == 0)
			++*n;
		else
			log_warn("fs", "cannot stand in for '%s': %s", m->archive_path, why.msg);
	}
	return 0;
}

/* In this process: what talks to a place must not be forked. */
static int open_archive(struct mount *m, struct archive **ret, struct err *err)
{
	struct store *stores[FS_ALSO_MAX];
	const struct fs_options *o = &m->options;
	struct archive_options ao = {.cache_bytes = o->cache_bytes,
	                             .keep_dir = o->keep_dir[0] ? o->keep_dir : NULL,
	                             .keep_bytes = o->keep_bytes,
	                             .store = m->given->store,
	                             .other_stores = stores};

	int rc = open_places(m, stores, &ao.n_other_stores, err);
	if (rc < 0)
		return rc;
	return archive_open(m->archive_path, &ao, ret, err);
}

static int run(struct mount *m, int log_fd, struct err *err)
{
	struct fs_tree_options tree_options = {.zone = m->options.zone,
	                                       .list_all = m->options.list_all};
	struct archive *archive cleanup_archive = NULL;
	struct fs_tree *tree = NULL;
	struct err none = ERR_INIT;
	pthread_t watcher;

	block_signals();
	if (m->options.zone_name[0]) {
		setenv("TZ", m->options.zone_name, 1);
		tzset();
	}
	int rc = open_archive(m, &archive, err);
	if (rc == 0)
		rc = fs_tree_new(archive, &tree_options, &tree, err);
	if (rc < 0)
		return rc;
	m->tree = tree;
	fs_ops_init(&m->ops, tree);
	m->ops.uid = m->options.uid;
	m->ops.gid = m->options.gid;
	m->ops.mountpoint = m->mountpoint;
	m->ops.file_mode = m->options.file_mode;
	m->ops.dir_mode = m->options.dir_mode;
	rc = start_session(m, err);
	if (rc == 0 && pthread_create(&watcher, NULL, watch_signals, m) != 0)
		rc = err_set(err, ERR_NOMEM, errno, "start a thread");
	if (rc == 0) {
		if (m->report_fd >= 0) {
			go_background(log_fd);
			report(m, &none);
		}
		notify_manager();
		log_info("fs", "mounted archive=%s mount=%s", m->archive_path, m->mountpoint);
		rc = serve_tidily(m, err);
		pthread_kill(watcher, SIGUSR2);
		pthread_join(watcher, NULL);
		log_info("fs", "unmounted mount=%s", m->mountpoint);
	}
	if (m->session)
		end_session(m);
	fs_ops_release(&m->ops);
	fs_tree_free(tree);
	return rc;
}

static int run_background(struct mount *m, int log_fd, struct err *err)
{
	struct err answer;
	int pipe_fds[2], status;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_set(err, ERR_IO, errno, "make a pipe");
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		close(pipe_fds[0]);
		close(pipe_fds[1]);
		return err_set(err, ERR_IO, errno, "start a process");
	}
	if (pid == 0) {
		struct err why = ERR_INIT;
		close(pipe_fds[0]);
		setsid();
		m->report_fd = pipe_fds[1];
		int rc = run(m, log_fd, &why);
		/* Before it was ready the parent tells; after that only the log can. */
		if (rc < 0 && !report(m, &why))
			log_error("fs", "mount ended mount=%s why=%s", m->mountpoint, why.msg);
		_exit(rc < 0 ? err_exit_status(why.kind) : 0);
	}
	close(pipe_fds[1]);
	ssize_t n;
	do
		n = read(pipe_fds[0], &answer, sizeof(answer));
	while (n < 0 && errno == EINTR);
	close(pipe_fds[0]);
	if (n == (ssize_t)sizeof(answer))
		return answer.kind ? err_copy(err, &answer) : 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return err_set(err, ERR_IO, 0, "the mount process ended before it was ready");
}

int fs_mount_main(const struct fs_mount_options *options, struct err *err)
{
	struct mount *m = calloc(1, sizeof(*m));
	int log_fd cleanup_fd = -1;

	if (!m)
		return err_set(err, ERR_NOMEM, 0, "no memory for a mount");
	m->report_fd = -1;
	m->given = options;
	int rc = fs_options_parse(options->words, &m->options, err);
	if (rc == 0)
		rc = resolve(m, options, err);
	bool wanted = rc == 0 && !m->there_already;
	if (wanted && m->options.log_path[0]) {
		log_fd = open(m->options.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (log_fd < 0)
			rc = err_set(err, ERR_IO, errno, "log '%s'", m->options.log_path);
	}
	if (rc == 0 && options->foreground && log_fd >= 0)
		log_set_fd(log_fd);
	if (rc == 0 && wanted)
		rc = options->foreground ? run(m, log_fd, err) : run_background(m, log_fd, err);
	free(m->archive_path);
	free(m->mountpoint);
	free(m);
	return rc;
}

int fs_umount(const char *mountpoint, bool lazy, struct err *err)
{
	if (umount2(mountpoint, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW) == 0)
		return 0;
	int why = errno;
	if (why == EBUSY)
		return err_set(err, ERR_BUSY, 0,
		               "'%s' is in use (asof umount -z, or close what uses it)",
		               mountpoint);
	if (run_fusermount(mountpoint, lazy ? "-uz" : "-u") == 0)
		return 0;
	return err_set(err, ERR_IO, why, "unmount '%s'", mountpoint);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int spawn(struct command *c, const char *const argv[], int in_fd, int out_fd,
                 struct err *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, defaults;
	char *args[16];
	size_t n = 0;

	while (argv[n] && n < 15) {
		args[n] = (char *)argv[n]; /* posix_spawnp() does not change them */
		n++;
	}
	args[n] = NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	if (in_fd < 0)
		posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	else
		posix_spawn_file_actions_adddup2(&actions, in_fd, 0);
	posix_spawn_file_actions_adddup2(&actions, out_fd, 1);
	posix_spawn_file_actions_adddup2(&actions, c->err_fd, 2);
	/* What we block or ignore is our own business. */
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	int failed = posix_spawnp(&c->pid, args[0], &actions, &attr, args, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	if (!failed)
		return 0;
	c->pid = 0;
	return err_set(err, failed == ENOENT ? ERR_NOT_FOUND : ERR_IO, failed,
	               "start the program '%s' (install it, or see PATH)", args[0]);
}

int command_start(struct command *c, const char *const argv[], int in_fd, struct err *err)
{
	int ends[2];

	*c = (struct command)COMMAND_INIT;
	snprintf(c->name, sizeof(c->name), "%s", argv[0]);
	c->err_fd = memfd_create("stderr", MFD_CLOEXEC);
	if (c->err_fd < 0 || pipe2(ends, O_CLOEXEC) < 0) {
		int e = errno;
		command_release(c);
		return err_set(err, ERR_IO, e, "start '%s'", argv[0]);
	}
	int rc = spawn(c, argv, in_fd, ends[1], err);
	close(ends[1]);
	c->out_fd = ends[0];
	if (rc)
		command_release(c);
	return rc;
}

/* The last line that is not empty: programs explain first and give the reason then. */
static void last_line(int fd, char *out, size_t size)
{
	char text[2048];
	off_t end = lseek(fd, 0, SEEK_END);
	off_t from = end > (off_t)sizeof(text) - 1 ? end - (off_t)sizeof(text) + 1 : 0;
	ssize_t n = end > 0 ? pread(fd, text, sizeof(text) - 1, from) : 0;

	if (n < 0)
		n = 0;
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
		n--;
	text[n] = '\0';
	const char *line = strrchr(text, '\n');
	snprintf(out, size, "%.200s", line ? line + 1 : text);
}

int command_finish(struct command *c, enum err_kind kind, struct err *err)
{
	char said[208];
	int status;

	if (c->out_fd >= 0)
		close(take_fd(&c->out_fd));
	while (waitpid(c->pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_set(err, ERR_IO, errno, "wait for '%s'", c->name);
	c->pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	last_line(c->err_fd, said, sizeof(said));
	if (WIFSIGNALED(status))
		return err_set(err, kind, 0, "'%s' ended by signal %d", c->name, WTERMSIG(status));
	return err_set(err, kind, 0, "'%s' failed with status %d: %s", c->name, WEXITSTATUS(status),
	               said[0] ? said : "it said nothing");
}

void command_release(struct command *c)
{
	int status;

	if (c->out_fd >= 0)
		close(take_fd(&c->out_fd));
	if (c->err_fd >= 0)
		close(take_fd(&c->err_fd));
	if (c->pid > 0) {
		kill(c->pid, SIGKILL);
		while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
			;
		c->pid = 0;
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/child.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define IOPRIO_CLASS_IDLE_VALUE (3 << 13)

/* After fork() in a process with threads: async-signal-safe functions only. */
static void become(const struct child_options *o, const char *const *argv, pid_t parent)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!o->keep_on_death)
		prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (!o->keep_on_death && getppid() != parent)
		_exit(1); /* it died meanwhile */
	if (o->own_group)
		setpgid(0, 0);
	if (o->idle) {
		setpriority(PRIO_PROCESS, 0, 19);
		syscall(SYS_ioprio_set, 1, 0, IOPRIO_CLASS_IDLE_VALUE);
	}
	int in = open("/dev/null", O_RDONLY);
	if (in >= 0 && o->own_group)
		dup2(in, STDIN_FILENO);
	if (o->stdout_fd > STDERR_FILENO)
		dup2(o->stdout_fd, STDOUT_FILENO);
	if (o->stderr_fd > STDERR_FILENO)
		dup2(o->stderr_fd, STDERR_FILENO);
	close_range(3, ~0U, 0);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

int child_start(struct child *c, const struct child_options *o, const char *const *argv,
                struct err *err)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid < 0)
		return err_set(err, ERR_IO, errno, "start '%s'", argv[0]);
	if (pid == 0)
		become(o, argv, parent);
	*c = (struct child){.pid = pid, .started_us = clock_mono_us()};
	return 0;
}

bool child_ended(struct child *c, int *ret_status)
{
	if (!c->pid)
		return false;
	pid_t pid = waitpid(c->pid, ret_status, WNOHANG);
	if (pid == 0) {
		if (c->kill_us && clock_mono_us() > c->kill_us) {
			child_signal(c, SIGKILL);
			c->kill_us = 0;
		}
		return false;
	}
	if (pid < 0) { /* somebody else took it */
		if (errno == EINTR)
			return false;
		*ret_status = 0;
	}
	*c = (struct child){0};
	return true;
}

void child_signal(const struct child *c, int sig)
{
	if (c->pid > 0)
		kill(c->pid, sig);
}

void child_end(struct child *c, int64_t patience_us)
{
	if (!c->pid || c->kill_us)
		return;
	child_signal(c, SIGTERM);
	c->kill_us = clock_mono_us() + patience_us;
}

void child_describe(int status, char out[CHILD_STATUS_MAX])
{
	if (WIFSIGNALED(status))
		snprintf(out, CHILD_STATUS_MAX, "was killed by signal %d", WTERMSIG(status));
	else
		snprintf(out, CHILD_STATUS_MAX, "exited with status %d", WEXITSTATUS(status));
}

int child_exit_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/mounter.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define BACKOFF_MIN_US US_PER_SECOND
#define BACKOFF_MAX_US (60 * US_PER_SECOND)
#define PATIENCE_US (3 * US_PER_SECOND)

void mounter_init(struct mounter *m, const char *program)
{
	*m = (struct mounter){.backoff_us = BACKOFF_MIN_US};
	snprintf(m->program, sizeof(m->program), "%s", program);
}

void mounter_apply(struct mounter *m, const struct config_mount *c)
{
	snprintf(m->next_dir, sizeof(m->next_dir), "%s", c->dir ? c->dir : "");
	snprintf(m->next_archive, sizeof(m->next_archive), "%s", c->archive ? c->archive : "");
	snprintf(m->next_options, sizeof(m->next_options), "%s", c->options ? c->options : "");
	m->changed = strcmp(m->dir, m->next_dir) != 0 || strcmp(m->archive, m->next_archive) != 0 ||
	             strcmp(m->options, m->next_options) != 0;
	if (m->changed)
		child_end(&m->child, PATIENCE_US);
}

static void take_over(struct mounter *m)
{
	memcpy(m->dir, m->next_dir, sizeof(m->dir));
	memcpy(m->archive, m->next_archive, sizeof(m->archive));
	memcpy(m->options, m->next_options, sizeof(m->options));
	m->changed = false;
	m->not_before_us = 0;
	m->backoff_us = BACKOFF_MIN_US;
}

static void start_later(struct mounter *m)
{
	m->not_before_us = clock_mono_us() + m->backoff_us;
	m->backoff_us = m->backoff_us * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US : m->backoff_us * 2;
}

/* A mount whose server died answers so until it is taken away; stat(2) may still be answered from
 * what the kernel remembers. */
static bool is_dead_mount(const char *dir)
{
	cleanup_fd int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 && errno == ENOTCONN;
}

static void start(struct mounter *m)
{
	const struct child_options o = {.own_group = true, .stdout_fd = -1};
	/* Whoever still stands in the dead one, or has a file of it open, gets nothing from it. */
	const char *umount[] = {m->program, "umount", "--lazy", m->dir, NULL};
	const char *mount[] = {m->program, "mount", m->archive, m->dir,
	                       "-f",       "-o",    m->options, NULL};
	struct err why = ERR_INIT;

	if (!m->options[0])
		mount[5] = NULL;
	m->clearing = is_dead_mount(m->dir);
	if (child_start(&m->child, &o, m->clearing ? umount : mount, &why) < 0) {
		log_error("mount", "not started dir=%s: %s", m->dir, why.msg);
		start_later(m);
	} else if (!m->clearing) {
		log_info("mount", "started dir=%s archive=%s pid=%d", m->dir, m->archive,
		         (int)m->child.pid);
	}
}

static void ended(struct mounter *m, int status, int64_t lived_us)
{
	char text[CHILD_STATUS_MAX];

	if (m->stopping || m->changed)
		return;
	if (m->clearing && status == 0)
		return;
	if (lived_us > BACKOFF_MAX_US)
		m->backoff_us = BACKOFF_MIN_US;
	child_describe(status, text);
	log_error("mount", "%s dir=%s in_s=%lld: %s, starting it again",
	          m->clearing ? "not unmounted" : "ended", m->dir,
	          (long long)(m->backoff_us / US_PER_SECOND), text);
	start_later(m);
}

void mounter_step(struct mounter *m)
{
	int64_t started_us = m->child.started_us, now_us = clock_mono_us();
	int status = 0;

	if (m->child.pid && child_ended(&m->child, &status))
		ended(m, status, now_us - started_us);
	if (m->child.pid || m->stopping)
		return;
	if (m->changed)
		take_over(m);
	if (m->dir[0] && m->archive[0] && now_us >= m->not_before_us)
		start(m);
}

void mounter_stop(struct mounter *m)
{
	m->stopping = true;
	child_end(&m->child, PATIENCE_US);
}

bool mounter_stopped(const struct mounter *m)
{
	return !m->child.pid;
}

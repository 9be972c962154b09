/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/notify.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static int connect_to(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = strlen(name);

	if ((name[0] != '/' && name[0] != '@') || len < 2 || len >= sizeof(a.sun_path))
		return -1;
	memcpy(a.sun_path, name, len);
	if (name[0] == '@')
		a.sun_path[0] = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&a,
	                       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

void notify_open(struct notify *n)
{
	const char *name = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	*n = (struct notify){.fd = name ? connect_to(name) : -1};
	if (n->fd >= 0 && usec && (!pid || strtoll(pid, NULL, 10) == (long long)getpid()))
		n->watchdog_us = strtoll(usec, NULL, 10);
	if (n->watchdog_us < 0)
		n->watchdog_us = 0;
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

static void send_text(struct notify *n, const char *text)
{
	if (n->fd < 0)
		return;
	ssize_t sent = send(n->fd, text, strlen(text), MSG_NOSIGNAL);
	(void)sent; /* said again, or missed */
}

void notify_ready(struct notify *n)
{
	send_text(n, "READY=1");
}

void notify_reloading(struct notify *n)
{
	char text[80];

	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_mono_us());
	send_text(n, text);
}

void notify_stopping(struct notify *n)
{
	send_text(n, "STOPPING=1");
}

void notify_watchdog(struct notify *n)
{
	send_text(n, "WATCHDOG=1");
}

void notify_status(struct notify *n, const char *fmt, ...)
{
	char status[sizeof(n->status)], text[sizeof(n->status) + 8];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(status, sizeof(status), fmt, ap);
	va_end(ap);
	if (n->fd < 0 || strcmp(status, n->status) == 0)
		return;
	memcpy(n->status, status, sizeof(status));
	snprintf(text, sizeof(text), "STATUS=%s", status);
	send_text(n, text);
}

void notify_close(struct notify *n)
{
	if (n->fd >= 0)
		close(take_fd(&n->fd));
}

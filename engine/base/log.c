/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/log.h"

#include "engine/base/clock.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

/* The log sink is, with the clock, one of the two seams that a process has only one of. */
static _Atomic int sink_level = LOG_INFO;
static _Atomic int sink_fd = STDERR_FILENO;

void log_set_level(enum log_level level)
{
	sink_level = (int)level;
}

void log_set_fd(int fd)
{
	sink_fd = fd;
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	char line[1024], when[TIME_STR_MAX];
	va_list ap;

	if ((int)level > sink_level || sink_fd < 0)
		return;
	time_format(clock_now_us(), when);
	int n = snprintf(line, sizeof(line), "%s %s %s ", when, names[level], module);
	va_start(ap, fmt);
	int m = vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	va_end(ap);
	size_t len = (size_t)n + (m > 0 ? (size_t)m : 0);
	if (len > sizeof(line) - 1)
		len = sizeof(line) - 1;
	for (size_t i = 0; i < len; i++)
		if (line[i] == '\n' || line[i] == '\r')
			line[i] = ' ';
	line[len++] = '\n';
	ssize_t written = write(sink_fd, line, len);
	(void)written; /* there is nowhere to report a log that cannot be written */
}

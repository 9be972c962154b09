/* SPDX-License-Identifier: Apache-2.0 */
/*
 * systemd's notification protocol (sd_notify(3)): datagrams of KEY=VALUE lines to the socket that
 * $NOTIFY_SOCKET names, a path or, beginning with '@', an abstract name.  Without it nothing
 * happens.  A service manager that does not listen is no trouble.
 */
#ifndef ASOF_DAEMON_NOTIFY_H
#define ASOF_DAEMON_NOTIFY_H

#include <stdint.h>

struct notify {
	int fd;              /* -1: nobody to tell */
	int64_t watchdog_us; /* how often WATCHDOG=1 is expected; 0: never */
	char status[160];    /* what STATUS= said last */
};

/* Reads $NOTIFY_SOCKET and $WATCHDOG_USEC, and takes them out of the environment: children are
 * not to speak for us. */
void notify_open(struct notify *n);
void notify_ready(struct notify *n);
void notify_reloading(struct notify *n);
void notify_stopping(struct notify *n);
void notify_watchdog(struct notify *n);
/* STATUS=, when it has changed. */
void notify_status(struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void notify_close(struct notify *n);

#endif

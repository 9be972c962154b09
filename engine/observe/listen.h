/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets to listen on.  Not for others than the server. */
#ifndef ASOF_OBSERVE_LISTEN_H
#define ASOF_OBSERVE_LISTEN_H

#include "engine/base/err.h"

#include <limits.h>
#include <sys/types.h>

struct listener {
	int fd;
	char path[PATH_MAX]; /* of a Unix socket; "" */
	dev_t dev;
	ino_t ino;
	bool local; /* a loopback address */
};

/* `address`: HOST:PORT, [V6]:PORT, :PORT (all of this machine's), unix:/PATH.  BUSY: taken. */
int listener_open(const char *address, struct listener *ret, struct err *err) MUST_USE;
/* Removes the socket's file if it is still this one's; the descriptor stays. */
void listener_unlink(const struct listener *l);

#endif

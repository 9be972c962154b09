/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The observer: `asof job observe`, a supervised child that serves HTTP and sends alerts
 * (engine/observe).  It asks the control socket and reads archives, as anybody could: clients that
 * are many, slow or hostile meet it, never the process that captures.
 *
 * It is started again when it ends, later and later while it keeps failing; one that ends with
 * OBSERVER_AGAIN wants to be started anew at once (its addresses changed).  When the configuration is
 * loaded again it is told by SIGHUP and loads it for itself, so that no secret is on a command line.
 */
#ifndef ASOF_DAEMON_OBSERVER_H
#define ASOF_DAEMON_OBSERVER_H

#include "engine/config/config.h"
#include "engine/daemon/child.h"

#include <limits.h>

#define OBSERVER_AGAIN 75

struct observer {
	struct child child;
	bool wanted, stopping;
	int64_t not_before_us, backoff_us; /* monotonic; of the next start */
	const char *program, *env_path;
	bool no_expand;
	char config_path[PATH_MAX], socket[PATH_MAX]; /* "" none */
};

/* `program` is asof itself; the texts outlive it.  `socket`: of control; "" none. */
void observer_init(struct observer *o, const char *program, const struct config_options *options,
                   const char *socket);
/* Whether this configuration gives it something to do. */
bool observer_is_wanted(const struct config *c);
void observer_apply(struct observer *o, const struct config *c);
/* Often. */
void observer_step(struct observer *o);
void observer_stop(struct observer *o);
bool observer_stopped(const struct observer *o);

#endif

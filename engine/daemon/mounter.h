/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount that the configuration asks for: `asof mount ARCHIVE DIR -f` as a supervised child,
 * which talks to the archive alone.  It is started again when it ends, later and later while it
 * keeps failing; what a killed one left behind at DIR is taken away first.
 *
 *   NONE --> CLEARING --> RUNNING --> BACKOFF --> CLEARING      (CLEARING: `asof umount`, if DIR
 *              dead mount              ended                     answers "not connected")
 */
#ifndef ASOF_DAEMON_MOUNTER_H
#define ASOF_DAEMON_MOUNTER_H

#include "engine/config/config.h"
#include "engine/daemon/child.h"

#include <limits.h>

struct mounter {
	struct child child;
	bool clearing, stopping;
	int64_t not_before_us, backoff_us; /* monotonic; of the next start */
	char program[PATH_MAX];
	char dir[PATH_MAX], archive[PATH_MAX], options[512];
	/* What a configuration wants instead, once the present one has ended. */
	bool changed;
	char next_dir[PATH_MAX], next_archive[PATH_MAX], next_options[512];
};

/* `program` is asof itself. */
void mounter_init(struct mounter *m, const char *program);
/* From now on as `c` wants it (dir NULL: none). */
void mounter_apply(struct mounter *m, const struct config_mount *c);
/* Often. */
void mounter_step(struct mounter *m);
void mounter_stop(struct mounter *m);
bool mounter_stopped(const struct mounter *m);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trying out what a configuration names, each for itself, writing nothing that stays.
 */
#ifndef ASOF_TOOLS_CHECK_H
#define ASOF_TOOLS_CHECK_H

#include "engine/base/err.h"
#include "engine/config/config.h"

#include <stdbool.h>
#include <stdint.h>

enum check_state {
	CHECK_OK,
	CHECK_WAITING, /* not there yet, which is no fault */
	CHECK_PROBLEM,
};
const char *check_state_name(enum check_state state);

struct check_result {
	enum check_state state;
	char text[512];                    /* what was found; of a problem why, and what to do */
	uint64_t bytes;                    /* of a database */
	uint64_t free_bytes, needed_bytes; /* of an archive's filesystem */
};

/*
 * Looks at a live database, as capture does before it attaches: in a child process, whose end
 * closes no descriptor of ours, and which is ended after 10 s (a file server that hangs).
 */
void check_database(const char *path, bool enable_wal, struct check_result *ret);

/*
 * Whether an archive can be written and has more free space than is kept free.  In a folder that
 * exists a file is made, fsynced and removed; of one that does not, whether it can be made.
 */
void check_archive(const char *root, const struct config_retention *retention,
                   struct check_result *ret);

/* What min-free keeps of a filesystem of that size. */
uint64_t check_kept_free(const struct config_retention *retention, uint64_t total_bytes);

/* Whether a folder can be mounted on. */
void check_mount(const struct config_mount *mount, struct check_result *ret);

#endif

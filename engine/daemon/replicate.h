/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asof replicate`: one live database -> one archive, and what that archive holds -> any number of
 * destinations (shipping.h), until asked to stop.
 */
#ifndef ASOF_DAEMON_REPLICATE_H
#define ASOF_DAEMON_REPLICATE_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct replicate_options {
	const char *db_path;
	const char *archive;
	const char *name; /* in the archive; NULL: the file name */
	bool strict;      /* see capture.h */
	bool enable_wal;
	bool adopt;                      /* take over a name that belongs to another path */
	uint64_t wal_cap_bytes;          /* 0: default */
	uint64_t segment_bytes;          /* 0: default, 64 MiB */
	bool no_maintenance;             /* neither seal nor coalesce (tests) */
	const char *const *destinations; /* URLs, or directories */
	size_t n_destinations;
	bool take_over; /* of destinations that another asof writes: see ship_take_over() */
	int ready_fd;   /* "ready\n" is written there once capture runs; -1: none */
};

/*
 * Runs until SIGTERM or SIGINT, then writes what was committed by then: 0.  These signals must
 * not be handled otherwise in the process.  Errors: as capture_open(), capture_run() and
 * recorder_open().
 */
int replicate_run(const struct replicate_options *options, struct err *err) MUST_USE;

#endif

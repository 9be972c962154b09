/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/upkeep.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

#include <fcntl.h>

#define LOOK_US 2000 /* compaction lets go between two of its steps, for a few of these */

int upkeep_lock(int dir_fd, const char *name, int64_t wait_us, int *ret_fd, struct err *err)
{
	int64_t end_us = clock_mono_us() + wait_us;
	cleanup_fd int fd = -1;
	struct err why;

	int rc = file_open(dir_fd, "upkeep", O_RDWR | O_CREAT, 0600, &fd, err);
	if (rc < 0)
		return rc;
	for (;;) {
		why = (struct err)ERR_INIT;
		rc = file_lock(fd, "upkeep", &why);
		if (rc == 0 || why.kind != ERR_BUSY || clock_mono_us() >= end_us)
			break;
		clock_sleep_us(LOOK_US);
	}
	if (rc == 0)
		*ret_fd = take_fd(&fd);
	else if (why.kind == ERR_BUSY)
		return err_set(
		        err, ERR_BUSY, 0,
		        "another process is at work in the history of '%s' (try again later)",
		        name);
	return rc < 0 ? err_copy(err, &why) : 0;
}

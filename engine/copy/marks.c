/* SPDX-License-Identifier: Apache-2.0 */
/* Marks that were taken away in the first go in the second, too: see archive/given.h. */
#include "engine/archive/given.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/copy/copy_i.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTE_MAX 4096

/* Whether the second still has that very note. */
static bool is_ours(int to_fd, const struct given_mark *m)
{
	cleanup_free char *text = NULL;
	size_t len;

	return file_get(to_fd, m->file, NOTE_MAX, &text, &len, NULL) == 0 &&
	       given_hash(text, len) == m->hash;
}

int copy_take_marks(int from_fd, int to_fd, const char *to, struct err *err)
{
	cleanup_given_marks struct given_marks was = {0}, now = {0};
	char place[PATH_MAX];
	struct err why = ERR_INIT;

	if (!realpath(to, place))
		return err_set(err, ERR_IO, errno, "find '%s'", to);
	int rc = given_marks_get(from_fd, place, &was, err);
	if (rc == 0)
		rc = given_marks_take(from_fd, &now, err);
	for (size_t i = 0; i < was.n && rc == 0; i++) {
		/* It alone, and not the archive, which somebody may be deleting just now. */
		if (given_marks_has(&now, &was.e[i]) || !is_ours(to_fd, &was.e[i]) ||
		    faccessat(from_fd, "source", F_OK, 0) < 0)
			continue;
		if (unlinkat(to_fd, was.e[i].file, 0) < 0 && errno != ENOENT)
			rc = err_set(err, ERR_IO, errno, "remove '%s'", was.e[i].file);
	}
	if (rc < 0 || given_marks_hash(&was) == given_marks_hash(&now))
		return rc;
	now.seen_us = was.seen_us;
	now.changed = true;
	if (given_marks_put(from_fd, place, &now, &why) < 0) /* an archive to read only */
		log_debug("copy", "marks that are taken away later will stay in the copy: %s",
		          why.msg);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that asof writes itself: README and .asof/status.json.  A text never changes; a
 * new one takes its place.
 */
#ifndef ASOF_FS_TEXT_H
#define ASOF_FS_TEXT_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdatomic.h>
#include <stdint.h>

struct archive;
struct fs_dbs;

struct fs_text {
	_Atomic unsigned n_refs;
	uint64_t version;
	int64_t time_us;
	size_t len;
	char data[];
};

struct fs_text *fs_text_ref(struct fs_text *text);
void fs_text_unref(struct fs_text *text);

int fs_text_readme(const char *archive_root, struct fs_text **ret, struct err *err) MUST_USE;
/* JSON; what went wrong with one database stands in its place. */
int fs_text_status(struct archive *a, struct fs_dbs *dbs, int64_t mounted_us, uint64_t version,
                   struct fs_text **ret, struct err *err) MUST_USE;

DEFINE_CLEANUP(struct fs_text, fs_text_unref);
#define cleanup_text CLEANUP(fs_text_unref_p)

#endif

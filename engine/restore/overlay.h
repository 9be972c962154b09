/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a -wal at rest adds to the database that it lies beside, without SQLite: the frames up to
 * the last commit of the unbroken chain of salts and checksums from its beginning, which is what
 * SQLite's recovery takes (wal.c, walIndexRecover()).  Reads from many threads.
 */
#ifndef ASOF_RESTORE_OVERLAY_H
#define ASOF_RESTORE_OVERLAY_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct overlay;

/* *ret is NULL when nothing is committed in it.  `db_pages` lie in the file of the database.
 * DAMAGED: another page size, or a commit that claims pages that are neither here nor there.
 * The descriptor stays the caller's, and must live longer. */
int overlay_open(int wal_fd, const char *path, uint32_t page_size, uint64_t db_pages,
                 struct overlay **ret, struct err *err) MUST_USE;
void overlay_free(struct overlay *o);
/* Pages of the database with it. */
uint32_t overlay_pages(const struct overlay *o);
bool overlay_has(const struct overlay *o, uint32_t pgno);
/* A page that it has. */
int overlay_read(const struct overlay *o, uint32_t pgno, void *buf, struct err *err) MUST_USE;

DEFINE_CLEANUP(struct overlay, overlay_free);
#define cleanup_overlay CLEANUP(overlay_free_p)

#endif

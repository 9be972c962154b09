/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open images, shared: all who open one (database, txid) read through one view.  A view given
 * back is kept for a while, since SQLite clients open a file several times in a row.
 * All functions may be called from any thread; opening one image does not wait for another.
 */
#ifndef ASOF_FS_VIEWS_H
#define ASOF_FS_VIEWS_H

#include "engine/view/history.h"
#include "fs/dbs.h"

struct fs_views;
struct fs_view;

int fs_views_new(size_t max_idle, struct fs_views **ret, struct err *err) MUST_USE;
/* All views must have been given back. */
void fs_views_free(struct fs_views *views);

int fs_views_get(struct fs_views *views, struct fs_db *db, uint64_t txid, struct fs_view **ret,
                 struct err *err) MUST_USE;
void fs_views_put(struct fs_views *views, struct fs_view *v);
/* Closes what nobody has used since that time (clock_mono_us()). */
void fs_views_drop_idle(struct fs_views *views, int64_t mono_us);
/* What an open image is of, without asking the archive; false: it is not open. */
bool fs_views_moment(struct fs_views *views, const struct fs_db *db, uint64_t txid,
                     struct moment *ret);
struct view *fs_view_engine(struct fs_view *v);
/* How many are open, idle ones included. */
size_t fs_views_count(struct fs_views *views);

#endif

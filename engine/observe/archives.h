/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The archives that the observer has open, shared by all who ask: opened when first asked for, closed
 * when nobody has for a while.  All functions by any thread; none holds a lock while it waits for a
 * disk, but that two who ask for one archive that is not open yet may both open it.
 */
#ifndef ASOF_OBSERVE_ARCHIVES_H
#define ASOF_OBSERVE_ARCHIVES_H

#include "engine/view/history.h"

struct archives;

int archives_new(struct archives **ret, struct err *err) MUST_USE;
/* Everything must have been put back. */
void archives_free(struct archives *a);

/* The archive at `root`, to be given back.  Errors as archive_open(). */
int archives_get(struct archives *a, const char *root, struct archive **ret,
                 struct err *err) MUST_USE;
void archives_put(struct archives *a, struct archive *archive);
/* Closes what nobody has and has asked for in the last `idle_us`; true: it closed something. */
bool archives_close_idle(struct archives *a, int64_t idle_us);

#endif

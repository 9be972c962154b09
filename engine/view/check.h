/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a stored object in full, and what cannot be had from one that is damaged. */
#ifndef ASOF_VIEW_CHECK_H
#define ASOF_VIEW_CHECK_H

#include "engine/base/bitset.h"
#include "engine/view/replay.h"

struct object_check {
	struct err first;    /* the first damage; kind 0: none */
	struct bitset pages; /* pages whose bytes in it are damaged */
	bool whole;          /* damage to an index: any page may be affected */
};
/* Told of each stretch of content that was read; negative ends it with that. */
typedef int object_check_fn(void *ctx, uint64_t done_bytes, uint64_t total_bytes, struct err *err);

/*
 * Reads every byte of the object that counts: header, trailer, indexes, content; and the table of
 * commits beside a sealed segment.  0 also when it
 * is damaged (*ret says how); NOT_FOUND when it is gone, as joined ones go.  Of a history that
 * has read the object before, parts can come from its cache: who wants them from the disk opens the
 * archive anew.
 */
int history_check_object(struct history *h, const struct history_object *o, object_check_fn *fn,
                         void *ctx, struct object_check *ret, struct err *err) MUST_USE;
/* The table beside a sealed segment, as gunzip gives it, against what the segment holds. */
struct sealed;
struct gunzip;
int history_check_table(struct sealed *s, struct gunzip *g, const char *path,
                        struct err *err) MUST_USE;
void object_check_release(struct object_check *c);
/* "segment", "coalesced" or "snapshot": where in a history's folder the object lies. */
const char *history_object_folder(const struct history_object *o);

#define cleanup_object_check CLEANUP(object_check_release)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all databases of a process share: its threads (base/pool.h) and the memory of its queues.
 *
 *   capture   looks at live databases; on time (capture_thread_begin())
 *   record    recorders: groups, appends, fsyncs
 *   scan      passes over live files after a break; two at once, as each is bound by the disk
 *   keep      upkeep of the archives; one at once
 *   control   the databases' state machines: opening, closing, waiting
 *
 * Bounds.  So many threads as pools.c says, however many databases there are.  Frames that wait
 * in all queues together: `queue_bytes`; a recorder whose queue is empty takes one batch even
 * when that is used up, so that none waits for ever for the others.
 */
#ifndef ASOF_DAEMON_POOLS_H
#define ASOF_DAEMON_POOLS_H

#include "engine/base/pool.h"
#include "engine/capture/capture.h"

#include <stdatomic.h>

struct pools {
	struct capture_hub *hub;
	struct pool *capture, *record, *scan, *keep, *control;
	size_t queue_bytes;
	_Atomic size_t queued_bytes;
	_Atomic bool memory_freed; /* much of it, since the last pools_give_back() */
};

struct pools_options {
	unsigned threads;   /* of capture and of recorders, each; 0: the default */
	size_t queue_bytes; /* 0: the default */
};

int pools_new(const struct pools_options *options, struct pools **ret, struct err *err) MUST_USE;
void pools_free(struct pools *p);
/*
 * Of the calling thread, one of `record`: whether it is behind, so that it comes before all others.
 * What a recorder does not take in time is a longer WAL.  Refused to those without the privilege; no
 * matter.
 */
void pools_record_hurry(bool on);
/* Gives back to the system what bursts left with the allocator; cheap when there is nothing. */
void pools_give_back(struct pools *p);
/* The longest time that a task has waited for a thread, or a capture's step has taken: what the
 * watchdog asks for. */
int64_t pools_stalled_us(struct pools *p);

#endif

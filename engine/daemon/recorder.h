/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: what capture hands over -> the archive of one database.
 *
 * It is a capture sink.  Frames are copied into a bounded queue; one thread takes them out in
 * groups, gives commits their txids and times, appends them to the growing segment, fsyncs and
 * publishes (group commit).  When continuity breaks it makes the database whole again: by a
 * first snapshot, or by one commit of just the pages that differ (see settle.c).
 *
 *   (1) What head tells is durable.  A commit that was taken from the queue and not yet
 *       published may be lost in a crash; capture then finds its position again, or declares.
 *   (2) When the archive cannot be written to, nothing is dropped: the group is kept, the
 *       growing segment is taken up again from what is durable, the group written anew.
 *       Meanwhile the queue is full, capture keeps its place, and lets go past its cap.
 */
#ifndef ASOF_DAEMON_RECORDER_H
#define ASOF_DAEMON_RECORDER_H

#include "engine/capture/capture.h"
#include "engine/view/history.h"

struct recorder;

struct recorder_options {
	const char *archive;     /* directory; its last component is made when missing */
	const char *name;        /* of the database in the archive */
	const char *source_path; /* of the live database, absolute */
	bool adopt;              /* take a name over that belongs to another path */
	uint64_t segment_bytes;  /* cut segments here; 0: the default, 64 MiB of WAL */
	int level;               /* deflate level of growing segments; 0 stores */
};

/*
 * Opens the database's folder, takes its lock, recovers the growing segment.
 * Errors: BUSY (another replicator), REFUSED (the name belongs to another path), READ_ONLY,
 * DENIED, NO_SPACE, DAMAGED.
 */
int recorder_open(const struct recorder_options *options, struct recorder **ret,
                  struct err *err) MUST_USE;
/* Where to resume capture; false when there is nothing to resume from. */
bool recorder_resume(const struct recorder *r, struct capture_position *ret_pos,
                     uint32_t *ret_page_size);
const struct capture_sink *recorder_sink(struct recorder *r);
/* Starts its threads.  `c` is what the sink will be called by. */
int recorder_start(struct recorder *r, struct capture *c, struct err *err) MUST_USE;
/* After capture_run() has returned: writes what is queued (giving up after `timeout_us` when the
 * archive cannot be written), makes the page table durable, ends the threads. */
int recorder_stop(struct recorder *r, int64_t timeout_us, struct err *err) MUST_USE;
void recorder_free(struct recorder *r);

struct recorder_status {
	uint64_t last_txid;
	int64_t last_us;
	uint64_t commits; /* since start */
	uint64_t gaps;    /* declared since start */
	bool settled;     /* false: a first snapshot or a healing is under way */
	uint64_t queued_bytes;
	char trouble[200]; /* why the archive cannot be written, or "" */
};
void recorder_get_status(struct recorder *r, struct recorder_status *ret);

#endif

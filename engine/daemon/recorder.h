/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: what capture hands over -> the archive of one database.
 *
 * It is a capture sink.  Frames are copied into a bounded queue; a worker (a task of the pool
 * `record`, so that it never runs twice at once) takes them out in groups, gives commits their txids and times, appends them to the growing segment, fsyncs and
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

struct pools;
struct recorder;

/* `changed`: objects came or went. */
typedef void recorder_news_fn(void *ctx, bool changed);
enum recorder_listener { RECORDER_KEEPER, RECORDER_SHIPPING, RECORDER_LISTENERS };

struct recorder_options {
	struct pools *pools;     /* outlives it */
	const char *archive;     /* directory; its last component is made when missing */
	const char *name;        /* of the database in the archive */
	const char *source_path; /* of the live database, absolute */
	bool adopt;              /* take a name over that belongs to another path */
	uint64_t segment_bytes;  /* cut segments here; 0: the default, 64 MiB of WAL */
	int level;               /* deflate level of growing segments; 0: gz/alike.h */
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
/* ERR_IO: what is written goes where nobody will find it, since the folder was deleted or
 * another lies in its place.  (One that was moved away may come back, and is written on.) */
int recorder_check_place(const struct recorder *r, struct err *err) MUST_USE;
/* Whether an archive has a history of that name, and nobody is just putting it there; true, too, when
 * that cannot be told. */
bool recorder_has_place(const char *archive, const char *name);
/* `c` is what the sink will be called by. */
int recorder_start(struct recorder *r, struct capture *c, struct err *err) MUST_USE;
/* After capture has ended: has it write what is queued, giving up after `timeout_us` when the archive
 * cannot be written.  Returns at once. */
void recorder_end(struct recorder *r, int64_t timeout_us);
bool recorder_ended(const struct recorder *r);
/* Once it has ended: makes the page table durable; fails when commits were left behind. */
int recorder_result(struct recorder *r, struct err *err) MUST_USE;
/* At any time; what is queued is lost when it has not ended. */
void recorder_free(struct recorder *r);

struct recorder_status {
	uint64_t last_txid;
	int64_t last_us;
	int64_t known_until_us; /* everything committed before is durable */
	uint64_t commits;       /* since start */
	uint64_t taken_bytes;   /* of frames, from capture, since start */
	uint64_t gaps;          /* declared since start */
	uint64_t syncs;         /* groups made durable, since start */
	uint64_t sync_errors;   /* tries at it that failed, since start */
	int64_t sync_us;        /* spent in making them durable */
	bool settled;           /* false: a first snapshot or a healing is under way */
	uint64_t queued_bytes;
	char trouble[200]; /* why the archive cannot be written, or "" */
	char unwhole[200]; /* what the database itself lacks to be captured, or "" */
};
/*
 * recorder_durable() tells whether all that the sink took before recorder_queued() gave `items`
 * is durable, and the database whole.
 */
uint64_t recorder_queued(struct recorder *r);
bool recorder_durable(struct recorder *r, uint64_t items);
void recorder_get_status(struct recorder *r, struct recorder_status *ret);

/* Called after something became durable, with the recorder's lock held: it wakes, and does no more.
 * NULL: nobody any more. */
void recorder_on_news(struct recorder *r, enum recorder_listener who, recorder_news_fn *fn,
                      void *ctx);

#endif

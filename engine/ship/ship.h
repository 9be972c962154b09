/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replication: the history of one database, brought to a store (a bucket, a server) as it grows.
 *
 *   level 0   what was captured since the last time, as a small whole segment in the format of a
 *             growing one, key local/NAME/segment/LLLLLLLL-FIRST.wal.gz, put with STORE_CREATE
 *   the rest  sealed segments with their tables, snapshots, coalesced objects, notes: as they lie
 *             in the archive, under the same names
 *
 *  (1) Replicated through N: the store acknowledged everything from where its history begins up to
 *      N.  What is new goes to one key at a time, that of the next transaction, as level 0, and only
 *      by creating it.  All else repeats what lies within that prefix, or before where it begins.
 *      So two writers meet at one key, and what the store holds is the past of one history, whoever
 *      dies whenever.  An empty destination begins with the newest base; what is older follows, from
 *      the newest to the oldest, as sealed segments.
 *  (2) One writer: LLLLLLLL.writer names who writes a lineage, put once.  Another is REFUSED.
 *      ship_take_over() closes the old lineage at its next key (with a header that nothing follows)
 *      and begins a child; the old writer meets that key and stops, for good (`fenced`).
 *      Where the store has no conditional writes (found out before the first put): a writer reads its
 *      note, and whether a newer lineage has one, 5 s at most before each put of something new, and
 *      that its key is free.  Who claims writes its note, waits for SHIP_CLAIM_WAIT_US and reads it
 *      back; ship_take_over() claims the next lineage so before anything else.  The wait is as long
 *      as that reading may be old and a put may take (15 s of patience): whoever wrote before has
 *      seen the note by then, or has nothing under way.  So one writes at a time, but where a put
 *      lasts longer than that, or its process was stopped between reading and putting.
 *  (3) What a put met (EXISTS) counts as our own when it holds the very commits of the archive:
 *      a put whose answer was lost, in this process or in one that was killed.
 *  (4) Nothing is asked on the hot path: no list, no head.  One listing when it begins to ship,
 *      none while there is nothing new, and no other request then either.
 *  (5) Memory: 8 bytes for each object at the store, a few buffers while it works; objects are
 *      streams.  Disk: one level 0 segment at a time, without a name, in TMPDIR.
 *  (6) Level 0 that a stored sealed segment covers is deleted when it has been covered for
 *      `grace_us`.  Nothing else is deleted but by ship_retain(), and nobody needs it deleted:
 *      where that is denied, it stays.
 *  (7) What is sent is at most 2.2 times the compressed WAL: level 0 and sealed segments are each
 *      sent once; what can be made anew from them (coalesced objects, later bases) goes as far as
 *      a fifth of that allows, the newest first.  A joined segment is not sent where its parts are.
 *  (8) Damage in the archive is not spread: objects are read in full before they are sent.
 *
 *  (9) Of the shippers of one archive for one destination, in whichever processes, one works at a
 *      time, from a step to its rest: BUSY.
 *
 * A shipper is used by one thread at a time, but ship_status_get().
 */
#ifndef ASOF_SHIP_SHIP_H
#define ASOF_SHIP_SHIP_H

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/err.h"
#include "engine/retain/retain.h"
#include "engine/store/store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SHIP_GRACE_US (3600 * US_PER_SECOND)
#define SHIP_CLAIM_WAIT_US (20 * US_PER_SECOND)

struct ship_options {
	const char *archive;      /* directory */
	const char *name;         /* of the database in it */
	const char *url;          /* of the destination: which state file is its own */
	struct store *store;      /* outlives the shipper */
	int64_t grace_us;         /* of covered level 0; 0: the default */
	int64_t claim_wait_us;    /* see (2); 0: the default */
	const _Atomic bool *stop; /* may be NULL; CANCELLED once it is true */
	/* ---- of who sends once, and not as it grows ---- */
	uint64_t until_txid; /* nothing new behind it is begun with; 0: no bound */
	bool look;           /* at the store, whatever is known of it */
	/* While bytes are sent; by one thread at a time; false: stop (CANCELLED).  May be NULL. */
	bool (*progress)(void *ctx, uint64_t sent_bytes);
	void *ctx;
};

struct shipper;

int shipper_new(const struct ship_options *options, struct shipper **ret, struct err *err) MUST_USE;
void shipper_free(struct shipper *s);
/*
 * Ships what there is, and returns when there is nothing left, or after a while: *ret_more.  An
 * error leaves it where it was; the next step goes on.  REFUSED: another writer, or another
 * history; see ship_status.fenced.
 */
int shipper_step(struct shipper *s, bool *ret_more, struct err *err) MUST_USE;
/* Gives back what only work needs; the next step takes it again.  *ret_us: until something is due
 * to be deleted, INT64_MAX: nothing. */
void shipper_rest(struct shipper *s, int64_t *ret_us);
/* Where the last step gave *ret_more: how long there is nothing to be done but to wait; 0: none. */
int64_t shipper_wait_us(const struct shipper *s);

/*
 * What is known of one destination of one database, kept in the file shipped-XXXXXXXX beside the
 * local history, where others (asof wait, status, stats) read it.  Counters are of requests that
 * were made for this database since `since_us`, over restarts.
 */
struct ship_status {
	uint64_t replicated_txid; /* 0: nothing */
	int64_t replicated_us;    /* its time */
	bool based;        /* a snapshot lies there: without one nothing can be restored from it */
	uint64_t tip_txid; /* of the archive, as of the last step */
	int64_t tip_us;
	int64_t at_us;       /* of the last step that came to its end */
	int64_t progress_us; /* bytes were last read to be sent; written while an object is on its way */
	bool fenced;         /* another writer took over: nothing is shipped any more */
	bool no_delete;      /* deletion was denied */
	bool creates;        /* the store is known to have conditional writes, */
	bool no_create;      /* or to have none: see (2) */
	uint32_t held_lineage; /* no_create: the newest whose claim was waited for */
	uint64_t requests[STORE_N_VERBS];
	uint64_t sent_bytes, received_bytes;
	uint64_t level0_bytes, object_bytes; /* of sent_bytes */
	uint64_t level0_put, objects_put, deleted;
	uint64_t stored_objects, stored_bytes; /* of this database, at the store */
	uint64_t damaged;                      /* objects that were not sent */
	uint64_t complete_hash; /* of what lay in the archive when all of it had been sent */
	int64_t since_us;
	int64_t trouble_us; /* since when it fails; 0: it does not */
	char trouble[300];
	char url[300];
};
void ship_status_get(struct shipper *s, struct ship_status *ret);
/* NOT_FOUND: nothing was ever shipped there. */
int ship_status_read(const char *archive, const char *name, const char *url,
                     struct ship_status *ret, struct err *err) MUST_USE;

/* Of all destinations of one database.  What `fn` returns, if not 0, ends it and is returned. */
int ship_status_each(const char *archive, const char *name,
                     int (*fn)(void *ctx, const struct ship_status *s), void *ctx);

/*
 * Makes this archive the one that writes the history of `name` at the store.  Beforehand the
 * archive holds that history up to its newest transaction (asof copy brings it), else REFUSED, saying so.
 * Afterwards both have a new lineage, in which the next capture begins.  Nobody may be capturing
 * into the archive meanwhile (BUSY).  *ret_from: who wrote before.
 */
int ship_take_over(const struct ship_options *options, char ret_from[200],
                   struct err *err) MUST_USE;

/* ---- retention at the destination ---- */

/* How it went, of one destination of one database; counters are of all passes. */
struct ship_retained {
	int64_t at_us;                               /* of the last pass that came to its end */
	int64_t due_us;                              /* without news nothing is to be done before */
	uint64_t seen_txid, seen_marks, seen_policy; /* what that one was of: other ones are news */
	uint64_t changes;                            /* passes that changed something */
	uint64_t fine_txid, kept_points;
	uint64_t expiring, expiring_bytes; /* waiting for their grace time */
	uint64_t deleted, deleted_bytes, made, made_bytes;
	uint64_t requests[STORE_N_VERBS];
	uint64_t sent_bytes, received_bytes;
	bool no_delete;  /* deletion was denied */
	uint64_t denied; /* objects that could not be deleted in the last pass, at least */
	char url[300];
};

/*
 * A pass of retention over what lies there, by a policy of the destination's own: see
 * retain/retain.h (4) to (7).  Beside a shipper that is at work, in another process, too; one pass
 * at a time (BUSY).  Only who writes there does it (REFUSED: another one), and who took it over only
 * when that was policy->grace_us ago: what the one before may still have under way is over by then.
 * Where nothing came since the last pass and nothing is due, no request is made; nor is anything done
 * as long as what is older is still on its way there.  With `look` it is done in any case, and BUSY says
 * why it cannot be yet.
 */
int ship_retain(const struct ship_options *options, const struct retain_policy *policy,
                int64_t now_us, bool dry, FILE *log, struct retain_result *ret,
                struct err *err) MUST_USE;
/* NOT_FOUND: it was never done. */
int ship_retained_read(const char *archive, const char *name, const char *url,
                       struct ship_retained *ret, struct err *err) MUST_USE;

DEFINE_CLEANUP(struct shipper, shipper_free);
#define cleanup_shipper CLEANUP(shipper_free_p)

#endif

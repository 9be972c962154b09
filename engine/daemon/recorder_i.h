/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the recorder share.  Not for others. */
#ifndef ASOF_DAEMON_RECORDER_I_H
#define ASOF_DAEMON_RECORDER_I_H

#include "engine/archive/grow.h"
#include "engine/archive/head.h"
#include "engine/archive/notes.h"
#include "engine/archive/page_table.h"
#include "engine/archive/snapshot.h"
#include "engine/base/bitset.h"
#include "engine/daemon/pools.h"
#include "engine/daemon/recorder.h"
#include "engine/view/replay.h"

#include <pthread.h>
#include <stdatomic.h>

/*
 * Each fdatasync() costs a journal commit and a flush of the disk, whatever it carries; beside
 * writers that go flat out 4 MiB at a time could not follow them, 16 MiB can.  The queue holds
 * what comes meanwhile.
 */
#define QUEUE_BYTES (64u << 20) /* frames waiting at most */
#define GROUP_BYTES (16u << 20) /* frames written with one fsync at most */

enum item_type { ITEM_BATCH, ITEM_BREAK, ITEM_KNOWN, ITEM_SETTLE, ITEM_SETTLE_FAILED };

/* One thing to do, in the order in which it came. */
struct item {
	struct item *next;
	enum item_type type;
	/* BATCH */
	size_t n_frames, bytes;
	uint32_t page_size;
	bool ends_commit;
	int64_t observed_us, not_before_us;
	struct source_position after;
	/* BREAK */
	enum capture_break why;
	char reason[160];
	uint64_t epoch; /* also of SETTLE */
	/* KNOWN */
	int64_t known_until_us;
	uint8_t frames[];
};

/* Page hashes of the group under way, not yet in the table. */
struct overlay {
	struct overlay_slot {
		uint32_t pgno; /* 0: free */
		struct hash128 hash;
	} * slots;
	size_t n_slots, used; /* n_slots: a power of two */
	uint32_t max_pgno;
};
int overlay_set(struct overlay *o, uint32_t pgno, struct hash128 h, struct err *err) MUST_USE;
bool overlay_get(const struct overlay *o, uint32_t pgno, struct hash128 *ret);
void overlay_clear(struct overlay *o);
void overlay_release(struct overlay *o);

#define SEGMENT_BYTES_DEFAULT (64u << 20)
#define SEGMENT_BYTES_FAST (8 * SEGMENT_BYTES_DEFAULT)
#define FAST_BYTES_PER_S ((uint64_t)16 << 20)
#define UNSEALED_SOFT_MAX 4u
/* A growing segment that is no longer holds no commit: its header, a page and a record take more. */
#define EMPTY_SEGMENT_BYTES 200u

/* A pass over the live file: the first snapshot, or the search for pages that differ. */
struct scan {
	struct pool_task *task; /* NULL: it does not run */
	bool active;            /* from its start until it was made use of, or cancelled */
	_Atomic bool stop;
	bool snapshot; /* else: differences */
	uint64_t epoch;
	uint32_t page_size;
	struct snapshot_writer *writer;
	int dir_fd;                   /* of the writer */
	char failed[OBJECT_NAME_MAX]; /* a snapshot that may have its name, though it failed */
	int spool_fd;                 /* differing pages: u32 number, page */
	uint64_t n_spooled;
	uint64_t n_differing; /* of them; page 1 is spooled in any case */
	uint32_t next_page;   /* to be read */
	bool read, told;      /* the file was; what came of it was pushed */
	bool made;            /* what came of it is durable, all but the note of the gap */
	uint64_t ticket;      /* of the barrier after that */
	int64_t tell_us;      /* monotonic: a failure is told then */
	uint32_t file_pages;  /* of the file when the pass ended */
	struct err err;       /* why it failed */
};

/*
 * The database cannot be made whole: pages are missing, or cannot be read.  Until that is tried
 * again frames are dropped: each try takes the whole WAL in once more, and what comes of it can be
 * used by nobody.
 */
struct unwhole {
	int64_t look_us; /* monotonic: whether it is time for a try is asked then; 0: it is whole */
	int64_t try_us;  /* not before that */
	int64_t wait_us; /* between tries, doubled with each */
	int64_t told_us;
	bool by_file; /* a try makes no sense before the file differs from this: */
	off_t size;
	struct timespec ctime;
};

/* The newest part of the history is damaged or gone: see lost.c. */
struct lost {
	bool pending; /* the note of the lineage that goes on is not written yet */
	/* Of that lineage, over restarts; first_txid 0: there is none. */
	uint64_t from_txid, first_txid;
	int64_t from_us;
	char reason[160];
	char object[OBJECT_NAME_MAX + 16]; /* FOLDER/FILE that is being recovered from, or "" */
};
struct told {
	uint64_t txid;
	int64_t time_us;
};

struct recorder {
	char *root, *name;
	char *source_path;
	uint64_t segment_bytes;
	int level;
	struct pools *pools;
	int dir_fd, segment_fd, lock_fd;
	struct archive *archive; /* open while it is read; see recorder_open_archive() */
	struct history *history;
	struct capture *capture;
	struct capture_sink sink;
	struct pool_task *task; /* the worker */
	recorder_news_fn *on_news[RECORDER_LISTENERS];
	void *on_news_ctx[RECORDER_LISTENERS];

	pthread_mutex_t lock; /* queue and status */
	struct item *first, **last_next, *newest;
	size_t queued_bytes;
	uint64_t items_queued, items_done; /* counters: how many ever */
	bool was_long;                     /* the queue, since memory was given back */
	bool ending;
	int64_t give_up_us; /* monotonic, when ending */
	bool at_work;       /* somebody owns what is the worker's */
	bool wanted;        /* the worker was turned away meanwhile */
	bool resting, rested_once;
	struct recorder_status status;

	_Atomic uint64_t unsealed; /* segments cut and not sealed, as far as known */
	_Atomic bool kept;         /* a keeper seals them */
	_Atomic uint64_t changes;  /* generation of the head to be written next */
	struct head head;          /* of the worker */
	int head_fd;

	/* ---- of the worker alone: whoever set at_work ---- */
	bool began;
	_Atomic bool ended;
	struct item *group, *group_at; /* taken from the queue; not yet covered from there on */
	int64_t worked_us, trouble_us; /* monotonic: last group; since when it fails */
	int64_t retry_us;              /* monotonic: while it fails, not tried before */
	struct grow_writer *w;         /* NULL: made at the next frame */
	bool resume_segment;           /* the growing segment is to be taken up again first */
	int64_t segment_began_us;
	uint64_t growing_txid; /* key of the segment that `w` writes, or wrote; 0: none */
	uint64_t durable_len;  /* of it */
	uint32_t lineage, page_size;
	uint64_t lineage_epoch; /* of the break that it began with */
	struct commit last;     /* durable or in the group under way */
	struct commit durable;  /* as of the last publication */
	struct source_position durable_pos;
	bool durable_settled;
	struct source_position pos; /* behind `last` */
	bool settled;               /* else every commit is UNSETTLED */
	bool next_is_first;         /* of a break: its not_before is known_until */
	int64_t known_until_us;
	struct hash128 state; /* of `last`, when settled */
	struct overlay overlay;
	uint32_t max_pgno;       /* of the commit under way */
	struct bitset grown;     /* pages past the old size in the commit under way */
	bool mid_commit_applied; /* pieces of a commit without its end are in table and segment */
	bool discarding;         /* until the next break: frames cannot be placed */
	struct gap_note gap;     /* open gap: `before` is set */
	bool gap_open;
	bool gap_told;
	struct lost lost;
	bool gap_doubtful; /* maybe nothing was written meanwhile: not declared before that is known */
	uint64_t redo_txid; /* last txid before the break: what a fuzzy snapshot starts from */
	uint64_t epoch;
	bool settle_due;         /* the scan of settle_epoch is over, a commit not yet */
	bool settle_due_at_done; /* and was so behind the last item that is covered */
	uint64_t settle_epoch;
	uint8_t *page_one; /* newest page 1 seen since the break, or NULL */
	struct scan scan;
	struct unwhole unwhole;

	pthread_mutex_t table_lock; /* table and framed, shared with the scan */
	struct page_table *table;
	bool table_valid;
	struct bitset framed; /* pages that frames have set since the break */
};

/* ---- encode.c ---- */
int encode_batch(struct recorder *r, const struct item *it, struct err *err) MUST_USE;
int encode_frame(struct recorder *r, uint32_t pgno, uint32_t n_truncate, const uint8_t *page,
                 int64_t observed_us, int64_t not_before_us, uint32_t flags,
                 struct err *err) MUST_USE;
/* Ends the group: record, fsync, table.  Who calls it publishes that, or has somebody do so. */
int encode_flush(struct recorder *r, bool closes, struct err *err) MUST_USE;
/* The next frame begins a new segment. */
/*
 * How long the growing segment may become; it has `content_bytes`, and began `age_us` ago.
 *
 * A view looks into every segment behind its base that was not coalesced yet.  Where sealing does
 * not keep up, segments that were asked to be short grow on to the usual size instead: what one
 * knows to be behind gets no deeper.  And those of the usual size grow on to SEGMENT_BYTES_FAST
 * while commits fill them faster than FAST_BYTES_PER_S: sealing costs a writer that goes flat out
 * a tenth of its throughput, so it waits, and few segments may wait (keeper.c).
 */
uint64_t encode_segment_bytes(uint64_t asked_bytes, uint64_t unsealed, uint64_t content_bytes,
                              int64_t age_us);
void encode_cut(struct recorder *r);
/* The same where it has become long enough. */
void encode_cut_long(struct recorder *r);
/* Cuts a segment that has grown for an hour, so that quiet databases are sealed, too. */
void encode_cut_old(struct recorder *r, int64_t now_us, bool dirty);
/* Forgets what was encoded since the last flush; the segment is taken up again at the next. */
void encode_take_back(struct recorder *r);
/* The same before a break: it voids the commit whose end has not come. */
void encode_void(struct recorder *r);
/* Takes the growing segment up again from what is durable. */
int encode_resume(struct recorder *r, struct err *err) MUST_USE;
/* The hash of a page as of now, zero when it is not there. */
struct hash128 encode_hash(struct recorder *r, uint32_t pgno);

/* ---- settle.c ---- */
int settle_break(struct recorder *r, const struct item *it, struct err *err) MUST_USE;
int settle_finish(struct recorder *r, const struct item *it, struct err *err) MUST_USE;
void settle_cancel(struct recorder *r);
/* What could not be made whole is tried again when it is time; how long until this is called again. */
int64_t settle_look_again(struct recorder *r);

/* ---- table.c ---- */
/* Makes table and state those of the newest recorded frames. */
int table_recover(struct recorder *r, struct err *err) MUST_USE;
int table_rebuild(struct recorder *r, struct err *err) MUST_USE;
/* Makes the table durable; any thread. */
int table_sync(struct recorder *r, uint64_t txid, struct err *err) MUST_USE;

/* ---- recorder.c ---- */
/* Publishes `r->durable` and the growing segment's length; `changed`: objects came or went. */
int recorder_publish(struct recorder *r, bool changed, struct err *err) MUST_USE;
void recorder_push(struct recorder *r, struct item *it);
/* Any thread: objects came or went; told to readers within a second. */
void recorder_changed(struct recorder *r);
uint64_t recorder_generation(struct recorder *r);

/* ---- lost.c ---- */
/* The newest transaction that was acknowledged, by whatever tells of it but the objects. */
struct told lost_told(const struct recorder *r);
/* DAMAGED: more was acknowledged than these objects hold. */
int lost_check(struct recorder *r, const struct history_object *objects, size_t n_objects,
               struct err *err) MUST_USE;
/* Recovery failed because of `why`: capture goes on in a child lineage, where that is damage; else
 * gives that error. */
int lost_begin(struct recorder *r, const struct err *why, struct err *err) MUST_USE;
/* A child that was begun before: *ret_taken, nothing but its note is there yet, and the recorder stands
 * behind that. */
int lost_take_up(struct recorder *r, bool *ret_taken, struct err *err) MUST_USE;
/* The gap before the child's first whole state. */
void lost_open_gap(struct recorder *r);
/* What the child's note tells besides. */
void lost_fill_note(struct recorder *r, struct lineage_note *n);

/* ---- open.c ---- */
/* Who holds the lock, and what hinders it ("": nothing): a hint that `asof status` shows. */
int recorder_note_lock(struct recorder *r, const char *hindrance, struct err *err) MUST_USE;
/* Makes r->history usable; the worker closes it when it rests. */
int recorder_open_archive(struct recorder *r, struct err *err) MUST_USE;
void recorder_close_archive(struct recorder *r);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of ship share.  Not for others. */
#ifndef ASOF_SHIP_SHIP_I_H
#define ASOF_SHIP_SHIP_I_H

#include "engine/archive/given.h"
#include "engine/archive/grow.h"
#include "engine/archive/names.h"
#include "engine/archive/notes.h"
#include "engine/base/buf.h"
#include "engine/ship/ship.h"
#include "engine/view/check.h"
#include "engine/view/replay.h"

#include <pthread.h>

/* One level 0 object at the store. */
struct level0 {
	uint32_t lineage;
	uint64_t first_txid;
	uint64_t bytes;
	int64_t covered_us; /* monotonic: since when a stored segment covers it; 0: none does */
};

/* A sealed segment at the store. */
struct span {
	uint32_t lineage;
	uint64_t first_txid, last_txid;
	int64_t last_us;
};

/* What the store has of this database, as far as it matters. */
struct contents {
	uint64_t *names; /* sorted hashes of FOLDER/FILE or FILE, and size */
	size_t n_names, cap_names;
	struct level0 *level0; /* in the order of lineage and txid */
	size_t n_level0, cap_level0;
	struct span *sealed; /* likewise */
	size_t n_sealed, cap_sealed;
	uint32_t writer_lineage; /* the newest LLLLLLLL.writer; 0: there is none */
	uint32_t lineage;        /* the newest of any object */
	uint64_t snapshot_txid;  /* the newest snapshot, its time and what must lie over it */
	int64_t snapshot_us;
	uint64_t snapshot_first;
	uint64_t derived_bytes; /* coalesced objects, snapshots but the first */
	uint64_t fine_bytes;    /* level 0 and sealed segments that were ever put, about */
	uint64_t objects, bytes;
	bool has_snapshot;
	bool has_thinned;
	uint64_t
	        thinned_txid; /* up to here retention there let go what it liked: nothing of it is sent */
};

struct shipper {
	struct ship_options options;
	char *root, *name, *url;
	int dir_fd;
	int turn_fd; /* locked while it works: ship.h (9); else -1 */
	char id[WRITER_ID_SIZE];

	/* open while it works */
	struct archive *archive;
	struct history *history;
	struct history_object *objects;
	size_t n_objects;

	bool known;            /* contents and next_txid are */
	uint64_t seen_changes; /* of retention there, of then */
	struct contents has;
	uint64_t next_txid;    /* behind the prefix that is acknowledged; 0: nothing is there */
	uint32_t lineage;      /* that we write at the store; 0: none claimed yet */
	uint64_t seen_notes;   /* hash over the folder, of the last look */
	int64_t seen_notes_us; /* wall clock, of that look */
	/* ---- where the store has no conditional writes ---- */
	bool no_create;
	uint32_t claiming;    /* the lineage whose note was written */
	int64_t claim_due_us; /* monotonic: it is read back then; 0: none is waited for */
	int64_t checked_us;   /* monotonic, of the writer's note */
	atomic_flag telling;  /* its progress */
	bool objects_due;     /* objects came or went since the last look */

	pthread_mutex_t lock;
	struct ship_status status;
};

/* ---- contents.c ---- */
int contents_list(struct shipper *s, struct err *err) MUST_USE;
void contents_release(struct contents *c);
bool contents_has(const struct contents *c, const char *file, uint64_t bytes);
void contents_drop_name(struct contents *c, const char *file, uint64_t bytes);
int contents_add_name(struct contents *c, const char *file, uint64_t bytes,
                      struct err *err) MUST_USE;
int contents_add_level0(struct contents *c, uint32_t lineage, uint64_t first_txid, uint64_t bytes,
                        struct err *err) MUST_USE;
int contents_add_sealed(struct contents *c, const struct object_name *n, struct err *err) MUST_USE;
/* From `first` on stored sealed segments hold everything before this one; > last: all. */
uint64_t contents_reach(const struct contents *c, uint32_t lineage, uint64_t first, uint64_t last);
/* Whether they hold all of these. */
bool contents_covers(const struct contents *c, uint32_t lineage, uint64_t first, uint64_t last);

/* ---- requests.c: the store, counted ---- */
#define SHIP_KEY_MAX (DB_NAME_MAX + OBJECT_NAME_MAX + 40)
void ship_key(const struct shipper *s, const char *file, char out[SHIP_KEY_MAX]);
int ship_put(struct shipper *s, const char *file, struct source *body, uint64_t bytes,
             unsigned flags, struct err *err) MUST_USE;
int ship_put_bytes(struct shipper *s, const char *file, const void *p, size_t len, unsigned flags,
                   struct err *err) MUST_USE;
int ship_get(struct shipper *s, const char *file, size_t max_bytes, struct buf *ret,
             struct err *err) MUST_USE;
int ship_remove(struct shipper *s, const char *file, struct err *err) MUST_USE;
int ship_stopped(const struct shipper *s, struct err *err);

/* ---- level0.c ---- */
#define LEVEL0_CONTENT_BYTES (16u << 20) /* cut at the first commit past it */
/*
 * The commits from `first_txid` on, `last_txid` at most, as a segment of their own; *ret_last is
 * the last within.
 */
int level0_make(struct shipper *s, uint32_t lineage, uint64_t first_txid, uint64_t last_txid,
                struct source **ret, uint64_t *ret_bytes, struct commit *ret_last,
                struct err *err) MUST_USE;
/* The transaction that snapshot `o` alone holds, as a commit of page 1 that is no whole state by
 * itself; so it, too, has its key. */
int level0_make_idle(struct shipper *s, const struct history_object *o, struct source **ret,
                     uint64_t *ret_bytes, struct commit *ret_last, struct err *err) MUST_USE;
/* What lies at the store under a key of level 0. */
struct level0_info {
	bool closes;
	uint64_t goes_on;   /* 0: it has commits, or closes */
	struct commit last; /* where it has commits */
};
int level0_read(struct shipper *s, uint32_t lineage, uint64_t first_txid, struct level0_info *ret,
                struct err *err) MUST_USE;
/* Whether each of its commits is that of the archive. */
int level0_is_ours(struct shipper *s, uint32_t lineage, uint64_t first_txid, bool *ret,
                   struct level0_info *ret_info, struct err *err) MUST_USE;
void level0_file(uint32_t lineage, uint64_t first_txid, char out[OBJECT_NAME_MAX + 16]);

/* ---- claim.c ---- */
/* A writer's note is read at least so often in the time that a claim waits. */
#define CHECKS_IN_WAIT 4
/* How far the store's history reaches. */
struct ship_end {
	uint32_t lineage;
	uint64_t last_txid; /* 0: nothing is there */
	int64_t last_us;
	bool closed;    /* the lineage was */
	bool is_level0; /* the last commit is in level 0, of which this is the key: */
	uint64_t first_txid;
};
/* Of the archive: where an empty destination begins; 0: nothing was captured yet. */
uint64_t ship_first(const struct shipper *s);
/* Looks at the store, claims what it may, finds where to go on. */
int ship_begin(struct shipper *s, struct err *err) MUST_USE;
/* That what is at the store ends as the archive goes on. */
int ship_check_end(struct shipper *s, const struct ship_end *end, struct err *err) MUST_USE;
/* The lineage is ours, or nobody's; else REFUSED. */
int ship_check_claim(struct shipper *s, uint32_t lineage, struct err *err) MUST_USE;
int ship_read_writer(struct shipper *s, uint32_t lineage, struct writer_note *ret,
                     struct err *err) MUST_USE;
/* `was`: who wrote it before; "": nobody. */
int ship_writer_text(struct shipper *s, uint32_t lineage, const char *was, struct buf *ret,
                     struct err *err) MUST_USE;
/* That lineage, and those that followed it, are ours: *lineage becomes the last; else REFUSED. */
int ship_check_ours(struct shipper *s, uint32_t *lineage, struct err *err) MUST_USE;
/* Before the first put in a lineage.  BUSY: it has to be waited for (ship.h (2)), see claim_due_us. */
int ship_claim(struct shipper *s, uint32_t lineage, struct err *err) MUST_USE;
/* The same, waiting. */
int ship_claim_now(struct shipper *s, uint32_t lineage, struct err *err) MUST_USE;
/* Finds out, once, whether the store has conditional writes. */
int ship_find_creates(struct shipper *s, struct err *err) MUST_USE;
/* no_create: nobody else is there. */
int ship_check_writer(struct shipper *s, struct err *err) MUST_USE;
int ship_fenced(struct shipper *s, const char *file, struct err *err);
int ship_find_end(struct shipper *s, struct ship_end *ret, struct err *err) MUST_USE;
int ship_identity(int dir_fd, char ret[WRITER_ID_SIZE], struct err *err) MUST_USE;

/* ---- objects.c ---- */
/* Over all that can be sent but commits. */
uint64_t ship_archive_hash(const struct shipper *s);
int ship_notes(struct shipper *s, struct err *err) MUST_USE;
/* Fuzzy snapshots that lie within the prefix now. */
int ship_roots(struct shipper *s, struct err *err) MUST_USE;
/* The next object that is due; *ret_did: there was one. */
int ship_next_object(struct shipper *s, bool *ret_did, struct err *err) MUST_USE;
/* One object; nothing is done where it is there.  NOT_FOUND with ENOENT: it is gone from the archive. */
int ship_object(struct shipper *s, const struct history_object *o, struct err *err) MUST_USE;
/* Of a segment the commits from `first_txid` on (remainder.c). */
int ship_remainder(struct shipper *s, const struct history_object *o, uint64_t first_txid,
                   struct err *err) MUST_USE;
/* A small file of the history's folder. */
int ship_note(struct shipper *s, const char *name, struct err *err) MUST_USE;
/* Deletes what has been covered for long enough. */
int ship_remove_covered(struct shipper *s, struct err *err) MUST_USE;
int64_t ship_removal_due_us(const struct shipper *s);

/* ---- marks.c ---- */
/* Those that the archive has now go into the list before they are sent: who is killed between still
 * takes back what was taken away meanwhile. */
int ship_know_marks(struct shipper *s, struct err *err) MUST_USE;
/* Those of the list that the archive no longer has. */
int ship_remove_marks(struct shipper *s, struct err *err) MUST_USE;

/* ---- ship.c ---- */
int ship_open_history(struct shipper *s, struct err *err) MUST_USE;
int ship_look(struct shipper *s, struct err *err) MUST_USE;

/* ---- retain.c ---- */
/* How often retention changed something there; 0: never. */
uint64_t ship_retained_changes(const struct shipper *s);

/* ---- status.c ---- */
int ship_status_write(struct shipper *s, struct err *err) MUST_USE;
/* ship.h (9). */
int ship_take_turn(struct shipper *s, struct err *err) MUST_USE;
/* Takes the counters of a former process over. */
void ship_status_recall(struct shipper *s);

#endif

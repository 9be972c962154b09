/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A maker of archives out of nothing: no SQLite, no capture.  It keeps in memory what every
 * transaction's image is, writes segments, snapshots and notes through the same calls as the
 * replicator, and so is the reference that views are compared with.
 *
 * Whatever goes wrong in here is the end of the test, with a message.
 */
#ifndef ASOF_TESTS_SYNTH_H
#define ASOF_TESTS_SYNTH_H

#include "engine/archive/grow.h"
#include "engine/archive/head.h"
#include "engine/archive/names.h"
#include "engine/archive/notes.h"
#include "engine/archive/sealed.h"
#include "engine/archive/snapshot.h"
#include "engine/view/history.h"
#include "tests/lib/scratch.h"

/* ---- the model ---- */
struct synth_page {
	struct synth_page *next; /* all pages ever, to be freed */
	uint32_t pgno;
	struct hash128 hash;
	uint8_t data[];
};

struct synth_state {
	struct commit commit;
	uint32_t lineage, page_size;
	bool in_segment;            /* false: a snapshot alone holds it */
	struct synth_page **frames; /* as written, in order */
	size_t n_frames;
	struct synth_page **pages; /* the image; NULL: zeros.  NULL array: not known (unsettled) */
};

struct synth_object {
	struct object_name name;
	char file[OBJECT_NAME_MAX];
};

struct synth_gap {
	uint64_t before_txid, after_txid;
	int64_t before_us, after_us;
};

struct synth_options {
	uint64_t seed;
	uint32_t page_size;
	uint32_t max_pages;  /* the random workload stays below */
	unsigned max_frames; /* of a random commit, about */
	int level;
	bool torn_batches;   /* end batches inside of commits, too */
	int64_t max_step_us; /* from commit to commit; 0: 90 s */
};

struct synth {
	struct synth_options options;
	struct rng rng;
	char *root, *name;
	int dir_fd, segment_fd, snapshot_fd, coalesced_fd, head_fd, lock_fd;
	struct head head;

	uint32_t lineage, page_size;
	struct synth_page *all_pages;
	struct synth_page **now; /* the true image; n_now pages */
	uint32_t n_now, cap_now;
	struct synth_page **recorded; /* the image as frames tell; differs from `now` in a gap */
	uint32_t n_recorded;
	bool settled, first_after_gap;

	struct synth_state *states; /* states[i]: txid i + 1 */
	size_t n_states, cap_states;
	struct grow_writer *w; /* NULL: made at the next commit */
	size_t unpublished;    /* commits */

	struct synth_object *objects; /* segments, snapshots, coalesced */
	size_t n_objects, cap_objects;
	struct synth_gap *gaps;
	size_t n_gaps;
	uint64_t gap_before; /* of the open gap */
};

/* Makes ROOT/local/NAME with its notes and an empty head. */
struct synth *synth_new(const char *root, const char *name, const struct synth_options *o);
void synth_free(struct synth *s);

/* A page with random content, or with the given one. */
struct synth_page *synth_page(struct synth *s, uint32_t pgno, const void *data);
/* Appends a commit of these frames after which the database has n_pages; takes nothing over. */
uint64_t synth_commit(struct synth *s, uint32_t n_pages, struct synth_page *const *frames,
                      size_t n_frames, uint32_t flags);
/* A commit of any kind: grows, shrinks, rewrites, writes pages twice or past the end. */
uint64_t synth_random_commit(struct synth *s);
/* Exactly n frames, over and over the same pages. */
uint64_t synth_giant_commit(struct synth *s, size_t n_frames);
/* Ends the batch, fsyncs, tells head. */
void synth_publish(struct synth *s);
/* Publishes; the next commit begins a new segment. */
void synth_cut(struct synth *s);
/* Commits that nobody saw, some that are redo only, and the one that heals. */
void synth_gap(struct synth *s, unsigned n_unsettled);
/* A child lineage, with a page size of its own: begins with an idle snapshot or a fuzzy one. */
void synth_new_lineage(struct synth *s, uint32_t page_size, bool fuzzy);

/* A child lineage (the first one, when there is nothing yet) that begins with a state found idle:
 * `image` becomes a snapshot of the next txid. */
void synth_found(struct synth *s, uint32_t page_size, const uint8_t *image, size_t len);
/* Heals the gap behind `before`: one commit of the pages in which `image` differs. */
uint64_t synth_heal(struct synth *s, uint64_t before, const uint8_t *image, size_t len);

/* The image of txid as a snapshot; redo < txid: a fuzzy one, each page from any state between
 * the two. */
void synth_snapshot(struct synth *s, uint64_t txid, uint64_t redo);
/* Objects that are whole within [first, last] become one sealed segment; `keep` leaves them. */
void synth_seal(struct synth *s, uint64_t first, uint64_t last, bool keep);
/* Adds a coalesced object over [first, last]: within one lineage, ending at a settled state. */
void synth_coalesce(struct synth *s, uint64_t first, uint64_t last);
/* Removes an object as retention or joining would; `generation` tells readers. */
void synth_remove_object(struct synth *s, size_t i);
void synth_generation(struct synth *s);

/* About 10 * scale commits in every kind of object: segments sealed and
 * growing, snapshots whole and fuzzy, a coalesced object, a gap.  Published. */
void synth_every_kind(struct synth *s, unsigned scale);
/* Any sequence of the above, `n_steps` commits long. */
void synth_random_history(struct synth *s, unsigned n_steps);

uint64_t synth_last_txid(const struct synth *s);
const struct synth_state *synth_state(const struct synth *s, uint64_t txid);
/* Whether a view of it must open, with the snapshots that there are. */
bool synth_viewable(const struct synth *s, uint64_t txid);
/* What history_at() must say: ERR_NONE (and *ret_txid), ERR_NOT_FOUND, ERR_GAP. */
enum err_kind synth_expect_at(const struct synth *s, int64_t time_us, uint64_t *ret_txid);

/* ---- comparing ---- */
/* Opens txid and compares every page and what the moment tells; false (and why) when the view
 * cannot be had. */
bool synth_compare(const struct synth *s, struct history *h, uint64_t txid, struct err *err);
/* synth_compare() of every txid, expecting errors where there must be some. */
void synth_compare_all(const struct synth *s, struct history *h);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does what the wal-index shows continue what was handed over?
 *
 * Same salts: the WAL was not reset since.  The checksum chain is cumulative, so an equal
 * frame `pos` means equal frames before it, whatever iChange did (a recovery restarts it).
 *
 * Other salts, covered by locks: at most one generation with frames has begun (capture.c,
 * invariant 4), it is this one, and everything before it was handed over.
 *
 * Other salts, not covered: iChange grows by one at each commit and in no other place, resets
 * keep it.  So if the commits in the present generation are as many as iChange grew since
 * pos, none happened elsewhere.  A recovery sets iChange to 0, so recoveries are barred while
 * commits are counted (the RECOVER lock, SHARED).  Where that lock was not held, one could
 * hide commits only if as many as pos.change happened since the last look: more than a
 * machine can make in that time, or the count is not accepted.
 *
 * Too few commits in the present generation: some came between the last look and the reset.
 * Their frames still lie in the file where the new generation has not come to yet.  What
 * continues the checksum chain at pos was written by commits or by transactions that did not
 * end; commits come first in it, in order.  salt1 grows by one at each reset, so where it grew
 * by one no generation lies between, and the first (grown - present) commits of that chain are
 * those that were missed.  Only with recoveries barred, else the count says too little.
 */
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/capture/internal.h"

#include <stdarg.h>

/* No SQLite commits faster than that. */
#define COMMIT_US_MIN 20
#define COUNT_SLACK 10
#define BREAK_LOCK_WAIT_US US_PER_SECOND

static bool salts_equal(const struct capture_position *pos, const struct wal_index *index)
{
	return pos->salt1 == index->salt1 && pos->salt2 == index->salt2;
}

bool capture_is_captured(const struct capture *c, const struct wal_index *index)
{
	return c->have_pos && salts_equal(&c->pos, index) && c->pos.frame == index->max_frame &&
	       c->pos.cksum.s0 == index->frame_cksum.s0 && c->pos.cksum.s1 == index->frame_cksum.s1;
}

void capture_break_due(struct capture *c, enum capture_break why, const char *fmt, ...)
{
	va_list ap;

	if (c->due.set && c->due.why != CAPTURE_GAP)
		return; /* the first word stands, unless it was the vaguest */
	if (!c->due.set)
		c->due.since_us = clock_mono_us();
	c->due.set = true;
	c->due.why = why;
	va_start(ap, fmt);
	vsnprintf(c->due.reason, sizeof(c->due.reason), fmt, ap);
	va_end(ap);
}

/*
 * Moves to frame 0 of the generation in `index`.  `change` is left as it was: no commit lies
 * between.  False when the WAL's header is not (yet) that of the index.
 */
static bool begin_generation(struct capture *c, const struct wal_index *index)
{
	struct wal_cksum seed = index->frame_cksum;
	bool big_endian = index->big_endian_cksum;
	struct wal_header h;

	if (index->max_frame > 0) {
		if (!capture_read_wal_header(c, &h) || h.salt1 != index->salt1 ||
		    h.salt2 != index->salt2 || h.page_size != index->page_size)
			return false;
		seed = h.cksum;
		big_endian = h.big_endian_cksum;
	}
	c->pos.salt1 = index->salt1;
	c->pos.salt2 = index->salt2;
	c->pos.frame = 0;
	c->pos.cksum = seed;
	c->big_endian = big_endian;
	c->have_pos_header = false;
	c->backlog_frame = 0;
	if (index->page_size)
		c->page_size = index->page_size;
	c->covered = c->mark || c->parked;
	return true;
}

static enum proof prove_same_salts(struct capture *c, const struct wal_index *index)
{
	if (index->max_frame > c->pos.frame) {
		/* An empty generation got its WAL header meanwhile: the chain starts there. */
		if (c->pos.frame == 0) {
			struct wal_header h;
			if (!capture_read_wal_header(c, &h) || h.salt1 != index->salt1 ||
			    h.salt2 != index->salt2)
				return PROOF_AGAIN;
			c->pos.cksum = h.cksum;
			c->big_endian = h.big_endian_cksum;
		}
		c->covered = c->covered || c->mark;
		return PROOF_HOLDS;
	}
	if (index->max_frame < c->pos.frame)
		capture_break_due(c, CAPTURE_REWOUND,
		                  "the WAL went back from frame %llu to %u: a recovery found "
		                  "fewer commits",
		                  (unsigned long long)c->pos.frame, index->max_frame);
	else if (c->pos.frame == 0) {
		c->pos.cksum = index->frame_cksum; /* nothing there to differ */
		return PROOF_HOLDS;
	} else
		capture_break_due(c, CAPTURE_REWOUND, "frame %u is another one now",
		                  index->max_frame);
	return PROOF_BROKEN;
}

/* The missed commits of the generation before, where they can still be had. */
static enum proof take_missed(struct capture *c, const struct look *look, uint32_t n_missed)
{
	struct err ignored = ERR_INIT;

	if (!c->change_exact || look->index.salt1 != c->pos.salt1 + 1 || n_missed > INT32_MAX ||
	    c->pos.frame == 0)
		return PROOF_BROKEN;
	return capture_take_tail(c, look, n_missed, &ignored);
}

static enum proof prove_by_count(struct capture *c, const struct look *look)
{
	const struct wal_index *index = &look->index;
	int64_t window_us = look->mono_us - c->confirmed_us;
	uint32_t grown = index->change - c->pos.change;
	uint32_t commits;

	if (capture_count_commits(c, index, &commits) != PROOF_HOLDS)
		return PROOF_AGAIN;
	if (!c->change_known) {
		capture_break_due(c, CAPTURE_GAP,
		                  "the WAL was reset while frames waited to be captured");
		return PROOF_BROKEN;
	}
	if (commits != grown && take_missed(c, look, grown - commits) == PROOF_AGAIN)
		return PROOF_AGAIN;
	if (commits != grown) {
		capture_break_due(c, CAPTURE_GAP,
		                  "the WAL was reset unseen: %u commits in it, %d made since, "
		                  "%lld ms after the last look",
		                  commits, (int32_t)grown, (long long)(window_us / MS));
		return PROOF_BROKEN;
	}
	if (!c->change_exact && (int64_t)c->pos.change <= window_us / COMMIT_US_MIN + COUNT_SLACK) {
		capture_break_due(c, CAPTURE_GAP,
		                  "the WAL was reset unseen, and too few commits were made to "
		                  "count by");
		return PROOF_BROKEN;
	}
	return PROOF_HOLDS;
}

static void note_generation(struct capture *c, bool by_lock)
{
	LOCK_SCOPE(&c->lock);
	if (by_lock)
		c->status.proven_by_lock++;
	else
		c->status.proven_by_count++;
}

enum proof capture_prove(struct capture *c, const struct look *look)
{
	const struct wal_index *index = &look->index;
	struct capture_position before = c->pos;
	bool by_lock = c->covered;

	if (index->page_size && index->page_size != c->page_size) {
		capture_break_due(c, CAPTURE_PAGE_SIZE, "pages have %u bytes now, not %u",
		                  index->page_size, c->page_size);
		return PROOF_BROKEN;
	}
	if (!salts_equal(&c->pos, index) && c->pos.frame == 0 && c->have_prev &&
	    salts_equal(&c->prev, index)) {
		/* A recovery found the WAL as it was before an empty reset: back to its end. */
		c->pos = c->prev;
		c->have_prev = false;
		c->have_pos_header = capture_read_frame_header(c, c->pos.frame, c->pos_header);
		if (capture_is_captured(c, index))
			return PROOF_HOLDS;
	}
	if (salts_equal(&c->pos, index))
		return prove_same_salts(c, index);

	if (!by_lock) {
		enum proof proof = prove_by_count(c, look);
		if (proof != PROOF_HOLDS)
			return proof;
	}
	if (!begin_generation(c, index))
		return PROOF_AGAIN;
	if (before.frame > 0 || !c->have_prev) {
		c->prev = before;
		c->have_prev = true;
	}
	note_generation(c, by_lock);
	return PROOF_HOLDS;
}

enum proof capture_prove_resume(struct capture *c, const struct look *look)
{
	const struct wal_index *index = &look->index;
	struct wal_frame_header h;

	if (!c->have_pos) {
		capture_break_due(c, CAPTURE_FIRST, "nothing was captured before");
		return PROOF_BROKEN;
	}
	/* Salts of 0 are those of every WAL that was not written to yet. */
	if (!salts_equal(&c->pos, index) || (c->pos.salt1 == 0 && c->pos.salt2 == 0)) {
		capture_break_due(c, CAPTURE_GAP, "the WAL was reset while nobody captured it");
		return PROOF_BROKEN;
	}
	if (c->pos.frame > index->max_frame) {
		capture_break_due(c, CAPTURE_REWOUND,
		                  "the WAL ends at frame %u, frame %llu was captured",
		                  index->max_frame, (unsigned long long)c->pos.frame);
		return PROOF_BROKEN;
	}
	if (c->pos.frame > 0) {
		if (!capture_read_frame_header(c, c->pos.frame, c->pos_header))
			return PROOF_AGAIN;
		wal_frame_header_parse(c->pos_header, &h);
		if (h.salt1 != c->pos.salt1 || h.salt2 != c->pos.salt2 ||
		    h.cksum.s0 != c->pos.cksum.s0 || h.cksum.s1 != c->pos.cksum.s1) {
			capture_break_due(c, CAPTURE_REWOUND,
			                  "frame %llu is not the one that was captured",
			                  (unsigned long long)c->pos.frame);
			return PROOF_BROKEN;
		}
		c->have_pos_header = true;
	}
	c->big_endian = index->big_endian_cksum;
	c->change_known = false;
	c->covered = c->mark > 0;
	return PROOF_HOLDS;
}

/* A lock first: it keeps the present generation until its frames are handed over. */
static bool lock_for_break(struct capture *c)
{
	if (capture_take_mark(c) || c->options.test_poll_ms)
		return true;
	return clock_mono_us() - c->due.since_us > BREAK_LOCK_WAIT_US;
}

int capture_announce_break(struct capture *c, struct err *err)
{
	struct break_due due = c->due;
	struct look look;
	uint64_t epoch;

	if (!lock_for_break(c) || !capture_look(c, &look))
		return 0;
	if (!begin_generation(c, &look.index))
		return 0;
	capture_drop_park(c);
	if (due.why != CAPTURE_FIRST && c->status.page_size && c->status.page_size != c->page_size)
		due.why = CAPTURE_PAGE_SIZE;

	pthread_mutex_lock(&c->lock);
	epoch = ++c->epoch;
	c->status.breaks += due.why != CAPTURE_FIRST;
	c->status.page_size = c->page_size;
	c->status.epoch = epoch;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (due.why != CAPTURE_FIRST)
		log_warn(LOG_MODULE, "continuity broken db=%s why=%s reason=\"%s\"", c->path,
		         capture_break_name(due.why), due.reason);

	c->due = (struct break_due){0};
	c->have_pos = true;
	c->have_prev = false;
	c->change_known = false;
	c->backlog_frame = look.index.max_frame;
	c->target = look;
	c->target_pending = true;
	c->batch_ready = false;
	c->captured = false;
	c->not_before_us = 0;
	int rc = c->sink.on_break(c->sink.ctx, due.why, due.reason, c->page_size, epoch, err);
	if (err_kind_of(rc) != ERR_BUSY)
		return rc;
	c->due = due; /* once more, later */
	c->progress_us = look.mono_us;
	c->target_pending = false;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HOLD, FLOAT or PARK: what to keep locked while everything is captured.  capture.c has the
 * diagram and the invariants.
 */
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/capture/internal.h"

#define SPIN_US 150
#define STRICT_SPIN_US (20 * MS)
#define NO_MARK_US (10 * MS)

/* A checkpoint of the whole WAL has begun, and is not one that died. */
static bool checkpoint_started(const struct capture *c, const struct wal_index *index)
{
	return index->n_backfill_attempted == index->max_frame &&
	       !(c->stale_frame == index->max_frame && c->stale_salt1 == index->salt1);
}

/*
 * A recovery, or the death of a checkpointer, leaves nBackfillAttempted behind with nobody at
 * work on it.  It would keep us floating for nothing.
 */
static void note_stale_checkpoint(struct capture *c, const struct wal_index *index)
{
	struct look again;

	if (index->n_backfill == index->max_frame || capture_checkpoint_locked(c) ||
	    !capture_look(c, &again) || again.index.n_backfill != index->n_backfill ||
	    again.index.salt1 != index->salt1 || again.index.max_frame != index->max_frame)
		return;
	c->stale_frame = index->max_frame;
	c->stale_salt1 = index->salt1;
}

static bool park(struct capture *c)
{
	struct look look;

	if (!capture_take_park(c))
		return false;
	if (capture_look(c, &look) && capture_is_captured(c, &look.index) &&
	    look.index.n_backfill == look.index.max_frame) {
		c->covered = true;
		capture_drop_mark(c);
		return true;
	}
	capture_drop_park(c);
	return false;
}

void capture_hold(struct capture *c)
{
	struct look look;

	if (capture_take_mark(c) && capture_look(c, &look) && look.index.salt1 == c->pos.salt1 &&
	    look.index.salt2 == c->pos.salt2)
		c->covered = true;
}

/*
 * A checkpoint without fsyncs is over in no time.  Watching for its end without sleeping
 * closes most of the window in which a reset could hide a commit.
 */
static void park_soon(struct capture *c, int64_t spin_us)
{
	int64_t until_us = clock_mono_us() + spin_us;
	struct look look;

	while (clock_mono_us() < until_us) {
		if (!capture_look(c, &look) || !capture_is_captured(c, &look.index))
			return;
		if (look.index.n_backfill == look.index.max_frame && park(c))
			return;
		if (c->options.strict)
			capture_yield(c); /* it lasts: the application may have this one core */
	}
}

/* HOLD -> FLOAT, once iChange is known exactly and can but grow. */
static void let_go_of_mark(struct capture *c)
{
	struct look look;

	capture_hurry(true);
	capture_bar_recovery(c);
	if (!capture_look(c, &look) || !capture_is_captured(c, &look.index))
		return; /* first things first */
	c->pos.change = look.index.change;
	c->confirmed_us = look.mono_us;
	c->change_exact = c->no_recovery;
	capture_drop_mark(c);
}

/* New frames came while parked: a mark, then read lock 0 is of no use any more. */
static void unpark(struct capture *c)
{
	if (capture_take_mark(c) ||
	    (!c->options.strict && clock_mono_us() - c->no_mark_since_us > NO_MARK_US))
		capture_drop_park(c);
}

static uint64_t wal_bytes(const struct capture *c, const struct wal_index *index)
{
	return index->max_frame * wal_frame_size(c->page_size);
}

/* The cap holds for captured and waiting frames alike; proof.c declares what comes of it. */
bool capture_over_cap(struct capture *c, const struct wal_index *index)
{
	bool over = wal_bytes(c, index) > c->wal_cap_bytes;

	if (over && !c->over_cap)
		log_warn(LOG_MODULE, "the WAL has grown past the cap db=%s bytes=%llu cap=%llu%s",
		         c->path, (unsigned long long)wal_bytes(c, index),
		         (unsigned long long)c->wal_cap_bytes,
		         c->options.strict ? " strict=yes, not letting go" : ", letting go");
	c->over_cap = over;
	return over && !c->options.strict;
}

/* Everything is captured: which state to wait in. */
static void choose_state(struct capture *c, const struct look *look)
{
	const struct wal_index *index = &look->index;

	if (c->parked) {
		if (index->max_frame > index->n_backfill)
			unpark(c);
		else
			capture_drop_mark(c); /* taken to look at a reset that brought no frames */
		return;
	}
	bool started = checkpoint_started(c, index);
	if (c->options.strict)
		capture_hold(c);
	if (index->n_backfill == index->max_frame && park(c))
		return;
	if (c->options.strict) {
		if (started && capture_checkpoint_locked(c))
			park_soon(c, STRICT_SPIN_US); /* its end is the one moment for it */
		return;
	}
	bool busy = watch_is_fast(c, look->mono_us);
	bool let_go = started || (index->max_frame >= RELEASE_FRAMES && busy) ||
	              capture_over_cap(c, index);
	if (!c->mark)
		capture_bar_recovery(c);
	if (!c->mark && started) {
		note_stale_checkpoint(c, index);
	} else if (c->mark && let_go) {
		let_go_of_mark(c);
		if (started)
			park_soon(c, SPIN_US);
	} else if (!c->mark && !let_go) {
		capture_hold(c);
	}
}

void capture_settle(struct capture *c, const struct look *look)
{
	choose_state(c, look);
	if (c->mark || c->parked)
		capture_allow_recovery(c);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the -wal file to the sink: read a batch, check it, hand it over.
 *
 * Every frame up to the target's mxFrame is authoritative, whatever its checksum says:
 * SQLite before 3.50.2 leaves frames without salts and checksums behind after ROLLBACK TO
 * with a spilled cache, and its own readers never look.  Such frames are counted, and the
 * chain goes on from what is stored (at the target from the wal-index's aFrameCksum).
 *
 * Without a lock (FLOAT) the file may be overwritten while it is read.  SQLite publishes new
 * salts before it overwrites frame 1, so a batch whose salts still stand after the read is
 * whole; any other is thrown away unseen by the sink.
 */
#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/capture/internal.h"

#include <string.h>

#define DELIVER_BUDGET_US (10 * MS)
#define BATCH_BYTES_MIN 4096

int capture_need_buffer(struct capture *c, struct err *err)
{
	size_t frame_bytes = (size_t)wal_frame_size(c->page_size);
	size_t frames = c->batch_bytes / frame_bytes;
	size_t bytes = (frames ? frames : 1) * frame_bytes;

	if (c->buf && c->buf_bytes == bytes)
		return 0;
	free(c->buf);
	c->buf_bytes = 0;
	c->buf = malloc(bytes);
	if (!c->buf)
		return err_set(err, ERR_NOMEM, 0, "capture %s: no memory for %zu bytes of frames",
		               c->path, bytes);
	c->buf_bytes = bytes;
	return 0;
}

bool capture_read_frame_header(const struct capture *c, uint64_t frame,
                               uint8_t out[WAL_FRAME_HEADER_SIZE])
{
	return frame > 0 &&
	       file_pread(c->at.wal_fd, out, WAL_FRAME_HEADER_SIZE,
	                  wal_frame_offset(frame, c->page_size), c->at.wal_path, NULL) == 0;
}

bool capture_read_wal_header(const struct capture *c, struct wal_header *ret)
{
	uint8_t bytes[WAL_HEADER_SIZE];

	return file_pread(c->at.wal_fd, bytes, sizeof(bytes), 0, c->at.wal_path, NULL) == 0 &&
	       wal_header_parse(bytes, sizeof(bytes), ret, NULL) == 0;
}

enum proof capture_count_commits(struct capture *c, const struct wal_index *index,
                                 uint32_t *ret_commits)
{
	size_t frame_bytes = (size_t)wal_frame_size(index->page_size);
	uint64_t frame = 0;
	uint32_t commits = 0;

	while (frame < index->max_frame) {
		uint64_t n = c->buf_bytes / frame_bytes;
		if (n > index->max_frame - frame)
			n = index->max_frame - frame;
		if (file_pread(c->at.wal_fd, c->buf, (size_t)n * frame_bytes,
		               wal_frame_offset(frame + 1, index->page_size), c->at.wal_path, NULL))
			return PROOF_AGAIN;
		for (uint64_t i = 0; i < n; i++)
			commits += load_be32(c->buf + i * frame_bytes + 4) != 0;
		frame += n;
	}
	*ret_commits = commits;
	return capture_salts_are(c, index->salt1, index->salt2) ? PROOF_HOLDS : PROOF_AGAIN;
}

/* Checks one frame against the chain and moves the chain on.  False: a bad checksum. */
static bool chain_frame(const struct capture *c, const uint8_t *frame, struct wal_cksum *chain)
{
	struct wal_frame_header h;

	wal_frame_header_parse(frame, &h);
	wal_cksum_add(chain, frame, 8, c->big_endian);
	wal_cksum_add(chain, frame + WAL_FRAME_HEADER_SIZE, c->page_size, c->big_endian);
	bool good = h.salt1 == c->pos.salt1 && h.salt2 == c->pos.salt2 && h.cksum.s0 == chain->s0 &&
	            h.cksum.s1 == chain->s1;
	*chain = h.cksum;
	return good;
}

/*
 * The first frame behind pos does not continue it: a bad checksum, or the frames up to pos
 * were taken back by a recovery and written anew?  Then frame pos is another one now.
 */
static bool rewound(const struct capture *c)
{
	uint8_t now[WAL_FRAME_HEADER_SIZE];

	if (!c->pos.frame || !c->have_pos_header)
		return false;
	return !capture_read_frame_header(c, c->pos.frame, now) ||
	       memcmp(now, c->pos_header, sizeof(now)) != 0;
}

/* What the WAL and its index say does not fit together: someone replaced one of them. */
static enum proof mismatch(struct capture *c, const char *what)
{
	capture_break_due(c, CAPTURE_GAP, "the WAL does not match its index: %s", what);
	return PROOF_BROKEN;
}

/* Walks the frames in the buffer: how many to hand over, and where the chain stands then. */
static enum proof check_frames(struct capture *c, uint64_t n, bool to_target, uint64_t *ret_n,
                               struct wal_cksum *ret_chain)
{
	size_t frame_bytes = (size_t)wal_frame_size(c->page_size);
	struct wal_cksum chain = c->pos.cksum;
	uint64_t keep = 0, bad = 0;

	c->batch_bad = 0;
	c->batch_commits = 0;
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *frame = c->buf + i * frame_bytes;
		if (!chain_frame(c, frame, &chain)) {
			if (i == 0 && rewound(c)) {
				if (!capture_salts_are(c, c->pos.salt1, c->pos.salt2))
					return PROOF_AGAIN;
				capture_break_due(c, CAPTURE_REWOUND,
				                  "frame %llu was taken back and written anew",
				                  (unsigned long long)c->pos.frame);
				return PROOF_BROKEN;
			}
			bad++;
		}
		if (load_be32(frame + 4)) {
			keep = i + 1;
			*ret_chain = chain;
			c->batch_commits++;
			c->batch_bad = bad;
		}
	}
	if (to_target && keep != n)
		return mismatch(c, "its last frame is no commit");
	if (!keep) { /* inside a transaction larger than the batch */
		keep = n;
		*ret_chain = chain;
		c->batch_bad = bad;
	}
	*ret_n = keep;
	return PROOF_HOLDS;
}

/* A batch of c->buf's first `n` frames, and the position behind it. */
static void make_batch(struct capture *c, uint64_t n, struct wal_cksum chain)
{
	const struct wal_index *target = &c->target.index;
	size_t frame_bytes = (size_t)wal_frame_size(c->page_size);
	uint64_t end = c->pos.frame + n;
	bool whole = end == target->max_frame;

	if (whole && (chain.s0 != target->frame_cksum.s0 || chain.s1 != target->frame_cksum.s1)) {
		c->batch_bad += !c->batch_bad;
		chain = target->frame_cksum;
	}
	c->batch = (struct capture_batch){
	        .frames = c->buf,
	        .n_frames = (size_t)n,
	        .page_size = c->page_size,
	        .backlog = end <= c->backlog_frame,
	        .ends_commit = c->batch_commits > 0,
	        .observed_us = c->target.after_us,
	        .not_before_us = c->not_before_us,
	        .after = {.salt1 = target->salt1,
	                  .salt2 = target->salt2,
	                  .frame = end,
	                  .cksum = chain,
	                  .change = whole ? target->change : c->pos.change + c->batch_commits},
	};
	memcpy(c->batch_header, c->buf + (n - 1) * frame_bytes, sizeof(c->batch_header));
	c->batch_ready = true;
}

static enum proof read_batch(struct capture *c)
{
	const struct wal_index *target = &c->target.index;
	size_t frame_bytes = (size_t)wal_frame_size(c->page_size);
	uint64_t end = target->max_frame, n = c->buf_bytes / frame_bytes, keep;
	struct wal_cksum chain = c->pos.cksum;
	size_t got;

	if (c->pos.frame < c->backlog_frame && end > c->backlog_frame)
		end = c->backlog_frame; /* a batch is either backlog or not */
	if (n > end - c->pos.frame)
		n = end - c->pos.frame;
	if (file_pread_some(c->at.wal_fd, c->buf, (size_t)n * frame_bytes,
	                    wal_frame_offset(c->pos.frame + 1, c->page_size), &got, c->at.wal_path,
	                    NULL))
		got = 0;
	if (!capture_salts_are(c, c->pos.salt1, c->pos.salt2))
		return PROOF_AGAIN;
	if (got < n * frame_bytes)
		return mismatch(c, "it is too short");
	enum proof proof = check_frames(c, n, c->pos.frame + n == target->max_frame, &keep, &chain);
	if (proof == PROOF_HOLDS)
		make_batch(c, keep, chain);
	return proof;
}

static void log_bad_frames(struct capture *c)
{
	int64_t now_us = clock_mono_us();

	if (now_us - c->bad_logged_us < 60 * US_PER_SECOND && c->bad_logged_us)
		return;
	c->bad_logged_us = now_us;
	log_warn(LOG_MODULE,
	         "committed WAL frames with bad checksums were accepted; a crash of the "
	         "application now can lose commits (SQLite before 3.50.2, ROLLBACK TO with a "
	         "spilled cache) db=%s frames=%llu up_to_frame=%llu",
	         c->path, (unsigned long long)c->batch_bad,
	         (unsigned long long)c->batch.after.frame);
}

static void accepted(struct capture *c)
{
	int64_t now_us = clock_mono_us();

	c->pos = c->batch.after;
	memcpy(c->pos_header, c->batch_header, sizeof(c->pos_header));
	c->have_pos_header = true;
	c->batch_ready = false;
	c->delivered_since_caught_up = true;
	c->progress_us = now_us;
	if (c->batch_bad) {
		c->bad_salt1 = c->pos.salt1;
		c->bad_frame = c->pos.frame;
		log_bad_frames(c);
	}
	watch_note_commits(c, c->batch_commits, now_us);

	LOCK_SCOPE(&c->lock);
	c->status.commits += c->batch_commits;
	c->status.bad_frame_cksums += c->batch_bad;
}

/*
 * How many frames of the buffer's `n` continue the old generation at pos, up to its `wanted`th
 * commit; what a reset has overwritten by now has other salts, or is torn, and ends the chain.
 */
static uint64_t tail_frames(struct capture *c, uint64_t n, uint32_t wanted,
                            struct wal_cksum *ret_chain)
{
	size_t frame_bytes = (size_t)wal_frame_size(c->page_size);
	struct wal_cksum chain = c->pos.cksum;
	uint64_t keep = 0;

	c->batch_bad = 0;
	c->batch_commits = 0;
	for (uint64_t i = 0; i < n && c->batch_commits < wanted; i++) {
		const uint8_t *frame = c->buf + i * frame_bytes;
		if (!chain_frame(c, frame, &chain))
			break;
		if (!load_be32(frame + 4))
			continue;
		keep = i + 1;
		*ret_chain = chain;
		c->batch_commits++;
	}
	return keep;
}

enum proof capture_take_tail(struct capture *c, const struct look *look, uint32_t wanted,
                             struct err *err)
{
	size_t frame_bytes = (size_t)wal_frame_size(c->page_size), got;
	struct wal_cksum chain = c->pos.cksum;

	if (file_pread_some(c->at.wal_fd, c->buf, c->buf_bytes,
	                    wal_frame_offset(c->pos.frame + 1, c->page_size), &got, c->at.wal_path,
	                    NULL))
		return PROOF_BROKEN;
	uint64_t n = tail_frames(c, got / frame_bytes, wanted, &chain);
	if (n == 0)
		return PROOF_BROKEN;
	memcpy(c->batch_header, c->buf + (n - 1) * frame_bytes, sizeof(c->batch_header));
	c->batch = (struct capture_batch){
	        .frames = c->buf,
	        .n_frames = (size_t)n,
	        .page_size = c->page_size,
	        .ends_commit = true,
	        .observed_us = look->after_us,
	        .not_before_us = c->not_before_us,
	        .after = {.salt1 = c->pos.salt1,
	                  .salt2 = c->pos.salt2,
	                  .frame = c->pos.frame + n,
	                  .cksum = chain,
	                  .change = c->pos.change + c->batch_commits},
	};
	int rc = c->sink.on_batch(c->sink.ctx, &c->batch, err);
	if (rc == 0) {
		accepted(c);
		LOCK_SCOPE(&c->lock);
		c->status.late_batches++;
	}
	/* A full sink is asked again, if there is something left by then; errors come again. */
	return PROOF_AGAIN;
}

int capture_deliver(struct capture *c, struct err *err)
{
	int64_t until_us = clock_mono_us() + DELIVER_BUDGET_US;

	c->sink_busy = false;
	for (;;) {
		if (!c->batch_ready) {
			if (c->pos.frame >= c->target.index.max_frame)
				break;
			int rc = capture_need_buffer(c, err);
			if (rc)
				return rc;
			if (read_batch(c) != PROOF_HOLDS) {
				c->target_pending = false; /* look again, or break */
				return 0;
			}
		}
		int rc = c->sink.on_batch(c->sink.ctx, &c->batch, err);
		if (err_kind_of(rc) == ERR_BUSY) {
			c->sink_busy = true;
			return 0;
		}
		if (rc)
			return rc;
		accepted(c);
		if (clock_mono_us() > until_us)
			break;
	}
	if (c->pos.frame < c->target.index.max_frame)
		return 0;
	c->target_pending = false;
	c->change_known = true;
	c->pos.change = c->target.index.change;
	c->confirmed_us = c->target.mono_us;
	c->change_exact = c->no_recovery; /* FLOAT holds it since before the target was read */
	c->not_before_us = c->target.before_us;

	LOCK_SCOPE(&c->lock);
	c->accepted_tick = c->target.tick;
	pthread_cond_broadcast(&c->changed);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/daemon/recorder_i.h"

#include <fcntl.h>
#include <inttypes.h>

#define RETRY_US 500000
/* After so long without news memory is given back. */
#define REST_US (2 * US_PER_SECOND)
/* What has waited longer for its turn comes before all others. */
#define LATE_US (20 * INT64_C(1000))

/* ---- the head ---- */

int recorder_publish(struct recorder *r, bool changed, struct err *err)
{
	if (r->lost.pending) /* the head bears witness to what was lost: lost.c (2) */
		return 0;
	r->head.lineage = r->lineage;
	r->head.growing_txid = r->growing_txid;
	r->head.durable_len = r->durable_len;
	/* Nothing lies behind a jump yet: the last is the one before it. */
	r->head.last_txid =
	        r->durable.txid + 1 == r->lost.first_txid ? r->lost.from_txid : r->durable.txid;
	r->head.last_us = r->durable.time_us;
	r->head.known_until_us = r->known_until_us;
	if (changed)
		r->changes++;
	bool moved = r->head.generation != r->changes; /* also by the keeper: recorder_changed() */
	r->head.generation = r->changes;
	int rc = head_write(r->head_fd, &r->head, err);
	pthread_mutex_lock(&r->lock);
	bool news = moved || r->durable.txid != r->status.last_txid;
	r->status.commits += r->durable.txid - r->status.last_txid;
	r->status.last_txid = r->durable.txid;
	r->status.last_us = r->durable.time_us;
	r->status.known_until_us = r->known_until_us;
	for (int i = 0; news && i < RECORDER_LISTENERS; i++)
		if (r->on_news[i])
			r->on_news[i](r->on_news_ctx[i], changed);
	pthread_mutex_unlock(&r->lock);
	return rc;
}

/* The keeper runs at low priority: it takes no lock that the worker needs for long. */
void recorder_changed(struct recorder *r)
{
	r->changes++;
	pool_wake(r->task);
}

void recorder_on_news(struct recorder *r, enum recorder_listener who, recorder_news_fn *fn,
                      void *ctx)
{
	LOCK_SCOPE(&r->lock);
	r->on_news[who] = fn;
	r->on_news_ctx[who] = ctx;
}

uint64_t recorder_generation(struct recorder *r)
{
	return r->changes;
}

/* ---- the queue ---- */

/* Under r->lock. */
static void append(struct recorder *r, struct item *it)
{
	*r->last_next = it;
	r->last_next = &it->next;
	r->newest = it;
	r->items_queued++;
	r->queued_bytes += it->bytes;
	r->status.taken_bytes += it->bytes;
	r->pools->queued_bytes += it->bytes;
	r->status.queued_bytes = r->queued_bytes;
	r->was_long = r->was_long || r->queued_bytes > GROUP_BYTES / 2;
}

static void push(struct recorder *r, struct item *it)
{
	pthread_mutex_lock(&r->lock);
	append(r, it);
	pthread_mutex_unlock(&r->lock);
	pool_wake(r->task);
}

/* A scan can outlive the worker: recorder_free(). */
void recorder_push(struct recorder *r, struct item *it)
{
	LOCK_SCOPE(&r->lock);
	append(r, it);
	if (r->task)
		pool_wake(r->task);
}

static struct item *item_new(enum item_type type, size_t bytes)
{
	struct item *it = malloc(sizeof(*it) + bytes);

	if (it) {
		memset(it, 0, sizeof(*it));
		it->type = type;
		it->bytes = bytes;
	}
	return it;
}

static int on_break(void *ctx, enum capture_break why, const char *reason, uint32_t page_size,
                    uint64_t epoch, struct err *err)
{
	struct item *it = item_new(ITEM_BREAK, 0);

	if (!it)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	it->why = why;
	it->page_size = page_size;
	it->epoch = epoch;
	snprintf(it->reason, sizeof(it->reason), "%s", reason);
	push(ctx, it);
	return 0;
}

/* The bounds of pools.h. */
static bool has_room(struct recorder *r, size_t bytes)
{
	LOCK_SCOPE(&r->lock);
	return r->queued_bytes == 0 || (r->queued_bytes + bytes <= QUEUE_BYTES &&
	                                r->pools->queued_bytes + bytes <= r->pools->queue_bytes);
}

static int on_batch(void *ctx, const struct capture_batch *b, struct err *err)
{
	struct recorder *r = ctx;
	size_t bytes = b->n_frames * (size_t)wal_frame_size(b->page_size);

	struct item *it = has_room(r, bytes) ? item_new(ITEM_BATCH, bytes) : NULL;
	if (!it)
		return err_set(err, ERR_BUSY, 0, "the queue is full");
	it->n_frames = b->n_frames;
	it->page_size = b->page_size;
	it->ends_commit = b->ends_commit;
	it->observed_us = b->observed_us;
	it->not_before_us = b->not_before_us;
	it->after = (struct source_position){b->after.salt1, b->after.salt2, b->after.frame,
	                                     b->after.cksum, b->after.change};
	memcpy(it->frames, b->frames, bytes);
	push(r, it);
	return 0;
}

/*
 * An idle database says so twice a second.  With nothing queued and nobody at work the head is
 * written here and now: handing that over would cost more than doing it.
 */
static bool known_at_once(struct recorder *r, int64_t known_until_us)
{
	pthread_mutex_lock(&r->lock);
	/* `group` is the worker's: asked for only when there is none. */
	bool idle = !r->at_work && r->resting && !r->first && !r->ending && !r->group;
	r->at_work = r->at_work || idle;
	pthread_mutex_unlock(&r->lock);
	if (!idle)
		return false;
	struct err ignored = ERR_INIT; /* told again within a second */
	if (!r->discarding)
		r->known_until_us = known_until_us;
	encode_cut_old(r, known_until_us, false);
	int rc = recorder_publish(r, false, &ignored);
	(void)rc;
	pthread_mutex_lock(&r->lock);
	r->at_work = false;
	bool wanted = r->first || r->wanted;
	r->wanted = false;
	pthread_mutex_unlock(&r->lock);
	if (wanted)
		pool_wake(r->task);
	return true;
}

static void on_caught_up(void *ctx, int64_t known_until_us)
{
	struct recorder *r = ctx;

	if (known_at_once(r, known_until_us))
		return;
	pthread_mutex_lock(&r->lock);
	bool told = r->first && r->newest->type == ITEM_KNOWN;
	if (told)
		r->newest->known_until_us = known_until_us;
	pthread_mutex_unlock(&r->lock);
	struct item *it = told ? NULL : item_new(ITEM_KNOWN, 0);
	if (!it)
		return; /* told again within a second */
	it->known_until_us = known_until_us;
	push(r, it);
}

const struct capture_sink *recorder_sink(struct recorder *r)
{
	r->sink = (struct capture_sink){r, on_break, on_batch, on_caught_up};
	return &r->sink;
}

/* Takes the items of one group: those that one fsync shall cover.  NULL: there are none. */
static struct item *take_group(struct recorder *r)
{
	struct item *first, **end;
	size_t bytes = 0;
	LOCK_SCOPE(&r->lock);

	first = r->first;
	end = &r->first;
	while (*end && bytes < GROUP_BYTES) {
		bytes += (*end)->bytes;
		end = &(*end)->next;
	}
	r->first = *end;
	*end = NULL;
	if (!r->first)
		r->last_next = &r->first;
	return first;
}

static void free_items(struct recorder *r, struct item *first)
{
	size_t bytes = 0, n = 0;

	for (; first; n++) {
		struct item *it = first;
		first = it->next;
		bytes += it->bytes;
		free(it);
	}
	LOCK_SCOPE(&r->lock);
	r->items_done += n;
	r->queued_bytes -= bytes;
	r->pools->queued_bytes -= bytes;
	r->status.queued_bytes = r->queued_bytes;
}

/* ---- the worker ---- */

/* All before `next` needs no work any more: from there it goes on after an error, with what was due then.
 * (What came of a pass over the file must not be made use of before the frames that it waited for.) */
static void done_until(struct recorder *r, struct item *next, struct item **done)
{
	*done = next;
	r->settle_due_at_done = r->settle_due;
}

/* What came before `next` becomes durable.  Then it is not written again, should it only be that
 * nobody can be told of it yet. */
static int flush(struct recorder *r, bool closes, struct item *next, struct item **done,
                 struct err *err)
{
	int rc = encode_flush(r, closes, err);

	if (rc < 0)
		return rc;
	done_until(r, next, done);
	rc = recorder_publish(r, false, err);
	if (rc == 0)
		encode_cut_long(r);
	return rc;
}

/* Before something that stands between batches. */
static int flush_before(struct recorder *r, bool *dirty, bool *closes, struct item *next,
                        struct item **done, struct err *err)
{
	int rc = *dirty ? flush(r, *closes, next, done, err) : 0;

	*dirty = false;
	*closes = true;
	return rc;
}

/*
 * The pass over the file is over.  A large commit can be half in the queue at that moment: what
 * makes the database whole waits for its end, or it would take that half for committed.
 */
static int settle_if_due(struct recorder *r, struct item *next, bool *dirty, bool *closes,
                         struct item **done, struct err *err)
{
	const struct item due = {.type = ITEM_SETTLE, .epoch = r->settle_epoch};

	/* Discarding: frames that the pass waited for were dropped, and a break is on its way. */
	if (!r->settle_due || !*closes || r->discarding)
		return 0;
	int rc = flush_before(r, dirty, closes, next, done, err);
	if (rc == 0) {
		done_until(r, next, done);
		rc = settle_finish(r, &due, err);
	}
	if (rc == 0)
		r->settle_due = false;
	return rc;
}

/*
 * Works through a group.  *done is the first item not yet covered by an fsync: with an error the
 * caller takes back what was encoded and begins there again.
 */
static int process_group(struct recorder *r, struct item *first, struct item **done,
                         struct err *err)
{
	bool dirty = false, closes = !r->mid_commit_applied;
	int rc = encode_resume(r, err);

	r->settle_due_at_done = r->settle_due;
	if (rc == 0)
		rc = settle_if_due(r, first, &dirty, &closes, done, err);
	for (struct item *it = first; it && rc == 0; it = it->next) {
		switch (it->type) {
		case ITEM_BATCH:
			if (r->discarding)
				break;
			rc = encode_batch(r, it, err);
			dirty = true;
			closes = it->ends_commit;
			if (rc == 0)
				rc = settle_if_due(r, it->next, &dirty, &closes, done, err);
			break;
		case ITEM_BREAK:
			if (!closes) { /* a commit that will never be ended */
				encode_void(r);
				dirty = false;
				closes = true;
				rc = encode_resume(r, err);
			}
			if (rc == 0)
				rc = flush_before(r, &dirty, &closes, it, done, err);
			if (rc == 0) {
				r->settle_due = false;
				done_until(r, it, done);
				rc = settle_break(r, it, err);
			}
			if (rc == 0)
				done_until(r, it->next, done);
			break;
		case ITEM_SETTLE:
			r->settle_due = true;
			r->settle_epoch = it->epoch;
			rc = settle_if_due(r, it->next, &dirty, &closes, done, err);
			break;
		case ITEM_SETTLE_FAILED:
			rc = flush_before(r, &dirty, &closes, it, done, err);
			if (rc == 0) {
				done_until(r, it, done);
				rc = settle_finish(r, it, err);
			}
			if (rc == 0)
				done_until(r, it->next, done);
			break;
		case ITEM_KNOWN:
			if (closes && !r->discarding)
				r->known_until_us = it->known_until_us;
			encode_cut_old(r, it->known_until_us, dirty);
			break;
		}
	}
	if (rc == 0)
		rc = dirty ? flush(r, closes, NULL, done, err) : recorder_publish(r, false, err);
	if (rc == 0)
		*done = NULL;
	else
		r->settle_due = r->settle_due_at_done;
	return rc;
}

static bool gave_up(struct recorder *r)
{
	LOCK_SCOPE(&r->lock);
	return r->ending && clock_mono_us() > r->give_up_us;
}

static void set_trouble(struct recorder *r, const char *text)
{
	LOCK_SCOPE(&r->lock);
	r->status.sync_errors += text[0] != 0;
	snprintf(r->status.trouble, sizeof(r->status.trouble), "%.199s", text);
}

/* Invariant (2) of recorder.h: what cannot be written is kept, and tried again. */
static int64_t in_trouble(struct recorder *r, const struct err *why)
{
	int64_t now_us = clock_mono_us();

	encode_take_back(r);
	if (r->trouble_us == 0 || now_us - r->trouble_us > 60 * US_PER_SECOND) {
		log_error("recorder", "archive cannot be written, trying again db=%s: %s", r->name,
		          why->msg);
		r->trouble_us = now_us;
	}
	set_trouble(r, why->msg);
	r->retry_us = now_us + RETRY_US;
	if (!gave_up(r))
		return RETRY_US;
	settle_cancel(r);
	return POOL_WHEN_WOKEN;
}

static int64_t tried_in_vain(struct recorder *r, const struct err *why)
{
	int64_t wait_us = in_trouble(r, why);

	r->ended = wait_us == POOL_WHEN_WOKEN;
	return wait_us;
}

static void out_of_trouble(struct recorder *r)
{
	if (!r->trouble_us)
		return;
	r->trouble_us = 0;
	log_info("recorder", "archive is written again db=%s", r->name);
	set_trouble(r, "");
}

/* Nothing came for a while: what can be had again is given back. */
static void rest(struct recorder *r)
{
	if (r->w)
		grow_rest(r->w);
	overlay_release(&r->overlay);
	if (!r->mid_commit_applied)
		bitset_release(&r->grown);
	recorder_close_archive(r);
	LOCK_SCOPE(&r->lock);
	if (r->was_long || !r->rested_once)
		r->pools->memory_freed = true;
	r->was_long = false;
	r->rested_once = r->resting = true;
}

static int64_t without_work(struct recorder *r)
{
	struct err why = ERR_INIT;

	pthread_mutex_lock(&r->lock);
	bool ending = r->ending;
	pthread_mutex_unlock(&r->lock);
	if (ending) {
		settle_cancel(r);
		r->ended = true;
		return POOL_WHEN_WOKEN;
	}
	if (r->head.generation != r->changes && recorder_publish(r, false, &why) < 0)
		return RETRY_US;
	int64_t us = r->worked_us + REST_US - clock_mono_us();
	if (us > 0)
		return us;
	rest(r);
	return POOL_WHEN_WOKEN;
}

/* More than that it is known how far everything is captured. */
static bool is_work(const struct item *group)
{
	for (; group; group = group->next)
		if (group->type != ITEM_KNOWN)
			return true;
	return false;
}

static int64_t with_group(struct recorder *r)
{
	struct err why = ERR_INIT;
	int64_t early_us = r->trouble_us ? r->retry_us - clock_mono_us() : 0;

	if (early_us > 0)
		return early_us; /* woken by each new commit, which does not make room */
	int rc = process_group(r, r->group_at, &r->group_at, &why);
	if (is_work(r->group))
		r->worked_us = clock_mono_us();
	if (rc < 0)
		return tried_in_vain(r, &why);
	out_of_trouble(r);
	free_items(r, take_ptr(r->group));
	return 0;
}

static bool is_late(const struct item *group)
{
	return group && group->type == ITEM_BATCH && clock_now_us() - group->observed_us > LATE_US;
}

static int64_t work(struct recorder *r)
{
	struct err why = ERR_INIT;

	if (!r->began) {
		r->worked_us = clock_mono_us();
		if (table_recover(r, &why) < 0)
			return tried_in_vain(r, &why);
		r->began = true;
		out_of_trouble(r);
	}
	if (!r->group) {
		r->group = r->group_at = take_group(r);
		pools_record_hurry(is_late(r->group));
	}
	return r->group ? with_group(r) : without_work(r);
}

static int64_t recorder_step(void *ctx)
{
	struct recorder *r = ctx;

	pthread_mutex_lock(&r->lock);
	bool taken = r->at_work || r->ended; /* known_at_once(): it wakes us when it is done */
	r->wanted = taken;
	r->at_work = true;
	r->resting = r->resting && !r->first && !r->ending;
	pthread_mutex_unlock(&r->lock);
	if (taken)
		return POOL_WHEN_WOKEN;
	int64_t wait_us = work(r), look_us = r->ended ? POOL_WHEN_WOKEN : settle_look_again(r);
	if (look_us < wait_us)
		wait_us = look_us;
	pthread_mutex_lock(&r->lock);
	r->at_work = false;
	pthread_mutex_unlock(&r->lock);
	return wait_us;
}

/* ---- start and end ---- */

int recorder_start(struct recorder *r, struct capture *c, struct err *err)
{
	r->capture = c;
	return pool_add(r->pools->record, recorder_step, r, &r->task, err);
}

void recorder_end(struct recorder *r, int64_t timeout_us)
{
	if (!r->task)
		return;
	pthread_mutex_lock(&r->lock);
	r->ending = true;
	r->give_up_us = clock_mono_us() + timeout_us;
	pthread_mutex_unlock(&r->lock);
	pool_wake(r->task);
}

bool recorder_ended(const struct recorder *r)
{
	return !r->task || r->ended;
}

int recorder_result(struct recorder *r, struct err *err)
{
	if (r->status.trouble[0])
		return err_set(err, ERR_IO, 0, "the last commits were not captured: %s",
		               r->status.trouble);
	if (r->status.unwhole[0])
		return err_set(err, ERR_DAMAGED, 0, "%s", r->status.unwhole);
	return r->settled && r->task ? table_sync(r, r->durable.txid, err) : 0;
}

uint64_t recorder_queued(struct recorder *r)
{
	LOCK_SCOPE(&r->lock);
	return r->items_queued;
}

bool recorder_durable(struct recorder *r, uint64_t items)
{
	LOCK_SCOPE(&r->lock);
	return r->items_done >= items && r->status.settled;
}

void recorder_get_status(struct recorder *r, struct recorder_status *ret)
{
	LOCK_SCOPE(&r->lock);
	*ret = r->status;
}

void recorder_free(struct recorder *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	struct pool_task *task = take_ptr(r->task);
	pthread_mutex_unlock(&r->lock);
	pool_remove(task);
	settle_cancel(r);
	free_items(r, r->group);
	free_items(r, r->first);
	grow_writer_free(r->w);
	page_table_free(r->table);
	recorder_close_archive(r);
	overlay_release(&r->overlay);
	bitset_release(&r->grown);
	bitset_release(&r->framed);
	free(r->page_one);
	const int fds[] = {r->dir_fd, r->segment_fd, r->lock_fd, r->head_fd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->table_lock);
	free(r->root);
	free(r->name);
	free(r->source_path);
	free(r);
}

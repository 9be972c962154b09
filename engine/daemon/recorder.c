/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/daemon/recorder_i.h"

#include <fcntl.h>
#include <inttypes.h>

#define RETRY_US 500000
#define SEGMENT_BYTES_DEFAULT (64u << 20)

/* ---- the head ---- */

int recorder_publish(struct recorder *r, bool changed, struct err *err)
{
	r->head.lineage = r->lineage;
	r->head.growing_txid = r->growing_txid;
	r->head.durable_len = r->durable_len;
	r->head.last_txid = r->durable.txid;
	r->head.last_us = r->durable.time_us;
	r->head.known_until_us = r->known_until_us;
	if (changed)
		r->changes++;
	r->head.generation = r->changes;
	int rc = head_write(r->head_fd, &r->head, err);
	pthread_mutex_lock(&r->lock);
	r->status.commits += r->durable.txid - r->status.last_txid;
	r->status.last_txid = r->durable.txid;
	r->status.last_us = r->durable.time_us;
	pthread_mutex_unlock(&r->lock);
	return rc;
}

/* The keeper runs at low priority: it takes no lock that the worker needs. */
void recorder_changed(struct recorder *r)
{
	r->changes++;
}

uint64_t recorder_generation(struct recorder *r)
{
	return r->changes;
}

/* ---- the queue ---- */

void recorder_push(struct recorder *r, struct item *it)
{
	LOCK_SCOPE(&r->lock);
	*r->last_next = it;
	r->last_next = &it->next;
	r->queued_bytes += it->bytes;
	r->status.queued_bytes = r->queued_bytes;
	pthread_cond_signal(&r->more);
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
	recorder_push(ctx, it);
	return 0;
}

static int on_batch(void *ctx, const struct capture_batch *b, struct err *err)
{
	struct recorder *r = ctx;
	size_t bytes = b->n_frames * (size_t)wal_frame_size(b->page_size);

	pthread_mutex_lock(&r->lock);
	bool full = r->queued_bytes > 0 && r->queued_bytes + bytes > QUEUE_BYTES;
	pthread_mutex_unlock(&r->lock);
	struct item *it = full ? NULL : item_new(ITEM_BATCH, bytes);
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
	recorder_push(r, it);
	return 0;
}

static void on_caught_up(void *ctx, int64_t known_until_us)
{
	struct recorder *r = ctx;
	struct item *it = item_new(ITEM_KNOWN, 0);

	if (!it)
		return; /* told again within a second */
	it->known_until_us = known_until_us;
	recorder_push(r, it);
}

static void wait_for_items(struct recorder *r)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 1;
	pthread_cond_timedwait(&r->more, &r->lock, &ts);
}

/* Takes the items of one group: those that one fsync shall cover.  NULL: none came for a
 * second, or the recorder is stopping and none is left. */
static struct item *take_group(struct recorder *r)
{
	struct item *first, **end;
	size_t bytes = 0;
	LOCK_SCOPE(&r->lock);

	if (!r->first && !r->stopping)
		wait_for_items(r);
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

static void free_group(struct recorder *r, struct item *first)
{
	while (first) {
		struct item *it = first;
		first = it->next;
		pthread_mutex_lock(&r->lock);
		r->queued_bytes -= it->bytes;
		r->status.queued_bytes = r->queued_bytes;
		pthread_mutex_unlock(&r->lock);
		free(it);
	}
}

/* ---- the worker ---- */

/* Before something that stands between batches: what came before it becomes durable. */
static int flush_before(struct recorder *r, bool *dirty, bool *closes, struct err *err)
{
	int rc = 0;

	if (*dirty)
		rc = encode_flush(r, *closes, err);
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

	if (!r->settle_due || !*closes)
		return 0;
	int rc = flush_before(r, dirty, closes, err);
	if (rc == 0) {
		*done = next;
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
				rc = flush_before(r, &dirty, &closes, err);
			if (rc == 0) {
				*done = it;
				r->settle_due = false;
				rc = settle_break(r, it, err);
			}
			if (rc == 0)
				*done = it->next;
			break;
		case ITEM_SETTLE:
			r->settle_due = true;
			r->settle_epoch = it->epoch;
			rc = settle_if_due(r, it->next, &dirty, &closes, done, err);
			break;
		case ITEM_SETTLE_FAILED:
			rc = flush_before(r, &dirty, &closes, err);
			if (rc == 0) {
				*done = it;
				rc = settle_finish(r, it, err);
			}
			if (rc == 0)
				*done = it->next;
			break;
		case ITEM_KNOWN:
			if (closes && !r->discarding)
				r->known_until_us = it->known_until_us;
			encode_cut_old(r, it->known_until_us, dirty);
			break;
		}
	}
	if (rc == 0)
		rc = dirty ? encode_flush(r, closes, err) : recorder_publish(r, false, err);
	if (rc == 0)
		*done = NULL;
	return rc;
}

static bool gave_up(struct recorder *r)
{
	LOCK_SCOPE(&r->lock);
	return r->stopping && r->give_up_us && clock_mono_us() > r->give_up_us;
}

static bool is_stopping(struct recorder *r)
{
	LOCK_SCOPE(&r->lock);
	return r->stopping && !r->first;
}

static void set_trouble(struct recorder *r, const char *text)
{
	LOCK_SCOPE(&r->lock);
	snprintf(r->status.trouble, sizeof(r->status.trouble), "%.199s", text);
}

/* Invariant (2) of recorder.h. */
static int process_until_done(struct recorder *r, struct item *group)
{
	int64_t warned_us = 0;
	struct item *at = group;

	for (;;) {
		struct err why = ERR_INIT;
		if (process_group(r, at, &at, &why) == 0)
			break;
		encode_take_back(r);
		if (warned_us == 0 || clock_mono_us() - warned_us > 60 * US_PER_SECOND) {
			log_error("recorder", "archive cannot be written, trying again db=%s: %s",
			          r->name, why.msg);
			warned_us = clock_mono_us();
		}
		set_trouble(r, why.msg);
		if (gave_up(r))
			return -ERR_IO;
		clock_sleep_us(RETRY_US);
	}
	if (warned_us) {
		log_info("recorder", "archive is written again db=%s", r->name);
		set_trouble(r, "");
	}
	return 0;
}

static void *worker_main(void *arg)
{
	struct recorder *r = arg;
	struct err why = ERR_INIT;

	if (table_recover(r, &why) < 0)
		log_error("recorder", "page table db=%s: %s", r->name, why.msg);
	for (;;) {
		struct item *group = take_group(r);
		if (!group && is_stopping(r))
			break;
		if (!group && r->head.generation == r->changes)
			continue;
		int rc = process_until_done(r, group);
		free_group(r, group);
		if (rc < 0)
			break;
	}
	settle_cancel(r);
	return NULL;
}

/* ---- opening ---- */

static int take_lock(struct recorder *r, struct err *err)
{
	char text[64];
	struct err why = ERR_INIT;

	int rc = file_open(r->dir_fd, "lock", O_RDWR | O_CREAT, 0600, &r->lock_fd, err);
	if (rc < 0)
		return rc;
	if (file_lock(r->lock_fd, "lock", &why) < 0) {
		size_t n = 0;
		int ignored =
		        file_pread_some(r->lock_fd, text, sizeof(text) - 1, 0, &n, "lock", NULL);
		(void)ignored;
		text[n] = '\0';
		text[strcspn(text, "\n")] = '\0';
		if (why.kind != ERR_BUSY)
			return err_copy(err, &why);
		return err_set(err, ERR_BUSY, 0,
		               "archive '%s' is already being written for '%s' by %s (stop that "
		               "one first)",
		               r->root, r->name, n ? text : "another asof");
	}
	int len = snprintf(text, sizeof(text), "process %d\n", (int)getpid());
	if (ftruncate(r->lock_fd, 0) < 0)
		return err_set(err, ERR_IO, errno, "write 'lock'");
	return file_pwrite(r->lock_fd, text, (size_t)len, 0, "lock", err);
}

static int check_source(struct recorder *r, const struct recorder_options *o, struct err *err)
{
	struct source_note n = {0};
	struct err why = ERR_INIT;

	if (strlen(o->source_path) >= sizeof(n.path))
		return err_set(err, ERR_USAGE, 0, "the path '%.60s…' is too long", o->source_path);
	int rc = source_note_get(r->dir_fd, &n, &why);
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	if (rc == 0 && strcmp(n.path, o->source_path) == 0)
		return 0;
	if (rc == 0 && !o->adopt)
		return err_set(err, ERR_REFUSED, 0,
		               "archive '%s' keeps '%s' as the name of %s, not of %s (give another "
		               "--name, or "
		               "--adopt to continue its history)",
		               r->root, r->name, n.path, o->source_path);
	while (n.id == 0)
		n.id = (uint32_t)hash64(&(int64_t){clock_now_us()}, 8, (uint64_t)getpid());
	snprintf(n.path, sizeof(n.path), "%s", o->source_path);
	return source_note_put(r->dir_fd, &n, err);
}

static int open_root(const char *root, int *ret_fd, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = file_open_dir(AT_FDCWD, root, true, ret_fd, &why);
	if (rc < 0 && (why.sys_errno == ENOENT || why.sys_errno == ENOTDIR))
		return err_set(
		        err, ERR_NOT_FOUND, 0,
		        "archive '%s': the directory above it does not exist (create it first)",
		        root);
	return rc < 0 ? err_copy(err, &why) : 0;
}

static int open_folders(struct recorder *r, struct err *err)
{
	cleanup_fd int root_fd = -1, local_fd = -1;

	int rc = open_root(r->root, &root_fd, err);
	if (rc == 0)
		rc = file_open_dir(root_fd, "local", true, &local_fd, err);
	if (rc == 0)
		rc = file_open_dir(local_fd, r->name, true, &r->dir_fd, err);
	if (rc == 0)
		rc = take_lock(r, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "segment", true, &r->segment_fd, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "snapshot", true, &r->snapshot_fd, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "coalesced", true, &r->coalesced_fd, err);
	/* Those two name it themselves. */
	if (rc < 0 && root_fd >= 0 && err_kind_of(rc) != ERR_BUSY)
		return err_wrap(err, rc, "archive '%s'", r->root);
	return rc;
}

/* Removes what a crash left half written; the lock is ours. */
static void remove_temporaries(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		size_t n = strlen(d->d_name);
		if (n > 4 && strcmp(d->d_name + n - 4, ".tmp") == 0)
			unlinkat(dir_fd, d->d_name, 0);
	}
}

/* The newest fine object decides where to go on. */
static int recover_last(struct recorder *r, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	const struct history_object *newest = NULL, *snapshot = NULL;
	size_t n;
	uint64_t frames;

	int rc = history_objects(r->history, &objects, &n, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		const struct history_object *o = &objects[i];
		if (o->type == HISTORY_SNAPSHOT &&
		    (!snapshot || o->last_txid > snapshot->last_txid))
			snapshot = o;
		/* One that holds nothing yet says nothing of what came before it. */
		if ((o->type == HISTORY_GROWING || o->type == HISTORY_SEGMENT) &&
		    o->last_txid >= o->first_txid &&
		    (!newest || o->first_txid > newest->first_txid))
			newest = o;
	}
	if (newest) {
		rc = history_commit(r->history, newest->last_txid, &r->last, err);
		if (rc == 0)
			rc = history_object_frames(r->history, newest, &frames, &r->page_size,
			                           &r->pos, err);
		r->settled = !(r->last.flags & COMMIT_UNSETTLED);
	}
	if (rc == 0 && snapshot && snapshot->last_txid >= r->last.txid) {
		struct moment m;
		rc = history_tx(r->history, snapshot->last_txid, &m, err);
		r->settled = rc == 0;
		if (rc == 0 && snapshot->last_txid > r->last.txid) {
			r->last = (struct commit){
			        .txid = m.txid, .time_us = m.time_us, .n_pages = m.n_pages};
			r->pos = (struct source_position){0};
			r->page_size = m.page_size;
		}
		r->last.state = m.state;
		r->last.flags = 0;
	}
	if (!snapshot)
		r->settled = false;
	r->durable = r->last;
	r->durable_pos = r->pos;
	r->durable_settled = r->settled;
	return rc;
}

/* Takes the newest growing segment up again, so that small restarts do not leave small files. */
static int recover_growing(struct recorder *r, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	const struct history_object *g = NULL;
	size_t n;

	int rc = history_objects(r->history, &objects, &n, err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		if (objects[i].type == HISTORY_GROWING &&
		    (!g || objects[i].first_txid > g->first_txid))
			g = &objects[i];
	if (rc < 0 || !g || g->lineage != r->lineage)
		return rc;
	bool holds_last = g->last_txid == r->last.txid && r->last.txid >= g->first_txid;
	bool empty = g->first_txid == r->last.txid + 1;
	if (!holds_last && !empty)
		return 0;
	r->growing_txid = g->first_txid;
	r->durable_len = r->head.growing_txid == g->first_txid ? r->head.durable_len : 0;
	struct commit last;
	struct source_position pos;
	rc = grow_resume(r->segment_fd, g->file, r->durable_len, r->level, &r->w, &last, &pos, err);
	if (rc < 0 && empty && r->durable_len <= 200) { /* not even its header was whole */
		unlinkat(r->segment_fd, g->file, 0);
		r->growing_txid = r->durable_len = 0;
		return 0;
	}
	if (rc < 0)
		return rc;
	r->durable_len = grow_length(r->w);
	if (last.txid >= g->first_txid) { /* perhaps more than the head knew of */
		bool same = last.txid == r->last.txid && !(r->last.flags & COMMIT_UNSETTLED);
		if (!same) /* (a snapshot can have settled it) */
			r->settled = !(last.flags & COMMIT_UNSETTLED) && r->settled;
		if (!same || hash128_zero(r->last.state))
			r->last = last;
		r->last.last_frame = last.last_frame;
		r->pos = pos;
	} else {
		r->last.last_frame = 0;
	}
	r->durable = r->last;
	r->durable_pos = r->pos;
	r->durable_settled = r->settled;
	return 0;
}

/* A gap that was open when asof ended: it begins behind the last settled commit. */
static void recover_gap(struct recorder *r)
{
	struct commit c = r->last;
	struct moment first;

	if (r->settled || history_first(r->history, &first, NULL) < 0)
		return;
	while ((c.flags & COMMIT_UNSETTLED) && c.txid > first.txid)
		if (history_commit(r->history, c.txid - 1, &c, NULL) < 0)
			break;
	r->gap_open = true;
	r->gap.before_txid = c.txid;
	r->gap.before_us = c.time_us;
	snprintf(r->gap.reason, sizeof(r->gap.reason), "stopped before it was healed");
}

static int recover(struct recorder *r, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = file_open(r->dir_fd, HEAD_NAME, O_RDWR | O_CREAT, 0600, &r->head_fd, err);
	if (rc < 0)
		return rc;
	if (head_read(r->head_fd, &r->head, &why) < 0) {
		if (why.kind == ERR_VERSION)
			return err_copy(err, &why);
		r->head = (struct head){0};
	}
	rc = archive_open(r->root, NULL, &r->archive, err);
	if (rc == 0)
		rc = history_get(r->archive, r->name, &r->history, err);
	if (rc < 0)
		return rc;
	/* What was fsynced and not yet told of is ours to tell. */
	struct head told = r->head;
	r->changes = told.generation;
	struct history_status st;
	rc = history_get_status(r->history, &st, err);
	if (rc == 0)
		rc = recover_last(r, err);
	if (rc < 0)
		return rc;
	r->lineage = st.lineage;
	r->known_until_us = told.known_until_us;
	rc = recover_growing(r, err);
	if (rc < 0)
		return rc;
	recover_gap(r);
	return recorder_publish(r, true, err);
}

int recorder_open(const struct recorder_options *o, struct recorder **ret, struct err *err)
{
	struct recorder *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	r->dir_fd = r->segment_fd = r->snapshot_fd = r->coalesced_fd = r->lock_fd = r->head_fd = -1;
	r->scan.spool_fd = -1;
	r->last_next = &r->first;
	r->segment_bytes = o->segment_bytes ? o->segment_bytes : SEGMENT_BYTES_DEFAULT;
	r->level = o->level;
	r->sink = (struct capture_sink){r, on_break, on_batch, on_caught_up};
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->table_lock, NULL);
	pthread_cond_init(&r->more, NULL);
	r->root = strdup(o->archive);
	r->name = strdup(o->name);
	int rc = r->root && r->name ? db_name_check(o->name, err)
	                            : err_set(err, ERR_NOMEM, 0, "no memory");
	if (rc == 0)
		rc = open_folders(r, err);
	if (rc == 0)
		rc = check_source(r, o, err);
	if (rc == 0) {
		remove_temporaries(r->dir_fd);
		remove_temporaries(r->segment_fd);
		remove_temporaries(r->snapshot_fd);
		remove_temporaries(r->coalesced_fd);
		rc = recover(r, err);
	}
	if (rc < 0) {
		recorder_free(r);
		return rc;
	}
	r->status.settled = r->settled;
	r->status.last_txid = r->last.txid;
	*ret = r;
	return 0;
}

bool recorder_resume(const struct recorder *r, struct capture_position *ret_pos,
                     uint32_t *ret_page_size)
{
	if (!r->settled || r->pos.frame == 0)
		return false;
	*ret_pos = (struct capture_position){r->pos.salt1, r->pos.salt2, r->pos.frame, r->pos.cksum,
	                                     r->pos.change};
	*ret_page_size = r->page_size;
	return true;
}

const struct capture_sink *recorder_sink(struct recorder *r)
{
	return &r->sink;
}

int recorder_start(struct recorder *r, struct capture *c, struct err *err)
{
	r->capture = c;
	if (pthread_create(&r->worker, NULL, worker_main, r) != 0)
		return err_set(err, ERR_NOMEM, 0, "cannot start a thread");
	r->started = true;
	return 0;
}

int recorder_stop(struct recorder *r, int64_t timeout_us, struct err *err)
{
	if (!r->started)
		return 0;
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	r->give_up_us = clock_mono_us() + timeout_us;
	pthread_cond_signal(&r->more);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->worker, NULL);
	r->started = false;
	if (r->status.trouble[0])
		return err_set(err, ERR_IO, 0, "the last commits were not captured: %s",
		               r->status.trouble);
	return r->settled ? table_sync(r, r->durable.txid, err) : 0;
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
	free_group(r, r->first);
	grow_writer_free(r->w);
	page_table_free(r->table);
	if (r->history)
		history_put(r->history);
	archive_free(r->archive);
	free(r->overlay.slots);
	bitset_release(&r->grown);
	bitset_release(&r->framed);
	free(r->page_one);
	const int fds[] = {r->dir_fd,       r->segment_fd, r->snapshot_fd,
	                   r->coalesced_fd, r->lock_fd,    r->head_fd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(r->root);
	free(r->name);
	free(r);
}

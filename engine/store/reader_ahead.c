/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that ask for what will be read: what lies before a run of reads, or what somebody said
 * (enum source_use).  What they ask for and what it takes: pieces, within the reader's memory, and
 * staged objects (staged.h), a piece of memory for each request.
 */
#include "engine/base/log.h"
#include "engine/store/reader_i.h"

#include <string.h>

#define RUN_CHUNKS 4u /* who has read so many on reads on: a point query costs its blocks alone */
#define KEPT_WHOLE_BYTES (8u << 20)     /* an object of so many is kept though it is read ahead */
#define SIDE_BY_SIDE (4 * PIECE_CHUNKS) /* so far apart read those who read a run together */

/* ---- what was asked for ---- */

/* Without the lock. */
static void load_ahead(struct store_reader *r, struct piece *p)
{
	struct err ignored = ERR_INIT; /* who needs it asks again, and is told */

	if (!forgo_if_kept(r, p) && load_piece(r, p, false, &ignored) < 0)
		log_debug("store", "read-ahead: %s", ignored.msg);
}

/* Under lock, which it lets go. */
static void stage_some(struct store_reader *r)
{
	struct remote *o = r->staging;

	o->refs++;
	pthread_mutex_unlock(&r->lock);
	bool more = staged_bring_next(o->staged, o->inner);
	pthread_mutex_lock(&r->lock);
	struct remote **at = &r->staging;
	while (*at && *at != o)
		at = &(*at)->next_staged;
	bool done = !more && *at;
	if (done)
		*at = o->next_staged;
	pthread_mutex_unlock(&r->lock);
	if (done)
		remote_unref(o);
	remote_unref(o);
	pthread_mutex_lock(&r->lock);
}

/* What is read all over comes first: nothing of an image is without it. */
static void *ahead_loop(void *arg)
{
	struct store_reader *r = arg;

	pthread_mutex_lock(&r->lock);
	while (!r->stop) {
		if (r->staging) {
			stage_some(r);
		} else if (r->queue_n > 0) {
			struct piece *p = r->queue[r->queue_head];
			r->queue_head = (r->queue_head + 1) % QUEUE;
			r->queue_n--;
			pthread_mutex_unlock(&r->lock);
			load_ahead(r, p);
			pthread_mutex_lock(&r->lock);
		} else {
			pthread_cond_wait(&r->more, &r->lock);
		}
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

/* Under lock.  With the first need: a process that is about to fork has none. */
static void start_threads(struct store_reader *r)
{
	if (r->threads_started)
		return;
	r->threads_started = true;
	r->threads = calloc(r->options.n_ahead, sizeof(*r->threads));
	for (unsigned i = 0; r->threads && i < r->options.n_ahead; i++)
		if (pthread_create(&r->threads[r->n_threads], NULL, ahead_loop, r) == 0)
			r->n_threads++;
}

/* Under lock; the queue has room. */
static void load_later(struct store_reader *r, struct piece *p)
{
	p->ahead = true;
	r->queue[(r->queue_head + r->queue_n++) % QUEUE] = p;
	pthread_cond_signal(&r->more);
}

/* Under lock.  Of the stretch [first, end) what is not there yet goes to the queue, a piece at a
 * time; *first is where it went on to.  `of_run`: or what is wanted by itself, and kept. */
static bool ask_ahead(struct store_reader *r, struct remote *o, uint64_t *first, uint64_t n,
                      bool of_run)
{
	struct piece *there = piece_at(r, o, *first);

	if (there) {
		*first = there->first + there->n;
		return true;
	}
	uint64_t len = 1;
	while (len < n && *first + len < o->n_chunks && !piece_at(r, o, *first + len))
		len++;
	if (r->queue_n == QUEUE || !make_room(r, stretch_bytes(o, *first, len), o))
		return false;
	struct piece *p = begin_piece(r, o, *first, len);
	if (!p)
		return false;
	p->passing = of_run && o->bytes > KEPT_WHOLE_BYTES;
	load_later(r, p);
	*first += len;
	return true;
}

/* As far as read-ahead goes beyond the last chunk that was read: all that can be under way, and as much
 * again; and within the memory, of which a third stays for those who lag behind, or what they still
 * need would go and come again. */
static uint64_t widest_window(const struct store_reader *r)
{
	uint64_t window = 2 * (uint64_t)r->options.n_ahead * PIECE_CHUNKS;
	uint64_t most = r->options.memory_bytes / 3 * 2 / READER_CHUNK;

	return window < most ? window : most;
}

/* Under lock. */
static void ask_for_window(struct store_reader *r, struct remote *o)
{
	uint64_t most = widest_window(r), from = o->run.last + 1;
	uint64_t window = o->run.n < most / 4 ? o->run.n * 4 : most;
	uint64_t step = window / 4 < PIECE_CHUNKS ? window / 4 : PIECE_CHUNKS;

	/* What was passed over, others are about to read. */
	if (o->ahead + SIDE_BY_SIDE < from)
		o->ahead = from;
	start_threads(r);
	while (r->n_threads && o->ahead < o->n_chunks && o->ahead + step <= from + window)
		if (!ask_ahead(r, o, &o->ahead, step, true))
			break;
}

/* Whether chunk `c` is one that those who read the run read: some threads take parts in turn, so that
 * what comes is behind the last one, or somewhat beyond it. */
static bool belongs(const struct store_reader *r, const struct remote *o, uint64_t c)
{
	uint64_t last = o->run.last;

	return last != NOTHING && c + widest_window(r) >= last &&
	       (c <= last + SIDE_BY_SIDE || c <= o->ahead);
}

/* The run that a chunk goes on with which is not of the run; a new one, in place of the oldest. */
static struct run *go_on_elsewhere(struct remote *o, uint64_t c)
{
	for (unsigned i = 0; i < OTHER_RUNS; i++) {
		struct run *x = &o->others[i];
		if (x->last != NOTHING && c >= x->last && c <= x->last + 2) {
			x->n += c - x->last;
			x->last = c;
			return x;
		}
	}
	struct run *x = &o->others[o->next_other++ % OTHER_RUNS];
	*x = (struct run){c, 0};
	return x;
}

/*
 * Under lock: chunk `c` is being read.  Who reads on, more or less in order, gets a window that
 * grows with what was read.  What is read elsewhere meanwhile (an index) changes nothing, until it
 * goes on itself: then it is the run.
 */
void follow(struct store_reader *r, struct remote *o, uint64_t c)
{
	if (!belongs(r, o, c)) {
		struct run *x = go_on_elsewhere(o, c);
		if (x->n < RUN_CHUNKS)
			return;
		o->run = *x;
		o->ahead = c + 1;
		x->last = NOTHING;
	} else if (c > o->run.last && c <= o->run.last + SIDE_BY_SIDE) {
		o->run.n += c - o->run.last;
		o->run.last = c;
	} else { /* behind, or an index that was read ahead on the way */
		return;
	}
	ask_for_window(r, o);
}

/* ---- what somebody said ---- */

static void expect_in_order(struct store_reader *r, struct remote *o)
{
	LOCK_SCOPE(&r->lock);
	o->run = (struct run){0, widest_window(r)};
	o->ahead = 0;
	ask_for_window(r, o);
}

/* Nothing of it is there yet, but what an index costs. */
static void expect_all_over(struct store_reader *r, struct remote *o)
{
	struct staged *staged = NULL;
	struct err why = ERR_INIT;

	if (o->staged)
		return;
	if (staged_new(o->bytes, r->stores[o->place]->sealed, &staged, &why) < 0) {
		log_debug("store", "not read ahead: %s", why.msg);
		return;
	}
	pthread_mutex_lock(&r->lock);
	start_threads(r);
	if (!o->staged) {
		struct remote **at = &r->staging;
		while (*at)
			at = &(*at)->next_staged;
		o->staged = take_ptr(staged);
		o->refs++;
		*at = o;
		pthread_cond_broadcast(&r->more);
	}
	pthread_mutex_unlock(&r->lock);
	staged_free(staged);
}

static void expect_end(struct store_reader *r, struct remote *o)
{
	uint64_t first, n, last = o->n_chunks - 1;
	LOCK_SCOPE(&r->lock);

	start_threads(r);
	if (o->n_chunks == 0 || piece_at(r, o, last) || r->queue_n == QUEUE || !r->n_threads)
		return;
	choose_stretch(r, o, last, last + 1, &first, &n);
	struct piece *p =
	        make_room(r, stretch_bytes(o, first, n), o) ? begin_piece(r, o, first, n) : NULL;
	if (p)
		load_later(r, p);
}

/* What lies beyond the run stays until the run is there (least_wanted()). */
void remote_expect_bytes(struct source *s, uint64_t offset, size_t len)
{
	struct remote *o = (struct remote *)s;
	struct store_reader *r = o->reader;
	uint64_t c = offset / READER_CHUNK, end = (offset + len + READER_CHUNK - 1) / READER_CHUNK;
	LOCK_SCOPE(&r->lock);

	start_threads(r);
	while (r->n_threads && !o->staged && c < end && c < o->n_chunks)
		if (!ask_ahead(r, o, &c, end - c < PIECE_CHUNKS ? end - c : PIECE_CHUNKS, false))
			break;
}

void remote_expect(struct source *s, enum source_use use)
{
	struct remote *o = (struct remote *)s;

	switch (use) {
	case SOURCE_IN_ORDER:
		expect_in_order(o->reader, o);
		break;
	case SOURCE_ALL_OVER:
		expect_all_over(o->reader, o);
		break;
	case SOURCE_END:
		expect_end(o->reader, o);
		break;
	}
}

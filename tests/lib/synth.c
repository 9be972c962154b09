/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/synth.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <sys/stat.h>

#include <cmocka.h>

/* 2024-01-15T10:30:00Z */
#define START_US INT64_C(1705314600000000)

static void *grown(void *p, size_t *cap, size_t need, size_t size)
{
	if (need <= *cap)
		return p;
	*cap = need * 2 + 16;
	p = realloc(p, *cap * size);
	if (!p)
		synth_die("no memory");
	return p;
}

static void *zeroed(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	if (!p)
		synth_die("no memory");
	return p;
}

static void write_head(struct synth *s)
{
	struct err err = ERR_INIT;
	synth_must(head_write(s->head_fd, &s->head, &err), &err, "head");
}

void synth_generation(struct synth *s)
{
	s->head.generation++;
	write_head(s);
}

static void put_lineage(struct synth *s, uint32_t parent, uint64_t from, const char *reason)
{
	struct err err = ERR_INIT;
	struct lineage_note n = {
	        .lineage = s->lineage,
	        .parent = parent,
	        .from_txid = from,
	        .first_txid = s->n_states + 1,
	        .live_us = START_US,
	        .page_size = s->page_size,
	};
	snprintf(n.reason, sizeof(n.reason), "%s", reason);
	synth_must(lineage_note_put(s->dir_fd, &n, &err), &err, "lineage note");
}

struct synth *synth_new(const char *root, const char *name, const struct synth_options *o)
{
	struct synth *s = zeroed(1, sizeof(*s));
	struct source_note note = {.id = (uint32_t)hash64(name, strlen(name), 1) | 1};
	struct err err = ERR_INIT;
	char path[4096];

	s->options = *o;
	s->rng.s = o->seed;
	s->root = strdup(root);
	s->name = strdup(name);
	s->lineage = 1;
	s->page_size = o->page_size;
	s->settled = true;
	snprintf(path, sizeof(path), "%s/local/%s", root, name);
	synth_must(file_make_dirs(path, &err), &err, "folders");
	synth_must(file_open_dir(AT_FDCWD, path, false, &s->dir_fd, &err), &err, "folder");
	synth_must(file_open_dir(s->dir_fd, "segment", true, &s->segment_fd, &err), &err, "folder");
	synth_must(file_open_dir(s->dir_fd, "snapshot", true, &s->snapshot_fd, &err), &err,
	           "folder");
	synth_must(file_open_dir(s->dir_fd, "coalesced", true, &s->coalesced_fd, &err), &err,
	           "folder");
	synth_must(file_open(s->dir_fd, "head", O_RDWR | O_CREAT, 0600, &s->head_fd, &err), &err,
	           "head");
	synth_must(file_open(s->dir_fd, "lock", O_RDWR | O_CREAT, 0600, &s->lock_fd, &err), &err,
	           "lock");
	synth_must(file_lock(s->lock_fd, "lock", &err), &err, "lock");
	snprintf(note.path, sizeof(note.path), "/srv/%.200s", name);
	synth_must(source_note_put(s->dir_fd, &note, &err), &err, "source note");
	put_lineage(s, 0, 0, "first");
	s->head.lineage = 1;
	write_head(s);
	return s;
}

void synth_free(struct synth *s)
{
	const int fds[] = {s->dir_fd,       s->segment_fd, s->snapshot_fd,
	                   s->coalesced_fd, s->head_fd,    s->lock_fd};

	grow_writer_free(s->w);
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		close(fds[i]);
	while (s->all_pages) {
		struct synth_page *p = s->all_pages;
		s->all_pages = p->next;
		free(p);
	}
	for (size_t i = 0; i < s->n_states; i++) {
		free(s->states[i].frames);
		free(s->states[i].pages);
	}
	free(s->states);
	free(s->now);
	free(s->recorded);
	free(s->objects);
	free(s->gaps);
	free(s->root);
	free(s->name);
	free(s);
}

struct synth_page *synth_page(struct synth *s, uint32_t pgno, const void *data)
{
	uint32_t size = s->page_size;
	struct synth_page *p = zeroed(1, sizeof(*p) + size);

	p->pgno = pgno;
	if (data) {
		memcpy(p->data, data, size);
	} else {
		/* Partly noise, partly sameness, as pages are; never all zeros. */
		memset(p->data, (int)rng_below(&s->rng, 256), size);
		size_t noise =
		        rng_chance(&s->rng, 10) ? size : 64 + (size_t)rng_below(&s->rng, size / 4);
		for (size_t i = 0; i + 8 <= noise && i + 8 <= size; i += 8)
			store_le64(p->data + i, rng_next(&s->rng));
		if (pgno == 1) {
			memcpy(p->data, "SQLite format 3", 16);
			p->data[18] = p->data[19] = 2;
		}
	}
	p->hash = page_hash(pgno, p->data, size);
	p->next = s->all_pages;
	s->all_pages = p;
	return p;
}

const struct synth_state *synth_state(const struct synth *s, uint64_t txid)
{
	if (txid < 1 || txid > s->n_states)
		synth_die("no transaction %" PRIu64, txid);
	return &s->states[txid - 1];
}

uint64_t synth_last_txid(const struct synth *s)
{
	return s->n_states;
}

static int64_t last_us(const struct synth *s)
{
	return s->n_states ? s->states[s->n_states - 1].commit.time_us : START_US;
}

static struct hash128 state_sum(struct synth_page *const *pages, uint32_t n)
{
	struct hash128 sum = {0, 0};

	for (uint32_t i = 0; i < n; i++)
		if (pages[i])
			state_add(&sum, pages[i]->hash);
	return sum;
}

/* Room for pages 1..n; those past the old end are NULL. */
static void resize(struct synth *s, struct synth_page ***pages, uint32_t *n_pages, uint32_t n)
{
	if (n > s->cap_now) {
		uint32_t cap = n * 2;
		s->now = realloc(s->now, cap * sizeof(*s->now));
		s->recorded = realloc(s->recorded, cap * sizeof(*s->recorded));
		if (!s->now || !s->recorded)
			synth_die("no memory");
		s->cap_now = cap;
	}
	for (uint32_t i = *n_pages; i < n; i++)
		(*pages)[i] = NULL;
	*n_pages = n;
}

static void open_segment(struct synth *s)
{
	struct err err = ERR_INIT;

	if (s->w)
		return;
	synth_must(grow_create(s->segment_fd, s->lineage, s->n_states + 1, s->page_size,
	                       s->options.level, &s->w, &err),
	           &err, "grow_create");
	s->head.lineage = s->lineage;
	s->head.growing_txid = s->n_states + 1;
	s->head.durable_len = grow_length(s->w);
	s->head.generation++;
	write_head(s);
}

static void end_batch(struct synth *s, bool closes)
{
	struct err err = ERR_INIT;
	uint32_t n = (uint32_t)s->n_states;
	struct source_position pos = {n, n + 1, n * 2ull, {n + 2, n + 3}, n + 4};

	if (s->w)
		synth_must(grow_end_batch(s->w, &pos, closes, &err), &err, "grow_end_batch");
}

void synth_publish(struct synth *s)
{
	struct err err = ERR_INIT;

	end_batch(s, true);
	if (s->w) {
		synth_must(grow_sync(s->w, false, &err), &err, "grow_sync");
		s->head.durable_len = grow_length(s->w);
	}
	s->head.last_txid = synth_last_txid(s);
	s->head.last_us = last_us(s);
	s->head.known_until_us = last_us(s);
	s->unpublished = 0;
	write_head(s);
}

static struct synth_state *add_state(struct synth *s)
{
	s->states = grown(s->states, &s->cap_states, s->n_states + 1, sizeof(*s->states));
	struct synth_state *st = &s->states[s->n_states];
	*st = (struct synth_state){.lineage = s->lineage, .page_size = s->page_size};
	return st;
}

static struct synth_page **copy_pages(struct synth_page *const *pages, uint32_t n)
{
	struct synth_page **p = zeroed(n, sizeof(*p));
	memcpy(p, pages, n * sizeof(*p));
	return p;
}

static struct commit next_commit(struct synth *s, uint32_t n_pages)
{
	int64_t max_step = s->options.max_step_us ? s->options.max_step_us : 90 * US_PER_SECOND;
	int64_t step =
	        rng_chance(&s->rng, 30) ? 1 : 1 + (int64_t)rng_below(&s->rng, (uint64_t)max_step);
	struct commit c = {
	        .txid = s->n_states + 1,
	        .time_us = last_us(s) + step,
	        .n_pages = n_pages,
	};
	if (s->first_after_gap)
		c.not_before_us = last_us(s); /* as the recorder says what it last knew */
	else if (rng_chance(&s->rng, 80))
		c.not_before_us = c.time_us - (int64_t)rng_below(&s->rng, (uint64_t)step + 1);
	return c;
}

static void append_frames(struct synth *s, uint32_t n_pages, struct synth_page *const *frames,
                          size_t n)
{
	struct err err = ERR_INIT;

	for (size_t i = 0; i < n; i++) {
		if (grow_batch_full(s->w) || (s->options.torn_batches && rng_chance(&s->rng, 5)))
			end_batch(s, false);
		synth_must(grow_frame(s->w, frames[i]->pgno, i + 1 == n ? n_pages : 0,
		                      frames[i]->data, &err),
		           &err, "grow_frame");
	}
}

/* Before a first snapshot is complete a recorder does not know the sum of all pages. */
static bool is_based(const struct synth *s)
{
	for (size_t i = 0; i < s->n_objects; i++)
		if (s->objects[i].name.type == OBJECT_SNAPSHOT)
			return true;
	return false;
}

uint64_t synth_commit(struct synth *s, uint32_t n_pages, struct synth_page *const *frames,
                      size_t n_frames, uint32_t flags)
{
	struct err err = ERR_INIT;

	open_segment(s);
	uint64_t before = grow_frames(s->w);
	append_frames(s, n_pages, frames, n_frames);

	resize(s, &s->now, &s->n_now, s->n_now > n_pages ? s->n_now : n_pages);
	resize(s, &s->recorded, &s->n_recorded, s->n_recorded > n_pages ? s->n_recorded : n_pages);
	for (size_t i = 0; i < n_frames; i++) {
		if (frames[i]->pgno > n_pages)
			continue;
		s->now[frames[i]->pgno - 1] = s->recorded[frames[i]->pgno - 1] = frames[i];
	}
	resize(s, &s->now, &s->n_now, n_pages);
	resize(s, &s->recorded, &s->n_recorded, n_pages);

	struct commit c = next_commit(s, n_pages);
	s->first_after_gap = false;
	c.flags = flags;
	c.n_frames = grow_frames(s->w) - before;
	if ((flags & COMMIT_UNSETTLED) || !is_based(s))
		c.flags |= COMMIT_NO_STATE;
	else
		c.state = state_sum(s->now, n_pages);
	synth_must(grow_commit(s->w, &c, &err), &err, "grow_commit");

	struct synth_state *st = add_state(s);
	st->commit = c;
	st->in_segment = true;
	st->n_frames = n_frames;
	st->frames = zeroed(n_frames, sizeof(*st->frames));
	memcpy(st->frames, frames, n_frames * sizeof(*frames));
	if (!(flags & COMMIT_UNSETTLED))
		st->pages = copy_pages(s->now, n_pages);
	s->n_states++;
	s->unpublished++;
	return c.txid;
}

static uint32_t random_size(struct synth *s)
{
	uint32_t n = s->n_now, max = s->options.max_pages;
	uint64_t how = rng_below(&s->rng, 100);

	if (n == 0)
		return 1 + (uint32_t)rng_below(&s->rng, max);
	if (how < 20)
		n += 1 + (uint32_t)rng_below(&s->rng, how < 3 ? max : 3);
	else if (how < 35)
		n -= (uint32_t)rng_below(&s->rng, how < 23 ? n : n < 4 ? n : 4);
	return n > max ? max : n;
}

uint64_t synth_random_commit(struct synth *s)
{
	uint32_t old = s->n_now, n = random_size(s);
	size_t extra = (size_t)rng_below(&s->rng, s->options.max_frames + 1), k = 0;
	uint32_t grows = n > old ? n - old : 0;
	cleanup_free struct synth_page **frames = zeroed(grows + extra + 4, sizeof(*frames));

	/* Spilled before the transaction cut the file: a frame of a page that is gone. */
	if (n < old && rng_chance(&s->rng, 30))
		frames[k++] = synth_page(s, n + 1 + (uint32_t)rng_below(&s->rng, old - n), NULL);
	for (uint32_t p = old + 1; p <= n; p++)
		frames[k++] = synth_page(s, p, NULL);
	for (size_t i = 0; i < extra; i++)
		frames[k++] = synth_page(s, 1 + (uint32_t)rng_below(&s->rng, n), NULL);
	if (k == 0 || frames[k - 1]->pgno > n || rng_chance(&s->rng, 40))
		frames[k++] = synth_page(s, 1, NULL);
	uint64_t txid = synth_commit(s, n, frames, k, 0);
	if (rng_chance(&s->rng, 30))
		synth_publish(s);
	return txid;
}

uint64_t synth_giant_commit(struct synth *s, size_t n_frames)
{
	uint32_t n = s->n_now ? s->n_now : 1;
	cleanup_free struct synth_page **frames = zeroed(n_frames, sizeof(*frames));

	for (size_t i = 0; i < n_frames; i++)
		frames[i] = synth_page(s, 1 + (uint32_t)(i % n), NULL);
	return synth_commit(s, n, frames, n_frames, 0);
}

static void add_object(struct synth *s, const struct object_name *n)
{
	s->objects = grown(s->objects, &s->cap_objects, s->n_objects + 1, sizeof(*s->objects));
	struct synth_object *o = &s->objects[s->n_objects++];
	o->name = *n;
	object_name_format(n, o->file);
}

void synth_cut(struct synth *s)
{
	if (!s->w)
		return;
	synth_publish(s);
	struct object_name n = {
	        .type = OBJECT_GROWING,
	        .lineage = s->lineage,
	        .first_txid = grow_writer_info(s->w)->first_txid,
	        .last_txid = synth_last_txid(s), /* its name does not tell */
	};
	add_object(s, &n);
	grow_writer_free(s->w);
	s->w = NULL;
	s->head.growing_txid = 0;
	s->head.durable_len = 0;
	synth_generation(s);
}

/* Recorded pages that differ from the true image: one commit, and the note. */
static uint64_t heal(struct synth *s, uint64_t before)
{
	struct err err = ERR_INIT;
	int64_t before_us = synth_state(s, before)->commit.time_us;
	cleanup_free struct synth_page **f = zeroed(s->n_now + 1, sizeof(*f));
	size_t k = 0;

	for (uint32_t p = 0; p < s->n_now; p++)
		if (p == 0 || p >= s->n_recorded || s->recorded[p] != s->now[p])
			f[k++] = s->now[p] ? s->now[p] : synth_page(s, p + 1, NULL);
	uint64_t txid = synth_commit(s, s->n_now, f, k, COMMIT_HEAL);
	synth_publish(s);
	struct gap_note note = {
	        .before_txid = before,
	        .before_us = before_us,
	        .after_txid = txid,
	        .after_us = last_us(s),
	        .reason = "made up",
	};
	synth_must(gap_note_put(s->dir_fd, &note, &err), &err, "gap note");
	s->gaps = realloc(s->gaps, (s->n_gaps + 1) * sizeof(*s->gaps));
	if (!s->gaps)
		synth_die("no memory");
	s->gaps[s->n_gaps++] = (struct synth_gap){before, txid, before_us, last_us(s)};
	synth_generation(s);
	return txid;
}

uint64_t synth_heal(struct synth *s, uint64_t before, const uint8_t *image, size_t len)
{
	uint32_t n = (uint32_t)(len / s->page_size);

	resize(s, &s->now, &s->n_now, n);
	for (uint32_t p = 0; p < n; p++) {
		const uint8_t *data = image + (size_t)p * s->page_size;
		if (p >= s->n_recorded || !s->recorded[p] ||
		    memcmp(s->recorded[p]->data, data, s->page_size) != 0)
			s->now[p] = synth_page(s, p + 1, data);
		else
			s->now[p] = s->recorded[p];
	}
	return heal(s, before);
}

void synth_gap(struct synth *s, unsigned n_unsettled)
{
	uint64_t before = synth_last_txid(s);

	/* What nobody saw. */
	uint32_t n = random_size(s), old = s->n_now;
	resize(s, &s->now, &s->n_now, n);
	for (uint32_t p = old; p < n; p++)
		s->now[p] = synth_page(s, p + 1, NULL);
	for (unsigned i = 0; i < 5; i++) {
		uint32_t p = (uint32_t)rng_below(&s->rng, n);
		s->now[p] = synth_page(s, p + 1, NULL);
	}
	s->first_after_gap = true;
	for (unsigned i = 0; i < n_unsettled; i++) {
		struct synth_page *f[3];
		size_t k = 0;
		uint32_t to = rng_chance(&s->rng, 20) && s->n_now > 1 ? s->n_now - 1 : s->n_now;
		if (rng_chance(&s->rng, 20)) {
			to = s->n_now + 1;
			f[k++] = synth_page(s, to, NULL);
		}
		f[k++] = synth_page(s, 1 + (uint32_t)rng_below(&s->rng, to), NULL);
		synth_commit(s, to, f, k, COMMIT_UNSETTLED);
	}
	heal(s, before);
}

static void begin_lineage(struct synth *s, uint32_t page_size)
{
	uint64_t from = synth_last_txid(s);

	synth_cut(s);
	s->page_size = page_size;
	if (from == 0)
		return;
	s->lineage++;
	s->head.lineage = s->lineage;
	put_lineage(s, s->lineage - 1, from, "another page size");
}

/* A moment of its own, that a snapshot alone holds. */
static void found_idle(struct synth *s)
{
	struct synth_state *st = add_state(s);

	st->commit = next_commit(s, s->n_now);
	st->commit.not_before_us = 0;
	st->commit.state = state_sum(s->now, s->n_now);
	st->pages = copy_pages(s->now, s->n_now);
	s->n_states++;
	synth_snapshot(s, synth_last_txid(s), synth_last_txid(s));
}

void synth_found(struct synth *s, uint32_t page_size, const uint8_t *image, size_t len)
{
	uint32_t n = (uint32_t)(len / page_size);

	begin_lineage(s, page_size);
	s->n_now = s->n_recorded = 0;
	resize(s, &s->now, &s->n_now, n);
	resize(s, &s->recorded, &s->n_recorded, n);
	for (uint32_t p = 0; p < n; p++)
		s->now[p] = s->recorded[p] = synth_page(s, p + 1, image + (size_t)p * page_size);
	found_idle(s);
}

void synth_new_lineage(struct synth *s, uint32_t page_size, bool fuzzy)
{
	uint64_t from = synth_last_txid(s);

	begin_lineage(s, page_size);
	uint32_t n = 1 + (uint32_t)rng_below(&s->rng, s->options.max_pages);
	s->n_now = s->n_recorded = 0;
	resize(s, &s->now, &s->n_now, n);
	resize(s, &s->recorded, &s->n_recorded, n);
	for (uint32_t p = 0; p < n; p++)
		s->now[p] = s->recorded[p] = synth_page(s, p + 1, NULL);
	if (!fuzzy) {
		found_idle(s);
		return;
	}
	/* Commits since it began are redo; the last of them is the snapshot's. */
	for (unsigned i = 0; i < 3; i++) {
		struct synth_page *f = synth_page(s, 1 + (uint32_t)rng_below(&s->rng, n), NULL);
		synth_commit(s, n, &f, 1, COMMIT_UNSETTLED);
	}
	struct synth_state *st = &s->states[s->n_states - 1];
	st->pages = copy_pages(s->now, n);
	st->commit.state = state_sum(s->now, n);
	synth_publish(s);
	synth_snapshot(s, synth_last_txid(s), from);
}

/* The page as of `txid`, looking only at what the lineage had from `from` on. */
static struct synth_page *page_at(const struct synth *s, uint64_t txid, uint32_t pgno)
{
	const struct synth_state *st = synth_state(s, txid);
	return st->pages && pgno <= st->commit.n_pages ? st->pages[pgno - 1] : NULL;
}

/* Any state of the page between `redo` and `txid` will do; where the page was not there, or its
 * state is not known, that of `txid`. */
static struct synth_page *fuzzy_page(struct synth *s, uint64_t redo, uint64_t txid, uint32_t pgno)
{
	uint64_t t = redo + rng_below(&s->rng, txid - redo + 1);

	if (t == 0 || t > txid || synth_state(s, t)->lineage != synth_state(s, txid)->lineage ||
	    !page_at(s, t, pgno))
		t = txid;
	return page_at(s, t, pgno);
}

void synth_snapshot(struct synth *s, uint64_t txid, uint64_t redo)
{
	cleanup_snapshot_writer struct snapshot_writer *w = NULL;
	const struct synth_state *st = synth_state(s, txid);
	struct err err = ERR_INIT;
	uint64_t bytes;
	cleanup_free uint8_t *zeros = zeroed(1, st->page_size);
	uint32_t n = st->commit.n_pages;

	if (!st->pages)
		synth_die("no image of %" PRIu64, txid);
	/* A fuzzy copy can lack pages that frames since hold: those new since `redo`. */
	if (redo < txid && redo > 0 && synth_state(s, redo)->lineage == st->lineage &&
	    synth_state(s, redo)->pages && rng_chance(&s->rng, 50) &&
	    synth_state(s, redo)->commit.n_pages < n)
		n = synth_state(s, redo)->commit.n_pages;
	synth_must(snapshot_create(s->snapshot_fd, "synth.tmp", st->page_size, 1, &w, &err), &err,
	           "snapshot");
	for (uint32_t p = 1; p <= n; p++) {
		struct synth_page *page =
		        redo < txid ? fuzzy_page(s, redo, txid, p) : st->pages[p - 1];
		synth_must(snapshot_append(w, page ? page->data : zeros, st->page_size, &err), &err,
		           "append");
	}
	struct snapshot_info info = {
	        .page_size = st->page_size,
	        .lineage = st->lineage,
	        .n_pages = st->commit.n_pages,
	        .txid = txid,
	        .redo_txid = redo,
	        .time_us = st->commit.time_us,
	        .not_before_us = st->commit.not_before_us,
	        .state = state_sum(st->pages, st->commit.n_pages),
	};
	synth_must(snapshot_finish(w, &info, &bytes, &err), &err, "snapshot_finish");
	struct object_name name = {
	        .type = OBJECT_SNAPSHOT,
	        .lineage = st->lineage,
	        .first_txid = redo + 1,
	        .last_txid = txid,
	        .first_us = info.time_us,
	        .last_us = info.time_us,
	};
	add_object(s, &name);
	synth_generation(s);
}

static int folder_of(const struct synth *s, enum object_type type)
{
	return type == OBJECT_SNAPSHOT    ? s->snapshot_fd
	       : type == OBJECT_COALESCED ? s->coalesced_fd
	                                  : s->segment_fd;
}

void synth_remove_object(struct synth *s, size_t i)
{
	struct synth_object *o = &s->objects[i];
	char text[OBJECT_NAME_MAX];

	unlinkat(folder_of(s, o->name.type), o->file, 0);
	if (o->name.type == OBJECT_SEALED) {
		struct object_name n = o->name;
		n.type = OBJECT_COMMITS;
		object_name_format(&n, text);
		unlinkat(s->segment_fd, text, 0);
	}
	memmove(o, o + 1, (s->n_objects - i - 1) * sizeof(*o));
	s->n_objects--;
}

void synth_seal(struct synth *s, uint64_t first, uint64_t last, bool keep)
{
	const struct synth_state *a = synth_state(s, first);
	cleanup_sealed_writer struct sealed_writer *w = NULL;
	struct err err = ERR_INIT;
	struct object_name name;
	uint64_t bytes;
	struct sealed_options o = {
	        .kind = SEALED_SEGMENT,
	        .page_size = a->page_size,
	        .lineage = a->lineage,
	        .first_txid = first,
	        .salt1 = (uint32_t)rng_next(&s->rng),
	        .salt2 = (uint32_t)rng_next(&s->rng),
	        .level = s->options.level,
	};

	synth_must(sealed_create(s->segment_fd, &o, &w, &err), &err, "sealed_create");
	for (uint64_t t = first; t <= last; t++) {
		const struct synth_state *st = synth_state(s, t);
		if (!st->in_segment || st->lineage != a->lineage)
			synth_die("transaction %" PRIu64 " is in no segment of the lineage", t);
		for (size_t i = 0; i < st->n_frames; i++)
			synth_must(sealed_frame(w, st->frames[i]->pgno,
			                        i + 1 == st->n_frames ? st->commit.n_pages : 0,
			                        st->frames[i]->data, &err),
			           &err, "sealed_frame");
		synth_must(sealed_commit(w, &st->commit, &err), &err, "sealed_commit");
	}
	synth_must(sealed_finish(w, &name, &bytes, &err), &err, "sealed_finish");
	for (size_t i = s->n_objects; i-- > 0 && !keep;) {
		struct object_name *n = &s->objects[i].name;
		if ((n->type == OBJECT_GROWING || n->type == OBJECT_SEALED) &&
		    n->first_txid >= first && n->last_txid <= last && n->lineage == a->lineage &&
		    !(n->type == OBJECT_SEALED && n->first_txid == first && n->last_txid == last))
			synth_remove_object(s, i);
	}
	add_object(s, &name);
	synth_generation(s);
}

void synth_coalesce(struct synth *s, uint64_t first, uint64_t last)
{
	const struct synth_state *a = synth_state(s, first), *b = synth_state(s, last);
	cleanup_sealed_writer struct sealed_writer *w = NULL;
	uint32_t n = b->commit.n_pages, min = UINT32_MAX, last_page = 0;
	cleanup_free struct synth_page **newest = zeroed(n, sizeof(*newest));
	struct err err = ERR_INIT;
	struct object_name name;
	uint64_t bytes;

	for (uint64_t t = first; t <= last; t++) {
		const struct synth_state *st = synth_state(s, t);
		if (st->commit.n_pages < min)
			min = st->commit.n_pages;
		for (size_t i = 0; i < st->n_frames; i++)
			if (st->frames[i]->pgno <= n)
				newest[st->frames[i]->pgno - 1] = st->frames[i];
		for (uint32_t p = st->commit.n_pages; p < n; p++)
			newest[p] = NULL;
	}
	for (uint32_t p = 0; p < n; p++)
		if (newest[p])
			last_page = p + 1;
	if (last_page == 0)
		return; /* pages that the span's end does not have: there is nothing to keep */
	struct sealed_options o = {
	        .kind = SEALED_COALESCED,
	        .page_size = a->page_size,
	        .lineage = a->lineage,
	        .first_txid = first,
	        .first_us = a->commit.time_us,
	        .min_pages = min,
	        .salt1 = 1,
	        .salt2 = 2,
	        .level = s->options.level,
	};
	synth_must(sealed_create(s->coalesced_fd, &o, &w, &err), &err, "sealed_create");
	for (uint32_t p = 0; p < last_page; p++)
		if (newest[p])
			synth_must(sealed_frame(w, p + 1, p + 1 == last_page ? n : 0,
			                        newest[p]->data, &err),
			           &err, "sealed_frame");
	synth_must(sealed_commit(w, &b->commit, &err), &err, "sealed_commit");
	synth_must(sealed_finish(w, &name, &bytes, &err), &err, "sealed_finish");
	add_object(s, &name);
	synth_generation(s);
}

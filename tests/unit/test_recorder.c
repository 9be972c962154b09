/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder and its keeper, fed by a capture that is made up here: whatever the application does, and
 * whatever the disk says to it, each transaction that can be read is one that was committed, byte for
 * byte, in order, and what is not there lies in a gap that is declared.
 *
 * The functions of capture.h that a recorder calls are those below: the linker takes them, and not
 * those of capture.c.  The calls that change a file pass through failing_disk.h, and may fail.
 * Each history is made by a child process of its own.
 */
#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/daemon/keeper.h"
#include "engine/daemon/pools.h"
#include "engine/daemon/recorder.h"
#include "engine/view/check.h"
#include "tests/lib/failing_disk.h"
#include "tests/lib/scratch.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cmocka.h>

#define NAME "x.db"
#define COUNTER_AT 100 /* in page 1: which of the states it is */
#define STATES_MAX 4000
#define FRAMES_MAX 20000
#define PAGES_MAX 70
#define PATIENCE_US (30 * US_PER_SECOND)

/* ---- an application and its database ---- */

struct state {
	uint8_t *image;
	uint32_t page_size, n_pages;
};

struct frame {
	uint32_t pgno, n_truncate;
	uint32_t page_size;
	uint8_t *page;
	uint64_t state; /* that it is of */
};

/* One for each process. */
static struct app {
	struct rng rng;
	pthread_mutex_t lock; /* what capture_read_pages() and its like ask for */
	struct state states[STATES_MAX];
	uint64_t n_states;
	struct state file; /* the main file, of which the image may be of no state */
	struct frame frames[FRAMES_MAX];
	size_t n_frames; /* of this generation of the WAL */
	uint32_t salt;
	size_t given; /* of them, to the recorder */
	bool must_break, asked;
	enum capture_break why;
	uint64_t epoch;
	uint64_t breaks, committed, accepted;

	char *root;
	struct pools *pools;
	struct recorder *recorder;
	struct keeper *keeper;
} app;

__attribute__((format(printf, 1, 2), noreturn)) static void bad(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "recorder: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (disk: call %ld, %s)\n", disk.at, disk.first);
	abort();
}

static void must(int rc, const struct err *err, const char *what)
{
	if (rc < 0)
		bad("%s: %s (%s)", what, err->msg, err_kind_name(err->kind));
}

static struct state copy_state(const struct state *s)
{
	struct state c = *s;
	size_t bytes = (size_t)s->n_pages * s->page_size;

	c.image = malloc(bytes ? bytes : 1);
	if (bytes)
		memcpy(c.image, s->image, bytes);
	return c;
}

static uint8_t *page_of(const struct state *s, uint32_t pgno)
{
	return s->image + (size_t)(pgno - 1) * s->page_size;
}

static const struct state *newest(void)
{
	return &app.states[app.n_states - 1];
}

/* The next state of the application, with some of these pages written; ret[i]: page i is. */
static struct state next_state(const struct state *from, uint32_t page_size, bool *written)
{
	struct state s = {.page_size = page_size};
	bool same = from && from->page_size == page_size;
	uint32_t before = same ? from->n_pages : 0;

	s.n_pages = before ? before : 8;
	if (before && rng_chance(&app.rng, 25))
		s.n_pages = 3 + (uint32_t)rng_below(&app.rng, PAGES_MAX - 3);
	s.image = calloc(s.n_pages, page_size);
	for (uint32_t p = 1; p <= s.n_pages; p++) {
		written[p] = p == 1 || p > before || rng_chance(&app.rng, 8);
		if (p <= before)
			memcpy(page_of(&s, p), page_of(from, p), page_size);
		if (written[p])
			for (uint32_t i = 0; i < 6; i++)
				store_le64(page_of(&s, p) + 8 * rng_below(&app.rng, page_size / 8),
				           rng_next(&app.rng));
	}
	store_le64(page_of(&s, 1) + COUNTER_AT, app.n_states);
	return s;
}

static void add_frame(const struct state *s, uint32_t pgno, bool last)
{
	if (app.n_frames == FRAMES_MAX)
		bad("too many frames");
	struct frame *f = &app.frames[app.n_frames++];
	*f = (struct frame){pgno, last ? s->n_pages : 0, s->page_size, page_of(s, pgno),
	                    app.n_states};
}

static void add_state(struct state s)
{
	if (app.n_states == STATES_MAX)
		bad("too many states");
	app.states[app.n_states++] = s;
}

/* Under app.lock, as all that follow. */
static void app_commit(void)
{
	static bool written[PAGES_MAX + 1];
	struct state s = next_state(newest(), newest()->page_size, written);

	if (rng_chance(&app.rng,
	               20)) /* written twice, the first time with what it was not left at */
		app.frames[app.n_frames++] =
		        (struct frame){1, 0, s.page_size, page_of(newest(), 1), app.n_states};
	for (uint32_t p = s.n_pages; p >= 1; p--)
		if (written[p])
			add_frame(&s, p, p == 1);
	add_state(s);
	app.committed++;
}

/* All of the WAL is in the file; of what was not captured nothing is left. */
static void app_checkpoint(void)
{
	free(app.file.image);
	app.file = copy_state(newest());
	if (app.given < app.n_frames && !app.must_break) {
		app.must_break = true;
		app.why = CAPTURE_GAP;
	}
	app.n_frames = app.given = 0;
	app.salt++;
	app.accepted = app.committed;
}

/* Some of it, as an application does that has readers. */
static void app_checkpoint_some(void)
{
	if (app.n_frames == 0 || app.file.n_pages > newest()->n_pages)
		return;
	free(app.file.image);
	app.file = copy_state(newest());
}

/* Another database at its path. */
static void app_replace(uint32_t page_size)
{
	static bool ignored[PAGES_MAX + 1];

	app.why = page_size == newest()->page_size ? CAPTURE_REPLACED : CAPTURE_PAGE_SIZE;
	app.must_break = true;
	add_state(next_state(NULL, page_size, ignored));
	free(app.file.image);
	app.file = copy_state(newest());
	app.n_frames = app.given = 0;
	app.salt++;
	app.committed++;
	app.accepted = app.committed;
}

/* ---- capture ---- */

int capture_read_pages(struct capture *c, uint64_t epoch, uint32_t first_pgno, uint32_t n_pages,
                       uint32_t page_size, void *buf, uint32_t *ret_n, struct err *err)
{
	LOCK_SCOPE(&app.lock);
	if (epoch != app.epoch || page_size != app.file.page_size)
		return err_set(err, ERR_CANCELLED, 0, "over");
	uint32_t there = first_pgno > app.file.n_pages ? 0 : app.file.n_pages - first_pgno + 1;
	*ret_n = n_pages < there ? n_pages : there;
	if (*ret_n)
		memcpy(buf, page_of(&app.file, first_pgno), (size_t)*ret_n * page_size);
	return 0;
}

uint64_t capture_barrier_begin(struct capture *c)
{
	LOCK_SCOPE(&app.lock);
	return app.committed;
}

int capture_barrier(struct capture *c, uint64_t epoch, uint64_t ticket, struct err *err)
{
	LOCK_SCOPE(&app.lock);
	if (epoch != app.epoch)
		return err_set(err, ERR_CANCELLED, 0, "over");
	/* (What was missed never comes: a break does, and another epoch.) */
	return app.accepted >= ticket && !app.must_break ? 0 : err_set(err, ERR_BUSY, 0, "not yet");
}

void capture_request_break(struct capture *c, const char *reason)
{
	LOCK_SCOPE(&app.lock);
	app.asked = true;
}

const char *capture_break_name(enum capture_break why)
{
	static const char *const names[] = {"first", "gap", "rewound", "replaced", "page size"};
	return names[why];
}

void capture_thread_begin(void)
{
}

static const struct capture_sink *sink(void)
{
	return recorder_sink(app.recorder);
}

/* Under app.lock, which is given back while the sink is called.  False: asked again later. */
static bool give_break(void)
{
	enum capture_break why = app.must_break ? app.why : CAPTURE_GAP;
	struct err err = ERR_INIT;

	app.must_break = app.asked = false;
	app.given = 0;
	app.accepted = app.committed;
	for (size_t i = 0; i < app.n_frames; i++)
		app.accepted -= app.frames[i].n_truncate != 0;
	app.breaks += app.epoch > 0;
	uint64_t epoch = ++app.epoch;
	uint32_t page_size = newest()->page_size;
	pthread_mutex_unlock(&app.lock);
	must(sink()->on_break(sink()->ctx, why, "for the test", page_size, epoch, &err), &err,
	     "on_break");
	pthread_mutex_lock(&app.lock);
	return true;
}

/* Some whole transactions, or a piece of one. */
static size_t choose_batch(void)
{
	bool piece = rng_chance(&app.rng, 15);
	size_t n = 0, commits = piece ? 1 : 1 + (size_t)rng_below(&app.rng, 3);

	while (app.given + n < app.n_frames && commits > 0)
		commits -= app.frames[app.given + n++].n_truncate != 0;
	if (n == 0)
		synth_die("no frame is left to give");
	return piece ? 1 + (size_t)rng_below(&app.rng, n) : n;
}

static bool give_batch(void)
{
	size_t n = choose_batch();
	const struct frame *f = &app.frames[app.given], *last = &f[n - 1];
	uint64_t frame_bytes = wal_frame_size(f->page_size);
	cleanup_free uint8_t *bytes = calloc(n, frame_bytes);
	struct err err = ERR_INIT;
	uint64_t commits = 0;

	if (!bytes)
		synth_die("no memory for a batch");
	for (size_t i = 0; i < n; i++) {
		const struct wal_frame_header h = {f[i].pgno, f[i].n_truncate, app.salt, 7, {0, 0}};
		wal_frame_header_write(&h, bytes + i * frame_bytes);
		memcpy(bytes + i * frame_bytes + WAL_FRAME_HEADER_SIZE, f[i].page, f->page_size);
		commits += f[i].n_truncate != 0;
	}
	int64_t now = clock_now_us();
	const struct capture_batch b = {
	        .frames = bytes,
	        .n_frames = n,
	        .page_size = f->page_size,
	        .ends_commit = last->n_truncate != 0,
	        .observed_us = now,
	        .not_before_us = now - 5,
	        .after = {.salt1 = app.salt, .salt2 = 7, .frame = app.given + n},
	};
	pthread_mutex_unlock(&app.lock);
	int rc = sink()->on_batch(sink()->ctx, &b, &err);
	pthread_mutex_lock(&app.lock);
	if (err_kind_of(rc) == ERR_BUSY)
		return false;
	must(rc, &err, "on_batch");
	app.given += n;
	app.accepted += commits;
	return true;
}

/* One thing, if there is one.  Under app.lock. */
static bool capture_one(void)
{
	if (app.must_break || app.asked)
		return give_break();
	return app.given < app.n_frames && give_batch();
}

static void capture_all(void)
{
	pthread_mutex_lock(&app.lock);
	while (capture_one())
		;
	bool all = app.given == app.n_frames && !app.must_break && !app.asked;
	int64_t now = clock_now_us();
	pthread_mutex_unlock(&app.lock);
	if (all)
		sink()->on_caught_up(sink()->ctx, now);
}

/* ---- a recorder ---- */

static int open_once(struct err *err)
{
	const struct recorder_options o = {.pools = app.pools,
	                                   .archive = app.root,
	                                   .name = NAME,
	                                   .source_path = "/nowhere/" NAME,
	                                   .segment_bytes = 12000,
	                                   .level = 1};
	return recorder_open(&o, &app.recorder, err);
}

static void begin(void)
{
	struct err err = ERR_INIT;
	struct capture_position pos;
	uint32_t page_size;

	/* As the daemon does where that fails. */
	for (int tries = 0; open_once(&err) < 0; tries++) {
		if (!disk.failed || tries == 100)
			bad("recorder_open: %s", err.msg);
		err = (struct err)ERR_INIT;
		clock_sleep_us(30000);
	}
	bool resume = recorder_resume(app.recorder, &pos, &page_size);
	pthread_mutex_lock(&app.lock);
	app.asked = false;
	app.given = 0;
	if (resume && pos.salt1 == app.salt && pos.frame <= app.n_frames && !app.must_break) {
		app.given = pos.frame;
		if (pos.frame && !app.frames[pos.frame - 1].n_truncate)
			bad("it goes on inside of a transaction");
	} else if (!app.must_break) {
		app.must_break = true;
		app.why = resume ? CAPTURE_GAP : CAPTURE_FIRST;
	}
	app.accepted = app.committed;
	for (size_t i = app.given; i < app.n_frames; i++)
		app.accepted -= app.frames[i].n_truncate != 0;
	pthread_mutex_unlock(&app.lock);
	must(recorder_start(app.recorder, NULL, &err), &err, "recorder_start");
	must(keeper_new(app.recorder, &app.keeper, &err), &err, "keeper_new");
	must(keeper_start(app.keeper, &err), &err, "keeper_start");
}

static void drain(void)
{
	int64_t end_us = clock_mono_us() + PATIENCE_US;
	struct recorder_status st;

	do {
		capture_all();
		clock_sleep_us(500);
		recorder_get_status(app.recorder, &st);
		if (clock_mono_us() > end_us)
			bad("it does not become durable: trouble '%s', lacks '%s'", st.trouble,
			    st.unwhole);
		pthread_mutex_lock(&app.lock);
		bool all = app.given == app.n_frames && !app.must_break && !app.asked;
		pthread_mutex_unlock(&app.lock);
		if (!all)
			continue;
		if (recorder_durable(app.recorder, recorder_queued(app.recorder)))
			return;
	} while (true);
}

static void end(bool killed)
{
	int64_t end_us = clock_mono_us() + PATIENCE_US;
	struct err err = ERR_INIT;

	if (!killed) {
		drain();
		recorder_end(app.recorder, PATIENCE_US);
		while (!recorder_ended(app.recorder)) {
			clock_sleep_us(500);
			if (clock_mono_us() > end_us)
				bad("it does not end");
		}
		keeper_stop(app.keeper);
	}
	keeper_free(take_ptr(app.keeper));
	int rc = killed ? 0 : recorder_result(app.recorder, &err);
	if (!disk.failed)
		must(rc, &err, "recorder_result");
	recorder_free(take_ptr(app.recorder));
}

/* ---- what is held ---- */

struct seen {
	uint64_t txid, counter, n_viewed, n_healed;
	uint32_t lineage;
};

static bool is_gap(struct history *h, uint64_t before, uint64_t after)
{
	struct gap g;

	for (size_t i = 0; history_gap(h, i, &g, NULL) == 0; i++)
		if (g.before_txid >= before && g.before_txid < after && g.after_txid == after)
			return true;
	return false;
}

static uint64_t check_image(struct history *h, const struct moment *m)
{
	cleanup_view struct view *v = NULL;
	struct err err = ERR_INIT;
	struct hash128 sum;
	uint8_t page[4096];

	must(view_open(h, m->txid, &v, &err), &err, "view_open");
	must(view_page(v, 1, page, &err), &err, "page 1");
	uint64_t counter = load_le64(page + COUNTER_AT);
	if (counter >= app.n_states)
		bad("txid %" PRIu64 " is of a state that never was", m->txid);
	const struct state *s = &app.states[counter];
	if (s->page_size != m->page_size || s->n_pages != m->n_pages)
		bad("txid %" PRIu64 " has another size than state %" PRIu64, m->txid, counter);
	for (uint32_t p = 1; p <= s->n_pages; p++) {
		must(view_page(v, p, page, &err), &err, "view_page");
		if (memcmp(page, page_of(s, p), s->page_size) != 0)
			bad("page %u of txid %" PRIu64 " is not that of state %" PRIu64, p, m->txid,
			    counter);
	}
	must(view_state(v, &sum, &err), &err, "view_state");
	if (!hash128_zero(m->state) && !hash128_equal(sum, m->state))
		bad("txid %" PRIu64 " has another sum", m->txid);
	return counter;
}

static void check_moment(struct history *h, const struct moment *m, struct seen *seen)
{
	uint64_t counter = check_image(h, m);
	bool jumps = m->flags & MOMENT_HEALED || m->lineage != seen->lineage ||
	             m->txid != seen->txid + 1;

	if (seen->n_viewed && jumps) {
		seen->n_healed++;
		if (counter < seen->counter || !is_gap(h, seen->txid, m->txid))
			bad("from txid %" PRIu64 ", state %" PRIu64 ", to txid %" PRIu64
			    ", state %" PRIu64 ", without a gap",
			    seen->txid, seen->counter, m->txid, counter);
	} else if (seen->n_viewed && counter != seen->counter + 1) {
		bad("txid %" PRIu64 " is state %" PRIu64 ", the next one %" PRIu64, seen->txid,
		    seen->counter, counter);
	}
	*seen = (struct seen){m->txid, counter, seen->n_viewed + 1, seen->n_healed, m->lineage};
}

static void check_objects(struct history *h)
{
	cleanup_free struct history_object *objects = NULL;
	struct err err = ERR_INIT;
	size_t n;

	must(history_objects(h, &objects, &n, &err), &err, "history_objects");
	for (size_t i = 0; i < n; i++) {
		cleanup_object_check struct object_check c = {.whole = false};
		must(history_check_object(h, &objects[i], NULL, NULL, &c, &err), &err, "check");
		if (c.first.kind != ERR_NONE)
			bad("%s", c.first.msg);
	}
}

/* All that can be read, and that the newest of it is the newest of all.  `lost`: something of it is
 * damaged. */
static struct seen check(bool lost)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct err err = ERR_INIT;
	struct seen seen = {0};
	struct moment m;
	struct jump j;
	struct gap g;
	size_t gaps = 0;

	must(archive_open(app.root, NULL, &a, &err), &err, "archive_open");
	must(history_get(a, NAME, &h, &err), &err, "history_get");
	if (!lost)
		check_objects(h);
	while (history_next(h, seen.txid + 1, &m, &err) == 0)
		check_moment(h, &m, &seen);
	if (err.kind != ERR_NOT_FOUND)
		bad("history_next: %s", err.msg);
	if (seen.counter + 1 != app.n_states)
		bad("the newest is state %" PRIu64 " of %" PRIu64, seen.counter, app.n_states - 1);
	while (history_gap(h, gaps, &g, NULL) == 0)
		gaps++;
	if (gaps != seen.n_healed || (!lost && gaps > app.breaks))
		bad("%zu gaps, %" PRIu64 " healed, %" PRIu64 " breaks", gaps, seen.n_healed,
		    app.breaks);
	if (!lost && history_jump(h, 0, &j, NULL) == 0)
		bad("a child lineage begins without damage");
	return seen;
}

/* ---- histories ---- */

static void setup(uint64_t seed, const char *root)
{
	const struct pools_options o = {.threads = 2, .queue_bytes = 20000};
	static bool ignored[PAGES_MAX + 1];
	struct err err = ERR_INIT;

	if (!getenv("ASOF_TEST_LOG"))
		log_set_fd(-1);
	app.rng.s = seed;
	pthread_mutex_init(&app.lock, NULL);
	app.root = strdup(root);
	must(pools_new(&o, &app.pools, &err), &err, "pools_new");
	add_state(next_state(NULL, 512u << rng_below(&app.rng, 3), ignored));
	app.file = copy_state(newest());
	app.salt = 1;
}

static void teardown(void)
{
	for (uint64_t i = 0; i < app.n_states; i++)
		free(app.states[i].image);
	free(app.file.image);
	pools_free(app.pools);
	free(app.root);
}

static void app_step(void)
{
	LOCK_SCOPE(&app.lock);
	uint64_t chance = rng_below(&app.rng, 100);

	if (chance < 90)
		app_commit();
	else if (chance < 96)
		app_checkpoint();
	else
		app_checkpoint_some();
}

/* `n` commits or so, mostly followed. */
static void work(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		app_step();
		if (rng_chance(&app.rng, 80))
			capture_all();
		if (rng_chance(&app.rng, 20)) /* so that groups are of any size */
			clock_sleep_us((int64_t)rng_below(&app.rng, 3000));
	}
}

static void work_to_rest(unsigned n)
{
	work(n);
	drain();
	pthread_mutex_lock(&app.lock);
	app_checkpoint();
	pthread_mutex_unlock(&app.lock);
}

static void miss_some(void)
{
	pthread_mutex_lock(&app.lock);
	for (int i = 0; i < 3; i++)
		app_commit();
	app_checkpoint();
	app_commit();
	pthread_mutex_unlock(&app.lock);
}

static void replace(uint32_t page_size)
{
	pthread_mutex_lock(&app.lock);
	app_replace(page_size);
	pthread_mutex_unlock(&app.lock);
}

/* Everything that a recorder meets. */
static void any_history(unsigned scale)
{
	begin();
	work_to_rest(2 * scale);
	miss_some();
	work(scale);
	drain();
	miss_some();
	end(rng_chance(&app.rng, 50));
	begin();
	work(scale);
	miss_some(); /* before the last one is healed, perhaps */
	work_to_rest(scale);
	replace(newest()->page_size);
	work(scale);
	end(true);
	begin();
	work_to_rest(scale);
	replace(newest()->page_size == 512 ? 1024 : 512);
	work_to_rest(scale);
	end(false);
	begin();
	work_to_rest(2 * scale);
	end(false);
}

/* ---- tests ---- */

struct job {
	uint64_t seed;
	long at;
	int64_t lasting_us;
	int number;
};
typedef void job_fn(const struct job *job, const char *root);

struct child {
	pid_t pid;
	struct job job;
	char *root;
};
#define AT_ONCE 12

static bool wait_for_one(struct child *children)
{
	int status;
	pid_t pid = wait(&status);

	for (size_t i = 0; i < AT_ONCE; i++) {
		struct child *c = &children[i];
		if (c->pid != pid)
			continue;
		c->pid = 0;
		test_remove(c->root);
		free(take_ptr(c->root));
		if (status == 0)
			return true;
		fprintf(stderr,
		        "failed: seed %" PRIu64 ", call %ld fails with %d for %" PRId64 " us\n",
		        c->job.seed, c->job.at, c->job.number, c->job.lasting_us);
		return false;
	}
	return pid > 0;
}

/* Each in a process of its own, AT_ONCE of them: they mostly wait. */
static void run_jobs(const struct job *jobs, size_t n, job_fn *fn)
{
	struct child children[AT_ONCE] = {{0}};
	size_t under_way = 0, failed = 0;

	for (size_t i = 0; i < n || under_way > 0;) {
		size_t free_one = 0;
		while (free_one < AT_ONCE && children[free_one].pid)
			free_one++;
		if (i == n || free_one == AT_ONCE) {
			failed += !wait_for_one(children);
			under_way--;
			continue;
		}
		struct child *c = &children[free_one];
		c->job = jobs[i++];
		c->root = test_folder();
		fflush(NULL);
		c->pid = fork();
		if (c->pid == 0) {
			signal(SIGSEGV, SIG_DFL); /* cmocka's would go on with the next test */
			signal(SIGBUS, SIG_DFL);
			fn(&c->job, c->root);
			free(c->root);
			_exit(0);
		}
		assert_true(c->pid > 0);
		under_way++;
	}
	assert_int_equal(failed, 0);
}

static void one_history(const struct job *job, const char *root)
{
	setup(job->seed, root);
	any_history(15);
	check(false);
	teardown();
}

static void test_any_history(void **state)
{
	struct job jobs[200];
	size_t n = test_rounds(20);

	for (size_t i = 0; i < n; i++)
		jobs[i] = (struct job){.seed = test_seed() + i};
	run_jobs(jobs, n, one_history);
}

/* A disk that fails at some call, once or for a while; the next start finds it well again. */
static void failing_history(const struct job *job, const char *root)
{
	setup(job->seed, root);
	disk.at = job->at;
	disk.number = job->number;
	disk.lasting_us = job->lasting_us;
	disk.on = true;
	any_history(6);
	disk.on = false;
	check(false);
	begin();
	work(3);
	end(false);
	check(false);
	teardown();
}

static long count_calls(uint64_t seed)
{
	cleanup_free char *root = test_folder();
	int pipe_fds[2];
	long n = 0;

	assert_int_equal(pipe(pipe_fds), 0);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		failing_history(&(struct job){.seed = seed}, root);
		n = disk.n;
		_exit(write(pipe_fds[1], &n, sizeof(n)) != sizeof(n));
	}
	close(pipe_fds[1]);
	assert_int_equal(read(pipe_fds[0], &n, sizeof(n)), sizeof(n));
	close(pipe_fds[0]);
	waitpid(pid, NULL, 0);
	test_remove(root);
	return n;
}

static void test_failing_disk(void **state)
{
	static const int numbers[] = {ENOSPC, EIO, EROFS, EDQUOT};
	uint64_t seed = test_seed();
	long n_calls = count_calls(seed);
	size_t n = 0, most = test_rounds(100);
	struct job *jobs = calloc(most, sizeof(*jobs));

	printf("%ld calls\n", n_calls);
	long step = n_calls / (long)most + 1;
	for (long at = 1 + (long)(seed % (uint64_t)step); at <= n_calls && n < most;
	     at += step, n++)
		jobs[n] = (struct job){.seed = seed,
		                       .at = at,
		                       .lasting_us = n % 2 ? 700000 : 0,
		                       .number = numbers[n / 2 % 4]};
	run_jobs(jobs, n, failing_history);
	free(jobs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history),
	        cmocka_unit_test(test_failing_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

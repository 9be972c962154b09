/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The application of the benchmark: a trading database, and writers that commit to it.
 *
 *   load create DB MEGABYTES SEED       makes the database (WAL mode, checkpointed)
 *   load hold DB                        keeps it open until standard input ends
 *   load run DB KEY=VALUE...            commits, measures, prints one JSON object
 *
 * Keys of run:
 *   writers=1        processes, each with a connection of its own
 *   seconds=10       how long; warm=1: seconds before that which do not count
 *   commits=0        instead of seconds: so many commits (one writer, no warm-up)
 *   rate=0           commits per second of each writer; 0: as fast as they go
 *   sync=normal      or full
 *   timeout=5000     busy timeout in ms, with SQLite's own delays
 *   seed=1
 *   head=FILE        the head of an archive: when was each commit captured?
 *   poll=1000        how often to look at the head, in microseconds
 *   watch=PID        CPU and memory of another process over the window
 *   marks=FILE       commits=: "number time_us" after every 100th commit
 *
 * A commit adds a trade (table and index) and updates the position of its symbol; every 16th
 * annotates a random old trade besides.  The same seed makes the same history.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SYMBOLS 500
#define WRITERS_MAX 16
#define COMMITS_MAX (8u << 20) /* remembered for each writer */
#define MOVES_MAX (1u << 20)   /* of the head */
#define HEAD_TXID_OFFSET 32    /* engine/archive/head.h */
#define CATCH_UP_NS (120 * INT64_C(1000000000))

static const char *const notes[] = {"limit order", "market order",       "stop loss",
                                    "rebalance",   "hedge against spot", "roll to next expiry"};

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
	_exit(1);
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void sleep_until(int64_t mono_ns)
{
	struct timespec ts = {mono_ns / 1000000000, mono_ns % 1000000000};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static uint64_t next_random(uint64_t *state)
{
	*state += UINT64_C(0x9e3779b97f4a7c15);
	uint64_t z = *state;
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* ---- the database ---- */

struct writer {
	sqlite3 *db;
	sqlite3_stmt *begin, *insert, *update, *annotate, *commit, *rollback;
	uint64_t random, old_trades;
	struct result *result;
	int busy_timeout_ms;
};

/* Of one writer, shared with the parent. */
struct result {
	_Atomic uint64_t n;   /* commits in end_ns and latency_ns */
	uint64_t warm;        /* of them before the window */
	uint64_t busy, waits; /* SQLITE_BUSY returned; times that a lock was waited for */
	uint64_t pages;       /* written to the WAL in the window */
	uint64_t wal_frames_max;
	double cpu_s; /* in the window */
	int64_t end_ns[COMMITS_MAX];
	uint32_t latency_ns[COMMITS_MAX];
};

static void run_sql(sqlite3 *db, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		die("%s: %s", sql, why);
}

static sqlite3 *open_db(const char *path, int flags)
{
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | flags, NULL) != SQLITE_OK)
		die("cannot open %s: %s", path, sqlite3_errmsg(db));
	return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *s;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
		die("%s: %s", sql, sqlite3_errmsg(db));
	return s;
}

static int step(sqlite3_stmt *s)
{
	int rc = sqlite3_step(s);

	sqlite3_reset(s);
	return rc == SQLITE_ROW ? SQLITE_DONE : rc;
}

static void bind_trade(sqlite3_stmt *s, uint64_t *random, int symbol, int64_t time_us)
{
	char order[32];
	uint64_t r = next_random(random);

	snprintf(order, sizeof(order), "ORD-%08" PRIx32 "-%04x", (uint32_t)r, (unsigned)(r >> 48));
	sqlite3_bind_int(s, 1, symbol);
	sqlite3_bind_text(s, 2, r & 1 ? "BUY" : "SELL", -1, SQLITE_STATIC);
	sqlite3_bind_double(s, 3, 1000.0 + symbol * 10 + (double)(r >> 8 & 0xfff) / 100);
	sqlite3_bind_int(s, 4, (int)(r >> 20 & 0x3f) + 1);
	sqlite3_bind_int64(s, 5, time_us);
	sqlite3_bind_text(s, 6, order, -1, SQLITE_TRANSIENT);
	sqlite3_bind_text(s, 7, notes[(r >> 32) % 6], -1, SQLITE_STATIC);
}

#define INSERT                                                                                     \
	"INSERT INTO trades(symbol, side, price, quantity, time_us, order_id, note) "              \
	"VALUES(?,?,?,?,?,?,?)"

static void create(const char *path, uint64_t megabytes, uint64_t seed)
{
	sqlite3 *db = open_db(path, SQLITE_OPEN_CREATE);
	int64_t time_us = INT64_C(1700000000000000);
	uint64_t random = seed;
	struct stat st = {0};

	run_sql(db, "PRAGMA page_size=4096");
	run_sql(db, "PRAGMA journal_mode=OFF");
	run_sql(db, "PRAGMA synchronous=OFF");
	run_sql(db, "PRAGMA cache_size=-200000");
	run_sql(db,
	        "CREATE TABLE trades(id INTEGER PRIMARY KEY, symbol INT, side TEXT, price REAL, "
	        "quantity INT, time_us INT, order_id TEXT, note TEXT)");
	run_sql(db, "CREATE TABLE positions(symbol INTEGER PRIMARY KEY, quantity INT, value REAL, "
	            "updated_us INT)");
	sqlite3_stmt *insert = prepare(db, INSERT);
	/* The index made at the end is about a fifth of the whole. */
	while ((uint64_t)st.st_size < megabytes * 1000000 * 4 / 5) {
		run_sql(db, "BEGIN");
		for (int i = 0; i < 20000; i++) {
			time_us += (int64_t)(next_random(&random) % 20000);
			bind_trade(insert, &random, (int)(next_random(&random) % SYMBOLS), time_us);
			if (step(insert) != SQLITE_DONE)
				die("insert: %s", sqlite3_errmsg(db));
		}
		run_sql(db, "COMMIT");
		if (stat(path, &st) < 0)
			die("stat %s: %s", path, strerror(errno));
	}
	sqlite3_finalize(insert);
	run_sql(db, "INSERT INTO positions SELECT symbol, sum(quantity), sum(quantity*price), "
	            "max(time_us) FROM trades GROUP BY symbol");
	run_sql(db, "CREATE INDEX trades_by_symbol ON trades(symbol, time_us)");
	run_sql(db, "PRAGMA journal_mode=WAL");
	run_sql(db, "PRAGMA synchronous=FULL");
	run_sql(db, "CREATE TABLE ready(x)"); /* something for the checkpoint to sync */
	run_sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
	sqlite3_close(db);
}

/* SQLite's own delays, counted. */
static int on_busy(void *ctx, int n)
{
	static const int delays[] = {1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100};
	struct writer *w = ctx;
	int waited = 0, last = (int)(sizeof(delays) / sizeof(delays[0])) - 1;

	for (int i = 0; i < n; i++)
		waited += delays[i < last ? i : last];
	if (waited >= w->busy_timeout_ms)
		return 0;
	w->result->waits++;
	sqlite3_sleep(delays[n < last ? n : last]);
	return 1;
}

/* What SQLite does itself without a hook, and a look at the WAL's size. */
static int on_wal(void *ctx, sqlite3 *db, const char *schema, int frames)
{
	struct writer *w = ctx;

	if ((uint64_t)frames > w->result->wal_frames_max)
		w->result->wal_frames_max = (uint64_t)frames;
	if (frames >= 1000)
		sqlite3_wal_checkpoint(db, schema);
	return SQLITE_OK;
}

static void writer_open(struct writer *w, const char *path, bool full)
{
	w->db = open_db(path, 0);
	sqlite3_busy_handler(w->db, on_busy, w);
	run_sql(w->db, full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
	sqlite3_wal_hook(w->db, on_wal, w);
	w->begin = prepare(w->db, "BEGIN IMMEDIATE");
	w->insert = prepare(w->db, INSERT);
	w->update = prepare(w->db, "UPDATE positions SET quantity = quantity + ?1, value = value + "
	                           "?2, updated_us = ?3 WHERE symbol = ?4");
	w->annotate = prepare(w->db, "UPDATE trades SET note = ?1 WHERE id = ?2");
	w->commit = prepare(w->db, "COMMIT");
	w->rollback = prepare(w->db, "ROLLBACK");
	sqlite3_stmt *s = prepare(w->db, "SELECT max(id) FROM trades");
	if (sqlite3_step(s) != SQLITE_ROW)
		die("%s", sqlite3_errmsg(w->db));
	w->old_trades = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
}

/* One commit; false: busy. */
static bool trade(struct writer *w, uint64_t number)
{
	int symbol = (int)(next_random(&w->random) % SYMBOLS);
	int64_t time_us = INT64_C(1750000000000000) + (int64_t)number * 1000;
	int rc = step(w->begin);

	if (rc == SQLITE_DONE) {
		bind_trade(w->insert, &w->random, symbol, time_us);
		sqlite3_bind_int(w->update, 1, 1);
		sqlite3_bind_double(w->update, 2, symbol * 1.5);
		sqlite3_bind_int64(w->update, 3, time_us);
		sqlite3_bind_int(w->update, 4, symbol);
		rc = step(w->insert);
		if (rc == SQLITE_DONE)
			rc = step(w->update);
		if (rc == SQLITE_DONE && number % 16 == 0) {
			uint64_t id = next_random(&w->random) % w->old_trades + 1;
			sqlite3_bind_text(w->annotate, 1, "checked by hand", -1, SQLITE_STATIC);
			sqlite3_bind_int64(w->annotate, 2, (sqlite3_int64)id);
			rc = step(w->annotate);
		}
		if (rc == SQLITE_DONE)
			rc = step(w->commit);
	}
	if (rc == SQLITE_DONE)
		return true;
	if ((rc & 0xff) != SQLITE_BUSY)
		die("commit: %s", sqlite3_errmsg(w->db));
	w->result->busy++;
	if (!sqlite3_get_autocommit(w->db))
		step(w->rollback);
	return false;
}

static uint64_t pages_written(sqlite3 *db)
{
	int now = 0, high;

	sqlite3_db_status(db, SQLITE_DBSTATUS_CACHE_WRITE, &now, &high, 0);
	return (uint64_t)now;
}

static double own_cpu(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- run ---- */

struct options {
	const char *db, *head, *marks;
	unsigned writers;
	double seconds, warm, rate;
	uint64_t commits, seed;
	bool full;
	int timeout_ms, poll_us;
	pid_t watch;
};

struct schedule {
	int64_t start, from, until; /* monotonic; the window is from..until */
};

static void write_mark(FILE *marks, uint64_t n)
{
	if (marks && n % 100 == 0)
		fprintf(marks, "%" PRIu64 " %" PRId64 "\n", n, now_ns(CLOCK_REALTIME) / 1000);
}

static void writer_main(const struct options *o, unsigned number, struct result *r,
                        const struct schedule *t)
{
	struct writer w = {.random = o->seed + number * UINT64_C(1000003),
	                   .result = r,
	                   .busy_timeout_ms = o->timeout_ms};
	int64_t step_ns = o->rate > 0 ? (int64_t)(1e9 / o->rate) : 0, next = t->start;
	FILE *marks = o->marks ? fopen(o->marks, "w") : NULL;
	bool inside = false;
	double cpu = own_cpu();
	uint64_t done = 0, pages = 0;

	if (o->marks && !marks)
		die("%s: %s", o->marks, strerror(errno));
	writer_open(&w, o->db, o->full);
	write_mark(marks, 0);
	sleep_until(t->start);
	for (uint64_t i = 0; (!o->commits || done < o->commits) && done < COMMITS_MAX; i++) {
		if (step_ns) {
			sleep_until(next);
			next += step_ns;
		}
		int64_t begin = now_ns(CLOCK_MONOTONIC);
		if (begin >= t->until && !o->commits)
			break;
		if (!inside && begin >= t->from) {
			inside = true;
			r->warm = done;
			r->busy = r->waits = 0;
			cpu = own_cpu();
			pages = pages_written(w.db);
		}
		if (!trade(&w, i + 1))
			continue;
		int64_t end = now_ns(CLOCK_MONOTONIC), took = end - begin;
		r->end_ns[done] = end;
		r->latency_ns[done] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
		r->n = ++done;
		write_mark(marks, done);
	}
	r->cpu_s = own_cpu() - cpu;
	r->pages = pages_written(w.db) - pages;
	if (marks && fclose(marks) != 0)
		die("%s: %s", o->marks, strerror(errno));
	/* The connection is left as it is: closing could checkpoint. */
	_exit(0);
}

/* ---- another process ---- */

struct watched {
	double cpu_s;
	uint64_t rss_kb, anon_kb; /* largest seen */
};

static double threads_cpu(pid_t pid)
{
	char path[512], line[128];
	double sum = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, e->d_name);
		FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (f && fgets(line, sizeof(line), f))
			sum += strtod(line, NULL) / 1e9;
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return sum;
}

static void look_at_memory(pid_t pid, struct watched *w)
{
	char path[64], line[128];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		uint64_t kb;
		if (sscanf(line, "VmRSS: %" SCNu64, &kb) == 1 && kb > w->rss_kb)
			w->rss_kb = kb;
		if (sscanf(line, "RssAnon: %" SCNu64, &kb) == 1 && kb > w->anon_kb)
			w->anon_kb = kb;
	}
	if (f)
		fclose(f);
}

/* ---- the head ---- */

struct move {
	int64_t ns;
	uint64_t txid;
};

struct follower {
	pthread_t thread;
	int fd, poll_us;
	uint64_t first_txid;
	struct move *moves;
	size_t n;
	_Atomic uint64_t last_txid;
	_Atomic bool stop;
};

static uint64_t read_head(int fd)
{
	uint64_t txid = 0;

	if (pread(fd, &txid, sizeof(txid), HEAD_TXID_OFFSET) != (ssize_t)sizeof(txid))
		return 0;
	return txid;
}

static void *follow(void *arg)
{
	struct follower *f = arg;
	int64_t next = now_ns(CLOCK_MONOTONIC);

	while (!f->stop) {
		uint64_t txid = read_head(f->fd);
		int64_t now = now_ns(CLOCK_MONOTONIC);
		if (txid > f->last_txid && f->n < MOVES_MAX) {
			f->moves[f->n++] = (struct move){now, txid};
			f->last_txid = txid;
		}
		next = (next + f->poll_us * INT64_C(1000) > now ? next : now) +
		       f->poll_us * INT64_C(1000);
		sleep_until(next);
	}
	return NULL;
}

static void follower_start(struct follower *f, const struct options *o)
{
	f->poll_us = o->poll_us;
	f->fd = open(o->head, O_RDONLY | O_CLOEXEC);
	f->moves = malloc(MOVES_MAX * sizeof(*f->moves));
	if (f->fd < 0 || !f->moves)
		die("%s: %s", o->head, strerror(errno));
	f->last_txid = f->first_txid = read_head(f->fd);
	if (pthread_create(&f->thread, NULL, follow, f) != 0)
		die("no thread");
}

/* ---- figures ---- */

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static int compare_i64(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void print_latencies(const struct result *const *results, unsigned n, uint64_t total)
{
	uint32_t *all = malloc((total ? total : 1) * sizeof(*all));
	uint64_t k = 0;

	if (!all)
		die("no memory");
	for (unsigned i = 0; i < n; i++) {
		uint64_t count = results[i]->n - results[i]->warm;
		memcpy(all + k, results[i]->latency_ns + results[i]->warm, count * sizeof(*all));
		k += count;
	}
	qsort(all, total, sizeof(*all), compare_u32);
	for (int i = 0; i < 4 && total; i++) {
		static const char *const names[] = {"p50", "p99", "p999", "max"};
		static const double parts[] = {0.5, 0.99, 0.999, 1};
		uint64_t at = (uint64_t)((double)(total - 1) * parts[i]);
		printf(",\"%s_us\":%.1f", names[i], all[at] / 1e3);
	}
	free(all);
}

/* Commits in the order in which they ended get the txids in theirs. */
static void print_capture(const struct result *const *results, unsigned n, struct follower *f,
                          int64_t window_from)
{
	uint64_t total = 0, k = 0, counted = 0;

	for (unsigned i = 0; i < n; i++)
		total += results[i]->n;
	int64_t *ends = malloc((total ? total : 1) * sizeof(*ends));
	if (!ends)
		die("no memory");
	for (unsigned i = 0; i < n; i++) {
		memcpy(ends + k, results[i]->end_ns, results[i]->n * sizeof(*ends));
		k += results[i]->n;
	}
	qsort(ends, total, sizeof(*ends), compare_i64);

	uint64_t at_end = f->last_txid - f->first_txid;
	int64_t stopped = now_ns(CLOCK_MONOTONIC);
	while (f->last_txid - f->first_txid < total &&
	       now_ns(CLOCK_MONOTONIC) - stopped < CATCH_UP_NS)
		sleep_until(now_ns(CLOCK_MONOTONIC) + 1000000);
	f->stop = true;
	pthread_join(f->thread, NULL);

	int64_t *lags = malloc((total ? total : 1) * sizeof(*lags));
	if (!lags)
		die("no memory");
	size_t move = 0;
	uint64_t missing = 0;
	for (uint64_t i = 0; i < total; i++) {
		while (move < f->n && f->moves[move].txid < f->first_txid + i + 1)
			move++;
		if (move == f->n) {
			missing++;
			continue;
		}
		int64_t lag = f->moves[move].ns - ends[i];
		if (ends[i] >= window_from)
			lags[counted++] = lag > 0 ? lag : 0;
	}
	qsort(lags, counted, sizeof(*lags), compare_i64);
	int64_t done = f->n ? f->moves[f->n - 1].ns : stopped;
	printf(",\"captured\":{\"missing\":%" PRIu64 ",\"extra\":%" PRIu64
	       ",\"lag_commits_at_end\":%" PRIu64 ",\"catch_up_ms\":%.1f",
	       missing,
	       f->last_txid - f->first_txid > total ? f->last_txid - f->first_txid - total : 0,
	       total > at_end ? total - at_end : 0,
	       done > stopped ? (double)(done - stopped) / 1e6 : 0.0);
	if (counted)
		printf(",\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f",
		       (double)lags[counted / 2] / 1e6,
		       (double)lags[(counted - 1) * 99 / 100] / 1e6,
		       (double)lags[counted - 1] / 1e6);
	printf("}");
	free(lags);
	free(ends);
}

static void wait_for(pid_t *children, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int status;
		if (waitpid(children[i], &status, 0) < 0 || !WIFEXITED(status) ||
		    WEXITSTATUS(status))
			die("a writer failed");
	}
}

/* Samples until the window is over, or until the writers have ended. */
static void watch_window(const struct options *o, const struct schedule *t, pid_t first_child,
                         struct watched *w, uint64_t *wal_bytes)
{
	char wal[4096];
	struct stat st;
	double cpu = 0;
	siginfo_t info = {0};

	snprintf(wal, sizeof(wal), "%s-wal", o->db);
	sleep_until(o->commits ? t->start : t->from);
	if (o->watch)
		cpu = threads_cpu(o->watch);
	for (;;) {
		if (o->watch)
			look_at_memory(o->watch, w);
		if (stat(wal, &st) == 0 && (uint64_t)st.st_size > *wal_bytes)
			*wal_bytes = (uint64_t)st.st_size;
		if (!o->commits && now_ns(CLOCK_MONOTONIC) >= t->until)
			break;
		if (o->commits &&
		    waitid(P_PID, (id_t)first_child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    info.si_pid)
			break;
		int64_t next = now_ns(CLOCK_MONOTONIC) + 50000000;
		sleep_until(!o->commits && next > t->until ? t->until : next);
	}
	if (o->watch)
		w->cpu_s = threads_cpu(o->watch) - cpu;
}

static void run(const struct options *o)
{
	struct result *results = mmap(NULL, o->writers * sizeof(*results), PROT_READ | PROT_WRITE,
	                              MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	const struct result *list[WRITERS_MAX];
	pid_t children[WRITERS_MAX];
	struct follower follower = {.fd = -1};
	struct watched watched = {0};
	uint64_t wal_bytes = 0;

	if (results == MAP_FAILED)
		die("no memory");
	struct schedule t = {.start = now_ns(CLOCK_MONOTONIC) + 200000000};
	t.from = t.start + (o->commits ? 0 : (int64_t)(o->warm * 1e9));
	t.until = t.from + (int64_t)(o->seconds * 1e9);
	for (unsigned i = 0; i < o->writers; i++) {
		list[i] = &results[i];
		children[i] = fork();
		if (children[i] < 0)
			die("fork: %s", strerror(errno));
		if (children[i] == 0)
			writer_main(o, i, &results[i], &t);
	}
	if (o->head)
		follower_start(&follower, o);
	watch_window(o, &t, children[0], &watched, &wal_bytes);
	wait_for(children, o->writers);

	uint64_t commits = 0, busy = 0, waits = 0, pages = 0, frames = 0;
	int64_t last = t.from;
	double cpu = 0;
	for (unsigned i = 0; i < o->writers; i++) {
		const struct result *r = &results[i];
		commits += r->n - r->warm;
		busy += r->busy;
		waits += r->waits;
		pages += r->pages;
		cpu += r->cpu_s;
		if (r->wal_frames_max > frames)
			frames = r->wal_frames_max;
		if (r->n && r->end_ns[r->n - 1] > last)
			last = r->end_ns[r->n - 1];
	}
	double seconds = (double)(last - t.from) / 1e9;
	printf("{\"commits\":%" PRIu64 ",\"seconds\":%.4f,\"per_second\":%.2f,\"busy\":%" PRIu64
	       ",\"waits\":%" PRIu64 ",\"wal_bytes_written\":%" PRIu64
	       ",\"wal_frames_max\":%" PRIu64 ",\"wal_file_max\":%" PRIu64
	       ",\"cpu_s\":%.4f,\"watched_cpu_s\":%.4f,\"watched_rss_kb\":%" PRIu64
	       ",\"watched_anon_kb\":%" PRIu64,
	       commits, seconds, seconds > 0 ? (double)commits / seconds : 0.0, busy, waits,
	       pages * 4120, frames, wal_bytes, cpu, watched.cpu_s, watched.rss_kb,
	       watched.anon_kb);
	print_latencies(list, o->writers, commits);
	if (o->head)
		print_capture(list, o->writers, &follower, t.from);
	printf("}\n");
}

static bool option(const char *word, const char *key, const char **value)
{
	size_t n = strlen(key);

	if (strncmp(word, key, n) != 0 || word[n] != '=')
		return false;
	*value = word + n + 1;
	return true;
}

static void parse(struct options *o, char **words)
{
	const char *v;

	*o = (struct options){.db = words[0],
	                      .writers = 1,
	                      .seconds = 10,
	                      .warm = 1,
	                      .seed = 1,
	                      .timeout_ms = 5000,
	                      .poll_us = 1000};
	for (char **w = words + 1; *w; w++) {
		if (option(*w, "writers", &v))
			o->writers = (unsigned)strtoul(v, NULL, 10);
		else if (option(*w, "seconds", &v))
			o->seconds = strtod(v, NULL);
		else if (option(*w, "warm", &v))
			o->warm = strtod(v, NULL);
		else if (option(*w, "commits", &v))
			o->commits = strtoull(v, NULL, 10);
		else if (option(*w, "rate", &v))
			o->rate = strtod(v, NULL);
		else if (option(*w, "sync", &v))
			o->full = strcmp(v, "full") == 0;
		else if (option(*w, "timeout", &v))
			o->timeout_ms = (int)strtol(v, NULL, 10);
		else if (option(*w, "seed", &v))
			o->seed = strtoull(v, NULL, 10);
		else if (option(*w, "head", &v))
			o->head = v;
		else if (option(*w, "poll", &v))
			o->poll_us = (int)strtol(v, NULL, 10);
		else if (option(*w, "watch", &v))
			o->watch = (pid_t)strtol(v, NULL, 10);
		else if (option(*w, "marks", &v))
			o->marks = v;
		else
			die("what is '%s'?", *w);
	}
	if (o->writers < 1 || o->writers > WRITERS_MAX || (o->commits && o->writers != 1))
		die("not so many writers");
}

static void hold(const char *path)
{
	sqlite3 *db = open_db(path, 0);
	char c;

	run_sql(db, "SELECT count(*) FROM sqlite_schema");
	puts("ready");
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	sqlite3_close(db);
}

int main(int argc, char **argv)
{
	struct options o;

	if (argc == 5 && strcmp(argv[1], "create") == 0) {
		create(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	} else if (argc == 3 && strcmp(argv[1], "hold") == 0) {
		hold(argv[2]);
	} else if (argc >= 3 && strcmp(argv[1], "run") == 0) {
		parse(&o, argv + 2);
		run(&o);
	} else {
		die("usage: load create DB MEGABYTES SEED | hold DB | run DB KEY=VALUE...");
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The application of the soak: processes that write as fast as they can, or at a rate, each
 * transaction moving the counter of oracle.h.  What was acknowledged stands in SLOTS, a file that
 * all of them map.
 *
 * The parent starts, kills and replaces them; it never opens the database.
 */
#include "tests/soak/oracle.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct options {
	const char *path, *slots_path, *synchronous;
	unsigned writers, checkpointers;
	double seconds;     /* 0: until `count` */
	uint64_t count;     /* of the counter; 0: until `seconds` */
	double rate;        /* transactions a second and process; 0: no limit */
	int autocheckpoint; /* -1: SQLite's own default */
	int busy_ms, cache; /* cache 0: SQLite's own default */
	unsigned page_size, keys, max_blob;
	unsigned small_percent; /* transactions of one row */
	unsigned large_rows;    /* rows of a large transaction */
	unsigned large_every;   /* of those that are not small, one in so many is large */
	int auto_vacuum;
	double vacuum_every_s; /* 0: never */
	unsigned reopen_every; /* transactions; 0: never */
	double kill_every_s;   /* of writers; 0: never */
	unsigned idle_ms;      /* sleep after about every 50th transaction, up to this */
	unsigned breathe_ms; /* all writers but the first pause for a fifth of so long; 0: never */
	uint64_t seed;
	bool keep_open; /* the parent's child holds the database open throughout */
};

static struct options o = {
        .synchronous = "NORMAL",
        .writers = 1,
        .autocheckpoint = -1,
        .busy_ms = 10000,
        .page_size = 4096,
        .keys = 2000,
        .max_blob = 1500,
        .small_percent = 70,
        .large_rows = 300,
        .large_every = 200,
};
static struct oracle_slot *slots;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void sleep_us(uint64_t us)
{
	nanosleep(&(struct timespec){(time_t)(us / 1000000), (long)(us % 1000000) * 1000}, NULL);
}

/* ---- one writer ---- */

enum { BEGIN, COMMIT, ROLLBACK, READ, BUMP, PUT, DELETE, SAVEPOINT, BACK, RELEASE, N_STATEMENTS };
static const char *const texts[N_STATEMENTS] = {
        "BEGIN IMMEDIATE",
        "COMMIT",
        "ROLLBACK",
        "SELECT v FROM oracle WHERE id = 1",
        "UPDATE oracle SET v = ?1 WHERE id = 1",
        "INSERT OR REPLACE INTO data VALUES (?1, ?2)",
        "DELETE FROM data WHERE id BETWEEN ?1 AND ?1 + ?2",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "RELEASE s",
};

struct writer {
	sqlite3 *db;
	sqlite3_stmt *s[N_STATEMENTS];
	struct oracle_slot *slot;
	uint64_t rng;
	uint64_t started_us, n;
	uint8_t *blob;
};

static uint64_t rnd(struct writer *w, uint64_t below)
{
	w->rng += UINT64_C(0x9e3779b97f4a7c15);
	return below ? oracle_mix(w->rng) % below : 0;
}

static void fatal(sqlite3 *db, const char *what)
{
	fprintf(stderr, "oracle_writer: %s: %s\n", what, db ? sqlite3_errmsg(db) : "");
	_exit(3);
}

static bool is_busy(int rc)
{
	return (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED;
}

static int run(struct writer *w, int which)
{
	int rc = sqlite3_step(w->s[which]);

	sqlite3_reset(w->s[which]);
	if (rc != SQLITE_DONE && rc != SQLITE_ROW && !is_busy(rc))
		fatal(w->db, texts[which]);
	return rc;
}

static int exec(sqlite3 *db, const char *sql)
{
	int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);

	if (rc != SQLITE_OK && !is_busy(rc))
		fatal(db, sql);
	return rc;
}

/* Sleeps less than sqlite3_busy_timeout() does: four writers are to be kept busy. */
static int on_busy(void *ctx, int n)
{
	if ((uint64_t)n * 200 > (uint64_t)o.busy_ms * 1000)
		return 0;
	sleep_us(n < 10 ? 50 : 200);
	return 1;
}

static sqlite3 *open_database(void)
{
	sqlite3 *db;
	char sql[128];

	if (sqlite3_open(o.path, &db) != SQLITE_OK)
		fatal(db, "open");
	sqlite3_busy_handler(db, on_busy, NULL);
	snprintf(sql, sizeof(sql), "PRAGMA synchronous = %s", o.synchronous);
	exec(db, sql);
	if (o.autocheckpoint >= 0)
		sqlite3_wal_autocheckpoint(db, o.autocheckpoint);
	if (o.cache) {
		snprintf(sql, sizeof(sql), "PRAGMA cache_size = %d", o.cache);
		exec(db, sql);
	}
	return db;
}

static void writer_open(struct writer *w)
{
	w->db = open_database();
	for (int i = 0; i < N_STATEMENTS; i++)
		for (int tries = 0;
		     sqlite3_prepare_v3(w->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &w->s[i],
		                        NULL) != SQLITE_OK;
		     tries++) {
			if (!is_busy(sqlite3_errcode(w->db)) || tries > 1000)
				fatal(w->db, texts[i]);
			sleep_us(1000);
		}
}

static void writer_close(struct writer *w)
{
	for (int i = 0; i < N_STATEMENTS; i++)
		sqlite3_finalize(w->s[i]);
	sqlite3_close(w->db);
}

static void put_rows(struct writer *w, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t size = 10 + rnd(w, rnd(w, 4) ? 150 : o.max_blob);
		for (uint64_t at = 0; at < size; at += 8) {
			/* Digits: compresses about as text does. */
			uint64_t v = (rnd(w, UINT64_MAX) & UINT64_C(0x0707070707070707)) |
			             UINT64_C(0x3030303030303030);
			memcpy(w->blob + at, &v, 8);
		}
		sqlite3_bind_int64(w->s[PUT], 1, (sqlite3_int64)rnd(w, o.keys));
		sqlite3_bind_blob(w->s[PUT], 2, w->blob, (int)size, SQLITE_STATIC);
		run(w, PUT);
	}
}

static void delete_rows(struct writer *w)
{
	sqlite3_bind_int64(w->s[DELETE], 1, (sqlite3_int64)rnd(w, o.keys));
	sqlite3_bind_int64(w->s[DELETE], 2, (sqlite3_int64)rnd(w, o.keys / 8 + 1));
	run(w, DELETE);
}

static void extra_table(struct writer *w)
{
	char sql[200];

	snprintf(
	        sql, sizeof(sql),
	        "CREATE TABLE IF NOT EXISTS extra (a, b); INSERT INTO extra SELECT id, v FROM data "
	        "LIMIT %u",
	        (unsigned)rnd(w, 200));
	exec(w->db, rnd(w, 2) ? sql : "DROP TABLE IF EXISTS extra");
}

/* Rows in and out, a savepoint, a table that comes and goes: anything but the counter. */
static void mixed_work(struct writer *w)
{
	uint64_t n =
	        rnd(w, o.large_every) == 0 ? o.large_rows / 2 + rnd(w, o.large_rows) : rnd(w, 12);

	put_rows(w, n);
	if (n > w->slot->largest)
		w->slot->largest = n;
	if (rnd(w, 8) == 0) {
		run(w, SAVEPOINT);
		put_rows(w, rnd(w, 2) ? 5 : 60);
		run(w, BACK);
		run(w, RELEASE);
		put_rows(w, rnd(w, 30));
	}
	if (rnd(w, 20) == 0)
		delete_rows(w);
	if (rnd(w, 60) == 0)
		extra_table(w);
	if (o.auto_vacuum == 2 && rnd(w, 30) == 0)
		exec(w->db, "PRAGMA incremental_vacuum(20)");
}

static bool bump(struct writer *w, uint64_t *ret_seq)
{
	struct oracle was, next;
	uint8_t b[ORACLE_SIZE];

	int rc = sqlite3_step(w->s[READ]);
	if (rc != SQLITE_ROW || sqlite3_column_bytes(w->s[READ], 0) != ORACLE_SIZE ||
	    !oracle_get(sqlite3_column_blob(w->s[READ], 0), &was))
		fatal(w->db, "the counter is not there");
	sqlite3_reset(w->s[READ]);
	if (o.count && was.seq >= o.count)
		return false;
	next = oracle_next(&was, rnd(w, UINT64_MAX));
	oracle_put(b, &next);
	sqlite3_bind_blob(w->s[BUMP], 1, b, sizeof(b), SQLITE_STATIC);
	run(w, BUMP);
	*ret_seq = next.seq;
	return true;
}

/* Writers that never pause together let no WAL be reset: SQLite's own, with or without us.  Here
 * the first goes on alone for a moment, so that a checkpoint can come to its end. */
static void breathe(unsigned index)
{
	uint64_t into = now_us() % (o.breathe_ms * UINT64_C(1000));

	if (index > 0 && into < o.breathe_ms * 200)
		sleep_us(o.breathe_ms * 200 - into);
}

/* False: the count is reached. */
static bool transaction(struct writer *w)
{
	bool small = rnd(w, 100) < o.small_percent, more = true;
	uint64_t seq;

	if (is_busy(run(w, BEGIN))) {
		w->slot->busy++;
		return true;
	}
	if (small)
		put_rows(w, rnd(w, 2));
	else
		mixed_work(w);
	more = bump(w, &seq);
	if (!more || (!small && rnd(w, 8) == 0)) {
		run(w, ROLLBACK);
		w->slot->rollbacks++;
		return more;
	}
	if (is_busy(run(w, COMMIT))) {
		w->slot->busy++;
		run(w, ROLLBACK);
		return true;
	}
	w->slot->max_acked = seq;
	w->slot->acked++;
	return true;
}

static void writer_main(unsigned index, uint64_t seed)
{
	struct writer w = {.slot = &slots[index], .rng = seed};
	uint64_t start = now_us(), vacuum_us = start;

	w.blob = malloc(o.max_blob + 200);
	writer_open(&w);
	for (w.started_us = start;; w.n++) {
		if (slots[ORACLE_SLOTS - 1].spare[0] || !transaction(&w))
			break;
		if (o.reopen_every && rnd(&w, o.reopen_every) == 0) {
			writer_close(&w);
			sleep_us(rnd(&w, 20000));
			writer_open(&w);
		}
		if (o.idle_ms && rnd(&w, 50) == 0)
			sleep_us(rnd(&w, o.idle_ms) * 1000);
		if (o.vacuum_every_s > 0 && index == 0 &&
		    (double)(now_us() - vacuum_us) > o.vacuum_every_s * 1e6) {
			w.slot->plain_started++;
			exec(w.db, "VACUUM");
			vacuum_us = now_us();
		}
		if (o.breathe_ms)
			breathe(index);
		if (o.rate > 0) {
			double early_us =
			        (double)start + (double)(w.n + 1) / o.rate * 1e6 - (double)now_us();
			if (early_us > 0)
				sleep_us((uint64_t)early_us);
		}
	}
	writer_close(&w);
	_exit(0);
}

/* ---- the other processes ---- */

static void checkpointer_main(uint64_t seed)
{
	static const int modes[] = {SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_FULL,
	                            SQLITE_CHECKPOINT_RESTART, SQLITE_CHECKPOINT_TRUNCATE};
	struct writer w = {.rng = seed};
	sqlite3 *db = open_database();

	for (;;) {
		sleep_us(500 + rnd(&w, 8000));
		sqlite3_busy_timeout(db, rnd(&w, 2) ? 0 : 50);
		int rc = sqlite3_wal_checkpoint_v2(db, NULL, modes[rnd(&w, 4)], NULL, NULL);
		if (rc != SQLITE_OK && !is_busy(rc))
			fatal(db, "checkpoint");
	}
}

static void create(void)
{
	struct oracle first = {.seq = 0};
	uint8_t b[ORACLE_SIZE];
	char sql[300];
	sqlite3_stmt *s;
	struct stat st;
	/* (On a database that is there, setting auto_vacuum is a commit.) */
	if (stat(o.path, &st) == 0 && st.st_size > 0)
		return;
	sqlite3 *db = open_database();
	snprintf(sql, sizeof(sql),
	         "PRAGMA page_size = %u; PRAGMA auto_vacuum = %d;"
	         "PRAGMA journal_mode = WAL",
	         o.page_size, o.auto_vacuum);
	exec(db, sql);
	exec(db, "BEGIN; CREATE TABLE IF NOT EXISTS oracle (id INTEGER PRIMARY KEY, v BLOB);"
	         "CREATE TABLE IF NOT EXISTS data (id INTEGER PRIMARY KEY, v BLOB)");
	oracle_put(b, &first);
	sqlite3_prepare_v2(db, "INSERT OR IGNORE INTO oracle VALUES (1, ?1)", -1, &s, NULL);
	sqlite3_bind_blob(s, 1, b, sizeof(b), SQLITE_STATIC);
	sqlite3_step(s);
	sqlite3_finalize(s);
	exec(db, "COMMIT");
	sqlite3_close(db);
}

static pid_t spawn(void (*fn)(unsigned, uint64_t), unsigned index, uint64_t seed)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(index, seed);
		_exit(0);
	}
	return pid;
}

static void create_child(unsigned index, uint64_t seed)
{
	create();
}

static void checkpointer_child(unsigned index, uint64_t seed)
{
	checkpointer_main(seed);
}

static void holder_child(unsigned index, uint64_t seed)
{
	sqlite3 *db = open_database();

	exec(db, "SELECT count(*) FROM oracle");
	for (;;)
		pause();
}

static bool map_slots(void)
{
	int fd = open(o.slots_path, O_RDWR | O_CREAT, 0600);
	size_t len = ORACLE_SLOTS * sizeof(*slots);

	if (fd < 0 || ftruncate(fd, (off_t)len) < 0)
		return false;
	slots = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return slots != MAP_FAILED;
}

static volatile sig_atomic_t asked_to_stop;

static void on_term(int sig)
{
	asked_to_stop = 1;
}

/* Starts everything, replaces what it kills, ends with the time or when every writer is done. */
static int parent(void)
{
	struct writer dice = {.rng = o.seed};
	pid_t pids[ORACLE_SLOTS], others[ORACLE_SLOTS];
	unsigned n_others = 0, alive = o.writers;
	uint64_t end = o.seconds > 0 ? now_us() + (uint64_t)(o.seconds * 1e6) : UINT64_MAX;
	uint64_t kill_at = now_us() + (uint64_t)(o.kill_every_s * 1e6), kills = 0;
	int status, failed = 0;

	if (o.keep_open)
		others[n_others++] = spawn(holder_child, 0, 0);
	for (unsigned i = 0; i < o.checkpointers; i++)
		others[n_others++] = spawn(checkpointer_child, i, rnd(&dice, UINT64_MAX));
	for (unsigned i = 0; i < o.writers; i++)
		pids[i] = spawn(writer_main, i, rnd(&dice, UINT64_MAX));
	while (now_us() < end && alive > 0 && !failed && !asked_to_stop) {
		sleep_us(2000);
		for (unsigned i = 0; i < o.writers; i++)
			if (pids[i] && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
				failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
				pids[i] = 0;
				alive--;
			}
		unsigned i = (unsigned)rnd(&dice, o.writers);
		if (o.kill_every_s > 0 && now_us() > kill_at && pids[i]) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], &status, 0);
			pids[i] = spawn(writer_main, i, rnd(&dice, UINT64_MAX));
			kills++;
			kill_at = now_us() + rnd(&dice, (uint64_t)(o.kill_every_s * 2e6));
		}
	}
	/* Writers end by themselves: a recovery after a crash of all of them can lose commits
	 * (SQLite before 3.50.2), which is not what is looked at here. */
	slots[ORACLE_SLOTS - 1].spare[0] = 1;
	for (unsigned i = 0; i < o.writers; i++)
		if (pids[i] && waitpid(pids[i], &status, 0) == pids[i])
			failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	for (unsigned i = 0; i < n_others; i++)
		if (others[i]) {
			kill(others[i], SIGKILL);
			waitpid(others[i], &status, 0);
		}
	printf("kills=%" PRIu64 "\n", kills);
	return failed ? 3 : 0;
}

enum {
	WRITERS = 256,
	CHECKPOINTERS,
	SECONDS,
	COUNT,
	RATE,
	AUTOCHECKPOINT,
	BUSY,
	CACHE,
	PAGE_SIZE,
	KEYS,
	MAX_BLOB,
	SMALL,
	LARGE,
	LARGE_EVERY,
	AUTO_VACUUM,
	VACUUM_EVERY,
	REOPEN,
	KILL,
	IDLE,
	BREATHE,
	SEED,
	SYNC,
	HOLD,
	VERSION
};
static const struct option long_options[] = {
        {"writers", 1, NULL, WRITERS},
        {"checkpointers", 1, NULL, CHECKPOINTERS},
        {"seconds", 1, NULL, SECONDS},
        {"count", 1, NULL, COUNT},
        {"rate", 1, NULL, RATE},
        {"autocheckpoint", 1, NULL, AUTOCHECKPOINT},
        {"busy", 1, NULL, BUSY},
        {"cache", 1, NULL, CACHE},
        {"page-size", 1, NULL, PAGE_SIZE},
        {"keys", 1, NULL, KEYS},
        {"max-blob", 1, NULL, MAX_BLOB},
        {"small", 1, NULL, SMALL},
        {"large", 1, NULL, LARGE},
        {"large-every", 1, NULL, LARGE_EVERY},
        {"auto-vacuum", 1, NULL, AUTO_VACUUM},
        {"vacuum-every", 1, NULL, VACUUM_EVERY},
        {"reopen", 1, NULL, REOPEN},
        {"kill", 1, NULL, KILL},
        {"idle", 1, NULL, IDLE},
        {"breathe", 1, NULL, BREATHE},
        {"seed", 1, NULL, SEED},
        {"synchronous", 1, NULL, SYNC},
        {"hold", 0, NULL, HOLD},
        {"version", 0, NULL, VERSION},
        {NULL, 0, NULL, 0},
};

static bool take_option(int id, const char *arg)
{
	double d = arg ? strtod(arg, NULL) : 0;

	switch (id) {
	case WRITERS:
		o.writers = (unsigned)d;
		return d >= 0 && d < 32;
	case CHECKPOINTERS:
		o.checkpointers = (unsigned)d;
		return d >= 0 && d < 8;
	case SECONDS:
		o.seconds = d;
		return true;
	case COUNT:
		o.count = (uint64_t)d;
		return true;
	case RATE:
		o.rate = d;
		return true;
	case AUTOCHECKPOINT:
		o.autocheckpoint = (int)d;
		return true;
	case BUSY:
		o.busy_ms = (int)d;
		return true;
	case CACHE:
		o.cache = (int)d;
		return true;
	case PAGE_SIZE:
		o.page_size = (unsigned)d;
		return true;
	case KEYS:
		o.keys = (unsigned)d;
		return o.keys > 0;
	case MAX_BLOB:
		o.max_blob = (unsigned)d;
		return true;
	case SMALL:
		o.small_percent = (unsigned)d;
		return true;
	case LARGE:
		o.large_rows = (unsigned)d;
		return o.large_rows > 0;
	case LARGE_EVERY:
		o.large_every = (unsigned)d;
		return o.large_every > 0;
	case AUTO_VACUUM:
		o.auto_vacuum = (int)d;
		return true;
	case VACUUM_EVERY:
		o.vacuum_every_s = d;
		return true;
	case REOPEN:
		o.reopen_every = (unsigned)d;
		return true;
	case KILL:
		o.kill_every_s = d;
		return true;
	case IDLE:
		o.idle_ms = (unsigned)d;
		return true;
	case BREATHE:
		o.breathe_ms = (unsigned)d;
		return true;
	case SEED:
		o.seed = (uint64_t)d;
		return true;
	case SYNC:
		o.synchronous = arg;
		return true;
	case HOLD:
		o.keep_open = true;
		return true;
	case VERSION:
		puts(sqlite3_libversion());
		exit(0);
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	int id, status;

	while ((id = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
		if (!take_option(id, optarg))
			return 2;
	if (argc - optind != 2) {
		fprintf(stderr,
		        "usage: oracle_writer [OPTION]... DB SLOTS (options: see the source)\n");
		return 2;
	}
	o.path = argv[optind];
	o.slots_path = argv[optind + 1];
	if (!map_slots()) {
		perror(o.slots_path);
		return 1;
	}
	signal(SIGTERM, on_term);
	slots[ORACLE_SLOTS - 1].spare[0] = 0;
	waitpid(spawn(create_child, 0, 0), &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return 3;
	return o.writers ? parent() : 0;
}

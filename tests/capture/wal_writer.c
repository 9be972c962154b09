/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An application for measuring: small transactions as fast as they go, or at a rate.
 *
 *   wal_writer DB SECONDS [RATE [synchronous]]
 *
 * Prints commits per second and the latency of BEGIN..COMMIT at p50 and p99 in microseconds,
 * one line for each second, so that a script can switch capture on and off meanwhile.
 */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define LATENCIES 200000

static double now_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

static void must(sqlite3 *db, int rc)
{
	if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW) {
		fprintf(stderr, "wal_writer: %s\n", sqlite3_errmsg(db));
		exit(1);
	}
}

static void line(double second, unsigned n, float *latency_us)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	qsort(latency_us, n, sizeof(*latency_us), by_value);
	printf("%.0f %u %.1f %.1f %ld\n", second, n, n ? (double)latency_us[n / 2] : 0,
	       n ? (double)latency_us[n * 99 / 100] : 0,
	       (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	               (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *insert = NULL;
	char sql[64], value[101];
	float *latency_us = calloc(LATENCIES, sizeof(*latency_us));

	if (argc < 3 || !latency_us)
		return 2;
	double seconds = strtod(argv[2], NULL), rate = argc > 3 ? strtod(argv[3], NULL) : 0;
	memset(value, 'x', sizeof(value) - 1);
	value[100] = 0;
	must(NULL, sqlite3_open(argv[1], &db));
	sqlite3_busy_timeout(db, 5000);
	snprintf(sql, sizeof(sql), "PRAGMA synchronous=%s", argc > 4 ? argv[4] : "NORMAL");
	must(db, sqlite3_exec(db, "PRAGMA journal_mode=wal", NULL, NULL, NULL));
	must(db, sqlite3_exec(db, sql, NULL, NULL, NULL));
	must(db, sqlite3_exec(db, "CREATE TABLE IF NOT EXISTS w(id INTEGER PRIMARY KEY, v TEXT)",
	                      NULL, NULL, NULL));
	must(db,
	     sqlite3_prepare_v2(db, "INSERT OR REPLACE INTO w VALUES(?1, ?2)", -1, &insert, NULL));
	double start = now_s(), second = start;
	unsigned n = 0;
	uint64_t done = 0;
	for (uint32_t seed = 1;; done++) {
		double t0 = now_s();
		if (t0 - second >= 1) {
			line(second - start, n, latency_us);
			second = t0;
			n = 0;
		}
		if (t0 - start >= seconds)
			break;
		seed = seed * 1664525u + 1013904223u;
		sqlite3_bind_int64(insert, 1, (seed >> 8) % 20000);
		sqlite3_bind_text(insert, 2, value, -1, SQLITE_STATIC);
		must(db, sqlite3_step(insert));
		must(db, sqlite3_reset(insert));
		double t1 = now_s();
		if (n < LATENCIES)
			latency_us[n++] = (float)((t1 - t0) * 1e6);
		double wait = rate > 0 ? start + (double)(done + 1) / rate - t1 : 0;
		if (wait > 0)
			nanosleep(
			        &(struct timespec){
			                .tv_sec = (time_t)wait,
			                .tv_nsec = (long)((wait - (double)(time_t)wait) * 1e9)},
			        NULL);
	}
	sqlite3_finalize(insert);
	sqlite3_close(db);
	free(latency_us);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Facts → verdict: from facts that are well, each thing that goes wrong makes it unhealthy by its own
 * code, in the line of what it concerns; and metrics of them are text with one line for a sample. */
#include "engine/base/clock.h"
#include "engine/monitor/health.h"
#include "engine/monitor/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1700000000000000)
#define AGO(s) (NOW - (int64_t)(s)*US_PER_SECOND)
#define HOUR 3600

/* All is well. */
struct world {
	struct health_facts f;
	struct health_database db;
	struct health_destination dest;
	struct health_archive archive;
	struct health_job jobs[2];
	struct health_backups backup;
};

static void make_well(struct world *w)
{
	*w = (struct world){
	        .f = {.at_us = AGO(1), .daemon_answers = true, .pid = 1, .started_us = AGO(HOUR)},
	        .db = {.name = "a.db",
	               .path = "/data/a.db",
	               .archive = "/backups",
	               .told = true,
	               .state = "replicating",
	               .attached = true,
	               .settled = true,
	               .exists = true,
	               .stored = true,
	               .first_txid = 1,
	               .last_txid = 9,
	               .first_us = AGO(90 * 24 * HOUR),
	               .last_us = AGO(60),
	               .known_until_us = AGO(1),
	               .restorable_at_us = AGO(5),
	               .verify_every_us = HOUR * US_PER_SECOND,
	               .verified = {.through_txid = 8,
	                            .through_us = AGO(HOUR),
	                            .at_us = AGO(HOUR),
	                            .full_at_us = AGO(HOUR),
	                            .integrity = "ok",
	                            .unverified_since_us = AGO(60)}},
	        .dest = {.name = "far",
	                 .url = "/far",
	                 .replicated_txid = 9,
	                 .replicated_us = AGO(60),
	                 .sync_interval_us = US_PER_SECOND,
	                 .verify_every_us = 6 * HOUR * US_PER_SECOND,
	                 .verified = {.at_us = AGO(HOUR)}},
	        .archive = {.root = "/backups",
	                    .total_bytes = 100,
	                    .free_bytes = 50,
	                    .reserve_bytes = 5,
	                    .full_in_s = -1},
	        .jobs = {{.job = "backup nightly",
	                  .database = "a.db",
	                  .ended_us = AGO(9),
	                  .ok = true},
	                 {.job = "copy far", .database = "a.db", .ended_us = AGO(9), .ok = true}},
	        .backup = {.root = "/backups", .database = "a.db", .count = 2, .latest_us = AGO(9)},
	};
	w->db.destinations = &w->dest;
	w->db.n_destinations = 1;
	w->f.databases = &w->db;
	w->f.archives = &w->archive;
	w->f.jobs = w->jobs;
	w->f.backups = &w->backup;
	w->f.n_databases = w->f.n_archives = w->f.n_backups = 1;
	w->f.n_jobs = 2;
}

static void judge(const struct world *w, struct health_verdict *v)
{
	struct health_limits limits;

	health_limits_default(&limits);
	assert_int_equal(health_judge(&w->f, &limits, NOW, v, NULL), 0);
}

static void test_all_is_well(void **state)
{
	cleanup_health_verdict struct health_verdict v = {0};
	struct world w;

	make_well(&w);
	judge(&w, &v);
	assert_true(v.healthy);
	assert_int_equal(v.level, HEALTH_OK);
	assert_int_equal(v.n, 5); /* daemon, archive, database, destination, backup */
	for (size_t i = 0; i < v.n; i++) {
		assert_string_equal(v.lines[i].reason, "");
		assert_int_equal(v.lines[i].code, HEALTH_FINE);
	}
}

/* ---- one thing at a time ---- */

#define WRONG(name, change)                                                                        \
	static void name(struct world *w)                                                          \
	{                                                                                          \
		change;                                                                            \
	}
WRONG(w_stale, w->f.at_us = AGO(60))
WRONG(w_never, w->f.at_us = 0)
WRONG(w_silent, w->f.daemon_answers = false)
WRONG(w_listen, strcpy(w->f.listen_problem, "taken"))
WRONG(w_none, w->f.n_databases = 0)
WRONG(w_clock_set, w->f.jump_us = -3 * US_PER_SECOND; w->f.jumped_us = AGO(60))
WRONG(w_clock_behind, w->db.last_us = AGO(-3))
WRONG(w_archive_gone, strcpy(w->archive.unreadable, "gone"))
WRONG(w_read_only, w->archive.read_only = true)
WRONG(w_full, w->archive.free_bytes = 4)
WRONG(w_soon_full, w->archive.full_in_s = 2 * 24 * HOUR)
WRONG(w_empty, w->db.stored = false)
WRONG(w_unreadable, strcpy(w->db.unreadable, "gone"))
WRONG(w_broken, strcpy(w->db.not_restorable, "damaged"))
WRONG(w_waiting, strcpy(w->db.state, "waiting"))
WRONG(w_failed, strcpy(w->db.state, "failed"))
WRONG(w_paused, strcpy(w->db.state, "paused"))
WRONG(w_trouble, strcpy(w->db.reason, "disk full"))
WRONG(w_detached, w->db.attached = false; strcpy(w->db.reason, "the application holds it"))
WRONG(w_late, w->db.known_until_us = AGO(31))
WRONG(w_gap, w->db.gaps = 1; w->db.last_gap_us = AGO(HOUR))
WRONG(w_damaged, w->db.verified.damaged = 1)
WRONG(w_integrity, strcpy(w->db.verified.integrity, "row 7 missing"))
WRONG(w_unverified, w->db.verified.at_us = AGO(4 * HOUR))
WRONG(w_never_verified, w->db.verified.at_us = 0)
WRONG(w_stuck, w->db.verified.unverified_since_us = AGO(7 * HOUR))
WRONG(w_not_configured, strcpy(w->dest.not_configured, "no bucket"))
WRONG(w_dest_gone, strcpy(w->dest.unreadable, "gone"))
WRONG(w_dest_late, w->dest.behind_since_us = AGO(400))
WRONG(w_dest_empty, w->dest.replicated_txid = 0; w->dest.behind_since_us = AGO(400))
WRONG(w_dest_fails, w->dest.behind_since_us = AGO(9); w->jobs[1].ok = false)
WRONG(w_dest_fenced, w->dest.fenced = true)
WRONG(w_dest_trouble, w->dest.behind_since_us = AGO(9); strcpy(w->dest.trouble, "403");
      w->dest.trouble_us = AGO(90))
WRONG(w_dest_damaged, w->dest.verified.damaged = 3)
WRONG(w_dest_unverified, w->dest.verified.at_us = AGO(19 * HOUR))
/* Empty, and something goes there; then nothing does. */
WRONG(w_dest_begun, w->dest.replicated_txid = 0; w->dest.behind_since_us = AGO(90 * HOUR);
      w->dest.progress_us = AGO(10))
WRONG(w_dest_stuck, w->dest.replicated_txid = 0; w->dest.behind_since_us = AGO(90 * HOUR);
      w->dest.progress_us = AGO(400))
WRONG(w_dest_new, w->dest.replicated_txid = 0; w->dest.behind_since_us = AGO(90 * HOUR);
      w->f.started_us = AGO(20))
WRONG(w_absent_alone, strcpy(w->db.state, "waiting"); w->db.exists = w->db.stored = false)
WRONG(w_backup, w->jobs[0].ok = false)

static const struct {
	void (*change)(struct world *w);
	enum health_subject subject;
	enum health_code code;
	enum health_level level;
} wrongs[] = {
        {w_stale, HEALTH_DAEMON, HEALTH_STALE_FACTS, HEALTH_BAD},
        {w_never, HEALTH_DAEMON, HEALTH_STALE_FACTS, HEALTH_BAD},
        {w_silent, HEALTH_DAEMON, HEALTH_DAEMON_SILENT, HEALTH_BAD},
        {w_listen, HEALTH_DAEMON, HEALTH_NOT_LISTENING, HEALTH_BAD},
        {w_none, HEALTH_DAEMON, HEALTH_NOTHING_TO_DO, HEALTH_BAD},
        {w_clock_set, HEALTH_DAEMON, HEALTH_CLOCK, HEALTH_WARN},
        {w_clock_behind, HEALTH_DATABASE, HEALTH_CLOCK, HEALTH_WARN},
        {w_archive_gone, HEALTH_ARCHIVE, HEALTH_UNREADABLE, HEALTH_BAD},
        {w_read_only, HEALTH_ARCHIVE, HEALTH_READ_ONLY, HEALTH_BAD},
        {w_full, HEALTH_ARCHIVE, HEALTH_NO_SPACE, HEALTH_BAD},
        {w_soon_full, HEALTH_ARCHIVE, HEALTH_SPACE_SHORT, HEALTH_WARN},
        {w_empty, HEALTH_DATABASE, HEALTH_NOTHING_STORED, HEALTH_BAD},
        {w_unreadable, HEALTH_DATABASE, HEALTH_UNREADABLE, HEALTH_BAD},
        {w_broken, HEALTH_DATABASE, HEALTH_NOT_RESTORABLE, HEALTH_BAD},
        {w_waiting, HEALTH_DATABASE, HEALTH_NOT_CAPTURING, HEALTH_BAD},
        {w_failed, HEALTH_DATABASE, HEALTH_NOT_CAPTURING, HEALTH_BAD},
        {w_paused, HEALTH_DATABASE, HEALTH_NOT_CAPTURING, HEALTH_BAD},
        {w_trouble, HEALTH_DATABASE, HEALTH_NOT_CAPTURING, HEALTH_BAD},
        {w_detached, HEALTH_DATABASE, HEALTH_NOT_CAPTURING, HEALTH_WARN},
        {w_late, HEALTH_DATABASE, HEALTH_CAPTURE_LATE, HEALTH_BAD},
        {w_gap, HEALTH_DATABASE, HEALTH_RECENT_GAP, HEALTH_WARN},
        {w_damaged, HEALTH_DATABASE, HEALTH_DAMAGED, HEALTH_BAD},
        {w_integrity, HEALTH_DATABASE, HEALTH_INTEGRITY, HEALTH_BAD},
        {w_unverified, HEALTH_DATABASE, HEALTH_NOT_VERIFIED, HEALTH_BAD},
        {w_never_verified, HEALTH_DATABASE, HEALTH_NOT_VERIFIED, HEALTH_BAD},
        {w_stuck, HEALTH_DATABASE, HEALTH_NOT_VERIFIED, HEALTH_BAD},
        {w_not_configured, HEALTH_DESTINATION, HEALTH_NOT_CONFIGURED, HEALTH_WARN},
        {w_dest_gone, HEALTH_DESTINATION, HEALTH_UNREADABLE, HEALTH_BAD},
        {w_dest_late, HEALTH_DESTINATION, HEALTH_REPLICATION_LATE, HEALTH_BAD},
        {w_dest_empty, HEALTH_DESTINATION, HEALTH_NOT_REPLICATED, HEALTH_BAD},
        {w_dest_fails, HEALTH_DESTINATION, HEALTH_JOB_FAILED, HEALTH_BAD},
        {w_dest_fenced, HEALTH_DESTINATION, HEALTH_FENCED, HEALTH_BAD},
        {w_dest_trouble, HEALTH_DESTINATION, HEALTH_NOT_SENDING, HEALTH_BAD},
        {w_dest_damaged, HEALTH_DESTINATION, HEALTH_DAMAGED, HEALTH_BAD},
        {w_dest_unverified, HEALTH_DESTINATION, HEALTH_NOT_VERIFIED, HEALTH_BAD},
        {w_dest_begun, HEALTH_DESTINATION, HEALTH_NOT_REPLICATED, HEALTH_WARN},
        {w_dest_new, HEALTH_DESTINATION, HEALTH_NOT_REPLICATED, HEALTH_WARN},
        {w_dest_stuck, HEALTH_DESTINATION, HEALTH_NOT_REPLICATED, HEALTH_BAD},
        {w_absent_alone, HEALTH_DATABASE, HEALTH_NOT_CAPTURING, HEALTH_BAD},
        {w_backup, HEALTH_JOB, HEALTH_JOB_FAILED, HEALTH_BAD},
};
#define N_WRONGS (sizeof(wrongs) / sizeof(wrongs[0]))

static void test_each_thing_that_goes_wrong(void **state)
{
	for (size_t i = 0; i < N_WRONGS; i++) {
		cleanup_health_verdict struct health_verdict v = {0};
		struct world w;
		size_t n = 0;
		make_well(&w);
		wrongs[i].change(&w);
		judge(&w, &v);
		assert_int_equal(v.level, wrongs[i].level);
		assert_int_equal(v.healthy, wrongs[i].level < HEALTH_BAD);
		for (size_t k = 0; k < v.n; k++) {
			if (v.lines[k].level == HEALTH_OK)
				continue;
			n++;
			assert_int_equal(v.lines[k].code, wrongs[i].code);
			assert_int_equal(v.lines[k].subject, wrongs[i].subject);
			assert_true(v.lines[k].reason[0]);
		}
		if (n != 1)
			fail_msg("case %zu: %zu lines tell of it", i, n);
	}
}

/* A second database whose file may never come: nothing is wrong, and its line says so; but of one that
 * was there, or lies there and cannot be captured, something is. */
static void test_waited_for(void **state)
{
	for (int k = 0; k < 4; k++) {
		cleanup_health_verdict struct health_verdict v = {0};
		struct health_database two[2];
		struct world w;
		make_well(&w);
		two[0] = w.db;
		two[1] = (struct health_database){
		        .name = "b.db", .told = true, .state = "waiting", .verify_every_us = 1};
		two[1].stored = k == 1;
		two[1].exists = k == 2;
		strcpy(two[1].unreadable, k == 3 ? "damaged" : "");
		w.f.databases = two;
		w.f.n_databases = 2;
		judge(&w, &v);
		assert_int_equal(v.healthy, k == 0);
		const struct health_line *l = &v.lines[4];
		assert_string_equal(l->name, "b.db");
		if (k == 0) {
			assert_int_equal(l->level, HEALTH_OK);
			assert_int_equal(l->code, HEALTH_WAITING);
			assert_int_equal(strncmp(l->reason, "waiting", 7), 0);
			assert_int_equal(v.n_problems, 0);
		}
	}
}

static bool is_about_what_lies_there(size_t i)
{
	enum health_code c = wrongs[i].code;

	return wrongs[i].subject == HEALTH_DESTINATION &&
	       (c == HEALTH_NOT_REPLICATED || c == HEALTH_REPLICATION_LATE || c == HEALTH_DAMAGED ||
	        c == HEALTH_NOT_VERIFIED);
}

/* Whatever else is wrong besides, in whatever order: never healthier than its worst part. */
static void test_two_things(void **state)
{
	for (size_t i = 0; i < N_WRONGS; i++)
		for (size_t k = 0; k < N_WRONGS; k++) {
			cleanup_health_verdict struct health_verdict v = {0};
			struct world w;
			make_well(&w);
			wrongs[i].change(&w);
			wrongs[k].change(&w);
			judge(&w, &v);
			/* Of one that is let go of, what cannot be written is late soon enough. */
			if ((wrongs[i].change == w_trouble && wrongs[k].change == w_detached) ||
			    (wrongs[k].change == w_trouble && wrongs[i].change == w_detached))
				continue;
			/* Where nothing goes by configuration, nothing else can be wrong. */
			if ((wrongs[i].change == w_not_configured &&
			     wrongs[k].subject == HEALTH_DESTINATION) ||
			    (wrongs[k].change == w_not_configured &&
			     wrongs[i].subject == HEALTH_DESTINATION))
				continue;
			/* A destination is empty in one way, or holds what is damaged, or late. */
			if (is_about_what_lies_there(i) && is_about_what_lies_there(k))
				continue;
			if (wrongs[i].level == HEALTH_BAD || wrongs[k].level == HEALTH_BAD)
				if (v.healthy)
					fail_msg("cases %zu and %zu are healthy", i, k);
		}
}

/* A clock that was set between two looks, and one that was not. */
static void test_clock(void **state)
{
	static const struct {
		double wall_s, boot_s, jump_s; /* passed, by each; 0: it was not set */
	} cases[] = {{2, 2, 0},
	             {5, 2, 3},
	             {-1, 2, -3},
	             {2.9, 2, 0},
	             {3600, 3600, 0},
	             {8 * 3600.0, 8 * 3600.0, 0},
	             {3601.8, 3600, 0},
	             {3600, 3610, -10},
	             {0, 2, -2},
	             {86400.0, 1, 86399},
	             {-86400.0, 1, -86401}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct health_facts former = {.at_us = NOW, .boot_us = 7 * US_PER_SECOND}, f = {0};
		f.at_us = NOW + (int64_t)(cases[i].wall_s * 1e6);
		f.boot_us = former.boot_us + (int64_t)(cases[i].boot_s * 1e6);
		health_watch_clock(&former, &f);
		if (f.jump_us / US_PER_SECOND != (int64_t)cases[i].jump_s)
			fail_msg("case %zu: %lld µs", i, (long long)f.jump_us);
		assert_true(f.jumped_us == (f.jump_us ? f.at_us : 0));
		/* It is remembered. */
		struct health_facts later = {.at_us = f.at_us + 2 * US_PER_SECOND,
		                             .boot_us = f.boot_us + 2 * US_PER_SECOND};
		health_watch_clock(&f, &later);
		assert_true(later.jump_us == f.jump_us && later.jumped_us == f.jumped_us);
		/* The first look knows nothing. */
		health_watch_clock(&(struct health_facts){0}, &later);
		assert_true(later.jump_us == 0);
	}
}

/* A daemon that is gone is told of once, and so is an archive; not what comes of it, in each database
 * and destination.  Damage and the like comes of neither. */
static void test_what_comes_of_what(void **state)
{
	static const struct {
		void (*change)(struct world *w), (*other)(struct world *w);
		bool follows;
	} cases[] = {
	        {w_silent, w_late, true},
	        {w_stale, w_late, true},
	        {w_silent, w_unverified, true},
	        {w_silent, w_dest_late, true},
	        {w_silent, w_dest_trouble, true},
	        {w_silent, w_dest_empty, true},
	        {w_silent, w_damaged, false},
	        {w_silent, w_integrity, false},
	        {w_silent, w_broken, false},
	        {w_silent, w_empty, false},
	        {w_silent, w_dest_fenced, false},
	        {w_silent, w_backup, false},
	        {w_silent, w_full, false},
	        {w_listen, w_late, false},
	        {w_archive_gone, w_unreadable, true},
	        {w_archive_gone, w_late, true},
	        {w_archive_gone, w_failed, true},
	        {w_full, w_trouble, true},
	        {w_read_only, w_late, true},
	        {w_soon_full, w_late, false},
	        {w_archive_gone, w_dest_gone, false},
	        {w_archive_gone, w_dest_late, false},
	        {w_full, w_damaged, false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cleanup_health_verdict struct health_verdict v = {0};
		struct world w;
		make_well(&w);
		cases[i].change(&w);
		cases[i].other(&w);
		judge(&w, &v);
		if (v.n_problems != 2)
			fail_msg("case %zu: %zu problems", i, v.n_problems);
		assert_false(v.healthy);
		assert_false(v.problems[0].follows);
		if (v.problems[1].follows != cases[i].follows)
			fail_msg("case %zu", i);
		/* By itself it comes of nothing. */
		health_verdict_release(&v);
		make_well(&w);
		cases[i].other(&w);
		judge(&w, &v);
		assert_int_equal(v.n_problems, 1);
		assert_false(v.problems[0].follows);
	}
}

/* Lines of metrics: NAME{LABELS} VALUE, each name after its HELP and TYPE, no sample twice. */
static void test_metrics(void **state)
{
	for (size_t i = 0; i <= N_WRONGS; i++) {
		cleanup_health_verdict struct health_verdict v = {0};
		cleanup_buf struct buf b = BUF_INIT(1 << 20);
		struct world w;
		make_well(&w);
		strcpy(w.db.path, "/data/\"a\\b\n.db");
		if (i < N_WRONGS)
			wrongs[i].change(&w);
		judge(&w, &v);
		assert_int_equal(metrics_write(&w.f, &v, NULL, NOW, &b, NULL), 0);
		assert_int_equal(buf_append(&b, "", 1, NULL), 0);
		char *text = (char *)b.data;
		assert_null(strstr(text, "nan"));
		assert_non_null(
		        strstr(text, v.healthy ? "\nasof_healthy 1\n" : "\nasof_healthy 0\n"));
		if (w.f.n_databases)
			assert_non_null(
			        strstr(text, "\nasof_capturing{db=\"/data/\\\"a\\\\b\\n.db\"} "));
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
			assert_true(strncmp(line, "# HELP ", 7) == 0 ||
			            strncmp(line, "# TYPE ", 7) == 0 ||
			            (strchr(line, ' ') && line[0] >= 'a' && line[0] <= 'z'));
	}
}

/* Whatever the names and however many of each: the first of a name, and all of it behind it. */
static void test_names(void **state)
{
	struct health_database databases[40] = {0};
	struct health_facts f = {.databases = databases, .n_databases = 40};

	for (size_t i = 0; i < 40; i++)
		snprintf(databases[i].name, sizeof(databases[i].name), "%zu.db", i * 7 % 13);
	struct health_name *names = health_names(&f);
	assert_non_null(names);
	for (size_t i = 0; i < 40; i++) {
		size_t first = 0, k = health_names_find(names, 40, databases[i].name);
		while (strcmp(databases[first].name, databases[i].name) != 0)
			first++;
		assert_true(k < 40);
		assert_int_equal(names[k].database, first);
		for (size_t d = first; d < 40; d++)
			if (strcmp(databases[d].name, databases[i].name) == 0)
				assert_int_equal(names[k++].database, d);
	}
	assert_int_equal(health_names_find(names, 40, "no.db"), 40);
	assert_int_equal(health_names_find(names, 40, ""), 40);
	assert_int_equal(health_names_find(names, 0, "0.db"), 0);
	free(names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_all_is_well),
	        cmocka_unit_test(test_each_thing_that_goes_wrong),
	        cmocka_unit_test(test_names),
	        cmocka_unit_test(test_waited_for),
	        cmocka_unit_test(test_two_things),
	        cmocka_unit_test(test_what_comes_of_what),
	        cmocka_unit_test(test_clock),
	        cmocka_unit_test(test_metrics),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What was run and how it ended: nothing written is lost, whatever a crash leaves at the end of the
 * file, the files stay bounded, and the last run of each job is known for ever. */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/monitor/journal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char root[64];

static int set_up(void **state)
{
	snprintf(root, sizeof(root), "/tmp/asof-journal-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static struct journal *open_journal(void)
{
	struct journal *j = NULL;
	struct err err = ERR_INIT;

	if (journal_open(root, &j, &err) < 0)
		fail_msg("%s", err.msg);
	return j;
}

static struct journal_entry entry(const char *job, const char *database, int i)
{
	struct journal_entry e = {.scheduled_us = INT64_C(1700000000000000) + i,
	                          .began_us = INT64_C(1700000001000000) + i * 1000,
	                          .ended_us = INT64_C(1700000002000000) + i * 1000,
	                          .ok = i % 3 != 0};
	snprintf(e.job, sizeof(e.job), "%s", job);
	snprintf(e.database, sizeof(e.database), "%s", database);
	snprintf(e.message, sizeof(e.message), "run %d: \"quoted\"\n\\ and \xc3\xbc", i);
	return e;
}

static void assert_same(const struct journal_entry *a, const struct journal_entry *b)
{
	assert_string_equal(a->job, b->job);
	assert_string_equal(a->database, b->database);
	assert_string_equal(a->message, b->message);
	assert_true(a->scheduled_us == b->scheduled_us && a->began_us == b->began_us &&
	            a->ended_us == b->ended_us && a->ok == b->ok);
}

static size_t size_of(const char *name)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	return stat(path, &st) == 0 ? (size_t)st.st_size : 0;
}

static void test_what_is_written_is_read(void **state)
{
	struct journal *j = open_journal();
	struct journal_list l;
	struct journal_entry last;

	for (int i = 0; i < 100; i++) {
		struct journal_entry e = entry(i % 2 ? "verify" : "backup", "a.db", i);
		assert_int_equal(journal_append(j, &e, NULL), 0);
	}
	assert_int_equal(journal_read(root, 1000, &l, NULL), 0);
	assert_int_equal(l.n, 100);
	for (int i = 0; i < 100; i++) {
		struct journal_entry e = entry(i % 2 ? "verify" : "backup", "a.db", i);
		assert_same(&l.entries[i], &e);
	}
	journal_list_release(&l);
	assert_int_equal(journal_read(root, 7, &l, NULL), 0);
	assert_int_equal(l.n, 7);
	assert_int_equal(l.entries[6].scheduled_us, INT64_C(1700000000000099));
	journal_list_release(&l);
	journal_free(j);
	j = open_journal();
	assert_true(journal_last(j, "verify", "a.db", &last));
	assert_int_equal(last.scheduled_us, INT64_C(1700000000000099));
	assert_false(journal_last(j, "verify", "b.db", &last));
	journal_free(j);
}

static void test_no_journal(void **state)
{
	struct journal_list l;

	assert_int_equal(journal_read(root, 10, &l, NULL), 0);
	assert_int_equal(l.n, 0);
	journal_list_release(&l);
}

static void test_one_writer(void **state)
{
	struct journal *j = open_journal(), *second = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(journal_open(root, &second, &err), -ERR_BUSY);
	journal_free(j);
	j = open_journal();
	journal_free(j);
}

/* Cut at every byte, and with anything behind it: what was whole before stays, and so does what
 * comes after. */
static void test_cut_anywhere(void **state)
{
	char path[128];
	struct journal_entry a = entry("backup", "a.db", 1), b = entry("verify", "a.db", 2),
	                     c = entry("retain", "a.db", 4);

	snprintf(path, sizeof(path), "%s/journal", root);
	struct journal *j = open_journal();
	assert_int_equal(journal_append(j, &a, NULL), 0);
	size_t first = size_of("journal");
	assert_int_equal(journal_append(j, &b, NULL), 0);
	size_t both = size_of("journal");
	journal_free(j);
	for (size_t cut = both; cut > first; cut--) {
		struct journal_list l;
		assert_int_equal(truncate(path, (off_t)cut), 0);
		j = open_journal();
		assert_int_equal(journal_append(j, &c, NULL), 0);
		journal_free(j);
		assert_int_equal(journal_read(root, 10, &l, NULL), 0);
		/* Without its last byte, the end of the line, b is whole again when c is added. */
		size_t n = cut >= both - 1 ? 3 : 2;
		assert_int_equal(l.n, n);
		assert_same(&l.entries[0], &a);
		assert_same(&l.entries[n - 1], &c);
		journal_list_release(&l);
	}
}

static void test_rubbish_is_passed_over(void **state)
{
	static const char *const rubbish[] = {
	        "",
	        "{",
	        "null",
	        "[]",
	        "{}",
	        "{\"job\":1}",
	        "{\"job\":\"x\",\"database\":\"\"}",
	        "{\"job\":\"x\",\"database\":\"\",\"message\":\"\",\"scheduled\":\"never\","
	        "\"began\":null,\"ended\":null,\"ok\":true}",
	        "\xff\xfe",
	};
	struct journal_entry e;

	for (size_t i = 0; i < sizeof(rubbish) / sizeof(*rubbish); i++)
		assert_false(journal_parse(rubbish[i], strlen(rubbish[i]), &e));
}

/* However many runs, two files of bounded size; a job that ran once, long ago, is remembered. */
static void test_bounded_and_remembered(void **state)
{
	struct journal *j = open_journal();
	struct journal_entry rare = entry("backup yearly", "old.db", 1), last, seen;

	rare.ended_us = 0; /* first seen, not run yet */
	assert_int_equal(journal_append(j, &rare, NULL), 0);
	for (int i = 2; i < 12000; i++) {
		struct journal_entry e = entry("verify", "a.db", i);
		memset(e.message, 'x', sizeof(e.message) - 1);
		assert_int_equal(journal_append(j, &e, NULL), 0);
		if (i % 1000 == 0) { /* each opening reads all of it */
			journal_free(j);
			j = open_journal();
		}
	}
	assert_true(size_of("journal") < JOURNAL_BYTES + 4096);
	assert_true(size_of("journal.1") < JOURNAL_BYTES + 4096);
	assert_true(size_of("journal.1") > 0);
	journal_free(j);
	j = open_journal();
	assert_true(journal_last(j, "backup yearly", "old.db", &seen));
	assert_int_equal(seen.ended_us, 0);
	assert_true(journal_last(j, "verify", "a.db", &last));
	assert_int_equal(last.scheduled_us, INT64_C(1700000000000000) + 11999);
	journal_free(j);
	struct journal_list l;
	assert_int_equal(journal_read(root, 100000, &l, NULL), 0);
	for (size_t i = 1; i < l.n; i++)
		assert_true(l.entries[i].began_us > l.entries[i - 1].began_us);
	journal_list_release(&l);
}

#define test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        test(test_what_is_written_is_read),
	        test(test_no_journal),
	        test(test_one_writer),
	        test(test_cut_anywhere),
	        test(test_rubbish_is_passed_over),
	        test(test_bounded_and_remembered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

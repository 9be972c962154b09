/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: one each, valid whatever the bytes; files that turn over by themselves lose none. */
#include "engine/base/log.h"

#include "engine/base/cleanup.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define THREADS 4
#define LINES 500

static char folder[PATH_MAX], path[PATH_MAX + 16];

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/log-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/asof.log", folder);
	return 0;
}

static int tear_down(void **state)
{
	log_set_fd(STDERR_FILENO);
	log_set_format(LOG_TEXT);
	for (int i = 0; i < 20; i++) {
		char name[PATH_MAX + 32];
		snprintf(name, sizeof(name), i ? "%s.%d" : "%s", path, i);
		unlink(name);
	}
	return rmdir(folder);
}

/* The whole file, number 0 the newest; NULL: none.  free() it. */
static char *content(int number, size_t *ret_len)
{
	char name[PATH_MAX + 32], *text = NULL;
	struct err err = ERR_INIT;

	snprintf(name, sizeof(name), number ? "%s.%d" : "%s", path, number);
	return file_get(AT_FDCWD, name, 1 << 26, &text, ret_len, &err) ? NULL : text;
}

static void to_file(uint64_t max_bytes, unsigned keep)
{
	struct err err = ERR_INIT;

	assert_int_equal(log_set_file(path, max_bytes, keep, &err), 0);
}

static void test_text_is_one_line(void **state)
{
	size_t len;
	char all[256];

	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	all[255] = '\0';
	to_file(0, 0);
	log_warn("unit", "%s", all);
	cleanup_free char *text = content(0, &len);
	assert_non_null(strstr(text, "Z warn unit "));
	for (size_t i = 0; i + 1 < len; i++)
		assert_false((unsigned char)text[i] < 0x20 || text[i] == 0x7f);
	assert_int_equal(text[len - 1], '\n');
}

static json_t *last_json(const char *text)
{
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "level")), "error");
	assert_string_equal(json_string_value(json_object_get(o, "module")), "unit");
	assert_non_null(strchr(json_string_value(json_object_get(o, "time")), 'Z'));
	return o;
}

/* Every byte alone, every pair of bytes above 0x7f, and a message cut in a character. */
static void test_json_is_valid_for_any_bytes(void **state)
{
	char long_text[3000];
	size_t len;

	log_set_format(LOG_JSON);
	for (int i = 1; i < 256; i++)
		for (int k = i < 0x80 ? 0x100 : 0x80; k < 0x101; k++) {
			char bytes[] = {'a', (char)i, (char)(k & 0xff), 'z', 0};
			if (k == 0x100) {
				bytes[2] = 'z';
				bytes[3] = '\0';
			}
			to_file(0, 0);
			assert_int_equal(truncate(path, 0), 0);
			log_error("unit", "%s", bytes);
			cleanup_free char *text = content(0, &len);
			assert_ptr_equal(memchr(text, '\n', len), text + len - 1);
			json_t *o = last_json(text);
			const char *message = json_string_value(json_object_get(o, "message"));
			assert_int_equal(message[0], 'a');
			assert_int_equal(message[strlen(message) - 1], 'z');
			if (i < 0x80)
				assert_int_equal(message[1], i);
			json_decref(o);
		}
	for (size_t i = 0; i + 2 < sizeof(long_text); i += 2)
		memcpy(long_text + i, "\xc3\xa9", 3);
	assert_int_equal(truncate(path, 0), 0);
	log_error("unit", "x%s", long_text);
	cleanup_free char *text = content(0, &len);
	json_decref(last_json(text));
}

static void test_levels(void **state)
{
	size_t len;

	to_file(0, 0);
	log_set_level(LOG_WARN);
	log_info("unit", "not this");
	log_warn("unit", "this");
	log_set_level(LOG_INFO);
	log_debug("unit", "not this");
	cleanup_free char *text = content(0, &len);
	assert_null(strstr(text, "not this"));
	assert_non_null(strstr(text, "unit this\n"));
}

static void *write_lines(void *arg)
{
	for (int i = 0; i < LINES; i++)
		log_info("unit", "line thread=%d n=%d.", (int)(intptr_t)arg, i);
	return NULL;
}

/* All files together have every line once, in each thread's order, and none is too large. */
static void test_files_turn_over_and_lose_nothing(void **state)
{
	pthread_t threads[THREADS];
	int seen[THREADS] = {0}, n_files = 0;
	const size_t max = 20000;

	to_file(max, 15);
	for (intptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int f = 15; f >= 0; f--) {
		size_t len;
		cleanup_free char *text = content(f, &len);
		if (!text)
			continue;
		n_files++;
		assert_true(len <= max);
		for (char *line = text; *line;) {
			char *end = strchr(line, '\n');
			int thread, n;
			assert_non_null(end);
			*end = '\0';
			const char *what = strstr(line, "thread=");
			assert_non_null(what);
			assert_int_equal(sscanf(what, "thread=%d n=%d.", &thread, &n), 2);
			assert_int_equal(n, seen[thread]++);
			line = end + 1;
		}
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(seen[i], LINES);
	assert_true(n_files >= 3);
}

static void test_keep_bounds_them(void **state)
{
	struct stat st;
	char name[PATH_MAX + 32];

	to_file(1000, 2);
	for (int i = 0; i < 200; i++)
		log_info("unit", "line n=%d", i);
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), i ? "%s.%d" : "%s", path, i);
		assert_int_equal(stat(name, &st), i < 3 ? 0 : -1);
		if (i < 3) {
			assert_true(st.st_size <= 1000);
			assert_int_equal(st.st_mode & 0777, 0600);
		}
	}
	to_file(1000, 0);
	for (int i = 0; i < 200; i++)
		log_info("unit", "line n=%d", i);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size > 0 && st.st_size <= 1000);
}

/* What was there counts: a daemon that is started again and again keeps the bound. */
static void test_appends(void **state)
{
	size_t len;

	for (int i = 0; i < 3; i++) {
		to_file(1 << 20, 1);
		log_info("unit", "start n=%d", i);
		log_set_fd(STDERR_FILENO);
	}
	cleanup_free char *text = content(0, &len);
	assert_non_null(strstr(text, "n=0"));
	assert_non_null(strstr(text, "n=2"));
	to_file(len + 10, 1);
	log_info("unit", "one more");
	cleanup_free char *old = content(1, &len);
	assert_non_null(old);
	assert_string_equal(old, text);
}

static void test_moved_away_it_is_made_anew(void **state)
{
	char aside[PATH_MAX + 32];
	size_t len;
	char *text = NULL;

	to_file(0, 4);
	log_info("unit", "before");
	snprintf(aside, sizeof(aside), "%s.1", path);
	assert_int_equal(rename(path, aside), 0);
	for (int i = 0; i < 100 && !text; i++) {
		log_info("unit", "after");
		usleep(50000);
		text = content(0, &len);
	}
	assert_non_null(text);
	assert_null(strstr(text, "before"));
	free(text);
}

static void test_one_that_cannot_be_opened_changes_nothing(void **state)
{
	struct err err = ERR_INIT;
	size_t len;

	to_file(0, 0);
	assert_int_not_equal(log_set_file("/nonexistent/asof.log", 0, 0, &err), 0);
	assert_non_null(strstr(err.msg, "/nonexistent/asof.log"));
	log_info("unit", "still here");
	cleanup_free char *text = content(0, &len);
	assert_non_null(strstr(text, "still here"));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_text_is_one_line),
	        CASE(test_json_is_valid_for_any_bytes),
	        CASE(test_levels),
	        CASE(test_files_turn_over_and_lose_nothing),
	        CASE(test_keep_bounds_them),
	        CASE(test_appends),
	        CASE(test_moved_away_it_is_made_anew),
	        CASE(test_one_that_cannot_be_opened_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

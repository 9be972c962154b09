/* SPDX-License-Identifier: Apache-2.0 */
/* When a disk will be full: right for lines, quiet without enough to go by, whatever lies in the file. */
#include "engine/base/clock.h"
#include "engine/monitor/space.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1700000000000000)
#define HOUR_US INT64_C(3600000000)

/* `n` samples an hour apart, the last one now, `per_hour` less free each. */
static void fill(struct space_samples *s, size_t n, uint64_t free_now, int64_t per_hour)
{
	s->n = n;
	for (size_t i = 0; i < n; i++) {
		int64_t ago = (int64_t)(n - 1 - i);
		s->samples[i] = (struct space_sample){
		        NOW - ago * HOUR_US, (uint64_t)((int64_t)free_now + ago * per_hour)};
	}
}

static void test_a_line(void **state)
{
	static struct space_samples s;

	for (size_t n = 7; n <= SPACE_SAMPLES_MAX; n += 47)
		for (int64_t per_hour = 1000; per_hour < 1000000000; per_hour *= 10) {
			fill(&s, n, 5000000000, per_hour);
			double want = (5000000000.0 - 2000000000.0) / (double)per_hour * 3600;
			double got = space_full_in_s(&s, NOW, 5000000000, 2000000000);
			assert_true(fabs(got - want) < want * 0.001);
			assert_true(space_full_in_s(&s, NOW, 1999999999, 2000000000) == 0);
		}
}

static void test_nothing_to_tell(void **state)
{
	static struct space_samples s;

	fill(&s, 100, 5000000000, 0);
	assert_true(space_full_in_s(&s, NOW, 5000000000, 0) < 0);
	fill(&s, 100, 5000000000, -1000);
	assert_true(space_full_in_s(&s, NOW, 5000000000, 0) < 0);
	fill(&s, 5, 5000000000, 1000);
	assert_true(space_full_in_s(&s, NOW, 5000000000, 0) < 0);
	fill(&s, 6, 5000000000, 1000); /* five hours */
	assert_true(space_full_in_s(&s, NOW, 5000000000, 0) < 0);
	fill(&s, 100, 5000000000, 1000); /* all too old, all to come */
	assert_true(space_full_in_s(&s, NOW + 400 * HOUR_US, 5000000000, 0) < 0);
	assert_true(space_full_in_s(&s, NOW - 400 * HOUR_US, 5000000000, 0) < 0);
	s.n = 0;
	assert_true(space_full_in_s(&s, NOW, 5000000000, 0) < 0);
}

static void write_file(const char *root, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/" SPACE_NAME, root);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_the_file(void **state)
{
	char root[] = "/tmp/asof-space-XXXXXX", command[64];
	static struct space_samples s;

	assert_non_null(mkdtemp(root));
	space_read(root, &s);
	assert_int_equal(s.n, 0);
	/* An hour apart, and not more often; bounded. */
	for (int64_t i = 0; i < 3 * SPACE_SAMPLES_MAX; i++)
		assert_int_equal(space_note(root, NOW + i * HOUR_US / 2, NULL), 0);
	space_read(root, &s);
	assert_int_equal(s.n, SPACE_SAMPLES_MAX);
	for (size_t i = 1; i < s.n; i++)
		assert_int_equal(s.samples[i].at_us - s.samples[i - 1].at_us, HOUR_US);
	write_file(root, "x\n12\n\n5 6\n7 8");
	space_read(root, &s);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.samples[0].free_bytes, 6);
	/* From a time to come: begun anew. */
	write_file(root, "1800000000000000 1\n");
	assert_int_equal(space_note(root, NOW, NULL), 0);
	space_read(root, &s);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.samples[0].at_us, NOW);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	assert_int_equal(system(command), 0);
	assert_true(space_note(root, NOW, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_a_line),
	        cmocka_unit_test(test_nothing_to_tell),
	        cmocka_unit_test(test_the_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

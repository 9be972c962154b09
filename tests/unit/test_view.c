/* SPDX-License-Identifier: Apache-2.0 */
/* Views against a reference, over any history: every page of every transaction. */
#include "tests/lib/synth.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct archive *open_archive(const char *root)
{
	struct archive *a;
	struct err err = ERR_INIT;
	const struct archive_options o = {.cache_bytes = 2 << 20};

	synth_must(archive_open(root, &o, &a, &err), &err, "archive_open");
	return a;
}

static struct history *open_history(struct archive *a, const char *name)
{
	struct history *h;
	struct err err = ERR_INIT;

	synth_must(history_get(a, name, &h, &err), &err, "history_get");
	return h;
}

static void one_history(uint64_t seed, unsigned steps, uint32_t page_size)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {
	        .seed = seed,
	        .page_size = page_size,
	        .max_pages = 40,
	        .max_frames = 6,
	        .level = (int)(seed % 3),
	        .torn_batches = seed % 2,
	};
	struct synth *s = synth_new(root, "x.db", &o);

	synth_random_history(s, steps);
	cleanup_archive struct archive *a = open_archive(root);
	cleanup_history struct history *h = open_history(a, "x.db");
	synth_compare_all(s, h);
	synth_free(s);
	test_remove(root);
}

static void test_every_transaction(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(20); i++) {
		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		one_history(seed + i, getenv("ASOF_TEST_SHORT") ? 50 : 120, 512u << (i % 8));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_every_transaction),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

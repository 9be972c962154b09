/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives of every version read for ever: tests/data/golden-N/list has for each transaction its
 * time and the SHA-256 of its image, or "unsettled".  Made once, by synth_archive.
 */
#include "engine/base/log.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct archive *open_golden(const char *name)
{
	const char *data = getenv("ASOF_TEST_DATA");
	char path[4096];
	struct archive *a;
	struct err err = ERR_INIT;

	snprintf(path, sizeof(path), "%s/%s", data ? data : "tests/data", name);
	synth_must(archive_open(path, NULL, &a, &err), &err, "archive_open");
	return a;
}

static void check_image(struct view *v, const char *want, int dir)
{
	struct err err = ERR_INIT;
	size_t size = (size_t)view_size(v), len;
	cleanup_free uint8_t *image = malloc(size);
	char command[100];
	struct hash128 state;

	synth_must(view_read(v, 0, image, size, 0, &len, &err), &err, "view_read");
	assert_int_equal(len, size);
	write_whole(dir, "image", image, size);
	snprintf(command, sizeof(command), "sha256sum < /proc/self/fd/%d/image", dir);
	cleanup_free uint8_t *out = output_of(command, &len);
	assert_memory_equal(out, want, 64);
	synth_must(view_state(v, &state, &err), &err, "view_state");
	assert_true(hash128_equal(state, view_moment(v)->state));
}

/* Gives how many are whole, and how many thinned. */
static void check_golden(const char *name, unsigned *ret_whole, unsigned *ret_thinned)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY); /* the command inherits it */
	cleanup_archive struct archive *a = open_golden(name);
	const char *data = getenv("ASOF_TEST_DATA");
	char path[4096], how[100];
	struct history *h;
	struct err err = ERR_INIT;
	uint64_t txid;
	int64_t us;

	*ret_whole = *ret_thinned = 0;
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	snprintf(path, sizeof(path), "%s/%s/list", data ? data : "tests/data", name);
	cleanup_file FILE *f = fopen(path, "re");
	assert_non_null(f);
	while (fscanf(f, "%" SCNu64 " %" SCNd64 " %99s", &txid, &us, how) == 3) {
		struct moment m;
		bool thinned = strcmp(how, "thinned") == 0;
		if (thinned || strcmp(how, "unsettled") == 0) {
			assert_int_equal(history_tx(h, txid, &m, &err),
			                 thinned ? -ERR_NOT_FOUND : -ERR_GAP);
			assert_true(history_at(h, us, INT64_MAX, &m, &err) < 0);
			*ret_thinned += thinned;
			continue;
		}
		cleanup_view struct view *v = NULL;
		synth_must(view_open(h, txid, &v, &err), &err, "view_open");
		synth_must(history_at(h, us, INT64_MAX, &m, &err), &err, "history_at");
		assert_int_equal(m.txid, txid);
		check_image(v, how, dir);
		++*ret_whole;
	}
	struct gap g;
	synth_must(history_gap(h, 0, &g, &err), &err, "history_gap");
	history_put(h);
	test_remove(root);
}

static void test_golden_1(void **state)
{
	unsigned whole, thinned;

	check_golden("golden-1", &whole, &thinned);
	assert_true(whole == 28 && thinned == 0);
}

/* The same kind of archive after retention (asof mark, asof cleanup --tiers). */
static void test_golden_1_thinned(void **state)
{
	unsigned whole, thinned;

	check_golden("golden-1-thinned", &whole, &thinned);
	assert_true(whole == 12 && thinned == 24);
	cleanup_archive struct archive *a = open_golden("golden-1-thinned");
	struct history *h;
	struct mark m;
	struct err err = ERR_INIT;
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	synth_must(history_mark(h, "kept", &m, &err), &err, "history_mark");
	assert_int_equal(m.txid, 5);
	history_put(h);
}

/* A format to come: one clear line, and nothing guessed. */
static void test_newer(void **state)
{
	cleanup_archive struct archive *a = open_golden("golden-newer");
	struct history *h;
	struct moment m;
	struct view *v;
	struct err err = ERR_INIT;

	log_set_fd(-1);
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	assert_int_equal(history_latest(h, &m, &err), -ERR_VERSION);
	assert_non_null(strstr(err.msg, "newer asof"));
	assert_int_equal(history_tx(h, 5, &m, &err), -ERR_VERSION);
	assert_int_equal(view_open(h, 1, &v, &err), -ERR_VERSION);
	history_put(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_golden_1),
	        cmocka_unit_test(test_golden_1_thinned),
	        cmocka_unit_test(test_newer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

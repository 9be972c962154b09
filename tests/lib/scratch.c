/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/scratch.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

#include <dirent.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

uint64_t rng_next(struct rng *r)
{
	r->s += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
	uint64_t z = r->s;
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

bool rng_chance(struct rng *r, unsigned percent)
{
	return rng_below(r, 100) < percent;
}

uint64_t test_seed(void)
{
	static uint64_t seed;
	const char *text = getenv("ASOF_TEST_SEED");

	if (!seed) {
		seed = text ? strtoull(text, NULL, 10) : (uint64_t)clock_now_us();
		printf("seed: ASOF_TEST_SEED=%" PRIu64 "\n", seed);
		fflush(stdout);
	}
	return seed;
}

unsigned test_rounds(unsigned n)
{
	if (getenv("ASOF_TEST_SHORT"))
		return n / 10 ? n / 10 : 1;
	return getenv("ASOF_TEST_FULL") ? n * 10 : n;
}

static char *folders[64];

static void remove_folders(void)
{
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
		if (folders[i])
			test_remove(folders[i]);
}

char *test_folder(void)
{
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
	char *path = NULL;

	if (asprintf(&path, "%s/asof-test-XXXXXX", tmp ? tmp : "/tmp") < 0 || !mkdtemp(path))
		synth_die("no scratch folder");
	static bool told;
	if (!told)
		atexit(remove_folders);
	told = true;
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		if (!folders[i]) {
			folders[i] = strdup(path);
			break;
		}
	}
	return path;
}

static void remove_tree(const char *path)
{
	cleanup_dir DIR *dir = opendir(path);
	struct dirent *d;
	char child[4096];

	while (dir && (d = readdir(dir))) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, d->d_name);
		if (unlink(child) < 0)
			remove_tree(child);
	}
	rmdir(path);
}

void test_remove(const char *path)
{
	remove_tree(path);
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		if (folders[i] && strcmp(folders[i], path) == 0) {
			free(take_ptr(folders[i]));
			return;
		}
	}
}

void synth_die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "synth: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	if (getpid() == gettid())
		fail(); /* of another thread there is no way back to the test */
	abort();
}

void synth_must(int rc, const struct err *err, const char *what)
{
	if (rc < 0)
		synth_die("%s: %s (%s)", what, err->msg, err_kind_name(err->kind));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds files, and the files of directories, to a fuzz target: each as it is and cut at a few
 * places.  This keeps every find a test of every build, without libFuzzer.
 */
#include "engine/base/cleanup.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_INPUT_BYTES (16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exactly that size, so that the sanitizer sees a read past its end. */
static void feed(const uint8_t *data, size_t size)
{
	cleanup_free uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
}

static int replay_file(const char *path)
{
	cleanup_file FILE *f = fopen(path, "re");
	cleanup_free uint8_t *data = malloc(MAX_INPUT_BYTES);

	if (!f || !data) {
		perror(path);
		return 1;
	}
	size_t size = fread(data, 1, MAX_INPUT_BYTES, f);
	feed(data, size);
	for (size_t parts = 1; parts < 8; parts++)
		feed(data, size * parts / 8);
	return 0;
}

static int replay(const char *path, size_t *n)
{
	cleanup_dir DIR *dir = opendir(path);
	struct dirent *entry;
	int failed = 0;

	if (!dir) {
		(*n)++;
		return replay_file(path);
	}
	while ((entry = readdir(dir))) {
		char child[4096];
		if (entry->d_name[0] == '.')
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		failed |= replay(child, n);
	}
	return failed;
}

int main(int argc, char **argv)
{
	size_t n = 0;
	int failed = 0;

	feed((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;
		if (stat(argv[i], &st) == 0)
			failed |= replay(argv[i], &n);
	}
	printf("%zu inputs replayed\n", n);
	return failed;
}

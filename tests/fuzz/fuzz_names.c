/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as a name in the archive and in the mount: what parses prints to the same text. */
#include "engine/archive/names.h"
#include "engine/base/clock.h"
#include "fs/name.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const char *a, const char *b)
{
	if (strcmp(a, b) != 0)
		abort();
}

static void check_archive(const char *text)
{
	struct object_name n;
	struct err err = ERR_INIT;
	char again[OBJECT_NAME_MAX];

	if (object_name_parse(text, &n)) {
		object_name_format(&n, again);
		same(again, text);
	}
	if (db_name_check(text, &err) == 0 &&
	    (!*text || *text == '.' || strchr(text, '/') || strchr(text, '\n') ||
	     strlen(text) > DB_NAME_MAX || fs_name_is_sidecar(text)))
		abort();
}

static void check_mount(const char *text)
{
	char again[FS_NAME_MAX];
	uint64_t txid;
	int64_t us;
	int two;
	bool gz;

	if (fs_name_parse_txid(text, &txid)) {
		snprintf(again, sizeof(again), "%llu", (unsigned long long)txid);
		same(again, text);
	}
	if (fs_name_parse_day(text, &us)) {
		fs_name_format_day(us, again);
		same(again, text);
	}
	if (fs_name_parse_two(text, 60, &two)) {
		snprintf(again, sizeof(again), "%02d", two);
		same(again, text);
	}
	if (fs_name_parse_commit(text, &txid) && txid == 0)
		abort();
	if (fs_name_backup(text, again, &gz) && strncmp(text, again, strlen(again)) != 0)
		abort();
	if (fs_name_backup_day(text, &us) &&
	    (us % FS_DAY_US || us < TIME_MIN_US || us > TIME_MAX_US))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[512];

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	check_archive(text);
	/* A component of a path has no '/' and at most 255 bytes: the kernel sees to it. */
	if (size < FS_NAME_MAX && !strchr(text, '/'))
		check_mount(text);
	return 0;
}

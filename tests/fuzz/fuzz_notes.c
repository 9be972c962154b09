/* SPDX-License-Identifier: Apache-2.0 */
/* Notes and head as anyone may have left them.  The first byte chooses the kind; a line "sum" that
 * is right is put behind the rest, so that the text below it is looked at. */
#include "engine/archive/head.h"
#include "engine/archive/notes.h"
#include "engine/base/hash.h"
#include "tests/fuzz/patch.h"

#include <inttypes.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was read can be written, and reads back the same. */
static void check_source(int dir_fd)
{
	struct source_note n = {0}, again = {0};

	if (source_note_get(dir_fd, &n, NULL))
		return;
	must(n.id != 0 && !strchr(n.path, '\n'));
	must(!source_note_put(dir_fd, &n, NULL) && !source_note_get(dir_fd, &again, NULL));
	must(n.id == again.id && strcmp(n.path, again.path) == 0);
}

static void check_lineage(int dir_fd, const char *name)
{
	struct lineage_note n;

	if (!lineage_note_get(dir_fd, name, &n, NULL))
		must(strlen(n.reason) < sizeof(n.reason));
}

static void check_gap(int dir_fd, const char *name)
{
	struct gap_note n;

	if (!gap_note_get(dir_fd, name, &n, NULL))
		must(strlen(n.reason) < sizeof(n.reason));
}

static void check_head(int fd)
{
	struct head h, again;

	if (head_read(fd, &h, NULL))
		return;
	must(!head_write(fd, &h, NULL) && !head_read(fd, &again, NULL));
	must(h.durable_len == again.durable_len && h.generation == again.generation);
}

static int write_file(int dir_fd, const char *name, const uint8_t *data, size_t size, bool sum)
{
	int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char line[40];

	must(fd >= 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	int n = snprintf(line, sizeof(line), "sum %016" PRIx64 "\n", hash64(data, size, 0));
	if (sum)
		must(pwrite(fd, line, (size_t)n, (off_t)size) == n);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"source", "00000001.lineage", "0000000000000001.gap",
	                                    "head"};
	static char path[64];
	static int dir_fd = -1;

	if (dir_fd < 0)
		dir_fd = patch_make_dir(path);
	if (size == 0)
		return 0;
	unsigned kind = data[0] % 4;
	int fd = write_file(dir_fd, names[kind], data + 1, size - 1, kind < 3 && data[0] < 128);
	if (kind == 0)
		check_source(dir_fd);
	else if (kind == 1)
		check_lineage(dir_fd, names[1]);
	else if (kind == 2)
		check_gap(dir_fd, names[2]);
	else
		check_head(fd);
	close(fd);
	unlinkat(dir_fd, names[kind], 0);
	return 0;
}

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

static void check_mark(int dir_fd)
{
	struct mark_note n;

	if (!mark_note_get(dir_fd, "m", &n, NULL))
		must(n.txid > 0 && n.txid <= TXID_MAX);
}

static void check_thinned(int dir_fd)
{
	struct thinned_note n = {0}, again = {0};

	if (thinned_note_get(dir_fd, &n, NULL))
		return;
	must(n.n_points > 0 && n.points[n.n_points - 1].txid == n.until_txid);
	must(!thinned_note_put(dir_fd, &n, NULL) && !thinned_note_get(dir_fd, &again, NULL));
	must(n.n_points == again.n_points && n.n_roots == again.n_roots);
	must(memcmp(n.points, again.points, n.n_points * sizeof(*n.points)) == 0);
	thinned_note_release(&n);
	thinned_note_release(&again);
}

static void check_expiring(int dir_fd)
{
	struct expiring_note n = {0}, again = {0};

	if (expiring_note_get(dir_fd, &n, NULL))
		return;
	must(!expiring_note_put(dir_fd, &n, NULL) && !expiring_note_get(dir_fd, &again, NULL));
	must(n.n == again.n);
	expiring_note_release(&n);
	expiring_note_release(&again);
}

static void check_verified(int dir_fd)
{
	struct verified_note n = {0}, again = {0};

	if (verified_note_get(dir_fd, &n, NULL))
		return;
	must(!verified_note_put(dir_fd, &n, NULL) && !verified_note_get(dir_fd, &again, NULL));
	must(n.through_txid == again.through_txid && n.pass_page == again.pass_page);
	must(hash128_equal(n.pass_sum, again.pass_sum) && n.damaged == again.damaged);
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
	static const char *const names[] = {"source",   "00000001.lineage", "0000000000000001.gap",
	                                    "head",     "m.mark",           "thinned",
	                                    "expiring", "verified"};
	static char path[64];
	static int dir_fd = -1;

	if (dir_fd < 0)
		dir_fd = patch_make_dir(path);
	if (size == 0)
		return 0;
	/* (as they were: the corpus is of them) */
	unsigned kind = data[0] == 'x' ? 7 : data[0] % 7;
	int fd = write_file(dir_fd, names[kind], data + 1, size - 1, kind != 3 && data[0] < 128);
	if (kind == 0)
		check_source(dir_fd);
	else if (kind == 1)
		check_lineage(dir_fd, names[1]);
	else if (kind == 2)
		check_gap(dir_fd, names[2]);
	else if (kind == 3)
		check_head(fd);
	else if (kind == 4)
		check_mark(dir_fd);
	else if (kind == 5)
		check_thinned(dir_fd);
	else if (kind == 6)
		check_expiring(dir_fd);
	else
		check_verified(dir_fd);
	close(fd);
	unlinkat(dir_fd, names[kind], 0);
	return 0;
}

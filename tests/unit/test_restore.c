/* SPDX-License-Identifier: Apache-2.0 */
/* Restores out of a made-up archive: the bytes, what is refused, and what a crash leaves. */
#include "engine/restore/restore_i.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#define DB "trades.db"

struct fixture {
	char *dir; /* targets */
	char *root;
	struct synth *synth;
	struct archive *archive;
	struct history *history;
	uint64_t last; /* txid */
	char target[256];
	struct restore_result result;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct synth_options o = {.seed = test_seed(),
	                                .page_size = 4096,
	                                .max_pages = 700,
	                                .max_frames = 20,
	                                .level = 1};

	log_set_fd(-1);
	f->dir = test_folder();
	f->root = test_folder();
	f->synth = synth_new(f->root, DB, &o);
	for (int i = 0; i < 20; i++) {
		synth_random_commit(f->synth);
		if (i == 3) {
			synth_publish(f->synth);
			synth_snapshot(f->synth, f->synth->n_states, f->synth->n_states);
		}
	}
	synth_publish(f->synth);
	f->last = f->synth->n_states;
	synth_must(archive_open(f->root, NULL, &f->archive, &f->err), &f->err, "archive");
	synth_must(history_get(f->archive, DB, &f->history, &f->err), &f->err, "history");
	snprintf(f->target, sizeof(f->target), "%s/target.db", f->dir);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	history_put(f->history);
	archive_free(f->archive);
	synth_free(f->synth);
	test_remove(f->dir);
	test_remove(f->root);
	free(f->dir);
	free(f->root);
	free(f);
	return 0;
}

static int restore(struct fixture *f, uint64_t txid, const struct restore_options *o)
{
	static const struct restore_options none = {.patience_us = 1};

	f->err = (struct err)ERR_INIT;
	return restore_to_file(f->archive, f->history, txid, f->target, o ? o : &none, &f->result,
	                       &f->err);
}

static void must_restore(struct fixture *f, uint64_t txid, const struct restore_options *o)
{
	synth_must(restore(f, txid, o), &f->err, "restore");
}

static void must_fail(struct fixture *f, uint64_t txid, const struct restore_options *o,
                      enum err_kind kind, const char *text)
{
	assert_int_equal(restore(f, txid, o), -(int)kind);
	assert_int_equal(f->err.kind, kind);
	if (!strstr(f->err.msg, text))
		fail_msg("'%s' does not say '%s'", f->err.msg, text);
}

/* The processes of these tests run one program, and so do not wait for each other. */
static const struct restore_options force = {.force = true, .patience_us = 1};

/* ---- files ---- */

static char *path_of(const struct fixture *f, const char *suffix, char out[512])
{
	snprintf(out, 512, "%s%s", f->target, suffix);
	return out;
}

static void put(const struct fixture *f, const char *suffix, const char *text)
{
	char path[512];
	FILE *file = fopen(path_of(f, suffix, path), "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static bool is_there(const struct fixture *f, const char *suffix)
{
	char path[512];
	struct stat st;

	return lstat(path_of(f, suffix, path), &st) == 0;
}

static void assert_text(const char *path, const char *text)
{
	char got[256] = "";
	FILE *file = fopen(path, "r");

	if (!file)
		fail_msg("'%s' is not there", path);
	got[fread(got, 1, sizeof(got) - 1, file)] = '\0';
	fclose(file);
	assert_string_equal(got, text);
}

static void assert_file(const struct fixture *f, const char *suffix, const char *text)
{
	char path[512];

	assert_text(path_of(f, suffix, path), text);
}

static size_t n_files(const struct fixture *f)
{
	DIR *dir = opendir(f->dir);
	size_t n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static void assert_image(struct fixture *f, uint64_t txid)
{
	const struct synth_state *st = synth_state(f->synth, txid);
	uint8_t *page = malloc(st->page_size), *zeros = calloc(1, st->page_size);
	FILE *file = fopen(f->target, "r");
	struct stat info;

	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &info), 0);
	assert_int_equal(info.st_size, (uint64_t)st->commit.n_pages * st->page_size);
	for (uint32_t p = 0; p < st->commit.n_pages; p++) {
		assert_int_equal(fread(page, st->page_size, 1, file), 1);
		assert_memory_equal(page, st->pages[p] ? st->pages[p]->data : zeros, st->page_size);
	}
	fclose(file);
	free(page);
	free(zeros);
}

/* ---- the bytes ---- */

static void test_every_commit(void **state)
{
	struct fixture *f = *state;

	for (uint64_t txid = 1; txid <= f->last; txid++) {
		struct restore_options o = {.force = true, .n_threads = 1 + (unsigned)(txid % 4)};
		if (!synth_viewable(f->synth, txid))
			continue;
		must_restore(f, txid, &o);
		assert_image(f, txid);
		assert_true(f->result.checked);
		assert_int_equal(f->result.bytes,
		                 (uint64_t)synth_state(f->synth, txid)->commit.n_pages * 4096);
	}
	assert_int_equal(n_files(f), 1);
}

/* Many pieces for many threads, and long runs of zeros that are not written. */
static void test_large_sparse(void **state)
{
	struct fixture *f = *state;
	struct synth_page *frames[4];
	static const uint32_t pages[4] = {1, 3000, 3001, 6000};
	struct restore_options o = {.n_threads = 4};
	static uint8_t zeros[4096];
	struct stat st;

	/* Every page past the old end must be there, so zeros are written as pages too. */
	uint32_t old = f->synth->n_now, n = 0;
	struct synth_page **all = calloc(6001, sizeof(*all));
	for (uint32_t p = old + 1; p <= 6000; p++)
		if (p != pages[1] && p != pages[2] && p != pages[3])
			all[n++] = synth_page(f->synth, p, zeros);
	for (size_t i = 0; i < 4; i++)
		all[n++] = frames[i] = synth_page(f->synth, pages[i], NULL);
	uint64_t txid = synth_commit(f->synth, 6000, all, n, 0);
	synth_publish(f->synth);
	free(all);
	must_restore(f, txid, &o);
	assert_image(f, txid);
	assert_int_equal(stat(f->target, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_wrong_state_checksum(void **state)
{
	struct fixture *f = *state;
	cleanup_view struct view *v = NULL;
	cleanup_fd int fd = -1;
	const struct restore_options o = {0};
	struct restore_image image;
	struct image_written written;
	char label[IMAGE_LABEL_MAX];

	synth_must(view_open(f->history, f->last, &v, &f->err), &f->err, "view");
	image_of_view(v, label, &image);
	image.state.lo ^= 1;
	synth_must(file_open(AT_FDCWD, f->target, O_RDWR | O_CREAT, 0600, &fd, NULL), NULL, "open");
	assert_int_equal(image_write(&image, fd, false, f->target, &o, &written, &f->err),
	                 -ERR_DAMAGED);
	assert_non_null(strstr(f->err.msg, label));
	image.state = (struct hash128){0, 0};
	synth_must(image_write(&image, fd, false, f->target, &o, &written, &f->err), &f->err,
	           "image");
	assert_false(written.state_matched);
}

static void test_damaged_archive(void **state)
{
	struct fixture *f = *state;
	char path[512];
	uint8_t byte;

	snprintf(path, sizeof(path), "%s/local/" DB "/snapshot/%s", f->root,
	         f->synth->objects[f->synth->n_objects - 1].file);
	cleanup_fd int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, 200), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, 200), 1);
	put(f, "", "precious");
	uint64_t txid = synth_state(f->synth, 4)->commit.txid;
	must_fail(f, txid, &force, ERR_DAMAGED, "damaged");
	assert_file(f, "", "precious");
	assert_int_equal(n_files(f), 1);
}

/* ---- the target ---- */

static void test_existing(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	put(f, "", "precious");
	chmod(f->target, 0664);
	bool root = geteuid() == 0 && chown(f->target, 65534, 65533) == 0;
	must_fail(f, f->last, NULL, ERR_EXISTS, "--force");
	assert_file(f, "", "precious");
	must_restore(f, f->last, &force);
	assert_true(f->result.replaced);
	assert_string_equal(f->result.set_aside, "");
	assert_image(f, f->last);
	assert_int_equal(stat(f->target, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0664);
	if (root) {
		assert_int_equal(st.st_uid, 65534);
		assert_int_equal(st.st_gid, 65533);
	}
	assert_int_equal(n_files(f), 1);
}

static void test_odd_targets(void **state)
{
	struct fixture *f = *state;
	char real[256];
	struct stat st;

	snprintf(real, sizeof(real), "%s", f->target);
	mkdir(f->target, 0700);
	must_fail(f, f->last, &force, ERR_EXISTS, "folder");
	rmdir(f->target);
	mkfifo(f->target, 0600);
	must_fail(f, f->last, &force, ERR_REFUSED, "no regular file");
	unlink(f->target);
	snprintf(f->target, sizeof(f->target), "%s/none/x.db", f->dir);
	must_fail(f, f->last, NULL, ERR_NOT_FOUND, "none");
	snprintf(f->target, sizeof(f->target), "%s/", f->dir);
	must_fail(f, f->last, NULL, ERR_EXISTS, "folder");
	snprintf(f->target, sizeof(f->target), "%s/local/x.db", f->root);
	must_fail(f, f->last, NULL, ERR_REFUSED, "inside the archive");
	snprintf(f->target, sizeof(f->target), "%s", f->dir);
	memset(f->target + strlen(f->dir), 'x', sizeof(f->target) - strlen(f->dir) - 1);
	f->target[strlen(f->dir)] = '/';
	f->target[sizeof(f->target) - 1] = '\0';
	must_restore(f, f->last, NULL); /* fits with all suffixes */
	unlink(f->target);

	/* A link: what it points at is replaced, the link stays. */
	snprintf(f->target, sizeof(f->target), "%s/link", f->dir);
	assert_int_equal(symlink("target.db", f->target), 0);
	must_fail(f, f->last, NULL, ERR_REFUSED, "leads nowhere");
	cleanup_fd int fd = open(real, O_WRONLY | O_CREAT, 0640);
	must_fail(f, f->last, NULL, ERR_EXISTS, "target.db");
	must_restore(f, f->last, &force);
	assert_string_equal(f->result.target, real);
	assert_int_equal(lstat(f->target, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_image(f, f->last);
}

static void test_sides_are_refused(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < N_SIDES; i++) {
		char path[512];
		put(f, side_suffixes[i], "");
		must_fail(f, f->last, NULL, ERR_REFUSED, side_suffixes[i]);
		assert_false(is_there(f, ""));
		assert_int_equal(n_files(f), 1);
		unlink(path_of(f, side_suffixes[i], path));
	}
}

static void test_sides_go_aside(void **state)
{
	struct fixture *f = *state;
	char path[512];

	put(f, "", "old database");
	put(f, "-wal", "old wal");
	put(f, "-shm", "old shm");
	must_restore(f, f->last, &force);
	assert_image(f, f->last);
	assert_non_null(strstr(f->result.set_aside, "/target.db.before-restore-20"));
	assert_text(f->result.set_aside, "old database");
	snprintf(path, sizeof(path), "%.400s-wal", f->result.set_aside);
	assert_text(path, "old wal");
	assert_false(is_there(f, "-wal") || is_there(f, "-shm"));
	assert_int_equal(n_files(f), 4);
}

static void test_sides_without_a_database(void **state)
{
	struct fixture *f = *state;
	char path[512];

	put(f, "-journal", "old journal");
	must_restore(f, f->last, &force);
	assert_image(f, f->last);
	snprintf(path, sizeof(path), "%.400s-journal", f->result.set_aside);
	assert_text(path, "old journal");
	assert_int_equal(n_files(f), 2);
}

static void test_empty_sides_vanish(void **state)
{
	struct fixture *f = *state;

	put(f, "", "old database");
	put(f, "-wal", "");
	put(f, "-shm", "old shm");
	must_restore(f, f->last, &force);
	assert_image(f, f->last);
	assert_string_equal(f->result.set_aside, "");
	assert_int_equal(n_files(f), 1);
}

static void test_dry_run(void **state)
{
	struct fixture *f = *state;
	struct restore_options o = {.dry_run = true};

	must_restore(f, f->last, &o);
	assert_false(f->result.replaced);
	assert_int_equal(n_files(f), 0);
	put(f, "", "old database");
	put(f, "-wal", "old wal");
	must_fail(f, f->last, &o, ERR_EXISTS, "--force");
	o.force = true;
	must_restore(f, f->last, &o);
	assert_true(f->result.replaced);
	assert_non_null(strstr(f->result.set_aside, "before-restore"));
	assert_file(f, "", "old database");
	assert_file(f, "-wal", "old wal");
	assert_int_equal(n_files(f), 2);
}

/* ---- other processes ---- */

/* A process that has a file open until it is killed. */
static pid_t hold(const struct fixture *f, const char *suffix, bool replicator)
{
	char path[512], c;
	int ready[2];

	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (pid == 0) {
		int fd = open(path_of(f, suffix, path), O_RDONLY);
		if (!replicator) /* inherited, open as in the process that captures */
			close(f->synth->lock_fd);
		if (fd < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_open_elsewhere(void **state)
{
	struct fixture *f = *state;
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	struct restore_target target;
	char text[32];

	put(f, "", "old database");
	put(f, "-wal", "old wal");
	put(f, "-shm", "old shm");
	for (size_t i = 0; i < 3; i++) {
		pid_t pid = hold(f, suffixes[i], false);
		synth_must(restore_look(f->target, NULL, &target, &f->err), &f->err, "look");
		end(pid);
		assert_int_equal(target.n_holders, 1);
		assert_int_equal(target.holder.pid, pid);
		assert_true(target.exists && target.wal && !target.journal);
	}
	/* By another name it is the same file; and one that is gone is nobody's to replace. */
	char other[512];
	assert_int_equal(link(f->target, path_of(f, "-other", other)), 0);
	pid_t pid = hold(f, "-other", false);
	snprintf(text, sizeof(text), "process %d (", (int)pid);
	must_fail(f, f->last, NULL, ERR_REFUSED, text);
	assert_file(f, "", "old database");
	assert_file(f, "-wal", "old wal");

	/* With force it goes ahead: the other one keeps a file with a name, and its -wal. */
	must_restore(f, f->last, &force);
	assert_image(f, f->last);
	assert_int_equal(f->result.n_holders, 1);
	assert_int_equal(f->result.holder.pid, pid);
	end(pid);
	struct stat a, b;
	assert_int_equal(stat(other, &a), 0);
	assert_int_equal(stat(f->result.set_aside, &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
}

/* Without a -wal, too: what is open somewhere does not lose its name. */
static void test_open_elsewhere_without_a_wal(void **state)
{
	struct fixture *f = *state;
	struct stat a, b;

	put(f, "", "old database");
	assert_int_equal(stat(f->target, &a), 0);
	pid_t pid = hold(f, "", false);
	must_restore(f, f->last, &force);
	end(pid);
	assert_int_equal(stat(f->result.set_aside, &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	assert_image(f, f->last);
	assert_int_equal(n_files(f), 2);
}

/* Refused while a -wal alone lies there and somebody has it open, too. */
static void test_open_side_alone(void **state)
{
	struct fixture *f = *state;
	char text[40];

	put(f, "-wal", "old wal");
	pid_t pid = hold(f, "-wal", false);
	snprintf(text, sizeof(text), "is open in process %d (", (int)pid);
	must_fail(f, f->last, NULL, ERR_REFUSED, text);
	end(pid);
	assert_file(f, "-wal", "old wal");
}

static void test_the_replicator_may(void **state)
{
	struct fixture *f = *state;

	put(f, "", "old database");
	put(f, "-wal", "old wal");
	pid_t pid = hold(f, "-wal", true);
	must_restore(f, f->last, &force);
	assert_image(f, f->last);
	end(pid);
}

static void test_two_restores(void **state)
{
	struct fixture *f = *state;
	char path[512];

	put(f, RESTORE_TMP_SUFFIX, "left by one that died");
	must_restore(f, f->last, NULL);
	assert_image(f, f->last);
	assert_int_equal(n_files(f), 1);
	put(f, RESTORE_TMP_SUFFIX, "being written");
	int fd = open(path_of(f, RESTORE_TMP_SUFFIX, path), O_RDWR);
	assert_int_equal(file_lock(fd, path, NULL), 0);
	must_fail(f, f->last, &force, ERR_BUSY, "another restore");
	assert_file(f, RESTORE_TMP_SUFFIX, "being written");
	close(fd);
	must_restore(f, f->last, &force);
}

/* ---- dying half-way ---- */

static bool stop_at_once(void *ctx, uint64_t done, uint64_t total)
{
	return false;
}

static bool stop_at_the_end(void *ctx, uint64_t done, uint64_t total)
{
	return done < total || total == 0;
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct restore_options o = {.force = true, .progress = stop_at_once};

	put(f, "", "old database");
	put(f, "-wal", "old wal");
	must_fail(f, f->last, &o, ERR_CANCELLED, "cancelled");
	o.progress = stop_at_the_end;
	must_fail(f, f->last, &o, ERR_CANCELLED, "cancelled");
	assert_file(f, "", "old database");
	assert_file(f, "-wal", "old wal");
	assert_int_equal(n_files(f), 2);
}

static const char aside[] = ".before-restore-20240115T103000.123456Z";

/* As swap_in() leaves it when it dies after so many steps. */
static void die_after(struct fixture *f, int steps)
{
	char a[512], b[512], text[600];
	struct stat st;
	static const char *const side[] = {"-wal", "-shm", "-journal"};

	put(f, "", "old database");
	for (int i = 0; i < 3; i++)
		put(f, side[i], side[i]);
	put(f, RESTORE_TMP_SUFFIX, "new database");
	assert_int_equal(stat(f->target, &st), 0);
	snprintf(text, sizeof(text), "target.db%s\n%lld %lld.%09ld", aside, (long long)st.st_size,
	         (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	put(f, RESTORE_SWAP_SUFFIX, text);
	if (steps > 0)
		assert_int_equal(link(f->target, path_of(f, aside, a)), 0);
	for (int i = 0; i < 3 && steps > i + 1; i++) {
		snprintf(text, sizeof(text), "%s%s", aside, side[i]);
		path_of(f, side[i], a);
		assert_int_equal(rename(a, path_of(f, text, b)), 0);
	}
	if (steps > 4) {
		path_of(f, RESTORE_TMP_SUFFIX, a);
		assert_int_equal(rename(a, f->target), 0);
	}
}

static void test_interrupted(void **state)
{
	struct fixture *f = *state;

	for (int steps = 0; steps <= 4; steps++) {
		die_after(f, steps);
		must_fail(f, f->last, NULL, ERR_EXISTS, "--force");
		assert_file(f, "", "old database");
		assert_file(f, "-wal", "-wal");
		assert_file(f, "-journal", "-journal");
		assert_false(is_there(f, aside) || is_there(f, RESTORE_SWAP_SUFFIX) ||
		             is_there(f, RESTORE_TMP_SUFFIX));
		test_remove(f->dir);
		assert_int_equal(mkdir(f->dir, 0700), 0);
	}
	die_after(f, 5);
	must_fail(f, f->last, NULL, ERR_EXISTS, "--force");
	assert_file(f, "", "new database");
	assert_file(f, aside, "old database");
	assert_false(is_there(f, "-wal") || is_there(f, RESTORE_SWAP_SUFFIX));
	must_restore(f, f->last, &force);
	assert_image(f, f->last);
	assert_file(f, aside, "old database");
}

static void test_interrupted_and_opened_since(void **state)
{
	struct fixture *f = *state;

	die_after(f, 4);
	put(f, "-wal", "newer wal");
	must_fail(f, f->last, &force, ERR_REFUSED, "opened since");
	assert_file(f, "-wal", "newer wal");
	assert_file(f, "", "old database");
	pid_t pid = hold(f, "", false);
	must_fail(f, f->last, &force, ERR_REFUSED, "is open in process");
	end(pid);
}

/* Its own -wal has gone with the last close: the old one would make it malformed. */
static void test_interrupted_and_written_since(void **state)
{
	struct fixture *f = *state;
	const struct timespec later[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};

	die_after(f, 4);
	assert_int_equal(utimensat(AT_FDCWD, f->target, later, 0), 0);
	must_fail(f, f->last, &force, ERR_REFUSED, "written to");
	assert_file(f, "", "old database");
	assert_false(is_there(f, "-wal"));
	assert_true(is_there(f, RESTORE_SWAP_SUFFIX));
}

static void test_interrupted_text_is_not_trusted(void **state)
{
	struct fixture *f = *state;

	put(f, "", "old database");
	static const char *const wrong[] = {"", "/etc/passwd", "other.db",
	                                    "target.db.before-restore-/../x\n1 1.0",
	                                    "target.db.before-restore-x"};
	for (size_t i = 0; i < 5; i++) {
		put(f, RESTORE_SWAP_SUFFIX, wrong[i]);
		must_fail(f, f->last, &force, ERR_REFUSED, RESTORE_SWAP_SUFFIX);
	}
	assert_file(f, "", "old database");
}

/* kill -9 at random moments of restores with something to set aside: either all is as it was,
 * or the new file stands alone; and the next restore finds its way. */
static void test_kill(void **state)
{
	struct fixture *f = *state;
	char path[512];
	unsigned before = 0, within = 0, after = 0;
	int runs = getenv("ASOF_TEST_SHORT") ? 10 : 60;

	/* How long does one take that is left alone? */
	put(f, "", "old database");
	put(f, "-wal", "old wal");
	int64_t started_us = clock_mono_us();
	must_restore(f, f->last, &force);
	int64_t whole_us = clock_mono_us() - started_us;

	for (int i = 0; i < runs; i++) {
		test_remove(f->dir);
		assert_int_equal(mkdir(f->dir, 0700), 0);
		put(f, "", "old database");
		put(f, "-wal", "old wal");
		pid_t pid = fork();
		if (pid == 0) {
			/* Threads do not survive a fork: an archive of its own. */
			struct archive *a;
			struct history *h;
			close(f->synth->lock_fd);
			if (archive_open(f->root, NULL, &a, NULL) || history_get(a, DB, &h, NULL) ||
			    restore_to_file(a, h, f->last, f->target, &force, &f->result, NULL))
				_exit(1);
			_exit(0);
		}
		clock_sleep_us(whole_us * 5 / 4 * i / runs);
		end(pid);
		/* The intent, if one is there, is acted upon. */
		bool intent = is_there(f, RESTORE_SWAP_SUFFIX);
		must_fail(f, f->last, NULL, ERR_EXISTS, "--force");
		within += intent;
		if (is_there(f, "-wal")) {
			before++;
			assert_file(f, "", "old database");
			assert_file(f, "-wal", "old wal");
		} else {
			after++;
			assert_image(f, f->last);
		}
		assert_false(is_there(f, RESTORE_SWAP_SUFFIX));
		must_restore(f, f->last, &force);
		assert_image(f, f->last);
		assert_false(is_there(f, "-wal"));
		assert_false(is_there(f, RESTORE_TMP_SUFFIX));
		unlink(path_of(f, "", path));
	}
	print_message(
	        "the old file stayed %u times, the new one came %u times; intents found: %u\n",
	        before, after, within);
}

/* ---- the commit ---- */

static void test_resolve(void **state)
{
	struct fixture *f = *state;
	struct restore_point point = {.pick = RESTORE_LATEST};
	int64_t now_us = clock_now_us(), time_us = synth_state(f->synth, 9)->commit.time_us;
	struct moment m;
	char text[80], when[TIME_STR_MAX];

	synth_must(restore_resolve(f->history, &point, now_us, &m, &f->err), &f->err, "latest");
	assert_int_equal(m.txid, f->last);
	time_format(m.time_us, when);
	snprintf(text, sizeof(text), "txid %" PRIu64 " of %s", f->last, when);
	point = (struct restore_point){.pick = RESTORE_TX, .txid = 9};
	synth_must(restore_resolve(f->history, &point, now_us, &m, &f->err), &f->err, "tx");
	assert_int_equal(m.txid, 9);
	point.txid = f->last + 1;
	assert_int_equal(restore_resolve(f->history, &point, now_us, &m, &f->err), -ERR_NOT_FOUND);
	assert_non_null(strstr(f->err.msg, text));
	point = (struct restore_point){.pick = RESTORE_AT, .time_us = time_us};
	synth_must(restore_resolve(f->history, &point, now_us, &m, &f->err), &f->err, "at");
	assert_int_equal(m.txid, 9);
	point.time_us = now_us + 1;
	assert_int_equal(restore_resolve(f->history, &point, now_us, &m, &f->err), -ERR_NOT_FOUND);
	assert_non_null(strstr(f->err.msg, "future"));
	assert_non_null(strstr(f->err.msg, text));
	point.time_us = 0;
	assert_int_equal(restore_resolve(f->history, &point, now_us, &m, &f->err), -ERR_NOT_FOUND);
	assert_non_null(strstr(f->err.msg, "begins at"));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(test_every_commit),
	        CASE(test_large_sparse),
	        CASE(test_wrong_state_checksum),
	        CASE(test_damaged_archive),
	        CASE(test_existing),
	        CASE(test_odd_targets),
	        CASE(test_sides_are_refused),
	        CASE(test_sides_go_aside),
	        CASE(test_sides_without_a_database),
	        CASE(test_empty_sides_vanish),
	        CASE(test_dry_run),
	        CASE(test_open_elsewhere),
	        CASE(test_open_elsewhere_without_a_wal),
	        CASE(test_open_side_alone),
	        CASE(test_the_replicator_may),
	        CASE(test_two_restores),
	        CASE(test_cancel),
	        CASE(test_interrupted),
	        CASE(test_interrupted_and_opened_since),
	        CASE(test_interrupted_and_written_since),
	        CASE(test_interrupted_text_is_not_trusted),
	        CASE(test_kill),
	        CASE(test_resolve),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification against what can be read: bytes flipped anywhere in a history are named, the
 * moments said to be lost are those that cannot be read any more, neither more nor fewer, and the
 * nearest good ones can be.
 */
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/verify/verify.h"
#include "tests/lib/memory.h"
#include "tests/lib/realdb.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#define NO_REPORT                                                                                  \
	{                                                                                          \
		.n_damages = 0                                                                     \
	}

struct place {
	char *root;
	int dir;
	struct synth *s;
	struct rng rng;
	char files[64][256];
	size_t n_files;
};

static void add_files(struct place *p, const char *folder)
{
	char path[300];
	struct dirent *d;

	snprintf(path, sizeof(path), "%s/local/x.db/%s", p->root, folder);
	cleanup_dir DIR *dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		if (d->d_type != DT_REG || strstr(d->d_name, ".commits.gz"))
			continue;
		if (p->n_files == 64)
			synth_die("too many files");
		snprintf(p->files[p->n_files++], 256, "%.50s/%.190s", folder, d->d_name);
	}
}

/* Segments sealed and growing, snapshots whole and fuzzy, a coalesced object, a gap. */
static struct place new_place(uint64_t seed, unsigned scale)
{
	struct place p = {.root = test_folder(), .rng = {seed}};
	const struct synth_options o = {.seed = seed,
	                                .page_size = 512u << (seed % 4),
	                                .max_pages = 8 * scale,
	                                .max_frames = 2 * scale,
	                                .level = 6,
	                                .torn_batches = true};
	char path[300];

	p.s = synth_new(p.root, "x.db", &o);
	synth_every_kind(p.s, scale);
	snprintf(path, sizeof(path), "%s/local/x.db", p.root);
	p.dir = open(path, O_RDONLY | O_DIRECTORY);
	add_files(&p, "segment");
	add_files(&p, "snapshot");
	add_files(&p, "coalesced");
	return p;
}

static void free_place(struct place *p)
{
	close(p->dir);
	synth_free(p->s);
	test_remove(p->root);
	free(p->root);
}

static void verify(const struct place *p, enum verify_scope scope, struct verify_report *ret)
{
	const struct verify_options o = {.scope = scope, .sample_percent = 100, .seed = 5};
	struct err err = ERR_INIT;

	synth_must(verify_history(p->root, "x.db", &o, ret, &err), &err, "verify_history");
}

static void note_of(const struct place *p, struct verified_note *ret)
{
	struct err err = ERR_INIT;

	synth_must(verified_note_get(p->dir, ret, &err), &err, "verified_note_get");
}

static bool said_lost(const struct verify_report *r, uint64_t txid)
{
	for (size_t i = 0; i < r->n_damages; i++)
		for (size_t k = 0; k < r->damages[i].n_affected; k++)
			if (txid >= r->damages[i].affected[k].first_txid &&
			    txid <= r->damages[i].affected[k].last_txid)
				return true;
	return false;
}

/* What can be read, told by reading. */
static void hold_against_reading(const struct place *p, const struct verify_report *r,
                                 const char *file, size_t at)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct err err = ERR_INIT;
	const struct archive_options o = {.cache_bytes = 1 << 20};

	synth_must(archive_open(p->root, &o, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		if (!synth_viewable(p->s, t))
			continue;
		bool lost = !synth_compare(p->s, h, t, &err);
		if (lost != said_lost(r, t))
			for (size_t i = 0; i < r->n_damages; i++)
				for (size_t k = 0; k < r->damages[i].n_affected; k++)
					fprintf(stderr, "%s: %" PRIu64 " to %" PRIu64 "\n",
					        r->damages[i].object,
					        r->damages[i].affected[k].first_txid,
					        r->damages[i].affected[k].last_txid);
		if (lost != said_lost(r, t))
			synth_die("byte %zu of '%s' flipped: %" PRIu64 " can%s be read: %s", at,
			          file, t, lost ? "not" : "", err.msg);
	}
	for (size_t i = 0; i < r->n_damages; i++) {
		const struct verify_damage *d = &r->damages[i];
		if (d->good_before && !synth_compare(p->s, h, d->good_before, &err))
			synth_die("good before %" PRIu64 ": %s", d->good_before, err.msg);
		if (d->good_after && !synth_compare(p->s, h, d->good_after, &err))
			synth_die("good after %" PRIu64 ": %s", d->good_after, err.msg);
		if (!d->n_affected)
			continue;
		/* And none is nearer. */
		for (uint64_t t = d->good_before + 1; t < d->affected[0].first_txid; t++)
			if (synth_viewable(p->s, t) && synth_compare(p->s, h, t, &err))
				synth_die("%" PRIu64 " is nearer than %" PRIu64, t, d->good_before);
		uint64_t end = d->good_after ? d->good_after : p->s->n_states + 1;
		for (uint64_t t = d->affected[d->n_affected - 1].last_txid + 1; t < end; t++)
			if (synth_viewable(p->s, t) && synth_compare(p->s, h, t, &err))
				synth_die("%" PRIu64 " is nearer than %" PRIu64, t, d->good_after);
	}
}

static void must_name(const struct verify_report *r, const char *file, size_t at)
{
	for (size_t i = 0; i < r->n_damages; i++)
		if (strcmp(r->damages[i].object, file) == 0 &&
		    strstr(r->damages[i].reason, strrchr(file, '/') + 1))
			return;
	synth_die("byte %zu of '%s' flipped: not named (%zu damages, %s %s)", at, file,
	          r->n_damages, r->n_damages ? r->damages[0].object : "",
	          r->n_damages ? r->damages[0].reason : "");
}

static void flip(struct place *p, const char *file, uint8_t *b, size_t len, size_t k)
{
	cleanup_verify_report struct verify_report r = NO_REPORT;

	b[k] ^= (uint8_t)(1 + rng_below(&p->rng, 255));
	write_whole(p->dir, file, b, len);
	verify(p, VERIFY_FULL, &r);
	must_name(&r, file, k);
	assert_false(verify_report_ok(&r));
	for (size_t i = 0; i < r.n_damages; i++)
		assert_false(r.damages[i].at_most);
	hold_against_reading(p, &r, file, k);
}

static void test_damage(void **state)
{
	struct place p = new_place(test_seed(), 2);
	bool full = getenv("ASOF_TEST_FULL") != NULL;
	unsigned flips = 0;

	for (size_t i = 0; i < p.n_files; i++) {
		size_t len;
		cleanup_free uint8_t *b = read_whole(p.dir, p.files[i], &len);
		for (size_t k = 0; k < len;
		     k += full ? 1 : 1 + (size_t)rng_below(&p.rng, 40000 / test_rounds(100))) {
			uint8_t was = b[k];
			flip(&p, p.files[i], b, len, k);
			b[k] = was;
			flips++;
		}
		write_whole(p.dir, p.files[i], b, len);
	}
	cleanup_verify_report struct verify_report r = NO_REPORT;
	verify(&p, VERIFY_FULL, &r);
	assert_true(verify_report_ok(&r));
	printf("%u bytes flipped\n", flips);
	free_place(&p);
}

/* The table for people: named, and no moment is lost. */
static void test_table(void **state)
{
	struct place p = new_place(test_seed() + 4, 2);
	unsigned n = 0;

	for (size_t i = 0; i < p.n_files; i++) {
		char table[300];
		size_t len;
		struct object_name name;
		const char *base = strrchr(p.files[i], '/') + 1;
		if (strncmp(p.files[i], "segment/", 8) != 0 || !object_name_parse(base, &name) ||
		    name.type != OBJECT_SEALED)
			continue;
		snprintf(table, sizeof(table), "%.*s.commits.gz",
		         (int)(strlen(p.files[i]) - strlen(".wal.gz")), p.files[i]);
		cleanup_free uint8_t *b = read_whole(p.dir, table, &len);
		for (unsigned k = 0; k < 3; k++) {
			cleanup_verify_report struct verify_report r = NO_REPORT;
			uint8_t was = b[len - 9 + k]; /* of the checksum */
			if (k < 2) {
				b[len - 9 + k] ^= 1;
				write_whole(p.dir, table, b, len);
				b[len - 9 + k] = was;
			} else {
				unlinkat(p.dir, table, 0);
			}
			verify(&p, VERIFY_FULL, &r);
			assert_int_equal(r.n_damages, 1);
			assert_string_equal(r.damages[0].object, p.files[i]);
			assert_non_null(strstr(r.damages[0].reason, strrchr(table, '/') + 1));
			assert_int_equal(r.damages[0].n_affected, 0);
		}
		write_whole(p.dir, table, b, len);
		n++;
	}
	assert_true(n > 0);
	cleanup_verify_report struct verify_report r = NO_REPORT;
	verify(&p, VERIFY_FULL, &r);
	assert_true(verify_report_ok(&r));
	free_place(&p);
}

/* Nothing wrong: through the newest, in whichever scope, also of any history. */
static void test_clean(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(20); i++) {
		struct place p = {.root = test_folder()};
		const struct synth_options o = {.seed = seed + i,
		                                .page_size = 512u << (i % 8),
		                                .max_pages = 40,
		                                .max_frames = 6,
		                                .torn_batches = i % 2};
		struct verified_note n;
		char path[300];
		cleanup_archive struct archive *a = NULL;
		cleanup_history struct history *h = NULL;
		struct moment latest;
		struct err err = ERR_INIT;

		p.s = synth_new(p.root, "x.db", &o);
		snprintf(path, sizeof(path), "%s/local/x.db", p.root);
		p.dir = open(path, O_RDONLY | O_DIRECTORY);
		for (unsigned k = 0; k < 4; k++) {
			cleanup_verify_report struct verify_report r = NO_REPORT;
			enum verify_scope scope = k == 3 ? VERIFY_FULL : VERIFY_NEW;
			synth_random_history(p.s, 20);
			synth_publish(p.s);
			verify(&p, scope, &r);
			if (!verify_report_ok(&r))
				synth_die("seed %" PRIu64 ": %s", seed + i, r.damages[0].reason);
			cleanup_verify_report struct verify_report sample = NO_REPORT;
			verify(&p, VERIFY_SAMPLE, &sample);
			assert_true(verify_report_ok(&sample));
			assert_true(sample.n_moments > 0);
		}
		synth_must(archive_open(p.root, NULL, &a, &err), &err, "archive_open");
		synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
		synth_must(history_latest(h, &latest, &err), &err, "history_latest");
		note_of(&p, &n);
		if (!hash128_zero(latest.state)) {
			assert_int_equal(n.through_txid, latest.txid);
			assert_int_equal(n.full_txid, latest.txid);
		}
		assert_int_equal(n.damaged, 0);
		free_place(&p);
	}
}

/* The hourly run reads what is new, and finds what is wrong with that. */
static void test_new_only(void **state)
{
	cleanup_free char *folder = test_folder();
	const struct synth_options o = {.seed = 3, .max_pages = 10, .max_frames = 4};
	struct realdb r;
	struct place p = {.root = folder};
	char root[300], path[300];
	struct verified_note n;
	uint64_t before = 0;

	realdb_new(&r, folder, "x.db", 1024, &o);
	realdb_exec(&r,
	            "CREATE TABLE a(x); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
	            "FROM c WHERE i < 2000) INSERT INTO a SELECT randomblob(500) FROM c");
	synth_cut(r.s);
	synth_seal(r.s, r.s->n_states, r.s->n_states, false);
	snprintf(root, sizeof(root), "%s/archive", folder);
	snprintf(path, sizeof(path), "%s/local/x.db", root);
	p.root = root;
	p.s = r.s;
	p.dir = open(path, O_RDONLY | O_DIRECTORY);
	for (unsigned i = 0; i < 5; i++) {
		cleanup_verify_report struct verify_report rep = NO_REPORT;
		uint64_t txid = realdb_exec(&r,
		                            "UPDATE a SET x = randomblob(500) WHERE rowid %% 100 "
		                            "= %u",
		                            i);
		synth_cut(r.s);
		synth_seal(r.s, txid, txid, false);
		/* What was there before the last run is old: as after hours. */
		for (size_t k = 0; k + 1 < r.s->n_objects; k++) {
			char file[OBJECT_NAME_MAX], full[OBJECT_NAME_MAX + 16];
			struct timespec old[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
			object_name_format(&r.s->objects[k].name, file);
			snprintf(full, sizeof(full), "%s/%s",
			         r.s->objects[k].name.type == OBJECT_SNAPSHOT ? "snapshot"
			                                                      : "segment",
			         file);
			utimensat(p.dir, full, old, 0);
		}
		verify(&p, VERIFY_NEW, &rep);
		assert_true(verify_report_ok(&rep));
		note_of(&p, &n);
		assert_int_equal(n.through_txid, txid);
		if (i == 0)
			before = rep.bytes_read;
		else if (rep.bytes_read > before / 4)
			synth_die("%" PRIu64 " bytes read again, of %" PRIu64, rep.bytes_read,
			          before);
	}
	close(p.dir);
	realdb_free(&r);
	test_remove(folder);
}

/* ---- stopping ---- */

struct stopper {
	unsigned calls, at;
};

static bool stop_at(void *ctx, uint64_t done, uint64_t total)
{
	struct stopper *s = ctx;

	assert_true(done <= total);
	return ++s->calls != s->at;
}

/* Stopped anywhere: what it found by then is kept, and the next one comes to the end. */
static void test_stopped(void **state)
{
	struct place p = new_place(test_seed() + 2, 6);

	for (unsigned at = 1;; at += 1 + at / 4) {
		struct stopper s = {.at = at};
		const struct verify_options o = {
		        .scope = VERIFY_FULL, .progress = stop_at, .ctx = &s};
		cleanup_verify_report struct verify_report r = NO_REPORT, again = NO_REPORT;
		struct err err = ERR_INIT;
		int rc = verify_history(p.root, "x.db", &o, &r, &err);
		if (rc == 0)
			break;
		assert_int_equal(rc, -ERR_CANCELLED);
		verify(&p, VERIFY_FULL, &again);
		assert_true(verify_report_ok(&again));
		assert_true(again.verified_txid > 0);
	}
	_Atomic bool stop = true;
	const struct verify_options o = {.scope = VERIFY_NEW, .stop = &stop};
	struct verify_report r;
	struct err err = ERR_INIT;
	assert_int_equal(verify_history(p.root, "x.db", &o, &r, &err), -ERR_CANCELLED);
	verify_report_release(&r);
	free_place(&p);
}

/* What is half read is read to its end by the next one, though the database went on. */
static void test_taken_up(void **state)
{
	struct place p = new_place(test_seed() + 6, 2);
	struct verified_note n;
	cleanup_verify_report struct verify_report r = NO_REPORT;
	struct err err = ERR_INIT;
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct moment m;

	synth_must(archive_open(p.root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	synth_must(history_latest(h, &m, &err), &err, "history_latest");
	cleanup_view struct view *v = NULL;
	synth_must(view_open(h, m.txid, &v, &err), &err, "view_open");
	/* As a run that was killed left it, one page in. */
	uint8_t page[65536];
	synth_must(view_page(v, 1, page, &err), &err, "view_page");
	n = (struct verified_note){.pass_us = clock_now_us(),
	                           .pass_file = "snapshot/zzz",
	                           .pass_txid = m.txid,
	                           .pass_page = 1,
	                           .pass_sum = page_hash(1, page, m.page_size)};
	synth_must(verified_note_put(p.dir, &n, &err), &err, "verified_note_put");
	synth_random_commit(p.s);
	synth_publish(p.s);
	verify(&p, VERIFY_FULL, &r);
	assert_true(verify_report_ok(&r));
	note_of(&p, &n);
	if (!hash128_zero(m.state))
		assert_int_equal(n.full_txid, m.txid);
	assert_int_equal(n.pass_page, 0);
	/* A sum that is wrong would have been noticed. */
	n.pass_us = 1;
	n.pass_txid = m.txid;
	n.pass_page = 1;
	n.pass_sum.lo = 12345;
	synth_must(verified_note_put(p.dir, &n, &err), &err, "verified_note_put");
	cleanup_verify_report struct verify_report wrong = NO_REPORT;
	verify(&p, VERIFY_FULL, &wrong);
	assert_int_equal(verify_report_ok(&wrong), hash128_zero(m.state));
	view_free(take_ptr(v));
	history_put(take_ptr(h));
	archive_free(take_ptr(a));
	free_place(&p);
}

static void test_pace(void **state)
{
	struct place p = new_place(test_seed() + 3, 4);
	cleanup_verify_report struct verify_report free_run = NO_REPORT, r = NO_REPORT;
	struct err err = ERR_INIT;

	verify(&p, VERIFY_FULL, &free_run);
	const struct verify_options o = {.scope = VERIFY_FULL,
	                                 .bytes_per_second = free_run.bytes_read * 5};
	int64_t began = clock_mono_us();
	synth_must(verify_history(p.root, "x.db", &o, &r, &err), &err, "verify_history");
	int64_t took = clock_mono_us() - began;
	if (took < 150000 || took > 5000000)
		synth_die("a fifth of a second's bytes took %" PRId64 " us", took);
	free_place(&p);
}

/* What SQLite says of the newest image. */
static void test_integrity(void **state)
{
	cleanup_free char *folder = test_folder();
	const struct synth_options so = {.seed = 3, .max_pages = 10, .max_frames = 4};
	const struct verify_options o = {.scope = VERIFY_NEW, .integrity = true};
	struct realdb r;
	char root[300];
	struct err err = ERR_INIT;

	realdb_new(&r, folder, "x.db", 1024, &so);
	realdb_exec(&r,
	            "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id));"
	            "CREATE INDEX c_p ON c(p); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)");
	snprintf(root, sizeof(root), "%s/archive", folder);
	for (unsigned i = 0; i < 3; i++) {
		struct verify_report rep;
		if (i == 1)
			realdb_exec(&r, "INSERT INTO c VALUES (7), (8)");
		if (i == 2)
			realdb_exec(&r, "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET "
			                "rootpage = 2 WHERE name = 'c_p'");
		synth_must(verify_history(root, "x.db", &o, &rep, &err), &err, "verify_history");
		assert_int_equal(rep.n_damages, 0);
		assert_true(rep.integrity_done);
		assert_int_equal(verify_report_ok(&rep), i != 2);
		if (i == 0)
			assert_string_equal(rep.integrity, "ok");
		if (i == 1) {
			assert_int_equal(rep.foreign_key_problems, 2);
			assert_non_null(strstr(rep.integrity, "table c"));
		}
		if (i == 2)
			assert_true(rep.integrity_problems > 0);
		verify_report_release(&rep);
	}
	realdb_free(&r);
	test_remove(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_clean),   cmocka_unit_test(test_damage),
	        cmocka_unit_test(test_table),   cmocka_unit_test(test_new_only),
	        cmocka_unit_test(test_stopped), cmocka_unit_test(test_taken_up),
	        cmocka_unit_test(test_pace),    cmocka_unit_test(test_integrity),
	};
	log_set_fd(-1); /* damage is made on purpose */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

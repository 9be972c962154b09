/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage anywhere in an archive: a view fails and names the object, or it gives the right bytes.
 * Never others, never a crash, and never another moment than the one that was asked for.
 *
 * ASOF_TEST_FULL=1 flips every byte; else some, by chance.
 */
#include "engine/base/log.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#define FAR_US INT64_C(4000000000000000)

struct place {
	char *root;
	int dir; /* ROOT/local/x.db */
	struct synth *s;
	struct rng rng;
	char files[64][256]; /* below dir */
	size_t n_files;
};

static void add_files(struct place *p, const char *folder)
{
	char path[300];
	struct dirent *d;

	snprintf(path, sizeof(path), "%s/local/x.db/%s", p->root, folder);
	cleanup_dir DIR *dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		if (d->d_type != DT_REG || strcmp(d->d_name, "lock") == 0)
			continue;
		if (p->n_files == 64)
			synth_die("too many files");
		snprintf(p->files[p->n_files++], 256, "%.50s%s%.190s", folder, *folder ? "/" : "",
		         d->d_name);
	}
}

/* Every kind of object, as small as can be. */
static struct place new_place(uint64_t seed, unsigned scale)
{
	struct place p = {.root = test_folder(), .rng = {seed}};
	const struct synth_options o = {.seed = seed,
	                                .page_size = 512,
	                                .max_pages = 5 * scale,
	                                .max_frames = 2 * scale,
	                                .level = 6,
	                                .torn_batches = true};
	char path[300];

	p.s = synth_new(p.root, "x.db", &o);
	synth_every_kind(p.s, scale);
	snprintf(path, sizeof(path), "%s/local/x.db", p.root);
	p.dir = open(path, O_RDONLY | O_DIRECTORY);
	add_files(&p, "");
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

static void must_name(const struct err *err, const char *file, const char *what)
{
	const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;

	if (err->kind != ERR_DAMAGED || !strstr(err->msg, base))
		synth_die("%s in '%s': not damage that names it: %s (%s)", what, file, err->msg,
		          err_kind_name(err->kind));
}

static void check_moment(const struct place *p, struct history *h, int64_t us, const char *file,
                         bool strict, const char *what)
{
	struct moment m;
	struct err err = ERR_INIT;
	uint64_t want = 0;
	enum err_kind kind = synth_expect_at(p->s, us, &want);
	int rc = history_at(h, us, FAR_US, &m, &err);

	if (rc == 0 && (kind != ERR_NONE || m.txid != want))
		synth_die("%s in '%s': at %lld gave %llu, not %llu", what, file, (long long)us,
		          (unsigned long long)m.txid, (unsigned long long)want);
	if (rc < 0 && strict && err.kind != kind)
		must_name(&err, file, what);
}

/* Reads everything.  Gives the number of views that could not be had.  `strict`: what fails must
 * name the file. */
static unsigned read_everything(const struct place *p, const char *file, bool strict,
                                const char *what)
{
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;
	unsigned failed = 0;
	const struct archive_options o = {.cache_bytes = 1 << 20};

	synth_must(archive_open(p->root, &o, &a, &err), &err, "archive_open");
	if (history_get(a, "x.db", &h, &err) < 0) {
		if (strict)
			must_name(&err, file, what);
		archive_free(a);
		return 1;
	}
	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		if (!synth_compare(p->s, h, t, &err)) {
			if (synth_viewable(p->s, t)) {
				failed++;
				if (strict)
					must_name(&err, file, what);
			}
		} else if (!synth_viewable(p->s, t)) {
			synth_die("%s in '%s': %llu can be viewed", what, file,
			          (unsigned long long)t);
		}
		int64_t us = synth_state(p->s, t)->commit.time_us;
		check_moment(p, h, us, file, strict, what);
		check_moment(p, h, us + 1, file, strict, what);
	}
	struct moment m;
	if (history_latest(h, &m, &err) == 0)
		assert_int_equal(m.txid, p->s->n_states);
	else if (strict)
		must_name(&err, file, what);
	history_put(h);
	archive_free(a);
	return failed;
}

static bool is_text_table(const char *file)
{
	return strstr(file, ".commits.gz") != NULL; /* for people: no reader looks at it */
}

static void test_flips(void **state)
{
	struct place p = new_place(test_seed(), 1);
	bool full = getenv("ASOF_TEST_FULL") != NULL;
	unsigned flips = 0, failed = 0;

	assert_int_equal(read_everything(&p, "", true, "nothing"), 0);
	for (size_t i = 0; i < p.n_files; i++) {
		size_t len;
		if (is_text_table(p.files[i]))
			continue;
		cleanup_free uint8_t *b = read_whole(p.dir, p.files[i], &len);
		for (size_t k = 0; k < len;
		     k += full ? 1 : 1 + (size_t)rng_below(&p.rng, 2000 / test_rounds(100))) {
			uint8_t was = b[k];
			b[k] ^= (uint8_t)(1 + rng_below(&p.rng, 255));
			write_whole(p.dir, p.files[i], b, len);
			failed += read_everything(&p, p.files[i], true, "a flipped byte") > 0;
			flips++;
			b[k] = was;
		}
		write_whole(p.dir, p.files[i], b, len);
	}
	printf("%u bytes flipped, %u of them kept a view from being had\n", flips, failed);
	assert_int_equal(read_everything(&p, "", true, "nothing"), 0);
	free_place(&p);
}

/* Larger ones, by chance. */
static void test_flips_sampled(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct place p = new_place(test_seed() + 1 + i, getenv("ASOF_TEST_SHORT") ? 3 : 12);
		for (unsigned n = 0; n < test_rounds(25); n++) {
			const char *file = p.files[rng_below(&p.rng, p.n_files)];
			size_t len;
			if (is_text_table(file))
				continue;
			cleanup_free uint8_t *b = read_whole(p.dir, file, &len);
			size_t k = (size_t)rng_below(&p.rng, len);
			uint8_t bit = (uint8_t)(1u << rng_below(&p.rng, 8));
			b[k] ^= bit;
			write_whole(p.dir, file, b, len);
			read_everything(&p, file, true, "a flipped bit");
			b[k] ^= bit;
			write_whole(p.dir, file, b, len);
		}
		assert_int_equal(read_everything(&p, "", true, "nothing"), 0);
		free_place(&p);
	}
}

static void test_cuts(void **state)
{
	struct place p = new_place(test_seed() + 9, 1);

	for (size_t i = 0; i < p.n_files; i++) {
		size_t len;
		if (is_text_table(p.files[i]))
			continue;
		cleanup_free uint8_t *b = read_whole(p.dir, p.files[i], &len);
		for (size_t cut = 0; cut < len;
		     cut += 1 + (size_t)rng_below(&p.rng, 20000 / test_rounds(100))) {
			write_whole(p.dir, p.files[i], b, cut);
			read_everything(&p, p.files[i], false, "a cut");
		}
		/* Something behind it. */
		cleanup_free uint8_t *longer = calloc(1, len + 300);
		memcpy(longer, b, len);
		memcpy(longer + len, b, len < 300 ? len : 300);
		write_whole(p.dir, p.files[i], longer, len + 1 + (size_t)rng_below(&p.rng, 300));
		read_everything(&p, p.files[i], false, "something behind it");
		/* Nothing at all. */
		unlinkat(p.dir, p.files[i], 0);
		read_everything(&p, p.files[i], false, "not being there");
		write_whole(p.dir, p.files[i], b, len);
	}
	assert_int_equal(read_everything(&p, "", true, "nothing"), 0);
	free_place(&p);
}

/* Any object under the name of any other. */
static void test_exchanged(void **state)
{
	struct place p = new_place(test_seed() + 10, 1), q = new_place(test_seed() + 11, 1);

	for (size_t i = 0; i < p.n_files; i++) {
		size_t len;
		if (is_text_table(p.files[i]))
			continue;
		cleanup_free uint8_t *b = read_whole(p.dir, p.files[i], &len);
		for (size_t k = 0; k < p.n_files + q.n_files; k++) {
			bool own = k < p.n_files;
			const char *other = own ? p.files[k] : q.files[k - p.n_files];
			if (is_text_table(other) || (own && k == i) ||
			    !strchr(other, '/') != !strchr(p.files[i], '/'))
				continue;
			/* Head, source and the like of another archive are a whole, true file; so is a
			 * growing segment under the same key. */
			if (!own && (!strchr(other, '/') || strcmp(other, p.files[i]) == 0))
				continue;
			if (rng_below(&p.rng, 100) >= test_rounds(30))
				continue;
			size_t other_len;
			cleanup_free uint8_t *o =
			        read_whole(own ? p.dir : q.dir, other, &other_len);
			write_whole(p.dir, p.files[i], o, other_len);
			if (strstr(p.files[i], ".gap") == NULL)
				read_everything(&p, p.files[i], false, "another object");
		}
		write_whole(p.dir, p.files[i], b, len);
	}
	assert_int_equal(read_everything(&p, "", true, "nothing"), 0);
	free_place(&p);
	free_place(&q);
}

/* A true object under a name that tells something else. */
static void test_renamed(void **state)
{
	struct place p = new_place(test_seed() + 12, 1);

	for (size_t i = 0; i < p.n_files; i++) {
		const char *slash = strchr(p.files[i], '/');
		struct object_name n;
		if (!slash || !object_name_parse(slash + 1, &n) || n.type == OBJECT_COMMITS)
			continue;
		for (unsigned k = 0; k < test_rounds(20); k++) {
			struct object_name other = n;
			char name[OBJECT_NAME_MAX], path[300];
			uint64_t by = 1 + rng_below(&p.rng, 3);
			switch (rng_below(&p.rng, 7)) {
			case 0:
				other.first_txid += by;
				break;
			case 1:
				other.last_txid += by;
				break;
			case 2:
				other.first_txid =
				        other.first_txid > by ? other.first_txid - by : 1;
				break;
			case 3:
				other.last_txid = other.last_txid > by ? other.last_txid - by : 1;
				break;
			case 4:
				other.first_us -= 1;
				other.last_us -= n.type == OBJECT_SNAPSHOT;
				break;
			case 5:
				other.min_pages += 1;
				other.last_us += n.type == OBJECT_SNAPSHOT;
				break;
			default:
				other.lineage += 1;
			}
			object_name_format(&other, name);
			if (!object_name_parse(name, &other) || strcmp(name, slash + 1) == 0)
				continue;
			snprintf(path, sizeof(path), "%.*s/%.190s", (int)(slash - p.files[i]),
			         p.files[i], name);
			if (faccessat(p.dir, path, F_OK, 0) == 0)
				continue;
			renameat(p.dir, p.files[i], p.dir, path);
			read_everything(&p, path, false, "another name");
			renameat(p.dir, path, p.dir, p.files[i]);
		}
		/* In another kind's folder. */
		static const char *const folders[] = {"segment", "snapshot", "coalesced"};
		for (unsigned k = 0; k < 3; k++) {
			char path[300];
			snprintf(path, sizeof(path), "%s/%.190s", folders[k], slash + 1);
			if (faccessat(p.dir, path, F_OK, 0) == 0)
				continue;
			linkat(p.dir, p.files[i], p.dir, path, 0);
			read_everything(&p, path, false, "another folder");
			unlinkat(p.dir, path, 0);
		}
	}
	assert_int_equal(read_everything(&p, "", true, "nothing"), 0);
	free_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_flips),   cmocka_unit_test(test_flips_sampled),
	        cmocka_unit_test(test_cuts),    cmocka_unit_test(test_exchanged),
	        cmocka_unit_test(test_renamed),
	};
	log_set_fd(-1); /* damage is made on purpose */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every file of a history, whatever it is: a bit flipped, cut short, emptied, gone.  Verification names
 * it, or it is on the short list of what may be lost, with the reason.  So a new kind of file is
 * either looked at or listed.  What is gone need not be noticed where every moment is still to be seen.
 */
#include "engine/base/log.h"
#include "engine/retain/retain.h"
#include "engine/verify/verify.h"
#include "tests/lib/memory.h"
#include "tests/lib/places.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct excuse {
	const char *begins, *ends; /* of the file's name */
	bool changed;              /* else only that it is gone */
	const char *reason;
};
static const struct excuse excuses[] = {
        /* One machine's own. */
        {"lock", "lock", true, "held; its content is a hint for people"},
        {"upkeep", "upkeep", true, "held; it has no content"},
        {"head", "head", true, "not fsynced: without it, what the objects prove counts"},
        {"pages", "pages", true, "a cache, built anew"},
        {"verified", "verified", true, "of what was found; the next run finds it again"},
        {"identity", "identity", true, "without it, it is somebody new"},
        {"shipped-", "", true, "how far a destination is: it is asked again"},
        {"retained-", "", true, "how its retention went: it is run again"},
        /* What is told of by itself alone. */
        {"", ".mark", false, "people take marks away"},
        {"", ".gap", false, "the commit behind it tells that there was one"},
        {"", ".writer", false, "who writes next puts it anew"},
        {"expiring", "expiring", false, "retention lists it anew"},
};

static const struct excuse *excuse_of(const char *base)
{
	for (size_t i = 0; i < sizeof(excuses) / sizeof(*excuses); i++)
		if (strncmp(base, excuses[i].begins, strlen(excuses[i].begins)) == 0 &&
		    ends_with(base, excuses[i].ends))
			return &excuses[i];
	return NULL;
}

/* False: the newest state cannot be restored (any more), which is said, and no more is known. */
static bool verify(struct pair *p, struct store *place, struct verify_report *ret)
{
	const struct verify_options o = {.scope = VERIFY_FULL,
	                                 .opened = place == p->local ? NULL : store_lent(place)};
	struct err err = ERR_INIT;

	int rc = verify_history(p->root, "x.db", &o, ret, &err);
	if (err_kind_of(rc) != ERR_NOT_FOUND && err_kind_of(rc) != ERR_GAP)
		synth_must(rc, &err, "verify");
	return rc == 0;
}

static bool is_named(const struct verify_report *r, const char *base)
{
	for (size_t i = 0; i < r->n_damages; i++)
		if (ends_with(r->damages[i].object, base) ||
		    strstr(r->damages[i].reason, base)) /* a table is told with its segment */
			return true;
	return false;
}

static bool sees_all(struct pair *p, struct store *place)
{
	struct history *h;
	struct err err = ERR_INIT;
	struct archive *a = pair_alone(p, place, &h);
	bool all = true;

	for (uint64_t t = 1; t <= p->s->n_states && all; t++)
		all = !p->seen[t] || synth_compare(p->s, h, t, &err);
	history_put(h);
	archive_free(a);
	return all;
}

/* Whether a moment that cannot be seen any more was recorded behind a complete snapshot. */
static bool lost_summed(struct pair *p, struct store *place)
{
	struct history *h;
	struct archive *a = pair_alone(p, place, &h);
	bool lost = false;

	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		struct err why = ERR_INIT;
		const struct commit *c = &p->s->states[t - 1].commit;
		lost = lost || (p->seen[t] && p->s->states[t - 1].in_segment &&
		                !(c->flags & COMMIT_NO_STATE) && !synth_compare(p->s, h, t, &why));
	}
	history_put(h);
	archive_free(a);
	return lost;
}

/* What cannot be seen any more is told to be lost. */
static void must_tell_lost(struct pair *p, struct store *place, const struct verify_report *r,
                           const char *what)
{
	struct history *h;
	struct archive *a = pair_alone(p, place, &h);

	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		struct err err = ERR_INIT;
		bool told = false;
		for (size_t i = 0; i < r->n_damages; i++)
			for (size_t k = 0; k < r->damages[i].n_affected; k++)
				told = told || (t >= r->damages[i].affected[k].first_txid &&
				                t <= r->damages[i].affected[k].last_txid);
		if (p->seen[t] && !told && !synth_compare(p->s, h, t, &err))
			synth_die("%s: %" PRIu64 " is not told to be lost: %s", what, t, err.msg);
	}
	history_put(h);
	archive_free(a);
}

/* Bytes of gzip's own that a table has, and that nothing covers: a time, a system.  And a segment of
 * level 0, or that was growing, that a sealed one covers is passed over. */
static bool tells_nothing(struct pair *p, struct store *place, const struct file *f, enum harm how)
{
	return (how == FLIPPED && ends_with(f->key, ".commits.gz")) ||
	       (file_is_growing(f) && sees_all(p, place));
}

static void each_harm(struct pair *p, struct store *place, const char *name,
                      const struct files *was, const struct file *f, enum harm how)
{
	CLEANUP(verify_report_release) struct verify_report r = {.n_damages = 0};
	const char *base = strrchr(f->key, '/') + 1;
	const struct excuse *e = excuse_of(base);
	bool excused = e && (how == REMOVED || e->changed);
	/* Of the newest of a store nobody can tell how far it reached; of the first snapshot there, which
	 * can be on its way, that it came. */
	bool snapshot = ends_with(base, ".db.gz") && how == REMOVED;
	bool untold = place != p->local && (file_is_newest(was, f) || snapshot);
	char what[300];

	if (how != REMOVED && f->len == 0)
		return;
	snprintf(what, sizeof(what), "%s %.200s of %s", harms[how], f->key, name);
	file_harm(p, place, f, how);
	untold = untold || (snapshot && !lost_summed(p, place));
	if (strcmp(base, "source") == 0 && how != REMOVED) {
		assert_true(verify(p, place, &r));
		assert_true(is_named(&r, base) && !verify_report_ok(&r));
		files_restore(was);
		return; /* nothing can be seen without it */
	}
	if (!verify(p, place, &r)) {
		if (how != REMOVED || !(untold || snapshot))
			synth_die("%s: nothing is said of it", what);
		files_restore(was);
		return;
	}
	if (excused && !verify_report_ok(&r))
		synth_die("%s is damage: %s", what, r.damages[0].reason);
	if (!excused && how != REMOVED && !is_named(&r, base) && !tells_nothing(p, place, f, how))
		synth_die("%s is not named", what);
	if (!excused && how == REMOVED && verify_report_ok(&r) &&
	    (strstr(f->key, "/x.db/source") || !sees_all(p, place)) && !untold)
		synth_die("%s is not noticed", what);
	/* Which moments a damaged `thinned` takes along cannot be told, and that is what is said. */
	bool countless =
	        strcmp(base, "source") == 0 || strcmp(base, "thinned") == 0 ||
	        /* Where points alone are left it is what tells that one of them healed it. */
	        ends_with(base, ".gap");
	/* Of a store small objects are read whole, so that more is lost than what is told of here: who asks
	 * for one page of them later reads their header, too. */
	if (!verify_report_ok(&r) && !countless && !untold && !snapshot && place == p->local)
		must_tell_lost(p, place, &r, what);
	files_restore(was);
}

static void each_file(struct pair *p, struct store *place, const char *name, unsigned *kinds)
{
	CLEANUP(verify_report_release) struct verify_report r = {.n_damages = 0};
	struct files was;

	pair_look(p, place);
	assert_true(p->n_seen > 3);
	if (!verify(p, place, &r) || !verify_report_ok(&r)) /* its note is a file, too */
		synth_die("%s is whole: %s", name, r.n_damages ? r.damages[0].reason : "");
	files_save(place, &was);
	for (size_t i = 0; i < was.n; i++) {
		const char *base = strrchr(was.v[i].key, '/') + 1;
		for (enum harm how = REMOVED; how < N_HARMS; how++)
			each_harm(p, place, name, &was, &was.v[i], how);
		*kinds |= strcmp(base, "thinned") == 0          ? 1u
		          : strcmp(base, "expiring") == 0       ? 2u
		          : ends_with(base, ".mark")            ? 4u
		          : ends_with(base, ".gap")             ? 8u
		          : ends_with(base, ".lineage")         ? 16u
		          : ends_with(base, ".writer")          ? 32u
		          : ends_with(base, ".db.gz")           ? 64u
		          : strstr(was.v[i].key, "/coalesced/") ? 128u
		          : ends_with(base, ".commits.gz")      ? 256u
		          : file_is_growing(&was.v[i])          ? 512u
		          : ends_with(base, ".wal.gz")          ? 1024u
		                                                : 0u;
	}
	files_release(&was);
}

/* A destination that is brought what a directory holds, less what is one machine's own. */
static void send_all(struct pair *p, struct store *to)
{
	struct files all;

	files_save(p->local, &all);
	for (size_t i = 0; i < all.n; i++) {
		const char *base = strrchr(all.v[i].key, '/') + 1;
		const struct excuse *e = excuse_of(base);
		if (!(e && e->changed) && !file_is_growing(&all.v[i]))
			store_put_text(to, all.v[i].key, all.v[i].bytes, all.v[i].len);
	}
	files_release(&all);
}

static void each_place(uint64_t seed, unsigned *kinds)
{
	struct pair p = pair_new(seed);
	struct store *bucket;
	struct err err = ERR_INIT;

	synth_must(store_open_memory(&bucket, &err), &err, "store");
	fprintf(stderr, "history %" PRIu64 "\n", seed);
	pair_look(&p, p.far);
	for (uint64_t t = 2; t <= p.s->n_states && !(*kinds & 4); t++)
		if (p.seen[t] && retain_mark(p.root, "x.db", "m", t, &err) == 0)
			break;
	each_file(&p, p.far, "a destination", kinds);
	each_file(&p, p.local, "a directory", kinds);
	if (pair_thin(&p, 1000000)) {
		each_file(&p, p.local, "a directory with a grace time", kinds);
		(void)!pair_thin(&p, 0);
		each_file(&p, p.local, "a thinned directory", kinds);
		send_all(&p, bucket);
		each_file(&p, bucket, "a thinned destination", kinds);
	}
	store_free(bucket);
	pair_free(&p);
}

/* The first snapshot of a second lineage; a segment that only a fuzzy snapshot needs, gone and damaged; a
 * destination of which nothing is left but points. */
static const uint64_t known[] = {31710, 126740, 190092, 2012};

static void test_every_file(void **state)
{
	uint64_t seed = test_seed() * 2; /* no torn batches: what is torn is nobody's loss */
	unsigned kinds = 0;

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		each_place(known[i], &kinds);
	kinds = 0;
	/* Not every history has a gap. */
	for (unsigned i = 0; i < test_rounds(2) || (!(kinds & 8u) && i < 40); i++)
		each_place(seed + 2 * i, &kinds);
	if (kinds != 2047)
		synth_die("of the kinds of files %x were there", kinds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_file)};

	log_set_level(LOG_ERROR);
	log_set_fd(-1); /* damage is made on purpose */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

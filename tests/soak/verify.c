/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge of the soak: does an archive hold every commit, exactly?
 *
 *   verify ARCHIVE NAME [--live FILE] [--acked SEQ] [--plain N] [--every N | --views N]
 *          [--no-gaps] [--counter no]
 *
 * Replays the frames of the whole history into an image of its own (the oldest snapshot comes
 * from zlib, not from the view) and holds against it
 *
 *   at every commit   the counter of oracle.h, its chain, and the state checksum
 *   at chosen ones    every page of the view, the view's own checksum, its depth, history_at()
 *   at every base     every byte of it
 *   at the end        the live file
 *
 * Only behind a declared gap (UNSETTLED or HEAL flags, a new lineage) may the counter jump.
 * Problems go to standard output, a line each, then one line of JSON.  Exit status 1: problems.
 */
#include "engine/base/clock.h"
#include "engine/base/err.h"
#include "engine/base/log.h"
#include "engine/sqlite/format.h"
#include "engine/view/history.h"
#include "engine/view/replay.h"
#include "tests/soak/oracle.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define IMAGE_MAX (UINT64_C(64) << 30) /* of address space; memory is taken as it is touched */
#define PROBLEMS_SHOWN 20

static struct judge {
	struct archive *archive;
	struct history *history;
	const char *root, *name, *live;
	uint64_t every, views, plain_max, acked;
	bool no_gaps, no_counter;
	struct history_object *objects;
	size_t n_objects;

	uint8_t *image; /* pages as of the last commit; zero behind its end */
	struct hash128 *hashes;
	uint32_t page_size, n_pages, top; /* top: highest page set since the last commit */
	struct hash128 state;
	bool whole;       /* image and state are those of a database */
	bool jump;        /* a declared gap: the counter may have moved */
	struct oracle at; /* of the last commit */
	bool have_at;
	struct oracle found; /* newest in the commit under way */
	bool have_found;
	uint32_t counter_page;

	uint64_t txid, first_txid, last_txid;
	int64_t time_us;
	uint32_t lineage;
	uint64_t commits, frames, plain, unsettled, heals, lost, lineages, bases;
	uint64_t viewed, pages_viewed, max_depth, depth_sum;
	double open_first_us, open_last_us, open_sum_us, open_max_us;
	uint64_t problems;
	uint64_t progress_us;
} j = {.plain_max = UINT64_MAX};

static void problem(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void problem(const char *fmt, ...)
{
	va_list ap;

	if (j.problems++ >= PROBLEMS_SHOWN)
		return;
	va_start(ap, fmt);
	printf("problem: txid %" PRIu64 ": ", j.txid);
	vprintf(fmt, ap);
	putchar('\n');
	fflush(stdout);
	va_end(ap);
}

static void die(const struct err *err, const char *what)
{
	printf("problem: txid %" PRIu64 ": %s: %s\n", j.txid, what, err->msg);
	exit(1);
}

static uint8_t *page_at(uint32_t pgno)
{
	return j.image + (uint64_t)(pgno - 1) * j.page_size;
}

/* ---- the image ---- */

static void set_page(uint32_t pgno, const uint8_t *page)
{
	struct hash128 h = page_hash(pgno, page, j.page_size);

	if ((uint64_t)pgno * j.page_size > IMAGE_MAX) {
		problem("page %u is absurd", pgno);
		return;
	}
	memcpy(page_at(pgno), page, j.page_size);
	state_sub(&j.state, j.hashes[pgno]);
	state_add(&j.state, h);
	j.hashes[pgno] = h;
	if (pgno > j.top)
		j.top = pgno;
}

static void cut_pages(uint32_t n_pages)
{
	for (uint32_t p = n_pages + 1; p <= j.top; p++) {
		state_sub(&j.state, j.hashes[p]);
		j.hashes[p] = (struct hash128){0, 0};
		memset(page_at(p), 0, j.page_size);
	}
	j.n_pages = j.top = n_pages;
}

static void *reserve(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		perror("reserve");
		exit(2);
	}
	return p;
}

static void empty_image(uint32_t page_size)
{
	if (j.image)
		munmap(j.image, IMAGE_MAX);
	if (j.hashes)
		munmap(j.hashes, IMAGE_MAX / 512 * sizeof(*j.hashes));
	j.image = reserve(IMAGE_MAX);
	j.hashes = reserve(IMAGE_MAX / 512 * sizeof(*j.hashes));
	j.page_size = page_size;
	j.n_pages = j.top = 0;
	j.state = (struct hash128){0, 0};
	j.counter_page = 0;
}

/* ---- the counter ---- */

/* The row as it stands in a page: the only cell of a leaf, so that no stale copy in the free
 * space of a page is taken for it. */
static bool find_row(uint32_t pgno, const uint8_t *page, struct oracle *ret)
{
	const uint8_t *h = page + (pgno == 1 ? 100 : 0);

	if (h[0] != 0x0d || h[3] != 0 || h[4] != 1)
		return false;
	uint32_t cell = (uint32_t)h[8] << 8 | h[9];
	for (uint32_t i = cell; i + ORACLE_SIZE <= j.page_size && i < cell + 16; i++)
		if (oracle_get(page + i, ret))
			return true;
	return false;
}

/* Anywhere in the image: after a gap the row can have moved unseen. */
static bool search_image(struct oracle *ret)
{
	struct oracle o;
	bool found = false;

	for (uint32_t p = 1; p <= j.n_pages; p++)
		if (find_row(p, page_at(p), &o) && (!found || o.seq > ret->seq)) {
			*ret = o;
			j.counter_page = p;
			found = true;
		}
	return found;
}

static void check_counter(const struct commit *c)
{
	struct oracle next;

	if (j.no_counter)
		return;
	if (j.jump || !j.have_at) {
		if (!search_image(&next)) {
			if (j.have_at)
				problem("the counter is not in the image");
			return;
		}
		if (j.have_at && next.seq > j.at.seq)
			j.lost += next.seq - j.at.seq;
		j.at = next;
		j.have_at = true;
		j.jump = false;
		return;
	}
	if (!j.have_found || j.found.seq == j.at.seq) {
		if (++j.plain <= 5)
			printf("note: txid %" PRIu64 " does not move the counter: %" PRIu64
			       " frames, %u pages, flags %u\n",
			       j.txid, c->n_frames, c->n_pages, c->flags);
		return;
	}
	next = oracle_next(&j.at, j.found.nonce);
	if (j.found.seq != next.seq)
		problem("counter %" PRIu64 " follows %" PRIu64 ", and no gap is declared%s",
		        j.found.seq, j.at.seq, c->flags & COMMIT_HEAL ? " (a heal)" : "");
	else if (memcmp(j.found.chain, next.chain, sizeof(next.chain)) != 0)
		problem("the chain is broken at counter %" PRIu64, j.found.seq);
	j.at = j.found;
}

/* ---- views against the image ---- */

static double mono_us(void)
{
	return (double)clock_mono_us();
}

static void compare_pages(struct view *v)
{
	cleanup_free uint8_t *page = malloc(j.page_size);
	struct err err = ERR_INIT;
	unsigned shown = 0;

	for (uint32_t p = 1; p <= j.n_pages; p++) {
		if (view_page(v, p, page, &err) < 0) {
			problem("view, page %u: %s", p, err.msg);
			return;
		}
		if (memcmp(page, page_at(p), j.page_size) != 0 && shown++ < 3)
			problem("view, page %u of %u is another one", p, j.n_pages);
	}
	j.pages_viewed += j.n_pages;
}

static void check_times(const struct commit *c)
{
	struct moment m;
	struct err err = ERR_INIT;
	int64_t now = clock_now_us();

	if (history_at(j.history, c->time_us, now, &m, &err) < 0)
		problem("as of its own time: %s", err.msg);
	else if (m.txid != j.txid)
		problem("as of its own time it is txid %" PRIu64, m.txid);
	if (j.txid <= j.first_txid)
		return;
	err = (struct err)ERR_INIT;
	int rc = history_at(j.history, c->time_us - 1, now, &m, &err);
	if (rc == 0 && m.txid >= j.txid)
		problem("a microsecond before it is txid %" PRIu64, m.txid);
	else if (rc == 0 && c->flags & COMMIT_HEAL)
		problem("a microsecond before it healed a gap there is txid %" PRIu64, m.txid);
	else if (rc < 0 && err.kind != ERR_GAP)
		problem("a microsecond before: %s", err.msg);
	else if (rc < 0 && !(c->flags & COMMIT_HEAL) && !(c->flags & COMMIT_UNSETTLED))
		problem("a microsecond before, no gap being there: %s", err.msg);
}

static void check_view(const struct commit *c)
{
	cleanup_view struct view *v = NULL;
	struct err err = ERR_INIT;
	struct hash128 state;
	double t0 = mono_us();

	if (view_open(j.history, j.txid, &v, &err) < 0) {
		problem("view: %s", err.msg);
		return;
	}
	double us = mono_us() - t0;
	j.open_first_us = j.viewed ? j.open_first_us : us;
	j.open_last_us = us;
	j.open_sum_us += us;
	j.open_max_us = us > j.open_max_us ? us : j.open_max_us;
	j.viewed++;
	j.depth_sum += view_depth(v);
	if (view_depth(v) > j.max_depth)
		j.max_depth = view_depth(v);
	if (view_size(v) != (uint64_t)j.n_pages * j.page_size) {
		problem("view has %" PRIu64 " bytes, not %u pages", view_size(v), j.n_pages);
		return;
	}
	compare_pages(v);
	if (view_state(v, &state, &err) < 0)
		problem("view state: %s", err.msg);
	else if (!hash128_equal(state, j.state))
		problem("view state is not that of the image");
	if (c)
		check_times(c);
}

/* At the edges of every object, and evenly between. */
static bool chosen(uint64_t txid)
{
	if (j.every)
		return txid % j.every == 0 || txid == j.last_txid || txid == j.first_txid;
	if (txid == j.first_txid || txid == j.last_txid)
		return true;
	uint64_t span = j.last_txid - j.first_txid + 1, views = j.views ? j.views : 1;
	uint64_t step = span / views ? span / views : 1;
	return txid % step == 0;
}

static bool at_edge(uint64_t txid)
{
	if (j.views && j.n_objects > j.views)
		return false;
	for (size_t i = 0; i < j.n_objects; i++)
		if (j.objects[i].last_txid == txid || j.objects[i].first_txid == txid)
			return true;
	return false;
}

/* ---- snapshots ---- */

static bool unzip(const struct history_object *s, uint8_t **ret, uint64_t *ret_len)
{
	char path[PATH_MAX];
	uint64_t cap = 1 << 20, len = 0;
	uint8_t *b = malloc(cap);

	snprintf(path, sizeof(path), "%s/local/%s/snapshot/%s", j.root, j.name, s->file);
	gzFile f = gzopen(path, "rb");
	for (int n = 1; f && b && n > 0; len += (uint64_t)n) {
		if (len == cap)
			b = realloc(b, cap *= 2);
		n = b ? gzread(f, b + len, (unsigned)(cap - len < 1 << 30 ? cap - len : 1 << 30))
		      : -1;
		if (n < 0)
			break;
	}
	bool ok = f && b && gzeof(f);
	if (f)
		gzclose(f);
	*ret = b;
	*ret_len = len;
	return ok;
}

/* The image becomes what the snapshot says; frames behind its redo txid are still to come. */
static void load_snapshot(const struct history_object *s, uint32_t page_size)
{
	uint64_t len;
	cleanup_free uint8_t *b = NULL;

	if (!unzip(s, &b, &len)) {
		problem("'%s' is no gzip file", s->file);
		return;
	}
	empty_image(page_size);
	for (uint64_t at = 0; at + page_size <= len; at += page_size)
		if (at / page_size + 1 != lock_page(page_size))
			set_page((uint32_t)(at / page_size) + 1, b + at);
	j.n_pages = j.top;
}

static void compare_base(const struct history_object *s)
{
	uint64_t len;
	cleanup_free uint8_t *b = NULL;

	j.bases++;
	if (!unzip(s, &b, &len))
		problem("'%s' is no gzip file", s->file);
	else if (len != (uint64_t)j.n_pages * j.page_size || memcmp(b, j.image, len) != 0)
		problem("base '%s' is not the image", s->file);
}

static uint32_t snapshot_page_size(const struct history_object *s)
{
	struct moment m;
	struct err err = ERR_INIT;

	if (history_tx(j.history, s->last_txid, &m, &err) < 0)
		die(&err, s->file);
	return m.page_size;
}

/* ---- commits ---- */

static void check_size(const struct commit *c)
{
	if (c->n_pages == 0 || c->n_pages > j.top)
		problem("%u pages, but the highest known is %u", c->n_pages, j.top);
}

/* What lies in a gap is never shown, and never taken for known. */
static void check_unviewable(const struct commit *c)
{
	struct moment m;
	struct err err = ERR_INIT;

	if (j.commits % 16 != 1)
		return;
	if (history_tx(j.history, c->txid, &m, NULL) == 0)
		problem("it can be viewed, though it is unsettled");
	int rc = history_at(j.history, c->time_us, clock_now_us(), &m, &err);
	if (c->txid > j.first_txid && (rc == 0 || err.kind != ERR_GAP))
		problem("as of its time, within a gap: %s", rc == 0 ? "a state" : err.msg);
}

static void end_commit(const struct commit *c, const struct history_object *fuzzy)
{
	bool settled = !(c->flags & COMMIT_UNSETTLED) || fuzzy;

	j.txid = c->txid;
	j.commits++;
	if (c->time_us <= j.time_us)
		problem("its time is not later than the one before");
	j.time_us = c->time_us;
	if (c->not_before_us > c->time_us)
		problem("not_before is later than its time");
	j.unsettled += !settled && c->txid > j.first_txid; /* before it: nothing was promised */
	j.heals += (c->flags & COMMIT_HEAL) != 0;
	if (!settled || c->flags & COMMIT_HEAL || fuzzy)
		j.jump = true;
	if (settled)
		check_size(c); /* in a gap pages are missing that it added */
	cut_pages(c->n_pages);
	if (settled)
		check_counter(c);
	j.have_found = false;
	if (!settled) {
		check_unviewable(c);
		return;
	}
	if (!(c->flags & COMMIT_NO_STATE) && !hash128_equal(c->state, j.state))
		problem("the recorded state is not that of the image");
	if (chosen(c->txid) || at_edge(c->txid) || c->flags & COMMIT_HEAL)
		check_view(c);
}

static const struct history_object *fuzzy_snapshot(uint64_t txid)
{
	for (size_t i = 0; i < j.n_objects; i++) {
		const struct history_object *s = &j.objects[i];
		if (s->type == HISTORY_SNAPSHOT && s->last_txid == txid && s->first_txid <= txid)
			return s;
	}
	return NULL;
}

static const struct history_object *base_at(uint64_t txid)
{
	for (size_t i = 0; i < j.n_objects; i++) {
		const struct history_object *s = &j.objects[i];
		if (s->type == HISTORY_SNAPSHOT && s->last_txid == txid &&
		    s->first_txid == txid + 1)
			return s;
	}
	return NULL;
}

static int on_frame(void *ctx, const struct replay_frame *f, struct err *err)
{
	struct oracle o;

	if (f->page_size != j.page_size) {
		if (f->commit)
			j.txid = f->commit->txid;
		problem("pages have %u bytes, not %u, and no snapshot came before", f->page_size,
		        j.page_size);
		return err_set(err, ERR_DAMAGED, 0, "page size");
	}
	j.frames++;
	set_page(f->pgno, f->page);
	if (find_row(f->pgno, f->page, &o) && (!j.have_found || o.seq >= j.found.seq)) {
		j.found = o;
		j.have_found = true;
		j.counter_page = f->pgno;
	}
	if (!f->commit)
		return 0;
	end_commit(f->commit, fuzzy_snapshot(f->commit->txid));
	const struct history_object *base = base_at(j.txid);
	if (base)
		compare_base(base);
	if (j.commits % 100000 == 0)
		fprintf(stderr, "%" PRIu64 " commits judged\n", j.commits);
	return 0;
}

/* ---- the walk ---- */

static const struct history_object *segment_of(uint64_t txid)
{
	for (size_t i = 0; i < j.n_objects; i++) {
		const struct history_object *o = &j.objects[i];
		if ((o->type == HISTORY_GROWING || o->type == HISTORY_SEGMENT) &&
		    o->first_txid <= txid && txid <= o->last_txid)
			return o;
	}
	return NULL;
}

/* The next snapshot that begins anew at or behind `txid`: fuzzy ones, and those of states that no
 * segment holds. */
static const struct history_object *next_start(uint64_t txid)
{
	const struct history_object *best = NULL;

	for (size_t i = 0; i < j.n_objects; i++) {
		const struct history_object *s = &j.objects[i];
		bool fuzzy = s->first_txid <= s->last_txid;
		if (s->type != HISTORY_SNAPSHOT || (!fuzzy && segment_of(s->last_txid)))
			continue;
		if (s->first_txid - 1 >= txid && (!best || s->first_txid < best->first_txid))
			best = s;
	}
	return best;
}

static const struct history_object *first_snapshot(void)
{
	const struct history_object *best = NULL;

	for (size_t i = 0; i < j.n_objects; i++) {
		const struct history_object *s = &j.objects[i];
		if (s->type == HISTORY_SNAPSHOT && (!best || s->last_txid < best->last_txid))
			best = s;
	}
	return best;
}

/* A state found idle: no segment holds its txid. */
static void take_idle(const struct history_object *s)
{
	struct commit none = {.txid = s->last_txid};

	j.txid = s->last_txid;
	j.jump = true;
	check_counter(&none);
	if (s->last_us <= j.time_us)
		problem("its time is not later than the one before");
	j.time_us = s->last_us;
	check_view(NULL);
}

static void count_lineages(void)
{
	uint32_t last = 0;

	for (size_t i = 0; i < j.n_objects; i++)
		if (j.objects[i].lineage > last) {
			last = j.objects[i].lineage;
			j.lineages++;
		}
}

static void start_at(const struct history_object *s)
{
	load_snapshot(s, snapshot_page_size(s));
	if (s->first_txid == s->last_txid + 1)
		take_idle(s);
	else
		j.jump = true;
}

static void walk(void)
{
	struct err err = ERR_INIT;
	const struct history_object *s = first_snapshot();
	uint64_t pos;

	if (!s) {
		problem("there is no snapshot");
		return;
	}
	j.first_txid = s->last_txid;
	pos = s->first_txid - 1; /* redo, or the txid itself */
	start_at(s);
	while (pos < j.last_txid) {
		s = next_start(pos + (segment_of(pos + 1) ? 0 : 1));
		if (s && s->first_txid - 1 == pos && s->first_txid <= s->last_txid &&
		    pos >= j.first_txid)
			start_at(s);
		const struct history_object *o = segment_of(pos + 1);
		if (!o) {
			if (!s || s->first_txid != pos + 2) {
				j.txid = pos + 1;
				problem("nothing holds it");
				return;
			}
			start_at(s);
			pos++;
			continue;
		}
		uint64_t until = o->last_txid;
		/* A fuzzy snapshot may begin within the segment. */
		s = next_start(pos + 1);
		if (s && s->first_txid <= s->last_txid && s->first_txid - 1 < until)
			until = s->first_txid - 1;
		if (history_replay(j.history, pos, until, on_frame, NULL, &err) < 0)
			die(&err, "replay");
		pos = until;
	}
}

/* ---- the end ---- */

static void compare_live(void)
{
	struct stat st;
	int fd = open(j.live, O_RDONLY);

	if (fd < 0 || fstat(fd, &st) < 0) {
		problem("cannot read '%s'", j.live);
		return;
	}
	uint64_t size = (uint64_t)st.st_size, want = (uint64_t)j.n_pages * j.page_size;
	uint8_t *p = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
	if (size != want)
		problem("the live file has %" PRIu64 " bytes, the newest image %" PRIu64, size,
		        want);
	else
		for (uint32_t n = 1, shown = 0; n <= j.n_pages; n++)
			if (n != lock_page(j.page_size) &&
			    memcmp(p + (uint64_t)(n - 1) * j.page_size, page_at(n), j.page_size) !=
			            0 &&
			    shown++ < 5)
				problem("page %u of the live file is another one", n);
	if (p)
		munmap(p, size);
	close(fd);
}

static void report(void)
{
	static const char *const types[] = {"growing", "segments", "coalesced", "snapshots"};
	uint64_t n[4] = {0}, bytes[4] = {0}, gaps = 0;
	struct gap g;

	for (size_t i = 0; i < j.n_objects; i++) {
		n[j.objects[i].type]++;
		bytes[j.objects[i].type] += j.objects[i].bytes;
	}
	while (history_gap(j.history, gaps, &g, NULL) == 0)
		gaps++;
	if (j.no_gaps && (gaps || j.heals || j.unsettled || j.lost))
		problem("gaps where none may be: %" PRIu64 " notes, %" PRIu64 " heals, %" PRIu64
		        " unsettled commits, %" PRIu64 " lost",
		        gaps, j.heals, j.unsettled, j.lost);
	if (j.plain > j.plain_max)
		problem("%" PRIu64 " commits without the counter, at most %" PRIu64 " were made",
		        j.plain, j.plain_max);
	/* (A child lineage can mean that the application itself lost commits.) */
	if (j.acked && j.lineages == 1 && j.at.seq < j.acked)
		problem("counter %" PRIu64 " was acknowledged, the newest captured is %" PRIu64,
		        j.acked, j.at.seq);
	printf("{\"commits\": %" PRIu64 ", \"first_txid\": %" PRIu64 ", \"last_txid\": %" PRIu64
	       ", \"counter\": %" PRIu64 ", \"frames\": %" PRIu64 ", \"plain\": %" PRIu64
	       ", \"gap_notes\": %" PRIu64 ", \"heals\": %" PRIu64 ", \"unsettled\": %" PRIu64
	       ", \"lost\": %" PRIu64 ", \"lineages\": %" PRIu64 ", \"bases_compared\": %" PRIu64
	       ", \"views\": %" PRIu64 ", \"pages_viewed\": %" PRIu64 ", \"max_depth\": %" PRIu64
	       ", \"mean_depth\": %.2f, \"open_us\": {\"first\": %.0f, \"last\": %.0f, \"mean\": "
	       "%.0f, "
	       "\"max\": %.0f}, \"n_pages\": %u",
	       j.commits, j.first_txid, j.last_txid, j.at.seq, j.frames, j.plain, gaps, j.heals,
	       j.unsettled, j.lost, j.lineages, j.bases, j.viewed, j.pages_viewed, j.max_depth,
	       j.viewed ? (double)j.depth_sum / (double)j.viewed : 0, j.open_first_us,
	       j.open_last_us, j.viewed ? j.open_sum_us / (double)j.viewed : 0, j.open_max_us,
	       j.n_pages);
	for (size_t i = 0; i < 4; i++)
		printf(", \"%s\": %" PRIu64 ", \"%s_bytes\": %" PRIu64, types[i], n[i], types[i],
		       bytes[i]);
	printf(", \"problems\": %" PRIu64 "}\n", j.problems);
}

static int list_objects(struct err *err)
{
	free(j.objects);
	j.objects = NULL;
	j.last_txid = 0;
	int rc = history_objects(j.history, &j.objects, &j.n_objects, err);
	for (size_t i = 0; rc == 0 && i < j.n_objects; i++)
		if (j.objects[i].last_txid > j.last_txid)
			j.last_txid = j.objects[i].last_txid;
	return rc;
}

static bool has_hole(void)
{
	const struct history_object *s = first_snapshot(), *o;

	for (uint64_t t = s ? s->last_txid + 1 : UINT64_MAX; t <= j.last_txid;) {
		if ((o = segment_of(t)))
			t = o->last_txid + 1;
		else if (base_at(t))
			t++;
		else
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	enum { LIVE = 256, ACKED, PLAIN, EVERY, VIEWS, NO_GAPS, NO_COUNTER };
	static const struct option options[] = {
	        {"live", 1, NULL, LIVE},
	        {"acked", 1, NULL, ACKED},
	        {"plain", 1, NULL, PLAIN},
	        {"every", 1, NULL, EVERY},
	        {"views", 1, NULL, VIEWS},
	        {"no-gaps", 0, NULL, NO_GAPS},
	        {"no-counter", 0, NULL, NO_COUNTER},
	        {NULL, 0, NULL, 0},
	};
	struct err err = ERR_INIT;
	const struct archive_options ao = {.cache_bytes = 64u << 20};
	int id;

	while ((id = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;
		switch (id) {
		case LIVE:
			j.live = optarg;
			break;
		case ACKED:
			j.acked = n;
			break;
		case PLAIN:
			j.plain_max = n;
			break;
		case EVERY:
			j.every = n;
			break;
		case VIEWS:
			j.views = n;
			break;
		case NO_GAPS:
			j.no_gaps = true;
			break;
		case NO_COUNTER:
			j.no_counter = true;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2) {
		fprintf(stderr, "usage: verify [OPTION]... ARCHIVE NAME\n");
		return 2;
	}
	j.root = argv[optind];
	j.name = argv[optind + 1];
	if (archive_open(j.root, &ao, &j.archive, &err) < 0 ||
	    history_get(j.archive, j.name, &j.history, &err) < 0 || list_objects(&err) < 0)
		die(&err, "open");
	/* A writer can begin a segment between a look at its head and one at the folder. */
	for (int tries = 0; tries < 10 && has_hole(); tries++) {
		clock_sleep_us(100000);
		if (list_objects(&err) < 0)
			die(&err, "list");
	}
	count_lineages();
	walk();
	if (j.live)
		compare_live();
	report();
	free(j.objects);
	history_put(j.history);
	archive_free(j.archive);
	return j.problems ? 1 : 0;
}

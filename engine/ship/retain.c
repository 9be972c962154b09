/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention at a destination: who may do it, and when there is something to do.  What is done is
 * retain/far.c's.
 *
 * The file retained-XXXXXXXX beside the local history tells how it went: lines "key value", first
 * "asof-retained 1"; disposable.
 */
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/ship/ship_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORD_MAX 4096
#define LINEAGES_MAX 50u /* that are looked at for the last change of hands */
/* Of what another one had begun when it was taken over, whatever the grace time. */
#define UNDER_WAY_US (60 * US_PER_SECOND)

/* clang-format off */
#define FIELDS(X)                                                                                  \
	X(at_us) X(due_us) X(seen_txid) X(seen_marks) X(seen_policy) X(changes) X(fine_txid)       \
	X(kept_points) X(expiring) X(expiring_bytes) X(deleted) X(deleted_bytes) X(made)           \
	X(made_bytes) X(sent_bytes) X(received_bytes) X(no_delete) X(denied)
/* clang-format on */

static void file_name(const char *url, char out[40])
{
	snprintf(out, 40, "retained-%08x", (unsigned)hash64(url, strlen(url), 0));
}

static void take_line(const char *line, struct ship_retained *r)
{
	const char *space = strchr(line, ' ');

	if (!space)
		return;
	size_t n = (size_t)(space - line);
	uint64_t v = strtoull(space + 1, NULL, 10);
#define TAKE(field)                                                                                \
	if (n == sizeof(#field) - 1 && memcmp(line, #field, n) == 0)                               \
		r->field = (__typeof__(r->field))v;
	FIELDS(TAKE)
#undef TAKE
	for (int i = 0; i < STORE_N_VERBS; i++)
		if (n > 9 && strncmp(line, "requests_", 9) == 0 &&
		    strlen(store_verb_name((enum store_verb)i)) == n - 9 &&
		    strncmp(line + 9, store_verb_name((enum store_verb)i), n - 9) == 0)
			r->requests[i] = v;
	if (n == 3 && strncmp(line, "url", n) == 0)
		snprintf(r->url, sizeof(r->url), "%s", space + 1);
}

static int read_record(int dir_fd, const char *url, struct ship_retained *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	char name[40], *save = NULL;
	size_t len;

	*ret = (struct ship_retained){0};
	file_name(url, name);
	int rc = file_get(dir_fd, name, RECORD_MAX, &text, &len, err);
	if (rc < 0)
		return rc;
	if (strncmp(text, "asof-retained 1\n", 16) != 0)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' is of another version", name);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		take_line(line, ret);
	return 0;
}

static int write_record(int dir_fd, const char *url, const struct ship_retained *r, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(RECORD_MAX);
	char name[40];

	file_name(url, name);
	int rc = buf_printf(&b, err, "asof-retained 1\n");
#define PUT(field)                                                                                 \
	if (rc == 0)                                                                               \
		rc = buf_printf(&b, err, #field " %" PRIu64 "\n", (uint64_t)r->field);
	FIELDS(PUT)
#undef PUT
	for (int v = 0; v < STORE_N_VERBS && rc == 0; v++)
		rc = buf_printf(&b, err, "requests_%s %" PRIu64 "\n",
		                store_verb_name((enum store_verb)v), r->requests[v]);
	if (rc == 0)
		rc = buf_printf(&b, err, "url %.299s\n", url);
	return rc < 0 ? rc : file_put(dir_fd, name, b.data, b.len, err);
}

int ship_retained_read(const char *archive, const char *name, const char *url,
                       struct ship_retained *ret, struct err *err)
{
	cleanup_fd int dir = -1;
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/local/%s", archive, name) >= (int)sizeof(path))
		return err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long",
		               archive);
	int rc = file_open_dir(AT_FDCWD, path, false, &dir, err);
	return rc < 0 ? rc : read_record(dir, url, ret, err);
}

uint64_t ship_retained_changes(const struct shipper *s)
{
	struct ship_retained r;

	return read_record(s->dir_fd, s->url, &r, NULL) == 0 ? r.changes : 0;
}

/* ---- who may ---- */

struct guard {
	struct shipper *s;
	uint32_t lineage;
	int64_t checked_us; /* monotonic */
};

/*
 * Whoever took over has the next lineage, or, where its archive was further, wrote its name over ours.
 * Between this look and what it allows lie at most 5 s and the time of one request; who took over
 * leaves what is there alone for a grace time.
 */
static int still_ours(void *ctx, struct err *err)
{
	struct guard *g = ctx;
	int64_t now_us = clock_mono_us();

	if (g->checked_us && now_us - g->checked_us < g->s->options.claim_wait_us / CHECKS_IN_WAIT)
		return 0;
	int rc = ship_check_ours(g->s, &g->lineage, err);
	if (rc < 0)
		return rc;
	g->checked_us = now_us;
	return 0;
}

/* What is older than where the store begins is still on its way there, and would not come any more. */
static bool is_filling(const struct shipper *s)
{
	const struct contents *c = &s->has;
	uint64_t first = UINT64_MAX;

	if (c->n_level0)
		first = c->level0[0].first_txid;
	if (c->n_sealed && c->sealed[0].first_txid < first)
		first = c->sealed[0].first_txid;
	for (size_t i = 0; i < s->n_objects && !c->has_thinned; i++)
		if (s->objects[i].type == HISTORY_SEGMENT && s->objects[i].last_txid < first)
			return true;
	return false;
}

/* Whether what another one wrote may still be under way. */
static bool is_fresh(int64_t since_us, int64_t grace_us, int64_t now_us)
{
	return since_us > now_us - (grace_us > UNDER_WAY_US ? grace_us : UNDER_WAY_US);
}

/* BUSY: it is ours, and not yet to be thinned, for this reason. */
static int may_retain(struct shipper *s, int64_t grace_us, int64_t now_us, uint32_t *ret_lineage,
                      struct err *err)
{
	struct writer_note w;
	struct ship_end end;
	int64_t since_us = INT64_MIN;

	int rc = contents_list(s, err);
	if (rc < 0)
		return rc;
	if (!s->has.writer_lineage || is_filling(s))
		return err_set(err, ERR_BUSY, 0,
		               "'%s' is not yet at %s with all of its history: nothing is thinned "
		               "there before who sends there has brought what is older (try again "
		               "later)",
		               s->name, s->url);
	*ret_lineage = s->has.writer_lineage;
	rc = ship_check_claim(s, *ret_lineage, err);
	if (rc == 0)
		rc = ship_find_end(s, &end, err);
	if (rc == 0 && end.closed)
		return err_set(err, ERR_REFUSED, 0,
		               "'%s' at %s was taken over by another asof: its retention is left "
		               "to that",
		               s->name, s->url);
	for (uint32_t l = *ret_lineage, n = 0; rc == 0 && l && n < LINEAGES_MAX; l--, n++) {
		struct err why = ERR_INIT;
		rc = ship_read_writer(s, l, &w, &why);
		if (rc < 0 && why.kind != ERR_NOT_FOUND)
			return err_copy(err, &why);
		if (rc == 0 && strcmp(w.id, s->id) != 0)
			break;
		since_us = rc == 0 ? w.since_us : since_us;
		if (rc == 0 && w.was[0] && strcmp(w.was, s->id) != 0)
			break;
		rc = 0;
		if (l == 1 || n + 1 == LINEAGES_MAX)
			return 0; /* nobody else's ever */
	}
	if (rc == 0 && is_fresh(since_us, grace_us, now_us))
		return err_set(
		        err, ERR_BUSY, 0,
		        "'%s' at %s was taken over just now: nothing is thinned there before "
		        "the grace time is over",
		        s->name, s->url);
	return rc;
}

/* ---- when ---- */

/* Those here; and what was given there, which is news when it has gone. */
static uint64_t hash_marks(struct shipper *s, struct err *err)
{
	cleanup_given_marks struct given_marks given = {0};
	cleanup_free struct mark *marks = NULL;
	uint64_t sum = 1;
	size_t n;

	if (history_marks(s->history, &marks, &n, err) < 0 ||
	    given_marks_get(s->dir_fd, s->url, &given, err) < 0)
		return 0;
	for (size_t i = 0; i < n; i++)
		sum += hash64(marks[i].name, strlen(marks[i].name), marks[i].txid);
	return sum + given_marks_hash(&given);
}

static uint64_t hash_policy(const struct retain_policy *p)
{
	uint64_t h = hash64(&p->n_tiers, sizeof(p->n_tiers), 1);

	for (size_t i = 0; i < p->n_tiers; i++) {
		const int64_t of[2] = {p->tiers[i].age_us, p->tiers[i].every_us};
		h = hash64(of, sizeof(of), h);
	}
	return h;
}

static bool is_due(const struct ship_retained *was, const struct ship_retained *now, int64_t now_us)
{
	return now_us >= was->due_us || now_us < was->at_us || was->seen_txid != now->seen_txid ||
	       was->seen_marks != now->seen_marks || was->seen_policy != now->seen_policy;
}

/* ---- doing it ---- */

/* Marks that were taken away here hold their moments as long as they are there.  Who sends takes them
 * away, too: where one is at work it is left to that. */
static int remove_marks(struct shipper *s, struct err *err)
{
	struct err why = ERR_INIT;

	if (ship_take_turn(s, &why) < 0)
		return why.kind == ERR_BUSY ? 0 : err_copy(err, &why);
	int rc = ship_know_marks(s, err);
	if (rc == 0)
		rc = ship_remove_marks(s, err);
	close(take_fd(&s->turn_fd));
	return rc;
}

static int retain(struct shipper *s, const struct retain_policy *policy, uint32_t lineage,
                  bool no_delete, int64_t now_us, bool dry, FILE *log, struct retain_result *ret,
                  struct err *err)
{
	cleanup_retainer struct retainer *r = NULL;
	struct guard g = {.s = s, .lineage = lineage};
	const struct retain_far far = {.store = s->options.store,
	                               .archive = s->root,
	                               .creates = s->status.creates,
	                               .no_delete = no_delete,
	                               .may_write = still_ours,
	                               .ctx = &g};

	int rc = retainer_new_far(&far, s->name, &r, err);
	if (rc < 0)
		return rc;
	return dry ? retainer_preview(r, policy, now_us, log, ret, err)
	           : retainer_run(r, policy, now_us, s->options.stop, log, ret, err);
}

static void count(struct ship_retained *rec, const struct store_counters *before,
                  const struct store_counters *after)
{
	for (int v = 0; v < STORE_N_VERBS; v++)
		rec->requests[v] += after->requests[v] - before->requests[v];
	rec->sent_bytes += after->sent_bytes - before->sent_bytes;
	rec->received_bytes += after->received_bytes - before->received_bytes;
}

/* Whatever came of it, what was done counts. */
static void take_result(struct ship_retained *rec, const struct retain_result *r, bool ok,
                        int64_t now_us)
{
	bool changed = r->coalesced || r->bases || r->deleted || rec->fine_txid != r->fine_txid;

	rec->changes += changed;
	rec->made += r->coalesced + r->bases;
	rec->made_bytes += r->made_bytes;
	rec->deleted += r->deleted;
	rec->deleted_bytes += r->deleted_bytes;
	rec->due_us = 0;
	if (!ok)
		return;
	rec->at_us = now_us;
	rec->due_us = r->due_us;
	rec->fine_txid = r->fine_txid;
	rec->kept_points = r->kept_points;
	rec->expiring = r->expiring;
	rec->expiring_bytes = r->expiring_bytes;
	rec->no_delete = r->no_delete;
	rec->denied = r->denied;
}

static void tell_denied(const struct shipper *s, const struct ship_retained *was,
                        const struct retain_result *r)
{
	if (was->no_delete || was->denied)
		return;
	if (r->denied && !r->no_delete)
		log_warn("ship",
		         "retention: %" PRIu64
		         " objects that have expired could not be deleted there (locked?), and are "
		         "tried again; the first is %s db=%s at=%s",
		         r->denied, r->denial, s->name, s->url);
	if (r->no_delete)
		log_warn("ship",
		         "retention: nothing can be deleted there, what has expired stays (allow "
		         "deletion, or leave it so) db=%s at=%s",
		         s->name, s->url);
}

int ship_retain(const struct ship_options *options, const struct retain_policy *policy,
                int64_t now_us, bool dry, FILE *log, struct retain_result *ret, struct err *err)
{
	cleanup_shipper struct shipper *s = NULL;
	struct store_counters before, after;
	struct ship_retained was, rec;
	struct err why = ERR_INIT;
	uint32_t lineage = 0;

	*ret = (struct retain_result){0};
	int rc = retain_policy_check(policy, err);
	if (rc == 0)
		rc = shipper_new(options, &s, err);
	if (rc == 0)
		rc = ship_open_history(s, err);
	if (rc == 0)
		rc = ship_look(s, err);
	if (rc < 0)
		return rc;
	if (read_record(s->dir_fd, s->url, &was, NULL) < 0)
		was = (struct ship_retained){0};
	rec = was;
	rec.seen_txid = s->status.replicated_txid;
	rec.seen_marks = hash_marks(s, NULL);
	rec.seen_policy = hash_policy(policy);
	if (!dry && !options->look && !is_due(&was, &rec, now_us))
		return 0;
	store_get_counters(s->options.store, &before);
	rc = may_retain(s, policy->grace_us, now_us, &lineage, &why);
	if (rc < 0 && why.kind == ERR_BUSY && !options->look) {
		log_debug("ship", "retention waits: %s", why.msg);
		return 0;
	}
	rc = rc < 0 ? err_copy(err, &why) : dry ? 0 : remove_marks(s, err);
	rc = rc < 0 ? rc : retain(s, policy, lineage, was.no_delete, now_us, dry, log, ret, err);
	if (dry || why.kind == ERR_BUSY)
		return rc;
	store_get_counters(s->options.store, &after);
	count(&rec, &before, &after);
	take_result(&rec, ret, rc == 0, now_us);
	tell_denied(s, &was, ret);
	why = (struct err)ERR_INIT;
	if (write_record(s->dir_fd, s->url, &rec, &why) < 0)
		log_warn("ship", "db=%s: %s", s->name, why.msg);
	return rc;
}

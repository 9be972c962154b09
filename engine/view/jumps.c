/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lineages that begin above what their parent may have held.
 *
 *      parent                                        child
 *   ... ------------- damaged ------|                |-----------> ...
 *                                   told      first -^
 *                                       a jump: no txid in between was ever given away, as
 *                                       far as is known
 *
 * A recorder that finds the newest objects damaged, or gone, cannot know what they held: it goes on far
 * above, with a base of its own.  Up to `told` transactions were acknowledged: until their object is put
 * back they are damage.  What lies between told and first is in a gap.  An object that is put back can
 * reach beyond told, by what was durable and not yet acknowledged: the gap begins behind it then.
 */
#include "engine/view/history_i.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/view/check.h"
#include "engine/view/replay.h"

#include <inttypes.h>
#include <sys/stat.h>

static bool is_jump(const struct jump *j)
{
	return j->first_txid > j->told_txid + 1;
}

/* A fence at a destination: what lies between was never sent there, and is not missed. */
static bool is_fence(const struct jump *j)
{
	return is_jump(j) && j->told_us == 0;
}

static void cut_by_fence(struct jump *j, const struct jump *fence)
{
	if (!is_fence(fence) || is_fence(j) || !is_jump(j) || fence->told_txid >= j->told_txid ||
	    fence->first_txid < j->first_txid)
		return;
	j->told_txid = fence->told_txid;
	j->told_us = 0;
	j->lost[0] = '\0';
}

int jumps_add(struct history *h, const struct jump *one, struct err *err)
{
	for (size_t i = 0; i < h->n_lineages; i++)
		cut_by_fence(&h->lineages[i], one);
	for (size_t i = 0; i < h->n_lineages; i++)
		if (h->lineages[i].lineage == one->lineage &&
		    h->lineages[i].first_txid == one->first_txid)
			return 0;
	struct jump *more = realloc(h->lineages, (h->n_lineages + 1) * sizeof(*more));
	if (!more)
		return err_set(err, ERR_NOMEM, 0, "no memory to list lineages");
	h->lineages = more;
	size_t i = h->n_lineages++;
	for (; i > 0 && more[i - 1].first_txid > one->first_txid; i--)
		more[i] = more[i - 1];
	more[i] = *one;
	return 0;
}

int jumps_read_note(struct history *h, const char *file, uint32_t lineage, struct err *err)
{
	struct lineage_note n = {0};
	struct err why = ERR_INIT;

	for (size_t i = 0; i < h->n_lineages; i++)
		if (h->lineages[i].lineage == lineage)
			return 0; /* they do not change */
	if (lineage_note_get(h->dir_fd, file, &n, &why) < 0) {
		log_warn("view", "lineage note unreadable db=%s: %s", h->name, why.msg);
		return why.kind == ERR_NOMEM ? err_copy(err, &why) : 0;
	}
	struct jump j = {.lineage = lineage,
	                 .from_txid = n.from_txid,
	                 .first_txid = n.first_txid,
	                 .from_us = n.from_us,
	                 .told_txid = n.from_txid,
	                 .told_us = n.from_us};
	snprintf(j.lost, sizeof(j.lost), "%.200s", n.lost);
	return jumps_add(h, &j, err);
}

/* Its note is the archive's: at a destination it begins with what was sent. */
static void begin_gap(const struct history *h, struct gap_note *g, const struct jump *fence)
{
	if (g->before_txid <= fence->from_txid || g->before_txid >= fence->first_txid ||
	    g->after_txid + 1 < fence->first_txid)
		return;
	for (size_t i = 0; i < h->segments.n; i++)
		if (h->segments.e[i].name.last_txid == fence->from_txid) {
			g->before_txid = fence->from_txid;
			g->before_us = h->segments.e[i].name.last_us;
		}
}

/* Segments are sorted. */
void jumps_settle(struct history *h)
{
	for (size_t k = 0; k < h->n_lineages; k++) {
		struct jump *j = &h->lineages[k];
		j->from_txid = j->told_txid;
		j->from_us = j->told_us;
		for (size_t i = 0; is_jump(j) && i < h->segments.n; i++) {
			const struct entry *e = &h->segments.e[i];
			if (e->broken || e->name.lineage >= j->lineage ||
			    e->name.first_txid > j->from_txid + 1 ||
			    e->name.last_txid <= j->from_txid || e->name.last_txid >= j->first_txid)
				continue;
			j->from_txid = e->name.last_txid;
			if (e->name.last_us > j->from_us)
				j->from_us = e->name.last_us;
		}
		for (size_t i = 0; is_fence(j) && i < h->n_gaps; i++)
			begin_gap(h, &h->gaps[i], j);
		for (size_t i = 0; is_jump(j) && i < h->n_gaps; i++) {
			struct gap_note *g = &h->gaps[i];
			if (g->before_txid >= j->from_txid || g->after_txid < j->first_txid)
				continue;
			g->before_txid = j->from_txid;
			g->before_us = j->from_us;
		}
	}
}

uint64_t jumps_bound(const struct history *h, uint64_t first_txid, uint64_t end)
{
	for (size_t i = 0; i < h->n_lineages; i++) {
		const struct jump *j = &h->lineages[i];
		if (is_jump(j) && j->first_txid > first_txid && j->told_txid + 1 >= first_txid &&
		    j->told_txid + 1 < end)
			end = j->told_txid + 1;
	}
	return end;
}

const struct jump *jumps_over(const struct history *h, uint64_t txid)
{
	for (size_t i = 0; i < h->n_lineages; i++)
		if (txid > h->lineages[i].from_txid && txid < h->lineages[i].first_txid)
			return &h->lineages[i];
	return NULL;
}

static bool holds_between(const struct entries *es, uint64_t after, uint64_t until)
{
	for (size_t i = 0; i < es->n; i++) {
		const struct object_name *n = &es->e[i].name;
		bool fuzzy = n->type == OBJECT_SNAPSHOT && n->first_txid <= n->last_txid;
		uint64_t txid = n->type == OBJECT_SNAPSHOT ? n->last_txid : n->first_txid;
		if (!fuzzy && txid > after && txid <= until)
			return true;
	}
	return false;
}

const struct jump *jumps_lost_with(struct history *h, uint64_t txid)
{
	const struct entry *e = catalog_segment_of(h, txid);

	for (size_t i = 0; i < h->n_lineages; i++) {
		const struct jump *j = &h->lineages[i];
		if (is_jump(j) && j->told_us && txid <= j->told_txid &&
		    j->told_txid > h->thinned.until_txid &&
		    e == catalog_segment_of(h, j->told_txid) &&
		    (e || (!holds_between(&h->segments, txid, j->told_txid) &&
		           !holds_between(&h->snapshots, txid, j->told_txid))))
			return j;
	}
	return NULL;
}

const char *jumps_lost(const struct history *h, uint64_t txid)
{
	for (size_t i = 0; i < h->n_lineages; i++) {
		const struct jump *j = &h->lineages[i];
		const char *slash = strrchr(j->lost, '/');
		struct object_name n;
		if (slash && txid <= j->told_txid && object_name_parse(slash + 1, &n) &&
		    n.first_txid <= txid)
			return j->lost;
	}
	return "";
}

static int get_jump(struct history *h, size_t i, struct jump *ret, struct err *err)
{
	for (size_t k = 0; k < h->n_lineages; k++)
		if (is_jump(&h->lineages[k]) && i-- == 0) {
			*ret = h->lineages[k];
			return 0;
		}
	return err_set(err, ERR_NOT_FOUND, 0, "no more jumps");
}

int history_jump(struct history *h, size_t i, struct jump *ret, struct err *err)
{
	int rc = history_refresh(h, err);
	LOCK_SCOPE(&h->lock);

	return rc < 0 ? rc : get_jump(h, i, ret, err);
}

/* ---- what is lost with them ---- */

/* Whether the last that was acknowledged cannot be read. */
static bool ends_early(struct history *h, const struct jump *j)
{
	struct moment m;
	struct err why = ERR_INIT;

	LOCK_SCOPE(&h->lock);
	return resolve_moment(h, j->told_txid, &m, &why) < 0 &&
	       (why.kind == ERR_DAMAGED || why.kind == ERR_NOT_FOUND);
}

static bool find_object(struct history *h, const char *path, struct history_object *ret)
{
	cleanup_free struct history_object *objects = NULL;
	const char *slash = strchr(path, '/');
	size_t n;

	if (!slash || history_objects(h, &objects, &n, NULL) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcmp(objects[i].file, slash + 1) == 0) {
			*ret = objects[i];
			return true;
		}
	return false;
}

/* One of which all commits can be told can be damaged all the same; what was read of a file once holds
 * until it is another one. */
static bool is_damaged(struct history *h, const struct jump *j)
{
	cleanup_object_check struct object_check check = {.whole = false};
	struct history_object o;
	struct stat st;

	bool found = find_object(h, j->lost, &o);
	/* Cut short, where what follows was thinned: its end looks torn. */
	if (found && o.type == HISTORY_GROWING && o.last_txid < j->told_txid)
		return true;
	int fd = !found ? -1 : o.type == HISTORY_SNAPSHOT ? h->snapshot_fd : h->segment_fd;
	if (fd < 0 || fstatat(fd, o.file, &st, 0) < 0)
		return false;
	int64_t changed_us = st.st_ctim.tv_sec * US_PER_SECOND + st.st_ctim.tv_nsec / 1000;
	pthread_mutex_lock(&h->lock);
	bool known =
	        h->lost_checked.lineage == j->lineage && h->lost_checked.changed_us == changed_us;
	bool damaged = known && h->lost_checked.damaged;
	pthread_mutex_unlock(&h->lock);
	if (known || history_check_object(h, &o, NULL, NULL, &check, NULL) < 0)
		return damaged;
	damaged = check.first.kind == ERR_DAMAGED && (check.whole || check.pages.used);
	LOCK_SCOPE(&h->lock);
	h->lost_checked.lineage = j->lineage;
	h->lost_checked.changed_us = changed_us;
	h->lost_checked.damaged = damaged;
	return damaged;
}

static void describe(struct history *h, const struct jump *j, bool early, struct damage *ret)
{
	const char *slash = strchr(j->lost, '/');
	struct object_name n;
	struct moment before;
	uint64_t first = early ? j->told_txid : 1;

	*ret = (struct damage){.first_txid = 1, .last_txid = j->told_txid, .until_us = j->told_us};
	snprintf(ret->object, sizeof(ret->object), "%s", j->lost);
	if (!early && slash && object_name_parse(slash + 1, &n))
		first = ret->first_txid = n.first_txid;
	LOCK_SCOPE(&h->lock);
	if (first > 1 && resolve_settled_before(h, early ? first : first - 1, &before, NULL) == 0) {
		ret->first_txid = before.txid + 1;
		ret->after_us = before.time_us;
	}
}

static int get_lost(struct history *h, size_t i, bool all, struct damage *ret, struct err *err)
{
	uint64_t thinned = history_thinned(h);
	struct jump j;

	for (size_t k = 0; history_jump(h, k, &j, NULL) == 0; k++) {
		bool is_thinned = j.told_txid <= thinned; /* its moments are not missed any more */
		if (!j.told_us || (is_thinned && !all))
			continue;
		bool early = !is_thinned && ends_early(h, &j);
		if ((!early && !is_damaged(h, &j)) || i-- > 0)
			continue;
		describe(h, &j, early, ret);
		return 0;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no more damage");
}

int history_lost(struct history *h, size_t i, struct damage *ret, struct err *err)
{
	return get_lost(h, i, false, ret, err);
}

int history_left_behind(struct history *h, size_t i, struct damage *ret, struct err *err)
{
	return get_lost(h, i, true, ret, err);
}

void history_lost_text(const struct damage *d, char *out, size_t size)
{
	char from[TIME_STR_MAX] = "the beginning", to[TIME_STR_MAX];

	if (d->after_us)
		time_format(d->after_us, from);
	time_format(d->until_us, to);
	snprintf(out, size,
	         "transactions %" PRIu64 " to %" PRIu64 " (%s to %s) cannot be read%s%s%s "
	         "(asof validate --repair)",
	         d->first_txid, d->last_txid, from, to, d->object[0] ? ": '" : "", d->object,
	         d->object[0] ? "' is damaged or gone" : "");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Marks that were taken away in the archive go at the store, too: see archive/given.h. */
#include "engine/base/log.h"
#include "engine/ship/ship_i.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define NOTE_MAX 4096

static bool is_missing(const struct shipper *s, const char *file)
{
	return faccessat(s->dir_fd, file, F_OK, 0) < 0 && errno == ENOENT;
}

/* It alone was taken away, and not the archive, which somebody may be deleting just now. */
static bool was_taken_away(const struct shipper *s, const char *file)
{
	return is_missing(s, file) && faccessat(s->dir_fd, "source", F_OK, 0) == 0;
}

/* *ret_gone: nothing of it is left to do. */
static int remove_mark(struct shipper *s, const struct given_mark *m, struct given_marks *g,
                       bool *ret_gone, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX + 1);
	struct err why = ERR_INIT;

	*ret_gone = true;
	int rc = ship_get(s, m->file, NOTE_MAX, &b, &why);
	if (rc < 0) /* what cannot be read is not known to be ours */
		return why.kind == ERR_NOT_FOUND || why.kind == ERR_DAMAGED ? 0
		                                                            : err_copy(err, &why);
	if (given_hash(b.data, b.len) != m->hash)
		return 0;
	if (!was_taken_away(s, m->file)) {
		*ret_gone = false;
		return 0;
	}
	rc = ship_remove(s, m->file, &why);
	if (rc < 0 && why.kind == ERR_DENIED) {
		*ret_gone = false;
		if (!g->denied)
			log_warn("ship",
			         "a mark that was removed here stays there, and keeps its moment: "
			         "deletion is denied (allow it, or leave it so) db=%s at=%s "
			         "mark='%.*s'",
			         s->name, s->url, (int)strlen(m->file) - 5, m->file);
		g->changed = g->changed || !g->denied;
		g->denied = true;
		return 0;
	}
	if (rc < 0)
		return err_copy(err, &why);
	contents_drop_name(&s->has, m->file, b.len);
	g->changed = g->changed || g->denied;
	g->denied = false;
	return 0;
}

int ship_know_marks(struct shipper *s, struct err *err)
{
	cleanup_given_marks struct given_marks g = {0};

	int rc = given_marks_get(s->dir_fd, s->url, &g, err);
	if (rc == 0)
		rc = given_marks_take(s->dir_fd, &g, err);
	return rc < 0 ? rc : given_marks_put(s->dir_fd, s->url, &g, err);
}

int ship_remove_marks(struct shipper *s, struct err *err)
{
	cleanup_given_marks struct given_marks g = {0};
	uint32_t lineage = s->has.writer_lineage;
	bool checked = false, gone;

	int rc = given_marks_get(s->dir_fd, s->url, &g, err);
	for (size_t i = g.n; i-- > 0 && rc == 0;) {
		if (!was_taken_away(s, g.e[i].file))
			continue;
		if (!lineage) /* nothing is ours there yet */
			break;
		if (!checked && (rc = ship_check_ours(s, &lineage, err)) < 0)
			break;
		checked = true;
		rc = remove_mark(s, &g.e[i], &g, &gone, err);
		if (rc == 0 && gone)
			given_marks_drop(&g, i);
	}
	struct err why = ERR_INIT;
	if (given_marks_put(s->dir_fd, s->url, &g, &why) < 0 && rc == 0)
		rc = err_copy(err, &why);
	return rc;
}

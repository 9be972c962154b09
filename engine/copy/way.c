/* SPDX-License-Identifier: Apache-2.0 */
/* The second archive is the first as it once was: else, of each what the other has would be taken for
 * its own (view/way.h). */
#include "engine/copy/between_i.h"

#include "engine/view/way.h"

#include <inttypes.h>

static int judge(const struct copying *c, const struct way *way, const char *name, struct err *err)
{
	if (way->differs_txid == 0)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "archive '%s' went another way: txid %" PRIu64
	               " of '%s' is another commit there (copy to another archive)",
	               c->options->to, way->differs_txid, name);
}

int copy_check_way(const struct copying *c, struct history *from, const char *name, struct err *err)
{
	cleanup_store struct store *to = NULL;
	struct archive *archive = NULL;
	struct history *there = NULL;
	struct way way = {.differs_txid = 0};

	/* What cannot be read there is no reason to leave it so. */
	if (store_open(c->options->to, NULL, &to, NULL) == 0 &&
	    way_open(to, name, &archive, &there, NULL) == 0)
		way_compare(from, there, &way);
	if (there)
		history_put(there);
	archive_free(archive);
	return judge(c, &way, name, err);
}

/* ---- from store to store ---- */

int between_check_names(struct between *b, struct err *err)
{
	const struct thing *misfit = things_misfit(&b->there, &b->here);

	if (!misfit)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "archive '%.200s' went another way: '%s' of '%s' there is none of '%.200s' "
	               "(copy to another archive)",
	               b->c->options->to, misfit->file, b->name, b->c->options->from);
}

int between_check_commits(struct between *b, struct err *err)
{
	struct way way;

	way_compare_places(b->from, b->to, b->name, &way);
	return judge(b->c, &way, b->name, err);
}

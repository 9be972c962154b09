/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the second archive is the first as it once was, or went on by itself: two copies that both
 * captured give the same numbers to other transactions, and of each what the other has would be taken
 * for its own.  No two commits were captured at one time, to the microsecond, and what agrees in one
 * transaction agrees in all before it: so the newest that both know tells.
 */
#include "engine/copy/copy_i.h"

#include <inttypes.h>
#include <stdlib.h>

#define LOOKS 4096

/* *ret_known: `from` has that transaction, or another of its number. */
static int compare(const struct copying *c, struct history *from, const char *name, uint64_t txid,
                   int64_t time_us, bool *ret_known, struct err *err)
{
	struct moment m;

	*ret_known = txid && history_tx(from, txid, &m, NULL) == 0;
	if (!*ret_known || m.time_us == time_us)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "archive '%s' went another way: txid %" PRIu64
	               " of '%s' is another commit there (copy to another archive)",
	               c->options->to, txid, name);
}

int copy_check_way(const struct copying *c, struct history *from, const char *name, struct err *err)
{
	const struct archive_options o = {.cache_bytes = 1u << 20};
	cleanup_archive struct archive *archive = NULL;
	cleanup_free struct history_object *objects = NULL;
	struct history_status st = {.last_txid = 0};
	struct history *there = NULL;
	bool known = false;
	size_t n = 0;

	/* What cannot be read there is no reason to leave it so. */
	if (archive_open(c->options->to, &o, &archive, NULL) < 0 ||
	    history_get(archive, name, &there, NULL) < 0)
		return 0;
	history_log_damage(there, false);
	(void)!history_get_status(there, &st, NULL);
	int rc = compare(c, from, name, st.last_txid, st.last_us, &known, err);
	if (rc == 0 && !known && history_objects(there, &objects, &n, NULL) < 0)
		n = 0;
	while (rc == 0 && !known && n-- > 0)
		if (objects[n].type == HISTORY_SEGMENT)
			rc = compare(c, from, name, objects[n].last_txid, objects[n].last_us,
			             &known, err);
	/* Or the greatest that both show, below what gaps hide in one of them. */
	struct history_status fs = {.last_txid = 0};
	struct moment m;
	(void)!history_get_status(from, &fs, NULL);
	uint64_t txid = fs.last_txid < st.last_txid ? fs.last_txid : st.last_txid;
	for (unsigned i = 0; rc == 0 && !known && txid > 0 && i < LOOKS; i++, txid--)
		if (history_tx(there, txid, &m, NULL) == 0)
			rc = compare(c, from, name, txid, m.time_us, &known, err);
	history_put(there);
	return rc;
}

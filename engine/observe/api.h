/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /api/v1: what there is, as JSON.  Times are ISO 8601, UTC; null: never, or not known.  An error is
 * {"error": TEXT, "kind": WORD} with a status of its own (http.h).
 *
 *   GET status      {"healthy", "status", "at", "daemon": {…}, "checks": [as /health],
 *                    "archives": […], "databases": [… as below], "jobs": […]}
 *   GET databases   {"databases": [… with what the archive and the daemon tell, and "destinations"]}
 *   GET commits?db=NAME[&since=TIME][&until=TIME][&from_txid=N][&limit=N]
 *                   {"database", "commits": [{"txid", "time", "not_before", "pages", "bytes",
 *                    "lineage", "database_bytes", "after_gap"}], "next_txid": N or null}
 *                   oldest first, at most `limit` (100, 1000 at most); without `since` and `from_txid`
 *                   the newest ones.  next_txid: there are more, from_txid goes on there.
 *   GET backups[?db=NAME][&type=TYPE][&limit=N]      {"backups": […, newest first], "total",
 *                    "destinations": [{"destination", "url", "archive", "database", "count", "bytes",
 *                    "newest", "types": {TYPE: {"count", "bytes", "newest"}}, "waiting",
 *                    "waiting_since", "complete_at", "failing_since", "trouble"}]}
 *                   "destinations" of a backup: names of those where it lies, too.  That of the answer:
 *                   what lies at each, as far as is known here (no request is made), of what was sent
 *                   from here; "complete_at": when all that go there were last known to lie there.
 *   GET events[?db=NAME][&since=TIME][&limit=N]      {"events": […, newest first]}: runs by the clock
 *                   ("event": "run") and gaps ("event": "gap")
 *
 * NAME is a database's name in the archive, or ARCHIVE:NAME (observe_find()).
 */
#ifndef ASOF_OBSERVE_API_H
#define ASOF_OBSERVE_API_H

#include "engine/monitor/health.h"

#include <jansson.h>

/* ---- api_json.c: facts as JSON; NULL: no memory ---- */
json_t *api_check_json(const struct health_line *l);
json_t *api_database_json(const struct health_database *d);
json_t *api_archive_json(const struct health_archive *a);
json_t *api_job_json(const struct health_job *j);
json_t *api_sent_json(const struct health_sent *s);

#endif

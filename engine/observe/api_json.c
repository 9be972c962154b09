/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/api.h"

#include "engine/backup/backup.h"
#include "engine/base/json.h"

static json_t *whole(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *text_or_null(const char *text)
{
	return text[0] ? json_text(text) : json_null();
}

json_t *api_check_json(const struct health_line *l)
{
	return json_pack("{ss so so* ss ss so}", "subject", health_subject_name(l->subject), "name",
	                 json_text(l->name), "database",
	                 l->database[0] ? json_text(l->database) : NULL, "status",
	                 health_level_name(l->level), "code", health_code_name(l->code), "reason",
	                 json_text(l->reason));
}

static json_t *verified_json(const struct health_verified *v)
{
	return json_pack("{so so so so so so so so so}", "through_txid", whole(v->through_txid),
	                 "through", json_moment(v->through_us), "at", json_moment(v->at_us),
	                 "unverified_since", json_moment(v->unverified_since_us), "full_at",
	                 json_moment(v->full_at_us), "integrity", text_or_null(v->integrity),
	                 "integrity_at", json_moment(v->integrity_at_us), "damaged",
	                 whole(v->damaged), "damage", text_or_null(v->damage));
}

static json_t *destination_json(const struct health_destination *d)
{
	return json_pack("{so so so so so so so so so so sb}", "name", json_text(d->name), "url",
	                 json_text(d->url), "not_configured", text_or_null(d->not_configured),
	                 "unreadable", text_or_null(d->unreadable), "replicated_txid",
	                 whole(d->replicated_txid), "replicated", json_moment(d->replicated_us),
	                 "behind_since", json_moment(d->behind_since_us), "stored_bytes",
	                 whole(d->stored_bytes), "verified", verified_json(&d->verified), "trouble",
	                 text_or_null(d->trouble), "fenced", (int)d->fenced);
}

static json_t *daemon_part(const struct health_database *d)
{
	if (!d->told)
		return json_null();
	return json_pack("{ss so so sb sb so so so so so sf}", "state", d->state, "reason",
	                 text_or_null(d->reason), "since", json_moment(d->since_us), "attached",
	                 (int)d->attached, "settled", (int)d->settled, "commits", whole(d->commits),
	                 "captured_bytes", whole(d->taken_bytes), "syncs", whole(d->syncs),
	                 "sync_errors", whole(d->sync_errors), "queued_bytes",
	                 whole(d->queued_bytes), "sync_seconds", (double)d->sync_us / 1e6);
}

static json_t *stored_part(const struct health_database *d)
{
	if (!d->stored)
		return json_null();
	return json_pack("{so so so so so so so so so so so so so so so}", "first_txid",
	                 whole(d->first_txid), "first", json_moment(d->first_us), "last_txid",
	                 whole(d->last_txid), "last", json_moment(d->last_us), "known_until",
	                 json_moment(d->known_until_us), "lineage", whole(d->lineage), "gaps",
	                 whole(d->gaps), "last_gap", json_moment(d->last_gap_us), "bytes",
	                 whole(d->stored_bytes), "unsealed_bytes", whole(d->unsealed_bytes),
	                 "snapshots", whole(d->n_snapshots), "segments", whole(d->n_segments),
	                 "coalesced", whole(d->n_coalesced), "restorable_at",
	                 json_moment(d->restorable_at_us), "not_restorable",
	                 text_or_null(d->not_restorable));
}

json_t *api_database_json(const struct health_database *d)
{
	json_t *destinations = json_array();

	for (size_t i = 0; i < d->n_destinations; i++)
		json_array_append_new(destinations, destination_json(&d->destinations[i]));
	return json_pack("{so so so sb so so so so so so so}", "database", json_text(d->name),
	                 "path", json_text(d->path), "archive", json_text(d->archive), "exists",
	                 (int)d->exists, "database_bytes", whole(d->db_bytes), "wal_bytes",
	                 whole(d->wal_bytes), "daemon", daemon_part(d), "unreadable",
	                 text_or_null(d->unreadable), "stored", stored_part(d), "verified",
	                 verified_json(&d->verified), "destinations", destinations);
}

json_t *api_archive_json(const struct health_archive *a)
{
	return json_pack("{so so sb so so so so}", "archive", json_text(a->root), "unreadable",
	                 text_or_null(a->unreadable), "read_only", (int)a->read_only, "total_bytes",
	                 whole(a->total_bytes), "free_bytes", whole(a->free_bytes), "reserve_bytes",
	                 whole(a->reserve_bytes), "full_in_s",
	                 a->full_in_s < 0 ? json_null() : json_real(a->full_in_s));
}

json_t *api_job_json(const struct health_job *j)
{
	return json_pack("{so so so so so so so so so sb}", "job", json_text(j->job), "database",
	                 text_or_null(j->database), "ended", json_moment(j->ended_us), "ok",
	                 j->ended_us ? json_boolean(j->ok) : json_null(), "message",
	                 text_or_null(j->message), "succeeded", json_moment(j->succeeded_us),
	                 "next", json_moment(j->next_us), "n_succeeded", whole(j->n_ok), "n_failed",
	                 whole(j->n_failed), "running", (int)j->running);
}

json_t *api_sent_json(const struct health_sent *s)
{
	json_t *types = json_object();
	uint64_t count = 0, bytes = 0;
	int64_t latest_us = 0;

	for (int t = 0; t < HEALTH_BACKUP_TYPES; t++) {
		count += s->types[t].count;
		bytes += s->types[t].bytes;
		latest_us = s->types[t].latest_us > latest_us ? s->types[t].latest_us : latest_us;
		json_object_set_new(types, backup_type_names[t],
		                    json_pack("{so so so}", "count", whole(s->types[t].count),
		                              "bytes", whole(s->types[t].bytes), "newest",
		                              json_moment(s->types[t].latest_us)));
	}
	return json_pack("{so so so so so so so so so so so so so}", "destination",
	                 json_text(s->destination), "url", json_text(s->url), "archive",
	                 json_text(s->root), "database", json_text(s->database), "count",
	                 whole(count), "bytes", whole(bytes), "newest", json_moment(latest_us),
	                 "types", types, "waiting", whole(s->n_waiting), "waiting_since",
	                 json_moment(s->waiting_since_us), "complete_at", json_moment(s->sent_us),
	                 "failing_since", json_moment(s->trouble_us), "trouble",
	                 text_or_null(s->trouble));
}

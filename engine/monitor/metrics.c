/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/metrics.h"

#include "engine/base/clock.h"
#include "engine/base/json.h"

#include <math.h>
#include <string.h>

#define LABELS_MAX (2 * HEALTH_PATH_MAX + 512)

struct writer {
	const struct health_facts *f;
	const struct health_verdict *v;
	int64_t now_us;
	struct buf *out;
	char **db; /* of each database: its label, `db="…"` */
	struct health_name *names;
	struct err err;
	int rc; /* the first failure; nothing is written after it */
};

/* ---- text ---- */

static void put(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct writer *w, const char *fmt, ...)
{
	char text[LABELS_MAX + 512];
	va_list args;

	if (w->rc < 0)
		return;
	va_start(args, fmt);
	int len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if ((size_t)len >= sizeof(text))
		w->rc = err_set(&w->err, ERR_NOMEM, 0, "a metric's labels are too long");
	else
		w->rc = buf_append(w->out, text, (size_t)len, &w->err);
}

/* NAME="VALUE", escaped, in UTF-8; cut where it does not fit. */
static void add_label(char out[LABELS_MAX], const char *name, const char *value)
{
	json_t *text = json_text(value);
	const char *p = json_string_value(text);
	size_t len = strlen(out);

	len += (size_t)snprintf(out + len, LABELS_MAX - len, "%s%s=\"", len ? "," : "", name);
	for (; p && *p && len + 8 < LABELS_MAX; p++) {
		if (*p == '\\' || *p == '"' || *p == '\n')
			out[len++] = '\\';
		out[len++] = *p == '\n' ? 'n' : *p;
	}
	if (len + 2 < LABELS_MAX)
		snprintf(out + len, LABELS_MAX - len, "\"");
	json_decref(text);
}

static void put_value(struct writer *w, const char *name, const char *labels, double value)
{
	bool some = labels[0];

	if (isinf(value))
		put(w, "%s%s%s%s %cInf\n", name, some ? "{" : "", labels, some ? "}" : "",
		    value > 0 ? '+' : '-');
	else
		put(w, "%s%s%s%s %.*f\n", name, some ? "{" : "", labels, some ? "}" : "",
		    value == floor(value) ? 0 : 6, value);
}

static void put_family(struct writer *w, const char *name, const char *type, const char *help)
{
	put(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

#define GAUGE "gauge"
#define COUNTER "counter"
#define UNTYPED "untyped"

/* ---- values ---- */

/* Not known: the sample is left out. */
#define ABSENT NAN

static double seconds(int64_t us)
{
	return (double)us / 1e6;
}

/* Of a moment that is over; `time_us` 0: for ever. */
static double age(const struct writer *w, int64_t time_us)
{
	if (time_us == 0)
		return INFINITY;
	return time_us > w->now_us ? 0 : seconds(w->now_us - time_us);
}

static double moment(int64_t time_us)
{
	return time_us ? seconds(time_us) : ABSENT;
}

static double captured_age(const struct writer *w, const struct health_database *d)
{
	return d->stored && !d->unreadable[0] ? age(w, d->known_until_us) : INFINITY;
}

/* What there is was verified so long ago; never: since there has been anything. */
static double verified_age(const struct writer *w, const struct health_verified *v,
                           int64_t first_us)
{
	return age(w, v->at_us ? v->at_us : first_us);
}

static double replicated_age(const struct writer *w, const struct health_database *db,
                             const struct health_destination *d)
{
	if (d->not_configured[0] || d->unreadable[0] || d->replicated_txid == 0)
		return INFINITY;
	return d->behind_since_us ? age(w, d->behind_since_us) : captured_age(w, db);
}

static double integrity_ok(const struct health_verified *v)
{
	return v->integrity[0] ? strcmp(v->integrity, "ok") == 0 : ABSENT;
}

/* ---- databases ---- */

typedef double of_database(const struct writer *w, const struct health_database *d);

#define OF_DATABASE(fn, expression)                                                                \
	static double fn(const struct writer *w, const struct health_database *d)                  \
	{                                                                                          \
		(void)w;                                                                           \
		return (double)(expression);                                                       \
	}
OF_DATABASE(db_capturing, d->told && d->attached && strcmp(d->state, "replicating") == 0)
OF_DATABASE(db_waiting, health_is_absent(d))
OF_DATABASE(db_restorable, d->stored && !d->unreadable[0] && !d->not_restorable[0])
OF_DATABASE(db_captured_age, captured_age(w, d))
OF_DATABASE(db_last_commit, moment(d->last_us))
OF_DATABASE(db_first_commit, moment(d->first_us))
OF_DATABASE(db_verified_age, verified_age(w, &d->verified, d->first_us))
OF_DATABASE(db_verified_through, moment(d->verified.through_us))
OF_DATABASE(db_full_age, age(w, d->verified.full_at_us ? d->verified.full_at_us : d->first_us))
OF_DATABASE(db_integrity, integrity_ok(&d->verified))
OF_DATABASE(db_damaged, d->verified.damaged)
OF_DATABASE(db_gaps, d->stored ? (double)d->gaps : ABSENT)
OF_DATABASE(db_txid, d->stored ? (double)d->last_txid : ABSENT)
OF_DATABASE(db_stored_bytes, d->stored ? (double)d->stored_bytes : ABSENT)
OF_DATABASE(db_unsealed, d->stored ? (double)d->unsealed_bytes : ABSENT)
OF_DATABASE(db_queued, d->told ? (double)d->queued_bytes : ABSENT)
OF_DATABASE(db_bytes, d->exists ? (double)d->db_bytes : ABSENT)
OF_DATABASE(db_wal_bytes, d->exists ? (double)d->wal_bytes : ABSENT)
OF_DATABASE(db_commits, d->told ? (double)d->commits : ABSENT)
OF_DATABASE(db_taken, d->told ? (double)d->taken_bytes : ABSENT)
OF_DATABASE(db_syncs, d->told ? (double)d->syncs : ABSENT)
OF_DATABASE(db_sync_errors, d->told ? (double)d->sync_errors : ABSENT)
OF_DATABASE(db_sync_seconds, d->told ? seconds(d->sync_us) : ABSENT)

static double db_lag(const struct writer *w, const struct health_database *d)
{
	double worst = captured_age(w, d);

	for (size_t i = 0; i < d->n_destinations; i++)
		if (!d->destinations[i].not_configured[0])
			worst = fmax(worst, replicated_age(w, d, &d->destinations[i]));
	return worst;
}

static double db_disk_full(const struct writer *w, const struct health_database *d)
{
	const struct health_archive *a = health_archive_of(w->f, d->archive);

	return a && a->total_bytes ? a->free_bytes < a->reserve_bytes || a->free_bytes == 0
	                           : ABSENT;
}

/* clang-format off */
static const struct {
	const char *name, *type, *help;
	of_database *value;
} of_databases[] = {
	{"asof_capturing", GAUGE, "Whether the database is attached to and captured (1), or not (0).", db_capturing},
	{"asof_waiting", GAUGE, "Whether its file was not created yet (1): it is taken up when it is.", db_waiting},
	{"asof_restorable", GAUGE, "Whether the newest stored state was opened from the archive (1), or could not be (0).", db_restorable},
	{"asof_captured_age_seconds", GAUGE, "Everything committed before so many seconds ago is in the archive; +Inf: nothing is.", db_captured_age},
	{"asof_verified_age_seconds", GAUGE, "Seconds since the history was last verified; before that, since it began.", db_verified_age},
	{"asof_verified_full_age_seconds", GAUGE, "Seconds since every stored byte was last read; before that, since the history began.", db_full_age},
	{"asof_verified_through_timestamp_seconds", GAUGE, "Time of the newest commit whose state was read from the archive and found right.", db_verified_through},
	{"asof_integrity_ok", GAUGE, "Whether integrity_check of a stored state found nothing (1).", db_integrity},
	{"asof_damaged_objects", GAUGE, "Stored objects that verification found damaged.", db_damaged},
	{"asof_gaps", GAUGE, "Declared gaps in the history that is kept.", db_gaps},
	{"asof_last_commit_timestamp_seconds", GAUGE, "Time of the newest captured commit.", db_last_commit},
	{"asof_first_commit_timestamp_seconds", GAUGE, "Time of the oldest moment that can be restored.", db_first_commit},
	{"asof_history_bytes", GAUGE, "Stored bytes of the history in the archive.", db_stored_bytes},
	{"asof_unsealed_bytes", GAUGE, "Of these, in segments that are not sealed yet.", db_unsealed},
	{"asof_queued_bytes", GAUGE, "Captured frames that wait in memory to be written.", db_queued},
	{"asof_commits_total", COUNTER, "Commits captured since capture began.", db_commits},
	{"asof_captured_bytes_total", COUNTER, "Bytes of frames captured since capture began.", db_taken},
	{"asof_syncs_total", COUNTER, "Groups of commits made durable since capture began.", db_syncs},
	{"asof_sync_errors_total", COUNTER, "Tries at it that failed.", db_sync_errors},
	{"asof_sync_seconds_total", COUNTER, "Seconds spent in making groups durable.", db_sync_seconds},
	{"litestream_replication_lag", GAUGE, "Seconds by which archive or destinations are behind, the worst of them.", db_lag},
	{"litestream_db_size", GAUGE, "Bytes of the database file.", db_bytes},
	{"litestream_wal_size", GAUGE, "Bytes of its WAL file.", db_wal_bytes},
	{"litestream_total_wal_bytes", UNTYPED, "Bytes of WAL captured since capture began.", db_taken},
	{"litestream_sync_count", UNTYPED, "Syncs since capture began.", db_syncs},
	{"litestream_sync_error_count", UNTYPED, "Syncs that failed.", db_sync_errors},
	{"litestream_sync_seconds", UNTYPED, "Seconds spent in syncs.", db_sync_seconds},
	{"litestream_shadow_wal_size", GAUGE, "Bytes captured and not sealed yet.", db_unsealed},
	{"litestream_txid", GAUGE, "Transaction id of the newest captured commit.", db_txid},
	{"litestream_disk_full", GAUGE, "Whether the archive's filesystem has less free than is left to others (1).", db_disk_full},
};
/* clang-format on */
#define N(array) (sizeof(array) / sizeof((array)[0]))

static void put_databases(struct writer *w)
{
	for (size_t k = 0; k < N(of_databases); k++) {
		put_family(w, of_databases[k].name, of_databases[k].type, of_databases[k].help);
		for (size_t i = 0; i < w->f->n_databases; i++) {
			double value = of_databases[k].value(w, &w->f->databases[i]);
			if (!isnan(value))
				put_value(w, of_databases[k].name, w->db[i], value);
		}
	}
}

static void put_objects(struct writer *w)
{
	static const char name[] = "asof_history_objects";

	put_family(w, name, GAUGE, "Stored objects of the history, by kind.");
	for (size_t i = 0; i < w->f->n_databases; i++) {
		const struct health_database *d = &w->f->databases[i];
		const struct {
			const char *kind;
			uint64_t n;
		} kinds[] = {{"snapshot", d->n_snapshots},
		             {"segment", d->n_segments},
		             {"coalesced", d->n_coalesced}};
		for (size_t k = 0; k < N(kinds) && d->stored; k++) {
			char labels[LABELS_MAX];
			snprintf(labels, sizeof(labels), "%s", w->db[i]);
			add_label(labels, "kind", kinds[k].kind);
			put_value(w, name, labels, (double)kinds[k].n);
		}
	}
}

static void put_info(struct writer *w)
{
	static const char name[] = "asof_database_info";

	put_family(w, name, GAUGE,
	           "1; what the database is called, and what the daemon does with it.");
	for (size_t i = 0; i < w->f->n_databases; i++) {
		const struct health_database *d = &w->f->databases[i];
		char labels[LABELS_MAX];
		snprintf(labels, sizeof(labels), "%s", w->db[i]);
		add_label(labels, "name", d->name);
		add_label(labels, "archive", d->archive);
		add_label(labels, "state", d->told ? d->state : "unknown");
		put_value(w, name, labels, 1);
	}
}

/* ---- destinations ---- */

typedef double of_destination(const struct writer *w, const struct health_database *db,
                              const struct health_destination *d);

static double dest_age(const struct writer *w, const struct health_database *db,
                       const struct health_destination *d)
{
	return replicated_age(w, db, d);
}

static double dest_time(const struct writer *w, const struct health_database *db,
                        const struct health_destination *d)
{
	return moment(d->replicated_us);
}

static double dest_bytes(const struct writer *w, const struct health_database *db,
                         const struct health_destination *d)
{
	return d->not_configured[0] || d->unreadable[0] ? ABSENT : (double)d->stored_bytes;
}

static double dest_verified(const struct writer *w, const struct health_database *db,
                            const struct health_destination *d)
{
	if (d->not_configured[0] || d->verify_every_us == 0)
		return ABSENT;
	return verified_age(w, &d->verified, db->first_us);
}

static double dest_through(const struct writer *w, const struct health_database *db,
                           const struct health_destination *d)
{
	return moment(d->verified.through_us);
}

static double dest_damaged(const struct writer *w, const struct health_database *db,
                           const struct health_destination *d)
{
	return (double)d->verified.damaged;
}

static double dest_configured(const struct writer *w, const struct health_database *db,
                              const struct health_destination *d)
{
	return !d->not_configured[0];
}

/* clang-format off */
static const struct {
	const char *name, *help;
	of_destination *value;
} of_destinations[] = {
	{"asof_replicated_age_seconds", "Everything committed before so many seconds ago lies at the destination; +Inf: nothing does.", dest_age},
	{"asof_replicated_timestamp_seconds", "Time of the newest commit that lies there.", dest_time},
	{"asof_destination_configured", "Whether anything is copied there (1), or the configuration lacks something (0).", dest_configured},
	{"asof_destination_bytes", "Stored bytes of the history there.", dest_bytes},
	{"asof_destination_verified_age_seconds", "Seconds since what lies there was last verified; before that, since the history began.", dest_verified},
	{"asof_destination_verified_through_timestamp_seconds", "Time of the newest commit whose state was read there and found right.", dest_through},
	{"asof_destination_damaged_objects", "Objects there that verification found damaged.", dest_damaged},
};
/* clang-format on */

static void destination_labels(const struct writer *w, size_t db, const char *label,
                               const char *destination, char out[LABELS_MAX])
{
	snprintf(out, LABELS_MAX, "%s", w->db[db]);
	add_label(out, label, destination);
}

static void put_destinations(struct writer *w)
{
	char labels[LABELS_MAX];

	for (size_t k = 0; k < N(of_destinations); k++) {
		put_family(w, of_destinations[k].name, GAUGE, of_destinations[k].help);
		for (size_t i = 0; i < w->f->n_databases; i++) {
			const struct health_database *db = &w->f->databases[i];
			for (size_t m = 0; m < db->n_destinations; m++) {
				const struct health_destination *d = &db->destinations[m];
				double value = of_destinations[k].value(w, db, d);
				destination_labels(w, i, "destination", d->name, labels);
				if (!isnan(value))
					put_value(w, of_destinations[k].name, labels, value);
			}
		}
	}
}

/* How Litestream tells of what it validates at a replica. */
static void put_validations(struct writer *w)
{
	static const char name[] = "litestream_replica_validation_total";

	put_family(w, name, COUNTER, "Verifications of what lies at a destination, by outcome.");
	for (size_t i = 0; i < w->f->n_databases; i++) {
		const struct health_database *db = &w->f->databases[i];
		for (size_t m = 0; m < db->n_destinations; m++) {
			char job[64], labels[LABELS_MAX];
			snprintf(job, sizeof(job), "verify %.50s", db->destinations[m].name);
			const struct health_job *j = health_job_of(w->f, job, db->name);
			destination_labels(w, i, "name", db->destinations[m].name, labels);
			add_label(labels, "status", "ok");
			put_value(w, name, labels, j ? (double)j->n_ok : 0);
			destination_labels(w, i, "name", db->destinations[m].name, labels);
			add_label(labels, "status", "error");
			put_value(w, name, labels, j ? (double)j->n_failed : 0);
		}
	}
}

/* ---- archives ---- */

typedef double of_archive(const struct health_archive *a);

static double arc_free(const struct health_archive *a)
{
	return a->total_bytes ? (double)a->free_bytes : ABSENT;
}

static double arc_size(const struct health_archive *a)
{
	return a->total_bytes ? (double)a->total_bytes : ABSENT;
}

static double arc_reserve(const struct health_archive *a)
{
	return (double)a->reserve_bytes;
}

static double arc_until_full(const struct health_archive *a)
{
	return a->full_in_s < 0 ? INFINITY : a->full_in_s;
}

static double arc_readable(const struct health_archive *a)
{
	return !a->unreadable[0];
}

/* clang-format off */
static const struct {
	const char *name, *help;
	of_archive *value;
} of_archives[] = {
	{"asof_archive_readable", "Whether the archive's folder can be read (1).", arc_readable},
	{"asof_archive_free_bytes", "Free bytes of the filesystem that the archive lies on.", arc_free},
	{"asof_archive_size_bytes", "All bytes of that filesystem.", arc_size},
	{"asof_archive_reserve_bytes", "Free bytes that are left to others: with less, capture stops.", arc_reserve},
	{"asof_archive_until_full_seconds", "Seconds until only these are left, by the trend of free space; +Inf: it does not fill up, or is not known.", arc_until_full},
};
/* clang-format on */

static void put_archives(struct writer *w)
{
	for (size_t k = 0; k < N(of_archives); k++) {
		put_family(w, of_archives[k].name, GAUGE, of_archives[k].help);
		for (size_t i = 0; i < w->f->n_archives; i++) {
			double value = of_archives[k].value(&w->f->archives[i]);
			char labels[LABELS_MAX] = "";
			add_label(labels, "archive", w->f->archives[i].root);
			if (!isnan(value))
				put_value(w, of_archives[k].name, labels, value);
		}
	}
}

/* ---- backups ---- */

/* The label of the database with that name in the archive `root` (NULL: any). */
static void db_label(const struct writer *w, const char *root, const char *name,
                     char out[LABELS_MAX])
{
	size_t n = w->f->n_databases;

	out[0] = 0;
	for (size_t k = health_names_find(w->names, n, name);
	     k < n && strcmp(w->names[k].name, name) == 0; k++) {
		size_t i = w->names[k].database;
		if (!root || strcmp(w->f->databases[i].archive, root) == 0) {
			snprintf(out, LABELS_MAX, "%s", w->db[i]);
			return;
		}
	}
	if (root)
		db_label(w, NULL, name, out);
	else
		add_label(out, "db", name);
}

static double bak_count(const struct health_backups *b)
{
	return (double)b->count;
}

static double bak_bytes(const struct health_backups *b)
{
	return (double)b->bytes;
}

static double bak_latest(const struct health_backups *b)
{
	return moment(b->latest_us);
}

static double bak_latest_bytes(const struct health_backups *b)
{
	return (double)b->latest_bytes;
}

/* clang-format off */
static const struct {
	const char *name, *help;
	double (*value)(const struct health_backups *b);
} of_backups[] = {
	{"asof_backups", "Backups there are, by type.", bak_count},
	{"asof_backups_bytes", "Their stored bytes.", bak_bytes},
	{"asof_backup_last_success_timestamp_seconds", "When the newest of them was made.", bak_latest},
	{"backup_size_bytes", "Stored bytes of the newest of them.", bak_latest_bytes},
};
/* clang-format on */

static const char *type_name(unsigned type)
{
	static const char *const names[] = {"manual", "automated", "safety", "compressed"};
	return type < N(names) ? names[type] : "unknown";
}

static void put_backups(struct writer *w)
{
	for (size_t k = 0; k < N(of_backups); k++) {
		put_family(w, of_backups[k].name, GAUGE, of_backups[k].help);
		for (size_t i = 0; i < w->f->n_backups; i++) {
			const struct health_backups *b = &w->f->backups[i];
			double value = of_backups[k].value(b);
			char labels[LABELS_MAX];
			db_label(w, b->root, b->database, labels);
			add_label(labels, "type", type_name(b->type));
			if (w->f->n_archives > 1)
				add_label(labels, "archive", b->root);
			if (!isnan(value))
				put_value(w, of_backups[k].name, labels, value);
		}
	}
}

/* ---- backups elsewhere ---- */

static double sent_count(const struct health_sent *s, unsigned type)
{
	return (double)s->types[type].count;
}

static double sent_bytes(const struct health_sent *s, unsigned type)
{
	return (double)s->types[type].bytes;
}

static double sent_latest(const struct health_sent *s, unsigned type)
{
	return moment(s->types[type].latest_us);
}

static double sent_waiting(const struct writer *w, const struct health_sent *s)
{
	return (double)s->n_waiting;
}

static double sent_waiting_age(const struct writer *w, const struct health_sent *s)
{
	return s->n_waiting ? age(w, s->waiting_since_us) : 0;
}

static double sent_failing(const struct writer *w, const struct health_sent *s)
{
	return s->trouble_us != 0;
}

static double sent_success(const struct writer *w, const struct health_sent *s)
{
	return moment(s->sent_us);
}

/* clang-format off */
static const struct {
	const char *name, *help;
	double (*by_type)(const struct health_sent *s, unsigned type);
	double (*value)(const struct writer *w, const struct health_sent *s);
} of_sent[] = {
	{"asof_destination_backups", "Backups sent from here that lie at the destination, by type.", sent_count, NULL},
	{"asof_destination_backups_bytes", "Their stored bytes.", sent_bytes, NULL},
	{"asof_destination_backup_last_success_timestamp_seconds", "When the newest of them was made.", sent_latest, NULL},
	{"asof_destination_backups_waiting", "Backups that are to go there, and do not lie there yet.", NULL, sent_waiting},
	{"asof_destination_backups_waiting_age_seconds", "Seconds since the oldest of those was made; 0: none waits.", NULL, sent_waiting_age},
	{"asof_destination_backups_failing", "Whether the last try to send backups there failed (1).", NULL, sent_failing},
	{"asof_destination_backups_sent_timestamp_seconds", "When all that go there were last known to lie there.", NULL, sent_success},
};
/* clang-format on */

static void put_sent(struct writer *w)
{
	for (size_t k = 0; k < N(of_sent); k++) {
		put_family(w, of_sent[k].name, GAUGE, of_sent[k].help);
		for (size_t i = 0; i < w->f->n_sent; i++) {
			const struct health_sent *s = &w->f->sent[i];
			char base[LABELS_MAX], labels[LABELS_MAX];
			db_label(w, s->root, s->database, base);
			add_label(base, "destination", s->destination);
			if (of_sent[k].value && !isnan(of_sent[k].value(w, s)))
				put_value(w, of_sent[k].name, base, of_sent[k].value(w, s));
			for (unsigned t = 0; of_sent[k].by_type && t < HEALTH_BACKUP_TYPES; t++) {
				if (s->types[t].count == 0)
					continue;
				double value = of_sent[k].by_type(s, t);
				snprintf(labels, LABELS_MAX, "%s", base);
				add_label(labels, "type", type_name(t));
				if (!isnan(value))
					put_value(w, of_sent[k].name, labels, value);
			}
		}
	}
}

/* ---- jobs ---- */

static double job_ok(const struct health_job *j)
{
	return j->ended_us ? j->ok : ABSENT;
}

static double job_success(const struct health_job *j)
{
	return moment(j->succeeded_us);
}

static double job_next(const struct health_job *j)
{
	return moment(j->next_us);
}

static double job_n_ok(const struct health_job *j)
{
	return (double)j->n_ok;
}

static double job_n_failed(const struct health_job *j)
{
	return (double)j->n_failed;
}

/* clang-format off */
static const struct {
	const char *name, *type, *help;
	double (*value)(const struct health_job *j);
	bool backups; /* only those, their schedule as the label */
} of_jobs[] = {
	{"asof_job_last_run_ok", GAUGE, "Whether the last run by the clock was a success (1).", job_ok, false},
	{"asof_job_last_success_timestamp_seconds", GAUGE, "When the last success ended.", job_success, false},
	{"asof_job_next_timestamp_seconds", GAUGE, "When it runs next.", job_next, false},
	{"asof_job_success_total", COUNTER, "Runs that succeeded since the daemon's start.", job_n_ok, false},
	{"asof_job_failure_total", COUNTER, "Runs that failed since then.", job_n_failed, false},
	{"backup_success_total", COUNTER, "Backups by the clock that succeeded since the daemon's start.", job_n_ok, true},
	{"backup_failure_total", COUNTER, "Backups by the clock that failed since then.", job_n_failed, true},
};
/* clang-format on */

static void put_jobs(struct writer *w)
{
	static const char backup[] = "backup ";
	const size_t len = sizeof(backup) - 1;

	for (size_t k = 0; k < N(of_jobs); k++) {
		put_family(w, of_jobs[k].name, of_jobs[k].type, of_jobs[k].help);
		for (size_t i = 0; i < w->f->n_jobs; i++) {
			const struct health_job *j = &w->f->jobs[i];
			double value = of_jobs[k].value(j);
			char labels[LABELS_MAX] = "";
			if (isnan(value) ||
			    (of_jobs[k].backups && strncmp(j->job, backup, len) != 0))
				continue;
			if (j->database[0])
				db_label(w, NULL, j->database, labels);
			/* Not "job": that label is the scraping Prometheus' own. */
			add_label(labels, of_jobs[k].backups ? "schedule" : "task",
			          j->job + (of_jobs[k].backups ? len : 0));
			put_value(w, of_jobs[k].name, labels, value);
		}
	}
}

/* ---- the whole ---- */

static void put_one(struct writer *w, const char *name, const char *help, double value)
{
	put_family(w, name, GAUGE, help);
	if (!isnan(value))
		put_value(w, name, "", value);
}

static void put_health(struct writer *w)
{
	static const char name[] = "asof_health_status";
	char labels[LABELS_MAX] = "";

	put_family(w, "asof_info", GAUGE, "1; which asof this is.");
	add_label(labels, "version", ASOF_VERSION);
	put_value(w, "asof_info", labels, 1);
	put_one(w, "asof_healthy", "Whether everything could be restored (1): as /health answers.",
	        w->v->healthy);
	put_one(w, "asof_daemon_up", "Whether the daemon answers (1).", w->f->daemon_answers);
	put_one(w, "asof_daemon_start_timestamp_seconds", "When it was started.",
	        moment(w->f->started_us));
	put_one(w, "asof_time_seconds", "What the clock of this machine says.", seconds(w->now_us));
	put_one(w, "asof_facts_age_seconds",
	        "Age of what all of this tells; +Inf: nothing was learnt yet.",
	        age(w, w->f->at_us));
	put_one(w, "asof_facts_collect_seconds", "How long learning it took.",
	        seconds(w->f->took_us));
	put_family(w, name, GAUGE, "Each line of /health: 0 ok, 1 warning, 2 failed.");
	for (size_t i = 0; i < w->v->n; i++) {
		const struct health_line *l = &w->v->lines[i];
		labels[0] = 0;
		if (l->subject == HEALTH_DATABASE)
			db_label(w, NULL, l->name, labels);
		else if (l->database[0])
			db_label(w, NULL, l->database, labels);
		add_label(labels, "subject", health_subject_name(l->subject));
		add_label(labels, "name", l->name);
		add_label(labels, "code", health_code_name(l->code));
		put_value(w, name, labels, l->level);
	}
}

static int make_labels(struct writer *w)
{
	w->names = health_names(w->f);
	if (!w->names)
		return err_set(&w->err, ERR_NOMEM, 0, "no memory");
	w->db = calloc(w->f->n_databases + 1, sizeof(*w->db));
	for (size_t i = 0; w->db && i < w->f->n_databases; i++) {
		char label[LABELS_MAX] = "";
		add_label(label, "db", w->f->databases[i].path);
		w->db[i] = strdup(label);
		if (!w->db[i])
			return err_set(&w->err, ERR_NOMEM, 0, "no memory");
	}
	return w->db ? 0 : err_set(&w->err, ERR_NOMEM, 0, "no memory");
}

/* ---- alerts ---- */

static double place_failing(const struct notifier_place_status *p)
{
	return p->failing_since_us != 0;
}

static double place_sent(const struct notifier_place_status *p)
{
	return (double)p->sent;
}

static double place_failed(const struct notifier_place_status *p)
{
	return (double)p->failed;
}

/* clang-format off */
static const struct {
	const char *name, *type, *help;
	double (*value)(const struct notifier_place_status *p);
} of_places[] = {
	{"asof_alerts_failing", GAUGE, "Whether the last try to tell by that channel failed (1).", place_failing},
	{"asof_alerts_sent_total", COUNTER, "Messages that it took.", place_sent},
	{"asof_alerts_failed_total", COUNTER, "Tries that failed.", place_failed},
};
/* clang-format on */

static void put_alerts(struct writer *w, const struct notifier_status *alerts)
{
	put_one(w, "asof_alerts_firing", "Incidents that last, of those that asof tells itself.",
	        alerts ? (double)alerts->incidents.firing : ABSENT);
	for (size_t k = 0; k < N(of_places); k++) {
		put_family(w, of_places[k].name, of_places[k].type, of_places[k].help);
		for (int i = 0; alerts && i < N_NOTIFIER_PLACES; i++) {
			char labels[LABELS_MAX] = "";
			if (!alerts->places[i].configured)
				continue;
			add_label(labels, "channel", notifier_place_name(i));
			put_value(w, of_places[k].name, labels,
			          of_places[k].value(&alerts->places[i]));
		}
	}
}

int metrics_write(const struct health_facts *f, const struct health_verdict *v,
                  const struct notifier_status *alerts, int64_t now_us, struct buf *out,
                  struct err *err)
{
	struct writer w = {.f = f, .v = v, .now_us = now_us, .out = out, .err = ERR_INIT};

	w.rc = make_labels(&w);
	if (w.rc == 0) {
		put_health(&w);
		put_info(&w);
		put_databases(&w);
		put_objects(&w);
		put_destinations(&w);
		put_validations(&w);
		put_archives(&w);
		put_backups(&w);
		put_sent(&w);
		put_jobs(&w);
		put_alerts(&w, alerts);
	}
	for (size_t i = 0; w.db && i < f->n_databases; i++)
		free(w.db[i]);
	free(w.names);
	free(w.db);
	return w.rc < 0 ? err_copy(err, &w.err) : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Names, manifests, the list and retention of backups.  What a backup holds is for
 * tests/e2e/backup_test.py and its neighbours. */
#include "engine/backup/backup_i.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#define DAY_US (INT64_C(86400) * US_PER_SECOND)

static const char *const zones[] = {"UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0",
                                    "NPT-5:45", "<-12>12"};
#define N_ZONES (sizeof(zones) / sizeof(zones[0]))

static void use_zone(size_t i)
{
	setenv("TZ", zones[i], 1);
	tzset();
}

/* ---- names ---- */

static void test_names_known(void **state)
{
	static const struct {
		const char *file;
		bool ok;
		enum backup_file_kind kind;
		const char *stem, *label, *utc;
		bool gz, gpg;
	} cases[] = {
	        {"futures_trades_20240115_143000.db.gz", true, BACKUP_FILE_DB, "futures_trades", "",
	         "2024-01-15T14:30:00Z", true, false},
	        {"futures_trades_20240115_143000_2.db.gz", true, BACKUP_FILE_DB, "futures_trades",
	         "", "2024-01-15T14:30:00Z", true, false},
	        {"x_pre_restore_20240115_143000.db.gz", true, BACKUP_FILE_DB, "x", "pre_restore",
	         "2024-01-15T14:30:00Z", true, false},
	        {"x_20240115_143000.db", true, BACKUP_FILE_DB, "x", "", "2024-01-15T14:30:00Z",
	         false, false},
	        {"x_20240115_143000.db.gz.gpg", true, BACKUP_FILE_DB, "x", "",
	         "2024-01-15T14:30:00Z", true, true},
	        {"x_20240115_143000.db.gpg", true, BACKUP_FILE_DB, "x", "", "2024-01-15T14:30:00Z",
	         false, true},
	        {"x_20240115_143000.db-wal.gz", true, BACKUP_FILE_COMPANION, "x", "",
	         "2024-01-15T14:30:00Z", true, false},
	        {"x_20240115_143000_3.db-journal.gz", true, BACKUP_FILE_COMPANION, "x", "",
	         "2024-01-15T14:30:00Z", true, false},
	        {"manifest_20240115_143000.json", true, BACKUP_FILE_MANIFEST, "", "",
	         "2024-01-15T14:30:00Z", false, false},
	        {"manifest_20240115_143000_17.json", true, BACKUP_FILE_MANIFEST, "", "",
	         "2024-01-15T14:30:00Z", false, false},
	        /* Days that the calendar has not: a name, but no time. */
	        {"x_20240230_143000.db", true, BACKUP_FILE_DB, "x_20240230_143000", "", NULL, false,
	         false},
	        {"x_20241315_143000.db", true, BACKUP_FILE_DB, "x_20241315_143000", "", NULL, false,
	         false},
	        {"x_20240115_246000.db", true, BACKUP_FILE_DB, "x_20240115_246000", "", NULL, false,
	         false},
	        {"old.db", true, BACKUP_FILE_DB, "old", "", NULL, false, false},
	        {"old.db.gz", true, BACKUP_FILE_DB, "old", "", NULL, true, false},
	        {"_20240115_143000.db", true, BACKUP_FILE_DB, "_20240115_143000", "", NULL, false,
	         false},
	        /* Nobody's business. */
	        {".hidden.db", false, 0, "", "", NULL, false, false},
	        {".db", false, 0, "", "", NULL, false, false},
	        {"x.db-wal", false, 0, "", "", NULL, false, false},
	        {"x_20240115_143000.db-wal", false, 0, "", "", NULL, false, false},
	        {"x.db-wal.gz", false, 0, "", "", NULL, false, false},
	        {"manifest_x.json", false, 0, "", "", NULL, false, false},
	        {"manifest_20240230_143000.json", false, 0, "", "", NULL, false, false},
	        {"x.json", false, 0, "", "", NULL, false, false},
	        {"x.gz", false, 0, "", "", NULL, false, false},
	        {"", false, 0, "", "", NULL, false, false},
	};
	struct backup_name n;
	char text[TIME_STR_MAX];

	use_zone(0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool ok = backup_name_parse(cases[i].file, &n);
		if (ok != cases[i].ok)
			fail_msg("%s: parsed %d", cases[i].file, ok);
		if (!ok)
			continue;
		if (n.kind != BACKUP_FILE_MANIFEST)
			assert_string_equal(n.stem, cases[i].stem);
		assert_int_equal(n.kind, cases[i].kind);
		assert_string_equal(n.label, cases[i].label);
		assert_int_equal(n.has_time, cases[i].utc != NULL);
		assert_int_equal(n.compressed, cases[i].gz);
		assert_int_equal(n.encrypted, cases[i].gpg);
		if (cases[i].utc) {
			time_format(n.time_us, text);
			assert_string_equal(text, cases[i].utc);
		}
	}
}

/* Whatever a database is called, the name of its backup gives stem and time back. */
static void test_names_round_trip(void **state)
{
	static const char letters[] = "ab_0129 -.\xc3\xa4";
	struct rng r = {test_seed()};
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < test_rounds(3000); i++) {
		char db[64], path[128], stem[BACKUP_FILE_MAX], stamp[BACKUP_STAMP_MAX];
		char file[400], tail[16] = "";
		struct backup_name n;
		size_t len = 1 + rng_below(&r, 30);

		use_zone(rng_below(&r, N_ZONES));
		for (size_t k = 0; k < len; k++)
			db[k] = letters[rng_below(&r, sizeof(letters) - 1)];
		db[len] = '\0';
		snprintf(path, sizeof(path), "/some/folder/%s.db", db);
		synth_must(backup_stem(path, stem, &err), &err, "backup_stem");
		/* From 2001 to 2099; to the second, as names are. */
		int64_t us = (INT64_C(978307200) + (int64_t)rng_below(&r, UINT64_C(3124137600))) *
		             US_PER_SECOND;
		backup_stamp(us, stamp);
		if (rng_chance(&r, 30))
			snprintf(tail, sizeof(tail), "_%u", 2 + (unsigned)rng_below(&r, 9998));
		snprintf(file, sizeof(file), "%s_%s%s.db%s", stem, stamp, tail,
		         rng_chance(&r, 50) ? ".gz" : "");
		if (!backup_name_parse(file, &n))
			fail_msg("'%s' does not parse", file);
		assert_true(n.has_time);
		if (strcmp(n.stem, stem) != 0)
			fail_msg("'%s': stem '%s'", file, n.stem);
		/* An hour that is repeated has two readings. */
		if (llabs(n.time_us - us) != 0 && llabs(n.time_us - us) != 3600 * US_PER_SECOND)
			fail_msg("'%s': %" PRId64 " is not %" PRId64, file, n.time_us, us);
		char again[BACKUP_STAMP_MAX];
		backup_stamp(n.time_us, again);
		assert_string_equal(again, stamp);
	}
}

/* ---- manifests ---- */

static const char script_manifest[] =
        "{\n    \"timestamp\": \"20240115_143000\",\n"
        "    \"created_at\": \"2024-01-15T14:30:00+01:00\",\n"
        "    \"backup_type\": \"manual\",\n"
        "    \"files\": [\n\"futures_trades_20240115_143000.db.gz\","
        "\"ohlc_cache_20240115_143000.db.gz\"\n    ],\n"
        "    \"sizes\": {\n        \"futures_trades_20240115_143000.db.gz\": 4711,"
        "        \"ohlc_cache_20240115_143000.db.gz\": 17\n    },\n"
        "    \"validation\": {\n        \"integrity_check\": \"passed\",\n"
        "        \"created_by\": \"backup-database.sh\",\n"
        "        \"script_version\": \"1.0\"\n    }\n}\n";

static const char python_manifest[] =
        "{\n  \"backup_type\": \"automated\",\n  \"timestamp\": \"2024-01-15T14:30:00.123456\",\n"
        "  \"source_database\": \"data/db/futures_trades.db\",\n"
        "  \"backup_file\": \"backups/automated/futures_trades_20240115_143000.db.gz\",\n"
        "  \"source_size_bytes\": 8192,\n  \"backup_size_bytes\": 512,\n"
        "  \"compression_ratio\": 0.0625,\n  \"created_by\": \"BackupManager\",\n"
        "  \"validation\": {\"integrity_check\": true, \"created_at\": "
        "\"2024-01-15T14:30:01\"}\n}\n";

static void test_manifest_of_script(void **state)
{
	struct backup_manifest_files files;
	struct backup_manifest m;
	struct err err = ERR_INIT;

	use_zone(0);
	synth_must(backup_manifest_parse(script_manifest, strlen(script_manifest),
	                                 "ohlc_cache_20240115_143000.db.gz", &m, &files, &err),
	           &err, "parse");
	assert_int_equal(files.n, 2);
	assert_string_equal(files.names[0], "futures_trades_20240115_143000.db.gz");
	assert_string_equal(files.names[1], "ohlc_cache_20240115_143000.db.gz");
	assert_string_equal(m.type, "manual");
	assert_string_equal(m.created_by, "backup-database.sh");
	assert_int_equal(m.backup_size_bytes, 17);
	assert_true(m.checked);
	char text[TIME_STR_MAX];
	time_format(m.created_us, text);
	assert_string_equal(text, "2024-01-15T13:30:00Z");
	free(files.names);
}

static void test_manifest_of_python(void **state)
{
	struct backup_manifest_files files;
	struct backup_manifest m;
	struct err err = ERR_INIT;

	use_zone(1); /* its times are local: CET */
	synth_must(backup_manifest_parse(python_manifest, strlen(python_manifest), NULL, &m, &files,
	                                 &err),
	           &err, "parse");
	assert_int_equal(files.n, 1);
	assert_string_equal(files.names[0], "futures_trades_20240115_143000.db.gz");
	assert_string_equal(m.source_database, "data/db/futures_trades.db");
	assert_int_equal(m.source_size_bytes, 8192);
	assert_int_equal(m.backup_size_bytes, 512);
	assert_true(m.compression_ratio == 0.0625);
	assert_true(m.checked);
	assert_string_equal(m.sha256, "");
	char text[TIME_STR_MAX];
	time_format(m.created_us, text);
	assert_string_equal(text, "2024-01-15T13:30:00.123456Z");
	free(files.names);
}

static void random_text(struct rng *r, char *out, size_t max)
{
	static const char letters[] = "abcXYZ019 /\\\"'\n\t{}[]:,\xc3\xa4_.-";
	size_t n = rng_below(r, max);

	for (size_t i = 0; i < n; i++) {
		char c = letters[rng_below(r, sizeof(letters) - 1)];
		out[i] = (unsigned char)c >= 0x80 ? 'u' : c;
	}
	out[n] = '\0';
}

static void test_manifest_round_trip(void **state)
{
	struct rng r = {test_seed()};
	struct backup_manifest m, back;
	struct err err = ERR_INIT;

	use_zone(0);
	for (unsigned i = 0; i < test_rounds(500); i++) {
		cleanup_buf struct buf text = BUF_INIT(BACKUP_MANIFEST_BYTES_MAX);
		memset(&m, 0, sizeof(m));
		snprintf(m.type, sizeof(m.type), "%s",
		         backup_type_names[rng_below(&r, BACKUP_N_TYPES)]);
		m.created_us = (int64_t)rng_below(&r, 4000000000) * US_PER_SECOND +
		               (int64_t)rng_below(&r, 1000000) + 1;
		m.state_us = m.created_us + (int64_t)rng_below(&r, 1000000);
		m.checked_us = m.created_us + (int64_t)rng_below(&r, 10000000);
		backup_time_iso_local(m.created_us, m.timestamp);
		random_text(&r, m.source_database, 200);
		random_text(&r, m.warning, 200);
		snprintf(m.backup_file, sizeof(m.backup_file), "/a/%u.db.gz", i);
		snprintf(m.created_by, sizeof(m.created_by), "asof 1");
		m.source_size_bytes = rng_below(&r, UINT64_C(1) << 50);
		m.backup_size_bytes = 1 + rng_below(&r, UINT64_C(1) << 50);
		m.compression_ratio = (double)(1 + rng_below(&r, 1000)) / 64;
		m.checked = rng_chance(&r, 50);
		for (int k = 0; k < 64; k++)
			m.sha256[k] = "0123456789abcdef"[rng_below(&r, 16)];
		m.txid = rng_below(&r, 100000);
		m.source = (enum backup_source)(1 + rng_below(&r, 3));
		m.n_companions = rng_below(&r, 3);
		for (size_t k = 0; k < m.n_companions; k++)
			snprintf(m.companions[k], sizeof(m.companions[k]), "c%zu.db-wal.gz", k);

		synth_must(backup_manifest_format(&m, &text, &err), &err, "format");
		synth_must(
		        backup_manifest_parse((char *)text.data, text.len, NULL, &back, NULL, &err),
		        &err, "parse");
		assert_memory_equal(&m, &back, sizeof(m));
	}
}

/* Nothing that anybody puts there does harm: it is read, or it is an error. */
static void test_manifest_hostile(void **state)
{
	static const char *const no_manifests[] = {
	        "",
	        " ",
	        "null",
	        "[]",
	        "{",
	        "{}",
	        "\"x\"",
	        "{\"files\": {}}",
	        "{\"files\": []}",
	        "{\"files\": [1, null, [], {}]}",
	        "{\"files\": [\"\", \"/\", \"a/\"]}",
	        "{\"backup_file\": 7}",
	        "{\"backup_file\": \"x\\u0000y.db\"}",
	        "{\"backup_file\": \"\xff\xfe\"}",
	        "{\"backup_file\": \"x.db\"} x",
	};
	struct backup_manifest_files files;
	struct backup_manifest m;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof(no_manifests) / sizeof(no_manifests[0]); i++) {
		int rc = backup_manifest_parse(no_manifests[i], strlen(no_manifests[i]), NULL, &m,
		                               &files, &err);
		if (err_kind_of(rc) != ERR_DAMAGED)
			fail_msg("'%s' gave %d", no_manifests[i], rc);
		assert_null(files.names);
	}
	/* Wrong types are as good as missing. */
	static const char odd[] =
	        "{\"backup_file\": \"../../etc/passwd/x.db.gz\", \"backup_type\": 3, "
	        "\"timestamp\": {}, \"created_at\": \"tomorrow\", \"source_size_bytes\": -5, "
	        "\"backup_size_bytes\": 1e300, \"compression_ratio\": \"much\", \"validation\": 1, "
	        "\"sizes\": [], \"sha256\": \"zz\", \"txid\": true, \"source\": \"moon\", "
	        "\"companions\": [\"../x\", 1, \"\"], \"warning\": []}";
	synth_must(backup_manifest_parse(odd, strlen(odd), NULL, &m, &files, &err), &err, "odd");
	assert_int_equal(files.n, 1);
	assert_string_equal(files.names[0], "x.db.gz");
	assert_string_equal(m.type, "");
	assert_int_equal(m.source_size_bytes, 0);
	assert_int_equal(m.backup_size_bytes, 0);
	assert_int_equal(m.txid, 0);
	assert_int_equal(m.created_us, 0);
	assert_int_equal(m.source, BACKUP_FROM_UNKNOWN);
	assert_string_equal(m.sha256, "");
	assert_int_equal(m.n_companions, 0);
	free(files.names);
}

static void test_manifest_every_byte(void **state)
{
	static const char *const texts[] = {script_manifest, python_manifest};
	struct backup_manifest_files files;
	struct backup_manifest m;
	struct rng r = {test_seed()};

	for (size_t t = 0; t < 2; t++) {
		size_t len = strlen(texts[t]);
		cleanup_free char *text = malloc(len);
		for (size_t i = 0; i < len; i++) {
			memcpy(text, texts[t], len);
			text[i] = (char)((uint64_t)(uint8_t)text[i] ^ (1 + rng_below(&r, 255)));
			int rc = backup_manifest_parse(text, len, NULL, &m, &files, NULL);
			assert_true(rc == 0 || rc == -ERR_DAMAGED);
			free(files.names);
			if (i + 1 == len) /* the line feed at its end */
				continue;
			rc = backup_manifest_parse(text, i, NULL, &m, &files, NULL);
			assert_int_equal(rc, -ERR_DAMAGED);
		}
	}
}

/* ---- retention ---- */

struct fake {
	struct backup_list list;
	bool *good;
	size_t asked;
};

static int fake_is_good(void *ctx, const struct backup_entry *e, struct err *err)
{
	struct fake *f = ctx;

	f->asked++;
	return f->good[e - f->list.entries] ? 1 : 0;
}

static void make_fake(struct rng *r, struct fake *f, int64_t now_us)
{
	static char *const dbs[] = {"a", "b", "c"};
	size_t n = rng_below(r, 120);
	unsigned bad = (unsigned)rng_below(r, 3) * 45;
	uint64_t span_days = 1 + rng_below(r, 1500);

	*f = (struct fake){0};
	f->list.entries = calloc(n + 1, sizeof(*f->list.entries));
	f->good = calloc(n + 1, sizeof(*f->good));
	f->list.n = n;
	for (size_t i = 0; i < n; i++) {
		struct backup_entry *e = &f->list.entries[i];
		e->type = (enum backup_type)rng_below(r, BACKUP_N_TYPES);
		e->db = dbs[rng_below(r, 3)];
		e->size_bytes = 1 + rng_below(r, 1000);
		/* To the hour, so that some share one; all times differ by their microseconds,
		 * in an order that is the index's. */
		e->time_us = now_us - (int64_t)rng_below(r, span_days * 24) * 3600 * US_PER_SECOND -
		             (int64_t)i;
		f->good[i] = !rng_chance(r, bad);
	}
}

static void free_fake(struct fake *f)
{
	free(f->list.entries);
	free(f->good);
}

/* The same rules, said otherwise: periods are texts, ranks are counted by looking at all. */
static void period_text(int64_t time_us, int period, char out[64])
{
	time_t t = (time_t)(time_us / US_PER_SECOND) - (time_us % US_PER_SECOND < 0);
	struct tm tm;
	size_t n = 0;

	localtime_r(&t, &tm);
	switch (period) {
	case 0:
		n = strftime(out, 64, "%Y-%m-%d %H", &tm);
		break;
	case 1:
		n = strftime(out, 64, "%Y-%m-%d", &tm);
		break;
	case 2:
		n = strftime(out, 64, "%G-%V", &tm);
		break;
	case 3:
		n = strftime(out, 64, "%Y-%m", &tm);
		break;
	default:
		n = strftime(out, 64, "%Y", &tm);
	}
	if (period == 0)
		snprintf(out + n, 64 - n, " %d", tm.tm_isdst > 0);
}

static bool oracle_period(const struct fake *f, size_t me, int period, unsigned limit)
{
	const struct backup_entry *e = &f->list.entries[me];
	char mine[64], other[64];
	size_t newer_periods = 0;

	period_text(e->time_us, period, mine);
	for (size_t i = 0; i < f->list.n; i++) {
		const struct backup_entry *o = &f->list.entries[i];
		if (o->type != e->type || strcmp(o->db, e->db) != 0 || o->time_us <= e->time_us)
			continue;
		period_text(o->time_us, period, other);
		if (strcmp(mine, other) == 0)
			return false; /* there is a newer one in it */
		/* Is o the newest of its period?  Then that is one period more. */
		bool newest = true;
		for (size_t k = 0; k < f->list.n; k++) {
			const struct backup_entry *p = &f->list.entries[k];
			char text[64];
			if (p->type != e->type || strcmp(p->db, e->db) != 0 ||
			    p->time_us <= o->time_us)
				continue;
			period_text(p->time_us, period, text);
			if (strcmp(text, other) == 0)
				newest = false;
		}
		newer_periods += newest;
	}
	return newer_periods < limit;
}

static bool oracle_keeps(const struct fake *f, const struct backup_retention *ret, size_t me,
                         int64_t now_us)
{
	const struct backup_entry *e = &f->list.entries[me];
	const struct backup_keep *k = &ret->types[e->type];
	const unsigned limits[] = {k->hourly, k->daily, k->weekly, k->monthly, k->yearly};
	size_t newer = 0;
	bool any = k->max_age_us || k->count, keep;

	for (int p = 0; p < 5; p++)
		any = any || limits[p];
	for (size_t i = 0; i < f->list.n; i++) {
		const struct backup_entry *o = &f->list.entries[i];
		newer += o->type == e->type && strcmp(o->db, e->db) == 0 && o->time_us > e->time_us;
	}
	keep = !any || (k->max_age_us && now_us - e->time_us <= k->max_age_us) ||
	       (k->count && newer < k->count);
	for (int p = 0; p < 5 && !keep; p++)
		keep = limits[p] && oracle_period(f, me, p, limits[p]);
	return keep;
}

static void random_keep(struct rng *r, struct backup_keep *k)
{
	*k = (struct backup_keep){0};
	if (rng_chance(r, 40))
		k->max_age_us = (int64_t)(1 + rng_below(r, 60)) * DAY_US;
	if (rng_chance(r, 30))
		k->count = (unsigned)rng_below(r, 8);
	unsigned *periods[] = {&k->hourly, &k->daily, &k->weekly, &k->monthly, &k->yearly};
	for (int i = 0; i < 5; i++)
		if (rng_chance(r, 25))
			*periods[i] = (unsigned)rng_below(r, 10);
}

/* The newest of a database, among those with that mark in `of`; -1: none. */
static int newest_of(const struct fake *f, const char *db, const bool *of)
{
	int found = -1;

	for (size_t i = 0; i < f->list.n; i++)
		if (of[i] && strcmp(f->list.entries[i].db, db) == 0 &&
		    (found < 0 || f->list.entries[i].time_us > f->list.entries[found].time_us))
			found = (int)i;
	return found;
}

static void check_plan(const struct fake *f, const struct backup_retention *ret,
                       const struct backup_plan *plan, int64_t now_us)
{
	cleanup_free bool *want = calloc(f->list.n + 1, sizeof(bool));
	cleanup_free bool *kept_good = calloc(f->list.n + 1, sizeof(bool));
	cleanup_free bool *good = calloc(f->list.n + 1, sizeof(bool));
	cleanup_free bool *all = calloc(f->list.n + 1, sizeof(bool));
	static const char *const dbs[] = {"a", "b", "c"};
	size_t n_remove = 0;

	for (size_t i = 0; i < f->list.n; i++) {
		want[i] = oracle_keeps(f, ret, i, now_us);
		kept_good[i] = want[i] && f->good[i];
		good[i] = f->good[i];
		all[i] = true;
	}
	for (size_t d = 0; d < 3; d++) {
		bool removes = false;
		for (size_t i = 0; i < f->list.n; i++)
			removes =
			        removes || (!want[i] && strcmp(f->list.entries[i].db, dbs[d]) == 0);
		if (!removes || newest_of(f, dbs[d], kept_good) >= 0)
			continue;
		int last_good = newest_of(f, dbs[d], good);
		want[last_good >= 0 ? last_good : newest_of(f, dbs[d], all)] = true;
	}
	for (size_t i = 0; i < f->list.n; i++) {
		const struct backup_verdict *v = &plan->verdicts[i];
		assert_ptr_equal(v->entry, &f->list.entries[i]);
		if (v->remove == want[i])
			fail_msg("backup %zu of %s: %s, because '%s'", i, v->entry->db,
			         v->remove ? "removed" : "kept", v->reason);
		assert_true(v->reason[0] != '\0');
		n_remove += v->remove;
	}
	assert_int_equal(plan->n_remove, n_remove);
}

static void test_retention_oracle(void **state)
{
	struct rng r = {test_seed()};
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < test_rounds(400); i++) {
		struct backup_retention ret;
		struct backup_plan plan;
		struct fake f;
		/* Times around the changes of the clock, too. */
		int64_t now_us =
		        (INT64_C(1700000000) + (int64_t)rng_below(&r, 100000000)) * US_PER_SECOND;

		use_zone(rng_below(&r, N_ZONES));
		make_fake(&r, &f, now_us);
		for (int t = 0; t < BACKUP_N_TYPES; t++)
			random_keep(&r, &ret.types[t]);
		synth_must(backup_plan_make(&f.list, &ret, now_us, fake_is_good, &f, &plan, &err),
		           &err, "plan");
		check_plan(&f, &ret, &plan, now_us);
		backup_plan_release(&plan);
		free_fake(&f);
	}
}

/* Looking into a backup takes long: one that stays and is good is enough. */
static void test_retention_asks_little(void **state)
{
	struct backup_retention ret;
	struct backup_plan plan;
	struct fake f = {0};
	struct err err = ERR_INIT;

	backup_retention_default(&ret);
	f.list.n = 40;
	f.list.entries = calloc(f.list.n, sizeof(*f.list.entries));
	f.good = calloc(f.list.n, sizeof(*f.good));
	for (size_t i = 0; i < f.list.n; i++) {
		f.list.entries[i] = (struct backup_entry){
		        .db = "a", .time_us = 100 * DAY_US - (int64_t)i * DAY_US, .size_bytes = 1};
		f.good[i] = true;
	}
	synth_must(backup_plan_make(&f.list, &ret, 100 * DAY_US, fake_is_good, &f, &plan, &err),
	           &err, "plan");
	assert_int_equal(plan.n_remove, 32); /* 0 to 7 days old stay */
	assert_int_equal(f.asked, 1);
	backup_plan_release(&plan);

	/* Nothing goes, so nothing is asked. */
	f.asked = 0;
	f.list.n = 5;
	synth_must(backup_plan_make(&f.list, &ret, 100 * DAY_US, fake_is_good, &f, &plan, &err),
	           &err, "plan");
	assert_int_equal(plan.n_remove, 0);
	assert_int_equal(f.asked, 0);
	backup_plan_release(&plan);
	free_fake(&f);
}

/* ---- figures ---- */

static void test_stats_oracle(void **state)
{
	struct rng r = {test_seed()};
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < test_rounds(200); i++) {
		int64_t now_us = INT64_C(1700000000) * US_PER_SECOND;
		uint64_t bytes = 0, recent = 0, stored = 0, content = 0;
		int64_t oldest_us = INT64_MAX, newest_us = INT64_MIN;
		struct backup_stats s;
		struct fake f;

		make_fake(&r, &f, now_us);
		for (size_t k = 0; k < f.list.n; k++) {
			struct backup_entry *e = &f.list.entries[k];
			e->compressed = rng_chance(&r, 70);
			e->companion_bytes = rng_chance(&r, 10) ? rng_below(&r, 100) : 0;
			e->source_size_bytes = rng_chance(&r, 70) ? 1 + rng_below(&r, 9000) : 0;
			bytes += e->size_bytes + e->companion_bytes;
			if (e->compressed && e->source_size_bytes) {
				stored += e->size_bytes;
				content += e->source_size_bytes;
			}
			if (e->time_us >= now_us - 30 * DAY_US)
				recent += e->size_bytes + e->companion_bytes;
			oldest_us = e->time_us < oldest_us ? e->time_us : oldest_us;
			newest_us = e->time_us > newest_us ? e->time_us : newest_us;
		}
		synth_must(backup_stats_compute("/", &f.list, now_us, &s, &err), &err, "stats");
		assert_int_equal(s.count, f.list.n);
		assert_int_equal(s.size_bytes, bytes);
		double ratio = content ? (double)stored / (double)content : 0;
		assert_true(fabs(s.ratio - ratio) < 1e-9);
		if (f.list.n == 0) {
			assert_null(s.oldest);
			assert_null(s.newest);
		} else {
			assert_int_equal(s.oldest->time_us, oldest_us);
			assert_int_equal(s.newest->time_us, newest_us);
		}
		double days = f.list.n ? (double)(now_us - oldest_us) / DAY_US : 0;
		days = days > 30 ? 30 : days;
		double growth = days >= 1 ? (double)recent / days : 0;
		assert_true(fabs(s.growth_bytes_per_day - growth) < 1e-6 * (1 + growth));
		for (int t = 0; t < BACKUP_N_TYPES; t++) {
			uint64_t n = 0;
			for (size_t k = 0; k < f.list.n; k++)
				n += (int)f.list.entries[k].type == t;
			assert_int_equal(s.types[t].count, n);
			assert_int_equal(s.types[t].latest != NULL, n > 0);
		}
		free_fake(&f);
	}
}

/* ---- folders ---- */

static void put(const char *root, const char *name, const char *text)
{
	char path[PATH_MAX];
	struct err err = ERR_INIT;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	char *slash = strrchr(path, '/');
	*slash = '\0';
	synth_must(file_make_dirs(path, &err), &err, "mkdir");
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	synth_must(file_put(fd, slash + 1, text, strlen(text), &err), &err, name);
	close(fd);
}

static bool is_there(const char *root, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	return access(path, F_OK) == 0;
}

static const struct backup_entry *entry(const struct backup_list *list, const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->entries[i].name, name) == 0)
			return &list->entries[i];
	fail_msg("no %s in the list", name);
	return NULL;
}

static bool is_orphan(const struct backup_list *list, const char *name)
{
	for (size_t i = 0; i < list->n_orphans; i++)
		if (strcmp(strrchr(list->orphans[i], '/') + 1, name) == 0)
			return true;
	return false;
}

static void fill_folders(const char *root)
{
	put(root, "manual/x_20240115_143000.db.gz", "abc");
	put(root, "manual/manifest_20240115_143000.json",
	    "{\"backup_file\": \"/old/place/x_20240115_143000.db.gz\", \"source_size_bytes\": 77, "
	    "\"source_database\": \"/d/x.db\", \"txid\": 5, \"source\": \"history\"}");
	put(root, "manual/x_guard_20240116_143000.db.gz", "abcd");
	put(root, "manual/manifest_20240116_143000.json",
	    "{\"backup_file\": \"x_guard_20240116_143000.db.gz\", \"source_database\": \"x.db\"}");
	/* One manifest of a run of the script, one file of two is gone. */
	put(root, "manual/y_20240117_143000.db.gz", "ab");
	put(root, "manual/manifest_20240117_143000.json",
	    "{\"files\": [\"y_20240117_143000.db.gz\", \"z_20240117_143000.db.gz\"]}");
	/* All of them are gone. */
	put(root, "manual/manifest_20240118_143000.json",
	    "{\"files\": [\"gone_20240118_143000.db.gz\"]}");
	/* The script wrote the name before gzip changed it. */
	put(root, "automated/w_20240119_143000.db.gz", "abcde");
	put(root, "automated/manifest_20240119_143000.json",
	    "{\"backup_file\": \"w_20240119_143000.db\"}");
	put(root, "safety/x_pre_restore_20240120_143000.db.gz", "a");
	put(root, "safety/x_pre_restore_20240120_143000.db-wal.gz", "bc");
	put(root, "safety/x_pre_restore_20240120_143000.db-journal.gz", "d");
	put(root, "safety/manifest_20240120_143000.json",
	    "{\"backup_file\": \"x_pre_restore_20240120_143000.db.gz\", \"source\": \"raw\", "
	    "\"source_database\": \"x.db\"}");
	put(root, "safety/v_20240121_143000.db-wal.gz", "lonely");
	/* Others' files. */
	put(root, "manual/notes.txt", "x");
	put(root, "manual/manifest_20240122_143000.json", "not ours to judge");
	put(root, "manual/manifest_old.json", "{}");
	put(root, "manual/x.db-wal", "x");
	put(root, "manual/kept_by_hand.db", "x");
	put(root, "manual/kept_by_hand.db.gz", "x");
	put(root, "manual/folder.db/file", "x");
	put(root, "other/x_20240115_143000.db.gz", "x");
}

static void test_list(void **state)
{
	char *root = test_folder();
	struct backup_list list;
	struct backup_manifest m;
	struct err err = ERR_INIT;

	use_zone(0);
	synth_must(backup_list_read(root, &list, &err), &err, "list nothing");
	assert_int_equal(list.n, 0);
	backup_list_release(&list);

	fill_folders(root);
	synth_must(backup_list_read(root, &list, &err), &err, "list");
	assert_int_equal(list.n, 7);
	const struct backup_entry *e = entry(&list, "x_20240115_143000.db.gz");
	assert_string_equal(e->db, "x");
	assert_string_equal(e->label, "");
	assert_int_equal(e->size_bytes, 3);
	assert_int_equal(e->source_size_bytes, 77);
	assert_int_equal(e->txid, 5);
	assert_int_equal(e->source, BACKUP_FROM_HISTORY);
	synth_must(backup_manifest_read(e, &m, &err), &err, "manifest");
	assert_string_equal(m.source_database, "/d/x.db");
	e = entry(&list, "x_guard_20240116_143000.db.gz");
	assert_string_equal(e->db, "x");
	assert_string_equal(e->label, "guard");
	e = entry(&list, "y_20240117_143000.db.gz");
	assert_non_null(strstr(e->manifest_path, "manifest_20240117_143000.json"));
	e = entry(&list, "w_20240119_143000.db.gz");
	assert_non_null(e->manifest_path);
	e = entry(&list, "x_pre_restore_20240120_143000.db.gz");
	assert_string_equal(e->db, "x");
	assert_string_equal(e->label, "pre_restore");
	assert_int_equal(e->n_companions, 2);
	assert_int_equal(e->companion_bytes, 3);
	assert_true(e->raw);
	assert_int_equal(list.n_orphans, 2);
	assert_true(is_orphan(&list, "manifest_20240118_143000.json"));
	assert_true(is_orphan(&list, "v_20240121_143000.db-wal.gz"));
	/* Newest first within a type. */
	assert_string_equal(list.entries[2].name, "y_20240117_143000.db.gz");
	assert_string_equal(list.entries[4].name, "x_20240115_143000.db.gz");
	assert_true(list.entries[0].foreign && list.entries[1].foreign && !list.entries[2].foreign);
	assert_null(backup_list_find(&list, "kept_by_hand")); /* two of them */

	assert_ptr_equal(backup_list_find(&list, "x_20240115_143000"), &list.entries[4]);
	assert_ptr_equal(backup_list_find(&list, list.entries[1].path), &list.entries[1]);
	assert_null(backup_list_find(&list, "x_2024"));
	assert_null(backup_list_find(&list, ""));
	backup_list_release(&list);
	test_remove(root);
	free(root);
}

static void test_cleanup(void **state)
{
	char *root = test_folder();
	struct backup_retention ret = {.types = {{.count = 1}, {.count = 1}, {.max_age_us = 1}}};
	struct backup_list list;
	struct backup_plan plan;
	struct backup_cleaned done;
	struct err err = ERR_INIT;

	use_zone(0);
	fill_folders(root);
	put(root, "manual/.asof-backup-1-2.tmp", "young, so it may be somebody's");
	synth_must(backup_list_read(root, &list, &err), &err, "list");
	synth_must(backup_plan_make(&list, &ret, clock_now_us(), NULL, NULL, &plan, &err), &err,
	           "plan");
	/* x: the newest manual one stays, the raw safety copy is too old. */
	synth_must(backup_plan_apply(root, &list, &plan, NULL, NULL, &done, &err), &err, "apply");
	assert_int_equal(done.n_files, 2);
	assert_int_equal(done.freed_bytes, 3 + 4);
	static const char *const gone[] = {
	        "manual/x_20240115_143000.db.gz",
	        "manual/manifest_20240115_143000.json",
	        "manual/manifest_20240118_143000.json",
	        "safety/x_pre_restore_20240120_143000.db.gz",
	        "safety/x_pre_restore_20240120_143000.db-wal.gz",
	        "safety/x_pre_restore_20240120_143000.db-journal.gz",
	        "safety/manifest_20240120_143000.json",
	        "safety/v_20240121_143000.db-wal.gz",
	};
	static const char *const stay[] = {
	        "manual/x_guard_20240116_143000.db.gz",
	        "manual/manifest_20240116_143000.json",
	        "manual/y_20240117_143000.db.gz",
	        "manual/manifest_20240117_143000.json",
	        "automated/w_20240119_143000.db.gz",
	        "automated/manifest_20240119_143000.json",
	        "manual/notes.txt",
	        "manual/manifest_20240122_143000.json",
	        "manual/manifest_old.json",
	        "manual/x.db-wal",
	        "manual/kept_by_hand.db",
	        "manual/kept_by_hand.db.gz",
	        "manual/folder.db/file",
	        "other/x_20240115_143000.db.gz",
	        "manual/.asof-backup-1-2.tmp",
	};
	for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
		if (is_there(root, gone[i]))
			fail_msg("%s is still there", gone[i]);
	for (size_t i = 0; i < sizeof(stay) / sizeof(stay[0]); i++)
		if (!is_there(root, stay[i]))
			fail_msg("%s is gone", stay[i]);
	backup_plan_release(&plan);
	backup_list_release(&list);
	test_remove(root);
	free(root);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_names_known),
	        cmocka_unit_test(test_names_round_trip),
	        cmocka_unit_test(test_manifest_of_script),
	        cmocka_unit_test(test_manifest_of_python),
	        cmocka_unit_test(test_manifest_round_trip),
	        cmocka_unit_test(test_manifest_hostile),
	        cmocka_unit_test(test_manifest_every_byte),
	        cmocka_unit_test(test_retention_oracle),
	        cmocka_unit_test(test_retention_asks_little),
	        cmocka_unit_test(test_stats_oracle),
	        cmocka_unit_test(test_list),
	        cmocka_unit_test(test_cleanup),
	};

	if (backup_is_reader(argc, argv))
		return backup_reader_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration is read as; what is wrong with one, all at once and by line. */
#include "engine/base/clock.h"
#include "tests/lib/loaded.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- what is read ---- */

static void test_defaults(void **state)
{
	cleanup_loaded struct loaded x = load_well("archive: /b\ndbs: [/data/x.db]\n");
	const struct config *c = x.c;
	const struct config_database *d = c->databases;

	assert_int_equal(x.report.n, 0);
	assert_int_equal(c->n_databases, 1);
	assert_string_equal(d->path, "/data/x.db");
	assert_string_equal(d->name, "x.db");
	assert_string_equal(d->archive, "/b");
	assert_false(d->archive_is_state);
	assert_int_equal(d->n_destinations, 0);
	assert_int_equal(d->retention.n_tiers, 3);
	assert_int_equal(d->retention.tiers[0].age_us, 3 * DAY_US);
	assert_int_equal(d->retention.tiers[0].every_us, 0);
	assert_int_equal(d->retention.tiers[1].age_us, 30 * DAY_US);
	assert_int_equal(d->retention.tiers[1].every_us, HOUR_US);
	assert_int_equal(d->retention.tiers[2].age_us, 365 * DAY_US);
	assert_int_equal(d->retention.tiers[2].every_us, DAY_US);
	assert_int_equal(d->retention.min_free_percent, 5);
	assert_int_equal(d->retention.min_free_bytes, UINT64_C(2) << 30);
	assert_int_equal(d->retention.max_bytes, 0);
	assert_string_equal(d->verify.text, "every 1h");
	assert_string_equal(d->verify_full.text, "02:00");
	assert_int_equal(c->log_level, LOG_INFO);
	assert_null(c->zone);
	assert_string_equal(c->http.listen, "127.0.0.1:8080");
	assert_true(c->http.listen_is_default);
	assert_null(c->mount.dir);
	assert_int_equal(c->n_schedules, 0);
	assert_true(c->backup_options.compress && c->backup_options.validate);
	assert_int_equal(c->backup_options.level, 6);
	assert_int_equal(c->backup_retention[CONFIG_BACKUP_MANUAL].max_age_us, 7 * DAY_US);
	assert_int_equal(c->backup_retention[CONFIG_BACKUP_AUTOMATED].max_age_us, 7 * DAY_US);
	assert_int_equal(c->backup_retention[CONFIG_BACKUP_COMPRESSED].max_age_us, 30 * DAY_US);
	assert_int_equal(c->backup_retention[CONFIG_BACKUP_SAFETY].max_age_us, 0);
}

static const char everything[] =
        "archive: /b\n"
        "timezone: Europe/Berlin\n"
        "data_dir: data\n"
        "backup-dir: /b2\n"
        "exec: python3 app.py --port 5000\n"
        "socket: /run/asof.sock\n"
        "log: {level: debug, format: logfmt, file: log/asof.log}\n"
        "http: {listen: 127.0.0.1:8080, token: t}\n"
        "mount: {dir: /mnt, options: allow_other, archive: /b}\n"
        "limits: {memory: 256M, threads: 4}\n"
        "retention: {all: 1d, hourly: 1w, daily: 30d, monthly: forever, max-bytes: 50G, "
        "min-free: 10%}\n"
        "verify: {local: 30m, remote: 12h, full: \"03:30\"}\n"
        "databases:\n"
        "  - path: /data/x.db\n"
        "    name: trades.db\n"
        "    strict: yes\n"
        "    enable-wal: true\n"
        "    wal_cap: 2G\n"
        "    destinations:\n"
        "      - path: /nas/local/whatever\n"
        "        retention: 90d\n"
        "        sync-interval: 100ms\n"
        "        verify: off\n"
        "      - {type: file, path: /usb, name: usb}\n"
        "  - dir: /data/many\n"
        "    pattern: \"*.sqlite\"\n"
        "    recursive: true\n"
        "    watch: false\n"
        "    retention: {tiers: [{every: 0, for: 6h}, {every: 15m, for: 7d}]}\n"
        "backups:\n"
        "  level: 9\n"
        "  schedules:\n"
        "    - 0 2 * * *\n"
        "    - name: hourly\n"
        "      every: 1h\n"
        "      jitter: 5m\n"
        "      type: compressed\n"
        "      level: 1\n"
        "      validate: false\n"
        "      databases: [trades.db]\n"
        "  retention:\n"
        "    manual: 30d\n"
        "    automated: {days: 14, daily: 7, weekly: 4, monthly: 12, yearly: 3, count: 5}\n"
        "    safety: forever\n"
        "  cleanup: \"04:15\"\n"
        "alerts:\n"
        "  email: {server: s, port: 25, username: u, password: p, from: f@x, to: [a@x, b@x]}\n"
        "  slack: {webhook: https://h}\n"
        "  heartbeat: {url: https://hb, interval: 2m}\n";

static void check_databases(const struct config *c)
{
	const struct config_database *d = c->databases, *e = d + 1;

	assert_int_equal(c->n_databases, 2);
	assert_string_equal(d->name, "trades.db");
	assert_true(d->strict && d->enable_wal);
	assert_int_equal(d->wal_cap_bytes, UINT64_C(2) << 30);
	assert_int_equal(d->line, 14);
	assert_int_equal(d->n_destinations, 2);
	assert_string_equal(d->destinations[0].url, "/nas");
	assert_string_equal(d->destinations[0].name, "file");
	assert_int_equal(d->destinations[0].sync_interval_us, 100000);
	assert_int_equal(d->destinations[0].retention.n_tiers, 1);
	assert_int_equal(d->destinations[0].retention.tiers[0].age_us, 90 * DAY_US);
	assert_int_equal(d->destinations[0].retention.min_free_percent, 10);
	assert_int_equal(d->destinations[0].verify.kind, SCHEDULE_OFF);
	assert_string_equal(d->destinations[1].url, "/usb");
	assert_string_equal(d->destinations[1].name, "usb");
	assert_int_equal(d->destinations[1].sync_interval_us, US_PER_SECOND);
	assert_string_equal(d->destinations[1].verify.text, "every 12h");
	assert_int_equal(d->destinations[1].retention.n_tiers, 4);
	assert_int_equal(d->retention.tiers[3].age_us, INT64_MAX);
	assert_int_equal(d->retention.max_bytes, UINT64_C(50) << 30);
	assert_int_equal(d->retention.min_free_percent, 10);
	assert_int_equal(d->retention.min_free_bytes, 0);
	assert_string_equal(d->verify.text, "every 30m");
	assert_string_equal(d->verify_full.text, "03:30");
	assert_string_equal(e->dir, "/data/many");
	assert_string_equal(e->pattern, "*.sqlite");
	assert_true(e->recursive);
	assert_false(e->watch);
	assert_null(e->path);
	assert_null(e->name);
	assert_int_equal(e->retention.n_tiers, 2);
	assert_int_equal(e->retention.tiers[1].every_us, 15 * 60 * US_PER_SECOND);
	assert_int_equal(e->retention.max_bytes, UINT64_C(50) << 30);
}

static void check_backups(const struct config *c)
{
	const struct config_backup_schedule *s = c->schedules;
	const struct config_backup_retention *r = c->backup_retention;

	assert_int_equal(c->n_schedules, 2);
	assert_string_equal(s[0].name, "automated");
	assert_string_equal(s[0].when.text, "0 2 * * *");
	assert_int_equal(s[0].type, CONFIG_BACKUP_AUTOMATED);
	assert_int_equal(s[0].options.level, 9);
	assert_true(s[0].options.validate);
	assert_int_equal(s[0].n_databases, 0);
	assert_string_equal(s[1].name, "hourly");
	assert_int_equal(s[1].when.every_us, HOUR_US);
	assert_int_equal(s[1].jitter_us, 300 * US_PER_SECOND);
	assert_int_equal(s[1].type, CONFIG_BACKUP_COMPRESSED);
	assert_int_equal(s[1].options.level, 1);
	assert_false(s[1].options.validate);
	assert_int_equal(s[1].n_databases, 1);
	assert_string_equal(s[1].databases[0], "trades.db");
	assert_int_equal(r[CONFIG_BACKUP_MANUAL].max_age_us, 30 * DAY_US);
	assert_int_equal(r[CONFIG_BACKUP_AUTOMATED].max_age_us, 14 * DAY_US);
	assert_int_equal(r[CONFIG_BACKUP_AUTOMATED].daily, 7);
	assert_int_equal(r[CONFIG_BACKUP_AUTOMATED].weekly, 4);
	assert_int_equal(r[CONFIG_BACKUP_AUTOMATED].monthly, 12);
	assert_int_equal(r[CONFIG_BACKUP_AUTOMATED].yearly, 3);
	assert_int_equal(r[CONFIG_BACKUP_AUTOMATED].count, 5);
	assert_int_equal(r[CONFIG_BACKUP_SAFETY].max_age_us, 0);
	assert_string_equal(c->cleanup.text, "04:15");
}

static void test_everything(void **state)
{
	cleanup_loaded struct loaded x = load_well(everything);
	const struct config *c = x.c;

	assert_string_equal(zone_name(c->zone), "Europe/Berlin");
	assert_string_equal(c->data_dir, in_folder("data"));
	assert_string_equal(c->backup_dir, "/b2");
	assert_string_equal(c->exec, "python3 app.py --port 5000");
	assert_string_equal(c->socket, "/run/asof.sock");
	assert_int_equal(c->log_level, LOG_DEBUG);
	assert_string_equal(c->log_path, in_folder("log/asof.log"));
	assert_string_equal(c->http.listen, "127.0.0.1:8080");
	assert_string_equal(c->http.token.text, "t");
	assert_string_equal(c->mount.dir, "/mnt");
	assert_string_equal(c->mount.options, "allow_other,tz=Europe/Berlin");
	assert_int_equal(c->limits.memory_bytes, 256 << 20);
	assert_int_equal(c->limits.threads, 4);
	check_databases(c);
	check_backups(c);
	assert_string_equal(c->alerts.smtp_server, "s");
	assert_int_equal(c->alerts.smtp_port, 25);
	assert_int_equal(c->alerts.n_mail_to, 2);
	assert_string_equal(c->alerts.mail_to[1], "b@x");
	assert_string_equal(c->alerts.slack_webhook.text, "https://h");
	assert_int_equal(c->alerts.heartbeat_interval_us, 120 * US_PER_SECOND);
}

/* Where a replica's path leads, as config.h says. */
static void test_archive_rule(void **state)
{
	static const char *const cases[][2] = {
	        {"/data/backups/local/futures_trades", "/data/backups"},
	        {"/data/backups/local/futures_trades/", "/data/backups"},
	        {"/data//backups/./local/x", "/data/backups"},
	        {"file:///data/backups/local/x", "/data/backups"},
	        {"/data/backups/local", "/data/backups/local"},
	        {"/data/backups/mylocal/x", "/data/backups/mylocal/x"},
	        {"/data/backups/local/x/y", "/data/backups/local/x/y"},
	        {"/local/x", "/"},
	        {"/backup", "/backup"},
	        {"~/b", "/home/u/b"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char yaml[512];
		snprintf(yaml, sizeof(yaml),
		         "dbs:\n - path: /d/x.db\n   replicas: [{%s: \"%s\"}]\n",
		         strstr(cases[i][0], "://") ? "url" : "path", cases[i][0]);
		cleanup_loaded struct loaded x = load_well(yaml);
		assert_string_equal(x.c->databases[0].archive, cases[i][1]);
		assert_int_equal(x.c->databases[0].n_destinations, 0);
		assert_string_equal(x.c->databases[0].name, "x.db");
	}
	cleanup_loaded struct loaded x =
	        load_well("dbs: [{path: x.db, replica: {path: backups/local/x}}]");
	assert_string_equal(x.c->databases[0].archive, in_folder("backups"));
	assert_string_equal(x.c->databases[0].path, in_folder("x.db"));
}

/* The first replica of type file is the archive, the others are destinations. */
static void test_several_replicas(void **state)
{
	cleanup_loaded struct loaded x = load_well(
	        "dbs:\n"
	        " - path: /d/x.db\n"
	        "   replicas:\n"
	        "    - {url: \"s3://bucket/a/b?region=eu-west-1&endpoint=http%3A%2F%2Fh%3A9000\"}\n"
	        "    - {type: file, path: /one, retention: 24h}\n"
	        "    - {type: file, path: /two}\n"
	        "    - {type: file, path: /three}\n");
	const struct config_database *d = x.c->databases;

	assert_string_equal(d->archive, "/one");
	assert_int_equal(d->retention.tiers[0].age_us, DAY_US);
	assert_int_equal(d->n_destinations, 3);
	assert_int_equal(d->destinations[0].type, CONFIG_DEST_S3);
	assert_string_equal(d->destinations[0].s3.bucket, "bucket");
	assert_string_equal(d->destinations[0].s3.prefix, "a/b");
	assert_string_equal(d->destinations[0].s3.region, "eu-west-1");
	assert_string_equal(d->destinations[0].s3.endpoint, "http://h:9000");
	assert_string_equal(d->destinations[0].url,
	                    "s3://bucket/a/b?endpoint=http://h:9000&region=eu-west-1");
	assert_non_null(d->destinations[0].not_configured);
	assert_string_equal(d->destinations[1].name, "file");
	assert_string_equal(d->destinations[1].url, "/two");
	assert_string_equal(d->destinations[2].name, "file-2");
}

/* What gives reason to look for credentials makes a bucket configured; keys that are named count
 * before the environment's. */
static void test_credentials_of_buckets(void **state)
{
	static const struct {
		const char *keys, *variable;
		bool configured;
	} cases[] = {
	        {"", "X=", false},
	        {"", "AWS_PROFILE=p", false}, /* there is no file that has it */
	        {"", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/x", true},
	        {"", "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://localhost/x", true},
	        {"", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", true},
	        {"", "AWS_CONFIG_FILE=/dev/null", true},
	        {"", "AWS_CONFIG_FILE=/no/such/file", false},
	        {"", "AWS_ROLE_ARN=r", false},
	        {"", "AWS_ACCESS_KEY_ID=a", false}, /* its secret is missing */
	        {"access-key-id: a, ", "X=", false},
	        {"access-key-id: a, ", "AWS_SECRET_ACCESS_KEY=b", true},
	        {"access-key-id: a, secret-access-key: b, ", "X=", true},
	        {"profile: p, ", "X=", true},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *const environment[] = {"HOME=/home/u", "AWS_EC2_METADATA_DISABLED=true",
		                                   cases[i].variable, NULL};
		char yaml[300];
		snprintf(yaml, sizeof(yaml),
		         "dbs: [{path: /d/x.db, replicas: [{%surl: s3://b/p}]}]", cases[i].keys);
		cleanup_loaded struct loaded x = load_with(yaml, strlen(yaml), NULL, environment);
		assert_int_equal(x.rc, 0);
		if (!x.c->databases[0].destinations[0].not_configured != cases[i].configured)
			fail_msg("case %zu", i);
	}
}

/* A token goes with its keys; a profile that is named, with no others. */
static void test_whose_keys(void **state)
{
	static const char *const environment[] = {
	        "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID=env",
	        "AWS_SECRET_ACCESS_KEY=env", "AWS_SESSION_TOKEN=env", NULL};
	static const char yaml[] =
	        "dbs: [{path: /d/x.db, replicas: [{url: s3://b/1},"
	        "{url: s3://b/2, access-key-id: own, secret-access-key: own},"
	        "{url: \"s3://b/3?profile=p&sse=AES256&ca=%2Fca.pem&path-style=yes\"},"
	        "{bucket: b, path: 4, profile: p, ca-file: ca.pem, proxy: \"http://h:1\","
	        " sse: \"aws:kms\", sse-kms-key-id: k, storage-class: GLACIER_IR},"
	        "{bucket: b, path: 5, sse-customer-algorithm: AES256, sse-customer-key: "
	        "\"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"}]}]";
	cleanup_loaded struct loaded x = load_with(yaml, strlen(yaml), NULL, environment);
	const struct config_destination *d = x.c->databases[0].destinations;
	char url[PATH_MAX + 200];

	assert_int_equal(x.rc, 0);
	assert_string_equal(d[0].s3.access_key_id, "env");
	assert_string_equal(d[0].s3.session_token.text, "env");
	assert_string_equal(d[1].s3.access_key_id, "own");
	assert_null(d[1].s3.session_token.text);
	assert_null(d[2].s3.access_key_id);
	assert_string_equal(d[2].s3.sse, "AES256");
	assert_string_equal(d[2].url, "s3://b/3?profile=p&ca=/ca.pem&path-style=yes");
	assert_null(d[3].s3.secret_access_key.text);
	assert_string_equal(d[3].s3.sse_kms_key_id, "k");
	snprintf(url, sizeof(url), "s3://b/4?profile=p&ca=%s/ca.pem&proxy=http://h:1", folder);
	assert_string_equal(d[3].url, url);
	assert_string_equal(d[4].url, "s3://b/5");
	assert_int_equal(strlen(d[4].s3.sse_customer_key.text), 44);
}

/* Encryption by the store that cannot be as it is written. */
static void test_refused_encryption(void **state)
{
	static const char *const cases[][2] = {
	        {"sse: AES", "sse: 'AES' is none of"},
	        {"sse: AES256, sse-kms-key-id: k", "sse-kms-key-id"},
	        {"sse-customer-key: short", "not 32 bytes"},
	        {"sse-customer-algorithm: AES256", "without sse-customer-key"},
	        {"sse-customer-algorithm: DES, sse-customer-key-path: k", "there is AES256"},
	        {"sse: AES256, sse-customer-key-path: k", "exclude each other"},
	        {"profile: p, access-key-id: a", "exclude each other"},
	        {"sse-anything: x", "unencrypted"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char yaml[300];
		snprintf(yaml, sizeof(yaml), "dbs: [{path: /d/x.db, replicas: [{bucket: b, %s}]}]",
		         cases[i][0]);
		cleanup_loaded struct loaded x =
		        load_with(yaml, strlen(yaml), NULL, no_environment);
		assert_int_not_equal(x.rc, 0);
		bool said = false;
		for (size_t k = 0; k < x.report.n; k++) {
			said = said || strstr(x.report.messages[k].text, cases[i][1]);
			assert_null(strstr(x.report.messages[k].text, "short"));
		}
		if (!said)
			fail_msg("case %zu", i);
	}
}

/* Buckets alone: an archive is kept in the host's state, with a cap. */
static void test_state_archive(void **state)
{
	static const char yaml[] = "dbs: [{path: /d/x.db, replicas: [{url: s3://b/p}]}]";
	static const char *const environment[] = {"STATE_DIRECTORY=/state/one:/state/two", NULL};
	cleanup_loaded struct loaded x = load_with(yaml, strlen(yaml), NULL, environment);

	assert_int_equal(x.rc, 0);
	assert_string_equal(x.c->databases[0].archive, "/state/one");
	assert_true(x.c->databases[0].archive_is_state);
	assert_int_equal(x.c->databases[0].retention.max_bytes, UINT64_C(10) << 30);
}

/* ---- what is wrong ---- */

static void test_many_errors(void **state)
{
	static const char yaml[] = "archive: /b\n"
	                           "timezone: Mars/Olympus\n"
	                           "retention: 72\n"
	                           "dbs:\n"
	                           "  - path: /d/x.db\n"
	                           "    strict: perhaps\n"
	                           "    wal-cap: lots\n"
	                           "    replicas:\n"
	                           "      - type: gcs\n"
	                           "        bucket: b\n"
	                           "      - type: file\n"
	                           "  - pattern: '*'\n"
	                           "  - path: /e/x.db\n"
	                           "backups:\n"
	                           "  schedules:\n"
	                           "    - 0 25 * * *\n"
	                           "  level: 13\n"
	                           "retenton: 5d\n"
	                           "http: {listen: 0.0.0.0:80}\n";
	static const char *const want[] = {
	        "2 timezone: 'Mars/Olympus'",
	        "3 retention: '72'",
	        "6 strict: 'perhaps'",
	        "7 wal-cap: 'lots'",
	        "9 type gcs",
	        "11 path: missing",
	        "12 path: missing",
	        "13 both called",
	        "16 hour '25'",
	        "17 level: 13",
	        "18 mean retention?",
	        "19 http: 0.0.0.0:80",
	};

	expect_errors(yaml, want, sizeof(want) / sizeof(want[0]));
	cleanup_loaded struct loaded x = load(yaml);
	for (size_t i = 1; i < x.report.n; i++)
		assert_true(x.report.messages[i - 1].line <= x.report.messages[i].line);
	assert_non_null(strstr(x.err.msg, "12 errors"));
}

static void test_single_errors(void **state)
{
	static const char *const cases[][2] = {
	        /* YAML itself */
	        {"a: [", "1 no YAML"},
	        {"a: b: c", "1 no YAML"},
	        {"\tx: 1", "1 no YAML"},
	        {"a: 'x\nb: y", "2 no YAML"},
	        {"archive: /b\narchive: /c\ndbs: []", "2 archive: given twice, first in line 1"},
	        {"archive: /b\n---\narchive: /c", "2 second document"},
	        {"- a\n- b", "1 a mapping is expected"},
	        {"just text", "1 a mapping is expected"},
	        {"dbs: !!binary aGFsbG8=\narchive: !mine /b", "2 tag !mine"},
	        {"[a]: b", "1 key must be a plain word"},
	        {"dbs: *nobody", "1 there is no &nobody"},
	        {"dbs: &a [ *a ]", "1 hold itself"},
	        {"a: \"x\\0y\"", "1 NUL"},
	        {"<<: 5\ndbs: []", "1 <<: a mapping is expected"},
	        {"archive: \"\\xff\x80\"", "1 no YAML"},
	        /* kinds */
	        {"archive: [/b]", "1 archive: one value is expected"},
	        {"dbs: 5", "1 dbs: a list is expected"},
	        {"dbs: {path: /x}", "1 dbs: a list is expected"},
	        {"dbs: [[/x]]", "1 dbs: a mapping is expected"},
	        {"log: loud", "1 log: a mapping is expected"},
	        {"archive: /b\ndbs: [{path: {x: y}}]", "2 path: one value is expected"},
	        /* values */
	        {"log: {level: loud}", "1 level: 'loud'"},
	        {"log: {format: xml}", "1 format: 'xml'"},
	        {"addr: nowhere", "1 addr: 'nowhere'"},
	        {"addr: \":99999\"", "1 addr: 99999"},
	        {"addr: 1:2:3", "1 addr: '1:2:3'"},
	        {"limits: {threads: 0}", "1 threads: 0"},
	        {"limits: {threads: 1.5}", "1 threads: '1.5'"},
	        {"limits: {memory: -1}", "1 memory: '-1'"},
	        {"retention: -5d", "1 retention: '-5d'"},
	        {"retention: {all: 3d, hourly: 2d}", "1 hourly: must reach further back"},
	        {"retention: {all: 3d, tiers: [{for: 4d}]}", "1 not both"},
	        {"retention: {tiers: [{every: 1h, for: 1d}, {every: 1m, for: 2d}]}",
	         "1 tiers: must reach"},
	        {"retention: {min-free: 100%}", "1 min-free: 100"},
	        {"retention: {min-free: x%}", "1 min-free: 'x'"},
	        {"retention: {min-free: '%'}", "1 min-free: ''"},
	        {"verify: sometimes", "1 verify: 'sometimes'"},
	        {"verify: 10ms", "1 verify: '10ms'"},
	        {"backups: {schedule: '61 * * * *'}", "1 minute '61'"},
	        {"backups: {schedules: [{type: automated}]}", "1 says not when"},
	        {"backups: {schedules: [{at: '02:00', type: daily}]}", "1 type: 'daily'"},
	        {"backups: {schedules: [{name: a, at: '1:00'}, {name: a, at: '2:00'}]}",
	         "1 two schedules are called 'a'"},
	        {"archive: /b\ndbs: [/d/x.db]\nbackups: {schedules: [{at: '1:00', databases: "
	         "y.db}]}",
	         "3 no database is called 'y.db'"},
	        {"backups: {retention: {manual: {days: x}}}", "1 days: 'x'"},
	        {"heartbeat-interval: 5s", "1 heartbeat-interval: 5s is not in"},
	        {"mount: {options: x}", "1 mount: dir is missing"},
	        {"mount: /mnt", "1 of which archive?"},
	        {"mount: /m\ndbs:\n- {path: /d/x, archive: /a}\n- {path: /d/y, archive: /b}",
	         "1 several archives, /a and /b"},
	        {"http: {listen: ':80', token: x}", "1 reached from elsewhere"},
	        {"http: {tls-cert: x}", "1 go together"},
	        {"http: {username: x}", "1 go together"},
	        /* databases */
	        {"dbs: [{path: /d/x.db, dir: /d, archive: /b}]", "1 beside dir"},
	        {"archive: /b\ndbs: [{}]", "2 path: missing"},
	        {"archive: /b\ndbs: [{path: ''}]", "2 path: missing"},
	        {"archive: /b\ndbs: [{path: \"${NOWHERE}\"}]", "2 path: missing"},
	        {"archive: /b\ndbs: [{path: /d/}]", "2 is no file"},
	        {"archive: /b\ndbs: [{path: /d/x, name: a/b}]", "2 name: "},
	        {"archive: /b\ndbs: [{path: /d/x, name: .hidden}]", "2 name: "},
	        {"archive: /b\ndbs: [/d/x.db-wal]", "2 name: "},
	        {"archive: /b\ndbs: [{dir: /d, name: x}]", "2 name: of a dir"},
	        {"archive: /b\ndbs: [{dir: /d, pattern: a/b}]", "2 has a /"},
	        {"archive: /b\ndbs:\n- /d/x.db\n- /d/./x.db", "4 are one file"},
	        {"archive: /b\ndbs:\n- /d/x.db\n- {path: /d/x.db, name: y}", "4 are one file"},
	        {"archive: /b\ndbs:\n- /d/x.db\n- {path: /d/y.db, name: x.db}",
	         "4 /d/y.db and /d/x.db (line 3) are both called 'x.db'"},
	        /* destinations */
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {type: sftp, host: h, user: u}",
	         "4 path: missing"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {type: sftp, path: /p}",
	         "4 host: missing"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {url: sftp://h/p, password: x}",
	         "4 password: asof logs in with keys"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {url: sftp://h/p, key-file: a, "
	         "key-command: b}",
	         "4 exclude each other"},
	        {"dbs:\n- path: /d/x.db\n  destinations:\n  - {path: /p, key-file: a}",
	         "4 a folder is not encrypted"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {type: nats, path: /p}", "4 type nats"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - url: abs://a/b", "4 type abs"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {type: file, url: s3://b/p}",
	         "4 but the url says s3"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {path: /b}\n  - {path: /b/local/x}",
	         "5 is the archive of this database already"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - {path: /b}\n  - {name: q, path: /c}\n"
	         "  - {name: q, path: /e}",
	         "6 two destinations are called 'q'"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - path: /b\n    age: {recipients: [age1x]}",
	         "5 unencrypted"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - url: s3://b/p\n    sse-with: k",
	         "5 unencrypted"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - path: /b\n    encrypt-with: k",
	         "5 unencrypted"},
	        {"encryption: {key: x}", "1 unencrypted"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - url: s3://b/p?colour=red",
	         "4 'colour' is no parameter"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - path: /b\n    sync-interval: 10",
	         "5 sync-interval: '10'"},
	        {"dbs:\n- path: /d/x.db\n  replicas:\n  - path: /b\n    sync-interval: 1us",
	         "5 sync-interval: 1us is not in"},
	        /* misspellings of what protects */
	        {"archive: /b\ndbs:\n- path: /d/x.db\n  replcas: [{path: /c}]", "4 mean replicas?"},
	        {"archve: /b", "1 mean archive?"},
	        {"archive: /b\ndatabses: [/x]", "2 mean databases?"},
	        /* variables */
	        {"archive: ${", "1 is no variable"},
	        {"archive: ${A", "1 is no variable"},
	        {"archive: ${A:?no}", "1 is no variable"},
	        {"archive: ${1}", "1 is no variable"},
	        {"archive: ${A:-${B:-${C:-${D:-${E:-${F:-${G:-${H:-${I:-${J:-x}}}}}}}}}}",
	         "1 is no variable"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_error(cases[i][0], cases[i][1]);
}

/* A key that nobody knows is named, and nothing else happens. */
static void test_unknown_keys(void **state)
{
	cleanup_loaded struct loaded x = load_well("archive: /b\n"
	                                           "frobnication: 7\n"
	                                           "dbs:\n"
	                                           "- {path: /d/x.db, quux-level: 3}\n"
	                                           "- {path: /d/y.db, quux-level: 4}\n");

	assert_int_equal(x.report.n, 1);
	assert_non_null(strstr(x.report.messages[0].text,
	                       "frobnication (line 2), quux-level (lines 4, 5): not known"));
}

static void test_anchors(void **state)
{
	cleanup_loaded struct loaded x =
	        load_well("archive: /b\n"
	                  "dbs:\n"
	                  "- &first\n"
	                  "  path: /d/x.db\n"
	                  "  strict: true\n"
	                  "  retention: &keep {all: 5d}\n"
	                  "- <<: *first\n"
	                  "  path: /d/y.db\n"
	                  "- {<<: [*first, {strict: false}], path: /d/z.db, retention: *keep}\n");

	assert_int_equal(x.c->n_databases, 3);
	for (int i = 0; i < 3; i++) {
		assert_true(x.c->databases[i].strict);
		assert_int_equal(x.c->databases[i].retention.tiers[0].age_us, 5 * DAY_US);
	}
	assert_string_equal(x.c->databases[1].name, "y.db");
}

/* ---- what would be too much ---- */

static struct loaded load_long(const char *head, const char *part, size_t times, const char *tail)
{
	size_t part_len = strlen(part), used = 0;
	cleanup_free char *text = malloc(strlen(head) + strlen(tail) + times * part_len + 1);

	assert_non_null(text);
	memcpy(text, head, strlen(head));
	used += strlen(head);
	for (size_t i = 0; i < times; i++, used += part_len)
		memcpy(text + used, part, part_len);
	memcpy(text + used, tail, strlen(tail));
	used += strlen(tail);
	return load_with(text, used, NULL, NULL);
}

static void expect_bounded(struct loaded x, const char *words)
{
	assert_int_equal(x.rc, -ERR_USAGE);
	bool found = strstr(x.err.msg, words) != NULL;
	for (size_t i = 0; i < x.report.n; i++)
		found = found || strstr(x.report.messages[i].text, words);
	if (!found) {
		print_messages(&x.report);
		fail_msg("no '%s' in '%s'", words, x.err.msg);
	}
	release(&x);
}

static void test_bounds(void **state)
{
	static const char bomb[] = "a: &a [x, x, x, x, x, x, x, x, x]\n"
	                           "b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
	                           "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
	                           "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n"
	                           "e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\n"
	                           "dbs: *e\n";
	int64_t started = clock_mono_us();

	expect_bounded(load_long("dbs: ", "[", 100000, ""), "nested more than");
	expect_bounded(load_long("dbs: ", "{a: ", 5000, ""), "nested more than");
	expect_bounded(load_long("archive: /b\ndbs: [", "x,", 200000, "x]"), "more than");
	expect_bounded(load_long("archive: ", "x", 2000000, ""), "larger than 1 MiB");
	expect_bounded(load_long("dbs: [", "&a x,", 300, "x]"), "more than 256 anchors");
	expect_bounded(load(bomb), "a mapping is expected");
	/* A list of one mapping a hundred thousand times over. */
	expect_bounded(load_long("archive: /b\nx: &x {path: /d/x.db, replicas: &r [{path: /c}]}\n"
	                         "dbs: [*x",
	                         ",*x", 9000, "]\n"),
	               "are one file");
	/* Few words with much in them. */
	expect_bounded(load_long("archive: \"", "${HOME}", 20000, "\""), "64 KiB");
	expect_bounded(load_long("archive: /b\nx: &x {a: 1, b: 2, c: 3}\ndbs: [{<<: [*x", ",*x",
	                         60000, "]}]"),
	               "too much is merged");
	{
		char many[8192] = "";
		for (size_t i = 0; i < 300; i++)
			snprintf(many + strlen(many), sizeof(many) - strlen(many), "k%zu: 1\n", i);
		expect_bounded(load(many), "more than 256 keys");
	}
	/* More errors than anybody reads are counted, not kept. */
	struct loaded x = load_long("archive: /b\ndbs:\n", "- {}\n", 5000, "");
	assert_int_equal(x.report.n_errors, 5000);
	assert_int_equal(x.report.n, CONFIG_MAX_MESSAGES);
	release(&x);
	assert_true(clock_mono_us() - started < 60 * US_PER_SECOND);
}

/* ---- without memory, with noise ---- */

/* A file of a configuration, broken at random: whatever comes of it, it comes in order. */
static void test_noise(void **state)
{
	uint64_t s = 88172645463325252;
	size_t len = strlen(everything);
	int rounds = getenv("ASOF_TEST_SHORT") ? 50 : 1000;

	for (int i = 0; i < rounds; i++) {
		cleanup_free char *text = strdup(everything);
		for (int k = 0; k < 1 + i % 5; k++) {
			s ^= s << 13;
			s ^= s >> 7;
			s ^= s << 17;
			text[s % len] = "\0:-[]{}&*!|>'\"%@`#\n\t 7x$"[(s >> 32) % 25];
		}
		cleanup_loaded struct loaded x = load_with(text, len, NULL, NULL);
		assert_true(x.rc == 0 || x.rc == -ERR_USAGE);
		assert_int_equal(x.rc != 0, x.report.n_errors != 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_defaults),
	        cmocka_unit_test(test_everything),
	        cmocka_unit_test(test_archive_rule),
	        cmocka_unit_test(test_several_replicas),
	        cmocka_unit_test(test_credentials_of_buckets),
	        cmocka_unit_test(test_whose_keys),
	        cmocka_unit_test(test_refused_encryption),
	        cmocka_unit_test(test_state_archive),
	        cmocka_unit_test(test_many_errors),
	        cmocka_unit_test(test_single_errors),
	        cmocka_unit_test(test_unknown_keys),
	        cmocka_unit_test(test_anchors),
	        cmocka_unit_test(test_bounds),
	        cmocka_unit_test(test_noise),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

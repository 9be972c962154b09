/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration is read as; what is wrong with one, all at once and by line. */
#include "engine/base/clock.h"
#include "engine/config/config.h"

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

#define HOUR_US (3600 * US_PER_SECOND)
#define DAY_US (24 * HOUR_US)

static char folder[PATH_MAX];

static const char *in_folder(const char *name)
{
	static char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void write_bytes(const char *name, const char *text, size_t len)
{
	FILE *f = fopen(in_folder(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void write_text(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

/* The rest of the environment does not count. */
static const char *const no_environment[] = {"HOME=/home/u", "AWS_EC2_METADATA_DISABLED=true",
                                             NULL};

struct loaded {
	struct config *c;
	struct config_report report;
	struct err err;
	int rc;
};

static void release(struct loaded *x)
{
	config_free(x->c);
	config_report_release(&x->report);
}
#define cleanup_loaded __attribute__((cleanup(release)))

static struct loaded load_with(const char *yaml, size_t len, const char *env,
                               const char *const *environment)
{
	struct loaded x = {.err = ERR_INIT};
	char path[PATH_MAX + 64], env_path[PATH_MAX + 64];

	write_bytes("asof.yml", yaml, len);
	snprintf(path, sizeof(path), "%s", in_folder("asof.yml"));
	if (env)
		write_text("env", env);
	snprintf(env_path, sizeof(env_path), "%s", env ? in_folder("env") : "");
	struct config_options o = {.path = path,
	                           .env_path = env_path,
	                           .environment = environment ? environment : no_environment};
	x.rc = config_load(&o, &x.c, &x.report, &x.err);
	assert_int_equal(x.rc == 0, x.c != NULL);
	assert_int_equal(x.rc != 0, x.err.msg[0] != 0);
	for (size_t i = 0; i < x.report.n; i++) {
		assert_true(x.report.messages[i].text[0]);
		assert_null(strchr(x.report.messages[i].text, '\n'));
	}
	return x;
}

static struct loaded load(const char *yaml)
{
	return load_with(yaml, strlen(yaml), NULL, NULL);
}

static void print_messages(const struct config_report *r)
{
	char line[CONFIG_LINE_MAX];

	for (size_t i = 0; i < r->n; i++) {
		config_message_format(&r->messages[i], line);
		print_message("  %s\n", line);
	}
}

static struct loaded load_well(const char *yaml)
{
	struct loaded x = load(yaml);

	if (x.rc) {
		print_messages(&x.report);
		fail_msg("%s\n%s", x.err.msg, yaml);
	}
	return x;
}

static bool has_message(const struct config_report *r, enum config_severity severity, unsigned line,
                        const char *words)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->messages[i].severity == severity && r->messages[i].line == line &&
		    strstr(r->messages[i].text, words))
			return true;
	return false;
}

/* All errors are of that file. */
static bool is_of_file(const struct config_report *r, const char *file)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->messages[i].severity == CONFIG_ERROR &&
		    strcmp(r->messages[i].file, file) != 0)
			return false;
	return r->n > 0;
}

/* Exactly these errors: "LINE words" each. */
static void expect_errors(const char *yaml, const char *const *want, size_t n)
{
	cleanup_loaded struct loaded x = load(yaml);

	if (x.rc != -ERR_USAGE || x.report.n_errors != n) {
		print_messages(&x.report);
		fail_msg("%zu errors, not %zu, of\n%s", x.report.n_errors, n, yaml);
	}
	for (size_t i = 0; i < n; i++) {
		char *words;
		unsigned line = (unsigned)strtoul(want[i], &words, 10);
		words += *words == ' ';
		if (!has_message(&x.report, CONFIG_ERROR, line, words)) {
			print_messages(&x.report);
			fail_msg("no error '%s' of\n%s", want[i], yaml);
		}
	}
}

static void expect_error(const char *yaml, const char *want)
{
	expect_errors(yaml, &want, 1);
}

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

/* ---- the files of other programs ---- */

static char *read_data(const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", getenv("ASOF_TEST_DATA"), name);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &st), 0);
	char *text = calloc(1, (size_t)st.st_size + 1);
	assert_int_equal(fread(text, 1, (size_t)st.st_size, f), st.st_size);
	fclose(f);
	return text;
}

static void test_old_system(void **state)
{
	cleanup_free char *yaml = read_data("old-system/config/litestream.yml");
	cleanup_free char *env = read_data("old-system/.env.backup");
	cleanup_loaded struct loaded x = load_with(yaml, strlen(yaml), env, NULL);
	const struct config_database *d;

	print_messages(&x.report);
	assert_int_equal(x.rc, 0);
	/* One warning of each file, and one for the addresses. */
	assert_int_equal(x.report.n, 3);
	assert_true(has_message(&x.report, CONFIG_WARNING, 0, "at :9090 to whoever asks"));
	/* Their port is the default's. */
	assert_null(x.c->http.listen);
	assert_string_equal(x.c->http.health_listen, ":8080");
	assert_true(has_message(&x.report, CONFIG_WARNING, 0, "wal-checkpoint (line 46)"));
	assert_true(has_message(&x.report, CONFIG_WARNING, 0, "GRAFANA_PASSWORD"));
	assert_int_equal(x.c->n_databases, 2);
	d = &x.c->databases[0];
	assert_string_equal(d->name, "futures_trades.db");
	assert_string_equal(d->archive, "/data/backups");
	assert_int_equal(d->retention.n_tiers, 1);
	assert_int_equal(d->retention.tiers[0].age_us, 72 * HOUR_US);
	assert_int_equal(d->retention.min_free_percent, 5);
	assert_int_equal(d->snapshot_interval_us, 60 * US_PER_SECOND);
	assert_string_equal(d->verify.text, "every 1h");
	assert_int_equal(d->n_destinations, 1);
	assert_string_equal(d->destinations[0].s3.bucket, "futurestradinglog-backups");
	assert_string_equal(d->destinations[0].s3.region, "us-east-1");
	assert_non_null(d->destinations[0].not_configured);
	assert_int_equal(d->destinations[0].sync_interval_us, 10 * US_PER_SECOND);
	assert_int_equal(d->destinations[0].retention.tiers[0].age_us, 30 * DAY_US);
	assert_string_equal(d->destinations[0].verify.text, "every 6h");
	d = &x.c->databases[1];
	assert_string_equal(d->name, "ohlc_cache.db");
	assert_string_equal(d->archive, "/data/backups");
	assert_int_equal(d->retention.tiers[0].age_us, DAY_US);
	assert_int_equal(x.c->n_schedules, 1);
	assert_string_equal(x.c->schedules[0].when.text, "0 2 * * *");
	assert_string_equal(x.c->backup_dir, in_folder("backups"));
	assert_int_equal(x.c->alerts.n_mail_to, 2);
	assert_string_equal(x.c->alerts.smtp_password.text, "app_password");
}

/* Every key of Litestream's, of both its generations, in files that start. */
static void test_litestream_keys(void **state)
{
	static const char v3[] =
	        "addr: \":9090\"\n"
	        "exec: myapp\n"
	        "access-key-id: \n"
	        "secret-access-key: \n"
	        "logging: {level: info, type: text, stderr: false}\n"
	        "dbs:\n"
	        "  - path: /d/x.db\n"
	        "    meta-path: /m\n"
	        "    monitor-interval: 1s\n"
	        "    checkpoint-interval: 1m\n"
	        "    min-checkpoint-page-count: 1000\n"
	        "    max-checkpoint-page-count: 10000\n"
	        "    replicas:\n"
	        "      - type: file\n"
	        "        name: main\n"
	        "        path: /b\n"
	        "        retention: 24h\n"
	        "        retention-check-interval: 1h\n"
	        "        snapshot-interval: 5m\n"
	        "        validation-interval: 30m\n"
	        "        sync-interval: 100ms\n"
	        "        age: {identities: [], recipients: []}\n"
	        "      - {type: s3, bucket: b, path: p, region: r, endpoint: \"http://e\", "
	        "force-path-style: true, skip-verify: true}\n";
	static const char v5[] =
	        "addr: \":9090\"\n"
	        "mcp-addr: \":3001\"\n"
	        "socket: {enabled: true, path: /var/run/litestream.sock, permissions: 0600}\n"
	        "levels: [{interval: 30s}, {interval: 5m}]\n"
	        "snapshot: {interval: 24h, retention: 720h}\n"
	        "validation: {interval: 1h}\n"
	        "l0-retention: 5m\n"
	        "l0-retention-check-interval: 15s\n"
	        "verify-compaction: false\n"
	        "retention: {enabled: true}\n"
	        "heartbeat-url: https://h\n"
	        "heartbeat-interval: 5m\n"
	        "shutdown-sync-timeout: 30s\n"
	        "shutdown-sync-interval: 500ms\n"
	        "logging: {level: info, type: pretty, source: true}\n"
	        "sync-interval: 2s\n"
	        "part-size: 5MiB\n"
	        "concurrency: 5\n"
	        "dbs:\n"
	        "  - dir: /d\n"
	        "    pattern: '*.db'\n"
	        "    recursive: true\n"
	        "    watch: true\n"
	        "    meta-dir: /m\n"
	        "    busy-timeout: 1s\n"
	        "    truncate-page-n: 121359\n"
	        "    max-sync-wal-bytes: 64MiB\n"
	        "    restore-if-db-not-exists: true\n"
	        "    snapshot: {interval: 1h}\n"
	        "    replica:\n"
	        "      url: s3://b/p\n"
	        "      max-sync-ltx-files: 256\n"
	        "      auto-recover: true\n"
	        "      sign-payload: true\n"
	        "      require-content-md5: true\n"
	        "      storage-class: GLACIER\n"
	        "      concurrent-writes: true\n"
	        "  - path: sqlite3:///d2/y.db\n"
	        "    replica: {path: /b}\n";
	static const char *const ignored[] = {
	        "mcp-addr",       "levels",          "l0-retention",       "verify-compaction",
	        "shutdown-sync-", "part-size",       "concurrency",        "meta-dir",
	        "busy-timeout",   "truncate-page-n", "max-sync-wal-bytes", "auto-recover",
	        "sign-payload",   "enabled",         "permissions",        "source",
	};
	cleanup_loaded struct loaded x = load_well(v3);

	assert_string_equal(x.c->exec, "myapp");
	assert_string_equal(x.c->http.metrics_listen, ":9090");
	assert_int_equal(x.c->databases[0].snapshot_interval_us, 300 * US_PER_SECOND);
	assert_string_equal(x.c->databases[0].verify.text, "every 30m");
	assert_int_equal(x.report.n, 2);
	assert_true(has_message(&x.report, CONFIG_WARNING, 0, "at :9090 to whoever asks"));
	assert_true(has_message(&x.report, CONFIG_WARNING, 0, "checkpoint-interval (line 10)"));

	cleanup_loaded struct loaded y = load_well(v5);
	assert_int_equal(y.report.n, 2);
	assert_true(has_message(&y.report, CONFIG_WARNING, 0, "to whoever asks"));
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		if (!has_message(&y.report, CONFIG_WARNING, 0, ignored[i]))
			fail_msg("%s is not named in: %s", ignored[i], y.report.messages[1].text);
	assert_string_equal(y.c->socket, "/var/run/litestream.sock");
	assert_int_equal(y.c->databases[0].retention.tiers[0].age_us, 720 * HOUR_US);
	assert_int_equal(y.c->databases[0].snapshot_interval_us, HOUR_US);
	assert_int_equal(y.c->databases[1].snapshot_interval_us, DAY_US);
	assert_true(y.c->databases[0].restore_if_missing);
	assert_int_equal(y.c->databases[0].destinations[0].sync_interval_us, 2 * US_PER_SECOND);
	assert_string_equal(y.c->databases[0].destinations[0].s3.storage_class, "GLACIER");
	assert_string_equal(y.c->databases[1].path, "/d2/y.db");
	assert_string_equal(y.c->databases[1].archive, "/b");
	assert_string_equal(y.c->databases[0].verify.text, "every 1h");
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

/* ---- variables ---- */

static const char *const environment[] = {"HOME=/home/u", "A=from process",
                                          "EMPTY=", "DOLLAR=$A ${A}", NULL};

static void expect_expanded(const char *text, const char *want)
{
	char yaml[512];

	snprintf(yaml, sizeof(yaml), "exec: '%s'\n", text);
	cleanup_loaded struct loaded x =
	        load_with(yaml, strlen(yaml), "A=from file\nB=b\nEMPTY=full\n", environment);
	if (x.rc) {
		print_messages(&x.report);
		fail_msg("%s: %s", text, x.err.msg);
	}
	assert_string_equal(x.c->exec ? x.c->exec : "", want);
}

static void test_expansion(void **state)
{
	static const char *const cases[][2] = {
	        {"$A", "from process"},
	        {"${A}", "from process"},
	        {"x${B}y", "xby"},
	        {"$B$B", "bb"},
	        {"$B-$B/x", "b-b/x"},
	        {"$Bc", ""},
	        {"${NO}", ""},
	        {"${NO:-x y}", "x y"},
	        {"${NO-x}", "x"},
	        {"${NO:-}", ""},
	        {"${B:-x}", "b"},
	        {"${EMPTY:-x}", "full"}, /* empty is unset, so the file has it */
	        {"${EMPTY}", "full"},
	        {"${NO:-${ALSO:-$B}}", "b"},
	        {"${NO:-${ALSO:-}x}", "x"},
	        {"$$", "$"},
	        {"$$B", "$B"},
	        {"5$", "5$"},
	        {"$ x", "$ x"},
	        {"$1", "$1"},
	        {"$DOLLAR", "$A ${A}"}, /* once */
	        {"a$B: {}", "ab: {}"},  /* a value stays a value */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_expanded(cases[i][0], cases[i][1]);

	write_text("asof.yml", "exec: '$A ${B'\n");
	struct config_options o = {
	        .path = in_folder("asof.yml"), .env_path = "", .no_expand = true};
	struct loaded x = {.err = ERR_INIT};
	assert_int_equal(config_load(&o, &x.c, &x.report, &x.err), 0);
	assert_string_equal(x.c->exec, "$A ${B");
	release(&x);
}

/* KEY=VALUE lines, through a variable that takes any text. */
static void test_env_lines(void **state)
{
	static const char *const cases[][2] = {
	        {"V=plain", "plain"},
	        {"V=two words", "two words"},
	        {"V=0 2 * * *", "0 2 * * *"},
	        {"V=x # comment", "x"},
	        {"V=x#y", "x#y"},
	        {"V= # nothing", ""},
	        {"V=#x", ""},
	        {"V=", ""},
	        {"V=x\r\nW=y\r", "x"},
	        {"\xef\xbb\xbfV=bom", "bom"},
	        {"  V =  spaced  ", "spaced"},
	        {"export V=exported", "exported"},
	        {"export\tV=tab", "tab"},
	        {"V=\"a b\" # c", "a b"},
	        {"V=\"a \\\"b\\\" \\\\ \\$c\"", "a \"b\" \\ $c"},
	        {"V='a \"b\" \\n $c'", "a \"b\" \\n $c"},
	        {"V=\"#no comment\"", "#no comment"},
	        {"V=one\nV=two", "two"},
	        {"# V=no\n\n   # more\nV=yes", "yes"},
	        {"V=a=b=c", "a=b=c"},
	        {"V=\"\"", ""},
	        {"V=it's", "it's"},
	};
	static const char *const wrong[][2] = {
	        {"V", "1 no KEY=VALUE"},       {"=x", "1 no KEY=VALUE"},
	        {"1V=x", "1 no KEY=VALUE"},    {"V-W=x", "1 no KEY=VALUE"},
	        {"V=x\nV=\"open", "2 no end"}, {"V='open", "1 no end"},
	        {"V=\"a\" b", "1 goes on"},    {"V W=x", "1 no KEY=VALUE"},
	        {"export", "1 no KEY=VALUE"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cleanup_loaded struct loaded x = load_with("exec: '${V:-}'", 14, cases[i][0], NULL);
		if (x.rc)
			print_messages(&x.report);
		assert_int_equal(x.rc, 0);
		if (strcmp(x.c->exec ? x.c->exec : "", cases[i][1]) != 0)
			fail_msg("%s: '%s'", cases[i][0], x.c->exec);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		char *words;
		cleanup_loaded struct loaded x = load_with("exec: x", 7, wrong[i][0], NULL);
		unsigned line = (unsigned)strtoul(wrong[i][1], &words, 10);
		assert_int_equal(x.rc, -ERR_USAGE);
		assert_int_equal(x.report.n_errors, 1);
		if (!has_message(&x.report, CONFIG_ERROR, line, words + 1)) {
			print_messages(&x.report);
			fail_msg("no '%s' of %s", wrong[i][1], wrong[i][0]);
		}
		assert_true(is_of_file(&x.report, in_folder("env")));
	}
}

static void test_variables(void **state)
{
	static const char env[] = "DATA_DIR=./data\n"
	                          "BACKUP_DIR=./backups\n"
	                          "LOCAL_RETENTION_DAYS=3\n"
	                          "COMPRESSED_RETENTION_DAYS=5\n"
	                          "AUTO_BACKUP_ENABLED=true\n"
	                          "BACKUP_SCHEDULE=30 4 * * 1-5\n"
	                          "BACKUP_VALIDATION_ENABLED=false\n"
	                          "BACKUP_COMPRESSION_LEVEL=9\n"
	                          "BACKUP_ENCRYPTION_ENABLED=true\n"
	                          "BACKUP_GPG_RECIPIENT=me@example.com\n"
	                          "BACKUP_DEBUG=true\n"
	                          "HOST_IP=0.0.0.0\n"
	                          "MINE=1\n"
	                          "USED=2\n";
	static const char yaml[] = "dbs: [/d/x.db]\nexec: $USED\n";
	cleanup_loaded struct loaded x = load_with(yaml, strlen(yaml), env, NULL);
	const struct config *c = x.c;

	assert_int_equal(x.rc, 0);
	assert_string_equal(c->data_dir, in_folder("data"));
	assert_string_equal(c->backup_dir, in_folder("backups"));
	assert_string_equal(c->databases[0].archive, in_folder("backups"));
	assert_int_equal(c->backup_retention[CONFIG_BACKUP_MANUAL].max_age_us, 3 * DAY_US);
	assert_int_equal(c->backup_retention[CONFIG_BACKUP_AUTOMATED].max_age_us, 3 * DAY_US);
	assert_int_equal(c->backup_retention[CONFIG_BACKUP_COMPRESSED].max_age_us, 5 * DAY_US);
	assert_int_equal(c->n_schedules, 1);
	assert_string_equal(c->schedules[0].when.text, "30 4 * * 1-5");
	assert_string_equal(c->schedules[0].options.gpg_recipient, "me@example.com");
	assert_int_equal(c->schedules[0].options.level, 9);
	assert_false(c->schedules[0].options.validate);
	assert_int_equal(c->log_level, LOG_DEBUG);
	assert_int_equal(x.report.n, 1);
	assert_non_null(strstr(x.report.messages[0].text, "HOST_IP, MINE"));
	assert_null(strstr(x.report.messages[0].text, "USED"));
	assert_null(strstr(x.report.messages[0].text, "DATA_DIR"));
}

/* The file has the last word; the process's variables stand before those of the file of them. */
/* Where backups go: to each destination unless it says otherwise; to a bucket of their own. */
static void test_backup_places(void **state)
{
	static const char yaml[] = "dbs: [{path: /d/x.db, archive: /a, destinations: [/b, "
	                           "{path: /c, backups: false}, s3://other/p]}]";
	static const struct {
		const char *text, *bucket, *prefix;
	} buckets[] = {{"mine", "mine", "db"},
	               {"mine/a/b/", "mine", "a/b"},
	               {"s3://mine", "mine", "db"},
	               {"mine/", "mine", "db"}};
	char env[100];

	for (size_t i = 0; i < sizeof(buckets) / sizeof(buckets[0]); i++) {
		snprintf(env, sizeof(env), "BACKUP_S3_BUCKET=%s\n", buckets[i].text);
		cleanup_loaded struct loaded x = load_with(yaml, strlen(yaml), env, NULL);
		assert_int_equal(x.rc, 0);
		assert_int_equal(x.report.n, 0);
		const struct config_destination *d = x.c->databases[0].destinations;
		assert_true(d[0].backups && !d[1].backups && d[2].backups);
		assert_non_null(x.c->backup_bucket.url);
		assert_string_equal(x.c->backup_bucket.s3.bucket, buckets[i].bucket);
		assert_string_equal(x.c->backup_bucket.s3.prefix, buckets[i].prefix);
	}
	cleanup_loaded struct loaded own = load_well(
	        "backups: {retention: {manual: 9d, automated: {count: 3}}}\n"
	        "dbs: [{path: /d/x.db, archive: /a, destinations: [/b, "
	        "{path: /c, backups: {retention: {manual: forever, compressed: {daily: 7}}}}]}]");
	const struct config_destination *o = own.c->databases[0].destinations;
	assert_true(o[0].backups && o[1].backups);
	assert_int_equal(o[0].backup_retention[CONFIG_BACKUP_MANUAL].max_age_us, 9 * DAY_US);
	assert_int_equal(o[0].backup_retention[CONFIG_BACKUP_COMPRESSED].max_age_us, 30 * DAY_US);
	assert_int_equal(o[1].backup_retention[CONFIG_BACKUP_MANUAL].max_age_us, 0);
	assert_int_equal(o[1].backup_retention[CONFIG_BACKUP_AUTOMATED].count, 3);
	assert_int_equal(o[1].backup_retention[CONFIG_BACKUP_COMPRESSED].daily, 7);
	assert_int_equal(o[1].backup_retention[CONFIG_BACKUP_COMPRESSED].max_age_us, 0);
	cleanup_loaded struct loaded none =
	        load_with(yaml, strlen(yaml), "BACKUP_S3_BUCKET=\n", NULL);
	assert_null(none.c->backup_bucket.url);
}

static void test_precedence(void **state)
{
	static const char *const process[] = {"BACKUP_COMPRESSION_LEVEL=3",
	                                      "AUTO_BACKUP_ENABLED=", NULL};
	static const char env[] = "BACKUP_COMPRESSION_LEVEL=9\nAUTO_BACKUP_ENABLED=true\n"
	                          "BACKUP_DIR=/env\nLOCAL_RETENTION_DAYS=3\n";
	static const char silent[] = "dbs: [/d/x.db]\n";
	static const char outspoken[] = "archive: /yaml\ndbs: [/d/x.db]\n"
	                                "backups: {level: 5, schedule: '05:00', retention: 9d}\n";
	cleanup_loaded struct loaded x = load_with(silent, strlen(silent), env, process);
	cleanup_loaded struct loaded y = load_with(outspoken, strlen(outspoken), env, process);

	assert_int_equal(x.c->backup_options.level, 3);
	assert_int_equal(x.c->n_schedules, 1);
	assert_string_equal(x.c->databases[0].archive, "/env");
	assert_int_equal(y.c->backup_options.level, 5);
	assert_int_equal(y.c->n_schedules, 1);
	assert_string_equal(y.c->schedules[0].when.text, "05:00");
	assert_string_equal(y.c->databases[0].archive, "/yaml");
	assert_int_equal(y.c->backup_retention[CONFIG_BACKUP_MANUAL].max_age_us, 9 * DAY_US);
	assert_int_equal(y.c->backup_retention[CONFIG_BACKUP_SAFETY].max_age_us, 0);
}

static void test_wrong_variables(void **state)
{
	static const char yaml[] = "archive: /b\ndbs: [/x]";
	static const char env[] = "LOCAL_RETENTION_DAYS=week\n"
	                          "BACKUP_SCHEDULE=0 2 * *\n"
	                          "BACKUP_ENCRYPTION_ENABLED=true\n"
	                          "BACKUP_GPG_RECIPIENT=\n"
	                          "BACKUP_VALIDATION_ENABLED=maybe\n"
	                          "BACKUP_COMPRESSION_LEVEL=99\n";
	static const char *const want[] = {"LOCAL_RETENTION_DAYS: 'week'",
	                                   "BACKUP_SCHEDULE: ",
	                                   "lie unencrypted",
	                                   NULL,
	                                   "BACKUP_VALIDATION_ENABLED",
	                                   "BACKUP_COMPRESSION_LEVEL: 99"};
	cleanup_loaded struct loaded x = load_with(yaml, strlen(yaml), env, NULL);

	assert_int_equal(x.report.n_errors, 5);
	for (unsigned i = 0; i < 6; i++)
		if (want[i] && !has_message(&x.report, CONFIG_ERROR, i + 1, want[i])) {
			print_messages(&x.report);
			fail_msg("no '%s'", want[i]);
		}
	assert_true(is_of_file(&x.report, in_folder("env")));
}

/* Without any file: DATA_DIR/db, BACKUP_DIR.  With LITESTREAM_CONFIG: that file. */
static void test_no_file(void **state)
{
	static const char *const process[] = {"DATA_DIR=/data", "BACKUP_DIR=/backups", NULL};
	struct config_options o = {.env_path = "", .environment = process};
	struct loaded x = {.err = ERR_INIT}, y = {.err = ERR_INIT};

	assert_int_equal(config_load(&o, &x.c, &x.report, &x.err), 0);
	assert_null(x.c->path);
	assert_int_equal(x.c->n_databases, 1);
	assert_string_equal(x.c->databases[0].dir, "/data/db");
	assert_string_equal(x.c->databases[0].archive, "/backups");
	release(&x);

	write_text("env", "LITESTREAM_ENABLED=true\nLITESTREAM_CONFIG=./conf.yml\n");
	write_text("conf.yml", "archive: b\ndbs: [x.db]\n");
	char env_path[PATH_MAX + 64];
	snprintf(env_path, sizeof(env_path), "%s", in_folder("env"));
	o = (struct config_options){.env_path = env_path, .environment = no_environment};
	assert_int_equal(config_load(&o, &y.c, &y.report, &y.err), 0);
	assert_string_equal(y.c->path, in_folder("conf.yml"));
	assert_string_equal(y.c->databases[0].path, in_folder("x.db"));
	release(&y);

	write_text("env", "LITESTREAM_ENABLED=false\nLITESTREAM_CONFIG=./conf.yml\n");
	struct loaded z = {.err = ERR_INIT};
	assert_int_equal(config_load(&o, &z.c, &z.report, &z.err), 0);
	assert_null(z.c->path);
	release(&z);
}

static void test_files_that_are_not_there(void **state)
{
	struct config_options o = {.path = "/nowhere/asof.yml", .env_path = ""};
	struct loaded x = {.err = ERR_INIT};

	assert_int_equal(config_load(&o, &x.c, &x.report, &x.err), -ERR_USAGE);
	assert_non_null(strstr(x.err.msg, "no such file"));
	release(&x);
	write_text("asof.yml", "archive: /b\n");
	o = (struct config_options){.path = in_folder("asof.yml"), .env_path = "/nowhere/env"};
	x = (struct loaded){.err = ERR_INIT};
	assert_int_equal(config_load(&o, &x.c, &x.report, &x.err), -ERR_USAGE);
	assert_true(is_of_file(&x.report, "/nowhere/env"));
	release(&x);
	o = (struct config_options){.path = folder, .env_path = ""};
	x = (struct loaded){.err = ERR_INIT};
	assert_true(config_load(&o, &x.c, &x.report, &x.err) < 0);
	release(&x);
}

/* ---- folders ---- */

static void make_file(const char *name)
{
	write_text(name, "");
}

static void test_one_file_by_links(void **state)
{
	char yaml[3 * PATH_MAX];

	make_file("real.db");
	(void)unlink(in_folder("link.db"));
	assert_int_equal(symlink("real.db", in_folder("link.db")), 0);
	(void)unlink(in_folder("hard.db"));
	char real[PATH_MAX + 64];
	snprintf(real, sizeof(real), "%s", in_folder("real.db"));
	assert_int_equal(link(real, in_folder("hard.db")), 0);
	snprintf(yaml, sizeof(yaml), "archive: /b\ndbs:\n- real.db\n- link.db\n- hard.db\n");
	cleanup_loaded struct loaded x = load(yaml);
	assert_int_equal(x.rc, -ERR_USAGE);
	assert_true(has_message(&x.report, CONFIG_ERROR, 4, "are one file"));
	assert_true(has_message(&x.report, CONFIG_ERROR, 5, "are one file"));
}

static void test_scan(void **state)
{
	static const char *const files[] = {
	        "dbs/b.db",          "dbs/a.db",
	        "dbs/a.db-wal",      "dbs/a.db-shm",
	        "dbs/.hidden.db",    "dbs/notes.txt",
	        "dbs/c.db-journal",  "dbs/sub/a.db",
	        "dbs/sub/deep/x.db", "dbs/arch/local/z.db",
	        "dbs/listed.db",     "dbs/a.db.asof-restore.tmp",
	};
	static const char *const dirs[] = {"dbs",      "dbs/sub",        "dbs/sub/deep",
	                                   "dbs/arch", "dbs/arch/local", "dbs/dir.db"};
	static const char *const want[] = {"a.db", "b.db", "sub-a.db", "sub-deep-x.db"};
	struct config_found_list found;
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		assert_int_equal(mkdir(in_folder(dirs[i]), 0700), 0);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		make_file(files[i]);
	assert_int_equal(symlink("..", in_folder("dbs/sub/loop")), 0);
	cleanup_loaded struct loaded x = load_well("archive: dbs/arch\n"
	                                           "dbs:\n"
	                                           "- {dir: dbs, recursive: true}\n"
	                                           "- dbs/listed.db\n"
	                                           "- dir: dbs\n"
	                                           "- dir: not-there\n");
	assert_int_equal(config_scan_dir(x.c, &x.c->databases[0], &found, &err), 0);
	assert_int_equal(found.n, 4);
	for (size_t i = 0; i < found.n; i++)
		assert_string_equal(found.items[i].name, want[i]);
	assert_string_equal(found.items[2].path, in_folder("dbs/sub/a.db"));
	config_found_release(&found);
	assert_int_equal(config_scan_dir(x.c, &x.c->databases[2], &found, &err), 0);
	assert_int_equal(found.n, 2);
	config_found_release(&found);
	assert_int_equal(config_scan_dir(x.c, &x.c->databases[3], &found, &err), 0);
	assert_int_equal(found.n, 0);
	config_found_release(&found);
}

static void test_find_database(void **state)
{
	cleanup_loaded struct loaded x = load_well("archive: /b\n"
	                                           "dbs:\n"
	                                           "- /data/db/x.db\n"
	                                           "- {path: /data/db/y.db, name: why.db}\n"
	                                           "- {dir: /many}\n");
	const struct config *c = x.c;

	assert_ptr_equal(config_find_database(c, "/data/db/x.db"), &c->databases[0]);
	assert_ptr_equal(config_find_database(c, "x.db"), &c->databases[0]);
	assert_ptr_equal(config_find_database(c, "./data/db/x.db"), &c->databases[0]);
	assert_ptr_equal(config_find_database(c, "why.db"), &c->databases[1]);
	assert_ptr_equal(config_find_database(c, "/elsewhere/y.db"), &c->databases[1]);
	assert_null(config_find_database(c, "z.db"));
	assert_null(config_find_database(c, ""));
	assert_null(config_find_database(c, "/"));
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

static int make_folder(void **state)
{
	snprintf(folder, sizeof(folder), "%s/asof-config-XXXXXX",
	         getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	char *real = mkdtemp(folder) ? realpath(folder, NULL) : NULL;
	if (!real)
		return -1;
	snprintf(folder, sizeof(folder), "%s", real);
	free(real);
	return 0;
}

static int remove_folder(void **state)
{
	char command[PATH_MAX + 32];

	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
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
	        cmocka_unit_test(test_old_system),
	        cmocka_unit_test(test_litestream_keys),
	        cmocka_unit_test(test_many_errors),
	        cmocka_unit_test(test_single_errors),
	        cmocka_unit_test(test_unknown_keys),
	        cmocka_unit_test(test_anchors),
	        cmocka_unit_test(test_bounds),
	        cmocka_unit_test(test_expansion),
	        cmocka_unit_test(test_env_lines),
	        cmocka_unit_test(test_variables),
	        cmocka_unit_test(test_backup_places),
	        cmocka_unit_test(test_precedence),
	        cmocka_unit_test(test_wrong_variables),
	        cmocka_unit_test(test_no_file),
	        cmocka_unit_test(test_files_that_are_not_there),
	        cmocka_unit_test(test_one_file_by_links),
	        cmocka_unit_test(test_scan),
	        cmocka_unit_test(test_find_database),
	        cmocka_unit_test(test_noise),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

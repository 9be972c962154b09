/* SPDX-License-Identifier: Apache-2.0 */
/* What else a configuration comes from: other programs' files, variables, folders. */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_old_system),
	        cmocka_unit_test(test_litestream_keys),
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
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

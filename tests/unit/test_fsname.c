/* SPDX-License-Identifier: Apache-2.0 */
/* Names below the mount point, and the words of -o. */
#include "engine/base/clock.h"
#include "fs/name.h"
#include "fs/node.h"
#include "fs/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_sidecars(void **state)
{
	assert_true(fs_name_is_sidecar("x.db-wal"));
	assert_true(fs_name_is_sidecar("x-shm"));
	assert_true(fs_name_is_sidecar("x.db-journal"));
	assert_false(fs_name_is_sidecar("-wal"));
	assert_false(fs_name_is_sidecar("x.db"));
	assert_false(fs_name_is_sidecar("x-wal.db"));
	assert_false(fs_name_is_sidecar(""));
}

static void test_txid(void **state)
{
	static const char *const bad[] = {"",
	                                  "0",
	                                  "01",
	                                  "-1",
	                                  "+1",
	                                  " 1",
	                                  "1 ",
	                                  "1a",
	                                  "a",
	                                  "1.0",
	                                  "18446744073709551616",
	                                  "99999999999999999999999"};
	uint64_t v;

	assert_true(fs_name_parse_txid("1", &v) && v == 1);
	assert_true(fs_name_parse_txid("18446744073709551615", &v) && v == UINT64_MAX);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		v = 7;
		assert_false(fs_name_parse_txid(bad[i], &v));
		assert_int_equal(v, 7);
	}
}

static void test_dates(void **state)
{
	char text[FS_NAME_MAX];
	int64_t us;
	int n;

	assert_true(fs_name_parse_day("2024-01-15", &us));
	assert_int_equal(us, INT64_C(1705276800000000));
	fs_name_format_day(us + FS_DAY_US - 1, text);
	assert_string_equal(text, "2024-01-15");
	assert_false(fs_name_parse_day("2024-02-30", &us));
	assert_false(fs_name_parse_day("20240115", &us));
	assert_false(fs_name_parse_day("2024-01-15Z", &us));
	assert_false(fs_name_parse_day("2024-1-15", &us));
	assert_false(fs_name_parse_day("yesterday", &us));
	assert_false(fs_name_parse_day("2 days ago", &us));
	assert_true(fs_name_parse_two("00", 24, &n) && n == 0);
	assert_true(fs_name_parse_two("23", 24, &n) && n == 23);
	assert_false(fs_name_parse_two("24", 24, &n));
	assert_false(fs_name_parse_two("1", 24, &n));
	assert_false(fs_name_parse_two("", 24, &n));
	assert_false(fs_name_parse_two("010", 24, &n));
	assert_false(fs_name_parse_two("-1", 24, &n));
}

static void test_commits(void **state)
{
	static const char *const bad[] = {"",
	                                  "x",
	                                  "10-30-05.123456Z.txid42",
	                                  "10-30-05.123456Z.txid042.db",
	                                  "10-30-05.123456Z.txid.db",
	                                  "10-30-05.123456Z.txid42.db ",
	                                  "10-30-05Z.txid42.db",
	                                  "10-30-05.123456Z.txid42.dbx",
	                                  "10-30-05.123456Z.tx42.db"};
	char text[FS_NAME_MAX];
	uint64_t txid;

	fs_name_format_commit(INT64_C(1705314605123456), 42, text);
	assert_string_equal(text, "10-30-05.123456Z.txid42.db");
	assert_true(fs_name_parse_commit(text, &txid) && txid == 42);
	fs_name_format_commit(TIME_MIN_US, UINT64_MAX, text);
	assert_true(fs_name_parse_commit(text, &txid) && txid == UINT64_MAX);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(fs_name_parse_commit(bad[i], &txid));
}

static void test_backups(void **state)
{
	char shown[FS_NAME_MAX], day[FS_NAME_MAX], longest[600];
	int64_t us;
	bool gz;

	assert_true(fs_name_backup("a_20240115_143000.db.gz", shown, &gz));
	assert_true(gz);
	assert_string_equal(shown, "a_20240115_143000.db");
	assert_true(fs_name_backup("x.db", shown, &gz));
	assert_false(gz);
	assert_false(fs_name_backup(".x.db", shown, &gz));
	assert_false(fs_name_backup(".db", shown, &gz));
	assert_false(fs_name_backup(".db.gz", shown, &gz));
	assert_false(fs_name_backup("manifest_20240115_143000.json", shown, &gz));
	assert_false(fs_name_backup("x.db.gz.tmp", shown, &gz));
	assert_false(fs_name_backup("x.gz", shown, &gz));
	memset(longest, 'a', sizeof(longest));
	strcpy(longest + sizeof(longest) - 4, ".db");
	assert_false(fs_name_backup(longest, shown, &gz));

	assert_true(fs_name_backup_day("a_20240115_143000.db.gz", &us));
	fs_name_format_day(us, day);
	assert_string_equal(day, "2024-01-15");
	assert_true(fs_name_backup_day("a_20230101_000000_20240115_143000.db", &us));
	fs_name_format_day(us, day);
	assert_string_equal(day, "2024-01-15");
	assert_true(fs_name_backup_day("db_pre_restore_20240115_143000_2.db", &us));
	assert_false(fs_name_backup_day("a_20241315_143000.db", &us));
	assert_false(fs_name_backup_day("a_2024011_143000.db", &us));
	assert_false(fs_name_backup_day("a.db", &us));
	assert_false(fs_name_backup_day("", &us));
}

static void test_even(void **state)
{
	assert_int_equal(fs_even(0, 1, 9), 8);
	assert_int_equal(fs_even(0, 2, 9), 0);
	assert_int_equal(fs_even(1, 2, 9), 8);
	for (size_t n = 1; n < 300; n += 7) {
		for (size_t k = 2; k <= n; k++) {
			assert_int_equal(fs_even(0, k, n), 0);
			assert_int_equal(fs_even(k - 1, k, n), n - 1);
			for (size_t i = 1; i < k; i++)
				assert_true(fs_even(i, k, n) > fs_even(i - 1, k, n));
		}
	}
}

static void test_image_numbers(void **state)
{
	uint32_t id;
	uint64_t txid;
	bool raw;

	uint64_t ino = fs_image_ino(7, 42, true);
	assert_true(fs_image_decode(ino, &id, &txid, &raw));
	assert_int_equal(id, 7);
	assert_int_equal(txid, 42);
	assert_true(raw);
	assert_true(fs_image_ino(7, 42, false) != ino);
	assert_int_equal(fs_image_ino(0, 1, false), 0);
	assert_int_equal(fs_image_ino(1, 1u << 30, false), 0);
	assert_true(fs_image_ino(UINT32_MAX, (1u << 30) - 1, true) == UINT64_MAX);
	assert_true(fs_image_decode(fs_image_ino(UINT32_MAX, 5, false), &id, &txid, &raw));
	assert_true(id == UINT32_MAX && txid == 5 && !raw);
	assert_false(fs_image_decode(FS_ROOT_INO, &id, &txid, &raw));
	assert_false(fs_image_decode(fs_nodes_ino(1, "at", 0), &id, &txid, &raw));
}

static void assert_options_bad(const char *words)
{
	struct fs_options o;
	struct err err = ERR_INIT;

	if (fs_options_parse(words, &o, &err) != -ERR_USAGE)
		fail_msg("'%s' was taken", words);
	assert_true(err.msg[0]);
}

static void test_options(void **state)
{
	struct fs_options o;

	assert_int_equal(fs_options_parse(NULL, &o, NULL), 0);
	assert_false(o.allow_other);
	assert_false(o.list_all);
	assert_int_equal(o.uid, getuid());
	assert_int_equal(o.file_mode, 0400);
	assert_int_equal(o.dir_mode, 0500);
	assert_int_equal(o.zone, TIME_ZONE_UTC);
	assert_int_equal(
	        fs_options_parse("rw,dev,suid,noauto,nofail,_netdev,user,x-systemd.automount,"
	                         "x-systemd.idle-timeout=60,ro,,comment=x y",
	                         &o, NULL),
	        0);
	assert_int_equal(
	        fs_options_parse("allow_other,uid=1000,gid=100,fmode=0444,dmode=755,list=all,"
	                         "cache_size=64M,tz=local,log=/a\\,b",
	                         &o, NULL),
	        0);
	assert_true(o.allow_other && o.list_all);
	assert_int_equal(o.uid, 1000);
	assert_int_equal(o.gid, 100);
	assert_int_equal(o.file_mode, 0444);
	assert_int_equal(o.dir_mode, 0555); /* nobody writes */
	assert_int_equal(o.cache_bytes, 64 << 20);
	assert_int_equal(o.zone, TIME_ZONE_LOCAL);
	assert_string_equal(o.log_path, "/a,b");
	assert_int_equal(fs_options_parse("tz=local,tz=UTC", &o, NULL), 0);
	assert_int_equal(o.zone, TIME_ZONE_UTC);

	static const char *const bad[] = {"alow_other",
	                                  "uid=",
	                                  "uid=root",
	                                  "uid=-1",
	                                  "uid=4294967295",
	                                  "fmode=8",
	                                  "fmode=7777",
	                                  "dmode=x",
	                                  "cache_size=0",
	                                  "cache_size=1T",
	                                  "cache_size=",
	                                  "cache_size=-1",
	                                  "cache_size=9999999999G",
	                                  "list=some",
	                                  "list",
	                                  "tz=Nowhere/City",
	                                  "tz=../../etc/passwd",
	                                  "tz=",
	                                  "log=relative",
	                                  "allow_other=1",
	                                  "a\\"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_options_bad(bad[i]);
	char text[10000];
	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = 0;
	assert_options_bad(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_sidecars),      cmocka_unit_test(test_txid),
	        cmocka_unit_test(test_dates),         cmocka_unit_test(test_commits),
	        cmocka_unit_test(test_backups),       cmocka_unit_test(test_even),
	        cmocka_unit_test(test_image_numbers), cmocka_unit_test(test_options),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

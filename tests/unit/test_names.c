/* SPDX-License-Identifier: Apache-2.0 */
/* Names, and the small text files: what is written reads back, everything else is refused. */
#include "engine/archive/head.h"
#include "engine/archive/names.h"
#include "engine/archive/notes.h"
#include "engine/base/clock.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int64_t any_time(struct rng *r)
{
	return TIME_MIN_US + (int64_t)rng_below(r, (uint64_t)(TIME_MAX_US - TIME_MIN_US) + 1);
}

static struct object_name any_name(struct rng *r)
{
	struct object_name n = {
	        .type = (enum object_type)rng_below(r, OBJECT_LINEAGE + 1),
	        .lineage = 1 + (uint32_t)rng_below(r, 99999999),
	};
	if (n.type == OBJECT_LINEAGE)
		return n;
	n.first_txid = 1 + rng_below(r, rng_chance(r, 50) ? 1000 : TXID_MAX);
	if (n.type == OBJECT_GROWING)
		return n;
	n.last_txid = n.first_txid + rng_below(r, TXID_MAX - n.first_txid + 1);
	n.last_us = any_time(r);
	n.first_us = rng_chance(r, 50)
	                     ? n.last_us
	                     : n.last_us - (int64_t)rng_below(
	                                           r, (uint64_t)(n.last_us - TIME_MIN_US) + 1);
	n.min_pages = (uint32_t)rng_next(r);
	if (n.type == OBJECT_SNAPSHOT) {
		n.min_pages = 0;
		n.first_us = n.last_us;
		if (rng_chance(r, 50) && n.last_txid < TXID_MAX)
			n.first_txid = n.last_txid + 1; /* clean */
	}
	return n;
}

static bool same(const struct object_name *a, const struct object_name *b)
{
	enum object_type type = a->type == OBJECT_COALESCED ? OBJECT_SEALED : a->type;

	return b->type == type && a->lineage == b->lineage && a->first_txid == b->first_txid &&
	       a->last_txid == b->last_txid && a->first_us == b->first_us &&
	       a->last_us == b->last_us && a->min_pages == b->min_pages;
}

static void test_round_trip(void **state)
{
	struct rng r = {test_seed()};
	char text[OBJECT_NAME_MAX];

	for (unsigned i = 0; i < test_rounds(20000); i++) {
		struct object_name n = any_name(&r), back;
		object_name_format(&n, text);
		if (!object_name_parse(text, &back) || !same(&n, &back))
			synth_die("not read back: %s", text);
		/* Nothing near it is taken for it. */
		size_t len = strlen(text), at = (size_t)rng_below(&r, len);
		char kept = text[at];
		text[at] = (char)(32 + rng_below(&r, 95));
		struct object_name other;
		if (object_name_parse(text, &other)) {
			char again[OBJECT_NAME_MAX];
			if (other.type == OBJECT_SEALED && n.type == OBJECT_COALESCED)
				other.type = OBJECT_COALESCED;
			object_name_format(&other, again);
			if (strcmp(text, again) != 0)
				synth_die("taken, though it is not how it would be written: %s",
				          text);
		}
		text[at] = kept;
		strcat(text, "x");
		assert_false(object_name_parse(text, &other));
		text[len] = '\0';
		for (size_t cut = 0; cut < len; cut++) {
			kept = text[cut];
			text[cut] = '\0';
			assert_false(object_name_parse(text, &other));
			text[cut] = kept;
		}
	}
}

/* Names sort as they happened. */
static void test_order(void **state)
{
	struct rng r = {test_seed()};
	char a[OBJECT_NAME_MAX], b[OBJECT_NAME_MAX];

	for (unsigned i = 0; i < test_rounds(20000); i++) {
		struct object_name n = any_name(&r);
		if (n.type != OBJECT_SEALED || n.first_txid == TXID_MAX)
			continue;
		object_name_format(&n, a);
		n.first_txid += 1 + rng_below(&r, n.last_txid - n.first_txid + 1);
		n.last_txid = n.first_txid > n.last_txid ? n.first_txid : n.last_txid;
		if (n.first_txid > TXID_MAX)
			continue;
		object_name_format(&n, b);
		assert_true(strcmp(a, b) < 0);
	}
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
	        "",
	        ".",
	        "..",
	        "head",
	        "lock",
	        "source",
	        "00000001",
	        "00000001.",
	        "00000000.lineage",
	        "1.lineage",
	        "000000001.lineage",
	        "00000001.lineage ",
	        "00000001-.wal.gz",
	        "00000001-0000000000000000.wal.gz",
	        "00000000-0000000000000001.wal.gz",
	        "00000001-0000000000000001.wal",
	        "00000001-0000000000000001.wal.gz.tmp",
	        "00000001-+000000000000001.wal.gz",
	        "0000001-00000000000000001.wal.gz",
	        /* last before first, times the wrong way round, no such day, a size past 32 bits */
	        "00000001-0000000000000002-0000000000000001-20240115T103000.000000Z-"
	        "20240115T103000.000000Z-"
	        "0000000001.wal.gz",
	        "00000001-0000000000000001-0000000000000002-20240115T103001.000000Z-"
	        "20240115T103000.000000Z-"
	        "0000000001.wal.gz",
	        "00000001-0000000000000001-0000000000000002-20240230T103000.000000Z-"
	        "20240301T103000.000000Z-"
	        "0000000001.wal.gz",
	        "00000001-0000000000000001-0000000000000002-20240115T103000.000000Z-"
	        "20240115T103000.000000Z-"
	        "4294967296.wal.gz",
	        "00000001-0000000000000001-0000000000000002-20240115T103000Z-20240115T103000Z-"
	        "0000000001.wal.gz",
	        /* a snapshot whose redo lies behind it, and of nothing */
	        "00000001-0000000000000001-0000000000000002-20240115T103000.000000Z.db.gz",
	        "00000001-0000000000000000-0000000000000000-20240115T103000.000000Z.db.gz",
	        "00000001-0000000000000001-0000000000000001-20240115T103000.000000Z.wal.gz",
	};
	struct object_name n;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (object_name_parse(bad[i], &n))
			synth_die("taken: %s", bad[i]);
	assert_true(object_name_parse(
	        "00000001-0000000000000001-0000000000000000-20240115T103000.000000Z.db.gz", &n));
	assert_int_equal(n.type, OBJECT_SNAPSHOT);
	assert_int_equal(n.first_txid, 1);
	assert_int_equal(n.last_txid, 1);
}

static void test_db_names(void **state)
{
	static const char *const good[] = {"a",
	                                   "futures_trades.db",
	                                   "x y",
	                                   "b\xc3\xa4h.db",
	                                   "\xe2\x82\xac",
	                                   "\xf0\x9f\x98\x80",
	                                   "-wal-x",
	                                   "a-walb",
	                                   "\xf4\x8f\xbf\xbf",
	                                   "a.",
	                                   "wal"};
	static const char *const bad[] = {"",
	                                  ".",
	                                  "..",
	                                  ".x",
	                                  "a/b",
	                                  "/",
	                                  "a-wal",
	                                  "a-shm",
	                                  "a-journal",
	                                  "-wal",
	                                  "a\nb",
	                                  "a\x01",
	                                  "a\x7f",
	                                  "\xff",
	                                  "\xc3",
	                                  "\xc0\x80",
	                                  "\xe0\x80\x80",
	                                  "\xed\xa0\x80",
	                                  "\xf4\x90\x80\x80",
	                                  "\xf8\x88\x80\x80\x80",
	                                  "\x80",
	                                  "a\xe2\x82"};
	struct err err = ERR_INIT;
	char name[203];

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		if (db_name_check(good[i], &err) < 0)
			synth_die("refused: %s: %s", good[i], err.msg);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (db_name_check(bad[i], &err) != -ERR_USAGE)
			synth_die("taken: bad name %zu", i);
	memset(name, 'x', sizeof(name));
	name[200] = '\0';
	assert_int_equal(db_name_check(name, &err), 0);
	name[200] = 'x';
	name[201] = '\0';
	assert_int_equal(db_name_check(name, &err), -ERR_USAGE);
}

/* Each flipped byte, each cut: damage, or (of a first line that is another kind) refusal. */
static void all_flips(int dir, const char *name, int (*get)(int, const char *, struct err *))
{
	struct err err = ERR_INIT;
	size_t len;
	cleanup_free uint8_t *bytes = read_whole(dir, name, &len);

	synth_must(get(dir, name, &err), &err, name);
	for (size_t i = 0; i < len * 8; i++) {
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		write_whole(dir, name, bytes, len);
		if (get(dir, name, &err) != -ERR_DAMAGED)
			synth_die("'%s' with bit %zu flipped was taken", name, i);
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	for (size_t cut = 0; cut < len; cut++) {
		write_whole(dir, name, bytes, cut);
		if (get(dir, name, &err) != -ERR_DAMAGED)
			synth_die("'%s' cut at %zu was taken", name, cut);
	}
	write_whole(dir, name, bytes, len);
	synth_must(get(dir, name, &err), &err, name);
}

static int get_source(int dir, const char *name, struct err *err)
{
	struct source_note n;
	return source_note_get(dir, &n, err);
}

static int get_lineage(int dir, const char *name, struct err *err)
{
	struct lineage_note n;
	return lineage_note_get(dir, name, &n, err);
}

static int get_gap(int dir, const char *name, struct err *err)
{
	struct gap_note n;
	return gap_note_get(dir, name, &n, err);
}

/* A note of a version to come, its sum right. */
static void put_newer(int dir, const char *name, const char *kind)
{
	char text[200];
	int n = snprintf(text, sizeof(text), "asof-%s 2\nnew thing\n", kind);

	n += snprintf(text + n, sizeof(text) - (size_t)n, "sum %016" PRIx64 "\n",
	              hash64(text, (size_t)n, 0));
	write_whole(dir, name, text, (size_t)n);
}

static void test_notes(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct err err = ERR_INIT;
	struct source_note s = {.id = UINT32_MAX,
	                        .path = "/srv/with blanks and \xc3\xa4/sum 1 x.db"},
	                   s2;
	struct lineage_note l = {.lineage = 3,
	                         .parent = 2,
	                         .from_txid = 17,
	                         .first_txid = 18,
	                         .live_us = -5,
	                         .page_size = 65536,
	                         .reason = "a reason: of its own"},
	                    l2;
	struct gap_note g = {5, 9, INT64_C(1705314600000000), INT64_C(1705314600000001), ""}, g2;
	uint64_t txid;

	assert_int_equal(source_note_get(dir, &s2, &err), -ERR_NOT_FOUND);
	synth_must(source_note_put(dir, &s, &err), &err, "put");
	synth_must(source_note_get(dir, &s2, &err), &err, "get");
	assert_int_equal(s2.id, s.id);
	assert_string_equal(s2.path, s.path);
	synth_must(lineage_note_put(dir, &l, &err), &err, "put");
	synth_must(lineage_note_get(dir, "00000003.lineage", &l2, &err), &err, "get");
	assert_int_equal(l2.lineage, 3);
	assert_int_equal(l2.parent, 2);
	assert_int_equal(l2.from_txid, 17);
	assert_int_equal(l2.first_txid, 18);
	assert_int_equal(l2.live_us, -5);
	assert_int_equal(l2.page_size, 65536);
	assert_string_equal(l2.reason, l.reason);
	assert_int_equal(l2.from_us, 0);
	assert_string_equal(l2.lost, "");
	l.from_us = 7;
	snprintf(l.lost, sizeof(l.lost), "segment/00000002-0000000000000003.wal.gz");
	synth_must(lineage_note_put(dir, &l, &err), &err, "put");
	synth_must(lineage_note_get(dir, "00000003.lineage", &l2, &err), &err, "get");
	assert_int_equal(l2.from_us, 7);
	assert_string_equal(l2.lost, l.lost);
	assert_string_equal(l2.reason, l.reason);
	synth_must(gap_note_put(dir, &g, &err), &err, "put");
	synth_must(gap_note_get(dir, "0000000000000009.gap", &g2, &err), &err, "get");
	assert_int_equal(g2.before_txid, 5);
	assert_int_equal(g2.after_txid, 9);
	assert_true(g2.before_us == g.before_us && g2.after_us == g.after_us);
	assert_string_equal(g2.reason, "");
	assert_true(gap_name_parse("0000000000000009.gap", &txid) && txid == 9);
	assert_false(gap_name_parse("000000000000009.gap", &txid));
	assert_false(gap_name_parse("0000000000000009.gapx", &txid));
	assert_false(gap_name_parse("", &txid));

	all_flips(dir, "source", get_source);
	all_flips(dir, "00000003.lineage", get_lineage);
	all_flips(dir, "0000000000000009.gap", get_gap);
	put_newer(dir, "source", "source");
	put_newer(dir, "00000003.lineage", "lineage");
	put_newer(dir, "0000000000000009.gap", "gap");
	assert_int_equal(get_source(dir, "source", &err), -ERR_VERSION);
	assert_int_equal(get_lineage(dir, "00000003.lineage", &err), -ERR_VERSION);
	assert_int_equal(get_gap(dir, "0000000000000009.gap", &err), -ERR_VERSION);
	put_newer(dir, "source", "gap"); /* another kind */
	assert_int_equal(get_source(dir, "source", &err), -ERR_DAMAGED);

	/* A line that would end its line is not written. */
	snprintf(s.path, sizeof(s.path), "/srv/a\nb");
	assert_int_equal(source_note_put(dir, &s, &err), -ERR_USAGE);
	snprintf(l.reason, sizeof(l.reason), "a\nsum b");
	assert_int_equal(lineage_note_put(dir, &l, &err), -ERR_USAGE);
	test_remove(root);
}

static void test_head(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	cleanup_fd int fd = openat(dir, "head", O_RDWR | O_CREAT, 0600);
	struct err err = ERR_INIT;
	struct head h = {7, UINT64_MAX, 1, 2, -3, INT64_MAX, 6}, back;
	size_t len;

	assert_int_equal(head_read(fd, &back, &err), -ERR_NOT_FOUND);
	synth_must(head_write(fd, &h, &err), &err, "head_write");
	synth_must(head_read(fd, &back, &err), &err, "head_read");
	assert_true(back.lineage == h.lineage && back.growing_txid == h.growing_txid &&
	            back.durable_len == h.durable_len && back.last_txid == h.last_txid &&
	            back.last_us == h.last_us && back.known_until_us == h.known_until_us &&
	            back.generation == h.generation);
	cleanup_free uint8_t *b = read_whole(dir, "head", &len);
	assert_int_equal(len, HEAD_SIZE);
	for (size_t i = 0; i < len; i++) {
		b[i] ^= 0x10;
		write_whole(dir, "head", b, len);
		assert_int_equal(head_read(fd, &back, &err), -ERR_DAMAGED);
		b[i] ^= 0x10;
	}
	for (size_t cut = 1; cut < len; cut += 53) {
		write_whole(dir, "head", b, cut);
		assert_int_equal(head_read(fd, &back, &err), -ERR_DAMAGED);
	}
	store_le32(b + 8, 2);
	store_le64(b + 152, hash64(b, 152, UINT64_C(0x61736f6668656164)));
	write_whole(dir, "head", b, len);
	assert_int_equal(head_read(fd, &back, &err), -ERR_VERSION);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_order),
	        cmocka_unit_test(test_refused),    cmocka_unit_test(test_db_names),
	        cmocka_unit_test(test_notes),      cmocka_unit_test(test_head),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

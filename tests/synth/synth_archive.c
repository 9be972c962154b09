/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes an archive of what SQLite itself wrote, and the reference beside it:
 *
 *     synth_archive FOLDER SEED [small]
 *     synth_archive FOLDER newer         an archive of a format to come: objects of version 2
 *
 *   FOLDER/archive/local/x.db/...     the archive, with objects of every kind
 *   FOLDER/ref/TXID.db                for each txid the file that a checkpoint of SQLite's own WAL,
 *                                     copied at that commit, gives
 *   FOLDER/list                       lines "TXID TIME_US how": whole, unsettled, growing (in a
 *                                     segment without a table, not its last), none (no snapshot
 *                                     before it)
 *
 * The history has several page sizes (lineages), a gap, VACUUM, shrinking and growing again.
 */
#include "engine/base/file.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <sys/stat.h>

#define LIVE "live.db"

struct maker {
	struct synth *s;
	struct rng rng;
	sqlite3 *db;
	int dir; /* of the live database */
	int ref_dir;
	uint64_t taken; /* frames of the live WAL */
	bool small;
};

static int sql(sqlite3 *db, const char *text, bool must)
{
	char *msg = NULL;
	int rc = sqlite3_exec(db, text, NULL, NULL, &msg);

	if (rc != SQLITE_OK && must)
		synth_die("%s: %s", text, msg);
	sqlite3_free(msg);
	return rc;
}

static void open_live(struct maker *m, const char *folder)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/live/" LIVE, folder);
	if (sqlite3_open(path, &m->db) != SQLITE_OK)
		synth_die("open %s", path);
}

/* What SQLite makes of the file and the WAL as they are now: the image of the last commit. */
static uint8_t *image_now(struct maker *m, size_t *ret_len)
{
	struct err err = ERR_INIT;
	size_t len, wal_len = 0;
	cleanup_free uint8_t *file = read_whole(m->dir, LIVE, &len);
	cleanup_free uint8_t *wal = faccessat(m->dir, LIVE "-wal", F_OK, 0) == 0
	                                    ? read_whole(m->dir, LIVE "-wal", &wal_len)
	                                    : NULL;
	char path[64];
	sqlite3 *copy;

	write_whole(m->dir, "copy.db", file, len);
	if (wal_len)
		write_whole(m->dir, "copy.db-wal", wal, wal_len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/copy.db", m->dir);
	if (sqlite3_open(path, &copy) != SQLITE_OK)
		synth_die("open the copy");
	sql(copy, "PRAGMA wal_checkpoint(TRUNCATE)", true);
	sqlite3_close(copy);
	(void)err;
	return read_whole(m->dir, "copy.db", ret_len);
}

static void put_reference(struct maker *m, uint64_t txid)
{
	size_t len;
	cleanup_free uint8_t *image = image_now(m, &len);
	char name[64];

	snprintf(name, sizeof(name), "%" PRIu64 ".db", txid);
	write_whole(m->ref_dir, name, image, len);
}

/* The frames of the live WAL since the last time: one commit; false when there are none. */
static bool take_commit(struct maker *m, uint32_t flags)
{
	size_t len = 0, n = 0;
	cleanup_free uint8_t *wal = read_whole(m->dir, LIVE "-wal", &len);
	uint32_t page_size = m->s->page_size, n_pages = 0;
	cleanup_free struct synth_page **frames = calloc(len / page_size + 1, sizeof(*frames));

	for (uint64_t f = m->taken + 1; wal_frame_offset(f + 1, page_size) <= len && !n_pages;
	     f++) {
		const uint8_t *p = wal + wal_frame_offset(f, page_size);
		frames[n++] = synth_page(m->s, load_be32(p), p + WAL_FRAME_HEADER_SIZE);
		n_pages = load_be32(p + 4);
		m->taken = f;
	}
	if (n == 0)
		return false;
	uint64_t txid = synth_commit(m->s, n_pages, frames, n, flags);
	put_reference(m, txid);
	return true;
}

/* One statement, one commit at most: so that the reference is of just that one. */
static void run(struct maker *m, const char *text)
{
	sql(m->db, text, true);
	if (take_commit(m, 0) && take_commit(m, 0))
		synth_die("more than one commit: %s", text);
}

/* What an application may do. */
static void transaction(struct maker *m)
{
	char text[400];
	uint64_t what = rng_below(&m->rng, 100), a = rng_below(&m->rng, 400);

	if (what < 50) {
		snprintf(text, sizeof(text),
		         "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
		         "%d) "
		         "INSERT OR REPLACE INTO t SELECT abs(random()) %% 400, "
		         "hex(randomblob(%d)) FROM n",
		         (int)rng_below(&m->rng, m->small ? 8 : 30) + 1,
		         (int)rng_below(&m->rng, m->small ? 100 : 400) + 1);
		run(m, text);
	} else if (what < 70) {
		snprintf(text, sizeof(text), "UPDATE t SET b = b || 'x' WHERE a BETWEEN %d AND %d",
		         (int)a, (int)a + 20);
		run(m, text);
	} else if (what < 85) {
		snprintf(text, sizeof(text), "DELETE FROM t WHERE a %% 5 = %d", (int)a % 5);
		run(m, text);
	} else if (what < 92) {
		run(m, "DROP TABLE IF EXISTS u");
		run(m, "CREATE TABLE u AS SELECT * FROM t LIMIT 30");
	} else if (what < 95) {
		run(m, "VACUUM");
	} else {
		run(m, "DELETE FROM t");
		run(m, "PRAGMA incremental_vacuum");
	}
	if (rng_chance(&m->rng, 15)) { /* the application checkpoints, and begins its WAL anew */
		sql(m->db, "PRAGMA wal_checkpoint(TRUNCATE)", true);
		m->taken = 0;
	}
}

/* Sets up the database with a page size; its state is that of a snapshot alone. */
static void begin_lineage(struct maker *m, uint32_t page_size, bool vacuum)
{
	char text[300];
	size_t len;

	snprintf(text, sizeof(text),
	         "PRAGMA journal_mode=DELETE; PRAGMA page_size=%u; PRAGMA auto_vacuum=2;%s",
	         page_size, vacuum ? "VACUUM;" : "");
	sql(m->db, text, true);
	sql(m->db,
	    "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b); PRAGMA journal_mode=WAL; "
	    "PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0",
	    true);
	sql(m->db, "SELECT count(*) FROM t", true);
	cleanup_free uint8_t *image = image_now(m, &len);
	m->taken = 0;
	synth_found(m->s, page_size, image, len);
	put_reference(m, m->s->n_states);
}

/* Commits that nobody records, then some that are redo, then the healing one. */
static void gap(struct maker *m)
{
	size_t len;
	uint64_t before = m->s->n_states;

	for (unsigned i = 0; i < 3; i++) {
		char text[200];
		snprintf(text, sizeof(text),
		         "INSERT OR REPLACE INTO t VALUES(%u, hex(randomblob(900)))", 500 + i);
		sql(m->db, text, true);
	}
	sql(m->db, "PRAGMA wal_checkpoint(TRUNCATE)", true);
	m->taken = 0;
	m->s->first_after_gap = true;
	for (unsigned i = 0; i < 2; i++) {
		sql(m->db, "UPDATE t SET b = b || 'y' WHERE a % 7 = 3 OR a = 500", true);
		take_commit(m, COMMIT_UNSETTLED);
	}
	cleanup_free uint8_t *image = image_now(m, &len);
	uint64_t txid = synth_heal(m->s, before, image, len);
	put_reference(m, txid);
}

static void segments(struct maker *m, unsigned n_transactions, bool seal)
{
	for (unsigned i = 0; i < n_transactions; i++)
		transaction(m);
	uint64_t first = m->s->w ? grow_writer_info(m->s->w)->first_txid : 0;
	synth_cut(m->s);
	if (seal && first)
		synth_seal(m->s, first, m->s->n_states, false);
}

static const char *how(const struct synth *s, uint64_t txid)
{
	const struct synth_state *st = synth_state(s, txid);
	const struct object_name *in = NULL;

	if (st->commit.flags & COMMIT_UNSETTLED)
		return "unsettled";
	if (!synth_viewable(s, txid))
		return "none";
	for (size_t i = 0; i < s->n_objects; i++) {
		const struct object_name *n = &s->objects[i].name;
		if ((n->type == OBJECT_SEALED || n->type == OBJECT_GROWING) &&
		    n->first_txid <= txid && n->last_txid >= txid &&
		    !(in && in->type == OBJECT_SEALED))
			in = n;
	}
	if (!st->in_segment || (in && (in->type == OBJECT_SEALED || in->last_txid == txid)))
		return "whole";
	for (size_t i = 0; i < s->n_objects; i++) /* nothing to apply: no matter where it lies */
		if (s->objects[i].name.type == OBJECT_SNAPSHOT &&
		    s->objects[i].name.first_txid == txid + 1)
			return "whole";
	return in || txid < s->n_states ? "growing" : "whole";
}

static void put_list(const struct maker *m, const char *folder)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/list", folder);
	cleanup_file FILE *f = fopen(path, "we");
	for (uint64_t t = 1; f && t <= m->s->n_states; t++)
		fprintf(f, "%" PRIu64 " %" PRId64 " %s\n", t, synth_state(m->s, t)->commit.time_us,
		        how(m->s, t));
}

/* The growing segment's last batch is torn: its record never came. */
static void tear(struct maker *m)
{
	struct err err = ERR_INIT;
	char name[64];
	cleanup_fd int fd = -1;
	static const uint8_t half[] = {0x1f, 0x8b, 8,  4, 0, 0, 0, 0, 0, 0xff, 12,   0,    'a', 'D',
	                               8,    0,    99, 1, 0, 0, 0, 0, 0, 0,    0xed, 0x3b, 0x0b};

	snprintf(name, sizeof(name), "%08u-%016" PRIu64 ".wal.gz", m->s->lineage,
	         grow_writer_info(m->s->w)->first_txid);
	synth_must(file_open(m->s->segment_fd, name, O_WRONLY, 0, &fd, &err), &err, name);
	synth_must(file_pwrite(fd, half, sizeof(half), m->s->head.durable_len, name, &err), &err,
	           name);
}

/* Little enough to be kept for ever. */
static void make_small(struct maker *m)
{
	begin_lineage(m, 512, false);
	segments(m, 8, true);
	synth_snapshot(m->s, m->s->n_states - 1, m->s->n_states - 3);
	uint64_t a = m->s->n_states + 1;
	segments(m, 4, true);
	segments(m, 4, true);
	synth_seal(m->s, a, m->s->n_states, true);
	synth_coalesce(m->s, 3, a + 2);
	gap(m);
	segments(m, 3, true);
	segments(m, 3, false);
	begin_lineage(m, 1024, true);
	segments(m, 5, true);
	for (unsigned i = 0; i < 3; i++)
		transaction(m);
	run(m, "INSERT OR REPLACE INTO t VALUES(1, 'last')");
	synth_publish(m->s);
	tear(m);
}

/* What of a newer object an older reader can tell: its first member. */
static void put_newer(int dir_fd, const struct object_name *n, const char *magic)
{
	struct buf b = BUF_INIT(4096);
	struct err err = ERR_INIT;
	uint8_t p[96] = {0};
	char name[OBJECT_NAME_MAX];

	memcpy(p, magic, 8);
	store_le32(p + 8, 2);
	store_le64(p + 16, 4711);
	memset(p + 24, 0x5a, 64);
	store_le64(p + 88, hash64(p, 88, gz_bind(4711, 0)));
	synth_must(gz_put_blob(GZ_HEADER, p, sizeof(p), &b, &err), &err, "header");
	memset(p, 0xa5, sizeof(p));
	synth_must(gz_put_blob(GZ_RECORD, p, sizeof(p), &b, &err), &err, "something");
	object_name_format(n, name);
	write_whole(dir_fd, name, b.data, b.len);
	buf_release(&b);
}

static void make_newer(struct synth *s)
{
	struct object_name n = {.type = OBJECT_SNAPSHOT,
	                        .lineage = 1,
	                        .first_txid = 2,
	                        .last_txid = 1,
	                        .first_us = INT64_C(1705314600000000),
	                        .last_us = INT64_C(1705314600000000)};

	put_newer(s->snapshot_fd, &n, "asofpack");
	n.type = OBJECT_SEALED;
	n.last_txid = 9;
	n.min_pages = 1;
	put_newer(s->segment_fd, &n, "asofpack");
	n.type = OBJECT_GROWING;
	n.first_txid = 10;
	put_newer(s->segment_fd, &n, "asofgrow");
}

static void make(struct maker *m)
{
	uint64_t a;

	begin_lineage(m, 1024, false);
	segments(m, 20, true);
	segments(m, 20, true);
	synth_snapshot(m->s, m->s->n_states - 5, m->s->n_states - 5);
	a = m->s->n_states + 1;
	segments(m, 10, true);
	segments(m, 10, true);
	synth_seal(m->s, a, m->s->n_states, true); /* joined, the parts still there */
	synth_coalesce(m->s, 10, 30);
	gap(m);
	segments(m, 5, true);
	synth_snapshot(m->s, m->s->n_states, m->s->n_states - 3);
	segments(m, 8, false);
	segments(m, 8, true);
	segments(m, 5, false);
	begin_lineage(m, 4096, true);
	segments(m, 10, false);
	segments(m, 10, true);
	begin_lineage(m, 512, true);
	segments(m, 10, true);
	for (unsigned i = 0; i < 6; i++)
		transaction(m);
	run(m, "INSERT OR REPLACE INTO t VALUES(1, 'last')");
	synth_publish(m->s);
	tear(m);
}

int main(int argc, char **argv)
{
	struct maker m = {0};
	struct err err = ERR_INIT;
	char path[4096];

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: synth_archive FOLDER SEED [small] | FOLDER newer\n");
		return 2;
	}
	bool newer = strcmp(argv[2], "newer") == 0;
	m.small = argc == 4;
	const struct synth_options o = {.seed = strtoull(argv[2], NULL, 10),
	                                .page_size = 1024,
	                                .max_pages = 1,
	                                .max_frames = 1,
	                                .level = 6,
	                                .torn_batches = true};
	m.rng.s = o.seed;
	snprintf(path, sizeof(path), "%s/live", argv[1]);
	synth_must(file_make_dirs(path, &err), &err, path);
	m.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%s/ref", argv[1]);
	synth_must(file_make_dirs(path, &err), &err, path);
	m.ref_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%s/archive", argv[1]);
	m.s = synth_new(path, "x.db", &o);
	if (newer) {
		make_newer(m.s);
	} else {
		open_live(&m, argv[1]);
		if (m.small)
			make_small(&m);
		else
			make(&m);
		put_list(&m, argv[1]);
		printf("%zu transactions\n", m.s->n_states);
		sqlite3_close(m.db);
	}
	synth_free(m.s);
	return 0;
}

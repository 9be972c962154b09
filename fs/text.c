/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/text.h"

#include "engine/base/clock.h"
#include "engine/view/history.h"
#include "fs/dbs.h"

#include <jansson.h>
#include <string.h>

/* Newer gaps than this many from the first are counted, not listed. */
#define MAX_GAPS_LISTED 100

struct fs_text *fs_text_ref(struct fs_text *text)
{
	atomic_fetch_add(&text->n_refs, 1);
	return text;
}

void fs_text_unref(struct fs_text *text)
{
	if (atomic_fetch_sub(&text->n_refs, 1) == 1)
		free(text);
}

static int make(const char *data, size_t len, uint64_t version, struct fs_text **ret,
                struct err *err)
{
	struct fs_text *text = malloc(sizeof(*text) + len);

	if (!text)
		return err_set(err, ERR_NOMEM, 0, "no memory for a text of %zu bytes", len);
	text->n_refs = 1;
	text->version = version;
	text->time_us = clock_now_us();
	text->len = len;
	memcpy(text->data, data, len);
	*ret = text;
	return 0;
}

int fs_text_readme(const char *archive_root, struct fs_text **ret, struct err *err)
{
	static const char format[] =
	        "Every past state of the databases in %s, as plain read-only files.\n"
	        "\n"
	        "latest/NAME                    the newest captured state\n"
	        "at/TIME/NAME                   all databases as of a time: 2024-01-15T10-30-00Z,\n"
	        "                               2024-01-15, @1705314600, -5m, \"2 hours ago\" (UTC "
	        "if\n"
	        "                               no zone is given); at/ lists a choice, any TIME "
	        "opens\n"
	        "tx/NAME/TXID                   the same by transaction number\n"
	        "history/NAME/2024-01-15/10/30  browse by day, hour, minute, down to commits\n"
	        "marks/MARK/NAME                moments named by  asof mark\n"
	        "manual automated safety compressed   backups by day, shown uncompressed\n"
	        ".asof/status.json              what the archive holds;  getfattr -d FILE: which "
	        "commit\n"
	        "\n"
	        "Look:     sqlite3 at/-5m/NAME \"SELECT ...\";   sqldiff at/T1/NAME at/T2/NAME\n"
	        "Restore:  cp at/TIME/NAME new.db   to a place that has no new.db-wal beside it.\n"
	        "    SQLite applies a -wal that lies beside a database silently, even one of "
	        "another\n"
	        "    time: into the place of a live database use  asof restore  instead.\n"
	        "    The copy is in rollback mode (two header bytes differ, so that any client "
	        "can\n"
	        "    open it here): run  PRAGMA journal_mode=WAL  on it if you want WAL.\n"
	        "    Exact bytes: .raw/ (not listed; laid out as this folder).\n"
	        "To copy several databases of one moment name that moment, not latest/ or -5m.\n";
	char text[4096];
	int n = snprintf(text, sizeof(text), format, archive_root);

	if (n < 0 || (size_t)n >= sizeof(text))
		n = snprintf(text, sizeof(text), format, "an archive");
	return make(text, (size_t)n, 0, ret, err);
}

/* ---- status.json ---- */

/* Jansson's own errors are of memory alone here; one check at the end finds them. */
static void set(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

static json_t *json_time(int64_t time_us)
{
	char text[TIME_STR_MAX];

	time_format(time_us, text);
	return json_string(text);
}

static json_t *json_u64(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *json_point(uint64_t txid, int64_t time_us)
{
	if (!txid)
		return json_null();
	json_t *point = json_object();
	set(point, "txid", json_u64(txid));
	set(point, "time", json_time(time_us));
	return point;
}

static json_t *json_gaps(struct history *h, uint64_t n)
{
	json_t *gaps = json_array();
	struct gap gap;

	for (size_t i = 0; i < n && i < MAX_GAPS_LISTED; i++) {
		if (history_gap(h, i, &gap, NULL) < 0)
			break;
		json_t *row = json_object();
		set(row, "before", json_point(gap.before_txid, gap.before_us));
		set(row, "after", json_point(gap.after_txid, gap.after_us));
		json_array_append_new(gaps, row);
	}
	return gaps;
}

static json_t *json_database(struct fs_db *db)
{
	json_t *row = json_object();
	struct history_status s = {0};
	struct err why = ERR_INIT;

	set(row, "name", json_string(db->name));
	if (history_get_status(db->history, &s, &why) < 0) {
		set(row, "error", json_string(why.msg));
		set(row, "error_kind", json_string(err_kind_name(why.kind)));
		return row;
	}
	set(row, "source", json_string(s.source_path));
	set(row, "first", json_point(s.first_txid, s.first_us));
	set(row, "last", json_point(s.last_txid, s.last_us));
	set(row, "known_until", s.last_txid ? json_time(s.known_until_us) : json_null());
	set(row, "writer_alive", json_boolean(s.writer_alive));
	set(row, "lineage", json_integer(s.lineage));
	set(row, "n_gaps", json_u64(s.gaps));
	set(row, "gaps", json_gaps(db->history, s.gaps));
	set(row, "archive_bytes", json_u64(s.archive_bytes));
	set(row, "unsealed_bytes", json_u64(s.unsealed_bytes));
	set(row, "snapshots", json_u64(s.n_snapshots));
	set(row, "segments", json_u64(s.n_segments));
	set(row, "coalesced", json_u64(s.n_coalesced));
	return row;
}

int fs_text_status(struct archive *a, struct fs_dbs *dbs, int64_t mounted_us, uint64_t version,
                   struct fs_text **ret, struct err *err)
{
	struct fs_db **all cleanup_free = NULL;
	size_t n;
	int rc = fs_dbs_all(dbs, &all, &n, err);

	if (rc < 0)
		return rc;
	json_t *root = json_object();
	json_t *rows = json_array();
	set(root, "version", json_string(ASOF_VERSION));
	set(root, "archive", json_string(archive_root(a)));
	set(root, "time", json_time(clock_now_us()));
	set(root, "mounted_since", json_time(mounted_us));
	for (size_t i = 0; i < n; i++)
		json_array_append_new(rows, json_database(all[i]));
	set(root, "databases", rows);
	char *data cleanup_free = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (!data)
		return err_set(err, ERR_NOMEM, 0, "no memory for status.json");
	size_t len = strlen(data);
	data[len] = '\n'; /* in the place of its NUL */
	return make(data, len + 1, version, ret, err);
}

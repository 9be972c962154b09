/* SPDX-License-Identifier: Apache-2.0 */
/* user.asof.*: which commit a file shows, which moment a folder. */
#include "fs/tree_i.h"

#include <string.h>

#define PREFIX "user.asof."

static const char *const names[] = {
        PREFIX "txid",         PREFIX "time",        PREFIX "lineage",      PREFIX "page_size",
        PREFIX "journal_mode", PREFIX "provisional", PREFIX "uncertain_us",
};

const char *fs_tree_xattr_name(size_t i)
{
	return i < sizeof(names) / sizeof(names[0]) ? names[i] : NULL;
}

/* What the header's bytes 18 and 19 say, which the mount shows otherwise. */
static int journal_mode(struct fs_tree *t, const struct fs_place *place,
                        char value[FS_XATTR_VALUE_MAX], struct err *err)
{
	struct fs_view *v;
	unsigned char head[20];
	size_t got;
	int rc = fs_views_get(t->views, place->db, place->txid, &v, err);

	if (rc < 0)
		return rc;
	rc = view_read(fs_view_engine(v), 0, head, sizeof(head), 0, &got, err);
	fs_views_put(t->views, v);
	if (rc < 0)
		return rc;
	if (got < sizeof(head) || memcmp(head, "SQLite format 3", 16) != 0)
		return err_set(err, ERR_NOT_FOUND, 0, "not a plain SQLite header");
	snprintf(value, FS_XATTR_VALUE_MAX, "%s", head[18] == 2 ? "wal" : "rollback");
	return 0;
}

/* A file is provisional when it is the newest state and nobody vouches that it still is. */
static int provisional(const struct fs_place *place, int64_t time_us, bool *ret, struct err *err)
{
	struct moment m;
	struct err why = ERR_INIT;
	int rc = history_at(place->db->history, time_us, clock_now_us(), &m, &why);

	*ret = rc == 0 && m.flags & MOMENT_PROVISIONAL && m.txid == place->txid;
	return rc == 0 || why.kind == ERR_NOT_FOUND || why.kind == ERR_GAP ? 0
	                                                                   : err_copy(err, &why);
}

static int image_value(struct fs_tree *t, const struct fs_place *place, const char *name,
                       char value[FS_XATTR_VALUE_MAX], struct err *err)
{
	struct moment m;
	bool flag;
	int rc = history_tx(place->db->history, place->txid, &m, err);

	if (rc < 0)
		return rc;
	if (strcmp(name, "txid") == 0) {
		snprintf(value, FS_XATTR_VALUE_MAX, "%llu", (unsigned long long)m.txid);
	} else if (strcmp(name, "time") == 0) {
		char text[TIME_STR_MAX];
		time_format(m.time_us, text);
		snprintf(value, FS_XATTR_VALUE_MAX, "%s", text);
	} else if (strcmp(name, "lineage") == 0) {
		snprintf(value, FS_XATTR_VALUE_MAX, "%u", m.lineage);
	} else if (strcmp(name, "page_size") == 0) {
		snprintf(value, FS_XATTR_VALUE_MAX, "%u", m.page_size);
	} else if (strcmp(name, "journal_mode") == 0) {
		return journal_mode(t, place, value, err);
	} else if (strcmp(name, "provisional") == 0) {
		rc = provisional(place, clock_now_us(), &flag, err);
		snprintf(value, FS_XATTR_VALUE_MAX, "%d", rc == 0 && flag);
	} else if (strcmp(name, "uncertain_us") == 0 && m.not_before_us) {
		snprintf(value, FS_XATTR_VALUE_MAX, "%lld",
		         (long long)(m.time_us - m.not_before_us));
	} else {
		return err_set(err, ERR_NOT_FOUND, 0, "no attribute '%s'", name);
	}
	return rc;
}

int fs_tree_xattr(struct fs_tree *t, uint64_t ino, const char *name, char value[FS_XATTR_VALUE_MAX],
                  struct err *err)
{
	struct fs_place place;
	struct fs_node *node;
	int rc = fs_tree_place(t, ino, &place, &node, err);

	if (rc < 0)
		return rc;
	if (strncmp(name, PREFIX, strlen(PREFIX)) == 0) {
		name += strlen(PREFIX);
		if (place.kind == FS_IMAGE)
			return image_value(t, &place, name, value, err);
		if (place.kind == FS_MOMENT && strcmp(name, "time") == 0) {
			char text[TIME_STR_MAX];
			time_format(place.time_us, text);
			snprintf(value, FS_XATTR_VALUE_MAX, "%s", text);
			return 0;
		}
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no attribute '%s'", name);
}

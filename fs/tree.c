/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree_i.h"

#include <string.h>

#define DEFAULT_IDLE_VIEWS 64

const struct fs_fixed fs_root_entries[] = {
        {"README", FS_TEXT, 0, false, false},    {"latest", FS_LATEST, 0, true, false},
        {"at", FS_AT, 0, true, false},           {"tx", FS_TX, 0, true, false},
        {"history", FS_HISTORY, 0, true, false}, {"marks", FS_MARKS, 0, true, false},
        {"manual", FS_BACKUPS, 0, false, false}, {"automated", FS_BACKUPS, 1, false, false},
        {"safety", FS_BACKUPS, 2, false, false}, {"compressed", FS_BACKUPS, 3, false, false},
        {".raw", FS_RAW, 0, false, true},        {".asof", FS_META, 0, false, false},
};
const size_t fs_n_root_entries = sizeof(fs_root_entries) / sizeof(fs_root_entries[0]);

static int no_such(const char *name, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, 0, "no '%s' here", name);
}

int fs_tree_new(struct archive *a, const struct fs_tree_options *options, struct fs_tree **ret,
                struct err *err)
{
	struct fs_tree *t = calloc(1, sizeof(*t));
	struct fs_place root = {.kind = FS_ROOT};
	struct fs_latest *latest cleanup_latest = NULL;
	double left;
	int rc;

	if (!t)
		return err_set(err, ERR_NOMEM, 0, "no memory for the tree");
	t->archive = a;
	if (options)
		t->options = *options;
	if (!t->options.max_idle_views)
		t->options.max_idle_views = DEFAULT_IDLE_VIEWS;
	t->mounted_us = clock_now_us();
	pthread_mutex_init(&t->open_lock, NULL);
	pthread_mutex_init(&t->status_lock, NULL);
	rc = fs_nodes_new(&root, &t->nodes, err);
	if (rc == 0)
		rc = fs_dbs_new(a, &t->dbs, err);
	if (rc == 0)
		rc = fs_views_new(t->options.max_idle_views, &t->views, err);
	if (rc == 0)
		rc = fs_backups_new(archive_root(a), &t->backups, err);
	if (rc == 0)
		rc = fs_text_readme(archive_root(a), &t->readme, err);
	if (rc == 0)
		rc = fs_dbs_latest(t->dbs, &latest, &left, err);
	if (rc < 0) {
		fs_tree_free(t);
		return rc;
	}
	*ret = t;
	return 0;
}

void fs_tree_free(struct fs_tree *t)
{
	if (!t)
		return;
	while (t->open)
		t->open->close(t->open);
	fs_nodes_free(t->nodes);
	fs_views_free(t->views);
	fs_dbs_free(t->dbs);
	fs_backups_free(t->backups);
	if (t->readme)
		fs_text_unref(t->readme);
	if (t->status)
		fs_text_unref(t->status);
	pthread_mutex_destroy(&t->open_lock);
	pthread_mutex_destroy(&t->status_lock);
	free(t);
}

void fs_tree_tidy(struct fs_tree *t, int64_t idle_us)
{
	fs_views_drop_idle(t->views, clock_mono_us() - idle_us);
	fs_dbs_refresh(t->dbs);
}

void fs_tree_track(struct fs_tree *t, struct fs_open *o)
{
	LOCK_SCOPE(&t->open_lock);
	o->prev = NULL;
	o->next = t->open;
	if (o->next)
		o->next->prev = o;
	t->open = o;
}

void fs_tree_untrack(struct fs_tree *t, struct fs_open *o)
{
	LOCK_SCOPE(&t->open_lock);
	*(o->prev ? &o->prev->next : &t->open) = o->next;
	if (o->next)
		o->next->prev = o->prev;
}

size_t fs_tree_count_nodes(struct fs_tree *t)
{
	return fs_nodes_count(t->nodes);
}

size_t fs_tree_count_views(struct fs_tree *t)
{
	return fs_views_count(t->views);
}

/* ---- numbers and places ---- */

int fs_tree_place(struct fs_tree *t, uint64_t ino, struct fs_place *ret, struct fs_node **ret_node,
                  struct err *err)
{
	uint32_t id;

	*ret_node = NULL;
	*ret = (struct fs_place){.kind = FS_IMAGE};
	if (fs_image_decode(ino, &id, &ret->txid, &ret->raw)) {
		ret->db = fs_dbs_by_id(t->dbs, id);
		if (ret->db)
			return 0;
	} else if ((*ret_node = fs_nodes_find(t->nodes, ino))) {
		*ret = (*ret_node)->place;
		return 0;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no inode %llx", (unsigned long long)ino);
}

/* The name, unreachable by look-up, of an image whose number cannot be computed. */
static void image_name(const struct fs_db *db, uint64_t txid, bool raw, char out[FS_NAME_MAX])
{
	snprintf(out, FS_NAME_MAX, "/%d/%llu/%s", raw, (unsigned long long)txid, db->name);
}

uint64_t fs_tree_image_ino(const struct fs_db *db, uint64_t txid, bool raw)
{
	uint64_t ino = fs_image_ino(db->id, txid, raw);
	char name[FS_NAME_MAX];

	if (ino)
		return ino;
	image_name(db, txid, raw, name);
	return fs_nodes_ino(FS_ROOT_INO, name, 0);
}

static void image_attr(const struct moment *m, struct fs_entry *ret)
{
	ret->is_dir = false;
	ret->size = (uint64_t)m->page_size * m->n_pages;
	ret->mtime_us = m->time_us;
	ret->attr_timeout_s = FS_FOREVER_S;
}

static int enter_image(struct fs_tree *t, struct fs_db *db, const struct moment *m, bool raw,
                       double entry_timeout_s, struct fs_entry *ret, struct err *err)
{
	*ret = (struct fs_entry){.entry_timeout_s = entry_timeout_s};
	image_attr(m, ret);
	ret->ino = fs_image_ino(db->id, m->txid, raw);
	if (ret->ino)
		return 0;
	struct fs_place place = {.kind = FS_IMAGE, .db = db, .txid = m->txid, .raw = raw};
	struct fs_node *node;
	char name[FS_NAME_MAX];
	image_name(db, m->txid, raw, name);
	int rc = fs_nodes_enter(t->nodes, fs_nodes_find(t->nodes, FS_ROOT_INO), name, 0, &place,
	                        &node, err);
	if (rc == 0)
		ret->ino = node->ino;
	return rc;
}

/* Attributes of all but images. */
static void node_attr(struct fs_tree *t, const struct fs_node *node, struct fs_entry *ret)
{
	const struct fs_place *place = &node->place;

	ret->ino = node->ino;
	ret->is_dir = place->kind != FS_TEXT && place->kind != FS_BACKUP_FILE;
	ret->attr_timeout_s = FS_FOREVER_S;
	ret->mtime_us = t->mounted_us;
	switch (place->kind) {
	case FS_TEXT:
		ret->size = place->text->len;
		ret->mtime_us = place->text->time_us;
		break;
	case FS_BACKUP_FILE:
		ret->size = place->size;
		ret->mtime_us = place->time_us;
		break;
	case FS_MOMENT:
	case FS_DAY:
	case FS_HOUR:
	case FS_MINUTE:
	case FS_BACKUP_DAY:
		ret->mtime_us = place->time_us;
		break;
	default:
		break;
	}
}

static int enter_node(struct fs_tree *t, struct fs_node *parent, const char *name, uint64_t version,
                      const struct fs_place *place, double entry_timeout_s, struct fs_entry *ret,
                      struct err *err)
{
	struct fs_node *node;
	int rc = fs_nodes_enter(t->nodes, parent, name, version, place, &node, err);

	if (rc < 0)
		return rc;
	*ret = (struct fs_entry){.entry_timeout_s = entry_timeout_s};
	node_attr(t, node, ret);
	return 0;
}

int fs_tree_getattr(struct fs_tree *t, uint64_t ino, struct fs_entry *ret, struct err *err)
{
	struct fs_place place;
	struct fs_node *node;
	int rc = fs_tree_place(t, ino, &place, &node, err);

	if (rc < 0)
		return rc;
	*ret = (struct fs_entry){.ino = ino};
	if (node && place.kind != FS_IMAGE) {
		node_attr(t, node, ret);
		return 0;
	}
	struct moment m;
	struct err why = ERR_INIT;
	if (history_tx(place.db->history, place.txid, &m, &why) < 0 &&
	    !fs_views_moment(t->views, place.db, place.txid, &m))
		return err_copy(err, &why);
	image_attr(&m, ret); /* (what retention has thinned out since is there while it is open) */
	return 0;
}

void fs_tree_forget(struct fs_tree *t, uint64_t ino, uint64_t n_lookups)
{
	fs_nodes_forget(t->nodes, ino, n_lookups);
}

/* ---- status.json ---- */

int fs_tree_status(struct fs_tree *t, struct fs_text **ret, double *ret_seconds_left,
                   struct err *err)
{
	LOCK_SCOPE(&t->status_lock);
	int64_t age_us = clock_mono_us() - t->status_mono_us;

	if (!t->status || age_us >= FS_TICK_US) {
		struct fs_text *text;
		int rc = fs_text_status(t->archive, t->dbs, t->mounted_us, ++t->status_version,
		                        &text, err);
		if (rc < 0)
			return rc;
		if (t->status)
			fs_text_unref(t->status);
		t->status = text;
		t->status_mono_us = clock_mono_us();
		age_us = 0;
	}
	*ret = fs_text_ref(t->status);
	*ret_seconds_left = (double)(FS_TICK_US - age_us) / (double)US_PER_SECOND;
	return 0;
}

static int lookup_meta(struct fs_tree *t, struct fs_node *dir, const char *name,
                       struct fs_entry *ret, struct err *err)
{
	struct fs_text *text cleanup_text = NULL;
	double left;

	if (strcmp(name, "status.json") != 0)
		return no_such(name, err);
	int rc = fs_tree_status(t, &text, &left, err);
	if (rc < 0)
		return rc;
	struct fs_place place = {.kind = FS_TEXT, .text = text};
	return enter_node(t, dir, name, text->version, &place, left, ret, err);
}

/* ---- look-ups ---- */

static int lookup_fixed(struct fs_tree *t, struct fs_node *dir, const char *name,
                        struct fs_entry *ret, struct err *err)
{
	bool raw = dir->place.kind == FS_RAW;

	for (size_t i = 0; i < fs_n_root_entries; i++) {
		const struct fs_fixed *f = &fs_root_entries[i];
		if (strcmp(name, f->name) != 0 || (raw && !f->raw))
			continue;
		struct fs_place place = {
		        .kind = f->kind, .raw = raw, .backup_type = f->backup_type};
		if (f->kind == FS_TEXT)
			place.text = t->readme;
		return enter_node(t, dir, name, 0, &place, FS_FOREVER_S, ret, err);
	}
	return no_such(name, err);
}

static int lookup_latest(struct fs_tree *t, struct fs_node *dir, const char *name,
                         struct fs_entry *ret, struct err *err)
{
	struct fs_latest *latest cleanup_latest = NULL;
	double left;
	int rc = fs_dbs_latest(t->dbs, &latest, &left, err);

	if (rc < 0)
		return rc;
	const struct fs_newest *row = fs_latest_find(latest, name);
	if (!row)
		return no_such(name, err);
	return enter_image(t, row->db, &row->moment, dir->place.raw, left, ret, err);
}

/* Whether any database has a state as of the time; else why not. */
static int check_moment(struct fs_tree *t, int64_t time_us, bool *ret_provisional, struct err *err)
{
	struct fs_db **all cleanup_free = NULL;
	struct err first = ERR_INIT;
	size_t n;
	int rc = fs_dbs_all(t->dbs, &all, &n, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		struct moment m;
		struct err why = ERR_INIT;
		if (history_at(all[i]->history, time_us, clock_now_us(), &m, &why) == 0) {
			*ret_provisional = m.flags & MOMENT_PROVISIONAL;
			return 0;
		}
		if (i == 0 || first.kind == ERR_NOT_FOUND)
			first = why;
	}
	return n ? err_copy(err, &first)
	         : err_set(err, ERR_NOT_FOUND, 0, "no database in '%s'", archive_root(t->archive));
}

static int lookup_at(struct fs_tree *t, struct fs_node *dir, const char *name, struct fs_entry *ret,
                     struct err *err)
{
	struct fs_place place = {.kind = FS_MOMENT, .raw = dir->place.raw};
	double timeout_s = FS_FOREVER_S;
	uint64_t version = 0;
	bool provisional;

	if (time_parse(name, clock_now_us(), t->options.zone, &place.time_us, &place.relative,
	               NULL) < 0)
		return no_such(name, err);
	if (place.relative) {
		/* All of one second mean the same moment, and each second's is another folder:
		 * whoever is in one stays there. */
		struct fs_latest *latest cleanup_latest = NULL;
		int rc = fs_dbs_latest(t->dbs, &latest, &timeout_s, err);
		if (rc < 0)
			return rc;
		if (time_parse(name, latest->made_us, t->options.zone, &place.time_us, NULL, NULL) <
		    0)
			return no_such(name, err);
		version = (uint64_t)place.time_us;
	}
	int rc = check_moment(t, place.time_us, &provisional, err);
	if (rc < 0)
		return rc;
	if (provisional && timeout_s > FS_MOVING_S)
		timeout_s = FS_MOVING_S;
	return enter_node(t, dir, name, version, &place, timeout_s, ret, err);
}

static int lookup_moment(struct fs_tree *t, struct fs_node *dir, const char *name,
                         struct fs_entry *ret, struct err *err)
{
	struct fs_db *db;
	struct moment m;
	int rc = fs_dbs_find(t->dbs, name, &db, err);

	if (rc == 0)
		rc = history_at(db->history, dir->place.time_us, clock_now_us(), &m, err);
	if (rc < 0)
		return rc;
	return enter_image(t, db, &m, dir->place.raw,
	                   m.flags & MOMENT_PROVISIONAL ? 0 : FS_FOREVER_S, ret, err);
}

/* tx/NAME and history/NAME */
static int lookup_database(struct fs_tree *t, struct fs_node *dir, const char *name,
                           enum fs_kind kind, struct fs_entry *ret, struct err *err)
{
	struct fs_place place = {.kind = kind, .raw = dir->place.raw};
	int rc = fs_dbs_find(t->dbs, name, &place.db, err);

	return rc < 0 ? rc : enter_node(t, dir, name, 0, &place, FS_MOVING_S, ret, err);
}

static int lookup_tx(struct fs_tree *t, struct fs_node *dir, const char *name, struct fs_entry *ret,
                     struct err *err)
{
	struct fs_db *db = dir->place.db;
	struct moment m;
	uint64_t txid;

	if (!fs_name_parse_txid(name, &txid))
		return no_such(name, err);
	int rc = history_tx(db->history, txid, &m, err);
	return rc < 0 ? rc : enter_image(t, db, &m, dir->place.raw, FS_FOREVER_S, ret, err);
}

/* Marks come and go, and one of the same name may stand for another moment later. */
static int lookup_mark(struct fs_tree *t, struct fs_node *dir, const char *name,
                       struct fs_entry *ret, struct err *err)
{
	struct fs_place place = {.kind = FS_MARK, .raw = dir->place.raw};
	bool exists;
	int rc = fs_marks_exists(t, name, &exists, err);

	if (rc < 0)
		return rc;
	return exists ? enter_node(t, dir, name, 0, &place, FS_MOVING_S, ret, err)
	              : no_such(name, err);
}

static int lookup_marked(struct fs_tree *t, struct fs_node *dir, const char *name,
                         struct fs_entry *ret, struct err *err)
{
	struct fs_db *db;
	struct moment m;
	int rc = fs_dbs_find(t->dbs, name, &db, err);

	if (rc == 0)
		rc = fs_marks_moment(db, dir->name, &m, err);
	return rc < 0 ? rc : enter_image(t, db, &m, dir->place.raw, FS_MOVING_S, ret, err);
}

/* A day, hour or minute below history/NAME/ */
static int lookup_span(struct fs_tree *t, struct fs_node *dir, const char *name,
                       struct fs_entry *ret, struct err *err)
{
	struct fs_place place = {.raw = dir->place.raw, .db = dir->place.db};
	bool known, holds = false;
	int number = 0;

	if (dir->place.kind == FS_DAYS) {
		place.kind = FS_DAY;
		known = fs_name_parse_day(name, &place.time_us);
	} else if (dir->place.kind == FS_DAY) {
		place.kind = FS_HOUR;
		known = fs_name_parse_two(name, 24, &number);
		place.time_us = dir->place.time_us + number * FS_HOUR_US;
	} else {
		place.kind = FS_MINUTE;
		known = fs_name_parse_two(name, 60, &number);
		place.time_us = dir->place.time_us + number * FS_MINUTE_US;
	}
	if (!known)
		return no_such(name, err);
	int rc = fs_span_holds(place.db, place.time_us, fs_span_us(place.kind), &holds, err);
	if (rc < 0)
		return rc;
	return holds ? enter_node(t, dir, name, 0, &place, FS_FOREVER_S, ret, err)
	             : no_such(name, err);
}

static int lookup_commit(struct fs_tree *t, struct fs_node *dir, const char *name,
                         struct fs_entry *ret, struct err *err)
{
	struct fs_db *db = dir->place.db;
	char right[FS_NAME_MAX];
	struct moment m;
	uint64_t txid;

	if (!fs_name_parse_commit(name, &txid))
		return no_such(name, err);
	int rc = history_tx(db->history, txid, &m, err);
	if (rc < 0)
		return rc;
	fs_name_format_commit(m.time_us, m.txid, right);
	if (strcmp(name, right) != 0 || m.time_us < dir->place.time_us ||
	    m.time_us >= dir->place.time_us + FS_MINUTE_US)
		return no_such(name, err);
	return enter_image(t, db, &m, dir->place.raw, FS_FOREVER_S, ret, err);
}

static int lookup_backup_day(struct fs_tree *t, struct fs_node *dir, const char *name,
                             struct fs_entry *ret, struct err *err)
{
	struct fs_backup_set *set cleanup_backup_set = NULL;
	struct fs_place place = {.kind = FS_BACKUP_DAY, .backup_type = dir->place.backup_type};
	size_t from, to;

	if (!fs_name_parse_day(name, &place.time_us))
		return no_such(name, err);
	int rc = fs_backups_list(t->backups, place.backup_type, &set, err);
	if (rc < 0)
		return rc;
	fs_backup_set_day(set, place.time_us, &from, &to);
	return from < to ? enter_node(t, dir, name, 0, &place, FS_MOVING_S, ret, err)
	                 : no_such(name, err);
}

static int lookup_backup(struct fs_tree *t, struct fs_node *dir, const char *name,
                         struct fs_entry *ret, struct err *err)
{
	struct fs_backup_set *set cleanup_backup_set = NULL;
	struct fs_place place = {.kind = FS_BACKUP_FILE, .backup_type = dir->place.backup_type};
	struct fs_backup_stat st;
	size_t i, to;
	int rc = fs_backups_list(t->backups, place.backup_type, &set, err);

	if (rc < 0)
		return rc;
	fs_backup_set_day(set, dir->place.time_us, &i, &to);
	while (i < to && strcmp(set->rows[i].shown, name) != 0)
		i++;
	if (i == to)
		return no_such(name, err);
	place.gz = set->rows[i].gz;
	rc = fs_backups_stat(t->backups, place.backup_type, name, place.gz, true, &st, err);
	if (rc < 0)
		return rc;
	place.size = st.size;
	place.time_us = st.mtime_us;
	return enter_node(t, dir, name, st.version, &place, FS_MOVING_S, ret, err);
}

int fs_tree_lookup(struct fs_tree *t, uint64_t parent, const char *name, struct fs_entry *ret,
                   struct err *err)
{
	struct fs_place place;
	struct fs_node *dir;
	int rc = fs_tree_place(t, parent, &place, &dir, err);

	if (rc < 0)
		return rc;
	if (!dir)
		return no_such(name, err); /* an image is no folder */
	if (fs_name_is_sidecar(name)) {
		*ret = (struct fs_entry){.entry_timeout_s = FS_FOREVER_S};
		return 0;
	}
	switch (place.kind) {
	case FS_ROOT:
	case FS_RAW:
		return lookup_fixed(t, dir, name, ret, err);
	case FS_LATEST:
		return lookup_latest(t, dir, name, ret, err);
	case FS_AT:
		return lookup_at(t, dir, name, ret, err);
	case FS_MOMENT:
		return lookup_moment(t, dir, name, ret, err);
	case FS_TX:
		return lookup_database(t, dir, name, FS_TX_DB, ret, err);
	case FS_TX_DB:
		return lookup_tx(t, dir, name, ret, err);
	case FS_HISTORY:
		return lookup_database(t, dir, name, FS_DAYS, ret, err);
	case FS_DAYS:
	case FS_DAY:
	case FS_HOUR:
		return lookup_span(t, dir, name, ret, err);
	case FS_MINUTE:
		return lookup_commit(t, dir, name, ret, err);
	case FS_BACKUPS:
		return lookup_backup_day(t, dir, name, ret, err);
	case FS_BACKUP_DAY:
		return lookup_backup(t, dir, name, ret, err);
	case FS_META:
		return lookup_meta(t, dir, name, ret, err);
	case FS_MARKS:
		return lookup_mark(t, dir, name, ret, err);
	case FS_MARK:
		return lookup_marked(t, dir, name, ret, err);
	case FS_TEXT:
	case FS_BACKUP_FILE:
	case FS_IMAGE:
		break;
	}
	return no_such(name, err);
}

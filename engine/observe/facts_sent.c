/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups at the places that they go to besides their folder.  Whoever sends them notes what lies there
 * (backup/send.h), and that note is read here when it changed: nothing is asked of a store, however
 * often somebody looks.
 */
#include "engine/observe/facts_i.h"

#include "engine/base/hash.h"
#include "engine/daemon/sending.h"

#include <string.h>

_Static_assert((int)HEALTH_BACKUP_TYPES == (int)BACKUP_N_TYPES, "one row for each type");

static void release_rows(struct cached_sent *c)
{
	free(take_ptr(c->rows));
	json_decref(take_ptr(c->index));
	c->n = 0;
}

void facts_release_sent(struct collecting *k)
{
	for (size_t i = 0; i < k->n_sent; i++)
		release_rows(&k->sent[i]);
	free(k->sent);
	k->sent = NULL;
	k->n_sent = 0;
}

/* ---- one note ---- */

struct counting {
	struct cached_sent *c;
	const struct sent_state *note;
	bool no_memory;
};

/* Its place among the rows; c->n: it has none. */
static size_t row_of(const struct cached_sent *c, const char *stem)
{
	const json_t *i = json_object_get(c->index, stem);

	return i ? (size_t)json_integer_value(i) : c->n;
}

static struct health_sent *sums_of(struct counting *n, const char *stem)
{
	struct cached_sent *c = n->c;
	size_t i = row_of(c, stem);

	if (i < c->n)
		return &c->rows[i].sums;
	struct sent_row *row = facts_add(&c->rows, &c->n, sizeof(*row));
	if (!row || json_object_set_new_nocheck(c->index, stem, json_integer((json_int_t)i)) < 0) {
		n->no_memory = true;
		return NULL;
	}
	snprintf(row->stem, sizeof(row->stem), "%s", stem);
	return &row->sums;
}

static void count_item(void *ctx, const struct backup_sent_item *i)
{
	struct health_sent *s = sums_of(ctx, i->db);

	if (!s)
		return;
	s->types[i->type].count++;
	s->types[i->type].bytes += i->bytes;
	if (i->time_us > s->types[i->type].latest_us)
		s->types[i->type].latest_us = i->time_us;
}

/* Whether they are meant to go there the configuration tells, later. */
static void count_waiting(struct counting *n, const struct backup_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct backup_entry *e = &list->entries[i];
		if (e->foreign || backup_sent_where(n->note, e) != BACKUP_SENT_WAITS)
			continue;
		struct health_sent *s = sums_of(n, e->db);
		if (!s)
			return;
		s->n_waiting++;
		if (s->waiting_since_us == 0 || e->time_us < s->waiting_since_us)
			s->waiting_since_us = e->time_us;
	}
}

static int read_note(struct cached_sent *c, const char *root, const char *url, struct err *err)
{
	cleanup_backup_list struct backup_list list = {0};
	cleanup_backup_sent struct sent_state *note = NULL;

	release_rows(c);
	c->index = json_object();
	int rc = c->index ? backup_list_read(root, &list, err)
	                  : err_set(err, ERR_NOMEM, 0, "no memory");
	rc = rc ? rc : backup_sent_open(root, url, &note, err);
	if (rc < 0)
		return rc;
	const struct backup_sent *known = backup_sent_known(note);
	struct counting n = {.c = c, .note = note};
	c->sent_us = known->at_us;
	c->trouble_us = known->trouble_us;
	snprintf(c->trouble, sizeof(c->trouble), "%.239s", known->trouble_us ? known->trouble : "");
	backup_sent_items(note, count_item, &n);
	count_waiting(&n, &list);
	return n.no_memory ? err_set(err, ERR_NOMEM, 0, "no memory") : 0;
}

static struct cached_sent *cached(struct collecting *k, const char *root, const char *url)
{
	uint64_t key = hash64(url, strlen(url), hash64(root, strlen(root), 0));

	for (size_t i = 0; i < k->n_sent; i++)
		if (k->sent[i].key == key)
			return &k->sent[i];
	struct cached_sent *c = facts_add(&k->sent, &k->n_sent, sizeof(*c));
	if (c)
		c->key = key;
	return c;
}

/* NULL without an error: there is no such archive yet, or it cannot be read, which is told of it. */
static int refresh(struct collecting *k, const char *root, const char *url,
                   struct cached_sent **ret, struct err *err)
{
	struct cached_sent *c = cached(k, root, url);
	struct stamp stamps[BACKUP_N_TYPES + 1];
	int64_t now_us = clock_mono_us();
	struct err why = ERR_INIT;
	char path[PATH_MAX];

	*ret = c;
	if (!c)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	c->seen = true;
	backup_sent_path(root, url, path);
	stamps[BACKUP_N_TYPES] = facts_stamp(path);
	bool same = facts_same_stamp(&stamps[BACKUP_N_TYPES], &c->stamps[BACKUP_N_TYPES]);
	for (int i = 0; i < BACKUP_N_TYPES; i++) {
		snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 32, root, backup_type_names[i]);
		stamps[i] = facts_stamp(path);
		same = same && facts_same_stamp(&stamps[i], &c->stamps[i]);
	}
	if (same && c->read_us && now_us - c->read_us < FACTS_BACKUPS_AGAIN_US)
		return 0;
	if (read_note(c, root, url, &why) < 0) {
		c->read_us = 0;
		*ret = NULL;
		return why.kind == ERR_NOMEM ? err_copy(err, &why) : 0;
	}
	memcpy(c->stamps, stamps, sizeof(stamps));
	c->read_us = now_us;
	return 0;
}

/* ---- of whom they are ---- */

struct placing {
	const struct config *config;
	const struct sending_place *place;
	const char *root;
	const struct cached_sent *c;
	bool *known; /* of its rows: which are a database's */
	struct health_facts *f;
};

static int add_row(struct placing *p, const char *database, const struct health_sent *sums,
                   struct err *err)
{
	const char *url = p->place->destination->url;
	struct health_sent *row = facts_add(&p->f->sent, &p->f->n_sent, sizeof(*row));

	if (!row)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	if (sums)
		*row = *sums;
	snprintf(row->root, sizeof(row->root), "%s", p->root);
	snprintf(row->database, sizeof(row->database), "%s", database);
	snprintf(row->destination, sizeof(row->destination), "%s", p->place->destination->name);
	snprintf(row->url, sizeof(row->url), "%.*s", (int)strcspn(url, "?"), url);
	row->sent_us = p->c->sent_us;
	row->trouble_us = p->c->trouble_us;
	memcpy(row->trouble, p->c->trouble, sizeof(row->trouble));
	return 0;
}

/* Each that goes there has a row, whether something lies there or not. */
static int add_database(struct placing *p, const struct health_database *d, struct err *err)
{
	const char *root = p->config->backup_dir ? p->config->backup_dir : d->archive;
	const struct health_sent *sums = NULL;
	char stem[BACKUP_FILE_MAX];

	if (strcmp(root, p->root) != 0 || backup_stem(d->path, stem, NULL) < 0)
		return 0;
	size_t i = row_of(p->c, stem);
	if (i < p->c->n) {
		p->known[i] = true;
		sums = &p->c->rows[i].sums;
	}
	if (!sending_takes_entry(p->config, p->place, facts_config_of(p->config, d->path)))
		return 0;
	return add_row(p, d->name, sums, err);
}

/* Of databases that are none any more: what lies there of them; to the bucket of all of them they go
 * on going. */
static int add_others(struct placing *p, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < p->c->n && rc == 0; i++) {
		const struct sent_row *row = &p->c->rows[i];
		struct health_sent sums = row->sums;
		bool some = false;
		if (p->known[i])
			continue;
		if (!sending_takes_entry(p->config, p->place, NULL))
			sums.n_waiting = 0;
		if (sums.n_waiting == 0)
			sums.waiting_since_us = 0;
		for (int t = 0; t < HEALTH_BACKUP_TYPES; t++)
			some = some || sums.types[t].count;
		if (some || sums.n_waiting)
			rc = add_row(p, row->stem, &sums, err);
	}
	return rc;
}

static int read_place(struct collecting *k, const struct config *config,
                      const struct sending_place *place, const char *root, struct health_facts *f,
                      struct err *err)
{
	struct cached_sent *c;
	int rc = refresh(k, root, place->destination->url, &c, err);

	if (rc < 0 || !c)
		return rc;
	cleanup_free bool *known = calloc(c->n + 1, sizeof(*known));
	if (!known)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	struct placing p = {config, place, root, c, known, f};
	for (size_t i = 0; i < f->n_databases && rc == 0; i++)
		rc = add_database(&p, &f->databases[i], err);
	return rc ? rc : add_others(&p, err);
}

static void forget_unseen(struct collecting *k)
{
	size_t kept = 0;

	for (size_t i = 0; i < k->n_sent; i++) {
		if (k->sent[i].seen)
			k->sent[kept++] = k->sent[i];
		else
			release_rows(&k->sent[i]);
	}
	k->n_sent = kept;
}

int facts_read_sent(struct collecting *k, const struct config *config, struct health_facts *f,
                    struct err *err)
{
	struct sending_place places[SENDING_PLACES_MAX];
	const char *roots[SENDING_PLACES_MAX];
	size_t n = sending_places(config, places);
	int rc = 0;

	for (size_t i = 0; i < k->n_sent; i++)
		k->sent[i].seen = false;
	for (size_t i = 0; i < n && rc == 0; i++) {
		size_t n_roots = sending_roots(config, &places[i], roots);
		for (size_t r = 0; r < n_roots && rc == 0; r++)
			rc = read_place(k, config, &places[i], roots[r], f, err);
	}
	forget_unseen(k);
	return rc;
}

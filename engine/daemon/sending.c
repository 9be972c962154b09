/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/sending.h"

#include "engine/base/file.h"
#include "engine/daemon/shipping.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- which there are ---- */

static bool is_used(const struct config_destination *d)
{
	return d->backups && !d->not_configured;
}

static bool is_bucket(const struct config *c, const struct sending_place *p)
{
	return p->destination == &c->backup_bucket;
}

/* Its history, or what is meant to be, goes there: then so do the backups, or not, as that says. */
static bool has_bucket(const struct config_database *d, const char *bucket)
{
	for (size_t i = 0; i < d->n_destinations; i++)
		if (d->destinations[i].s3.bucket &&
		    strcmp(d->destinations[i].s3.bucket, bucket) == 0)
			return true;
	return false;
}

static const struct config_destination *destination_at(const struct config_database *d,
                                                       const char *url)
{
	for (size_t i = 0; i < d->n_destinations; i++)
		if (is_used(&d->destinations[i]) && strcmp(d->destinations[i].url, url) == 0)
			return &d->destinations[i];
	return NULL;
}

static void add_place(struct sending_place *places, size_t *n, const struct config_database *d,
                      const struct config_destination *to)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp(places[i].destination->url, to->url) == 0) {
			places[i].n_databases++;
			return;
		}
	if (*n < SENDING_PLACES_MAX)
		places[(*n)++] = (struct sending_place){to, d, 1};
}

bool sending_wants_bucket(const struct config *c)
{
	const struct config_destination *bucket = &c->backup_bucket;
	bool covered = c->n_databases > 0;

	for (size_t i = 0; i < c->n_databases && covered; i++)
		covered = bucket->s3.bucket && has_bucket(&c->databases[i], bucket->s3.bucket);
	return bucket->url && !covered;
}

size_t sending_places(const struct config *c, struct sending_place ret[SENDING_PLACES_MAX])
{
	const struct config_destination *bucket = &c->backup_bucket;
	size_t n = 0;

	for (size_t i = 0; i < c->n_databases; i++) {
		const struct config_database *d = &c->databases[i];
		for (size_t k = 0; k < d->n_destinations; k++)
			if (is_used(&d->destinations[k]))
				add_place(ret, &n, d, &d->destinations[k]);
	}
	if (sending_wants_bucket(c) && !bucket->not_configured && n < SENDING_PLACES_MAX)
		ret[n++] = (struct sending_place){.destination = bucket};
	return n;
}

/* The entry that a path is of: by itself, or as a file of a folder. */
static const struct config_database *entry_of(const struct config *c, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	const struct config_database *d = config_find_database(c, path);

	for (size_t i = 0; i < c->n_databases && !d; i++) {
		const struct config_database *e = &c->databases[i];
		size_t len = e->dir ? strlen(e->dir) : 0;
		if (e->dir && strncmp(path, e->dir, len) == 0 && path[len] == '/' &&
		    (e->recursive || path + len + 1 == name) && fnmatch(e->pattern, name, 0) == 0)
			d = e;
	}
	return d;
}

bool sending_takes_entry(const struct config *c, const struct sending_place *p,
                         const struct config_database *d)
{
	if (is_bucket(c, p))
		return !d || !has_bucket(d, p->destination->s3.bucket);
	return d && destination_at(d, p->destination->url);
}

bool sending_takes(const struct config *c, const struct sending_place *p, const char *db_path)
{
	return sending_takes_entry(c, p, entry_of(c, db_path));
}

size_t sending_roots(const struct config *c, const struct sending_place *p,
                     const char *ret[SENDING_PLACES_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_databases && !c->backup_dir; i++) {
		const struct config_database *d = &c->databases[i];
		bool known = !d->archive || !sending_takes_entry(c, p, d);
		for (size_t k = 0; k < n && !known; k++)
			known = strcmp(ret[k], d->archive) == 0;
		if (!known && n < SENDING_PLACES_MAX)
			ret[n++] = d->archive;
	}
	if (n == 0 && (c->backup_dir || c->archive))
		ret[n++] = c->backup_dir ? c->backup_dir : c->archive;
	return n;
}

/* ---- sending ---- */

/* The databases that there are now: of folders, what lies in them. */
struct wanted {
	const struct config *config;
	const struct sending_place *place;
	struct config_found_list *found; /* for each entry of the configuration */
};

static bool is_of(const struct wanted *w, size_t i, const struct backup_entry *e)
{
	const struct config_database *d = &w->config->databases[i];

	if (d->path)
		return backup_is_of(e, d->path);
	for (size_t k = 0; k < w->found[i].n; k++)
		if (backup_is_of(e, w->found[i].items[k].path))
			return true;
	return false;
}

static bool wants(void *ctx, const struct backup_entry *e)
{
	const struct wanted *w = ctx;
	bool bucket = is_bucket(w->config, w->place);

	for (size_t i = 0; i < w->config->n_databases; i++)
		if (is_of(w, i, e))
			return sending_takes_entry(w->config, w->place, &w->config->databases[i]);
	return bucket;
}

/* Whoever sent it. */
static bool owns(void *ctx, const struct backup_entry *e)
{
	const struct wanted *w = ctx;

	for (size_t i = 0; i < w->config->n_databases; i++)
		if (is_of(w, i, e))
			return sending_takes_entry(w->config, w->place, &w->config->databases[i]);
	return false;
}

static void fill_retention(const struct config_destination *d, struct backup_retention *ret)
{
	*ret = (struct backup_retention){0};
	for (int type = 0; type < BACKUP_N_TYPES; type++) {
		const struct config_backup_retention *from = &d->backup_retention[type];
		ret->types[type] = (struct backup_keep){.max_age_us = from->max_age_us,
		                                        .count = from->count,
		                                        .daily = from->daily,
		                                        .weekly = from->weekly,
		                                        .monthly = from->monthly,
		                                        .yearly = from->yearly};
	}
}

static void release_wanted(struct wanted *w)
{
	for (size_t i = 0; w->found && i < w->config->n_databases; i++)
		config_found_release(&w->found[i]);
	free(w->found);
}

static int scan(struct wanted *w, struct err *err)
{
	const struct config *c = w->config;
	int rc = 0;

	w->found = calloc(c->n_databases + 1, sizeof(*w->found));
	if (!w->found)
		return err_set(err, ERR_NOMEM, 0, "no memory to send backups");
	for (size_t i = 0; i < c->n_databases && rc == 0; i++)
		if (c->databases[i].dir)
			rc = config_scan_dir(c, &c->databases[i], &w->found[i], err);
	return rc;
}

int sending_hold(const struct config *c, const char *root, struct backup_plan *plan,
                 struct err *err)
{
	struct sending_place places[SENDING_PLACES_MAX];
	size_t n = sending_places(c, places);
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0 && plan->n_remove; i++) {
		CLEANUP(release_wanted) struct wanted w = {.config = c, .place = &places[i]};
		rc = scan(&w, err);
		rc = rc ? rc
		        : backup_sent_hold(root, places[i].destination->url,
		                           places[i].destination->name, wants, &w, plan, err);
	}
	return rc;
}

static int send_roots(const char *const *roots, size_t n, struct backup_send_options *o,
                      struct backup_sent *ret, struct err *err)
{
	struct err why = ERR_INIT;
	int rc = 0;

	for (size_t i = 0; i < n; i++) {
		o->root = roots[i];
		if (access(roots[i], F_OK) < 0)
			continue; /* nothing was made yet */
		int failed = backup_send(o, ret, &why);
		if (failed && rc == 0)
			rc = err_copy(err, &why);
	}
	return rc;
}

/* A folder is made, but not what it lies in: that may be a disk that is not there just now. */
static int open_place(const struct config_destination *d, int64_t patience_ms, struct store **ret,
                      struct err *err)
{
	struct store_options so = {.create = d->type != CONFIG_DEST_FILE,
	                           .patience_ms = patience_ms};
	struct shipping_destination sd;
	cleanup_fd int fd = -1;

	shipping_destination_of(d, &sd);
	shipping_store_options(&sd, &so);
	int rc = d->type == CONFIG_DEST_FILE ? file_open_dir(AT_FDCWD, d->url, true, &fd, err) : 0;
	return rc < 0 ? rc : store_open(d->url, &so, ret, err);
}

int sending_run(const struct config *c, const struct sending_place *p,
                const struct sending_options *options, struct backup_sent *ret, struct err *err)
{
	CLEANUP(release_wanted) struct wanted w = {.config = c, .place = p};
	struct backup_retention retention;
	struct backup_send_options o = {.url = p->destination->url,
	                                .wants = wants,
	                                .ctx = &w,
	                                .owns = owns,
	                                .retention = &retention,
	                                .grace_us = options->grace_us,
	                                .look = options->look,
	                                .progress = options->progress,
	                                .progress_ctx = options->ctx};
	cleanup_store struct store *store = NULL;
	const char *roots[SENDING_PLACES_MAX] = {options->root};
	struct err why = ERR_INIT;

	*ret = (struct backup_sent){0};
	fill_retention(p->destination, &retention);
	int rc = scan(&w, err);
	if (rc < 0)
		return rc;
	size_t n = options->root ? 1 : sending_roots(c, p, roots);
	rc = open_place(p->destination, options->patience_ms, &store, &why);
	for (size_t i = 0; i < n && rc < 0; i++)
		backup_send_failed(roots[i], p->destination->url, &why);
	if (rc < 0)
		return err_copy(err, &why);
	o.store = store;
	return send_roots(roots, n, &o, ret, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what is written to what is meant: defaults, archives, destinations; and what only shows
 * when all of it is known.
 *
 * A database takes from itself, then from the whole file, then the default.  Its archive's
 * retention may stand at the replica that is the archive (Litestream 0.3), at the database, or
 * at snapshot: (0.5).
 */
#include "engine/config/config_i.h"

#include "engine/archive/names.h"
#include "engine/base/buf.h"
#include "engine/base/clock.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_US (86400 * US_PER_SECOND)
#define STATE_MAX_BYTES (UINT64_C(10) << 30)

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static const char *or_else(const char *text, const char *otherwise)
{
	return text ? text : otherwise;
}

/* ---- archives ---- */

/* ".../local/ANYTHING" is a database within the archive "...". */
static const char *archive_of_path(struct loader *l, const char *path)
{
	const char *whole = load_path(l, l->folder, path);
	const char *last = strrchr(whole, '/');
	size_t head = (size_t)(last - whole);

	if (!last[1] || head < 6 || strncmp(last - 6, "/local", 6) != 0)
		return whole;
	const char *root = memory_copy(l->memory, whole, head > 6 ? head - 6 : 1);
	if (!root)
		load_nomem(l);
	return root ? root : whole;
}

static void state_folder(const char *state, const char *xdg, const char *home, char out[PATH_MAX])
{
	if (state) /* systemd may name several */
		snprintf(out, PATH_MAX, "%.*s", (int)strcspn(state, ":"), state);
	else if (geteuid() == 0 || access("/var/lib/asof", W_OK) == 0 || (!xdg && !home))
		snprintf(out, PATH_MAX, "/var/lib/asof");
	else if (xdg)
		snprintf(out, PATH_MAX, "%s/asof", xdg);
	else
		snprintf(out, PATH_MAX, "%s/.local/state/asof", home);
}

void config_state_archive(char out[PATH_MAX])
{
	state_folder(getenv("STATE_DIRECTORY"), getenv("XDG_STATE_HOME"), getenv("HOME"), out);
}

/* Where the host keeps state, when nobody named a folder. */
static const char *state_archive(struct loader *l)
{
	char path[PATH_MAX];

	state_folder(env_get(l, "STATE_DIRECTORY", NULL), env_get(l, "XDG_STATE_HOME", NULL),
	             env_get(l, "HOME", NULL), path);
	return load_path(l, NULL, path);
}

/* ---- destinations ---- */

/* What a replica is, by its type or its URL. */
static const char *type_of(struct loader *l, const struct raw_replica *r, const char **ret_place)
{
	const char *url = r->url, *colon = url ? strstr(url, "://") : NULL;
	const char *type = r->type;

	*ret_place = url ? url : r->path;
	if (colon) {
		char *scheme = memory_copy(l->memory, url, (size_t)(colon - url));
		if (!scheme) {
			load_nomem(l);
			return NULL;
		}
		if (type && strcmp(type, scheme) != 0)
			load_error(l, r->line, "type: %.40s, but the url says %.40s", type, scheme);
		type = scheme;
		*ret_place = colon + 3;
	}
	if (!type)
		type = r->bucket ? "s3" : "file";
	return type;
}

/* sftp://user@host:port/path; what the URL says counts before the keys beside it. */
static void resolve_sftp(struct loader *l, const struct raw_replica *r,
                         struct config_destination *d)
{
	cleanup_buf struct buf b = BUF_INIT(8192);
	bool given = r->url && strncmp(r->url, "sftp://", 7) == 0;
	int rc = 0;

	d->sftp_identity = r->key_path ? load_path(l, l->folder, r->key_path) : NULL;
	d->sftp_host_key = r->host_key;
	if (r->password.text) {
		load_error(l, r->line,
		           "password: asof logs in with keys (set key-path, or use an agent)");
		return;
	}
	if (!given && (!r->host || !r->path)) {
		load_error(l, r->line, "%s: missing (of the sftp server)",
		           r->host ? "path" : "host");
		return;
	}
	if (given) {
		d->url = r->url;
		return;
	}
	rc = buf_printf(&b, NULL, "sftp://");
	if (r->user && !rc)
		config_percent_encode(&b, r->user, &rc);
	rc = rc ? rc
	        : buf_printf(&b, NULL, "%s%s%s", r->user ? "@" : "", r->host,
	                     r->path[0] == '/' ? "" : "/~/");
	config_percent_encode(&b, r->path, &rc);
	char *url = rc ? NULL : memory_copy(l->memory, (const char *)b.data, b.len);
	if (!url)
		load_nomem(l);
	d->url = url;
}

/* Of what lies away from this machine's folders. */
void resolve_key(struct loader *l, const struct raw_replica *r, struct config_destination *d)
{
	if (r->key_file && r->key_command)
		load_error(l, r->line, "key-file: and key-command exclude each other");
	if ((r->key_file || r->key_command) && d->type == CONFIG_DEST_FILE)
		load_error(l, r->line,
		           "key-file: a folder is not encrypted (leave it out, or use s3 or sftp)");
	d->key_file = r->key_file ? load_path(l, l->folder, r->key_file) : NULL;
	d->key_command = r->key_command;
}

void resolve_backup_retention(struct loader *l, const struct raw_replica *r,
                              struct config_destination *d)
{
	for (int type = 0; type < CONFIG_N_BACKUP_TYPES; type++)
		d->backup_retention[type] =
		        r->has_backup_retention && r->backup_retention[type].max_age_us >= 0
		                ? r->backup_retention[type]
		                : l->c->backup_retention[type];
}

static bool is_named(const struct config_database *d, const char *name)
{
	for (size_t i = 0; i < d->n_destinations; i++)
		if (strcmp(d->destinations[i].name, name) == 0)
			return true;
	return false;
}

static const char *destination_name(struct loader *l, const struct config_database *d,
                                    const struct raw_replica *r, const char *type)
{
	const char *name = or_else(r->name, type);

	if (!is_named(d, name))
		return name;
	if (r->name) {
		load_error(l, r->line, "name: two destinations are called '%.60s'", name);
		return name;
	}
	for (unsigned n = 2; n < 1000; n++) {
		name = memory_printf(l->memory, "%s-%u", type, n);
		if (!name) {
			load_nomem(l);
			return type;
		}
		if (!is_named(d, name))
			break;
	}
	return name;
}

static void add_destination(struct loader *l, const struct raw_database *raw,
                            const struct raw_replica *r, const char *type, const char *place,
                            struct config_database *d)
{
	struct config_destination dest = {.line = r->line,
	                                  .sync_interval_us = r->sync_interval_us,
	                                  .verify = r->verify,
	                                  .backups = !r->no_backups};

	if (!dest.sync_interval_us)
		dest.sync_interval_us = US_PER_SECOND;
	if (!dest.verify.text[0])
		dest.verify = raw->verify_remote.text[0] ? raw->verify_remote : l->verify_remote;
	dest.retention = r->retention.given ? r->retention : d->retention;
	dest.retains = r->retention.given;
	dest.name = destination_name(l, d, r, type);
	if (strcmp(type, "s3") == 0) {
		dest.type = CONFIG_DEST_S3;
		resolve_bucket(l, r, &dest);
	} else if (strcmp(type, "sftp") == 0) {
		dest.type = CONFIG_DEST_SFTP;
		resolve_sftp(l, r, &dest);
	} else {
		dest.type = CONFIG_DEST_FILE;
		dest.url = archive_of_path(l, place);
		if (strcmp(dest.url, d->archive) == 0) {
			load_error(l, r->line,
			           "path: '%.200s' is the archive of this database "
			           "already (a destination is another place)",
			           dest.url);
			return;
		}
	}
	resolve_key(l, r, &dest);
	resolve_backup_retention(l, r, &dest);
	d->destinations = memory_grow(l->memory, d->destinations, d->n_destinations, sizeof(dest));
	if (!d->destinations) {
		d->n_destinations = 0;
		load_nomem(l);
		return;
	}
	d->destinations[d->n_destinations++] = dest;
}

/* NULL after an error. */
static const char *check_type(struct loader *l, const struct raw_replica *r, const char **place)
{
	const char *type = type_of(l, r, place);

	if (!type)
		return NULL;
	if (strcmp(type, "file") != 0 && strcmp(type, "s3") != 0 && strcmp(type, "sftp") != 0) {
		load_error(l, r->line,
		           "type: asof has no destinations of type %.40s, nothing would get "
		           "there (remove it; there are file, s3 and sftp)",
		           type);
		return NULL;
	}
	if (strcmp(type, "file") == 0 && (!*place || !**place)) {
		load_error(l, r->line, "path: missing (the folder of this replica)");
		return NULL;
	}
	return type;
}

/* The first replica of type file is the archive unless one is named; the others, and what is
 * listed as destinations, are that. */
static void resolve_replicas(struct loader *l, const struct raw_database *raw,
                             struct config_database *d)
{
	const struct raw_replica *own = NULL;
	const char *place, *type;

	for (const struct raw_replica *r = raw->replicas; r && !d->archive && !own; r = r->next) {
		type = r->is_destination ? NULL : type_of(l, r, &place);
		if (type && strcmp(type, "file") == 0 && place && *place) {
			own = r;
			d->archive = archive_of_path(l, place);
		}
	}
	if (own) {
		if (own->retention.given)
			d->retention = own->retention;
		if (own->verify.text[0] && !d->verify.text[0])
			d->verify = own->verify;
		if (own->snapshot_interval_us && !d->snapshot_interval_us)
			d->snapshot_interval_us = own->snapshot_interval_us;
	}
	if (!d->archive)
		d->archive = l->c->archive;
	if (!d->archive) {
		d->archive = state_archive(l);
		d->archive_is_state = true;
	}
	if (!d->retention.given)
		d->retention = l->retention;
	if (d->archive_is_state && !d->retention.max_bytes)
		d->retention.max_bytes = STATE_MAX_BYTES;
	for (const struct raw_replica *r = raw->replicas; r; r = r->next)
		if ((type = check_type(l, r, &place)) && r != own)
			add_destination(l, raw, r, type, place, d);
}

/* ---- databases ---- */

static bool resolve_source(struct loader *l, bool bad_path, struct config_database *d)
{
	struct err err = ERR_INIT;

	if (bad_path && !d->path)
		return false;
	if (!d->path == !d->dir) {
		load_error(l, d->line,
		           d->path ? "path: given beside dir (a database is one file or a "
		                     "folder of them)"
		                   : "path: missing (which database?)");
		return false;
	}
	if (d->dir) {
		if (d->name)
			load_error(l, d->line,
			           "name: of a dir? its databases have their files' names "
			           "(remove it)");
		d->pattern = or_else(d->pattern, "*.db");
		if (strchr(d->pattern, '/'))
			load_error(l, d->line,
			           "pattern: '%.60s' has a / (recursive: true looks "
			           "into folders)",
			           d->pattern);
		return true;
	}
	d->pattern = NULL;
	d->recursive = d->watch = false;
	d->name = or_else(d->name, last_part(d->path));
	if (db_name_check(d->name, &err)) {
		load_error(l, d->line, "name: %s", err.msg);
		return false;
	}
	return true;
}

static const char *described(struct loader *l, const struct config_database *d)
{
	const char *text =
	        memory_printf(l->memory, "%.200s (line %u)", d->path ? d->path : d->dir, d->line);

	return text ? text : "another one";
}

/* What the path leads to: links in the folders followed, also while the file is missing. */
static void real_path(const char *path, char out[PATH_MAX])
{
	char folder[PATH_MAX], real[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t len = (size_t)(slash - path);

	snprintf(out, PATH_MAX, "%s", path);
	if (realpath(path, real)) {
		snprintf(out, PATH_MAX, "%s", real);
		return;
	}
	if (len >= sizeof(folder))
		return;
	snprintf(folder, sizeof(folder), "%.*s", (int)(len ? len : 1), path);
	if (realpath(folder, real) && strlen(real) + strlen(slash) + 1 < PATH_MAX)
		snprintf(out, PATH_MAX, "%s%s", strcmp(real, "/") ? real : "", slash);
}

struct place {
	char *real;
	bool exists;
	dev_t dev;
	ino_t ino;
};

static bool same_file(const struct place *a, const struct place *b)
{
	if (a->exists && b->exists && a->dev == b->dev && a->ino == b->ino)
		return true;
	return strcmp(a->real, b->real) == 0;
}

struct indexed {
	const struct config_database *d;
	struct place place;
	size_t order;
};

static int by_name(const void *a, const void *b)
{
	const struct indexed *x = a, *y = b;
	int c = strcmp(x->d->name, y->d->name);

	return c ? c : x->order < y->order ? -1 : x->order > y->order;
}

static int by_place(const void *a, const void *b)
{
	const struct indexed *x = a, *y = b;
	int c = strcmp(x->place.real, y->place.real);

	return c ? c : x->order < y->order ? -1 : x->order > y->order;
}

static int by_inode(const void *a, const void *b)
{
	const struct indexed *x = a, *y = b;

	if (x->place.exists != y->place.exists)
		return x->place.exists ? -1 : 1;
	if (x->place.dev != y->place.dev)
		return x->place.dev < y->place.dev ? -1 : 1;
	if (x->place.ino != y->place.ino)
		return x->place.ino < y->place.ino ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void report_same_files(struct loader *l, const struct indexed *list, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (same_file(&list[i].place, &list[i - 1].place))
			load_error(l, list[i].d->line,
			           "path: %.200s and %s are one file (remove one)", list[i].d->path,
			           described(l, list[i - 1].d));
}

/* Two of one name, or two ways to one file. */
static void check_unique(struct loader *l)
{
	struct config *c = l->c;
	struct indexed *list = memory_alloc(l->memory, (c->n_databases + 1) * sizeof(*list));
	size_t n = 0;

	if (!list) {
		load_nomem(l);
		return;
	}
	for (size_t i = 0; i < c->n_databases; i++) {
		const struct config_database *d = &c->databases[i];
		char real[PATH_MAX];
		struct stat st;
		if (!d->path)
			continue;
		real_path(d->path, real);
		struct indexed *x = &list[n++];
		*x = (struct indexed){.d = d, .order = i};
		x->place.exists = stat(d->path, &st) == 0;
		if (x->place.exists) {
			x->place.dev = st.st_dev;
			x->place.ino = st.st_ino;
		}
		if (!(x->place.real = memory_copy(l->memory, real, strlen(real)))) {
			load_nomem(l);
			return;
		}
	}
	qsort(list, n, sizeof(*list), by_name);
	for (size_t i = 1; i < n; i++)
		if (strcmp(list[i].d->name, list[i - 1].d->name) == 0 &&
		    !same_file(&list[i].place, &list[i - 1].place))
			load_error(
			        l, list[i].d->line,
			        "name: %.200s and %s are both called '%.200s' (give one a name: of "
			        "its own)",
			        list[i].d->path, described(l, list[i - 1].d), list[i].d->name);
	qsort(list, n, sizeof(*list), by_place);
	report_same_files(l, list, n);
	qsort(list, n, sizeof(*list), by_inode);
	report_same_files(l, list, n);
}

static void resolve_database(struct loader *l, const struct raw_database *raw,
                             struct config_database *d)
{
	*d = raw->d;
	if (!resolve_source(l, raw->bad_path, d)) {
		/* Its replicas are still checked; nothing is compared with it. */
		d->archive = or_else(d->archive, "/");
		d->path = d->dir = d->name = NULL;
	}
	resolve_replicas(l, raw, d);
	if (!d->snapshot_interval_us)
		d->snapshot_interval_us = l->snapshot_interval_us;
	if (!d->verify.text[0])
		d->verify = l->verify_local;
	if (!d->verify_full.text[0])
		d->verify_full = l->verify_full;
}

static void resolve_databases(struct loader *l)
{
	size_t n = 0;

	for (const struct raw_database *raw = l->databases; raw; raw = raw->next)
		n++;
	if (!(l->c->databases = memory_alloc(l->memory, n * sizeof(*l->c->databases)))) {
		load_nomem(l);
		return;
	}
	for (const struct raw_database *raw = l->databases; raw; raw = raw->next)
		resolve_database(l, raw, &l->c->databases[l->c->n_databases++]);
	check_unique(l);
}

/* Without a file: what lies in DATA_DIR/db. */
static void add_data_dir(struct loader *l)
{
	struct raw_database *raw;

	if (l->c->path || !l->c->data_dir || l->databases)
		return;
	if (!(raw = memory_alloc(l->memory, sizeof(*raw)))) {
		load_nomem(l);
		return;
	}
	raw->d.dir = memory_printf(l->memory, "%s/db", l->c->data_dir);
	raw->d.watch = true;
	l->databases = raw;
}

/* ---- the rest ---- */

static void resolve_schedules(struct loader *l)
{
	struct config *c = l->c;

	for (size_t i = 0; i < c->n_schedules; i++) {
		struct config_backup_schedule *s = &c->schedules[i];
		if (!s->name)
			s->name = memory_printf(l->memory, i ? "%s-%zu" : "%s",
			                        config_backup_type_name(s->type), i + 1);
		if (!s->name) {
			load_nomem(l);
			return;
		}
		for (size_t k = 0; k < i; k++)
			if (strcmp(c->schedules[k].name, s->name) == 0)
				load_error(l, s->line,
				           "name: two schedules are called '%.60s', the "
				           "first in line %u",
				           s->name, c->schedules[k].line);
		for (size_t k = 0; k < s->n_databases; k++) {
			const char *name = s->databases[k];
			if (!strpbrk(name, "*?[") && !config_find_database(c, name) &&
			    c->n_databases && !c->databases[0].dir)
				load_error(l, s->line, "databases: no database is called '%.100s'",
				           name);
		}
	}
}

/* In the mount a TIME without a zone means what it means elsewhere. */
static void add_zone_word(struct loader *l)
{
	struct config *c = l->c;
	const char *words = c->mount.options;

	if (!c->zone || (words && (strncmp(words, "tz=", 3) == 0 || strstr(words, ",tz="))))
		return;
	c->mount.options = memory_printf(l->memory, "%s%stz=%s", or_else(words, ""),
	                                 words ? "," : "", zone_name(c->zone));
	if (!c->mount.options)
		load_nomem(l);
}

static void resolve_mount(struct loader *l)
{
	struct config *c = l->c;

	if (!c->mount.dir) {
		if (c->mount.archive || c->mount.options)
			load_error(l, l->mount_line, "mount: dir is missing (where to?)");
		return;
	}
	add_zone_word(l);
	for (size_t i = 0; i < c->n_databases && !c->mount.archive; i++)
		if (strcmp(c->databases[i].archive, c->databases[0].archive) != 0) {
			load_error(
			        l, l->mount_line,
			        "mount: there are several archives, %.150s and %.150s among them "
			        "(say which by archive:)",
			        c->databases[0].archive, c->databases[i].archive);
			return;
		}
	if (!c->mount.archive)
		c->mount.archive = c->n_databases ? c->databases[0].archive : c->archive;
	if (!c->mount.archive)
		load_error(l, l->mount_line, "mount: of which archive? (say so by archive:)");
}

static void drop_none(const char **listen)
{
	if (*listen && strcmp(*listen, LISTEN_NONE) == 0)
		*listen = NULL;
}

static bool has_default_port(const char *listen)
{
	return listen && strcmp(strrchr(listen, ':'), strrchr(CONFIG_HTTP_DEFAULT, ':')) == 0;
}

static void resolve_http(struct loader *l)
{
	struct config_http *h = &l->c->http;

	drop_none(&h->metrics_listen);
	drop_none(&h->health_listen);
	if (!h->listen && !has_default_port(h->metrics_listen) &&
	    !has_default_port(h->health_listen)) {
		h->listen = CONFIG_HTTP_DEFAULT;
		h->listen_is_default = true;
	}
	drop_none(&h->listen);
}

/* Outside this machine nothing is served to just anybody. */
static void check_http(struct loader *l)
{
	const struct config_http *h = &l->c->http;

	if (!h->tls_cert != !h->tls_key)
		load_error(l, l->http_line, "http: tls-cert and tls-key go together");
	if (!h->username != !h->password.text)
		load_error(l, l->http_line, "http: username and password go together");
	const char *open = h->metrics_listen && listens_openly(h->metrics_listen)
	                           ? h->metrics_listen
	                   : h->health_listen && listens_openly(h->health_listen) ? h->health_listen
	                                                                          : NULL;
	if (open)
		load_message(l, CONFIG_WARNING, l->file, 0,
		             "addr, health.addr: /metrics and /health are served at %.60s to "
		             "whoever asks, as given",
		             open);
	if (h->listen && listens_openly(h->listen) &&
	    (!(h->password.text || h->token.text) || !h->tls_cert))
		load_error(l, l->http_line,
		           "http: %.60s can be reached from elsewhere (set token, or username and "
		           "password, and tls-cert and tls-key; or listen on 127.0.0.1)",
		           h->listen);
}

static void default_schedule(struct schedule *s, const char *text)
{
	if (!s->text[0])
		known_schedule(text, s);
}

void resolve_configuration(struct loader *l)
{
	default_schedule(&l->verify_local, "every 1h");
	default_schedule(&l->verify_remote, "every 6h");
	default_schedule(&l->verify_full, "02:00");
	add_data_dir(l);
	resolve_databases(l);
	resolve_backup_bucket(l);
	resolve_schedules(l);
	resolve_mount(l);
	resolve_http(l);
	check_http(l);
	resolve_alerts(l);
	if (l->c->n_databases == 0 && l->c->path)
		load_message(l, CONFIG_WARNING, l->file, 0,
		             "dbs: no database is listed, nothing is captured");
}

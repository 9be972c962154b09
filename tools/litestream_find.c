/* SPDX-License-Identifier: Apache-2.0 */
/* What DB_PATH, REPLICA_URL and the options that choose among states mean. */
#include "tools/litestream.h"

#include "engine/view/history.h"

#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_DEFAULT "/etc/litestream.yml"

static int no_memory(struct err *err)
{
	return err_set(err, ERR_NOMEM, 0, "out of memory");
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- the configuration ---- */

const char *litestream_config_path(const struct litestream *l)
{
	const char *given = l->config_path ? l->config_path : getenv("LITESTREAM_CONFIG");

	if (given && *given)
		return given;
	return access(CONFIG_DEFAULT, F_OK) == 0 ? CONFIG_DEFAULT : config_default_path();
}

int litestream_no_config(const struct litestream *l, struct err *err)
{
	return err_set(err, ERR_USAGE, 0,
	               "%s: no configuration: there is no %s (-config PATH or LITESTREAM_CONFIG "
	               "names another)",
	               l->command, CONFIG_DEFAULT);
}

int litestream_load_config(const struct litestream *l, bool warn, struct config **ret,
                           struct err *err)
{
	cleanup_config_report struct config_report report = CONFIG_REPORT_INIT;
	struct config_options options = {.path = litestream_config_path(l),
	                                 .no_expand = l->no_expand_env};

	if (!options.path)
		return litestream_no_config(l, err);
	int rc = config_load(&options, ret, &report, err);
	if (rc || warn)
		config_report_print(&report, stderr);
	return rc;
}

/* ---- URLs ---- */

bool litestream_is_url(const char *text)
{
	const char *colon = strstr(text, "://");

	return colon && colon > text;
}

bool litestream_archive_of_url(const char *url, char *out, size_t out_bytes, const char **ret_rest)
{
	bool file = strncmp(url, "file://", 7) == 0;
	const char *text = file ? url + 7 : url;
	size_t len = strlen(text);

	if (ret_rest)
		*ret_rest = NULL;
	while (len > 1 && text[len - 1] == '/')
		len--;
	if (len == 0 || len >= out_bytes)
		return false;
	memcpy(out, text, len);
	out[len] = '\0';
	if (!file && litestream_is_url(url))
		return true;
	/* .../local/ANYTHING: the archive is what stands before /local. */
	char *last = strrchr(out, '/');
	if (!last || last - out < 6 || strncmp(last - 6, "/local", 6) != 0)
		return true;
	if (ret_rest)
		*ret_rest = last + 1;
	last[last - out == 6 ? -5 : -6] = '\0';
	return true;
}

/* ---- targets ---- */

void litestream_target_release(struct litestream_target *t)
{
	for (size_t i = 0; i < t->n_replicas; i++)
		free(t->replicas[i].archive);
	free(t->replicas);
	free(t->db_path);
	free(t->name);
	config_free(t->config);
	*t = (struct litestream_target){0};
}

static int add_replica(struct litestream_target *t, const char *name, const char *archive,
                       struct err *err)
{
	struct litestream_replica *more = realloc(t->replicas, (t->n_replicas + 1) * sizeof(*more));

	if (!more)
		return no_memory(err);
	t->replicas = more;
	char *copy = strdup(archive);
	if (!copy)
		return no_memory(err);
	t->replicas[t->n_replicas++] = (struct litestream_replica){.name = name, .archive = copy};
	return 0;
}

static int find_url(const struct litestream *l, const char *url, struct litestream_target *t,
                    struct err *err)
{
	char archive[PATH_MAX];
	const char *rest;

	if (l->config_path)
		return err_set(err, ERR_USAGE, 0,
		               "%s: cannot specify a replica URL and the -config option",
		               l->command);
	if (!litestream_archive_of_url(url, archive, sizeof(archive), &rest))
		return err_set(err, ERR_USAGE, 0, "%s: '%.200s' is not a replica URL", l->command,
		               url);
	if (rest && !(t->name = strdup(rest)))
		return no_memory(err);
	return add_replica(t, "file", archive, err);
}

/* The path without links, or made absolute where it does not exist. */
static bool absolute(const char *path, char out[PATH_MAX])
{
	char cwd[PATH_MAX];

	if (realpath(path, out))
		return true;
	if (path[0] == '/')
		return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
	return getcwd(cwd, sizeof(cwd)) && snprintf(out, PATH_MAX, "%s/%s", cwd, path) < PATH_MAX;
}

/* Whether `path` can be a file of this folder, whether it is there now or not. */
static bool is_of_dir(const struct config_database *d, const char *path, char name[CONFIG_NAME_MAX])
{
	char real[PATH_MAX];
	const char *dir = absolute(d->dir, real) ? real : d->dir;
	size_t len = strlen(dir);
	bool below = strncmp(path, dir, len) == 0 && path[len] == '/';

	return fnmatch(d->pattern, base_name(path), FNM_PERIOD) == 0 &&
	       config_name_in_dir(below ? path + len + 1 : base_name(path), name);
}

static int find_database(const struct litestream *l, const char *arg, struct litestream_target *t,
                         const struct config_database **ret, struct err *err)
{
	char path[PATH_MAX], name[CONFIG_NAME_MAX];

	if (!absolute(arg, path))
		return err_set(err, ERR_USAGE, 0, "%s: the path is too long", l->command);
	const struct config_database *d = config_find_database(t->config, path);
	if (d && d->path)
		snprintf(name, sizeof(name), "%s", d->name ? d->name : base_name(d->path));
	for (size_t i = 0; i < t->config->n_databases && !d; i++)
		if (t->config->databases[i].dir && is_of_dir(&t->config->databases[i], path, name))
			d = &t->config->databases[i];
	if (!d)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "%s: database not found in the configuration: %.200s (litestream "
		               "databases lists them)",
		               l->command, path);
	t->name = strdup(name);
	*ret = d;
	return t->name ? 0 : no_memory(err);
}

static bool is_directory(const char *path)
{
	struct stat st;

	return path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int add_replicas(const struct litestream *l, const struct config_database *d,
                        struct litestream_target *t, struct err *err)
{
	const char *backup_dir = t->config->backup_dir;
	const char *archive = d->archive;
	int rc = 0;

	/* Paths of a container, seen from its host. */
	if (!is_directory(archive) && is_directory(backup_dir))
		archive = backup_dir;
	if (archive && (!l->replica || strcmp(l->replica, "file") == 0))
		rc = add_replica(t, "file", archive, err);
	for (size_t i = 0; i < d->n_destinations && !rc; i++) {
		const struct config_destination *to = &d->destinations[i];
		if (to->not_configured || (l->replica && strcmp(l->replica, to->name) != 0))
			continue;
		rc = add_replica(t, to->name, to->url, err);
	}
	if (rc || t->n_replicas)
		return rc;
	return err_set(err, ERR_NOT_FOUND, 0, "%s: %s has no replica '%.100s' that can be read",
	               l->command, t->name, l->replica ? l->replica : "file");
}

int litestream_find(const struct litestream *l, const char *arg, struct litestream_target *ret,
                    struct err *err)
{
	cleanup_litestream_target struct litestream_target t = {0};
	const struct config_database *d = NULL;
	int rc;

	if (litestream_is_url(arg)) {
		rc = find_url(l, arg, &t, err);
	} else {
		rc = litestream_load_config(l, false, &t.config, err);
		rc = rc ? rc : find_database(l, arg, &t, &d, err);
		rc = rc ? rc : add_replicas(l, d, &t, err);
		if (!rc && !(t.db_path = strdup(arg)))
			rc = no_memory(err);
	}
	if (rc)
		return rc;
	*ret = t;
	t = (struct litestream_target){0};
	return 0;
}

/* ---- histories and moments ---- */

/* The name as it is, or with or without an ending: replicas were called after the stem. */
static const char *pick_name(char *const *names, size_t n, const char *wanted)
{
	size_t stem = wanted ? strcspn(wanted, ".") : 0;

	for (size_t i = 0; i < n && wanted; i++)
		if (strcmp(names[i], wanted) == 0)
			return names[i];
	for (size_t i = 0; i < n && wanted; i++)
		if (strcspn(names[i], ".") == stem && memcmp(names[i], wanted, stem) == 0)
			return names[i];
	return !wanted && n == 1 ? names[0] : NULL;
}

int litestream_open(const struct litestream_target *t, const struct litestream_replica *r,
                    struct archive **ret, struct history **ret_history, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	size_t n = 0;
	int rc = archive_open(r->archive, NULL, &a, err);

	rc = rc ? rc : archive_list(a, &names, &n, err);
	if (rc)
		return rc;
	const char *name = pick_name(names, n, t->name);
	if (!name && !t->name && n > 1)
		return err_set(err, ERR_USAGE, 0,
		               "'%s' has several databases: add /local/NAME to the URL",
		               r->archive);
	if (!name)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no matching backups found: nothing of %s in '%s'",
		               t->name ? t->name : "any database", r->archive);
	if ((rc = history_get(a, name, ret_history, err)))
		return rc;
	*ret = take_ptr(a);
	return 0;
}

static bool within(const struct moment *m, const struct litestream_bounds *b)
{
	return m->txid <= b->max_txid && m->time_us <= b->max_us &&
	       (!b->lineage || m->lineage <= b->lineage);
}

int litestream_newest(struct history *h, const struct litestream_bounds *b, struct moment *ret,
                      struct err *err)
{
	struct moment last, m;
	int rc;

	if ((rc = history_first(h, ret, err)) || (rc = history_latest(h, &last, err)))
		return rc;
	/* Lineages and times rise with the txid: what lies within is the first part. */
	uint64_t lo = ret->txid, hi = last.txid < b->max_txid ? last.txid : b->max_txid;
	while (within(ret, b) && lo < hi) {
		struct err why = ERR_INIT;
		uint64_t mid = lo + (hi - lo) / 2 + 1;
		rc = history_next(h, mid, &m, &why);
		if (rc && err_kind_of(rc) != ERR_NOT_FOUND)
			return err_copy(err, &why);
		if (!rc && within(&m, b)) {
			*ret = m;
			lo = m.txid;
		} else {
			hi = mid - 1;
		}
	}
	if (!within(ret, b) || (b->lineage && ret->lineage != b->lineage))
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no matching backups found: %s has no commit within those bounds",
		               history_name(h));
	return 0;
}

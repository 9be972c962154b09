/* SPDX-License-Identifier: Apache-2.0 */
/* Where an archive's databases lie besides, and archives that are read with what those have. */
#include "tools/cli.h"

#include "engine/backup/backup.h"
#include "engine/base/log.h"
#include "engine/daemon/shipping.h"
#include "engine/store/kept.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

void cli_store_options(const struct cli *c, const char *url, struct store_options *ret)
{
	const struct config *config = c->config_loaded ? c->config : NULL;

	*ret = (struct store_options){.key_file = NULL};
	for (size_t i = 0; config && i < config->n_databases; i++) {
		const struct config_database *d = &config->databases[i];
		for (size_t j = 0; j < d->n_destinations; j++)
			if (strcmp(d->destinations[j].url, url) == 0) {
				struct shipping_destination at;
				shipping_destination_of(&d->destinations[j], &at);
				shipping_store_options(&at, ret);
				return;
			}
	}
}

struct places {
	struct cli *cli;
	const char *root;
	struct cli_place *v;
	size_t n;
};

static void add_place(struct places *p, const char *url, bool named)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->v[i].url, url) == 0)
			return;
	if (p->n == CLI_ALSO_MAX || strcmp(url, p->root) == 0)
		return;
	p->v[p->n].url = url;
	p->v[p->n].named = named;
	cli_store_options(p->cli, url, &p->v[p->n].options);
	p->n++;
}

static bool is_place_of(const struct config *config, const struct config_database *d,
                        const char *root)
{
	bool here = d->archive && (strcmp(d->archive, root) == 0 ||
	                           strcmp(cli_of_this_host(config, d->archive), root) == 0);

	for (size_t j = 0; j < d->n_destinations && !here; j++)
		here = strcmp(d->destinations[j].url, root) == 0;
	return here;
}

static void add_configured(struct places *p, const struct config *config,
                           const struct config_database *d)
{
	const char *archive = d->archive ? cli_of_this_host(config, d->archive) : NULL;

	if (archive && access(archive, F_OK) == 0)
		add_place(p, archive, false);
	for (size_t j = 0; j < d->n_destinations; j++)
		if (!d->destinations[j].not_configured)
			add_place(p, d->destinations[j].url, false);
}

void cli_other_places(struct cli *c, const char *root, struct cli_place ret[CLI_ALSO_MAX],
                      size_t *ret_n)
{
	struct places p = {c, root, ret, 0};
	const struct config *config = c->config_loaded ? c->config : NULL;
	struct err why = ERR_INIT;

	/* An archive that was named is read, whatever has become of the configuration. */
	if (c->config_path && !config && cli_config(c, &config, &why)) {
		log_warn("view", "no other places are known of '%s': %s", root, why.msg);
		config = NULL;
	}
	for (size_t i = 0; i < c->n_also; i++)
		add_place(&p, c->also[i], true);
	for (size_t i = 0; config && i < config->n_databases; i++)
		if (is_place_of(config, &config->databases[i], root))
			add_configured(&p, config, &config->databases[i]);
	*ret_n = p.n;
}

/* A URL alone does not say how its store is opened; a configuration that has the same destination
 * does.  It is found as by any command, but names no other places then: what was asked for is read. */
static void know_settings(struct cli *c, const char *root, struct cli_place *places, size_t n)
{
	const struct config *config;
	struct err why = ERR_INIT;
	bool far = store_is_url(root);

	for (size_t i = 0; i < n; i++)
		far = far || store_is_url(places[i].url);
	if (!far || c->config_loaded)
		return;
	if (cli_config(c, &config, &why)) {
		log_warn("view", "no settings are known of '%s': %s", root, why.msg);
		return;
	}
	for (size_t i = 0; i < n; i++)
		cli_store_options(c, places[i].url, &places[i].options);
}

int cli_open_places(const char *root, struct cli_place places[CLI_ALSO_MAX], size_t *n,
                    struct store *stores[CLI_ALSO_MAX], struct err *err)
{
	size_t opened = 0;
	int rc = 0;

	for (size_t i = 0; i < *n && rc == 0; i++) {
		struct err why = ERR_INIT;
		if (store_open(places[i].url, &places[i].options, &stores[opened], &why) == 0)
			places[opened++] = places[i];
		else if (places[i].named)
			rc = err_wrap(err, err_copy(err, &why), "--also");
		else
			log_warn("view", "cannot stand in for '%s': %s", root, why.msg);
	}
	while (rc < 0 && opened > 0)
		store_free(stores[--opened]);
	*n = opened;
	return rc;
}

void cli_settings_of(struct cli *c, const char *url, struct store_options *ret)
{
	know_settings(c, url, NULL, 0);
	cli_store_options(c, url, ret);
}

bool cli_lies_below(const char *url, const char *root)
{
	size_t n = strcspn(root, "?");

	while (n > 0 && root[n - 1] == '/')
		n--;
	return strncmp(url, root, n) == 0 && url[n] == '/';
}

/* As it was given: its settings are those of a destination, or behind its '?'. */
int cli_archive_above(struct cli *c, const char *url, char out[PATH_MAX], struct err *err)
{
	const struct config *config = NULL;
	size_t path = strcspn(url, "?"), n = path;

	if (cli_config(c, &config, NULL)) /* was told of when the archive was looked for */
		config = NULL;
	for (size_t i = 0; config && i < config->n_databases; i++) {
		const struct config_database *d = &config->databases[i];
		for (size_t j = 0; j < d->n_destinations; j++)
			if (cli_lies_below(url, d->destinations[j].url)) {
				snprintf(out, PATH_MAX, "%s", d->destinations[j].url);
				return 0;
			}
	}
	for (int parts = 0; parts < 2; parts++)
		while (n > 0 && url[--n] != '/')
			;
	if (!store_is_url(url) || n <= (size_t)(strstr(url, "://") - url) + 2 ||
	    strlen(url) >= PATH_MAX)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "'%.200s' is no backup in an archive (ARCHIVE/manual/NAME, as asof "
		               "list --archive shows them)",
		               url);
	snprintf(out, PATH_MAX, "%.*s%s", (int)n, url, url + path);
	return 0;
}

int cli_read_archive(struct cli *c, const char *root, struct archive **ret, struct err *err)
{
	struct cli_place places[CLI_ALSO_MAX];
	struct store *others[CLI_ALSO_MAX];
	struct store_options so;
	struct archive_options o = {.store = &so, .other_stores = others};
	char dir[PATH_MAX];
	size_t n = 0;
	bool keep;

	int rc = kept_default(dir, &o.keep_bytes, &keep, err);
	if (rc)
		return rc;
	cli_other_places(c, root, places, &n);
	know_settings(c, root, places, n);
	cli_store_options(c, root, &so); /* after it was read, above */
	o.keep_dir = keep ? dir : NULL;
	if ((rc = cli_open_places(root, places, &n, others, err)))
		return rc;
	o.n_other_stores = n;
	return archive_open(root, &o, ret, err);
}

int cli_read_backups(struct cli *c, const char *root, bool plain, struct backup_list *ret,
                     struct err *err)
{
	struct backup_list_options o = {.plain = plain};
	struct store_options so;
	char dir[PATH_MAX];
	bool keep;

	int rc = kept_default(dir, &o.keep_bytes, &keep, err);
	if (rc)
		return rc;
	cli_settings_of(c, root, &so);
	o.store = &so;
	o.keep_dir = keep ? dir : NULL;
	return backup_list_read_at(root, &o, ret, err);
}

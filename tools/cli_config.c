/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration that a command goes by, and the archive that it means. */
#include "tools/cli.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void print_errors(const struct config_report *report)
{
	char line[CONFIG_LINE_MAX];

	fflush(stdout);
	for (size_t i = 0; i < report->n; i++) {
		if (report->messages[i].severity != CONFIG_ERROR)
			continue;
		config_message_format(&report->messages[i], line);
		fprintf(stderr, "%s\n", line);
	}
}

int cli_config(struct cli *c, const struct config **ret, struct err *err)
{
	cleanup_config_report struct config_report report = CONFIG_REPORT_INIT;
	struct config_options options = {.path = c->config_path, .env_path = c->env_path};

	if (!c->config_loaded) {
		if (!options.path)
			options.path = config_default_path();
		int rc = config_load(&options, &c->config, &report, err);
		if (rc) {
			print_errors(&report);
			return rc;
		}
		c->config_loaded = true;
	}
	/* Nothing was read, so nothing is configured. */
	*ret = c->config->path || c->config->env_path ? c->config : NULL;
	return 0;
}

bool cli_is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool cli_has_its_folder(const char *path)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s", path);
	char *slash = strrchr(dir, '/');
	if (!slash)
		return true;
	slash[slash == dir] = '\0';
	return cli_is_folder(dir);
}

bool cli_path_on_host(const struct config *config, const char *path, char out[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	if (!slash || cli_has_its_folder(path))
		return false;
	const char *data = config && config->data_dir ? config->data_dir : getenv("DATA_DIR");
	if (!data || !*data)
		return false;
	snprintf(out, PATH_MAX, "%s/db/%s", data, slash + 1);
	return access(out, F_OK) == 0;
}

const char *cli_of_this_host(const struct config *config, const char *archive)
{
	if (config->backup_dir && access(archive, F_OK) < 0 &&
	    access(config->backup_dir, F_OK) == 0)
		return config->backup_dir;
	return archive;
}

static int configured_root(struct cli *c, const struct config *config, const char *db,
                           const char **ret, struct err *err)
{
	const struct config_database *d = db ? config_find_database(config, db) : NULL;
	const char *root = d ? d->archive : config->archive, *other = NULL;

	for (size_t i = 0; i < config->n_databases && !d; i++) {
		const char *archive = config->databases[i].archive;
		if (i == 0)
			root = archive;
		else if (strcmp(archive, root) != 0)
			other = archive;
	}
	if (other)
		return cli_usage(c, err, "which archive? --archive %.150s or %.150s", root, other);
	if (!root)
		return cli_usage(c, err,
		                 "the configuration '%.200s' names no archive (give "
		                 "--archive)",
		                 config->path ? config->path : config->env_path);
	*ret = cli_of_this_host(config, root);
	return 0;
}

int cli_archive_root(struct cli *c, const char *given, const char *db, const char **ret,
                     struct err *err)
{
	const struct config *config;

	if (given && !*given)
		return cli_usage(c, err, "no archive named: --archive is empty");
	if (!given && !c->config_path)
		given = getenv("ASOF_ARCHIVE");
	if (given && *given) {
		*ret = given;
		return 0;
	}
	int rc = cli_config(c, &config, err);
	if (rc)
		return rc;
	if (!config)
		return cli_usage(c, err,
		                 "no archive named: give --archive, set ASOF_ARCHIVE, or write "
		                 "asof.yml");
	return configured_root(c, config, db, ret, err);
}

int cli_open_archive_of(struct cli *c, const char *given, const char *db, struct archive **ret,
                        struct err *err)
{
	const char *root;
	int rc = cli_archive_root(c, given, db, &root, err);

	return rc ? rc : cli_read_archive(c, root, ret, err);
}

int cli_open_archive(struct cli *c, const char *given, struct archive **ret, struct err *err)
{
	return cli_open_archive_of(c, given, NULL, ret, err);
}

/* Whether a zone says what the text means: it is another moment an hour further east. */
static bool depends_on_zone(const char *text, int64_t now_us)
{
	cleanup_zone struct zone *east = NULL;
	int64_t here, there;

	if (zone_open("<+01>-1", &east, NULL) ||
	    time_parse_in(text, now_us, NULL, &here, NULL, NULL) ||
	    time_parse_in(text, now_us, east, &there, NULL, NULL))
		return false; /* no time at all: then that is said */
	return here != there;
}

int cli_time_configured(struct cli *c, const char *what, const char *text, int64_t now_us,
                        int64_t *ret_us, struct err *err)
{
	const struct config *config = NULL;
	int rc = depends_on_zone(text, now_us) ? cli_config(c, &config, err) : 0;

	if (rc)
		return rc;
	rc = time_parse_in(text, now_us, config ? config->zone : NULL, ret_us, NULL, err);
	return rc ? err_wrap(err, rc, "%s", what) : 0;
}

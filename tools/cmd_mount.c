/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/base/buf.h"
#include "fs/mount.h"

#define WORDS_MAX_BYTES (64 << 10)

/* Several -o are one list. */
static int add_words(struct buf *words, const char *more, struct err *err)
{
	if (!*more)
		return 0;
	int rc = words->len ? buf_append(words, ",", 1, err) : 0;
	return rc ? rc : buf_append(words, more, strlen(more), err);
}

/* What is not given comes from the configuration, if one is named: DIR, or nothing, is enough
 * then. */
static int find_places(struct cli *c, struct fs_mount_options *options, struct buf *words,
                       struct err *err)
{
	const struct config *config = NULL;
	int rc = 0;

	if (c->n_args == 2) {
		options->archive = c->args[0];
		options->mountpoint = c->args[1];
		return 0;
	}
	if ((rc = cli_config(c, &config, err)))
		return rc;
	options->mountpoint = c->n_args ? c->args[0] : config ? config->mount.dir : NULL;
	if (!options->mountpoint)
		return cli_usage(c, err, "DIR missing: the configuration has no mount either");
	if (config && config->mount.archive)
		options->archive = config->mount.archive;
	else if ((rc = cli_archive_root(c, NULL, NULL, &options->archive, err)))
		return rc;
	/* Words that are given here stand for those of the configuration. */
	return words->len || !config || !config->mount.options
	               ? 0
	               : add_words(words, config->mount.options, err);
}

/* What the configuration tells of the archive, and of where else its databases are. */
static int mount(struct cli *c, const struct fs_mount_options *options, struct err *err)
{
	struct fs_mount_options with = *options;
	struct cli_place places[CLI_ALSO_MAX];
	struct fs_mount_place also[CLI_ALSO_MAX];
	struct store_options store;

	cli_other_places(c, options->archive, places, &with.n_also);
	for (size_t i = 0; i < with.n_also; i++)
		also[i] = (struct fs_mount_place){places[i].url, places[i].options};
	cli_store_options(c, options->archive, &store);
	with.also = also;
	with.store = &store;
	return fs_mount_main(&with, err);
}

static int run_mount(struct cli *c, struct err *err)
{
	cleanup_buf struct buf words = BUF_INIT(WORDS_MAX_BYTES);
	/* Else the program's own name stands there: mount(8) calls it with nothing but words. */
	struct fs_mount_options options = {.from_fstab = strcmp(c->argv[0], c->command->name) != 0};
	int id, rc = 0;

	while (!rc && (id = cli_option(c, err)) > 0) {
		switch (id) {
		case 'o':
			rc = add_words(&words, c->arg, err);
			break;
		case 'f':
			options.foreground = true;
			break;
		default: /* what mount(8) hands on to a helper: nothing here depends on it */
			break;
		}
	}
	if (rc || id < 0)
		return rc ? rc : id;
	if ((rc = cli_check_args(c, c->config_path ? 0 : 2, 2,
	                         c->n_args ? "DIR" : "ARCHIVE and DIR", err)) ||
	    (rc = find_places(c, &options, &words, err)) || (rc = buf_append(&words, "", 1, err)))
		return rc;
	options.words = (const char *)words.data;
	return mount(c, &options, err);
}

static const struct cli_option mount_options[] = {
        {'o', "options", "WORDS", "mount options, separated by commas"},
        {'f', "foreground", NULL, "stay in the foreground, log to standard error"},
        CLI_OPTION_END,
};

const struct cli_command cmd_mount = {
        .name = "mount",
        .usage = "(ARCHIVE DIR | --config FILE [DIR]) [-o WORDS] [-f]",
        .summary = "Mounts an archive: every past moment of its databases as plain files.",
        .details =
                "mount options:\n"
                "  allow_other            others may look, within fmode= and dmode=\n"
                "  uid=N gid=N            owner of all files (default: who mounts)\n"
                "  fmode=0400 dmode=0500  permission bits\n"
                "  tz=UTC|local|ZONE      the zone of a TIME that names none\n"
                "  list=all               directory listings without a bound\n"
                "  cache_size=N[K|M|G]    memory for decoded blocks\n"
                "  cache=DIR              where parts of a far archive are kept (cache=: nowhere)\n"
                "  cache_disk=N[K|M|G]    how much of it (default 1G)\n"
                "  also=ARCHIVE           another that has the same, in its place where it is "
                "damaged\n"
                "  log=FILE               where a mount in the background logs\n"
                "Options of mount(8) and fstab are taken too; a mount is always read-only.\n"
                "In fstab: ARCHIVE DIR fuse.asof ro,noauto,nofail 0 0\n",
        .example = "asof mount /backups /mnt",
        .options = mount_options,
        .run = run_mount,
};

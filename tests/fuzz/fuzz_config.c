/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a configuration: it loads, or says by line what is wrong; never both, never neither.
 * The first byte 'e' makes the rest a file of variables instead. */
#include "engine/config/config.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const void *data, size_t size, char path[64])
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

static void check_database(const struct config_database *d)
{
	if (!d->path == !d->dir || !d->path == (d->name != NULL) || !d->archive)
		abort();
	if (d->path && (d->path[0] != '/' || strlen(d->name) > CONFIG_NAME_MAX))
		abort();
	if (d->archive[0] != '/' || d->retention.n_tiers == 0 ||
	    d->retention.n_tiers > CONFIG_MAX_TIERS)
		abort();
	for (size_t i = 1; i < d->retention.n_tiers; i++)
		if (d->retention.tiers[i].age_us <= d->retention.tiers[i - 1].age_us)
			abort();
	for (size_t i = 0; i < d->n_destinations; i++)
		if (!d->destinations[i].name || !d->destinations[i].url ||
		    d->destinations[i].sync_interval_us <= 0)
			abort();
}

static void check(const struct config *c)
{
	for (size_t i = 0; i < c->n_databases; i++)
		check_database(&c->databases[i]);
	for (size_t i = 0; i < c->n_schedules; i++)
		if (!c->schedules[i].name || !c->schedules[i].when.text[0])
			abort();
	if (c->mount.dir && !c->mount.archive)
		abort();
	(void)config_find_database(c, "x.db");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const environment[] = {"HOME=/h", "A=a", "B=$A", NULL};
	struct config_options options = {.environment = environment, .env_path = ""};
	struct config_report report;
	struct err err = ERR_INIT;
	struct config *c = NULL;
	bool is_env = size > 0 && data[0] == 'e';
	char path[64], line[CONFIG_LINE_MAX];

	if (size > (64 << 10))
		return 0;
	int fd = file_of(data + is_env, size - is_env, path);
	*(is_env ? &options.env_path : &options.path) = path;
	int rc = config_load(&options, &c, &report, &err);
	if ((rc == 0) != (c != NULL) || (rc == 0 && report.n_errors))
		abort();
	/* LITESTREAM_CONFIG can name a file that is not there, or is no file. */
	if (rc && (rc != -ERR_USAGE || !err.msg[0]))
		abort();
	for (size_t i = 0; i < report.n; i++) {
		config_message_format(&report.messages[i], line);
		if (!report.messages[i].text[0] || strchr(line, '\n'))
			abort();
	}
	if (c)
		check(c);
	config_free(c);
	config_report_release(&report);
	close(fd);
	return 0;
}

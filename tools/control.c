/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/control.h"

#include "engine/config/config.h"
#include "engine/daemon/control.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define RUN_FOLDER "/run/asof"
#define ANSWER_TIMEOUT_S 10

/* 1: connected; 0: nobody listens there. */
static int try_path(const char *path, int *ret_fd, struct err *err)
{
	struct err why = ERR_INIT;

	if (control_connect(path, ret_fd, &why) == 0)
		return 1;
	return why.kind == ERR_NOT_FOUND || why.kind == ERR_USAGE ? 0 : err_copy(err, &why);
}

static int try_archive(const char *archive, int *ret_fd, struct err *err)
{
	char path[PATH_MAX];

	if (!archive)
		return 0;
	snprintf(path, sizeof(path), "%s/" CONTROL_NAME_IN_ARCHIVE, archive);
	return try_path(path, ret_fd, err);
}

/* *ret_broken: a configuration that cannot be read, or NULL. */
static int try_config(const struct control_place *place, const char **ret_broken, int *ret_fd,
                      struct err *err)
{
	const char *path = place->config;
	const char *file = path ? path : config_default_path();
	const struct config_options o = {.path = file, .env_path = place->env};
	cleanup_config_report struct config_report report = CONFIG_REPORT_INIT;
	cleanup_config struct config *c = NULL;
	struct err why = ERR_INIT;
	int rc;

	if (!file && !path)
		return 0;
	/* One that is broken now may be what the running daemon still goes by. */
	*ret_broken = file;
	if (config_load(&o, &c, &report, &why) < 0)
		return path && why.kind == ERR_NOT_FOUND ? err_copy(err, &why) : 0;
	*ret_broken = NULL;
	rc = c->socket ? try_path(c->socket, ret_fd, err) : try_archive(c->archive, ret_fd, err);
	for (size_t i = 0; rc == 0 && i < c->n_databases && i < 16; i++)
		rc = try_archive(c->databases[i].archive, ret_fd, err);
	return rc;
}

static int connect_to(const struct control_place *place, int *ret_fd, struct err *err)
{
	const char *runtime = getenv("RUNTIME_DIRECTORY"), *archive = getenv("ASOF_ARCHIVE");
	const char *broken = NULL;
	char path[PATH_MAX];
	int rc = 0;

	if (place->socket)
		return control_connect(place->socket, ret_fd, err);
	if (runtime) {
		snprintf(path, sizeof(path), "%s/" CONTROL_NAME, runtime);
		rc = try_path(path, ret_fd, err);
	}
	if (rc == 0)
		rc = try_config(place, &broken, ret_fd, err);
	if (rc == 0)
		rc = try_archive(place->archive ? place->archive : archive, ret_fd, err);
	if (rc == 0 && !place->config && !place->archive)
		rc = try_path(RUN_FOLDER "/" CONTROL_NAME, ret_fd, err);
	if (rc == 0 && broken)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no running asof was found, and configuration '%.200s', which would "
		               "say where, is broken (asof check lists its errors; --socket does "
		               "without)",
		               broken);
	if (rc == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no running asof was found (start `asof run`, or name its --socket "
		               "or --config)");
	return rc < 0 ? rc : 0;
}

/* The daemon keeps its times itself; this is for one that hangs. */
static unsigned patience_s(const json_t *order)
{
	const char *command = json_string_value(json_object_get(order, "command"));
	const json_t *timeout = json_object_get(order, "timeout_s");
	json_int_t s = 0;

	if (command && (strcmp(command, "pause") == 0 || strcmp(command, "drop") == 0))
		s = CONTROL_LET_GO_MAX_S;
	else if (json_is_true(json_object_get(order, "wait")))
		s = timeout ? json_integer_value(timeout) : CONTROL_SYNC_MAX_S;
	return (unsigned)s + ANSWER_TIMEOUT_S;
}

int control_ask(const struct control_place *place, json_t *order, json_t **ret, struct err *err)
{
	cleanup_fd int fd = -1;

	int rc = connect_to(place, &fd, err);
	if (rc == 0)
		rc = control_request(fd, order, patience_s(order), ret, err);
	json_decref(order);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/backup_send.h"

#include "engine/daemon/sending.h"
#include "tools/control.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <string.h>

#define PATIENCE_MS 10000

static bool takes_any(const struct config *config, const struct sending_place *p,
                      const char *const *paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (sending_takes(config, p, paths[i]))
			return true;
	return false;
}

/* A daemon finds them by itself, and tries again for as long as it takes. */
static bool has_daemon(const struct cli *c, const char *root)
{
	const struct control_place place = {
	        .config = c->config_path, .env = c->env_path, .archive = root};
	json_t *answer = NULL;
	struct err ignored = ERR_INIT;
	int rc = control_ask(&place, json_pack("{ss}", "command", "jobs"), &answer, &ignored);

	json_decref(answer);
	return rc == 0;
}

static void say(const struct sending_place *p, const struct backup_sent *s, bool daemon)
{
	if (daemon)
		printf("  %-10s %s, by the running asof run\n", "goes to", p->destination->name);
	else if (s)
		printf("  %-10s %s: %" PRIu64 " backups are there\n", "sent to",
		       p->destination->name, s->n_there);
}

static void add_json(json_t *list, const struct sending_place *p, const struct backup_sent *s,
                     bool daemon, const char *why)
{
	json_array_append_new(list, json_pack("{so so sb so so so}", "destination",
	                                      json_text(p->destination->name), "url",
	                                      json_text(p->destination->url), "by_daemon",
	                                      (int)daemon, "there", cli_json_uint(s->n_there),
	                                      "waiting", cli_json_uint(s->n_waiting), "error",
	                                      *why ? json_text(why) : json_null()));
}

static int send_to(const struct config *config, const char *root, const struct sending_place *p,
                   bool daemon, bool text, json_t *list, struct err *err)
{
	struct backup_sent sent = {0};
	struct progress progress;
	struct err why = ERR_INIT;
	const struct sending_options o = {.root = root,
	                                  .patience_ms = PATIENCE_MS,
	                                  .progress = progress_tell,
	                                  .ctx = &progress};

	progress_begin(&progress);
	progress_what(&progress, p->destination->name);
	int rc = daemon ? 0 : sending_run(config, p, &o, &sent, &why);
	progress_clear(&progress);
	cli_one_line(why.msg);
	add_json(list, p, &sent, daemon, why.msg);
	if (rc == 0 && text)
		say(p, &sent, daemon);
	if (rc)
		return err_set(
		        err, why.kind == ERR_CANCELLED ? ERR_CANCELLED : ERR_UNAVAILABLE, 0,
		        "made, but not sent to '%.60s' yet: %.300s (the next asof backup tries "
		        "again, or asof run)",
		        p->destination->name, why.msg);
	return 0;
}

int backup_send_all(struct cli *c, const char *root, const char *const *paths, size_t n, bool text,
                    json_t **ret, struct err *err)
{
	struct sending_place places[SENDING_PLACES_MAX];
	const struct config *config;
	struct err why = ERR_INIT;
	bool asked = false, daemon = false;
	int rc = cli_config(c, &config, err);

	*ret = NULL;
	if (rc)
		return rc;
	config = c->config; /* the environment alone may name a bucket */
	size_t n_places = sending_places(config, places);
	for (size_t i = 0; i < n_places; i++) {
		if (!takes_any(config, &places[i], paths, n))
			continue;
		if (!asked)
			daemon = has_daemon(c, root);
		asked = true;
		if (!*ret && !(*ret = json_array()))
			return err_set(err, ERR_NOMEM, 0, "out of memory");
		int failed = send_to(config, root, &places[i], daemon, text, *ret, &why);
		if (failed && rc == 0)
			rc = err_copy(err, &why);
		else if (failed)
			fprintf(stderr, "asof: backup: %s\n", why.msg);
	}
	return rc;
}

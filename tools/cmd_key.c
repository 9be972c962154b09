/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/base/clock.h"
#include "engine/store/crypt.h"

#include <stdio.h>
#include <string.h>

enum {
	OPT_KEY_FILE = OPT_FIRST_OWN,
	OPT_KEY_COMMAND,
};

struct key_request {
	const char *archive, *file, *command;
	bool json;
};

/* The identity that was named, else that of the configured destination, else the environment's. */
static int find_identity(struct cli *c, const struct key_request *q, struct store_options *o,
                         struct err *err)
{
	if (q->file || q->command) {
		o->key_file = q->file;
		o->key_command = q->command;
	} else if (!o->key_file && !o->key_command) {
		o->key_file = getenv("ASOF_KEY_FILE");
		o->key_command = getenv("ASOF_KEY_COMMAND");
	}
	return o->key_file || o->key_command
	               ? 0
	               : cli_usage(c, err,
	                           "no identity: give --key-file FILE, or set ASOF_KEY_FILE");
}

/* The archive as it lies there, and its keys as this identity sees them. */
static int open_ring(struct cli *c, const struct key_request *q, struct store **ret_store,
                     struct key_ring **ret, struct err *err)
{
	cleanup_key_identity struct key_identity identity = {.n_trust = 0};
	cleanup_store struct store *over = NULL;
	struct store_options o;
	const char *root;

	int rc = cli_archive_root(c, q->archive, NULL, &root, err);
	if (rc < 0)
		return rc;
	cli_settings_of(c, root, &o);
	rc = find_identity(c, q, &o, err);
	if (rc == 0)
		rc = key_identity_load(o.key_file, o.key_file ? NULL : o.key_command, &identity,
		                       err);
	if (rc == 0)
		rc = store_open(root, &o, &over, err);
	if (rc == 0)
		rc = key_ring_open(store_crypt_inner(over), &identity, false, ret, err);
	if (rc == 0)
		*ret_store = take_ptr(over);
	return rc;
}

static int run_generate(struct cli *c, struct err *err)
{
	cleanup_key_identity struct key_identity identity = {.n_trust = 0};
	char public[KEY_TEXT_MAX];

	int rc = key_identity_make(c->args[1], &identity, err);
	if (rc < 0)
		return err_kind_of(rc) == ERR_EXISTS
		               ? err_set(err, ERR_EXISTS, 0,
		                         "key: '%.300s' is there already, and is not written over",
		                         c->args[1])
		               : rc;
	key_public_format(identity.public, public);
	printf("%s\n", public);
	return 0;
}

static int run_show(struct cli *c, const struct key_request *q, struct err *err)
{
	cleanup_key_identity struct key_identity identity = {.n_trust = 0};
	char public[KEY_TEXT_MAX];

	int rc =
	        key_identity_load(c->n_args > 1 ? c->args[1] : q->file, q->command, &identity, err);
	if (rc < 0)
		return rc;
	key_public_format(identity.public, public);
	printf("%s\n", public);
	return 0;
}

static int print_list(struct key_ring *ring, bool json, struct err *err)
{
	uint8_t(*who)[KEY_BYTES];
	size_t n = key_ring_recipients(ring, &who);
	struct data_key newest;
	char text[KEY_TEXT_MAX], time[TIME_STR_MAX];
	json_t *all = json ? json_array() : NULL;

	key_ring_newest(ring, &newest);
	for (size_t i = 0; i < n; i++) {
		key_public_format(who[i], text);
		if (json)
			json_array_append_new(all, json_string(text));
		else
			printf("recipient  %s\n", text);
	}
	if (json)
		return cli_print_json(json_pack("{s:o, s:I, s:o}", "recipients", all, "keys",
		                                (json_int_t)key_ring_size(ring), "newest",
		                                cli_json_time(newest.made_us)),
		                      err);
	time_format(newest.made_us, time);
	printf("keys       %zu, the newest of %s\n", key_ring_size(ring), time);
	return 0;
}

static int run_ring(struct cli *c, const struct key_request *q, const char *what, struct err *err)
{
	cleanup_store struct store *store = NULL;
	cleanup_key_ring struct key_ring *ring = NULL;
	uint8_t public[KEY_BYTES];
	bool named = strcmp(what, "add") == 0 || strcmp(what, "remove") == 0;

	int rc = named ? key_public_parse(c->args[1], public, err) : 0;
	if (rc == 0)
		rc = open_ring(c, q, &store, &ring, err);
	if (rc < 0)
		return rc;
	if (strcmp(what, "add") == 0)
		rc = key_ring_add(ring, public, err);
	else if (strcmp(what, "remove") == 0)
		rc = key_ring_remove(ring, public, err);
	else if (strcmp(what, "rotate") == 0)
		rc = key_ring_rotate(ring, err);
	return rc < 0 ? err_wrap(err, rc, "key") : print_list(ring, q->json, err);
}

static int dispatch(struct cli *c, const struct key_request *q, struct err *err)
{
	static const struct {
		const char *name;
		int min, max;
	} verbs[] = {{"generate", 2, 2}, {"show", 1, 2},   {"list", 1, 1},
	             {"add", 2, 2},      {"remove", 2, 2}, {"rotate", 1, 1}};
	const char *verb = c->n_args ? c->args[0] : "";
	size_t i = 0;

	while (i < sizeof(verbs) / sizeof(*verbs) && strcmp(verbs[i].name, verb) != 0)
		i++;
	if (i == sizeof(verbs) / sizeof(*verbs))
		return cli_usage(c, err,
		                 "'%.40s' is none of generate, show, list, add, remove, rotate",
		                 verb);
	int rc = cli_check_args(c, verbs[i].min, verbs[i].max,
	                        i == 0 ? "generate FILE" : "the public key", err);
	if (rc < 0)
		return rc;
	if (i == 0)
		return run_generate(c, err);
	if (i == 1 && c->n_args < 2 && !q->file && !q->command)
		return cli_usage(c, err, "show: no FILE, and no --key-file");
	return i == 1 ? run_show(c, q, err) : run_ring(c, q, verb, err);
}

static int run_key(struct cli *c, struct err *err)
{
	struct key_request q = {0};
	int id;

	while ((id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_ARCHIVE:
			q.archive = c->arg;
			break;
		case OPT_KEY_FILE:
			q.file = c->arg;
			break;
		case OPT_KEY_COMMAND:
			q.command = c->arg;
			break;
		default:
			q.json = true;
		}
	}
	if (id < 0)
		return id;
	if (q.file && q.command)
		return cli_usage(c, err, "--key-file and --key-command exclude each other");
	return dispatch(c, &q, err);
}

static const struct cli_option key_options[] = {
        CLI_OPTION_ARCHIVE,
        {OPT_KEY_FILE, "key-file", "FILE",
         "the identity that reads it (default: as configured, ASOF_KEY_FILE)"},
        {OPT_KEY_COMMAND, "key-command", "CMD", "a command that prints it (ASOF_KEY_COMMAND)"},
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_key = {
        .name = "key",
        .usage = "generate FILE | show [FILE] | list | add PUBLIC | remove PUBLIC | rotate",
        .summary = "Identities, and who may read an encrypted archive.",
        .details = "An identity is a key pair in a file; its public half is what it is known by.\n"
                   "add, remove and rotate change an archive: the identity must be one of those\n"
                   "who may read it.\n",
        .example = "asof key generate /etc/asof/identity",
        .options = key_options,
        .prints = true,
        .run = run_key,
};

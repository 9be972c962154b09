/* SPDX-License-Identifier: Apache-2.0 */
/* seal_tree FROM TO IDENTITY: puts every file below the folder FROM into the encrypted store TO. */
#include "engine/store/crypt.h"

#include <stdio.h>

struct sealing {
	struct store *from, *to;
};

static int seal(void *ctx, const struct store_entry *e, struct err *err)
{
	struct sealing *s = ctx;
	cleanup_source struct source *src = NULL;

	int rc = store_open_object(s->from, e->key, e->bytes, &src, err);
	return rc < 0 ? rc : store_put(s->to, e->key, src, e->bytes, 0, err);
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	cleanup_store struct store *from = NULL, *to = NULL;

	if (argc != 4)
		return 2;
	const struct store_options options = {.key_file = argv[3], .create = true};
	int rc = store_open(argv[1], NULL, &from, &err);
	if (rc == 0)
		rc = store_open(argv[2], &options, &to, &err);
	struct sealing s = {from, to};
	if (rc == 0)
		rc = store_list(from, "", NULL, true, seal, &s, &err);
	if (rc < 0)
		fprintf(stderr, "seal_tree: %s\n", err.msg);
	return rc < 0;
}

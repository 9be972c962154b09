/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_tool URL COMMAND: what tests do with a store.
 *
 *   fill N BYTES    creates N objects whose content follows from their number
 *   check N BYTES   they are there, each as it was created
 *   again BYTES     puts object 0 again for ever, each time with other content, but whole
 *   whole BYTES     object 0 is one of those
 *   put BYTES       object 0, which may be there already, in parts if it is large
 *
 * ASOF_TEST_PATIENCE_MS and ASOF_TEST_DEBUG (to log all) are taken from the environment.
 */
#include "engine/base/log.h"
#include "engine/store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_body(uint8_t *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)((seed * 31 + i * 7) >> (i % 5));
	if (len >= 8)
		memcpy(p, &seed, 8);
}

static void key_of(uint64_t i, char out[64])
{
	snprintf(out, 64, "objects/%" PRIu64 "/o %" PRIu64, i % 3, i);
}

static int fill(struct store *s, uint64_t n, size_t len, uint8_t *p, struct err *err)
{
	int rc = 0;

	for (uint64_t i = 0; i < n && rc == 0; i++) {
		char key[64];
		key_of(i, key);
		make_body(p, len, i);
		rc = store_put_bytes(s, key, p, len, STORE_CREATE, err);
	}
	return rc;
}

static int check_one(struct store *s, uint64_t i, size_t len, bool any, uint8_t *p, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 30);
	uint64_t seed = i;
	char key[64];

	key_of(i, key);
	int rc = store_get(s, key, len, &b, err);
	if (rc < 0)
		return rc;
	if (any && b.len >= 8)
		memcpy(&seed, b.data, 8);
	make_body(p, len, seed);
	if (b.len != len || memcmp(b.data, p, len) != 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is not what was put", key);
	return 0;
}

static int count(void *ctx, const struct store_entry *e, struct err *err)
{
	++*(uint64_t *)ctx;
	return 0;
}

static int check(struct store *s, uint64_t n, size_t len, uint8_t *p, struct err *err)
{
	uint64_t listed = 0;
	int rc = store_list(s, "objects/", NULL, true, count, &listed, err);

	for (uint64_t i = 0; i < n && rc == 0; i++)
		rc = check_one(s, i, len, false, p, err);
	if (rc == 0 && listed != n)
		rc = err_set(err, ERR_DAMAGED, 0, "%" PRIu64 " objects are listed", listed);
	return rc;
}

static int again(struct store *s, size_t len, uint8_t *p, struct err *err)
{
	char key[64];
	int rc = 0;

	key_of(0, key);
	for (uint64_t seed = 1; rc == 0 && seed < 100000; seed++) {
		make_body(p, len, seed);
		rc = store_put_bytes(s, key, p, len, 0, err);
	}
	return rc;
}

static int put(struct store *s, size_t len, uint8_t *p, struct err *err)
{
	char key[64];

	key_of(0, key);
	make_body(p, len, 0);
	return store_put_bytes(s, key, p, len, 0, err);
}

int main(int argc, char **argv)
{
	const char *patience = getenv("ASOF_TEST_PATIENCE_MS");
	const struct store_options options = {.create = true,
	                                      .patience_ms = patience ? atoi(patience) : 15000};
	cleanup_store struct store *s = NULL;
	struct err err = ERR_INIT;

	if (argc < 4)
		return 2;
	if (getenv("ASOF_TEST_DEBUG"))
		log_set_level(LOG_DEBUG);
	uint64_t n = strtoull(argv[3], NULL, 10);
	size_t len = argc > 4 ? strtoul(argv[4], NULL, 10) : (size_t)n;
	uint8_t *p = malloc(len + 1);
	int rc = store_open(argv[1], &options, &s, &err);
	if (rc == 0)
		rc = strcmp(argv[2], "fill") == 0    ? fill(s, n, len, p, &err)
		     : strcmp(argv[2], "check") == 0 ? check(s, n, len, p, &err)
		     : strcmp(argv[2], "again") == 0 ? again(s, len, p, &err)
		     : strcmp(argv[2], "put") == 0   ? put(s, len, p, &err)
		                                     : check_one(s, 0, len, true, p, &err);
	if (rc < 0)
		fprintf(stderr, "store_tool: %s (%s)\n", err.msg, err_kind_name(err.kind));
	free(p);
	return rc < 0;
}

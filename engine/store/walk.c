/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/store_i.h"

#include <stdio.h>
#include <string.h>

void store_items_release(struct store_items *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->e[i].name);
	free(l->e);
}

static int item_compare(const void *a, const void *b)
{
	return strcmp(((const struct store_item *)a)->name, ((const struct store_item *)b)->name);
}

int store_items_add(struct store_items *l, const char *name, bool folder, uint64_t bytes,
                    int64_t modified_us, struct err *err)
{
	size_t len = strlen(name);

	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		struct store_item *p = reallocarray(l->e, cap, sizeof(*p));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
		l->e = p;
		l->cap = cap;
	}
	char *copy = malloc(len + 2);
	if (!copy)
		return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
	memcpy(copy, name, len + 1);
	if (folder)
		memcpy(copy + len, "/", 2);
	l->e[l->n++] = (struct store_item){copy, bytes, folder ? 0 : modified_us};
	return 0;
}

/* Whether all below the folder `key` (which ends with '/') comes before `after`. */
static bool passed(const char *key, const char *after)
{
	return after && strcmp(key, after) < 0 && strncmp(key, after, strlen(key)) != 0;
}

static int walk_folder(const struct store_walk *w, const char *folder, const char *begin,
                       struct err *err)
{
	struct store_items l CLEANUP(store_items_release) = {0};
	char key[STORE_KEY_MAX + 1];

	int rc = w->read(w->read_ctx, folder, begin, &l, err);
	if (l.n)
		qsort(l.e, l.n, sizeof(*l.e), item_compare);
	for (size_t i = 0; i < l.n && rc == 0; i++) {
		const struct store_item *e = &l.e[i];
		bool is_folder = e->name[strlen(e->name) - 1] == '/';
		if ((size_t)snprintf(key, sizeof(key), "%s%s", folder, e->name) >= sizeof(key))
			continue; /* no key of ours is as long */
		if (is_folder && w->deep) {
			if (!passed(key, w->after))
				rc = walk_folder(w, key, "", err);
		} else if (store_list_wants(key, "", w->after)) {
			struct store_entry out = {key, e->bytes, e->modified_us};
			rc = w->fn(w->ctx, &out, err);
		}
	}
	return rc;
}

int store_walk(const struct store_walk *w, const char *prefix, struct err *err)
{
	const char *slash = strrchr(prefix, '/');
	char folder[STORE_KEY_MAX + 1];

	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash + 1 - prefix) : 0, prefix);
	return walk_folder(w, folder, slash ? slash + 1 : prefix, err);
}

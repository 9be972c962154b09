/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/sent.h"

#include "engine/base/json.h"
#include "engine/daemon/sending.h"

#include <stdlib.h>
#include <string.h>

void sent_places_release(struct sent_places *p)
{
	for (size_t i = 0; i < p->n; i++)
		backup_sent_close(p->items[i].note);
	free(p->items);
	*p = (struct sent_places){0};
}

static bool goes_from(const struct config *c, const struct sending_place *p, const char *root)
{
	const char *roots[SENDING_PLACES_MAX];
	size_t n = sending_roots(c, p, roots);

	for (size_t i = 0; i < n; i++)
		if (strcmp(roots[i], root) == 0)
			return true;
	return false;
}

int sent_places_read(const struct config *c, const char *root, struct sent_places *ret,
                     struct err *err)
{
	cleanup_sent_places struct sent_places p = {0};
	struct sending_place places[SENDING_PLACES_MAX];
	size_t n = sending_places(c, places);
	int rc = 0;

	*ret = (struct sent_places){0};
	p.items = calloc(n + 1, sizeof(*p.items));
	if (!p.items)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (!goes_from(c, &places[i], root))
			continue;
		struct sent_place *to = &p.items[p.n];
		rc = backup_sent_open(root, places[i].destination->url, &to->note, err);
		if (rc == 0) {
			snprintf(to->name, sizeof(to->name), "%s", places[i].destination->name);
			p.n++;
		}
	}
	if (rc < 0)
		return rc;
	*ret = p;
	p = (struct sent_places){0};
	return 0;
}

json_t *sent_places_of(const struct sent_places *p, const struct backup_entry *e)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n; i++)
		if (backup_sent_where(p->items[i].note, e) == BACKUP_SENT_THERE)
			json_array_append_new(list, json_text(p->items[i].name));
	return list;
}

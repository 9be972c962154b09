/* SPDX-License-Identifier: Apache-2.0 */
/* Where each backup of an archive lies besides: for the API and the page, by the notes of those who send
 * them; nothing is asked of a store. */
#ifndef ASOF_OBSERVE_SENT_H
#define ASOF_OBSERVE_SENT_H

#include "engine/backup/backup.h"
#include "engine/config/config.h"
#include "engine/monitor/health.h"

struct sent_places {
	struct sent_place {
		char name[64];
		struct sent_state *note;
	} * items;
	size_t n;
};
/* Of the backups in `root`. */
int sent_places_read(const struct config *c, const char *root, struct sent_places *ret,
                     struct err *err) MUST_USE;
void sent_places_release(struct sent_places *p);
#define cleanup_sent_places CLEANUP(sent_places_release)
/* The names of the places where it lies: an array. */
json_t *sent_places_of(const struct sent_places *p, const struct backup_entry *e);

#endif

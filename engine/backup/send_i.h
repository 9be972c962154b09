/* SPDX-License-Identifier: Apache-2.0 */
/* What send.c and sent.c share: what is known of one store. */
#ifndef ASOF_BACKUP_SEND_I_H
#define ASOF_BACKUP_SEND_I_H

#include "engine/backup/send.h"

struct sent_state {
	struct backup_sent known;
	json_t *settled; /* {"TYPE/NAME": true}: those here that lie there, manifest and all */
};

/* What there is, else empty. */
int sent_read(const char *root, const char *url, struct sent_state *ret, struct err *err) MUST_USE;
int sent_write(const char *root, const struct sent_state *s, struct err *err) MUST_USE;
void sent_release(struct sent_state *s);
#define cleanup_sent_state CLEANUP(sent_release)

#endif

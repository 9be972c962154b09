/* SPDX-License-Identifier: Apache-2.0 */
/* What send.c and sent.c share: what is known of one store. */
#ifndef ASOF_BACKUP_SEND_I_H
#define ASOF_BACKUP_SEND_I_H

#include "engine/backup/send.h"

struct sent_state {
	struct backup_sent known;
	/* {"TYPE/NAME": true}: those here that lie there, manifest and all; false: that its rules would
	 * not keep there. */
	json_t *settled;
	/* {"TYPE/NAME": {"db", "raw", "bytes", "time_us"}}: that were sent from here and lie there */
	json_t *ours;
	json_t *doomed; /* {"TYPE/NAME": since}: send.h (6) */
};

/* What there is, else empty. */
int sent_read(const char *root, const char *url, struct sent_state *ret, struct err *err) MUST_USE;
int sent_write(const char *root, const struct sent_state *s, struct err *err) MUST_USE;
void sent_release(struct sent_state *s);
/* How a run ended: well, or not, since when. */
void sent_conclude(struct sent_state *s, const struct err *why);
/* What is noted of one that lies there: NULL without memory. */
json_t *sent_item_json(const struct backup_entry *e);
/* ---- expire.c; `keys` are those that the store has ---- */

/* Of each entry that is here, whether the rules would not keep it there, beside what lies there. */
int expire_unwanted(const struct backup_send_options *o, struct sent_state *st,
                    const char *const *keys, size_t n, const struct backup_list *here,
                    int64_t now_us, bool *unwanted, struct err *err) MUST_USE;
int expire_run(const struct backup_send_options *o, struct sent_state *st, const char *const *keys,
               size_t n, int64_t now_us, struct err *err) MUST_USE;

#define cleanup_sent_state CLEANUP(sent_release)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the archive keeps of the destinations that its histories are sent to (ship/ship.h), for
 * people; and what a month of it costs, about.
 */
#ifndef ASOF_TOOLS_DESTINATIONS_H
#define ASOF_TOOLS_DESTINATIONS_H

#include "engine/ship/ship.h"
#include "tools/cli.h"

/* Of one database: an array of objects, for --json. */
json_t *destinations_json(struct cli *c, const char *root, const char *db);
/* Lines below those of the database, for `asof status`. */
void destinations_print(struct cli *c, const char *root, const char *db, int64_t now_us);

/* Dollars a month, as of what was asked for since `since_us`. */
struct destination_price {
	double requests, storage, transfer; /* estimates */
	double days;                        /* that they are made from */
};
void destination_price(const struct ship_status *s, int64_t now_us, struct destination_price *ret);
/* Tables over all databases, for `asof stats`: what was sent, and what retention let go there; none
 * where there is nothing of it. */
int destinations_table(struct cli *c, const char *root, char *const *names, size_t n,
                       int64_t now_us, struct err *err) MUST_USE;
/* The destination of this name or URL of an archive's database; where two databases of the archive have it,
 * that of `db`.  NULL: none. */
const struct config_destination *destinations_configured(const struct config *c,
                                                         const char *archive, const char *db,
                                                         const char *dest);
/* The URL of a destination of the configuration by its name; a URL or path stands for itself. */
int destinations_find(struct cli *c, const char *db, const char *dest, const char **ret,
                      bool *ret_is_archive, struct err *err) MUST_USE;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* asof validate --repair, and without that option what it would do: engine/repair/repair.h. */
#ifndef ASOF_TOOLS_REPAIRING_H
#define ASOF_TOOLS_REPAIRING_H

#include "engine/repair/repair.h"
#include "engine/verify/verify.h"
#include "tools/cli.h"

struct repairing {
	struct cli *cli;
	const char *root;
	bool repair; /* else it is only told */
	bool json;
	json_t *steps; /* with json */
	struct store_options store_options;
	struct store *target;
	struct store *stores[CLI_ALSO_MAX];
	struct repair_place others[CLI_ALSO_MAX];
	size_t n_others;
	struct repair_result result; /* of all so far */
	bool tells;                  /* of what can be repaired, at the end */
	uint64_t n_gone;             /* backups that another place has alone; */
	char gone_from[4096];        /* the last of these */
};

/* Opens the archive and its other places, these as cli_open_places() has it. */
int repairing_open(struct repairing *r, struct cli *c, const char *root, bool repair, bool json,
                   struct err *err) MUST_USE;
void repairing_close(struct repairing *r);
/* Databases whose folder is there and whose note `source` is not: they are no databases to readers. */
int repairing_lost(struct repairing *r, struct err *err) MUST_USE;
/* *ret_left: one is not as it should be. */
int repairing_notes(struct repairing *r, const char *name, bool *ret_left,
                    struct err *err) MUST_USE;
/* After `report`: what it found damaged (`all`: whatever is), and what is missing.  *ret_put: something was put back;
 * *ret_left: something is not as it should be. */
int repairing_history(struct repairing *r, const struct verify_report *report, bool all,
                      bool *ret_put, bool *ret_left, struct err *err) MUST_USE;
/* Backups: with --repair all are looked at; else of these keys (TYPE/FILE) it is told. */
int repairing_backups(struct repairing *r, const char *const *suspects, size_t n,
                      struct err *err) MUST_USE;
/* Says how what can be repaired is, if there was any since it was last said. */
void repairing_conclude(struct repairing *r);

#endif

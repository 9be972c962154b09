/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of the control socket (engine/daemon/control.h). */
#ifndef ASOF_TOOLS_CONTROL_H
#define ASOF_TOOLS_CONTROL_H

#include "tools/cli.h"

/* Where the daemon may listen; all of them may be NULL. */
struct control_place {
	const char *socket;       /* there and nowhere else */
	const char *config, *env; /* else as this configuration, or the default one, says; */
	const char *archive;      /* or in this archive, or $ASOF_ARCHIVE */
};

/*
 * Sends `order`, which it takes over, and waits for the answer: *ret, to be given back with
 * json_decref().  The error of an answer is the error.  NOT_FOUND: no daemon listens.
 */
int control_ask(const struct control_place *place, json_t *order, json_t **ret,
                struct err *err) MUST_USE;

#endif

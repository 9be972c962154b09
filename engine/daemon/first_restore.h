/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore at start: a database whose configuration says `restore_if_missing`, and whose file is not
 * there, is brought back from its archive, or from the first of its destinations that has it,
 * before anything else begins.  Where none has it there is nothing to do: it is a new one.
 */
#ifndef ASOF_DAEMON_FIRST_RESTORE_H
#define ASOF_DAEMON_FIRST_RESTORE_H

#include "engine/config/config.h"

/* Ends early when a signal to stop is pending (ERR_CANCELLED).  An error is one that must keep the
 * daemon from starting: going on would begin an empty history where there is a past. */
int first_restore(const struct config *c, struct err *err) MUST_USE;

#endif

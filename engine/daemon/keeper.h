/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: at idle priority, seals closed segments, joins small ones, coalesces, makes new
 * bases (compact/compact.h decides what), and makes the page table durable now and then.
 */
#ifndef ASOF_DAEMON_KEEPER_H
#define ASOF_DAEMON_KEEPER_H

#include "engine/daemon/recorder.h"

struct keeper;
int keeper_start(struct recorder *r, struct keeper **ret, struct err *err) MUST_USE;
/* NULL is fine. */
void keeper_stop(struct keeper *k);

#endif

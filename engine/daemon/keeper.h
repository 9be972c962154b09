/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: at idle priority, seals closed segments, joins small ones, coalesces, makes new
 * bases (compact/compact.h decides what), and makes the page table durable now and then.  A task
 * of the pool `keep`, asleep while its database is.
 */
#ifndef ASOF_DAEMON_KEEPER_H
#define ASOF_DAEMON_KEEPER_H

#include "engine/daemon/recorder.h"

struct keeper;
int keeper_new(struct recorder *r, struct keeper **ret, struct err *err) MUST_USE;
/* After recorder_start(). */
int keeper_start(struct keeper *k, struct err *err) MUST_USE;
/* Has it end soon; keeper_free() waits for that.  NULL is fine. */
void keeper_stop(struct keeper *k);
/* After the recorder has ended, before it is freed.  NULL is fine. */
void keeper_free(struct keeper *k);

#endif

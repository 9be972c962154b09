/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: at idle priority, seals closed segments, joins small ones, coalesces, makes new
 * bases (compact/compact.h decides what), and makes the page table durable now and then.  A task
 * of the pool `keep`, asleep while its database is.
 */
#ifndef ASOF_DAEMON_KEEPER_H
#define ASOF_DAEMON_KEEPER_H

#include "engine/daemon/recorder.h"

/* More segments than so many, the one written to among them, do not wait for the application. */
#define KEEPER_PATIENT_UNSEALED 6u
/*
 * Whether there is nothing to look at but what is to wait: then the archive is not even opened, as
 * that reads what is being written back from the disk.  `cut` segments wait as far as the recorder
 * knows; `counted`: a step has looked how many there were before.
 */
bool keeper_leaves_all(bool busy, bool counted, uint64_t cut);

struct keeper;
int keeper_new(struct recorder *r, struct keeper **ret, struct err *err) MUST_USE;
/* After recorder_start(). */
int keeper_start(struct keeper *k, struct err *err) MUST_USE;
/* Has it end soon; keeper_free() waits for that.  NULL is fine. */
void keeper_stop(struct keeper *k);
/* After the recorder has ended, before it is freed.  NULL is fine. */
void keeper_free(struct keeper *k);

#endif

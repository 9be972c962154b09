/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks that threads of different priority take.  Capture may run ahead of everything else
 * (capture_thread_begin()): whoever holds what it waits for must not wait for a processor
 * behind all the others, so he is lent its priority meanwhile (PTHREAD_PRIO_INHERIT).
 */
#ifndef ASOF_BASE_LOCK_H
#define ASOF_BASE_LOCK_H

#include <pthread.h>

static inline void lock_init_inherit(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared libraries that are loaded when they are first wanted.  Linked in, libcurl, libssh2 and
 * libmicrohttpd with the 30 libraries that they want would make each start of each command several
 * times as long, and most commands speak to no network.
 *
 *	#define FOO_FUNCTIONS(F) F(open) F(close)
 *	struct foo_api {
 *	#define FOO_MEMBER(name) __typeof__(foo_##name) *name;
 *		FOO_FUNCTIONS(FOO_MEMBER)
 *	};
 *
 * The table is a struct of nothing but pointers to functions, in the order of their names.
 */
#ifndef ASOF_BASE_LIBRARY_H
#define ASOF_BASE_LIBRARY_H

#include "engine/base/err.h"

#include <pthread.h>
#include <stddef.h>

/* One that stays for the process's life; has static storage. */
struct library {
	const char *file, *package; /* "libcurl.so.4"; what to install where it is missing */
	const char *const *names;
	size_t n_names;
	void *table;
	int (*begin)(void); /* called once when it is loaded; not 0: it is of no use; may be NULL */
	pthread_mutex_t lock; /* what follows */
	int state;            /* 0: not asked for yet, 1: loaded, -1: it cannot be */
	char problem[200];
};

/* Loads it unless that was done; any thread.  The table can be used from then on. */
int library_load(struct library *l, struct err *err) MUST_USE;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ownership by scope: a variable with one of these attributes is released when it
 * goes out of scope; take_ptr() and take_fd() hand it over instead.
 * Releasing never commits anything: what can fail has a `finish` of its own.
 */
#ifndef ASOF_BASE_CLEANUP_H
#define ASOF_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fd_(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}

static inline void cleanup_dir_(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static inline void cleanup_file_(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void cleanup_unlock_(pthread_mutex_t **lock)
{
	if (*lock)
		pthread_mutex_unlock(*lock);
}

#define CLEANUP(fn) __attribute__((cleanup(fn), unused))
#define cleanup_free CLEANUP(cleanup_free_)
#define cleanup_fd CLEANUP(cleanup_fd_)
#define cleanup_dir CLEANUP(cleanup_dir_)
#define cleanup_file CLEANUP(cleanup_file_)

/* Holds a mutex until the end of the scope. */
#define LOCK_SCOPE(m)                                                                              \
	pthread_mutex_t *lock_scope_ CLEANUP(cleanup_unlock_) __attribute__((unused)) = (m);       \
	pthread_mutex_lock(lock_scope_)

/* Defines the cleanup function of a type that has `void NAME_free(struct NAME *)`. */
#define DEFINE_CLEANUP(type, free_fn)                                                              \
	static inline void free_fn##_p(type **p)                                                   \
	{                                                                                          \
		if (*p)                                                                            \
			free_fn(*p);                                                               \
	}                                                                                          \
	struct cleanup_semicolon_

#define take_ptr(p)                                                                                \
	({                                                                                         \
		__typeof__(p) taken_ = (p);                                                        \
		(p) = NULL;                                                                        \
		taken_;                                                                            \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

#endif

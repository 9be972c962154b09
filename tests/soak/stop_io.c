/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD: a disk that stops.  fsync and fdatasync do not return while the file that STOP_IO
 * names exists.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_for_the_disk(void)
{
	const char *name = getenv("STOP_IO");

	while (name && access(name, F_OK) == 0)
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

#define WRAP(name)                                                                                 \
	__attribute__((visibility("default"))) int name(int fd);                                   \
	int name(int fd)                                                                           \
	{                                                                                          \
		static int (*real)(int);                                                           \
		if (!real)                                                                         \
			*(void **)&real = dlsym(RTLD_NEXT, #name);                                 \
		wait_for_the_disk();                                                               \
		return real(fd);                                                                   \
	}

WRAP(fsync)
WRAP(fdatasync)

/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/ssh2.h"

#include "engine/base/library.h"

static struct ssh2_api api;

static int begin(void)
{
	return api.init(0);
}

int ssh2_load(struct err *err)
{
#define SSH2_NAME(name) "libssh2_" #name,
	static const char *const names[] = {SSH2_FUNCTIONS(SSH2_NAME)};
	static struct library library = {
	        .file = "libssh2.so.1",
	        .package = "libssh2-1",
	        .names = names,
	        .n_names = sizeof(names) / sizeof(*names),
	        .table = &api,
	        .begin = begin,
	        .lock = PTHREAD_MUTEX_INITIALIZER,
	};

	_Static_assert(sizeof(api) == sizeof(names), "a pointer for each name");
	return library_load(&library, err);
}

const struct ssh2_api *ssh2(void)
{
	return &api;
}

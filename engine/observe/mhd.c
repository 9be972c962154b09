/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/mhd.h"

#include "engine/base/library.h"

static struct mhd_api api;

int mhd_load(struct err *err)
{
#define MHD_NAME(name) "MHD_" #name,
	static const char *const names[] = {MHD_FUNCTIONS(MHD_NAME)};
	static struct library library = {
	        .file = "libmicrohttpd.so.12",
	        .package = "libmicrohttpd12",
	        .names = names,
	        .n_names = sizeof(names) / sizeof(*names),
	        .table = &api,
	        .lock = PTHREAD_MUTEX_INITIALIZER,
	};

	_Static_assert(sizeof(api) == sizeof(names), "a pointer for each name");
	return library_load(&library, err);
}

const struct mhd_api *mhd(void)
{
	return &api;
}

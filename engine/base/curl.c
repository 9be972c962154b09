/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/curl.h"

#include "engine/base/library.h"

static struct curl_api api;

static int begin(void)
{
	return api.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -1;
}

int curl_load(struct err *err)
{
#define CURL_NAME(name) "curl_" #name,
	static const char *const names[] = {CURL_FUNCTIONS(CURL_NAME)};
	static struct library library = {
	        .file = "libcurl.so.4",
	        .package = "libcurl4",
	        .names = names,
	        .n_names = sizeof(names) / sizeof(*names),
	        .table = &api,
	        .begin = begin,
	        .lock = PTHREAD_MUTEX_INITIALIZER,
	};

	_Static_assert(sizeof(api) == sizeof(names), "a pointer for each name");
	return library_load(&library, err);
}

const struct curl_api *curl(void)
{
	return &api;
}

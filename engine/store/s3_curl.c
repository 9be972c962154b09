/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_curl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define CURL_LIBRARY "libcurl.so.4"

static struct {
	pthread_once_t once;
	struct curl_api api;
	char problem[200]; /* empty: loaded */
} loaded = {.once = PTHREAD_ONCE_INIT};

static void find(void *library, const char *name, void *ret, size_t size)
{
	void *p = dlsym(library, name);

	if (!p)
		snprintf(loaded.problem, sizeof(loaded.problem), "it has no %s", name);
	memcpy(ret, &p, size);
}

static void load(void)
{
	struct curl_api *a = &loaded.api;
	void *library = dlopen(CURL_LIBRARY, RTLD_NOW | RTLD_LOCAL); /* for the process's life */

	if (!library) {
		snprintf(loaded.problem, sizeof(loaded.problem), "%s", dlerror());
		return;
	}
#define FIND(name) find(library, "curl_" #name, &a->name, sizeof(a->name))
	FIND(global_init);
	FIND(easy_init);
	FIND(easy_setopt);
	FIND(easy_getinfo);
	FIND(easy_perform);
	FIND(easy_reset);
	FIND(easy_cleanup);
	FIND(easy_strerror);
	FIND(slist_append);
	FIND(slist_free_all);
	FIND(getdate);
	if (!loaded.problem[0] && a->global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		snprintf(loaded.problem, sizeof(loaded.problem), "it does not initialise");
}

int curl_api_get(const struct curl_api **ret, struct err *err)
{
	pthread_once(&loaded.once, load);
	*ret = &loaded.api;
	if (!loaded.problem[0])
		return 0;
	return err_set(err, ERR_IO, 0, "load " CURL_LIBRARY ": %s (install the package libcurl4)",
	               loaded.problem);
}

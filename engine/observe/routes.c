/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/routes.h"

#include <string.h>

static const struct http_route *const tables[] = {routes_health, routes_metrics, routes_api,
                                                  routes_page};

static bool path_fits(const char *pattern, const char *path, const char **ret_rest)
{
	size_t len = strlen(pattern);

	*ret_rest = NULL;
	if (len < 2 || pattern[len - 1] != '*')
		return strcmp(pattern, path) == 0;
	if (strncmp(pattern, path, len - 1) != 0 || !path[len - 1])
		return false;
	*ret_rest = path + len - 1;
	return true;
}

const struct http_route *routes_find(const char *method, const char *path, const char **ret_rest,
                                     const char **ret_allow)
{
	bool head = strcmp(method, "HEAD") == 0;

	*ret_allow = "";
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct http_route *r = tables[i]; r->method; r++) {
			if (!path_fits(r->path, path, ret_rest))
				continue;
			if (strcmp(r->method, head ? "GET" : method) == 0)
				return r;
			*ret_allow = r->method;
		}
	return NULL;
}

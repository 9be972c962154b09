/* SPDX-License-Identifier: Apache-2.0 */
/* All routes, by the file that has them; see http.h. */
#ifndef ASOF_OBSERVE_ROUTES_H
#define ASOF_OBSERVE_ROUTES_H

#include "engine/observe/http.h"

extern const struct http_route routes_health[];  /* health.c: /health */
extern const struct http_route routes_metrics[]; /* metrics.c: /metrics */
extern const struct http_route routes_api[];     /* api.c: /api/v1/… */
extern const struct http_route routes_page[];    /* page.c: / and /api/v1/page/… */

/* The route of a request; NULL: none.  *ret_rest as http_request has it; *ret_allow: "", or the
 * method that the path has instead. */
const struct http_route *routes_find(const char *method, const char *path, const char **ret_rest,
                                     const char **ret_allow);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* libcurl, loaded when it is first wanted (library.h). */
#ifndef ASOF_BASE_CURL_H
#define ASOF_BASE_CURL_H

#include "engine/base/err.h"

#include <curl/curl.h>

/* clang-format off */
#define CURL_FUNCTIONS(F) \
	F(global_init) F(easy_init) F(easy_setopt) F(easy_getinfo) F(easy_perform) \
	F(easy_reset) F(easy_cleanup) F(easy_strerror) F(easy_unescape) F(slist_append) \
	F(slist_free_all) F(getdate) F(free) F(multi_init) F(multi_cleanup) \
	F(multi_add_handle) F(multi_remove_handle) F(multi_perform) F(multi_poll) \
	F(multi_wakeup) F(multi_info_read) F(url) F(url_cleanup) F(url_get) F(url_set)
/* clang-format on */

/* (Some of these names are macros, too, which check types and change nothing.) */
struct curl_api {
#define CURL_MEMBER(name) __typeof__(curl_##name) *name;
	CURL_FUNCTIONS(CURL_MEMBER)
#undef CURL_MEMBER
};

/* Loads it once for the process; any thread. */
int curl_load(struct err *err) MUST_USE;
/* Its functions, after curl_load() went well. */
const struct curl_api *curl(void);

#endif

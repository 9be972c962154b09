/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl, loaded when the first request is made.  Linked in, it and the 30 libraries that it wants
 * would cost every start of every command 8 ms and 1.2 MB of private memory, and most archives are
 * directories: what never speaks HTTP is not to pay for it.  (As long as monitor/send.c links it, the
 * program does pay.)
 */
#ifndef ASOF_STORE_S3_CURL_H
#define ASOF_STORE_S3_CURL_H

#include "engine/base/err.h"

#include <curl/curl.h>

/* (curl.h makes macros of some, which check types and change nothing.) */
struct curl_api {
	CURLcode (*global_init)(long flags);
	CURL *(*easy_init)(void);
	CURLcode (*easy_setopt)(CURL *handle, CURLoption option, ...);
	CURLcode (*easy_getinfo)(CURL *handle, CURLINFO info, ...);
	CURLcode (*easy_perform)(CURL *handle);
	void (*easy_reset)(CURL *handle);
	void (*easy_cleanup)(CURL *handle);
	const char *(*easy_strerror)(CURLcode code);
	struct curl_slist *(*slist_append)(struct curl_slist *list, const char *line);
	void (*slist_free_all)(struct curl_slist *list);
	time_t (*getdate)(const char *text, const time_t *unused);
};

/* Loads it once for the process; any thread. */
int curl_api_get(const struct curl_api **ret, struct err *err) MUST_USE;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the page share.  Not for others. */
#ifndef ASOF_OBSERVE_PAGE_I_H
#define ASOF_OBSERVE_PAGE_I_H

#include "engine/observe/http.h"
#include "engine/observe/observe.h"

/* The database that a request names by "db", its history open. */
struct page_db {
	struct observe *observe;
	struct facts *facts;
	const struct health_database *database; /* of the facts */
	struct archive *archive;
	struct history *history;
};
/* On an error nothing is left open. */
int page_open(const struct http_request *q, struct page_db *ret, struct err *err) MUST_USE;
void page_close(struct page_db *p);
#define cleanup_page_db CLEANUP(page_close)
/* The one that a request names by "tx" or "at". */
int page_moment(const struct http_request *q, struct history *h, struct moment *ret,
                struct err *err) MUST_USE;
json_t *page_int(uint64_t n);

http_handler page_get_moment;
http_handler page_get_backups, page_post_backup, page_post_validate;

#endif

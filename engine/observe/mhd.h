/* SPDX-License-Identifier: Apache-2.0 */
/* libmicrohttpd, loaded when it is first wanted (base/library.h). */
#ifndef ASOF_OBSERVE_MHD_H
#define ASOF_OBSERVE_MHD_H

#include "engine/base/err.h"

#include <microhttpd.h>

/* clang-format off */
#define MHD_FUNCTIONS(F) \
	F(start_daemon) F(stop_daemon) F(lookup_connection_value) F(get_connection_info) \
	F(add_response_header) F(queue_response) F(create_response_from_callback) \
	F(create_response_from_buffer) F(destroy_response) \
	F(basic_auth_get_username_password) F(free)
/* clang-format on */

/* (Some of these names are macros, too, which check types and change nothing.) */
struct mhd_api {
#define MHD_MEMBER(name) __typeof__(MHD_##name) *name;
	MHD_FUNCTIONS(MHD_MEMBER)
#undef MHD_MEMBER
};

/* Loads it once for the process; any thread. */
int mhd_load(struct err *err) MUST_USE;
/* Its functions, after mhd_load() went well. */
const struct mhd_api *mhd(void);

#endif

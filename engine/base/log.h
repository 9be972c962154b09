/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One log sink, on standard error or in a file, a line each:
 *
 *     2026-11-22T21:33:00.123456Z warn capture gap declared db=x.db from=12 to=15
 *     {"time":"2026-11-22T21:33:00.123456Z","level":"warn","module":"capture",
 *      "message":"gap declared db=x.db from=12 to=15"}                          (one line, too)
 *
 * Messages are lower case without a full stop and name the object.  Thread-safe: one line is one
 * write(2).  In the text no byte below 0x20 is left but the end of the line; the JSON is valid
 * whatever the bytes were ('?' for what is no UTF-8).
 *
 * A file needs no logrotate.  (1) Before a line that would take it past `max_bytes` FILE becomes
 * FILE.1, FILE.1 becomes FILE.2, and so on; of these `keep` stay, with 0 the file begins anew.
 * (2) A file that somebody else moved away or removed is made anew within a second.  (3) When
 * neither is possible lines go on into the file that is open.
 */
#ifndef ASOF_BASE_LOG_H
#define ASOF_BASE_LOG_H

#include "engine/base/err.h"

#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
/* Where lines go instead of standard error (tests, a mount's log); -1: nowhere.  The caller's. */
void log_set_fd(int fd);
/* Lines go to a file (0600, made if missing, appended to) until log_set_fd().  max_bytes 0: without
 * a bound.  On an error nothing has changed. */
int log_set_file(const char *path, uint64_t max_bytes, unsigned keep, struct err *err) MUST_USE;

void log_write(enum log_level level, const char *module, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

#define log_error(module, ...) log_write(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_write(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_write(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_write(LOG_DEBUG, module, __VA_ARGS__)

#endif

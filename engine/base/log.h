/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One log sink, in logfmt on standard error:
 *
 *     2026-11-22T21:33:00.123456Z warn capture gap declared db=x.db from=12 to=15
 *
 * Messages are lower case without a full stop and name the object.  Thread-safe: one
 * line is one write(2).
 */
#ifndef ASOF_BASE_LOG_H
#define ASOF_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Set once, before threads start. */
void log_set_level(enum log_level level);
/* Where lines go instead of standard error (tests, daemon's log file); -1: nowhere. */
void log_set_fd(int fd);

void log_write(enum log_level level, const char *module, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

#define log_error(module, ...) log_write(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_write(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_write(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_write(LOG_DEBUG, module, __VA_ARGS__)

#endif

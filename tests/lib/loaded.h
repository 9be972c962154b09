/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of the configuration share: one is written to a folder of its own, and read. */
#ifndef ASOF_TESTS_LOADED_H
#define ASOF_TESTS_LOADED_H

#include "engine/base/clock.h"
#include "engine/config/config.h"

#include <limits.h>

#define HOUR_US (3600 * US_PER_SECOND)
#define DAY_US (24 * HOUR_US)

/* The folder, from make_folder() to remove_folder(). */
extern char folder[PATH_MAX];
int make_folder(void **state);
int remove_folder(void **state);

const char *in_folder(const char *name); /* good until the next call */
void write_bytes(const char *name, const char *text, size_t len);
void write_text(const char *name, const char *text);

struct loaded {
	struct config *c;
	struct config_report report;
	struct err err;
	int rc;
};
void release(struct loaded *x);
#define cleanup_loaded __attribute__((cleanup(release)))

/* What there is without `environment` below. */
extern const char *const no_environment[];
/* `env`: the text of an environment file, NULL: there is none.  The real environment does not
 * count. */
struct loaded load_with(const char *yaml, size_t len, const char *env,
                        const char *const *environment);
struct loaded load(const char *yaml);
struct loaded load_well(const char *yaml); /* without an error, or the test fails */

void print_messages(const struct config_report *r);
bool has_message(const struct config_report *r, enum config_severity severity, unsigned line,
                 const char *words);
/* All errors are of that file. */
bool is_of_file(const struct config_report *r, const char *file);
/* Exactly these errors: "LINE words" each. */
void expect_errors(const char *yaml, const char *const *want, size_t n);
void expect_error(const char *yaml, const char *want);

#endif

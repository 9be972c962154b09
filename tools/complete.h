/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shell offers when somebody presses the tab key.
 *
 * The scripts in tools/completions know nothing of the program; they call
 *
 *     asof --complete WORD...
 *
 * with the words behind "asof" up to the cursor, the last one as far as it is typed (it may be
 * empty).  The answer is lines: first what the shell itself shall add, "files", "folders" or
 * "nothing", then one candidate a line, VALUE, a tab, and what it means.  Candidates begin with the
 * word that is being typed; of `--option=VALUE` they are whole.
 *
 * All of it comes from the tables of options and from the usage lines, so that there is no second
 * list; names of databases come from the archive that the words, $ASOF_ARCHIVE or the configuration
 * name.  What cannot be found out is not offered, and is no error.
 */
#ifndef ASOF_TOOLS_COMPLETE_H
#define ASOF_TOOLS_COMPLETE_H

#include "tools/cli.h"

/* `words` are the n_words >= 1 described above. */
int complete_words(const struct cli_command *const *commands, size_t n_commands, char *const *words,
                   size_t n_words, struct err *err) MUST_USE;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of a statement, as they come, on standard output.
 *
 *   TABLE  for people: long values cut, NULL and blobs told as such
 *   CSV    RFC 4180 with a header and LF: NULL is nothing, an empty text is ""; a blob is x'HEX'
 *   JSON   an array of objects, one a line.  A blob, and a text that is no UTF-8, is
 *          {"hex": "…"}; infinity is 9.0e+999, as SQLite writes it; of columns with one name the
 *          second is called NAME:1
 *
 * Nothing is printed before the first row is there, or the end: a statement that fails at once
 * leaves no half of an output.
 */
#ifndef ASOF_TOOLS_ROWS_H
#define ASOF_TOOLS_ROWS_H

#include "engine/base/err.h"

#include <sqlite3.h>

enum rows_format { ROWS_TABLE, ROWS_CSV, ROWS_JSON };

/* Steps the statement to its end and prints its rows.  *ret_code is SQLite's last code; the error
 * returned is one of output or memory. */
int rows_print(sqlite3_stmt *s, enum rows_format format, int *ret_code, struct err *err) MUST_USE;

#endif

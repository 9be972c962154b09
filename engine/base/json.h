/* SPDX-License-Identifier: Apache-2.0 */
/* Texts from anywhere (paths, names, reasons that were cut to fit), and moments, as JSON. */
#ifndef ASOF_BASE_JSON_H
#define ASOF_BASE_JSON_H

#include <jansson.h>
#include <stdint.h>

/*
 * jansson refuses what is no UTF-8, and with it the whole answer: here a '?' stands for each byte
 * that belongs to no character.  null for NULL; NULL only without memory.
 */
json_t *json_text(const char *text);
/* A moment as time_format() writes it; null for 0. */
json_t *json_moment(int64_t time_us);

#endif

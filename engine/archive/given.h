/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which marks this archive gave to one place (a destination, a copy).  One that was taken away here goes
 * there only where it stands in this list, and there is still the very note that was given: what others
 * marked there stays.
 *
 * The file given-XXXXXXXX beside the history: "asof-given 1", "denied" where deletion was, "seen TIME",
 * then of each mark the hash of its note and its file, "0123456789abcdef NAME.mark".  Disposable: marks
 * that the place has and the archive, too, come into it again.  Used by one process at a time for each
 * place.
 *
 * A mark can be taken away before any list has it: the place has it from elsewhere (another spelling of
 * its URL, a copy of this archive that was sent there), and nobody has looked since.  So whoever takes one
 * away writes it down first, in the file `unmarked`: "asof-unmarked 1", then of each the time, and as above.
 * Each list takes in what was written there since it was last read (`seen`), and goes on as if it had
 * given them.
 */
#ifndef ASOF_ARCHIVE_GIVEN_H
#define ASOF_ARCHIVE_GIVEN_H

#include "engine/archive/names.h"
#include "engine/base/buf.h"
#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GIVEN_FILE_MAX (DB_NAME_MAX + 8)
#define GIVEN_UNMARKED "unmarked"

struct given_mark {
	char file[GIVEN_FILE_MAX];
	uint64_t hash; /* of the note's bytes: given_hash() */
};
struct given_marks {
	struct given_mark *e;
	size_t n, cap;
	int64_t seen_us; /* of `unmarked`: up to here it is in the list */
	bool denied;     /* deletion there was, and it was said */
	bool changed;    /* since it was read or written */
};

uint64_t given_hash(const void *note, size_t len);
/* The text of such a list, which parsing changes; of another version it is empty. */
int given_marks_parse(char *text, struct given_marks *ret, struct err *err) MUST_USE;
int given_marks_format(const struct given_marks *g, struct buf *ret, struct err *err) MUST_USE;
/* Nothing known gives an empty list, but for what is in `unmarked`. */
int given_marks_get(int dir_fd, const char *place, struct given_marks *ret,
                    struct err *err) MUST_USE;
int given_marks_put(int dir_fd, const char *place, struct given_marks *g, struct err *err) MUST_USE;
/* All marks of the folder `dir_fd`, as they are now. */
int given_marks_take(int dir_fd, struct given_marks *g, struct err *err) MUST_USE;
/* Replaces what it has under that name. */
int given_marks_set(struct given_marks *g, const char *file, uint64_t hash,
                    struct err *err) MUST_USE;
/* By its file; SIZE_MAX: it is not in it. */
size_t given_marks_find(const struct given_marks *g, const char *file);
/* Whether it has that mark, as that very note. */
bool given_marks_has(const struct given_marks *g, const struct given_mark *m);
/* Over the whole list. */
uint64_t given_marks_hash(const struct given_marks *g);
void given_marks_drop(struct given_marks *g, size_t i);
void given_marks_release(struct given_marks *g);
/* NAME.mark is about to be taken away: before it is.  Nothing is done where there is none.  Not by two at
 * once (upkeep.h). */
int given_note_removal(int dir_fd, const char *file, struct err *err) MUST_USE;
#define cleanup_given_marks CLEANUP(given_marks_release)

#endif

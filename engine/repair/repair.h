/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive repaired from other places of the same: what is damaged or missing in it is put back.
 *
 *  (1) Nothing whole is ever replaced: an object was read twice as damaged, by whoever suspects it
 *      and here, before anything is put under its key.
 *  (2) What is put was read in full, checked, and lies here when it is put; it is read back and
 *      checked again afterwards.
 *  (3) A damaged original in a directory is moved aside, not deleted: FILE.damaged-TIME beside it
 *      (aside_name_parse()).  No reader looks at such names; asof cleanup removes them after
 *      ASIDE_KEEP_US.  At a store it is overwritten.
 *  (4) Where no place has an object under its very name (segments are joined and cut otherwise from
 *      place to place), it is made anew of the transactions that any place has, and counts only
 *      if what it is then called, by lineage, transactions and times, is what was lost.
 *  (5) Transactions that are missing come as sealed segments.  So no key of level 0 is ever
 *      written: those are their writer's, which may be running.  What is damaged of level 0 is then
 *      covered, and passed over by readers; the writer deletes it in its own time.
 *  (6) Nothing is put before where the archive begins, nor behind its end: how far the writer
 *      came is known to head, and to the local archive of a destination.
 *  (7) What is put belongs to a lineage that both describe alike: a history that went another way
 *      since, as after a take-over, repairs nothing.  Nor do copies that both went on, behind the
 *      last transaction whose time they tell alike, but for what has its very name here.  What is left
 *      of a damaged segment tells times, too, and a directory knows how far it brought its
 *      destination; where neither does, the newest segment cannot be repaired until it is not.
 *  (8) A run that ended anywhere has put whole objects, or none; the next goes on.
 */
#ifndef ASOF_REPAIR_REPAIR_H
#define ASOF_REPAIR_REPAIR_H

#include "engine/base/clock.h"
#include "engine/base/err.h"
#include "engine/store/store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct repair_place {
	struct store *store; /* the caller's */
	const char *label;   /* as people write it; the URL */
};

enum repair_outcome {
	REPAIR_DONE,
	REPAIR_POSSIBLE, /* a dry run: it would be done */
	REPAIR_WHOLE,    /* read again it is whole: left alone */
	REPAIR_COVERED,  /* damaged, and no longer needed: sealed segments hold what it held */
	/* Missing, another place has it, and whether somebody or a rule let it go here cannot be told:
	 * nothing is done.  `txid`: of a mark, its moment; 0: it is a backup. */
	REPAIR_BY_HAND,
	REPAIR_FAILED, /* see `why` */
};
struct repair_step {
	const char *key; /* local/NAME/FOLDER/FILE */
	bool missing;    /* else it is damaged */
	enum repair_outcome outcome;
	const char *from; /* label; the archive's own where it was made anew of what is there */
	const char *why;  /* what is wrong with it, and why it stays so; may be "" */
	uint64_t txid;
};

struct repair_options {
	struct repair_place target;
	const struct repair_place *others;
	size_t n_others;
	bool dry_run; /* nothing is put; what takes more than one step is told in part */
	/* Objects to be looked at, FOLDER/FILE; NULL: all. */
	const char *const *suspects;
	size_t n_suspects;
	const _Atomic bool *stop; /* may be NULL; CANCELLED once it is true */
	void (*told)(void *ctx, const struct repair_step *s); /* of each step; may be NULL */
	void *ctx;
};

struct repair_result {
	uint64_t n[REPAIR_FAILED + 1]; /* steps, by outcome */
	uint64_t bytes;                /* put */
};

/*
 * The notes of a database: lineages, gaps, marks, `source`, `thinned`, `expiring`, who writes.
 *
 *   source, lineage, gap   back when damaged or missing
 *   mark                   back when damaged.  A missing one comes back to a store from a directory,
 *                          since only there marks are taken away; else BY_HAND
 *   thinned                is each place's own: a damaged one comes from the very same alone
 *   expiring               a damaged one is taken away: retention lists anew, and waits once more
 *   writer                 who alone may write: a damaged one is made anew if a directory among the
 *                          others proves that it was its own, by its identity and what is left of
 *                          the note
 */
int repair_notes(const struct repair_options *options, const char *name, struct repair_result *ret,
                 struct err *err) MUST_USE;
/* Its objects, after its notes. */
int repair_objects(const struct repair_options *options, const char *name,
                   struct repair_result *ret, struct err *err) MUST_USE;
/* Backups and their manifests: a file whose bytes are not those of its manifest's sha256, or a
 * manifest that cannot be read; and the one of the two that is missing.  Where both are: BY_HAND. */
int repair_backups(const struct repair_options *options, struct repair_result *ret,
                   struct err *err) MUST_USE;

#endif

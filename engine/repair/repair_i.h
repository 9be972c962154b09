/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of repair/ share.  Not for others. */
#ifndef ASOF_REPAIR_REPAIR_I_H
#define ASOF_REPAIR_REPAIR_I_H

#include "engine/archive/head.h"
#include "engine/archive/names.h"
#include "engine/archive/notes.h"
#include "engine/repair/repair.h"
#include "engine/view/replay.h"
#include "engine/view/way.h"

#include <limits.h>

#define ITEM_FILE_MAX (OBJECT_NAME_MAX + 16)
#define REPAIR_NOTE_MAX ((size_t)64 << 20)

enum item_kind { ITEM_NOTE, ITEM_GROWING, ITEM_SEALED, ITEM_TABLE, ITEM_COALESCED, ITEM_SNAPSHOT };

/* A file of a history, as it was listed. */
struct item {
	char file[ITEM_FILE_MAX]; /* FOLDER/FILE, or FILE */
	uint64_t bytes;
	enum item_kind kind;
	struct object_name name; /* last_txid 0 of a growing one: not known yet */
	bool fence;              /* a growing one that holds nothing */
	bool bad;                /* read here as damaged */
};
struct items {
	struct item *v; /* sorted by file */
	size_t n, cap;
};
/* For one more. */
int items_room(struct items *is, struct err *err) MUST_USE;

/* One place and what it has of the database. */
struct site {
	struct repair_place at;
	struct items items;
	bool same;               /* it is the history of this very database */
	uint64_t shared_txid;    /* up to here that is proved: behind, it may be another's */
	bool parted;             /* it went another way, or whether it did is not known */
	struct archive *archive; /* opened with the others to stand in; NULL: not yet */
	struct history *history;
};

struct repair {
	const struct repair_options *options;
	struct repair_result *result;
	const char *name; /* NULL: the backups */
	struct site target;
	struct site *others;
	size_t n_others;
	char scratch[PATH_MAX]; /* "": none yet */
	int scratch_fd;
	int lock_fd, upkeep_fd; /* of a directory */
	bool changed;
	/* What the target holds, as far as it is known without looking at every object. */
	struct head head;
	bool have_head, writer_alive;
	struct thinned_note thinned;
	bool thinned_lost; /* the note is damaged: what is missing is not known */
	struct gap_note *gaps;
	size_t n_gaps;
	struct way_known *known; /* transactions and their times, the newest first */
	size_t n_known;
	uint64_t begin_txid, end_txid;
	uint64_t
	        left_txid; /* up to here its newest segment reached, by what is left of it; 0: unknown */
	/* Where the newest segment begins, if it is damaged and nothing tells how far it reached; else 0. */
	uint64_t endless_txid;
};

/* ---- site.c ---- */
int site_list(struct repair *r, struct site *s, struct err *err) MUST_USE;
struct item *site_find(const struct site *s, const char *file);
void site_release(struct site *s);
void repair_key(const struct repair *r, const char *file, char out[STORE_KEY_MAX]);
/* A store that is another's: freeing it leaves that alone.  What `hidden` has marked bad is not
 * there. */
int site_borrow(const struct site *s, const char *db, bool hide_bad, struct store **ret,
                struct err *err) MUST_USE;
/* The history as site `s` has it, with the others to stand in, and without what is damaged in the
 * target. */
int site_history(struct repair *r, struct site *s, struct history **ret, struct err *err) MUST_USE;
void site_close(struct site *s);
/* Both describe this lineage alike. */
int site_agrees(struct repair *r, const struct site *s, uint32_t lineage, bool *ret,
                struct err *err) MUST_USE;

/* ---- fork.c ---- */
/* What the target tells of its transactions; then, how far the other tells the same: as the target has
 * it whole, as what is left of a damaged segment says, or as the one knows that it brought the other. */
int fork_know(struct repair *r, struct err *err) MUST_USE;
int fork_find(struct repair *r, struct site *s, struct err *err) MUST_USE;
bool fork_none(const struct repair *r, const struct site *s);

/* ---- whole.c: reading an object in full ---- */
/* Takes the source over.  DAMAGED: it is.  Of a growing one and of a fence fills in what `item` could
 * not tell.  `durable_len`: of a growing one that is written to; 0: all of it counts where `whole`,
 * else what its records prove. */
int whole_check(struct source *src, struct item *item, uint64_t durable_len, bool whole,
                struct err *err) MUST_USE;
/* A table against the segment that it belongs to; takes both over. */
int whole_check_table(struct source *table, struct source *segment, const char *file,
                      struct err *err) MUST_USE;
/* USAGE: no note that is known. */
int whole_check_note(const char *file, const struct buf *text, struct err *err) MUST_USE;
/* The first transaction that it speaks of: of a lineage, a gap or a mark; else 0. */
uint64_t whole_note_begins(const char *file, const struct buf *text);

/* ---- writer.c ---- */
/* Up to where the directory brought that store, as it noted, if it alone is the store's writer; else 0. */
uint64_t writer_brought(struct repair *r, const struct site *dir, const struct site *store);
/* The note as it was, from what is left of it.  *ret_from NULL: nobody proves that it was his. */
int writer_again(struct repair *r, const char *file, const struct buf *was, struct buf *ret,
                 const char **ret_from, struct err *err) MUST_USE;

/* ---- put.c ---- */
/* Takes it away: of a directory by giving it another name. */
int put_away(struct repair *r, const char *key, struct err *err) MUST_USE;
int put_scratch(struct repair *r, struct err *err) MUST_USE;
/* The bytes of `key` at that place, as the file `name` in the scratch folder. */
int put_fetch(struct repair *r, const struct site *from, const char *key, const char *name,
              struct err *err) MUST_USE;
/* The scratch file under that key of the target; `missing`: it must not be there. */
int put_file(struct repair *r, const char *name, const char *key, bool missing,
             struct err *err) MUST_USE;
int put_bytes(struct repair *r, const char *key, const void *p, size_t len, bool missing,
              struct err *err) MUST_USE;
/* Of a directory: gives it another name; `keep`: and leaves it. */
int put_aside(struct repair *r, const char *key, bool keep, struct err *err) MUST_USE;
void put_drop(struct repair *r, const char *name);
/* Deletes what lies in a folder. */
void put_empty(int dir_fd);
void repair_tell(struct repair *r, const char *key, bool missing, enum repair_outcome outcome,
                 const char *from, const char *why);
/* `txid`: see REPAIR_BY_HAND. */
void repair_tell_by_hand(struct repair *r, const char *key, const char *from, uint64_t txid);
int repair_stopped(const struct repair *r, struct err *err);
bool repair_ends(int rc, const struct err *why);

/* ---- make.c: objects made anew, in the scratch folder ---- */
/* Of what any place has.  NOT_FOUND: none can make it.  *ret_from: label of the first of them. */
int make_again(struct repair *r, const struct item *item, const char **ret_from,
               struct err *err) MUST_USE;
/* A sealed segment of transactions from `first` on, `last` at most. */
int make_segment(struct repair *r, uint64_t first, uint64_t last, struct object_name *ret,
                 const char **ret_from, struct err *err) MUST_USE;
/* A sealed segment of the first transaction of a segment of level 0, which a snapshot alone holds. */
int make_idle(struct repair *r, const struct item *item, struct object_name *ret,
              const char **ret_from, struct err *err) MUST_USE;

/* ---- fill.c: what is missing ---- */
int fill_segments(struct repair *r, struct err *err) MUST_USE;
int fill_bases(struct repair *r, struct err *err) MUST_USE;

/* ---- target.c: what the target holds, and who else is at work there ---- */
int repair_begin(struct repair *r, const struct repair_options *o, const char *name,
                 struct repair_result *result, struct err *err) MUST_USE;
void repair_end(struct repair *r);
/* Lists, locks; and, where the notes are whole, learns what they say. */
int target_begin(struct repair *r, struct err *err) MUST_USE;
int target_know(struct repair *r, struct err *err) MUST_USE;
void target_end(struct repair *r);
/* The segment that a running writer writes to, or began meanwhile. */
bool target_is_written(const struct repair *r, const struct item *i);
/* Behind which transaction a growing segment, or one of level 0, cannot reach. */
uint64_t target_bound(const struct repair *r, const struct item *i);
bool is_fine(const struct item *i);
int target_add(struct repair *r, const struct item *i, struct err *err) MUST_USE;
/* A line more for the state of the listing: read again, is it damaged? */
int target_look(struct repair *r, struct item *i, struct err *ret_why, struct err *err) MUST_USE;

/* ---- objects.c ---- */
/* A whole copy of it, under its name, from any place; *ret_did false: none has it, *why says so. */
int objects_copy(struct repair *r, const struct item *item, bool missing, const char *what,
                 bool *ret_did, struct err *err) MUST_USE;
/* The same from that one. */
int objects_copy_from(struct repair *r, struct site *from, const struct item *item, bool missing,
                      const char *what, bool *ret_did, struct err *err) MUST_USE;
/* What was made in the scratch folder under its own name, to its place, with its table. */
int objects_install(struct repair *r, const struct item *item, bool missing, const char *from,
                    const char *what, struct err *err) MUST_USE;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The objects of a history: those that are damaged are copied from a place that has them whole, or
 * made anew; then what is missing is filled in.
 */
#include "engine/base/log.h"
#include "engine/repair/repair_i.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FETCHED "fetched"
#define FETCHED_TABLE "fetched-table"

static void table_of(const struct item *i, char out[ITEM_FILE_MAX])
{
	struct object_name n = i->name;
	char name[OBJECT_NAME_MAX];

	n.type = OBJECT_COMMITS;
	object_name_format(&n, name);
	snprintf(out, ITEM_FILE_MAX, "segment/%s", name);
}

/* ---- putting what lies in the scratch folder ---- */

static int read_back(struct repair *r, const struct item *item, struct err *err)
{
	struct item again = *item;
	struct err why;

	again.bytes = UINT64_MAX; /* what was put may have another length */
	int rc = target_look(r, &again, &why, err);
	return rc == 0 && why.kind ? err_copy(err, &why) : rc;
}

/* `table`: of the scratch folder; NULL: none. */
static int put_with_table(struct repair *r, const struct item *item, const char *name,
                          const char *table, bool missing, const char *from, const char *what,
                          struct err *err)
{
	char key[STORE_KEY_MAX], table_file[ITEM_FILE_MAX], table_key[STORE_KEY_MAX];
	int rc = 0;

	repair_key(r, item->file, key);
	if (r->options->dry_run) {
		repair_tell(r, key, missing, REPAIR_POSSIBLE, from, what);
		return 0;
	}
	if (table) { /* before the segment, as it was sealed */
		table_of(item, table_file);
		repair_key(r, table_file, table_key);
		rc = put_file(r, table, table_key, !site_find(&r->target, table_file), err);
	}
	rc = rc ? rc : put_file(r, name, key, missing, err);
	rc = rc ? rc : read_back(r, item, err);
	if (rc == 0)
		repair_tell(r, key, missing, REPAIR_DONE, from, what);
	return rc;
}

int objects_install(struct repair *r, const struct item *item, bool missing, const char *from,
                    const char *what, struct err *err)
{
	const char *name = strchr(item->file, '/') + 1;
	char table[ITEM_FILE_MAX];
	bool has_table = item->kind == ITEM_SEALED;

	table_of(item, table);
	int rc = put_with_table(r, item, name, has_table ? strchr(table, '/') + 1 : NULL, missing,
	                        from, what, err);
	put_drop(r, name);
	if (has_table)
		put_drop(r, strchr(table, '/') + 1);
	return rc;
}

/* ---- a copy ---- */

/* The place's table, if it has one that is right. */
static int fetch_table(struct repair *r, struct site *from, const struct item *item,
                       const char *segment, bool *ret_has, struct err *err)
{
	struct source *t = NULL, *s = NULL;
	char file[ITEM_FILE_MAX], key[STORE_KEY_MAX];
	struct err why = ERR_INIT;

	*ret_has = false;
	table_of(item, file);
	repair_key(r, file, key);
	if (!site_find(from, file))
		return 0;
	int rc = put_fetch(r, from, key, FETCHED_TABLE, &why);
	rc = rc ? rc : source_open_file(r->scratch_fd, FETCHED_TABLE, file, &t, &why);
	rc = rc ? rc : source_open_file(r->scratch_fd, segment, item->file, &s, &why);
	if (rc < 0)
		source_free(t);
	rc = rc ? rc : whole_check_table(t, s, file, &why);
	*ret_has = rc == 0;
	return repair_ends(rc, &why) ? err_copy(err, &why) : 0;
}

static int fetch_whole(struct repair *r, struct site *from, const struct item *item,
                       struct err *err)
{
	struct source *src = NULL;
	struct item check = *item;
	char key[STORE_KEY_MAX];

	repair_key(r, item->file, key);
	int rc = put_fetch(r, from, key, FETCHED, err);
	rc = rc ? rc : source_open_file(r->scratch_fd, FETCHED, item->file, &src, err);
	return rc ? rc : whole_check(src, &check, 0, true, err);
}

int objects_copy_from(struct repair *r, struct site *from, const struct item *item, bool missing,
                      const char *what, bool *ret_did, struct err *err)
{
	struct err why = ERR_INIT;
	bool agrees = false, table = false;

	*ret_did = false;
	if (!from->same || !site_find(from, item->file))
		return 0;
	/* What is missing has no name here that would tell it from another's. */
	if (missing && item->name.last_txid > from->shared_txid)
		return 0;
	int rc = site_agrees(r, from, item->name.lineage, &agrees, &why);
	if (rc == 0 && !agrees)
		return 0;
	rc = rc ? rc : fetch_whole(r, from, item, &why);
	if (rc < 0) {
		put_drop(r, FETCHED);
		return repair_ends(rc, &why) ? err_copy(err, &why) : 0;
	}
	if (item->kind == ITEM_SEALED)
		rc = fetch_table(r, from, item, FETCHED, &table, err);
	rc = rc ? rc
	        : put_with_table(r, item, FETCHED, table ? FETCHED_TABLE : NULL, missing,
	                         from->at.label, what, err);
	put_drop(r, FETCHED);
	put_drop(r, FETCHED_TABLE);
	*ret_did = rc == 0;
	return rc;
}

int objects_copy(struct repair *r, const struct item *item, bool missing, const char *what,
                 bool *ret_did, struct err *err)
{
	int rc = 0;

	*ret_did = false;
	for (size_t i = 0; i < r->n_others && rc == 0 && !*ret_did; i++)
		rc = objects_copy_from(r, &r->others[i], item, missing, what, ret_did, err);
	return rc;
}

/* ---- what is damaged ---- */

static int repair_one(struct repair *r, struct item *i, const char *what, struct err *err)
{
	const struct item item = *i;
	char key[STORE_KEY_MAX], text[480];
	const char *from;
	struct err why = ERR_INIT;
	bool did;

	repair_key(r, item.file, key);
	int rc = objects_copy(r, &item, false, what, &did, err);
	if (rc < 0)
		return rc;
	if (!did) {
		rc = make_again(r, &item, &from, &why);
		if (repair_ends(rc, &why))
			return err_copy(err, &why);
		if (rc == 0)
			rc = objects_install(r, &item, false, from, what, err);
		else {
			snprintf(text, sizeof(text), "%.300s; %.150s", what, why.msg);
			repair_tell(r, key, false, REPAIR_FAILED, NULL, text);
			return 0;
		}
	}
	if (rc == 0 && !r->options->dry_run)
		i->bad = false;
	return rc;
}

static bool is_suspect(const struct repair *r, const struct item *i)
{
	const struct repair_options *o = r->options;

	if (!o->suspects)
		return true;
	for (size_t k = 0; k < o->n_suspects; k++)
		if (strcmp(o->suspects[k], i->file) == 0)
			return true;
	return false;
}

/* A second reading, where the first was here. */
static int confirm(struct repair *r, struct item *i, struct err *why, struct err *err)
{
	int rc = target_look(r, i, why, err);

	if (rc == 0 && why->kind && !r->options->suspects)
		rc = target_look(r, i, why, err);
	if (rc == 0)
		i->bad = why->kind != ERR_NONE;
	return rc;
}

/* Marks what is damaged; what can be put back object by object is, at once. */
static int look_at_all(struct repair *r, struct err **ret_why, struct err *err)
{
	struct err *why = calloc(r->target.items.n + 1, sizeof(*why));

	*ret_why = why;
	if (!why)
		return err_set(err, ERR_NOMEM, 0, "no memory to repair");
	for (size_t i = 0; i < r->target.items.n; i++) {
		struct item *o = &r->target.items.v[i];
		if (o->kind == ITEM_NOTE || o->kind == ITEM_TABLE || !is_suspect(r, o) ||
		    target_is_written(r, o))
			continue;
		struct err gone = ERR_INIT;
		int rc = confirm(r, o, &why[i], &gone);
		if (err_kind_of(rc) == ERR_NOT_FOUND) /* joined into another meanwhile */
			continue;
		if (rc < 0)
			return err_copy(err, &gone);
	}
	return 0;
}

static int repair_damaged(struct repair *r, const struct err *why, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < r->target.items.n && rc == 0; i++) {
		struct item *o = &r->target.items.v[i];
		if (o->bad && o->kind != ITEM_GROWING)
			rc = repair_one(r, o, why[i].msg, err);
	}
	return rc;
}

/* ---- tables ---- */

static int check_table(struct repair *r, const struct item *i, const char *file, struct err *why)
{
	struct source *t = NULL, *s = NULL;
	char key[STORE_KEY_MAX];

	repair_key(r, file, key);
	int rc = store_open_object(r->target.at.store, key, UINT64_MAX, &t, why);
	repair_key(r, i->file, key);
	rc = rc ? rc : store_open_object(r->target.at.store, key, UINT64_MAX, &s, why);
	if (rc < 0) {
		source_free(t);
		return rc;
	}
	return whole_check_table(t, s, file, why);
}

static int put_table(struct repair *r, const char *file, const char *name, bool missing,
                     const struct item *i, const char *from, const char *what, struct err *err)
{
	char key[STORE_KEY_MAX];
	int rc = 0;

	repair_key(r, file, key);
	if (!r->options->dry_run) {
		rc = put_file(r, name, key, missing, err);
		rc = rc ? rc : check_table(r, i, file, err);
	}
	if (rc == 0)
		repair_tell(r, key, missing, r->options->dry_run ? REPAIR_POSSIBLE : REPAIR_DONE,
		            from, what);
	return rc;
}

/* From a place that has it, else made from the segment itself. */
static int repair_table(struct repair *r, const struct item *i, const char *file, bool missing,
                        const char *what, struct err *err)
{
	char key[STORE_KEY_MAX];
	const char *from = NULL;
	struct err why = ERR_INIT;

	repair_key(r, i->file, key);
	int rc = put_fetch(r, &r->target, key, FETCHED, err);
	for (size_t k = 0; k < r->n_others && rc == 0 && !from; k++) {
		bool has = false;
		if (r->others[k].same)
			rc = fetch_table(r, &r->others[k], i, FETCHED, &has, err);
		if (rc == 0 && has) {
			from = r->others[k].at.label;
			rc = put_table(r, file, FETCHED_TABLE, missing, i, from, what, err);
		}
	}
	put_drop(r, FETCHED);
	put_drop(r, FETCHED_TABLE);
	if (rc < 0 || from)
		return rc;
	rc = make_again(r, i, &from, &why);
	if (rc == 0) {
		rc = put_table(r, file, strchr(file, '/') + 1, missing, i, from, what, err);
		put_drop(r, strchr(file, '/') + 1);
		put_drop(r, strchr(i->file, '/') + 1);
		return rc;
	}
	repair_key(r, file, key);
	if (!repair_ends(rc, &why)) {
		repair_tell(r, key, missing, REPAIR_FAILED, NULL, why.msg);
		return 0;
	}
	return err_copy(err, &why);
}

static int look_at_table(struct repair *r, const struct item *i, struct err *err)
{
	char file[ITEM_FILE_MAX];
	struct err why = ERR_INIT;

	table_of(i, file);
	if (!site_find(&r->target, file))
		return repair_table(r, i, file, true, "it is missing", err);
	if (!is_suspect(r, i))
		return 0;
	int rc = check_table(r, i, file, &why);
	if (err_kind_of(rc) == ERR_DAMAGED)
		return repair_table(r, i, file, false, why.msg, err);
	return rc < 0 && why.kind != ERR_NOT_FOUND ? err_copy(err, &why) : 0;
}

static int repair_tables(struct repair *r, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < r->target.items.n && rc == 0; i++) {
		const struct item item = r->target.items.v[i];
		if (item.kind == ITEM_SEALED && !item.bad)
			rc = look_at_table(r, &item, err);
	}
	return rc;
}

/* ---- all of it ---- */

static void close_all(struct repair *r)
{
	site_close(&r->target);
	for (size_t i = 0; i < r->n_others; i++)
		site_close(&r->others[i]);
}

/* What was found whole though it was suspected. */
static void tell_whole(struct repair *r)
{
	for (size_t i = 0; i < r->options->n_suspects; i++) {
		const struct item *o = site_find(&r->target, r->options->suspects[i]);
		char key[STORE_KEY_MAX], table[ITEM_FILE_MAX];
		if (!o || o->bad || o->kind == ITEM_NOTE || target_is_written(r, o))
			continue;
		table_of(o, table);
		repair_key(r, o->file, key);
		log_debug("repair", "whole key=%s", key);
	}
}

static int run(struct repair *r, struct err *err)
{
	cleanup_free struct err *why = NULL;

	int rc = target_begin(r, err);
	rc = rc ? rc : target_know(r, err);
	rc = rc ? rc : look_at_all(r, &why, err);
	if (rc == 0)
		tell_whole(r);
	rc = rc ? rc : repair_damaged(r, why, err);
	rc = rc ? rc : repair_tables(r, err);
	close_all(r); /* what was put is seen from here on */
	if (rc < 0 || r->thinned_lost)
		return rc;
	rc = fill_segments(r, err);
	close_all(r);
	return rc ? rc : fill_bases(r, err);
}

int repair_objects(const struct repair_options *options, const char *name,
                   struct repair_result *ret, struct err *err)
{
	struct repair r;

	int rc = repair_begin(&r, options, name, ret, err);
	rc = rc ? rc : run(&r, err);
	repair_end(&r);
	return rc;
}

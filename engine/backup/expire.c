/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes from a store again: send.h (6).  The plan is that of local retention (plan.c), over what
 * lies there; what is still on its way does not count, so that nothing goes for the sake of what never
 * came.
 */
#include "engine/backup/backup_i.h"
#include "engine/backup/send_i.h"
#include "engine/base/log.h"
#include "engine/store/denials.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct expiring {
	const struct backup_send_options *options;
	struct sent_state *state;
	const char *const *keys;
	size_t n_keys;
	int64_t now_us;
	struct denials denials;
	struct err denial; /* the first */
};

/* ---- what lies there and is ours ---- */

static bool type_of(const char *key, enum backup_type *ret, const char **ret_name)
{
	for (int type = 0; type < BACKUP_N_TYPES; type++) {
		size_t n = strlen(backup_type_names[type]);
		if (strncmp(key, backup_type_names[type], n) == 0 && key[n] == '/') {
			*ret = (enum backup_type)type;
			*ret_name = key + n + 1;
			return true;
		}
	}
	return false;
}

/* False: no backup, or not ours. */
static bool take_key(const struct expiring *x, const char *key, struct backup_entry *ret)
{
	const json_t *ours = json_object_get(x->state->ours, key);
	const char *db = json_string_value(json_object_get(ours, "db")), *name;
	struct backup_name n;
	enum backup_type type;

	if (!type_of(key, &type, &name) || strchr(name, '/') || !backup_name_parse(name, &n) ||
	    n.kind != BACKUP_FILE_DB || !n.has_time)
		return false;
	*ret = (struct backup_entry){.type = type,
	                             .path = strdup(key),
	                             .db = strdup(db ? db : n.stem),
	                             .label = strdup(""),
	                             .time_us = n.time_us,
	                             .compressed = n.compressed,
	                             .encrypted = n.encrypted,
	                             .raw = json_is_true(json_object_get(ours, "raw"))};
	if (!ret->path || !ret->db || !ret->label)
		return true; /* told by the caller */
	ret->name = strrchr(ret->path, '/') + 1;
	/* Of another's safety backups nobody knows whether they are databases at all. */
	ret->raw = ret->raw || (!db && type == BACKUP_SAFETY);
	return db || (x->options->owns && x->options->owns(x->options->ctx, ret));
}

static int newest_first(const void *a, const void *b)
{
	const struct backup_entry *x = a, *y = b;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->time_us != y->time_us)
		return x->time_us > y->time_us ? -1 : 1;
	return -strcmp(x->path, y->path);
}

static int read_keys(const struct expiring *x, struct backup_list *list, struct err *err)
{
	list->entries = calloc(x->n_keys + 1, sizeof(*list->entries));
	if (!list->entries)
		return err_set(err, ERR_NOMEM, 0, "no memory for a list of backups");
	for (size_t i = 0; i < x->n_keys; i++) {
		struct backup_entry e = {.path = NULL};
		bool ours = take_key(x, x->keys[i], &e);
		list->entries[list->n++] = e; /* so that it is released */
		if (ours && (!e.path || !e.db || !e.label))
			return err_set(err, ERR_NOMEM, 0, "no memory for a list of backups");
		if (!ours) {
			list->n--;
			free(e.path);
			free(e.db);
			free(e.label);
		}
	}
	qsort(list->entries, list->n, sizeof(*list->entries), newest_first);
	return 0;
}

/* ---- the plan ---- */

static int is_good(void *ctx, const struct backup_entry *e, struct err *err)
{
	return !e->raw;
}

static bool is_here(const struct backup_list *here, const struct backup_entry *e)
{
	for (size_t i = 0; i < here->n; i++)
		if (here->entries[i].type == e->type && strcmp(here->entries[i].name, e->name) == 0)
			return true;
	return false;
}

int expire_unwanted(const struct backup_send_options *o, struct sent_state *st,
                    const char *const *keys, size_t n, const struct backup_list *here,
                    int64_t now_us, bool *unwanted, struct err *err)
{
	cleanup_backup_list struct backup_list there = {0};
	cleanup_backup_plan struct backup_plan plan = {0};
	struct expiring x = {o, st, keys, n, now_us, .denials = {0}};
	struct backup_list both = {0};
	int rc = read_keys(&x, &there, err);

	cleanup_free struct backup_entry *entries = calloc(here->n + there.n + 1, sizeof(*entries));
	cleanup_free size_t *index = calloc(here->n + 1, sizeof(*index));
	if (!rc && (!entries || !index))
		rc = err_set(err, ERR_NOMEM, 0, "no memory for a list of backups");
	if (rc)
		return rc;
	both.entries = entries; /* borrowed, all of them */
	for (size_t i = 0; i < here->n; i++)
		if (!here->entries[i].foreign &&
		    (!o->wants || o->wants(o->ctx, &here->entries[i]))) {
			index[both.n] = i;
			entries[both.n++] = here->entries[i];
		}
	size_t n_here = both.n;
	for (size_t i = 0; i < there.n; i++)
		if (!is_here(here, &there.entries[i]))
			entries[both.n++] = there.entries[i];
	rc = backup_plan_make(&both, o->retention, now_us, is_good, NULL, &plan, err);
	for (size_t i = 0; i < n_here && !rc; i++)
		unwanted[index[i]] = plan.verdicts[i].remove;
	return rc;
}

/* ---- going ---- */

/* A companion of it, or a manifest of its second. */
static bool is_key_of(const char *key, const struct backup_entry *e, bool *ret_manifest)
{
	struct backup_name mine, n;
	enum backup_type type;
	const char *name;

	if (!type_of(key, &type, &name) || type != e->type || !backup_name_parse(name, &n) ||
	    !backup_name_parse(e->name, &mine))
		return false;
	*ret_manifest = n.kind == BACKUP_FILE_MANIFEST;
	return *ret_manifest ? n.time_us == mine.time_us
	                     : n.kind == BACKUP_FILE_COMPANION && strcmp(n.base, mine.base) == 0;
}

/* A manifest that names this backup and no other. */
static bool names_it(const struct expiring *x, const char *key, const struct backup_entry *e)
{
	cleanup_buf struct buf text = BUF_INIT(BACKUP_MANIFEST_BYTES_MAX);
	cleanup_free struct backup_manifest *m = malloc(sizeof(*m));
	struct backup_manifest_files files = {0};
	bool same = false;

	if (m && store_get(x->options->store, key, BACKUP_MANIFEST_BYTES_MAX, &text, NULL) == 0 &&
	    backup_manifest_parse((const char *)text.data, text.len, NULL, m, &files, NULL) == 0)
		same = files.n == 1 && strcmp(files.names[0], e->name) == 0;
	free(files.names);
	return same;
}

/* The backup first: without it the rest is nothing, and harms nobody where it stays. */
static int delete_entry(struct expiring *x, const struct backup_entry *e, struct err *err)
{
	struct store *store = x->options->store;
	int rc = store_remove(store, e->path, err);
	bool manifest;

	for (size_t i = 0; i < x->n_keys && rc == 0; i++)
		if (is_key_of(x->keys[i], e, &manifest) &&
		    (!manifest || names_it(x, x->keys[i], e)))
			rc = store_remove(store, x->keys[i], err);
	return rc;
}

static int doom(json_t *doomed, const char *key, json_int_t since_us, struct err *err)
{
	return json_object_set_new(doomed, key, json_integer(since_us)) < 0
	               ? err_set(err, ERR_NOMEM, 0, "no memory to send backups")
	               : 0;
}

/* Since when it is known that it is to go. */
static int64_t since(const struct expiring *x, const struct backup_verdict *v)
{
	json_int_t us = json_integer_value(json_object_get(x->state->doomed, v->entry->path));

	return us > 0 && us <= x->now_us ? us : x->now_us;
}

static bool is_due(const struct expiring *x, const struct backup_verdict *v)
{
	int64_t grace_us = x->options->grace_us ? x->options->grace_us : BACKUP_SEND_GRACE_US;

	return v->remove && x->now_us - since(x, v) >= grace_us;
}

/* How many due ones are left alone: see store/denials.h. */
static size_t passed_over(const struct expiring *x, const struct backup_plan *plan)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->n; i++)
		n += is_due(x, &plan->verdicts[i]);
	return denials_first(&x->denials, n, x->now_us);
}

static int take_verdict(struct expiring *x, const struct backup_verdict *v, json_t *doomed,
                        size_t *left_alone, struct err *err)
{
	const struct backup_send_options *o = x->options;
	struct backup_sent *k = &x->state->known;
	const char *key = v->entry->path;
	struct err why = ERR_INIT;

	bool tried = is_due(x, v) && *left_alone == 0 && denials_go_on(&x->denials);
	if (is_due(x, v) && *left_alone)
		--*left_alone;
	if (!tried)
		return doom(doomed, key, since(x, v), err);
	int rc = delete_entry(x, v->entry, &why);
	if (why.kind == ERR_DENIED || why.kind == ERR_READ_ONLY) {
		if (x->denials.denied++ == 0)
			x->denial = why;
		return doom(doomed, key, since(x, v), err);
	}
	if (rc)
		return err_copy(err, &why);
	log_info("backup", "deleted there key=%s to=%s: %s", key, o->store->label, v->reason);
	k->n_deleted++;
	x->denials.done++;
	json_object_del(x->state->ours, key);
	return 0;
}

static void tell_denied(const struct expiring *x, const struct backup_sent *was)
{
	if (x->denials.denied == 0 || was->no_delete || was->n_denied)
		return;
	if (denials_all(&x->denials))
		log_warn("backup",
		         "deletion is denied, backups that no rule keeps stay to=%s (a rule of the "
		         "store may delete them)",
		         x->options->store->label);
	else
		log_warn(
		        "backup",
		        "%" PRIu64
		        " backups that no rule keeps could not be deleted (locked?), and are tried "
		        "again: the first: %s to=%s",
		        x->denials.denied, x->denial.msg, x->options->store->label);
}

int expire_run(const struct backup_send_options *o, struct sent_state *st, const char *const *keys,
               size_t n, int64_t now_us, struct err *err)
{
	const struct backup_sent was = st->known;
	cleanup_backup_list struct backup_list list = {0};
	cleanup_backup_plan struct backup_plan plan = {0};
	struct expiring x = {o, st, keys, n, now_us, .denials = {.before = was.no_delete}};
	json_t *doomed = json_object();
	int rc = doomed ? read_keys(&x, &list, err) : err_set(err, ERR_NOMEM, 0, "no memory");

	rc = rc ? rc : backup_plan_make(&list, o->retention, now_us, is_good, NULL, &plan, err);
	size_t left_alone = rc ? 0 : passed_over(&x, &plan);
	for (size_t i = 0; i < plan.n && rc == 0; i++)
		if (plan.verdicts[i].remove)
			rc = take_verdict(&x, &plan.verdicts[i], doomed, &left_alone, err);
	st->known.no_delete = denials_all(&x.denials);
	st->known.n_denied = x.denials.denied;
	tell_denied(&x, &was);
	if (rc == 0) {
		json_decref(st->doomed);
		st->doomed = json_incref(doomed);
		st->known.n_expiring = json_object_size(doomed);
	}
	json_decref(doomed);
	return rc;
}

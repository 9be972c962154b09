/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/backup/backup_i.h"
#include "engine/backup/send_i.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/log.h"
#include "engine/store/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES (1u << 18)
#define KEY_MAX (BACKUP_FILE_MAX + 32)
#define MAX_NUMBER 99u
#define CREATE_MOST_BYTES (UINT64_C(4) << 30) /* S3 takes a little more in one request */

/* An object that the store has. */
struct stored {
	char *key;
	uint64_t bytes;
};

struct sending {
	const struct backup_send_options *options;
	struct sent_state *state;
	struct stored *stored; /* sorted by key, as listed */
	size_t n_stored;
	bool may_put; /* (5) was looked at */
	uint64_t done_bytes;
	int rc; /* the first error */
	struct err *err;
};

static void release_sending(struct sending *s)
{
	for (size_t i = 0; i < s->n_stored; i++)
		free(s->stored[i].key);
	free(s->stored);
}

static int tell(struct sending *s, struct err *err)
{
	const struct backup_send_options *o = s->options;

	if (o->progress && !o->progress(o->progress_ctx, s->done_bytes, 0))
		return err_set(err, ERR_CANCELLED, 0, "stopped");
	return 0;
}

/* ---- what the store has ---- */

static int take_stored(void *ctx, const struct store_entry *e, struct err *err)
{
	struct sending *s = ctx;
	struct stored *more = s->stored;

	if ((s->n_stored & (s->n_stored - 1)) == 0)
		more = realloc(more, (s->n_stored ? 2 * s->n_stored : 1) * sizeof(*more));
	if (more)
		s->stored = more;
	char *key = more ? strdup(e->key) : NULL;
	if (!key)
		return err_set(err, ERR_NOMEM, 0, "no memory for the list of backups");
	more[s->n_stored++] = (struct stored){key, e->bytes};
	return 0;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct stored *)a)->key, ((const struct stored *)b)->key);
}

static int look(struct sending *s, struct err *err)
{
	char prefix[32];
	int rc = 0;

	for (int type = 0; type < BACKUP_N_TYPES && rc == 0; type++) {
		snprintf(prefix, sizeof(prefix), "%s/", backup_type_names[type]);
		rc = store_list(s->options->store, prefix, NULL, false, take_stored, s, err);
	}
	if (rc == 0 && s->n_stored)
		qsort(s->stored, s->n_stored, sizeof(*s->stored), by_key);
	return rc;
}

static const struct stored *find_stored(const struct sending *s, const char *key)
{
	const struct stored want = {.key = (char *)key};

	return s->n_stored ? bsearch(&want, s->stored, s->n_stored, sizeof(want), by_key) : NULL;
}

/* ---- putting ---- */

/* A key that opens nothing would let the store seal nothing. */
static int check_encryption(struct sending *s, struct err *err)
{
	cleanup_source struct source *first = NULL;
	struct store *store = s->options->store;
	struct err why = ERR_INIT;
	uint64_t bytes;

	if (s->may_put || store->sealed) {
		s->may_put = true;
		return 0;
	}
	int rc = store_open_object(store, KEYS_FOLDER "00000001.key", UINT64_MAX, &first, &why);
	rc = rc ? rc : first->size(first, &bytes, &why);
	if (rc == 0)
		return err_set(
		        err, ERR_REFUSED, 0,
		        "the archive at '%.200s' is encrypted, and backups would lie there in "
		        "the clear (name a key by key-file, or ASOF_KEY_FILE)",
		        store->label);
	if (why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	s->may_put = true;
	return 0;
}

static int sha256_of(struct sending *s, struct source *body, uint64_t bytes,
                     char out[BACKUP_SHA256_MAX], struct err *err)
{
	cleanup_free uint8_t *piece = malloc(PIECE_BYTES);
	struct sha256_ctx sha;
	int rc = piece ? 0 : err_set(err, ERR_NOMEM, 0, "no memory to send backups");

	sha256_init(&sha);
	for (uint64_t at = 0; at < bytes && rc == 0;) {
		size_t n = bytes - at < PIECE_BYTES ? (size_t)(bytes - at) : PIECE_BYTES;
		rc = body->pread(body, piece, n, at, err);
		if (rc == 0)
			sha256_update(&sha, n, piece);
		at += n;
		rc = rc ? rc : tell(s, err);
	}
	backup_sha_text(&sha, out);
	return rc;
}

/* `sha`: what it must have; "" not known. */
static int put_file(struct sending *s, const char *path, const char *key, const char *sha,
                    struct err *err)
{
	cleanup_source struct source *body = NULL;
	char got[BACKUP_SHA256_MAX];
	uint64_t bytes = 0;

	int rc = check_encryption(s, err);
	rc = rc ? rc : source_open_file(AT_FDCWD, path, path, &body, err);
	rc = rc ? rc : body->size(body, &bytes, err);
	if (rc == 0 && *sha && (rc = sha256_of(s, body, bytes, got, err)) == 0 &&
	    strcmp(got, sha) != 0)
		rc = err_set(err, ERR_DAMAGED, 0,
		             "'%.300s' is not sent: its sha256 is not the one in its manifest",
		             path);
	/* What goes up in parts cannot be put on a condition; that it is not there was looked at. */
	rc = rc ? rc
	        : store_put(s->options->store, key, body, bytes,
	                    bytes > CREATE_MOST_BYTES ? 0 : STORE_CREATE, err);
	if (rc == 0) {
		s->done_bytes += bytes;
		s->state->known.n_bytes += bytes;
		rc = tell(s, err);
	}
	return rc;
}

static void make_key(enum backup_type type, const char *path, char out[KEY_MAX])
{
	snprintf(out, KEY_MAX, "%s/%.*s", backup_type_names[type], BACKUP_FILE_MAX,
	         strrchr(path, '/') + 1);
}

/* One that is there, or is put now. */
static int send_file(struct sending *s, enum backup_type type, const char *path, const char *sha,
                     bool *ret_put, struct err *err)
{
	char key[KEY_MAX];
	struct err why = ERR_INIT;
	struct stat st;

	if (stat(path, &st) < 0)
		return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "'%.300s'",
		               path);
	make_key(type, path, key);
	const struct stored *there = find_stored(s, key);
	if (there && there->bytes == (uint64_t)st.st_size)
		return 0;
	int rc = there ? err_set(&why, ERR_EXISTS, 0, "it is there")
	               : put_file(s, path, key, sha, &why);
	if (err_kind_of(rc) == ERR_EXISTS)
		return err_set(err, ERR_EXISTS, 0,
		               "'%.200s' has '%.200s' already, with another content (does another "
		               "machine send there, too? each needs a place of its own)",
		               s->options->store->label, key);
	if (rc)
		return err_copy(err, &why);
	*ret_put = true;
	return 0;
}

/* "manifest_20240115_143000.json" with a number before ".json"; 1: as it is. */
static void number_key(const char *key, unsigned number, char out[KEY_MAX + 8])
{
	size_t base = strlen(key) - strlen(".json");

	if (number == 1)
		snprintf(out, KEY_MAX + 8, "%s", key);
	else
		snprintf(out, KEY_MAX + 8, "%.*s_%u.json", (int)base, key, number);
}

/* Under the first name that is free; where one of that size lies it counts, unless `put`. */
static int send_manifest(struct sending *s, const struct backup_entry *e, bool put, struct err *err)
{
	char key[KEY_MAX], numbered[KEY_MAX + 8];
	cleanup_free char *text = NULL;
	size_t len;
	int rc = file_get(AT_FDCWD, e->manifest_path, BACKUP_MANIFEST_BYTES_MAX, &text, &len, err);

	if (rc == 0)
		rc = check_encryption(s, err);
	make_key(e->type, e->manifest_path, key);
	for (unsigned n = 1; rc == 0; n++) {
		struct err why = ERR_INIT;
		number_key(key, n, numbered);
		const struct stored *there = find_stored(s, numbered);
		if (there && there->bytes == len && !put)
			return 0;
		if (there && there->bytes != len)
			continue;
		rc = store_put_bytes(s->options->store, numbered, text, len, STORE_CREATE, &why);
		if (rc == 0)
			return 0;
		if (why.kind != ERR_EXISTS || n == MAX_NUMBER)
			return err_copy(err, &why);
		rc = 0;
	}
	return rc;
}

static int send_entry(struct sending *s, const struct backup_entry *e, struct err *err)
{
	bool put = false, ignored = false;
	struct err why = ERR_INIT;
	int rc = 0;

	for (size_t i = 0; i < e->n_companions && rc == 0; i++)
		rc = send_file(s, e->type, e->companions[i], "", &ignored, &why);
	if (rc == 0)
		rc = send_file(s, e->type, e->path, e->sha256, &put, &why);
	if (rc == 0 && e->manifest_path)
		rc = send_manifest(s, e, put, &why);
	/* Cleaned up since it was listed: nobody misses it. */
	if (why.kind == ERR_NOT_FOUND && why.sys_errno == ENOENT && access(e->path, F_OK) < 0)
		return 0;
	if (rc)
		return err_copy(err, &why);
	if (put) {
		s->state->known.n_sent++;
		log_info("backup", "sent type=%s name=%s bytes=%" PRIu64 " to=%s",
		         backup_type_names[e->type], e->name, e->size_bytes,
		         s->options->store->label);
	}
	return 0;
}

/* ---- all of them ---- */

static bool is_wanted(const struct backup_send_options *o, const struct backup_entry *e)
{
	return !e->foreign && (!o->wants || o->wants(o->ctx, e));
}

static bool is_settled(const struct sent_state *st, const struct backup_entry *e)
{
	char key[KEY_MAX];

	make_key(e->type, e->path, key);
	return json_object_get(st->settled, key) != NULL;
}

static bool is_there(const struct sent_state *st, const struct backup_entry *e)
{
	char key[KEY_MAX];

	make_key(e->type, e->path, key);
	return json_is_true(json_object_get(st->settled, key));
}

static int settle(json_t *settled, const struct backup_entry *e, bool there, struct err *err)
{
	char key[KEY_MAX];

	make_key(e->type, e->path, key);
	return json_object_set_new(settled, key, json_boolean(there)) < 0
	               ? err_set(err, ERR_NOMEM, 0, "no memory to send backups")
	               : 0;
}

/* What is known counts for those that are here now. */
static void count(const struct backup_send_options *o, const struct backup_list *list,
                  struct sent_state *st)
{
	struct backup_sent *k = &st->known;

	k->n_there = k->n_waiting = k->bytes_there = 0;
	k->newest_us = 0;
	for (size_t i = 0; i < list->n; i++) {
		const struct backup_entry *e = &list->entries[i];
		if (!is_wanted(o, e))
			continue;
		if (!is_settled(st, e)) {
			k->n_waiting++;
			continue;
		}
		if (!is_there(st, e))
			continue;
		k->n_there++;
		k->bytes_there += e->size_bytes + e->companion_bytes;
		k->newest_us = e->time_us > k->newest_us ? e->time_us : k->newest_us;
	}
}

/* Of one backup alone: the others are tried all the same. */
static bool is_of_one(const struct err *why)
{
	return why->kind == ERR_EXISTS || why->kind == ERR_DAMAGED || why->kind == ERR_NOT_FOUND;
}

static int take_failure(struct sending *s, const struct err *why)
{
	if (s->rc == 0)
		s->rc = err_copy(s->err, why);
	else
		log_warn("backup", "not sent: %s", why->msg);
	return is_of_one(why) ? 0 : s->rc;
}

/* Keys that lie there: as listed but for conflicts, and what was put since. */
static size_t keys_there(const struct sending *s, const struct backup_list *list, const char **keys)
{
	char key[KEY_MAX];
	const char *known;
	json_t *value;
	size_t n = 0;

	for (size_t i = 0; i < s->n_stored; i++)
		keys[n++] = s->stored[i].key;
	for (size_t i = 0; i < list->n; i++) {
		make_key(list->entries[i].type, list->entries[i].path, key);
		for (size_t k = 0; k < n && !json_is_true(json_object_get(s->state->settled, key));
		     k++)
			if (strcmp(keys[k], key) == 0)
				keys[k--] = keys[--n];
	}
	json_object_foreach(s->state->settled, known,
	                    value) if (json_is_true(value) && !find_stored(s, known)) keys[n++] =
	        known;
	return n;
}

static int expire(struct sending *s, const struct backup_list *list, struct err *err)
{
	cleanup_free const char **keys = calloc(s->n_stored + list->n + 1, sizeof(*keys));

	if (!keys)
		return err_set(err, ERR_NOMEM, 0, "no memory to send backups");
	size_t n = keys_there(s, list, keys);
	return expire_run(s->options, s->state, keys, n, clock_now_us(), err);
}

static int find_unwanted(struct sending *s, const struct backup_list *list, bool *unwanted,
                         struct err *err)
{
	cleanup_free const char **keys = calloc(s->n_stored + 1, sizeof(*keys));

	if (!keys)
		return err_set(err, ERR_NOMEM, 0, "no memory to send backups");
	for (size_t i = 0; i < s->n_stored; i++)
		keys[i] = s->stored[i].key;
	return expire_unwanted(s->options, s->state, keys, s->n_stored, list, clock_now_us(),
	                       unwanted, err);
}

/* What lies there now, and nothing else. */
static void forget_the_gone(struct sending *s)
{
	const char *key;
	json_t *value;
	void *next;

	json_object_clear(s->state->settled);
	json_object_foreach_safe(s->state->ours, next, key, value)
	{
		const struct stored *there = find_stored(s, key);
		if (!there)
			json_object_del(s->state->ours, key);
		else if (!json_object_get(value, "bytes")) /* of an older note */
			json_object_set_new(value, "bytes", json_integer((json_int_t)there->bytes));
	}
}

static int send_one(struct sending *s, const struct backup_list *list, const struct backup_entry *e,
                    bool unwanted, struct err *err)
{
	struct sent_state *st = s->state;
	uint64_t before = st->known.n_sent;
	char key[KEY_MAX];

	make_key(e->type, e->path, key);
	if (unwanted && !find_stored(s, key))
		return settle(st->settled, e, false, err);
	int rc = send_entry(s, e, err);
	rc = rc ? rc : settle(st->settled, e, true, err);
	if (rc == 0 && json_object_set_new(st->ours, key, sent_item_json(e)) < 0)
		rc = err_set(err, ERR_NOMEM, 0, "no memory to send backups");
	if (rc || st->known.n_sent == before)
		return rc;
	count(s->options, list, st);
	return sent_write(s->options->root, st, err); /* as far as it came */
}

static int send_all(struct sending *s, const struct backup_list *list)
{
	const struct backup_send_options *o = s->options;
	cleanup_free bool *unwanted = calloc(list->n + 1, sizeof(*unwanted));
	struct err why = ERR_INIT;
	int rc = unwanted ? look(s, &why) : err_set(&why, ERR_NOMEM, 0, "no memory");

	if (rc == 0)
		forget_the_gone(s);
	if (rc == 0 && o->retention)
		rc = find_unwanted(s, list, unwanted, &why);
	for (size_t i = 0; i < list->n && rc == 0; i++) {
		if (!is_wanted(o, &list->entries[i]))
			continue;
		rc = send_one(s, list, &list->entries[i], unwanted[i], &why);
		if (rc) {
			rc = take_failure(s, &why);
			why = (struct err)ERR_INIT;
		}
	}
	if (rc == 0 && o->retention)
		rc = expire(s, list, &why);
	if (rc && s->rc == 0)
		s->rc = err_copy(s->err, &why);
	return s->rc;
}

static bool is_due(const struct backup_send_options *o, const struct backup_list *list,
                   const struct sent_state *st)
{
	int64_t age_us = clock_now_us() - st->known.at_us;

	if (o->look || st->known.trouble_us || age_us < 0 ||
	    age_us >= (o->look_us ? o->look_us : BACKUP_SEND_LOOK_US))
		return true;
	for (size_t i = 0; i < list->n; i++)
		if (is_wanted(o, &list->entries[i]) && !is_settled(st, &list->entries[i]))
			return true;
	return false;
}

int backup_send(const struct backup_send_options *o, struct backup_sent *ret, struct err *err)
{
	cleanup_backup_list struct backup_list list = {0};
	cleanup_sent_state struct sent_state state = {0};
	struct err why = ERR_INIT, first = ERR_INIT;
	CLEANUP(release_sending)
	struct sending s = {.options = o, .state = &state, .err = &first};

	*ret = (struct backup_sent){0};
	int rc = backup_list_read(o->root, &list, err);
	rc = rc ? rc : sent_read(o->root, o->url, &state, err);
	if (rc)
		return rc;
	if (!is_due(o, &list, &state)) {
		count(o, &list, &state);
		*ret = state.known;
		return 0;
	}
	(void)!send_all(&s, &list);
	count(o, &list, &state);
	sent_conclude(&state, &first);
	*ret = state.known;
	if (sent_write(o->root, &state, &why) < 0)
		log_warn("backup", "what was sent is not noted: %s", why.msg);
	return first.kind == ERR_NONE ? 0 : err_copy(err, &first);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The file ROOT/.sent-XXXXXXXXXXXXXXXX.  One that cannot be read is as if it were not there. */
#include "engine/backup/send_i.h"

#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/base/json.h"
#include "engine/base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX ".sent-"
#define SENT_BYTES_MAX ((size_t)64 << 20)

static void file_name(const char *url, char out[32])
{
	snprintf(out, 32, PREFIX "%016" PRIx64, hash64(url, strlen(url), 0));
}

void sent_release(struct sent_state *s)
{
	json_decref(s->settled);
	json_decref(s->ours);
	json_decref(s->doomed);
	*s = (struct sent_state){0};
}

static void take_text(const json_t *o, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(o, key));

	snprintf(out, size, "%s", text ? text : "");
}

static int64_t take_number(const json_t *o, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(o, key));

	return v > 0 ? (int64_t)v : 0;
}

static json_t *take_object(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	return json_is_object(v) ? json_incref(v) : json_object();
}

static bool parse(const char *text, size_t len, struct sent_state *ret)
{
	json_t *o = json_loadb(text, len, 0, NULL);
	struct backup_sent *k = &ret->known;
	json_t *settled = json_object_get(o, "settled");

	if (!json_is_object(settled)) {
		json_decref(o);
		return false;
	}
	take_text(o, "url", k->url, sizeof(k->url));
	take_text(o, "trouble", k->trouble, sizeof(k->trouble));
	k->at_us = take_number(o, "at_us");
	k->n_there = (uint64_t)take_number(o, "there");
	k->bytes_there = (uint64_t)take_number(o, "bytes_there");
	k->n_waiting = (uint64_t)take_number(o, "waiting");
	k->newest_us = take_number(o, "newest_us");
	k->n_sent = (uint64_t)take_number(o, "sent");
	k->n_bytes = (uint64_t)take_number(o, "sent_bytes");
	k->trouble_us = take_number(o, "trouble_us");
	k->n_expiring = (uint64_t)take_number(o, "expiring");
	k->n_deleted = (uint64_t)take_number(o, "deleted");
	k->no_delete = json_is_true(json_object_get(o, "no_delete"));
	k->n_denied = (uint64_t)take_number(o, "denied");
	ret->settled = json_incref(settled);
	ret->ours = take_object(o, "ours");
	ret->doomed = take_object(o, "doomed");
	json_decref(o);
	return ret->ours && ret->doomed;
}

static int read_file(int dir_fd, const char *name, struct sent_state *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	*ret = (struct sent_state){0};
	int rc = file_get(dir_fd, name, SENT_BYTES_MAX, &text, &len, err);
	if (rc == 0 && !parse(text, len, ret))
		rc = err_set(err, ERR_NOT_FOUND, 0, "'%s' cannot be read", name);
	return rc;
}

int sent_read(const char *root, const char *url, struct sent_state *ret, struct err *err)
{
	cleanup_fd int dir = -1;
	struct err why = ERR_INIT;
	char name[32];

	int rc = file_open_dir(AT_FDCWD, root, false, &dir, err);
	if (rc < 0)
		return rc;
	file_name(url, name);
	if (read_file(dir, name, ret, &why) < 0) {
		if (why.kind != ERR_NOT_FOUND && why.kind != ERR_DAMAGED)
			return err_copy(err, &why);
		sent_release(ret);
		*ret = (struct sent_state){
		        .settled = json_object(), .ours = json_object(), .doomed = json_object()};
	}
	snprintf(ret->known.url, sizeof(ret->known.url), "%s", url);
	return ret->settled && ret->ours && ret->doomed
	               ? 0
	               : err_set(err, ERR_NOMEM, 0, "no memory to send backups");
}

int sent_write(const char *root, const struct sent_state *s, struct err *err)
{
	const struct backup_sent *k = &s->known;
	cleanup_fd int dir = -1;
	char name[32];

	json_t *o = json_pack("{so sI sI sI sI sI sI sI sI so sI sI sb sI sO sO sO}", "url",
	                      json_text(k->url), "at_us", (json_int_t)k->at_us, "there",
	                      (json_int_t)k->n_there, "bytes_there", (json_int_t)k->bytes_there,
	                      "waiting", (json_int_t)k->n_waiting, "newest_us",
	                      (json_int_t)k->newest_us, "sent", (json_int_t)k->n_sent, "sent_bytes",
	                      (json_int_t)k->n_bytes, "trouble_us", (json_int_t)k->trouble_us,
	                      "trouble", json_text(k->trouble), "expiring",
	                      (json_int_t)k->n_expiring, "deleted", (json_int_t)k->n_deleted,
	                      "no_delete", (int)k->no_delete, "denied", (json_int_t)k->n_denied,
	                      "ours", s->ours, "doomed", s->doomed, "settled", s->settled);
	cleanup_free char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	if (!text)
		return err_set(err, ERR_NOMEM, 0, "no memory to send backups");
	file_name(k->url, name);
	int rc = file_open_dir(AT_FDCWD, root, false, &dir, err);
	return rc < 0 ? rc : file_put(dir, name, text, strlen(text), err);
}

void sent_conclude(struct sent_state *s, const struct err *why)
{
	struct backup_sent *k = &s->known;
	int64_t now_us = clock_now_us();

	if (why->kind == ERR_NONE) {
		k->at_us = now_us;
		k->trouble_us = 0;
		k->trouble[0] = '\0';
	} else if (why->kind != ERR_CANCELLED) {
		k->trouble_us = k->trouble_us ? k->trouble_us : now_us;
		snprintf(k->trouble, sizeof(k->trouble), "%.299s", why->msg);
	}
}

void backup_send_failed(const char *root, const char *url, const struct err *why)
{
	cleanup_sent_state struct sent_state s = {0};
	struct err ignored = ERR_INIT;

	if (sent_read(root, url, &s, &ignored) < 0)
		return;
	sent_conclude(&s, why);
	if (sent_write(root, &s, &ignored) < 0)
		log_warn("backup", "that nothing can be sent is not noted: %s", ignored.msg);
}

/* ---- for who looks at it ---- */

int backup_sent_open(const char *root, const char *url, struct sent_state **ret, struct err *err)
{
	struct sent_state *s = calloc(1, sizeof(*s));
	int rc = s ? sent_read(root, url, s, err)
	           : err_set(err, ERR_NOMEM, 0, "no memory for what was sent");

	if (rc < 0)
		backup_sent_close(take_ptr(s));
	*ret = s;
	return rc;
}

void backup_sent_close(struct sent_state *s)
{
	if (s)
		sent_release(s);
	free(s);
}

void backup_sent_path(const char *root, const char *url, char out[PATH_MAX])
{
	char name[32];

	file_name(url, name);
	snprintf(out, PATH_MAX, "%.*s/%s", PATH_MAX - 40, root, name);
}

const struct backup_sent *backup_sent_known(const struct sent_state *s)
{
	return &s->known;
}

enum backup_sent_where backup_sent_where(const struct sent_state *s, const struct backup_entry *e)
{
	char key[BACKUP_NAME_MAX + 32];

	snprintf(key, sizeof(key), "%s/%s", backup_type_names[e->type], e->name);
	const json_t *settled = json_object_get(s->settled, key);
	if (json_is_true(settled) || json_object_get(s->ours, key))
		return BACKUP_SENT_THERE;
	return settled ? BACKUP_SENT_UNWANTED : BACKUP_SENT_WAITS;
}

json_t *sent_item_json(const struct backup_entry *e)
{
	return json_pack("{so sb sI sI}", "db", json_text(e->db), "raw", (int)e->raw, "bytes",
	                 (json_int_t)(e->size_bytes + e->companion_bytes), "time_us",
	                 (json_int_t)e->time_us);
}

void backup_sent_items(const struct sent_state *s,
                       void (*fn)(void *ctx, const struct backup_sent_item *i), void *ctx)
{
	const char *key;
	json_t *value;

	json_object_foreach(s->ours, key, value)
	{
		const char *name = strchr(key, '/');
		const char *db = json_string_value(json_object_get(value, "db"));
		struct backup_sent_item i = {.name = name ? name + 1 : key,
		                             .db = db ? db : "",
		                             .bytes = (uint64_t)take_number(value, "bytes"),
		                             .time_us = take_number(value, "time_us")};
		struct backup_name n;
		for (int t = 0; t < BACKUP_N_TYPES; t++) {
			size_t len = strlen(backup_type_names[t]);
			if (strncmp(key, backup_type_names[t], len) == 0 && key[len] == '/')
				i.type = (enum backup_type)t;
		}
		/* (of an older note) */
		if (i.time_us == 0 && backup_name_parse(i.name, &n) && n.has_time)
			i.time_us = n.time_us;
		fn(ctx, &i);
	}
}

int backup_sent_each(const char *root, int (*fn)(void *ctx, const struct backup_sent *s), void *ctx)
{
	cleanup_dir DIR *dir = opendir(root);
	struct dirent *d;
	int rc = 0;

	while (dir && rc == 0 && (d = readdir(dir))) {
		CLEANUP(sent_release) struct sent_state s = {0};
		if (strlen(d->d_name) == strlen(PREFIX) + 16 &&
		    strncmp(d->d_name, PREFIX, strlen(PREFIX)) == 0 &&
		    read_file(dirfd(dir), d->d_name, &s, NULL) == 0)
			rc = fn(ctx, &s.known);
	}
	return rc;
}

int backup_sent_hold(const char *root, const char *url, const char *label,
                     bool (*wants)(void *ctx, const struct backup_entry *e), void *ctx,
                     struct backup_plan *plan, struct err *err)
{
	cleanup_sent_state struct sent_state st = {0};
	char key[BACKUP_NAME_MAX + 32];
	int rc = sent_read(root, url, &st, err);

	for (size_t i = 0; i < plan->n && rc == 0; i++) {
		struct backup_verdict *v = &plan->verdicts[i];
		const struct backup_entry *e = v->entry;
		snprintf(key, sizeof(key), "%s/%s", backup_type_names[e->type], e->name);
		if (!v->remove || e->foreign || !wants(ctx, e) || json_object_get(st.settled, key))
			continue;
		v->remove = false;
		snprintf(v->reason, sizeof(v->reason), "'%.60s' has not got it yet", label);
		plan->n_remove--;
		plan->remove_bytes -= e->size_bytes + e->companion_bytes;
	}
	return rc;
}

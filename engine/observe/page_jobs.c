/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   GET  /api/v1/page/backups?db=NAME             {"backups": […, newest first], "total",
 *                                                  "types": [{"type", "count", "last_us"}],
 *                                                  "places": [{"name", "url", "count", "bytes",
 *                                                  "last_us", "waiting", "waiting_since_us",
 *                                                  "failing_since_us", "trouble"}]}
 *   POST /api/v1/page/backup?db=NAME              takes one, as `asof backup`
 *   POST /api/v1/page/validate?db=NAME&file=NAME  checks one, as `asof validate`
 *
 * What is ordered runs in a child, one in each archive at a time (a lock on its folder; BUSY).  The
 * answer is a stream: blanks while it runs, then {"ok": bool, "text": TEXT}.  Who hangs up ends the
 * child: a backup that is not whole leaves nothing behind.
 */
#include "engine/backup/backup.h"
#include "engine/base/command.h"
#include "engine/base/json.h"
#include "engine/observe/page_i.h"
#include "engine/observe/sent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define BACKUPS_MAX 100 /* of each type: many of one do not hide those of another */
#define BEAT_MS 1000

/* ---- what there is ---- */

static bool is_of(const struct backup_entry *e, const struct health_database *d)
{
	const char *slash = strrchr(d->path, '/');
	const char *file = slash ? slash + 1 : d->path;
	const char *dot = strrchr(file, '.');
	size_t len = dot && dot != file ? (size_t)(dot - file) : strlen(file);

	return strlen(e->db) == len && strncmp(e->db, file, len) == 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct backup_entry *x = *(const struct backup_entry *const *)a;
	const struct backup_entry *y = *(const struct backup_entry *const *)b;

	return (x->time_us < y->time_us) - (x->time_us > y->time_us);
}

static json_t *entry_json(const struct backup_entry *e, const struct sent_places *sent)
{
	return json_pack("{so ss sI sI so so sb sb sb so}", "name", json_text(e->name), "type",
	                 backup_type_names[e->type], "time_us", (json_int_t)e->time_us, "state_us",
	                 (json_int_t)e->state_us, "bytes", page_int(e->size_bytes), "txid",
	                 page_int(e->txid), "compressed", e->compressed, "encrypted", e->encrypted,
	                 "raw", e->raw, "at", sent_places_of(sent, e));
}

/* Where its backups go besides. */
static json_t *places_json(const struct page_db *p)
{
	const struct health_facts *f = &p->facts->f;
	json_t *list = json_array();

	for (size_t i = 0; i < f->n_sent; i++) {
		const struct health_sent *s = &f->sent[i];
		uint64_t count = 0, bytes = 0;
		int64_t last_us = 0;
		if (strcmp(s->database, p->database->name) != 0 ||
		    strcmp(s->root, p->database->archive) != 0)
			continue;
		for (int t = 0; t < HEALTH_BACKUP_TYPES; t++) {
			count += s->types[t].count;
			bytes += s->types[t].bytes;
			last_us = s->types[t].latest_us > last_us ? s->types[t].latest_us : last_us;
		}
		json_array_append_new(
		        list,
		        json_pack("{so so so so sI so sI sI so}", "name", json_text(s->destination),
		                  "url", json_text(s->url), "count", page_int(count), "bytes",
		                  page_int(bytes), "last_us", (json_int_t)last_us, "waiting",
		                  page_int(s->n_waiting), "waiting_since_us",
		                  (json_int_t)s->waiting_since_us, "failing_since_us",
		                  (json_int_t)s->trouble_us, "trouble", json_text(s->trouble)));
	}
	return list;
}

static int read_backups(const struct page_db *p, struct backup_list *list, struct err *err)
{
	return backup_list_read(p->database->archive, list, err);
}

int page_get_backups(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_page_db struct page_db p;
	cleanup_backup_list struct backup_list list = {0};
	cleanup_sent_places struct sent_places sent = {0};
	size_t n = 0;

	int rc = page_open(q, &p, err);
	rc = rc ? rc : read_backups(&p, &list, err);
	if (rc == 0) {
		struct config_ref *c = observe_config(q->observe);
		rc = sent_places_read(c->config, p.database->archive, &sent, err);
		config_ref_put(c);
	}
	if (rc < 0)
		return rc;
	cleanup_free const struct backup_entry **mine = calloc(list.n + 1, sizeof(*mine));
	if (!mine)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	for (size_t i = 0; i < list.n; i++)
		if (is_of(&list.entries[i], p.database))
			mine[n++] = &list.entries[i];
	qsort(mine, n, sizeof(*mine), newest_first);
	json_t *rows = json_array(), *types = json_array();
	uint64_t counts[BACKUP_N_TYPES] = {0};
	int64_t last_us[BACKUP_N_TYPES] = {0};
	for (size_t i = 0; i < n; i++) {
		const struct backup_entry *e = mine[i];
		if (counts[e->type]++ == 0)
			last_us[e->type] = e->time_us;
		if (counts[e->type] <= BACKUPS_MAX)
			json_array_append_new(rows, entry_json(e, &sent));
	}
	for (size_t t = 0; t < BACKUP_N_TYPES; t++)
		json_array_append_new(types, json_pack("{ss so sI}", "type", backup_type_names[t],
		                                       "count", page_int(counts[t]), "last_us",
		                                       (json_int_t)last_us[t]));
	return http_json(r,
	                 json_pack("{so so so so}", "backups", rows, "total", page_int(n), "types",
	                           types, "places", places_json(&p)),
	                 err);
}

/* ---- what is ordered ---- */

struct order {
	struct command command;
	int lock_fd;
	bool ended;
	char *answer;
	size_t len, sent;
};

static void close_order(void *ctx)
{
	struct order *o = ctx;

	command_release(&o->command);
	if (o->lock_fd >= 0)
		close(o->lock_fd);
	free(o->answer);
	free(o);
}

static bool end_order(struct order *o)
{
	struct err why = ERR_INIT;
	int rc = command_finish(&o->command, ERR_IO, &why);
	json_t *j = json_pack("{sb so}", "ok", rc == 0, "text", json_text(rc ? why.msg : ""));

	o->answer = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	o->len = o->answer ? strlen(o->answer) : 0;
	o->ended = true;
	close(take_fd(&o->lock_fd)); /* before the answer: the next order may follow it at once */
	return o->answer != NULL;
}

static ssize_t read_order(void *ctx, uint64_t offset, char *out, size_t size)
{
	struct order *o = ctx;
	char said[4096];

	while (!o->ended) {
		struct pollfd p = {.fd = o->command.out_fd, .events = POLLIN};
		int n = poll(&p, 1, BEAT_MS);
		if (n == 0) {
			out[0] = ' ';
			return 1;
		}
		if (n > 0 && read(o->command.out_fd, said, sizeof(said)) > 0)
			continue; /* the outcome is in its status */
		if (!end_order(o))
			return -1;
	}
	size_t left = o->len - o->sent, n = left < size ? left : size;
	memcpy(out, o->answer + o->sent, n);
	o->sent += n;
	return (ssize_t)n;
}

static int start_order(const struct page_db *p, const char *const argv[], struct http_response *r,
                       struct err *err)
{
	struct order *o = calloc(1, sizeof(*o));

	if (!o)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	o->command = (struct command)COMMAND_INIT;
	o->lock_fd = open(p->database->archive, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = 0;
	if (o->lock_fd < 0)
		rc = err_set(err, ERR_IO, errno, "archive '%s'", p->database->archive);
	else if (flock(o->lock_fd, LOCK_EX | LOCK_NB) < 0)
		rc = err_set(err, ERR_BUSY, 0,
		             "another backup or validation runs (try again when it has ended)");
	rc = rc ? rc : command_start(&o->command, argv, -1, err);
	if (rc < 0) {
		close_order(o);
		return rc;
	}
	http_stream(r, "application/json", HTTP_UNKNOWN_SIZE, read_order, close_order, o);
	return 0;
}

/* Another site's page cannot send X-Asof; a browser besides tells whose page it is. */
static int check_site(const struct http_request *q, struct err *err)
{
	const char *site = http_header(q, "Sec-Fetch-Site");

	if (!site || strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0)
		return 0;
	return err_set(err, ERR_REFUSED, 0, "this is ordered from the page of asof only");
}

int page_post_backup(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_page_db struct page_db p = {0};

	int rc = check_site(q, err);
	rc = rc ? rc : page_open(q, &p, err);
	if (rc < 0)
		return rc;
	const char *const argv[] = {
	        "/proc/self/exe", "backup",         "--archive", p.database->archive,
	        "--db-path",      p.database->path, "--json",    NULL};
	return start_order(&p, argv, r, err);
}

int page_post_validate(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_page_db struct page_db p = {0};
	cleanup_backup_list struct backup_list list = {0};
	const char *file = http_query(q, "file");

	int rc = check_site(q, err);
	rc = rc ? rc : page_open(q, &p, err);
	rc = rc ? rc : read_backups(&p, &list, err);
	if (rc < 0)
		return rc;
	const struct backup_entry *e = file ? backup_list_find(&list, file) : NULL;
	if (!e)
		return err_set(err, ERR_NOT_FOUND, 0, "no backup '%.100s'", file ? file : "");
	const char *const argv[] = {"/proc/self/exe", "validate", "--archive", p.database->archive,
	                            e->path,          "--json",   NULL};
	return start_order(&p, argv, r, err);
}

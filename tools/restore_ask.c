/* SPDX-License-Identifier: Apache-2.0 */
/* What is said and asked goes to standard error: standard output is for the result. */
#include "tools/restore.h"

#include "engine/view/vfs.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTED_MAX 20
#define ANSWER_MAX 256
#define COUNT_US (2 * US_PER_SECOND) /* for the rows of all tables */
#define COUNT_STEPS 20000            /* of SQLite's machine, between two looks at the clock */

bool restore_can_ask(void)
{
	return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

/* A line, blanks around it cut off.  False at the end of input. */
static bool answer(const char *prompt, char out[ANSWER_MAX])
{
	fprintf(stderr, "%s", prompt);
	fflush(stderr);
	if (!fgets(out, ANSWER_MAX, stdin)) {
		fputc('\n', stderr);
		return false;
	}
	size_t n = strlen(out), from = 0;
	while (n > 0 && isspace((unsigned char)out[n - 1]))
		out[--n] = '\0';
	while (isspace((unsigned char)out[from]))
		from++;
	memmove(out, out + from, n - (from < n ? from : n) + 1);
	return true;
}

/* A number of 1 to n; 0 when the answer is none.  False at the end of input. */
static bool choose_number(const char *prompt, size_t n, size_t *ret)
{
	char text[ANSWER_MAX], *end;

	*ret = 0;
	if (!answer(prompt, text))
		return false;
	unsigned long v = strtoul(text, &end, 10);
	if (text[0] && !*end && v >= 1 && v <= n)
		*ret = v;
	return true;
}

/* ---- what is in it ---- */

static int is_time_up(void *until_us)
{
	return clock_mono_us() >= *(const int64_t *)until_us;
}

/* -1: not counted within the time. */
static int64_t count_rows(sqlite3 *db, const char *table)
{
	sqlite3_stmt *statement = NULL;
	char *sql = sqlite3_mprintf("SELECT count(*) FROM \"%w\"", table);
	int64_t n = -1;

	if (sql && sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
	    sqlite3_step(statement) == SQLITE_ROW)
		n = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	sqlite3_free(sql);
	return n;
}

static int list_tables(sqlite3 *db, struct err *err)
{
	static const char *const header[] = {"  table", ">rows"};
	cleanup_stmt sqlite3_stmt *tables = NULL;
	cleanup_table struct table *t = NULL;
	int64_t until_us = clock_mono_us() + COUNT_US;
	int rc = table_new(header, 2, &t, err);

	if (!rc && sqlite3_prepare_v2(db,
	                              "SELECT name FROM sqlite_schema WHERE type = 'table' AND "
	                              "name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
	                              -1, &tables, NULL) != SQLITE_OK)
		return vfs_sqlite_error(db, err, "look into it");
	sqlite3_progress_handler(db, COUNT_STEPS, is_time_up, &until_us);
	while (!rc && sqlite3_step(tables) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(tables, 0);
		int64_t n = count_rows(db, name);
		rc = table_cell(t, err, "  %s", name);
		if (!rc)
			rc = n < 0 ? table_cell(t, err, "not counted")
			           : table_cell(t, err, "%" PRId64, n);
	}
	sqlite3_progress_handler(db, 0, NULL, NULL);
	if (rc)
		return rc;
	table_print(t, stderr);
	return vfs_error(db, err);
}

static int look_into(struct restore_request *q, struct err *err)
{
	cleanup_view struct view *v = NULL;
	cleanup_vfs sqlite3 *db = NULL;
	char size[SIZE_STR_MAX], when[TIME_STR_MAX];
	int rc;

	if (q->history) {
		if ((rc = view_open(q->history, q->moment.txid, &v, err)) ||
		    (rc = vfs_open_view(v, &db, err)))
			return rc;
		time_format(q->moment.time_us, when);
		cli_format_size(view_size(v), size);
		fprintf(stderr, "\n%s as of %s, txid %" PRIu64 ", %s:\n\n",
		        history_name(q->history), when, q->moment.txid, size);
		return list_tables(db, err);
	}
	if ((rc = restore_file_stage(q->file, NULL, NULL, err)))
		return rc;
	const struct restore_image *image = restore_file_image(q->file);
	const struct vfs_image bytes = {.ctx = image->ctx,
	                                .size_bytes = image->size_bytes,
	                                .read = image->read,
	                                .name = image->label};
	if ((rc = vfs_open(&bytes, &db, err)))
		return rc;
	cli_format_size(image->size_bytes, size);
	fprintf(stderr, "\n%s, %s:\n\n", q->from, size);
	return list_tables(db, err);
}

/* ---- choosing ---- */

/* The names of databases that there are histories or backups of. */
struct names {
	char (*n)[BACKUP_FILE_MAX];
	size_t count;
};

static bool same_database(const char *name, const char *stem)
{
	size_t n = strlen(stem);

	return strncmp(name, stem, n) == 0 &&
	       (!name[n] || (name[n] == '.' && !strchr(name + n + 1, '.')));
}

static int add_name(struct names *names, const char *name, bool is_stem, struct err *err)
{
	for (size_t i = 0; i < names->count; i++)
		if (is_stem ? same_database(names->n[i], name) : strcmp(names->n[i], name) == 0)
			return 0;
	void *more = realloc(names->n, (names->count + 1) * sizeof(*names->n));
	if (!more)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	names->n = more;
	snprintf(names->n[names->count++], sizeof(*names->n), "%s%s", name, is_stem ? ".db" : "");
	return 0;
}

/* False: left. */
static bool choose_database(struct restore_request *q, const struct names *names)
{
	size_t i = 1;

	if (q->db)
		return true;
	if (names->count > 1) {
		fprintf(stderr, "databases:\n");
		for (size_t k = 0; k < names->count; k++)
			fprintf(stderr, "%3zu  %s\n", k + 1, names->n[k]);
		if (!choose_number("which one? (number, anything else leaves) ", names->count,
		                   &i) ||
		    i == 0)
			return false;
	}
	snprintf(q->chosen_db, sizeof(q->chosen_db), "%s", names->n[i - 1]);
	q->db = q->chosen_db;
	return true;
}

static int choose_backup(struct cli *c, struct restore_request *q, const struct backup_list *list,
                         enum backup_type type, bool *ret_chosen, struct err *err)
{
	const struct backup_entry *shown[LISTED_MAX];
	char size[SIZE_STR_MAX], age[AGE_STR_MAX], when[TIME_STR_MAX];
	size_t n = 0, more = 0, i;

	for (size_t k = 0; k < list->n; k++) {
		const struct backup_entry *e = &list->entries[k];
		if (e->type != type || !same_database(q->db, e->db))
			continue;
		if (n == LISTED_MAX) {
			more++;
			continue;
		}
		shown[n++] = e;
		cli_format_size(e->size_bytes, size);
		cli_format_age(e->time_us, q->now_us, age);
		time_format(e->time_us, when);
		fprintf(stderr, "%3zu  %-50s %9s  %s, %s%s\n", n, e->name, size, when, age,
		        e->raw ? ", damaged, raw" : "");
	}
	if (n == 0) {
		fprintf(stderr, "no %s backups of %s\n", backup_type_names[type], q->db);
		return 0;
	}
	if (more)
		fprintf(stderr, "     and %zu older ones (asof restore --from NAME takes any)\n",
		        more);
	if (!choose_number("which one? (number, anything else goes back) ", n, &i) || i == 0)
		return 0;
	snprintf(q->chosen_file, sizeof(q->chosen_file), "%s", shown[i - 1]->path);
	q->from = q->chosen_file;
	int rc = restore_pick(c, q, err);
	*ret_chosen = rc == 0;
	return rc;
}

static int choose_moment(struct cli *c, struct restore_request *q, bool *ret_chosen,
                         struct err *err)
{
	char text[ANSWER_MAX], first[TIME_STR_MAX], last[TIME_STR_MAX];
	cleanup_history struct history *h = NULL;
	struct history_status st;
	int rc;

	if ((rc = cli_open_database(c, q->archive, q->db, &h, err)) ||
	    (rc = history_get_status(h, &st, err)))
		return rc;
	time_format(st.first_us, first);
	time_format(st.last_us, last);
	fprintf(stderr, "%s is known from %s to %s (txid %" PRIu64 " to %" PRIu64 ")\n", q->db,
	        first, last, st.first_txid, st.last_txid);
	if (!answer("as of when? (TIME, txid N, empty: the newest) ", text))
		return 0;
	q->point = (struct restore_point){.pick = RESTORE_LATEST};
	if (strncmp(text, "txid", 4) == 0) {
		q->point.pick = RESTORE_TX;
		const char *digits = text + 4 + strspn(text + 4, " ");
		rc = cli_number(c, "txid", digits, 1, UINT64_MAX, &q->point.txid, err);
	} else if (text[0]) {
		q->point.pick = RESTORE_AT;
		q->now_us = clock_now_us();
		rc = cli_time_configured(c, "restore", text, q->now_us, &q->point.time_us, err);
	} else {
		q->now_us = clock_now_us();
	}
	if (!rc)
		rc = restore_pick(c, q, err);
	*ret_chosen = rc == 0;
	return rc;
}

/* Back to where nothing was chosen. */
static void forget_choice(struct restore_request *q)
{
	restore_file_free(take_ptr(q->file));
	backup_fetched_release(&q->fetched);
	if (q->history)
		history_put(take_ptr(q->history));
	q->moment = (struct moment){0};
	q->from = NULL;
}

static void print_menu(const struct restore_request *q, const struct backup_list *list)
{
	size_t counts[BACKUP_N_TYPES] = {0};

	for (size_t i = 0; i < list->n; i++)
		counts[list->entries[i].type] += same_database(q->db, list->entries[i].db);
	fprintf(stderr, "\nrestore %s from:\n", q->db);
	for (int i = 0; i < BACKUP_N_TYPES; i++)
		fprintf(stderr, "%3d  %s backups (%zu)\n", i + 1, backup_type_names[i], counts[i]);
	fprintf(stderr, "%3d  a moment of its history\n%3d  leave\n", BACKUP_N_TYPES + 1,
	        BACKUP_N_TYPES + 2);
}

static int choose_point(struct cli *c, struct restore_request *q, const struct backup_list *list,
                        bool *ret_left, struct err *err)
{
	bool chosen = false;

	while (!chosen) {
		struct err why = ERR_INIT;
		size_t i;
		int rc;
		print_menu(q, list);
		if (!choose_number("> ", BACKUP_N_TYPES + 2, &i) || i == BACKUP_N_TYPES + 2) {
			*ret_left = true;
			return 0;
		}
		if (i == 0)
			continue;
		rc = i <= BACKUP_N_TYPES
		             ? choose_backup(c, q, list, (enum backup_type)(i - 1), &chosen, &why)
		             : choose_moment(c, q, &chosen, &why);
		if (!rc && chosen)
			rc = look_into(q, &why);
		if (!rc)
			continue;
		/* One that cannot be read is not the only one there is. */
		cli_one_line(why.msg);
		fprintf(stderr, "%s\n", why.msg);
		forget_choice(q);
		chosen = false;
	}
	return 0;
}

int restore_choose(struct cli *c, struct restore_request *q, bool *ret_done, struct err *err)
{
	cleanup_backup_list struct backup_list list = {0};
	cleanup_free char **histories = NULL;
	struct names names = {0};
	size_t n = 0;
	int rc = restore_open_archive(c, q, err);

	if (rc)
		return rc;
	const char *backups = q->far_backups ? q->far_backups : q->backups;
	if ((backups && (rc = cli_read_backups(c, backups, false, &list, err))) ||
	    (rc = archive_list(q->archive, &histories, &n, err)))
		return rc;
	for (size_t i = 0; i < n && !rc; i++)
		rc = add_name(&names, histories[i], false, err);
	for (size_t i = 0; i < list.n && !rc; i++)
		rc = add_name(&names, list.entries[i].db, true, err);
	if (!rc && names.count == 0)
		rc = err_set(err, ERR_NOT_FOUND, 0, "no database and no backup in archive '%s' yet",
		             archive_root(q->archive));
	if (!rc && !choose_database(q, &names))
		*ret_done = true;
	free(names.n);
	if (!rc && !*ret_done)
		rc = choose_point(c, q, &list, ret_done, err);
	if (!rc && *ret_done)
		fprintf(stderr, "nothing was changed\n");
	return rc;
}

/* ---- confirming ---- */

static void describe(const struct restore_request *q, const struct restore_target *t)
{
	char when[TIME_STR_MAX], size[SIZE_STR_MAX];

	if (q->history) {
		time_format(q->moment.time_us, when);
		fprintf(stderr, "\nto restore: %s as of %s (txid %" PRIu64 ")\n",
		        history_name(q->history), when, q->moment.txid);
	} else {
		fprintf(stderr, "\nto restore: %s\n", q->from);
	}
	fprintf(stderr, "in place of: %s", t->path);
	if (t->exists) {
		cli_format_size(t->size_bytes, size);
		fprintf(stderr, ", %s%s", size, t->wal ? " and commits in its -wal" : "");
	} else {
		fprintf(stderr, ", where there is no file%s",
		        t->sides ? ", but what SQLite left beside one" : "");
	}
	fputc('\n', stderr);
	if (q->target_note[0])
		fprintf(stderr, "note: %s\n", q->target_note);
	if (t->exists && !q->no_safety)
		fprintf(stderr, "a backup of what is there is %s\n",
		        q->backups ? "made first" : "kept beside it");
	if (t->n_holders)
		fprintf(stderr,
		        "WARNING: process %d (%s)%s has it open, and would go on with the old file "
		        "until it is restarted\n",
		        (int)t->holder.pid, t->holder.command,
		        t->n_holders > 1 ? " and others" : "");
}

int restore_confirm(struct restore_request *q, bool *ret_declined, struct err *err)
{
	const char *lock = q->lock_path[0] ? q->lock_path : NULL;
	struct restore_target t;
	char text[ANSWER_MAX];

	if (q->options.force || q->options.dry_run || !restore_can_ask())
		return 0;
	int rc = restore_look(q->target, lock, &t, err);
	if (rc)
		return rc;
	if (!t.exists && !t.sides && !q->interactive)
		return 0;
	describe(q, &t);
	if (answer("go ahead? [y/N] ", text) &&
	    (strcasecmp(text, "y") == 0 || strcasecmp(text, "yes") == 0)) {
		q->options.force = true;
		return 0;
	}
	fprintf(stderr, "nothing was changed\n");
	*ret_declined = true;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The notes of a history.  No image needs one to be read, so what is wrong with one shows nowhere else
 * until somebody asks for just that: all are read in every run.  What must be there is:
 *
 *   source             wherever objects lie: without it the folder is no database to readers
 *   LLLLLLLL.lineage   of each lineage that an object belongs to
 *
 * A gap, a mark and a writer are told of by their notes alone; `thinned` by what is missing
 * (missing.c).
 */
#include "engine/verify/verify_i.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"
#include "engine/store/store.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define NOTE_MAX ((size_t)64 << 20)
#define NOTE_NAME_MAX 240

struct note_list {
	size_t prefix_len;
	char (*names)[NOTE_NAME_MAX];
	size_t n, cap;
};

static int take_name(void *ctx, const struct store_entry *e, struct err *err)
{
	struct note_list *l = ctx;
	const char *name = e->key + l->prefix_len;

	if (strchr(name, '/') || strlen(name) >= NOTE_NAME_MAX)
		return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 32;
		void *p = realloc(l->names, cap * sizeof(*l->names));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory to list notes");
		l->names = p;
		l->cap = cap;
	}
	snprintf(l->names[l->n++], NOTE_NAME_MAX, "%s", name);
	return 0;
}

static bool is_listed(const struct note_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->names[i], name) == 0)
			return true;
	return false;
}

static int read_note(const struct run *r, const char *file, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX + 1);
	char key[STORE_KEY_MAX];

	snprintf(key, sizeof(key), "local/%s/%s", history_name(r->h), file);
	int rc = store_get(archive_store(r->archive), key, NOTE_MAX, &b, err);
	rc = rc ? rc : buf_append(&b, "", 1, err);
	return rc ? rc : note_check(file, (char *)b.data, b.len - 1, err);
}

static const char *lost_with(const char *file)
{
	uint32_t lineage;

	if (strcmp(file, "thinned") == 0)
		return " (which moments retention kept cannot be told)";
	if (strcmp(file, "expiring") == 0)
		return " (retention deletes nothing any more)";
	if (writer_name_parse(file, &lineage))
		return " (nothing more is sent there)";
	return "";
}

/* Notes are put whole; one that is damaged is read once more all the same, as objects are. */
static int check_one(struct run *r, const char *file, struct err *err)
{
	struct object_check check = {.whole = false};
	struct err why = ERR_INIT;

	int rc = read_note(r, file, &why);
	if (err_kind_of(rc) == ERR_DAMAGED) {
		why = (struct err)ERR_INIT;
		rc = read_note(r, file, &why);
	}
	if (rc == 0 || why.kind == ERR_USAGE || why.kind == ERR_NOT_FOUND)
		return 0; /* the last: it was just taken away */
	if (why.kind != ERR_DAMAGED)
		return err_copy(err, &why);
	r->thinned_lost = r->thinned_lost || strcmp(file, "thinned") == 0;
	(void)!err_set(&check.first, ERR_DAMAGED, 0, "%.380s%s", why.msg, lost_with(file));
	return report_note(r, file, &check, err);
}

/* Objects are put after the note of their lineage, which nobody takes away. */
static int check_lineages(struct run *r, const struct note_list *l, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < r->n_objects && rc == 0; i++) {
		const struct object_name n = {.type = OBJECT_LINEAGE,
		                              .lineage = r->objects[i].lineage};
		struct object_check check = {.whole = false};
		char file[OBJECT_NAME_MAX];
		bool told = false;
		for (size_t k = 0; k < i && !told; k++)
			told = r->objects[k].lineage == n.lineage;
		object_name_format(&n, file);
		if (told || is_listed(l, file))
			continue;
		(void)!err_set(&check.first, ERR_DAMAGED, 0,
		               "'%s' is missing, and there are objects of that lineage", file);
		rc = report_note(r, file, &check, err);
	}
	return rc;
}

int verify_notes(struct run *r, struct err *err)
{
	struct note_list l = {.n = 0};
	char prefix[STORE_KEY_MAX];

	l.prefix_len = (size_t)snprintf(prefix, sizeof(prefix), "local/%s/", history_name(r->h));
	int rc = store_list(archive_store(r->archive), prefix, NULL, false, take_name, &l, err);
	for (size_t i = 0; i < l.n && rc == 0; i++) {
		rc = check_one(r, l.names[i], err);
		rc = rc ? rc : run_tick(r, 0, err);
	}
	rc = rc ? rc : check_lineages(r, &l, err);
	free(l.names);
	return rc;
}

/* ---- a folder that is no database to readers ---- */

struct finding {
	size_t prefix_len;
	bool found;
};

static int find_object(void *ctx, const struct store_entry *e, struct err *err)
{
	struct finding *f = ctx;
	const char *rest = e->key + f->prefix_len, *base = strchr(rest, '/');
	struct object_name n;

	f->found = f->found ||
	           (base &&
	            (strncmp(rest, "segment/", 8) == 0 || strncmp(rest, "snapshot/", 9) == 0) &&
	            object_name_parse(base + 1, &n));
	return 0;
}

int verify_find_nameless(struct run *r, const char *name, bool *ret, struct err *err)
{
	struct store *s = archive_store(r->archive);
	struct finding f = {.found = false};
	cleanup_fd int lock = -1;
	char prefix[STORE_KEY_MAX], path[STORE_KEY_MAX];
	struct err why = ERR_INIT;

	*ret = false;
	f.prefix_len = (size_t)snprintf(prefix, sizeof(prefix), "local/%s/", name);
	snprintf(path, sizeof(path), "local/%.200s/lock", name);
	/* A first copy puts the note last. */
	if (s->dir_fd >= 0 && file_open(s->dir_fd, path, O_RDWR, 0, &lock, &why) == 0 &&
	    file_is_locked(lock))
		return 0;
	int rc = store_list(s, prefix, NULL, true, find_object, &f, err);
	*ret = rc == 0 && f.found;
	return rc;
}

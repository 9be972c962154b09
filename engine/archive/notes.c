/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/notes.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NOTE_MAX 4096
#define LIST_MAX (64u << 20) /* a note that lists something */

static int end_note(struct buf *b, struct err *err)
{
	return buf_printf(b, err, "sum %016" PRIx64 "\n", hash64(b->data, b->len, 0));
}

static int put_note(int dir_fd, const char *name, struct buf *b, struct err *err)
{
	int rc = end_note(b, err);
	return rc < 0 ? rc : file_put(dir_fd, name, b->data, b->len, err);
}

/* Cuts the sum line off; checks kind and sum. */
static int check_note(char *text, size_t len, const char *name, const char *kind, struct err *err)
{
	char first[40];
	uint64_t sum;
	unsigned version;

	snprintf(first, sizeof(first), "asof-%s %%u\n", kind);
	char *last = strlen(text) == len ? strstr(text, "\nsum ") : NULL;
	char want[40] = "";
	if (last) {
		sum = hash64(text, (size_t)(last + 1 - text), 0);
		snprintf(want, sizeof(want), "sum %016" PRIx64 "\n", sum);
	}
	if (!last || strcmp(last + 1, want) != 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' does not match its sum", name);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	int n = sscanf(text, first, &version);
#pragma GCC diagnostic pop
	if (n != 1)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is no %s note", name, kind);
	if (version != 1)
		return err_set(err, ERR_VERSION, 0,
		               "'%s' has format %u, this asof reads 1 (use a newer asof)", name,
		               version);
	last[1] = '\0';
	return 0;
}

/* Gives the text without its sum line; checks kind and sum. */
static int get_note_max(int dir_fd, const char *name, const char *kind, size_t max_bytes,
                        char **ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	int rc = file_get(dir_fd, name, max_bytes, &text, &len, err);
	if (rc == 0)
		rc = check_note(text, len, name, kind, err);
	if (rc == 0)
		*ret = take_ptr(text);
	return rc;
}

static int get_note(int dir_fd, const char *name, const char *kind, char **ret, struct err *err)
{
	return get_note_max(dir_fd, name, kind, NOTE_MAX, ret, err);
}

/* The value of `key`: to the end of its line.  False when it is not there. */
static bool value(const char *text, const char *key, char *out, size_t size)
{
	char find[40];

	snprintf(find, sizeof(find), "\n%s ", key);
	const char *p = strstr(text, find);
	if (!p)
		return false;
	p += strlen(find);
	size_t n = strcspn(p, "\n");
	if (n >= size)
		return false;
	memcpy(out, p, n);
	out[n] = '\0';
	return true;
}

static uint64_t number(const char *text, const char *key, bool *ok)
{
	char v[32], *end;

	if (!value(text, key, v, sizeof(v))) {
		*ok = false;
		return 0;
	}
	errno = 0;
	unsigned long long n = strtoull(v, &end, 10);
	if (*end || end == v || errno)
		*ok = false;
	return n;
}

static int checked(bool ok, const char *name, struct err *err)
{
	return ok ? 0 : err_set(err, ERR_DAMAGED, 0, "'%s' lacks a line that it must have", name);
}

/* A value ends with its line. */
static int check_line(const char *text, struct err *err)
{
	if (strchr(text, '\n'))
		return err_set(err, ERR_USAGE, 0, "'%.200s' has a line break in it (rename it)",
		               text);
	return 0;
}

int source_note_put(int dir_fd, const struct source_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	int rc = check_line(n->path, err);
	if (rc == 0)
		rc = buf_printf(&b, err, "asof-source 1\nid %" PRIu32 "\npath %s\n", n->id,
		                n->path);
	return rc < 0 ? rc : put_note(dir_fd, "source", &b, err);
}

int source_note_parse(char *text, size_t len, struct source_note *ret, struct err *err)
{
	bool ok = true;

	int rc = check_note(text, len, "source", "source", err);
	if (rc < 0)
		return rc;
	ret->id = (uint32_t)number(text, "id", &ok);
	ok = ok && ret->id != 0 && value(text, "path", ret->path, sizeof(ret->path));
	return checked(ok, "source", err);
}

int source_note_get(int dir_fd, struct source_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	int rc = file_get(dir_fd, "source", NOTE_MAX, &text, &len, err);
	return rc < 0 ? rc : source_note_parse(text, len, ret, err);
}

int lineage_note_put(int dir_fd, const struct lineage_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	struct object_name name = {.type = OBJECT_LINEAGE, .lineage = n->lineage};
	char text[OBJECT_NAME_MAX];

	int rc = check_line(n->reason, err);
	if (rc == 0)
		rc = buf_printf(&b, err,
		                "asof-lineage 1\nlineage %" PRIu32 "\nparent %" PRIu32
		                "\nfrom_txid %" PRIu64 "\nfirst_txid %" PRIu64 "\nlive_us %" PRId64
		                "\npage_size %" PRIu32 "\nreason %s\n",
		                n->lineage, n->parent, n->from_txid, n->first_txid, n->live_us,
		                n->page_size, n->reason);
	if (rc == 0 && n->from_us)
		rc = buf_printf(&b, err, "from_us %" PRId64 "\n", n->from_us);
	if (rc == 0 && n->lost[0])
		rc = buf_printf(&b, err, "lost %s\n", n->lost);
	object_name_format(&name, text);
	return rc < 0 ? rc : put_note(dir_fd, text, &b, err);
}

static int take_lineage(const char *text, const char *name, struct lineage_note *ret,
                        struct err *err)
{
	bool ok = true, there = true;

	ret->lineage = (uint32_t)number(text, "lineage", &ok);
	ret->parent = (uint32_t)number(text, "parent", &ok);
	ret->from_txid = number(text, "from_txid", &ok);
	ret->first_txid = number(text, "first_txid", &ok);
	ret->live_us = (int64_t)number(text, "live_us", &ok);
	ret->page_size = (uint32_t)number(text, "page_size", &ok);
	ok = ok && value(text, "reason", ret->reason, sizeof(ret->reason));
	ret->from_us = (int64_t)number(text, "from_us", &there);
	if (!value(text, "lost", ret->lost, sizeof(ret->lost)))
		ret->lost[0] = '\0';
	return checked(ok, name, err);
}

int lineage_note_parse(char *text, size_t len, const char *name, struct lineage_note *ret,
                       struct err *err)
{
	int rc = check_note(text, len, name, "lineage", err);

	return rc < 0 ? rc : take_lineage(text, name, ret, err);
}

int lineage_note_get(int dir_fd, const char *name, struct lineage_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;

	int rc = get_note(dir_fd, name, "lineage", &text, err);
	return rc < 0 ? rc : take_lineage(text, name, ret, err);
}

static int gap_text(const struct gap_note *n, struct buf *b, struct err *err)
{
	int rc = check_line(n->reason, err);

	if (rc == 0)
		rc = buf_printf(b, err,
		                "asof-gap 1\nbefore_txid %" PRIu64 "\nbefore_us %" PRId64
		                "\nafter_txid %" PRIu64 "\nafter_us %" PRId64 "\nreason %s\n",
		                n->before_txid, n->before_us, n->after_txid, n->after_us,
		                n->reason);
	return rc;
}

int gap_note_put(int dir_fd, const struct gap_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	char name[40];

	int rc = gap_text(n, &b, err);
	snprintf(name, sizeof(name), "%016" PRIu64 ".gap", n->after_txid);
	return rc < 0 ? rc : put_note(dir_fd, name, &b, err);
}

int gap_note_format(const struct gap_note *n, struct buf *ret, struct err *err)
{
	int rc = gap_text(n, ret, err);

	return rc < 0 ? rc : end_note(ret, err);
}

int gap_note_parse(char *text, size_t len, const char *name, struct gap_note *ret, struct err *err)
{
	bool ok = true;

	int rc = check_note(text, len, name, "gap", err);
	if (rc < 0)
		return rc;
	ret->before_txid = number(text, "before_txid", &ok);
	ret->before_us = (int64_t)number(text, "before_us", &ok);
	ret->after_txid = number(text, "after_txid", &ok);
	ret->after_us = (int64_t)number(text, "after_us", &ok);
	ok = ok && value(text, "reason", ret->reason, sizeof(ret->reason));
	return checked(ok, name, err);
}

int gap_note_get(int dir_fd, const char *name, struct gap_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	int rc = file_get(dir_fd, name, NOTE_MAX, &text, &len, err);
	return rc < 0 ? rc : gap_note_parse(text, len, name, ret, err);
}

bool gap_name_parse(const char *name, uint64_t *ret_txid)
{
	uint64_t v = 0;

	for (int i = 0; i < 16; i++) {
		if (name[i] < '0' || name[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(name[i] - '0');
	}
	*ret_txid = v;
	return strcmp(name + 16, ".gap") == 0;
}

/* ---- marks ---- */

int mark_name_check(const char *mark, struct err *err)
{
	struct err why = ERR_INIT;

	if (db_name_check(mark, &why) == 0)
		return 0;
	const char *text = strchr(why.msg, '\'');
	return err_set(err, ERR_USAGE, 0, "the mark's name %s", text ? text : mark);
}

bool mark_file_parse(const char *file, char out[DB_NAME_MAX + 1])
{
	size_t n = strlen(file);

	if (n <= 5 || n - 5 > DB_NAME_MAX || strcmp(file + n - 5, ".mark") != 0)
		return false;
	memcpy(out, file, n - 5);
	out[n - 5] = '\0';
	return mark_name_check(out, NULL) == 0;
}

static void mark_file(const char *mark, char out[DB_NAME_MAX + 8])
{
	snprintf(out, DB_NAME_MAX + 8, "%.200s.mark", mark);
}

int mark_note_put(int dir_fd, const char *mark, const struct mark_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	char file[DB_NAME_MAX + 8];

	int rc = mark_name_check(mark, err);
	if (rc < 0)
		return rc;
	mark_file(mark, file);
	if (faccessat(dir_fd, file, F_OK, 0) == 0)
		return err_set(err, ERR_EXISTS, 0,
		               "there is a mark '%s' already (choose another name, or delete it "
		               "first)",
		               mark);
	rc = buf_printf(&b, err,
	                "asof-mark 1\ntxid %" PRIu64 "\ntime_us %" PRId64 "\nmade_us %" PRId64 "\n",
	                n->txid, n->time_us, n->made_us);
	return rc < 0 ? rc : put_note(dir_fd, file, &b, err);
}

int mark_note_parse(char *text, size_t len, const char *mark, struct mark_note *ret,
                    struct err *err)
{
	char file[DB_NAME_MAX + 8];
	bool ok = true;

	mark_file(mark, file);
	int rc = check_note(text, len, file, "mark", err);
	if (rc < 0)
		return rc;
	ret->txid = number(text, "txid", &ok);
	ret->time_us = (int64_t)number(text, "time_us", &ok);
	ret->made_us = (int64_t)number(text, "made_us", &ok);
	return checked(ok && ret->txid > 0 && ret->txid <= TXID_MAX, file, err);
}

int mark_note_get(int dir_fd, const char *mark, struct mark_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	char file[DB_NAME_MAX + 8];
	size_t len;

	mark_file(mark, file);
	int rc = file_get(dir_fd, file, NOTE_MAX, &text, &len, err);
	return rc < 0 ? rc : mark_note_parse(text, len, mark, ret, err);
}

int mark_note_delete(int dir_fd, const char *mark, struct err *err)
{
	char file[DB_NAME_MAX + 8];

	mark_file(mark, file);
	if (unlinkat(dir_fd, file, 0) == 0)
		return file_sync_dir(dir_fd, file, err);
	if (errno == ENOENT)
		return err_set(err, ERR_NOT_FOUND, 0, "there is no mark '%s'", mark);
	return err_set(err, ERR_IO, errno, "remove '%s'", file);
}

/* ---- verified ---- */

/* A text of the note: one line, never empty. */
static void put_text(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", *text ? text : "-");
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 0x20)
			*p = ' ';
}

static bool get_text(const char *text, const char *key, char *out, size_t size)
{
	if (!value(text, key, out, size))
		return false;
	if (strcmp(out, "-") == 0)
		out[0] = '\0';
	return true;
}

int verified_note_put(int dir_fd, const struct verified_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	char integrity[sizeof(n->integrity)], damage[sizeof(n->damage)], file[sizeof(n->pass_file)];

	put_text(integrity, sizeof(integrity), n->integrity);
	put_text(damage, sizeof(damage), n->damage);
	put_text(file, sizeof(file), n->pass_file);
	int rc = buf_printf(&b, err,
	                    "asof-verified 1\nthrough_txid %" PRIu64 "\nthrough_us %" PRId64
	                    "\nat_us %" PRId64 "\nfull_txid %" PRIu64 "\nfull_at_us %" PRId64
	                    "\nobjects_at_us %" PRId64 "\nintegrity_txid %" PRIu64
	                    "\nintegrity_at_us %" PRId64 "\nforeign_keys %" PRIu64
	                    "\nintegrity %s\n",
	                    n->through_txid, n->through_us, n->at_us, n->full_txid, n->full_at_us,
	                    n->objects_at_us, n->integrity_txid, n->integrity_at_us,
	                    n->foreign_keys, integrity);
	if (rc == 0)
		rc = buf_printf(&b, err,
		                "damaged %" PRIu64 "\ndamaged_at_us %" PRId64
		                "\ndamage %s\npass_us %" PRId64 "\npass_file %s\npass_txid %" PRIu64
		                "\npass_page %" PRIu32 "\npass_sum_lo %" PRIu64
		                "\npass_sum_hi %" PRIu64 "\n",
		                n->damaged, n->damaged_at_us, damage, n->pass_us, file,
		                n->pass_txid, n->pass_page, n->pass_sum.lo, n->pass_sum.hi);
	return rc < 0 ? rc : put_note(dir_fd, "verified", &b, err);
}

int verified_note_parse(char *text, size_t len, struct verified_note *ret, struct err *err)
{
	bool ok = true;

	int rc = check_note(text, len, "verified", "verified", err);
	if (rc < 0)
		return rc;
	*ret = (struct verified_note){
	        .through_txid = number(text, "through_txid", &ok),
	        .through_us = (int64_t)number(text, "through_us", &ok),
	        .at_us = (int64_t)number(text, "at_us", &ok),
	        .full_txid = number(text, "full_txid", &ok),
	        .full_at_us = (int64_t)number(text, "full_at_us", &ok),
	        .objects_at_us = (int64_t)number(text, "objects_at_us", &ok),
	        .integrity_txid = number(text, "integrity_txid", &ok),
	        .integrity_at_us = (int64_t)number(text, "integrity_at_us", &ok),
	        .foreign_keys = number(text, "foreign_keys", &ok),
	        .damaged = number(text, "damaged", &ok),
	        .damaged_at_us = (int64_t)number(text, "damaged_at_us", &ok),
	        .pass_us = (int64_t)number(text, "pass_us", &ok),
	        .pass_txid = number(text, "pass_txid", &ok),
	        .pass_page = (uint32_t)number(text, "pass_page", &ok),
	        .pass_sum = {.lo = number(text, "pass_sum_lo", &ok),
	                     .hi = number(text, "pass_sum_hi", &ok)},
	};
	ok = ok && get_text(text, "integrity", ret->integrity, sizeof(ret->integrity)) &&
	     get_text(text, "damage", ret->damage, sizeof(ret->damage)) &&
	     get_text(text, "pass_file", ret->pass_file, sizeof(ret->pass_file));
	return checked(ok, "verified", err);
}

int verified_note_get(int dir_fd, struct verified_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	int rc = file_get(dir_fd, "verified", NOTE_MAX, &text, &len, err);
	return rc < 0 ? rc : verified_note_parse(text, len, ret, err);
}

/* ---- lists ---- */

/* A line of numbers behind a key: the next at *p; false at anything else. */
static bool numbers(const char **p, uint64_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char *end;
		if (**p < '0' || **p > '9')
			return false;
		errno = 0;
		out[i] = strtoull(*p, &end, 10);
		if (errno || *end != (i + 1 < n ? ' ' : '\n'))
			return false;
		*p = end + 1;
	}
	return true;
}

static size_t count_lines(const char *text, const char *key)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, key)); p += strlen(key))
		n++;
	return n;
}

static bool read_point(const char **p, struct thinned_note *n)
{
	uint64_t v[3];
	uint64_t before = n->n_points ? n->points[n->n_points - 1].txid : 0;

	if (!numbers(p, v, 3) || v[0] <= before || v[0] > TXID_MAX || v[1] > INT64_MAX ||
	    v[2] > INT64_MAX || v[1] > v[2])
		return false;
	if (n->n_points && (int64_t)v[1] < n->points[n->n_points - 1].until_us)
		return false;
	n->points[n->n_points++] = (struct thinned_point){v[0], (int64_t)v[1], (int64_t)v[2]};
	return true;
}

static bool read_root(const char **p, struct thinned_note *n)
{
	uint64_t v;

	if (!numbers(p, &v, 1) || v == 0 || (n->n_roots && v <= n->roots[n->n_roots - 1]))
		return false;
	n->roots[n->n_roots++] = v;
	return true;
}

static bool read_thinned(const char *text, struct thinned_note *n)
{
	bool ok = true;

	n->until_txid = number(text, "until_txid", &ok);
	for (const char *p = strchr(text, '\n'); ok && p && p[1];) {
		p++;
		if (strncmp(p, "point ", 6) == 0) {
			p += 6;
			ok = read_point(&p, n);
			p--;
		} else if (strncmp(p, "root ", 5) == 0) {
			p += 5;
			ok = read_root(&p, n);
			p--;
		} else {
			p = strchr(p, '\n');
		}
	}
	return ok && n->n_points && n->points[n->n_points - 1].txid == n->until_txid;
}

int thinned_note_parse(char *text, size_t len, struct thinned_note *ret, struct err *err)
{
	struct thinned_note n = {0};

	int rc = check_note(text, len, "thinned", "thinned", err);
	if (rc < 0)
		return rc;
	n.points = calloc(count_lines(text, "\npoint ") + 1, sizeof(*n.points));
	n.roots = calloc(count_lines(text, "\nroot ") + 1, sizeof(*n.roots));
	if (!n.points || !n.roots)
		rc = err_set(err, ERR_NOMEM, 0, "no memory to read 'thinned'");
	else
		rc = checked(read_thinned(text, &n), "thinned", err);
	if (rc < 0)
		thinned_note_release(&n);
	else
		*ret = n;
	return rc;
}

int thinned_note_get(int dir_fd, struct thinned_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	int rc = file_get(dir_fd, "thinned", LIST_MAX, &text, &len, err);
	return rc < 0 ? rc : thinned_note_parse(text, len, ret, err);
}

static int thinned_text(const struct thinned_note *n, struct buf *ret, struct err *err)
{
	int rc = buf_printf(ret, err, "asof-thinned 1\nuntil_txid %" PRIu64 "\n", n->until_txid);

	for (size_t i = 0; i < n->n_points && rc == 0; i++)
		rc = buf_printf(ret, err, "point %" PRIu64 " %" PRId64 " %" PRId64 "\n",
		                n->points[i].txid, n->points[i].time_us, n->points[i].until_us);
	for (size_t i = 0; i < n->n_roots && rc == 0; i++)
		rc = buf_printf(ret, err, "root %" PRIu64 "\n", n->roots[i]);
	return rc;
}

int thinned_note_format(const struct thinned_note *n, struct buf *ret, struct err *err)
{
	int rc = thinned_text(n, ret, err);

	return rc < 0 ? rc : end_note(ret, err);
}

int thinned_note_put(int dir_fd, const struct thinned_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(LIST_MAX);

	int rc = thinned_text(n, &b, err);
	return rc < 0 ? rc : put_note(dir_fd, "thinned", &b, err);
}

void thinned_note_release(struct thinned_note *n)
{
	free(n->points);
	free(n->roots);
	*n = (struct thinned_note){0};
}

static bool read_expiring(const char *text, struct expiring_note *n)
{
	for (const char *p = strchr(text, '\n'); p && p[1]; p = strchr(p + 1, '\n')) {
		struct expiring_entry *e = &n->entries[n->n];
		char *end;
		if (strncmp(p + 1, "since ", 6) != 0)
			continue;
		errno = 0;
		e->since_us = strtoll(p + 7, &end, 10);
		size_t len = *end == ' ' ? strcspn(end + 1, "\n") : 0;
		if (errno || len == 0 || len >= sizeof(e->file))
			return false;
		memcpy(e->file, end + 1, len);
		n->n++;
	}
	return true;
}

int expiring_note_parse(char *text, size_t len, struct expiring_note *ret, struct err *err)
{
	struct expiring_note n = {0};

	int rc = check_note(text, len, "expiring", "expiring", err);
	if (rc < 0)
		return rc;
	n.entries = calloc(count_lines(text, "\nsince ") + 1, sizeof(*n.entries));
	if (!n.entries)
		return err_set(err, ERR_NOMEM, 0, "no memory to read 'expiring'");
	rc = checked(read_expiring(text, &n), "expiring", err);
	if (rc < 0)
		expiring_note_release(&n);
	else
		*ret = n;
	return rc;
}

int expiring_note_get(int dir_fd, struct expiring_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	int rc = file_get(dir_fd, "expiring", LIST_MAX, &text, &len, err);
	return rc < 0 ? rc : expiring_note_parse(text, len, ret, err);
}

int expiring_note_put(int dir_fd, const struct expiring_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(LIST_MAX);

	int rc = buf_printf(&b, err, "asof-expiring 1\n");
	for (size_t i = 0; i < n->n && rc == 0; i++) {
		rc = check_line(n->entries[i].file, err);
		if (rc == 0)
			rc = buf_printf(&b, err, "since %" PRId64 " %s\n", n->entries[i].since_us,
			                n->entries[i].file);
	}
	return rc < 0 ? rc : put_note(dir_fd, "expiring", &b, err);
}

void expiring_note_release(struct expiring_note *n)
{
	free(n->entries);
	*n = (struct expiring_note){0};
}

/* ---- who writes at a destination ---- */

int identity_note_put(int dir_fd, const struct identity_note *n, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);

	int rc = buf_printf(&b, err, "asof-identity 1\nid %s\ndev %" PRIu64 "\nino %" PRIu64 "\n",
	                    n->id, n->dev, n->ino);
	return rc < 0 ? rc : put_note(dir_fd, "identity", &b, err);
}

int identity_note_get(int dir_fd, struct identity_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	bool ok = true;

	int rc = get_note(dir_fd, "identity", "identity", &text, err);
	if (rc < 0)
		return rc;
	*ret = (struct identity_note){.dev = number(text, "dev", &ok),
	                              .ino = number(text, "ino", &ok)};
	ok = value(text, "id", ret->id, sizeof(ret->id)) && ok;
	return checked(ok, "identity", err);
}

int writer_note_format(const struct writer_note *n, struct buf *ret, struct err *err)
{
	int rc = check_line(n->host, err);

	if (rc == 0)
		rc = buf_printf(ret, err,
		                "asof-writer 1\nlineage %" PRIu32 "\nid %s\nhost %s\nsince_us "
		                "%" PRId64 "\n",
		                n->lineage, n->id, n->host, n->since_us);
	if (rc == 0 && n->was[0])
		rc = buf_printf(ret, err, "was %s\n", n->was);
	return rc < 0 ? rc : end_note(ret, err);
}

int writer_note_parse(char *text, size_t len, const char *name, struct writer_note *ret,
                      struct err *err)
{
	bool ok = true;

	int rc = check_note(text, len, name, "writer", err);
	if (rc < 0)
		return rc;
	*ret = (struct writer_note){.lineage = (uint32_t)number(text, "lineage", &ok),
	                            .since_us = (int64_t)number(text, "since_us", &ok)};
	ok = value(text, "id", ret->id, sizeof(ret->id)) && ok;
	ok = value(text, "host", ret->host, sizeof(ret->host)) && ok;
	if (!value(text, "was", ret->was, sizeof(ret->was)))
		ret->was[0] = '\0';
	return checked(ok, name, err);
}

bool writer_name_parse(const char *name, uint32_t *ret_lineage)
{
	char *end;
	unsigned long v = strtoul(name, &end, 10);

	*ret_lineage = (uint32_t)v;
	return end == name + 8 && v <= 99999999 && strcmp(end, ".writer") == 0;
}

/* ---- any of them ---- */

static int of_another(const char *file, const char *what, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0, "'%s' is of another %s", file, what);
}

static int check_lists(const char *file, char *text, size_t len, struct err *err)
{
	struct thinned_note thinned = {0};
	struct expiring_note expiring = {0};
	int rc;

	if (strcmp(file, "thinned") == 0) {
		rc = thinned_note_parse(text, len, &thinned, err);
		thinned_note_release(&thinned);
	} else {
		rc = expiring_note_parse(text, len, &expiring, err);
		expiring_note_release(&expiring);
	}
	return rc;
}

int note_check(const char *file, char *text, size_t len, struct err *err)
{
	char mark[DB_NAME_MAX + 1];
	struct object_name n;
	uint64_t txid;
	uint32_t lineage;
	union {
		struct source_note source;
		struct lineage_note lineage;
		struct gap_note gap;
		struct mark_note mark;
		struct writer_note writer;
	} as;

	if (strcmp(file, "source") == 0)
		return source_note_parse(text, len, &as.source, err);
	if (strcmp(file, "thinned") == 0 || strcmp(file, "expiring") == 0)
		return check_lists(file, text, len, err);
	if (object_name_parse(file, &n) && n.type == OBJECT_LINEAGE) {
		int rc = lineage_note_parse(text, len, file, &as.lineage, err);
		return rc == 0 && as.lineage.lineage != n.lineage ? of_another(file, "lineage", err)
		                                                  : rc;
	}
	if (writer_name_parse(file, &lineage)) {
		int rc = writer_note_parse(text, len, file, &as.writer, err);
		return rc == 0 && as.writer.lineage != lineage ? of_another(file, "lineage", err)
		                                               : rc;
	}
	if (gap_name_parse(file, &txid)) {
		int rc = gap_note_parse(text, len, file, &as.gap, err);
		return rc == 0 && as.gap.after_txid != txid ? of_another(file, "gap", err) : rc;
	}
	if (mark_file_parse(file, mark))
		return mark_note_parse(text, len, mark, &as.mark, err);
	return err_set(err, ERR_USAGE, 0, "'%s' is no note that is known", file);
}

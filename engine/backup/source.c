/* SPDX-License-Identifier: Apache-2.0 */
/* Where the bytes of a backup come from: the continuous history, or the child of reader.c. */
#include "engine/backup/backup_i.h"
#include "engine/backup/reader.h"

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/command.h"
#include "engine/base/log.h"
#include "engine/view/history.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* A running replicator says at least once a second how far it is. */
#define KNOWN_PATIENCE_US (INT64_C(3) * US_PER_SECOND)
#define KNOWN_POLL_US 10000

void backup_input_release(struct backup_input *in)
{
	if (in->release)
		in->release(in->ctx);
	*in = (struct backup_input){0};
}

/* ---- the history ---- */

struct past {
	struct archive *archive;
	struct history *history;
	struct view *view;
	uint64_t at;
};

static void past_release(void *ctx)
{
	struct past *p = ctx;

	if (!p)
		return;
	view_free(p->view);
	if (p->history)
		history_put(p->history);
	archive_free(p->archive);
	free(p);
}

static void past_release_p(struct past **p)
{
	past_release(*p);
}

static int past_next(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct past *p = ctx;
	int rc = view_read(p->view, p->at, buf, len, 0, ret_len, err);

	if (!rc)
		p->at += *ret_len;
	if (!rc && *ret_len < len && p->at != view_size(p->view))
		return err_set(err, ERR_DAMAGED, 0, "the image ends at byte %llu",
		               (unsigned long long)p->at);
	return rc;
}

static bool same_file(const char *a, const char *b)
{
	char x[PATH_MAX], y[PATH_MAX];

	return realpath(a, x) && realpath(b, y) && strcmp(x, y) == 0;
}

/* The history that a running replicator keeps of the file; NULL: there is none. */
static int find_history(struct archive *a, const char *db_path, struct history **ret,
                        struct err *err)
{
	cleanup_free char **names = NULL;
	struct history_status status;
	size_t n;
	int rc = archive_list(a, &names, &n, err);

	*ret = NULL;
	for (size_t i = 0; i < n && !rc; i++) {
		cleanup_history struct history *h = NULL;
		/* One that cannot be read is no way out for this database alone. */
		if (history_get(a, names[i], &h, NULL) || history_get_status(h, &status, NULL))
			continue;
		if (status.writer_alive && same_file(status.source_path, db_path)) {
			*ret = take_ptr(h);
			return 0;
		}
	}
	return rc;
}

static int wait_until_known(struct history *h, int64_t time_us, struct err *err)
{
	int64_t until_us = clock_mono_us() + KNOWN_PATIENCE_US;
	struct history_status status;

	for (;;) {
		int rc = history_refresh(h, err);
		rc = rc ? rc : history_get_status(h, &status, err);
		if (rc || (status.writer_alive && status.known_until_us > time_us))
			return rc;
		if (!status.writer_alive || clock_mono_us() > until_us)
			return err_set(err, ERR_NOT_FOUND, 0, "'%s' is not captured up to now",
			               history_name(h));
		clock_sleep_us(KNOWN_POLL_US);
	}
}

int backup_input_history(const char *archive_root, const char *db_path, int64_t now_us,
                         struct backup_input *ret, struct err *err)
{
	struct past *p CLEANUP(past_release_p) = calloc(1, sizeof(*p));
	struct moment m;
	int rc;

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory for a backup");
	if ((rc = archive_open(archive_root, NULL, &p->archive, err)) ||
	    (rc = find_history(p->archive, db_path, &p->history, err)))
		return rc;
	if (!p->history)
		return err_set(err, ERR_NOT_FOUND, 0, "no replicator captures '%s' into '%s'",
		               db_path, archive_root);
	if ((rc = wait_until_known(p->history, now_us, err)) ||
	    (rc = history_at(p->history, now_us, clock_now_us(), &m, err)) ||
	    (rc = view_open(p->history, m.txid, &p->view, err)))
		return rc;
	if (m.flags & MOMENT_PROVISIONAL)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' is not captured up to now", db_path);
	*ret = (struct backup_input){
	        .source = BACKUP_FROM_HISTORY,
	        .page_size = m.page_size,
	        .size_bytes = view_size(p->view),
	        .txid = m.txid,
	        .lineage = m.lineage,
	        .state_us = now_us,
	        .state = m.state,
	        .next = past_next,
	        .release = past_release,
	};
	ret->ctx = take_ptr(p);
	return 0;
}

/* ---- the child ---- */

struct child {
	struct command command;
	char *label;
	size_t left; /* of the data record at which it stands */
	bool ended, again;
};

static void child_release(void *ctx)
{
	struct child *c = ctx;

	if (!c)
		return;
	command_release(&c->command);
	free(c->label);
	free(c);
}

static void child_release_p(struct child **c)
{
	child_release(*c);
}

static int read_exact(struct child *c, void *buf, size_t len, struct err *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(c->command.out_fd, (char *)buf + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_IO, errno, "read '%s' in a child process",
			               c->label);
		if (n == 0)
			break;
		done += (size_t)n;
	}
	if (done == len)
		return 0;
	/* It died: what it said is the reason. */
	int rc = command_finish(&c->command, ERR_IO, err);
	return rc ? err_wrap(err, rc, "read '%s'", c->label)
	          : err_set(err, ERR_IO, 0, "the process that read '%s' ended early", c->label);
}

static int take_error(struct child *c, size_t len, struct err *err)
{
	uint8_t b[READER_ERROR_HEAD + sizeof(err->msg)];
	int rc = len < READER_ERROR_HEAD || len > sizeof(b)
	                 ? err_set(err, ERR_IO, 0, "a wrong record from a child process")
	                 : read_exact(c, b, len, err);

	if (rc)
		return rc;
	uint32_t kind = load_le32(b);
	c->again = b[4] != 0;
	c->ended = true;
	if (kind == ERR_NONE || kind >= ERR_KIND_COUNT)
		kind = ERR_IO;
	return err_set(err, (enum err_kind)kind, 0, "%.*s", (int)(len - READER_ERROR_HEAD),
	               (const char *)b + READER_ERROR_HEAD);
}

static int next_record(struct child *c, uint8_t *ret_kind, size_t *ret_len, struct err *err)
{
	uint8_t head[READER_RECORD_HEAD];
	int rc = read_exact(c, head, sizeof(head), err);

	if (rc)
		return rc;
	*ret_kind = head[0];
	*ret_len = load_le32(head + 1);
	if (*ret_len > READER_RECORD_MAX)
		return err_set(err, ERR_IO, 0, "a wrong record from a child process");
	return *ret_kind == READER_ERROR ? take_error(c, *ret_len, err) : 0;
}

static int child_next(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct child *c = ctx;
	uint8_t kind;
	int rc = 0;

	*ret_len = 0;
	while (!rc && *ret_len < len && !c->ended) {
		if (c->left == 0) {
			rc = next_record(c, &kind, &c->left, err);
			if (!rc && kind == READER_END)
				c->ended = true;
			else if (!rc && kind != READER_DATA)
				rc = err_set(err, ERR_IO, 0, "a wrong record from a child process");
			continue;
		}
		size_t n = len - *ret_len < c->left ? len - *ret_len : c->left;
		rc = read_exact(c, (char *)buf + *ret_len, n, err);
		*ret_len += n;
		c->left -= n;
	}
	return rc;
}

static int take_begin(struct child *c, struct backup_input *ret, struct err *err)
{
	uint8_t kind, b[READER_BEGIN_BYTES];
	size_t len;
	int rc = next_record(c, &kind, &len, err);

	if (!rc && (kind != READER_BEGIN || len != sizeof(b)))
		rc = err_set(err, ERR_IO, 0, "a wrong record from a child process");
	rc = rc ? rc : read_exact(c, b, sizeof(b), err);
	if (rc)
		return rc;
	ret->page_size = load_le32(b);
	ret->size_bytes = load_le64(b + 4);
	ret->blocks_writers = b[12] != 0;
	return 0;
}

static int start_child(const char *how, const char *path, const char *scratch_dir,
                       const char *program, struct backup_input *ret, bool *ret_again,
                       struct err *err)
{
	struct child *c CLEANUP(child_release_p) = calloc(1, sizeof(*c));
	const char *const argv[] = {
	        program ? program : "/proc/self/exe", READER_WORD, how, path, scratch_dir, NULL};

	if (!c || !(c->label = strdup(path))) {
		if (c)
			c->command = (struct command)COMMAND_INIT;
		return err_set(err, ERR_NOMEM, 0, "no memory for a backup");
	}
	*ret = (struct backup_input){.state_us = clock_now_us()};
	struct err why = ERR_INIT;
	int rc = command_start(&c->command, argv, -1, &why);
	if (rc) /* whatever is missing, it is not the database */
		return err_set(err, ERR_IO, 0, "%s", why.msg);
	rc = take_begin(c, ret, err);
	*ret_again = c->again;
	if (rc)
		return rc;
	ret->next = child_next;
	ret->release = child_release;
	ret->again = &c->again;
	ret->ctx = take_ptr(c);
	return 0;
}

int backup_input_live(const char *db_path, const char *scratch_dir, const char *program,
                      struct backup_input *ret, bool *ret_again, struct err *err)
{
	int rc = start_child(READER_SNAPSHOT, db_path, scratch_dir, program, ret, ret_again, err);

	ret->source = BACKUP_FROM_LIVE;
	return rc;
}

int backup_input_raw(const char *path, const char *program, struct backup_input *ret,
                     struct err *err)
{
	bool again;
	int rc = start_child(READER_RAW, path, NULL, program, ret, &again, err);

	ret->source = BACKUP_FROM_RAW;
	return rc;
}

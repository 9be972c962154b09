/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a backup: bytes of an input (source.c) into a temporary file, checked, fsynced, and only
 * then under a name of its own.
 *
 *   1  .asof-backup-PID-RANDOM.tmp in the folder of its type, locked for as long as it is written
 *   2  the content: a pack, or plain; or that in an unlinked file of $TMPDIR, which gpg reads
 *   3  fsync; all of it read back, SQLite's checks (check.c)
 *   4  an exclusive rename to the first name that is free; fsync of the folder
 *   5  the manifest likewise
 *
 * Whoever dies before 4 leaves a temporary file that nobody has locked, which cleanup removes;
 * between 4 and 5 a whole backup without a manifest.  The companions of a raw copy come before
 * it: alone they are nothing.
 */
#include "engine/backup/create_i.h"

#include "engine/base/clock.h"
#include "engine/base/command.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_TRIES 5
#define N_RAW 3
#define LABEL_MAX 24
#define LABEL_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

static void release_job(struct job *j)
{
	if (j->dir_fd >= 0)
		close(j->dir_fd);
	free(j->buf);
}

static const char *extension(const struct backup_options *o)
{
	if (o->gpg_recipient)
		return o->no_compress ? ".db.gpg" : ".db.gz.gpg";
	return o->no_compress ? ".db" : ".db.gz";
}

static int tell(struct job *j, size_t more, struct err *err)
{
	const struct backup_options *o = j->options;

	j->done_bytes += more;
	if (o->progress && !o->progress(o->ctx, j->done_bytes, j->total_bytes))
		return err_set(err, ERR_CANCELLED, 0, "cancelled");
	return 0;
}

/* What is to be encrypted does not touch the archive's disk as it is. */
static const char *scratch_dir(const struct job *j)
{
	const char *dir = getenv("TMPDIR");

	if (!j->options->gpg_recipient)
		return j->dir;
	return dir && *dir ? dir : "/var/tmp";
}

static int open_scratch(const struct job *j, int *ret_fd, struct err *err)
{
	return j->options->gpg_recipient ? file_open_unlinked(0, ret_fd, err)
	                                 : making_open_scratch(j, ret_fd, err);
}

/* ---- the application must not wait for the compressor ---- */

struct spool {
	int fd;
	uint64_t at, size_bytes;
};

static int spool_next(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct spool *s = ctx;
	int rc = file_pread_some(s->fd, buf, len, s->at, ret_len, "temporary copy", err);

	s->at += rc ? 0 : *ret_len;
	return rc;
}

static void spool_release(void *ctx)
{
	struct spool *s = ctx;

	close(s->fd);
	free(s);
}

/* Takes all of `in` into an unlinked file as fast as the disk goes, and lets go of the source. */
static int spool(struct job *j, struct backup_input *in, struct err *err)
{
	struct spool *s = calloc(1, sizeof(*s));
	size_t got = BACKUP_PIECE_BYTES;
	int rc = s ? 0 : err_set(err, ERR_NOMEM, 0, "no memory for a backup");

	if (s)
		s->fd = -1;
	rc = rc ? rc : open_scratch(j, &s->fd, err);
	while (!rc && got == BACKUP_PIECE_BYTES) {
		rc = in->next(in->ctx, j->buf, BACKUP_PIECE_BYTES, &got, err);
		rc = rc ? rc
		        : file_pwrite(s->fd, j->buf, got, s->size_bytes, "temporary copy", err);
		s->size_bytes += got;
		rc = rc ? rc : tell(j, 0, err);
	}
	if (rc) {
		if (s && s->fd >= 0)
			close(s->fd);
		free(s);
		return rc;
	}
	in->release(in->ctx);
	in->again = NULL;
	in->ctx = s;
	in->next = spool_next;
	in->release = spool_release;
	return 0;
}

/* ---- content ---- */

static int check_input(const struct job *j, const struct backup_input *in, const struct output *o,
                       struct err *err)
{
	if (in->page_size && o->content_bytes != in->size_bytes)
		return err_set(err, ERR_IO, 0, "'%s' gave %" PRIu64 " bytes of %" PRIu64,
		               j->db_path, o->content_bytes, in->size_bytes);
	if (!hash128_zero(in->state) && !hash128_equal(in->state, o->state))
		return err_set(err, ERR_DAMAGED, 0,
		               "what the history gives for txid %" PRIu64
		               " is not what was committed: its state checksum differs",
		               in->txid);
	return 0;
}

static int copy_input(struct job *j, struct backup_input *in, struct output *o, struct err *err)
{
	size_t got = BACKUP_PIECE_BYTES;
	int rc = 0;

	while (!rc && got == BACKUP_PIECE_BYTES) {
		rc = in->next(in->ctx, j->buf, BACKUP_PIECE_BYTES, &got, err);
		rc = rc ? rc : output_append(o, j->buf, got, err);
		rc = rc ? rc : tell(j, got, err);
	}
	rc = rc ? rc : output_finish(o, in, err);
	return rc ? rc : check_input(j, in, o, err);
}

static int write_content(struct job *j, struct backup_input *in, int fd, const char *name,
                         struct output *o, struct err *err)
{
	int rc = output_open(o, fd, name, in, j->options, err);

	rc = rc ? rc : copy_input(j, in, o, err);
	output_release(o);
	return rc;
}

/* ---- gpg ---- */

static int take_encrypted(struct job *j, struct command *gpg, struct output *o, struct err *err)
{
	for (;;) {
		ssize_t n = read(gpg->out_fd, j->buf, BACKUP_PIECE_BYTES);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_IO, errno, "read what gpg makes");
		if (n == 0)
			return 0;
		int rc = output_store(o, j->buf, (size_t)n, o->stored_bytes, err);
		rc = rc ? rc : tell(j, 0, err);
		if (rc)
			return rc;
	}
}

static int encrypt(struct job *j, int plain_fd, struct making *m, struct output *o, struct err *err)
{
	const char *const argv[] = {"gpg",
	                            "--batch",
	                            "--quiet",
	                            "--no-tty",
	                            "--yes",
	                            "--trust-model",
	                            "always",
	                            "--compress-algo",
	                            "none",
	                            "--recipient",
	                            j->options->gpg_recipient,
	                            "--encrypt",
	                            NULL};
	cleanup_command struct command gpg = COMMAND_INIT;
	uint64_t content_bytes = o->content_bytes;
	struct hash128 state = o->state;
	struct err why = ERR_INIT;
	int rc;

	if (lseek(plain_fd, 0, SEEK_SET) < 0)
		return err_set(err, ERR_IO, errno, "read a temporary file");
	*o = (struct output){.fd = m->fd, .name = m->tmp};
	sha256_init(&o->sha);
	o->content_bytes = content_bytes;
	o->state = state;
	if ((rc = command_start(&gpg, argv, plain_fd, &why))) /* gpg is not here */
		rc = err_set(err, ERR_UNAVAILABLE, 0, "%s", why.msg);
	rc = rc ? rc : take_encrypted(j, &gpg, o, err);
	rc = rc ? rc : command_finish(&gpg, ERR_UNAVAILABLE, err);
	return rc ? err_wrap(err, rc, "encrypt for '%.80s'", j->options->gpg_recipient) : 0;
}

/* ---- checking ---- */

static bool on_check(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	struct job *j = ctx;

	return tell(j, 0, NULL) == 0;
}

/* All of the file behind `fd` read back and compared, and SQLite asked, if that is wanted. */
static int check_made(struct job *j, int fd, const struct backup_input *in, const struct output *o,
                      struct err *err)
{
	struct backup_manifest *m = &j->ret->manifest;
	struct backup_content content;
	bool bytes_alone = j->options->no_validate;

	if (in->page_size == 0) /* raw */
		return 0;
	j->checking = true;
	int rc = backup_check_made(fd, !j->options->no_compress, in->page_size, bytes_alone,
	                           on_check, j, &content, err);

	if (rc)
		return rc;
	if (!content.ok)
		return err_set(err, ERR_DAMAGED, 0,
		               "source database validation failed: '%.200s': %.240s", j->db_path,
		               content.problem);
	if (content.size_bytes != o->content_bytes || !hash128_equal(content.state, o->state))
		return err_set(err, ERR_DAMAGED, 0,
		               "backup validation failed: what was written for '%.300s' reads "
		               "back otherwise",
		               j->db_path);
	if (bytes_alone)
		return 0;
	m->checked = true;
	m->checked_us = clock_now_us();
	m->foreign_key_rows = content.foreign_key_rows;
	if (content.foreign_key_rows)
		snprintf(m->warning, sizeof(m->warning),
		         "foreign_key_check: %" PRIu64 " row%s, the first of %.100s: the "
		         "application's data is so",
		         content.foreign_key_rows, content.foreign_key_rows == 1 ? "" : "s",
		         content.foreign_key_table);
	return 0;
}

/* ---- one try ---- */

static int write_plainly(struct job *j, struct backup_input *in, struct making *m, struct output *o,
                         struct err *err)
{
	int rc = write_content(j, in, m->fd, m->tmp, o, err);

	rc = rc ? rc : file_datasync(m->fd, m->tmp, err);
	return rc ? rc : check_made(j, m->fd, in, o, err);
}

static int write_encrypted(struct job *j, struct backup_input *in, struct making *m,
                           struct output *o, struct err *err)
{
	cleanup_fd int plain_fd = -1;
	int rc = open_scratch(j, &plain_fd, err);

	rc = rc ? rc : write_content(j, in, plain_fd, "temporary file", o, err);
	rc = rc ? rc : check_made(j, plain_fd, in, o, err);
	rc = rc ? rc : encrypt(j, plain_fd, m, o, err);
	return rc ? rc : file_datasync(m->fd, m->tmp, err);
}

static int write_input(struct job *j, struct backup_input *in, struct making *m, struct output *o,
                       struct err *err)
{
	int rc = 0;

	j->done_bytes = 0;
	j->total_bytes = in->size_bytes;
	if (in->blocks_writers && !(j->options->no_compress && !j->options->gpg_recipient))
		rc = spool(j, in, err);
	if (rc)
		return rc;
	return j->options->gpg_recipient ? write_encrypted(j, in, m, o, err)
	                                 : write_plainly(j, in, m, o, err);
}

/* ---- publishing ---- */

static void describe(struct job *j, const struct backup_input *in, const char *name,
                     struct output *o)
{
	struct backup_manifest *m = &j->ret->manifest;

	snprintf(m->type, sizeof(m->type), "%s", backup_type_names[j->options->type]);
	backup_time_iso_local(j->begun_us, m->timestamp);
	snprintf(m->source_database, sizeof(m->source_database), "%s", j->db_path);
	snprintf(m->backup_file, sizeof(m->backup_file), "%.*s/%s",
	         (int)(sizeof(m->backup_file) - BACKUP_FILE_MAX - 1), j->dir, name);
	m->source_size_bytes = o->content_bytes;
	m->backup_size_bytes = o->stored_bytes;
	m->compression_ratio =
	        o->content_bytes ? (double)o->stored_bytes / (double)o->content_bytes : 1.0;
	snprintf(m->created_by, sizeof(m->created_by), "asof %s", ASOF_VERSION);
	backup_sha_text(&o->sha, m->sha256);
	m->txid = in->txid;
	m->created_us = j->begun_us;
	m->state_us = in->state_us;
	m->source = in->source;
}

static int finish(struct job *j, const struct backup_input *in, struct making *files,
                  const char *const *tails, size_t n, struct output *o, struct err *err)
{
	struct making *main = &files[n - 1];
	struct stat st;

	/* Not wider than the database itself. */
	if (stat(j->real_path, &st) == 0 && (st.st_mode & 0600) == 0400)
		for (size_t i = 0; i < n; i++)
			if (fchmod(files[i].fd, 0400) < 0)
				return err_set(err, ERR_IO, errno, "set the mode of '%s'",
				               files[i].tmp);
	int rc = publish_all(j, files, tails, n, err);
	if (rc)
		return rc;
	describe(j, in, main->name, o);
	for (size_t i = 0; i + 1 < n; i++)
		snprintf(j->ret->manifest.companions[j->ret->manifest.n_companions++],
		         BACKUP_NAME_MAX, "%s", files[i].name);
	snprintf(j->ret->path, sizeof(j->ret->path), "%s", j->ret->manifest.backup_file);
	rc = publish_manifest(j, err);
	if (rc)
		for (size_t i = n; i-- > 0;) /* the backup first: see above */
			publish_take_back(j, &files[i]);
	return rc;
}

/* ---- a damaged database, as it lies there ---- */

static int write_raw(struct job *j, const char *suffix, struct making *m, struct backup_input *in,
                     struct output *o, struct err *err)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s%s", j->real_path, suffix);
	int rc = backup_input_raw(path, j->options->reader_program, in, err);
	rc = rc ? rc : making_open(j, m, err);
	if (rc)
		return rc;
	return j->options->gpg_recipient ? write_encrypted(j, in, m, o, err)
	                                 : write_plainly(j, in, m, o, err);
}

static int create_raw(struct job *j, const struct err *damage, struct err *err)
{
	static const char *const suffixes[N_RAW] = {"-wal", "-journal", ""};
	struct backup_options raw_options = *j->options;
	struct making files[N_RAW] = {MAKING_INIT, MAKING_INIT, MAKING_INIT};
	char tails[N_RAW][32];
	const char *tail_of[N_RAW];
	struct backup_input in = {0};
	struct output o = {0};
	struct err why = ERR_INIT;
	size_t n = 0;
	int rc = 0;

	/* Their form is one; the plain pair is what sqlite3's .recover wants. */
	raw_options.no_compress = false;
	j->options = &raw_options;
	j->ret->manifest = (struct backup_manifest){0};
	for (size_t i = 0; i < N_RAW && !rc; i++) {
		backup_input_release(&in);
		rc = write_raw(j, suffixes[i], &files[n], &in, &o, &why);
		if (err_kind_of(rc) == ERR_NOT_FOUND && suffixes[i][0]) {
			rc = 0;
			continue;
		}
		snprintf(tails[n], sizeof(tails[n]), ".db%s.gz%s", suffixes[i],
		         j->options->gpg_recipient ? ".gpg" : "");
		tail_of[n] = tails[n];
		n++;
	}
	if (rc)
		err_copy(err, &why);
	snprintf(j->ret->manifest.warning, sizeof(j->ret->manifest.warning),
	         "the database is damaged, its bytes are kept as they are: %.240s", damage->msg);
	rc = rc ? rc : finish(j, &in, files, tail_of, n, &o, err);
	backup_input_release(&in);
	for (size_t i = 0; i < N_RAW; i++)
		making_release(j, &files[i]);
	j->ret->damaged = rc == 0;
	return rc;
}

/* ---- all of it ---- */

static int open_input(struct job *j, struct backup_input *in, bool *ret_again, struct err *err)
{
	struct err why = ERR_INIT;

	*ret_again = false;
	if (!j->options->live_only) {
		const char *root =
		        j->options->history_root ? j->options->history_root : j->archive_root;
		if (backup_input_history(root, j->real_path, j->begun_us, in, &why) == 0)
			return 0;
		log_debug("backup", "not from the history: %s", why.msg);
	}
	return backup_input_live(j->real_path, scratch_dir(j), j->options->reader_program, in,
	                         ret_again, err);
}

static int try_once(struct job *j, bool *ret_again, struct err *err)
{
	const char *const tail = extension(j->options);
	struct making m = MAKING_INIT;
	struct backup_input in = {0};
	struct output o = {0};
	int rc;

	j->ret->manifest = (struct backup_manifest){0};
	j->checking = false;
	rc = open_input(j, &in, ret_again, err);
	rc = rc ? rc : making_open(j, &m, err);
	if (!rc) {
		rc = write_input(j, &in, &m, &o, err);
		*ret_again = rc && in.again && *in.again;
	}
	rc = rc ? rc : finish(j, &in, &m, &tail, 1, &o, err);
	backup_input_release(&in);
	making_release(j, &m);
	return rc;
}

static int absolute(const char *path, char out[PATH_MAX], struct err *err)
{
	char cwd[PATH_MAX];

	if (path[0] == '/')
		cwd[0] = '\0';
	else if (!getcwd(cwd, sizeof(cwd)))
		return err_set(err, ERR_IO, errno, "ask for the working folder");
	if (snprintf(out, PATH_MAX, "%s%s%s", cwd, cwd[0] ? "/" : "", path) >= PATH_MAX)
		return err_set(err, ERR_USAGE, 0, "the path '%.60s...' is too long", path);
	size_t n = strlen(out);
	while (n > 1 && out[n - 1] == '/')
		out[--n] = '\0';
	return 0;
}

static int open_job(struct job *j, struct err *err)
{
	char root[PATH_MAX];
	int rc = absolute(j->archive_root, root, err);

	if (rc)
		return rc;
	if (snprintf(j->dir, sizeof(j->dir), "%s/%s", root, backup_type_names[j->options->type]) >=
	    (int)sizeof(j->dir) - BACKUP_FILE_MAX - 1)
		return err_set(err, ERR_USAGE, 0, "the path '%.60s...' is too long", root);
	if (!(j->buf = malloc(BACKUP_PIECE_BYTES)))
		return err_set(err, ERR_NOMEM, 0, "no memory for a backup");
	rc = backup_stem(j->db_path, j->stem, err);
	rc = rc ? rc : file_make_dirs(j->dir, err);
	return rc ? rc : file_open_dir(AT_FDCWD, j->dir, false, &j->dir_fd, err);
}

static int check_label(const char *label, struct err *err)
{
	if (!label || (strlen(label) <= LABEL_MAX && strspn(label, LABEL_LETTERS) == strlen(label)))
		return 0;
	return err_set(err, ERR_USAGE, 0, "'%.60s' is no label for a backup", label);
}

int backup_create(const char *archive_root, const char *db_path,
                  const struct backup_options *options, struct backup_result *ret, struct err *err)
{
	CLEANUP(release_job)
	struct job j = {.options = options, .archive_root = archive_root, .dir_fd = -1, .ret = ret};
	char given[PATH_MAX];
	struct err why = ERR_INIT;
	bool again = true;
	int rc;

	*ret = (struct backup_result){0};
	if (store_is_url(archive_root))
		return err_set(err, ERR_USAGE, 0,
		               "'%s': backups are made in a directory (name one by --archive)",
		               archive_root);
	if ((rc = check_label(options->label, err)) || (rc = absolute(db_path, given, err)))
		return rc;
	if (!realpath(given, j.real_path))
		return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
		               errno == ENOENT || errno == ENOTDIR ? 0 : errno,
		               "database not found: %.300s", db_path);
	j.db_path = given;
	j.begun_us = clock_now_us();
	if ((rc = open_job(&j, err)))
		return rc;
	for (int tries = 0; again && tries < MAX_TRIES; tries++) {
		again = false;
		rc = try_once(&j, &again, &why);
	}
	/* A signal of the terminal ends the child, too; that is not what went wrong. */
	if (rc)
		rc = tell(&j, 0, &why) ? -ERR_CANCELLED : rc;
	if (err_kind_of(rc) == ERR_DAMAGED && !j.checking)
		err_wrap(&why, rc, "source database validation failed");
	if (err_kind_of(rc) == ERR_DAMAGED && options->keep_damaged)
		return create_raw(&j, &why, err);
	return rc ? err_copy(err, &why) : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What an archive is besides the histories in it: its filesystem, backups, the journal. */
#include "engine/observe/facts_i.h"

#include "engine/backup/backup.h"
#include "engine/base/clock.h"
#include "engine/monitor/space.h"

#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>

/* What tells of runs: the newest so many. */
#define RUNS_MAX 20000

struct stamp facts_stamp(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return (struct stamp){0};
	return (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
}

bool facts_same_stamp(const struct stamp *a, const struct stamp *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec;
}

static struct stamp stamp_of(const char *folder, const char *name)
{
	char path[HEALTH_PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return facts_stamp(path);
}

/* ---- filesystems ---- */

static uint64_t reserve_of(const struct config_retention *r, uint64_t total_bytes)
{
	uint64_t part = total_bytes / 100 * r->min_free_percent;

	if (r->min_free_percent == 0)
		return r->min_free_bytes;
	return r->min_free_bytes && r->min_free_bytes < part ? r->min_free_bytes : part;
}

static void read_space(struct health_archive *a)
{
	struct statvfs vfs;

	cleanup_fd int fd = open(a->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstatvfs(fd, &vfs) < 0) {
		snprintf(a->unreadable, sizeof(a->unreadable), "archive '%.150s': %s", a->root,
		         strerror(errno));
		return;
	}
	a->read_only = vfs.f_flag & ST_RDONLY;
	a->total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
	a->free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
}

static void foretell(struct health_archive *a)
{
	struct space_samples s;

	space_read(a->root, &s);
	a->full_in_s = space_full_in_s(&s, clock_now_us(), a->free_bytes, a->reserve_bytes);
}

static int add_archive(struct health_facts *f, const char *root,
                       const struct config_database *config, struct err *err)
{
	if (!root[0] || health_archive_of(f, root))
		return 0;
	struct health_archive *a = facts_add(&f->archives, &f->n_archives, sizeof(*a));
	if (!a)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	snprintf(a->root, sizeof(a->root), "%s", root);
	a->full_in_s = -1;
	read_space(a);
	if (config)
		a->reserve_bytes = reserve_of(&config->retention, a->total_bytes);
	if (!a->unreadable[0])
		foretell(a);
	return 0;
}

/* ---- backups ---- */

/* The name in the archive of the database whose backups have this stem. */
static const char *database_of(const struct health_facts *f, const char *root, const char *stem)
{
	size_t len = strlen(stem);

	for (size_t i = 0; i < f->n_databases; i++) {
		const struct health_database *d = &f->databases[i];
		const char *dot = strrchr(d->name, '.');
		size_t own = dot && dot != d->name ? (size_t)(dot - d->name) : strlen(d->name);
		if (own == len && strncmp(d->name, stem, len) == 0 &&
		    (strcmp(d->archive, root) == 0 || f->n_archives == 1))
			return d->name;
	}
	return stem;
}

static struct health_backups *row_of(struct cached_backups *c, const char *database, unsigned type)
{
	for (size_t i = c->n; i-- > 0;)
		if (c->rows[i].type == type && strcmp(c->rows[i].database, database) == 0)
			return &c->rows[i];
	struct health_backups *row = facts_add(&c->rows, &c->n, sizeof(*row));
	if (row) {
		snprintf(row->root, sizeof(row->root), "%s", c->root);
		snprintf(row->database, sizeof(row->database), "%s", database);
		row->type = type;
	}
	return row;
}

static int count_backups(struct cached_backups *c, const struct health_facts *f, struct err *err)
{
	cleanup_backup_list struct backup_list list = {0};

	free(take_ptr(c->rows));
	c->n = 0;
	int rc = backup_list_read(c->root, &list, err);
	for (size_t i = 0; i < list.n && rc == 0; i++) {
		const struct backup_entry *e = &list.entries[i];
		struct health_backups *row =
		        row_of(c, database_of(f, c->root, e->db), (unsigned)e->type);
		if (!row)
			return err_set(err, ERR_NOMEM, 0, "no memory");
		row->count++;
		row->bytes += e->size_bytes + e->companion_bytes;
		if (e->time_us > row->latest_us) {
			row->latest_us = e->time_us;
			row->latest_bytes = e->size_bytes;
		}
	}
	return rc;
}

static struct cached_backups *cached(struct collecting *k, const char *root)
{
	for (size_t i = 0; i < k->n_backups; i++)
		if (strcmp(k->backups[i].root, root) == 0)
			return &k->backups[i];
	if (k->n_backups == BACKUP_ROOTS_MAX)
		return NULL;
	struct cached_backups *c = &k->backups[k->n_backups++];
	snprintf(c->root, sizeof(c->root), "%s", root);
	return c;
}

static int read_backups(struct collecting *k, struct health_facts *f, const char *root,
                        struct err *err)
{
	struct cached_backups *c = cached(k, root);
	struct stamp stamps[BACKUP_N_TYPES];
	int64_t now_us = clock_mono_us();
	struct err why = ERR_INIT;
	bool same = true;

	for (size_t i = 0; c && i < BACKUP_N_TYPES; i++) {
		stamps[i] = stamp_of(root, backup_type_names[i]);
		same = same && facts_same_stamp(&stamps[i], &c->stamps[i]);
	}
	if (!c)
		return 0;
	if (!same || c->read_us == 0 || now_us - c->read_us > FACTS_BACKUPS_AGAIN_US) {
		if (count_backups(c, f, &why) < 0)
			return why.kind == ERR_NOMEM ? err_copy(err, &why) : 0;
		memcpy(c->stamps, stamps, sizeof(stamps));
		c->read_us = now_us;
	}
	for (size_t i = 0; i < c->n; i++) {
		struct health_backups *row = facts_add(&f->backups, &f->n_backups, sizeof(*row));
		if (!row)
			return err_set(err, ERR_NOMEM, 0, "no memory");
		*row = c->rows[i];
	}
	return 0;
}

int facts_read_archives(struct collecting *k, const struct config *config, struct health_facts *f,
                        struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < f->n_databases && rc == 0; i++)
		rc = add_archive(f, f->databases[i].archive,
		                 facts_config_of(config, f->databases[i].path), err);
	if (rc == 0 && config->backup_dir)
		rc = add_archive(f, config->backup_dir, NULL, err);
	for (size_t i = 0; i < f->n_archives && rc == 0; i++)
		if (!f->archives[i].unreadable[0])
			rc = read_backups(k, f, f->archives[i].root, err);
	return rc ? rc : facts_read_sent(k, config, f, err);
}

/* ---- the journal ---- */

static int compare_runs(const void *a, const void *b)
{
	const struct journal_entry *x = *(const struct journal_entry *const *)a;
	const struct journal_entry *y = *(const struct journal_entry *const *)b;
	int order = strcmp(x->database, y->database);

	order = order ? order : strcmp(x->job, y->job);
	return order ? order : (x > y) - (x < y); /* they lie in the order of their ends */
}

static void refresh_journal(struct collecting *k, const char *root)
{
	struct stamp stamps[] = {stamp_of(root, JOURNAL_NAME), stamp_of(root, JOURNAL_NAME_OLD)};
	struct err ignored = ERR_INIT;

	if (strcmp(k->journal_root, root) == 0 &&
	    facts_same_stamp(&stamps[0], &k->journal_stamps[0]) &&
	    facts_same_stamp(&stamps[1], &k->journal_stamps[1]))
		return;
	journal_list_release(&k->journal);
	k->journal = (struct journal_list){0};
	if (journal_read(root, RUNS_MAX, &k->journal, &ignored) < 0)
		return; /* tried again with the next collection */
	memcpy(k->journal_stamps, stamps, sizeof(stamps));
	snprintf(k->journal_root, sizeof(k->journal_root), "%s", root);
}

static struct health_job *job_row(struct health_facts *f, size_t n_told,
                                  const struct journal_entry *e)
{
	struct health_job key;

	snprintf(key.job, sizeof(key.job), "%s", e->job);
	snprintf(key.database, sizeof(key.database), "%.207s", e->database);
	struct health_job *row =
	        n_told ? bsearch(&key, f->jobs, n_told, sizeof(key), health_job_compare) : NULL;
	/* What the daemon does not run any more says nothing of now. */
	return row || f->daemon_answers ? row : facts_add(&f->jobs, &f->n_jobs, sizeof(*row));
}

/* `runs` are of one job and database, the newest last. */
static int take_runs(struct health_facts *f, size_t n_told, const struct journal_entry *const *runs,
                     size_t n, struct err *err)
{
	const struct journal_entry *last = runs[n - 1];
	struct health_job *row = last->ended_us || n > 1 ? job_row(f, n_told, last) : NULL;

	if (!row)
		return f->daemon_answers || (!last->ended_us && n == 1)
		               ? 0
		               : err_set(err, ERR_NOMEM, 0, "no memory");
	snprintf(row->job, sizeof(row->job), "%s", last->job);
	snprintf(row->database, sizeof(row->database), "%.207s", last->database);
	for (size_t i = 0; i < n; i++) {
		if (!runs[i]->ended_us)
			continue;
		row->ended_us = runs[i]->ended_us;
		row->ok = runs[i]->ok;
		snprintf(row->message, sizeof(row->message), "%.239s", runs[i]->message);
		if (runs[i]->ok)
			row->succeeded_us = runs[i]->ended_us;
	}
	return 0;
}

static bool same_job(const struct journal_entry *a, const struct journal_entry *b)
{
	return strcmp(a->job, b->job) == 0 && strcmp(a->database, b->database) == 0;
}

int facts_read_journal(struct collecting *k, const struct config *config, struct health_facts *f,
                       struct err *err)
{
	const char *root = config->archive  ? config->archive
	                   : f->n_databases ? f->databases[0].archive
	                                    : "";
	size_t n_told = f->n_jobs, n, first = 0;
	int rc = 0;

	if (n_told)
		qsort(f->jobs, n_told, sizeof(*f->jobs), health_job_compare);
	refresh_journal(k, root);
	n = k->journal.n;
	cleanup_free const struct journal_entry **runs = malloc((n + 1) * sizeof(*runs));
	if (!runs)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	for (size_t i = 0; i < n; i++)
		runs[i] = &k->journal.entries[i];
	qsort(runs, n, sizeof(*runs), compare_runs);
	for (size_t i = 1; i <= n && rc == 0; i++) {
		if (i < n && same_job(runs[i], runs[first]))
			continue;
		rc = take_runs(f, n_told, runs + first, i - first, err);
		first = i;
	}
	if (f->n_jobs > n_told)
		qsort(f->jobs, f->n_jobs, sizeof(*f->jobs), health_job_compare);
	return rc;
}

void facts_release_cached(struct collecting *k)
{
	for (size_t i = 0; i < k->n_backups; i++)
		free(k->backups[i].rows);
	memset(k->backups, 0, sizeof(k->backups));
	k->n_backups = 0;
	facts_release_sent(k);
	journal_list_release(&k->journal);
	k->journal = (struct journal_list){0};
	k->journal_root[0] = 0;
}

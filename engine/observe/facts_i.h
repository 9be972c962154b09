/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the collector share.  Not for others. */
#ifndef ASOF_OBSERVE_FACTS_I_H
#define ASOF_OBSERVE_FACTS_I_H

#include "engine/base/clock.h"
#include "engine/monitor/journal.h"
#include "engine/observe/facts.h"

#include <sys/stat.h>

/* A history that is looked at again and again: kept open between collections. */
struct tracked {
	uint64_t key; /* hash of the two */
	char root[HEALTH_PATH_MAX], name[HEALTH_NAME_MAX];
	struct archive *archive; /* of the shared ones; NULL: not open */
	struct history *history;
	struct stat folder;    /* that it was opened in */
	int64_t restorable_us; /* wall clock: of the last look at whether it opens */
	bool restorable;
	char not_restorable[HEALTH_TEXT_MAX];
	bool seen;
};

/* What is read anew only when it has changed. */
struct stamp {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime;
};

struct cached_backups {
	char root[HEALTH_PATH_MAX];
	struct stamp stamps[4];
	int64_t read_us; /* monotonic */
	struct health_backups *rows;
	size_t n;
};

#define BACKUP_ROOTS_MAX 64

/* What is known of the backups of an archive at one place, by the stem of their database. */
struct sent_row {
	char stem[HEALTH_NAME_MAX];
	struct health_sent sums; /* without names */
};
struct cached_sent {
	uint64_t key;           /* hash of the two: archive, URL */
	struct stamp stamps[5]; /* of its note, of the folders */
	int64_t read_us;        /* monotonic */
	bool seen;
	int64_t sent_us, trouble_us;
	char trouble[HEALTH_TEXT_MAX];
	struct sent_row *rows;
	size_t n;
	json_t *index; /* {stem: place in rows} */
};

/* Of the collecting thread alone. */
struct collecting {
	struct archives *archives;
	struct tracked *tracked;
	size_t n_tracked, cap_tracked;
	size_t next_tracked;          /* collections ask for the same ones, in the same order */
	int64_t restorable_budget_us; /* left in this collection */
	int64_t restorable_every_us;
	struct cached_backups backups[BACKUP_ROOTS_MAX];
	size_t n_backups;
	struct cached_sent *sent;
	size_t n_sent;
	char journal_root[HEALTH_PATH_MAX];
	struct stamp journal_stamps[2];
	struct journal_list journal;
};

/* ---- facts_daemon.c ---- */
/* What the daemon says: databases, and jobs with their counters.  Where it does not answer, the
 * databases of the former facts, or those of the configuration. */
int facts_ask_daemon(const char *socket, const struct config *config,
                     const struct health_facts *former, struct health_facts *f,
                     struct err *err) MUST_USE;
/* From answers that are there: NULL, with `problem` why, where it gave none. */
int facts_take_daemon(const json_t *status, const json_t *jobs, const char *problem,
                      const struct config *config, const struct health_facts *former,
                      struct health_facts *f, struct err *err) MUST_USE;
/* The histories of an archive that are not among the databases yet. */
int facts_add_archive(const char *root, struct archives *archives, struct health_facts *f,
                      struct err *err) MUST_USE;
/* The configuration's entry of a database; NULL: it was added by hand. */
const struct config_database *facts_config_of(const struct config *c, const char *path);

/* ---- facts_history.c ---- */
/* Fills the archive's part of every database, and its destinations. */
int facts_read_histories(struct collecting *k, const struct config *config, struct health_facts *f,
                         struct err *err) MUST_USE;
void facts_close_histories(struct collecting *k);

/* ---- facts_archive.c ---- */
/* Archives with their filesystems, backups, and how the runs by the clock ended. */
int facts_read_archives(struct collecting *k, const struct config *config, struct health_facts *f,
                        struct err *err) MUST_USE;
struct stamp facts_stamp(const char *path);
bool facts_same_stamp(const struct stamp *a, const struct stamp *b);
int facts_read_journal(struct collecting *k, const struct config *config, struct health_facts *f,
                       struct err *err) MUST_USE;
void facts_release_cached(struct collecting *k);
#define FACTS_BACKUPS_AGAIN_US (600 * US_PER_SECOND)

/* ---- facts_sent.c ---- */
/* What lies where backups go to besides: by the notes of those who send them, without a request. */
int facts_read_sent(struct collecting *k, const struct config *config, struct health_facts *f,
                    struct err *err) MUST_USE;
void facts_release_sent(struct collecting *k);

#endif

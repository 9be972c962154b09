/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups of an archive, brought to a store: a bucket, a server, another folder.
 *
 *   TYPE/NAME.db.gz[.gpg]     under the names that they have here, so that copying them out of the
 *   TYPE/manifest_….json      store by any means, and gunzip, is a recovery
 *
 *  (1) Only created, never replaced, each whole: companions first, then the backup, then its
 *      manifest.  Whoever dies between leaves what the next run completes.
 *  (2) A backup that lies there under its name and size is taken for sent.  Under its name with
 *      another content is a conflict, which is told, and the others go on.  Two manifests of one
 *      second get numbers, as they do here.
 *  (3) What does not match the sha256 of its manifest is not sent, and told.
 *  (4) Nothing is asked of the store while there is nothing that it may lack, but one look every
 *      `look_us`.
 *  (5) Where an archive is encrypted (store/keys.h) nothing is put in the clear: REFUSED.
 *  (6) What `retention` does not keep there goes, in two steps: it is noted, and deleted when it has
 *      been so for `grace_us` and still is.  Of a database the newest good one that is there stays
 *      whatever the rules say; what they would not keep there is not sent.  Nothing is deleted but
 *      what was sent from here, or `owns` says is ours.  Nobody needs deletion: where it is denied,
 *      it stays, which is said once.
 *  (7) What is known of a store is kept in ROOT/.sent-XXXXXXXXXXXXXXXX, a text of JSON.  It can go
 *      at any time: the store is looked at again.
 */
#ifndef ASOF_BACKUP_SEND_H
#define ASOF_BACKUP_SEND_H

#include "engine/backup/backup.h"
#include "engine/base/clock.h"
#include "engine/store/store.h"

#define BACKUP_SEND_LOOK_US (6 * 3600 * US_PER_SECOND)
#define BACKUP_SEND_GRACE_US (24 * 3600 * US_PER_SECOND)

struct backup_send_options {
	const char *root; /* the archive, a directory */
	const char *url;  /* of the store: which file of (6) is its own */
	struct store *store;
	/* Whether this backup goes there; NULL: all do.  Of those without a time in their name it is
	 * not asked: they are somebody's, and stay where they are. */
	bool (*wants)(void *ctx, const struct backup_entry *e);
	void *ctx;
	/* (6); NULL: all is kept. */
	const struct backup_retention *retention;
	bool (*owns)(void *ctx, const struct backup_entry *e);
	int64_t grace_us; /* 0: the default */
	int64_t look_us;  /* 0: the default */
	bool look;        /* at the store, whatever is known of it */
	/* Now and then; false: stop (CANCELLED).  May be NULL. */
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *progress_ctx;
};

/* What is known, as of the last run. */
struct backup_sent {
	char url[300];
	int64_t at_us;               /* of the last look that came to its end; 0: never */
	uint64_t n_there, n_waiting; /* of the backups here that go there */
	uint64_t bytes_there;
	int64_t newest_us;              /* the time of the newest that is there; 0: none */
	uint64_t n_sent, n_bytes;       /* by all runs since the file was made */
	uint64_t n_expiring, n_deleted; /* noted to go; gone, by all runs */
	bool no_delete;                 /* deletion was denied */
	uint64_t n_denied;              /* that could not be deleted in the last run, at least */
	int64_t trouble_us;             /* since when it fails; 0: it does not */
	char trouble[300];
};

/*
 * Sends what is lacking.  *ret is filled in any case.  An error is the first one, after all that
 * could be sent was: EXISTS (2), DAMAGED (3), REFUSED (5), and what the store says.
 */
int backup_send(const struct backup_send_options *options, struct backup_sent *ret,
                struct err *err) MUST_USE;

/* The store could not even be opened: that is noted as the trouble that it is. */
void backup_send_failed(const char *root, const char *url, const struct err *why);

/* Takes out of a plan of what goes here those that go there and are not there yet, by what is known;
 * `label` is what people call the place. */
int backup_sent_hold(const char *root, const char *url, const char *label,
                     bool (*wants)(void *ctx, const struct backup_entry *e), void *ctx,
                     struct backup_plan *plan, struct err *err) MUST_USE;

/* Of every store that backups of `root` go to.  What `fn` returns, if not 0, ends it and is returned. */
int backup_sent_each(const char *root, int (*fn)(void *ctx, const struct backup_sent *s),
                     void *ctx);

/* ---- what lies there, as far as is known; nothing is asked of the store ---- */

struct sent_state;
/* What is known of `url`; nothing, where nothing was sent there yet. */
int backup_sent_open(const char *root, const char *url, struct sent_state **ret,
                     struct err *err) MUST_USE;
void backup_sent_close(struct sent_state *s);
DEFINE_CLEANUP(struct sent_state, backup_sent_close);
#define cleanup_backup_sent CLEANUP(backup_sent_close_p)
/* The file that it is read from: another one when something became known. */
void backup_sent_path(const char *root, const char *url, char out[PATH_MAX]);
const struct backup_sent *backup_sent_known(const struct sent_state *s);

enum backup_sent_where {
	BACKUP_SENT_WAITS,    /* it is not known to lie there */
	BACKUP_SENT_THERE,    /* whole, its manifest as well */
	BACKUP_SENT_UNWANTED, /* the rules of the place would not keep it there */
};
enum backup_sent_where backup_sent_where(const struct sent_state *s, const struct backup_entry *e);

/* One that was sent from here and lies there; here there may be none any more. */
struct backup_sent_item {
	enum backup_type type;
	const char *name, *db; /* its file, the stem of the database; valid during the call */
	uint64_t bytes;
	int64_t time_us; /* 0: not known */
};
void backup_sent_items(const struct sent_state *s,
                       void (*fn)(void *ctx, const struct backup_sent_item *i), void *ctx);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backup of the present database before another takes its place: ARCHIVE/safety/
 * STEM_pre_restore_YYYYmmdd_HHMMSS.db.gz.  It holds what the -wal has, too, and is checked as every
 * backup is; of a database that is damaged it holds the bytes as they lay there.
 *
 * It comes on top of what the swap keeps beside the target (restore.h): that is a guarantee against
 * a wrong pair of files, costs no copy, and may be cleaned up by hand; this one is listed, kept
 * and restored like any other backup.  Where no archive is known, that one alone must do, and
 * the swap is told to keep the old file always.
 */
#include "tools/restore.h"

int restore_take_safety(void *ctx, const struct restore_target *target, struct err *err)
{
	struct restore_request *q = ctx;
	const struct backup_options options = {
	        .type = BACKUP_SAFETY,
	        .label = BACKUP_LABEL_PRE_RESTORE,
	        .level = 1, /* people wait for this one */
	        .keep_damaged = true,
	        .progress = progress_tell,
	        .ctx = &q->progress,
	};

	if (target->size_bytes == 0)
		return 0;
	progress_what(&q->progress, "safety backup");
	int rc = backup_create(q->backups, target->path, &options, &q->safety, err);
	progress_what(&q->progress, "");
	if (rc)
		return err_wrap(err, rc,
		                "safety backup of the present database (nothing was changed; "
		                "--no-safety goes on without it)");
	q->safety_taken = true;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/restore.h"

#include <inttypes.h>

static const char *const method_names[] = {
        [RESTORE_WHOLE] = "whole",
        [RESTORE_SHARED] = "shared",
        [RESTORE_IN_PLACE] = "in-place",
};

static json_t *text_or_null(const char *text)
{
	return text && text[0] ? json_text(text) : json_null();
}

static json_t *moment_json(const struct restore_request *q)
{
	const struct moment *m = &q->moment;

	if (!q->history)
		return json_pack("{so}", "from", json_text(q->from));
	return json_pack("{ss so so so so so sb}", "database", history_name(q->history), "txid",
	                 cli_json_uint(m->txid), "time", cli_json_time(m->time_us), "lineage",
	                 cli_json_uint(m->lineage), "pages", cli_json_uint(m->n_pages), "page_size",
	                 cli_json_uint(m->page_size), "provisional",
	                 (int)!!(m->flags & MOMENT_PROVISIONAL));
}

static json_t *holders_json(const struct restore_result *r)
{
	if (r->n_holders == 0)
		return json_null();
	return json_pack("{si so si}", "pid", (int)r->holder.pid, "command",
	                 json_text(r->holder.command), "processes", (int)r->n_holders);
}

static int say_json(const struct restore_request *q, const struct restore_result *r,
                    struct err *err)
{
	json_t *all = moment_json(q);
	json_t *done = json_pack(
	        "{so so so ss sb sb sb sb so sb so so sb so}", "target", json_text(r->target),
	        "bytes", cli_json_uint(r->bytes), "written_bytes", cli_json_uint(r->written_bytes),
	        "method", method_names[r->method], "checked", (int)r->checked, "validated",
	        (int)r->validated, "replaced", (int)r->replaced, "dry_run", (int)q->options.dry_run,
	        "set_aside", text_or_null(r->set_aside), "undid_interrupted",
	        (int)r->undid_interrupted, "safety_backup",
	        text_or_null(q->safety_taken ? q->safety.path : NULL), "safety_warning",
	        text_or_null(q->safety_taken ? q->safety.manifest.warning : NULL),
	        "target_matched_by_name", (int)(q->target_note[0] != '\0'), "still_open_in",
	        holders_json(r));

	if (!all || !done || json_object_update(all, done)) {
		json_decref(done);
		json_decref(all);
		return cli_print_json(NULL, err);
	}
	json_decref(done);
	return cli_print_json(all, err);
}

static void say_what(const struct restore_request *q, const struct restore_result *r)
{
	const struct moment *m = &q->moment;
	const char *verb = q->options.dry_run ? "would restore" : "restored";
	char when[TIME_STR_MAX], size[SIZE_STR_MAX];

	cli_format_size(r->bytes, size);
	if (!q->history) {
		printf("%s %s to %s\n", verb, q->from, r->target);
		if (r->bytes)
			printf("  %-10s %s\n", "size", size);
		return;
	}
	time_format(m->time_us, when);
	printf("%s %s as of %s to %s\n", verb, history_name(q->history), when, r->target);
	printf("  %-10s txid %" PRIu64 ", lineage %" PRIu32 "\n", "commit", m->txid, m->lineage);
	printf("  %-10s %" PRIu32 " pages of %" PRIu32 " bytes, %s\n", "size", m->n_pages,
	       m->page_size, size);
	if (!q->options.dry_run)
		printf("  %-10s %s\n", "checksum", r->checked ? "right" : "none known");
	if (m->flags & MOMENT_PROVISIONAL)
		printf("  %-10s provisional: no replicator was running, later commits may be "
		       "missing\n",
		       "note");
}

static void say_how(const struct restore_request *q, const struct restore_result *r)
{
	bool dry = q->options.dry_run;
	char size[SIZE_STR_MAX];

	if (r->validated)
		printf("  %-10s ok\n", "integrity");
	if (q->options.delta || dry) {
		cli_format_size(r->written_bytes, size);
		printf("  %-10s %s%s\n", dry ? "to write" : "wrote", size,
		       r->method == RESTORE_IN_PLACE ? ", in place"
		       : r->method == RESTORE_SHARED ? ", into a file that shares the rest"
		                                     : "");
	}
	if (q->target_note[0])
		printf("  %-10s %s\n", "note", q->target_note);
	if (r->undid_interrupted)
		printf("  %-10s an earlier restore died half-way%s\n", "note",
		       dry ? "; it would be undone first" : "; it was undone first");
}

static void say_what_became_of_the_old(const struct restore_request *q,
                                       const struct restore_result *r)
{
	bool dry = q->options.dry_run;

	if (q->safety_taken)
		printf("  %-10s %s\n", "safety", q->safety.path);
	else if (dry && r->replaced && q->options.safety)
		printf("  %-10s a backup of the present database would be made in %s/safety\n",
		       "safety", q->backups);
	if (q->safety_taken && q->safety.manifest.warning[0])
		printf("  %-10s %s\n", "warning", q->safety.manifest.warning);
	if (r->set_aside[0])
		printf("  %-10s %s\n", dry ? "would keep" : "kept", r->set_aside);
	else if (r->replaced)
		printf("  %-10s the file that %s there\n", "replaced", dry ? "is" : "was");
	if (r->n_holders && !dry)
		printf("  %-10s process %d (%s)%s still has the old database open and goes on with "
		       "it: restart it now\n",
		       "WARNING", (int)r->holder.pid, r->holder.command,
		       r->n_holders > 1 ? " and others" : "");
	else if (r->n_holders)
		printf("  %-10s process %d (%s)%s has it open, and would go on with the old file\n",
		       "WARNING", (int)r->holder.pid, r->holder.command,
		       r->n_holders > 1 ? " and others" : "");
}

static void say_undo(const struct restore_request *q, const struct restore_result *r)
{
	char from[4 * PATH_MAX + 3], to[4 * PATH_MAX + 3];
	const char *old = q->safety_taken && !q->safety.damaged ? q->safety.path : r->set_aside;

	/* Side files alone that were set aside are no database to go back to. */
	if (q->options.dry_run || !r->replaced || !old[0])
		return;
	cli_quote(old, from, sizeof(from));
	cli_quote(r->target, to, sizeof(to));
	printf("  %-10s asof restore --from %s -o %s --force\n", "undo", from, to);
}

int restore_say(const struct restore_request *q, const struct restore_result *r, struct err *err)
{
	if (q->json) {
		if (r->n_holders && !q->options.dry_run)
			fprintf(stderr,
			        "asof: process %d (%s) still has the old database open and goes on "
			        "with it: restart it now\n",
			        (int)r->holder.pid, r->holder.command);
		return say_json(q, r, err);
	}
	say_what(q, r);
	say_how(q, r);
	say_what_became_of_the_old(q, r);
	say_undo(q, r);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/check_place.h"

#include "engine/base/hash.h"
#include "engine/daemon/shipping.h"
#include "engine/store/crypt.h"
#include "tools/cli.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE_MS 10000

/* ---- what it means ---- */

/* What asof does without it; of the conditional write and of deletion where they lack. */
static const char *const meanings[N_TRIAL_STEPS] = {
        "nothing can be sent there", "nothing could be restored from there",
        "neither a restore nor a replicator that starts finds what lies there",
        "a second writer is found by reading back and waiting: let one machine alone write there",
        "what is superseded stays: have a lifecycle rule, or nothing, remove it"};

const char *place_line_name(int i)
{
	return i < N_TRIAL_STEPS ? store_trial_step_name((enum store_trial_step)i) : "clock";
}

const char *place_line_state(const struct place_report *r, int i)
{
	static const char *const names[] = {"untried", "ok", "lacks", "failed"};

	if (i < N_TRIAL_STEPS)
		return names[r->trial.steps[i].state];
	return !r->trial.has_clock ? "untried" : r->trial.clock_us ? "lacks" : "ok";
}

static void clock_text(const struct place_report *r, char out[PLACE_TEXT_MAX])
{
	int64_t us = r->trial.clock_us;
	double s = (double)(us < 0 ? -us : us) / US_PER_SECOND;

	if (!r->trial.has_clock)
		snprintf(out, PLACE_TEXT_MAX, "not known");
	else if (!us)
		snprintf(out, PLACE_TEXT_MAX, "as this machine's, to the second");
	else
		snprintf(out, PLACE_TEXT_MAX,
		         "%.1f s %s this machine's: moments are by this machine's clock (set the "
		         "one that is wrong)",
		         s, us > 0 ? "ahead of" : "behind");
}

void place_line_text(const struct place_report *r, int i, char out[PLACE_TEXT_MAX])
{
	if (i >= N_TRIAL_STEPS) {
		clock_text(r, out);
		return;
	}
	switch (r->trial.steps[i].state) {
	case TRIAL_OK:
		snprintf(out, PLACE_TEXT_MAX, "works");
		return;
	case TRIAL_UNTRIED:
		snprintf(out, PLACE_TEXT_MAX, "not tried, as the above failed");
		return;
	case TRIAL_LACKS:
	case TRIAL_FAILED:
		snprintf(out, PLACE_TEXT_MAX, "%s: %s", r->trial.steps[i].why.msg, meanings[i]);
		cli_one_line(out);
	}
}

json_t *place_json(const struct place_report *r)
{
	json_t *list = json_array();
	char text[PLACE_TEXT_MAX];

	for (int i = 0; r->tried && i < PLACE_LINES; i++) {
		place_line_text(r, i, text);
		json_array_append_new(list, json_pack("{ss ss so}", "tried", place_line_name(i),
		                                      "state", place_line_state(r, i), "message",
		                                      json_text(text)));
	}
	return list;
}

/* ---- trying ---- */

static void problem(struct place_report *r, const char *what, const struct err *why)
{
	r->result.state = CHECK_PROBLEM;
	r->unavailable = why->kind == ERR_UNAVAILABLE;
	snprintf(r->result.text, sizeof(r->result.text), "%s%.460s", what, why->msg);
	cli_one_line(r->result.text);
}

static void sum_up(struct place_report *r)
{
	static const char *const cannot[N_TRIAL_STEPS] = {
	        "cannot be written: ", "cannot be read: ", "cannot be listed: ",
	        "conditional writes fail: ", "cannot be deleted in: "};
	bool creates = r->trial.steps[TRIAL_CREATE].state == TRIAL_OK;
	bool deletes = r->trial.steps[TRIAL_DELETE].state == TRIAL_OK;

	for (int i = 0; i < N_TRIAL_STEPS; i++)
		if (r->trial.steps[i].state == TRIAL_FAILED) {
			problem(r, cannot[i], &r->trial.steps[i].why);
			return;
		}
	snprintf(r->result.text, sizeof(r->result.text), "works%s%s%s",
	         creates && deletes ? "" : ", but without ", creates ? "" : "conditional writes",
	         deletes   ? ""
	         : creates ? "deletion"
	                   : " and deletion");
}

/* The same at each run of this machine: where deletion is denied, one object stays and no more. */
static void trial_key(char out[64])
{
	char host[256] = "";

	(void)!gethostname(host, sizeof(host) - 1);
	snprintf(out, 64, ".asof-check-%016" PRIx64, hash64(host, strlen(host), geteuid()));
}

static void try_store(const char *archive, const struct store_options *o, struct place_report *ret)
{
	cleanup_store struct store *s = NULL;
	struct err why = ERR_INIT;
	char key[64];

	if (store_open(archive, o, &s, &why) < 0) {
		problem(ret, "", &why);
		return;
	}
	trial_key(key);
	store_try_out(store_crypt_inner(s), key, &ret->trial);
	ret->tried = true;
	sum_up(ret);
}

void check_place(const char *archive, const struct config_destination *d,
                 const struct config_retention *retention, struct place_report *ret)
{
	struct store_options o = {.patience_ms = PATIENCE_MS};
	struct shipping_destination dest;
	struct stat st;

	*ret = (struct place_report){.tried = false};
	if (d) {
		shipping_destination_of(d, &dest);
		shipping_store_options(&dest, &o);
	}
	if (!store_is_url(archive)) {
		check_archive(archive, retention, &ret->result);
		if (ret->result.state == CHECK_PROBLEM || stat(archive, &st) < 0)
			return;
	}
	try_store(archive, &o, ret);
}

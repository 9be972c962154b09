/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/check_sample.h"

#include "engine/config/config.h"
#include "tools/progress.h"
#include "tools/verified.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "5%", "5" or "0.5 %". */
static int parse_share(const struct cli *c, const char *text, double *ret, struct err *err)
{
	char *end;

	errno = 0;
	*ret = strtod(text, &end);
	while (*end == ' ')
		end++;
	if (*end == '%')
		end++;
	if (end == text || *end || errno || !(*ret > 0 && *ret <= 100))
		return cli_usage(c, err, "--sample: '%.60s' is not a share such as 5%%", text);
	return 0;
}

/* The archives of the configuration, each once; one that is not there yet has nothing to sample. */
static int sample_configured(struct verified_run *s, const struct config *config, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < config->n_databases && !rc; i++) {
		const char *archive = config->databases[i].archive;
		bool skip = access(archive, F_OK) != 0;
		for (size_t k = 0; k < i && !skip; k++)
			skip = strcmp(archive, config->databases[k].archive) == 0;
		if (!skip)
			rc = verified_archive(s, archive, err);
	}
	return rc;
}

static int sample_all(struct verified_run *s, struct cli *c, const char *archive, struct err *err)
{
	const struct config *config = NULL;
	const char *root;
	int rc;

	if (!archive && !getenv("ASOF_ARCHIVE") && (rc = cli_config(c, &config, err)))
		return rc;
	if (config)
		return sample_configured(s, config, err);
	rc = cli_archive_root(c, archive, NULL, &root, err);
	return rc ? rc : verified_archive(s, root, err);
}

int check_sample(struct cli *c, const struct sample_request *q, struct err *err)
{
	struct verified_run s = {.json = q->json, .options = {.scope = VERIFY_SAMPLE}};
	int rc = parse_share(c, q->share, &s.options.sample_percent, err);

	s.options.seed = (uint64_t)clock_now_us() % 1000000000;
	if (!rc && q->seed)
		rc = cli_number(c, "--seed", q->seed, 0, UINT64_MAX, &s.options.seed, err);
	if (rc)
		return rc;
	s.histories = json_array();
	progress_begin(&s.progress);
	rc = sample_all(&s, c, q->archive, err);
	if (!rc && s.json)
		rc = cli_print_json(json_pack("{so sf sO}", "seed", cli_json_uint(s.options.seed),
		                              "sample_percent", s.options.sample_percent, "history",
		                              s.histories),
		                    err);
	else if (!rc)
		printf("%g %% of %" PRIu64 " histories read, %" PRIu64 " damaged (--seed %" PRIu64
		       " takes the same sample again)\n",
		       s.options.sample_percent, s.n, s.n_bad, s.options.seed);
	json_decref(s.histories);
	if (rc || !s.n_bad)
		return rc;
	fflush(stdout);
	return err_set(err, ERR_DAMAGED, 0,
	               "check: %" PRIu64 " of %" PRIu64
	               " histories are damaged (asof validate reads all of them)",
	               s.n_bad, s.n);
}

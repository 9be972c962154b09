/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least that works, found out in tests by taking things away:
 *
 *   s3:ListBucket     where a history goes on, what there is to restore; below the prefix alone
 *   s3:GetObject      restores; and who writes a history, when a replicator starts
 *   s3:PutObject      all that is sent
 *   s3:AbortMultipartUpload  an upload in parts that failed leaves nothing
 *   s3:DeleteObject   what is superseded; without it that stays
 *
 * With a key of KMS its use besides.
 */
#include "tools/policy.h"

#include "engine/daemon/shipping.h"
#include "engine/store/s3_url.h"
#include "tools/cli.h"

#include <string.h>

#define ABORT_DAYS 7
#define NONCURRENT_DAYS 30
#define PLACES_MAX 64

struct places {
	struct s3_place p[PLACES_MAX];
	size_t n;
};

static void places_release(struct places *l)
{
	for (size_t i = 0; i < l->n; i++)
		s3_place_release(&l->p[i]);
}
#define cleanup_places CLEANUP(places_release)

/* ---- which ---- */

static int add_place(struct places *l, const char *url, const struct store_s3_options *o,
                     struct err *err)
{
	struct s3_place p = {0};

	if (strncmp(url, "s3://", 5) != 0)
		return 0;
	if (l->n == PLACES_MAX)
		return err_set(err, ERR_USAGE, 0, "more than %d places (name some of them)",
		               PLACES_MAX);
	int rc = s3_place_parse(url, o, &p, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->p[i].bucket, p.bucket) == 0 &&
		    strcmp(l->p[i].prefix, p.prefix) == 0) { /* several databases go there */
			s3_place_release(&p);
			return 0;
		}
	l->p[l->n++] = p;
	return 0;
}

static int add_configured(struct places *l, const struct config *c, struct err *err)
{
	for (size_t i = 0; c && i < c->n_databases; i++)
		for (size_t k = 0; k < c->databases[i].n_destinations; k++) {
			const struct config_destination *d = &c->databases[i].destinations[k];
			struct store_options o = {.patience_ms = 0};
			struct shipping_destination s;
			shipping_destination_of(d, &s);
			shipping_store_options(&s, &o);
			int rc = d->type == CONFIG_DEST_S3 && d->s3.bucket
			                 ? add_place(l, d->url, &o.s3, err)
			                 : 0;
			if (rc < 0)
				return rc;
		}
	return 0;
}

static bool one_bucket(const struct places *l)
{
	for (size_t i = 1; i < l->n; i++)
		if (strcmp(l->p[i].bucket, l->p[0].bucket) != 0)
			return false;
	return true;
}

/* ---- policies ---- */

/* Clouds of AWS that keep to themselves. */
static const char *partition(const struct s3_place *p)
{
	const char *region = p->region ? p->region : "";

	return strncmp(region, "cn-", 3) == 0       ? "aws-cn"
	       : strncmp(region, "us-gov-", 7) == 0 ? "aws-us-gov"
	                                            : "aws";
}

static json_t *text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static json_t *text(const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;

	va_start(ap, fmt);
	int n = vasprintf(&s, fmt, ap);
	va_end(ap);
	json_t *j = n < 0 ? NULL : json_string(s);
	if (n >= 0)
		free(s);
	return j;
}

static json_t *statement(const char *sid, json_t *actions, json_t *resource)
{
	return json_pack("{ss ss so so}", "Sid", sid, "Effect", "Allow", "Action", actions,
	                 "Resource", resource);
}

static void allow_list(json_t *list, const struct s3_place *p)
{
	json_t *s = statement("AsofList", json_pack("[s]", "s3:ListBucket"),
	                      text("arn:%s:s3:::%s", partition(p), p->bucket));

	if (p->prefix[0]) /* IAM's own marks in a prefix stand for more than themselves: harmless */
		json_object_set_new(
		        s, "Condition",
		        json_pack("{s{s[o]}}", "StringLike", "s3:prefix", text("%s*", p->prefix)));
	json_array_append_new(list, s);
}

static void allow_objects(json_t *list, const char *sid, json_t *actions, const struct s3_place *p)
{
	json_array_append_new(
	        list, statement(sid, actions,
	                        text("arn:%s:s3:::%s/%s*", partition(p), p->bucket, p->prefix)));
}

static void allow_key(json_t *list, const struct s3_place *p, bool write)
{
	const char *id = p->sse_kms_key_id;

	if (!id)
		return;
	json_array_append_new(
	        list, statement("AsofKey",
	                        write ? json_pack("[ss]", "kms:GenerateDataKey", "kms:Decrypt")
	                              : json_pack("[s]", "kms:Decrypt"),
	                        strncmp(id, "arn:", 4) == 0
	                                ? json_string(id)
	                                : text("arn:%s:kms:*:*:key/%s", partition(p), id)));
}

/* An Sid counts once in a document. */
static void number_sids(json_t *list)
{
	json_t *s;
	size_t i;

	json_array_foreach(list, i, s)
	{
		const char *sid = json_string_value(json_object_get(s, "Sid"));
		json_object_set_new(s, "Sid", text("%s%zu", sid, i + 1));
	}
}

static json_t *policy(const struct places *l, bool write, bool remove)
{
	json_t *list = json_array();

	for (size_t i = 0; i < l->n; i++) {
		const struct s3_place *p = &l->p[i];
		allow_list(list, p);
		allow_objects(list, write ? "AsofWrite" : "AsofRead",
		              write ? json_pack("[sss]", "s3:GetObject", "s3:PutObject",
		                                "s3:AbortMultipartUpload")
		                    : json_pack("[s]", "s3:GetObject"),
		              p);
		if (remove)
			allow_objects(list, "AsofDelete", json_pack("[s]", "s3:DeleteObject"), p);
		allow_key(list, p, write);
	}
	number_sids(list);
	return json_pack("{ss so}", "Version", "2012-10-17", "Statement", list);
}

/* ---- what the bucket is set to ---- */

static json_t *encryption(const struct s3_place *p)
{
	json_t *by = json_pack("{ss}", "SSEAlgorithm",
	                       p->sse_kms_key_id ? "aws:kms"
	                       : p->sse          ? p->sse
	                                         : "AES256");

	if (p->sse_kms_key_id)
		json_object_set_new(by, "KMSMasterKeyID", json_string(p->sse_kms_key_id));
	return json_pack("{s[{so sb}]}", "Rules", "ApplyServerSideEncryptionByDefault", by,
	                 "BucketKeyEnabled", p->sse_kms_key_id != NULL);
}

/* What nobody needs, and nothing else: objects never go by their age, that is asof's to say. */
static json_t *lifecycle(const struct places *l)
{
	json_t *rules = json_array();

	for (size_t i = 0; i < l->n; i++)
		json_array_append_new(
		        rules,
		        json_pack("{so ss s{ss} s{si} s{si}}", "ID",
		                  text("asof-leftovers-%zu", i + 1), "Status", "Enabled", "Filter",
		                  "Prefix", l->p[i].prefix, "AbortIncompleteMultipartUpload",
		                  "DaysAfterInitiation", ABORT_DAYS, "NoncurrentVersionExpiration",
		                  "NoncurrentDays", NONCURRENT_DAYS));
	return json_pack("{so}", "Rules", rules);
}

int policy_print(const char *kind, char *const *urls, int n_urls, const struct config *c,
                 struct err *err)
{
	cleanup_places struct places l = {.n = 0};
	int rc = 0;

	for (int i = 0; i < n_urls && rc == 0; i++)
		rc = add_place(&l, urls[i], NULL, err);
	if (n_urls == 0)
		rc = add_configured(&l, c, err);
	if (rc < 0)
		return rc;
	if (l.n == 0)
		return err_set(err, ERR_USAGE, 0,
		               "print-policy: no bucket is named (asof check --print-policy %.20s "
		               "s3://BUCKET/PREFIX, or a destination of the configuration)",
		               kind);
	if (strcmp(kind, "write") == 0 || strcmp(kind, "no-delete") == 0)
		return cli_print_json(policy(&l, true, kind[0] == 'w'), err);
	if (strcmp(kind, "read") == 0)
		return cli_print_json(policy(&l, false, false), err);
	bool encrypt = strcmp(kind, "encryption") == 0;
	if (!encrypt && strcmp(kind, "lifecycle") != 0)
		return err_set(
		        err, ERR_USAGE, 0,
		        "print-policy: '%.60s' is none of write, no-delete, read, encryption, "
		        "lifecycle",
		        kind);
	if (!one_bucket(&l))
		return err_set(
		        err, ERR_USAGE, 0,
		        "print-policy: %s is of one bucket, and there are several (name one: "
		        "s3://%s/%s)",
		        kind, l.p[0].bucket, l.p[0].prefix);
	return cli_print_json(encrypt ? encryption(&l.p[0]) : lifecycle(&l), err);
}

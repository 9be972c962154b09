/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups, whose manifests tell the sha256 of their bytes: by that a damaged one is known, and a whole
 * one at another place.  Those without (of the scripts of old) are left as they are.
 */
#include "engine/backup/backup.h"
#include "engine/base/log.h"
#include "engine/repair/repair_i.h"

#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#define PIECE (1u << 20)
#define MANIFEST_MAX ((size_t)1 << 20)
#define FETCHED "fetched"
#define KEY_MAX (BACKUP_FILE_MAX + 32)

struct stored {
	char key[KEY_MAX];
	bool manifest, readable; /* the second: of a manifest */
	char of[KEY_MAX];        /* what it is the manifest of */
	char sha256[BACKUP_SHA256_MAX];
};
struct shelf {
	struct site site; /* its place alone */
	struct stored *v;
	size_t n;
};

/* ---- what there is ---- */

static int read_manifest(const struct shelf *s, struct stored *m, struct buf *ret, struct err *err)
{
	struct backup_manifest manifest;

	buf_clear(ret);
	m->readable = false;
	int rc = store_get(s->site.at.store, m->key, MANIFEST_MAX, ret, err);
	rc = rc ? rc : backup_manifest_of_text((char *)ret->data, ret->len, &manifest, err);
	if (rc < 0)
		return rc;
	const char *slash = strrchr(manifest.backup_file, '/');
	const char *base = slash ? slash + 1 : manifest.backup_file;
	if (strlen(base) >= BACKUP_FILE_MAX)
		return err_set(err, ERR_DAMAGED, 0, "'%s' names no backup", m->key);
	snprintf(m->of, sizeof(m->of), "%.*s%.*s", (int)(strchr(m->key, '/') + 1 - m->key), m->key,
	         BACKUP_FILE_MAX, base);
	memcpy(m->sha256, manifest.sha256, sizeof(m->sha256));
	m->readable = true;
	return 0;
}

static int take(void *ctx, const struct store_entry *e, struct err *err)
{
	struct shelf *s = ctx;
	struct backup_name n;
	const char *base = strchr(e->key, '/') + 1;

	if (strchr(base, '/') || strlen(e->key) >= KEY_MAX || !backup_name_parse(base, &n))
		return 0;
	struct stored *more = realloc(s->v, (s->n + 1) * sizeof(*more));
	if (!more)
		return err_set(err, ERR_NOMEM, 0, "no memory to list backups");
	s->v = more;
	s->v[s->n] = (struct stored){.manifest = n.kind == BACKUP_FILE_MANIFEST};
	snprintf(s->v[s->n++].key, KEY_MAX, "%s", e->key);
	return 0;
}

static int look(struct shelf *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(MANIFEST_MAX);
	char prefix[32];
	int rc = 0;

	for (int type = 0; type < BACKUP_N_TYPES && rc == 0; type++) {
		snprintf(prefix, sizeof(prefix), "%s/", backup_type_names[type]);
		rc = store_list(s->site.at.store, prefix, NULL, false, take, s, err);
	}
	for (size_t i = 0; i < s->n && rc == 0; i++) {
		struct err why = ERR_INIT;
		if (!s->v[i].manifest || read_manifest(s, &s->v[i], &b, &why) == 0)
			continue;
		if (why.kind == ERR_DAMAGED) { /* once more */
			why = (struct err)ERR_INIT;
			(void)!read_manifest(s, &s->v[i], &b, &why);
		}
		if (why.kind && why.kind != ERR_DAMAGED && why.kind != ERR_NOT_FOUND)
			rc = err_copy(err, &why);
	}
	return rc;
}

static struct stored *find(const struct shelf *s, const char *key)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->v[i].key, key) == 0)
			return &s->v[i];
	return NULL;
}

static bool has_manifest(const struct shelf *s, const char *key)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].readable && strcmp(s->v[i].of, key) == 0)
			return true;
	return false;
}

/* ---- sums ---- */

static void sum_text(struct sha256_ctx *sha, char out[BACKUP_SHA256_MAX])
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(sha, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* Takes the source over. */
static int matches(struct repair *r, struct source *from, const char *sha256, bool *ret,
                   struct err *err)
{
	cleanup_source struct source *src = from;
	cleanup_free uint8_t *b = malloc(PIECE);
	struct sha256_ctx sha;
	char got[BACKUP_SHA256_MAX];
	uint64_t bytes = 0;

	sha256_init(&sha);
	int rc = b ? src->size(src, &bytes, err)
	           : err_set(err, ERR_NOMEM, 0, "no memory to read a backup");
	for (uint64_t at = 0; at < bytes && rc == 0; at += PIECE) {
		size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
		rc = src->pread(src, b, n, at, err);
		if (rc == 0)
			sha256_update(&sha, n, b);
		rc = rc ? rc : repair_stopped(r, err);
	}
	sum_text(&sha, got);
	*ret = rc == 0 && strcmp(got, sha256) == 0;
	return rc;
}

/* Damage that the store itself tells of is no match. */
static int is_whole(struct repair *r, const struct shelf *s, const char *key, const char *sha256,
                    bool *ret, struct err *err)
{
	struct source *src;
	struct err why = ERR_INIT;

	*ret = false;
	int rc = store_open_object(s->site.at.store, key, UINT64_MAX, &src, &why);
	rc = rc ? rc : matches(r, src, sha256, ret, &why);
	return rc < 0 && why.kind != ERR_DAMAGED && why.kind != ERR_NOT_FOUND ? err_copy(err, &why)
	                                                                      : 0;
}

/* ---- putting back ---- */

static int put_back(struct repair *r, struct shelf *target, const struct shelf *from,
                    const struct stored *m, bool missing, bool *ret_did, struct err *err)
{
	const char *what = missing ? "" : "its sha256 is not the one in its manifest";
	struct source *src;
	struct err why = ERR_INIT;
	bool whole = false;

	*ret_did = false;
	int rc = put_fetch(r, &from->site, m->of, FETCHED, &why);
	rc = rc ? rc : source_open_file(r->scratch_fd, FETCHED, m->of, &src, &why);
	rc = rc ? rc : matches(r, src, m->sha256, &whole, &why);
	if (rc < 0)
		return repair_ends(rc, &why) ? err_copy(err, &why) : 0;
	if (!whole)
		return 0;
	if (!r->options->dry_run) {
		rc = put_file(r, FETCHED, m->of, missing, err);
		rc = rc ? rc : is_whole(r, target, m->of, m->sha256, &whole, err);
		if (rc == 0 && !whole)
			rc = err_set(err, ERR_DAMAGED, 0, "'%s' is not what was put there", m->of);
	}
	if (rc == 0)
		repair_tell(r, m->of, missing, r->options->dry_run ? REPAIR_POSSIBLE : REPAIR_DONE,
		            from->site.at.label, what);
	*ret_did = rc == 0;
	return rc;
}

static bool is_suspect(const struct repair_options *o, const char *key)
{
	for (size_t i = 0; o->suspects && i < o->n_suspects; i++)
		if (strcmp(o->suspects[i], key) == 0)
			return true;
	return !o->suspects;
}

/* Of one whose manifest is readable.  It is read twice before it counts as damaged. */
static int repair_file(struct repair *r, struct shelf *target, struct shelf *others,
                       const struct stored *m, struct err *err)
{
	bool missing = !find(target, m->of), whole = false, did = false;
	int rc = 0;

	if (!missing && !is_suspect(r->options, m->of))
		return 0;
	for (int turn = 0; turn < 2 && !missing && !whole && rc == 0; turn++)
		rc = is_whole(r, target, m->of, m->sha256, &whole, err);
	if (rc < 0 || whole)
		return rc;
	for (size_t i = 0; i < r->n_others && rc == 0 && !did; i++)
		if (find(&others[i], m->of))
			rc = put_back(r, target, &others[i], m, missing, &did, err);
	put_drop(r, FETCHED);
	if (rc == 0 && !did && !missing) /* one that is gone was let go, perhaps */
		repair_tell(r, m->of, false, REPAIR_FAILED, NULL,
		            "its sha256 is not the one in its manifest, and no other place has it");
	return rc;
}

/* ---- manifests ---- */

/* From the first place that has it; into `m` as well. */
static int put_manifest(struct repair *r, struct shelf *target, const struct shelf *from,
                        struct stored *m, bool missing, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(MANIFEST_MAX), back = BUF_INIT(MANIFEST_MAX);
	struct stored check = {.manifest = true};

	memcpy(check.key, m->key, sizeof(check.key));
	int rc = read_manifest(from, &check, &b, err);
	if (rc == 0 && !r->options->dry_run) {
		rc = put_bytes(r, m->key, b.data, b.len, missing, err);
		rc = rc ? rc : read_manifest(target, &check, &back, err);
	}
	if (rc < 0)
		return rc;
	repair_tell(r, m->key, missing, r->options->dry_run ? REPAIR_POSSIBLE : REPAIR_DONE,
	            from->site.at.label, missing ? "" : "it cannot be read");
	*m = check;
	return 0;
}

static int repair_manifest(struct repair *r, struct shelf *target, struct shelf *others,
                           struct stored *m, struct err *err)
{
	for (size_t i = 0; i < r->n_others; i++) {
		const struct stored *o = find(&others[i], m->key);
		if (o && o->readable)
			return put_manifest(r, target, &others[i], m, false, err);
	}
	repair_tell(r, m->key, false, REPAIR_FAILED, NULL, "it cannot be read");
	return 0;
}

/* Manifests of backups that lie here as those say, and have none. */
static int fill_manifests(struct repair *r, struct shelf *target, struct shelf *from,
                          struct err *err)
{
	for (size_t i = 0; i < from->n; i++) {
		struct stored m = from->v[i];
		bool whole = false;
		if (!m.readable || !m.sha256[0] || find(target, m.key) || !find(target, m.of) ||
		    has_manifest(target, m.of))
			continue;
		int rc = is_whole(r, target, m.of, m.sha256, &whole, err);
		if (rc == 0 && whole)
			rc = put_manifest(r, target, from, &m, true, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* One that is gone with its manifest: a rule may have let it go, or somebody. */
static void tell_gone(struct repair *r, struct shelf *target, const struct shelf *from,
                      const struct shelf *others, size_t n_before)
{
	for (size_t i = 0; i < from->n; i++) {
		const struct stored *m = &from->v[i];
		bool told = false;
		if (!m->readable || !find(from, m->of) || find(target, m->key) ||
		    find(target, m->of) || has_manifest(target, m->of))
			continue;
		for (size_t k = 0; k < n_before && !told; k++)
			told = find(&others[k], m->of) != NULL;
		if (!told)
			repair_tell_by_hand(r, m->of, from->site.at.label, 0);
	}
}

/* ---- all of it ---- */

static int run(struct repair *r, struct shelf *target, struct shelf *others, struct err *err)
{
	int rc = put_scratch(r, err);

	target->site.at = r->options->target;
	rc = rc ? rc : look(target, err);
	for (size_t i = 0; i < r->n_others && rc == 0; i++) {
		struct err why = ERR_INIT;
		others[i].site.at = r->options->others[i];
		int got = look(&others[i], &why);
		if (repair_ends(got, &why))
			rc = err_copy(err, &why);
		else if (got < 0)
			log_warn("repair", "passed over '%s': %s", others[i].site.at.label,
			         why.msg);
	}
	for (size_t i = 0; i < target->n && rc == 0; i++)
		if (target->v[i].manifest && !target->v[i].readable)
			rc = repair_manifest(r, target, others, &target->v[i], err);
	for (size_t i = 0; i < target->n && rc == 0; i++)
		if (target->v[i].readable && target->v[i].sha256[0])
			rc = repair_file(r, target, others, &target->v[i], err);
	for (size_t i = 0; i < r->n_others && rc == 0; i++)
		rc = fill_manifests(r, target, &others[i], err);
	for (size_t i = 0; i < r->n_others && rc == 0 && !r->options->suspects; i++)
		tell_gone(r, target, &others[i], others, i);
	return rc;
}

int repair_backups(const struct repair_options *options, struct repair_result *ret, struct err *err)
{
	struct repair r;
	struct shelf target = {.n = 0};
	struct shelf *others = calloc(options->n_others + 1, sizeof(*others));

	int rc = repair_begin(&r, options, NULL, ret, err);
	if (rc == 0 && !others)
		rc = err_set(err, ERR_NOMEM, 0, "no memory to repair");
	for (int type = 0; type < BACKUP_N_TYPES && rc == 0 && !options->dry_run; type++)
		store_sweep(options->target.store->dir_fd, backup_type_names[type]);
	rc = rc ? rc : run(&r, &target, others, err);
	free(target.v);
	for (size_t i = 0; others && i < options->n_others; i++)
		free(others[i].v);
	free(others);
	repair_end(&r);
	return rc;
}

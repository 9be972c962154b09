/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests: one JSON object in manifest_YYYYmmdd_HHMMSS.json, beside what it tells of.
 *
 * key                  | written                                 | also read
 * ---------------------|-----------------------------------------|---------------------------------
 * backup_type          | manual, automated, safety, compressed   |
 * timestamp            | ISO, local, without a zone              | YYYYmmdd_HHMMSS (script)
 * created_at           | UTC with Z                              | ISO with an offset (script)
 * source_database      | absolute path                           | any path (Python)
 * backup_file          | path; its last part is what counts      | (Python)
 * files                | [name]                                  | of one run, several (script)
 * sizes                | {name: bytes}                           | (script)
 * source_size_bytes    | of the database                         | (Python)
 * backup_size_bytes    | of the file                             | (Python)
 * compression_ratio    | backup / source                         | (Python)
 * created_by           | "asof VERSION"                          | in `validation` (script)
 * validation           | integrity_check: "passed", "skipped", "failed"; foreign_key_check the
 *                      | same; created_at, created_by, script_version
 *                      |                                         | integrity_check: true, "ok"
 * sha256               | of the file as stored, hex              |
 * txid                 | of the history, or null                 |
 * state_time           | UTC: the moment that it is a state of   |
 * source               | "history", "live", "raw"                |
 * companions           | [name]: -wal and -journal of a raw copy |
 * warning              | text, if there is one                   |
 *
 * The old shapes are those of backup-database.sh ("script") and backup_manager.py ("Python").
 * Unknown keys are passed over, and so is one of another type than it should have.
 */
#include "engine/backup/backup_i.h"

#include "engine/base/clock.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define FILES_MAX 4096

static const char *const source_names[] = {NULL, "history", "live", "raw"};

/* ---- writing ---- */

static json_t *text_or_null(const char *text)
{
	json_t *s = *text ? json_string(text) : json_null();

	/* A path that is no UTF-8: the rest of the manifest is worth having. */
	return s ? s : json_null();
}

static json_t *time_utc(int64_t time_us)
{
	char text[TIME_STR_MAX];

	if (!time_us)
		return json_null();
	time_format(time_us, text);
	return json_string(text);
}

static json_t *number(uint64_t v)
{
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static json_t *validation_of(const struct backup_manifest *m)
{
	const char *outcome = m->checked                     ? "passed"
	                      : m->source == BACKUP_FROM_RAW ? "failed"
	                                                     : "skipped";
	char when[BACKUP_TIME_MAX] = "";

	if (m->checked_us)
		backup_time_iso_local(m->checked_us, when);
	return json_pack("{ss ss so ss ss}", "integrity_check", outcome, "foreign_key_check",
	                 m->checked && m->foreign_key_rows ? "failed" : outcome, "created_at",
	                 text_or_null(when), "created_by", m->created_by, "script_version",
	                 ASOF_VERSION);
}

static json_t *companions_of(const struct backup_manifest *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n_companions; i++)
		json_array_append_new(list, text_or_null(m->companions[i]));
	return list;
}

json_t *backup_manifest_json(const struct backup_manifest *m)
{
	const char *name = last_part(m->backup_file);
	json_t *sizes = json_object();

	json_object_set_new(sizes, name, number(m->backup_size_bytes));
	return json_pack(
	        "{ss so so so so so so so sf ss so so so so so so so so}", "backup_type", m->type,
	        "timestamp", text_or_null(m->timestamp), "created_at", time_utc(m->created_us),
	        "source_database", text_or_null(m->source_database), "backup_file",
	        text_or_null(m->backup_file), "source_size_bytes", number(m->source_size_bytes),
	        "backup_size_bytes", number(m->backup_size_bytes), "files", json_pack("[s]", name),
	        "compression_ratio", m->compression_ratio, "created_by", m->created_by,
	        "validation", validation_of(m), "sizes", sizes, "sha256", text_or_null(m->sha256),
	        "txid", m->txid ? number(m->txid) : json_null(), "state_time",
	        time_utc(m->state_us), "source",
	        m->source ? json_string(source_names[m->source]) : json_null(), "companions",
	        companions_of(m), "warning", text_or_null(m->warning));
}

static int append_text(const char *text, size_t len, void *ctx)
{
	return buf_append(ctx, text, len, NULL) ? -1 : 0;
}

int backup_manifest_format(const struct backup_manifest *m, struct buf *out, struct err *err)
{
	json_t *json = backup_manifest_json(m);
	int failed = !json || json_dump_callback(json, append_text, out, JSON_INDENT(2));

	json_decref(json);
	if (failed)
		return err_set(err, ERR_NOMEM, 0, "no memory for a manifest");
	return buf_append(out, "\n", 1, err);
}

/* ---- reading ---- */

static void get_text(const json_t *o, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(o, key));

	snprintf(out, size, "%s", text ? text : "");
}

static uint64_t as_count(const json_t *v)
{
	json_int_t n = json_integer_value(v);

	return json_is_integer(v) && n > 0 ? (uint64_t)n : 0;
}

static uint64_t get_count(const json_t *o, const char *key)
{
	return as_count(json_object_get(o, key));
}

static int64_t get_time(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));
	int64_t us;

	if (!text || time_parse(text, 0, TIME_ZONE_LOCAL, &us, NULL, NULL))
		return 0;
	return us;
}

static bool passed(const json_t *v)
{
	const char *text = json_string_value(v);

	return json_is_true(v) ||
	       (text && (strcmp(text, "passed") == 0 || strcmp(text, "ok") == 0));
}

static void get_validation(const json_t *root, struct backup_manifest *m)
{
	const json_t *v = json_object_get(root, "validation");

	m->checked = passed(json_object_get(v, "integrity_check"));
	m->checked_us = get_time(v, "created_at");
	if (!m->created_by[0])
		get_text(v, "created_by", m->created_by, sizeof(m->created_by));
}

static void get_source(const json_t *root, struct backup_manifest *m)
{
	const char *text = json_string_value(json_object_get(root, "source"));

	for (size_t i = 1; text && i < sizeof(source_names) / sizeof(source_names[0]); i++)
		if (strcmp(text, source_names[i]) == 0)
			m->source = (enum backup_source)i;
}

static void get_sha256(const json_t *root, struct backup_manifest *m)
{
	get_text(root, "sha256", m->sha256, sizeof(m->sha256));
	for (const char *p = m->sha256; *p; p++)
		if (!strchr("0123456789abcdef", *p)) {
			m->sha256[0] = '\0';
			return;
		}
	if (strlen(m->sha256) != 64)
		m->sha256[0] = '\0';
}

static int add_file(struct backup_manifest_files *files, const char *path, struct err *err)
{
	const char *name = last_part(path);
	size_t len = strlen(name);

	if (len == 0 || len >= BACKUP_FILE_MAX || files->n >= FILES_MAX)
		return 0;
	for (size_t i = 0; i < files->n; i++)
		if (strcmp(files->names[i], name) == 0)
			return 0;
	void *more = realloc(files->names, (files->n + 1) * sizeof(*files->names));
	if (!more)
		return err_set(err, ERR_NOMEM, 0, "no memory for a manifest");
	files->names = more;
	memcpy(files->names[files->n++], name, len + 1);
	return 0;
}

static int get_files(const json_t *root, struct backup_manifest_files *files, struct err *err)
{
	const json_t *list = json_object_get(root, "files");
	const char *one = json_string_value(json_object_get(root, "backup_file"));
	int rc = one ? add_file(files, one, err) : 0;

	for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
		const char *text = json_string_value(json_array_get(list, i));
		if (text)
			rc = add_file(files, text, err);
	}
	return rc;
}

static void get_companions(const json_t *root, struct backup_manifest *m)
{
	const json_t *list = json_object_get(root, "companions");

	for (size_t i = 0; i < json_array_size(list) && m->n_companions < BACKUP_COMPANIONS_MAX;
	     i++) {
		const char *text = json_string_value(json_array_get(list, i));
		if (text && *text && !strchr(text, '/') && strlen(text) < BACKUP_NAME_MAX)
			snprintf(m->companions[m->n_companions++], BACKUP_NAME_MAX, "%s", text);
	}
}

static void get_all(const json_t *root, const char *file, struct backup_manifest *m)
{
	get_text(root, "backup_type", m->type, sizeof(m->type));
	get_text(root, "timestamp", m->timestamp, sizeof(m->timestamp));
	get_text(root, "source_database", m->source_database, sizeof(m->source_database));
	get_text(root, "backup_file", m->backup_file, sizeof(m->backup_file));
	get_text(root, "created_by", m->created_by, sizeof(m->created_by));
	get_text(root, "warning", m->warning, sizeof(m->warning));
	m->source_size_bytes = get_count(root, "source_size_bytes");
	m->backup_size_bytes = get_count(root, "backup_size_bytes");
	m->txid = get_count(root, "txid");
	m->created_us = get_time(root, "created_at");
	if (!m->created_us)
		m->created_us = get_time(root, "timestamp");
	m->state_us = get_time(root, "state_time");
	double ratio = json_number_value(json_object_get(root, "compression_ratio"));
	m->compression_ratio = isfinite(ratio) && ratio > 0 ? ratio : 0;
	get_validation(root, m);
	get_source(root, m);
	get_sha256(root, m);
	get_companions(root, m);
	if (!m->backup_file[0])
		snprintf(m->backup_file, sizeof(m->backup_file), "%s", file);
	if (!m->backup_size_bytes)
		m->backup_size_bytes =
		        as_count(json_object_get(json_object_get(root, "sizes"), file));
}

int backup_manifest_parse(const char *text, size_t len, const char *file,
                          struct backup_manifest *ret, struct backup_manifest_files *files,
                          struct err *err)
{
	struct backup_manifest_files own = {0};
	json_error_t why;
	json_t *root = json_loadb(text, len, 0, &why);
	int rc = 0;

	*ret = (struct backup_manifest){0};
	if (!files)
		files = &own;
	*files = own;
	if (!root || !json_is_object(root))
		rc = err_set(err, ERR_DAMAGED, 0, "no manifest: %s",
		             root ? "it is no JSON object" : why.text);
	rc = rc ? rc : get_files(root, files, err);
	if (!rc && files->n == 0)
		rc = err_set(err, ERR_DAMAGED, 0, "no manifest: it names no backup");
	if (!rc)
		get_all(root, file ? file : files->names[0], ret);
	json_decref(root);
	if (rc || files == &own)
		free(files->names);
	if (rc)
		*files = (struct backup_manifest_files){0};
	return rc;
}

int backup_manifest_of_text(const char *text, size_t len, struct backup_manifest *ret,
                            struct err *err)
{
	return backup_manifest_parse(text, len, NULL, ret, NULL, err);
}

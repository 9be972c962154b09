/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/options.h"

#include "engine/base/zone.h"
#include "engine/store/kept.h"
#include "engine/store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORD_MAX_BYTES PATH_MAX

static bool is_ignored(const char *word)
{
	static const char *const words[] = {
	        "ro",
	        "rw",
	        "suid",
	        "nosuid",
	        "dev",
	        "nodev",
	        "exec",
	        "noexec",
	        "sync",
	        "async",
	        "atime",
	        "noatime",
	        "diratime",
	        "nodiratime",
	        "relatime",
	        "norelatime",
	        "strictatime",
	        "nostrictatime",
	        "lazytime",
	        "nolazytime",
	        "auto",
	        "noauto",
	        "user",
	        "nouser",
	        "users",
	        "owner",
	        "group",
	        "nofail",
	        "_netdev",
	        "defaults",
	        "default_permissions",
	        "nonempty",
	};
	static const char *const heads[] = {"x-", "X-", "comment=", "fsname=", "subtype="};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(word, words[i]) == 0)
			return true;
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		if (strncmp(word, heads[i], strlen(heads[i])) == 0)
			return true;
	return false;
}

static bool parse_number(const char *text, int base, unsigned long long max,
                         unsigned long long *ret, const char **ret_rest)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, base);
	*ret_rest = end;
	return errno == 0 && *ret <= max;
}

static int bad_value(const char *word, const char *want, struct err *err)
{
	return err_set(err, ERR_USAGE, 0, "mount option '%.100s': %s", word, want);
}

static int parse_id(const char *word, const char *value, unsigned *ret, struct err *err)
{
	unsigned long long v;
	const char *rest;

	if (!parse_number(value, 10, UINT_MAX - 1, &v, &rest) || *rest)
		return bad_value(word, "not a numeric id", err);
	*ret = (unsigned)v;
	return 0;
}

static int parse_mode(const char *word, const char *value, mode_t *ret, struct err *err)
{
	unsigned long long v;
	const char *rest;

	if (!parse_number(value, 8, 0777, &v, &rest) || *rest)
		return bad_value(word, "not octal permission bits", err);
	*ret = (mode_t)(v & ~0222ull);
	return 0;
}

static int parse_bytes(const char *word, const char *value, size_t *ret, struct err *err)
{
	static const char units[] = "KMG";
	unsigned long long v;
	const char *rest, *unit;
	unsigned shift = 0;

	if (!parse_number(value, 10, UINT64_C(1) << 40, &v, &rest))
		return bad_value(word, "not a size (write 64M)", err);
	if (*rest && (unit = strchr(units, *rest))) {
		shift = 10 * (unsigned)(unit - units + 1);
		rest++;
	}
	if (*rest || v == 0 || v > (UINT64_C(1) << 40) >> shift)
		return bad_value(word, "not a size (write 64M)", err);
	*ret = (size_t)(v << shift);
	return 0;
}

static int parse_zone(const char *word, const char *value, struct fs_options *o, struct err *err)
{
	char path[128];

	o->zone_name[0] = 0;
	if (strcmp(value, "UTC") == 0 || strcmp(value, "utc") == 0) {
		o->zone = TIME_ZONE_UTC;
		return 0;
	}
	o->zone = TIME_ZONE_LOCAL;
	if (strcmp(value, "local") == 0)
		return 0;
	/* The C library takes an unknown name for UTC without a word. */
	if (strlen(value) >= sizeof(o->zone_name) || strstr(value, "..") || value[0] == '/' ||
	    value[0] == '.' || !value[0])
		return bad_value(word, "no such time zone", err);
	snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", value);
	struct zone *zone cleanup_zone = NULL;
	struct err why = ERR_INIT;
	if (access(path, R_OK) < 0 || zone_open(value, &zone, &why) < 0) /* a folder, a table */
		return bad_value(word, "no such time zone in /usr/share/zoneinfo", err);
	snprintf(o->zone_name, sizeof(o->zone_name), "%s", value);
	return 0;
}

static const char *value_of(const char *word, const char *key)
{
	size_t n = strlen(key);
	return strncmp(word, key, n) == 0 && word[n] == '=' ? word + n + 1 : NULL;
}

static int add_also(const char *word, const char *value, struct fs_options *o, struct err *err)
{
	if (!store_is_url(value) && value[0] != '/')
		return bad_value(word, "neither an absolute path nor a URL", err);
	if (o->n_also == FS_ALSO_MAX || strlen(value) >= FS_ALSO_SIZE)
		return bad_value(word, "too many, or too long", err);
	snprintf(o->also[o->n_also++], FS_ALSO_SIZE, "%s", value);
	return 0;
}

static int parse_word(const char *word, struct fs_options *o, struct err *err)
{
	const char *value;

	if (!*word || is_ignored(word))
		return 0;
	if (strcmp(word, "allow_other") == 0) {
		o->allow_other = true;
		return 0;
	}
	if ((value = value_of(word, "uid")))
		return parse_id(word, value, &o->uid, err);
	if ((value = value_of(word, "gid")))
		return parse_id(word, value, &o->gid, err);
	if ((value = value_of(word, "fmode")))
		return parse_mode(word, value, &o->file_mode, err);
	if ((value = value_of(word, "dmode")))
		return parse_mode(word, value, &o->dir_mode, err);
	if ((value = value_of(word, "tz")))
		return parse_zone(word, value, o, err);
	if ((value = value_of(word, "cache_size")))
		return parse_bytes(word, value, &o->cache_bytes, err);
	if ((value = value_of(word, "cache_disk"))) {
		size_t bytes = 0;
		int rc = parse_bytes(word, value, &bytes, err);
		o->keep_bytes = bytes;
		return rc                       ? rc
		       : bytes < KEPT_MIN_BYTES ? bad_value(word, "16M is the least", err)
		                                : 0;
	}
	if ((value = value_of(word, "cache"))) {
		if (*value && value[0] != '/')
			return bad_value(word, "not an absolute path", err);
		snprintf(o->keep_dir, sizeof(o->keep_dir), "%s", value);
		return 0;
	}
	if ((value = value_of(word, "log"))) {
		if (value[0] != '/')
			return bad_value(word, "not an absolute path", err);
		snprintf(o->log_path, sizeof(o->log_path), "%s", value);
		return 0;
	}
	if ((value = value_of(word, "also")))
		return add_also(word, value, o, err);
	if ((value = value_of(word, "list"))) {
		if (strcmp(value, "all") != 0)
			return bad_value(word, "only list=all is known", err);
		o->list_all = true;
		return 0;
	}
	return bad_value(word, "not known (see asof mount --help)", err);
}

int fs_options_parse(const char *words, struct fs_options *ret, struct err *err)
{
	struct fs_options o = {.uid = getuid(),
	                       .gid = getgid(),
	                       .file_mode = 0400,
	                       .dir_mode = 0500,
	                       .zone = TIME_ZONE_UTC};
	char word[WORD_MAX_BYTES];
	size_t n = 0;
	bool keep;

	int rc = kept_default(o.keep_dir, &o.keep_bytes, &keep, err);
	if (rc < 0)
		return rc;
	for (const char *p = words ? words : "";; p++) {
		if (*p && *p != ',') {
			if (*p == '\\' && p[1])
				p++;
			if (n + 1 >= sizeof(word))
				return err_set(err, ERR_USAGE, 0, "a mount option is too long");
			word[n++] = *p;
			continue;
		}
		word[n] = 0;
		n = 0;
		rc = parse_word(word, &o, err);
		if (rc < 0)
			return rc;
		if (!*p)
			break;
	}
	*ret = o;
	return 0;
}

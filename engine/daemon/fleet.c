/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `want` of a member is what it shall be; `database` is what runs, made of `is`.  fleet_step()
 * closes the difference, one way whatever its cause:
 *
 *   no database, wanted            -> database_new()
 *   database, not wanted or other  -> database_stop(); ended -> database_free()
 */
#include "engine/daemon/fleet_i.h"

#include "engine/archive/names.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/config/retention.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#define LOOK_US (10 * US_PER_SECOND)
#define GONE_US (10 * US_PER_SECOND)
#define SPACE_US (5 * US_PER_SECOND)
#define SHORT_US (20 * US_PER_SECOND)
/* Side files come and go: not at each of them. */
#define LOOK_PAUSE_US (500 * 1000)
#define FOLDER_EVENTS (IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR)

/* ---- what is wanted ---- */

static void wanted_release(struct wanted *w)
{
	free(w->path);
	free(w->archive);
	free(w->name);
	*w = (struct wanted){0};
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool wanted_equal(const struct wanted *a, const struct wanted *b)
{
	return same_text(a->path, b->path) && same_text(a->archive, b->archive) &&
	       same_text(a->name, b->name) && a->strict == b->strict &&
	       a->enable_wal == b->enable_wal && a->wal_cap_bytes == b->wal_cap_bytes;
}

static int wanted_copy(const struct wanted *from, struct wanted *to, struct err *err)
{
	*to = *from;
	to->path = strdup(from->path);
	to->archive = strdup(from->archive);
	to->name = strdup(from->name);
	if (to->path && to->archive && to->name)
		return 0;
	wanted_release(to);
	return err_set(err, ERR_NOMEM, 0, "no memory for a database");
}

const char *fleet_last_part(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* ---- members; under the lock ---- */

struct member *fleet_find_path(struct fleet *f, const char *path)
{
	for (struct member *m = f->members; m; m = m->next)
		if (strcmp(m->want.path, path) == 0)
			return m;
	return NULL;
}

static void insert(struct fleet *f, struct member *m)
{
	struct member **at = &f->members;

	while (*at && strcmp((*at)->want.name, m->want.name) <= 0)
		at = &(*at)->next;
	m->next = *at;
	*at = m;
	m->id = ++f->next_id;
	f->n_members++;
}

/* Two files cannot have one name in one archive. */
static int check_name(struct fleet *f, const struct wanted *w, struct err *err)
{
	for (const struct member *m = f->members; m; m = m->next)
		if (m->wanted && strcmp(m->want.name, w->name) == 0 &&
		    strcmp(m->want.archive, w->archive) == 0 && strcmp(m->want.path, w->path) != 0)
			return err_set(err, ERR_USAGE, 0,
			               "%s and %s would both be '%s' in archive '%s' (give one of "
			               "them another `name:`)",
			               m->want.path, w->path, w->name, w->archive);
	return 0;
}

/* Makes a member for what is wanted, or gives the one that there is new wishes. */
int fleet_want(struct fleet *f, enum origin origin, const struct wanted *w,
               const struct config_database *config, struct err *err)
{
	struct wanted copy;
	struct member *m = fleet_find_path(f, w->path);

	if (m && m->seen)
		return 0; /* named, and found in a folder: the name counts */
	int rc = check_name(f, w, err);
	if (rc == 0)
		rc = wanted_copy(w, &copy, err);
	if (rc < 0)
		return rc;
	if (!m) {
		m = calloc(1, sizeof(*m));
		if (!m) {
			wanted_release(&copy);
			return err_set(err, ERR_NOMEM, 0, "no memory for a database");
		}
		m->want = copy;
		insert(f, m);
	} else {
		wanted_release(&m->want);
		m->want = copy;
	}
	m->origin = origin;
	m->config = config;
	retain_policy_default(&m->policy);
	if (config)
		config_retain_policy(&config->retention, &m->policy);
	m->seen = true;
	m->wanted = !m->dropped;
	m->gone_us = 0;
	return 0;
}

static void say(const struct err *why)
{
	log_error("fleet", "database left out: %s", why->msg);
}

static void want_named(struct fleet *f, const struct config_database *c)
{
	struct err why = ERR_INIT;
	const struct wanted w = {
	        .path = (char *)(uintptr_t)c->path,
	        .archive = (char *)(uintptr_t)c->archive,
	        .name = (char *)(uintptr_t)(c->name ? c->name : fleet_last_part(c->path)),
	        .strict = c->strict,
	        .enable_wal = c->enable_wal,
	        .wal_cap_bytes = c->wal_cap_bytes,
	};

	if (fleet_want(f, BY_NAME, &w, c, &why) < 0)
		say(&why);
}

/* ---- folders ---- */

static void watch_folder(struct fleet *f, const char *dir)
{
	if (f->inotify_fd >= 0 && inotify_add_watch(f->inotify_fd, dir, FOLDER_EVENTS) < 0)
		log_debug("fleet",
		          "folder is not watched, looked at every 10 s dir=%s error=\"%s\"", dir,
		          strerror(errno));
}

/* Found ones are sorted by path: each folder once. */
static void watch_folder_of(struct fleet *f, const char *path, char last[PATH_MAX])
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%.*s", (int)(fleet_last_part(path) - path), path);
	if (strcmp(dir, last) == 0)
		return;
	memcpy(last, dir, PATH_MAX);
	watch_folder(f, dir);
}

static void want_found(struct fleet *f, const struct config_database *c,
                       const struct config_found *found)
{
	struct err why = ERR_INIT;
	const struct wanted w = {.path = found->path,
	                         .archive = (char *)(uintptr_t)c->archive,
	                         .name = (char *)(uintptr_t)found->name,
	                         .strict = c->strict,
	                         .enable_wal = c->enable_wal,
	                         .wal_cap_bytes = c->wal_cap_bytes};

	if (fleet_want(f, BY_FOLDER, &w, c, &why) < 0)
		say(&why);
}

static void look_into(struct fleet *f, const struct config_database *c)
{
	cleanup_config_found struct config_found_list found = {0};
	char last[PATH_MAX] = "";
	struct err why = ERR_INIT;

	if (c->watch)
		watch_folder(f, c->dir);
	if (config_scan_dir(f->config, c, &found, &why) < 0) {
		log_warn("fleet", "folder of databases dir=%s: %s", c->dir, why.msg);
		return;
	}
	for (size_t i = 0; i < found.n; i++) {
		want_found(f, c, &found.items[i]);
		if (c->watch && c->recursive)
			watch_folder_of(f, found.items[i].path, last);
	}
}

/* Its file has the name of another member by now. */
static bool was_renamed(const struct fleet *f, const struct member *gone)
{
	struct stat st;

	if (!gone->ino || lstat(gone->want.path, &st) == 0)
		return false;
	for (const struct member *m = f->members; m; m = m->next)
		if (m->seen && stat(m->want.path, &st) == 0 && st.st_dev == gone->dev &&
		    st.st_ino == gone->ino)
			return true;
	return false;
}

/* Members of folders that were not found: gone for good after a while, or when they are renamed. */
static void drop_gone(struct fleet *f, int64_t now_us)
{
	for (struct member *m = f->members; m; m = m->next) {
		if (m->origin != BY_FOLDER || m->seen)
			continue;
		if (!m->gone_us)
			m->gone_us = now_us;
		if (m->wanted && (now_us - m->gone_us > GONE_US || was_renamed(f, m))) {
			log_info("fleet", "database is gone from its folder db=%s path=%s",
			         m->want.name, m->want.path);
			m->wanted = false;
		}
	}
}

/* Looks for everything that is wanted: names first, so that they count. */
static void look(struct fleet *f, bool names)
{
	LOCK_SCOPE(&f->lock);
	for (struct member *m = f->members; m; m = m->next)
		m->seen = m->origin == BY_HAND || (!names && m->origin == BY_NAME);
	for (struct member *m = f->members; names && m; m = m->next)
		m->config = NULL;
	for (size_t i = 0; names && i < f->config->n_databases; i++)
		if (!f->config->databases[i].dir)
			want_named(f, &f->config->databases[i]);
	for (size_t i = 0; i < f->config->n_databases; i++)
		if (f->config->databases[i].dir && (names || f->config->databases[i].watch))
			look_into(f, &f->config->databases[i]);
	for (struct member *m = f->members; names && m; m = m->next)
		if (!m->seen && m->origin == BY_NAME)
			m->wanted = false;
	drop_gone(f, clock_mono_us());
	f->looked_us = clock_mono_us();
	f->look_now = false;
}

/* Of a configuration that is no more: what its folders held is not to stay for ever. */
static void forget_folders(struct fleet *f)
{
	LOCK_SCOPE(&f->lock);
	for (struct member *m = f->members; m; m = m->next) {
		m->dropped = false;
		if (m->origin == BY_FOLDER && !m->seen)
			m->wanted = false;
	}
}

void fleet_apply(struct fleet *f, const struct config *config)
{
	pthread_mutex_lock(&f->lock);
	f->config = config;
	for (struct member *m = f->members; m; m = m->next)
		m->dropped = false;
	pthread_mutex_unlock(&f->lock);
	look(f, true);
	forget_folders(f);
	fleet_step(f);
}

/* ---- bringing what is to what is wanted ---- */

/* One file is replicated once, whatever paths lead to it; by a task of `control`. */
static int claim(void *ctx, struct database *d, dev_t dev, ino_t ino, struct err *err)
{
	struct fleet *f = ctx;
	LOCK_SCOPE(&f->lock);

	for (struct member *m = f->members; m; m = m->next)
		if (m->database && m->database != d && m->dev == dev && m->ino == ino && ino)
			return err_set(err, ERR_REFUSED, 0,
			               "%s is the same file as %s, which is replicated already "
			               "(name it once)",
			               database_path(d), m->is.path);
	for (struct member *m = f->members; m; m = m->next)
		if (m->database == d) {
			m->dev = dev;
			m->ino = ino;
		}
	return 0;
}

/* An archive that is not there yet, or not to be asked, is another's trouble. */
static bool is_short(const char *root, const struct retain_policy *policy, struct err *err)
{
	struct err why = ERR_INIT;

	if (retain_may_write(root, policy, &why) == 0 || why.kind != ERR_NO_SPACE)
		return false;
	err_copy(err, &why);
	return true;
}

/* What the application needs is not used up: see retain.h.  By a task of `control`. */
static int may_write(void *ctx, struct database *d, struct err *err)
{
	struct fleet *f = ctx;
	struct retain_policy policy;

	retain_policy_default(&policy);
	pthread_mutex_lock(&f->lock);
	for (struct member *m = f->members; m; m = m->next)
		if (m->database == d)
			policy = m->policy;
	pthread_mutex_unlock(&f->lock);
	return is_short(database_archive(d), &policy, err) ? -ERR_NO_SPACE : 0;
}

/* Retention gets its chance first; the databases of an archive that stays short find out by
 * themselves. */
static void check_space(struct fleet *f)
{
	int64_t now_us = clock_mono_us();
	const char *root = "";
	struct database_status st;
	bool here = false, anywhere = false;
	LOCK_SCOPE(&f->lock);

	for (struct member *m = f->members; m; m = m->next) {
		if (!m->database)
			continue;
		if (strcmp(m->is.archive, root) != 0) {
			root = m->is.archive;
			here = is_short(root, &m->policy, NULL);
			anywhere = anywhere || here;
		}
		database_get_status(m->database, &st);
		if (here && f->short_us && now_us - f->short_us > SHORT_US &&
		    st.state == DATABASE_REPLICATING)
			database_check_space(m->database);
	}
	if (anywhere && !f->short_us)
		log_warn("fleet",
		         "an archive is short of space: retention now, then capture stops");
	f->short_us = !anywhere ? 0 : f->short_us ? f->short_us : now_us;
}

bool fleet_is_short(const struct fleet *f)
{
	return f->short_us;
}

static int start(struct fleet *f, struct member *m, struct err *err)
{
	int rc = wanted_copy(&m->want, &m->is, err);
	const struct database_options o = {
	        .path = m->is.path,
	        .archive = m->is.archive,
	        .name = m->is.name,
	        .strict = m->is.strict,
	        .enable_wal = m->is.enable_wal,
	        .wal_cap_bytes = m->is.wal_cap_bytes,
	        .paused = m->pause,
	        .claim = claim,
	        .may_write = may_write,
	        .claim_ctx = f,
	        .news = f->news,
	        .news_ctx = f->news_ctx,
	};

	if (rc == 0)
		rc = database_new(f->pools, &o, &m->database, err);
	if (rc < 0)
		wanted_release(&m->is);
	return rc;
}

static void note_result(struct fleet *f, struct member *m)
{
	struct err why = ERR_INIT;

	if (database_result(m->database, &why) == 0)
		return;
	log_error("fleet", "database stopped with an error db=%s: %s", m->is.name, why.msg);
	if (f->result.kind == ERR_NONE)
		f->result = why;
}

/* True: nothing is left of it. */
static bool step_member(struct fleet *f, struct member *m)
{
	bool wanted = m->wanted && !f->stopping;
	struct err why = ERR_INIT;

	if (m->database && (!wanted || !wanted_equal(&m->want, &m->is)))
		database_stop(m->database);
	if (m->database && database_ended(m->database)) {
		note_result(f, m);
		database_free(take_ptr(m->database));
		wanted_release(&m->is);
		m->dev = 0;
		m->ino = 0;
		f->let_go = true;
	}
	if (!m->database && wanted && clock_mono_us() >= m->retry_us && start(f, m, &why) < 0) {
		log_error("fleet", "database cannot be started db=%s: %s", m->want.name, why.msg);
		m->retry_us = clock_mono_us() + US_PER_SECOND;
	}
	return !m->database && !wanted && !m->dropped;
}

static void step_members(struct fleet *f)
{
	LOCK_SCOPE(&f->lock);
	f->let_go = false;
	for (struct member **at = &f->members; *at;) {
		struct member *m = *at;
		if (!step_member(f, m)) {
			at = &m->next;
			continue;
		}
		*at = m->next;
		f->n_members--;
		wanted_release(&m->want);
		free(m);
	}
	for (struct member *m = f->members; m && f->let_go; m = m->next)
		if (m->database)
			database_look(m->database);
}

static void take_events(struct fleet *f)
{
	_Alignas(struct inotify_event) char buf[4096];

	for (int i = 0; i < 64 && f->inotify_fd >= 0 && read(f->inotify_fd, buf, sizeof(buf)) > 0;
	     i++)
		f->look_now = true;
}

void fleet_step(struct fleet *f)
{
	int64_t since_us = clock_mono_us() - f->looked_us;
	bool folders = false;

	take_events(f);
	for (size_t i = 0; f->config && i < f->config->n_databases; i++)
		folders = folders || f->config->databases[i].dir;
	if (folders && !f->stopping &&
	    ((f->look_now && since_us > LOOK_PAUSE_US) || since_us > LOOK_US))
		look(f, false);
	step_members(f);
	if (clock_mono_us() - f->space_us > SPACE_US) {
		f->space_us = clock_mono_us();
		check_space(f);
	}
}

/* ---- life ---- */

int fleet_new(struct pools *pools, struct fleet **ret, struct err *err)
{
	struct fleet *f = calloc(1, sizeof(*f));

	if (!f)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	f->pools = pools;
	pthread_mutex_init(&f->lock, NULL);
	/* Without it folders are looked at every 10 s. */
	f->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	*ret = f;
	return 0;
}

void fleet_on_news(struct fleet *f, void (*fn)(void *ctx, const char *archive, const char *name),
                   void *ctx)
{
	f->news = fn;
	f->news_ctx = ctx;
}

int fleet_fd(const struct fleet *f)
{
	return f->inotify_fd;
}

void fleet_stop(struct fleet *f)
{
	f->stopping = true;
	step_members(f);
}

bool fleet_stopped(struct fleet *f)
{
	LOCK_SCOPE(&f->lock);
	for (struct member *m = f->members; m; m = m->next)
		if (m->database)
			return false;
	return true;
}

int fleet_result(struct fleet *f, struct err *err)
{
	return f->result.kind == ERR_NONE ? 0 : err_copy(err, &f->result);
}

void fleet_free(struct fleet *f)
{
	if (!f)
		return;
	while (f->members) {
		struct member *m = f->members;
		f->members = m->next;
		database_free(m->database);
		wanted_release(&m->want);
		wanted_release(&m->is);
		free(m);
	}
	if (f->inotify_fd >= 0)
		close(f->inotify_fd);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

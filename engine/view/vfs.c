/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VFS is registered with SQLite, once for the process, never as its default; SQLite finds a
 * VFS by its name alone, so this is the one thing here that is global.
 *
 *   (1) SQLite passes a name to xOpen and nothing else.  A pointer spelled out in that name could
 *       be forged by SQL (ATTACH), so the image is handed over in a variable of the thread, set
 *       for as long as the call of sqlite3_open_v2() or of ATTACH takes, both of which open the
 *       file before they return.  Where nothing is handed over, nothing can be opened.
 *   (2) SQLITE_IOCAP_IMMUTABLE makes the pager take no locks and look for no journal; what would
 *       write is refused anyway.
 *   (3) Files without a name (sorts, temporary tables) are opened by the system's VFS, which then
 *       has put methods of its own into the file.
 */
#include "engine/view/vfs.h"

#include "engine/view/history.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

#define VFS_NAME "asof-image"
#define FCNTL_TAKE_ERROR 0x61736f66 /* of xFileControl, argument struct err * */
#define NAME_BYTES 256

struct image_file {
	sqlite3_file file; /* first: SQLite knows this much of it */
	struct vfs_image image;
	struct err first; /* error of the callback, until somebody takes it */
};

/* (1) */
struct opening {
	const struct vfs_image *image;
	bool taken;
	struct err first; /* of a file that was closed again at once */
};
static _Thread_local struct opening *opening;

/* ---- the file ---- */

static int file_close(sqlite3_file *file)
{
	struct image_file *f = (struct image_file *)file;

	if (opening && !opening->first.kind)
		opening->first = f->first;
	if (f->image.release)
		f->image.release(f->image.ctx);
	return SQLITE_OK;
}

/* Bytes 18 and 19, the versions for writing and reading: 2 is WAL mode. */
static int patch_header(struct image_file *f, uint64_t offset, uint8_t *buf, size_t len,
                        struct err *err)
{
	uint8_t head[20];

	if (offset >= sizeof(head) || offset + len <= 18 || f->image.size_bytes < sizeof(head))
		return 0;
	if (offset == 0 && len >= sizeof(head)) {
		memcpy(head, buf, sizeof(head));
	} else {
		int rc = f->image.read(f->image.ctx, 0, head, sizeof(head), err);
		if (rc)
			return rc;
	}
	if (memcmp(head, "SQLite format 3", 16) != 0 || head[18] != 2 || head[19] != 2)
		return 0;
	for (uint64_t i = 18; i < sizeof(head); i++)
		if (i >= offset && i < offset + len)
			buf[i - offset] = 1;
	return 0;
}

static int file_read(sqlite3_file *file, void *buf, int amount, sqlite3_int64 at)
{
	struct image_file *f = (struct image_file *)file;
	uint64_t offset = (uint64_t)at, size = f->image.size_bytes;
	size_t want = (size_t)amount, len = want;
	struct err err = ERR_INIT;
	int rc = 0;

	if (offset >= size)
		len = 0;
	else if (len > size - offset)
		len = (size_t)(size - offset);
	if (len)
		rc = f->image.read(f->image.ctx, offset, buf, len, &err);
	if (!rc && len)
		rc = patch_header(f, offset, buf, len, &err);
	if (rc) {
		if (!f->first.kind)
			f->first = err;
		return rc == -ERR_NOMEM ? SQLITE_IOERR_NOMEM : SQLITE_IOERR_READ;
	}
	if (len == want)
		return SQLITE_OK;
	memset((uint8_t *)buf + len, 0, want - len);
	return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *buf, int amount, sqlite3_int64 at)
{
	return SQLITE_READONLY;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	return SQLITE_READONLY;
}

static int file_sync(sqlite3_file *file, int flags)
{
	return SQLITE_OK;
}

static int file_size_of(sqlite3_file *file, sqlite3_int64 *ret)
{
	*ret = (sqlite3_int64)((struct image_file *)file)->image.size_bytes;
	return SQLITE_OK;
}

static int file_lock_any(sqlite3_file *file, int level)
{
	return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *file, int *ret)
{
	*ret = 0;
	return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int op, void *arg)
{
	struct image_file *f = (struct image_file *)file;

	if (op != FCNTL_TAKE_ERROR)
		return SQLITE_NOTFOUND;
	err_copy(arg, &f->first);
	f->first = (struct err)ERR_INIT;
	return SQLITE_OK;
}

static int file_sector_size(sqlite3_file *file)
{
	return 4096;
}

static int file_device(sqlite3_file *file)
{
	return SQLITE_IOCAP_IMMUTABLE; /* (2) */
}

static const sqlite3_io_methods image_methods = {
        .iVersion = 1, /* no shared memory, no mapping */
        .xClose = file_close,
        .xRead = file_read,
        .xWrite = file_write,
        .xTruncate = file_truncate,
        .xSync = file_sync,
        .xFileSize = file_size_of,
        .xLock = file_lock_any,
        .xUnlock = file_lock_any,
        .xCheckReservedLock = file_check_reserved,
        .xFileControl = file_control,
        .xSectorSize = file_sector_size,
        .xDeviceCharacteristics = file_device,
};

/* ---- the VFS ---- */

static sqlite3_vfs *system_of(sqlite3_vfs *vfs)
{
	return vfs->pAppData;
}

static int image_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                      int *ret_flags)
{
	struct image_file *f = (struct image_file *)file;

	if (!name) /* (3) */
		return system_of(vfs)->xOpen(system_of(vfs), NULL, file, flags, ret_flags);
	file->pMethods = NULL;
	if (!(flags & SQLITE_OPEN_MAIN_DB) || !opening || opening->taken)
		return SQLITE_CANTOPEN;
	*f = (struct image_file){.file = {&image_methods}, .image = *opening->image};
	opening->taken = true;
	if (ret_flags)
		*ret_flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB;
	return SQLITE_OK;
}

static int image_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
	return SQLITE_READONLY;
}

static int image_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
	*ret = 0;
	return SQLITE_OK;
}

static int image_full_path(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
	size_t len = strlen(name);

	if (len >= (size_t)size)
		return SQLITE_CANTOPEN;
	memcpy(out, name, len + 1);
	return SQLITE_OK;
}

static void *image_dl_open(sqlite3_vfs *vfs, const char *path)
{
	return system_of(vfs)->xDlOpen(system_of(vfs), path);
}

static void image_dl_error(sqlite3_vfs *vfs, int size, char *out)
{
	system_of(vfs)->xDlError(system_of(vfs), size, out);
}

static void (*image_dl_sym(sqlite3_vfs *vfs, void *library, const char *symbol))(void)
{
	return system_of(vfs)->xDlSym(system_of(vfs), library, symbol);
}

static void image_dl_close(sqlite3_vfs *vfs, void *library)
{
	system_of(vfs)->xDlClose(system_of(vfs), library);
}

static int image_randomness(sqlite3_vfs *vfs, int size, char *out)
{
	return system_of(vfs)->xRandomness(system_of(vfs), size, out);
}

static int image_sleep(sqlite3_vfs *vfs, int us)
{
	return system_of(vfs)->xSleep(system_of(vfs), us);
}

static int image_time(sqlite3_vfs *vfs, double *ret)
{
	return system_of(vfs)->xCurrentTime(system_of(vfs), ret);
}

static int image_last_error(sqlite3_vfs *vfs, int size, char *out)
{
	return system_of(vfs)->xGetLastError(system_of(vfs), size, out);
}

static int image_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *ret)
{
	return system_of(vfs)->xCurrentTimeInt64(system_of(vfs), ret);
}

/* SQLite links it into its list.  Filled and registered once; never changed again by us. */
static sqlite3_vfs image_vfs = {
        .iVersion = 2,
        .mxPathname = 2 * NAME_BYTES,
        .zName = VFS_NAME,
        .xOpen = image_open,
        .xDelete = image_delete,
        .xAccess = image_access,
        .xFullPathname = image_full_path,
        .xDlOpen = image_dl_open,
        .xDlError = image_dl_error,
        .xDlSym = image_dl_sym,
        .xDlClose = image_dl_close,
        .xRandomness = image_randomness,
        .xSleep = image_sleep,
        .xCurrentTime = image_time,
        .xGetLastError = image_last_error,
        .xCurrentTimeInt64 = image_time_int64,
};
static pthread_once_t image_vfs_once = PTHREAD_ONCE_INIT;

static void register_once(void)
{
	sqlite3_vfs *system = sqlite3_vfs_find(NULL);

	if (!system || system->iVersion < 2)
		return;
	image_vfs.pAppData = system;
	image_vfs.szOsFile = system->szOsFile > (int)sizeof(struct image_file)
	                             ? system->szOsFile
	                             : (int)sizeof(struct image_file);
	sqlite3_vfs_register(&image_vfs, 0);
}

static int register_vfs(struct err *err)
{
	pthread_once(&image_vfs_once, register_once);
	if (!sqlite3_vfs_find(VFS_NAME))
		return err_set(err, ERR_NOMEM, 0, "SQLite does not start");
	return 0;
}

/* ---- names of one's own ---- */

struct named_vfs {
	sqlite3_vfs vfs; /* first; pAppData is the system's, as in image_vfs */
	vfs_open_name_fn *open_name;
};

static int named_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                      int *ret_flags)
{
	struct image_file *f = (struct image_file *)file;
	struct vfs_image image = {.ctx = NULL};
	struct err err = ERR_INIT;

	if (!name) /* (3) */
		return system_of(vfs)->xOpen(system_of(vfs), NULL, file, flags, ret_flags);
	file->pMethods = NULL;
	if (!(flags & SQLITE_OPEN_MAIN_DB))
		return SQLITE_CANTOPEN;
	if (((struct named_vfs *)vfs)->open_name(name, &image, &err) < 0) {
		sqlite3_log(SQLITE_CANTOPEN, "%s", err.msg);
		return SQLITE_CANTOPEN;
	}
	*f = (struct image_file){.file = {&image_methods}, .image = image};
	if (ret_flags)
		*ret_flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB;
	return SQLITE_OK;
}

int vfs_register(const char *vfs_name, vfs_open_name_fn *open_name, struct err *err)
{
	int rc = register_vfs(err);

	if (rc || sqlite3_vfs_find(vfs_name))
		return rc;
	struct named_vfs *n = calloc(1, sizeof(*n));
	if (!n)
		return err_set(err, ERR_NOMEM, 0, "no memory for a VFS");
	n->vfs = image_vfs;
	n->vfs.pNext = NULL;
	n->vfs.zName = vfs_name;
	n->vfs.mxPathname = 4096;
	n->vfs.xOpen = named_open;
	n->open_name = open_name;
	if (sqlite3_vfs_register(&n->vfs, 0) != SQLITE_OK) {
		free(n);
		return err_set(err, ERR_NOMEM, 0, "SQLite takes no VFS");
	}
	return 0; /* SQLite has it from here on */
}

/* ---- opening ---- */

static const char *name_of(const struct vfs_image *image)
{
	return image->name && *image->name ? image->name : "image";
}

/* What is looked at here was somebody else's: its schema may not reach outside, and the file may
 * not be changed by tricks. */
static void defend(sqlite3 *db)
{
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_extended_result_codes(db, 1);
}

/* The result of a call that opens.  Some names (":memory:") SQLite opens in ways of its own. */
static int finish_opening(struct opening *o, sqlite3 *db, int code, struct err *err)
{
	const char *name = name_of(o->image);

	opening = NULL;
	if (!db)
		return err_set(err, ERR_NOMEM, 0, "no memory for SQLite");
	if (o->first.kind)
		return err_copy(err, &o->first);
	if (code != SQLITE_OK && code != SQLITE_DONE)
		return vfs_sqlite_error(db, err, "open '%.100s'", name);
	if (!o->taken)
		return err_set(err, ERR_USAGE, 0, "'%.100s' cannot be the name of an image", name);
	return 0;
}

int vfs_open(const struct vfs_image *image, sqlite3 **ret, struct err *err)
{
	cleanup_vfs sqlite3 *db = NULL;
	struct opening o = {.image = image};
	int rc = register_vfs(err);

	*ret = NULL;
	if (rc)
		return rc;
	opening = &o;
	int code = sqlite3_open_v2(name_of(image), &db, SQLITE_OPEN_READONLY, VFS_NAME);
	rc = finish_opening(&o, db, code, err);
	if (rc)
		return rc;
	defend(db);
	*ret = take_ptr(db);
	return 0;
}

int vfs_attach(sqlite3 *db, const char *schema, const struct vfs_image *image, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	struct opening o = {.image = image};

	int code = sqlite3_prepare_v2(db, "ATTACH ? AS ?", -1, &s, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_bind_text(s, 1, name_of(image), -1, SQLITE_TRANSIENT);
	if (code == SQLITE_OK)
		code = sqlite3_bind_text(s, 2, schema, -1, SQLITE_TRANSIENT);
	if (code == SQLITE_OK) {
		opening = &o;
		code = sqlite3_step(s);
	}
	return finish_opening(&o, db, code, err);
}

static int read_view(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	size_t got;
	int rc = view_read(ctx, offset, buf, len, 0, &got, err);

	if (!rc && got != len)
		rc = err_set(err, ERR_DAMAGED, 0, "the image ends at byte %" PRIu64, offset + got);
	return rc;
}

static struct vfs_image image_of_view(struct view *v, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, "%.200s@%" PRIu64, view_database(v), view_moment(v)->txid);
	return (struct vfs_image){
	        .ctx = v, .size_bytes = view_size(v), .read = read_view, .name = name};
}

int vfs_open_view(struct view *v, sqlite3 **ret, struct err *err)
{
	char name[NAME_BYTES];
	const struct vfs_image image = image_of_view(v, name);

	return vfs_open(&image, ret, err);
}

int vfs_attach_view(sqlite3 *db, const char *schema, struct view *v, struct err *err)
{
	char name[NAME_BYTES];
	const struct vfs_image image = image_of_view(v, name);

	return vfs_attach(db, schema, &image, err);
}

void vfs_close(sqlite3 *db)
{
	/* Ending statements that are left is not for us: virtual tables have some of their own. */
	sqlite3_close_v2(db);
}

/* ---- errors ---- */

int vfs_error(sqlite3 *db, struct err *err)
{
	struct err first = ERR_INIT;
	const char *schema;

	for (int i = 0; (schema = sqlite3_db_name(db, i)); i++) {
		struct err e = ERR_INIT;
		if (sqlite3_file_control(db, schema, FCNTL_TAKE_ERROR, &e) == SQLITE_OK &&
		    !first.kind)
			first = e;
	}
	return first.kind ? err_copy(err, &first) : 0;
}

static enum err_kind kind_of_code(int code)
{
	switch (code & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return ERR_DAMAGED;
	case SQLITE_NOMEM:
		return ERR_NOMEM;
	case SQLITE_INTERRUPT:
		return ERR_CANCELLED;
	case SQLITE_FULL:
		return ERR_NO_SPACE;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		return ERR_IO;
	case SQLITE_AUTH:
	case SQLITE_READONLY:
		return ERR_REFUSED;
	default:
		return ERR_SQL;
	}
}

int vfs_sqlite_error(sqlite3 *db, struct err *err, const char *what, ...)
{
	int code = sqlite3_errcode(db);
	char text[320], message[256];
	va_list ap;

	/* A copy: asking the images is a call of SQLite's, too. */
	snprintf(message, sizeof(message), "%s", sqlite3_errmsg(db));
	int rc = vfs_error(db, err);
	if (rc)
		return rc;
	va_start(ap, what);
	vsnprintf(text, sizeof(text), what, ap);
	va_end(ap);
	return err_set(err, kind_of_code(code), 0, "%s: %s", text, message);
}

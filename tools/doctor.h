/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asof doctor: what will hurt, found by looking.  Each finding is one line: how bad it is, which
 * thing, why, what to do.
 *
 *   doctor_file.c     a database's file: mode, filesystem, side files, locks, permissions
 *   doctor_process.c  who holds databases open, and with which SQLite
 *   doctor_archive.c  an archive: whether anybody captures, space, modes, clock
 *   doctor_health.c   what /health would say: late, verified, gaps, destinations, runs
 *   doctor_host.c     the machine: clock, FUSE, limits, container
 *   cmd_doctor.c      what is looked at, and how it is printed
 *
 * Nothing is written, no database is opened by SQLite.  The first bytes of a live database are read,
 * and locks are asked for by F_GETLK, which takes none; this process holds no lock of SQLite's that
 * closing a descriptor could drop.  A file that does not answer is given up after 10 s.
 */
#ifndef ASOF_TOOLS_DOCTOR_H
#define ASOF_TOOLS_DOCTOR_H

#include "tools/cli.h"

#include <sys/types.h>

enum doctor_severity {
	DOCTOR_NOTE,    /* worth knowing */
	DOCTOR_WARNING, /* may hurt one day */
	DOCTOR_SERIOUS, /* hurts now, or surely will */
	DOCTOR_N_SEVERITIES,
};

struct doctor_finding {
	enum doctor_severity severity;
	const char *check; /* its name, lower-case-with-dashes, in the man page */
	char *thing;       /* a path or a name */
	char why[480];
	const char *advice;
};

struct doctor_database {
	char *path;
	const char *archive;                  /* NULL: none is known */
	const struct config_database *config; /* NULL: not configured */
	bool hangs;                           /* its path did not answer, nothing else touches it */
	/* Set by doctor_file(): */
	bool there; /* a database that could be looked at; `dev`, `ino`, `mode` and `size` are its */
	bool is_wal;
	dev_t dev;
	ino_t ino;
	mode_t mode;
	uid_t owner;
	uint64_t bytes, wal_bytes;
	/* Set by doctor_processes(): applications that hold it open, as far as can be seen */
	size_t n_holders;
};

struct doctor {
	const struct config *config; /* NULL: none */
	int64_t now_us;
	struct doctor_database *databases;
	size_t n_databases;
	struct doctor_finding *findings; /* in the order in which they were found */
	size_t n_findings, n_of[DOCTOR_N_SEVERITIES];
	size_t n_unseen; /* processes whose open files may not be seen */
	bool out_of_memory;
};

/* `advice` lives for ever; `thing` is copied. */
void doctor_add(struct doctor *d, enum doctor_severity severity, const char *check,
                const char *thing, const char *advice, const char *fmt, ...)
        __attribute__((format(printf, 6, 7)));
void doctor_release(struct doctor *d);
const char *doctor_severity_name(enum doctor_severity s);

/* What lies on such a filesystem (statfs(2), f_type). */
enum doctor_storage {
	DOCTOR_LOCAL,
	DOCTOR_NETWORK,
	DOCTOR_FUSE,    /* whatever its server does */
	DOCTOR_OVERLAY, /* a container's own layer */
	DOCTOR_MEMORY,  /* gone with the power */
};
enum doctor_storage doctor_storage_of(unsigned long f_type);

/* Whether stat(2) and statfs(2) come back within 10 s: in a child, as on a file server that hangs it cannot be
 * ended. */
bool doctor_answers(const char *path);

/* ---- the parts ---- */

void doctor_file(struct doctor *d, struct doctor_database *db);
/* After doctor_file() of all of them. */
void doctor_processes(struct doctor *d);
/* False: it does not answer. */
bool doctor_archive(struct doctor *d, const char *root, const struct config_retention *retention);
/* After all archives; `root`: of --archive, NULL: none. */
void doctor_health(struct doctor *d, const struct cli *c, const char *root);
void doctor_destinations(struct doctor *d);
void doctor_host(struct doctor *d);

/* ---- versions of SQLite ---- */

/*
 * What a file that has SQLite in it says of itself: the date of its source id ("2022-12-28"), and
 * the version, where one text of the file alone can be it ("3.40.1", else "").
 */
struct doctor_sqlite {
	char date[11];
	char version[16];
};
/* False: no SQLite in it, or it cannot be read.  At most 1 GiB of it is read. */
bool doctor_sqlite_in_file(const char *path, struct doctor_sqlite *ret);
/* Bugs of that version: with several processes a checkpoint can corrupt the database; rolled back
 * savepoints can leave bad checksums in the -wal.  By the version, else by the date. */
bool doctor_sqlite_has_reset_bug(const struct doctor_sqlite *s);
bool doctor_sqlite_has_checksum_bug(const struct doctor_sqlite *s);

#endif

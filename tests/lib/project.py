# SPDX-License-Identifier: Apache-2.0
"""A project as users of the old scripts have it, and files as their old tools left them.

    PROJECT/scripts/      links to tools/*.sh and tools/backup_manager.py
    PROJECT/config/litestream.yml
    PROJECT/data/db/      futures_trades.db and, if asked for, ohlc_cache.db
    PROJECT/backups/
"""

import datetime
import gzip
import json
import os
import sqlite3
import subprocess
import time

import harness

TOOLS = os.path.join(harness.ROOT, "tools")
SCRIPTS = ("backup-database.sh", "restore-database.sh", "setup-litestream.sh", "backup_manager.py")

CONFIG = """\
dbs:
  - path: {data}/db/futures_trades.db
    replicas:
      - type: file
        path: {backups}/local/futures_trades
        retention: 72h
        sync-interval: 1s
"""


def make_database(path, n_rows=100, journal_mode="WAL"):
    """A table of trades; the connection stays open."""
    db = harness.open_db(path, journal_mode=journal_mode)
    db.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, note TEXT)")
    add_rows(db, n_rows)
    return db


def add_rows(db, n_rows):
    with db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO trades (note) VALUES (?)",
                       [(f"trade {i} " + os.urandom(20).hex(),) for i in range(n_rows)])


def rows_in(path):
    """Rows of a database file, which must be whole."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        problem, = db.execute("PRAGMA integrity_check").fetchone()
        if problem != "ok":
            raise AssertionError(f"{path}: {problem}")
        return db.execute("SELECT count(*) FROM trades").fetchone()[0]
    finally:
        db.close()


def rows_in_gz(path, scratch):
    out = os.path.join(scratch, "unpacked.db")
    with gzip.open(path, "rb") as f, open(out, "wb") as g:
        g.write(f.read())
    return rows_in(out)


def set_age(path, days):
    when = time.time() - days * 86400
    os.utime(path, (when, when))


def old_backup(folder, stem, n_rows, days=0.0, shape="script", compress=True):
    """A backup and its manifest as the old script (shape 'script') or the old Python module left
    them so many days ago; the backup's path."""
    when = datetime.datetime.now() - datetime.timedelta(days=days)
    stamp = when.strftime("%Y%m%d_%H%M%S")
    plain = os.path.join(folder, f"{stem}_{stamp}.db")
    make_database(plain, n_rows, "DELETE").close()
    path, size = plain, os.path.getsize(plain)
    if compress:
        subprocess.run(["gzip", plain], check=True)
        path = plain + ".gz"
    stored = os.path.getsize(path)
    name, backup_type = os.path.basename(path), os.path.basename(folder)
    if shape == "script":
        manifest = {"timestamp": stamp, "created_at": when.astimezone().isoformat("T", "seconds"),
                    "backup_type": backup_type, "files": [name], "sizes": {name: stored},
                    "validation": {"integrity_check": "passed",
                                   "created_by": "backup-database.sh", "script_version": "1.0"}}
    else:
        manifest = {"backup_type": backup_type, "timestamp": when.isoformat(),
                    "source_database": f"data/db/{stem}.db", "backup_file": path,
                    "source_size_bytes": size, "backup_size_bytes": stored,
                    "compression_ratio": stored / size, "created_by": "BackupManager",
                    "validation": {"integrity_check": "passed", "created_at": when.isoformat()}}
    manifest_path = os.path.join(folder, f"manifest_{stamp}.json")
    with open(manifest_path, "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=2)
    set_age(path, days)
    set_age(manifest_path, days)
    return path


def damage(path, offset=None):
    """Flips bits of one byte, in the middle unless told where."""
    with open(path, "r+b") as f:
        f.seek(os.path.getsize(path) // 2 if offset is None else offset)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 0x55]))


class ProjectCase(harness.Case):
    """Every case has a project of its own; docker and pgrep find nothing unless told."""

    def setUp(self):
        super().setUp()
        self.project = self.path("project")
        for folder in ("scripts", "config", "data/db", "backups"):
            os.makedirs(os.path.join(self.project, folder))
        for name in SCRIPTS:
            os.symlink(os.path.join(TOOLS, name), self.at("scripts", name))
        self.backups = self.at("backups")
        with open(self.at("config/litestream.yml"), "w", encoding="utf-8") as f:
            f.write(CONFIG.format(data=self.at("data"), backups=self.backups))
        self.main_path = self.at("data/db/futures_trades.db")
        self.bin = self.path("bin")
        os.mkdir(self.bin)
        self.stub("docker", "exit 1")
        self.stub("pgrep", "exit 1")
        self.db = make_database(self.main_path)
        self.addCleanup(self.db.close)

    def at(self, *parts):
        return os.path.join(self.project, *parts)

    def stub(self, name, text):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items()
               if k not in ("DATA_DIR", "BACKUP_DIR", "ASOF_ARCHIVE", "LITESTREAM_CONFIG")}
        env.update(ASOF=harness.ASOF, PATH=self.bin + ":" + env["PATH"])
        env.update({k: str(v) for k, v in more.items()})
        return env

    def script(self, name, *args, env=None, timeout=60, **kw):
        """Runs scripts/NAME in the project; stdin is empty unless `input` is given."""
        if "input" not in kw:
            kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([self.at("scripts", name), *map(str, args)], cwd=self.project,
                              env=self.environment(**(env or {})), timeout=timeout, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

    def ok(self, run):
        self.assertEqual((run.returncode, run.stderr), (0, ""), run.stdout)
        return run

    def fails(self, run, text):
        self.assertEqual(run.returncode, 1, run.stdout + run.stderr)
        self.assertIn("[ERROR] ", run.stderr)
        self.assertIn(text, run.stderr)
        return run

    def files(self, backup_type, ending=".db.gz"):
        folder = os.path.join(self.backups, backup_type)
        return sorted(os.path.join(folder, n) for n in
                      (os.listdir(folder) if os.path.isdir(folder) else []) if n.endswith(ending))

    def close_application(self):
        """The application is stopped before a restore."""
        self.db.close()

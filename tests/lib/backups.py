# SPDX-License-Identifier: Apache-2.0
"""What the tests of backups share: a case with an archive for them, and readers other than asof."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess

import harness
from harness import asof, asof_json, commit, make_counter

TYPES = ["manual", "automated", "safety", "compressed"]
SIDES = ("-wal", "-shm", "-journal")
NAME = re.compile(r"^(?P<stem>.+)_(?P<time>\d{8}_\d{6})(_\d+)?\.db(\.gz)?(\.gpg)?$")


def content(path):
    with open(path, "rb") as f:
        return f.read()


def inflated(path):
    """By gunzip, not by us."""
    return subprocess.run(["gunzip", "-c", path], check=True, stdout=subprocess.PIPE).stdout


def image_of(db_path, scratch):
    """The bytes of the state that files at rest stand for, from a copy of them."""
    for suffix in ("", *SIDES):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch + suffix)
        if suffix != "-shm" and os.path.exists(db_path + suffix):
            shutil.copy(db_path + suffix, scratch + suffix)
    db = sqlite3.connect(scratch)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # rolls a hot journal back
    db.close()
    return content(scratch)


def sha256(path):
    return hashlib.sha256(content(path)).hexdigest()


class BackupCase(harness.Case):
    def setUp(self):
        super().setUp()
        os.makedirs(self.archive)

    def backup(self, *options, db=None, **kw):
        return asof_json("backup", "--archive", self.archive, "--db-path", db or self.db_path,
                         *options, **kw)

    def files(self, kind="manual"):
        folder = os.path.join(self.archive, kind)
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def leftovers(self):
        return [n for kind in TYPES for n in self.files(kind) if n.startswith(".")]

    def make_db(self, n_rows=200, **pragmas):
        db = self.open_db(**pragmas)
        make_counter(db)
        commit(db, n_rows)
        return db

    def validate(self, *options):
        run = asof("validate", "--archive", self.archive, "--json", *options)
        return run.returncode, json.loads(run.stdout)

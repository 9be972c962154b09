#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof backup of a database that is written meanwhile, and of what its history has already."""

import glob
import gzip
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from backups import BackupCase, content, image_of, inflated  # noqa: E402
from harness import ASOF, asof, asof_json, commit, counter_of  # noqa: E402


class WriterThread(threading.Thread):
    """An application that chains a hash through its commits."""

    def __init__(self, path, mode):
        super().__init__()
        self.path, self.mode, self.stop, self.errors, self.n = path, mode, False, [], 0

    def run(self):
        # Without patience in WAL mode: a backup makes nobody wait there.
        db = sqlite3.connect(self.path, timeout=0 if self.mode == "WAL" else 30,
                             isolation_level=None)
        db.execute(f"PRAGMA journal_mode = {self.mode}")
        db.execute("PRAGMA synchronous = OFF")
        h = db.execute("SELECT hash FROM chain ORDER BY id DESC LIMIT 1").fetchone()[0]
        rng = random.Random(7)
        while not self.stop:
            try:
                db.execute("BEGIN IMMEDIATE")
                h = hashlib.sha256((h + str(self.n)).encode()).hexdigest()
                db.execute("INSERT INTO chain (hash) VALUES (?)", (h,))
                for _ in range(rng.randrange(20)):
                    db.execute("INSERT OR REPLACE INTO noise VALUES (?, hex(randomblob(200)))",
                               (rng.randrange(400),))
                db.execute("COMMIT")
                self.n += 1
            except sqlite3.Error as e:
                self.errors.append(str(e))
                return
        db.close()


def make_chain(path, mode):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("CREATE TABLE chain (id INTEGER PRIMARY KEY, hash TEXT)")
    db.execute("CREATE TABLE noise (id INTEGER PRIMARY KEY, text TEXT)")
    db.execute("INSERT INTO chain (hash) VALUES ('')")
    db.close()


def chain_length(image, scratch):
    """How many commits the image holds; fails unless it is exactly one state."""
    with open(scratch, "wb") as f:
        f.write(image)
    db = sqlite3.connect(scratch)
    try:
        problem, = db.execute("PRAGMA integrity_check").fetchone()
        assert problem == "ok", problem
        h = ""
        rows = db.execute("SELECT id, hash FROM chain ORDER BY id").fetchall()
        for n, (row_id, got) in enumerate(rows):
            assert row_id == n + 1
            h = hashlib.sha256((h + str(n - 1)).encode()).hexdigest() if n else ""
            assert got == h, f"commit {n} is not in the chain"
        return len(rows) - 1
    finally:
        db.close()


class Live(BackupCase):
    def check(self, mode):
        make_chain(self.db_path, mode)
        writer = WriterThread(self.db_path, mode)
        writer.start()
        try:
            for _ in range(8):
                before = writer.n
                r = self.backup("--no-compress" if _ % 2 else "--no-validate")
                after = writer.n + 1
                image = content(r["backup_path"])
                if _ % 2 == 0:
                    image = gzip.decompress(image)
                n = chain_length(image, self.path("image"))
                self.assertGreaterEqual(n, before)
                self.assertLessEqual(n, after)
        finally:
            writer.stop = True
            writer.join()
        self.assertEqual(writer.errors, [])
        self.assertGreater(writer.n, 20)
        self.assertEqual(self.leftovers(), [])

    def test_wal_writer(self):
        self.check("WAL")

    def test_rollback_writer(self):
        self.check("DELETE")

    def test_opened_and_closed_all_the_time(self):
        """A -wal that comes and goes, is reset and cut, under the backups."""
        make_chain(self.db_path, "WAL")
        done, errors = [], []
        stop = threading.Event()

        def application():
            rng = random.Random(5)
            n, h = 0, ""
            try:
                while not stop.is_set():
                    db = sqlite3.connect(self.db_path, timeout=30, isolation_level=None)
                    db.execute("PRAGMA synchronous = OFF")
                    for _ in range(rng.randrange(1, 12)):
                        db.execute("BEGIN IMMEDIATE")
                        h = hashlib.sha256((h + str(n)).encode()).hexdigest()
                        db.execute("INSERT INTO chain (hash) VALUES (?)", (h,))
                        for _ in range(rng.randrange(12)):
                            db.execute("INSERT OR REPLACE INTO noise VALUES (?, "
                                       "hex(randomblob(200)))", (rng.randrange(300),))
                        db.execute("COMMIT")
                        n += 1
                        done.append(n)
                    if rng.random() < 0.5:
                        kind = rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
                        db.execute(f"PRAGMA wal_checkpoint({kind})")
                    db.close()
                    time.sleep(rng.random() * 0.03)
            except sqlite3.Error as e:
                errors.append(str(e))

        thread = threading.Thread(target=application)
        thread.start()
        try:
            for _ in range(40):
                before = len(done)
                r = self.backup("--no-compress", "--no-validate")
                n = chain_length(content(r["backup_path"]), self.path("image"))
                self.assertGreaterEqual(n, before)
                self.assertLessEqual(n, len(done) + 1)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(errors, [])
        self.assertGreater(len(done), 100)

    def test_waits_for_an_exclusive_lock(self):
        db = self.make_db(journal_mode="DELETE")
        db.execute("BEGIN EXCLUSIVE")
        threading.Timer(1.0, lambda: db.execute("COMMIT")).start()
        self.assertEqual(self.backup()["success"], True)


class History(BackupCase):
    def test_from_the_history_equals_from_live(self):
        db = self.make_db(wal_autocheckpoint=20)
        r = self.replicate()
        r.wait_ready()
        for _ in range(10):
            commit(db, 40)
        r.wait_known()
        last = asof_json("log", "--archive", self.archive, "-n", "1")["commits"][0]
        made = self.backup()
        meta = made["metadata"]
        self.assertEqual(meta["source"], "history")
        self.assertEqual(meta["txid"], last["txid"])
        want = image_of(self.db_path, self.path("image"))
        self.assertEqual(inflated(made["backup_path"]), want)
        self.assertEqual(r.stop(), 0)
        live = self.backup()
        self.assertEqual(live["metadata"]["source"], "live")
        self.assertIsNone(live["metadata"]["txid"])
        self.assertEqual(inflated(live["backup_path"]), want)
        # By its name in the archive, and all that it knows.
        for which in (("--db", "trades.db"), ("--all",), ()):
            run = asof("backup", "--archive", self.archive, "--json", *which)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(json.loads(run.stdout)["metadata"]["source_database"], self.db_path)

    def test_the_live_file_is_not_read(self):
        """A commit before the backup is in it, and nobody opened the file for that."""
        db = self.make_db()
        r = self.replicate()
        r.wait_ready()
        commit(db)
        if not shutil.which("strace"):
            made = self.backup()
        else:
            trace = self.path("trace")
            run = subprocess.run(["strace", "-f", "-e", "trace=openat,open", "-o", trace, ASOF,
                                  "backup", "--archive", self.archive, "--db-path", self.db_path,
                                  "--json"], stdout=subprocess.PIPE, check=True, text=True,
                                 env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
            made = json.loads(run.stdout)
            with open(trace, encoding="utf-8") as f:
                self.assertNotIn(f'"{self.db_path}', f.read())
        self.assertEqual(made["metadata"]["source"], "history")
        with open(self.path("image"), "wb") as f:
            f.write(inflated(made["backup_path"]))
        self.assertEqual(counter_of(self.path("image")), 2)


    def test_validate_reads_the_history_too(self):
        db = self.make_db()
        r = self.replicate()
        r.wait_ready()
        for _ in range(5):
            commit(db, 30)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.backup()
        status, report = self.validate()
        history, = report["history"]
        self.assertEqual((status, history["valid"], history["database"]), (0, True, "trades.db"))
        last = asof_json("log", "--archive", self.archive, "-n", "1")["commits"][0]
        self.assertEqual(history["verified_txid"], last["txid"])
        self.assertEqual(history["integrity_check"], "ok")
        victim, = glob.glob(os.path.join(self.archive, "local", "trades.db", "segment", "*.wal.gz"))
        data = bytearray(content(victim))
        data[len(data) // 2] ^= 1
        with open(victim, "wb") as f:
            f.write(data)
        status, report = self.validate()
        self.assertEqual(status, 4)
        self.assertEqual(report["backups"]["valid_backups"], 1)
        damage = report["history"][0]["damage"][0]
        self.assertIn(os.path.basename(victim), damage["object"])
        self.assertTrue(damage["affected"])
        text = asof("validate", "--archive", self.archive)
        self.assertEqual(text.returncode, 4)
        self.assertIn("cannot be restored", text.stdout)
        self.assertEqual(self.validate("--backups")[0], 0)
        status, report = self.validate("--history")
        self.assertEqual((status, report["backups"]["total_backups"]), (4, 0))


if __name__ == "__main__":
    harness.main()

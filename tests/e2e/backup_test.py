#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof backup: what is in a backup, what it leaves alone, and what is left when it is broken off."""

import concurrent.futures
import contextlib
import glob
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, asof_json, commit, counter_of, make_counter  # noqa: E402

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


class Content(BackupCase):
    def test_every_journal_mode_and_page_size(self):
        rng = random.Random(1)
        for mode in ("DELETE", "TRUNCATE", "PERSIST", "WAL"):
            for page_size in (512, 1024, 4096, 32768, 65536):
                with self.subTest(mode=mode, page_size=page_size):
                    path = self.path(f"{mode}{page_size}.db")
                    db = self.open_db(path, page_size=page_size, journal_mode=mode,
                                      wal_autocheckpoint=rng.choice((0, 20, 1000)))
                    make_counter(db)
                    for i in range(12):
                        commit(db, rng.randrange(1, 60))
                        if i == 6:
                            db.execute("DELETE FROM rows WHERE id % 2")
                    want = image_of(path, self.path("image"))
                    result = self.backup(db=path)
                    self.assertEqual(inflated(result["backup_path"]), want)
                    plain = self.backup("--no-compress", db=path)
                    self.assertEqual(content(plain["backup_path"]), want)
                    meta = result["metadata"]
                    self.assertEqual(meta["source_size_bytes"], len(want))
                    self.assertEqual(meta["source"], "live")
                    db.close()

    def test_wal_checkpointed_in_part(self):
        """Frames before and behind what a checkpoint reached, and none of them."""
        db = self.make_db(wal_autocheckpoint=0)
        reader = self.open_db()
        for i in range(5):
            if i == 1:
                reader.execute("BEGIN")
                reader.execute("SELECT * FROM counter").fetchone()
            commit(db, 30)
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            want = image_of(self.db_path, self.path("image"))
            self.assertEqual(inflated(self.backup()["backup_path"]), want)
        reader.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        want = image_of(self.db_path, self.path("image"))
        self.assertEqual(inflated(self.backup()["backup_path"]), want)
        db.execute("VACUUM")
        commit(db)
        self.assertEqual(inflated(self.backup()["backup_path"]),
                         image_of(self.db_path, self.path("image")))

    def test_nothing_is_touched(self):
        """No byte, no time, no file: in WAL mode with and without a -wal, and otherwise."""
        for mode in ("WAL", "DELETE"):
            for live in (True, False, "empty -wal"):
                with self.subTest(mode=mode, live=live):
                    folder = self.path(f"{mode}{live}")
                    os.mkdir(folder)
                    path = os.path.join(folder, "x.db")
                    db = self.open_db(path, journal_mode=mode, wal_autocheckpoint=0)
                    make_counter(db)
                    commit(db, 50)
                    if live is not True:
                        db.close()
                    if live and live is not True:
                        with open(path + "-wal", "wb"):
                            pass

                    def look():
                        return {n: (content(os.path.join(folder, n)) if n[-4:] != "-shm" else 0,
                                    os.stat(os.path.join(folder, n)).st_mtime_ns
                                    if n[-4:] != "-shm" else 0)
                                for n in sorted(os.listdir(folder))}
                    before = look()
                    self.backup(db=path)
                    self.assertEqual(look(), before)
                    if live is True:
                        self.assertEqual(db.execute("SELECT n FROM counter").fetchone(), (1,))
                        commit(db)
                        db.close()

    def test_level_changes_size_only(self):
        self.make_db(3000)
        sizes = []
        for level in (1, 6, 12):
            r = self.backup("--level", level)
            sizes.append(r["metadata"]["backup_size_bytes"])
            self.assertEqual(inflated(r["backup_path"]), inflated(self.backup()["backup_path"]))
        self.assertGreater(sizes[0], sizes[2])

    def test_larger_than_a_leaf_and_zeros(self):
        """More blocks than one index leaf holds, most of them empty pages."""
        db = self.make_db(page_size=4096)
        db.execute("CREATE TABLE big (b BLOB)")
        for _ in range(9):
            db.execute("INSERT INTO big VALUES (zeroblob(4000000))")
        r = self.backup()
        self.assertEqual(inflated(r["backup_path"]), image_of(self.db_path, self.path("image")))
        self.assertLess(r["metadata"]["compression_ratio"], 0.1)
        self.assertEqual(self.validate()[0], 0)

    def test_link_and_odd_names(self):
        os.mkdir(self.path("real dir"))
        path = self.path("real dir", "dätabase 'x'.sqlite3")
        db = self.open_db(path)
        make_counter(db)
        commit(db)
        r = self.backup(db=path)
        self.assertRegex(os.path.basename(r["backup_path"]),
                         r"^dätabase 'x'_\d{8}_\d{6}\.db\.gz$")
        os.symlink(path, self.path("link.db"))
        r = self.backup(db=self.path("link.db"))
        self.assertRegex(os.path.basename(r["backup_path"]), r"^link_")
        self.assertEqual(inflated(r["backup_path"]), image_of(path, self.path("image")))
        run = asof("backup", "--archive", "archive", "--db-path", "link.db", cwd=self.dir)
        self.assertEqual(run.returncode, 0, run.stderr)
        raw = os.path.join(os.fsencode(self.dir), b"line\nfeed\xff\x1b.db")
        shutil.copy(self.path("link.db"), raw)
        run = subprocess.run([ASOF, "backup", "--archive", self.archive, "--db-path", raw,
                              "--json"], stdout=subprocess.PIPE, check=True)
        self.assertRegex(json.loads(run.stdout)["backup_path"], r"/line_feed___\d{8}_")
        with open(os.path.join(os.fsencode(self.archive), b"manual", b"\xff\n.db"), "wb") as f:
            f.write(content(self.path("image")))
        self.assertEqual(len(asof_json("list", "--archive", self.archive)["backups"]["manual"]),
                         5)
        self.assertEqual(self.validate()[0], 0)
        run = subprocess.run([ASOF, "validate", "--archive", self.archive],
                             stdout=subprocess.PIPE, check=True)
        self.assertEqual(len(run.stdout.splitlines()), 6)


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


class Names(BackupCase):
    def test_name_is_local_time(self):
        self.make_db()
        for zone in ("UTC", "Asia/Kathmandu", "America/New_York"):
            env = {"TZ": zone}
            started = time.time()
            run = asof("backup", "--archive", self.archive, "--db-path", self.db_path, "--json",
                       env=env)
            made = json.loads(run.stdout)
            stamp = NAME.match(os.path.basename(made["backup_path"])).group("time")
            out = subprocess.run(["date", "-d", f"{stamp[:8]} {stamp[9:11]}:{stamp[11:13]}:"
                                  f"{stamp[13:]}", "+%s"], env={**os.environ, **env}, check=True,
                                 stdout=subprocess.PIPE, text=True).stdout
            self.assertLess(abs(int(out) - started), 30)
            self.assertTrue(made["metadata"]["created_at"].endswith("Z"))

    def test_many_at_once_do_not_collide(self):
        self.make_db()

        def one(_):
            return self.backup()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(pool.map(one, range(24)))
        names = {os.path.basename(m["backup_path"]) for m in made}
        manifests = {os.path.basename(m["manifest_path"]) for m in made}
        self.assertEqual((len(names), len(manifests)), (24, 24))
        self.assertEqual(sorted(self.files()), sorted(names | manifests))
        seconds = {NAME.match(n).group("time") for n in names}
        self.assertLess(len(seconds), 24)  # or nothing was tried
        for m in made:
            with open(m["manifest_path"], encoding="utf-8") as f:
                meta = json.load(f)
            self.assertEqual(meta, m["metadata"])
            self.assertEqual(meta["sha256"], sha256(m["backup_path"]))
            self.assertEqual(os.path.basename(meta["backup_file"]),
                             os.path.basename(m["backup_path"]))

    def test_an_existing_file_is_never_replaced(self):
        self.make_db()
        made = self.backup()
        first = content(made["backup_path"])
        stamp = NAME.match(os.path.basename(made["backup_path"])).group("time")
        # What the next ten seconds would be called is taken, in one form or another.
        now = time.time()
        taken = {}
        for i in range(1, 11):
            name = time.strftime("trades_%Y%m%d_%H%M%S", time.localtime(now + i))
            path = os.path.join(self.archive, "manual", name + (".db" if i % 2 else ".db.gz"))
            with open(path, "w", encoding="utf-8") as f:
                f.write(f"somebody's {i}")
            taken[path] = content(path)
        time.sleep(1.1)
        again = self.backup()
        self.assertRegex(again["backup_path"], r"_2\.db\.gz$")
        self.assertEqual(content(made["backup_path"]), first)
        for path, want in taken.items():
            self.assertEqual(content(path), want)
        self.assertTrue(stamp)

    def test_private(self):
        db = self.make_db()
        made = self.backup()
        self.assertEqual(stat.S_IMODE(os.stat(made["backup_path"]).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(made["manifest_path"]).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(made["backup_path"])).st_mode),
                         0o700)
        db.close()


class Configured(BackupCase):
    """What asof.yml and .env.backup say of backups."""

    def setUp(self):
        super().setUp()
        self.backups = self.path("backups")
        self.make_db()
        other = self.open_db(self.path("ohlc.db"))
        make_counter(other)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def run_here(self, *args, env=None):
        return asof(*args, cwd=self.dir, env=env)

    def test_databases_and_folder(self):
        self.write("asof.yml", f"""
archive: {self.archive}
backup-dir: {self.backups}
databases:
  - path: {self.db_path}
  - path: {self.path("ohlc.db")}
  - path: {self.path("not-there-yet.db")}
""")
        r = self.replicate()
        r.wait_ready()
        run = self.run_here("backup", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        made = json.loads(run.stdout)["backups"]
        self.assertEqual([b["metadata"]["source"] for b in made], ["history", "live"])
        self.assertEqual({os.path.dirname(b["backup_path"]) for b in made},
                         {os.path.join(self.backups, "manual")})
        run = self.run_here("backup", "--db", "ohlc.db", "--type", "automated")
        self.assertEqual(run.returncode, 0, run.stderr)
        run = self.run_here("backup", "--db", "not-there-yet.db")
        self.assert_fails(run, 3, "not-there-yet.db")
        listing = json.loads(self.run_here("list", "--json").stdout)
        self.assertEqual(r.stop(), 0)
        report = json.loads(self.run_here("validate", "--json").stdout)
        self.assertEqual(report["backups"]["valid_backups"], 3)
        self.assertEqual([h["database"] for h in report["history"]], ["trades.db"])
        del listing

    def test_variables(self):
        self.write(".env.backup", f"""
BACKUP_DIR={self.backups}
LOCAL_RETENTION_DAYS=3
COMPRESSED_RETENTION_DAYS=5
BACKUP_COMPRESSION_LEVEL=1
BACKUP_VALIDATION_ENABLED=false
""")
        self.write("asof.yml", f"databases:\n  - path: {self.db_path}\n")
        run = self.run_here("backup", "--json", "--type", "compressed")
        self.assertEqual(run.returncode, 0, run.stderr)
        made = json.loads(run.stdout)
        self.assertTrue(made["backup_path"].startswith(self.backups + "/compressed/"))
        self.assertEqual(made["metadata"]["validation"]["integrity_check"], "skipped")
        image = content(made["backup_path"])
        for kind, days in (("manual", 2), ("manual", 4), ("compressed", 4), ("compressed", 6)):
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(time.time() - days * 86400))
            os.makedirs(os.path.join(self.backups, kind), exist_ok=True)
            with open(os.path.join(self.backups, kind, f"trades_{stamp}.db.gz"), "wb") as f:
                f.write(image)
        run = self.run_here("cleanup", "--json", "--dry-run")
        self.assertEqual(run.returncode, 0, run.stderr)
        gone = json.loads(run.stdout)["backups"]["cleaned_files"]
        self.assertEqual([(f["type"], f["age_days"]) for f in gone],
                         [("manual", 4), ("compressed", 6)])
        # The old scripts' environment, without any file.
        os.unlink(self.path("asof.yml"))
        os.unlink(self.path(".env.backup"))
        run = asof("cleanup", "--json", "--dry-run", "--archive", self.backups,
                   env={"LOCAL_RETENTION_DAYS": "1", "COMPRESSED_RETENTION_DAYS": ""})
        gone = json.loads(run.stdout)["backups"]["cleaned_files"]
        self.assertEqual([(f["type"], f["age_days"]) for f in gone], [("manual", 2), ("manual", 4)])


class Json(BackupCase):
    ENTRY = {"filename": str, "path": str, "size_bytes": int, "size_human": str,
             "created_at": str, "age_hours": float, "compressed": bool}
    MANIFEST = {"backup_type": str, "timestamp": str, "source_database": str, "backup_file": str,
                "source_size_bytes": int, "backup_size_bytes": int, "compression_ratio": float,
                "created_by": str, "validation": dict, "files": list, "sizes": dict,
                "created_at": str, "sha256": str, "source": str}

    def assert_keys(self, value, keys):
        for key, kind in keys.items():
            self.assertIn(key, value)
            self.assertIsInstance(value[key], kind, key)

    def test_shapes(self):
        self.make_db()
        before = time.time()
        made = self.backup("--type", "automated")
        self.assert_keys(made, {"success": bool, "backup_path": str, "manifest_path": str,
                                "metadata": dict})
        self.assert_keys(made["metadata"], self.MANIFEST)
        self.assertEqual(made["metadata"]["validation"]["integrity_check"], "passed")
        self.assertEqual(made["metadata"]["backup_type"], "automated")
        listing = asof_json("list", "--archive", self.archive)["backups"]
        self.assertEqual(list(listing), TYPES)
        entry, = listing["automated"]
        self.assert_keys(entry, self.ENTRY)
        self.assertEqual(entry["filename"], os.path.basename(made["backup_path"]))
        self.assertEqual(entry["size_bytes"], os.path.getsize(made["backup_path"]))
        created = time.mktime(time.strptime(entry["created_at"][:19], "%Y-%m-%dT%H:%M:%S"))
        self.assertLess(abs(created - before), 30)
        self.assertEqual(list(asof_json("list", "--archive", self.archive, "--type",
                                        "safety")["backups"]), ["safety"])
        stats = asof_json("stats", "--archive", self.archive)["backups"]
        self.assert_keys(stats, {"total_backups": int, "total_size_bytes": int,
                                 "backup_types": dict, "oldest_backup": dict,
                                 "newest_backup": dict, "disk_usage": dict})
        self.assertEqual(list(stats["backup_types"]), TYPES)
        self.assertEqual(stats["backup_types"]["manual"],
                         {"count": 0, "size_bytes": 0, "latest": None})
        self.assertEqual(stats["backup_types"]["automated"]["latest"]["path"], entry["path"])
        self.assert_keys(stats["disk_usage"], {"total": int, "used": int, "free": int,
                                               "backup_usage": int, "backup_percentage": float})
        usage = shutil.disk_usage(self.archive)
        self.assertEqual(stats["disk_usage"]["total"], usage.total)
        status, validation = self.validate()
        self.assertEqual(status, 0)
        self.assert_keys(validation["backups"], {"total_backups": int, "valid_backups": int,
                                                 "invalid_backups": int,
                                                 "validation_details": list})
        detail, = validation["backups"]["validation_details"]
        self.assert_keys(detail, {"file": str, "type": str, "valid": bool, "size": int,
                                  "created_at": str})
        cleanup = asof_json("cleanup", "--archive", self.archive)["backups"]
        self.assert_keys(cleanup, {"cleaned_files": list, "total_files": int,
                                   "space_freed_bytes": int, "space_freed_human": str})

    def test_failure(self):
        run = asof("backup", "--archive", self.archive, "--db-path", self.path("none.db"),
                   "--json")
        self.assertEqual(run.returncode, 3)
        value = json.loads(run.stdout)
        self.assertIs(value["success"], False)
        self.assertEqual(value["error"], f"database not found: {self.path('none.db')}")
        self.assertRegex(run.stderr, r"\Aasof: [^\n]+\n\Z")

    def test_several(self):
        self.make_db()
        other = self.open_db(self.path("ohlc.db"))
        make_counter(other)
        run = asof("backup", "--archive", self.archive, "--db-path", self.db_path, "--db-path",
                   self.path("ohlc.db"), "--json")
        value = json.loads(run.stdout)
        self.assertIs(value["success"], True)
        self.assertEqual([os.path.basename(b["metadata"]["source_database"])
                          for b in value["backups"]], ["trades.db", "ohlc.db"])

    def test_words(self):
        base = ("backup", "--archive", self.archive)
        self.assert_fails(asof(*base, "--db-path", "x.db", "--type", "weekly"), 2, "weekly")
        self.assert_fails(asof(*base, "--db-path", "x.db", "--level", "13"), 2, "13")
        self.assert_fails(asof(*base, "--db-path", "x.db", "--all"), 2)
        self.assert_fails(asof(*base, "--db-path", "x.db", "--label", "a/b"), 2)
        self.assert_fails(asof(*base), 2, "--db-path")
        self.assert_fails(asof(*base, "--db-path", self.path("no.db")), 3, "not found")
        self.assert_fails(asof(*base, "--db-path", self.dir), 3)
        self.assert_fails(asof("list", "--archive", self.archive, "--type", "x"), 2)
        self.assert_fails(asof("cleanup", "--archive", self.archive, "--days", "x"), 2)
        self.assert_fails(asof("cleanup", "--archive", self.archive, "--days", "moon=3"), 2)
        self.assert_fails(asof("validate", "--archive", self.archive, "nothing"), 3)


class Damage(BackupCase):
    def damaged_db(self):
        db = self.make_db(2000)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        commit(db, 3)
        with open(self.db_path, "r+b") as f:
            f.seek(4096 * 3)
            f.write(os.urandom(4096 * 20))
        return db

    def test_refused_but_for_safety(self):
        db = self.damaged_db()
        run = asof("backup", "--archive", self.archive, "--db-path", self.db_path)
        self.assert_fails(run, 4, "source database validation failed")
        self.assertEqual(self.files(), [])
        wal = content(self.db_path + "-wal")
        self.assertGreater(len(wal), 0)
        made = self.backup("--type", "safety", "--label", "pre_restore")
        self.assertIs(made["damaged"], True)
        self.assertRegex(os.path.basename(made["backup_path"]),
                         r"^trades_pre_restore_\d{8}_\d{6}\.db\.gz$")
        self.assertIn("damaged", made["metadata"]["warning"])
        self.assertEqual(made["metadata"]["validation"]["integrity_check"], "failed")
        self.assertEqual(inflated(made["backup_path"]), content(self.db_path))
        companion, = made["metadata"]["companions"]
        self.assertEqual(inflated(os.path.join(self.archive, "safety", companion)), wal)
        entry, = asof_json("list", "--archive", self.archive)["backups"]["safety"]
        self.assertIs(entry["damaged"], True)
        self.assertEqual(entry["database"], "trades")
        self.assertEqual(entry["label"], "pre_restore")
        status, report = self.validate()
        self.assertEqual(status, 0, report)
        db.close()

    def test_no_database_at_all(self):
        for i, data in enumerate((b"", b"hello", os.urandom(9000), b"SQLite format 3\0" * 300)):
            path = self.path(f"x{i}.db")
            with open(path, "wb") as f:
                f.write(data)
            run = asof("backup", "--archive", self.archive, "--db-path", path)
            self.assert_fails(run, 4, path)
            made = self.backup("--type", "safety", db=path)
            self.assertIs(made["damaged"], True)
            self.assertEqual(inflated(made["backup_path"]), data)
        self.assertEqual(self.files("manual"), [])
        self.assertEqual(self.leftovers(), [])

    def test_cut_short(self):
        db = self.make_db(2000, journal_mode="DELETE")
        db.close()
        os.truncate(self.db_path, os.path.getsize(self.db_path) - 4096 * 3)
        run = asof("backup", "--archive", self.archive, "--db-path", self.db_path)
        self.assert_fails(run, 4)
        self.assertEqual(self.files(), [])

    def test_hot_journal(self):
        """What a crash within a transaction left: the state before it, and nothing is repaired."""
        script = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 2")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE rows SET text = hex(randomblob(60))")
db.execute("UPDATE counter SET n = 99")
os._exit(9)
"""
        db = self.make_db(3000, journal_mode="DELETE")
        want_n = db.execute("SELECT n FROM counter").fetchone()[0]
        db.close()
        want = image_of(self.db_path, self.path("image"))
        subprocess.run([sys.executable, "-c", script, self.db_path], check=False)
        self.assertGreater(os.path.getsize(self.db_path + "-journal"), 0)
        before = (content(self.db_path), content(self.db_path + "-journal"))
        made = self.backup()
        got = inflated(made["backup_path"])
        with open(self.path("out"), "wb") as f:
            f.write(got)
        self.assertEqual(counter_of(self.path("out")), want_n)
        self.assertEqual(len(got), len(want))
        self.assertEqual((content(self.db_path), content(self.db_path + "-journal")), before)
        self.assertEqual(self.leftovers(), [])

    def test_validate_names_the_damaged_one_and_goes_on(self):
        self.make_db(3000)
        good = [self.backup() for _ in range(3)]
        plain = self.backup("--no-compress")
        rng = random.Random(3)
        for bad in (good[1]["backup_path"], plain["backup_path"]):
            data = bytearray(content(bad))
            data[rng.randrange(len(data) // 3, len(data) // 2)] ^= 0x40
            with open(bad, "wb") as f:
                f.write(data)
        status, report = self.validate()
        self.assertEqual(status, 4)
        details = report["backups"]["validation_details"]
        self.assertEqual(report["backups"]["total_backups"], 4)
        self.assertEqual(report["backups"]["invalid_backups"], 2)
        self.assertEqual({d["file"] for d in details if not d["valid"]},
                         {good[1]["backup_path"], plain["backup_path"]})
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 4)
        self.assertIn("DAMAGED", run.stdout)
        self.assertIn(os.path.basename(good[1]["backup_path"]), run.stdout)
        status, _ = self.validate(os.path.basename(good[0]["backup_path"]))
        self.assertEqual(status, 0)

    def test_a_manifest_that_cannot_be_read_is_named(self):
        """The backup is whole; that its sha256 was not compared is said."""
        self.make_db(100)
        made = self.backup()
        with open(made["manifest_path"], "w", encoding="ascii") as f:
            f.write("garbage")
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 0)
        self.assertIn(os.path.basename(made["manifest_path"]), run.stderr)

    def test_every_byte_of_a_backup_counts(self):
        """Flipped without the manifest's sha256 to tell."""
        db = self.open_db(page_size=512)
        db.execute("CREATE TABLE t (a)")
        db.execute("INSERT INTO t VALUES (1)")
        made = self.backup()
        os.unlink(made["manifest_path"])
        path = made["backup_path"]
        data = content(path)
        rng = random.Random(5)
        for at in {*range(20), *rng.sample(range(len(data)), 60)}:
            flipped = bytearray(data)
            flipped[at] ^= 1 << rng.randrange(8)
            with open(path, "wb") as f:
                f.write(flipped)
            status, report = self.validate()
            self.assertEqual(status, 4, f"byte {at} of {len(data)}: {report}")
        with open(path, "wb") as f:
            f.write(data[:-1])
        self.assertEqual(self.validate()[0], 4)
        with open(path, "wb") as f:
            f.write(data)
        self.assertEqual(self.validate()[0], 0)

    def test_foreign_keys_are_told_and_no_damage(self):
        db = self.make_db()
        db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE child (p REFERENCES parent (id))")
        db.execute("INSERT INTO child VALUES (7), (8)")
        made = self.backup()
        self.assertIn("foreign_key_check", made["metadata"]["warning"])
        self.assertEqual(made["metadata"]["validation"]["foreign_key_check"], "failed")
        status, report = self.validate()
        self.assertEqual(status, 0)
        detail, = report["backups"]["validation_details"]
        self.assertEqual(detail["foreign_key_violations"], 2)


class Old(BackupCase):
    """Files of the old scripts, of gzip, of sqlite3."""

    def old_file(self, kind, name, data, mtime=None):
        os.makedirs(os.path.join(self.archive, kind), exist_ok=True)
        path = os.path.join(self.archive, kind, name)
        with open(path, "wb") as f:
            f.write(data)
        if mtime:
            os.utime(path, (mtime, mtime))
        return path

    def test_list_and_validate(self):
        self.make_db(3000).close()
        image = content(self.db_path)
        self.old_file("manual", "trades_20240115_143000.db.gz", gzip.compress(image))
        two = gzip.compress(image[:5000]) + gzip.compress(image[5000:])
        self.old_file("automated", "trades_20240116_143000.db.gz", two)
        self.old_file("compressed", "trades_20240117_143000.db", image)
        cut = self.old_file("safety", "trades_pre_restore_20240118_143000.db.gz",
                            gzip.compress(image)[:-100])
        wrong = self.old_file("manual", "trades_20240119_143000.db.gz",
                              gzip.compress(image[:8192] + b"x" * (len(image) - 8192)))
        text = self.old_file("manual", "trades_20240120_143000.db", b"not a database")
        self.old_file("manual", "notes.txt", b"x")
        manifest = {"timestamp": "20240115_143000", "created_at": "2024-01-15T14:30:00+00:00",
                    "backup_type": "manual", "files": ["trades_20240115_143000.db.gz"],
                    "sizes": {"trades_20240115_143000.db.gz": 1},
                    "validation": {"integrity_check": "passed",
                                   "created_by": "backup-database.sh", "script_version": "1.0"}}
        self.old_file("manual", "manifest_20240115_143000.json", json.dumps(manifest).encode())
        listing = asof_json("list", "--archive", self.archive)["backups"]
        self.assertEqual([len(listing[t]) for t in TYPES], [3, 1, 1, 1])
        self.assertEqual([e["filename"] for e in listing["manual"]],
                         ["trades_20240120_143000.db", "trades_20240119_143000.db.gz",
                          "trades_20240115_143000.db.gz"])
        status, report = self.validate()
        self.assertEqual(status, 4)
        bad = {d["file"] for d in report["backups"]["validation_details"] if not d["valid"]}
        self.assertEqual(bad, {cut, wrong, text})

    def test_gzip_of_others_is_never_taken_for_ours(self):
        """Whatever byte lies where a trailer of ours would have one of its constants."""
        self.make_db(30).close()
        image = content(self.db_path)
        for i in range(256):
            extra = b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\x03" + (200).to_bytes(2, "little") + \
                    bytes([i]) * 200 + b"\x03\0" + bytes(8)
            self.old_file("manual", f"g{i}_20240115_143000.db.gz", gzip.compress(image) + extra)
        status, report = self.validate()
        self.assertEqual(status, 0, [d for d in report["backups"]["validation_details"]
                                     if not d["valid"]][:2])

    def test_cleanup(self):
        self.make_db().close()
        image = content(self.db_path)
        now = time.time()
        day = 86400

        def old(kind, days, name_days=None, data=None):
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(
                now - (days if name_days is None else name_days) * day))
            path = self.old_file(kind, f"trades_{stamp}.db.gz", data or gzip.compress(image),
                                 now - days * day)
            self.old_file(kind, f"manifest_{stamp}.json",
                          json.dumps({"files": [os.path.basename(path)]}).encode())
            return path
        keep = [old("manual", 6.5), old("compressed", 29), old("safety", 400)]
        go = [old("manual", 7.5), old("automated", 8), old("compressed", 31),
              old("manual", 9, name_days=0)]  # as the old system: by its modification time
        dry = asof_json("cleanup", "--archive", self.archive, "--dry-run")["backups"]
        self.assertEqual({f["file"] for f in dry["cleaned_files"]}, set(go))
        self.assertTrue(all(os.path.exists(p) for p in keep + go))
        text = asof("cleanup", "--archive", self.archive, "--dry-run").stdout
        for path in keep + go:
            self.assertRegex(text, r"(keep|would remove) .*" + re.escape(os.path.basename(path)) +
                             r".*: \S")
        sizes = sum(os.path.getsize(p) for p in go)
        done = asof_json("cleanup", "--archive", self.archive)["backups"]
        self.assertEqual({f["file"] for f in done["cleaned_files"]}, set(go))
        self.assertEqual((done["total_files"], done["space_freed_bytes"]), (4, sizes))
        self.assertEqual({f["age_days"] for f in done["cleaned_files"]}, {7, 8, 31, 9})
        self.assertTrue(all(os.path.exists(p) for p in keep))
        self.assertFalse(any(os.path.exists(p) for p in go))
        left = [n for t in TYPES for n in self.files(t)]
        self.assertEqual(len(left), 6, left)

    def test_the_last_good_one_stays(self):
        """Newer ones that are damaged do not count, whatever their names say."""
        self.make_db().close()
        good = gzip.compress(content(self.db_path))
        now = time.time()
        paths = []
        for days in (20, 15, 10, 1):
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now - days * 86400))
            data = good if days >= 15 else good[:len(good) // 2]
            paths.append(self.old_file("manual", f"trades_{stamp}.db.gz", data,
                                       now - days * 86400))
        done = asof_json("cleanup", "--archive", self.archive)["backups"]
        self.assertEqual({f["file"] for f in done["cleaned_files"]}, {paths[0], paths[2]}, done)
        reasons = {k["file"]: k["reason"] for k in done["kept"]}
        self.assertIn("last good", reasons[paths[1]])
        again = asof_json("cleanup", "--archive", self.archive, "--count", "1")["backups"]
        self.assertEqual(again["cleaned_files"], [])

    def test_rules(self):
        self.make_db().close()
        image = gzip.compress(content(self.db_path))
        now = time.time()
        for days in range(0, 400, 5):
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now - days * 86400))
            self.old_file("automated", f"trades_{stamp}.db.gz", image, now - days * 86400)
        plan = asof_json("cleanup", "--archive", self.archive, "--dry-run", "--count",
                         "automated=2", "--monthly", "automated=4")["backups"]
        kept = sorted(os.path.basename(k["file"]) for k in plan["kept"])
        months = {n[7:13] for n in kept}
        self.assertEqual(len(months), 4)
        self.assertLessEqual(len(kept), 6)
        self.assertEqual(plan["total_files"], 80 - len(kept))
        plan = asof_json("cleanup", "--archive", self.archive, "--dry-run", "--type",
                         "manual")["backups"]
        self.assertEqual(plan["total_files"], 0)
        plan = asof_json("cleanup", "--archive", self.archive, "--dry-run", "--days", "0")
        self.assertEqual(plan["backups"]["total_files"], 79)


class Broken(BackupCase):
    """Broken off, and without room."""

    def test_killed_at_every_step(self):
        """A final name never stands for less than a whole backup."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db, 20000)
        started = time.monotonic()
        self.backup()
        length = time.monotonic() - started
        rng = random.Random(11)
        killed = 0
        for i in range(25):
            p = subprocess.Popen([ASOF, "backup", "--archive", self.archive, "--db-path",
                                  self.db_path], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            time.sleep(length * (i + rng.random()) / 22)
            p.kill()
            killed += p.wait() == -signal.SIGKILL
            for path in glob.glob(os.path.join(self.archive, "manual", "trades_*")):
                self.assertEqual(subprocess.run(["gunzip", "-t", path], check=False).returncode, 0)
            for path in glob.glob(os.path.join(self.archive, "manual", "manifest_*.json")):
                with open(path, encoding="utf-8") as f:
                    meta = json.load(f)
                self.assertEqual(sha256(meta["backup_file"]), meta["sha256"])
        self.assertGreater(killed, 5)
        status, report = self.validate()
        self.assertEqual(status, 0, report)
        # The children that read have gone, too.
        harness.wait_for("the readers to end", lambda: not subprocess.run(
            ["pgrep", "-f", f"asof-read-database.*{self.db_path}"], check=False,
            stdout=subprocess.DEVNULL).returncode == 0)
        # What they left is removed once it is old enough to be nobody's.
        left = self.leftovers()
        self.assertGreater(len(left), 0)
        asof_json("cleanup", "--archive", self.archive)
        self.assertEqual(self.leftovers(), left)
        os.mkdir(os.path.join(self.archive, "safety"))
        os.mkdir(os.path.join(self.archive, "safety", ".asof-backup-abcdef"))
        for kind, name in [*(("manual", n) for n in left), ("safety", ".asof-backup-abcdef")]:
            os.utime(os.path.join(self.archive, kind, name), (time.time() - 3600,) * 2)
        asof_json("cleanup", "--archive", self.archive)
        self.assertEqual(self.leftovers(), [])
        self.assertEqual(counter_of(self.db_path), 1)

    def under_strace(self, what, *options):
        """A backup with a fault at one system call of its own; its status and last words."""
        run = subprocess.run(["strace", "-o", self.path("trace"), "-e", "trace=" + what.split(":")[0],
                              "-e", "inject=" + what, ASOF, "backup", "--archive", self.archive,
                              "--db-path", self.db_path, *options], check=False, text=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        with open(self.path("trace"), encoding="utf-8", errors="replace") as f:
            reached = run.returncode == -signal.SIGKILL or "INJECTED" in f.read()
        return run.returncode, run.stderr, reached

    def assert_whole(self, want):
        """What has a final name is a whole backup, and what a manifest says is there."""
        names = [n for n in self.files() if not n.startswith(".")]
        for name in names:
            path = os.path.join(self.archive, "manual", name)
            if name.startswith("trades_"):
                self.assertEqual(inflated(path), want)
            else:
                with open(path, encoding="utf-8") as f:
                    meta = json.load(f)
                self.assertEqual(sha256(meta["backup_file"]), meta["sha256"])
        return names

    # Each of its own system calls that changes something, and those that make it last.
    CALLS = ("openat", "pwrite64", "fdatasync", "renameat2", "fsync")

    @unittest.skipUnless(shutil.which("strace"), "no strace here")
    def test_killed_at_every_system_call(self):
        self.make_db(400)
        want = image_of(self.db_path, self.path("image"))
        n_killed = 0
        for call in self.CALLS:
            for when in range(1, 60):
                status, _, reached = self.under_strace(f"{call}:signal=SIGKILL:when={when}")
                self.assert_whole(want)
                if not reached:
                    self.assertEqual(status, 0)
                    break
                n_killed += 1
        self.assertGreater(n_killed, 20)
        self.assertEqual(self.validate()[0], 0)

    @unittest.skipUnless(shutil.which("strace"), "no strace here")
    def test_every_system_call_fails(self):
        """An error is said in one line, and nothing of that backup is left."""
        self.make_db(400)
        want = image_of(self.db_path, self.path("image"))
        for call in self.CALLS:
            n_failed = 0
            for when in range(1, 60):
                before = self.files()
                status, said, reached = self.under_strace(f"{call}:error=ENOSPC:when={when}")
                self.assert_whole(want)
                if not reached:
                    break
                # Some are looks at what need not be there.
                if status != 0:
                    n_failed += 1
                    if status in range(1, 6):  # not the dynamic linker's
                        self.assertRegex(said, r"(\A|\n)asof: [^\n]+\n\Z")
                    self.assertEqual(self.files(), before, f"{call} {when}: {said}")
            self.assertGreater(n_failed, 0, call)

    def test_interrupted(self):
        """By a signal to it alone, and as from a terminal, to its child as well."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db, 60000)
        for send in (os.kill, os.killpg):
            p = subprocess.Popen([ASOF, "backup", "--archive", self.archive, "--db-path",
                                  self.db_path, "--level", "12"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True, start_new_session=True)
            harness.wait_for("it to begin", lambda p=p: self.leftovers() or p.poll() is not None)
            send(p.pid, signal.SIGINT)
            _, err = p.communicate(timeout=60)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(err, r"\Aasof: backup: cancelled[^\n]*\n\Z")
            self.assertEqual(self.files(), [])

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("needs root: mounts a filesystem of its own")

    def test_disk_full(self):
        self.need_root()
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db, 30000)
        where = self.path("small")
        os.mkdir(where)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", where], check=True)
        for options in ((), ("--no-compress",)):
            run = asof("backup", "--archive", where, "--db-path", self.db_path, *options)
            self.assertEqual(run.returncode, 1)
            self.assertIn("No space left", run.stderr)
            self.assertEqual(os.listdir(os.path.join(where, "manual")), [])

    def test_read_only_archive(self):
        self.need_root()
        self.make_db()
        made = self.backup()
        subprocess.run(["mount", "--bind", self.archive, self.archive], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", self.archive], check=True)
        run = asof("backup", "--archive", self.archive, "--db-path", self.db_path)
        self.assert_fails(run, 1, "Read-only")
        self.assertEqual(self.validate()[0], 0)
        self.assertEqual(len(asof_json("list", "--archive", self.archive)["backups"]["manual"]),
                         1)
        run = asof("cleanup", "--archive", self.archive, "--days", "0", "--count", "0")
        self.assertEqual(run.returncode, 0, run.stderr)  # the last good one stays anyway
        self.assertTrue(os.path.exists(made["backup_path"]))

    def test_read_only_database(self):
        """A folder where nothing can be made: at rest, with a -wal alone, and in use."""
        self.need_root()
        for state in ("rest", "wal", "live", "delete"):
            with self.subTest(state=state):
                folder = self.path(state)
                os.mkdir(folder)
                path = os.path.join(folder, "x.db")
                mode = "DELETE" if state == "delete" else "WAL"
                db = self.open_db(path, journal_mode=mode, wal_autocheckpoint=0)
                make_counter(db)
                commit(db, 30)
                want = image_of(path, self.path("image"))
                if state == "wal":
                    kept = (content(path), content(path + "-wal"))
                    db.close()
                    for suffix, data in zip(("", "-wal"), kept):
                        with open(path + suffix, "wb") as f:
                            f.write(data)
                elif state == "rest":
                    db.close()
                subprocess.run(["mount", "--bind", folder, folder], check=True)
                subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
                names = sorted(os.listdir(folder))
                made = self.backup(db=path)
                self.assertEqual(inflated(made["backup_path"]), want)
                self.assertEqual(sorted(os.listdir(folder)), names)
                subprocess.run(["umount", folder], check=True)


class Terminal(BackupCase):
    def on_terminal(self, *args):
        """What a terminal shows on standard error."""
        harness.need_terminal()
        main, end = os.openpty()
        p = subprocess.Popen([ASOF, *args], stdout=subprocess.DEVNULL, stderr=end)
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):
            while data := os.read(main, 65536):
                shown += data
        os.close(main)
        self.assertEqual(p.wait(), 0, shown)
        return shown.decode()

    def test_progress(self):
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db, 20000)
        words = ("--archive", self.archive)
        for command in (("backup", "--db-path", self.db_path), ("validate",)):
            shown = self.on_terminal(*command, *words)
            self.assertRegex(shown, r"\r\S.* 100 %  .* of .*\x1b\[K")
            self.assertTrue(shown.endswith("\r\x1b[K"))
            self.assertEqual(asof(*command, *words).stderr, "")


class Mounted(BackupCase):
    def test_mount_shows_it(self):
        harness.need_fuse()
        self.make_db(500)
        made = self.backup()
        plain = self.backup("--no-compress", "--type", "safety")
        point = self.path("mnt")
        os.mkdir(point)
        run = asof("mount", self.archive, point)
        self.assertEqual(run.returncode, 0, run.stderr)
        # Open in the server while it is validated.
        with open(plain["backup_path"], "rb"):
            self.assertEqual(self.validate()[0], 0)
        try:
            for kind, b in (("manual", made), ("safety", plain)):
                name = os.path.basename(b["backup_path"]).removesuffix(".gz")
                stamp = NAME.match(name).group("time")
                path = os.path.join(point, kind, f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}", name)
                self.assertEqual(counter_of(path), 1)
        finally:
            asof("umount", point)


class Encrypted(BackupCase):
    def setUp(self):
        super().setUp()
        if not shutil.which("gpg"):
            self.skipTest("no gpg here")
        self.home = self.path("gnupg")
        os.mkdir(self.home, 0o700)
        self.env = {"GNUPGHOME": self.home}
        subprocess.run(["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key",
                        "backup@example.com", "default", "default", "never"], check=True,
                       env={**os.environ, **self.env}, stderr=subprocess.DEVNULL)
        self.addCleanup(subprocess.run, ["gpgconf", "--kill", "all"], check=False,
                        env={**os.environ, **self.env})

    def run_json(self, *args, env=None):
        run = asof(*args, "--archive", self.archive, "--json", env=env or self.env)
        return run.returncode, json.loads(run.stdout) if run.stdout else run.stderr

    def test_round_trip(self):
        self.make_db(500)
        status, made = self.run_json("backup", "--db-path", self.db_path, "--gpg",
                                     "backup@example.com")
        self.assertEqual(status, 0, made)
        path = made["backup_path"]
        self.assertRegex(path, r"\.db\.gz\.gpg$")
        self.assertEqual(made["metadata"]["sha256"], sha256(path))
        self.assertNotIn(b"asofpack", content(path))
        out = self.path("plain.gz")
        subprocess.run(["gpg", "--batch", "--quiet", "-o", out, "--decrypt", path], check=True,
                       env={**os.environ, **self.env})
        self.assertEqual(inflated(out), image_of(self.db_path, self.path("image")))
        self.assertEqual(self.leftovers(), [])
        entry, = self.run_json("list")[1]["backups"]["manual"]
        self.assertIs(entry["encrypted"], True)
        status, report = self.run_json("validate")
        detail, = report["backups"]["validation_details"]
        self.assertEqual((status, detail["valid"], detail["opened"]), (0, True, True))
        # Elsewhere, without the key, its bytes can be compared and no more.
        empty = self.path("other")
        os.mkdir(empty, 0o700)
        status, report = self.run_json("validate", env={"GNUPGHOME": empty})
        detail, = report["backups"]["validation_details"]
        self.assertEqual((status, detail["valid"], detail["opened"]), (0, True, False))
        self.assertIn("secret key", detail["note"])
        data = bytearray(content(path))
        data[len(data) // 2] ^= 4
        with open(path, "wb") as f:
            f.write(data)
        for env in (self.env, {"GNUPGHOME": empty}):
            self.assertEqual(self.run_json("validate", env=env)[0], 4)
        os.unlink(made["manifest_path"])
        self.assertEqual(self.run_json("validate")[0], 4)

    def test_raw_copy_is_encrypted_too(self):
        db = self.make_db(300)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        commit(db)
        with open(self.db_path, "r+b") as f:
            f.seek(8192)
            f.write(os.urandom(8192))
        status, made = self.run_json("backup", "--db-path", self.db_path, "--type", "safety",
                                     "--gpg", "backup@example.com")
        self.assertEqual((status, made["damaged"]), (0, True), made)
        names = sorted(n for n in self.files("safety") if n.startswith("trades_"))
        self.assertRegex(" ".join(names), r"^\S+\.db-wal\.gz\.gpg \S+\.db\.gz\.gpg$")
        for name, source in zip(names, ("-wal", "")):
            out = self.path("plain.gz")
            path = os.path.join(self.archive, "safety", name)
            subprocess.run(["gpg", "--batch", "--quiet", "--yes", "-o", out, "--decrypt", path],
                           check=True, env={**os.environ, **self.env})
            self.assertEqual(inflated(out), content(self.db_path + source))
        self.assertEqual(self.run_json("validate")[0], 0)

    def test_unknown_recipient(self):
        self.make_db()
        status, value = self.run_json("backup", "--db-path", self.db_path, "--gpg",
                                      "nobody@example.com")
        self.assertEqual(status, 5)
        self.assertIs(value["success"], False)
        self.assertIn("nobody@example.com", value["error"])
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    harness.main()

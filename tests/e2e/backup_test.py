#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof backup: what is in a backup, how it is called, and what is told of it."""

import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from backups import NAME, TYPES, BackupCase, content, image_of, inflated, sha256  # noqa: E402
from harness import ASOF, asof, asof_json, commit, counter_of, make_counter  # noqa: E402


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


if __name__ == "__main__":
    harness.main()

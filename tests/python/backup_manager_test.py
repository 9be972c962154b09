#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""backup_manager against the program: the dictionaries of the old module, key for key; as a
program with the old arguments; and what the old one had not.

Runs with pytest, too:  ASOF=build/release/tools/asof pytest tests/python
"""

import datetime
import importlib.util
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(TESTS), "tools", "python"))
import harness  # noqa: E402
import project  # noqa: E402
from backup_manager import AsofError, BackupConfig, BackupManager  # noqa: E402
from project import add_rows, old_backup, rows_in, rows_in_gz  # noqa: E402

logging.getLogger("backup_manager").addHandler(logging.NullHandler())  # expected errors

TYPES = {"manual", "automated", "safety", "compressed"}
ENTRY = {"filename", "path", "size_bytes", "size_human", "created_at", "age_hours", "compressed"}
MANIFEST = {"backup_type", "timestamp", "source_database", "backup_file", "source_size_bytes",
            "backup_size_bytes", "compression_ratio", "created_by", "validation"}
PACKAGE = os.path.join(harness.ROOT, "tools", "python")


class Case(project.ProjectCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(os.environ.pop, "ASOF", None)
        os.environ["ASOF"] = harness.ASOF
        self.manager = self.manage()

    def manage(self, **more):
        return BackupManager(BackupConfig(data_dir=Path(self.at("data")),
                                          backup_dir=Path(self.backups), **more))

    def create(self, *args, **kw):
        result = self.manager.create_backup(Path(self.main_path), *args, **kw)
        self.assertEqual(result.get("error"), None)
        return result

    def assert_has(self, dictionary, keys):
        self.assertLessEqual(keys, set(dictionary))


class Config(unittest.TestCase):
    def test_fields_in_order(self):
        c = BackupConfig("data", "backups")
        self.assertEqual(
            list(vars(c).items()),
            [("data_dir", "data"), ("backup_dir", "backups"), ("retention_days", 7),
             ("compressed_retention_days", 30), ("s3_bucket", None), ("aws_region", "us-east-1"),
             ("enable_litestream", True), ("litestream_config", None)])
        self.assertEqual(BackupConfig("a", "b", 1, 2, "c", "d", False, "e").litestream_config, "e")
        self.assertEqual(BackupConfig("a", "b"), BackupConfig("a", "b"))


class Create(Case):
    def test_constructor_makes_the_folders(self):
        self.assertEqual(set(os.listdir(self.backups)), TYPES)
        self.manage()

    def test_result(self):
        result = self.create()
        self.assertEqual(set(result), {"success", "backup_path", "manifest_path", "metadata"})
        self.assertIs(result["success"], True)
        path = result["backup_path"]
        self.assertRegex(os.path.basename(path), r"^futures_trades_\d{8}_\d{6}\.db\.gz$")
        self.assertEqual(os.path.dirname(path), os.path.join(self.backups, "manual"))
        self.assertRegex(os.path.basename(result["manifest_path"]), r"^manifest_\d{8}_\d{6}\.json$")
        self.assertEqual(rows_in_gz(path, self.dir), 100)

        manifest = result["metadata"]
        self.assert_has(manifest, MANIFEST)
        self.assertEqual(manifest["backup_type"], "manual")
        self.assertEqual(manifest["backup_file"], path)
        self.assertEqual(manifest["source_database"], self.main_path)
        self.assertEqual(manifest["backup_size_bytes"], os.path.getsize(path))
        self.assertAlmostEqual(manifest["compression_ratio"],
                               manifest["backup_size_bytes"] / manifest["source_size_bytes"], 6)
        self.assertEqual(manifest["validation"]["integrity_check"], "passed")
        datetime.datetime.fromisoformat(manifest["timestamp"])
        datetime.datetime.fromisoformat(manifest["validation"]["created_at"])

    def test_types_and_texts(self):
        for backup_type in ("manual", "automated", "safety"):
            result = self.manager.create_backup(db_path=self.main_path, backup_type=backup_type,
                                                compress=True, validate=True)
            self.assertTrue(result["success"])
            self.assertEqual(result["metadata"]["backup_type"], backup_type)
            self.assertEqual(len(self.files(backup_type)), 1)

    def test_uncompressed(self):
        result = self.create(compress=False)
        self.assertRegex(result["backup_path"], r"_\d{6}\.db$")
        self.assertEqual(rows_in(result["backup_path"]), 100)

    def test_not_validated(self):
        result = self.create(validate=False)
        self.assertEqual(rows_in_gz(result["backup_path"], self.dir), 100)

    def test_relative_path(self):
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.project)
        manager = BackupManager(BackupConfig(data_dir=Path("./data"), backup_dir=Path("./backups"),
                                             retention_days=7))
        result = manager.create_backup(db_path=Path("./data/db/futures_trades.db"))
        self.assertTrue(result["success"], result)
        self.assertTrue(os.path.exists(result["backup_path"]))

    def test_errors_are_returned(self):
        missing = Path(self.at("data/db/none.db"))
        self.assertEqual(self.manager.create_backup(missing),
                         {"success": False, "error": f"Database not found: {missing}"})
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()
        project.damage(self.main_path, 4096 + 3)
        self.assertEqual(self.manager.create_backup(Path(self.main_path)),
                         {"success": False, "error": "Source database validation failed"})
        result = self.manager.create_backup(Path(self.main_path), backup_type="frobnicate")
        self.assertEqual(set(result), {"success", "error"})
        self.assertIs(result["success"], False)
        self.assertIn("frobnicate", result["error"])
        os.environ["ASOF"] = self.path("no-such-program")
        result = self.manager.create_backup(Path(self.main_path))
        self.assertEqual(set(result), {"success", "error"})
        self.assertIn("no-such-program", result["error"])
        self.assertEqual(self.files("manual"), [])


class Restore(Case):
    def setUp(self):
        super().setUp()
        self.backup_path = Path(self.create()["backup_path"])
        add_rows(self.db, 50)
        self.close_application()

    def restore(self, *args, **kw):
        return self.manager.restore_database(*args, **kw)

    def test_result(self):
        result = self.restore(self.backup_path, Path(self.main_path))
        self.assertEqual(set(result), {"success", "restored_path", "safety_backup",
                                       "restored_from"}, result)
        self.assertIs(result["success"], True)
        self.assertEqual(result["restored_path"], self.main_path)
        self.assertEqual(result["restored_from"], str(self.backup_path))
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertEqual(rows_in_gz(result["safety_backup"], self.dir), 150)
        self.assertEqual(os.path.dirname(result["safety_backup"]),
                         os.path.join(self.backups, "safety"))

    def test_without_safety_backup(self):
        result = self.restore(self.backup_path, Path(self.main_path), create_safety_backup=False)
        self.assertEqual((result["success"], result["safety_backup"]), (True, None))
        self.assertEqual(self.files("safety"), [])
        self.assertEqual(rows_in(self.main_path), 100)

    def test_new_target(self):
        target = Path(self.path("new", "folder", "x.db"))
        result = self.restore(self.backup_path, target)
        self.assertEqual((result["success"], result["safety_backup"]), (True, None))
        self.assertEqual(rows_in(target), 100)

    def test_files_of_old_tools(self):
        for shape, compress in (("script", True), ("python", True), ("python", False)):
            path = old_backup(self.dir, "futures_trades", 33, 1, shape, compress)
            target = self.path(f"target-{shape}-{compress}.db")
            self.assertTrue(self.restore(path, target)["success"])
            self.assertEqual(rows_in(target), 33)
            os.unlink(path)

    def test_errors_are_returned(self):
        missing = Path(self.path("none.db.gz"))
        self.assertEqual(self.restore(missing, Path(self.main_path)),
                         {"success": False, "error": f"Backup file not found: {missing}"})
        project.damage(self.backup_path)
        self.assertEqual(self.restore(self.backup_path, Path(self.main_path)),
                         {"success": False, "error": "Backup validation failed"})
        self.assertEqual(rows_in(self.main_path), 150)
        result = self.restore(self.backup_path, "/proc/no/such/folder/x.db")
        self.assertEqual(set(result), {"success", "error"})


class Lists(Case):
    def fill(self):
        """Backups by the old tools and by asof."""
        self.new = self.create()["backup_path"]
        self.old = [old_backup(os.path.join(self.backups, t), "futures_trades", n, age, shape, gz)
                    for t, n, age, shape, gz in (("manual", 200, 2, "script", True),
                                                 ("manual", 10, 5, "python", False),
                                                 ("compressed", 10, 40, "python", True),
                                                 ("safety", 10, 9, "script", True))]

    def test_empty(self):
        self.assertEqual(self.manager.list_backups(), {t: [] for t in TYPES})
        self.assertEqual(self.manager.list_backups("safety"), {"safety": []})
        self.assertEqual(self.manager.validate_all_backups(),
                         {"total_backups": 0, "valid_backups": 0, "invalid_backups": 0,
                          "validation_details": []})
        stats = self.manager.get_backup_statistics()
        self.assertEqual((stats["total_backups"], stats["total_size_bytes"]), (0, 0))
        self.assertIsNone(stats["oldest_backup"])
        self.assertIsNone(stats["newest_backup"])
        self.assertEqual(stats["backup_types"]["manual"],
                         {"count": 0, "size_bytes": 0, "latest": None})

    def test_list(self):
        self.fill()
        lists = self.manager.list_backups()
        self.assertEqual(set(lists), TYPES)
        self.assertEqual([os.path.basename(b["path"]) for b in lists["manual"]],
                         [os.path.basename(p) for p in (self.new, *self.old[:2])])
        for entry, path in zip(lists["manual"], (self.new, *self.old[:2])):
            self.assert_has(entry, ENTRY)
            self.assertTrue(os.path.samefile(entry["path"], path))
            self.assertEqual(entry["filename"], os.path.basename(path))
            self.assertEqual(entry["size_bytes"], os.path.getsize(path))
            self.assertEqual(entry["compressed"], path.endswith(".gz"))
            self.assertRegex(entry["size_human"], r"^\d+\.\d (B|KB|MB)$")
            created = datetime.datetime.fromisoformat(entry["created_at"])
            self.assertIsNone(created.tzinfo)  # local time, as ever
            self.assertLess(abs(created.timestamp() - os.path.getmtime(path)), 2)
            self.assertAlmostEqual(entry["age_hours"],
                                   (time.time() - os.path.getmtime(path)) / 3600, delta=0.02)
        self.assertEqual(self.manager.list_backups("manual").keys(), {"manual"})
        self.assertEqual(self.manager.list_backups(backup_type="compressed")["compressed"][0]
                         ["filename"], os.path.basename(self.old[2]))

    def test_validate(self):
        self.fill()
        result = self.manager.validate_all_backups()
        self.assertEqual(set(result), {"total_backups", "valid_backups", "invalid_backups",
                                       "validation_details"})
        self.assertEqual((result["total_backups"], result["valid_backups"],
                          result["invalid_backups"]), (5, 5, 0), result)
        project.damage(self.old[0])
        result = self.manager.validate_all_backups()
        self.assertEqual((result["total_backups"], result["valid_backups"],
                          result["invalid_backups"]), (5, 4, 1))
        for detail in result["validation_details"]:
            self.assert_has(detail, {"file", "type", "valid", "size", "created_at"})
            self.assertEqual(detail["valid"],
                             not os.path.samefile(detail["file"], self.old[0]), detail)
            self.assertEqual(detail["size"], os.path.getsize(detail["file"]))
            self.assertEqual(detail["type"], os.path.basename(os.path.dirname(detail["file"])))

    def test_statistics(self):
        self.fill()
        stats = self.manager.get_backup_statistics()
        self.assert_has(stats, {"total_backups", "total_size_bytes", "backup_types",
                                "oldest_backup", "newest_backup", "disk_usage"})
        sizes = [os.path.getsize(p) for p in (self.new, *self.old)]
        self.assertEqual((stats["total_backups"], stats["total_size_bytes"]), (5, sum(sizes)))
        self.assertEqual(set(stats["backup_types"]), TYPES)
        manual = stats["backup_types"]["manual"]
        self.assertEqual((manual["count"], manual["size_bytes"]), (3, sum(sizes[:3])))
        self.assertEqual(manual["latest"]["filename"], os.path.basename(self.new))
        self.assertEqual(stats["newest_backup"]["filename"], os.path.basename(self.new))
        self.assertEqual(stats["oldest_backup"]["filename"], os.path.basename(self.old[2]))
        disk, usage = shutil.disk_usage(self.backups), stats["disk_usage"]
        self.assertEqual(set(usage), {"total", "used", "free", "backup_usage",
                                      "backup_percentage"})
        self.assertEqual((usage["total"], usage["backup_usage"]), (disk.total, sum(sizes)))
        self.assertAlmostEqual(usage["backup_percentage"], sum(sizes) / disk.total * 100, 6)

    def test_cleanup(self):
        gone, kept = [], []
        for backup_type, days in (("manual", 3), ("automated", 3), ("safety", 3),
                                  ("compressed", 10)):
            for age in (0.5, 2.9, 3.1, 9.9, 10.1):
                path = old_backup(os.path.join(self.backups, backup_type), "futures_trades", 1, age)
                (kept if age < days else gone).append((path, os.path.getsize(path), int(age)))
        result = self.manage(retention_days=3, compressed_retention_days=10).cleanup_old_backups()
        self.assertEqual(set(result), {"cleaned_files", "total_files", "space_freed_bytes",
                                       "space_freed_human"})
        self.assertEqual(sorted((os.path.realpath(f["file"]), f["size"], f["age_days"])
                                for f in result["cleaned_files"]), sorted(gone))
        self.assertEqual((result["total_files"], result["space_freed_bytes"]),
                         (len(gone), sum(size for _, size, _ in gone)))
        self.assertRegex(result["space_freed_human"], r"^\d+\.\d KB$")
        for path, _, _ in kept:
            self.assertTrue(os.path.exists(path), path)
        for path, _, _ in gone:
            self.assertFalse(os.path.exists(path), path)
        self.assertEqual(sum(len(self.files(t, ".json")) for t in TYPES), len(kept))

    def test_failures_raise(self):
        os.environ["ASOF"] = "/bin/false"
        for call in (self.manager.list_backups, self.manager.validate_all_backups,
                     self.manager.get_backup_statistics, self.manager.cleanup_old_backups):
            with self.assertRaises(AsofError):
                call()


class Moments(Case):
    def setUp(self):
        super().setUp()
        self.writer = self.replicate(db=self.main_path, archive=self.backups)
        self.writer.wait_ready()
        self.writer.wait_known()
        self.moment = datetime.datetime.now(datetime.timezone.utc)
        time.sleep(0.05)
        for _ in range(3):
            add_rows(self.db, 10)
        self.writer.wait_known()

    def count(self, connection):
        try:
            return connection.execute("SELECT count(*) FROM trades").fetchone()[0]
        finally:
            connection.close()

    def test_commits(self):
        commits = self.manager.commits()
        self.assertEqual([c["txid"] for c in commits], sorted({c["txid"] for c in commits}))
        for commit in commits:
            self.assertEqual(set(commit), {"txid", "time", "pages", "bytes", "database_bytes",
                                           "lineage", "healed"})
        later = self.manager.commits("futures_trades", since=self.moment)
        self.assertEqual(later, commits[-3:])
        self.assertEqual(self.manager.commits(Path(self.main_path), until=self.moment),
                         commits[:-3])
        self.assertEqual(self.manager.commits(limit=2), commits[-2:])
        self.assertEqual(self.manager.commits(since="now"), [])
        self.assertEqual([self.count(self.manager.open_at(c["time"])) for c in later],
                         [110, 120, 130])

    def test_open_at(self):
        before = set(os.listdir(tempfile.gettempdir()))
        for at in (self.moment, self.moment.isoformat(), self.moment.timestamp(),
                   self.moment.astimezone(datetime.timezone(datetime.timedelta(hours=-5)))):
            self.assertEqual(self.count(self.manager.open_at(at)), 100)
        self.assertEqual(self.count(self.manager.open_at("latest")), 130)
        past = self.manager.open_at(self.moment, database="futures_trades.db")
        self.addCleanup(past.close)
        self.assertIsInstance(past, sqlite3.Connection)
        add_rows(self.db, 10)
        self.writer.wait_known()
        self.assertEqual(past.execute("SELECT count(*) FROM trades").fetchone()[0], 100)
        self.assertEqual(past.execute("PRAGMA integrity_check").fetchone()[0], "ok")
        with self.assertRaisesRegex(sqlite3.OperationalError, "readonly"):
            past.execute("DELETE FROM trades")
        left = {n for n in set(os.listdir(tempfile.gettempdir())) - before
                if os.path.exists(os.path.join(tempfile.gettempdir(), n, "past.db"))}
        self.assertEqual(left, set())

    def test_wrong_times_raise(self):
        for at, kind in (("never", AsofError), ("2000-01-01", AsofError), ("2099-01-01", AsofError),
                         (datetime.datetime.now(), ValueError)):
            with self.assertRaises(kind):
                self.manager.open_at(at)
        with self.assertRaisesRegex(AsofError, "no history of other.db .*futures_trades.db"):
            self.manager.commits("other.db")

    def test_restore_at(self):
        self.close_application()
        self.assertEqual(self.writer.stop(), 0)
        result = self.manager.restore_at(self.moment)
        self.assertEqual(set(result), {"success", "restored_path", "safety_backup",
                                       "restored_from"}, result)
        self.assertEqual(result["restored_path"], self.main_path)
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertEqual(rows_in_gz(result["safety_backup"], self.dir), 130)
        target = self.path("elsewhere", "x.db")
        result = self.manager.restore_at("latest", target, create_safety_backup=False)
        self.assertEqual((result["success"], result["safety_backup"]), (True, None))
        self.assertEqual(rows_in(target), 130)
        for at in ("never", datetime.datetime.now(), "2000-01-01"):
            result = self.manager.restore_at(at, target)
            self.assertEqual(set(result), {"success", "error"})
        self.assertEqual(rows_in(target), 130)


class Program(Case):
    """python -m backup_manager, backup_manager.py: the old arguments and exit statuses."""

    def program(self, *args, how="link"):
        env = self.environment(PYTHONPATH=PACKAGE)
        command = {"link": [sys.executable, self.at("scripts/backup_manager.py")],
                   "itself": [self.at("scripts/backup_manager.py")],
                   "module": [sys.executable, "-m", "backup_manager"]}[how]
        return subprocess.run([*command, *map(str, args)], cwd=self.project, env=env, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)

    def test_each_way(self):
        for how in ("link", "itself", "module"):
            run = self.program("backup", "--db-path", "data/db/futures_trades.db", how=how)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertRegex(run.stdout, r"^Backup created: \S*backups/manual/\S+\.db\.gz\n$")
        self.assertEqual(len(self.files("manual")), 3)

    def test_commands(self):
        self.assertEqual(self.program("backup", "--db-path", self.main_path, "--backup-type",
                                      "automated", "--no-compress", "--no-validate").returncode, 0)
        path, = self.files("automated", ".db")
        add_rows(self.db, 1)
        self.close_application()
        run = self.program("restore", "--backup-path", path, "--target-path", self.main_path)
        self.assertEqual((run.returncode, run.stdout),
                         (0, f"Database restored to: {self.main_path}\n"), run.stderr)
        self.assertEqual(rows_in(self.main_path), 100)
        run = self.program("list")
        self.assertIn("\nAUTOMATED Backups:\n" + "-" * 40 + f"\n  {os.path.basename(path)} (",
                      run.stdout)
        self.assertIn("\nCOMPRESSED Backups:\n" + "-" * 40 + "\n  No backups found\n", run.stdout)
        self.assertEqual(self.program("cleanup").stdout, "Cleaned up 0 files, freed 0.0 B\n")
        self.assertEqual(self.program("validate").stdout,
                         "Validated 2 backups: 2 valid, 0 invalid\n")
        run = self.program("stats")
        self.assertIn("\nBackup Statistics:\nTotal backups: 2\nTotal size: ", run.stdout)
        self.assertIn("\nautomated: 1 backups, ", run.stdout)

    def test_folders(self):
        other = self.path("other")
        run = self.program("backup", "--db-path", self.main_path, "--backup-dir", other,
                           "--data-dir", self.path("data"))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(set(os.listdir(other)), TYPES)

    def test_failures(self):
        for words, text in ((["backup"], "Error: --db-path required"),
                            (["restore", "--backup-path", "x"], "Error: --backup-path and"),
                            (["backup", "--db-path", "none.db"], "Backup failed: Database not"),
                            (["restore", "--backup-path", "none", "--target-path", "x"],
                             "Restore failed: Backup file not found: none\n")):
            run = self.program(*words)
            self.assertEqual(run.returncode, 1, run.stderr)
            self.assertIn(text, run.stdout)
        for words in ([], ["frobnicate"], ["list", "--frobnicate"]):
            self.assertEqual(self.program(*words).returncode, 2)
        path = old_backup(os.path.join(self.backups, "manual"), "futures_trades", 500)
        project.damage(path)
        run = self.program("validate")
        self.assertEqual(run.returncode, 1)
        self.assertIn("0 valid, 1 invalid\n", run.stdout)


class Package(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="asof-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def python(self, *args, cwd=None, **env):
        return subprocess.run([sys.executable, *args], cwd=cwd or self.dir, check=False, text=True,
                              env={**os.environ, "PYTHONPATH": "", **env}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def test_scripts_on_sys_path(self):
        # As users have it: sys.path.append('scripts').
        scripts = os.path.join(self.dir, "scripts")
        os.mkdir(scripts)
        os.symlink(os.path.join(harness.ROOT, "tools", "backup_manager.py"),
                   os.path.join(scripts, "backup_manager.py"))
        run = self.python("-c", "import sys; sys.path.append('scripts')\n"
                          "from backup_manager import BackupManager, BackupConfig\n"
                          "import backup_manager.program\n"
                          "print(BackupManager.__module__)")
        self.assertEqual((run.returncode, run.stdout), (0, "backup_manager.manager\n"))

    def test_pip_install(self):
        for module in ("pip", "setuptools", "wheel"):
            if not importlib.util.find_spec(module):
                self.skipTest(f"no {module} here")
        source = os.path.join(self.dir, "source")
        shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
        target = os.path.join(self.dir, "site")
        run = self.python("-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation",
                          "--no-deps", "--disable-pip-version-check", "--target", target, source)
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertTrue(os.path.exists(os.path.join(target, "backup_manager", "py.typed")))
        run = self.python("-m", "backup_manager", "--help", PYTHONPATH=target)
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertTrue(os.path.exists(os.path.join(target, "bin", "backup_manager")))

    def test_types(self):
        mypy = ([sys.executable, "-m", "mypy"] if importlib.util.find_spec("mypy")
                else [shutil.which("mypy")])
        if not mypy[0]:
            self.skipTest("no mypy here")
        run = subprocess.run([*mypy, "--strict", "--python-version", "3.8", "--cache-dir",
                              os.path.join(self.dir, "cache"), "-p", "backup_manager"],
                             cwd=PACKAGE, check=False, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 0, run.stdout)


if __name__ == "__main__":
    harness.main()

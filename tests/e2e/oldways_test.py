#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""backup-database.sh, restore-database.sh and setup-litestream.sh, typed as ever."""

import json
import os
import pty
import re
import select
import shutil
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import project  # noqa: E402
from project import add_rows, old_backup, rows_in, rows_in_gz  # noqa: E402

LINE = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[(INFO|WARN|ERROR|SUCCESS)\] \S.*"
BACKUP_NAME = r"_\d{8}_\d{6}\.db\.gz$"


class Case(project.ProjectCase):
    def log_lines(self, name):
        with open(self.at("data/logs", name), encoding="utf-8") as f:
            return f.read().splitlines()

    def run_on_terminal(self, name, *args, keys=b"", expect=b""):
        """Runs a script on a terminal of its own, types `keys` once `expect` was shown; all that
        it printed, and its status."""
        harness.need_terminal()
        pid, fd = pty.fork()
        if pid == 0:
            os.chdir(self.project)
            os.execve(self.at("scripts", name), [name, *args], self.environment(TERM="xterm"))
        shown, typed, end = b"", not keys, time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([fd], [], [], 0.5)[0]:
                try:
                    more = os.read(fd, 65536)
                except OSError:
                    break
                if not more:
                    break
                shown += more
            if not typed and expect in shown:
                os.write(fd, keys)
                typed = True
        os.close(fd)
        return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Backup(Case):
    def backup(self, *args, **kw):
        return self.script("backup-database.sh", *args, **kw)

    def test_default_command(self):
        run = self.ok(self.backup())
        path, = self.files("manual")
        self.assertRegex(os.path.basename(path), r"^futures_trades" + BACKUP_NAME)
        self.assertEqual(rows_in_gz(path, self.dir), 100)
        subprocess.run(["gzip", "-t", path], check=True)
        self.assertIn(path, run.stdout)
        self.assertIn("OHLC cache database not found (normal", run.stdout)
        self.assertIn("[SUCCESS] manual backup completed successfully", run.stdout)
        manifest, = self.files("manual", ".json")
        with open(manifest, encoding="utf-8") as f:
            keys = json.load(f)
        self.assertEqual(keys["backup_type"], "manual")
        self.assertEqual(os.path.basename(keys["backup_file"]), os.path.basename(path))

    def test_both_databases(self):
        project.make_database(self.at("data/db/ohlc_cache.db"), 7).close()
        self.ok(self.backup("backup"))
        ohlc, main = sorted(self.files("manual"), key=lambda p: "futures" in p)
        self.assertRegex(os.path.basename(ohlc), r"^ohlc_cache" + BACKUP_NAME)
        self.assertEqual((rows_in_gz(main, self.dir), rows_in_gz(ohlc, self.dir)), (100, 7))

    def test_live_database(self):
        # What is committed and still in the -wal is in the backup; the file is left alone.
        self.db.execute("PRAGMA wal_autocheckpoint = 0")
        add_rows(self.db, 11)
        before = os.stat(self.main_path).st_mtime_ns
        self.ok(self.backup("backup"))
        self.assertEqual(rows_in_gz(self.files("manual")[0], self.dir), 111)
        self.assertEqual(os.stat(self.main_path).st_mtime_ns, before)

    def test_db_path(self):
        other = self.at("data/db/other one.db")
        project.make_database(other, 3).close()
        for words in (["--db-path", other], ["--db-path=data/db/other one.db"]):
            self.ok(self.backup("backup", *words))
            path, = self.files("manual")
            self.assertRegex(os.path.basename(path), r"^other one" + BACKUP_NAME)
            self.assertEqual(rows_in_gz(path, self.dir), 3)
            shutil.rmtree(os.path.join(self.backups, "manual"))
        self.ok(self.backup("backup", "--db-path", other, "--db-path", self.main_path))
        self.assertEqual(len(self.files("manual")), 2)

    def test_as_the_document_loops(self):
        project.make_database(self.at("data/db/ohlc_cache.db"), 7).close()
        subprocess.run(["sh", "-ec", 'for db in data/db/*.db; do\n'
                        '    ./scripts/backup-database.sh backup --db-path "$db"\ndone'],
                       cwd=self.project, env=self.environment(), check=True,
                       stdout=subprocess.DEVNULL)
        self.assertEqual(len(self.files("manual")), 2)

    def test_twice_in_one_second(self):
        for _ in range(3):
            self.ok(self.backup())
        self.assertEqual(len(self.files("manual")), 3)
        self.assertEqual(len(self.files("manual", ".json")), 3)

    def test_no_false_success(self):
        self.db.close()
        os.rename(self.main_path, self.main_path + ".away")
        run = self.fails(self.backup(), "Main database not found at " + self.main_path)
        self.assertNotIn("SUCCESS", run.stdout)
        self.fails(self.backup("backup", "--db-path", "data/db/none.db"), "data/db/none.db")
        with open(self.main_path, "wb") as f:
            f.write(b"this is no database at all, whatever its name says " * 200)
        run = self.fails(self.backup(), "Main database backup failed: ")
        self.assertNotIn("SUCCESS", run.stdout)
        self.assertEqual(self.files("manual"), [])

    def test_damaged_source(self):
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()
        project.damage(self.main_path, 4096 + 3)
        self.fails(self.backup(), "Main database backup failed: ")
        self.assertEqual(self.files("manual"), [])

    def test_log(self):
        self.ok(self.backup())
        self.backup("backup", "--db-path", "none.db")
        lines = self.log_lines("backup.log")
        for line in lines:
            self.assertRegex(line, rf"^{LINE}$")
        levels = {re.match(LINE, line).group(1) for line in lines}
        self.assertEqual(levels, {"INFO", "SUCCESS", "ERROR"})
        n = len(lines)
        self.ok(self.backup("list"))
        self.assertGreater(len(self.log_lines("backup.log")), n)

    def test_unwritable_log_is_said(self):
        os.makedirs(self.at("data/logs/backup.log"))  # a folder in its place
        run = self.backup()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("[WARN] Cannot write", run.stdout)

    def test_environment(self):
        data, backups = self.path("my data"), self.path("my backups")
        os.makedirs(os.path.join(data, "db"))
        project.make_database(os.path.join(data, "db/futures_trades.db"), 5).close()
        self.ok(self.backup(env={"DATA_DIR": data, "BACKUP_DIR": backups}))
        self.assertEqual(self.files("manual"), [])
        self.backups = backups
        self.assertEqual(rows_in_gz(self.files("manual")[0], self.dir), 5)
        self.assertTrue(os.path.exists(os.path.join(data, "logs/backup.log")))

    def test_validate(self):
        self.ok(self.backup())
        old = [old_backup(os.path.join(self.backups, t), "futures_trades", 2000, 1, shape)
               for t, shape in (("automated", "script"), ("manual", "python"))]
        run = self.ok(self.backup("validate"))
        for path in old + self.files("manual"):
            self.assertIn(f"[SUCCESS] Backup {os.path.basename(path)} is valid", run.stdout)
        self.assertIn("[SUCCESS] All backups validated successfully", run.stdout)

        # Far behind the first KiB, which was all that once was read.
        project.damage(old[0])
        run = self.fails(self.backup("validate"), "1 backup(s) failed validation")
        self.assertIn(f"[ERROR] Backup {os.path.basename(old[0])} validation failed", run.stdout)
        self.assertIn(f"[SUCCESS] Backup {os.path.basename(old[1])} is valid", run.stdout)
        self.assertNotIn("All backups validated", run.stdout)

    def test_validate_nothing(self):
        self.ok(self.backup("validate"))

    def test_list(self):
        run = self.ok(self.backup("list"))
        for text in ("Manual Backups:\n  No manual backups found",
                     "Automated Backups:\n  No automated backups found",
                     "Litestream Backups:\n  No Litestream backups found"):
            self.assertIn(text, run.stdout)
        paths = [old_backup(os.path.join(self.backups, "manual"), "futures_trades", 1, age)
                 for age in range(1, 13)]
        os.makedirs(os.path.join(self.backups, "local/futures_trades/generations"))
        run = self.ok(self.backup("list"))
        manual = run.stdout.split("Manual Backups:\n")[1].split("\n\n")[0].splitlines()
        self.assertEqual([os.path.realpath(p) for p in manual[:10]], paths[:10])
        self.assertEqual(manual[10:], ["  ... and 2 more"])
        self.assertIn("/local/futures_trades\n", run.stdout)

    def test_cleanup(self):
        kept, gone = [], []
        for backup_type, limit in (("manual", 7), ("automated", 7), ("compressed", 30),
                                   ("safety", 10000)):
            folder = os.path.join(self.backups, backup_type)
            os.makedirs(folder)
            for age in (1, 6.9, 7.1, 8, 29, 31, 100):
                path = old_backup(folder, "futures_trades", 1, age)
                (kept if age < limit else gone).append(path)
        run = self.ok(self.backup("cleanup", env={"LOCAL_RETENTION_DAYS": 1,
                                                  "COMPRESSED_RETENTION_DAYS": 1}))
        for path in kept:
            self.assertTrue(os.path.exists(path), path)
        for path in gone:
            self.assertFalse(os.path.exists(path), path)
            self.assertIn(f"[INFO] Removed: {os.path.basename(path)}", run.stdout)
        self.assertEqual(run.stdout.count("Removed: "), len(gone))
        for backup_type, n in (("manual", 2), ("automated", 2), ("compressed", 5), ("safety", 7)):
            self.assertEqual(len(self.files(backup_type, ".json")), n)
        self.assertIn("[SUCCESS] Backup cleanup completed", run.stdout)

    def test_cleanup_leaves_the_last_one(self):
        folder = os.path.join(self.backups, "manual")
        os.makedirs(folder)
        path = old_backup(folder, "futures_trades", 1, 400)
        run = self.ok(self.backup("cleanup"))
        self.assertTrue(os.path.exists(path))
        self.assertNotIn("Removed", run.stdout)

    def test_stats(self):
        run = self.ok(self.backup("stats"))
        self.assertIn("Manual backups: 0\nAutomated backups: 0\n", run.stdout)
        for backup_type, ages in (("manual", (3, 5)), ("automated", (1,))):
            folder = os.path.join(self.backups, backup_type)
            os.makedirs(folder, exist_ok=True)
            for age in ages:
                path = old_backup(folder, "futures_trades", 50, age)
        run = self.ok(self.backup("stats"))
        self.assertIn("Backup Statistics:\n====================\n"
                      "Manual backups: 2\nAutomated backups: 1\nTotal backup size: ", run.stdout)
        self.assertRegex(run.stdout, r"Total backup size: [\d.]+K\n")
        self.assertIn(f"\nLatest backup: {os.path.basename(path)}\n", run.stdout)
        self.assertRegex(run.stdout, r"\nCreated: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n")

    def test_help_and_wrong_words(self):
        for word in ("help", "--help", "-h"):
            run = self.ok(self.backup(word))
            for command in ("backup", "validate", "list", "cleanup", "stats", "help"):
                self.assertRegex(run.stdout, rf"\n    {command}\b")
        for words, text in ((["frobnicate"], "Unknown command: frobnicate"),
                            (["backup", "--frobnicate"], "--frobnicate"),
                            (["backup", "--db-path"], "needs a file"),
                            (["list", "x"], "Unknown argument: x")):
            run = self.fails(self.backup(*words), text)
            self.assertIn("Usage: ", run.stdout)

    def test_colours_on_a_terminal(self):
        shown, status = self.run_on_terminal("backup-database.sh", "backup")
        self.assertEqual(status, 0, shown)
        self.assertIn("\033[0;32m[SUCCESS]\033[0m", shown)
        self.assertNotIn("\033", self.ok(self.backup()).stdout)
        self.assertNotIn("\033", "".join(self.log_lines("backup.log")))
        shown, status = self.run_on_terminal("backup-database.sh", "frobnicate")
        self.assertEqual((status, shown.count("Unknown command")), (1, 1))
        self.assertIn("\033[0;31m[ERROR]\033[0m", shown)

    def test_without_asof(self):
        env = {"ASOF": "", "PATH": self.bin + ":/usr/bin:/bin"}
        if shutil.which("asof", path=env["PATH"]) or os.path.exists(
                os.path.join(harness.ROOT, "build/tools/asof")):
            self.skipTest("an asof is installed here")
        self.fails(self.backup(env=env), "asof not found")


class Restore(Case):
    def setUp(self):
        super().setUp()
        self.ok(self.script("backup-database.sh"))
        self.backup_path, = self.files("manual")
        add_rows(self.db, 50)
        self.close_application()

    def restore(self, *args, **kw):
        return self.script("restore-database.sh", *args, **kw)

    def assert_untouched(self):
        self.assertEqual(rows_in(self.main_path), 150)
        self.assertEqual(self.files("safety"), [])

    def assert_restored(self, run):
        self.ok(run)
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertEqual(stat.S_IMODE(os.stat(self.main_path).st_mode), 0o644)
        safety, = self.files("safety")
        self.assertRegex(os.path.basename(safety), r"^futures_trades_pre_restore" + BACKUP_NAME)
        self.assertEqual(rows_in_gz(safety, self.dir), 150)

    def test_force_wherever_it_stands(self):
        for words in (["restore", self.backup_path, "--force"],
                      ["--force", "restore", self.backup_path],
                      ["restore", "--force", self.backup_path],
                      ["restore", self.backup_path, self.main_path, "--force"]):
            with self.subTest(words):
                run = self.restore(*words)
                self.assert_restored(run)
                self.assertIn("[SUCCESS] Database restore completed successfully", run.stdout)
                self.restore("restore", self.files("safety")[0], "--force")
                shutil.rmtree(os.path.join(self.backups, "safety"))

    def test_nobody_to_ask(self):
        started = time.monotonic()
        run = self.fails(self.restore("restore", self.backup_path), "--force")
        self.assertNotIn("SUCCESS", run.stdout)
        # A pipe that nobody writes to, as a service may have it.
        read_end, write_end = os.pipe()
        try:
            self.fails(self.restore("restore", self.backup_path, stdin=read_end), "--force")
            self.fails(self.restore(stdin=read_end), "Nobody is there to choose")
        finally:
            os.close(read_end)
            os.close(write_end)
        self.assertLess(time.monotonic() - started, 30)
        self.assert_untouched()

    def test_answers(self):
        run = self.ok(self.restore("restore", self.backup_path, input="n"))
        self.assertIn("[INFO] Restore cancelled by user", run.stdout)
        self.ok(self.restore("restore", self.backup_path, input="\n"))
        self.assert_untouched()
        self.assert_restored(self.restore("restore", self.backup_path, input="y"))

    def test_one_key_on_a_terminal(self):
        shown, status = self.run_on_terminal("restore-database.sh", "restore", self.backup_path,
                                             keys=b"y", expect=b"(y/N)")
        self.assertEqual(status, 0, shown)
        self.assertEqual(rows_in(self.main_path), 100)

    def test_running_services(self):
        self.stub("docker", "echo other; echo futurestradinglog-app")
        run = self.restore("restore", self.backup_path, input="n")
        self.assertEqual(run.returncode, 0)
        self.assertIn("[WARN] Services are running, stop them before a restore: "
                      "futurestradinglog-app\n", run.stdout)
        self.assert_untouched()
        self.stub("docker", "exit 1")
        self.stub("pgrep", 'case "$2" in *app*py*) exit 0;; esac; exit 1')
        run = self.restore("restore", self.backup_path, self.path("elsewhere.db"), input="n")
        self.assertEqual(run.returncode, 0)
        self.assertIn("[WARN] Python application appears to be running", run.stdout)
        self.assertFalse(os.path.exists(self.path("elsewhere.db")))
        self.assert_restored(self.restore("restore", self.backup_path, "--force"))

    def test_new_target(self):
        target = self.path("new folder", "copy.db")
        run = self.ok(self.restore("restore", os.path.relpath(self.backup_path, self.project),
                                   target))
        self.assertEqual(rows_in(target), 100)
        self.assertEqual(stat.S_IMODE(os.stat(target).st_mode), 0o644)
        self.assertNotIn("Safety", run.stdout)
        self.assert_untouched()

    def test_files_of_old_tools(self):
        for shape, compress in (("script", True), ("python", True), ("python", False)):
            path = old_backup(self.dir, "futures_trades", 33, 1, shape, compress)
            target = self.path(f"target-{shape}-{compress}.db")
            self.ok(self.restore("restore", path, target))
            self.assertEqual(rows_in(target), 33)
            os.unlink(path)

    def test_stale_wal_is_not_applied(self):
        db = harness.open_db(self.main_path, wal_autocheckpoint=0)
        add_rows(db, 9)
        wal = self.path("wal")
        shutil.copy(self.main_path + "-wal", wal)
        db.close()
        shutil.copy(wal, self.main_path + "-wal")
        self.ok(self.restore("restore", self.backup_path, "--force"))
        self.assertEqual(rows_in(self.main_path), 100)

    def test_damaged_present_database(self):
        with open(self.main_path, "r+b") as f:
            f.seek(4096)
            f.write(b"\xff" * 4096)
        run = self.restore("restore", self.backup_path, "--force")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertEqual(len(self.files("safety")), 1)

    def test_bad_backups(self):
        self.fails(self.restore("restore", "backups/manual/none.db.gz", "--force"),
                   "Backup file not found: backups/manual/none.db.gz")
        project.damage(self.backup_path)
        self.fails(self.restore("restore", self.backup_path, "--force"), "Restore failed: ")
        self.assertEqual(rows_in(self.main_path), 150)

    def test_open_database_is_named(self):
        db = harness.open_db(self.main_path)
        self.addCleanup(db.close)
        db.execute("SELECT count(*) FROM trades").fetchone()
        run = self.restore("restore", self.backup_path, input="yn")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(run.stdout, rf"\[WARN\] The database is open in .*\(process {os.getpid()}\)")
        self.assertEqual(db.execute("SELECT count(*) FROM trades").fetchone()[0], 150)
        self.fails(self.restore("restore", self.backup_path, input="y"), "nobody is there to ask")
        self.assert_untouched()
        run = self.restore("restore", self.backup_path, "--force")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("[WARN] Restart ", run.stdout)
        self.assertEqual(rows_in(self.main_path), 100)

    def test_interactive(self):
        self.ok(self.script("backup-database.sh"))
        self.assertIn("Invalid choice", self.restore("interactive", input="9\n").stderr)
        run = self.ok(self.restore("interactive", input="5\n"))
        self.assertIn("[INFO] Restore cancelled by user", run.stdout)
        run = self.ok(self.restore(input="1\n\n"))
        for text in ("Available Backups for Restore:", "Manual Backups:", "Automated Backups:",
                     "Safety Backups:", "Litestream Backups:", "1) Restore from manual backup",
                     "2) Restore from automated backup", "3) Restore from safety backup",
                     "4) Restore from Litestream", "5) Cancel", f"2) {self.backup_path}"):
            self.assertIn(text, run.stdout)
        self.fails(self.restore(input="2\n1\n"), "No automated backups found")
        self.assert_untouched()
        self.assert_restored(self.restore(input="1\n7\n2\ny"))

    def test_list(self):
        run = self.ok(self.restore("list"))
        self.assertIn(f"Manual Backups:\n{self.backup_path}\n", run.stdout)
        self.assertIn("Safety Backups:\n  No safety backups found", run.stdout)
        self.assertNotIn("No backups available", run.stdout)
        shutil.rmtree(self.backups)
        self.assertIn("No backups available for restore", self.ok(self.restore("list")).stdout)

    def test_log(self):
        self.ok(self.restore("restore", self.backup_path, "--force"))
        self.restore("restore", "none.db")
        levels = set()
        for line in self.log_lines("restore.log"):
            self.assertRegex(line, rf"^{LINE}$")
            levels.add(re.match(LINE, line).group(1))
        self.assertEqual(levels, {"INFO", "WARN", "SUCCESS", "ERROR"})

    def test_help_and_wrong_words(self):
        for word in ("help", "--help", "-h"):
            run = self.ok(self.restore(word))
            for command in ("restore", "litestream", "interactive", "list", "help"):
                self.assertRegex(run.stdout, rf"\n    {command}\b")
        for words, text in ((["frobnicate"], "Unknown command: frobnicate"),
                            (["restore"], "Backup file required"),
                            (["restore", "a", "b", "c"], "Unknown argument: c"),
                            (["restore", "a", "--frob"], "Unknown option: --frob"),
                            (["litestream", "a", "b"], "Unknown argument: b")):
            self.assertIn("Usage: ", self.fails(self.restore(*words), text).stdout)


class Moments(Case):
    """restore-database.sh litestream"""

    def setUp(self):
        super().setUp()
        self.writer = self.replicate(db=self.main_path, archive=self.backups)
        self.writer.wait_ready()
        self.writer.wait_known()
        time.sleep(1.1)  # TIMEs are typed to the second
        self.moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        time.sleep(1.1)
        add_rows(self.db, 50)
        self.writer.wait_known()

    def restore(self, *args, **kw):
        return self.script("restore-database.sh", *args, **kw)

    def test_time_and_latest(self):
        self.close_application()
        self.assertEqual(self.writer.stop(), 0)
        run = self.ok(self.restore("litestream", self.moment))
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertEqual(stat.S_IMODE(os.stat(self.main_path).st_mode), 0o644)
        self.assertIn("[SUCCESS] Restored database integrity check passed", run.stdout)
        self.assertEqual(rows_in_gz(self.files("safety")[0], self.dir), 150)
        os.unlink(self.main_path)
        self.ok(self.restore("litestream"))
        self.assertEqual(rows_in(self.main_path), 150)
        self.ok(self.restore("litestream", self.moment + "Z"))
        self.assertEqual(rows_in(self.main_path), 100)
        self.ok(self.restore("litestream", "latest"))
        self.assertEqual(rows_in(self.main_path), 150)

    def test_menu(self):
        self.close_application()
        self.assertEqual(self.writer.stop(), 0)
        run = self.ok(self.restore(input=f"4\n{self.moment}\n"))
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertIn("local/futures_trades.db\n", run.stdout)
        self.ok(self.restore(input="4\n\n"))
        self.assertEqual(rows_in(self.main_path), 150)

    def test_under_a_running_replicator(self):
        # It lets go for the swap by itself, and goes on from there.
        self.close_application()
        self.ok(self.restore("litestream", self.moment))
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertTrue(self.writer.alive(), self.writer.log())

    def test_configuration_as_shipped(self):
        # Its paths are those of a container, the commands are typed on the host.
        shutil.copy(os.path.join(harness.ROOT, "tests/data/old-system/config/litestream.yml"),
                    self.at("config/litestream.yml"))
        self.assertIn("Configuration is valid",
                      self.script("setup-litestream.sh", "configure").stdout)
        litestream, out = self.path("litestream"), self.path("out.db")
        os.symlink(harness.ASOF, litestream)
        run = subprocess.run([litestream, "restore", "-config", "config/litestream.yml",
                              "-timestamp", self.moment, "-o", out, "data/db/futures_trades.db"],
                             cwd=self.project, env=self.environment(BACKUP_DIR=self.backups),
                             check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(rows_in(out), 100)

    def test_wrong_times(self):
        self.close_application()
        for text in ("never", "2099-01-01T00:00:00", "2000-01-01T00:00:00"):
            self.fails(self.restore("litestream", text), "Restore failed: ")
        self.assertEqual(rows_in(self.main_path), 150)

    def test_no_history(self):
        shutil.rmtree(self.at("backups"))
        self.fails(self.restore("litestream"), "No history of futures_trades.db")


class Setup(Case):
    def setup(self, *args, **kw):
        return self.script("setup-litestream.sh", *args, **kw)

    def test_status(self):
        self.stub("systemctl", "exit 1")
        for words in ([], ["status"]):
            run = self.ok(self.setup(*words))
            for text in ("Litestream Setup Status:", "✓ asof installed: asof ",
                         "✓ Configuration file exists: " + self.at("config/litestream.yml"),
                         "✓ Configuration is valid", "✓ Backup directories exist",
                         "✗ Systemd service not enabled",
                         "✓ Main database exists: " + self.main_path):
                self.assertIn(text, run.stdout)
        self.stub("systemctl", '[ "$1" = is-enabled ]')
        run = self.ok(self.setup())
        self.assertIn("✓ Systemd service enabled\n! Systemd service not running", run.stdout)
        self.stub("systemctl", "exit 0")
        self.assertIn("✓ Systemd service running", self.ok(self.setup()).stdout)
        with open(self.at("config/litestream.yml"), "w", encoding="ascii") as f:
            f.write("dbs: [\n")
        self.assertIn("✗ Configuration validation failed", self.ok(self.setup()).stdout)
        os.unlink(self.at("config/litestream.yml"))
        os.rmdir(self.backups)
        self.close_application()
        os.unlink(self.main_path)
        run = self.ok(self.setup())
        for text in ("✗ Configuration file missing", "✗ Backup directories missing",
                     "! Main database not found"):
            self.assertIn(text, run.stdout)

    def test_configure(self):
        os.rmdir(self.backups)
        run = self.ok(self.setup("configure"))
        self.assertIn("[SUCCESS] Configuration is valid", run.stdout)
        self.assertEqual(sorted(os.listdir(self.backups)),
                         ["automated", "compressed", "local", "manual", "safety"])
        with open(self.at("config/litestream.yml"), "a", encoding="ascii") as f:
            f.write("    snapshot-interval: often\n")
        run = self.setup("configure")
        self.assertEqual(run.returncode, 1)
        self.assertIn("[ERROR] Configuration validation failed", run.stderr)
        os.unlink(self.at("config/litestream.yml"))
        self.fails(self.setup("configure"), "Configuration not found")

    def test_install(self):
        env = {"PREFIX": self.path("prefix")}
        os.mkdir(env["PREFIX"])
        run = self.ok(self.setup("install", env=env))
        self.assertIn("[SUCCESS] asof installed", run.stdout)
        litestream = os.path.join(env["PREFIX"], "bin/litestream")
        self.assertEqual(os.readlink(litestream), "asof")
        version = subprocess.run([litestream, "version"], check=True, stdout=subprocess.PIPE)
        self.assertRegex(version.stdout.decode(), r"^asof v\d+\.\d+\.\d+\n$")
        self.assertIn("up to date", self.ok(self.setup("install", env=env)).stdout)

    def test_install_asks_before_it_replaces(self):
        env = {"PREFIX": self.path("prefix")}
        bin_folder = os.path.join(env["PREFIX"], "bin")
        os.makedirs(bin_folder)
        other = os.path.join(bin_folder, "litestream")
        with open(other, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\necho v0.3.13\n")
        os.chmod(other, 0o755)
        self.fails(self.setup("install", env=env), "nobody is there to ask")
        self.ok(self.setup("install", env=env, input="n"))
        self.assertFalse(os.path.islink(other))
        self.assertIn("v0.3.13", self.ok(self.setup("install", env=env, input="y")).stdout)
        self.assertTrue(os.path.islink(other))
        self.assertTrue(os.path.exists(other + ".before-asof"))

    def test_systemd(self):
        env = {"UNIT_DIR": self.path("units"), "PREFIX": "/opt/a b"}
        os.mkdir(env["UNIT_DIR"])
        self.stub("systemctl", f'echo "$*" >> {self.path("calls")}')
        self.ok(self.setup("systemd", env=env))
        with open(self.path("calls"), encoding="ascii") as f:
            self.assertEqual(f.read(), "daemon-reload\nenable litestream\n")
        unit = os.path.join(env["UNIT_DIR"], "litestream.service")
        with open(unit, encoding="utf-8") as f:
            text = f.read()
        self.assertIn('ExecStart="/opt/a b/bin/asof" run --config '
                      f'"{self.at("config/litestream.yml")}"\n', text)
        self.assertIn(f'Environment="DATA_DIR={self.at("data")}" "BACKUP_DIR={self.backups}"\n', text)
        self.assertIn(f'ReadWritePaths="{self.at("data")}" "{self.backups}"\n', text)
        self.assertIn("\nType=notify\n", text)
        if shutil.which("systemd-analyze"):
            with open(unit, "w", encoding="utf-8") as f:
                f.write(text.replace("/opt/a b/bin/asof", "/bin/true"))
            run = subprocess.run(["systemd-analyze", "--man=no", "verify", unit], check=False,
                                 stderr=subprocess.PIPE, text=True)
            self.assertNotIn("litestream.service", run.stderr)
        self.stub("systemctl", "exit 1")
        self.fails(self.setup("systemd", env=env), "not enabled")

    def test_test(self):
        run = self.ok(self.setup("test"))
        self.assertIn("[SUCCESS] Test completed successfully", run.stdout)
        run = self.setup("test", env={"ASOF": "/bin/false"})
        self.assertEqual(run.returncode, 1)
        self.assertNotIn("SUCCESS", run.stdout)

    def test_full(self):
        env = {"UNIT_DIR": self.path("units"), "PREFIX": self.path("prefix")}
        os.mkdir(env["UNIT_DIR"])
        os.mkdir(env["PREFIX"])
        self.stub("systemctl", "exit 0")
        run = self.ok(self.setup("full", env=env))
        for text in ("asof installed", "Configuration is valid", "created and enabled",
                     "Test completed successfully", "✓ Systemd service running"):
            self.assertIn(text, run.stdout)

    def test_help_and_wrong_words(self):
        for word in ("help", "--help", "-h"):
            run = self.ok(self.setup(word))
            for command in ("status", "install", "configure", "systemd", "test", "full", "help"):
                self.assertRegex(run.stdout, rf"\n    {command}\b")
        for words in (["frobnicate"], ["status", "x"]):
            self.assertIn("Usage: ", self.fails(self.setup(*words), words[-1]).stdout)


class Environment(Case):
    """With a .env.backup in the project everything goes on: the scripts never read it."""

    def test_everything(self):
        shipped = os.path.join(harness.ROOT, "tests/data/old-system")
        shutil.copy(os.path.join(shipped, "config/litestream.yml"), self.at("config"))
        with open(os.path.join(shipped, ".env.backup"), encoding="utf-8") as f:
            text = re.sub(r"RETENTION_DAYS=\d+", "RETENTION_DAYS=1", f.read())
        with open(self.at(".env.backup"), "w", encoding="utf-8") as f:
            f.write(text)
        for command in ("backup", "validate", "list", "stats"):
            self.ok(self.script("backup-database.sh", command))
        for age in (2, 3, 9):
            old_backup(os.path.join(self.backups, "manual"), "futures_trades", 1, age)
        self.ok(self.script("backup-database.sh", "cleanup"))
        self.assertEqual(len(self.files("manual")), 3)
        add_rows(self.db, 50)
        self.close_application()
        self.ok(self.script("restore-database.sh", "restore", self.files("manual")[-1], "--force"))
        self.assertEqual(rows_in(self.main_path), 100)
        self.ok(self.script("restore-database.sh", "list"))
        self.stub("systemctl", "exit 1")
        self.assertIn("✓ Configuration is valid",
                      self.ok(self.script("setup-litestream.sh", "status")).stdout)
        self.ok(self.script("setup-litestream.sh", "test"))


class Folder(Case):
    """scripts/ as a link to the whole folder does as well."""

    def test_linked_folder(self):
        shutil.rmtree(self.at("scripts"))
        os.symlink(project.TOOLS, self.at("scripts"))
        self.ok(self.script("backup-database.sh"))
        self.assertEqual(len(self.files("manual")), 1)


if __name__ == "__main__":
    harness.main()

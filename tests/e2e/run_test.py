#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof run: many databases, folders, reloads, the application, the service manager."""

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from daemon import Case, Daemon  # noqa: E402
from harness import asof, commit, counter_of, make_counter, need_fuse, wait_for  # noqa: E402


class Databases(Case):
    def test_many(self):
        """Each has its own commits; none is lost, none is another's."""
        names = [f"d{i}.db" for i in range(12)]
        dbs = [self.make(n) for n in names]
        self.configure(dbs=[f"path: {self.data(n)}" for n in names])
        daemon = Daemon(self)
        for i, db in enumerate(dbs):
            for _ in range(10 + i):
                commit(db)
        daemon.sync()
        for i, name in enumerate(names):
            self.assertEqual(self.restored_counter(name), 10 + i)
        self.assertEqual(daemon.stop(), 0)

    def test_last_commits_are_captured_at_the_end(self):
        names = [f"d{i}.db" for i in range(6)]
        dbs = [self.make(n) for n in names]
        self.configure(dbs=[f"path: {self.data(n)}" for n in names])
        daemon = Daemon(self)
        daemon.wait_replicating(*names)
        for db in dbs:
            for _ in range(20):
                commit(db)
        began = time.monotonic()
        self.assertEqual(daemon.stop(), 0)
        self.assertLess(time.monotonic() - began, 5)
        for name in names:
            self.assertEqual(self.restored_counter(name), 20)

    def test_one_that_comes_later(self):
        self.configure(dbs=[f"path: {self.data('later.db')}"])
        daemon = Daemon(self)
        self.assertEqual(daemon.databases()["later.db"]["state"], "waiting")
        db = self.make("later.db")
        commit(db)
        daemon.wait_replicating("later.db")
        daemon.sync()
        self.assertEqual(self.restored_counter("later.db"), 1)

    def test_one_that_fails_disturbs_no_other(self):
        """An archive that cannot be written, a file that is no database, one in rollback mode."""
        good = self.make("good.db")
        self.make("nowhere.db")
        with open(self.data("rubbish.db"), "wb") as f:
            f.write(b"certainly no database " * 1000)
        rollback = sqlite3.connect(self.data("rollback.db"))
        rollback.execute("CREATE TABLE t (x)")
        rollback.close()
        self.configure(dbs=[
            f"path: {self.data('good.db')}",
            f"{{path: {self.data('nowhere.db')}, archive: {self.path('no', 'such', 'folder')}}}",
            f"path: {self.data('rubbish.db')}", f"path: {self.data('rollback.db')}"])
        daemon = Daemon(self)
        daemon.wait_replicating("good.db")
        rows = daemon.databases()
        self.assertEqual(rows["nowhere.db"]["state"], "failed")
        self.assertIn("does not exist", rows["nowhere.db"]["reason"])
        self.assertEqual(rows["rubbish.db"]["state"], "waiting")
        self.assertEqual(rows["rollback.db"]["state"], "waiting")
        self.assertIn("rollback", rows["rollback.db"]["reason"])
        commit(good)
        daemon.sync("good.db")
        self.assertEqual(self.restored_counter("good.db"), 1)
        # And each goes on by itself once it can.
        os.makedirs(self.path("no", "such"))
        os.unlink(self.data("rubbish.db"))
        db = self.make("rubbish.db")
        commit(db)
        daemon.wait_replicating("nowhere.db", "rubbish.db")

    def test_a_file_that_was_cut(self):
        """Its -wal is whole and alone is no database: told, tried seldom, gone on with when mended."""
        db = self.make("a.db")
        for _ in range(20):
            commit(db, 20)
        db.execute("PRAGMA wal_checkpoint")
        commit(db)
        for end in ("", "-wal"):
            shutil.copy(self.data("a.db") + end, self.data("cut.db") + end)
        with open(self.data("cut.db"), "rb") as f:
            whole = f.read()
        os.truncate(self.data("cut.db"), 200)
        self.configure(dbs=[f"path: {self.data('cut.db')}"])
        daemon = Daemon(self)
        told = wait_for("the reason", lambda: daemon.databases()["cut.db"]["reason"])
        self.assertIn(f"'{self.data('cut.db')}' (0 whole pages)", told)
        self.assertIn("put it right, or asof restore", told)
        wait_for("the status", lambda: told[:60] in asof("status", "--config", self.config).stdout)
        # Three tries, each of which takes the -wal in, and then none before the file differs.
        wait_for("tries", lambda: daemon.has("continuity broken", 3))

        def left_alone():
            known = daemon.databases()["cut.db"]["known_until"]
            time.sleep(1)
            return daemon.databases()["cut.db"]["known_until"] == known

        # The status is told a moment after the third try's line.
        wait_for("it to be left alone", left_alone)
        self.assertLess(daemon.log().count("continuity broken"), 6)
        self.assertEqual(daemon.log().count("the database cannot be captured"), 1)
        with open(self.data("cut.db"), "r+b") as f:
            f.write(whole)
        daemon.wait_replicating("cut.db")
        self.assertFalse(daemon.databases()["cut.db"]["reason"])
        self.assertEqual(self.restored_counter("cut.db"), 21)

    def test_links_are_one_file(self):
        self.make("a.db")
        os.symlink(self.data("a.db"), self.data("b.db"))
        os.link(self.data("a.db"), self.data("c.db"))
        self.configure(dbs=[f"dir: {self.path('data')}\n    pattern: '*.db'"])
        daemon = Daemon(self)
        wait_for("one of them", lambda: [r for r in daemon.databases().values()
                                         if r["state"] == "replicating"])
        time.sleep(1)
        rows = daemon.databases()
        self.assertEqual(sum(r["state"] == "replicating" for r in rows.values()), 1)
        for row in rows.values():
            if row["state"] != "replicating":
                self.assertIn("same file", row["reason"])

    def test_folder(self):
        """New files are found, those of other names are not, one that goes is dropped."""
        first = self.make("first.db")
        with open(self.data("notes.txt"), "w", encoding="ascii") as f:
            f.write("no database")
        self.configure(dbs=[f"dir: {self.path('data')}\n    pattern: '*.db'\n    watch: true"])
        daemon = Daemon(self)
        daemon.wait_replicating("first.db")
        second = self.make("second.db")
        daemon.wait_replicating("second.db")
        commit(first)
        commit(second)
        commit(second)
        daemon.sync()
        self.assertEqual(sorted(daemon.databases()), ["first.db", "second.db"])
        self.assertEqual(self.restored_counter("first.db"), 1)
        self.assertEqual(self.restored_counter("second.db"), 2)
        second.close()
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self.data("second.db") + end):
                os.unlink(self.data("second.db") + end)
        wait_for("second.db to be dropped", lambda: sorted(daemon.databases()) == ["first.db"], 60)
        commit(first)
        daemon.sync()
        self.assertEqual(self.restored_counter("first.db"), 2)

    def test_renamed(self):
        """The file goes on under its new name, and does not wait for the old one to be gone."""
        db = self.make("a.db")
        self.configure(dbs=[f"dir: {self.path('data')}"])
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        commit(db)
        db.close()
        daemon.sync()
        # Ten seconds is what one that is gone gets; on a busy machine each look takes its time.
        names = ["a.db", "b.db", "c.db", "d.db"]
        for old, new in zip(names, names[1:]):
            began = time.monotonic()
            # The -wal stays while asof is attached: both get the new name.
            for end in ("-shm", "-wal", ""):
                if os.path.exists(self.data(old) + end):
                    os.rename(self.data(old) + end, self.data(new) + end)
            daemon.wait_replicating(new)
            self.assertIn(f"gone from its folder db={old}", daemon.log())
            self.assertEqual(self.restored_counter(new), 1)
            if time.monotonic() - began < 9:
                return
        self.fail("each time it waited")

    def test_several_archives(self):
        a, b = self.make("a.db"), self.make("b.db")
        self.configure(dbs=[f"path: {self.data('a.db')}",
                            f"{{path: {self.data('b.db')}, archive: {self.path('other')}}}"])
        daemon = Daemon(self)
        commit(a)
        commit(b)
        daemon.sync()
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(os.listdir(self.path("archive", "local")), ["a.db"])
        self.assertEqual(os.listdir(self.path("other", "local")), ["b.db"])

    def test_a_second_daemon_is_refused(self):
        self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}"])
        daemon = Daemon(self)
        run = asof("run", "--config", self.config)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("another `asof run` listens", run.stderr)
        self.assertEqual(daemon.databases()["a.db"]["state"], "replicating")


class Killed(Case):
    def test_killed_at_any_moment(self):
        """kill -9 and start again, again and again, beside writers: nothing acknowledged is lost."""
        names = [f"d{i}.db" for i in range(4)]
        self.configure(dbs=[f"path: {self.data(n)}" for n in names])
        counts, stop = dict.fromkeys(names, 0), threading.Event()

        def write(name):
            db = harness.open_db(self.data(name))
            make_counter(db)
            while not stop.is_set():
                commit(db)
                counts[name] += 1
                time.sleep(random.random() * 0.01)
            db.close()

        writers = [threading.Thread(target=write, args=(n,)) for n in names]
        for w in writers:
            w.start()
        try:
            for round_ in range(6):
                daemon = Daemon(self, wait=round_ % 2 == 0)
                time.sleep(random.random() * 1.5)
                daemon.process.kill()
                daemon.process.wait()
            daemon = Daemon(self)
            daemon.wait_replicating(*names)
            before = dict(counts)
            daemon.sync()
            for name in names:
                self.assertGreaterEqual(self.restored_counter(name), before[name])
        finally:
            stop.set()
            for w in writers:
                w.join()
        self.assertEqual(daemon.stop(), 0)
        for name in names:
            self.assertEqual(self.restored_counter(name), counts[name])


class Reload(Case):
    def test_added_removed_changed(self):
        dbs = {n: self.make(n) for n in ("a.db", "b.db", "c.db")}
        self.configure(dbs=[f"path: {self.data('a.db')}", f"path: {self.data('b.db')}"])
        daemon = Daemon(self)
        daemon.wait_replicating("a.db", "b.db")
        since = daemon.databases()["a.db"]["since"]
        self.configure(dbs=[f"path: {self.data('a.db')}", f"path: {self.data('c.db')}"])
        daemon.reload()
        daemon.wait_replicating("a.db", "c.db")
        wait_for("b.db to go", lambda: "b.db" not in daemon.databases())
        self.assertEqual(daemon.databases()["a.db"]["since"], since)
        for db in dbs.values():
            commit(db)
        # Another name in the archive: that database alone starts anew.
        self.configure(dbs=[f"path: {self.data('a.db')}",
                            f"{{path: {self.data('c.db')}, name: see.db}}"])
        daemon.reload()
        daemon.wait_replicating("a.db", "see.db")
        self.assertEqual(daemon.databases()["a.db"]["since"], since)
        daemon.sync()
        self.assertEqual(self.restored_counter("a.db"), 1)
        self.assertEqual(self.restored_counter("see.db"), 1)
        self.assertEqual(daemon.log().count("gap declared db=a.db"), 0)

    def test_broken_configuration_keeps_the_old_one(self):
        db = self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}"])
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        since = daemon.databases()["a.db"]["since"]
        self.configure("nonsense: 1", "log: {level: loud}", dbs=["pat: nowhere"])
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("the refusal", lambda: daemon.has("the former one stays"))
        errors = [line for line in daemon.log().splitlines() if "error config" in line]
        self.assertGreaterEqual(len(errors), 2, daemon.log())  # all of them, by line
        for line in errors:
            self.assertRegex(line, r"asof\.yml:\d+: ")
        self.assertEqual(daemon.databases()["a.db"]["since"], since)
        commit(db)
        daemon.sync()
        self.assertEqual(self.restored_counter("a.db"), 1)
        # Where it listens stands in the file that is broken: no word that it does not run.
        run = asof("pause", "a.db", "--config", self.config)
        self.assert_fails(run, 3, "asof.yml", "is broken", "asof check")

    def test_broken_at_the_start(self):
        self.configure("nonsense: 1", dbs=["pat: nowhere"])
        run = asof("run", "--config", self.config)
        self.assertEqual(run.returncode, 2, run.stderr)
        self.assertRegex(run.stderr, r"\nasof: [^\n]+\n\Z")

    def test_by_order(self):
        self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}"])
        daemon = Daemon(self)
        self.make("b.db")
        self.configure(dbs=[f"path: {self.data('a.db')}", f"path: {self.data('b.db')}"])
        run = asof("reload", "--config", self.config)
        self.assertEqual(run.returncode, 0, run.stderr)
        daemon.wait_replicating("a.db", "b.db")


class Application(Case):
    def test_exec(self):
        """Started once replication runs; its last commit is captured, its status is ours."""
        self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}"])
        script = self.path("app.py")
        with open(script, "w", encoding="ascii") as f:
            f.write("import sqlite3, sys\n"
                    "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                    "for _ in range(25):\n"
                    "    db.execute('UPDATE counter SET n = n + 1')\n"
                    "sys.exit(7)\n")
        run = asof("run", "--config", self.config, "-exec",
                   f"{sys.executable} {script} {self.data('a.db')}")
        self.assertEqual(run.returncode, 7, run.stderr)
        self.assertEqual(self.restored_counter("a.db"), 25)

    def test_signals_go_to_it(self):
        self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}"])
        heard = self.path("heard")
        script = self.path("app.sh")
        with open(script, "w", encoding="ascii") as f:
            f.write(f"trap 'echo usr1 >> {heard}' USR1\n"
                    f"trap 'echo term >> {heard}; exit 3' TERM\n"
                    f"echo up >> {heard}\nwhile :; do sleep 0.05; done\n")
        daemon = Daemon(self, "--exec", f"exec sh {script}")

        def told(word):
            if not os.path.exists(heard):
                return False
            with open(heard, encoding="ascii") as f:
                return word in f.read()
        wait_for("the application", lambda: told("up"))
        daemon.process.send_signal(signal.SIGUSR1)
        wait_for("SIGUSR1", lambda: told("usr1"))
        self.assertEqual(daemon.stop(), 3)
        self.assertTrue(told("term"))

    def test_restore_if_missing(self):
        db = self.make("a.db")
        entry = f"{{path: {self.data('a.db')}, restore-if-db-not-exists: true}}"
        self.configure(dbs=[entry])
        daemon = Daemon(self)  # nothing to restore, it is there
        for _ in range(5):
            commit(db)
        self.assertEqual(daemon.stop(), 0)
        db.close()
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self.data("a.db") + end):
                os.unlink(self.data("a.db") + end)
        daemon = Daemon(self)
        self.assertEqual(counter_of(self.data("a.db")), 5)
        self.assertEqual(daemon.stop(), 0)

    def test_once(self):
        names = ["a.db", "b.db"]
        dbs = [self.make(n) for n in names]
        self.configure(dbs=[f"path: {self.data(n)}" for n in (*names, "missing.db")])
        for round_ in range(1, 3):
            for db in dbs:
                commit(db)
            run = asof("run", "--once", "--config", self.config)
            self.assertEqual(run.returncode, 0, run.stderr)
            for name in names:
                self.assertEqual(self.restored_counter(name), round_)

    def test_once_with_a_failure(self):
        self.make("a.db")
        self.configure(dbs=[f"{{path: {self.data('a.db')}, archive: {self.path('no', 'where')}}}"])
        run = asof("run", "--once", "--config", self.config)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("a.db", run.stderr.splitlines()[-1])


class Schedules(Case):
    def entries(self):
        path = os.path.join(self.archive, "journal")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def runs(self, job):
        return [e for e in self.entries() if e["job"] == job and e["ended"]]

    def backups(self):
        folder = os.path.join(self.archive, "automated")
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return sorted(n for n in names if n.endswith(".db.gz"))

    def test_backups_by_schedule(self):
        db = self.make("a.db")
        self.configure("backups:", "  schedules:", "    - {name: often, type: automated, every: 2s}",
                       dbs=[f"path: {self.data('a.db')}"])
        daemon = Daemon(self)
        commit(db)
        wait_for("two backups", lambda: len(self.runs("backup often")) >= 2)
        self.assertEqual(daemon.stop(), 0)
        for entry in self.runs("backup often"):
            self.assertTrue(entry["ok"], entry)
            self.assertEqual(entry["database"], "a.db")
        self.assertGreaterEqual(len(self.backups()), 2)
        run = asof("validate", "--backups", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_what_was_missed_is_made_up_for_once(self):
        """A nightly backup that should have run in each of five nights: one, soon after the start."""
        self.make("a.db")
        self.configure("backups:", "  schedules:", "    - {name: nightly, type: automated, at: '02:00'}",
                       dbs=[f"path: {self.data('a.db')}"])
        os.mkdir(self.archive)
        then = time.strftime("%Y-%m-%dT02:00:00Z", time.gmtime(time.time() - 5 * 86400))
        with open(os.path.join(self.archive, "journal"), "w", encoding="ascii") as f:
            f.write(json.dumps({"job": "backup nightly", "database": "a.db", "scheduled": then,
                                "began": then, "ended": then, "ok": True, "message": ""}) + "\n")
        daemon = Daemon(self)
        wait_for("the backup", lambda: len(self.runs("backup nightly")) == 2)
        time.sleep(3)
        self.assertEqual(len(self.backups()), 1)
        self.assertEqual(daemon.stop(), 0)
        daemon = Daemon(self)  # and not again
        time.sleep(3)
        self.assertEqual(len(self.backups()), 1)
        self.assertEqual(daemon.stop(), 0)

    def test_destination(self):
        """A second directory is kept up to date; one that is not there does not hold up the first."""
        db = self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}\n    destinations:\n"
                            f"      - {{name: usb, type: file, path: {self.path('usb')}, "
                            f"verify: every 2s, retention: 30d}}\n"
                            f"      - {{name: off, type: file, path: {self.path('no', 'where')}}}"])
        daemon = Daemon(self)
        out = self.path("out.db")

        def copied():
            run = asof("restore", "--latest", "-o", out, "--force", "--archive", self.path("usb"))
            return counter_of(out) if run.returncode == 0 else None
        for n in (1, 2):
            commit(db)
            wait_for("the copy", lambda n=n: copied() == n, 60)
        self.assertFalse(wait_for("the failure", lambda: self.runs("copy off"))[0]["ok"])
        self.assertLessEqual(len(self.runs("copy usb")), 2)
        wait_for("what lies there to be verified",
                 lambda: any(r["ok"] for r in self.runs("verify usb")), 60)
        planned = {e["job"] for e in self.entries()}
        self.assertIn("retain usb", planned, "what has a retention of its own thins by it")
        self.assertNotIn("retain off", planned, "what has none keeps all")
        self.assertEqual(daemon.stop(), 0)

    def test_a_failure_is_recorded(self):
        db = self.make("a.db")
        self.configure("backups:", "  schedules:", "    - {name: often, type: automated, every: 2s}",
                       dbs=[f"path: {self.data('a.db')}"])
        os.mkdir(self.archive)
        with open(os.path.join(self.archive, "automated"), "w", encoding="ascii") as f:
            f.write("in the way")
        daemon = Daemon(self)
        entry = wait_for("the failure", lambda: self.runs("backup often"))[0]
        self.assertFalse(entry["ok"])
        self.assertIn("automated", entry["message"])
        runs = harness.asof_json("status", "--config", self.config)["runs"]
        self.assertIn(entry["message"], [r["message"] for r in runs])
        self.assertRegex(asof("status", "--config", self.config).stdout, "backup often .*FAILED")
        commit(db)
        daemon.sync()  # replication does not care
        self.assertEqual(self.restored_counter("a.db"), 1)


@unittest.skipUnless(os.geteuid() == 0, "mounts a small filesystem: needs root")
class FullDisk(Case):
    def setUp(self):
        super().setUp()
        self.small = self.path("small")
        os.mkdir(self.small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", self.small], check=True)

    def fill(self, leave):
        s = os.statvfs(self.small)
        with open(os.path.join(self.small, "fill"), "ab") as f:
            f.write(b"x" * max(0, s.f_bavail * s.f_frsize - leave))

    def test_one_archive_full(self):
        """Nothing is left beside one archive: its capture stops with a reason, the other database does
        not notice; with room again both have every state."""
        full, other = self.make("full.db"), self.make("other.db")
        self.configure(dbs=[f"{{path: {self.data('full.db')}, archive: {self.small}/archive}}",
                            f"path: {self.data('other.db')}"])
        daemon = Daemon(self)
        daemon.wait_replicating("full.db", "other.db")
        self.fill(100000)
        commit(full)
        wait_for("capture to stop", lambda: daemon.databases()["full.db"]["state"] == "failed", 60)
        self.assertIn("left to others", daemon.databases()["full.db"]["reason"])
        self.assertTrue(daemon.has("short of space"))
        commit(full)
        commit(other)
        daemon.sync("other.db")
        self.assertEqual(self.restored_counter("other.db"), 1)
        os.unlink(os.path.join(self.small, "fill"))
        wait_for("capture to go on",
                 lambda: daemon.databases()["full.db"]["state"] == "replicating", 90)
        daemon.sync("full.db")
        out = self.path("restored-full.db")
        run = asof("restore", "--latest", "--db", "full.db", "-o", out, "--archive",
                   self.small + "/archive")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(counter_of(out), 2)
        self.assertEqual(daemon.stop(), 0)


class Service(Case):
    def test_notify(self):
        """READY, RELOADING and READY again, WATCHDOG in time, STOPPING; children hear nothing of it."""
        self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}"])
        path = self.path("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(path)
            s.settimeout(20)
            daemon = Daemon(self, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"})
            seen = [s.recv(4096).decode()]
            while "READY=1" not in seen[-1]:
                seen.append(s.recv(4096).decode())
            watchdogs = 0
            while watchdogs < 3:
                watchdogs += s.recv(4096).decode() == "WATCHDOG=1"
            daemon.process.send_signal(signal.SIGHUP)
            while True:
                text = s.recv(4096).decode()
                if text.startswith("RELOADING=1"):
                    self.assertIn("MONOTONIC_USEC=", text)
                    break
            while s.recv(4096).decode() != "READY=1":
                pass
            daemon.process.send_signal(signal.SIGTERM)
            while s.recv(4096).decode() != "STOPPING=1":
                pass
        self.assertEqual(daemon.stop(), 0)

    def test_mount(self):
        """A child that serves the archive; killed, it is there again; it goes with the daemon."""
        need_fuse()
        db = self.make("a.db")
        mnt = self.path("mnt")
        os.mkdir(mnt)
        self.configure(f"mount: {{dir: {mnt}}}", dbs=[f"path: {self.data('a.db')}"])
        daemon = Daemon(self)
        file = os.path.join(mnt, "latest", "a.db")

        def counter():
            try:
                return counter_of(file)
            except (sqlite3.OperationalError, OSError):
                return None
        wait_for("the mount", lambda: counter() == 0)
        commit(db)
        daemon.sync()
        wait_for("the commit in the mount", lambda: counter() == 1)
        child = int(daemon.log().split("info mount started", 1)[1].split("pid=", 1)[1].split()[0])
        os.kill(child, signal.SIGKILL)
        wait_for("the mount after a kill", lambda: daemon.has("info mount started", 2) and
                 counter() == 1)
        self.assertEqual(daemon.stop(), 0)
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            self.assertNotIn(mnt, f.read())


if __name__ == "__main__":
    harness.main()

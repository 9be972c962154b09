#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""asof restore on real databases, and getting a state back with cp out of the mount."""

import calendar
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import asof, asof_json, commit, counter_of, make_counter, wait_for  # noqa: E402

SUFFIXES = ("", "-wal", "-shm", "-journal")

# An application of its own process: keeps the database open, commits when told to.
APPLICATION = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA wal_autocheckpoint = 0")
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE counter SET n = n + 1")
        db.execute("INSERT INTO rows (text) VALUES (hex(randomblob(40)))")
        db.execute("COMMIT")
    print("done", flush=True)
"""


def content(path):
    with open(path, "rb") as f:
        return f.read()


def image_of(db_path, scratch):
    """The bytes that checkpointing everything gives, from a copy of files at rest."""
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch + suffix)
        if os.path.exists(db_path + suffix):
            shutil.copy(db_path + suffix, scratch + suffix)
    db = sqlite3.connect(scratch)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return content(scratch)


class RestoreCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.base = ["restore", "--archive", self.archive]

    def application(self):
        p = subprocess.Popen([sys.executable, "-c", APPLICATION, self.db_path], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)

        def close():
            p.kill()
            p.wait()
            p.stdin.close()
            p.stdout.close()
        self.addCleanup(close)
        self.assertEqual(p.stdout.readline(), "ready\n")
        return p

    def commits(self, application, n):
        application.stdin.write(f"{n}\n")
        application.stdin.flush()
        self.assertEqual(application.stdout.readline(), "done\n")

    def counting_database(self):
        db = harness.open_db(self.db_path)
        make_counter(db)
        db.close()

    def last(self):
        return asof_json("log", "--archive", self.archive, "-n", "1")["commits"][0]

    def assert_restores_to(self, n, *which):
        self.assertEqual(counter_of(self.restore(*which)), n)

    def files(self):
        return sorted(n for n in os.listdir(self.dir) if n != "archive")


class Bytes(RestoreCase):
    def check_page_size(self, page_size):
        rng = random.Random(page_size)
        db = self.open_db(page_size=page_size, wal_autocheckpoint=50)
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        images = {}
        for i in range(12):
            for _ in range(rng.randrange(1, 8)):
                commit(db, rng.randrange(1, 40))
            if i == 4:
                db.execute("DELETE FROM rows")
            if i == 6:
                db.execute("VACUUM")
            if i == 8:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            r.wait_known()
            images[self.last()["txid"]] = image_of(self.db_path, self.path("image"))
        self.assertEqual(len(images), 12)
        self.assertEqual(r.stop(), 0)
        for txid, image in images.items():
            self.assertEqual(content(self.restore("--tx", txid)), image)
        self.assertEqual(content(self.restore("--latest")), image)

    def test_page_size_512(self):
        self.check_page_size(512)

    def test_page_size_4096(self):
        self.check_page_size(4096)

    def test_page_size_65536(self):
        self.check_page_size(65536)


class Points(RestoreCase):
    """All spellings of a moment; what there is not."""

    def setUp(self):
        super().setUp()
        db = self.open_db()
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        commit(db)
        r.wait_known()
        time.sleep(2)
        commit(db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)

    def test_a_missing_end(self):
        """Who has seen newer is told that the end is gone."""
        out = self.path("x.db")
        last = self.chosen("--latest")["txid"]
        for n in (1, last):
            run = asof(*self.base, "--tx", last, "--expect-txid", n, "--dry-run", "-o", out)
            self.assertEqual(run.returncode, 0, run.stderr)
        for words in (["--latest"], ["--tx", last], ["--follow", "--once"]):
            self.assert_fails(asof(*self.base, *words, "--expect-txid", last + 1, "-o", out), 4,
                              f"ends at commit {last}", f"{last + 1} was seen")
            self.assertFalse(os.path.exists(out))
        for words in (["--latest", "--expect-txid", "0"], ["--latest", "--expect-txid", "x"],
                      ["--from", "f", "--expect-txid", "1"]):
            self.assertEqual(asof(*self.base, *words, "-o", out).returncode, 2, words)
        run = asof(*self.base, "trades.db", "--latest", "-o", out)
        self.assertEqual(run.returncode, 2)
        self.assertIn("unexpected argument 'trades.db', --db names a database", run.stderr)

    def chosen(self, *which):
        return asof_json(*self.base, *which, "--dry-run", "-o", self.path("x.db"))

    def test_spellings(self):
        log = asof_json("log", "--archive", self.archive)["commits"]
        first, second = log[-2:]
        at = time.time() - 1e-6
        text = first["time"]
        day, clock = text[:-1].split("T")
        epoch = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
        fraction = clock[8:]
        hour = int(clock[:2])
        east = f"{day}T{clock}+00:00"
        if hour < 22:
            east = f"{day}T{hour + 2:02}{clock[2:]}+02:00"
        for spelling in (text, text[:-1], f"{day} {clock}", f"{day} {clock}Z", east,
                         f"{day}T{clock.replace(':', '-')}Z", f"@{epoch}{fraction}",
                         day.replace("-", "") + "T" + clock.replace(":", "") + "Z"):
            with self.subTest(spelling):
                self.assertEqual(self.chosen("--at", spelling)["txid"], first["txid"])
        for spelling in ("now", "-0s", f"@{at:.6f}", "0 seconds ago"):
            with self.subTest(spelling):
                self.assertEqual(self.chosen("--at", spelling)["txid"], second["txid"])
        ago = time.time() - epoch - 1
        for spelling in (f"-{int(ago)}s", f"{int(ago)} seconds ago"):
            with self.subTest(spelling):
                self.assertEqual(self.chosen("--at", spelling)["txid"], first["txid"])
        self.assertEqual(self.chosen("--latest")["txid"], second["txid"])
        self.assertIs(self.chosen("--at", "now")["provisional"], True)
        self.assertIs(self.chosen("--at", second["time"])["provisional"], False)
        self.assertEqual(self.chosen("--tx", first["txid"])["time"], first["time"])

    def test_nearest(self):
        log = asof_json("log", "--archive", self.archive)["commits"]
        out = ["-o", self.path("x.db")]
        future = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        self.assert_fails(asof(*self.base, "--at", "2020-01-01", *out), 3, log[0]["time"])
        self.assert_fails(asof(*self.base, "--at", future, *out), 3, "future", log[-1]["time"])
        self.assert_fails(asof(*self.base, "--tx", log[-1]["txid"] + 5, *out), 3,
                          f"txid {log[-1]['txid']}", log[-1]["time"])

    def test_what_is_printed(self):
        out = self.path("out.db")
        run = asof(*self.base, "--latest", "-o", out)
        last = self.last()
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(run.stdout.splitlines()[0],
                         f"restored trades.db as of {last['time']} to {out}")
        self.assertIn(f"txid {last['txid']}, lineage 1\n", run.stdout)
        self.assertIn("pages of 4096 bytes", run.stdout)
        self.assertRegex(run.stdout, r"\n  checksum +right\n")
        data = asof_json(*self.base, "--latest", "-o", out, "--force")
        self.assertEqual(data["bytes"], os.path.getsize(out))
        self.assertEqual(data["bytes"], data["pages"] * data["page_size"])
        self.assertEqual((data["txid"], data["lineage"], data["checked"], data["replaced"]),
                         (last["txid"], 1, True, True))

    def test_dry_run(self):
        before = self.files()
        self.chosen("--latest")
        self.assertEqual(self.files(), before)
        run = asof(*self.base, "--latest", "--dry-run")
        self.assert_fails(run, 1, self.db_path, "--force")
        self.assertEqual(self.files(), before)


class InPlace(RestoreCase):
    def setUp(self):
        super().setUp()
        self.counting_database()
        self.app = self.application()
        self.r = self.replicate()
        self.r.wait_ready()
        self.commits(self.app, 5)
        self.r.wait_known()
        self.five = self.last()
        self.commits(self.app, 5)
        self.r.wait_known()

    def test_open_in_the_application(self):
        before = {s: content(self.db_path + s) for s in ("", "-wal")}
        run = asof(*self.base, "--tx", self.five["txid"])
        self.assert_fails(run, 1, f"process {self.app.pid} (python3", self.db_path, "--force")
        self.assertEqual({s: content(self.db_path + s) for s in ("", "-wal")}, before)
        self.assertEqual([n for n in self.files() if "restore" in n], [])

    def test_open_in_the_application_and_forced(self):
        """Who goes on with the old database does so in a file that has a name; nothing that he
        commits, and nothing that he does when he closes it, reaches the new one."""
        data = asof_json(*self.base, "--tx", self.five["txid"], "--force")
        self.assertEqual(data["still_open_in"]["pid"], self.app.pid)
        self.commits(self.app, 3)
        other = self.application()
        self.commits(other, 2)
        self.assertGreater(os.path.getsize(self.db_path + "-wal"), 0)
        self.app.stdin.close()  # the last one to close the old database
        self.assertEqual(self.app.wait(harness.PATIENCE), 0)
        self.assertEqual(counter_of(self.db_path), 7)
        self.commits(other, 1)
        self.assertEqual(counter_of(self.db_path), 8)
        self.assertEqual(counter_of(data["set_aside"]), 13)
        wait_for("a child lineage", lambda: (self.r.status() or {}).get("lineage", 0) > 1)
        self.r.wait_known()
        self.assert_restores_to(8, "--latest")
        out = self.path("safety.db")
        run = asof("restore", "--from", data["safety_backup"], "-o", out)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(counter_of(out), 10)

    def test_open_in_a_process_of_somebody_else(self):
        """Whose descriptors are hidden: its locks are not."""
        self.assertEqual(self.r.stop(), 0)
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs somebody else")
        subprocess.run(["chown", "-R", "65534:65534", self.dir], check=True)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", harness.ASOF]
        if subprocess.run([*command, "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode:
            raise unittest.SkipTest("the program cannot be run by others where it lies")
        run = subprocess.run([*command, *self.base, "--latest"], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        self.assert_fails(run, 1, f"process {self.app.pid} (python3", self.db_path)

    def test_under_a_running_replicator(self):
        """Stopped by force, so that its -wal stays; the old state stays as a pair."""
        self.app.kill()
        self.app.wait()
        self.assertGreater(os.path.getsize(self.db_path + "-wal"), 0)
        os.chmod(self.db_path, 0o640)
        data = asof_json(*self.base, "--tx", self.five["txid"], "--force")
        self.assertEqual(data["target"], self.db_path)
        self.assertEqual(os.stat(self.db_path).st_mode & 0o777, 0o640)
        self.assertEqual(counter_of(data["set_aside"]), 10)
        app = self.application()
        self.commits(app, 3)
        self.assertEqual(counter_of(self.db_path), 8)
        wait_for("a child lineage", lambda: (self.r.status() or {}).get("lineage", 0) > 1)
        self.r.wait_known()
        self.assert_restores_to(8, "--latest")
        self.assert_restores_to(5, "--tx", self.five["txid"])
        self.assert_restores_to(10, "--tx", self.five["txid"] + 5)
        self.assertEqual(self.r.stop(), 0, self.r.log())

    def test_without_a_replicator(self):
        self.assertEqual(self.r.stop(), 0)
        self.app.kill()
        self.app.wait()
        data = asof_json(*self.base, "--at", self.five["time"], "--force")
        self.assertEqual(counter_of(self.db_path), 5)
        self.assertEqual(counter_of(data["set_aside"]), 10)


class Trouble(RestoreCase):
    """A database that takes a moment to restore."""

    @classmethod
    def setUpClass(cls):
        cls.shared = harness.tempfile.mkdtemp(prefix="asof-")
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        path = os.path.join(cls.shared, "trades.db")
        db = harness.open_db(path)
        cls.addClassCleanup(db.close)
        make_counter(db)
        db.execute("CREATE TABLE bulk (data BLOB)")
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)"
                   "INSERT INTO bulk SELECT randomblob(1000000) FROM n")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        cls.kept_archive = os.path.join(cls.shared, "archive")
        r = harness.Replicator(path, cls.kept_archive)
        cls.addClassCleanup(r.close)
        r.wait_ready()
        r.wait_known()
        if r.stop() != 0:
            raise AssertionError(r.log())

    def setUp(self):
        super().setUp()
        self.archive = self.kept_archive
        self.base = ["restore", "--archive", self.archive, "--latest"]
        self.out = self.path("out.db")

    def put_old(self):
        old = b"precious" * 1000
        for suffix in ("", "-wal"):
            with open(self.out + suffix, "wb") as f:
                f.write(old)
        return old

    def test_killed(self):
        """-9 at moments spread over a whole restore: the old pair, or the new file alone."""
        started = time.monotonic()
        self.assertEqual(asof(*self.base, "-o", self.out).returncode, 0)
        whole = time.monotonic() - started
        image = content(self.out)
        stayed = 0
        for i in range(16):
            for name in self.files():
                os.unlink(self.path(name))
            old = self.put_old()
            p = subprocess.Popen([harness.ASOF, *self.base, "-o", self.out, "--force"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(whole * 1.2 * i / 16)
            p.kill()
            p.wait()
            if os.path.exists(self.out + ".asof-restore.swap"):
                run = asof(*self.base, "-o", self.out)  # puts things right, then refuses
                self.assertEqual(run.returncode, 1, run.stderr)
                self.assertIn("--force", run.stderr)
            if os.path.exists(self.out + "-wal"):
                stayed += 1
                self.assertEqual((content(self.out), content(self.out + "-wal")), (old, old))
            else:
                self.assertEqual(content(self.out), image)
            run = asof(*self.base, "-o", self.out, "--force")
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(content(self.out), image)
            self.assertEqual([n for n in self.files() if "asof-restore" in n], [])
        self.assertGreater(stayed, 0)

    def test_asked_to_stop(self):
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            old = self.put_old()
            p = subprocess.Popen([harness.ASOF, *self.base, "-o", self.out, "--force"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            wait_for("it to begin", lambda: len(self.files()) > 2 or p.poll() is not None)
            p.send_signal(sig)
            stdout, stderr = p.communicate(timeout=30)
            if p.returncode == 0:
                continue  # it was quicker
            self.assertEqual((p.returncode, stdout), (1, ""))
            self.assertRegex(stderr, r"\Aasof: [^\n]*cancelled\n\Z")
            self.assertEqual(content(self.out), old)
            self.assertEqual(self.files(), ["out.db", "out.db-wal"])

    def test_disk_full(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("mounting a small disk takes root")
        small = self.path("small")
        os.mkdir(small)
        run = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small],
                             stderr=subprocess.PIPE, text=True, check=False)
        if run.returncode:
            raise unittest.SkipTest("no small disk here: " + run.stderr.strip())
        target = os.path.join(small, "out.db")
        self.assert_fails(asof(*self.base, "-o", target), 1, "small/out.db", "MiB",
                          "No space left on device")
        self.assertEqual(os.listdir(small), [])
        with open(target, "w", encoding="ascii") as f:
            f.write("precious")
        self.assert_fails(asof(*self.base, "-o", target, "--force"), 1, "No space left")
        self.assertEqual((os.listdir(small), content(target)), (["out.db"], b"precious"))

    def test_no_permission(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs a folder of somebody else")
        os.chmod(self.dir, 0o755)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", harness.ASOF]
        readable = self.path("archive")
        shutil.copytree(self.archive, readable)
        subprocess.run(["chown", "-R", "65534:65534", readable], check=True)
        if subprocess.run([*command, "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode:
            raise unittest.SkipTest("the program cannot be run by others where it lies")
        run = subprocess.run([*command, "restore", "--archive", readable, "--latest", "-o",
                              self.out], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, check=False)
        self.assert_fails(run, 1, "out.db", "Permission denied")

    def test_damaged(self):
        """A flipped byte: nothing in place of the old file, exit status 4."""
        archive = self.path("archive")
        shutil.copytree(self.archive, archive)
        folder = os.path.join(archive, "local", "trades.db", "snapshot")
        name, = os.listdir(folder)
        with open(os.path.join(folder, name), "r+b") as f:
            f.seek(5000000)
            byte = f.read(1)[0]
            f.seek(5000000)
            f.write(bytes([byte ^ 4]))
        run = asof("restore", "--archive", archive, "--latest", "-o", self.out)
        self.assertEqual(run.returncode, 4)
        self.assertIn(name, run.stderr)
        self.assertFalse(os.path.exists(self.out))
        self.assertEqual([n for n in self.files() if "tmp" in n], [])


# As the README has it; $db stands for the database, $old for where the old one goes, $at for a
# folder of the mount.
RECIPE = r"""
set -e
for end in "" -wal -journal; do
	[ ! -e "$db$end" ] || mv "$db$end" "$old$end"
done
rm -f "$db-shm"
cp --no-preserve=mode "$at/trades.db" "$db"
chmod --reference="$old" "$db"
sqlite3 "$db" 'PRAGMA journal_mode = WAL'
"""


class Copying(RestoreCase):
    """A database whose application was killed: its -wal, never checkpointed, lies beside it."""

    def setUp(self):
        super().setUp()
        harness.need_fuse()
        self.counting_database()
        app = self.application()
        r = self.replicate()
        r.wait_ready()
        self.commits(app, 5)
        r.wait_known()
        self.five = self.last()
        self.commits(app, 5)
        r.wait_known()
        app.kill()
        app.wait()
        self.r = r
        self.mnt = self.path("mnt")
        os.mkdir(self.mnt)
        run = asof("mount", self.archive, self.mnt)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.at = os.path.join(self.mnt, "at", self.five["time"])

    def test_the_trap(self):
        """Why the recipe is what it is: a plain cp gives the old state back, without a word."""
        self.assertEqual(self.r.stop(), 0)
        subprocess.run(["cp", os.path.join(self.at, "trades.db"), self.db_path], check=True)
        self.assertEqual(counter_of(self.db_path), 10)

    def test_the_recipe(self):
        os.chmod(self.db_path, 0o640)
        old = self.path("old.db")
        run = subprocess.run(["sh", "-c", RECIPE], stdout=subprocess.PIPE, text=True, check=False,
                             env={**os.environ, "db": self.db_path, "old": old, "at": self.at})
        self.assertEqual((run.returncode, run.stdout), (0, "wal\n"))
        self.assertEqual(os.stat(self.db_path).st_mode & 0o777, 0o640)
        self.assertEqual(counter_of(self.db_path), 5)
        self.assertEqual(counter_of(old), 10)
        # The application goes on, and so does the replicator.
        app = self.application()
        self.commits(app, 2)
        wait_for("a child lineage", lambda: (self.r.status() or {}).get("lineage", 0) > 1)
        self.r.wait_known()
        self.assert_restores_to(7, "--latest")
        self.assert_restores_to(5, "--tx", self.five["txid"])
        self.assert_restores_to(10, "--tx", self.five["txid"] + 5)

    def test_a_copy_elsewhere(self):
        out = self.path("copy.db")
        subprocess.run(["cp", os.path.join(self.at, "trades.db"), out], check=True)
        self.assertEqual(counter_of(out), 5)
        restored = content(self.restore("--at", self.five["time"]))
        copied = content(out)
        self.assertEqual(copied[:18] + b"\2\2" + copied[20:], restored)


if __name__ == "__main__":
    harness.main()

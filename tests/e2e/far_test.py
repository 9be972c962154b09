#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""A machine that has nothing but the URL of an archive: every command that reads, on a real server."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import sshd  # noqa: E402
from harness import asof, commit, counter_of, make_counter, wait_for  # noqa: E402


def files_below(folder):
    return sorted(os.path.join(d, f) for d, _, files in os.walk(folder) for f in files)


class Far(harness.Case):
    """A database of which 30 commits were shipped, one by one in the beginning, then its machine
    was lost."""

    def setUp(self):
        super().setUp()
        self.server = sshd.Sshd(self.path("ssh")).start()
        self.addCleanup(self.server.stop)
        self.place = self.path("place")
        self.url = self.server.url(self.place)
        self.cache = self.path("cache")
        self.env = {**os.environ, "ASOF_CACHE_DIR": self.cache}
        self.db = self.open_db()
        make_counter(self.db)
        self.writer = self.replicate(self.url)
        self.writer.wait_ready()
        self.times = {}
        for i in range(1, 31):
            commit(self.db)
            if i % 10 == 0:
                self.wait_shipped(i)
                self.times[i] = time.time()
                time.sleep(0.05)

    def far(self, *args, timeout=60):
        return asof(*args, env=self.env, timeout=timeout)

    def read(self, *args):
        run = self.far(*args)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout

    def wait_shipped(self, n):
        """Until a reader of the URL sees so many commits."""
        def there():
            run = self.far("query", "--archive", self.url, "trades.db", "SELECT n FROM counter")
            seen[:] = [run.stdout, run.stderr]
            return run.returncode == 0 and str(n) in run.stdout.split()
        seen = []
        try:
            wait_for(f"commit {n} at the destination", there, patience=100)
        except AssertionError as e:
            raise AssertionError(f"{e}: {seen}\n{self.writer.log()}\n"
                                 + "\n".join(files_below(self.place))) from e

    def lose_machine(self):
        self.assertEqual(self.writer.stop(), 0, self.writer.log())
        self.db.close()
        shutil.rmtree(self.archive)
        os.unlink(self.db_path)

    def at(self, i):
        return f"@{self.times[i]:.6f}"

    def test_every_command(self):
        self.lose_machine()
        a = ("--archive", self.url)
        self.assertIn("trades.db", self.read("list", *a))
        self.assertEqual(json.loads(self.read("list", "--json", *a))["databases"][0]["database"],
                         "trades.db")
        log = self.read("log", "--json", *a)
        self.assertGreaterEqual(log.count('"txid"'), 30)
        self.assertIn("trades.db", self.read("status", *a))
        self.assertIn("trades.db", self.read("stats", *a))
        self.read("validate", *a)
        for i in (10, 20, 30):
            self.assertIn(str(i), self.read("query", *a, "--at", self.at(i), "trades.db",
                                            "SELECT n FROM counter").split())
            out = self.path(f"restored-{i}.db")
            self.read("restore", "--at", self.at(i), *a, "-o", out)
            self.assertEqual(counter_of(out), i)
        self.assertIn("counter", self.read("diff", *a, "trades.db", self.at(10), self.at(20)))
        self.assertTrue(self.read("bisect", *a, "trades.db", "SELECT n > 15 FROM counter"))
        self.assertFalse(os.path.exists("sftp:"))

    def test_copy_back(self):
        """The archive comes back from the server, reads as that, and is written to again."""
        self.lose_machine()
        back = self.path("back")
        run = json.loads(self.read("copy", "--json", self.url, back))
        self.assertGreater(run["objects"], 0)
        for i in (10, 20, 30):
            self.assertIn(str(i), self.read("query", "--archive", back, "--at", self.at(i),
                                            "trades.db", "SELECT n FROM counter").split())
        self.read("validate", "--archive", back)
        again = json.loads(self.read("copy", "--json", self.url, back))
        self.assertEqual((again["objects"], again["bytes"]), (0, 0))
        self.read("restore", "--latest", "--archive", back, "-o", self.db_path)
        self.db = self.open_db()
        writer = self.replicate(self.url, "--take-over", archive=back)
        writer.wait_ready()
        commit(self.db)
        self.wait_shipped(31)
        self.assertEqual(writer.stop(), 0, writer.log())
        self.assert_fails(self.far("copy", self.server.url(self.path("no")), self.path("x")), 3, "no archive")

    def test_mount_follows(self):
        harness.need_fuse()
        mnt = self.path("mnt")
        os.mkdir(mnt)
        run = self.far("mount", self.url, mnt)
        self.assertEqual(run.returncode, 0, run.stderr)
        latest = os.path.join(mnt, "latest", "trades.db")
        self.assertEqual(counter_of(latest), 30)
        self.assertEqual(counter_of(os.path.join(mnt, "at", self.at(10), "trades.db")), 10)
        commit(self.db)
        wait_for("news", lambda: counter_of(latest) == 31)
        self.assertEqual(asof("umount", mnt).returncode, 0)

    @unittest.skipIf(os.geteuid() != 0, "needs root for a small filesystem")
    def test_cache_folder_that_fails(self):
        """Full, then taken away under the mount, then there again: readers never notice."""
        harness.need_fuse()
        small, mnt, log = self.path("small"), self.path("mnt"), self.path("mount.log")
        os.mkdir(small)
        os.mkdir(mnt)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=30", "none", small], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False, stderr=subprocess.DEVNULL)
        self.env["ASOF_CACHE_DIR"] = os.path.join(small, "cache")
        with open(os.path.join(small, "ballast"), "wb"):
            pass
        run = self.far("mount", self.url, mnt, "-o", "log=" + log)
        self.assertEqual(run.returncode, 0, run.stderr)

        def reads(*counts):
            for i in counts:
                path = os.path.join(mnt, "at", self.at(i), "trades.db")
                with open(path, "rb") as f:
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                self.assertEqual(counter_of(path), i)
        with open(os.path.join(small, "ballast"), "wb", buffering=0) as f, \
                contextlib.suppress(OSError):
            while f.write(b"x" * 4096):
                pass
        reads(10, 20)
        commit(self.db)
        self.wait_shipped(31)
        os.unlink(os.path.join(small, "ballast"))
        reads(30, 10)
        subprocess.run(["umount", "-l", small], check=True)
        reads(20)
        commit(self.db)
        latest = os.path.join(mnt, "latest", "trades.db")
        wait_for("news", lambda: counter_of(latest) == 32)
        shutil.rmtree(small, ignore_errors=True)
        commit(self.db)
        wait_for("news", lambda: counter_of(latest) == 33)
        with open(log, encoding="utf-8") as f:
            self.assertNotIn(" error ", f.read())
        # Not even a folder that cannot be made keeps anybody from reading.
        self.env["ASOF_CACHE_DIR"] = os.path.join(self.path("none"), "none")
        with open(self.path("none"), "w", encoding="ascii"):
            pass
        self.assertIn("33", self.read("query", "--archive", self.url, "trades.db",
                                      "SELECT n FROM counter").split())
        self.assertEqual(asof("umount", mnt).returncode, 0)

    def test_kept(self):
        """A second reading of the same takes nothing from the server but the listing; flipped bytes
        of the cache are found."""
        self.lose_machine()
        query = ("query", "--archive", self.url, "--at", self.at(20), "trades.db",
                 "SELECT n FROM counter")
        self.assertIn("20", self.read(*query).split())
        kept = [f for f in files_below(self.cache) if not f.endswith("lock")]
        self.assertTrue(kept)
        for path in kept:
            self.assertEqual(os.stat(path).st_mode & 0o077, 0)
            with open(path, "r+b") as f:
                f.seek(os.path.getsize(path) // 2)
                byte = f.read(1)[0]
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte ^ 1]))
        self.assertIn("20", self.read(*query).split())

    def damaged(self, suffix, folder):
        for path in files_below(os.path.join(self.place, "local", "trades.db", folder)):
            if path.endswith(suffix):
                yield path

    def test_damage(self):
        """A byte flipped in any object: an error that names it, or the right answer; never another."""
        self.lose_machine()
        os.environ.pop("ASOF_CACHE_DIR", None)
        self.env["ASOF_CACHE_DIR"] = ""
        found = 0
        for path in [*self.damaged(".wal.gz", "segment"), *self.damaged(".db.gz", "snapshot")]:
            with open(path, "rb") as f:
                whole = f.read()
            for where in (len(whole) // 3, len(whole) - 20):
                bad = bytearray(whole)
                bad[where] ^= 4
                with open(path, "wb") as f:
                    f.write(bad)
                run = self.far("query", "--archive", self.url, "--at", self.at(30), "trades.db",
                               "SELECT n FROM counter")
                if run.returncode == 0:
                    self.assertIn("30", run.stdout.split())
                else:
                    self.assertEqual(run.returncode, 4, run.stderr)
                    found += 1
            with open(path, "wb") as f:
                f.write(whole)
        self.assertGreater(found, 0)

    def test_nothing_there(self):
        self.lose_machine()
        run = self.far("query", "--archive", self.server.url(self.path("none")), "trades.db", "SELECT 1")
        self.assertIn(run.returncode, (3, 5), run.stderr)
        self.assertRegex(run.stderr, r"\Aasof: [^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=240
"""asof copy beside a running replicator and a mount of the copy; ended at any moment; backups."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, asof_json, commit, make_counter, wait_for  # noqa: E402

NAME = "trades.db"


def counter_in(path):
    with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise AssertionError(f"{path} is not sound")
        return db.execute("SELECT n FROM counter").fetchone()[0]


class Copy(harness.Case):
    def setUp(self):
        super().setUp()
        self.db = self.open_db(synchronous="OFF")
        make_counter(self.db)
        self.to = self.path("second")

    def copy(self, *words):
        run = asof("copy", self.archive, self.to, "--json", *words)
        self.assertEqual(run.returncode, 0, run.stderr)
        return harness.json.loads(run.stdout)

    def write(self, n):
        for _ in range(n):
            self.db.execute("BEGIN")
            self.db.execute("INSERT INTO rows(text) VALUES (hex(randomblob(4000)))")
            self.db.execute("UPDATE counter SET n = n + 1")
            self.db.execute("COMMIT")

    def last(self, archive):
        return asof_json("status", "--archive", archive)["databases"][0]["last_txid"]

    def test_live(self):
        """Each copy reads as the first at that moment, and a mount of it follows."""
        harness.need_fuse()
        replicator = self.replicate("--segment-size", "1M")
        replicator.wait_ready()
        m = None
        for i in range(4):
            self.write(150)
            replicator.wait_known()
            count = self.db.execute("SELECT n FROM counter").fetchone()[0]
            self.copy()
            self.assertEqual(counter_in(self.restore("--latest", archive=self.to)), count)
            if m is None:
                m = self.path("m")
                os.mkdir(m)
                self.assertEqual(asof("mount", self.to, m).returncode, 0)
            wait_for("the mount to follow",
                     lambda: counter_in(os.path.join(m, "latest", NAME)) == count)
        self.assertEqual(asof("mark", "here", "--archive", self.archive).returncode, 0)
        self.assertEqual(replicator.stop(), 0, replicator.log())
        self.copy()
        self.assertEqual(os.listdir(os.path.join(m, "marks")), ["here"])
        again = self.copy()
        self.assertEqual((again["objects"], again["bytes"]), (0, 0))
        self.assertEqual(self.last(self.to), self.last(self.archive))
        run = asof("validate", "--archive", self.to)
        self.assertEqual(run.returncode, 0, run.stderr + run.stdout)

    def test_marks(self):
        """What the first gave and took away goes; what was marked in the second alone stays."""
        replicator = self.replicate()
        replicator.wait_ready()
        commit(self.db)
        replicator.wait_known()
        self.assertEqual(replicator.stop(), 0, replicator.log())

        def mark(archive, *words):
            run = asof("mark", *words, "--archive", archive)
            self.assertEqual(run.returncode, 0, run.stderr)

        def marks():
            folder = os.path.join(self.to, "local", NAME)
            return {f[:-5]: open(os.path.join(folder, f), encoding="ascii").read()
                    for f in os.listdir(folder) if f.endswith(".mark")}
        for name in ("goes", "again", "changed", "stays"):
            mark(self.archive, name)
        self.copy()
        mark(self.to, "theirs")
        given = marks()
        self.assertEqual(set(given), {"goes", "again", "changed", "stays", "theirs"})
        for archive, name in ((self.archive, "goes"), (self.archive, "again"), (self.to, "changed"),
                              (self.archive, "changed")):
            mark(archive, "--delete", name)
        mark(self.archive, "again")
        mark(self.to, "changed")
        self.copy()
        left = marks()
        self.assertEqual(set(left), {"again", "changed", "stays", "theirs"})
        self.assertNotEqual(left["again"], given["again"])
        self.assertEqual((left["stays"], left["theirs"]), (given["stays"], given["theirs"]))

    def test_killed(self):
        replicator = self.replicate("--segment-size", "1M")
        replicator.wait_ready()
        kills = 0
        for i in range(12):
            self.write(60)
            process = subprocess.Popen([ASOF, "copy", self.archive, self.to],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.001 * 1.7 ** i)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        self.assertGreater(kills, 2)
        replicator.wait_known()
        self.assertEqual(replicator.stop(), 0, replicator.log())
        self.copy()
        run = asof("validate", "--archive", self.to)
        self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
        count = self.db.execute("SELECT n FROM counter").fetchone()[0]
        self.assertEqual(counter_in(self.restore("--latest", archive=self.to)), count)

    def test_backups_and_words(self):
        replicator = self.replicate()
        replicator.wait_ready()
        commit(self.db)
        replicator.wait_known()
        run = asof("backup", "--db-path", self.db_path, "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.copy()
        for folder, _, files in os.walk(os.path.join(self.archive, "manual")):
            for name in files:
                with open(os.path.join(folder, name), "rb") as f, \
                     open(os.path.join(self.to, "manual", name), "rb") as g:
                    self.assertEqual(f.read(), g.read())
        self.assertEqual(self.copy()["objects"], 0)
        # The place of a running replicator is its own.
        other = self.replicate(archive=self.path("third"))
        other.wait_ready()
        self.assert_fails(asof("copy", self.archive, self.path("third")), 1, "another asof")
        self.assert_fails(asof("copy", self.archive, self.archive), 2, "one archive")
        # So is that of one that sends there.
        self.assertEqual(replicator.stop(), 0, replicator.log())
        sends = self.replicate(self.path("fourth"), archive=self.path("third-and-on"))
        sends.wait_ready()
        commit(self.db)
        wait_for("a writer's note", lambda: os.path.exists(
            os.path.join(self.path("fourth"), "local", NAME, "00000001.writer")))
        self.assert_fails(asof("copy", self.archive, self.path("fourth")), 1, "00000001.writer")
        self.assert_fails(asof("copy", self.archive), 2)
        self.assert_fails(asof("copy", self.path("none"), self.to), 3, "none")
        self.assert_fails(asof("copy", "s3://bucket/x", "s3://bucket/x"), 2, "one archive")
        self.assert_fails(asof("copy", self.archive, "ftp://host/x"), 2, "no such kind")
        self.assert_fails(asof("copy", self.archive, self.to, "--db", "none.db"), 3, "none.db")


if __name__ == "__main__":
    harness.main()

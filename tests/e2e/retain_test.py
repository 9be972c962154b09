#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""Retention of the history under a running replicator, mounts and restores; marks."""

import contextlib
import datetime
import errno
import glob
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, asof_json, commit, make_counter, wait_for  # noqa: E402

NAME = "trades.db"
TIERS = "all:2s,1s:1h"  # hours of a policy, in seconds
SECONDS = 12


def points_of(archive):
    with contextlib.suppress(FileNotFoundError):
        with open(os.path.join(archive, "local", NAME, "thinned"), encoding="utf-8") as f:
            return [int(line.split()[1]) for line in f if line.startswith("point ")]
    return []


def counter_in(path):
    """The counter of a copy that is sound."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise AssertionError(f"{path} is not sound")
        return db.execute("SELECT n FROM counter").fetchone()[0]


class Live(harness.Case):
    def setUp(self):
        super().setUp()
        self.db = self.open_db(synchronous="OFF")
        make_counter(self.db)
        for _ in range(50):
            commit(self.db, n_rows=20)

    def mount(self):
        harness.need_fuse()
        point = self.path("m")
        os.mkdir(point)
        run = asof("mount", self.archive, point)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.addCleanup(subprocess.run, ["fusermount3", "-uz", point], check=False,
                        stderr=subprocess.DEVNULL)
        return point

    def cleanup(self, *words, grace="0", check=True):
        run = asof("cleanup", "--archive", self.archive, "--tiers", TIERS, "--grace", grace,
                   "--min-free", "1", *words)
        if check:
            self.assertEqual(run.returncode, 0, run.stderr)
        return run

    def write(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.failures:
            self.db.execute("BEGIN")
            self.db.execute("INSERT INTO rows(text) VALUES (hex(randomblob(3000)))")
            self.db.execute("DELETE FROM rows WHERE id < (SELECT max(id) - 400 FROM rows)")
            self.db.execute("UPDATE counter SET n = n + 1")
            self.db.execute("COMMIT")
            time.sleep(0.002)

    def write_sealed(self, seconds, segments):
        """Writes for so long, and until so many segments are sealed, of two seconds at least: a
        busy machine is late, and what is not sealed is not thinned."""
        def enough():
            self.write(seconds)
            times = [datetime.datetime.strptime(t, "%Y%m%dT%H%M%S.%fZ")
                     for name in glob.glob(self.path("archive", "local", NAME, "segment",
                                                     "*-*-*.wal.gz"))
                     for t in os.path.basename(name).split("-")[3:5]]
            return (len(times) >= 2 * segments
                    and (max(times) - min(times)).total_seconds() >= 2)
        wait_for("sealed segments", enough)


class Readers(Live):
    def test_nobody_notices(self):
        """Copies, long reads and restores go on while the history is thinned under them."""
        replicator = self.replicate("--segment-size", "1M")
        replicator.wait_ready()
        replicator.wait_known()
        m = self.mount()
        done = {"cp": 0, "slow": 0, "restore": 0, "cleanup": 0, "gone": 0}

        def copy_latest():
            out = self.path("latest.db")
            shutil.copyfile(os.path.join(m, "latest", NAME), out)
            counter_in(out)
            done["cp"] += 1

        def read_slowly():
            """Opened at some commit, read to its end long after that is thinned away."""
            commits = os.listdir(os.path.join(m, "tx", NAME))
            if not commits:
                return
            try:
                fd = os.open(os.path.join(m, "tx", NAME, random.choice(commits)), os.O_RDONLY)
            except OSError as e:
                if e.errno != errno.ENOENT:  # thinned since it was listed; anything else is not
                    raise
                done["gone"] += 1
                return
            try:
                size, out = os.fstat(fd).st_size, self.path("slow.db")
                with open(out, "wb") as f:
                    for at in range(0, size, 1 << 16):
                        piece = os.pread(fd, 1 << 16, at)
                        if len(piece) != min(1 << 16, size - at):
                            raise AssertionError(f"short read at {at} of {size}")
                        f.write(piece)
                        time.sleep(0.05)
                if os.fstat(fd).st_size != size:
                    raise AssertionError("the size of an open file changed")
                counter_in(out)
                done["slow"] += 1
            finally:
                os.close(fd)

        def restore():
            out = self.path("restored.db")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(out)
            run = asof("restore", "--latest", "--archive", self.archive, "-o", out)
            if run.returncode:
                raise AssertionError(run.stderr)
            counter_in(out)
            done["restore"] += 1

        def clean_up():
            run = self.cleanup(check=False)
            if run.returncode:
                raise AssertionError(run.stderr)
            done["cleanup"] += 1
            time.sleep(0.2)

        for work in (copy_latest, read_slowly, restore, clean_up):
            self.in_background(work)
        self.write(SECONDS)
        for _ in range(5 * SECONDS):  # a busy machine writes less in a second
            if len(points_of(self.archive)) > SECONDS / 2:
                break
            self.write(1)
        self.stop.set()
        wait_for("readers to end", lambda: threading.active_count() == 1)
        self.assertEqual(self.failures, [])
        self.assertGreater(min(done["cp"], done["slow"], done["restore"], done["cleanup"]), 2, done)
        self.assertEqual(replicator.stop(), 0, replicator.log())
        points = points_of(self.archive)
        self.assertGreater(len(points), SECONDS / 2)
        status = asof_json("status", "--archive", self.archive)["databases"][0]
        self.assertLess(len(glob.glob(self.path("archive", "local", NAME, "segment", "*.wal.gz"))),
                        40)
        counts = []
        for txid in points:
            counts.append(counter_in(self.restore("--tx", str(txid))))
        self.assertEqual(counts, sorted(counts))
        run = asof("restore", "--tx", str(points[0] + 1), "-o", self.path("none.db"),
                   "--archive", self.archive)
        self.assert_fails(run, 3, "txid")
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
        self.assertGreater(status["last_txid"], points[-1])


class Killed(Live):
    def test_at_any_moment(self):
        """kill -9, again and again: what is kept reads as before, and the next pass goes on."""
        replicator = self.replicate("--segment-size", "1M")
        replicator.wait_ready()
        kills = 0
        for i in range(12):
            self.write(0.7)
            process = subprocess.Popen(
                [ASOF, "cleanup", "--archive", self.archive, "--tiers", TIERS, "--grace", "0",
                 "--min-free", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.002 * 1.6 ** i)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            for txid in points_of(self.archive)[-3:]:
                counter_in(self.restore("--tx", str(txid)))
        self.assertGreater(kills, 2)
        replicator.wait_known()
        self.cleanup()
        self.assertEqual(replicator.stop(), 0, replicator.log())
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
        self.assertEqual(glob.glob(self.path("archive", "local", NAME, "*", "*.tmp")), [])

    def test_grace(self):
        """What waits is told with its time, and nothing of it is deleted before."""
        replicator = self.replicate("--segment-size", "1M")
        replicator.wait_ready()
        self.write_sealed(3, 3)
        replicator.wait_known()
        self.assertEqual(replicator.stop(), 0)
        time.sleep(2.5)
        before = sorted(glob.glob(self.path("archive", "local", NAME, "segment", "*")))
        dry = self.cleanup("--dry-run")
        self.assertIn("expires segment/" if "expires" in dry.stdout else "delete segment/",
                      dry.stdout)
        self.assertEqual(points_of(self.archive), [])
        run = self.cleanup(grace="1h")
        self.assertIn("to be deleted at", run.stdout)
        self.assertNotIn("delete segment", run.stdout)
        self.assertEqual(sorted(glob.glob(self.path("archive", "local", NAME, "segment", "*"))),
                         before)
        self.assertGreater(len(points_of(self.archive)), 1)
        out = asof_json("cleanup", "--archive", self.archive, "--tiers", TIERS, "--grace", "0",
                        "--min-free", "1")
        self.assertGreater(out["history"]["databases"][0]["deleted"], 0)
        self.assertLess(len(glob.glob(self.path("archive", "local", NAME, "segment", "*"))),
                        len(before))

    def test_wrong_words(self):
        run = asof("replicate", "--help")
        self.assertEqual(run.returncode, 0)
        os.mkdir(self.archive)
        for words in (["--tiers", "1h:3d,all:5d"], ["--tiers", "x"], ["--keep", "3"],
                      ["--grace", "soon"], ["--max-bytes", "-1"],
                      ["--keep", "1d", "--tiers", "all:1d"]):
            run = asof("cleanup", "--archive", self.archive, *words)
            self.assertEqual(run.returncode, 2, run.stderr)
        run = asof("cleanup", "--archive", self.archive, "--db", "none.db")
        self.assertEqual(run.returncode, 3)
        self.assertIn("none.db", run.stderr)


class Marks(Live):
    def test_mark(self):
        replicator = self.replicate("--segment-size", "1M")
        replicator.wait_ready()
        commit(self.db)
        replicator.wait_known()
        run = asof("mark", "before", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("marked 'before'", run.stdout)
        count = self.db.execute("SELECT n FROM counter").fetchone()[0]
        self.assert_fails(asof("mark", "before", "--archive", self.archive), 1, "before")
        m = self.mount()
        self.assertEqual(os.listdir(os.path.join(m, "marks")), ["before"])
        path = os.path.join(m, "marks", "before", NAME)
        self.assertEqual(counter_in(path), count)
        with open(path, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        for moment, n in (("mark:before", count), ("latest", count + 1)):
            if moment == "latest":
                commit(self.db)
                replicator.wait_known()
            out = self.path("out.db")
            run = asof("restore", "--at", moment, "-o", out, "--force", "--no-safety", "--archive",
                       self.archive)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(counter_in(out), n)
        self.assert_fails(asof("restore", "--at", "mark:none", "-o", self.path("no.db"),
                               "--archive", self.archive), 3, "no mark")
        mark = asof_json("mark", "--list", "--archive", self.archive)["marks"][0]

        def thinned():
            """How much has been sealed by now, and so can be thinned, is for the keeper to say."""
            self.write(1)
            replicator.wait_known()
            self.cleanup()
            return points_of(self.archive)
        self.assertIn(mark["txid"], wait_for("the history to be thinned", thinned, 60))
        # Where it is read from has changed; what is read has not.
        second = self.path("m2")
        os.mkdir(second)
        self.assertEqual(asof("mount", self.archive, second).returncode, 0)
        self.addCleanup(subprocess.run, ["fusermount3", "-uz", second], check=False)
        for place in (m, second):
            with open(os.path.join(place, "marks", "before", NAME), "rb") as f:
                self.assertEqual(hashlib.sha256(f.read()).hexdigest(), digest)
        # A name that one does not know yet shows within a second, and goes within one.
        self.assertEqual(asof("mark", "after it", "--archive", self.archive).returncode, 0)
        wait_for("the new mark", lambda: os.path.exists(os.path.join(m, "marks", "after it")))
        run = asof("mark", "before", "--delete", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        wait_for("it to go", lambda: not os.path.exists(os.path.join(m, "marks", "before")))
        self.assertEqual(os.listdir(os.path.join(m, "marks")), ["after it"])
        self.assert_fails(asof("mark", "before", "--delete", "--archive", self.archive), 3)
        self.cleanup()
        self.assertEqual(replicator.stop(), 0, replicator.log())

    def test_wrong_words(self):
        os.mkdir(self.archive)
        for words in ([], ["a", "b"], ["--list", "x"], ["a", "--delete", "--at", "now"],
                      ["a", "--tx", "1"], ["a", "--tx", "1", "--at", "now", "--db", "x"]):
            self.assertEqual(asof("mark", *words, "--archive", self.archive).returncode, 2, words)
        self.assertEqual(asof("mark", "a", "--archive", self.archive).returncode, 3)


if __name__ == "__main__":
    unittest.main()

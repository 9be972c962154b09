#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""The place of an archive fails: it is deleted, replaced, or not ours to write any more.

The application goes on, one line says what is the matter, asof recovers by itself, and afterwards
every commit is there, or in a gap that is declared and healed.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import asof, asof_json, commit, counter_of, make_counter, wait_for  # noqa: E402

SLOWEST_S = 3.0
NOBODY = 65534


class Writing(harness.Case):
    """An application that never ends, and a replicator."""

    def setUp(self):
        super().setUp()
        self.db = self.open_db(wal_autocheckpoint=100)
        make_counter(self.db)
        self.stop = threading.Event()
        self.pace = threading.Lock()  # who holds it keeps the application waiting
        self.slowest = 0.0
        self.failures = []

    def write(self):
        def loop():
            while not self.stop.is_set():
                with self.pace:
                    started = time.monotonic()
                    try:
                        commit(self.db, 3)
                    except Exception as e:  # told by the test itself
                        self.failures.append(repr(e))
                        return
                    self.slowest = max(self.slowest, time.monotonic() - started)
                time.sleep(0.004)
        self.writer = threading.Thread(target=loop)
        self.writer.start()
        self.addCleanup(self.writer.join)
        self.addCleanup(self.stop.set)

    def stop_writing(self):
        """How many commits it made."""
        self.stop.set()
        self.writer.join()
        self.assertEqual(self.failures, [])
        self.assertLess(self.slowest, SLOWEST_S, "the application had to wait")
        return self.db.execute("SELECT n FROM counter").fetchone()[0]

    def begin(self, **kw):
        r = self.replicate("--segment-size", "64K", **kw)
        r.wait_ready()
        self.write()
        time.sleep(1)
        r.wait_known()
        return r

    def lines(self, r, text):
        return [line for line in r.log().splitlines() if text in line]

    def check(self, n):
        """Each commit's counter follows the one before, but where a gap was healed; the newest is n,
        and nothing in the archive is damaged."""
        log = asof_json("log", "--archive", self.archive)
        rows = [r for r in (log["commits"] if isinstance(log, dict) else log) if "txid" in r]
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
        seen = None
        step = max(1, len(rows) // 40)
        for i in (*range(0, len(rows) - 1, step), len(rows) - 1):
            counter = counter_of(self.restore("--tx", str(rows[i]["txid"])))
            if seen and not any(r["healed"] for r in rows[seen[0] + 1:i + 1]):
                self.assertEqual(counter - seen[1], i - seen[0], f"txid {rows[i]['txid']}")
            seen = (i, counter)
        self.assertEqual(seen[1], n)
        gaps = asof_json("status", "--archive", self.archive)["databases"][0]["gaps"]
        self.assertEqual(len(gaps), sum(r["healed"] for r in rows))
        return gaps


class Gone(Writing):
    """The archive is deleted, or a copy of it put in its place, while it is written."""

    def take_away(self, r, copy):
        """The archive is deleted; what it was is in `copy`, which is made at rest: of one that is
        written to, the head could tell of more than the copy of its segment has."""
        away, half = self.path("away"), self.path("half")

        def done(*command):
            return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

        def copied():  # (what the keeper is at may vanish)
            shutil.rmtree(half, ignore_errors=True)
            return done("cp", "-a", away, half)
        with self.pace:
            r.wait_known()
            os.rename(self.archive, away)  # by its path the keeper finds it no more
            wait_for("a copy", copied)
            os.rename(half, copy)
        wait_for("an end of it", lambda: done("rm", "-rf", away))

    def test_replaced_by_a_copy(self):
        r = self.begin()
        self.take_away(r, self.archive)
        wait_for("it to be noticed", lambda: self.lines(r, "replaced by another") or
                 self.lines(r, "was deleted"))
        time.sleep(1)
        r.wait_known()
        n = self.stop_writing()
        r.wait_known()
        self.assertEqual(r.stop(), 0, r.log())
        self.check(n)
        self.assertEqual(len(self.lines(r, "waiting for the archive")), 1, r.log())

    def test_deleted_and_put_back(self):
        r = self.begin()
        self.take_away(r, self.path("copy"))
        wait_for("it to be noticed", lambda: self.lines(r, "was deleted"))
        time.sleep(3)
        self.assertFalse(os.path.exists(self.archive), "another one was begun")
        self.assertTrue(r.alive())
        self.assertEqual(len(self.lines(r, "waiting for the archive")), 1, r.log())
        # One that is still being copied is not begun with.
        subprocess.run(["cp", "-a", self.path("copy"), self.archive], check=True)
        for i in range(4):
            time.sleep(3)
            with open(os.path.join(self.archive, "local", "trades.db", "segment", "x"), "ab") as f:
                f.write(b"still copying")
            self.assertEqual(len(self.lines(r, "info database start")), 1, f"{3 * i} s")
        os.unlink(f.name)
        wait_for("it to go on", lambda: len(self.lines(r, "info database start")) == 2)
        r.wait_known()
        n = self.stop_writing()
        r.wait_known()
        self.assertEqual(r.stop(), 0, r.log())
        self.check(n)

    def test_deleted_for_good(self):
        r = self.begin()
        self.take_away(r, self.path("copy"))
        wait_for("it to be noticed", lambda: self.lines(r, "was deleted"))
        self.stop_writing()
        started = time.monotonic()
        self.assertEqual(r.stop(), 1)
        self.assertLess(time.monotonic() - started, 5.5)
        self.assertRegex(r.log(), r"\nasof: archive '.*': the history of '.*' was deleted while it "
                                  r"was written \(.*\)\n\Z")
        # Started again, it begins a new one, as it was told to.
        again = self.replicate()
        again.wait_ready()
        commit(self.db)
        again.wait_known()
        self.assertEqual(again.stop(), 0, again.log())

    def test_moved_and_back(self):
        """A folder that was only moved is written on: nothing is lost, and no gap declared."""
        r = self.begin()
        os.rename(self.archive, self.path("away"))
        time.sleep(12)
        os.rename(self.path("away"), self.archive)
        n = self.stop_writing()
        r.wait_known()
        self.assertEqual(r.stop(), 0, r.log())
        self.assertEqual(self.check(n), [])


@unittest.skipIf(os.geteuid() != 0, "needs root to take rights away")
class Denied(Writing):
    """A replicator that is not root loses the right to write its archive, and gets it back."""

    def setUp(self):
        super().setUp()
        os.chmod(self.dir, 0o755)
        os.mkdir(self.archive)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", self.dir], check=True)
        self.prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        if subprocess.run([*self.prefix, harness.ASOF, "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode:
            self.skipTest("the program cannot be run by others where it lies")
        if subprocess.run([*self.prefix, "test", "-w", self.db_path], check=False).returncode:
            self.skipTest("others cannot reach the scratch folder")

    def lose(self, take, give):
        r = self.begin(prefix=self.prefix)
        take()
        wait_for("a word of it", lambda: self.lines(r, "Permission denied"), 30)
        time.sleep(4)
        self.assertTrue(r.alive())
        told = [line for line in r.log().splitlines() if " error " in line or " warn " in line]
        self.assertLess(len(told), 5, "\n".join(told))
        give()
        time.sleep(1)
        r.wait_known()
        n = self.stop_writing()
        r.wait_known()
        self.assertEqual(r.stop(), 0, r.log())
        self.assertEqual(self.check(n), [])

    def test_mode(self):
        segments = self.path("archive", "local", "trades.db", "segment")
        self.lose(lambda: os.chmod(segments, 0o500), lambda: os.chmod(segments, 0o700))

    def test_owner(self):
        def own(who):
            subprocess.run(["chown", "-R", f"{who}:{who}", self.archive], check=True)
        self.lose(lambda: own(0), lambda: own(NOBODY))


if __name__ == "__main__":
    harness.main(at_once=6)

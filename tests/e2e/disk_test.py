#!/ usr / bin / env python3
#SPDX - License - Identifier : Apache - 2.0
#runner : timeout = 300 asan
""
        "The place of an archive fails: it is deleted, replaced, full, or not ours to write any more.

        The application goes on,
        one line says what is the matter, asof recovers by itself,
        and afterwards every commit is there,
        or in a gap that is declared and
                        healed.""
                               "

                import json import os import shutil import signal import subprocess import sys
                        import threading import time import unittest

                                sys.path.insert(
                                        0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                        "..", "lib")) import harness #noqa
    : E402 from harness import asof,
        asof_json, commit, counter_of, make_counter,
        wait_for #noqa : E402

                         NAME = "trades.db" SLOWEST_S = 3.0

                                                        class Writing(harness.Case)
    : ""
      "An application that never ends, and a replicator."
      ""

      def setUp(self)
    : super().setUp() self.db = self.open_db(wal_autocheckpoint = 100)
                                        make_counter(self.db) self.stop =
                                 threading.Event() self.slowest = 0.0 self.failures =
                                         []

                                         def write(self)
    : def loop() : while not self.stop.is_set() : started = time.monotonic()
try : commit(self.db, 3) except Exception as e:  # told by the test itself
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

    def begin(self, *options, archive=None):
        self.archive = archive or self.archive
        r = self.replicate("--segment-size", "64K", *options)
        r.wait_ready()
        self.write()
        time.sleep(1)
        r.wait_known()
        return r

    def check(self, n):
        """Counters that the commits have: each follows the one before, but behind a gap, and the
        newest is n; nothing in the archive is damaged."""
        log = asof_json("log", "--archive", self.archive)
        rows = [r for r in (log["commits"] if isinstance(log, dict) else log) if "txid" in r]
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
        status = asof_json("status", "--archive", self.archive)["databases"][0]
        seen = None
        step = max(1, len(rows) // 40)
        for i in (*range(0, len(rows) - 1, step), len(rows) - 1):
            out = self.restore("--tx", str(rows[i]["txid"]))
            counter = counter_of(out)
            healed = seen is not None and any(r["healed"] for r in rows[seen[0] + 1:i + 1])
            if seen is not None and not healed:
                self.assertEqual(counter - seen[1], i - seen[0], f"txid {rows[i]['txid']}")
            seen = (i, counter)
        self.assertEqual(seen[1], n)
        self.assertEqual(len(status["gaps"]), sum(r["healed"] for r in rows))


class Gone(Writing):
    """The archive is deleted, or another copy of it put in its place, while it is written."""

    def lines(self, r, text):
        return [line for line in r.log().splitlines() if text in line]

    def take_away(self, copy):
        """The archive is deleted; what it was is in `copy`."""
        os.rename(self.archive, self.path("away"))  # by its path the keeper finds it no more
        time.sleep(0.5)
        shutil.copytree(self.path("away"), copy)
        shutil.rmtree(self.path("away"))

    def test_replaced_by_a_copy(self):
        r = self.begin()
        self.take_away(self.archive)
        wait_for("it to be noticed", lambda: self.lines(r, "replaced by another") or
                 self.lines(r, "was deleted"), 30)
        time.sleep(1)
        r.wait_known()
        n = self.stop_writing()
        r.wait_known()
        self.assertEqual(r.stop(), 0, r.log())
        self.check(n)
        self.assertEqual(len(self.lines(r, "waiting for the archive")), 1, r.log())

    def test_deleted_and_put_back(self):
        r = self.begin()
        copy = self.path("copy")
        self.take_away(copy)
        wait_for("it to be noticed", lambda: self.lines(r, "was deleted"), 30)
        time.sleep(3)
        self.assertFalse(os.path.exists(self.archive), "another one was begun")
        self.assertTrue(r.alive())
        self.assertEqual(len(self.lines(r, "waiting for the archive")), 1, r.log())
        os.rename(copy, self.archive)
        time.sleep(1)
        r.wait_known()
        n = self.stop_writing()
        r.wait_known()
        self.assertEqual(r.stop(), 0, r.log())
        self.check(n)

    def test_deleted_for_good(self):
        r = self.begin()
        self.take_away(self.path("copy"))
        wait_for("it to be noticed", lambda: self.lines(r, "was deleted"), 30)
        self.stop_writing()
        started = time.monotonic()
        self.assertEqual(r.stop(), 1)
        self.assertLess(time.monotonic() - started, 5.5)
        self.assertRegex(r.log(), r"\nasof: archive '.*': the history of '.*' was deleted while it was written \(.*\)\n\Z")
#Started again, it begins a new one, as it was told to.
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
        self.assertEqual(asof_json("status", "--archive", self.archive)["databases"][0]["gaps"], [])
        self.check(n)


if __name__ == "__main__":
    harness.main(at_once=4)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=240
"""What is replicated to another place: by asof replicate with several archives."""

import contextlib
import glob
import os
import random
import shutil
import signal
import sqlite3
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import asof, asof_json, commit, counter_of, make_counter, wait_for  # noqa: E402

NAME = "trades.db"


class Ship(harness.Case):
    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        make_counter(self.db)
        self.to = self.path("second")

    def replicate_to(self, *options, to=None, archive=None, db=None):
        r = harness.Replicator(db or self.db_path, archive or self.archive, to or self.to,
                               *options)
        self.addCleanup(r.close)
        return r

    def wait_sent(self, to=None, archive=None):
        run = asof("wait", NAME, "--archive", archive or self.archive, "--dest", to or self.to,
                   "--timeout", "60")
        self.assertEqual(run.returncode, 0, run.stderr)

    def sent(self, to=None, archive=None):
        rows = asof_json("status", "--archive", archive or self.archive)["databases"]
        return next(d for d in rows[0]["destinations"] if d["url"] == (to or self.to))

    def count(self):
        return self.db.execute("SELECT n FROM counter").fetchone()[0]

    def check(self, to=None):
        """Each transaction that the destination shows restores, to what was committed then."""
        log = asof_json("log", NAME, "--archive", to or self.to)["commits"]
        log = [c for c in log if "txid" in c]  # and gaps
        counts = []
        for c in log[:: max(1, len(log) // 7)] + log[-1:]:
            out = self.restore("--tx", str(c["txid"]), out=self.path("check.db"),
                               archive=to or self.to)
            with contextlib.closing(sqlite3.connect(out)) as db:
                tables = db.execute("SELECT count(*) FROM sqlite_schema WHERE name='counter'")
                if tables.fetchone() == (0,):
                    continue
            counts.append(counter_of(out))
        self.assertEqual(counts, sorted(counts))
        run = asof("validate", "--archive", to or self.to)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return counts[-1]

    def test_it_follows(self):
        """Within seconds, as a prefix of whole commits; --dest waits for it."""
        r = self.replicate_to("--segment-size", "64K")
        r.wait_ready()
        for i in range(30):
            commit(self.db, 5 + i)
            if i % 10 == 0:
                self.wait_sent()
                self.assertEqual(self.check(), self.count())
        self.wait_sent()
        self.assertEqual(self.check(), self.count())
        row = self.sent()
        self.assertEqual(row["error"], "")
        self.assertEqual(row["replicated_txid"], row["captured_txid"])
        stats = asof("stats", "--archive", self.archive).stdout
        self.assertIn(self.to, stats)
        self.assertIn("A MONTH", stats)
        run = asof("wait", NAME, "--archive", self.archive, "--dest", self.to, "--txid", "99999",
                   "--timeout", "1")
        self.assert_fails(run, 1, "after 1 s")
        self.assertNotIn("not sent", r.log())  # nor at the start, when nothing was captured yet

    def test_sealed_follow_at_rest(self):
        """What is sealed after the last commit goes there, too, with no further commit."""
        def sealed(root):
            return set(glob.glob("*-*-*.wal.gz", root_dir=os.path.join(root, "local", NAME, "segment")))
        r = self.replicate_to("--segment-size", "64K")
        r.wait_ready()
        for _ in range(40):
            commit(self.db, 30)
        wait_for("sealed segments", lambda: len(sealed(self.archive)) > 2)
        wait_for("them there", lambda: sealed(self.archive) <= sealed(self.to))

    def test_killed_at_any_moment(self):
        """kill -9 of the replicator, over and over: no hole, nothing twice, and it catches up."""
        rng = random.Random(7)
        for _ in range(4):
            r = self.replicate_to("--segment-size", "64K")
            r.wait_ready()
            until = time.monotonic() + rng.uniform(0.2, 2.5)
            while time.monotonic() < until:
                commit(self.db, 8)
                time.sleep(0.01)  # so that there are hundreds, not tens of thousands, to check
            r.stop(signal.SIGKILL)
            run = asof("log", NAME, "--archive", self.to)
            self.assertIn(run.returncode, (0, 3), run.stderr)  # 3: there is none yet
            if run.returncode == 0:
                self.check()
        r = self.replicate_to()
        r.wait_ready()
        commit(self.db)
        self.wait_sent()
        self.assertEqual(self.check(), self.count())
        self.assertEqual(r.stop(), 0)

    def test_away(self):
        """A destination that cannot be written costs capture nothing, and gets all of it later."""
        r = self.replicate_to()
        r.wait_ready()
        self.wait_sent()
        folder = os.path.join(self.to, "local", NAME)
        shutil.move(folder, folder + ".away")
        with open(folder, "w", encoding="utf-8"):
            pass  # no folder can be made there
        for _ in range(50):
            commit(self.db, 5)
        r.wait_known()
        wait_for("the failure to be told", lambda: self.sent()["error"])
        os.unlink(folder)
        shutil.move(folder + ".away", folder)
        self.wait_sent()
        self.assertEqual(self.check(), self.count())

    def test_two_writers(self):
        """A second one is refused; it takes over what it has all of; the first stops sending."""
        first = self.replicate_to()
        first.wait_ready()
        commit(self.db)
        self.wait_sent()
        first.process.send_signal(signal.SIGSTOP)  # it sleeps, and will know of nothing
        other, other_db = self.path("other"), self.path("elsewhere", NAME)
        os.mkdir(self.path("elsewhere"))
        run = asof("copy", self.to, other)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.restore("--latest", out=other_db, archive=other)
        with contextlib.closing(harness.open_db(other_db)) as db:
            commit(db)
            mine = db.execute("SELECT n FROM counter").fetchone()[0]
            run = asof("replicate", other_db, self.path("third"), self.to, "--take-over")
            self.assertNotEqual(run.returncode, 0)  # it has nothing of that history
            second = self.replicate_to("--adopt", archive=other, db=other_db)
            second.wait_ready()
            wait_for("a refusal", lambda: "is written by another asof" in second.log())
            self.assertEqual(second.stop(), 0)
            second = self.replicate_to("--adopt", "--take-over", archive=other, db=other_db)
            second.wait_ready()
            self.wait_sent(archive=other)
            for _ in range(3):
                commit(self.db)
            first.process.send_signal(signal.SIGCONT)
            wait_for("the first to see it", lambda: self.sent()["fenced"])
            commit(self.db)
            first.wait_known()  # capture goes on
            for _ in range(3):
                commit(db)
                mine += 1
            self.wait_sent(archive=other)
            self.assertEqual(self.check(), mine)
            self.assertEqual(self.restore_count(self.archive), self.count())

    def restore_count(self, archive):
        return counter_of(self.restore("--latest", archive=archive))


if __name__ == "__main__":
    harness.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The script that engine/FORMAT.md prints gets every transaction back, byte for byte.

It is taken out of the text as it stands and run with nothing in PATH but sh, gunzip (and the gzip
that it calls), head, cat and sqlite3: once over an archive made up from what SQLite wrote, once
over one that `asof replicate` made of a living database.
"""
# runner: timeout=300

import contextlib
import glob
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402

TOOLS = ("sh", "gunzip", "gzip", "head", "cat", "sqlite3")
SYNTH = os.path.join(os.environ.get("ASOF_BUILD") or os.path.join(harness.ROOT, "build", "release"),
                     "tests", "synth", "synth_archive")


def the_script():
    with open(os.path.join(harness.ROOT, "engine", "FORMAT.md"), encoding="utf-8") as f:
        blocks = re.findall(r"^```sh\n(.*?)^```$", f.read(), re.S | re.M)
    if len(blocks) != 1:
        raise AssertionError("FORMAT.md has not one script but %d" % len(blocks))
    return blocks[0]


class ByHand(harness.Case):
    def setUp(self):
        super().setUp()
        # What is put together is looked at and thrown away: in memory nobody waits for its fsyncs.
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.results = tempfile.mkdtemp(prefix="asof-", dir=shm)
        self.addCleanup(shutil.rmtree, self.results, True)
        self.tools = os.path.join(self.dir, "tools")
        os.mkdir(self.tools)
        for tool in TOOLS:
            os.symlink(shutil.which(tool), os.path.join(self.tools, tool))
        self.script = os.path.join(self.dir, "recover.sh")
        with open(self.script, "w", encoding="utf-8") as f:
            f.write(the_script())

    def recover(self, folder, txid, shell="sh"):
        """The file's bytes, or (status, message)."""
        out = os.path.join(self.results, "out.db")
        for name in glob.glob(out + "*"):
            os.unlink(name)
        run = subprocess.run([os.path.join(self.tools, shell), self.script, folder, str(txid), out],
                             env={"PATH": self.tools}, timeout=180, check=False, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if run.returncode:
            return run.returncode, run.stderr
        self.assertEqual(run.stdout, "ok\n", run.stderr)
        self.assertFalse(os.path.exists(out + "-wal"))
        with open(out, "rb") as f:
            return f.read()

    def test_made_up(self):
        if not os.path.exists(SYNTH):
            self.skipTest("synth_archive is not built")
        place = os.path.join(self.dir, "made")
        subprocess.run([SYNTH, place, "7"], check=True, stdout=subprocess.DEVNULL)
        folder = os.path.join(place, "archive", "local", "x.db")
        with open(os.path.join(place, "list"), encoding="utf-8") as f:
            rows = [line.split() for line in f]
        seen = set()
        for txid, _, how in rows:
            with open(os.path.join(place, "ref", txid + ".db"), "rb") as f:
                want = f.read()
            got = self.recover(folder, txid)
            seen.add(how)
            if how in ("whole", "growing"):  # (in several growing segments, one of them the newest)
                self.assertEqual(got, want, f"transaction {txid}")
            else:
                self.assertIsInstance(got, tuple, f"transaction {txid} is {how}")
        self.assertEqual(seen, {"whole", "growing", "unsettled"})
        # Not a word of it depends on which shell it is.
        if shutil.which("bash"):
            os.symlink(shutil.which("bash"), os.path.join(self.tools, "bash"))
            with open(os.path.join(place, "ref", "30.db"), "rb") as f:
                self.assertEqual(self.recover(folder, 30, "bash"), f.read())
        # What is there already is left alone, and damage is said.
        self.assertEqual(self.recover(folder, 0)[0], 1)
        segment = sorted(glob.glob(folder + "/segment/*-*-*.wal.gz"))[0]
        with open(segment, "r+b") as f:
            f.truncate(os.path.getsize(segment) // 2)
        self.assertIn("is damaged", self.recover(folder, 40 if "0037-" in segment else 21)[1])

    def test_golden(self):
        """Archives of former versions, with growing segments, too."""
        place = os.path.join(harness.ROOT, "tests", "data", "golden-1")
        with open(os.path.join(place, "list"), encoding="utf-8") as f:
            rows = [line.split() for line in f]
        for txid, _, how in rows:
            got = self.recover(os.path.join(place, "local", "x.db"), txid)
            if how == "unsettled":
                self.assertIn("lies in a gap", got[1])
            else:
                self.assertEqual(hashlib.sha256(got).hexdigest(), how, f"transaction {txid}")

    def test_thinned(self):
        """What retention kept comes back byte for byte; for the rest the neighbours are named."""
        if not os.path.exists(SYNTH):
            self.skipTest("synth_archive is not built")
        for seed in ("7", "11"):
            place = os.path.join(self.dir, "made" + seed)
            subprocess.run([SYNTH, place, seed], check=True, stdout=subprocess.DEVNULL)
            archive = os.path.join(place, "archive")
            folder = os.path.join(archive, "local", "x.db")
            with open(os.path.join(place, "list"), encoding="utf-8") as f:
                rows = [line.split() for line in f]
            newest = rows[-1][0]
            for mark in ("12", "33"):
                run = harness.asof("mark", "m" + mark, "--tx", mark, "--db", "x.db",
                                   "--archive", archive)
                self.assertEqual(run.returncode, 0, run.stderr)
            run = harness.asof("cleanup", "--archive", archive, "--tiers", "all:1h,5m:9000d",
                               "--grace", "0")
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("delete segment/", run.stdout)
            with open(os.path.join(folder, "thinned"), encoding="utf-8") as f:
                points = [line.split()[1] for line in f if line.startswith("point ")]
            self.assertGreater(len(points), 8)
            self.assertTrue({"12", "33"} <= set(points))
            for txid, _, _ in rows:
                got = self.recover(folder, txid)
                if int(txid) > int(points[-1]):
                    continue  # as before
                if txid in points:
                    with open(os.path.join(place, "ref", txid + ".db"), "rb") as f:
                        self.assertEqual(got, f.read(), f"transaction {txid} of {seed}")
                else:
                    self.assertIsInstance(got, tuple, f"transaction {txid} of {seed}")
                    self.assertIn("was thinned out: the nearest kept are", got[1])
            self.assertIsInstance(self.recover(folder, newest), bytes)

    def replicated(self, *options):
        """A living database's folder, and the digest of each count that was committed."""
        db = self.open_db(wal_autocheckpoint=0, synchronous="OFF", page_size=1024)
        harness.make_counter(db)
        db.execute("INSERT INTO rows WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                   "WHERE i < 150) SELECT i, '' FROM n")
        replicator = self.replicate(*options)
        replicator.wait_ready()
        folder = os.path.join(self.archive, "local", "trades.db")
        replicator.wait_known()
        before, digests = self.durable(folder), {}
        for i in range(1, 61):
            db.execute("BEGIN")
            if i == 40 and not options:  # frames of more than one batch
                db.execute("CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
                           "SELECT i + 1 FROM n WHERE i < 8500) SELECT zeroblob(900) FROM n")
            elif i == 41:
                db.execute("DROP TABLE IF EXISTS large")
            db.execute("UPDATE rows SET text = hex(randomblob(500))")
            db.execute("UPDATE counter SET n = n + 1")
            db.execute("COMMIT")
            if i == 41:
                db.execute("VACUUM")
            digests[i] = self.digest_now()
            # Each is durable, in a record of its own, before the next one comes.
            now = before + i + (i >= 41)  # (VACUUM is one, too)
            harness.wait_for("capture", lambda now=now: self.durable(folder) >= now)
            if i % 10 == 0:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if options:
            harness.wait_for("a sealed segment", lambda: glob.glob(folder + "/segment/*.commits.gz"))
        self.assertEqual(replicator.stop(), 0, replicator.log())
        last = harness.asof_json("status", "--archive", self.archive)["databases"][0]["last_txid"]
        return folder, last, digests

    def durable(self, folder):
        """The newest txid, as the head tells: without a process or a poll for each commit."""
        with open(os.path.join(folder, "head"), "rb") as f:
            return int.from_bytes(f.read(40)[32:], "little")

    def check_replicated(self, folder, last, digests, step=1):
        """Each transaction is the one that it is; with step 1 those of the counts are all there."""
        counts = []
        for txid in range(1, last + 1):
            # (the large one is 22nd from the end, VACUUM behind the one after it)
            if 4 < txid < last - 2 and txid % step and not last - 25 < txid < last - 18:
                continue
            got = self.recover(folder, txid)
            if isinstance(got, tuple):
                self.assertEqual(counts, [])
                self.assertIn("no snapshot lies at or before", got[1])
                continue
            counts.append(self.count_in(got))
            before_vacuum = counts[-1] == 41 and counts.count(41) == 1
            if counts[-1] and not before_vacuum:
                self.assertEqual(hashlib.sha256(got).hexdigest(), digests[counts[-1]],
                                 f"transaction {txid}, count {counts[-1]}")
        self.assertEqual(counts, sorted(counts))
        self.assertLess(counts[0], 2)
        self.assertEqual(counts[-1], 60)
        self.assertEqual(counts.count(41), 2)
        if step == 1:
            self.assertEqual(sorted(set(counts)), list(range(counts[0], 61)))

    def count_in(self, image):
        path = os.path.join(self.results, "seen.db")
        with open(path, "wb") as f:
            f.write(image)
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as seen:
            return seen.execute("SELECT n FROM counter").fetchone()[0]

    def test_replicated(self):
        """A living database, long enough for sealed segments: each commit."""
        self.check_replicated(*self.replicated("--segment-size", "1M"))

    def test_growing(self):
        """The same in one growing segment; what it does not hold, or no more, is said."""
        folder, last, digests = self.replicated()
        segments = glob.glob(folder + "/segment/*")
        self.assertEqual(len(segments), 1)
        self.check_replicated(folder, last, digests, step=6)
        got = self.recover(folder, last + 1)
        self.assertIn(f"does not hold transaction {last + 1} (or is damaged before it)", got[1])
        with open(segments[0], "rb") as f:
            whole = f.read()
        for cut in (len(whole) - 1, len(whole) - 700):  # in the last record, in its data
            with open(segments[0], "wb") as f:
                f.write(whole[:cut])
            self.assertIn("does not hold transaction", self.recover(folder, last)[1])
            self.assertEqual(self.count_in(self.recover(folder, last - 1)), 59)
        at = len(whole) // 2  # in data: records before and behind tell of it
        with open(segments[0], "wb") as f:
            f.write(whole[:at] + bytes((b ^ 0x55 for b in whole[at:at + 4])) + whole[at + 4:])
        self.assertIn("is damaged behind frame", self.recover(folder, last)[1])
        self.assertEqual(self.count_in(self.recover(folder, last - 55)), 6)  # (VACUUM is one, too)

    def test_open_gap(self):
        """What a segment has of a gap that nothing healed is no state."""
        self.open_gap(sealed=False)

    def test_open_gap_that_is_sealed(self):
        self.open_gap(sealed=True)

    def open_gap(self, sealed):
        db = self.open_db(wal_autocheckpoint=0, page_size=1024)
        harness.make_counter(db)
        replicator = self.replicate()
        replicator.wait_ready()
        harness.commit(db, 50)
        replicator.wait_known()
        self.assertEqual(replicator.stop(), 0, replicator.log())
        last = harness.asof_json("status", "--archive", self.archive)["databases"][0]["last_txid"]
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(3):
            db.execute("UPDATE counter SET n = n + 1")
        os.truncate(self.db_path, os.path.getsize(self.db_path) - 1024)
        replicator = self.replicate()
        harness.wait_for("its frames", lambda: "cannot be captured" in replicator.log())
        folder = os.path.join(self.archive, "local", "trades.db")
        if sealed:
            harness.wait_for("a sealed segment", lambda: glob.glob(folder + "/segment/*.commits.gz"))
        replicator.stop()
        got = self.recover(folder, last)
        self.assertTrue(isinstance(got, bytes), got)
        self.assertEqual(self.count_in(got), 1)
        for txid in (last + 1, last + 2, last + 3):  # (the last of its segment, when that is sealed)
            got = self.recover(folder, txid)
            self.assertTrue(isinstance(got, tuple),
                            f"transaction {txid} of {os.listdir(folder + '/segment')}")
            self.assertIn("lies in a gap", got[1])
        # (asof may have tried again meanwhile, and taken the same once more.)
        self.assertRegex(self.recover(folder, last + 1000)[1], "does not hold|no segment holds")

    def digest_now(self):
        """Of the file that a checkpoint of the database as it is now would leave."""
        copy_path = os.path.join(self.results, "copy.db")
        for end in ("", "-wal"):
            shutil.copyfile(self.db_path + end, copy_path + end)
        with contextlib.closing(sqlite3.connect(copy_path)) as copy:
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(copy_path, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()


if __name__ == "__main__":
    harness.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""An archive in two places: what one of them lost, or has damaged, comes from the other."""

import errno
import json
import os
import shutil
import sys
import time
import unittest
import unittest.mock

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import s3_fake  # noqa: E402
import sshd  # noqa: E402
from harness import asof, commit, counter_of, make_counter, wait_for  # noqa: E402

NAME = "trades.db"


def objects_of(place):
    for folder in ("segment", "snapshot"):
        below = os.path.join(place, "local", NAME, folder)
        for file in sorted(os.listdir(below)):
            if file.endswith(".wal.gz") or file.endswith(".db.gz"):
                yield os.path.join(below, file)


def flip(path, at=None):
    """Every bit of a byte, in the middle if nothing else is said."""
    with open(path, "r+b") as f:
        at = os.path.getsize(path) // 2 if at is None else at
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0xff]))


class Places(harness.Case):
    """Twelve commits, shipped to two places; their machine was lost."""

    N = 12

    def setUp(self):
        super().setUp()
        self.server = sshd.Sshd(self.path("ssh")).start()
        self.addCleanup(self.server.stop)
        self.places = [self.path("a"), self.path("b")]
        self.urls = [self.server.url(p) for p in self.places]
        self.env = {**os.environ, "ASOF_CACHE_DIR": ""}
        self.db = self.open_db()
        make_counter(self.db)
        self.writer = self.replicate(*self.urls)
        self.writer.wait_ready()
        self.times = {}
        for i in range(1, self.N + 1):
            commit(self.db)
            if i % 3 == 0:
                for url in self.urls:
                    self.wait_shipped(url, i)
                self.times[i] = time.time()
                time.sleep(0.05)
        self.assertEqual(self.writer.stop(), 0, self.writer.log())
        self.db.close()
        shutil.rmtree(self.archive)

    def run_asof(self, *args):
        return asof(*args, env=self.env, timeout=100)

    def wait_shipped(self, url, n):
        def there():
            run = self.run_asof("query", "--archive", url, NAME, "SELECT n FROM counter")
            return run.returncode == 0 and str(n) in run.stdout.split()
        wait_for(f"commit {n} at {url}", there, patience=100)

    def query(self, i, *also):
        return self.run_asof("query", "--archive", self.urls[0], *also, "--at",
                             f"@{self.times[i]:.6f}", NAME, "SELECT n FROM counter")

    def each_right(self, file, also):
        """Whether a line named the object: at most one in each command did, or one and its reason
        where the other place is cut otherwise and has it in pieces."""
        told = 0
        for i in self.times:
            run = self.query(i, *also)
            self.assertEqual(run.returncode, 0, (file, run.stderr))
            self.assertIn(str(i), run.stdout.split(), file)
            lines = [line for line in run.stderr.splitlines() if file in line]
            pieces = "what other places have of it" in run.stderr
            self.assertLessEqual(len(lines), 2 if pieces else 1, run.stderr)
            told += len(lines) or "lacks transaction" in run.stderr
        return told > 0

    def test_from_the_other(self):
        also = ("--also", self.urls[1])
        flipped, removed = 0, 0
        newest = [p for p in objects_of(self.places[0]) if p.endswith(".wal.gz")][-1]
        for path in list(objects_of(self.places[0])):
            file = os.path.basename(path)
            kept = self.path("kept")
            shutil.copy2(path, kept)
            flip(path, 100)  # in the first block
            flipped += self.each_right(file, also)
            if path == newest:  # of which one place alone cannot tell that it was there
                shutil.copy2(kept, path)
                continue
            os.unlink(path)
            removed += self.each_right(file, also)
            shutil.copy2(kept, path)
        self.assertGreaterEqual(flipped, 2)
        self.assertGreaterEqual(removed, 1)

    def test_restore_and_mount(self):
        """Every object of the first place is damaged, and the others are there."""
        harness.need_fuse()
        paths = list(objects_of(self.places[0]))
        for path in paths:
            flip(path)
        os.unlink(paths[1])
        for i in self.times:
            out = self.path(f"restored-{i}.db")
            run = self.run_asof("restore", "--at", f"@{self.times[i]:.6f}", "--archive", self.urls[0],
                                "--also", self.urls[1], "-o", out)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(counter_of(out), i)
        mnt, log = self.path("mnt"), self.path("mount.log")
        os.mkdir(mnt)
        run = self.run_asof("mount", self.urls[0], mnt, "-o", f"also={self.urls[1]},log={log}")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.addCleanup(asof, "umount", mnt)
        for i, when in self.times.items():
            self.assertEqual(counter_of(os.path.join(mnt, "at", f"@{when:.6f}", NAME)), i)
        with open(log, encoding="utf-8") as f:
            text = f.read()
        self.assertTrue(any(os.path.basename(p) in text for p in paths), text)
        # Under its own name, or as what the object before it lacks: the places are cut otherwise.
        self.assertTrue(os.path.basename(paths[1]) in text or "lacks transaction" in text, text)

    def test_both_damaged(self):
        harness.need_fuse()
        newest = [p for p in objects_of(self.places[0]) if p.endswith(".wal.gz")][-1]
        file = os.path.basename(newest)
        mnt, log = self.path("mnt"), self.path("mount.log")
        os.mkdir(mnt)
        for place in self.places:
            flip(os.path.join(place, "local", NAME, "segment", file))
        run = self.query(self.N, "--also", self.urls[1])
        self.assertEqual(run.returncode, 4, run.stderr)
        self.assertIn(file, run.stderr)
        run = self.run_asof("mount", self.urls[0], mnt, "-o", f"also={self.urls[1]},log={log}")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.addCleanup(asof, "umount", mnt)
        with self.assertRaises(OSError) as caught:
            with open(os.path.join(mnt, "at", f"@{self.times[self.N]:.6f}", NAME), "rb") as f:
                f.read()
        self.assertEqual(caught.exception.errno, errno.EIO)
        with open(log, encoding="utf-8") as f:
            self.assertIn(file, f.read())

    def test_from_the_configuration(self):
        """One of them is configured as the database's destination, and named by nobody."""
        config = self.path("asof.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"dbs:\n  - path: {self.db_path}\n    replicas:\n"
                    + "".join(f"      - url: {u}\n" for u in self.urls))
        path = next(p for p in objects_of(self.places[0]) if p.endswith(".db.gz"))
        os.unlink(path)
        run = self.query(6)
        self.assertNotEqual(run.returncode, 0)
        run = self.query(6, "--config", config)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("6", run.stdout.split())

    def test_another_database(self):
        """A place that has another database under the name stands in for nothing."""
        other, other_url = self.path("other"), self.server.url(self.path("c"))
        os.mkdir(other)
        db = self.open_db(os.path.join(other, NAME))
        make_counter(db)
        writer = self.replicate(other_url, db=os.path.join(other, NAME),
                                archive=self.path("other-archive"))
        writer.wait_ready()
        commit(db)
        self.wait_shipped(other_url, 1)
        self.assertEqual(writer.stop(), 0, writer.log())
        db.close()
        for path in objects_of(self.places[0]):
            flip(path)
        run = self.query(self.N, "--also", other_url)
        self.assertEqual(run.returncode, 4, run.stderr)
        self.assertIn("another database", run.stderr)

    # ---- repaired ----

    def validate(self, place, *args):
        return self.run_asof("validate", "--history", "--archive", place, *args)

    def test_repaired_from_the_other(self):
        """What lies on the server, by its URL."""
        self.assertEqual(self.validate(self.urls[0]).returncode, 0)
        paths = list(objects_of(self.places[0]))
        for path in paths:
            flip(path)
        os.unlink(paths[0])
        flip(os.path.join(self.places[0], "local", NAME, "00000001.lineage"))
        also = ("--also", self.urls[1])
        run = self.validate(self.urls[0])
        self.assertEqual(run.returncode, 4, run.stderr)
        run = self.validate(self.urls[0], *also)
        self.assertEqual(run.returncode, 4, run.stderr)
        self.assertIn(f"can be repaired from {self.urls[1]}", run.stdout)
        self.assertIn("asof validate --repair", run.stdout)
        run = self.validate(self.urls[0], "--repair", *also)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("repaired", run.stdout)
        self.assertEqual(self.validate(self.urls[0], *also).returncode, 0)
        for i in self.times:
            run = self.query(i)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn(str(i), run.stdout.split())

    def test_repaired_as_a_directory(self):
        """The damaged original is kept under another name, until asof cleanup takes it."""
        place = self.places[0]
        base = next(p for p in objects_of(place) if p.endswith(".db.gz"))
        flip(base)
        with open(base, "rb") as f:
            damaged = f.read()
        run = self.validate(place, "--json", "--repair", "--also", self.urls[1])
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        steps = json.loads(run.stdout)["repairs"]
        self.assertEqual([s["outcome"] for s in steps], ["repaired"])
        self.assertEqual(steps[0]["from"], self.urls[1])
        aside = [f for f in os.listdir(os.path.dirname(base)) if ".damaged-" in f]
        self.assertEqual(len(aside), 1)
        aside = os.path.join(os.path.dirname(base), aside[0])
        with open(aside, "rb") as f:
            self.assertEqual(f.read(), damaged)
        self.assertEqual(self.validate(place).returncode, 0)

    def test_not_to_be_repaired(self):
        """Damaged in both: said so, with what it takes along, and as damage."""
        base = next(p for p in objects_of(self.places[0]) if p.endswith(".db.gz"))
        for place in self.places:
            flip(base.replace(self.places[0], place))
        run = self.validate(self.urls[0], "--repair", "--also", self.urls[1])
        self.assertEqual(run.returncode, 4, run.stdout + run.stderr)
        self.assertIn("cannot be repaired", run.stdout)
        self.assertIn("cannot be restored", run.stdout)


class Forked(harness.Case):
    """Two copies of an archive that both went on: the same numbers, other transactions."""

    def go_on(self, archive, n):
        r = self.replicate(archive=archive)
        r.wait_ready()
        for _ in range(n):
            commit(self.db)
        r.wait_known()
        self.assertEqual(r.stop(), 0, r.log())

    def test_nothing_of_the_other_is_put(self):
        self.db = self.open_db()
        make_counter(self.db)
        self.go_on(self.archive, 3)
        other = self.path("other")
        shutil.copytree(self.archive, other)
        for _ in range(2):
            self.go_on(self.archive, 4)
        commit(self.db)
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(3):
            self.go_on(other, 3)
        folder = os.path.join(other, "local", NAME)
        before = self.notes_and_segments(folder)
        self.assertTrue(any(f.endswith(".gap") for f in before), before)
        run = asof("validate", "--history", "--archive", other, "--repair", "--also", self.archive)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("went another way", run.stderr)
        self.assertEqual(self.notes_and_segments(folder), before)
        for way in ((self.archive, other), (other, self.archive)):
            run = asof("copy", *way)
            self.assertEqual(run.returncode, 1, run.stdout + run.stderr)
            self.assertIn(f"archive '{way[1]}' went another way: txid ", run.stderr)
        self.assertEqual(self.notes_and_segments(folder), before)
        gap = max(int(f.split(".")[0]) for f in before if f.endswith(".gap"))
        sealed = [f for f in before if f.endswith(".wal.gz") and f.count("-") > 3
                  and int(f.split("-")[1]) > gap]
        if not sealed:  # as busy as the machine was
            return
        os.unlink(os.path.join(folder, "segment", sealed[-1]))
        before = self.notes_and_segments(folder)
        run = asof("validate", "--history", "--archive", other, "--repair", "--also", self.archive)
        self.assertEqual(run.returncode, 4, run.stdout + run.stderr)
        self.assertIn("cannot be repaired: transactions", run.stdout)
        # Nor is it read: what was in that segment is lost, and said to be.
        first, last = (int(n) for n in sealed[-1].split("-")[1:3])
        for txid in range(first, last + 1):
            order = ["restore", "--tx", str(txid), "--archive", other, "--no-safety", "--force",
                     "-o", self.path("out.db")]
            if txid == last and asof(*order).returncode == 0:  # a snapshot of that one holds it
                continue
            run = asof(*order, "--also", self.archive)
            self.assertEqual(run.returncode, 4, run.stderr)
            self.assertEqual(run.stderr.count("went another way"), 1, run.stderr)
        self.assertEqual(self.notes_and_segments(folder), before)

    @staticmethod
    def notes_and_segments(folder):
        return sorted(f for f in os.listdir(folder) + os.listdir(os.path.join(folder, "segment"))
                      if f.endswith((".gap", ".lineage", ".wal.gz")))


class Asked(harness.Case):
    """What two buckets are asked for."""

    def setUp(self):
        super().setUp()
        self.buckets = [s3_fake.Fake({"K": s3_fake.Key("secret")}) for _ in range(2)]
        for bucket in self.buckets:
            self.addCleanup(bucket.stop)
        self.urls = [b.url("/x") for b in self.buckets]
        settings = unittest.mock.patch.dict(os.environ, {
            "ASOF_CACHE_DIR": "", "AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "secret"})
        settings.start()
        self.addCleanup(settings.stop)
        self.db = self.open_db()
        make_counter(self.db)
        writer = self.replicate(*self.urls)
        writer.wait_ready()
        for i in range(1, 6):
            commit(self.db)
            wait_for("both to have it", lambda n=i: all(self.newest(u) == n for u in self.urls))
        self.assertEqual(writer.stop(), 0, writer.log())

    def newest(self, url):
        run = asof("query", "--archive", url, NAME, "SELECT n FROM counter")
        return int(run.stdout.split()[-1]) if run.returncode == 0 else -1

    def asked(self, *args):
        before = [len(b.seen()) for b in self.buckets]
        run = asof(*args, "--archive", self.urls[0], "--also", self.urls[1])
        return run, [len(b.seen()) - n for b, n in zip(self.buckets, before)]

    def test_lazily(self):
        """The other place gets no request where nothing is lacking, and few where something is."""
        out = self.path("out.db")
        words = ("restore", "--latest", "--force", "--no-safety", "-o", out)
        run, whole = self.asked(*words)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(whole[1], 0)
        self.assertGreater(whole[0], 0)
        segments = sorted(k for k in self.buckets[0].objects if "/segment/" in k and k.endswith(".wal.gz"))
        del self.buckets[0].objects[segments[-2]]
        run, lent = self.asked(*words)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(counter_of(out), 5)
        print(f"requests: {whole} whole, {lent} with a segment gone", file=sys.stderr)
        self.assertGreater(lent[1], 0)
        self.assertLess(sum(lent), sum(whole) + 40)


class Nowhere(harness.Case):
    """Other places that are not there."""

    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        make_counter(self.db)
        writer = self.replicate()
        writer.wait_ready()
        for _ in range(3):
            commit(self.db)
        writer.wait_known()
        self.assertEqual(writer.stop(), 0, writer.log())
        run = asof("backup", "--db-path", self.db_path, "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)

    def damage(self):
        """A backup; what the whole archive then holds."""
        folder = os.path.join(self.archive, "manual")
        flip(next(os.path.join(folder, f) for f in os.listdir(folder) if f.endswith(".db.gz")))
        return self.all_files()

    def all_files(self):
        return {os.path.join(folder, f): os.stat(os.path.join(folder, f)).st_mtime_ns
                for folder, _, files in os.walk(self.archive) for f in files}

    def test_named(self):
        """Every command that takes one ends before it does anything, in one line that names it."""
        before, nowhere, here = self.damage(), self.path("nowhere"), ("--archive", self.archive)
        mnt = self.path("mnt")
        os.mkdir(mnt)
        for words in (("query", NAME, "SELECT 1", *here), ("list", *here), ("log", NAME, *here),
                      ("diff", "tx:1", "latest", NAME, *here), ("validate", *here),
                      ("bisect", NAME, "SELECT 1", *here),
                      ("restore", "--latest", "-o", self.path("out.db"), *here),
                      ("validate", "--repair", *here), ("validate", "--repair", "--backups", *here),
                      ("validate", "--repair", "--history", *here)):
            run = asof(*words, "--also", nowhere)
            self.assert_fails(run, 3, nowhere)
            self.assertEqual((run.stdout, run.stderr.count("\n")), ("", 1), (words, run.stderr))
        self.assert_fails(asof("mount", self.archive, mnt, "-o", f"also={nowhere}"), 3, nowhere)
        self.assertFalse(os.path.ismount(mnt))
        self.assertEqual(self.all_files(), before)

    def test_configured(self):
        """One that is configured is told of, once, and the rest goes on."""
        nowhere, config = self.path("nowhere"), self.path("asof.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"dbs:\n  - path: {self.db_path}\n    archive: {self.archive}\n"
                    f"    replicas:\n      - url: {nowhere}\n")
        for words in (("validate", "--repair"), ("list",), ("query", NAME, "SELECT 1")):
            run = asof(*words, "--archive", self.archive, "--config", config)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(run.stderr.count(nowhere), 1, (words, run.stderr))


if __name__ == "__main__":
    unittest.main()

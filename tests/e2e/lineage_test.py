#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""What was captured last is damaged, or gone: capture goes on by itself, in a child lineage.

Held at any damage: what restores is what was committed, byte for byte;
what does not is an error that names what is damaged;
it is one child, whoever is killed when;
nothing is deleted; and what is put back
is read again.
"""

import contextlib
import errno
import glob
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import sshd  # noqa: E402
from harness import ASOF, asof, asof_json, commit, make_counter, wait_for  # noqa: E402

NAME = "trades.db"
DIE_IO = os.path.join(os.path.dirname(ASOF), "..", "tests", "soak", "die_io.so")
JUMP = 1 << 21


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.archive, "local", NAME)
        self.images = {}  # of the file after the commit with that count, page by page
        self.lost = None  # what was damaged, and its bytes before that

    # ---- the application ----

    def commit(self, n_rows=1):
        commit(self.db, n_rows)
        self.remember()

    def remember(self):
        n, = self.db.execute("SELECT n FROM counter").fetchone()
        self.images[n] = self.db.serialize()

    def newest(self):
        return self.db.execute("SELECT n FROM counter").fetchone()[0]

    # ---- an archive whose newest object is to be damaged ----

    def growing(self):
        """That one still grows."""
        self.db = self.open_db()
        make_counter(self.db)
        self.remember()
        r = self.replicate()
        r.wait_ready()
        for _ in range(6):
            self.commit()
            r.wait_known()
        self.assertEqual(r.stop(), 0)
        return self.newest_of("segment")

    def sealed(self):
        """That one was sealed, and so was what came before it."""
        self.db = self.open_db()
        make_counter(self.db)
        self.remember()
        r = self.replicate("--segment-size", "64K")
        r.wait_ready()
        for _ in range(3):
            self.commit(900)
            r.wait_known()
        self.assertEqual(r.stop(), 0)
        r = self.replicate()  # the last one is sealed with the next news
        wait_for("sealed segments", lambda: not self.unsealed())
        self.assertEqual(r.stop(), 0)
        return self.newest_of("segment")

    def idle(self):
        """The state of a database at rest, in a snapshot alone."""
        self.db = self.open_db()
        make_counter(self.db)
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.remember()
        r = self.replicate()
        r.wait_ready()
        self.assertEqual(r.stop(), 0)
        return self.newest_of("snapshot")

    def unsealed(self):
        return [f for f in os.listdir(os.path.join(self.folder, "segment")) if f.count("-") == 1]

    def newest_of(self, folder):
        names = [n for n in os.listdir(os.path.join(self.folder, folder)) if "commits" not in n]
        return f"{folder}/{max(names)}"

    def keep(self):
        """The archive as it is now, for damage() of one kind after the other."""
        self.template = self.path("template")
        shutil.copytree(self.dir, self.template, ignore=shutil.ignore_patterns("template", "*-shm"))
        self.before = self.log()
        self.told = asof_json("status", "--archive", self.archive)["databases"][0]["last_txid"]
        self.check(self.before)

    def fresh(self):
        self.db.close()
        shutil.rmtree(self.archive)
        for path in glob.glob(self.db_path + "*"):
            os.unlink(path)
        shutil.copytree(os.path.join(self.template, "archive"), self.archive)
        for path in glob.glob(os.path.join(self.template, NAME + "*")):
            shutil.copy(path, self.dir)
        self.db = self.open_db()

    def damage(self, file, change):
        path = os.path.join(self.folder, file)
        self.lost = (file, read(path))
        data = change(self.lost[1])
        if data is None:
            os.unlink(path)
        else:
            write(path, data)
        self.damaged = data

    def put_back(self):
        write(os.path.join(self.folder, self.lost[0]), self.lost[1])

    # ---- what is held ----

    def log(self, archive=None):
        run = asof("log", NAME, "--json", "--archive", archive or self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        return [c["txid"] for c in json.loads(run.stdout)["commits"] if "txid" in c]

    def restore_one(self, txid, archive=None):
        """What came of it: an image of ours, or None and what was said."""
        out = self.path("one.db")
        with contextlib.suppress(OSError):
            os.unlink(out)
        run = asof("restore", "--tx", str(txid), "-o", out, "--no-safety", "--db", NAME, "--archive",
                   archive or self.archive)
        if run.returncode:
            self.assertIn(run.returncode, (3, 4), run.stderr)
            return None, run
        with contextlib.closing(sqlite3.connect(f"file:{out}?immutable=1", uri=True)) as db:
            try:
                n, = db.execute("SELECT n FROM counter").fetchone()
            except (sqlite3.OperationalError, TypeError):
                return -1, run  # while the table was made
        self.assertEqual(read(out), self.images[n], f"transaction {txid} is not what was committed")
        return n, run

    def check(self, txids, may_lack=False, archive=None):
        """Each is what was committed, in order; else, where that may be, damage that names the object."""
        counts = []
        for txid in txids:
            n, run = self.restore_one(txid, archive)
            if n is not None:
                counts.append(n)
                continue
            self.assertTrue(may_lack, f"transaction {txid}: {run.stderr}")
            self.assertEqual(run.returncode, 4, run.stderr)
            if self.named():
                self.assertIn(os.path.basename(self.lost[0]), run.stderr)
        self.assertEqual(counts, sorted(counts))
        return counts

    def named(self):
        """Of a snapshot that is gone nothing tells that it was there."""
        return self.damaged is not None or not self.lost[0].startswith("snapshot")

    def status(self):
        return asof_json("status", "--archive", self.archive)["databases"][0]

    def children(self):
        """first_txid of each lineage that goes on behind damage."""
        firsts = []
        for path in glob.glob(os.path.join(self.folder, "*.lineage")):
            note = dict(line.split(" ", 1) for line in read(path).decode().splitlines())
            if int(note["first_txid"]) > int(note["from_txid"]) + 1:
                self.assertGreaterEqual(int(note["from_txid"]), self.told)
                self.assertGreater(int(note["first_txid"]), int(note["from_txid"]) + JUMP)
                self.assertTrue(note["reason"].startswith("damaged: "), note)
                firsts.append(int(note["first_txid"]))
        return sorted(firsts)

    def go_on(self, *options, commits=2):
        r = self.replicate(*options)
        for _ in range(commits):
            self.commit()
        r.wait_known()
        return r

    def check_gone_on(self, must=True):
        """After a run over damage; gives the first txid of the child."""
        children = self.children()
        if not children and not must:  # bytes that nothing needs to go on
            counts = self.check([t for t in self.log() if t > self.told])
            self.assertEqual(counts[-1], self.newest())
            return None
        self.assertEqual(len(children), 1)
        after = [t for t in self.log() if t > self.told]
        self.assertGreaterEqual(min(after), children[0])
        self.assertEqual(self.check(after)[-1], self.newest())
        self.check(self.before, may_lack=True)
        path = os.path.join(self.folder, self.lost[0])
        self.assertEqual(read(path) if os.path.exists(path) else None, self.damaged)
        status = self.status()
        self.assertIsNone(status["reason"])
        lost, = status["lost"]
        self.assertEqual(lost["to_txid"], self.told)
        if self.named():
            self.assertEqual(lost["object"], self.lost[0])
            self.assertIn(self.lost[0], asof("status", "--archive", self.archive).stdout)
        run = asof("restore", "--tx", str(children[0] - 1000), "-o", self.path("one.db"), "--force",
                   "--no-safety", "--archive", self.archive)
        self.assertEqual(run.returncode, 3, run.stderr)
        gap = status["gaps"][-1]
        self.assertEqual(gap["from_txid"], self.told)
        self.assertEqual(gap["to_txid"], min(after))
        run = self.at((self.epoch(gap["from"]) + self.epoch(gap["to"])) / 2)
        self.assertEqual(run.returncode, 3, run.stderr)
        for edge in (gap["from"], gap["to"]):
            self.assertIn(edge, run.stderr)
        run = asof("validate", "--history", "--archive", self.archive)
        self.assertEqual(run.returncode, 4, run.stdout + run.stderr)
        if self.named():
            self.assertIn(os.path.basename(self.lost[0]), run.stdout)
        return children[0]

    def at(self, epoch):
        return asof("restore", "--at", f"@{epoch:.6f}", "-o", self.path("one.db"), "--force",
                    "--no-safety", "--archive", self.archive)

    def epoch(self, text):
        whole, _, fraction = text.rstrip("Z").partition(".")
        return time.mktime(time.strptime(whole + " UTC", "%Y-%m-%dT%H:%M:%S %Z")) - time.timezone \
            + float("0." + (fraction or "0"))

    def check_put_back(self):
        self.put_back()
        counts = self.check(self.before)
        self.assertEqual(len(counts), len(self.before))
        self.assertEqual(self.status()["lost"], [])
        run = asof("validate", "--history", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)


class Damage(Case):
    def each(self, file, changes, must=True):
        self.keep()
        for what, change in changes:
            with self.subTest(what):
                self.fresh()
                self.damage(file, change)
                r = self.go_on()
                began = self.check_gone_on(must)
                if began:
                    self.assertIn("capture goes on with a new base", r.log())
                    if self.named():
                        self.assertIn(self.lost[0], r.log())
                self.assertIn(r.stop(random.choice([signal.SIGTERM, signal.SIGKILL])),
                              (0, -signal.SIGKILL))
                r = self.go_on()
                self.assertEqual(self.check_gone_on(must), began, "another lineage for the same damage")
                self.assertEqual(r.stop(), 0)
                self.check_put_back()
                r = self.go_on()
                self.assertEqual(r.stop(), 0)
                self.assertEqual(self.children(), [began] if began else [])
                self.check(self.before)
                self.check([t for t in self.log() if t > self.told])

    @staticmethod
    def cuts(size, at):
        return [(f"cut at {n}", lambda data, n=n: data[:n]) for n in at if n < size]

    @staticmethod
    def flips(at):
        def flip(data, n):
            return data[:n] + bytes([data[n] ^ 0x41]) + data[n + 1:]
        return [(f"byte {n} flipped", lambda data, n=n: flip(data, n)) for n in at]

    def test_growing_cut_or_gone(self):
        file = self.growing()
        size = os.path.getsize(os.path.join(self.folder, file))
        self.each(file, [("gone", lambda data: None),
                         *self.cuts(size, [0, 10, 82, 90, 300, size // 2, size - 1])])

    def test_growing_flipped(self):
        """In its header, and wherever chance has it: in data, in records."""
        file = self.growing()
        size = os.path.getsize(os.path.join(self.folder, file))
        header = [0, 3, 12, 17, 24, 40, 70, 81]
        rng = random.Random(4)
        self.each(file, self.flips(header[:: 2] + [rng.randrange(82, size) for _ in range(8)]),
                  must=False)

    def test_sealed(self):
        file = self.sealed()
        size = os.path.getsize(os.path.join(self.folder, file))
        rng = random.Random(5)
        flips = [0, 20, size - 1, size - 100, size - 190, rng.randrange(60, size - 218)]
        self.each(file, [("gone", lambda data: None), *self.cuts(size, [0, 100, size - 1]),
                         *self.flips(flips)], must=False)

    def test_the_one_before(self):
        """Not what was captured last: nothing is to be gone on behind, and no gap is declared."""
        file = self.sealed()
        r = self.replicate("--no-maintenance")
        r.wait_ready()
        self.commit()
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.assertEqual(len(self.unsealed()), 1)
        self.keep()
        for what, change in [("gone", lambda data: None), *self.flips([30, 20000])]:
            with self.subTest(what):
                self.fresh()
                shutil.rmtree(os.path.join(self.folder, "coalesced"))
                self.damage(file, change)
                for _ in range(2):
                    r = self.go_on("--no-maintenance")
                    self.assertEqual(r.stop(), 0)
                self.put_back()
                self.assertEqual(self.status()["gaps"], [])
                self.assertEqual(self.children(), [])
                txids = self.log()
                self.assertEqual(txids[:len(self.before)], self.before)
                self.assertEqual(self.check(txids)[-1], self.newest())

    def test_idle_snapshot(self):
        file = self.idle()
        size = os.path.getsize(os.path.join(self.folder, file))
        self.each(file, [("gone", lambda data: None), *self.cuts(size, [0, size // 2]),
                         *self.flips([5, size - 50])], must=False)

    def test_without_head(self):
        """Then nothing tells how far the damaged one went: the child begins far above it all the same."""
        file = self.growing()
        self.keep()
        for name, change in (("header", lambda data: b"\0" + data[1:]), ("cut", lambda data: data[:300])):
            with self.subTest(name):
                self.fresh()
                os.unlink(os.path.join(self.folder, "head"))
                self.damage(file, change)
                r = self.go_on()
                self.assertEqual(self.check([t for t in self.log() if t > self.told])[-1],
                                 self.newest())
                self.assertEqual(r.stop(), 0)
                if name == "header":  # what is cut is torn, as far as anybody can tell
                    self.told = 0
                    self.assertEqual(len(self.children()), 1)
                    self.check_put_back()
                    self.assertEqual(self.go_on().stop(), 0)
                    self.check(self.before)
                    self.check([t for t in self.log() if t > JUMP])

    def test_what_may_pass(self):
        """An error of reading is none of the archive: no lineage, and when it is over, no gap."""
        file = self.growing()
        self.keep()
        path = os.path.join(self.folder, file)
        os.rename(path, path + ".aside")
        os.mkdir(path)  # reading it fails: EISDIR
        run = asof("replicate", self.db_path, self.archive)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertEqual(self.children(), [])
        os.rmdir(path)
        os.rename(path + ".aside", path)
        r = self.go_on()
        self.assertEqual(self.children(), [])
        self.assertEqual(self.status()["gap_count"], 0)
        self.assertEqual(r.stop(), 0)
        self.assertEqual(self.check(self.log())[-1], self.newest())

    def test_twice(self):
        """The child is damaged in its turn."""
        file = self.growing()
        self.keep()
        self.damage(file, lambda data: data[:100])
        self.assertEqual(self.go_on().stop(), 0)
        first = self.children()
        second = self.newest_of("segment")
        self.assertNotEqual(second, file)
        kept = read(os.path.join(self.folder, second))
        write(os.path.join(self.folder, second), kept[:90])
        self.assertEqual(self.go_on().stop(), 0)
        self.assertEqual(len(self.children()), 2)
        self.assertEqual(self.children()[0], first[0])
        self.assertEqual(len(self.status()["lost"]), 2)
        after = [t for t in self.log() if t >= self.children()[1]]
        self.assertEqual(self.check(after)[-1], self.newest())
        write(os.path.join(self.folder, second), kept)
        self.check_put_back()
        self.check(self.log())


@unittest.skipUnless(os.path.exists(DIE_IO), "no die_io.so beside the program")
class Dying(Case):
    """kill -9 at every call that changes a file, from the start until capture goes on."""

    def die_at(self, n):
        """Whether it died; else it went on, and was stopped."""
        r = self.replicate(prefix=["env", f"LD_PRELOAD={DIE_IO}", f"DIE_AT={n}"])
        until = time.monotonic() + 3
        while r.alive() and time.monotonic() < until:
            if "gap healed" in r.log() or "going on" in r.log():
                time.sleep(0.3)
                if r.alive():
                    r.stop()
                    return False
            time.sleep(0.01)
        self.assertFalse(r.alive(), r.log())
        self.assertEqual(r.process.returncode, -signal.SIGKILL, r.log())
        return True

    def sweep(self, fresh):
        file = self.growing()
        self.keep()
        self.damage(file, lambda data: data[:len(data) // 2])
        deaths = 0
        for n in range(1, 200):
            if fresh:
                self.fresh()
                self.damage(file, lambda data: data[:len(data) // 2])
            if not self.die_at(n):
                break
            deaths += 1
            self.assertLessEqual(len(self.children()), 1)
            if fresh:
                self.assertEqual(self.go_on(commits=1).stop(), 0)
                self.check_gone_on()
        self.assertGreater(deaths, 20)
        print(f"{deaths} deaths")

    def test_each(self):
        self.sweep(True)

    def test_one_after_the_other(self):
        self.sweep(False)
        self.assertEqual(self.go_on().stop(), 0)
        self.check_gone_on()
        self.check_put_back()


class Elsewhere(Case):
    """A second place, a directory."""

    def setUp(self):
        super().setUp()
        self.second = self.path("second")

    def replicate_to(self, *options):
        r = harness.Replicator(self.db_path, self.archive, self.second, *options)
        self.addCleanup(r.close)
        return r

    def wait_sent(self):
        run = asof("wait", NAME, "--archive", self.archive, "--dest", self.second,
                   "--timeout", "60")
        self.assertEqual(run.returncode, 0, run.stderr)

    def begin(self):
        self.db = self.open_db()
        make_counter(self.db)
        self.remember()
        r = self.replicate_to()
        r.wait_ready()
        for _ in range(4):
            self.commit()
        self.wait_sent()
        return r

    def damage_newest(self):
        self.before = self.log()
        self.told = self.status()["last_txid"]
        self.damage(self.newest_of("segment"), lambda data: data[:100])

    def go_on_there(self):
        r = self.replicate_to()
        self.commit()
        self.commit()
        r.wait_known()
        self.wait_sent()
        there = self.log(self.second)
        self.assertEqual(self.check(there, archive=self.second)[-1], self.newest())
        run = asof("validate", "--history", "--archive", self.second)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return r

    def test_sent_and_repaired(self):
        """What was sent is there still, what follows comes to it; and from there the archive is whole."""
        self.assertEqual(self.begin().stop(), 0)
        self.damage_newest()
        self.assertEqual(self.go_on_there().stop(), 0)
        self.check_gone_on()
        self.assertEqual(self.check(self.before, archive=self.second)[-1], 4)
        run = asof("validate", "--history", "--repair", "--also", self.second, "--archive",
                   self.archive)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertEqual(len(self.check(self.before)), len(self.before))
        self.assertEqual(self.status()["lost"], [])
        r = self.go_on_there()  # a third time, with what was put back
        self.assertEqual(r.stop(), 0)
        self.assertEqual(len(self.children()), 1)

    def test_not_sent(self):
        """Of what is damaged before it was sent the place there knows nothing: a gap."""
        self.assertEqual(self.begin().stop(), 0)
        r = self.replicate()
        r.wait_ready()
        for _ in range(3):
            self.commit()
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.damage_newest()
        self.assertEqual(self.go_on_there().stop(), 0)
        self.check_gone_on()
        self.assertEqual(self.go_on_there().stop(), 0)


class FarElsewhere(Elsewhere):
    """A server, which has neither head nor notes of its own to tell."""

    def setUp(self):
        super().setUp()
        server = sshd.Sshd(self.path("ssh")).start()
        self.addCleanup(server.stop)
        self.second = server.url(self.path("place"))
        os.environ["ASOF_CACHE_DIR"] = self.path("cache")
        self.addCleanup(os.environ.pop, "ASOF_CACHE_DIR")


class Upkeep(Case):
    def many(self, r, n):
        for _ in range(n):
            self.commit(900)
            r.wait_known()
        self.commit()
        r.wait_known()

    def check_worked_on(self, file):
        """All is sealed and coalesced but what is damaged, which lies there as it did."""
        wait_for("sealed segments", lambda: len(set(self.unsealed()) -
                                                {os.path.basename(file)}) <= 1)
        child = [f for f in os.listdir(os.path.join(self.folder, "coalesced"))
                 if f.startswith("00000002-")]
        self.assertTrue(child)
        self.assertEqual(read(os.path.join(self.folder, file)), self.damaged)

    def worked_around(self, file, change):
        self.keep()
        self.damage(file, change)
        r = self.go_on("--segment-size", "64K")
        self.many(r, 10)
        self.check_worked_on(file)
        self.assertNotIn("upkeep of the archive failed", r.log())
        self.check_gone_on()
        time.sleep(2.1)
        self.commit(900)
        r.wait_known()
        for _ in range(2):
            run = asof("cleanup", "--tiers", "all:1s,1s:1h", "--grace", "0s", "--min-free", "0", "--archive",
                       self.archive)
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertEqual(read(os.path.join(self.folder, file)), self.damaged)
        self.assertTrue(os.path.exists(os.path.join(self.folder, "thinned")))
        self.assertEqual(self.check(self.log())[-1], self.newest())
        self.assertEqual(r.stop(), 0)

    def test_beside_a_growing_one(self):
        self.worked_around(self.growing(), lambda data: data[:300])

    def test_beside_data_that_is_damaged(self):
        """All that its records tell is right: only who reads it meets the damage."""
        def flip(data):
            return data[:120] + bytes([data[120] ^ 1]) + data[121:]
        self.worked_around(self.growing(), flip)

    def test_beside_a_sealed_one(self):
        self.worked_around(self.sealed(), lambda data: data[:-50] + bytes(50))


class Live(Case):
    def test_a_writer_and_a_mount(self):
        """Beside a writer that never stops, and a mount that stays."""
        harness.need_fuse()
        point = self.path("mnt")
        self.growing()
        self.before = self.log()
        r = self.replicate()
        r.wait_ready()
        os.mkdir(point)
        run = asof("mount", self.archive, point)
        self.assertEqual(run.returncode, 0, run.stderr)
        raw = os.path.join(point, ".raw", "tx", NAME)
        images = {t: read(os.path.join(raw, str(t))) for t in self.before}
        over = threading.Event()

        def keep_writing():
            with contextlib.closing(harness.open_db(self.db_path)) as db:
                while not over.is_set():
                    commit(db, 3)
                    time.sleep(0.002)
        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            time.sleep(0.5)
            r.stop(signal.SIGKILL)
            self.told = self.status()["last_txid"]
            self.damage(self.newest_of("segment"),
                        lambda data: data[:len(data) // 2] + bytes(len(data) - len(data) // 2))
            r = self.replicate()
            wait_for("a child", lambda: "gap healed" in r.log())
            time.sleep(0.5)
        finally:
            over.set()
            writer.join()
        r.wait_known()
        child, = self.children()
        self.assertGreater(child, self.told)
        for txid, image in images.items():
            self.assertEqual(read(os.path.join(raw, str(txid))), image)
        with self.assertRaises(OSError) as e:
            read(os.path.join(raw, str(self.told)))
        self.assertEqual(e.exception.errno, errno.EIO)
        latest = wait_for("latest", lambda: self.count(os.path.join(point, "latest", NAME))
                          == self.newest())
        self.assertTrue(latest)
        after = [t for t in self.log() if t >= child]
        counts = [self.count(os.path.join(point, "tx", NAME, str(t)))
                  for t in after[:: max(1, len(after) // 20)]]
        self.assertEqual(counts, sorted(counts))
        self.assertGreater(counts[-1], counts[0])
        self.assertIn(str(after[-1]), os.listdir(os.path.join(point, "tx", NAME)))
        self.assertEqual(r.stop(), 0)
        self.put_back()
        wait_for("what was put back", lambda: os.path.exists(os.path.join(raw, str(self.told))))
        run = asof("validate", "--history", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    @staticmethod
    def count(path):
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
            return db.execute("SELECT n FROM counter").fetchone()[0]


if __name__ == "__main__":
    harness.main(at_once=2)

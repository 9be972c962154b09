#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Soaks: applications write, asof replicates, and the archive must hold every commit, exactly.

    soak.py [--build DIR] [--seed N] [--seconds N] [--count N] [--keep] [--dir DIR] [SCENARIO]...

`short` (the default) is a row of small scenarios, about 40 s; `all-short` names them.  The long
ones: real, hostile, strict, million, big; `long` is all of them but real.  oracle_writer.c is the
application, verify.c the judge.  ORACLE_SQLITE, a folder with an SQLite amalgamation, has the
writer built against that one and every scenario run with it.

Lines `ok NAME`, `FAIL NAME why`, `skip NAME why`; at the end `N passed, N failed, N skipped`.
"""
import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
STOP_LIMIT = 5.5   # SIGTERM to exit: 5 s, and the noise of a busy machine
NAME = "soak.db"


class Failure(Exception):
    pass


class Skip(Exception):
    pass


class Soak:
    """One database, its writers, its replicator, its archive."""

    def __init__(self, options, name, rng):
        self.options, self.name, self.rng = options, name, rng
        self.dir = tempfile.mkdtemp(prefix=f"soak-{name}-", dir=options.dir)
        self.db = os.path.join(self.dir, NAME)
        self.archive = os.path.join(self.dir, "archive")
        self.slots = os.path.join(self.dir, "slots")
        self.log_path = os.path.join(self.dir, "asof.log")
        self.asof = None
        self.asof_options = []
        self.prefix = []
        self.env = dict(os.environ)
        self.writers = []
        self.mounts = []
        self.figures = {}
        self.starts = 0

    # ---- the application ----

    def writer(self, *words, **named):
        """Starts oracle_writer; named(rate=5) is --rate 5."""
        args = [self.options.writer]
        for key, value in named.items():
            args += ["--" + key.replace("_", "-"), str(value)]
        args += ["--seed", str(self.rng.randrange(1, 2**40)), *words, self.db, self.slots]
        p = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.writers.append(p)
        return p

    def create(self, **named):
        self.finish_writer(self.writer(writers=0, **named))

    def finish_writer(self, p, limit=None):
        _, errors = p.communicate(timeout=limit)
        self.writers.remove(p)
        if p.returncode not in (0, -signal.SIGTERM):
            raise Failure(f"the application failed with {p.returncode}: {errors.strip()[:200]}")

    def run_writer(self, *words, **named):
        self.finish_writer(self.writer(*words, **named))

    def slot_sums(self):
        """Newest acknowledged counter; commits begun that do not move it."""
        newest = plain = 0
        with contextlib.suppress(FileNotFoundError), open(self.slots, "rb") as f:
            data = f.read()
            for i in range(len(data) // 64):
                slot = struct.unpack_from("<8Q", data, 64 * i)
                newest = max(newest, slot[0])
                plain += slot[4]
        return newest, plain

    def connect(self):
        return sqlite3.connect(self.db, timeout=20, isolation_level=None)

    # ---- the replicator ----

    def start(self, *words, wait=True):
        log = open(self.log_path, "a", encoding="utf-8")
        read_fd, write_fd = os.pipe()
        self.asof = subprocess.Popen(
            [*self.prefix, self.options.asof, "replicate", self.db, self.archive, "--name", NAME,
             "--ready-fd", str(write_fd), *self.asof_options, *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, pass_fds=[write_fd])
        log.close()
        os.close(write_fd)
        with os.fdopen(read_fd) as ready:
            if wait and ready.readline() != "ready\n":
                raise Failure("asof did not start: " + self.log()[-300:])
        self.starts += 1

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def kill(self):
        self.asof.kill()
        self.asof.wait()
        self.asof = None

    def stop(self):
        """SIGTERM: exit status 0, within 5 s."""
        began = time.monotonic()
        self.asof.terminate()
        try:
            status = self.asof.wait(30)
        except subprocess.TimeoutExpired:
            raise Failure("asof does not stop") from None
        took = time.monotonic() - began
        self.asof = None
        self.figures["stop_s"] = round(took, 2)
        if status != 0:
            raise Failure(f"asof ended with {status}: {self.log()[-300:]}")
        if took > STOP_LIMIT:
            raise Failure(f"asof took {took:.1f} s to stop")

    def status(self):
        run = subprocess.run([self.options.asof, "status", "--json", "--archive", self.archive],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        rows = json.loads(run.stdout)["databases"] if run.returncode == 0 else []
        return rows[0] if rows else None

    def wait_settled(self, limit=60):
        """Until asof has captured everything, and every gap is healed."""
        until = time.monotonic() + limit
        text = time.strftime("%Y-%m-%dT%H:%M:%S.999999Z", time.gmtime())
        while time.monotonic() < until:
            if self.asof and self.asof.poll() is not None:
                raise Failure("asof ended: " + self.log()[-300:])
            row = self.status()
            if row and row["last_txid"] and row["known_until"] > text and self.settled():
                return
            time.sleep(0.1)
        raise Failure("never settled: " + self.log()[-400:])

    def settled(self):
        """The log's last word on continuity is that it was made whole."""
        word = True
        for line in self.log().splitlines():
            if "gap declared" in line or "continuity broken" in line:
                word = False
            elif "gap healed" in line or "first snapshot db=" in line:
                word = True
        return word

    def wait_idle(self, limit=60):
        """Until upkeep has nothing left to do that makes views shallower (it seals after that)."""
        folder = os.path.join(self.archive, "local", NAME)
        until, seen, since = time.monotonic() + limit, None, time.monotonic()
        while time.monotonic() < until:
            now = [sorted(os.listdir(os.path.join(folder, f))) for f in ("coalesced", "snapshot")]
            busy = any(n.endswith(".tmp") for names in now for n in names)
            if now != seen or busy:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > 1.0:
                return
            time.sleep(0.05)
        raise Failure("upkeep does not come to an end: " + self.log()[-400:])

    def settle_and_stop(self, limit=60):
        """The application's own checkpoint, then SIGTERM: then the file is the last state."""
        db = self.connect()
        db.execute("PRAGMA busy_timeout = 3000")
        until = time.monotonic() + limit
        self.wait_settled(limit)
        while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > until:
                raise Failure("the application's own checkpoint stays busy")
        self.wait_idle()
        self.stop()
        problem, = db.execute("PRAGMA integrity_check").fetchone()
        if problem != "ok":
            raise Failure("the live database: " + problem)
        db.close()

    # ---- the judge ----

    def verify(self, *words, live=True, **named):
        newest, plain = self.slot_sums()
        args = [self.options.verify]
        for key, value in {"plain": plain + 2, "acked": newest, **named}.items():
            if value is not None:
                args += ["--" + key.replace("_", "-"), str(value)]
        if not ("every" in named or "views" in named):
            args += ["--every", "1"]
        if live:
            args += ["--live", self.db]
        began = time.monotonic()
        run = subprocess.run([*args, *words, self.archive, NAME], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, check=False)
        problems = [s for s in run.stdout.splitlines() if s.startswith("problem: ")]
        figures = [s for s in run.stdout.splitlines() if s.startswith("{")]
        if figures:
            self.figures.update(json.loads(figures[-1]))
        self.figures["judged_s"] = round(time.monotonic() - began, 1)
        if run.returncode or problems or not figures:
            problems += [s for s in run.stdout.splitlines() if s.startswith("note: ")]
            raise Failure(f"judge: status {run.returncode}; " + "; ".join(problems[:8]) +
                          " " + run.stderr[-600:])
        if live and self.figures["max_depth"] > 8:
            raise Failure(f"a view has {self.figures['max_depth']} objects over its base")
        return self.figures

    def restore_some(self, n=2):
        """integrity_check on restored moments."""
        f = self.figures
        for _ in range(n):
            txid = self.rng.randrange(f["first_txid"], f["last_txid"] + 1)
            out = os.path.join(self.dir, "restored.db")
            run = subprocess.run([self.options.asof, "restore", "--tx", str(txid), "--db", NAME, "-o",
                                  out, "--force", "--archive", self.archive],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
            if run.returncode == 3 and "gap" in run.stderr:
                continue
            if run.returncode:
                raise Failure(f"restore of txid {txid}: {run.stderr.strip()}")
            with contextlib.closing(sqlite3.connect(out)) as db:
                problem, = db.execute("PRAGMA integrity_check").fetchone()
            if problem != "ok":
                raise Failure(f"restored txid {txid}: {problem}")
            os.unlink(out)

    def must_have_gaps(self):
        if not (self.figures["heals"] or self.figures["lineages"] > 1):
            raise Failure("no gap was declared: the scenario shows nothing")

    def close(self):
        for p in self.writers:
            p.terminate()
        for p in self.writers:
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
            p.stderr.close()
        if self.asof:
            self.kill()
        for point in self.mounts:
            subprocess.run(["umount", "-l", point], check=False)
        if not self.options.keep:
            shutil.rmtree(self.dir, ignore_errors=True)


# ---- short scenarios: every txid compared page for page ----

SMALL = ["--segment-size", "256K"]


def plain_load(s):
    """Several writers, spilled caches, kills: every view of a few thousand commits."""
    s.asof_options = SMALL
    s.create()
    s.start()
    s.run_writer(writers=3, seconds=3, rate=150, cache=10, small=40, keys=600, kill=0.4)
    s.settle_and_stop()
    s.verify("--no-gaps")
    s.restore_some()


def followed(s):
    """The judge reads the archive while it is written, sealed, joined and coalesced."""
    s.asof_options = ["--segment-size", "64K"]
    s.create()
    s.start()
    w = s.writer(writers=2, seconds=6, rate=100, small=60, keys=400)
    s.wait_settled()
    rounds = 0
    while w.poll() is None:
        s.verify("--no-gaps", live=False, acked=0, views=200)
        rounds += 1
    s.finish_writer(w)
    s.settle_and_stop()
    s.verify("--no-gaps")
    s.figures["rounds"] = rounds


def page_size(size, auto_vacuum):
    def scenario(s):
        s.asof_options = SMALL if size < 16384 else ["--segment-size", "1M"]
        s.create(page_size=size, auto_vacuum=auto_vacuum)
        s.start()
        s.run_writer(writers=2, seconds=2, rate=80, cache=10, small=40, keys=300, page_size=size,
                     auto_vacuum=auto_vacuum, vacuum_every=0.7)
        s.settle_and_stop()
        s.verify("--no-gaps")
        s.restore_some(1)
    return scenario


def shrinking(s):
    """Everything deleted and vacuumed away, and grown again, over and over."""
    s.asof_options = SMALL
    s.create(page_size=1024)
    s.start()
    with contextlib.closing(s.connect()) as db:
        for i in range(8):
            s.run_writer(writers=1, count=(i + 1) * 60, small=20, keys=400)
            db.execute("DELETE FROM data WHERE id % 7 > 0")
            db.execute("VACUUM")
    s.settle_and_stop()
    s.verify("--no-gaps", plain=40)
    s.restore_some()


def killed(s):
    """asof killed with SIGKILL at random and started again."""
    s.asof_options = SMALL
    s.create()
    s.start()
    # With asof and the application gone at once a recovery follows.  Before SQLite 3.50.2 it loses
    # commits behind a spilled ROLLBACK TO; with room in the cache nothing spills.
    spills = s.options.version >= (3, 50, 2)
    w = s.writer("--hold", writers=3, seconds=5, rate=120, cache=10 if spills else 0, small=50,
                 keys=600)
    while w.poll() is None:
        time.sleep(s.rng.uniform(0.05, 0.6))
        s.kill()
        if s.rng.random() < 0.3:
            time.sleep(s.rng.uniform(0, 0.4))
        s.start(wait=s.rng.random() < 0.7)
    s.finish_writer(w)
    s.settle_and_stop()
    s.verify()
    s.restore_some()


def away(s):
    """asof stopped for a while, the application checkpoints meanwhile: declared and healed."""
    s.asof_options = SMALL
    s.create()
    s.start()
    for _ in range(4):
        s.run_writer(writers=2, seconds=0.5, rate=150, small=50, keys=600)
        s.stop() if s.rng.random() < 0.5 else s.kill()
        s.run_writer(writers=1, seconds=0.2, rate=100, small=50, keys=600)
        with contextlib.closing(s.connect()) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        s.run_writer("--hold", writers=2, seconds=0.3, rate=150, small=50, keys=600)
        s.start()
    s.run_writer(writers=2, seconds=0.5, rate=150, small=50, keys=600)
    s.settle_and_stop()
    s.verify()
    s.must_have_gaps()
    s.restore_some()


def reopened(s):
    """The application opened and closed again and again."""
    s.asof_options = SMALL
    s.create()
    s.start()
    s.run_writer(writers=2, seconds=2.5, rate=200, reopen=10, small=60, keys=600, kill=0.5)
    s.settle_and_stop()
    s.verify("--no-gaps")


def unsynced(s, strict=False, seconds=4.0, every=1, **named):
    """Autocheckpoint 10 and no fsync: resets come faster than anybody can look."""
    s.asof_options = ["--segment-size", "256K"] + (["--strict"] if strict else [])
    s.create()
    s.start()
    s.run_writer(**{"writers": 2, "seconds": seconds, "rate": 150, "small": 50, "keys": 600,
                    "autocheckpoint": 10, "synchronous": "OFF", "checkpointers": 1, "cache": 10,
                    **named})
    s.settle_and_stop()
    words = ["--no-gaps"] if strict else []
    s.verify(*words, **({"every": every} if every else {"views": 300}))
    s.restore_some(1)


def unsynced_strict(s):
    unsynced(s, strict=True)


def loaded_start(s, rate=10e6, rows=12000):
    """The first snapshot under load and on slow I/O."""
    s.create()
    s.run_writer(writers=1, count=rows // 1000, small=0, keys=100000, large=1000, large_every=1,
                 max_blob=8000)
    w = s.writer(writers=2, seconds=120, rate=60, small=70, keys=20000, checkpointers=1)
    s.env.update(LD_PRELOAD=s.options.slow_io, SLOW_IO_BYTES=str(int(rate)))
    began = time.monotonic()
    s.start("--segment-size", "512K")
    while "first snapshot db=" not in s.log() and w.poll() is None:
        time.sleep(0.05)
    s.figures["snapshot_s"] = round(time.monotonic() - began, 1)
    time.sleep(2)
    w.terminate()
    s.finish_writer(w)
    s.settle_and_stop()
    s.verify(every=7)
    s.restore_some(1)


def full_disk(s):
    """ENOSPC in the archive: the application goes on, and so does asof once there is space."""
    os.mkdir(s.archive)
    if os.geteuid() != 0 or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", s.archive], check=False,
            stderr=subprocess.DEVNULL).returncode:
        raise Skip("cannot mount a tmpfs here")
    s.mounts.append(s.archive)
    s.asof_options = ["--segment-size", "256K"]
    s.create()
    s.start()
    w = s.writer(writers=2, seconds=6, rate=200, small=40, keys=800)
    until = time.monotonic() + 15
    while "archive cannot be written" not in s.log() and time.monotonic() < until:
        time.sleep(0.05)
    full = "archive cannot be written" in s.log()
    time.sleep(1.0)
    subprocess.run(["mount", "-o", "remount,size=200m", s.archive], check=True)
    s.finish_writer(w)
    s.settle_and_stop()
    s.verify("--no-gaps")
    if not full:
        raise Failure("the disk was never full: the scenario shows nothing")


def full_disk_killed(s):
    """As full_disk, and asof is killed and stopped while there is no space."""
    os.mkdir(s.archive)
    if os.geteuid() != 0 or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", s.archive], check=False,
            stderr=subprocess.DEVNULL).returncode:
        raise Skip("cannot mount a tmpfs here")
    s.mounts.append(s.archive)
    s.asof_options = ["--segment-size", "128K"]
    s.create()
    s.start()
    w = s.writer("--hold", writers=2, seconds=8, rate=150, small=40, keys=800,
                 autocheckpoint=200)
    size = 2
    while w.poll() is None:
        time.sleep(s.rng.uniform(0.3, 1.2))
        if s.asof and s.rng.random() < 0.5:
            s.kill()
        if not s.asof or s.asof.poll() is not None:
            with contextlib.suppress(Failure):
                s.start()
        if s.rng.random() < 0.6:
            size += 1
            subprocess.run(["mount", "-o", f"remount,size={size}m", s.archive], check=True)
    s.finish_writer(w)
    subprocess.run(["mount", "-o", "remount,size=300m", s.archive], check=True)
    if s.asof.poll() is not None:
        s.start()
    s.settle_and_stop()
    s.verify()


def new_page_size(s):
    """The page size changes through VACUUM in rollback mode."""
    s.asof_options = SMALL
    s.create(page_size=4096)
    s.start()
    for size in (1024, 8192, 4096):
        s.run_writer(writers=2, seconds=0.6, rate=150, small=50, keys=400)
        s.stop()  # while it is attached nobody leaves WAL mode
        with contextlib.closing(s.connect()) as db:
            if db.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
                raise Failure("the application cannot leave WAL mode")
            db.execute(f"PRAGMA page_size = {size}")
            db.execute("VACUUM")
            db.execute("PRAGMA journal_mode = WAL")
        s.start()
        s.run_writer(writers=1, seconds=0.3, rate=100, small=50, keys=400)
        s.wait_settled()
    s.settle_and_stop()
    s.verify(plain=60)
    s.must_have_gaps()
    s.restore_some()


def large_transactions(s):
    """Transactions far larger than cache and batch."""
    s.asof_options = ["--segment-size", "4M"]
    s.create()
    s.start()
    s.run_writer(writers=1, count=12, small=0, keys=50000, large=3000, large_every=1, max_blob=3000,
                 cache=10)
    s.run_writer(writers=2, count=200, small=90, keys=50000)
    with contextlib.closing(s.connect()) as db:
        db.execute("UPDATE data SET v = randomblob(length(v))")
    s.run_writer(writers=2, count=300, small=90, keys=50000)
    s.settle_and_stop()
    s.verify("--no-gaps", every=50)


# ---- long scenarios ----


def report_ratio(s):
    """Bytes written by upkeep, against those of sealed segments; from the debug log."""
    sums = {}
    for line in s.log().splitlines():
        words = dict(w.split("=", 1) for w in line.split() if "=" in w)
        kind = next((k for k in ("seal", "join", "coalesce", "base") if f" compact {k} " in line), None)
        if kind:
            sums[kind] = sums.get(kind, 0) + int(words["bytes"])
            sums["n_" + kind] = sums.get("n_" + kind, 0) + 1
    s.figures["upkeep"] = sums
    sealed = sums.get("seal", 0)
    if sealed:
        ratio = (sealed + sums.get("join", 0) + sums.get("coalesce", 0)) / sealed
        s.figures["rewritten_ratio"] = round(ratio, 3)
        if ratio > 2.2:
            raise Failure(f"{ratio:.2f} times the sealed bytes were written")


def need_space(folder):
    """Sealing at idle priority can be far behind on a busy machine."""
    if shutil.disk_usage(folder).free < 8 << 30:
        raise Failure("less than 8 GiB of disk left")


def real(s):
    """Real fsync, SQLite's defaults, four writers: no gap at all."""
    seconds = s.options.seconds or 620
    count = s.options.count or 5_000_000
    s.asof_options = ["-v"]
    if s.options.nice:
        s.prefix = ["nice", "-n", str(s.options.nice)]
    s.create()
    s.start()
    began = time.monotonic()
    load = {"writers": 4, "small": 97, "keys": 20000, "kill": 5, "large": 200, "breathe": 500,
            "rate": s.options.rate}
    s.run_writer(seconds=seconds, **load)
    while s.slot_sums()[0] < count:   # at least so long, and at least so many
        need_space(s.dir)
        s.run_writer(seconds=30, **load)
    s.figures["load_s"] = round(time.monotonic() - began, 1)
    s.figures["acked"] = s.slot_sums()[0]
    s.figures["kept_bytes"] = sum(os.path.getsize(os.path.join(top, f))
                                  for top, _, files in os.walk(s.archive) for f in files)
    s.figures["wal_bytes_at_end"] = os.path.getsize(s.db + "-wal")
    s.settle_and_stop(300)
    s.verify("--no-gaps", views=400)
    report_ratio(s)
    s.restore_some(6)


def hostile(s):
    unsynced(s, seconds=s.options.seconds or 120, every=None, rate=0, writers=3, kill=0.5)
    report_gaps(s)


def strict(s):
    unsynced(s, strict=True, seconds=s.options.seconds or 120, every=None, rate=0, writers=3, kill=0.5)


def report_gaps(s):
    s.figures["declared"] = s.log().count("gap declared")
    s.figures["healed"] = s.log().count("gap healed")


def million(s):
    """A million commits in many small segments: depth and opening time stay."""
    s.asof_options = ["--segment-size", "2M", "-v"]
    if s.options.nice:
        s.prefix = ["nice", "-n", str(s.options.nice)]
    s.create()
    s.start()
    s.run_writer(writers=2, count=s.options.count or 1_000_000, small=99, keys=5000, large=100,
                 rate=s.options.rate or 3000, breathe=500)
    s.settle_and_stop(300)
    s.verify(views=1000)
    report_gaps(s)
    report_ratio(s)
    first, last = s.figures["open_us"]["first"], s.figures["open_us"]["last"]
    if last > 5 * first + 20000:
        raise Failure(f"the last view took {last} us to open, the first {first}")


def big(s):
    """A database that grows past 1 GiB: the lock page."""
    s.asof_options = ["-v"]
    s.create()
    s.start()
    s.run_writer(writers=1, seconds=1, rate=100, small=80)
    with contextlib.closing(s.connect()) as db:
        db.execute("CREATE TABLE fill (v BLOB)")
        while db.execute("PRAGMA page_count").fetchone()[0] * 4096 < 1 << 30:
            db.execute("BEGIN")
            db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
                       " INSERT INTO fill SELECT zeroblob(30000) || randomblob(20000) FROM n")
            db.execute("COMMIT")
        # Over the lock page in small steps.
        for _ in range(40):
            db.execute("INSERT INTO fill VALUES (randomblob(900000))")
    s.run_writer(writers=2, seconds=5, rate=100, small=50, keys=50000)
    s.settle_and_stop(300)
    s.figures["file_bytes"] = os.path.getsize(s.db)
    s.verify("--no-gaps", plain=200, views=4)
    if s.figures["file_bytes"] < 1 << 30:
        raise Failure("it did not pass 1 GiB")


def killed_long(s):
    """asof killed, stopped, left away at random for long, under every kind of load."""
    s.asof_options = ["--segment-size", "256K"]
    s.create(auto_vacuum=2)
    # A database that nobody has open recovers, which loses commits before SQLite 3.50.2.
    s.writer("--hold", writers=1, rate=2, seconds=100000, auto_vacuum=2)
    s.start()
    until = time.monotonic() + (s.options.seconds or 120)
    while time.monotonic() < until:
        w = s.writer(writers=s.rng.randrange(1, 4), seconds=s.rng.uniform(2, 6),
                     rate=s.rng.choice([20, 100, 400]), cache=10, small=s.rng.choice([30, 90]),
                     keys=800, auto_vacuum=2, kill=0.5, reopen=s.rng.choice([0, 30]),
                     autocheckpoint=s.rng.choice([10, 100, 1000]),
                     checkpointers=s.rng.choice([0, 0, 1]), vacuum_every=s.rng.choice([0, 0, 2]))
        while w.poll() is None:
            time.sleep(s.rng.uniform(0.02, 1.0))
            if s.rng.random() < 0.6:
                s.kill()
            else:
                s.stop()
            if s.rng.random() < 0.3:
                time.sleep(s.rng.uniform(0, 0.7))
            s.start(wait=s.rng.random() < 0.6)
        s.finish_writer(w)
    s.writers[0].terminate()
    s.settle_and_stop()
    s.verify(views=2000)
    report_gaps(s)
    s.restore_some(5)


SHORT = {
    "plain": plain_load,
    "followed": followed,
    "page-size-512": page_size(512, 2),
    "page-size-4096": page_size(4096, 1),
    "page-size-65536": page_size(65536, 0),
    "shrinking": shrinking,
    "killed": killed,
    "away": away,
    "reopened": reopened,
    "unsynced": unsynced,
    "unsynced-strict": unsynced_strict,
    "loaded-start": loaded_start,
    "full-disk": full_disk,
    "full-disk-killed": full_disk_killed,
    "new-page-size": new_page_size,
    "large-transactions": large_transactions,
}
LONG = {"hostile": hostile, "strict": strict, "killed-long": killed_long, "million": million,
        "big": big, "real": real}


def build_writer(options):
    """The writer against another SQLite: its amalgamation lies in ORACLE_SQLITE."""
    folder = os.environ.get("ORACLE_SQLITE")
    if not folder:
        return
    out = os.path.join(options.dir, "oracle_writer-amalgamation")
    source = os.path.join(HERE, "oracle_writer.c")
    if os.path.exists(out) and os.path.getmtime(out) > os.path.getmtime(source):
        options.writer = out
        return
    subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-w", "-I", ROOT, "-I", folder,
                    source, os.path.join(folder, "sqlite3.c"),
                    "-lpthread", "-ldl", "-lm", "-o", out], check=True)
    options.writer = out


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--build", default=os.environ.get("ASOF_BUILD") or
                   os.path.join(ROOT, "build", "release"))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=0, help="of the load of a long scenario")
    p.add_argument("--count", type=int, default=0, help="commits of real and million")
    p.add_argument("--rate", type=float, default=0, help="of each writer of real and million, commits a second")
    p.add_argument("--nice", type=int, default=0, help="of asof in real: what a busy machine takes "
                   "from it must not be taken for what it cannot do")
    p.add_argument("--dir", default=tempfile.gettempdir())
    p.add_argument("--keep", action="store_true")
    p.add_argument("scenario", nargs="*", default=["short"])
    o = p.parse_args()
    o.asof = os.path.join(o.build, "tools", "asof")
    o.writer = os.path.join(o.build, "tests", "soak", "oracle_writer")
    o.verify = os.path.join(o.build, "tests", "soak", "soak_verify")
    o.slow_io = os.path.join(o.build, "tests", "soak", "slow_io.so")
    o.seed = o.seed or random.randrange(1, 10**6)
    return o


def run_one(options, name, scenario):
    seed = f"{options.seed}-{name}"
    s = Soak(options, name, random.Random(seed))
    began = time.monotonic()
    word, why = "ok", ""
    try:
        scenario(s)
    except Failure as e:
        word, why = "FAIL", str(e)
    except Skip as e:
        word, why = "skip", str(e)
    except (OSError, sqlite3.Error, subprocess.SubprocessError, ValueError) as e:
        word, why = "FAIL", f"{type(e).__name__}: {e}"
    finally:
        log = []
        if word == "FAIL" and os.path.exists(s.log_path):
            log = [line for line in s.log().splitlines() if " debug " not in line][-15:]
        s.close()
    print(f"{word} {name} {why} ({time.monotonic() - began:.1f} s)", flush=True)
    if options.keep:
        print(f"    kept: {s.dir}")
    for line in log:
        print("    | " + line)
    print("    " + json.dumps(s.figures), flush=True)
    return word


def main():
    options = arguments()
    build_writer(options)
    every = {**SHORT, **LONG}
    names = []
    for word in options.scenario:
        group = {"short": SHORT, "long": [n for n in LONG if n != "real"]}.get(word, [word])
        names += list(group)
    unknown = [n for n in names if n not in every]
    if unknown:
        print("no such scenario: " + " ".join(unknown), file=sys.stderr)
        return 2
    if options.dir:
        os.makedirs(options.dir, exist_ok=True)
    version = subprocess.run([options.writer, "--version"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout.strip()
    options.version = tuple(int(n) for n in version.split("."))
    print(f"seed={options.seed} sqlite={version}", flush=True)
    words = [run_one(options, n, every[n]) for n in names]
    count = words.count
    print(f"{count('ok')} passed, {count('FAIL')} failed, {count('skip')} skipped")
    return 1 if count("FAIL") else 0


if __name__ == "__main__":
    sys.exit(main())

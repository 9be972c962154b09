#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""Readers of a mount while the history under them is thinned, and with few descriptors.

READERS_SECONDS=600 in the environment makes the reading under retention as long as that.
"""

import contextlib
import errno
import glob
import hashlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import daemon  # noqa: E402
import harness  # noqa: E402
from harness import asof, asof_json, commit, counter_of, make_counter, wait_for  # noqa: E402

NAME = "trades.db"
SECONDS = float(os.environ.get("READERS_SECONDS", 8))
TIERS = "all:2s,1s:1h"  # hours of a policy, in seconds
PIECE = 1 << 14


def files_of(pid):
    """What a process has open."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def deleted_of(pid):
    return [name for name in files_of(pid) if name.endswith(" (deleted)")]


class Mounted(harness.Case):
    def mount(self, archive=None, limit=None):
        """(mount point, process of the server); `limit`: descriptors that it starts with."""
        harness.need_fuse()
        point, log = self.path("m"), self.path("mount.log")
        os.mkdir(point)

        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with open(log, "w", encoding="utf-8") as f:
            server = subprocess.Popen(
                [harness.ASOF, "mount", archive or self.archive, point, "-f"], stdin=subprocess.DEVNULL,
                stdout=f, stderr=f, preexec_fn=few if limit else None)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.addCleanup(subprocess.run, ["fusermount3", "-uz", point], check=False,
                        stderr=subprocess.DEVNULL)
        wait_for("the mount", lambda: os.path.ismount(point) or server.poll() is not None)
        self.assertIsNone(server.poll(), self.mount_log())
        return point, server

    def mount_log(self):
        with open(self.path("mount.log"), encoding="utf-8") as f:
            return f.read()


class Reference:
    """What a moment is to read as, taken from the live database itself."""

    def __init__(self, txid, image):
        self.txid = txid
        self.pieces = [hashlib.sha256(image[at:at + PIECE]).digest()
                       for at in range(0, len(image), PIECE)]
        self.size = len(image)


class Held(Mounted):
    def setUp(self):
        super().setUp()
        self.db = self.open_db(synchronous="OFF", wal_autocheckpoint=200)
        make_counter(self.db)
        for _ in range(40):
            commit(self.db, n_rows=200)
        self.replicator = self.replicate("--segment-size", "128K")
        self.replicator.wait_ready()
        self.read_bytes = self.refused = 0

    def write(self):
        """A commit that touches pages here and there, and now and then a smaller database."""
        self.db.execute("BEGIN")
        self.db.execute("UPDATE counter SET n = n + 1")
        self.db.execute("INSERT INTO rows(text) VALUES (hex(randomblob(2000)))")
        last = self.db.execute("SELECT max(id) FROM rows").fetchone()[0]
        self.db.execute("UPDATE rows SET text = hex(randomblob(40)) WHERE id = ?",
                        (random.randrange(1, last),))
        self.db.execute("DELETE FROM rows WHERE id = ?", (random.randrange(1, last),))
        self.db.execute("COMMIT")

    def image_now(self):
        """The file that a checkpoint of the database as it is now would leave."""
        out = self.path("reference.db")
        for end in ("", "-wal"):
            shutil.copyfile(self.db_path + end, out + end)
        with contextlib.closing(sqlite3.connect(out)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(out, "rb") as f:
            return f.read()

    def references(self, n):
        """`n` moments, some commits apart, many in a second: most of them will be thinned."""
        self.replicator.wait_known()
        before, refs = self.replicator.status()["last_txid"], []
        for i in range(1, n + 1):
            for _ in range(12):
                self.write()
            image = self.image_now()
            refs.append(Reference(before + 12 * i, image))
            self.assertEqual(image[18:20], b"\2\2")
        self.replicator.wait_known()
        self.assertEqual(self.replicator.status()["last_txid"], refs[-1].txid)
        return refs

    def read_piece(self, fd, ref, i):
        """Not from the kernel's pages: from the server."""
        at = i * PIECE
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        got = os.pread(fd, PIECE, at)
        if len(got) != min(PIECE, ref.size - at):
            raise AssertionError(f"tx {ref.txid}: {len(got)} bytes at {at} of {ref.size}")
        if hashlib.sha256(got).digest() != ref.pieces[i]:
            raise AssertionError(f"tx {ref.txid}: other bytes at {at}")
        self.read_bytes += len(got)

    def cleanup(self):
        """As the daemon's own passes, but without the time of grace."""
        run = asof("cleanup", "--archive", self.archive, "--tiers", TIERS, "--grace", "0",
                   "--min-free", "1")
        if run.returncode:
            raise AssertionError(run.stderr)
        time.sleep(0.1)

    def open_at(self, m, txid):
        """None if it was thinned, which is told as that."""
        try:
            return os.open(os.path.join(m, ".raw", "tx", NAME, str(txid)), os.O_RDONLY)
        except FileNotFoundError:
            self.refused += 1
        run = asof("restore", "--tx", txid, "-o", self.path("none.db"), "--archive", self.archive)
        self.assert_fails(run, 3, str(txid))
        self.assertRegex(run.stderr, r"nearest that are kept are .*\(txid \d+\)|"
                                     r"the next one is txid \d+ of")
        return None

    def open_new(self, m, ref):
        """What is opened still is what it was."""
        fd = self.open_at(m, ref.txid)
        if fd is None:
            return
        try:
            for i in random.sample(range(len(ref.pieces)), 3):
                self.read_piece(fd, ref, i)
        finally:
            os.close(fd)

    def test_open_files(self):
        """Dozens of moments held open, read piece by piece in any order, their objects deleted."""
        refs = self.references(32)
        m, server = self.mount()
        held = []
        for ref in refs[::4] + refs[1::4] + refs[2::4]:
            fd = os.open(os.path.join(m, ".raw", "tx", NAME, str(ref.txid)), os.O_RDONLY)
            self.addCleanup(os.close, fd)
            self.assertEqual(os.fstat(fd).st_size, ref.size)
            held.append((fd, ref))

        def read_slowly():
            fd, ref = random.choice(held)
            self.read_piece(fd, ref, random.randrange(len(ref.pieces)))
            time.sleep(0.003)

        rest = refs[3::4]  # (what is held, or was just now, opens again, too)

        def open_new():
            if rest:
                self.open_new(m, rest.pop())
            # The last of its second is kept, which on a slow machine may be any of those.
            fd = self.open_at(m, random.randrange(refs[0].txid, refs[-1].txid))
            if fd is not None:
                os.close(fd)
            self.stop.wait(SECONDS / 8)

        def go_on():
            self.write()
            time.sleep(0.004)

        for work in (read_slowly, read_slowly, read_slowly, read_slowly, open_new, self.cleanup,
                     go_on):
            self.in_background(work)
        end = time.monotonic() + SECONDS
        wait_for("the end", lambda: self.failures or (time.monotonic() > end and not rest and
                                                      self.refused > 2 and
                                                      deleted_of(server.pid)), SECONDS + 60)
        self.stop.set()
        wait_for("readers to end", lambda: threading.active_count() == 1)
        self.assertEqual(self.failures, [])
        self.assertGreater(self.refused, 2)
        # Whole, once more: none of it is in the archive any more, but for a few moments.
        for fd, ref in held:
            self.assertEqual(os.fstat(fd).st_size, ref.size)
            for i in range(len(ref.pieces)):
                self.read_piece(fd, ref, i)
        log = self.mount_log()
        self.assertNotIn(" error ", log)
        self.assertEqual(self.replicator.stop(), 0, self.replicator.log())
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
        print(f"{len(held)} held, {self.read_bytes >> 20} MiB read, {self.refused} refused, "
              f"{len(deleted_of(server.pid))} deleted files open")

    def test_space_of_what_was_deleted(self):
        """Nobody reads, nobody looks: the mount holds nothing that retention has deleted."""
        refs = self.references(8)
        m, server = self.mount()
        for ref in refs:
            with open(os.path.join(m, "tx", NAME, str(ref.txid)), "rb") as f:
                f.read()
        folder = self.path("archive", "local", NAME)
        before = set(glob.glob(folder + "/segment/*-*-*.wal.gz"))

        def thinned():
            for _ in range(100):
                self.write()
            self.replicator.wait_known()
            self.cleanup()
            return before - set(glob.glob(folder + "/segment/*"))
        wait_for("segments to be deleted", thinned)
        self.assertTrue(any(folder in name for name in files_of(server.pid)))
        wait_for("the mount to let go", lambda: not deleted_of(server.pid), 30)
        # It serves on.
        last = max(map(int, os.listdir(os.path.join(m, "tx", NAME))))
        counter_of(os.path.join(m, "tx", NAME, str(last)))


READER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
print("ready", flush=True)
size, at = os.fstat(fd).st_size, 0
while True:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    want = min(5000, size - at)
    try:
        # Where a page is still known and the next cannot be had, the kernel gives what it has, and
        # the error to who goes on.
        while want:
            got = os.pread(fd, want, at)
            if not got:
                sys.exit("an end where there is none")
            at, want = at + len(got), want - len(got)
    except OSError as e:
        print(e.errno, flush=True)
        sys.stdin.read()  # the file stays open
        sys.exit(7)
    at = 0 if at == size else at
"""


class Killed(Mounted):
    """The server of a mount dies under its readers."""

    def setUp(self):
        super().setUp()
        db = self.open_db()
        make_counter(db)
        replicator = self.replicate()
        replicator.wait_ready()
        for _ in range(30):
            commit(db, n_rows=100)
        replicator.wait_known()
        self.assertEqual(replicator.stop(), 0)
        db.close()

    def start(self, *args):
        p = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, bufsize=1)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.stdin.close)
        return p

    def test_readers(self):
        """Each gets an error, none hangs, and the folder serves again."""
        m, server = self.mount()
        latest = os.path.join(m, "latest", NAME)
        last = max(map(int, os.listdir(os.path.join(m, "tx", NAME))))
        readers = [self.start(sys.executable, "-c", READER,
                              os.path.join(m, "tx", NAME, str(last - i))) for i in range(16)]
        for r in readers:
            self.assertEqual(r.stdout.readline(), "ready\n")
        shell = self.start("sqlite3", latest)
        print("SELECT n FROM counter;", file=shell.stdin, flush=True)
        self.assertEqual(shell.stdout.readline(), "30\n")
        copies = self.start("sh", "-c", 'while cp "$1" "$2"; do :; done; echo over', "sh", latest,
                            self.path("copy.db"))
        wait_for("a copy", lambda: os.path.exists(self.path("copy.db")))
        server.kill()
        server.wait()
        for r in readers:
            self.assertIn(int(r.stdout.readline()), (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO))
        self.assertIn("over", copies.communicate(timeout=20)[0])
        print("SELECT sum(length(text)) FROM rows;", file=shell.stdin, flush=True)
        self.assertRegex(shell.stdout.readline(), "rror")
        hint = f"fusermount3 -uz '{m}'"
        for words in (("mount", self.archive, m), (self.archive, m, "-o", "ro")):  # mount -a
            self.assert_fails(asof(*words), 1, "stale mount", hint)
        # As long as somebody has a file of it open, it goes when asked to go anyhow.
        self.assert_fails(asof("umount", m), 1, "in use", "-z")
        self.assertEqual(asof("umount", m, "--lazy").returncode, 0)
        self.assertEqual(os.listdir(m), [])
        run = asof("mount", self.archive, m)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(counter_of(latest), 30)
        for r in readers:
            r.communicate(timeout=20)
            self.assertEqual(r.returncode, 7)
        self.assertEqual(asof("umount", m).returncode, 0)
        self.assertEqual(os.listdir(m), [])

    def test_supervised(self):
        """`asof run` has its mount back, whoever still stands in the dead one."""
        harness.need_fuse()
        m, config = self.path("m"), self.path("asof.yml")
        os.mkdir(m)
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\nmount: {{dir: {m}}}\ndbs:\n  - path: {self.db_path}\n")
        self.config = config
        latest = os.path.join(m, "latest", NAME)
        d = daemon.Daemon(self)

        def served():
            with contextlib.suppress(OSError, sqlite3.Error):
                return counter_of(latest) == 30
            return False
        wait_for("the mount", served)
        reader = self.start(sys.executable, "-c", READER, latest)
        self.assertEqual(reader.stdout.readline(), "ready\n")
        inside = subprocess.Popen(["sleep", "1000"], cwd=os.path.join(m, "latest"))
        self.addCleanup(inside.wait)
        self.addCleanup(inside.kill)

        def child():
            return int(d.log().rsplit("info mount started", 1)[1].split("pid=", 1)[1].split()[0])
        os.kill(child(), signal.SIGKILL)
        self.assertNotEqual(int(reader.stdout.readline()), 0)
        wait_for("the mount after a kill", served, 30)
        # And when the daemon itself is killed and comes again.
        os.kill(d.process.pid, signal.SIGKILL)
        d.process.wait()
        again = daemon.Daemon(self)
        wait_for("the mount of the next daemon",
                 lambda: again.has("info mount started") and served(), 60)
        self.assertEqual(again.stop(), 0)
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            self.assertNotIn(m, f.read())


class Descriptors(Mounted):
    """Shells and services start programs with 1,024 descriptors."""

    N = 230

    def test_many_databases(self):
        data = self.path("data")
        os.mkdir(data)
        for i in range(self.N):
            with contextlib.closing(harness.open_db(os.path.join(data, f"{i:03}.db"),
                                                    synchronous="OFF")) as db:
                db.execute("CREATE TABLE t (n)")
                db.execute("INSERT INTO t VALUES (?)", (i,))
        config = self.path("asof.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\ndbs:\n  - dir: {data}\n    pattern: '*.db'\n")
        run = asof("run", "--once", "--config", config)
        self.assertEqual(run.returncode, 0, run.stderr[-2000:])
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard != resource.RLIM_INFINITY and hard < 16 * self.N:
            self.skipTest(f"no more than {hard} descriptors here")

        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        for words in (("status",), ("list",), ("stats",)):
            out = subprocess.run([harness.ASOF, *words, "--json", "--archive", self.archive],
                                 preexec_fn=few, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True, timeout=60, check=False)
            self.assertEqual((out.returncode, out.stderr), (0, ""), words)
            self.assertIn(f"{self.N - 1:03}.db", out.stdout)
        m, _ = self.mount(limit=1024)
        names = sorted(os.listdir(os.path.join(m, "latest")))
        self.assertEqual(names, [f"{i:03}.db" for i in range(self.N)])
        for i, name in enumerate(names):
            with contextlib.closing(sqlite3.connect(os.path.join(m, "latest", name))) as db:
                self.assertEqual(db.execute("SELECT n FROM t").fetchone(), (i,))
        self.assertNotIn(" error ", self.mount_log())


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof backup: what is left when it is broken off, when there is no room, when gpg fails."""

import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from backups import BackupCase, content, image_of, inflated, sha256  # noqa: E402
from harness import ASOF, asof, asof_json, commit, counter_of, make_counter  # noqa: E402


class Broken(BackupCase):
    """Broken off, and without room."""

    def test_killed_at_every_step(self):
        """A final name never stands for less than a whole backup."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db, 20000)
        started = time.monotonic()
        self.backup()
        length = time.monotonic() - started
        rng = random.Random(11)
        killed = 0
        for i in range(25):
            p = subprocess.Popen([ASOF, "backup", "--archive", self.archive, "--db-path",
                                  self.db_path], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            time.sleep(length * (i + rng.random()) / 22)
            p.kill()
            killed += p.wait() == -signal.SIGKILL
            for path in glob.glob(os.path.join(self.archive, "manual", "trades_*")):
                self.assertEqual(subprocess.run(["gunzip", "-t", path], check=False).returncode, 0)
            for path in glob.glob(os.path.join(self.archive, "manual", "manifest_*.json")):
                with open(path, encoding="utf-8") as f:
                    meta = json.load(f)
                self.assertEqual(sha256(meta["backup_file"]), meta["sha256"])
        self.assertGreater(killed, 5)
        status, report = self.validate()
        self.assertEqual(status, 0, report)
        # The children that read have gone, too.
        harness.wait_for("the readers to end", lambda: not subprocess.run(
            ["pgrep", "-f", f"asof-read-database.*{self.db_path}"], check=False,
            stdout=subprocess.DEVNULL).returncode == 0)
        # What they left is removed once it is old enough to be nobody's.
        left = self.leftovers()
        self.assertGreater(len(left), 0)
        asof_json("cleanup", "--archive", self.archive)
        self.assertEqual(self.leftovers(), left)
        os.mkdir(os.path.join(self.archive, "safety"))
        os.mkdir(os.path.join(self.archive, "safety", ".asof-backup-abcdef"))
        for kind, name in [*(("manual", n) for n in left), ("safety", ".asof-backup-abcdef")]:
            os.utime(os.path.join(self.archive, kind, name), (time.time() - 3600,) * 2)
        asof_json("cleanup", "--archive", self.archive)
        self.assertEqual(self.leftovers(), [])
        self.assertEqual(counter_of(self.db_path), 1)

    def under_strace(self, what, *options):
        """A backup with a fault at one system call of its own; its status and last words."""
        run = subprocess.run(["strace", "-o", self.path("trace"), "-e", "trace=" + what.split(":")[0],
                              "-e", "inject=" + what, ASOF, "backup", "--archive", self.archive,
                              "--db-path", self.db_path, *options], check=False, text=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        with open(self.path("trace"), encoding="utf-8", errors="replace") as f:
            reached = run.returncode == -signal.SIGKILL or "INJECTED" in f.read()
        return run.returncode, run.stderr, reached

    def assert_whole(self, want):
        """What has a final name is a whole backup, and what a manifest says is there."""
        names = [n for n in self.files() if not n.startswith(".")]
        for name in names:
            path = os.path.join(self.archive, "manual", name)
            if name.startswith("trades_"):
                self.assertEqual(inflated(path), want)
            else:
                with open(path, encoding="utf-8") as f:
                    meta = json.load(f)
                self.assertEqual(sha256(meta["backup_file"]), meta["sha256"])
        return names

    # Each of its own system calls that changes something, and those that make it last.
    CALLS = ("openat", "pwrite64", "fdatasync", "renameat2", "fsync")

    @unittest.skipUnless(shutil.which("strace"), "no strace here")
    def test_killed_at_every_system_call(self):
        self.make_db(400)
        want = image_of(self.db_path, self.path("image"))
        n_killed = 0
        for call in self.CALLS:
            for when in range(1, 60):
                status, _, reached = self.under_strace(f"{call}:signal=SIGKILL:when={when}")
                self.assert_whole(want)
                if not reached:
                    self.assertEqual(status, 0)
                    break
                n_killed += 1
        self.assertGreater(n_killed, 20)
        self.assertEqual(self.validate()[0], 0)

    @unittest.skipUnless(shutil.which("strace"), "no strace here")
    def test_every_system_call_fails(self):
        """An error is said in one line, and nothing of that backup is left."""
        self.make_db(400)
        want = image_of(self.db_path, self.path("image"))
        for call in self.CALLS:
            n_failed = 0
            for when in range(1, 60):
                before = self.files()
                status, said, reached = self.under_strace(f"{call}:error=ENOSPC:when={when}")
                self.assert_whole(want)
                if not reached:
                    break
                # Some are looks at what need not be there.
                if status != 0:
                    n_failed += 1
                    if status in range(1, 6):  # not the dynamic linker's
                        self.assertRegex(said, r"(\A|\n)asof: [^\n]+\n\Z")
                    self.assertEqual(self.files(), before, f"{call} {when}: {said}")
            self.assertGreater(n_failed, 0, call)

    def test_interrupted(self):
        """By a signal to it alone, and as from a terminal, to its child as well."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db, 60000)
        for send in (os.kill, os.killpg):
            p = subprocess.Popen([ASOF, "backup", "--archive", self.archive, "--db-path",
                                  self.db_path, "--level", "12"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True, start_new_session=True)
            harness.wait_for("it to begin", lambda p=p: self.leftovers() or p.poll() is not None)
            send(p.pid, signal.SIGINT)
            _, err = p.communicate(timeout=60)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(err, r"\Aasof: backup: cancelled[^\n]*\n\Z")
            self.assertEqual(self.files(), [])

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("needs root: mounts a filesystem of its own")

    def test_disk_full(self):
        self.need_root()
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db, 30000)
        where = self.path("small")
        os.mkdir(where)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", where], check=True)
        for options in ((), ("--no-compress",)):
            run = asof("backup", "--archive", where, "--db-path", self.db_path, *options)
            self.assertEqual(run.returncode, 1)
            self.assertIn("No space left", run.stderr)
            self.assertEqual(os.listdir(os.path.join(where, "manual")), [])

    def test_read_only_archive(self):
        self.need_root()
        self.make_db()
        made = self.backup()
        subprocess.run(["mount", "--bind", self.archive, self.archive], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", self.archive], check=True)
        run = asof("backup", "--archive", self.archive, "--db-path", self.db_path)
        self.assert_fails(run, 1, "Read-only")
        self.assertEqual(self.validate()[0], 0)
        self.assertEqual(len(asof_json("list", "--archive", self.archive)["backups"]["manual"]),
                         1)
        run = asof("cleanup", "--archive", self.archive, "--days", "0", "--count", "0")
        self.assertEqual(run.returncode, 0, run.stderr)  # the last good one stays anyway
        self.assertTrue(os.path.exists(made["backup_path"]))

    def test_read_only_database(self):
        """A folder where nothing can be made: at rest, with a -wal alone, and in use."""
        self.need_root()
        for state in ("rest", "wal", "live", "delete"):
            with self.subTest(state=state):
                folder = self.path(state)
                os.mkdir(folder)
                path = os.path.join(folder, "x.db")
                mode = "DELETE" if state == "delete" else "WAL"
                db = self.open_db(path, journal_mode=mode, wal_autocheckpoint=0)
                make_counter(db)
                commit(db, 30)
                want = image_of(path, self.path("image"))
                if state == "wal":
                    kept = (content(path), content(path + "-wal"))
                    db.close()
                    for suffix, data in zip(("", "-wal"), kept):
                        with open(path + suffix, "wb") as f:
                            f.write(data)
                elif state == "rest":
                    db.close()
                subprocess.run(["mount", "--bind", folder, folder], check=True)
                subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
                names = sorted(os.listdir(folder))
                made = self.backup(db=path)
                self.assertEqual(inflated(made["backup_path"]), want)
                self.assertEqual(sorted(os.listdir(folder)), names)
                subprocess.run(["umount", folder], check=True)


class Encrypted(BackupCase):
    def setUp(self):
        super().setUp()
        if not shutil.which("gpg"):
            self.skipTest("no gpg here")
        self.home = self.path("gnupg")
        os.mkdir(self.home, 0o700)
        self.env = {"GNUPGHOME": self.home}
        subprocess.run(["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key",
                        "backup@example.com", "default", "default", "never"], check=True,
                       env={**os.environ, **self.env}, stderr=subprocess.DEVNULL)
        self.addCleanup(subprocess.run, ["gpgconf", "--kill", "all"], check=False,
                        env={**os.environ, **self.env})

    def run_json(self, *args, env=None):
        run = asof(*args, "--archive", self.archive, "--json", env=env or self.env)
        return run.returncode, json.loads(run.stdout) if run.stdout else run.stderr

    def test_round_trip(self):
        self.make_db(500)
        status, made = self.run_json("backup", "--db-path", self.db_path, "--gpg",
                                     "backup@example.com")
        self.assertEqual(status, 0, made)
        path = made["backup_path"]
        self.assertRegex(path, r"\.db\.gz\.gpg$")
        self.assertEqual(made["metadata"]["sha256"], sha256(path))
        self.assertNotIn(b"asofpack", content(path))
        out = self.path("plain.gz")
        subprocess.run(["gpg", "--batch", "--quiet", "-o", out, "--decrypt", path], check=True,
                       env={**os.environ, **self.env})
        self.assertEqual(inflated(out), image_of(self.db_path, self.path("image")))
        self.assertEqual(self.leftovers(), [])
        entry, = self.run_json("list")[1]["backups"]["manual"]
        self.assertIs(entry["encrypted"], True)
        status, report = self.run_json("validate")
        detail, = report["backups"]["validation_details"]
        self.assertEqual((status, detail["valid"], detail["opened"]), (0, True, True))
        # Elsewhere, without the key, its bytes can be compared and no more.
        empty = self.path("other")
        os.mkdir(empty, 0o700)
        status, report = self.run_json("validate", env={"GNUPGHOME": empty})
        detail, = report["backups"]["validation_details"]
        self.assertEqual((status, detail["valid"], detail["opened"]), (0, True, False))
        self.assertIn("secret key", detail["note"])
        data = bytearray(content(path))
        data[len(data) // 2] ^= 4
        with open(path, "wb") as f:
            f.write(data)
        for env in (self.env, {"GNUPGHOME": empty}):
            self.assertEqual(self.run_json("validate", env=env)[0], 4)
        os.unlink(made["manifest_path"])
        self.assertEqual(self.run_json("validate")[0], 4)

    def test_raw_copy_is_encrypted_too(self):
        db = self.make_db(300)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        commit(db)
        with open(self.db_path, "r+b") as f:
            f.seek(8192)
            f.write(os.urandom(8192))
        status, made = self.run_json("backup", "--db-path", self.db_path, "--type", "safety",
                                     "--gpg", "backup@example.com")
        self.assertEqual((status, made["damaged"]), (0, True), made)
        names = sorted(n for n in self.files("safety") if n.startswith("trades_"))
        self.assertRegex(" ".join(names), r"^\S+\.db-wal\.gz\.gpg \S+\.db\.gz\.gpg$")
        for name, source in zip(names, ("-wal", "")):
            out = self.path("plain.gz")
            path = os.path.join(self.archive, "safety", name)
            subprocess.run(["gpg", "--batch", "--quiet", "--yes", "-o", out, "--decrypt", path],
                           check=True, env={**os.environ, **self.env})
            self.assertEqual(inflated(out), content(self.db_path + source))
        self.assertEqual(self.run_json("validate")[0], 0)

    def test_unknown_recipient(self):
        self.make_db()
        status, value = self.run_json("backup", "--db-path", self.db_path, "--gpg",
                                      "nobody@example.com")
        self.assertEqual(status, 5)
        self.assertIs(value["success"], False)
        self.assertIn("nobody@example.com", value["error"])
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    harness.main()

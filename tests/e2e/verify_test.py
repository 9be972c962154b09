#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""asof validate on a history: what it names as lost cannot be restored, all the rest can, and
status and list tell what was verified."""

import json
import os
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness
from harness import asof


class Verify(harness.Case):
    def capture(self, commits=30):
        db = self.open_db()
        db.execute("PRAGMA synchronous = OFF")
        harness.make_counter(db)
        r = self.replicate()
        r.wait_ready()
        for _ in range(commits):
            harness.commit(db, 20)
        r.wait_known()
        r.stop()
        db.close()

    def validate(self, *options):
        run = asof("validate", "--archive", self.archive, "--json", *options)
        return run.returncode, json.loads(run.stdout)["history"], run

    def status(self):
        return harness.asof_json("status", "--archive", self.archive)["databases"][0]

    def objects(self):
        root = os.path.join(self.archive, "local", "trades.db")
        return [os.path.join(root, folder, name) for folder in ("segment", "snapshot", "coalesced")
                if os.path.isdir(os.path.join(root, folder))
                for name in os.listdir(os.path.join(root, folder)) if name.endswith((".wal.gz", ".db.gz"))]

    def test_clean_and_shown(self):
        self.capture()
        before = self.status()
        self.assertIsNone(before["verified_through"])
        self.assertIsNone(before["integrity_checked_at"])
        status, history, run = self.validate()
        self.assertEqual(status, 0, run.stderr)
        self.assertEqual(len(history), 1)
        self.assertTrue(history[0]["valid"])
        self.assertEqual(history[0]["integrity_check"], "ok")
        after = self.status()
        self.assertEqual(after["verified_through"], after["last_txid"])
        self.assertEqual(after["integrity"], "ok")
        self.assertGreater(after["verified_at"], after["verified_through_time"])
        row = harness.asof_json("list", "--archive", self.archive)["databases"][0]
        self.assertEqual(row["verified_through"], after["last_txid"])
        text = asof("status", "--archive", self.archive).stdout
        self.assertRegex(text, r"verified to +\S+  txid %d" % after["last_txid"])
        self.assertRegex(text, r"integrity +ok \(")
        self.assertIn("VERIFIED TO", asof("list", "--archive", self.archive).stdout)
        text = asof("validate", "--archive", self.archive).stdout
        self.assertRegex(text, r"(?m)^valid +history of trades.db: verified through txid \d+")

    def test_nothing_but_the_first_capture(self):
        """What was there when capture began is verified, too, without waiting for a commit."""
        for commits in (0, 3):
            with self.subTest(commits=commits):
                db = self.open_db(self.path(f"{commits}.db"))
                db.execute("CREATE TABLE t(x)")
                for i in range(commits):
                    db.execute("INSERT INTO t VALUES (?)", (i,))
                    db.commit()
                if not commits:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                archive = self.path(f"archive-{commits}")
                self.replicate(db=self.path(f"{commits}.db"), archive=archive).wait_ready()
                run = asof("validate", "--archive", archive, "--json")
                self.assertEqual(run.returncode, 0, run.stderr)
                now = harness.asof_json("status", "--archive", archive)["databases"][0]
                self.assertEqual(json.loads(run.stdout)["history"][0]["verified_txid"], now["last_txid"])
                self.assertEqual(now["verified_through"], now["last_txid"])

    def test_constraints_that_are_broken(self):
        """A row without its parent is the application's fault, and named."""
        db = self.open_db()
        db.executescript("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p);"
                         "INSERT INTO c VALUES (7)")
        r = self.replicate()
        r.wait_ready()
        r.stop()
        status, history, _ = self.validate()
        self.assertEqual(status, 0)
        self.assertEqual(history[0]["foreign_key_violations"], 1)
        self.assertEqual(history[0]["damage"], [])
        self.assertIn("table c", self.status()["integrity"])

    def test_damage(self):
        self.capture()
        status = self.status()
        copy = self.archive + ".whole"
        shutil.copytree(self.archive, copy)
        for path in self.objects():
            size = os.path.getsize(path)
            for at in random.sample(range(size), 3):
                with self.subTest(f"{os.path.basename(path)} at {at}"):
                    with open(path, "r+b") as f:
                        f.seek(at)
                        byte = f.read(1)
                        f.seek(at)
                        f.write(bytes([byte[0] ^ 0x10]))
                    self.check_damage(os.path.basename(path), status)
                    with open(path, "r+b") as f:
                        f.seek(at)
                        f.write(byte)
        self.assertEqual(self.validate()[0], 0)
        self.assertEqual(self.status()["damaged"], 0)

    def test_what_was_verified_is_lost(self):
        """It does not count as verified any more, and what is lost is said once, not for each commit."""
        self.capture()
        self.assertEqual(self.validate()[0], 0)
        last = self.status()["last_txid"]
        self.assertEqual(self.status()["verified_through"], last)
        snapshot, = [path for path in self.objects() if path.endswith(".db.gz")]
        with open(snapshot, "r+b") as f:
            whole = f.read()
            f.seek(0)
            f.write(bytes(len(whole)))
        code, history, run = self.validate()
        self.assertEqual(code, 4)
        self.assertIsNone(history[0]["verified_txid"])
        self.assertIsNone(self.status()["verified_through"])
        self.assertIn(last, [r["last_txid"] for d in history[0]["damage"] for r in d["affected"]])
        self.assertLess(len(run.stderr.splitlines()), 10)
        with open(snapshot, "r+b") as f:
            f.write(whole)
        self.assertEqual(self.validate()[0], 0)
        self.assertEqual(self.status()["verified_through"], last)

    def test_notes(self):
        """Beside the objects: notes are named, what is disposable is not."""
        self.capture()
        self.assertEqual(asof("mark", "m", "--archive", self.archive).returncode, 0)
        root = os.path.join(self.archive, "local", "trades.db")
        for name in ("m.mark", "00000001.lineage", "source", "head", "pages", "verified"):
            path = os.path.join(root, name)
            self.assertEqual(self.validate()[0], 0)
            with open(path, "rb") as f:
                whole = f.read()
            wanted = 0 if name in ("head", "pages", "verified") else 4
            for harmed in (whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:], whole[:len(whole) // 2], None):
                with self.subTest(name=name, harmed=harmed and len(harmed)):
                    os.unlink(path)
                    if harmed:
                        with open(path, "wb") as f:
                            f.write(harmed)
                    code, history, run = self.validate()
                    gone = harmed is None and name == "m.mark"  # people take marks away
                    self.assertEqual(code, 0 if gone else wanted, run.stdout + run.stderr)
                    if code:
                        self.assertIn(f"'{name}'", history[0]["damage"][0]["reason"])
            with open(path, "wb") as f:
                f.write(whole)
        self.assertEqual(self.validate()[0], 0)

    def test_missing(self):
        """A segment that is gone is told with what it held, by the writer's word alone if need be."""
        self.capture()
        for path in self.objects():
            if not path.endswith(".wal.gz"):
                continue
            with self.subTest(path=path):
                os.rename(path, path + ".away")
                code, history, run = self.validate()
                self.assertEqual(code, 4, run.stdout + run.stderr)
                self.assertIn("no segment", history[0]["damage"][0]["reason"])
                os.rename(path + ".away", path)
        self.assertEqual(self.validate()[0], 0)

    def check_damage(self, name, whole):
        code, history, run = self.validate()
        self.assertEqual(code, 4, run.stdout)
        damages = history[0]["damage"]
        self.assertTrue(any((d["object"] or d["reason"]).endswith(name) for d in damages), damages)
        lost = set()
        for d in damages:
            self.assertFalse(d["at_most"])
            for r in d["affected"]:
                lost.update(range(r["first_txid"], r["last_txid"] + 1))
        good = [d[k] for d in damages for k in ("good_before_txid", "good_after_txid") if d[k]]
        first, last = whole["first_txid"], whole["last_txid"]
        chosen = {first, last, *random.sample(range(first, last + 1), 3), *good}
        for txid in chosen:
            out = self.path("out.db")
            run = asof("restore", "--tx", txid, "-o", out, "--force", "--archive", self.archive)
            self.assertEqual(run.returncode, 4 if txid in lost else 0, f"{txid}: {run.stderr}")
        text = asof("validate", "--archive", self.archive)
        self.assertEqual(text.returncode, 4)
        self.assertIn(name, text.stdout)
        self.assertGreater(self.status()["damaged"], 0)

    def test_first_snapshot(self):
        """That it is missing shows by the commits behind it, is told, and mended from a copy; where nothing
        proves it, as at a destination, the line says what lacks."""
        self.capture()
        copy = self.path("copy")
        self.assertEqual(asof("copy", self.archive, copy).returncode, 0)

        def lose(root):
            folder = os.path.join(root, "local", "trades.db", "snapshot")
            for name in os.listdir(folder):
                os.rename(os.path.join(folder, name), self.path(name))
            return os.path.join(folder, name), self.path(name)
        was, kept = lose(self.archive)
        status, history, run = self.validate()
        self.assertEqual(status, 4, run.stderr)
        self.assertIn("a snapshot is missing: none lies at or before transaction", run.stdout)
        run = asof("validate", "--archive", self.archive, "--repair", "--also", copy)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("repaired", run.stdout)
        with open(was, "rb") as a, open(kept, "rb") as b:
            self.assertEqual(a.read(), b.read())
        lose(copy)
        os.unlink(os.path.join(copy, "local", "trades.db", "head"))  # as a destination has none
        self.assert_fails(asof("validate", "--archive", copy), 3, "no snapshot of 'trades.db' lies at or before")
        self.assertEqual(asof("validate", "--archive", copy, "--repair", "--also", self.archive).returncode, 0)

    def test_sample(self):
        """The same seed takes the same sample; with all of it any damage is found."""
        self.capture()
        some = [asof("check", "--sample", "5%", "--seed", seed, "--archive", self.archive, "--json")
                for seed in (1, 1, 2, 3)]
        for run in some:
            self.assertEqual(run.returncode, 0, run.stderr)
        reports = [json.loads(run.stdout) for run in some]
        read = [[h[k] for h in r["history"] for k in ("objects", "moments", "bytes_read")]
                for r in reports]
        self.assertEqual(read[0], read[1])
        self.assertEqual(reports[0]["sample_percent"], 5)
        path = max(self.objects(), key=os.path.getsize)
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 1]))
        run = asof("check", "--sample", "100", "--archive", self.archive)
        self.assertEqual(run.returncode, 4)
        self.assertIn(os.path.basename(path), run.stdout)
        self.assert_fails(asof("check", "--sample", "0%", "--archive", self.archive), 2, "share")
        self.assert_fails(asof("check", "--archive", self.archive), 2, "--sample")

    def test_read_only_archive(self):
        self.capture(3)
        for folder, _, files in os.walk(self.archive):
            os.chmod(folder, 0o555)
            for f in files:
                os.chmod(os.path.join(folder, f), 0o444)
        prefix = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--clear-groups"]
        if prefix:
            os.chmod(self.dir, 0o755)
        run = subprocess.run([*prefix, harness.ASOF, "validate", "--archive", self.archive],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        for folder, _, _ in os.walk(self.archive):
            os.chmod(folder, 0o755)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("valid    history of trades.db: verified", run.stdout)


if __name__ == "__main__":
    harness.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof validate, list, cleanup: damaged backups, those of the old scripts, of gzip, of sqlite3."""

import gzip
import json
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from backups import TYPES, BackupCase, content, image_of, inflated  # noqa: E402
from harness import asof, asof_json, commit, counter_of  # noqa: E402


class Damage(BackupCase):
    def damaged_db(self):
        db = self.make_db(2000)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        commit(db, 3)
        with open(self.db_path, "r+b") as f:
            f.seek(4096 * 3)
            f.write(os.urandom(4096 * 20))
        return db

    def test_refused_but_for_safety(self):
        db = self.damaged_db()
        run = asof("backup", "--archive", self.archive, "--db-path", self.db_path)
        self.assert_fails(run, 4, "source database validation failed")
        self.assertEqual(self.files(), [])
        wal = content(self.db_path + "-wal")
        self.assertGreater(len(wal), 0)
        made = self.backup("--type", "safety", "--label", "pre_restore")
        self.assertIs(made["damaged"], True)
        self.assertRegex(os.path.basename(made["backup_path"]),
                         r"^trades_pre_restore_\d{8}_\d{6}\.db\.gz$")
        self.assertIn("damaged", made["metadata"]["warning"])
        self.assertEqual(made["metadata"]["validation"]["integrity_check"], "failed")
        self.assertEqual(inflated(made["backup_path"]), content(self.db_path))
        companion, = made["metadata"]["companions"]
        self.assertEqual(inflated(os.path.join(self.archive, "safety", companion)), wal)
        entry, = asof_json("list", "--archive", self.archive)["backups"]["safety"]
        self.assertIs(entry["damaged"], True)
        self.assertEqual(entry["database"], "trades")
        self.assertEqual(entry["label"], "pre_restore")
        status, report = self.validate()
        self.assertEqual(status, 0, report)
        db.close()

    def test_no_database_at_all(self):
        for i, data in enumerate((b"", b"hello", os.urandom(9000), b"SQLite format 3\0" * 300)):
            path = self.path(f"x{i}.db")
            with open(path, "wb") as f:
                f.write(data)
            run = asof("backup", "--archive", self.archive, "--db-path", path)
            self.assert_fails(run, 4, path)
            made = self.backup("--type", "safety", db=path)
            self.assertIs(made["damaged"], True)
            self.assertEqual(inflated(made["backup_path"]), data)
        self.assertEqual(self.files("manual"), [])
        self.assertEqual(self.leftovers(), [])

    def test_cut_short(self):
        db = self.make_db(2000, journal_mode="DELETE")
        db.close()
        os.truncate(self.db_path, os.path.getsize(self.db_path) - 4096 * 3)
        run = asof("backup", "--archive", self.archive, "--db-path", self.db_path)
        self.assert_fails(run, 4)
        self.assertEqual(self.files(), [])

    def test_hot_journal(self):
        """What a crash within a transaction left: the state before it, and nothing is repaired."""
        script = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 2")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE rows SET text = hex(randomblob(60))")
db.execute("UPDATE counter SET n = 99")
os._exit(9)
"""
        db = self.make_db(3000, journal_mode="DELETE")
        want_n = db.execute("SELECT n FROM counter").fetchone()[0]
        db.close()
        want = image_of(self.db_path, self.path("image"))
        subprocess.run([sys.executable, "-c", script, self.db_path], check=False)
        self.assertGreater(os.path.getsize(self.db_path + "-journal"), 0)
        before = (content(self.db_path), content(self.db_path + "-journal"))
        made = self.backup()
        got = inflated(made["backup_path"])
        with open(self.path("out"), "wb") as f:
            f.write(got)
        self.assertEqual(counter_of(self.path("out")), want_n)
        self.assertEqual(len(got), len(want))
        self.assertEqual((content(self.db_path), content(self.db_path + "-journal")), before)
        self.assertEqual(self.leftovers(), [])

    def test_validate_names_the_damaged_one_and_goes_on(self):
        self.make_db(3000)
        good = [self.backup() for _ in range(3)]
        plain = self.backup("--no-compress")
        rng = random.Random(3)
        for bad in (good[1]["backup_path"], plain["backup_path"]):
            data = bytearray(content(bad))
            data[rng.randrange(len(data) // 3, len(data) // 2)] ^= 0x40
            with open(bad, "wb") as f:
                f.write(data)
        status, report = self.validate()
        self.assertEqual(status, 4)
        details = report["backups"]["validation_details"]
        self.assertEqual(report["backups"]["total_backups"], 4)
        self.assertEqual(report["backups"]["invalid_backups"], 2)
        self.assertEqual({d["file"] for d in details if not d["valid"]},
                         {good[1]["backup_path"], plain["backup_path"]})
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 4)
        self.assertIn("DAMAGED", run.stdout)
        self.assertIn(os.path.basename(good[1]["backup_path"]), run.stdout)
        status, _ = self.validate(os.path.basename(good[0]["backup_path"]))
        self.assertEqual(status, 0)

    def test_a_manifest_that_cannot_be_read_is_named(self):
        """The backup is whole; that its sha256 was not compared is said."""
        self.make_db(100)
        made = self.backup()
        with open(made["manifest_path"], "w", encoding="ascii") as f:
            f.write("garbage")
        run = asof("validate", "--archive", self.archive)
        self.assertEqual(run.returncode, 0)
        self.assertIn(os.path.basename(made["manifest_path"]), run.stderr)

    def test_every_byte_of_a_backup_counts(self):
        """Flipped without the manifest's sha256 to tell."""
        db = self.open_db(page_size=512)
        db.execute("CREATE TABLE t (a)")
        db.execute("INSERT INTO t VALUES (1)")
        made = self.backup()
        os.unlink(made["manifest_path"])
        path = made["backup_path"]
        data = content(path)
        rng = random.Random(5)
        for at in {*range(20), *rng.sample(range(len(data)), 60)}:
            flipped = bytearray(data)
            flipped[at] ^= 1 << rng.randrange(8)
            with open(path, "wb") as f:
                f.write(flipped)
            status, report = self.validate()
            self.assertEqual(status, 4, f"byte {at} of {len(data)}: {report}")
        with open(path, "wb") as f:
            f.write(data[:-1])
        self.assertEqual(self.validate()[0], 4)
        with open(path, "wb") as f:
            f.write(data)
        self.assertEqual(self.validate()[0], 0)

    def test_foreign_keys_are_told_and_no_damage(self):
        db = self.make_db()
        db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE child (p REFERENCES parent (id))")
        db.execute("INSERT INTO child VALUES (7), (8)")
        made = self.backup()
        self.assertIn("foreign_key_check", made["metadata"]["warning"])
        self.assertEqual(made["metadata"]["validation"]["foreign_key_check"], "failed")
        status, report = self.validate()
        self.assertEqual(status, 0)
        detail, = report["backups"]["validation_details"]
        self.assertEqual(detail["foreign_key_violations"], 2)


class Old(BackupCase):
    """Files of the old scripts, of gzip, of sqlite3."""

    def old_file(self, kind, name, data, mtime=None):
        os.makedirs(os.path.join(self.archive, kind), exist_ok=True)
        path = os.path.join(self.archive, kind, name)
        with open(path, "wb") as f:
            f.write(data)
        if mtime:
            os.utime(path, (mtime, mtime))
        return path

    def test_list_and_validate(self):
        self.make_db(3000).close()
        image = content(self.db_path)
        self.old_file("manual", "trades_20240115_143000.db.gz", gzip.compress(image))
        two = gzip.compress(image[:5000]) + gzip.compress(image[5000:])
        self.old_file("automated", "trades_20240116_143000.db.gz", two)
        self.old_file("compressed", "trades_20240117_143000.db", image)
        cut = self.old_file("safety", "trades_pre_restore_20240118_143000.db.gz",
                            gzip.compress(image)[:-100])
        wrong = self.old_file("manual", "trades_20240119_143000.db.gz",
                              gzip.compress(image[:8192] + b"x" * (len(image) - 8192)))
        text = self.old_file("manual", "trades_20240120_143000.db", b"not a database")
        self.old_file("manual", "notes.txt", b"x")
        manifest = {"timestamp": "20240115_143000", "created_at": "2024-01-15T14:30:00+00:00",
                    "backup_type": "manual", "files": ["trades_20240115_143000.db.gz"],
                    "sizes": {"trades_20240115_143000.db.gz": 1},
                    "validation": {"integrity_check": "passed",
                                   "created_by": "backup-database.sh", "script_version": "1.0"}}
        self.old_file("manual", "manifest_20240115_143000.json", json.dumps(manifest).encode())
        listing = asof_json("list", "--archive", self.archive)["backups"]
        self.assertEqual([len(listing[t]) for t in TYPES], [3, 1, 1, 1])
        self.assertEqual([e["filename"] for e in listing["manual"]],
                         ["trades_20240120_143000.db", "trades_20240119_143000.db.gz",
                          "trades_20240115_143000.db.gz"])
        status, report = self.validate()
        self.assertEqual(status, 4)
        bad = {d["file"] for d in report["backups"]["validation_details"] if not d["valid"]}
        self.assertEqual(bad, {cut, wrong, text})

    def test_gzip_of_others_is_never_taken_for_ours(self):
        """Whatever byte lies where a trailer of ours would have one of its constants."""
        self.make_db(30).close()
        image = content(self.db_path)
        for i in range(256):
            extra = b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\x03" + (200).to_bytes(2, "little") + \
                    bytes([i]) * 200 + b"\x03\0" + bytes(8)
            self.old_file("manual", f"g{i}_20240115_143000.db.gz", gzip.compress(image) + extra)
        status, report = self.validate()
        self.assertEqual(status, 0, [d for d in report["backups"]["validation_details"]
                                     if not d["valid"]][:2])

    def test_cleanup(self):
        self.make_db().close()
        image = content(self.db_path)
        now = time.time()
        day = 86400

        def old(kind, days, name_days=None, data=None):
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(
                now - (days if name_days is None else name_days) * day))
            path = self.old_file(kind, f"trades_{stamp}.db.gz", data or gzip.compress(image),
                                 now - days * day)
            self.old_file(kind, f"manifest_{stamp}.json",
                          json.dumps({"files": [os.path.basename(path)]}).encode())
            return path
        keep = [old("manual", 6.5), old("compressed", 29), old("safety", 400)]
        go = [old("manual", 7.5), old("automated", 8), old("compressed", 31),
              old("manual", 9, name_days=0)]  # as the old system: by its modification time
        dry = asof_json("cleanup", "--archive", self.archive, "--dry-run")["backups"]
        self.assertEqual({f["file"] for f in dry["cleaned_files"]}, set(go))
        self.assertTrue(all(os.path.exists(p) for p in keep + go))
        text = asof("cleanup", "--archive", self.archive, "--dry-run").stdout
        for path in keep + go:
            self.assertRegex(text, r"(keep|would remove) .*" + re.escape(os.path.basename(path)) +
                             r".*: \S")
        sizes = sum(os.path.getsize(p) for p in go)
        done = asof_json("cleanup", "--archive", self.archive)["backups"]
        self.assertEqual({f["file"] for f in done["cleaned_files"]}, set(go))
        self.assertEqual((done["total_files"], done["space_freed_bytes"]), (4, sizes))
        self.assertEqual({f["age_days"] for f in done["cleaned_files"]}, {7, 8, 31, 9})
        self.assertTrue(all(os.path.exists(p) for p in keep))
        self.assertFalse(any(os.path.exists(p) for p in go))
        left = [n for t in TYPES for n in self.files(t)]
        self.assertEqual(len(left), 6, left)

    def test_the_last_good_one_stays(self):
        """Newer ones that are damaged do not count, whatever their names say."""
        self.make_db().close()
        good = gzip.compress(content(self.db_path))
        now = time.time()
        paths = []
        for days in (20, 15, 10, 1):
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now - days * 86400))
            data = good if days >= 15 else good[:len(good) // 2]
            paths.append(self.old_file("manual", f"trades_{stamp}.db.gz", data,
                                       now - days * 86400))
        done = asof_json("cleanup", "--archive", self.archive)["backups"]
        self.assertEqual({f["file"] for f in done["cleaned_files"]}, {paths[0], paths[2]}, done)
        reasons = {k["file"]: k["reason"] for k in done["kept"]}
        self.assertIn("last good", reasons[paths[1]])
        again = asof_json("cleanup", "--archive", self.archive, "--count", "1")["backups"]
        self.assertEqual(again["cleaned_files"], [])

    def test_rules(self):
        self.make_db().close()
        image = gzip.compress(content(self.db_path))
        now = time.time()
        for days in range(0, 400, 5):
            stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now - days * 86400))
            self.old_file("automated", f"trades_{stamp}.db.gz", image, now - days * 86400)
        plan = asof_json("cleanup", "--archive", self.archive, "--dry-run", "--count",
                         "automated=2", "--monthly", "automated=4")["backups"]
        kept = sorted(os.path.basename(k["file"]) for k in plan["kept"])
        months = {n[7:13] for n in kept}
        self.assertEqual(len(months), 4)
        self.assertLessEqual(len(kept), 6)
        self.assertEqual(plan["total_files"], 80 - len(kept))
        plan = asof_json("cleanup", "--archive", self.archive, "--dry-run", "--type",
                         "manual")["backups"]
        self.assertEqual(plan["total_files"], 0)
        plan = asof_json("cleanup", "--archive", self.archive, "--dry-run", "--days", "0")
        self.assertEqual(plan["backups"]["total_files"], 79)


if __name__ == "__main__":
    harness.main()

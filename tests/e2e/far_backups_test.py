#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=240 asan
"""asof list of backups in a bucket: what it asks of the server for, and that it says what it says of the
same files in a folder."""

import collections
import json
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import s3_fake  # noqa: E402
from backups import TYPES, BackupCase, content  # noqa: E402
from harness import asof, asof_json  # noqa: E402

AT_ONCE = 8
N = 40


class Gate:
    """Requests for manifests wait until AT_ONCE of them are under way, but not for long: what came
    together is in `most`."""

    def __init__(self, n):
        self.left, self.now, self.most, self.answer = n, 0, 0, None
        self.changed = threading.Condition()

    def __call__(self, r):
        if r.method != "GET" or "/manifest_" not in r.path:
            return None
        with self.changed:
            self.now += 1
            self.most = max(self.most, self.now)
            want = min(AT_ONCE, self.left)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most > AT_ONCE or self.now >= want, timeout=5)
            self.left, self.most = self.left - 1, max(self.most, self.now)
            self.now -= 1
        return self.answer


class Listed(BackupCase):
    def setUp(self):
        super().setUp()
        self.s3 = s3_fake.Fake({"K": s3_fake.Key("secret")})
        self.addCleanup(self.s3.stop)
        self.url = self.s3.url("/far")
        self.env = {"AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "secret",
                    "ASOF_CACHE_DIR": self.path("cache")}
        self.make_db(20).close()
        self.make_folder()
        self.upload()

    def make_folder(self):
        """Backups as they are made, and N more that differ by their time alone."""
        made = self.backup()
        self.backup("--type", "safety")
        self.backup("--no-compress", "--type", "compressed")
        with open(self.db_path, "r+b") as f:
            f.seek(4096)
            f.write(os.urandom(200))
        self.backup("--type", "safety")  # kept raw
        data, manifest = content(made["backup_path"]), json.loads(content(made["manifest_path"]))
        for kind, n in (("manual", N), ("automated", 3)):
            os.makedirs(os.path.join(self.archive, kind), exist_ok=True)
            for i in range(n):
                stamp = f"20240115_{14 + i // 3600:02}{i // 60 % 60:02}{i % 60:02}"
                name = f"trades_{stamp}.db.gz"
                self.write(kind, name, data)
                self.write(kind, f"manifest_{stamp}.json", json.dumps(
                    {**manifest, "backup_file": name, "files": [name], "txid": i + 7, "backup_type": kind}).encode())

    def write(self, kind, name, data):
        with open(os.path.join(self.archive, kind, name), "wb") as f:
            f.write(data)

    def upload(self):
        with self.s3.lock:
            for kind in TYPES:
                for name in self.files(kind):
                    self.s3.keep(f"far/{kind}/{name}",
                                 content(os.path.join(self.archive, kind, name)), {})

    def names(self, *kinds):
        return [n for kind in kinds or TYPES for n in self.files(kind)]

    def manifests(self, *kinds):
        return sorted(n for n in self.names(*kinds) if n.startswith("manifest_"))

    def few(self):
        first = [n for kind in ("manual", "automated", "compressed") for n in self.manifests(kind)[:1]]
        return sorted(first + self.manifests("safety"))

    def ask(self, *args):
        """What it answers, and what was asked of the server."""
        before = len(self.s3.seen())
        run = asof("list", "--archive", self.url, *args, env=self.env)
        self.assertEqual(run.returncode, 0, run.stderr)
        asked = self.s3.seen()[before:]
        self.assertEqual({r.error for r in asked}, {None})
        self.lists = collections.Counter(r.query["prefix"] for r in asked if "list-type" in r.query)
        return run, sorted(r.path.rsplit("/", 1)[1] for r in asked if "list-type" not in r.query)

    def told(self, answer):
        """Of each backup all that does not depend on where, and when."""
        return {kind: [{k: v for k, v in e.items() if k not in ("path", "age_hours")} for e in rows]
                for kind, rows in answer["backups"].items()}

    def rows(self, text):
        """Of the table: type, name, bytes, and whether it is damaged."""
        return [(*line.split()[:3], "damaged" in line) for line in text.splitlines()
                if line.split()[:1] and line.split()[0] in TYPES]

    def test_plain(self):
        """A request for each folder; manifests are read where a backup may be of a damaged database, and
        one of each other, to see that they can be."""
        run, asked = self.ask()
        self.assertEqual(asked, self.few())
        self.assertEqual({k: n for k, n in self.lists.items() if k != "far/local/"},
                         {f"far/{kind}/": 1 for kind in TYPES})
        here = asof("list", "--archive", self.archive).stdout
        self.assertEqual(self.rows(run.stdout), self.rows(here))
        self.assertEqual([r[3] for r in self.rows(here)].count(True), 1)
        self.assertEqual(len(self.rows(here)), N + 7)

    def test_pages(self):
        """Requests grow with thousands."""
        with self.s3.lock:
            for i in range(1300):
                self.s3.keep(f"far/automated/trades_20230115_14{i // 60:02}{i % 60:02}.db.gz", b"x", {})
                self.s3.keep(f"far/automated/manifest_20230115_14{i // 60:02}{i % 60:02}.json", b"x", {})
        run, asked = self.ask("--type", "automated")
        self.assertEqual(len(asked), len(self.few()))
        self.assertEqual(self.lists["far/automated/"], 3)
        self.assertEqual(len(self.rows(run.stdout)), 1303)

    def test_json(self):
        """All that is told of them where they were made; each manifest by one request, some at once;
        what was read is not asked for again."""
        want = self.told(asof_json("list", "--archive", self.archive))
        gate = self.s3.fail = Gate(len(self.manifests("manual")))
        run, asked = self.ask("--json")
        self.assertEqual(asked, self.manifests())
        self.assertEqual(gate.most, AT_ONCE)
        self.assertEqual(self.told(json.loads(run.stdout)), want)
        self.assertEqual({e["txid"] for e in want["automated"]}, {7, 8, 9})
        self.s3.fail = lambda r: None
        for _ in range(2):
            run, asked = self.ask("--json")
            self.assertEqual(asked, [])
            self.assertEqual(self.told(json.loads(run.stdout)), want)
        self.backup("--type", "safety")
        with self.s3.lock:  # another text under a name that was read
            name = self.manifests("automated")[0]
            other = json.loads(self.s3.objects[f"far/automated/{name}"][0])
            self.write("automated", name, json.dumps({**other, "txid": 77777}).encode())
        known = set(self.s3.objects)
        self.upload()
        new = {k.rsplit("/", 1)[1] for k in set(self.s3.objects) - known}
        run, asked = self.ask("--json")
        self.assertIn(name, asked)
        self.assertLessEqual({n for n in new if n.startswith("manifest_")}, set(asked))
        want = self.told(asof_json("list", "--archive", self.archive))
        self.assertEqual(self.told(json.loads(run.stdout)), want)
        self.assertIn(77777, {e["txid"] for e in want["automated"]})

    def test_nothing_kept(self):
        self.env["ASOF_CACHE_DIR"] = ""
        for _ in range(2):
            self.assertEqual(self.ask("--json")[1], self.manifests())

    def test_one_that_cannot_be_read(self):
        """It is told of, and its backup is listed as one without."""
        name = self.manifests("automated")[1]
        with self.s3.lock:
            self.s3.keep(f"far/automated/{name}", b"{", {})
        run, _ = self.ask("--json")
        self.assertIn(name, run.stderr)
        got = json.loads(run.stdout)["backups"]["automated"]
        self.assertEqual([e["txid"] for e in got], [9, None, 7])

    def test_denied(self):
        """Manifests that nobody may read are no list of backups without manifests."""
        self.s3.fail = lambda r: "AccessDenied" if "/manifest_" in r.path else None
        for more in ((), ("--json",)):
            self.assert_fails(asof("list", "--archive", self.url, *more, env=self.env), 1, "manifest_")


if __name__ == "__main__":
    harness.main()

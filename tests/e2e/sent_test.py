#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300
"""Backups at a destination as the observer shows them: in the metrics, the API and what the page asks
for; by what was noted, without a request."""

import datetime
import glob
import json
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import s3_fake  # noqa: E402
from browser import Browser  # noqa: E402
from harness import asof, wait_for  # noqa: E402
from observed import Daemon, free_port  # noqa: E402

TYPES = ("manual", "automated", "safety", "compressed")
NAME = re.compile(r"far/(?P<type>\w+)/(?P<db>\w+?)_(?P<time>\d{8}_\d{6})(_\d+)?\.db\.gz$")
SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.M)


class Sent(harness.Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.archive)
        self.broken = None
        self.s3 = s3_fake.Fake({"K": s3_fake.Key("secret")}, fail=lambda r: self.broken)
        self.addCleanup(self.s3.stop)
        self.dbs = {}
        for name in ("trades", "other"):
            db = self.dbs[name] = self.open_db(self.path(name + ".db"))
            harness.make_counter(db)
            harness.commit(db, 20)
        self.env = {"AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "secret", "TZ": "UTC",
                    "AWS_REGION": "us-east-1", "BACKUP_S3_BUCKET": "bucket/far",
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.s3.port}"}

    def start(self, listen=None, more=""):
        self.daemon = Daemon(self, f"archive: {self.archive}\nbackups: {{schedules: []}}\ndbs:\n" + "".join(
            f"- path: {self.path(name + '.db')}\n{more}" for name in self.dbs), listen, self.env)
        self.daemon.wait_listening()
        return self.daemon

    def backup(self, name, *options):
        run = asof("backup", "--config", self.daemon.config, "--json", "--db-path",
                   self.path(name + ".db"), *options, env=self.env)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def samples(self):
        """{(metric, database, type): value} of what is at the bucket."""
        found = {}
        for metric, labels, value in SAMPLE.findall(self.daemon.ask("/metrics").text):
            of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if metric.startswith("asof_destination_backup"):
                self.assertEqual(of["destination"], "backup-bucket")
                found[metric.removeprefix("asof_destination_"), os.path.basename(of["db"]),
                      of.get("type")] = float(value)
        return found

    def there(self):
        """What the bucket has: {(database, type): [count, bytes, time of the newest]}."""
        found = {}
        with self.s3.lock:
            for key, (data, _) in self.s3.objects.items():
                if m := NAME.match(key):
                    row = found.setdefault((m["db"] + ".db", m["type"]), [0, 0, 0.0])
                    stamp = datetime.datetime.strptime(m["time"] + "+0000", "%Y%m%d_%H%M%S%z")
                    row[:] = row[0] + 1, row[1] + len(data), max(row[2], stamp.timestamp())
        return found

    def told(self):
        """The same, by the metrics."""
        s = self.samples()
        return {(db, kind): [value, s["backups_bytes", db, kind],
                             s["backup_last_success_timestamp_seconds", db, kind]]
                for (metric, db, kind), value in s.items() if metric == "backups"}

    def sums(self, db):
        """Of one database: count, bytes."""
        return tuple(sum(row[i] for (name, _), row in self.there().items() if name == db) for i in (0, 1))

    def settle(self, n):
        """Until so many lie there, and that is known."""
        def settled():
            s = self.samples()
            return sum(v for k, v in s.items() if k[0] == "backups") == n and \
                not any(v for k, v in s.items() if k[0] == "backups_waiting")
        try:
            wait_for(f"{n} at the bucket", settled)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.samples()} {sorted(self.there())}\n{self.daemon.log()}") from None

    def api(self, db):
        a = self.daemon.ask(f"/api/v1/backups?db={db}").json
        place, = a["destinations"]
        return a["backups"], place

    def page(self, db):
        a = self.daemon.ask(f"/api/v1/page/backups?db={db}").json
        place, = a["places"]
        return a["backups"], place

    def assert_told(self):
        """Everybody says what the bucket has."""
        self.assertEqual(self.told(), self.there())
        for db in ("trades.db", "other.db"):
            count, size = self.sums(db)
            rows, place = self.api(db)
            self.assertEqual((place["count"], place["bytes"], place["waiting"]), (count, size, 0))
            self.assertEqual(sum(t["count"] for t in place["types"].values()), count)
            self.assertEqual(place["url"], "s3://bucket/far")
            self.assertIsNone(place["failing_since"])
            shown, of_page = self.page(db)
            self.assertEqual((of_page["count"], of_page["bytes"], of_page["waiting"]), (count, size, 0))
            self.assertEqual(of_page["failing_since_us"], 0)
            for names, key in ((rows, "destinations"), (shown, "at")):
                for e in names:
                    with self.s3.lock:
                        lies = f"far/{e['type']}/{e['name']}" in self.s3.objects
                    self.assertEqual(e[key], ["backup-bucket"] if lies else [], e)

    def requests_of(self, what):
        before = len(self.s3.seen())
        what()
        return [(r.method, r.path) for r in self.s3.seen()[before:]]

    def ask_all(self):
        for _ in range(3):
            self.told()
            for db in ("trades.db", "other.db"):
                self.api(db)
                self.page(db)
            time.sleep(1.05)  # they are collected once a second at most

    def test_what_lies_there(self):
        self.start()
        for db in ("trades.db", "other.db"):
            self.assertEqual(self.api(db)[1]["count"], 0)  # none yet, and it is said where they go
        self.backup("trades")
        self.backup("trades", "--type", "automated")
        self.backup("other", "--type", "safety")
        self.settle(3)
        self.assert_told()
        self.assertEqual(self.requests_of(self.ask_all), [])
        # One that is gone here lies there all the same.
        gone, = glob.glob(os.path.join(self.archive, "automated", "*.db.gz"))
        os.unlink(gone)
        self.backup("trades")
        self.settle(4)
        self.assertEqual(self.sums("trades.db")[0], 3)
        self.assert_told()
        # After a restart it is known without a look, though nobody answers.
        self.assertEqual(self.daemon.stop(), 0)
        self.broken = "InternalError"
        self.start()
        self.assert_told()
        self.assertEqual(self.requests_of(self.ask_all), [])

    def test_older_notes(self):
        """Without sizes and times: times are those of the names, sizes come with the next look."""
        self.start()
        self.backup("trades")
        self.settle(1)
        self.daemon.stop()
        note, = glob.glob(os.path.join(self.archive, ".sent-*"))
        with open(note, encoding="utf-8") as f:
            text = json.load(f)
        for item in text["ours"].values():
            del item["bytes"], item["time_us"]
        with open(note, "w", encoding="utf-8") as f:
            json.dump({**text, "at_us": text["at_us"] - 3600 * 10**6}, f)
        self.start()
        (key, row), = self.there().items()
        self.assertEqual(self.told(), {key: [row[0], 0, row[2]]})
        self.daemon.stop()
        with open(note, "w", encoding="utf-8") as f:
            json.dump({**text, "at_us": 1}, f)
        self.start()
        wait_for("sizes", lambda: self.told() == self.there())

    def test_outage(self):
        self.start()
        self.backup("trades")
        self.settle(1)
        self.broken = "AccessDenied"
        began = time.time()
        made = self.backup("trades", "--type", "automated")
        name = os.path.basename(made["backup_path"])
        wait_for("the failure", lambda: self.samples()["backups_failing", "trades.db", None] == 1)
        s = self.samples()
        self.assertEqual(s["backups_waiting", "trades.db", None], 1)
        self.assertLess(s["backups_waiting_age_seconds", "trades.db", None], time.time() - began + 2)
        self.assertGreater(s["backups_waiting_age_seconds", "trades.db", None], 0)
        self.assertEqual(s["backups_waiting", "other.db", None], 0)
        self.assertEqual(s["backups_waiting_age_seconds", "other.db", None], 0)
        self.assertEqual(self.told(), self.there())  # what lay there still does
        rows, place = self.api("trades.db")
        self.assertEqual((place["count"], place["waiting"]), (1, 1))
        self.assertIn("AccessDenied", place["trouble"])
        self.assertLess(abs(datetime.datetime.fromisoformat(place["failing_since"]).timestamp() - began), 90)
        self.assertEqual({e["name"]: e["destinations"] for e in rows}[name], [])
        _, of_page = self.page("trades.db")
        self.assertEqual((of_page["waiting"], of_page["trouble"]), (1, place["trouble"]))
        self.broken = None
        self.settle(2)
        wait_for("the end of it", lambda: self.samples()["backups_failing", "trades.db", None] == 0)
        self.assert_told()

    def test_a_disk_that_is_not_there(self):
        """A folder that cannot be opened is told as what it is, though nothing was asked of it yet."""
        self.env.pop("BACKUP_S3_BUCKET")
        place = self.path("unplugged")
        self.start(more=f"  destinations: [{{name: usb, path: {place}/asof}}]\n")
        self.backup("trades")

        def failing():
            _, p = self.page("trades.db")
            return p if p["failing_since_us"] and p["waiting"] else None
        shown = wait_for("the failure", failing)
        self.assertEqual((shown["name"], shown["count"]), ("usb", 0))
        self.assertIn(place, shown["trouble"])
        os.mkdir(place)
        wait_for("it to be sent", lambda: self.page("trades.db")[1]["count"] == 1)

    def test_page(self):
        """Seen: where each lies, what is wrong; nothing sticks out, narrow or wide, light or dark."""
        where = os.environ.get("ASOF_SCREENSHOTS")
        port = free_port()
        self.start(f"127.0.0.1:{port}")
        self.backup("trades")
        self.backup("trades", "--type", "automated")
        self.settle(2)
        self.broken = "AccessDenied"
        self.backup("trades")
        wait_for("the failure", lambda: self.page("trades.db")[1]["failing_since_us"])
        for name, options in (("light", {"width": 1200, "height": 900}),
                              ("dark", {"width": 1200, "height": 900, "dark": True}),
                              ("phone", {"width": 390, "height": 844}),
                              ("phone-dark", {"width": 390, "height": 844, "dark": True})):
            b = Browser(self, **options)
            b.open(f"http://127.0.0.1:{port}/")
            b.wait_js("state.line !== null")
            b.js("$('database').value = 'trades.db'; $('database').dispatchEvent(new Event('change'))")
            b.wait_js("document.querySelectorAll('#backups button').length === 3")
            at = b.js("[...document.querySelectorAll('#backups td:nth-child(4)')].map(x => x.textContent)")
            self.assertEqual(at, ["–", "backup-bucket", "backup-bucket"])
            line = b.js("$('places').textContent")
            self.assertRegex(line, r"^backup-bucket: 2 there, .*; 1 to go, .*; fails since .*AccessDenied")
            self.assertLessEqual(b.js("document.documentElement.scrollWidth"), b.js("window.innerWidth"))
            self.assertLessEqual(b.js("document.querySelector('.scroll').scrollWidth"),
                                 b.js("document.querySelector('.scroll').clientWidth"))
            self.assertEqual(b.complaints(), [])
            if where:
                b.js("$('backups').scrollIntoView({block: 'end'})")
                b.picture(os.path.join(where, f"sent-{name}.png"))


if __name__ == "__main__":
    harness.main()

# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300
"""HTTP of asof run: healthy means that what is stored could be restored, whatever runs."""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness
from harness import wait_for
from observed import Daemon, check_of, free_port


MAN = os.path.join(harness.ROOT, "tools", "man")
SAMPLE = re.compile(r'([a-z_]+)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        harness.make_counter(self.db)
        os.mkdir(self.archive)

    def run_daemon(self, more="", **kw):
        return Daemon(self, f"archive: {self.archive}\ndbs:\n  - path: {self.db_path}\n{more}", **kw)

    def order(self, *words):
        run = harness.asof(*words, "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)


class Health(Case):

    def test_healthy(self):
        """A line for each thing, and 200; HEAD has no body; what is not there is 404."""
        d = self.run_daemon(f"    destinations: [{{name: second, path: {self.path('second')}}}]\n")
        os.mkdir(self.path("second"))
        health = d.wait_health()
        wait_for("a copy", lambda: check_of(d.ask("/health").json, "destination", "second")["status"]
                 == "ok")
        for subject, name in (("daemon", None), ("archive", self.archive), ("database", "trades.db")):
            self.assertEqual(check_of(health, subject, name)["status"], "ok")
        text = d.ask("/health").text
        for line in health["checks"]:
            self.assertEqual(sum(f'"subject":"{line["subject"]}"' in row and line["name"] in row
                                 for row in text.splitlines()), 1, text)
        head = d.ask("/health", "HEAD")
        self.assertEqual((head.status, head.body), (200, b""))
        for path in ("/nothing", "/health/", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
            self.assertEqual(d.ask(path).status, 404, path)
        wrong = d.ask("/health", "POST")
        self.assertEqual((wrong.status, wrong.headers["Allow"]), (405, "GET, HEAD"))
        self.assertEqual(d.stop(), 0)
        self.assertFalse(os.path.exists(self.path("http.sock")))

    def test_archive_goes_away(self):
        """The daemon runs, and writes into a folder that nobody can find: not healthy."""
        d = self.run_daemon()
        d.wait_health()
        os.rename(self.archive, self.archive + ".gone")
        d.wait_check("database", ["unreadable"])
        d.wait_check("archive", ["unreadable"])
        os.rename(self.archive + ".gone", self.archive)
        d.wait_health()

    def test_daemon_is_frozen(self):
        """Stopped, it accepts connections and says nothing: told within seconds."""
        d = self.run_daemon()
        d.wait_health()
        d.process.send_signal(signal.SIGSTOP)
        d.wait_check("daemon", ["daemon-silent"])
        d.process.send_signal(signal.SIGCONT)
        d.wait_health()

    def test_nothing_is_stored(self):
        """A database that waits for its file: the process is well, and nothing could be restored."""
        d = Daemon(self, f"archive: {self.archive}\ndbs: [{self.path('absent.db')}]\n")
        d.wait_health(False)
        wait_for("its reason", lambda: "nothing is stored yet" in d.wait_check(
            "database", ("not-capturing", "nothing-stored"))["reason"])

    def test_one_that_may_never_come(self):
        """A second database without a file is waited for: well, and its line says so; then it is taken."""
        later = self.path("later.db")
        d = Daemon(self, f"archive: {self.archive}\ndbs: [{self.db_path}, {later}]\n"
                   "backups: {schedules: [{name: often, every: 1s}]}\n")
        line = check_of(d.wait_health(), "database", "later.db")
        self.assertEqual((line["status"], line["code"]), ("ok", "waiting"))
        self.assertIn("no such file yet", line["reason"])
        wait_for("a backup of the other", lambda: [
            c for c in d.ask("/health").json["checks"] if c["subject"] == "job" and c["name"] == "backup often"
            and c["database"] == "trades.db"])
        self.assertEqual(d.ask("/health").status, 200)
        self.assertRegex(d.ask("/metrics").text, r'(?m)^asof_waiting\{db="[^"]*/later.db"\} 1$')
        db = self.open_db(later)
        harness.make_counter(db)
        wait_for("its line", lambda: check_of(d.ask("/health").json, "database", "later.db")["code"] == "ok")

    def test_first_copy(self):
        """A destination that is empty is not late while something comes there, however old the history."""
        d = self.run_daemon()
        d.wait_health()
        d.stop()
        second = self.path("second")
        folder = os.path.join(second, "local", "trades.db", "segment")
        os.makedirs(folder)
        with open(os.path.join(folder, "00000001-1.wal.gz.tmp"), "wb"):
            pass
        d = self.run_daemon(f"    destinations: [{{name: second, path: {second}, sync-interval: 1d}}]\n")
        line = d.wait_check("destination", ["not-replicated"], "second")
        self.assertEqual(line["status"], "warning")
        self.assertEqual(d.ask("/health").status, 200)

    def test_status_says_the_same(self):
        """asof status judges as /health does: well, paused, of one that never came."""
        d = self.run_daemon(f"    destinations: [{{name: second, path: {self.path('second')}}}]\n"
                            f"  - path: {self.path('later.db')}\n")
        os.mkdir(self.path("second"))
        d.wait_health()

        def checks(health):
            return sorted((c["subject"], c["name"], c["status"], c["code"]) for c in health["checks"])

        def the_same():
            health = d.ask("/health").json
            status = harness.asof_json("status", "--archive", self.archive)["health"]
            text = harness.asof("status", "--archive", self.archive).stdout
            lines = [rf"(?m)^  {c['status']} .*{c['name']}: .*\({c['code']}\)$" for c in health["checks"] if c["reason"]]
            return (checks(health) == checks(status) and health["healthy"] == status["healthy"] and
                    f"\nhealth: {health['status']}\n" in text and all(re.search(line, text) for line in lines))
        for prepare, code in ((lambda: None, "waiting"),
                              (lambda: self.order("pause", "trades.db"), "not-capturing")):
            prepare()
            wait_for(code, lambda code=code: code in d.ask("/health").text)
            wait_for("the same of both", the_same)  # what is asked twice may have moved on between
        found = json.loads(harness.asof("doctor", "--config", d.config, "--json").stdout)["findings"]
        self.assertIn("not-captured", {f["check"] for f in found if f["severity"] == "serious"})

    def test_observer_is_killed(self):
        """It is started again, and capture has not noticed."""
        d = self.run_daemon()
        d.wait_health()
        pid = d.observer_pid()
        os.kill(pid, signal.SIGKILL)
        wait_for("another observer", lambda: d.observer_pid() not in (None, pid))
        d.wait_health()
        harness.commit(self.db)
        self.assertIsNone(d.process.poll())

    def test_archive_is_damaged(self):
        """A flipped bit in the only base: verification finds it, and /health says so from then on."""
        d = self.run_daemon("    verify: every 1s\n")
        d.wait_health()
        folder = os.path.join(self.archive, "local", "trades.db")
        snapshot, = [os.path.join(at, f) for at, _, files in os.walk(folder) for f in files
                     if "snapshot" in at or f.endswith(".db.gz")]
        with open(snapshot, "r+b") as f:
            f.seek(os.path.getsize(snapshot) // 2)
            byte, = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 0x10]))
        run = harness.asof("job", "verify-full", self.archive, "trades.db")
        self.assertEqual(run.returncode, 4, run.stderr)
        line = d.wait_check("database", ("damaged", "not-restorable"))
        self.assertIn(os.path.basename(snapshot), line["reason"])

    def test_base_is_gone(self):
        """Nobody has verified since, and nothing opens any more: told within a minute."""
        d = self.run_daemon()
        d.wait_health()
        shutil.rmtree(os.path.join(self.archive, "local", "trades.db", "snapshot"))
        d.wait_check("database", ["not-restorable"], patience=120)

    def test_disk_is_full(self):
        """A small filesystem without a reserve, filled: what cannot be stored is told."""
        run = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", self.archive],
                             check=False, stderr=subprocess.PIPE, text=True)
        if run.returncode:
            if os.environ.get("CI") == "true":
                self.fail(run.stderr)
            self.skipTest("no right to mount: " + run.stderr)
        d = Daemon(self, f"archive: {self.archive}\nretention: {{min-free: 0}}\n"
                         f"dbs: [{self.db_path}]\n")
        d.wait_health()
        fd = os.open(os.path.join(self.archive, "filler"), os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(fd, bytes(4096))
        except OSError:
            os.close(fd)
        harness.commit(self.db, 500)
        d.wait_check("database", ("not-capturing", "capture-late"), patience=120)
        os.unlink(os.path.join(self.archive, "filler"))
        d.wait_health()

    def test_disk_fills_up(self):
        """Days until it is full, by what was noted each hour: a warning, and still healthy."""
        vfs = os.statvfs(self.archive)
        free, now = vfs.f_bavail * vfs.f_frsize, int(time.time() * 1e6)
        with open(os.path.join(self.archive, "space"), "w", encoding="ascii") as f:
            for hours in range(50, 0, -1):  # all that is free, in two days
                f.write(f"{now - hours * 3600000000} {free + hours * free // 48}\n")
        d = self.run_daemon()
        self.assertEqual(d.wait_check("archive", ["space-short"])["status"], "warning")
        d.wait_health()
        text = d.ask("/metrics").text
        left = float(re.search(r"^asof_archive_until_full_seconds.* (\S+)$", text, re.M)[1])
        self.assertTrue(0 < left < 2.5 * 86400, left)

    def test_too_little_is_free(self):
        d = Daemon(self, f"archive: {self.archive}\nretention: {{min-free: 900T}}\n"
                         f"dbs: [{self.db_path}]\n")
        d.wait_check("archive", ["no-space"])
        self.assertEqual(d.ask("/health").status, 503)

    def test_destination_stays_behind(self):
        """Its folder cannot be made, or lags, or is only half configured: a line for each."""
        with open(self.path("file"), "w", encoding="ascii"):
            pass
        d = self.run_daemon(f"    destinations:\n      - {{name: second, path: {self.path('file')}/x}}\n"
                            "      - {name: far, type: s3, bucket: nobodys}\n")
        # Known from the beginning, and nothing was lost by it: a warning.
        self.assertEqual(d.wait_check("destination", ["not-configured"], "far")["status"], "warning")

        def line_of_second():
            line = check_of(d.ask("/health").json, "destination", "second")
            return line if line["status"] == "failed" else None
        self.assertEqual(wait_for("its line", line_of_second)["database"], "trades.db")

    def test_paused(self):
        """By order, and still: what is committed now could not be restored."""
        d = self.run_daemon()
        d.wait_health()
        self.order("pause", "trades.db")
        d.wait_check("database", ["not-capturing"])
        self.assertEqual(d.ask("/health").status, 503)
        self.order("resume", "trades.db")
        d.wait_health()


class Metrics(Case):
    def samples(self, text):
        """name -> {labels as a frozenset of pairs: value}"""
        out = {}
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            name, labels, value = SAMPLE.fullmatch(line).groups()
            labels = frozenset((k, v.replace('\\"', '"').replace("\\\\", "\\"))
                               for k, v in LABEL.findall(labels or ""))
            self.assertNotIn(labels, out.setdefault(name, {}), line)
            out[name][labels] = float(value)
        return out

    def value(self, samples, name, **labels):
        rows = [v for k, v in samples[name].items() if set(labels.items()) <= k]
        self.assertEqual(len(rows), 1, (name, labels, samples[name]))
        return rows[0]

    def start(self):
        os.mkdir(self.path("second"))
        d = self.run_daemon(
            f"    verify: every 1s\n"
            f"    destinations: [{{name: second, path: {self.path('second')}}}]\n"
            "backups: {schedules: [{name: often, every: 1s}]}\n")
        names = ("backup_size_bytes{", "asof_replicated_timestamp_seconds{",
                 "asof_verified_through_timestamp_seconds{")

        def is_there():
            harness.commit(self.db)  # the first moments of a live database have no checksum
            a = d.try_ask("/metrics")
            return a and all(name in a.text for name in names)
        try:
            wait_for("a backup, a copy, a verification", is_there)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{d.log()}\n{d.try_ask('/metrics').text}") from None
        return d

    def test_promtool(self):
        """Prometheus' own rules for names and text."""
        if not shutil.which("promtool"):
            if os.environ.get("CI") == "true":
                self.fail("no promtool: install prometheus")
            self.skipTest("no promtool: install prometheus")
        text = self.start().ask("/metrics").text
        # These labels are Prometheus' own: ours would come out as exported_job.
        self.assertNotRegex(text, r'[{,](job|instance)="')
        run = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual((run.returncode, run.stdout), (0, ""))

    def test_every_name_is_documented(self):
        text = self.start().ask("/metrics").text
        served = re.findall(r"^# TYPE (\S+) ", text, re.M)
        self.assertEqual(len(served), len(set(served)))
        with open(os.path.join(MAN, "asof-metrics.7.md"), encoding="utf-8") as f:
            page = f.read()
        terms = re.findall(r"((?:^\*\*.*\n)+):   ", page, re.M)
        documented = [n for t in terms for n in re.findall(r"\*\*([a-z_]+)\*\*", t)]
        self.assertEqual(sorted(documented), sorted(served))
        # The labels that a page names are those that are served.
        for term in terms:
            labels = re.search(r"\*\{(.*)\}\*", term)
            wanted = set(labels[1].split(", ")) if labels else set()
            for name in re.findall(r"\*\*([a-z_]+)\*\*", term):
                seen = {k for s in self.samples(text).get(name, {}) for k, _ in s}
                self.assertEqual(seen, wanted & seen, name)
                if seen:
                    self.assertEqual(wanted, seen, name)

    def test_values(self):
        """Held against what lies there."""
        d = self.start()
        for _ in range(20):
            harness.commit(self.db)
        self.order("sync", "--wait")
        status = harness.asof_json("status", "--archive", self.archive)["databases"][0]
        of = {"db": self.db_path}

        def up_to_date():  # answers are up to a second old, and a slow machine is late for a while
            s = self.samples(d.ask("/metrics").text)
            good = (self.value(s, "litestream_txid", **of) == status["last_txid"] and
                    self.value(s, "asof_healthy") == 1 and
                    self.value(s, "litestream_replication_lag", **of) < 30 and
                    self.value(s, "asof_captured_age_seconds", **of) < 10)
            return s if good else None
        s = wait_for("the last commit", up_to_date)
        self.assertEqual(self.value(s, "litestream_db_size", **of), os.path.getsize(self.db_path))
        self.assertEqual(self.value(s, "litestream_wal_size", **of),
                         os.path.getsize(self.db_path + "-wal"))
        self.assertGreaterEqual(self.value(s, "asof_commits_total", **of), 20)
        self.assertGreater(self.value(s, "litestream_sync_count", **of), 0)
        self.assertGreater(self.value(s, "litestream_total_wal_bytes", **of), 20 * 4096)
        self.assertGreater(self.value(s, "backup_success_total", **of, schedule="often"), 0)
        self.assertEqual(self.value(s, "backup_failure_total", **of, schedule="often"), 0)
        sizes = [e.stat().st_size for e in os.scandir(os.path.join(self.archive, "automated"))
                 if e.name.endswith(".db.gz")]
        self.assertIn(self.value(s, "backup_size_bytes", **of, type="automated"), sizes)
        vfs = os.statvfs(self.archive)
        self.assertAlmostEqual(self.value(s, "asof_archive_size_bytes", archive=self.archive),
                               vfs.f_blocks * vfs.f_frsize, delta=1)
        samples = s["asof_verified_through_timestamp_seconds"]
        self.assertLess(abs(time.time() - samples[frozenset(of.items())]), 600)

    def test_ages_of_what_is_not_there(self):
        """Large, not missing: an alert on them fires."""
        d = Daemon(self, f"archive: {self.archive}\ndbs: [{self.path('absent.db')}]\n")
        wait_for("a sample", lambda: (a := d.try_ask("/metrics")) and "absent.db" in a.text)
        s = self.samples(d.ask("/metrics").text)
        for name in ("asof_captured_age_seconds", "asof_verified_age_seconds",
                     "litestream_replication_lag"):
            self.assertEqual(self.value(s, name, db=self.path("absent.db")), float("inf"), name)
        self.assertEqual(self.value(s, "asof_restorable", db=self.path("absent.db")), 0)

    def test_names_of_all_kinds(self):
        """Quotes, backslashes, and UTF-8 in a path: text that Prometheus takes."""
        path = os.path.join(os.fsencode(self.dir), 'a"b\\cü.db'.encode())
        shutil.copy(self.db_path, path)
        d = Daemon(self, f"archive: {self.archive}\ndbs:\n  - dir: {self.dir}\n    pattern: 'a*.db'\n")
        a = wait_for("a sample", lambda: (a := d.try_ask("/metrics")) and "asof_capturing{" in a.text
                     and a)
        s = self.samples(a.text)
        self.assertEqual(self.value(s, "asof_restorable"),
                         self.value(s, "asof_restorable", db=self.dir + '/a"b\\cü.db'))
        json.loads(d.ask("/api/v1/status").text)


class Api(Case):
    def test_answers(self):
        os.mkdir(self.path("second"))
        d = self.run_daemon(f"    destinations: [{{name: second, path: {self.path('second')}}}]\n"
                            "backups: {schedules: [{name: often, every: 1s}]}\n")
        d.wait_health()
        for _ in range(30):
            harness.commit(self.db)
        self.order("sync", "--wait")
        d.wait_health()
        status = d.ask("/api/v1/status").json
        self.assertEqual(status["daemon"]["pid"], d.process.pid)
        wait_for("health there, too", lambda: d.ask("/api/v1/status").json["healthy"])
        row, = d.ask("/api/v1/databases").json["databases"]
        self.assertEqual((row["database"], row["path"]), ("trades.db", self.db_path))
        self.assertEqual(row["daemon"]["state"], "replicating")
        self.assertEqual(row["destinations"][0]["name"], "second")
        wait_for("backups", lambda: d.ask("/api/v1/backups").json["total"] >= 2)
        two = d.ask("/api/v1/backups?limit=2&type=automated&db=trades.db").json["backups"]
        self.assertEqual(len(two), 2)
        self.assertGreaterEqual(two[0]["time"], two[1]["time"])
        self.assertEqual(d.ask("/api/v1/backups?type=manual").json["backups"], [])
        events = d.ask("/api/v1/events?db=trades.db").json["events"]
        self.assertIn("backup often", [e["job"] for e in events if e["event"] == "run"])
        self.assertEqual([e["time"] for e in events], sorted((e["time"] for e in events), reverse=True))

    def test_commits(self):
        """What asof log prints, in pages that fit together, whatever the limit."""
        d = self.run_daemon()
        d.wait_health()
        for _ in range(57):
            harness.commit(self.db)
        self.order("sync", "--wait")
        log = harness.asof_json("log", "trades.db", "--archive", self.archive)
        log = [r for r in log if "txid" in r] if isinstance(log, list) else log["commits"]
        want = [(r["txid"], r["time"]) for r in log]
        def get(query):
            a = d.ask("/api/v1/commits?" + query)
            self.assertEqual(a.status, 200, a.text)
            return [(c["txid"], c["time"]) for c in a.json["commits"]], a.json["next_txid"]
        self.assertEqual(get("limit=1000"), (want, None))
        for limit in (1, 7, len(want) - 1, len(want)):
            self.assertEqual(get(f"limit={limit}&db=trades.db"), (want[-limit:], None))
            pages, start = [], 1
            while start:
                page, start = get(f"limit={limit}&from_txid={start}")
                pages += page
            self.assertEqual(pages, want, limit)
        since, until = want[10][1], want[20][1]
        self.assertEqual(get(f"since={since}&until={until}"), (want[10:21], None))
        self.assertEqual(get(f"since={since}&until={until}&limit=5"), (want[10:15], want[15][0]))
        self.assertEqual(get(f"until={until}&limit=3"), (want[18:21], None))

    def test_bad_questions(self):
        d = self.run_daemon()
        d.wait_health()
        for query, status, text in (
                ("commits?db=nobody.db", 404, "trades.db"), ("commits?limit=0", 400, "limit"),
                ("commits?limit=99999999999999999999", 400, "limit"), ("commits?limit=-1", 400, "limit"),
                ("commits?since=soon", 400, "since"), ("backups?type=hourly", 400, "hourly"),
                ("events?db=../../etc", 404, "etc"), ("nothing", 404, "nothing"),
                ("commits?db=%00", 404, "database"), ("commits?db=" + "x" * 3000, 404, "database")):
            a = d.ask("/api/v1/" + query)
            self.assertEqual(a.status, status, (query, a.text))
            self.assertIn(text, a.json["error"])


class Doors(Case):
    """Who may ask, and where."""

    def basic(self, user, password):
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    def test_credentials(self):
        d = self.run_daemon(f"http: {{listen: 127.0.0.1:{(port := free_port())}, token: t0ken, "
                            "username: joe, password: secret}\n", listen=f"127.0.0.1:{port}")
        d.wait_listening()
        good = ({"Authorization": "Bearer t0ken"}, self.basic("joe", "secret"))
        bad = ({}, {"Authorization": "Bearer t0keN"}, {"Authorization": "Bearer "},
               {"Authorization": "Bearer t0ken1"}, self.basic("joe", "secre"), self.basic("", ""),
               self.basic("Joe", "secret"), {"Authorization": "Basic !!!"})
        for path in ("/metrics", "/api/v1/status", "/nothing"):
            for headers in bad:
                a = d.ask(path, headers=headers)
                self.assertEqual(a.status, 401, (path, headers))
                self.assertIn("Basic", a.headers["WWW-Authenticate"])
                self.assertNotIn("trades", a.text)
            for headers in good:
                self.assertEqual(d.ask(path, headers=headers).status,
                                 404 if path == "/nothing" else 200)
        # /health without them: no more than whether.
        wait_for("health", lambda: d.ask("/health").status == 200)
        self.assertEqual(d.ask("/health").json, {"healthy": True, "status": "ok"})
        self.assertIn("checks", d.ask("/health", headers=good[0]).json)
        self.assertNotIn("t0ken", d.log())

    def test_names_of_others(self):
        """A page of another site has led its name to this machine: it is not served."""
        d = self.run_daemon(listen=f"127.0.0.1:{free_port()}")
        d.wait_listening()
        port = d.listen.rsplit(":", 1)[1]
        for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:80", "127.9.9.9"):
            self.assertEqual(d.ask("/metrics", headers={"Host": host}).status, 200, host)
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80",
                     "127.evil", "[::1].evil", ""):
            self.assertEqual(d.ask("/metrics", headers={"Host": host}).status, 403, host)

    def test_refuses_to_be_open(self):
        for http in ("{listen: '0.0.0.0:1'}", "{listen: ':1', token: x}", "{listen: '[::]:1'}"):
            with open(self.path("open.yml"), "w", encoding="utf-8") as f:
                f.write(f"archive: {self.archive}\ndbs: [{self.db_path}]\nhttp: {http}\n")
            run = harness.asof("run", "--config", self.path("open.yml"))
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn("can be reached from elsewhere", run.stderr)

    def test_tls(self):
        """On all addresses, with a certificate of our own and a token."""
        cert, key = self.path("cert.pem"), self.path("key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-keyout", key, "-out", cert, "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost"],
                       check=True, stderr=subprocess.DEVNULL)
        port = free_port()
        d = self.run_daemon(f"http: {{listen: ':{port}', token: t, tls-cert: {cert}, tls-key: {key}}}\n",
                            listen=f"127.0.0.1:{port}")
        context = ssl.create_default_context(cafile=cert)

        def ask(headers):
            c = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
            try:
                c.request("GET", "/metrics", headers=headers)
                return c.getresponse().status
            except OSError:
                return None
            finally:
                c.close()
        wait_for("TLS", lambda: ask({"Authorization": "Bearer t"}) == 200)
        self.assertEqual(ask({}), 401)
        self.assertIn("asof_healthy", wait_for("plain", lambda: subprocess.run(
            ["curl", "-s", "--cacert", cert, "-H", "Authorization: Bearer t",
             f"https://localhost:{port}/metrics"], stdout=subprocess.PIPE, text=True,
            check=False).stdout))
        # Plain HTTP gets nothing there.
        self.assertIsNone(d.try_ask("/metrics", timeout=5))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(cert)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("localhost", port), timeout=30) as s, \
                self.assertRaises((ssl.SSLError, OSError)):
            old.wrap_socket(s, server_hostname="localhost")

    def test_addresses_of_a_litestream_yml(self):
        """/metrics and /health, to whoever asks, and nothing else; one warning."""
        metrics, health = free_port(), free_port()
        d = self.run_daemon(f"addr: ':{metrics}'\nhealth: {{addr: '127.0.0.1:{health}'}}\n"
                            "http: {listen: none}\n", listen=f"127.0.0.1:{metrics}")
        d.wait_health()
        for port in (metrics, health):
            d.listen = f"127.0.0.1:{port}"
            for path in ("/metrics", "/health"):
                a = wait_for(path, lambda path=path: d.try_ask(path, headers={"Host": "asof:9090"}))
                self.assertEqual(a.status, 200, path)
            self.assertIn("checks", d.ask("/health").json)
            for path in ("/api/v1/status", "/", "/api/v1/commits"):
                self.assertEqual(d.ask(path).status, 404, path)
        self.assertEqual(d.log().count("to whoever asks"), 1)

    def test_address_is_taken(self):
        """By name: unhealthy where it is served, tried again; the default one only warns."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port, other = s.getsockname()[1], free_port()
            d = self.run_daemon(f"http: {{listen: 127.0.0.1:{port}}}\nhealth: {{addr: '127.0.0.1:{other}'}}\n",
                                listen=f"127.0.0.1:{other}")
            line = d.wait_check("daemon", ["not-listening"])
            self.assertIn("taken", line["reason"])
        d.wait_health()
        d.listen = f"127.0.0.1:{port}"
        self.assertEqual(d.ask("/metrics").status, 200)
        self.assertEqual(d.log().count("not listening"), 1)

    def test_reload(self):
        """Another address by SIGHUP; a broken file changes nothing."""
        d = self.run_daemon()
        d.wait_health()
        first = d.observer_pid()
        text = f"archive: {self.archive}\ndbs: [{self.db_path}]\nhttp: {{listen: 'unix:{self.path('b.sock')}'}}\n"
        d.write_config("nonsense: [")
        d.process.send_signal(signal.SIGHUP)
        wait_for("the refusal", lambda: "was not loaded" in d.log())
        self.assertEqual(d.ask("/health").status, 200)
        self.assertEqual(d.observer_pid(), first)
        d.write_config(text)
        d.process.send_signal(signal.SIGHUP)
        d.listen = "unix:" + self.path("b.sock")
        d.wait_health()
        wait_for("the other to be gone", lambda: not os.path.exists(self.path("http.sock")))
        self.assertEqual(os.stat(self.path("b.sock")).st_mode & 0o777, 0o600)


def figure(pid, name):
    """A number of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(rf"^{name}:\s+(\d+)", f.read(), re.M)[1])


# A commit that waited for a client would wait for ever, or until it is cut off; one on a slow, busy
# machine waits for its disk.
LATE_S = 12


def latency(daemon_socket, db, n):
    """Seconds from a commit to the word that it is durable, sorted."""
    out = []
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(daemon_socket)
        for _ in range(n):
            harness.commit(db)
            began = time.monotonic()
            s.sendall(b'{"command": "sync", "wait": true}\n')
            answer = b""
            while not answer.endswith(b"\n"):
                answer += s.recv(4096)
            if not json.loads(answer)["ok"]:
                raise AssertionError(answer)
            out.append(time.monotonic() - began)
    return sorted(out)


class Hostile(Case):
    """Clients that are many, slow or mad: the observer stays small and comes back, and the daemon
    has not noticed."""

    def setUp(self):
        super().setUp()
        self.d = self.run_daemon(listen=f"127.0.0.1:{free_port()}")
        self.d.wait_health()
        self.address = ("127.0.0.1", int(self.d.listen.rsplit(":", 1)[1]))
        self.daemon_fds = len(os.listdir(f"/proc/{self.d.process.pid}/fd"))
        self.observer = self.d.observer_pid()

    def connect(self, n):
        out = []
        for _ in range(n):
            try:
                out.append(socket.create_connection(self.address, timeout=10))
                self.addCleanup(out[-1].close)
            except OSError:
                pass  # refused: bounded
        return out

    def check_after(self):
        self.d.wait_health()
        self.assertEqual(self.d.observer_pid(), self.observer, "the observer ended: " + self.d.log())
        self.assertLess(figure(self.observer, "RssAnon"), 32 * 1024)
        wait_for("threads to end", lambda: figure(self.observer, "Threads") < 12, 60)
        self.assertLessEqual(len(os.listdir(f"/proc/{self.d.process.pid}/fd")), self.daemon_fds + 2)
        self.assertLess(latency(os.path.join(self.archive, "control.sock"), self.db, 20)[-1], LATE_S)

    def test_many(self):
        """Five hundred that say nothing, and stay: gone within the time of silence, and a little."""
        held = self.connect(500)
        self.assertLess(figure(self.observer, "Threads"), 80)
        slow = latency(os.path.join(self.archive, "control.sock"), self.db, 50)
        self.assertLess(slow[-1], LATE_S)
        self.assertLess(figure(self.observer, "RssAnon"), 32 * 1024)
        a = wait_for("an answer in spite of them", lambda: self.d.try_ask("/health", timeout=5), 120)
        self.assertIn(a.status, (200, 503))  # 503: late, under that load
        for s in held:
            s.close()
        self.check_after()

    def test_slow(self):
        """A byte of a header at a time, for ever: cut off in time, all of them."""
        held = self.connect(30)
        for s in held:
            s.setblocking(False)
            s.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        began, cut = time.monotonic(), 0
        while held and time.monotonic() - began < 150:
            self.d.ask("/health")  # others are served meanwhile
            for s in held[:]:
                try:
                    s.send(b"a")
                    if s.recv(100) == b"":
                        raise ConnectionError
                except BlockingIOError:
                    continue
                except OSError:
                    held.remove(s)
                    cut += 1
            time.sleep(0.5)
        self.assertEqual(held, [], f"{cut} were cut off")
        self.check_after()

    def test_nobody_reads_the_answer(self):
        """Requests in one go, answers never taken, and connections that are half closed."""
        held = self.connect(40)
        for s in held:
            s.settimeout(5)
            try:
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        wait_for("an answer", lambda: self.d.try_ask("/health", timeout=5), 120)
        for s in held:
            s.close()
        self.check_after()

    def test_garbage(self):
        """What is no HTTP, or too much of it."""
        head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
        for text in (os.urandom(4096), b"\0" * 100000, b"GET\r\n\r\n", b"\r\n" * 50000,
                     head + b"X: " + b"a" * 5000000 + b"\r\n\r\n",
                     head + b"".join(b"X-%d: y\r\n" % i for i in range(20000)) + b"\r\n",
                     b"GET /" + b"a" * 1000000 + b" HTTP/1.1\r\n\r\n",
                     b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
                     b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999999\r\n\r\n"
                     + b"x" * 3000000,
                     b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
                     b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"GET http://localhost/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(600)):
            for s in self.connect(3):
                s.settimeout(25)
                answer = b""
                try:
                    s.sendall(text)
                    s.shutdown(socket.SHUT_WR)
                    while part := s.recv(65536):
                        answer += part
                except OSError:
                    pass
                s.close()
                self.assertNotIn(b"root:", answer)
                self.assertNotIn(b'"checks"', answer if text.startswith(b"POST") else b"")
        self.check_after()


if __name__ == "__main__":
    harness.main(at_once=6)

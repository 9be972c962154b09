#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""Alerts: asof check tries out where they go to; servers are real ones, with faults."""

import contextlib
import getpass
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import radosgw  # noqa: E402
import sshd  # noqa: E402
from harness import asof, commit, wait_for  # noqa: E402
from observed import Daemon, check_of, disk_that_stops  # noqa: E402
from receivers import HookServer, MailServer, make_certificate  # noqa: E402

SECRETS = ("s3cr3t", "T000/B000")


class AlertCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.config = self.path("asof.yml")

    def server(self, kind, *args, **kw):
        s = kind(*args, **kw)
        self.addCleanup(s.close)
        return s

    def configure(self, *alerts, more=""):
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\n{more}"
                    f"dbs:\n  - path: {self.db_path}\nalerts:\n")
            f.write("".join(f"  {line}\n" for line in alerts))


class SendTest(AlertCase):
    """asof check --send-test"""

    def check(self, status=0, **kw):
        run = asof("check", "--config", self.config, "--send-test", "--json", **kw)
        self.assertEqual(run.returncode, status, run.stderr + run.stdout)
        for secret in SECRETS:
            self.assertNotIn(secret, run.stdout + run.stderr)
        return {row["alert"]: row for row in json.loads(run.stdout)["alerts"]}

    def email(self, server, *more, to="[ops@example.com, nobody@example.com]"):
        return ", ".join(["email: {server: 127.0.0.1", f"port: {server.port}", f"to: {to}",
                          *more]) + "}"

    def test_nothing_is_sent_unless_asked_for(self):
        hooks = self.server(HookServer)
        self.configure(f"webhook: http://127.0.0.1:{hooks.port}/s3cr3t")
        run = asof("check", "--config", self.config)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(run.stdout, r"webhook +127\.0\.0\.1 +not tried")
        self.assertNotIn("s3cr3t", run.stdout)
        self.assertEqual(hooks.connections, 0)

    def test_all_places(self):
        mail, hooks = self.server(MailServer), self.server(HookServer)
        url = f"http://127.0.0.1:{hooks.port}"
        self.configure(self.email(mail), f"slack: {url}/services/T000/B000/XXX",
                       f"webhook: {url}/s3cr3t-hook", f"heartbeat: {{url: '{url}/s3cr3t-beat'}}")
        rows = self.check()
        self.assertEqual(list(rows), ["email", "slack", "webhook", "heartbeat"])
        self.assertEqual({row["state"] for row in rows.values()}, {"ok"})
        letter, = mail.got()
        # One recipient that does not exist keeps nobody else in the dark.
        self.assertEqual(letter.envelope[1], ("ops@example.com",))
        self.assertIn("test", letter["Subject"])
        self.assertIn("nothing is wrong", letter.get_content())
        got = {path: (method, body) for method, path, _, body, _ in hooks.got()}
        self.assertEqual(got["/s3cr3t-beat"], ("GET", None))
        self.assertIn("nothing is wrong", got["/services/T000/B000/XXX"][1]["text"])
        alert, = got["/s3cr3t-hook"][1]["alerts"]
        self.assertEqual(alert["labels"]["alertname"], "test")

    def test_password_goes_through_tls_alone(self):
        """Where TLS is required it is verified; nothing is said to a server that cannot."""
        cert = make_certificate(self.dir)
        login = ("username: me@example.com", "password: s3cr3t-word", "tls: required")
        mail = self.server(MailServer, cert, user="me@example.com", password="s3cr3t-word")
        self.configure(self.email(mail, *login))
        self.check(env={"SSL_CERT_FILE": cert[0]})
        letter, = mail.got()
        self.assertTrue(letter.encrypted)
        self.assertEqual(letter["From"], "asof <me@example.com>")
        # A certificate that nobody vouches for.
        row = self.check(1)["email"]
        self.assertEqual(row["state"], "problem")
        self.assertRegex(row["message"], "(?i)certificate|SSL")
        plain = self.server(MailServer, user="me@example.com", password="s3cr3t-word")
        self.configure(self.email(plain, *login))
        self.check(1)
        self.assertEqual(plain.got(), [])

    def test_tls_from_the_beginning(self):
        try:
            mail = self.server(MailServer, make_certificate(self.dir), tls="at-once",
                               address=("127.0.0.2", 465))
        except PermissionError:
            self.skipTest("port 465 is for root")
        self.configure(self.email(mail).replace("127.0.0.1", "127.0.0.2"))
        self.check()
        self.assertTrue(mail.got()[0].encrypted)

    def test_loopback_needs_no_certificate(self):
        """A local relay has one that nobody signed: the password stays on this machine."""
        mail = self.server(MailServer, make_certificate(self.dir), user="u", password="s3cr3t")
        self.configure(self.email(mail, "username: u", "password: s3cr3t"))
        self.check()
        self.assertTrue(mail.got()[0].encrypted)

    def test_what_servers_do(self):
        mail, hooks = self.server(MailServer), self.server(HookServer)
        for fault, words in (("refuse", "421"), ("close", ""), ("temporary", "451")):
            mail.faults = [fault]
            self.configure(self.email(mail))
            self.assertIn(words, self.check(1)["email"]["message"])
        login = self.server(MailServer, user="u", password="p")
        login.faults = ["no-login"]
        self.configure(self.email(login, "username: u", "password: s3cr3t"))
        self.assertIn("535 (username or password)", self.check(1)["email"]["message"])
        for fault, words in (("500", "500"), ("404", "404"), ("close", ""), ("reset", ""),
                             ("redirect", "302")):
            hooks.faults = [fault]
            self.configure(f"webhook: http://127.0.0.1:{hooks.port}/s3cr3t")
            self.assertIn(words, self.check(1)["webhook"]["message"])
        self.assertEqual(hooks.got(), [])
        hooks.faults = ["slow"]
        self.check()

    def test_bad_certificate_of_a_webhook(self):
        cert = make_certificate(self.dir)
        hooks = self.server(HookServer, cert)
        self.configure(f"webhook: https://127.0.0.1:{hooks.port}/s3cr3t")
        self.assertRegex(self.check(1)["webhook"]["message"], "(?i)certificate")
        self.check(env={"SSL_CERT_FILE": cert[0]})
        self.assertEqual(len(hooks.got()), 1)

    def test_nobody_there(self):
        hooks = self.server(HookServer)
        hooks.close()
        self.configure(f"webhook: http://127.0.0.1:{hooks.port}/s3cr3t")
        self.assertRegex(self.check(1)["webhook"]["message"], "(?i)connect")

    def test_names_from_anywhere(self):
        """A host's name, and a text, that would end a header or a line."""
        mail = self.server(MailServer)
        self.configure(self.email(mail, to="ops@example.com"))
        self.check()
        letter, = mail.got()
        self.assertEqual(letter["Auto-Submitted"], "auto-generated")
        self.assertEqual(letter["To"], "ops@example.com")
        self.assertRegex(letter["Message-ID"], r"^<[0-9a-f]{16}\.begin\.0@[\w.-]+>$")
        self.assertLess(max(map(len, letter.raw.split(b"\r\n"))), 998)


class Configuration(AlertCase):
    def test_what_is_missing(self):
        for alerts, want in (
                ("email: {server: s}", "email: to whom?"),
                ("email: {to: a@x}", "email: server is missing"),
                ("email: {server: 's/x', to: a@x}", "no name of a host"),
                ("email: {server: s, to: 'a@x> b'}", "is no address"),
                ("email: {server: s, to: a@x, username: u}", "go together"),
                ("email: {server: s, to: a@x, tls: perhaps}", "none of auto, required"),
                ("webhook: ftp://h/s3cr3t", "webhook: what is given is no URL"),
                ("slack: s3cr3t", "slack: what is given is no URL"),
                ("heartbeat: {url: '//s3cr3t'}", "url: what is given is no URL"),
                ("for: 2w", "for: 2w is not in"),
                ("repeet: 1h", "did you mean repeat?")):
            self.configure(alerts)
            run = asof("check", "--config", self.config)
            self.assertEqual(run.returncode, 2, alerts + run.stderr)
            self.assertIn(want, run.stderr)
            self.assertRegex(run.stderr, r"asof\.yml:5: ")
            self.assertNotIn("s3cr3t", run.stderr)

    def test_variables_of_the_old_system(self):
        """Half filled in they are a warning: nothing that worked stops working."""
        mail = self.server(MailServer)
        env = self.path(".env.backup")
        self.configure()
        for lines, words in ((f"SMTP_SERVER=127.0.0.1\nSMTP_PORT={mail.port}\n", "to whom?"),
                             ("SMTP_SERVER=h\nALERT_RECIPIENTS=a@x, you\n", "'you' is no address")):
            with open(env, "w", encoding="utf-8") as f:
                f.write(lines)
            run = asof("check", "--config", self.config, "--send-test")
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn(words, run.stderr)
        with open(env, "w", encoding="utf-8") as f:
            f.write(f"SMTP_SERVER=127.0.0.1\nSMTP_PORT={mail.port}\n"
                    "ALERT_RECIPIENTS=a@example.com,b@example.com\n")
        run = asof("check", "--config", self.config, "--send-test")
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(mail.got()[0].envelope[1], ("a@example.com", "b@example.com"))


class Told(AlertCase):
    """asof run tells of trouble when it comes, and when it is over: once each."""

    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        harness.make_counter(self.db)
        os.mkdir(self.archive)
        self.hooks = self.server(HookServer)

    def url(self, path):
        return f"http://127.0.0.1:{self.hooks.port}/{path}"

    def run_daemon(self, *alerts, db="", path=None, archive=None, hold="1s", **kw):
        """hold: how long something must last to be told (on a slow machine a daemon may take longer
        than a second to begin, which is rightly told)."""
        alerts = alerts or (f"webhook: {self.url('hook')}",)
        return Daemon(self, f"archive: {archive or self.archive}\n"
                            f"dbs:\n  - path: {path or self.db_path}\n{db}"
                            f"alerts:\n  for: {hold}\n" + "".join(f"  {a}\n" for a in alerts), **kw)

    def alerts(self, code=None, status=None):
        """What was told: (code, status, db, place), in that order, repetitions included."""
        found = []
        for _, path, _, body, _ in self.hooks.got():
            for a in (body or {}).get("alerts", []) if path == "/hook" else []:
                labels = a["labels"]
                if code in (None, labels["alertname"]) and status in (None, a["status"]):
                    found.append((labels["alertname"], a["status"], labels.get("db"),
                                  labels.get("place")))
        return found

    def beats(self):
        return [at for _, path, _, _, at in self.hooks.got() if path == "/beat"]

    def wait_told(self, daemon, code, status="firing", times=1, patience=60):
        try:
            wait_for(f"{code} {status}", lambda: len(self.alerts(code, status)) >= times, patience)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.alerts()}\n{daemon.log()}") from None

    def wait_sent(self, daemon):
        """Until all that is captured lies at the destination."""
        wait_for("the destination", lambda: asof(
            "wait", "trades.db", "--config", daemon.config, "--dest", "offsite", "--timeout",
            "20").returncode == 0, 120)

    def assert_once_each(self, *codes):
        """No incident was told twice, nor ended that had not begun; of these codes each thing had
        one incident.  (Of other codes it may have more: a slow machine is late again and again.)"""
        told = [(a["fingerprint"], a["labels"]["severity"], a["status"])
                for _, path, _, body, _ in self.hooks.got() if path == "/hook"
                for a in body["alerts"]]
        for one in set(told):
            self.assertEqual(told.count(one), 1, told)
            if one[2] == "resolved":
                self.assertIn((*one[:2], "firing"), told)
        told = [a for a in self.alerts() if a[0] in codes]
        self.assertEqual({a[0] for a in told}, set(codes))
        for one in set(told):
            self.assertEqual(told.count(one), 1, told)

    def test_frozen_daemon(self):
        """Told while it hangs, and nothing besides, of any database; the heartbeat stops, and goes on
        with it."""
        self.hooks.faults = ["500", "close"]
        daemon = self.run_daemon(f"webhook: {self.url('hook')}",
                                 f"heartbeat: {{url: '{self.url('beat')}', interval: 1s}}",
                                 hold="6s")
        wait_for("a heartbeat", lambda: len(self.beats()) >= 2, 60)
        self.assertEqual(self.alerts("daemon-silent"), [])
        daemon.process.send_signal(signal.SIGSTOP)
        self.wait_told(daemon, "daemon-silent")
        beats, told = len(self.beats()), self.alerts(status="firing")
        daemon.wait_check("database", ["capture-late"], patience=120)
        time.sleep(10)  # more than it would take to tell of that
        self.assertEqual(len(self.beats()), beats)
        self.assertEqual(self.alerts(status="firing"), told)
        daemon.process.send_signal(signal.SIGCONT)
        wait_for("heartbeats again", lambda: len(self.beats()) >= beats + 2, 60)
        self.wait_told(daemon, "daemon-silent", "resolved")
        self.assert_once_each("daemon-silent")
        self.assertEqual(daemon.stop(), 0)

    def test_archive_goes_away(self):
        """What nobody can restore from is told, also while the messages cannot be kept there."""
        daemon = self.run_daemon(hold="6s")
        daemon.wait_health()
        os.rename(self.archive, self.archive + ".gone")
        self.wait_told(daemon, "unreadable")
        os.rename(self.archive + ".gone", self.archive)
        self.wait_told(daemon, "unreadable", "resolved")
        self.assert_once_each("unreadable")
        # Of the archive alone, not of each database in it.
        self.assertEqual({a[2:] for a in self.alerts("unreadable")}, {(None, self.archive)})
        for secret in ("/hook",):
            self.assertNotIn(secret, daemon.log())

    def test_damage(self):
        """One byte of the only snapshot; told as soon as verification has met it."""
        daemon = self.run_daemon(db="    verify: {local: every 2s}\n")
        daemon.wait_health()
        commit(self.db)
        snapshots = wait_for("a snapshot", lambda: [
            os.path.join(d, n) for d, _, names in os.walk(self.archive) for n in names
            if "snapshot" in os.path.join(d, n) and os.path.getsize(os.path.join(d, n)) > 100])
        os.chmod(snapshots[0], 0o600)
        with open(snapshots[0], "r+b") as f:
            f.seek(60)
            byte = f.read(1)
            f.seek(60)
            f.write(bytes([byte[0] ^ 0xff]))
        wait_for("damage to be told", lambda: [a for a in self.alerts(status="firing") if a[0] in
                                               ("damaged", "not-restorable", "unreadable",
                                                "job-failed")], 90)
        self.assertNotIn("ok", [a[0] for a in self.alerts()])

    def test_destination_taken_away(self):
        second = self.path("second")
        os.mkdir(second)
        daemon = self.run_daemon(
            db=f"    destinations: [{{name: offsite, path: {second}}}]\n")
        self.wait_sent(daemon)
        before = len(self.alerts())
        os.rename(second, second + ".gone")
        with open(second, "w", encoding="utf-8"):
            pass  # a file where the folder was: it cannot be made anew
        commit(self.db)
        wait_for("the destination", lambda: [a for a in self.alerts()[before:] if
                                             a[1] == "firing" and a[3] == "offsite"], 60)
        before = len(self.alerts())
        os.unlink(second)
        os.rename(second + ".gone", second)
        try:
            wait_for("its return", lambda: [a for a in self.alerts()[before:] if
                                            a[1] == "resolved" and a[3] == "offsite"], 60)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.alerts()} {daemon.ask('/health').text} "
                                 f"{daemon.log()}") from None
        self.assert_once_each()

    def test_bucket_taken_away(self):
        """Nobody answers there, then somebody takes what is sent and says nothing; each is told, and
        over when all of it is there."""
        server = radosgw.RadosGateway(self.path("s3"))
        self.addCleanup(server.stop)
        server.start()
        server.make_bucket("trades")
        daemon = self.run_daemon(db=f"""\
    destinations:
      - {{name: offsite, type: s3, bucket: trades, path: asof, region: us-east-1,
         endpoint: 'http://127.0.0.1:{server.port}', access-key-id: {radosgw.ACCESS_KEY},
         secret-access-key: {radosgw.SECRET_KEY}}}
""")
        self.wait_sent(daemon)
        server.stop_gateway()
        commit(self.db)
        self.wait_told(daemon, "not-sending", patience=120)
        server.start_gateway()
        self.wait_told(daemon, "not-sending", "resolved", patience=120)
        pid = server.read_pid("client.rgw")
        os.kill(pid, signal.SIGSTOP)
        try:
            commit(self.db)
            self.wait_told(daemon, "not-sending", times=2, patience=120)
        finally:
            os.kill(pid, signal.SIGCONT)
        self.wait_told(daemon, "not-sending", "resolved", times=2, patience=120)
        self.wait_sent(daemon)
        self.assertEqual({a[2:] for a in self.alerts("not-sending")}, {("trades.db", "offsite")})
        self.assert_once_each()

    def test_another_writer(self):
        """It takes over at the destination: told at once, for nothing of ours goes there any more."""
        server = sshd.Sshd(self.path("ssh")).start()
        self.addCleanup(server.stop)
        place, other = self.path("place"), self.path("other")
        daemon = self.run_daemon(hold="30s", db=f"""\
    destinations:
      - {{name: offsite, type: sftp, host: '127.0.0.1:{server.port}', user: {getpass.getuser()},
         path: {place}, key-path: {server.path("user")}, host-key: '{server.text("host.pub")}'}}
""")
        self.wait_sent(daemon)
        os.mkdir(self.path("elsewhere"))
        db_path = self.path("elsewhere", "trades.db")
        run = asof("copy", place, other)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.restore("--latest", out=db_path, archive=other)
        db = self.open_db(db_path)
        second = self.replicate(place, "--adopt", "--take-over", db=db_path, archive=other)
        second.wait_known()  # (while it takes over it holds the archive's lock, then once more to capture)
        commit(db)
        run = asof("wait", "trades.db", "--archive", other, "--dest", place, "--timeout", "50")
        self.assertEqual(run.returncode, 0, run.stderr + second.log())
        commit(self.db)
        self.wait_told(daemon, "fenced", patience=120)
        self.assertEqual(self.alerts("fenced"), [("fenced", "firing", "trades.db", "offsite")])
        # Capture goes on.
        self.assertEqual(check_of(daemon.ask("/health").json, "database")["code"], "ok")

    def faketime(self, **env):
        library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
        if not os.path.exists(library):
            self.skipTest("no libfaketime here")
        options = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        return {"LD_PRELOAD": library, "ASAN_OPTIONS": options, **env}

    def test_clock_is_set(self):
        """While it runs: told, and capture goes on."""
        offset = self.path("offset")
        with open(offset, "w", encoding="ascii") as f:
            f.write("+0s\n")
        daemon = self.run_daemon(env=self.faketime(
            FAKETIME_TIMESTAMP_FILE=offset, FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1"))
        daemon.wait_health()
        self.assertEqual(self.alerts("clock"), [])
        with open(offset + ".new", "w", encoding="ascii") as f:
            f.write("+90s\n")
        os.rename(offset + ".new", offset)
        self.wait_told(daemon, "clock")
        self.assertEqual(self.alerts("clock"), [("clock", "firing", None, None)])
        line = check_of(daemon.ask("/health").json, "daemon")
        self.assertRegex(line["reason"], "the clock was set forward by (89|9[01]) s")
        commit(self.db)
        daemon.wait_health()

    def test_clock_went_back(self):
        """Commits are of an hour that is yet to come."""
        daemon = self.run_daemon()
        daemon.wait_health()
        commit(self.db)
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(self.alerts("clock"), [])
        daemon = self.run_daemon(env=self.faketime(FAKETIME="-3600s"))
        self.wait_told(daemon, "clock")
        self.assertEqual(self.alerts("clock"), [("clock", "firing", "trades.db", None)])

    def test_disk_that_stops(self):
        """Nothing can be made durable, what was told cannot be noted down: it is told all the same,
        once, and the heartbeat stops."""
        stopped = self.path("stopped")
        daemon = self.run_daemon(f"webhook: {self.url('hook')}",
                                 f"heartbeat: {{url: '{self.url('beat')}', interval: 1s}}",
                                 env=disk_that_stops(stopped))
        wait_for("a heartbeat", self.beats, 60)
        with open(stopped, "w", encoding="utf-8"):
            pass
        commit(self.db)
        self.wait_told(daemon, "capture-late", patience=120)
        beats = len(self.beats())
        time.sleep(5)
        self.assertEqual(len(self.beats()), beats)
        os.unlink(stopped)
        self.wait_told(daemon, "capture-late", "resolved", patience=120)
        wait_for("heartbeats again", lambda: len(self.beats()) > beats, 60)
        self.assert_once_each("capture-late")

    def test_restarts_neither_repeat_nor_forget(self):
        """Of the observer by SIGKILL, of the daemon by SIGTERM, of a configuration that changes."""
        daemon = self.run_daemon(path=self.path("absent.db"))
        self.wait_told(daemon, "not-capturing")
        wait_for("its being kept", lambda: os.path.exists(
            os.path.join(self.archive, "alerts.json")))
        time.sleep(1)
        pid = daemon.observer_pid()
        os.kill(pid, signal.SIGKILL)
        wait_for("another observer", lambda: daemon.observer_pid() not in (None, pid))
        daemon.wait_health(False)
        self.assertEqual(daemon.stop(), 0)
        daemon = self.run_daemon(f"webhook: {self.url('hook')}", "repeat: 3h",
                                 path=self.path("absent.db"))
        daemon.wait_health(False)
        time.sleep(5)
        self.assert_once_each("not-capturing")
        self.assertEqual(self.alerts("not-capturing", "resolved"), [])
        late = self.open_db(self.path("absent.db"))
        harness.make_counter(late)
        self.wait_told(daemon, "not-capturing", "resolved")
        self.assert_once_each("not-capturing")
        # To a place that is new it is news.
        daemon.write_config(f"archive: {self.archive}\ndbs: [{self.path('never.db')}]\n"
                            f"alerts: {{for: 1s, slack: '{self.url('slack')}'}}\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("Slack", lambda: [m for m in self.hooks.got() if m[1] == "/slack"], 60)

    def test_mail(self):
        mail = self.server(MailServer)
        mail.faults = ["refuse", "temporary", "close"]
        daemon = self.run_daemon(
            f"email: {{server: 127.0.0.1, port: {mail.port}, to: ops@example.com}}",
            path=self.path("absent.db"))
        wait_for("a mail", mail.got, 120)
        wait_for("a mail of that", lambda: any("absent.db" in m.get_content() for m in mail.got()), 120)
        letter = mail.got()[0]
        self.assertRegex(letter["Subject"], r"\[asof .*\] CRITICAL ")
        self.assertRegex(daemon.log(), r"warn alerts cannot be told.*channel=email: .*421")

    def test_full_disk(self):
        """A filesystem of 24 MB that fills up: told, and over when there is room again."""
        small = self.path("small")
        os.mkdir(small)
        if os.geteuid() != 0 or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small],
                check=False, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no right to mount a tmpfs")
        archive = os.path.join(small, "archive")
        os.mkdir(archive)
        daemon = self.run_daemon(archive=archive)
        daemon.wait_health()
        commit(self.db)
        ballast = os.open(os.path.join(small, "ballast"), os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(ballast, bytes(65536))
        os.close(ballast)
        commit(self.db)
        self.wait_told(daemon, "no-space")
        os.unlink(os.path.join(small, "ballast"))
        self.wait_told(daemon, "no-space", "resolved")
        self.assert_once_each("no-space")
        daemon.stop()


if __name__ == "__main__":
    harness.main(at_once=6)

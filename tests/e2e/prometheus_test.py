#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300
"""The rules for Prometheus and the routes for Alertmanager: by promtool and amtool, and alive."""

import contextlib
import os
import signal
import subprocess
import sys

import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import wait_for  # noqa: E402
from observed import Daemon, disk_that_stops, free_port  # noqa: E402
from prometheus import DEPLOY, Alertmanager, Prometheus, need  # noqa: E402
from receivers import HookServer  # noqa: E402

RULES = os.path.join(DEPLOY, "prometheus", "asof.rules.yml")

# Of an asof that is well, each minute from 0 (1970) on.
ME = 'job="asof",instance="host:8080"'
DB = f'{ME},db="/data/a.db"'
OTHER = f'{ME},db="/data/b.db"'
TO = f'{DB},destination="nas"'
IN = f'{ME},archive="/backups"'
ALWAYS = 1700
WELL = {
    f"up{{{ME}}}": "1",
    f"asof_healthy{{{ME}}}": "1",
    f"asof_daemon_up{{{ME}}}": "1",
    f"asof_facts_age_seconds{{{ME}}}": "1",
    f"asof_time_seconds{{{ME}}}": "0+60",
    f'asof_alerts_failing{{{ME},channel="email"}}': "0",
    f"asof_restorable{{{DB}}}": "1",
    f"asof_captured_age_seconds{{{DB}}}": "2",
    f"asof_capturing{{{DB}}}": "1",
    f"asof_sync_errors_total{{{DB}}}": "5",
    f"asof_gaps{{{DB}}}": "3",
    f"asof_last_commit_timestamp_seconds{{{DB}}}": "0+60",
    f"asof_verified_age_seconds{{{DB}}}": "3700",
    f"asof_verified_full_age_seconds{{{DB}}}": "90000",
    f"asof_damaged_objects{{{DB}}}": "0",
    f"asof_integrity_ok{{{DB}}}": "1",
    f"asof_replicated_age_seconds{{{TO}}}": "2",
    f"asof_destination_configured{{{TO}}}": "1",
    f"asof_destination_verified_age_seconds{{{TO}}}": "20000",
    f"asof_destination_damaged_objects{{{TO}}}": "0",
    f"asof_archive_readable{{{IN}}}": "1",
    f"asof_archive_free_bytes{{{IN}}}": "100000000000",
    f"asof_archive_reserve_bytes{{{IN}}}": "2000000000",
    f"asof_archive_until_full_seconds{{{IN}}}": "+Inf",
    f'asof_job_last_run_ok{{{DB},task="backup nightly"}}': "1",
    f'asof_job_last_run_ok{{{DB},task="verify"}}': "1",
    f'asof_job_last_run_ok{{{DB},task="retain"}}': "1",
    f'asof_job_next_timestamp_seconds{{{DB},task="backup nightly"}}': "3600+60",
    f'asof_backup_last_success_timestamp_seconds{{{DB},type="automated"}}': "-3600+60",
    f'asof_destination_backup_last_success_timestamp_seconds{{{TO},type="automated"}}': "-3600+60",
    f"asof_destination_backups_waiting_age_seconds{{{TO}}}": "0",
}
NEVER = "_"  # no sample

# Alert: what goes wrong after ten minutes (or at another one), what has not fired yet some minutes
# later, and when it has.
WRONG = {
    "AsofAbsent": ({f"up{{{ME}}}": NEVER}, 8, 16),
    "AsofDown": ({f"up{{{ME}}}": "0"}, 0, 2),
    "AsofDaemonSilent": ({f"asof_daemon_up{{{ME}}}": "0"}, 0, 2),
    "AsofFactsStale": ({f"asof_facts_age_seconds{{{ME}}}": "+Inf"}, 0, 2),
    "AsofUnhealthy": ({f"asof_healthy{{{ME}}}": "0"}, 1, 4),
    "AsofNotRestorable": ({f"asof_restorable{{{DB}}}": "0"}, 0, 3),
    "AsofCaptureStale": ({f"asof_captured_age_seconds{{{DB}}}": "+Inf"}, 0, 2),
    "AsofNotCapturing": ({f"asof_capturing{{{DB}}}": "0"}, 4, 7),
    "AsofSyncErrors": ({f"asof_sync_errors_total{{{DB}}}": "6"}, -1, 2),
    "AsofGap": ({f"asof_gaps{{{DB}}}": "4"}, -1, 1),
    "AsofReplicationStale": ({f"asof_replicated_age_seconds{{{TO}}}": "+Inf"}, 0, 3),
    "AsofDestinationNotConfigured": ({f"asof_destination_configured{{{TO}}}": "0",
                                      f"asof_replicated_age_seconds{{{TO}}}": "+Inf"}, 50, 70),
    "AsofVerificationStale": ({f"asof_destination_verified_age_seconds{{{TO}}}": "90000"}, 4, 7),
    "AsofFullVerificationStale": ({f"asof_verified_full_age_seconds{{{DB}}}": "270000"}, 4, 7),
    "AsofVerificationFailed": ({f'asof_job_last_run_ok{{{DB},task="verify"}}': "0"}, -1, 1),
    "AsofDamaged": ({f"asof_damaged_objects{{{DB}}}": "1"}, -1, 1),
    "AsofIntegrity": ({f"asof_integrity_ok{{{DB}}}": "0"}, -1, 1),
    "AsofArchiveUnreadable": ({f"asof_archive_readable{{{IN}}}": "0"}, 0, 3),
    "AsofArchiveFull": ({f"asof_archive_free_bytes{{{IN}}}": "1999999999"}, 0, 3),
    "AsofArchiveSpaceLow": ({f"asof_archive_free_bytes{{{IN}}}": "3000000000"}, 4, 7),
    "AsofArchiveFullSoon": ({f"asof_archive_until_full_seconds{{{IN}}}": "500000"}, 25, 42),
    "AsofBackupFailed": ({f'asof_job_last_run_ok{{{DB},task="backup nightly"}}': "0"}, -1, 1),
    "AsofBackupMissing": (
        {f'asof_backup_last_success_timestamp_seconds{{{DB},type="automated"}}': "-3600"},
        60 * 25 - 15, 60 * 25 + 10),
    "AsofBackupNever": (
        {f'asof_backup_last_success_timestamp_seconds{{{DB},type="automated"}}': NEVER},
        60 * 25, 60 * 26 + 30),
    "AsofDestinationBackupMissing": (
        {f'asof_destination_backup_last_success_timestamp_seconds{{{TO},type="automated"}}': "-3600"},
        60 * 25 - 15, 60 * 25 + 10),
    "AsofDestinationBackupWaiting": (
        {f"asof_destination_backups_waiting_age_seconds{{{TO}}}": "21601"}, 4, 7),
    "AsofJobOverdue": (
        {f'asof_job_next_timestamp_seconds{{{DB},task="backup nightly"}}': "3600"},
        60 * 6 + 30, 60 * 7 + 10),
    "AsofJobFailed": ({f'asof_job_last_run_ok{{{DB},task="retain"}}': "0"}, 20, 35),
    "AsofClockWrong": ({f"asof_time_seconds{{{ME}}}": "2+60",
                        f"asof_last_commit_timestamp_seconds{{{DB}}}": "2+60"}, 3, 12),
    "AsofAlertsNotDelivered": ({f'asof_alerts_failing{{{ME},channel="email"}}': "1"}, 10, 30),
}
# The other halves of those that look at two things.
HALVES = [
    ("AsofVerificationStale", {f"asof_verified_age_seconds{{{DB}}}": "15000"}, 4, 7),
    ("AsofDamaged", {f"asof_destination_damaged_objects{{{TO}}}": "2"}, -1, 1),
    ("AsofClockWrong", {f"asof_last_commit_timestamp_seconds{{{DB}}}": "100+60"}, 0, 4),
]
# A database without a file, which may never come.
WAITING = {f"asof_waiting{{{OTHER}}}": "1", f"asof_capturing{{{OTHER}}}": "0", f"asof_restorable{{{OTHER}}}": "0",
           f"asof_captured_age_seconds{{{OTHER}}}": "+Inf", f"asof_verified_age_seconds{{{OTHER}}}": "+Inf",
           f"asof_verified_full_age_seconds{{{OTHER}}}": "+Inf", f"asof_gaps{{{OTHER}}}": NEVER,
           f'asof_replicated_age_seconds{{{OTHER},destination="far"}}': "+Inf",
           f'asof_destination_configured{{{OTHER},destination="far"}}': "1",
           f'asof_destination_verified_age_seconds{{{OTHER},destination="far"}}': "+Inf",
           f'asof_job_next_timestamp_seconds{{{OTHER},task="backup nightly"}}': "3600+60"}
# What comes with it, rightly.
ALSO = {"AsofArchiveFull": {"AsofArchiveSpaceLow"}}
BEGIN = 10  # minutes
# What is rightly told, with a `for` of a second, of an asof on a machine that is very slow.
SLOW = {"AsofDown", "AsofDaemonSilent", "AsofFactsStale", "AsofUnhealthy", "AsofCaptureStale",
        "AsofNotCapturing"}


def series(name, value, from_minute=None, bad=None):
    """promtool's notation: a value, or A+B for one that rises, from a minute on another one."""
    def part(v, first, n):
        if v == NEVER:
            return f"_x{n}"
        start, _, step = v.partition("+") if not v.startswith("+") else (v, "", "")
        if step:
            start = str(int(start) + int(step) * first)
        return f"{start}+{step or 0}x{n - 1}"
    if bad is None:
        return {"series": name, "values": part(value, 0, ALWAYS)}
    rest = part(bad, from_minute, ALWAYS - from_minute)
    return {"series": name, "values": f"{part(value, 0, from_minute)} {rest}"}


def question(minute, alerts):
    """The names of the alerts that fire then, and no other."""
    return {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f'{{alertname="{a}"}}', "value": 1} for a in sorted(alerts)]}


class Rules(harness.Case):
    def setUp(self):
        super().setUp()
        need("promtool")

    def run_tool(self, *args):
        run = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             timeout=120, check=False)
        self.assertEqual(run.returncode, 0, run.stdout)
        return run.stdout

    def alerts(self):
        with open(RULES, encoding="utf-8") as f:
            return [rule for group in yaml.safe_load(f)["groups"] for rule in group["rules"]]

    def promtool(self, tests):
        file = self.path("test.yml")
        with open(file, "w", encoding="utf-8") as f:
            yaml.safe_dump({"rule_files": [RULES], "evaluation_interval": "1m", "tests": tests}, f,
                           default_flow_style=False)
        self.run_tool("promtool", "test", "rules", file)

    def test_files_are_valid(self):
        self.run_tool("promtool", "check", "rules", RULES)
        self.run_tool("promtool", "check", "config",
                      os.path.join(DEPLOY, "prometheus", "prometheus.yml"))
        need("amtool")
        self.run_tool("amtool", "check-config",
                      os.path.join(DEPLOY, "alertmanager", "alertmanager.yml"))

    def test_every_rule_says_what_and_how_bad(self):
        for rule in self.alerts():
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])
        self.assertEqual(sorted(r["alert"] for r in self.alerts()), sorted(WRONG))

    def test_all_is_well(self):
        self.promtool([{"interval": "1m", "input_series": [series(n, v) for n, v in {**WELL, **WAITING}.items()],
                        "promql_expr_test": [question(m, ()) for m in (1, 10, 60, 600, 1690)]}])

    def test_each_fires_when_it_should(self):
        """Not before its time, and alone."""
        tests = []
        for alert, bad, quiet, fires in [(a, *w) for a, w in WRONG.items()] + HALVES:
            also = ALSO.get(alert, set())
            asked = [question(BEGIN + quiet, ())]
            if not also:
                asked.append(question(BEGIN + fires, {alert}))
            else:
                asked.append(question(BEGIN + fires + 10, {alert} | also))
            tests.append({"interval": "1m", "name": alert, "promql_expr_test": asked,
                          "input_series": [series(n, v, BEGIN, bad.get(n)) for n, v in WELL.items()]})
        self.promtool(tests)

    def test_routes(self):
        """Critical ones go to the webhook and by mail, warnings by mail."""
        need("amtool")
        config = os.path.join(DEPLOY, "alertmanager", "alertmanager.yml")
        for severity, want in (("critical", "webhook,mail"), ("warning", "mail")):
            out = self.run_tool("amtool", "config", "routes", "test", f"--config.file={config}",
                                f"severity={severity}", "alertname=AsofDamaged")
            self.assertEqual(out.splitlines()[-1], want, out)


class Site:
    """An asof of its own: a database, an archive, HTTP at a port of loopback."""

    def __init__(self, case, name, more="", archive=None, env=None):
        self.name = name
        self.dir = case.path(name)
        os.mkdir(self.dir)
        self.archive = archive or os.path.join(self.dir, "archive")
        os.mkdir(self.archive)
        self.db = case.open_db(os.path.join(self.dir, "a.db"))
        harness.make_counter(self.db)
        self.instance = f"127.0.0.1:{free_port()}"
        sub = Sub(case, self.dir)
        self.daemon = Daemon(sub, f"archive: {self.archive}\nbackups: {{schedules: []}}\n"
                                  f"dbs:\n  - path: {self.dir}/a.db\n{more}", self.instance, env)


class Sub:
    """A case, in a folder below."""

    def __init__(self, case, folder):
        self.dir, self.addCleanup = folder, case.addCleanup

    def path(self, *parts):
        return os.path.join(self.dir, *parts)


def mount_tmpfs(folder, size):
    return os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False,
        stderr=subprocess.DEVNULL).returncode == 0


class Traps(harness.Case):
    """Nothing says healthy while nothing restorable is stored: every trap is sprung on an asof of its
    own, at once, below one Prometheus, and each alert arrives at the webhook, and its end."""

    def setUp(self):
        super().setUp()
        need("prometheus", "prometheus-alertmanager")
        self.hooks = HookServer()
        self.addCleanup(self.hooks.close)
        self.sites, self.undo = {}, []

    def site(self, name, *args, **kw):
        self.sites[name] = Site(self, name, *args, **kw)
        return self.sites[name]

    def told(self, status):
        return {(a["labels"]["alertname"], a["labels"].get("instance"))
                for _, path, _, body, _ in self.hooks.got() for a in body["alerts"]
                if a["status"] == status and path.endswith("/webhook")}

    def damage(self, site):
        """A byte in the middle of every snapshot."""
        for folder, _, names in os.walk(site.archive):
            for name in names:
                path = os.path.join(folder, name)
                if "snapshot" in path and os.path.getsize(path) > 100:
                    os.chmod(path, 0o600)
                    with open(path, "r+b") as f:
                        f.seek(60)
                        byte = f.read(1)
                        f.seek(60)
                        f.write(bytes([byte[0] ^ 0xff]))

    def spring(self):
        """Alert by site; what mends it is in self.undo."""
        sites, want = self.sites, {}
        sites["frozen"].daemon.process.send_signal(signal.SIGSTOP)
        self.undo.append(lambda: sites["frozen"].daemon.process.send_signal(signal.SIGCONT))
        want["frozen"] = "AsofDaemonSilent"
        sites["killed"].daemon.process.kill()
        want["killed"] = "AsofDown"
        archive = sites["away"].archive
        os.rename(archive, archive + ".gone")
        self.undo.append(lambda: os.rename(archive + ".gone", archive))
        want["away"] = "AsofArchiveUnreadable"
        second = os.path.join(sites["offsite"].dir, "second")
        os.rename(second, second + ".gone")
        with open(second, "w", encoding="utf-8"):
            pass
        harness.commit(sites["offsite"].db)

        def return_second():
            os.unlink(second)
            os.rename(second + ".gone", second)
            harness.commit(sites["offsite"].db)
        self.undo.append(return_second)
        want["offsite"] = "AsofReplicationStale"
        self.damage(sites["damaged"])
        want["damaged"] = "AsofDamaged"
        stop = self.path("stop")
        with open(stop, "w", encoding="utf-8"):
            pass
        harness.commit(sites["stopped"].db)
        self.undo.append(lambda: os.unlink(stop))
        want["stopped"] = "AsofCaptureStale"
        if "full" in sites:
            self.fill(os.path.join(sites["full"].dir, "..", "small", "ballast"))
            want["full"] = "AsofArchiveFull"
        return want

    def fill(self, path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, bytes(65536))
        os.close(fd)
        self.undo.append(lambda: os.unlink(path))

    def make_sites(self):
        for name in ("frozen", "killed", "away"):
            self.site(name)
        second = self.path("offsite", "second")
        self.site("offsite", f"    destinations: [{{name: second, path: {second}}}]\n")
        self.site("damaged", "    verify: {local: every 2s, full: every 2s}\n")
        os.mkdir(self.path("small"))
        if mount_tmpfs(self.path("small"), "24m"):
            self.site("full", archive=self.path("small", "archive"))
        self.site("stopped", env=disk_that_stops(self.path("stop")))
        self.site("well")

    def test_each_is_told(self):
        self.make_sites()
        for site in self.sites.values():
            site.daemon.wait_health(patience=120)
        self.sites["offsite"].daemon.wait_check("destination", ["ok"], "second", 120)
        alertmanager = Alertmanager(self, f"http://127.0.0.1:{self.hooks.port}")
        server = Prometheus(self, [s.instance for s in self.sites.values()], alertmanager)
        # Two scrapes with nothing wrong, or no more: a slow machine is late at first.
        wait_for("scrapes", lambda: len(server.query(
            "asof_healthy == 1 and count_over_time(asof_healthy[1m]) >= 2")) == len(self.sites), 150)
        wait_for("quiet", lambda: not server.firing(), 150)
        want = {(alert, self.sites[name].instance) for name, alert in self.spring().items()}
        try:
            wait_for("the alerts", lambda: want <= self.told("firing"), 300)
            for undo in self.undo:
                undo()
            # What was damaged stays so, and who was killed stays dead.
            over = {w for w in want if w[0] not in ("AsofDamaged", "AsofDown")}
            wait_for("their end", lambda: over <= self.told("resolved"), 300)
        except AssertionError as e:
            names = {s.instance: n for n, s in self.sites.items()}
            shown = sorted((a, names.get(i)) for a, i in self.told("firing"))
            over = sorted((a, names.get(i)) for a, i in self.told("resolved"))
            raise AssertionError(f"{e}\nwanted {want}\ntold {shown}\nover {over}") from None
        well = self.sites["well"].instance
        told = {alert for alert, instance in self.told("firing") if instance == well}
        self.assertEqual(told - SLOW, set())


if __name__ == "__main__":
    harness.main(at_once=6)

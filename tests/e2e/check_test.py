#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""asof check, and how every command finds its configuration, its archive, its variables."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import s3_fake  # noqa: E402
from harness import ROOT, asof  # noqa: E402

OLD = os.path.join(ROOT, "tests", "data", "old-system")
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"


class CheckCase(harness.Case):
    def write(self, name, text):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def make_db(self, name, mode="WAL"):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA journal_mode = {mode}")
            db.execute("CREATE TABLE t (x)")
            db.execute("INSERT INTO t VALUES (1)")
            db.commit()
            # The last close of a WAL database takes the -wal away; the mode stays.
        return path

    def check(self, config, *options, **kw):
        return asof("check", "--config", config, *options, **kw)

    def check_json(self, config, status=0, **kw):
        run = self.check(config, "--json", **kw)
        self.assertEqual(run.returncode, status, run.stderr)
        return json.loads(run.stdout)


MANY_ERRORS = """\
archive: ARCHIVE
timezone: Mars/Olympus
retention: 72
dbs:
  - path: /d/x.db
    strict: perhaps
    replicas:
      - type: gcs
        bucket: b
      - type: file
        path: /b
        age: {recipients: [age1xyz]}
  - pattern: '*'
  - path: /e/x.db
  - path: /d/../d/y.db
    replcas: [{path: /c}]
backups:
  schedules:
    - 0 25 * * *
    - name: weekly
      schedule: "@weekly"
      level: 99
"""
WANT_ERRORS = {
    2: "timezone: 'Mars/Olympus'",
    3: "retention: '72'",
    6: "strict: 'perhaps'",
    8: "type: asof has no destinations of type gcs",
    12: "age: asof has no such encryption",
    13: "path: missing",
    14: "both called 'x.db'",
    16: "replcas: not known in dbs (did you mean replicas?)",
    19: "hour '25'",
    22: "level: 99",
}


class Errors(CheckCase):
    def test_all_at_once_by_line(self):
        config = self.write("asof.yml", MANY_ERRORS)
        run = self.check(config)
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        lines = run.stderr.splitlines()
        self.assertEqual(lines[-1], f"asof: configuration '{config}': {len(WANT_ERRORS)} errors "
                                    "(asof check lists them)")
        found = {}
        for line in lines[:-1]:
            m = re.fullmatch(re.escape(config) + r":(\d+): (.*)", line)
            self.assertTrue(m, line)
            found[int(m.group(1))] = m.group(2)
        self.assertEqual(sorted(found), sorted(WANT_ERRORS))
        self.assertEqual(list(found), sorted(found))
        for line, words in WANT_ERRORS.items():
            self.assertIn(words, found[line])

    def test_the_same_as_json(self):
        config = self.write("asof.yml", MANY_ERRORS)
        report = self.check_json(config, 2)
        self.assertEqual([e["line"] for e in report["errors"]], sorted(WANT_ERRORS))
        self.assertEqual({e["file"] for e in report["errors"]}, {config})
        for error in report["errors"]:
            self.assertIn(WANT_ERRORS[error["line"]], error["message"])
        self.assertEqual(report["databases"], [])

    def test_other_commands_print_them_too(self):
        config = self.write("asof.yml", "archive: [x\n")
        run = asof("list", "--config", config)
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        self.assertRegex(run.stderr, r"\A\S+/asof.yml:1: no YAML: [^\n]+\nasof: [^\n]+\n\Z")

    def test_variables(self):
        config = self.write("asof.yml", f"archive: {self.archive}\ndbs: [{self.db_path}]\n")
        env = self.write(".env.backup", "BACKUP_SCHEDULE=61 * * * *\nOOPS\n")
        run = self.check(config)
        self.assertEqual(run.returncode, 2)
        self.assertIn(f"{env}:1: BACKUP_SCHEDULE: minute '61'", run.stderr)
        self.assertIn(f"{env}:2: no KEY=VALUE", run.stderr)

    def test_no_file(self):
        self.assert_fails(self.check(self.path("none.yml")), 2, "none.yml", "no such file")
        self.assert_fails(self.check(self.dir), 2, "no regular file")
        self.assert_fails(asof("check", cwd=self.dir), 2, "--config")

    def test_secrets_are_not_told(self):
        config = self.write("asof.yml", f"""\
archive: {self.archive}
http: {{listen: 0.0.0.0:80, password: s3cr3t-word}}
alerts: {{slack: {{webhook: https://h/s3cr3t-hook}}}}
dbs:
  - path: {self.db_path}
    replicas: [{{url: s3://b/p, access-key-id: a, secret-access-key: s3cr3t-key}}]
""")
        for options in ([], ["--json"]):
            run = self.check(config, *options)
            self.assertEqual(run.returncode, 2)
            self.assertNotIn("s3cr3t", run.stdout + run.stderr)


class TriedOut(CheckCase):
    def config(self, *paths, more=""):
        dbs = "".join(f"  - path: {p}\n" for p in paths)
        return self.write("asof.yml", f"archive: {self.archive}\n{more}dbs:\n{dbs}")

    def test_all_well(self):
        config = self.config(self.make_db("data/a.db"), self.path("data/later.db"))
        run = self.check(config)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertRegex(run.stdout, r"\na\.db +\S+/data/a\.db +\d\S* \S+ +readable, in WAL mode\n")
        self.assertRegex(run.stdout, r"\nlater\.db .*waited for\n")
        self.assertRegex(run.stdout, rf"\nverify full +02:00 +{MOMENT}\n")
        report = self.check_json(config)
        self.assertEqual([d["state"] for d in report["databases"]], ["ok", "waiting"])
        self.assertEqual([a["state"] for a in report["archives"]], ["ok"])
        self.assertGreater(report["archives"][0]["free_bytes"], 0)
        self.assertFalse(os.path.exists(self.archive))  # nothing is made

    def test_archive_is_left_as_it_was(self):
        os.mkdir(self.archive)
        config = self.config(self.make_db("data/a.db"))
        self.assertEqual(self.check(config).returncode, 0)
        self.assertEqual(os.listdir(self.archive), [])

    def test_live_database_keeps_its_locks(self):
        """Looking at it disturbs nobody: a transaction that is open goes on, and no other begins."""
        path = self.make_db("data/a.db")
        config = self.config(path)
        db = self.open_db(path)
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES (2)")
        self.assertEqual(self.check_json(config)["databases"][0]["state"], "ok")
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        self.addCleanup(other.close)
        with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
            other.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone()[0], 2)

    def test_problems(self):
        no_db = self.write("data/no.db", "this is no database at all, but some text\n" * 100)
        config = self.config(self.make_db("data/rollback.db", "DELETE"), no_db)
        run = self.check(config)
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stderr, "asof: check: 2 problems (see above)\n")
        self.assertRegex(run.stdout, r"\nrollback\.db .*PROBLEM: .*rollback-journal mode")
        self.assertRegex(run.stdout, r"\nno\.db .*PROBLEM: ")
        states = [d["state"] for d in self.check_json(config, 1)["databases"]]
        self.assertEqual(states, ["problem", "problem"])

    def test_rollback_mode_may_be_converted(self):
        path = self.make_db("data/rollback.db", "DELETE")
        config = self.write("asof.yml", f"archive: {self.archive}\n"
                                        f"dbs: [{{path: {path}, enable-wal: true}}]\n")
        self.assertEqual(self.check(config).returncode, 0)
        with contextlib.closing(sqlite3.connect(path)) as db:
            self.assertEqual(db.execute("PRAGMA journal_mode").fetchone()[0], "delete")

    def test_archive_is_a_file(self):
        self.write("archive", "x")
        report = self.check_json(self.config(self.make_db("data/a.db")), 1)
        self.assertIn("no folder", report["archives"][0]["message"])

    @unittest.skipIf(os.geteuid() == 0, "root writes everywhere")
    def test_archive_cannot_be_written(self):
        os.mkdir(self.archive, 0o500)
        report = self.check_json(self.config(self.make_db("data/a.db")), 1)
        self.assertEqual(report["archives"][0]["state"], "problem")

    def test_too_little_space(self):
        config = self.config(self.make_db("data/a.db"), more="retention: {min-free: 8E}\n")
        report = self.check_json(config, 1)
        self.assertIn("min-free", report["archives"][0]["message"])

    def test_folder(self):
        for name in ("many/a.db", "many/b.db", "many/sub/c.db"):
            self.make_db(name)
        config = self.write("asof.yml", f"""\
archive: {self.archive}
dbs:
  - {{dir: many, recursive: true}}
  - {{dir: not-there}}
""")
        names = [d["database"] for d in self.check_json(config)["databases"]]
        self.assertEqual(names, ["a.db", "b.db", "sub-c.db", "*.db"])

    def test_destinations(self):
        config = self.write("asof.yml", f"""\
archive: {self.archive}
dbs:
  - path: {self.make_db("data/a.db")}
    destinations:
      - {{path: nas}}
      - {{url: "s3://bucket/a b"}}
""")
        rows = self.check_json(config, env={"AWS_ACCESS_KEY_ID": ""})["destinations"]
        self.assertEqual([(r["destination"], r["configured"]) for r in rows],
                         [("file", True), ("s3", False)])
        self.assertEqual(rows[0]["path"], self.path("nas"))
        self.assertIn("without credentials", rows[1]["message"])
        self.assertEqual([r["trial"] for r in rows], [[], []])
        self.assertFalse(os.path.exists(self.path("nas")))
        os.mkdir(self.path("nas"))
        rows = self.check_json(config, env={"AWS_ACCESS_KEY_ID": ""})["destinations"]
        self.assertEqual([r["tried"] for r in rows[0]["trial"]],
                         ["write", "read", "list", "conditional write", "delete", "clock"])
        self.assertEqual({r["state"] for r in rows[0]["trial"]}, {"ok"})
        self.assertEqual(os.listdir(self.path("nas")), [])
        run = self.check(config, env={"AWS_ACCESS_KEY_ID": ""})
        self.assertRegex(run.stdout, r"\nconditional write +ok +works\n")
        self.assertEqual(rows[1]["path"], "s3://bucket/a%20b")

    def test_bucket_of_backups(self):
        """Named, though no database has it: what it lacks, in a line, or how it answers; where every
        database has a destination in it nothing is said of it."""
        self.make_db("x.db")
        head = f"archive: {self.path('a')}\ndbs:\n- path: {self.path('x.db')}\n"
        config = self.write("asof.yml", head)
        bare = {"HOME": self.dir, "AWS_EC2_METADATA_DISABLED": "true", "BACKUP_S3_BUCKET": "bucket/far"}
        run = self.check(config, env=bare)
        self.assertEqual(run.returncode, 0, run.stderr)
        line, = [line for line in run.stdout.splitlines() if "BACKUP_S3_BUCKET" in line]
        self.assertRegex(line, r"^\(backups\) +backup-bucket +s3://bucket/far\S* +not configured, no backup "
                               r"goes there: BACKUP_S3_BUCKET names a bucket without credentials \(set ")
        row, = self.check_json(config, env=bare)["destinations"]
        self.assertEqual((row["database"], row["destination"], row["configured"], row["state"]),
                         (None, "backup-bucket", False, "waiting"))
        run = self.check(config, env={**bare, "BACKUP_S3_BUCKET": "/far"})
        self.assertIn("BACKUP_S3_BUCKET names no bucket", run.stdout)
        server = s3_fake.Fake({"K": s3_fake.Key("secret")})
        self.addCleanup(server.stop)
        keys = {**bare, "AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}
        row, = self.check_json(config, env=keys)["destinations"]
        self.assertEqual((row["configured"], row["state"]), (True, "ok"))
        self.assertTrue(server.seen())
        self.assertEqual(server.objects, {})
        row, = self.check_json(config, status=1, env={**keys, "AWS_SECRET_ACCESS_KEY": "wrong"})["destinations"]
        self.assertEqual((row["destination"], row["state"]), ("backup-bucket", "problem"))
        config = self.write("asof.yml", head + "  destinations: ['s3://bucket/history']\n")
        self.assertEqual([d["destination"] for d in self.check_json(config, env=keys)["destinations"]], ["s3"])

    def test_next_runs(self):
        config = self.config(self.make_db("data/a.db"), more="""\
timezone: Asia/Tokyo
backups: {schedules: [{name: night, at: "02:00"}, {name: six, every: 6h}]}
""")
        report = self.check_json(config)
        plans = {p["name"]: p["next"] for p in report["schedules"]}
        self.assertEqual(report["timezone"], "Asia/Tokyo")
        self.assertRegex(plans["backup night"], r"T17:00:00Z$")
        self.assertRegex(plans["backup six"], r"T(00|06|12|18):00:00Z$")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for moment in plans.values():
            self.assertGreater(moment, now)


class OldSystem(CheckCase):
    """The files that the old system shipped, as they are."""

    def setUp(self):
        super().setUp()
        shutil.copytree(OLD, self.path("project"))

    def test_both_files(self):
        run = asof("check", "--config", "config/litestream.yml", cwd=self.path("project"))
        self.assertEqual(run.returncode, 0, run.stderr)
        # One warning of each file, and one for the addresses.
        self.assertEqual(len(run.stderr.splitlines()), 3, run.stderr)
        self.assertRegex(run.stderr, r"config/litestream\.yml: warning: .*wal-checkpoint")
        unused, = re.findall(r"^\.env\.backup: warning: (.*)$", run.stderr, re.M)
        for word in ("GRAFANA_PASSWORD", "HOST_IP", "MAX_BACKUP_SIZE"):
            self.assertIn(word, unused)
        self.assertRegex(run.stdout, r"email +smtp\.example\.com:587, TLS required, password, to "
                                     r"admin@example\.com, ops@example\.com +not tried")
        self.assertRegex(run.stdout, r"slack +hooks\.slack\.example +not tried")
        self.assertRegex(run.stdout, r"futures_trades\.db .*waited for")
        self.assertRegex(run.stdout, r"ohlc_cache\.db .*not configured")
        self.assertRegex(run.stdout, r"backup automated +0 2 \* \* \* ")

    def test_found_by_its_variable(self):
        """LITESTREAM_CONFIG of .env.backup, from the project's folder."""
        report = json.loads(asof("check", "--json", cwd=self.path("project")).stdout)
        self.assertEqual(report["configuration"], self.path("project/config/litestream.yml"))

    def test_path_of_the_container_on_the_host(self):
        """/data/backups does not exist on the host, BACKUP_DIR does."""
        db = self.open_db()
        harness.make_counter(db)
        r = self.replicate(archive=self.path("project/backups"))
        r.wait_ready()
        run = asof("list", "--json", cwd=self.path("project"))
        if os.path.exists("/data/backups"):
            self.skipTest("this machine has /data/backups")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(json.loads(run.stdout)["archive"], self.path("project/backups"))


    def test_database_of_the_container_on_the_host(self):
        """/data/db is not on the host, DATA_DIR is: what acts once takes the file of that name there."""
        if os.path.exists("/data/db"):
            self.skipTest("this machine has /data/db")
        os.makedirs(self.path("project/data/db"))
        path = self.path("project/data/db/futures_trades.db")
        harness.make_counter(self.open_db(path))
        run = asof("backup", cwd=self.path("project"))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("matched by name", run.stdout)
        self.assertIn(f"backed up {path} to {self.path('project/backups/manual')}/", run.stdout)
        run = asof("check", cwd=self.path("project"))
        self.assertRegex(run.stdout, rf"a container's path\? There is {re.escape(path)}")


class Finding(CheckCase):
    """--archive, then $ASOF_ARCHIVE, then the configuration; --config itself before the second."""

    def setUp(self):
        super().setUp()
        for name in ("one", "two", "three"):
            os.makedirs(self.path(name, "local"))

    def archive_of(self, *options, env=None, cwd=None):
        run = asof("list", "--json", *options, env=env, cwd=cwd or self.dir)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)["archive"]

    def test_order(self):
        self.write("asof.yml", "archive: one\n")
        other = self.write("other.yml", "archive: two\n")
        environment = {"ASOF_ARCHIVE": self.path("three")}
        self.assertEqual(self.archive_of(), self.path("one"))
        self.assertEqual(self.archive_of("--config", other), self.path("two"))
        self.assertEqual(self.archive_of(env=environment), self.path("three"))
        self.assertEqual(self.archive_of("--config", other, env=environment), self.path("two"))
        self.assertEqual(self.archive_of("--archive", self.path("one"), "--config", other,
                                         env=environment), self.path("one"))
        self.assertEqual(self.archive_of(env={"ASOF_ARCHIVE": ""}), self.path("one"))

    def test_env_file(self):
        config = self.write("asof.yml", "archive: ${WHERE:-one}\n")
        env = self.write("my.env", "WHERE=two\n")
        self.assertEqual(self.archive_of("--config", config), self.path("one"))
        self.assertEqual(self.archive_of("--config", config, "--env-file", env), self.path("two"))
        self.assertEqual(self.archive_of("--config", config, env={"WHERE": "three"}),
                         self.path("three"))
        run = asof("list", "--config", config, "--env-file", self.path("none"))
        self.assertEqual(run.returncode, 2)
        self.assertIn("none", run.stderr)

    def test_several_archives(self):
        config = self.write("asof.yml", "dbs:\n"
                                        "- {path: a.db, archive: one}\n"
                                        "- {path: b.db, archive: two}\n")
        self.assert_fails(asof("list", "--config", config), 2, "which archive", "one", "two")
        run = asof("status", "b.db", "--config", config)
        self.assertEqual(run.returncode, 3)
        self.assertIn(self.path("two"), run.stderr)

    def test_nothing_named(self):
        self.assert_fails(asof("list", cwd=self.dir), 2, "ASOF_ARCHIVE", "asof.yml")
        config = self.write("asof.yml", "exec: x\n")
        self.assert_fails(asof("list", "--config", config), 2, "names no archive")


class Zones(CheckCase):
    def test_times_without_a_zone(self):
        """They are of the configuration's zone; all others need no configuration at all."""
        db = self.open_db()
        harness.make_counter(db)
        r = self.replicate()
        r.wait_ready()
        harness.commit(db)
        r.wait_known()
        r.stop()
        config = self.write("asof.yml", f"archive: {self.archive}\ntimezone: Asia/Tokyo\n")
        ahead = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 9 * 3600 - 3600))
        behind = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 9 * 3600 + 600))

        def commits(since, *options):
            run = asof("log", "--since", since, *options)
            self.assertIn(run.returncode, (0, 3), run.stderr)
            return 0 if run.returncode else len(run.stdout.splitlines()) - 1
        self.assertGreater(commits(ahead, "--config", config), 0)
        self.assertEqual(commits(behind, "--config", config), 0)
        self.assertEqual(commits(ahead, "--archive", self.archive), 0)  # UTC
        broken = self.write("broken.yml", "archive: [\n")
        options = ("--archive", self.archive, "--config", broken)
        self.assertGreater(commits("-1h", *options), 0)
        self.assertGreater(commits("2024-01-01T00:00:00Z", *options), 0)
        run = asof("log", "--since", "2024-01-01 00:00", *options)
        self.assertEqual(run.returncode, 2)


class Documented(CheckCase):
    def test_example_configuration(self):
        example = os.path.join(ROOT, "tools", "deploy", "asof.yml")
        run = self.check(example, "--env-file", self.write("e", f"BACKUP_DIR={self.archive}\n"))
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        # What it shows commented out is right as well.
        with open(example, encoding="utf-8") as f:
            text = f.read().replace("# archive: /elsewhere", "")
        whole = re.sub(r"^( *)# ?((?:  )*(?:- )?[a-z-]+: ?.*)$", r"\1\2", text, flags=re.M)
        config = self.write("whole.yml", whole)
        report = json.loads(self.check(config, "--json", "--env-file",
                                       self.path("e")).stdout)
        self.assertEqual(report["errors"], [])
        self.assertEqual(report["warnings"], [])

    def test_manual_has_every_key(self):
        with open(os.path.join(ROOT, "tools", "man", "asof.yml.5.md"), encoding="utf-8") as f:
            manual = f.read()
        keys = set()
        folder = os.path.join(ROOT, "engine", "config")
        for name in os.listdir(folder):
            if name.startswith("keys") and name.endswith(".c"):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    keys |= set(re.findall(r'\{"([a-z0-9-]+)",\s*KEY_', f.read()))
        self.assertGreater(len(keys), 120)
        missing = [k for k in sorted(keys) if f"**{k}**" not in manual]
        self.assertEqual(missing, [])
        with open(os.path.join(folder, "variables.c"), encoding="utf-8") as f:
            names = set(re.findall(r'"([A-Z][A-Z_]+)"', f.read())) - {"HOME"}
        missing = [n for n in sorted(names) if n not in manual]
        self.assertEqual(missing, [])


if __name__ == "__main__":
    harness.main()

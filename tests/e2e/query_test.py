#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""asof query and asof diff against copies of the database that were taken meanwhile."""

import csv
import io
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness
from harness import asof


class Archived(harness.Case):
    """A captured history, and beside it a copy of each state that it has."""

    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        self.db.execute("PRAGMA synchronous = OFF")
        self.copies = {}

    def capture(self, states):
        """Each of `states` (SQL scripts) becomes what the database is for a while."""
        r = self.replicate()
        for i, sql in enumerate(states):
            self.db.executescript(sql)
            if i == 0:
                r.wait_ready()
            r.wait_known()
            txid = r.status()["last_txid"]
            copy = self.path(f"copy-{txid}.db")
            with sqlite3.connect(copy) as out:
                self.db.backup(out)
            out.close()
            self.copies[txid] = copy
        r.stop()
        return sorted(self.copies)

    def query(self, *args, **kw):
        return asof("query", "--archive", self.archive, *args, **kw)


class Query(Archived):
    def test_past_states(self):
        txids = self.capture([
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v, r REAL); INSERT INTO t VALUES (1, 'one', 0.1)",
            "INSERT INTO t VALUES (2, NULL, -1e300), (3, x'00ff', 5)",
            "DELETE FROM t WHERE id = 1; CREATE INDEX t_v ON t (v)",
        ])
        sql = "SELECT id, v, typeof(v) AS kind, r FROM t ORDER BY id"
        for txid in txids:
            with sqlite3.connect(self.copies[txid]) as db:
                want = db.execute(sql).fetchall()
            run = self.query("--tx", txid, "--json", sql)
            self.assertEqual(run.returncode, 0, run.stderr)
            got = [tuple(bytes.fromhex(x["hex"]) if isinstance(x, dict) else x
                         for x in row.values()) for row in json.loads(run.stdout)]
            self.assertEqual(got, want)
        self.assertEqual(self.query("trades.db", "SELECT count(*) FROM t", "--csv").stdout,
                         "count(*)\n2\n")
        self.assertEqual(self.query("SELECT id, v FROM t ORDER BY id").stdout,
                         "id  v\n 2  NULL\n 3  x'00ff'\n")
        self.assert_fails(self.query("--tx", 999, "SELECT 1"), 3, "999")
        self.assert_fails(self.query("--at", "2001-01-01", "SELECT 1"), 3, "begins at")
        self.assert_fails(self.query("--db", "other.db", "SELECT 1"), 3, "trades.db")
        for bad, status, text in [
                ("SELCT 1", 1, 'near "SELCT": syntax error'), ("SELECT * FROM nix", 1, "nix"),
                ("DELETE FROM t", 1, "only be read"), ("ATTACH 'x' AS y", 1, "only be read"),
                ("UPDATE sqlite_master SET sql = ''", 1, ""),
                ("PRAGMA user_version = 4", 1, "user_version"), ("VACUUM INTO 'x'", 1, "read"),
                ("CREATE TEMP TABLE x (a)", 1, "read"), ("SELECT :a", 2, "--param a=VALUE"),
                ("/* nothing */", 2, "no statement"), ("PRAGMA journal_mode = WAL", 1, "journal_mode"),
                ("SELECT load_extension('x')", 1, "")]:
            with self.subTest(bad):
                self.assert_fails(self.query(bad), status, text)
        self.assertEqual(os.listdir(self.dir).count("x"), 0)

    def test_values(self):
        self.capture(["CREATE TABLE v (i INTEGER PRIMARY KEY, v)"])
        values = [None, 0, -1, 2**63 - 1, -2**63, 0.1, 1e22, 5e-324, 1.7976931348623157e308, math.inf,
                  -math.inf, 3.0, "", "x", 'a"b,c\r\nd', "\u00e9\U0001f600", "nul\0nul", "\x01",
                  b"", b"\0\xff", b"x" * 5000, "long" * 1000]
        for v in values:
            self.db.execute("INSERT INTO v (v) VALUES (?)", (v,))
        self.db.execute("INSERT INTO v (v) VALUES (CAST(x'ff41' AS TEXT))")
        r = self.replicate()
        r.wait_ready()
        r.wait_known()
        r.stop()
        run = self.query("--json", "SELECT v FROM v ORDER BY i")
        got = [bytes.fromhex(row["v"]["hex"]) if isinstance(row["v"], dict) else row["v"]
               for row in json.loads(run.stdout)]
        self.assertEqual(got, values + [b"\xffA"])
        run = subprocess.run([harness.ASOF, "query", "--archive", self.archive, "--csv",
                              "SELECT i, v FROM v WHERE typeof(v) = 'text' AND i < 23 "
                              "AND v NOT GLOB '*\1*' ORDER BY i"], check=True,
                             stdout=subprocess.PIPE)
        rows = list(csv.reader(io.StringIO(run.stdout.decode().replace("\0", "NUL"), newline="")))
        self.assertEqual([r[1] for r in rows[1:]],
                         [v.replace("\0", "NUL") for v in values
                          if isinstance(v, str) and v != "\x01"])
        run = self.query("--json", "SELECT 1 AS a, 2 AS a, 3 AS a; BEGIN; SELECT 4 AS b; COMMIT")
        self.assertEqual(run.stdout, '[\n  {"a": 1, "a:1": 2, "a:2": 3}\n]\n[\n  {"b": 4}\n]\n')
        self.assertEqual(self.query("--json", "SELECT 1 WHERE 0").stdout, "[]\n")
        self.assertEqual(self.query("SELECT 1 AS x WHERE 0").stdout, "x\n")
        run = self.query("SELECT max(length(v)) AS n, v FROM v WHERE typeof(v) = 'blob'")
        self.assertIn("…", run.stdout)

    def test_parameters(self):
        self.capture(["CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);"
                      "INSERT INTO t VALUES (7, '007'), (8, '1.50'), (9, 'x'' OR 1 --')"])
        for args, want in [(("-p", "n=007", "SELECT id FROM t WHERE name = :n"), [7]),
                           (("-p", "n=1.50", "SELECT id FROM t WHERE name = $n"), [8]),
                           (("-p", "n=x' OR 1 --", "SELECT id FROM t WHERE name = @n"), [9]),
                           (("-p", "1=8", "SELECT id FROM t WHERE id = ?"), [8]),
                           (("-p", "2=8", "-p", "1=7", "SELECT id FROM t WHERE id IN (?, ?)"), [7, 8]),
                           (("-p", "n=7", "SELECT typeof(:n) AS id"), ["integer"]),
                           (("-p", "n=2.5", "SELECT typeof(:n) AS id"), ["real"]),
                           (("-p", "n=", "SELECT :n AS id"), [""])]:
            run = self.query("--json", *args)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual([row["id"] for row in json.loads(run.stdout)], want)
        self.assertEqual(self.query("-p", "n=1", "SELECT 1").returncode, 2)
        self.assert_fails(self.query("-p", "n", "SELECT :n"), 2, "NAME=VALUE")
        run = self.query("-", input="SELECT 40 +\n2 AS n;\n", stdin=None)
        self.assertEqual(run.stdout, " n\n42\n")

    def test_large_and_special(self):
        self.capture(["CREATE TABLE t (id INTEGER PRIMARY KEY, v);"
                      "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
                      "WHERE i < 5000) INSERT INTO t SELECT i, hex(randomblob(20)) FROM c;"
                      "CREATE VIRTUAL TABLE f USING fts5 (x); INSERT INTO f VALUES ('red fox');"
                      "CREATE VIRTUAL TABLE b USING rtree (id, a, z); INSERT INTO b VALUES (1, 2, 3)"])
        for args in ((), ("--csv",), ("--json",)):
            run = self.query(*args, "SELECT * FROM t ORDER BY v")
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertGreater(len(run.stdout.splitlines()), 5000)
        self.assertIn("red fox", self.query("SELECT * FROM f WHERE f MATCH 'fox'").stdout)
        self.assertIn("1", self.query("SELECT id FROM b WHERE a >= 2").stdout)
        self.assertEqual(self.query("--csv", "PRAGMA integrity_check").stdout,
                         "integrity_check\nok\n")
        run = subprocess.run(f"{harness.ASOF} query --archive {self.archive} "
                             "'SELECT * FROM t' | head -3", shell=True, check=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(len(run.stdout.splitlines()), 3)
        self.assertEqual(run.stderr, "")

    def test_damage_is_named(self):
        """Status 4 and the object's name, never only "malformed"."""
        self.capture(["CREATE TABLE t (v); WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT "
                      "i + 1 FROM c WHERE i < 3000) INSERT INTO t SELECT randomblob(300) FROM c"])
        folder = os.path.join(self.archive, "local", "trades.db", "snapshot")
        name, = os.listdir(folder)
        with open(os.path.join(folder, name), "r+b") as f:
            f.seek(os.path.getsize(f.name) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 1]))
        for sql in ("SELECT sum(length(v)) FROM t", "PRAGMA integrity_check"):
            run = self.query(sql)
            self.assertEqual(run.returncode, 4, run.stdout + run.stderr)
            self.assertIn(name, run.stderr)


class Diff(Archived):
    def diff(self, *args):
        return asof("diff", "--archive", self.archive, *args)

    def states(self):
        return self.capture([
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE); CREATE TABLE other (x);"
            "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO other VALUES (x'00')",
            "UPDATE t SET v = v || '_'; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (9, 'c')",
            "CREATE INDEX t_v ON t (v DESC); DROP TABLE other; CREATE TABLE new (y REAL);"
            "INSERT INTO new VALUES (0.1), (1e300)",
        ])

    def test_sql_against_sqldiff(self):
        """Our SQL, run by sqlite3 on the one copy; sqldiff then finds no difference to the other."""
        txids = self.states()
        for a in txids:
            for b in txids:
                with self.subTest(f"{a} to {b}"):
                    run = self.diff(f"tx:{a}", f"tx:{b}", "--sql")
                    self.assertEqual(run.returncode, 0, run.stderr)
                    applied = self.path("applied.db")
                    shutil.copy(self.copies[a], applied)
                    subprocess.run(["sqlite3", "-bail", applied], input=run.stdout, text=True,
                                   check=True, stdout=subprocess.PIPE)
                    left = subprocess.run(["sqldiff", applied, self.copies[b]], check=True,
                                          stdout=subprocess.PIPE, text=True)
                    self.assertEqual(left.stdout, "")
                    if a == b:
                        self.assertEqual(len(run.stdout.splitlines()), 1)
                        self.assertIn("nothing differs", run.stdout)

    def test_summary(self):
        a, b, c = self.states()
        run = self.diff("trades.db", f"tx:{a}", f"tx:{b}", "--json")
        report = json.loads(run.stdout)
        self.assertEqual(report["tables"], [{"table": "t", "schema": "same", "added": 1,
                                             "removed": 1, "changed": 2}])
        self.assertEqual((report["from"]["txid"], report["to"]["txid"]), (a, b))
        self.assertEqual((report["added"], report["removed"], report["changed"]), (1, 1, 2))
        report = json.loads(self.diff(f"tx:{b}", "latest", "--json").stdout)
        self.assertEqual({t["table"]: (t["schema"], t["added"], t["removed"])
                          for t in report["tables"]},
                         {"new": ("created", 2, 0), "other": ("dropped", 0, 1)})
        self.assertEqual(report["schema"], [{"type": "index", "name": "t_v", "schema": "created"}])
        text = self.diff(f"tx:{a}", f"tx:{c}").stdout
        self.assertRegex(text, r"(?m)^t +1 +1 +2  -$")
        self.assertRegex(text, r"(?m)^index t_v: created$")
        self.assertIn("nothing differs", self.diff("latest", f"tx:{c}").stdout)
        text = self.diff(f"tx:{a}", f"tx:{c}", "--table", "other", "--sql").stdout
        self.assertIn('DROP table "other"', text)
        self.assertNotIn('"t"', text)
        self.assert_fails(self.diff("latest", "tx:999"), 3, "999")
        self.assert_fails(self.diff("latest"), 2, "two moments")
        self.assert_fails(self.diff("latest", "latest", "--table", "nix"), 3, "nix")
        self.assert_fails(self.diff("latest", "soon"), 2, "soon")
        self.assert_fails(self.diff("latest", "latest", "--sql", "--json"), 2)


class Bisect(Archived):
    def bisect(self, *args):
        return asof("bisect", "--archive", self.archive, *args)

    def test_who_lost_the_row(self):
        self.capture(["CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (7, 'x')"])
        r = self.replicate()
        r.wait_ready()
        for i in range(60):
            self.db.execute("DELETE FROM t WHERE id = 7" if i == 41 else
                            f"INSERT INTO t (id, v) VALUES ({100 + i}, 'more')")
        self.db.execute("CREATE TABLE late (x)")
        r.wait_known()
        r.stop()
        last = self.query("--json", "SELECT 1") and r.status()["last_txid"]
        want = last - 1 - 59 + 41
        run = self.bisect("--json", "SELECT v FROM t WHERE id = 7")
        self.assertEqual(run.returncode, 0, run.stderr)
        found = json.loads(run.stdout)
        self.assertEqual((found["txid"], found["before"]["txid"]), (want, want - 1))
        self.assertEqual(found["tables"], [{"table": "t", "added": 0, "removed": 1, "changed": 0}])
        for txid, n in ((want - 1, "1"), (want, "0")):
            run = self.query("--tx", txid, "--csv", "SELECT count(*) FROM t WHERE id = 7")
            self.assertEqual(run.stdout.split()[1], n)
        text = self.bisect("trades.db", "SELECT v FROM t WHERE id = :id", "-p", "id=7").stdout
        self.assertIn(f"txid {want} at ", text)
        self.assertIn("table t: 0 added, 1 removed", text)
        found = json.loads(self.bisect("--json", "SELECT count(*) FROM late").stdout)
        self.assertEqual(found["txid"], last)
        found = json.loads(self.bisect("--json", "--until", f"tx:{want - 5}",
                                       "SELECT count(*) > 20 FROM t").stdout)
        self.assertEqual(found["tables"][0]["added"], 1)
        self.assert_fails(self.bisect("SELECT 1"), 3, "the same")
        self.assert_fails(self.bisect("SELECT nix"), 1, "nix")
        self.assert_fails(self.bisect("DELETE FROM t"), 1, "read")
        self.assert_fails(self.bisect("SELECT 1; SELECT 2"), 2, "one statement")
        self.assert_fails(self.bisect("--since", "latest", "SELECT 1"), 2, "--since")


if __name__ == "__main__":
    harness.main()

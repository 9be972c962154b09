#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""Archives in a bucket: a real S3 server, on loopback."""

import base64
import glob
import itertools
import json
import os
import re
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import certificates  # noqa: E402
import harness  # noqa: E402
import radosgw  # noqa: E402
import s3_faults  # noqa: E402
import sshd  # noqa: E402
from harness import asof, asof_json, commit, counter_of, make_counter, wait_for  # noqa: E402

BUILD = os.environ.get("ASOF_BUILD") or os.path.join(harness.ROOT, "build", "release")
TEST_STORE = os.path.join(BUILD, "tests", "test_store")
TOOL = os.path.join(BUILD, "tests", "synth", "store_tool")
NAME = "trades.db"


def setUpModule():
    global server, authority
    folder = tempfile.mkdtemp(prefix="asof-s3-")
    unittest.addModuleCleanup(shutil.rmtree, folder, ignore_errors=True)
    authority = certificates.Authority(folder)
    server = radosgw.RadosGateway(os.path.join(folder, "server"), authority.sign("IP:127.0.0.1"))
    unittest.addModuleCleanup(server.stop)
    server.start()
    server.make_bucket("trades")


class Bucket(harness.Case):
    def setUp(self):
        super().setUp()
        self.url = server.url("trades", "/" + os.path.basename(self.dir))
        self.env = {**os.environ, **server.credentials()}

    def tool(self, *words, env=None, url=None):
        return subprocess.run([TOOL, url or self.url, *words], timeout=100, check=False, text=True,
                              env=env or self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_promises(self):
        """The numbered promises of store.h, held to a model."""
        run = subprocess.run([TEST_STORE], check=False, timeout=240, text=True,
                             env={**self.env, "ASOF_TEST_STORE": self.url},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertIn("[       OK ] test_named", run.stdout)

    def test_refusals(self):
        run = self.tool("fill", "1", "10", env={**self.env, "AWS_SECRET_ACCESS_KEY": "wrongsecret"})
        self.assertEqual(run.returncode, 1)
        self.assertIn("(denied)", run.stderr)
        self.assertNotIn("wrongsecret", run.stderr)
        run = self.tool("fill", "1", "10", url=server.url("nothing"))
        self.assertIn("nothing", run.stderr)
        self.assertIn("(not-found)", run.stderr)
        run = self.tool("fill", "1", "10", url=self.url + "&x=y")
        self.assertIn("(usage)", run.stderr)
        self.assertIn("'x", run.stderr)

    def test_retention(self):
        """What a destination's own retention lets go is gone there; the rest, and the archive, reads on."""
        patch = unittest.mock.patch.dict(os.environ, server.credentials())
        patch.start()
        self.addCleanup(patch.stop)
        db = self.open_db()
        make_counter(db)
        config = self.path("asof.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"databases:\n  - path: {self.db_path}\n    archive: {self.archive}\n"
                    f"    destinations:\n      - {{name: far, url: '{self.url}', "
                    "retention: {tiers: [{every: 0, for: 1s}, {every: 1s, for: 3s}]}}\n")

        r = harness.Replicator(self.db_path, self.archive, self.url, "--segment-size", "64K")
        self.addCleanup(r.close)
        r.wait_ready()

        def thin():  # whether it is due or not
            for path in glob.glob(os.path.join(self.archive, "local", NAME, "retained-*")):
                os.unlink(path)
            run = asof("job", "retain-there", self.archive, NAME, "far", "0", "--config", config)
            self.assertEqual(run.returncode, 0, run.stderr)
        for n in range(60):
            commit(db, 30)
        wait_for("all of it", lambda: asof("wait", NAME, "--archive", self.archive, "--dest",
                                           self.url).returncode == 0, 60)
        wait_for("a pass that deletes", lambda: thin() or self.thinned() > 0, 60)
        text = asof("stats", "--archive", self.archive, "--config", config).stdout
        row = text[text.index("THINNED"):].splitlines()[1].split()
        told = asof_json("stats", "--archive", self.archive)["databases"][0]["destinations"][0]["retention"]
        self.assertIn(row[1], ("far", self.url[:60]))
        self.assertEqual(row[2:5], [str(told["fine_txid"]), str(told["kept_points"]),
                                    str(told["deleted"])])
        out = self.restore("--latest", out=self.path("out.db"), archive=self.url)
        self.assertEqual(counter_of(out), counter_of(self.db_path))
        run = asof("validate", "--archive", self.url)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

        def let_go():  # not while it is the last of its second
            run = asof("restore", "--tx", "5", "-o", self.path("old.db"), "--force", "--archive",
                       self.url)
            if run.returncode:
                self.assert_fails(run, 3, "txid 5")
            return run.returncode
        wait_for("txid 5 to be let go of", lambda: thin() or let_go(), 60)
        self.restore("--tx", "5", "--force", out=self.path("old.db"))

    def test_cleanup_there(self):
        """asof cleanup --dest: what would go, then it goes; by who sends there alone."""
        patch = unittest.mock.patch.dict(os.environ, server.credentials())
        patch.start()
        self.addCleanup(patch.stop)
        db = self.open_db()
        make_counter(db)
        config, usb = self.path("asof.yml"), self.path("usb")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"databases:\n  - path: {self.db_path}\n    archive: {self.archive}\n"
                    f"    destinations:\n      - {{name: far, url: '{self.url}', "
                    "retention: {tiers: [{every: 0, for: 1s}, {every: 1s, for: 3s}]}}\n"
                    f"      - {{name: usb, type: file, path: {usb}}}\n")

        def cleanup(*words, at="far", archive=self.archive, **more):
            return asof("cleanup", "--dest", at, "--archive", archive, "--grace", "0s", *words,
                        "--config", config, **more)
        r = harness.Replicator(self.db_path, self.archive, self.url, "--segment-size", "64K")
        self.addCleanup(r.close)
        r.wait_ready()
        for n in range(30):
            commit(db, 30)
        r.wait_known()
        run = asof("mark", "past", "--tx", "9", "--db", NAME, "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        for n in range(30):
            commit(db, 30)
        wait_for("all of it", lambda: asof("wait", NAME, "--archive", self.archive, "--dest",
                                           self.url).returncode == 0, 60)

        def expects(*words):
            run = cleanup("--json", "--dry-run", *words)
            if run.returncode:  # the newest is there, and what is older still on its way
                self.assertEqual(run.returncode, 1, run.stderr)
                self.assertRegex(run.stderr, r"^asof: '" + re.escape(NAME) + "' is not yet at s3://\\S+ with all of "
                                 r"its history: .* \(try again later\)\n$")
                return {"fine_txid": 0}
            return json.loads(run.stdout)["history"]["databases"][0]
        wait_for("something to go", lambda: expects()["fine_txid"] > 20, 60)
        self.assertEqual(self.thinned(), 0, "nothing was done")
        run = asof("restore", "--tx", "5", "-o", self.path("old.db"), "--archive", self.url)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("would delete", cleanup("--dry-run").stdout)

        def gone():
            run = cleanup()
            self.assertEqual(run.returncode, 0, run.stderr)
            return self.thinned() > 0
        wait_for("a pass that deletes", gone, 60)
        self.assert_fails(asof("restore", "--tx", "5", "-o", self.path("old.db"), "--force",
                               "--archive", self.url), 3, "txid 9")
        marked = ("restore", "--tx", "9", "-o", self.path("old.db"), "--force", "--archive", self.url)
        self.assertEqual(asof(*marked).returncode, 0)
        # A mark that is removed goes there, and its moment.
        self.assertEqual(asof("mark", "--delete", "past", "--archive", self.archive).returncode, 0)
        commit(db)
        wait_for("the mark to go", lambda: cleanup().returncode == 0 and asof(*marked).returncode == 3, 60)
        run = asof("validate", "--archive", self.url)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        # Of the URL alone, by the configuration; another archive is refused; rules are needed.
        run = asof("cleanup", "--dry-run", "--archive", self.url, "--config", config)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(NAME, run.stdout)
        other = self.path("other")
        shutil.copytree(self.archive, other, ignore=shutil.ignore_patterns("*.sock"))
        self.assert_fails(cleanup("--tiers", "all:1s", at=self.url, archive=other), 1,
                          "is written by another asof")
        self.assertEqual(asof("copy", self.archive, usb).returncode, 0)
        self.assert_fails(cleanup(at="usb"), 2, "no retention of its own")
        run = cleanup("--tiers", "all:1s", at="usb")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assert_fails(asof("restore", "--tx", "5", "-o", self.path("old.db"), "--force",
                               "--archive", usb), 3, "txid")
        self.assert_fails(cleanup(at="nowhere"), 3, "nothing is sent to 'nowhere'")
        self.assert_fails(cleanup("--days", "3"), 2, "rules for backups")
        self.assert_fails(cleanup("--max-bytes", "1G"), 2, "--max-bytes")

    def thinned(self):
        found = 0
        for path in glob.glob(os.path.join(self.archive, "local", NAME, "retained-*")):
            with open(path, encoding="ascii") as f:
                found += sum(int(line.split()[1]) for line in f if line.startswith("deleted "))
        return found

    def test_copy(self):
        """A live archive to an encrypted bucket, again, and back from there; another is refused."""
        identity = self.path("identity")
        self.assertEqual(asof("key", "generate", identity).returncode, 0)
        env = {**self.env, "ASOF_KEY_FILE": identity}

        def copy(*words):
            run = asof("copy", "--json", *words, env=env, timeout=100)
            self.assertEqual(run.returncode, 0, run.stderr)
            return json.loads(run.stdout)
        self.db = self.open_db()
        make_counter(self.db)
        writer = self.replicate()
        writer.wait_ready()
        commit(self.db)
        writer.wait_known()
        run = asof("backup", "--db-path", self.db_path, "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertGreater(copy(self.archive, self.url)["objects"], 2)
        commit(self.db)
        writer.wait_known()
        again = copy(self.archive, self.url)
        self.assertGreater(again["present"], 3)
        self.assertEqual(writer.stop(), 0, writer.log())
        back = self.path("back")
        copy(self.url, back)
        self.assertEqual(counter_of(self.restore("--latest", archive=back)), counter_of(self.db_path))
        self.assertEqual(sorted(os.listdir(os.path.join(back, "manual"))),
                         sorted(f for f in os.listdir(os.path.join(self.archive, "manual"))
                                if not f.startswith(".")))
        self.assert_fails(asof("copy", back, self.url, env=env, timeout=100), 1, "another asof")

    def test_copy_between(self):
        """A bucket to a server, and on to another bucket's prefix, plain and encrypted, without the key."""
        ssh = sshd.Sshd(self.path("ssh")).start()
        self.addCleanup(ssh.stop)
        identity = self.path("identity")
        self.assertEqual(asof("key", "generate", identity).returncode, 0)
        for key in ({}, {"ASOF_KEY_FILE": identity}):
            with self.subTest(encrypted=bool(key)):
                folder = os.path.join(self.dir, "sealed" if key else "plain")
                os.mkdir(folder)
                self.copy_along(folder, {**self.env, **key}, [
                    server.url("trades", "/" + os.path.basename(self.dir) + os.path.basename(folder)),
                    ssh.url(os.path.join(folder, "far")),
                    server.url("trades", "/" + os.path.basename(self.dir) + os.path.basename(folder)
                               + "-2")])

    def copy_along(self, folder, key_env, urls):
        archive = os.path.join(folder, "archive")
        db_path = os.path.join(folder, NAME)
        db = self.open_db(db_path)
        make_counter(db)
        writer = self.replicate(db=db_path, archive=archive)
        writer.wait_ready()
        for i in range(3):
            for _ in range(20):
                commit(db)
            writer.wait_known()
            run = asof("backup", "--db-path", db_path, "--archive", archive)
            self.assertEqual(run.returncode, 0, run.stderr)
            run = asof("copy", archive, urls[0], env=key_env, timeout=100)
            self.assertEqual(run.returncode, 0, run.stderr)
            for source, target in zip(urls, urls[1:]):
                run = asof("copy", source, target, "--json", env=self.env, timeout=100)
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertGreater(json.loads(run.stdout)["objects"], 1)
                again = asof("copy", source, target, "--json", env=self.env, timeout=100)
                self.assertEqual(again.returncode, 0, again.stderr)
                self.assertEqual(json.loads(again.stdout)["objects"], 0)
                self.assertEqual(json.loads(again.stdout)["bytes"], 0)
            out = os.path.join(folder, f"out-{i}.db")
            run = asof("restore", "--latest", "-o", out, "--archive", urls[-1], env=key_env, timeout=100)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(counter_of(out), counter_of(db_path))
            run = asof("validate", "--archive", urls[-1], env=key_env, timeout=100)
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
            self.assertIn(f"{i + 1} backups, {i + 1} valid", run.stdout)
        # The other way round there is a writer; and who has more to send claims the copy.
        commit(db)
        writer.wait_known()
        self.assertEqual(writer.stop(), 0, writer.log())
        db.close()
        self.assert_fails(asof("copy", urls[-1], urls[0], env=self.env, timeout=100), 1, "another asof")
        run = asof("copy", archive, urls[-1], env=key_env, timeout=100)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assert_fails(asof("copy", urls[0], urls[-1], env=self.env, timeout=100), 1, "another asof")

    def proxy(self, plan, conditions="keep"):
        p = s3_faults.Proxy(server.port, plan, conditions)
        self.addCleanup(p.stop)
        self.url = p.url("trades", "/" + os.path.basename(self.dir))
        return p

    def fill_and_check(self, n, size):
        for what in ("fill", "check"):
            run = self.tool(what, str(n), str(size))
            self.assertEqual(run.returncode, 0, run.stderr)

    def test_each_fault_once(self):
        """The first try of every request meets it; what was put is there, once and whole."""
        for fault in s3_faults.BEFORE + s3_faults.AFTER:
            with self.subTest(fault=fault):
                p = self.proxy(lambda method, path, n, fault=fault: fault if n == 0 else None)
                self.url = self.url.replace("?", f"/{fault}?")
                self.fill_and_check(3, 100000)
                self.assertGreater(p.done[fault], 5)

    def test_error_in_a_200(self):
        p = self.proxy(lambda method, path, n: "error-in-200" if n == 0 and method == "PUT" else None)
        self.fill_and_check(3, 1000)
        self.assertEqual(p.done["error-in-200"], 3)

    def test_bodies(self):
        """What is read comes whole, or is an error; it is never another byte."""
        self.fill_and_check(3, 300000)
        for fault in s3_faults.OF_BODY:
            with self.subTest(fault=fault):
                p = self.proxy(lambda method, path, n, fault=fault: fault if method == "GET" and
                               "/o" in path and n == 0 else None)
                run = self.tool("check", "3", "300000")
                if run.returncode:
                    self.assertIn("(damaged)", run.stderr)
                self.assertGreaterEqual(p.done[fault], 1)
                # Always so: never taken for what was put.
                self.proxy(lambda method, path, n, fault=fault: fault if method == "GET" and
                           "/o" in path and fault != "cut" else None)
                if fault != "cut":
                    run = self.tool("check", "3", "300000")
                    self.assertEqual(run.returncode, 1, fault)

    def test_bad_days(self):
        """A third of all requests meet one fault or another."""
        dice = random.Random(7)
        kinds = s3_faults.BEFORE + s3_faults.AFTER
        p = self.proxy(lambda method, path, n: dice.choice(kinds) if dice.random() < 0.33 else None)
        self.fill_and_check(40, 50000)
        self.assertGreater(sum(p.done.values()), 20)

    def test_a_clock_that_is_off(self):
        """The server's refusal tells how far; what follows is signed by its time."""
        for off in ("-20m", "+3h"):
            with self.subTest(off=off):
                self.url = server.url("trades", f"/{os.path.basename(self.dir)}{off}")
                for what in ("fill", "check"):
                    run = subprocess.run(["faketime", "-f", off, TOOL, self.url, what, "3", "5000"],
                                         env=self.env, timeout=60, check=False, text=True,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                    self.assertEqual(run.returncode, 0, run.stderr)

    def test_verbs_denied(self):
        """Said as what it is, at once."""
        for fault, kind in (("denied", "denied"), ("quota", "no-space")):
            self.proxy(lambda method, path, n, fault=fault: fault if method == "PUT" else None)
            run = self.tool("fill", "1", "10")
            self.assertEqual(run.returncode, 1)
            self.assertIn(f"({kind})", run.stderr)

    def check_place(self, status, *command):
        """What asof check says of each thing that it tries, and of all of it."""
        run = subprocess.run([*command, harness.ASOF, "check", self.url, "--json"], env=self.env,
                             timeout=100, check=False, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        self.assertEqual(run.returncode, status, run.stdout + run.stderr)
        place, = json.loads(run.stdout)["places"]
        states = {row["tried"]: row["state"] for row in place["trial"]}
        return states, place

    def keys(self):
        return server.run("radosgw-admin", "bucket", "list", "--bucket=trades")

    def test_tried_out(self):
        """asof check does what a replicator will, and says what does not work there."""
        works = dict.fromkeys(("write", "read", "list", "conditional write", "delete", "clock"), "ok")
        states, place = self.check_place(0)
        self.assertEqual(states, works)
        self.assertEqual((place["message"], place["clock_difference_seconds"]), ("works", 0.0))
        self.assertNotIn(".asof-check", self.keys())  # nothing stays
        for denied, status, lacks in (
                ("DELETE", 0, {"delete": "lacks"}),
                ("GET", 1, {"read": "failed", "list": "failed", "clock": "untried"}),
                ("PUT", 1, {"write": "failed", "read": "untried", "conditional write": "untried",
                            "delete": "untried", "clock": "untried"})):
            with self.subTest(denied=denied):
                self.proxy(lambda method, path, n, denied=denied: "denied" if method == denied
                           else None)
                states, place = self.check_place(status)
                self.assertEqual(states, {**works, **lacks})
                self.assertLessEqual(self.keys().count(".asof-check"), 1)
                self.assertIn("AccessDenied", next(r["message"] for r in place["trial"]
                                                   if r["state"] in ("lacks", "failed")))
        for conditions in ("ignore", "refuse"):
            with self.subTest(conditions=conditions):
                self.proxy(lambda method, path, n: None, conditions)
                states, place = self.check_place(0)
                self.assertEqual(states, {**works, "conditional write": "lacks"})
                self.assertEqual(place["message"], "works, but without conditional writes")

    def test_tried_out_by_a_wrong_clock(self):
        states, place = self.check_place(0, "faketime", "-f", "-20m")
        self.assertEqual(states["clock"], "lacks")
        self.assertAlmostEqual(place["clock_difference_seconds"], 1200, delta=30)
        self.assertIn("ahead of", place["trial"][-1]["message"])

    def test_tried_out_nobody_there(self):
        port, = radosgw.free_ports(1)
        self.url = self.url.replace(f":{server.port}", f":{port}")
        states, place = self.check_place(5)
        self.assertEqual(states["write"], "failed")
        self.assertEqual(place["state"], "problem")

    # ---- in parts: what is larger than 64 MB, 16 MB each ----

    LARGE = str(70 << 20)

    def test_parts(self):
        """The first try of each request meets one fault or another; the object is whole, and no
        upload is left, not even one whose beginning was never answered."""
        faults = itertools.cycle(f for f in s3_faults.AFTER + s3_faults.BEFORE if f != "429")
        p = self.proxy(lambda method, path, n: "lost-after" if method == "POST" and n in (0, 2) else
                       next(faults) if method == "PUT" and n % 2 == 0 else None)
        run = self.tool("put", self.LARGE)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(p.done["lost-after"], 3)
        self.assertGreaterEqual(sum(p.done.values()), 7)
        self.assertEqual(server.uploads("trades"), 0)
        self.url = server.url("trades", "/" + os.path.basename(self.dir))
        run = self.tool("whole", self.LARGE)
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_a_part_that_cannot_be_put(self):
        """Part 3 is refused, or never taken: an error, no object, and nothing that costs money."""
        for fault, kind in (("denied", "denied"), ("500", "unavailable")):
            with self.subTest(fault=fault):
                self.proxy(lambda method, path, n, fault=fault:
                           fault if method == "PUT" and n >= 2 else None)
                run = self.tool("put", self.LARGE, env={**self.env, "ASOF_TEST_PATIENCE_MS": "1000"})
                self.assertEqual(run.returncode, 1)
                self.assertIn(f"({kind})", run.stderr)
                self.assertEqual(server.uploads("trades"), 0)
                run = self.tool("whole", self.LARGE)
                self.assertIn("(not-found)", run.stderr)

    def test_killed_between_parts(self):
        """What a killed process leaves ends with the next upload of that key."""
        reached, killed = threading.Event(), threading.Event()
        self.addCleanup(killed.set)

        def plan(method, path, n):
            if method == "PUT" and n == 2:
                reached.set()
            return None

        p = self.proxy(plan)
        p.before = lambda method, n: killed.wait(60) if method == "PUT" and n == 2 else None
        run = subprocess.Popen([TOOL, self.url, "put", self.LARGE], env=self.env,
                               stdin=subprocess.DEVNULL)
        self.addCleanup(run.wait)
        self.addCleanup(run.kill)
        self.assertTrue(reached.wait(60))
        run.kill()
        run.wait()
        killed.set()
        self.assertEqual(server.uploads("trades"), 1)
        self.url = server.url("trades", "/" + os.path.basename(self.dir))
        run = self.tool("put", self.LARGE)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(server.uploads("trades"), 0)
        self.assertEqual(self.tool("whole", self.LARGE).returncode, 0)

    # ---- encrypted by the server ----

    def customer_key(self, name):
        with open(self.path(name), "w", encoding="ascii") as f:
            f.write(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
        return self.path(name)

    def secure(self, **more):
        return server.secure_url("trades", "/" + os.path.basename(self.dir), ca=authority.file, **more)

    def keeps_its_promises(self):
        """Of a store, reads of ranges among them, and an object of parts; returns a plain one's path."""
        run = subprocess.run([TEST_STORE], check=False, timeout=240, text=True,
                             env={**self.env, "ASOF_TEST_STORE": self.url.replace("?", "/promises?")},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 0, run.stdout)
        for what in ("put", "whole"):
            run = self.tool(what, self.LARGE)
            self.assertEqual(run.returncode, 0, run.stderr)
        self.url = self.url.replace("?", "/few?")
        self.fill_and_check(2, 100000)
        return f"{os.path.basename(self.dir)}/few/objects/0/o 0"

    def assert_encrypted(self, key):
        """What is on the server's disk is as long as what store_tool put, and something else."""
        content = bytes(8) + bytes((i * 7 >> i % 5) & 255 for i in range(8, 100000))
        run = self.tool("put", "100000", url=server.url("trades", "/plain"))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(server.stored("trades", "plain/objects/0/o 0"), content)
        stored = server.stored("trades", key)
        self.assertEqual(len(stored), len(content))
        self.assertNotIn(content[50000:50016], stored)

    def history(self):
        """What is captured goes there and comes back, by a restore and by a query of a past state."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        self.url = self.url.replace("?", "/history?")
        r = harness.Replicator(self.db_path, self.archive, self.url,
                               prefix=["env", *(f"{k}={v}" for k, v in server.credentials().items())])
        self.addCleanup(r.close)
        r.wait_ready()
        for _ in range(3):
            commit(db)
        run = asof("wait", "--dest", self.url, "--archive", self.archive, "--timeout", "60")
        self.assertEqual(run.returncode, 0, run.stderr + r.log())
        self.assertEqual(r.stop(), 0, r.log())
        run = asof("restore", "--latest", "-o", self.path("out.db"), "--archive", self.url, "--db", NAME,
                   env=server.credentials())
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(counter_of(self.path("out.db")), 3)

    def test_a_customers_key(self):
        """The server has nothing to read it by: without the key, or with another, there is nothing."""
        self.url = self.secure(sse_customer_key_file=self.customer_key("key"))
        key = self.keeps_its_promises()
        self.assert_encrypted(key)
        status, body = server.ask("GET", "/trades/" + key.replace(" ", "%20"))
        self.assertEqual(status, 400, body)
        run = self.tool("check", "2", "100000", url=server.url("trades", "/" + os.path.dirname(
            os.path.dirname(os.path.dirname(key)))))
        self.assertEqual(run.returncode, 1)
        run = self.tool("check", "2", "100000", url=self.secure(
            sse_customer_key_file=self.customer_key("another")).replace("?", "/few?"))
        self.assertEqual(run.returncode, 1, run.stderr)
        self.history()

    def test_keys_of_the_servers_kms(self):
        """Encrypted at rest by the key that is named; one that is not there is an error."""
        self.url = self.secure(sse="aws:kms", sse_kms_key_id=radosgw.KMS_KEYS[1])
        key = self.keeps_its_promises()
        self.assert_encrypted(key)
        self.history()
        self.url = self.secure(sse="aws:kms", sse_kms_key_id="gone").replace("?", "/gone?")
        run = self.tool("fill", "1", "10")
        self.assertEqual(run.returncode, 1)
        self.assertIn("kms-keyid: gone", run.stderr)

    def policy(self, what, without=None):
        """What asof prints, set for a user who may nothing else."""
        run = asof("check", "--print-policy", what, self.url)
        self.assertEqual(run.returncode, 0, run.stderr)
        policy = json.loads(run.stdout)
        for statement in policy["Statement"]:
            statement["Action"] = [a for a in statement["Action"] if a != without]
        policy["Statement"] = [s for s in policy["Statement"] if s["Action"]]
        server.grant("granted", policy, "app")

    def test_policies(self):
        """Those that asof prints are enough, and none of what they grant is too much."""
        server.make_bucket("granted")
        server.make_user("app", "appaccesskey", "appsecretkey1234")
        self.url = server.url("granted", "/some where")
        own = {"AWS_ACCESS_KEY_ID": "appaccesskey", "AWS_SECRET_ACCESS_KEY": "appsecretkey1234"}
        self.env = {**os.environ, **own}
        works = dict.fromkeys(("write", "read", "list", "conditional write", "delete", "clock"), "ok")
        self.policy("write")
        self.assertEqual(self.check_place(0)[0], works)
        for action, lacks in (("s3:ListBucket", "list"), ("s3:PutObject", "write")):
            self.policy("write", action)
            self.assertEqual(self.check_place(1)[0][lacks], "failed", action)
        self.policy("no-delete")
        self.assertEqual(self.check_place(0)[0], {**works, "delete": "lacks"})
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db)
        r = harness.Replicator(self.db_path, self.archive, self.url,
                               prefix=["env", *(f"{k}={v}" for k, v in own.items())])
        self.addCleanup(r.close)
        r.wait_ready()
        run = asof("wait", "--dest", self.url, "--archive", self.archive, "--timeout", "60")
        self.assertEqual(run.returncode, 0, run.stderr + r.log())
        self.assertEqual(r.stop(), 0, r.log())
        self.policy("read")
        self.assertEqual(self.check_place(1)[0]["write"], "failed")
        run = asof("restore", "--latest", "-o", self.path("out.db"), "--archive", self.url,
                   "--db", NAME, env=own)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(counter_of(self.path("out.db")), 1)
        # Here a user reads what is the user's own without a grant: so of what another wrote.
        self.url = server.url("granted", "/another")
        self.env = {**os.environ, **server.credentials()}
        self.assertEqual(self.tool("fill", "1", "10").returncode, 0)
        self.env = {**os.environ, **own}
        for without, status in ((None, 0), ("s3:GetObject", 1)):
            self.policy("read", without)
            run = self.tool("check", "1", "10")
            self.assertEqual(run.returncode, status, run.stderr)

    def test_settings_of_buckets(self):
        url = "s3://trades/a?region=cn-north-1&sse=aws:kms&sse-kms-key-id=77-88"
        def printed(what, *urls):
            return json.loads(asof("check", "--print-policy", what, *urls).stdout)
        rule, = printed("encryption", url)["Rules"]
        self.assertEqual(rule["ApplyServerSideEncryptionByDefault"],
                         {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "77-88"})
        key = printed("write", url)["Statement"][-1]
        self.assertEqual(key["Resource"], "arn:aws-cn:kms:*:*:key/77-88")
        rules = printed("lifecycle", "s3://trades/a", "s3://trades/b")["Rules"]
        self.assertEqual([r["Filter"]["Prefix"] for r in rules], ["a/", "b/"])
        self.assertFalse([r for r in rules if "Expiration" in r])
        run = asof("check", "--print-policy", "lifecycle", "s3://trades", "s3://other")
        self.assert_fails(run, 2, "several", "s3://trades/")
        self.assert_fails(asof("check", "--print-policy", "all", "s3://trades"), 2, "'all' is none of")
        self.assert_fails(asof("check", "--print-policy", "read", self.dir), 2, "no bucket is named")
        config = self.path("asof.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\ndbs:\n- path: {self.db_path}\n  replicas:\n"
                    "  - url: s3://trades/x\n  - path: " + self.path("folder") + "\n"
                    f"- path: {self.db_path}2\n  replicas: [s3://trades/x, s3://elsewhere]\n")
        statements = printed("write", "--config", config)["Statement"]
        self.assertEqual([s["Resource"] for s in statements if "List" in s["Sid"]],
                         ["arn:aws:s3:::trades", "arn:aws:s3:::elsewhere"])
        self.assertNotIn("Condition", statements[3])
        self.assertEqual(len({s["Sid"] for s in statements}), 6)

    def restored(self):
        out = self.path("out.db")
        run = asof("restore", "--latest", "-o", out, "--force", "--archive", self.url, "--db", NAME,
                   env=server.credentials())
        return counter_of(out) if run.returncode == 0 else run.stderr

    def replicate_there(self):
        """`asof replicate` into the archive and into the bucket."""
        os.environ.update(server.credentials())
        self.addCleanup(lambda: [os.environ.pop(k) for k in server.credentials()])
        r = self.replicate(self.url)
        r.wait_ready()
        return r

    def test_there_and_back(self):
        """What is committed lies there; a new machine with nothing but the URL reads it."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        r = self.replicate_there()
        for n in (1, 2, 3):
            for _ in range(7):
                commit(db)
            run = asof("wait", "--dest", self.url, "--archive", self.archive, "--timeout", "60")
            self.assertEqual(run.returncode, 0, run.stderr + r.log())
            self.assertEqual(self.restored(), 7 * n)
        run = asof("log", "--archive", self.url, "--json", env=server.credentials())
        here = asof("log", "--archive", self.archive, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(run.stdout.count('"txid"'), here.stdout.count('"txid"'))
        self.assertEqual(r.stop(), 0, r.log())

    def test_repaired(self):
        """What is damaged and missing in the bucket is put back from here, and what is here from it."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        r = self.replicate_there()
        for _ in range(5):
            commit(db)
            r.wait_known()
        run = asof("wait", "--dest", self.url, "--archive", self.archive, "--timeout", "60")
        self.assertEqual(run.returncode, 0, run.stderr + r.log())
        self.assertEqual(r.stop(), 0, r.log())
        prefix = os.path.basename(self.dir) + "/local/"
        keys = [k for k in server.keys("trades", prefix) if k.endswith((".wal.gz", ".db.gz"))]
        self.assertGreaterEqual(len(keys), 2)
        for i, key in enumerate(keys):
            path = "/trades/" + urllib.parse.quote(key)
            content = bytearray(server.request("GET", path))
            content[len(content) // 2] ^= 1
            server.request("DELETE", path)
            if i > 0:
                server.request("PUT", path, bytes(content))

        def validate(place, *args):
            return asof("validate", "--history", "--archive", place, *args)
        self.assertEqual(validate(self.url).returncode, 4)
        run = validate(self.url, "--repair", "--also", self.archive)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertEqual(validate(self.url).returncode, 0)
        self.assertEqual(self.restored(), 5)
        base, = glob.glob(os.path.join(self.archive, "local", "*", "snapshot", "*.db.gz"))
        os.unlink(base)
        self.assertNotEqual(validate(self.archive).returncode, 0)
        run = validate(self.archive, "--repair", "--also", self.url)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertTrue(os.path.exists(base))
        # The writer goes on where it was, as if nothing had been.
        r = self.replicate(self.url)
        r.wait_ready()
        commit(db)
        wait_for("what is new there", lambda: self.restored() == 6, 60)
        self.assertEqual(r.stop(), 0, r.log())

    def test_without_conditional_writes(self):
        """One server ignores the condition: that is found out, told, and everything gets there."""
        self.proxy(lambda method, path, n: None, "ignore")
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        commit(db)
        r = self.replicate_there()
        wait_for("the warning", lambda: "no conditional writes there" in r.log(), 60)
        run = asof("wait", "--dest", self.url, "--archive", self.archive, "--timeout", "100")
        self.assertEqual(run.returncode, 0, run.stderr + r.log())
        self.assertEqual(self.restored(), 1)
        status = asof("status", "--archive", self.archive).stdout
        self.assertRegex(status, r"conditions +none: let one machine alone write there")
        self.assertNotIn("failing", status)
        self.assertEqual(r.stop(), 0, r.log())

    def new_key(self, n):
        key, secret = f"rotated{n}{os.getpid()}", f"rotatedsecret{n}"
        server.run("radosgw-admin", "key", "create", "--uid=test", "--key-type=s3",
                   f"--access-key={key}", f"--secret-key={secret}")
        return key, secret

    def drop_key(self, key, secret):
        server.run("radosgw-admin", "key", "rm", "--uid=test", "--key-type=s3",
                   f"--access-key={key}")
        env = {**os.environ, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        wait_for("the end of a key", lambda: "(denied)" in self.tool("check", "1", "10", env=env)
                 .stderr)

    def test_new_keys(self):
        """Keys are exchanged under a running daemon: of its configuration, and of a profile."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        first, second, third = (self.new_key(n) for n in range(3))
        profile, config = self.path("credentials"), self.path("asof.yml")

        def write_profile(key, secret):
            with open(profile + ".new", "w", encoding="ascii") as f:
                f.write(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
            os.rename(profile + ".new", profile)

        def write_config(*keys):
            with open(config, "w", encoding="utf-8") as f:
                f.write(f"archive: {self.archive}\nsocket: {self.path('sock')}\n"
                        f"http: {{listen: none}}\ndbs:\n- path: {self.db_path}\n  replicas:\n"
                        f"  - url: {self.url}\n")
                if keys:
                    f.write(f"    access-key-id: {keys[0]}\n    secret-access-key: {keys[1]}\n")

        def list_by_url(key):
            """The settings of a URL are those of its destination in ./asof.yml."""
            os.makedirs(self.path("here"), exist_ok=True)
            write_config(*key)
            shutil.copy(config, self.path("here", "asof.yml"))
            return subprocess.run([harness.ASOF, "list", "--archive", self.url], env=env, text=True,
                                  cwd=self.path("here"), timeout=100, check=False,
                                  stdin=subprocess.DEVNULL, capture_output=True)

        def commit_and_see(n, what):
            commit(db)
            wait_for(f"commit {n} there, by {what}", lambda: self.restored() == n, 60)
        write_config(*first)
        write_profile(*second)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LITESTREAM_"))}
        with open(self.path("log"), "w", encoding="utf-8") as log:
            daemon = subprocess.Popen(
                [harness.ASOF, "run", "--config", config], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**env, "AWS_SHARED_CREDENTIALS_FILE": profile})
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        commit_and_see(1, "the first key")
        self.assertEqual(list_by_url(()).returncode, 1)
        run = list_by_url(first)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(NAME, run.stdout)
        write_config()
        run = asof("reload", "--config", config,
                   env={**env, "AWS_SHARED_CREDENTIALS_FILE": profile})
        self.assertEqual(run.returncode, 0, run.stderr)
        self.drop_key(*first)
        commit_and_see(2, "the profile")
        write_profile(*third)
        self.drop_key(*second)
        commit_and_see(3, "the profile's new key")
        daemon.terminate()
        self.assertEqual(daemon.wait(60), 0)

    def test_an_outage(self):
        """The server goes away while the application writes: capture goes on, and catches up."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        r = self.replicate_there()
        commit(db)
        wait_for("the first commit there", lambda: self.restored() == 1, 60)
        server.stop_gateway()
        try:
            for _ in range(200):
                commit(db)
            r.wait_known()
            self.assertEqual(counter_of(self.restore("--latest")), 201)
        finally:
            server.start_gateway()
        wait_for("all of it there", lambda: self.restored() == 201, 100)
        self.assertEqual(r.stop(), 0, r.log())

    def test_configured(self):
        """`asof run` with a destination of type s3, as litestream.yml spells it."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        config = self.path("asof.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\nsocket: {self.path('sock')}\nhttp: {{listen: none}}\n"
                    f"dbs:\n- path: {self.db_path}\n  replicas:\n"
                    f"  - type: s3\n    bucket: trades\n    path: {os.path.basename(self.dir)}\n"
                    f"    endpoint: http://127.0.0.1:{server.port}\n    region: us-east-1\n"
                    f"    access-key-id: {radosgw.ACCESS_KEY}\n"
                    f"    secret-access-key: {radosgw.SECRET_KEY}\n")
        log = self.path("log")
        with open(log, "w", encoding="utf-8") as out:
            daemon = subprocess.Popen([harness.ASOF, "run", "--config", config],
                                      stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        for n in (1, 2):
            for _ in range(5):
                commit(db)
            wait_for(f"commit {5 * n} there", lambda n=n: self.restored() == 5 * n, 60)
        daemon.terminate()
        self.assertEqual(daemon.wait(60), 0)
        with open(log, encoding="utf-8") as f:
            self.assertNotIn(radosgw.SECRET_KEY, f.read())


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A bucket over TLS: whom asof trusts, the bucket in the host's name, proxies, customers' keys."""

import base64
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import certificates  # noqa: E402
import harness  # noqa: E402
import s3_fake  # noqa: E402
from harness import commit, counter_of, make_counter, wait_for  # noqa: E402

BUILD = os.environ.get("ASOF_BUILD") or os.path.join(harness.ROOT, "build", "release")
TOOL = os.path.join(BUILD, "tests", "synth", "store_tool")
CUSTOMER = "x-amz-server-side-encryption-customer-"


def setUpModule():
    global authority, server, named
    folder = tempfile.mkdtemp(prefix="asof-tls-")
    unittest.addModuleCleanup(shutil.rmtree, folder, ignore_errors=True)
    authority = certificates.Authority(folder)
    server = authority.sign("IP:127.0.0.1")
    named = authority.sign("DNS:bucket.localhost")


class Tls(harness.Case):
    certificate = None

    def setUp(self):
        super().setUp()
        self.serve(server)
        self.secrets = ["fixed/secret"]
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LITESTREAM_"))
                    and "proxy" not in k.lower()}
        self.env |= {"HOME": self.dir, "AWS_ACCESS_KEY_ID": "AKIAFIXED",
                     "AWS_SECRET_ACCESS_KEY": "fixed/secret", "ASOF_TEST_DEBUG": "1",
                     "ASOF_TEST_PATIENCE_MS": "20000"}

    def serve(self, certificate):
        self.s3 = s3_fake.Fake({"AKIAFIXED": s3_fake.Key("fixed/secret")}, certificate)
        self.addCleanup(self.s3.stop)

    def proxy(self):
        p = s3_fake.Tunnels()
        self.addCleanup(p.stop)
        return p

    def tool(self, url, *words):
        run = subprocess.run([TOOL, url, *words], timeout=100, check=False, text=True, env=self.env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for secret in self.secrets:
            self.assertNotIn(secret, run.stdout + run.stderr)
        return run

    def works(self, url):
        for what in ("fill", "check"):
            run = self.tool(url, what, "2", "100000")
            self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual({r.error for r in self.s3.seen()}, {None})

    def fails(self, url, *texts):
        run = self.tool(url, "fill", "1", "10")
        self.assertEqual(run.returncode, 1)
        said = [line for line in run.stderr.split("\n") if " debug " not in line and line]
        self.assertEqual(len(said), 1, run.stderr)
        for text in texts:
            self.assertIn(text, said[0])

    def test_authorities(self):
        self.works(self.s3.url("/a", ca=authority.file))
        self.env["AWS_CA_BUNDLE"] = authority.file
        self.works(self.s3.url("/b"))

    def test_whom_nobody_knows(self):
        self.fails(self.s3.url("/a"), "the server's certificate is not trusted", "ca=FILE", "(refused)")
        self.assertEqual(self.s3.seen(), [])
        self.works(self.s3.url("/a", skip_verify="yes"))

    def test_another_name(self):
        self.serve(named)
        self.fails(self.s3.url("/a", ca=authority.file), "the server's certificate is not trusted",
                   "subject name matches", "(refused)")

    def test_no_such_file(self):
        for name in ("nothing", "."):
            self.fails(self.s3.url("/a", ca=self.path(name)), "certificates of authorities", "(usage)")

    def test_bucket_in_the_name(self):
        self.serve(named)
        endpoint = f"https://localhost:{self.s3.port}"
        self.works(self.s3.url("/a", ca=authority.file, endpoint=endpoint, path_style="no"))
        self.assertEqual({r.host for r in self.s3.seen()}, {f"bucket.localhost:{self.s3.port}"})
        self.assertTrue(any(r.path.startswith("/a/objects/") for r in self.s3.seen()))

    def test_through_a_proxy(self):
        p = self.proxy()
        self.works(self.s3.url("/a", ca=authority.file, proxy=p.url))
        self.assertEqual(set(p.seen), {f"127.0.0.1:{self.s3.port}"})
        self.env["https_proxy"] = p.url
        n = len(p.seen)
        self.works(self.s3.url("/b", ca=authority.file))
        self.assertGreater(len(p.seen), n)
        n = len(p.seen)
        self.works(self.s3.url("/c", ca=authority.file, proxy="none"))
        self.env["no_proxy"] = "127.0.0.1"
        self.works(self.s3.url("/d", ca=authority.file))
        self.assertEqual(len(p.seen), n)

    def test_http_through_a_proxy(self):
        self.serve(None)
        p = self.proxy()
        self.works(self.s3.url("/a", proxy=p.url))
        self.assertTrue(p.seen)
        self.assertTrue(all(what.startswith(f"http://127.0.0.1:{self.s3.port}/") for what in p.seen))

    def test_a_password_in_a_url(self):
        self.secrets.append("proxysecret")
        self.fails(self.s3.url("/a", proxy="http://u:proxysecret@127.0.0.1:1"), "proxy=", "(usage)")

    def test_no_proxy_there(self):
        p = s3_fake.Tunnels()
        p.stop()
        self.env["ASOF_TEST_PATIENCE_MS"] = "1000"
        run = self.tool(self.s3.url("/a", ca=authority.file, proxy=p.url), "fill", "1", "10")
        self.assertIn("(unavailable)", run.stderr)

    # ---- a customer's key ----

    def customer(self, raw=False):
        key = secrets.token_bytes(32)
        text = base64.b64encode(key).decode()
        self.secrets.append(text)
        path = self.path(f"key{len(self.secrets)}")
        with open(path, "wb") as f:
            f.write(key if raw else text.encode() + b"\n")
        return path, text

    def test_a_customer_key(self):
        for raw in (False, True):
            with self.subTest(raw=raw):
                path, text = self.customer(raw)
                self.s3.requests.clear()
                self.works(self.s3.url(f"/{raw}", ca=authority.file, sse_customer_key_file=path))
                for r in self.s3.seen():
                    wanted = text if "/o " in r.path else None
                    self.assertEqual(r.headers.get(CUSTOMER + "key"), wanted, r)
        other, _ = self.customer()
        for more in ({}, {"sse_customer_key_file": other}):
            run = self.tool(self.s3.url("/True", ca=authority.file, **more), "check", "2", "100000")
            self.assertEqual(run.returncode, 1)

    def test_a_customer_key_of_parts(self):
        path, text = self.customer()
        url = self.s3.url("/a", ca=authority.file, sse_customer_key_file=path)
        for what in ("put", "whole"):
            run = self.tool(url, what, str(70 << 20))
            self.assertEqual(run.returncode, 0, run.stderr)
        asked = [(r.method, "partNumber" in r.query, r.headers.get(CUSTOMER + "key") == text)
                 for r in self.s3.seen() if "uploads" in r.query or "uploadId" in r.query]
        self.assertEqual(asked, [("POST", False, True)] + [("PUT", True, True)] * 5 +
                         [("POST", False, False), ("GET", False, False)])

    def test_a_customer_key_that_is_none(self):
        path, _ = self.customer()
        self.fails(f"s3://bucket/a?endpoint=http://127.0.0.1:1&sse-customer-key-file={path}",
                   "https only", "(usage)")
        with open(path, "w", encoding="ascii") as f:
            f.write("short")
        self.fails(self.s3.url("/a", sse_customer_key_file=path), path, "no key of 32 bytes", "(usage)")
        self.fails(self.s3.url("/a", sse_customer_key_file=self.path("gone")), "gone", "(not-found)")
        self.assertEqual(self.s3.seen(), [])

    def test_configured(self):
        """`asof run` by the file's ca-file, proxy and sse-customer-key."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        p = self.proxy()
        path, text = self.customer()
        with open(self.path("asof.yml"), "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\nsocket: {self.path('sock')}\nhttp: {{listen: none}}\n"
                    f"log: {{level: debug}}\ndbs:\n- path: {self.db_path}\n  replicas:\n"
                    "  - type: s3\n    bucket: bucket\n    path: a\n    region: us-east-1\n"
                    f"    endpoint: https://127.0.0.1:{self.s3.port}\n    ca-file: {authority.file}\n"
                    f"    proxy: {p.url.replace('//', '//user:proxysecret@')}\n"
                    f"    sse-customer-algorithm: AES256\n    sse-customer-key: {text}\n")
        self.secrets.append("proxysecret")
        log = open(self.path("log"), "w", encoding="utf-8")
        self.addCleanup(log.close)
        daemon = subprocess.Popen([harness.ASOF, "run", "--config", self.path("asof.yml")],
                                  env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        commit(db)
        out = self.path("out.db")
        url = self.s3.url("/a", ca=authority.file, sse_customer_key_file=path)

        def restored():
            run = subprocess.run([harness.ASOF, "restore", "--latest", "-o", out, "--force",
                                  "--archive", url, "--db", "trades.db"], env=self.env, timeout=60,
                                 check=False, stdin=subprocess.DEVNULL, capture_output=True)
            return run.returncode == 0 and counter_of(out) == 1

        wait_for("the commit there", restored)
        run = subprocess.run([harness.ASOF, "status", "--config", self.path("asof.yml"), "--json"],
                             env=self.env, timeout=60, check=False, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        daemon.terminate()
        self.assertEqual(daemon.wait(60), 0)
        self.assertTrue(p.seen)
        with open(self.path("log"), encoding="utf-8") as f:
            said = run.stdout + f.read()
        for secret in self.secrets:
            self.assertNotIn(secret, said)


if __name__ == "__main__":
    unittest.main()

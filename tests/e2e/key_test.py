#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Encrypted archives: asof key, and the decryptor that engine/FORMAT.md prints."""
# runner: timeout=300 asan

import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import asof, asof_json, commit, make_counter  # noqa: E402

SEAL = os.path.join(os.environ.get("ASOF_BUILD") or os.path.join(harness.ROOT, "build", "release"),
                    "tests", "synth", "seal_tree")


def the_decryptor():
    with open(os.path.join(harness.ROOT, "engine", "FORMAT.md"), encoding="utf-8") as f:
        blocks = re.findall(r"^```python\n(.*?)^```$", f.read(), re.S | re.M)
    if len(blocks) != 1:
        raise AssertionError(f"FORMAT.md has not one decryptor but {len(blocks)}")
    return blocks[0]


def tree(folder):
    """Name -> content of every file below."""
    found = {}
    for where, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(where, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, folder)] = f.read()
    return found


class Sealed(harness.Case):
    def setUp(self):
        super().setUp()
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        for _ in range(30):
            commit(db, n_rows=20)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.key = self.generate("me")
        self.sealed = self.path("sealed")
        subprocess.run([SEAL, self.archive, self.sealed, self.key], check=True, timeout=60)
        self.script = self.path("decrypt.py")
        with open(self.script, "w", encoding="utf-8") as f:
            f.write(the_decryptor())

    def generate(self, name):
        path = self.path(name)
        run = asof("key", "generate", path)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(run.stdout, r"^asofpub1:[A-Za-z0-9+/=]{44}\n$")
        return path

    def public(self, key):
        return asof("key", "show", key).stdout.strip()

    def decrypt(self, key, folder=None):
        out = self.path("plain")
        shutil.rmtree(out, ignore_errors=True)
        run = subprocess.run([sys.executable, self.script, key, folder or self.sealed, out],
                             check=False, timeout=60, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        return run, out

    def test_the_decryptor(self):
        run, out = self.decrypt(self.key)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(tree(out), tree(self.archive))

    def test_nothing_shows(self):
        """No piece of what was archived is among what lies there."""
        plain, sealed = tree(self.archive), tree(self.sealed)
        self.assertEqual(set(plain), {n for n in sealed if not n.startswith("keys/")})
        everything = b"".join(sealed.values())
        for name, content in plain.items():
            for at in range(0, len(content) - 16, 997):
                self.assertNotIn(content[at:at + 16], everything, name)

    def test_alteration(self):
        for name, content in tree(self.sealed).items():
            for at in {0, 20, 40, 60, 70, len(content) // 2, len(content) - 20}:
                changed = bytearray(content)
                changed[at] ^= 4
                with open(os.path.join(self.sealed, name), "wb") as f:
                    f.write(changed)
                run, _ = self.decrypt(self.key)
                self.assertNotEqual(run.returncode, 0, f"{name} at {at}")
            with open(os.path.join(self.sealed, name), "wb") as f:
                f.write(content)
        self.assertEqual(self.decrypt(self.key)[0].returncode, 0)

    def test_recipients(self):
        """Who is added reads what was there and what comes; who is taken away, not what comes."""
        other = self.generate("other")
        words = ("--archive", self.sealed, "--key-file", self.key)
        self.assertNotEqual(self.decrypt(other)[0].returncode, 0)
        self.assert_fails(asof("key", "list", "--archive", self.sealed, "--key-file", other), 1,
                          "is not for asofpub1:")
        run = asof("key", "add", self.public(other), *words)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assert_fails(asof("key", "list", "--archive", self.sealed, "--key-file", other), 1,
                          f"trust {self.public(self.key)}")
        with open(other, "a", encoding="ascii") as f:
            f.write(f"trust {self.public(self.key)}\n")
        listed = asof_json("key", "list", "--archive", self.sealed, "--key-file", other)
        self.assertEqual(listed["recipients"], [self.public(self.key), self.public(other)])
        self.assertEqual(listed["keys"], 1)
        self.assertEqual(self.decrypt(other)[0].returncode, 0)
        self.assertEqual(asof("key", "rotate", *words).returncode, 0)
        run = asof("key", "remove", self.public(other), *words)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("keys       3", run.stdout)
        subprocess.run([SEAL, self.archive, self.sealed, self.key], check=True, timeout=60)
        self.assertNotEqual(self.decrypt(other)[0].returncode, 0)
        run, out = self.decrypt(self.key)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(tree(out), tree(self.archive))

    def test_read_through_asof(self):
        """An encrypted copy of an archive is read as the archive itself."""
        want, got = self.path("want.db"), self.path("got.db")
        self.assertEqual(asof("restore", "--latest", "-o", want, "--archive",
                              self.archive).returncode, 0)
        run = asof("restore", "--latest", "-o", got, "--archive", self.sealed,
                   env={**os.environ, "ASOF_KEY_FILE": self.key})
        self.assertEqual(run.returncode, 0, run.stderr)
        with open(want, "rb") as a, open(got, "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_wrong_words(self):
        for words in ([], ["make"], ["generate"], ["add"], ["add", "x", "y"], ["list", "x"],
                      ["show"], ["list", "--key-file", "a", "--key-command", "b"]):
            self.assertEqual(asof("key", *words).returncode, 2, words)
        words = ("--archive", self.sealed, "--key-file", self.key)
        self.assert_fails(asof("key", "generate", self.key), 1, "there already")
        self.assert_fails(asof("key", "list", "--archive", self.archive, "--key-file", self.key), 3,
                          "not encrypted")
        self.assert_fails(asof("key", "add", "asofkey1:secret", *words), 2, "no public key")
        self.assert_fails(asof("key", "remove", self.public(self.key), *words), 1)
        self.assert_fails(asof("key", "add", self.public(self.key), *words), 1, "already")
        self.assert_fails(asof("key", "list", "--archive", self.sealed, "--key-file", "/none"), 3,
                          "/none")


if __name__ == "__main__":
    unittest.main()

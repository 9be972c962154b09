#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libasofvfs.so in the plain sqlite3 program: past states by URI, two at once, read-only."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness

LIBRARY = os.path.join(os.path.dirname(harness.ASOF), "extension", "libasofvfs")


class Extension(harness.Case):
    def setUp(self):
        super().setUp()
        if not os.path.exists(LIBRARY + ".so"):
            raise unittest.SkipTest("built without the extension")
        db = self.open_db()
        harness.make_counter(db)
        r = self.replicate()
        self.first = r.wait_ready()["last_txid"]
        for _ in range(5):
            harness.commit(db)
        r.wait_known()
        self.last = r.status()["last_txid"]
        r.stop()

    def sqlite(self, *lines, env=None):
        script = "\n".join((f".load {LIBRARY}", *lines)) + "\n"
        return subprocess.run(["sqlite3"], input=script, text=True, check=False, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, **(env or {})})

    def uri(self, which="", archive=True):
        archive = f"&archive={self.archive}" if archive else ""
        return f"file:trades.db?vfs=asof{archive}{which}"

    def test_moments(self):
        first, last = self.uri(f"&tx={self.first}"), self.uri("&at=now")
        run = self.sqlite(f".open '{first}'", "SELECT n FROM counter;", f"ATTACH '{last}' AS new;",
                          "SELECT n FROM new.counter;", "PRAGMA integrity_check;",
                          f".open '{self.uri()}'", "SELECT n FROM counter;", "DELETE FROM counter;")
        self.assertEqual(run.stdout.split(), ["0", "5", "ok", "5"], run.stderr)
        self.assertIn("readonly", run.stderr)
        run = self.sqlite(f".open '{self.uri(archive=False)}'", "SELECT n FROM counter;",
                          env={"ASOF_ARCHIVE": self.archive})
        self.assertEqual(run.stdout.split(), ["5"], run.stderr)

    def test_not_there(self):
        for which in ("&tx=999", "&at=2001-01-01", "&at=soon", "&tx=1&at=now", "&archive=/nix"):
            with self.subTest(which):
                run = self.sqlite(f".open '{self.uri(which, archive='/nix' not in which)}'",
                                  "SELECT n FROM counter;")
                self.assertEqual(run.stdout, "")
                self.assertIn("unable to open", run.stderr)


if __name__ == "__main__":
    harness.main()

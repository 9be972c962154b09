#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=900
"""tools/quickstart, as a newcomer runs it: twice, and stopped."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402


class Quickstart(harness.Case):
    def setUp(self):
        super().setUp()
        harness.need_fuse()
        self.state = self.path("state")
        self.addCleanup(self.quickstart, "clean")

    def quickstart(self, *args):
        return subprocess.run(
            [os.path.join(harness.ROOT, "tools", "quickstart"), *args],
            env={**os.environ, "ASOF_QUICKSTART_DIR": self.state}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    def pids(self):
        found = []
        for name in ("application", "replicate"):
            with open(os.path.join(self.state, name + ".pid"), encoding="ascii") as f:
                found.append(int(f.read()))
        return found

    def running(self, pids):
        """A process that nobody has waited for yet has no command line any more."""
        found = []
        for pid in pids:
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8") as f:
                    found += [pid] if f.read() else []
            except FileNotFoundError:
                pass
        return found

    def check_shown(self, run):
        self.assertEqual(run.returncode, 0, run.stdout)
        counts = [int(n) for n in re.findall(r"count\(\*\) FROM trades'\n(\d+)$", run.stdout, re.M)]
        self.assertEqual(len(counts), 3, run.stdout)
        self.assertTrue(0 < counts[0] < counts[1] < counts[2], counts)
        self.assertIn(f"\nok\n{counts[1]}\n", run.stdout)
        self.assertIn("README", run.stdout)
        self.assertTrue(os.path.ismount(os.path.join(self.state, "mnt")))
        return self.pids()

    def test_twice(self):
        first = self.check_shown(self.quickstart())
        second = self.check_shown(self.quickstart())
        self.assertFalse(set(first) & set(second))
        self.assertEqual(self.running(first), [])
        run = self.quickstart("stop")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertEqual(self.running(second), [])
        self.assertFalse(os.path.ismount(os.path.join(self.state, "mnt")))
        status, = harness.asof_json("status", "--archive",
                                    os.path.join(self.state, "archive"))["databases"]
        self.assertEqual(status["gap_count"], 0)

    def test_wrong_usage(self):
        run = self.quickstart("frobnicate")
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stdout, r"\Aquickstart: [^\n]*frobnicate[^\n]*\n\Z")


if __name__ == "__main__":
    harness.main()

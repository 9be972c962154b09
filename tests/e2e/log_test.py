#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`log:` of the configuration: what asof run writes, where, and how it changes with SIGHUP."""

import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness


class Logs(harness.Case):
    def config(self, log):
        path = self.path("asof.yml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\n{log}databases:\n  - path: {self.db_path}\n")
        return path

    def start(self, log):
        stderr = open(self.path("stderr"), "wb")
        self.addCleanup(stderr.close)
        process = subprocess.Popen([harness.ASOF, "run", "--config", self.config(log)],
                                   stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def text(self, name):
        try:
            with open(self.path(name), encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def setUp(self):
        super().setUp()
        db = self.open_db()
        harness.make_counter(db)
        db.close()

    def test_json_on_standard_error(self):
        process = self.start("log: {format: json, level: debug}\n")
        harness.wait_for("a snapshot", lambda: "first snapshot" in self.text("stderr"))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        lines = [json.loads(line) for line in self.text("stderr").splitlines()]
        self.assertGreater(len(lines), 3)
        for line in lines:
            self.assertEqual(list(line), ["time", "level", "module", "message"])
            self.assertIn(line["level"], ("error", "warn", "info", "debug"))

    def test_a_file_that_bounds_itself(self):
        """Reloaded again and again it says so each time; the file never passes its bound."""
        process = self.start("log: {file: asof.log, max-size: 4K, keep: 2}\n")
        harness.wait_for("a snapshot", lambda: "first snapshot" in self.text("asof.log"))
        reloads = 0
        while not self.text("asof.log.2") and reloads < 500:
            reloads += 1
            size = os.path.getsize(self.path("asof.log"))
            process.send_signal(signal.SIGHUP)
            harness.wait_for("a line", lambda: os.path.getsize(self.path("asof.log")) != size)
        self.assertTrue(self.text("asof.log.2"))
        for name in ("asof.log", "asof.log.1", "asof.log.2"):
            self.assertLessEqual(os.path.getsize(self.path(name)), 4096)
        self.assertEqual(self.text("stderr"), "")
        # Another file, and another format, with the next SIGHUP.
        self.config("log: {file: other.log, format: json}\n")
        process.send_signal(signal.SIGHUP)
        harness.wait_for("the other file", lambda: self.text("other.log"))
        for line in self.text("other.log").splitlines():
            json.loads(line)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        self.assertIn("stopping", self.text("other.log"))


if __name__ == "__main__":
    harness.main()

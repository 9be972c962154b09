#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""The dashboard: right by Grafana's own schema, and every query of it answers from a live Prometheus
that scrapes a live asof under load."""

import json
import os
import re
import sys
import threading
import unittest

import jsonschema
import yaml

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ROOT, asof, wait_for  # noqa: E402
from observed import Daemon, free_port  # noqa: E402
from prometheus import DEPLOY, Prometheus, metric_names  # noqa: E402
from receivers import HookServer  # noqa: E402

DASHBOARD = os.path.join(DEPLOY, "grafana", "dashboards", "asof.json")
SCHEMA = os.path.join(ROOT, "tests", "data", "grafana", "dashboard.schema.json")


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def expand(expr):
    """Grafana's variables as "All", and an interval."""
    text = expr.replace("$__rate_interval", "30s").replace("$__range", "1h")
    text = re.sub(r"\$(instance|db)\b", ".*", text)
    if "$" in text:
        raise AssertionError(f"a variable that is not known: {expr}")
    return text


class Dashboard(unittest.TestCase):
    def setUp(self):
        self.dashboard = load(DASHBOARD)
        self.validator = jsonschema.Draft7Validator(load(SCHEMA))

    def errors(self, dashboard):
        return [f"{list(e.absolute_path)}: {e.message[:200]}"
                for e in self.validator.iter_errors(dashboard)]

    def test_schema(self):
        self.assertEqual(self.errors(self.dashboard), [])

    def test_schema_would_tell(self):
        """What it is trusted to find, it does find."""
        def broken(change):
            copy = load(DASHBOARD)
            change(copy)
            return self.errors(copy)
        self.assertTrue(broken(lambda d: d.pop("schemaVersion")))
        self.assertTrue(broken(lambda d: d.update(schemaVersion="39")))
        self.assertTrue(broken(lambda d: d.update(titel="x")))
        self.assertTrue(broken(lambda d: d["panels"][1].pop("type")))
        self.assertTrue(broken(lambda d: d["panels"][1]["gridPos"].update(w="8")))
        self.assertTrue(broken(lambda d: d["panels"][1]["fieldConfig"]["defaults"].update(unitt="s")))
        self.assertTrue(broken(lambda d: d["templating"]["list"][1].update(hide=7)))

    def test_layout(self):
        """Ids are unique, panels do not overlap, each says what it is."""
        panels = self.dashboard["panels"]
        self.assertEqual(len({p["id"] for p in panels}), len(panels))
        taken = set()
        for p in panels:
            g = p["gridPos"]
            self.assertLessEqual(g["x"] + g["w"], 24)
            cells = {(x, y) for x in range(g["x"], g["x"] + g["w"])
                     for y in range(g["y"], g["y"] + g["h"])}
            self.assertFalse(cells & taken, p["title"])
            taken |= cells
            self.assertTrue(p["title"])
            if p["type"] != "row":
                self.assertTrue(p["fieldConfig"]["defaults"]["unit"])
                self.assertEqual({t["datasource"]["uid"] for t in p["targets"]}, {"${datasource}"})
        rows = [p["title"] for p in panels if p["type"] == "row"]
        self.assertEqual(len(rows), 7)

    def test_provisioning(self):
        folder = os.path.join(DEPLOY, "grafana", "provisioning")
        with open(os.path.join(folder, "datasources", "prometheus.yml"), encoding="utf-8") as f:
            source, = yaml.safe_load(f)["datasources"]
        # The old stack's name and address: what users made with it goes on working.
        self.assertEqual((source["name"], source["url"], source["type"]),
                         ("Prometheus", "http://prometheus:9090", "prometheus"))
        with open(os.path.join(folder, "dashboards", "asof.yml"), encoding="utf-8") as f:
            provider, = yaml.safe_load(f)["providers"]
        self.assertEqual((provider["type"], provider["options"]["path"]),
                         ("file", "/var/lib/grafana/dashboards"))


class Live(harness.Case):
    def setUp(self):
        super().setUp()
        self.hooks = HookServer()
        self.addCleanup(self.hooks.close)
        os.mkdir(self.archive)
        self.db = self.open_db()
        harness.make_counter(self.db)
        second = self.path("second")
        self.daemon = Daemon(self, f"""\
archive: {self.archive}
dbs:
  - path: {self.db_path}
    verify: {{local: every 5s, full: every 10s}}
    destinations: [{{name: second, path: {second}, verify: every 5s}}]
  - path: {self.path('second.db')}
backups:
  schedules: [{{name: often, every: 5s}}]
alerts: {{for: 1s, webhook: 'http://127.0.0.1:{self.hooks.port}/'}}
""", f"127.0.0.1:{free_port()}")

    def load(self, stop):
        while not stop.wait(0.005):
            harness.commit(self.db, 5)

    def queries(self):
        for panel in load(DASHBOARD)["panels"]:
            for target in panel.get("targets", []):
                yield panel["title"], expand(target["expr"])

    def unanswered(self, server):
        found = []
        for title, expr in self.queries():
            try:
                if not server.query(expr):
                    found.append((title, expr))
            except OSError as e:
                raise AssertionError(f"{title}: {expr}: {e}") from None
        return found

    def test_every_query_answers(self):
        server = Prometheus(self, [self.daemon.listen])
        stop = threading.Event()
        writer = threading.Thread(target=self.load, args=(stop,))
        writer.start()
        try:
            self.daemon.wait_listening()
            run = asof("backup", "--config", self.daemon.config, "--type", "manual", timeout=120)
            self.assertEqual(run.returncode, 0, run.stderr)
            wait_for("every query to answer", lambda: not self.unanswered(server), 150)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.unanswered(server)}\n{self.daemon.log()}") from None
        finally:
            stop.set()
            writer.join()
        # What is drawn is what happened: it was written, and it is stored.
        (_, rate), = server.query('rate(asof_commits_total{db=~".*trades.db"}[30s])')
        self.assertGreater(rate, 1)
        (_, size), = server.query('litestream_db_size{db=~".*trades.db"}')
        self.assertGreater(size, 4096)

    def test_metrics_of_the_dashboard_are_served(self):
        """By name, without waiting for values."""
        self.daemon.wait_listening()
        served = set(re.findall(r"^# TYPE (\w+) ", self.daemon.ask("/metrics").text, re.M))
        used = set().union(*(metric_names(expr) for _, expr in self.queries()))
        self.assertGreater(len(used), 30)
        self.assertEqual(sorted(used - served), [])
        rules = load_rules()
        self.assertEqual(sorted(set().union(*map(metric_names, rules)) - served), [])


def load_rules():
    with open(os.path.join(DEPLOY, "prometheus", "asof.rules.yml"), encoding="utf-8") as f:
        return [r["expr"] for g in yaml.safe_load(f)["groups"] for r in g["rules"]]


if __name__ == "__main__":
    harness.main()

# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus and a real Alertmanager on loopback, with the files of tools/deploy.

The files are used as they are but for addresses and intervals, which are replaced in copies.
"""

import json
import os
import re
import shutil
import subprocess
import unittest
import urllib.parse
import urllib.request

import harness
import observed
import yaml

DEPLOY = os.path.join(harness.ROOT, "tools", "deploy")
QUICK = "1s"
# Limits that a test would wait for; promtool's tests have the true ones.
SOONER = {"asof_captured_age_seconds > 60": "asof_captured_age_seconds > 20"}


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise unittest.SkipTest(f"no {program} here")


def load_yaml(*parts):
    with open(os.path.join(DEPLOY, *parts), encoding="utf-8") as f:
        return yaml.safe_load(f)


class Program:
    """One that listens on loopback, ended with the test."""

    def __init__(self, case, name, arguments):
        self.log_path = case.path(name + ".log")
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([name, *arguments], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=case.dir)
        case.addCleanup(self.close)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def close(self):
        self.process.kill()
        self.process.wait()

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(query, doseq=True)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read()

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(self.log())
            try:
                return self.get("/-/ready") or True
            except OSError:
                return None
        harness.wait_for("a server", ready)


class Alertmanager(Program):
    """Its webhook goes to `url`, and so does what it would mail."""

    def __init__(self, case, url):
        need("prometheus-alertmanager")
        self.port = observed.free_port()
        config = load_yaml("alertmanager", "alertmanager.yml")
        config["global"] = {}
        for receiver in config["receivers"]:
            receiver.pop("email_configs", None)
            receiver["webhook_configs"] = [{"url": f"{url}/{receiver['name']}", "send_resolved": True}]
        for route in (config["route"], *config["route"]["routes"]):
            route.update(group_wait=QUICK, group_interval=QUICK, repeat_interval="1h")
        path = case.path("alertmanager.yml")
        with open(path, "w", encoding="utf-8") as f:
            yaml.safe_dump(config, f)
        super().__init__(case, "prometheus-alertmanager", [
            f"--config.file={path}", f"--storage.path={case.path('alertmanager')}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="])
        self.wait_ready()


class Prometheus(Program):
    """Scrapes those asofs, by the rules with every `for` at a second."""

    def __init__(self, case, targets, alertmanager=None):
        need("prometheus")
        self.port = observed.free_port()
        config = load_yaml("prometheus", "prometheus.yml")
        config["global"].update(scrape_interval=QUICK, scrape_timeout=QUICK,
                                evaluation_interval=QUICK)
        config["scrape_configs"] = [s for s in config["scrape_configs"] if s["job_name"] == "asof"]
        # asof answers within 5 s, whatever hangs.
        config["scrape_configs"][0].update(static_configs=[{"targets": targets}],
                                           scrape_interval="6s", scrape_timeout="6s")
        config["alerting"] = {"alertmanagers": [{"static_configs": [
            {"targets": [f"127.0.0.1:{alertmanager.port}"]}]}]} if alertmanager else {}
        rules = load_yaml("prometheus", "asof.rules.yml")
        for rule in rules["groups"][0]["rules"]:
            if "for" in rule:
                rule["for"] = QUICK
            for slow, quick in SOONER.items():
                rule["expr"] = rule["expr"].replace(slow, quick)
        for name, content in (("prometheus.yml", config), ("asof.rules.yml", rules)):
            with open(case.path(name), "w", encoding="utf-8") as f:
                yaml.safe_dump(content, f)
        super().__init__(case, "prometheus", [
            f"--config.file={case.path('prometheus.yml')}",
            f"--storage.tsdb.path={case.path('tsdb')}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"])
        self.wait_ready()

    def query(self, expr):
        """Samples: [(labels, value)]."""
        answer = json.loads(self.get("/api/v1/query", query=expr))
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(s["metric"], float(s["value"][1])) for s in data["result"]]

    def firing(self):
        """(name, instance) of each alert."""
        return {(labels["alertname"], labels.get("instance"))
                for labels, _ in self.query('ALERTS{alertstate="firing"}')}


def metric_names(expr):
    """The names of metrics in an expression."""
    return set(re.findall(r"\b(?:asof|litestream|backup)_[a-z_]+", expr))

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300
"""The production stack: the compose file is valid and has not the old one's faults, and its very
configuration files run as processes on loopback: asof by asof.production.yml and .env.backup,
Prometheus and Alertmanager by theirs, but for the names of hosts."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import radosgw  # noqa: E402
import receivers  # noqa: E402

DEPLOY = os.path.join(harness.ROOT, "tools", "deploy")
COMPOSE = "docker-compose.production.yml"
OLD_PORTS = {"app": {5000}, "asof": {8080}, "prometheus": {9090}, "alertmanager": {9093},
             "grafana": {3000}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url):
    """Status and text; None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
    except OSError:
        return None, ""


class Compose(harness.Case):
    def setUp(self):
        super().setUp()
        if not shutil.which("docker-compose"):
            self.skipTest("docker-compose is missing")
        self.folder = self.path("deploy")
        shutil.copytree(DEPLOY, self.folder)
        with open(os.path.join(self.folder, ".env.backup.template"), encoding="utf-8") as f:
            self.env = f.read().replace("GRAFANA_PASSWORD=\n", "GRAFANA_PASSWORD=secret\n")
        self.write(".env.backup", self.env)

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as f:
            f.write(text)

    def compose(self, *args, env_file=True):
        option = ["--env-file", ".env.backup"] if env_file else []
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LC_ALL", "TMPDIR")}
        return subprocess.run(["docker-compose", *option, "-f", COMPOSE, *args], cwd=self.folder,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=180, check=False, env=env)

    def test_is_valid(self):
        run = self.compose("config", "-q")
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)

    def test_services_names_and_ports(self):
        run = self.compose("config", "--services")
        self.assertEqual(set(run.stdout.split()), set(OLD_PORTS) | {"redis"})
        text = self.compose("config").stdout
        for service, ports in OLD_PORTS.items():
            name = "litestream" if service == "asof" else service
            self.assertIn(f"container_name: futurestradinglog-{name}\n", text)
            for port in ports:
                self.assertRegex(text, rf":{port}(/tcp)?\b")
        # All but the application is published on this machine alone.
        published = re.findall(r"- (?:(\S+):)?(\d+):(\d+)(?:/tcp)?$", text, re.M)
        self.assertEqual({p[2] for p in published if p[0] != "127.0.0.1"}, {"5000"})

    def test_a_variable_that_is_missing_is_said(self):
        for env, env_file in ((self.env, False),
                              (self.env.replace("GRAFANA_PASSWORD=secret\n", ""), True)):
            self.write(".env.backup", env)
            run = self.compose("config", "-q", env_file=env_file)
            self.assertNotEqual(run.returncode, 0)
            self.assertIn(".env.backup", run.stderr)

    def test_a_fault_is_found(self):
        """The tool does look."""
        with open(os.path.join(self.folder, COMPOSE), encoding="utf-8") as f:
            text = f.read()
        for old, new in (("restart: unless-stopped", "restarts: unless-stopped"),
                         ("depends_on: [prometheus]", "depends_on: [prometheuz]"),
                         ("prometheus-data:/prometheus", "prometheus-dat:/prometheus")):
            self.assertIn(old, text)
            self.write(COMPOSE, text.replace(old, new, 1))
            self.assertNotEqual(self.compose("config", "-q").returncode, 0, new)

    def test_the_old_faults_are_gone(self):
        with open(os.path.join(self.folder, COMPOSE), encoding="utf-8") as f:
            text = f.read()
        # What is mounted from beside the file is there.
        mounted = re.findall(r"- (\./[^:\s]+):", text)
        self.assertTrue(mounted)
        for path in mounted:
            self.assertTrue(os.path.exists(os.path.join(DEPLOY, path)), path)
        self.assertTrue(os.path.exists(os.path.join(DEPLOY, "../..", "meson.build")))
        # .env.backup is loaded by those who need it; asof waits for nobody.
        services = re.split(r"^  (\w+):$", text.split("\nservices:\n")[1].split("\nnetworks:")[0],
                            flags=re.M)
        services = dict(zip(services[1::2], services[2::2]))
        for name in ("app", "asof"):
            self.assertIn("env_file: .env.backup", services[name])
        self.assertNotIn("depends_on", services["asof"])
        # A mount made inside is seen outside.
        self.assertIn("propagation: rshared", services["asof"])
        self.assertIn("/dev/fuse", services["asof"])

    def test_the_template_has_every_variable(self):
        with open(os.path.join(harness.ROOT, "tests", "data", "old-system", ".env.backup"),
                  encoding="utf-8") as f:
            old = set(re.findall(r"^([A-Z0-9_]+)=", f.read(), re.M))
        new = set(re.findall(r"^([A-Z0-9_]+)=", self.env, re.M))
        # The configuration is asof.yml now; what else there was had no effect.
        gone = {"LITESTREAM_ENABLED", "LITESTREAM_CONFIG", "BACKUP_DEBUG", "BACKUP_TEST_MODE",
                "MAX_BACKUP_SIZE"}
        self.assertEqual(old - new, gone)


class Image(harness.Case):
    """The Dockerfile, as far as it can be held to account where nothing builds images."""

    def setUp(self):
        super().setUp()
        with open(os.path.join(DEPLOY, "Dockerfile"), encoding="utf-8") as f:
            text = re.sub(r"^#.*\n", "", f.read(), flags=re.M).replace("\\\n", " ")
        self.steps = [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]

    def stages(self):
        """Their steps, by name ("" the last)."""
        out = {}
        for word, rest in self.steps:
            if word == "FROM":
                _, _, name = rest.partition(" AS ")
                out[name] = []
            out[name].append((word, rest))
        return out

    def test_form(self):
        known = {"FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "EXPOSE", "HEALTHCHECK",
                 "STOPSIGNAL", "ENTRYPOINT", "CMD"}
        self.assertEqual({word for word, _ in self.steps} - known, set())
        stages = self.stages()
        self.assertEqual(list(stages), ["build", ""])
        for word, rest in self.steps:
            if word == "FROM":
                self.assertRegex(rest, r"^[\w/.-]+:(?!latest)[\w.-]+( AS \w+)?$")
            if word in ("ENTRYPOINT", "CMD"):
                self.assertTrue(json.loads(rest))
            if word == "COPY" and rest.startswith("--from="):
                self.assertIn(re.match(r"--from=(\w+) ", rest)[1], stages)
            if word == "RUN":  # a shell can read it
                self.assertEqual(subprocess.run(["sh", "-n", "-c", rest], check=False).returncode, 0)
        last = stages[""]
        self.assertEqual([rest for word, rest in last if word == "USER"], ["asof"])
        self.assertEqual(sum(word == "HEALTHCHECK" for word, _ in last), 1)
        # Small: lists and the package itself do not stay.
        installs = [rest for word, rest in last if word == "RUN" and "apt-get install" in rest]
        for rest in installs:
            self.assertIn("--no-install-recommends", rest)
            self.assertIn("rm -rf /tmp/asof /var/lib/apt/lists/*", rest)

    def test_has_what_the_build_needs(self):
        """By pkg-config and dpkg of this machine, which has built it: the same for the package."""
        if not shutil.which("dpkg"):
            self.skipTest("no dpkg")
        build = next(r for w, r in self.stages()["build"] if w == "RUN" and "install" in r)
        with open(os.path.join(DEPLOY, "debian", "control"), encoding="utf-8") as f:
            depends = re.search(r"^Build-Depends: (.*(?:\n .*)*)", f.read(), re.M)[1]
        packages = set(re.split(r",\s*", depends))
        self.assertEqual(packages - set(build.split()), set())
        for folder in ("", "engine", "fs", "tools"):
            with open(os.path.join(harness.ROOT, folder, "meson.build"), encoding="utf-8") as f:
                names = set(re.findall(r"dependency\('([\w.+-]+)'", f.read())) - {"threads"}
            for name in names:
                at = subprocess.run(["pkg-config", "--variable=pcfiledir", name], check=True,
                                    stdout=subprocess.PIPE, text=True).stdout.strip()
                owner = subprocess.run(["dpkg", "-S", f"{at}/{name}.pc"], check=False,
                                       stdout=subprocess.PIPE, text=True).stdout.split(":")[0]
                if owner:
                    self.assertIn(owner, packages, f"{name}: Build-Depends, Dockerfile")


class Processes(harness.Case):
    """What docker compose would start, on loopback."""

    def setUp(self):
        super().setUp()
        self.ports = {name: free_port() for name in
                      ("health", "metrics", "prometheus", "alertmanager")}
        for name in ("data/db", "backups", "mnt", "prometheus", "alertmanager"):
            os.makedirs(self.path(name))
        db = self.open_db(self.path("data", "db", "futures_trades.db"))
        harness.make_counter(db)
        harness.commit(db)
        self.db = db
        shutil.copy(os.path.join(DEPLOY, "asof.production.yml"), self.path("asof.yml"))
        with open(os.path.join(DEPLOY, ".env.backup.template"), encoding="utf-8") as f:
            text = f.read()
        text = text.replace("DATA_DIR=./data", f"DATA_DIR={self.path('data')}")
        text = text.replace("BACKUP_DIR=./backups", f"BACKUP_DIR={self.path('backups')}")
        with open(self.path(".env.backup"), "w", encoding="utf-8") as f:
            f.write(text + f"ASOF_HEALTH=127.0.0.1:{self.ports['health']}\n"
                    f"ASOF_METRICS=127.0.0.1:{self.ports['metrics']}\n"
                    f"ASOF_MOUNT_INSIDE={self.path('mnt')}\n")

    def start(self, name, *command):
        log = open(self.path(name + ".log"), "wb")
        self.addCleanup(log.close)
        env = {k: v for k, v in os.environ.items() if k not in ("DATA_DIR", "BACKUP_DIR")}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=env, cwd=self.dir)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def log(self, name):
        with open(self.path(name + ".log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def until(self, what, name, condition):
        try:
            return harness.wait_for(what, condition, 120)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log(name)[-3000:]}") from None

    def destination(self):
        """What /health says of the bucket."""
        checks = json.loads(get(f"http://127.0.0.1:{self.ports['health']}/health")[1])["checks"]
        return next(c for c in checks if c["subject"] == "destination")

    def start_asof(self):
        asof = self.start("asof", harness.ASOF, "run", "--config", self.path("asof.yml"))
        health = f"http://127.0.0.1:{self.ports['health']}/health"
        self.until("health", "asof", lambda: get(health)[0] == 200)
        return asof

    def test_bucket(self):
        """Its keys in .env.backup are all that it takes."""
        server = radosgw.RadosGateway(self.path("s3"))
        self.addCleanup(server.stop)
        server.start()
        server.make_bucket("futures")
        with open(self.path(".env.backup"), encoding="utf-8") as f:
            text = f.read()
        for name, value in {"BACKUP_S3_BUCKET": "futures",
                            "BACKUP_S3_ENDPOINT": f"http://127.0.0.1:{server.port}",
                            "AWS_ACCESS_KEY_ID": radosgw.ACCESS_KEY,
                            "AWS_SECRET_ACCESS_KEY": radosgw.SECRET_KEY}.items():
            self.assertIn(f"\n{name}=\n", text)
            text = text.replace(f"\n{name}=\n", f"\n{name}={value}\n")
        with open(self.path(".env.backup"), "w", encoding="utf-8") as f:
            f.write(text)
        asof = self.start_asof()
        self.until("the bucket", "asof", lambda: self.destination()["code"] == "ok")
        harness.commit(self.db)
        run = harness.asof("wait", "futures_trades.db", "--config", self.path("asof.yml"),
                           "--dest", "s3", "--timeout", "50")
        self.assertEqual(run.returncode, 0, run.stderr)
        asof.send_signal(signal.SIGTERM)
        self.assertEqual(asof.wait(2 * harness.PATIENCE), 0)
        # All else is lost.
        out = self.path("restored.db")
        run = harness.asof("restore", "--archive", server.url("futures", "/asof"), "--latest", "-o",
                           out, env=server.credentials())
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(harness.counter_of(out), 2)

    def test_asof(self):
        harness.need_fuse()
        asof = self.start_asof()
        # No bucket is named: said, and everything else works.
        self.assertEqual(self.destination()["code"], "not-configured")
        past = self.path("mnt", "latest", "futures_trades.db")
        self.until("the mount", "asof", lambda: os.path.exists(past))
        self.assertEqual(harness.counter_of(past), 1)
        run = harness.asof("backup", "--config", self.path("asof.yml"), "--db-path",
                           self.path("data", "db", "futures_trades.db"))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertTrue(os.listdir(self.path("backups", "manual")))
        # The log is JSON, as the file says, but for what children say of themselves.
        lines = [line for line in self.log("asof").splitlines() if line.startswith("{")]
        self.assertTrue([json.loads(line) for line in lines])
        self.assertIn("asof_", get(f"http://127.0.0.1:{self.ports['metrics']}/metrics")[1])
        # As the health check of the Dockerfile asks it.
        with open(os.path.join(DEPLOY, "Dockerfile"), encoding="utf-8") as f:
            words = json.loads(re.search(r"^ +CMD (\[.*\])$", f.read(), re.M)[1])
        words[2] = words[2].replace("/8080", f"/{self.ports['health']}")
        self.assertEqual(subprocess.run(words, timeout=20, check=False).returncode, 0)
        asof.send_signal(signal.SIGTERM)
        self.assertEqual(asof.wait(2 * harness.PATIENCE), 0)
        self.assertNotEqual(subprocess.run(words, timeout=20, check=False,
                                           stderr=subprocess.DEVNULL).returncode, 0)

    def start_alertmanager(self, config):
        self.start("am", "prometheus-alertmanager", "--config.file=" + config,
                   "--storage.path=" + self.path("alertmanager", "data"),
                   f"--web.listen-address=127.0.0.1:{self.ports['alertmanager']}",
                   "--cluster.listen-address=")
        url = f"http://127.0.0.1:{self.ports['alertmanager']}/-/ready"
        self.until("alertmanager", "am", lambda: get(url)[0] == 200)

    def copy_of(self, service, name):
        """Its configuration folder, as the compose file mounts it, with other hosts in it."""
        source = os.path.join(DEPLOY, service)
        if not os.path.isdir(source):
            self.skipTest(f"no tools/deploy/{service} yet")
        folder = self.path(service, "etc")
        shutil.copytree(source, folder)
        path = os.path.join(folder, name)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for host, port in (("asof:8080", "health"), ("alertmanager:9093", "alertmanager"),
                           ("localhost:9090", "prometheus")):
            text = text.replace(host, f"127.0.0.1:{self.ports[port]}")
        text = re.sub(r"/etc/alertmanager/", folder + "/", text)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def test_alertmanager_delivers(self):
        """By its very file, but for hosts: a critical alert goes to the webhook and by mail, with a
        password and TLS; a warning by mail alone."""
        if not shutil.which("prometheus-alertmanager"):
            self.skipTest("prometheus-alertmanager is missing")
        certificate = receivers.make_certificate(self.dir)
        mail = receivers.MailServer(certificate, user="alertmanager@example.com", password="s3cret")
        self.addCleanup(mail.close)
        hooks = receivers.HookServer()
        self.addCleanup(hooks.close)
        path = self.copy_of("alertmanager", "alertmanager.yml")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for old, new in (("smtp.example.com:587", f"127.0.0.1:{mail.port}"),
                         ("http://localhost:9095/", f"http://127.0.0.1:{hooks.port}/"),
                         ("group_wait: 30s", "group_wait: 1s"), ("group_wait: 10s", "group_wait: 1s")):
            self.assertEqual(text.count(old), 1, old)
            text = text.replace(old, new)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        with open(os.path.join(os.path.dirname(path), "smtp.password"), "w", encoding="utf-8") as f:
            f.write("s3cret")
        os.environ["SSL_CERT_FILE"] = certificate[0]
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        self.start_alertmanager(path)
        labels = {"job": "asof", "instance": "host:8080"}
        alerts = [{"labels": {**labels, "alertname": name, "severity": severity},
                   "annotations": {"summary": f"{name} it is"}}
                  for name, severity in (("AsofDamaged", "critical"), ("AsofGap", "warning"))]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['alertmanager']}/api/v2/alerts",
            json.dumps(alerts).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=60).close()
        self.until("two mails", "am", lambda: len(mail.got()) >= 2)
        self.until("the webhook", "am", hooks.got)
        letters = {name: m for m in mail.got() for name in ("AsofDamaged", "AsofGap")
                   if name in m.as_string()}
        self.assertEqual(set(letters), {"AsofDamaged", "AsofGap"})
        for letter in letters.values():
            self.assertEqual(letter.envelope, ("alertmanager@example.com", ("ops@example.com",)))
            self.assertTrue(letter.encrypted)
        told = [a["labels"]["alertname"] for _, _, _, body, _ in hooks.got() for a in body["alerts"]]
        self.assertEqual(told, ["AsofDamaged"])

    def test_all_of_it(self):
        harness.need_fuse()
        for program in ("prometheus", "prometheus-alertmanager"):
            if not shutil.which(program):
                self.skipTest(f"{program} is missing")
        prometheus = self.copy_of("prometheus", "prometheus.yml")
        alertmanager = self.copy_of("alertmanager", "alertmanager.yml")
        with open(prometheus, encoding="utf-8") as f:
            text = f.read()
        with open(prometheus, "w", encoding="utf-8") as f:  # sooner, so that the test is
            f.write(re.sub(r"scrape_timeout: 10s", "scrape_timeout: 2s",
                           re.sub(r"_interval: 15s", "_interval: 2s", text)))
        with open(os.path.join(os.path.dirname(alertmanager), "smtp.password"), "w",
                  encoding="utf-8") as f:
            f.write("secret")
        self.start_asof()
        of = {n: f"http://127.0.0.1:{p}" for n, p in self.ports.items()}
        self.start_alertmanager(alertmanager)
        self.start("prom", "prometheus", "--config.file=" + prometheus,
                   "--storage.tsdb.path=" + self.path("prometheus", "data"),
                   f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}")
        self.until("prometheus", "prom", lambda: get(of["prometheus"] + "/-/ready")[0] == 200)

        def up():
            answer = json.loads(get(of["prometheus"] + "/api/v1/query?query=up")[1])
            return {r["metric"]["job"]: r["value"][1] for r in answer["data"]["result"]}
        self.until("scrapes", "prom", lambda: up().get("asof") == "1" and
                   up().get("alertmanager") == "1")
        def known():
            answer = json.loads(get(of["prometheus"] + "/api/v1/alertmanagers")[1])
            return len(answer["data"]["activeAlertmanagers"]) == 1
        self.until("its alertmanager", "prom", known)

        def lag():
            answer = json.loads(get(of["prometheus"] +
                                    "/api/v1/query?query=litestream_replication_lag")[1])
            return answer["data"]["result"]
        self.until("the lag", "prom", lag)


if __name__ == "__main__":
    harness.main(at_once=4)

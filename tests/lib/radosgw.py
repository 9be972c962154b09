# SPDX-License-Identifier: Apache-2.0
"""A real S3 server of its own on loopback: Ceph's RADOS Gateway, one monitor, one OSD in memory.

It encrypts objects by the keys KMS_KEYS, and by those of customers; over TLS alone, for which it
takes a certificate (secure_url()).
"""

import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import uuid
import xml.etree.ElementTree

ACCESS_KEY = "testaccesskey"
SECRET_KEY = "testsecretkey1234567890"
KMS_KEYS = ("key-1", "key-2")
NAMES = ("client.rgw", "osd.0", "mon.a")


def free_ports(n):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def authorization(method, path, headers, key_id=ACCESS_KEY, secret=SECRET_KEY):
    """Of a request with these headers; `path` has its query, encoded, in the order that is signed."""
    path, _, query = path.partition("?")
    names = sorted(headers)
    request = "\n".join([method, path, query, *(f"{n}:{headers[n].strip()}" for n in names), "",
                         ";".join(names), headers["x-amz-content-sha256"]])
    now = headers["x-amz-date"]
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    mark = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return (f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={';'.join(names)}, "
            f"Signature={mark}")


class RadosGateway:
    """start() makes and starts all of it, stop() ends what it started; a few seconds each.

    `inside`: words before each command that starts or asks it (of a network namespace, where it listens at
    `host`).
    """

    def __init__(self, folder, certificate=None, host="127.0.0.1", inside=()):
        for program in ("ceph-mon", "ceph-osd", "radosgw", "ceph-authtool", "monmaptool"):
            if not shutil.which(program):
                raise FileNotFoundError(f"no {program} here (ceph-mon, ceph-osd, radosgw)")
        self.folder, self.host, self.inside = os.path.abspath(folder), host, inside
        self.port, self.mon_port, self.secure_port = free_ports(3)
        self.certificate = certificate  # the files of it and of its key
        self.env = {**os.environ, "CEPH_CONF": self.path("ceph.conf")}

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def run(self, *words):
        """From the root: Debian 13's OSD looks for its classes below lib/, wherever it is."""
        return subprocess.run([*self.inside, *words], env=self.env, check=True, timeout=60, text=True, cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL).stdout

    def frontend(self):
        words = f"beast endpoint={self.host}:{self.port} tcp_nodelay=1"
        if self.certificate:
            words += (f" ssl_endpoint=127.0.0.1:{self.secure_port} ssl_certificate={self.certificate[0]}"
                      f" ssl_private_key={self.certificate[1]}")
        return words

    def configure(self):
        keys = " ".join(f"{name}={base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}"
                        for name in KMS_KEYS)
        for name in ("mon", "osd", "rgw", "run", "log"):
            os.makedirs(self.path(name))
        self.fsid = str(uuid.uuid4())
        with open(self.path("ceph.conf"), "w", encoding="ascii") as f:
            f.write(f"""[global]
fsid = {self.fsid}
keyring = {self.path("keyring")}
mon host = v2:127.0.0.1:{self.mon_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
run dir = {self.path("run")}
admin socket = {self.path("run")}/$name.asok
pid file = {self.path("run")}/$name.pid
log file = {self.path("log")}/$name.log
mon cluster log file = {self.path("log", "cluster.log")}
crash dir = {self.path("run")}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
mon allow pool size one = true
auth allow insecure global id reclaim = false
[mon]
mon data = {self.path("mon")}
mon data avail crit = 1
mon data avail warn = 1
paxos propose interval = 0.05
paxos min wait = 0.01
[osd]
osd data = {self.path("osd")}
osd objectstore = memstore
memstore device bytes = 2147483648
osd class load list = *
osd class default list = *
[client]
rgw data = {self.path("rgw")}
rgw frontends = {self.frontend()}
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = {keys}
rgw dns name = localhost
rgw thread pool size = 64
""")

    def make_keys(self):
        ring = self.path("keyring")
        self.run("ceph-authtool", "-C", ring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        for name, mon, osd in (("client.admin", "allow *", "allow *"),
                               ("client.rgw", "allow rw", "allow rwx"),
                               ("osd.0", "allow profile osd", "allow *")):
            self.run("ceph-authtool", ring, "--gen-key", "-n", name, "--cap", "mon", mon,
                     "--cap", "osd", osd)
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a",
                 f"[v2:127.0.0.1:{self.mon_port}]", self.path("monmap"))

    def start(self):
        self.configure()
        self.make_keys()
        self.run("ceph-mon", "-i", "a", "--mkfs", "--monmap", self.path("monmap"), "--keyring",
                 self.path("keyring"))
        self.run("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self.run("ceph", "osd", "new", osd)
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.run("ceph-osd", "-i", "0")
        self.wait("the OSD", lambda: '"num_up_osds":1' in self.run("ceph", "osd", "stat", "-f", "json"))
        self.run("radosgw-admin", "user", "create", "--uid=test", "--display-name=test",
                 f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
        self.start_gateway()
        return self

    def start_gateway(self):
        self.run("radosgw", "-n", "client.rgw")
        self.wait("the gateway", self.answers)

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False

    @staticmethod
    def wait(what, condition):
        end = time.monotonic() + 60
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"waited 60 s for {what}")
            time.sleep(0.1)

    def read_pid(self, name):
        with open(self.path("run", name + ".pid"), encoding="ascii") as f:
            return int(f.read())

    def end(self, name, sig=signal.SIGKILL):
        try:
            pid = self.read_pid(name)
            os.kill(pid, sig)
        except (OSError, ValueError):
            return
        self.wait(f"the end of {name}", lambda: not os.path.exists(f"/proc/{pid}"))

    def stop_gateway(self):
        self.end("client.rgw")

    def stop(self):
        for name in NAMES:
            self.end(name)

    def make_bucket(self, name):
        self.request("PUT", "/" + name)

    def uploads(self, bucket):
        """How many uploads in parts are begun and not ended."""
        return self.request("GET", f"/{bucket}?uploads=").count(b"<UploadId>")

    def make_user(self, name, key_id, secret):
        self.run("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}",
                 f"--access-key={key_id}", f"--secret-key={secret}")

    def grant(self, bucket, policy, user):
        """Sets the statements of a policy of IAM for that user."""
        for statement in policy["Statement"]:
            statement["Principal"] = {"AWS": [f"arn:aws:iam:::user/{user}"]}
        self.request("PUT", f"/{bucket}?policy=", json.dumps(policy).encode())

    def request(self, method, path, content=b""):
        status, body = self.ask(method, path, content)
        if status not in (200, 204):
            raise AssertionError(f"{method} {path}: {status} {body!r}")
        return body

    def ask(self, method, path, content=b""):
        """(status, body).  Signed here: the test does not lean on what it tests."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": f"{self.host}:{self.port}", "x-amz-date": now,
                   "x-amz-content-sha256": hashlib.sha256(content).hexdigest()}
        c = http.client.HTTPConnection(self.host, self.port, timeout=30)
        with contextlib.closing(c):
            c.request(method, path, content, headers={
                **headers, "Authorization": authorization(method, path, headers)})
            answer = c.getresponse()
            return answer.status, answer.read()

    def keys(self, bucket, prefix=""):
        """As they are listed; at most a thousand."""
        prefix = urllib.parse.quote(prefix, safe="-_.~")
        text = self.request("GET", f"/{bucket}?list-type=2&prefix={prefix}")
        root = xml.etree.ElementTree.fromstring(text)
        return [e.text for e in root.iter() if e.tag.endswith("}Key")]

    def sync(self, bucket, prefix, folder):
        """What `aws s3 sync s3://BUCKET/PREFIX FOLDER` does with an empty folder."""
        for key in self.keys(bucket, prefix):
            path = os.path.join(folder, key[len(prefix):])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(self.request("GET", f"/{bucket}/" + urllib.parse.quote(key, safe="/-_.~")))

    def url(self, bucket, prefix=""):
        return f"s3://{bucket}{prefix}?endpoint=http://{self.host}:{self.port}&region=us-east-1"

    def secure_url(self, bucket, prefix="", **more):
        """Over TLS; `more`: of the URL, _ for -."""
        query = "".join(f"&{k.replace('_', '-')}={v}" for k, v in more.items())
        return f"s3://{bucket}{prefix}?endpoint=https://127.0.0.1:{self.secure_port}&region=us-east-1{query}"

    def stored(self, bucket, key):
        """What the disk has of an object of one piece, whatever the gateway makes of it."""
        marker = json.loads(self.run("radosgw-admin", "bucket", "stats", f"--bucket={bucket}"))["marker"]
        return subprocess.run(["rados", "-p", "default.rgw.buckets.data", "get", f"{marker}_{key}", "-"],
                              env=self.env, check=True, timeout=60, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE).stdout

    @staticmethod
    def credentials(**other):
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, **other}

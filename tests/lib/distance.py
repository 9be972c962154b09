# SPDX-License-Identifier: Apache-2.0
"""Distance before a server: each request takes its time to get there, as opening a connection does, and
all answers together come at a bounded rate.

Distance does it by a relay in this process, which takes next to no processor (what passes is spliced); the
rate is one of pieces, not of packets.  Namespace has a server of its own network, at the end of a link of
which the kernel bounds the rate.
"""

import contextlib
import fcntl
import os
import socket
import subprocess
import threading
import time

CHUNK = 256 << 10


class Namespace:
    """A network namespace with one link to here.  It takes root, ip and tc; OSError, or the error of the
    command, where they are not."""

    def __init__(self):
        self.name = f"asof{os.getpid()}"
        self.here, self.there = f"{self.name}h", f"{self.name}t"
        net = f"10.{77 + os.getpid() // 64 % 128}.{os.getpid() % 64 * 4}"
        self.host = f"{net}.2"
        self.inside = ("ip", "netns", "exec", self.name)
        try:
            self.run("ip", "netns", "add", self.name)
            self.run("ip", "link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns",
                     self.name)
            self.run("ip", "addr", "add", f"{net}.1/30", "dev", self.here)
            self.run("ip", "link", "set", self.here, "up")
            self.run("ip", "-n", self.name, "addr", "add", f"{self.host}/30", "dev", self.there)
            self.run("ip", "-n", self.name, "link", "set", self.there, "up")
            self.run("ip", "-n", self.name, "link", "set", "lo", "up")
            self.limit(8)
            self.limit(0)
        except (OSError, subprocess.SubprocessError):
            self.stop()
            raise

    @staticmethod
    def run(*words, check=True):
        subprocess.run(words, check=check, timeout=20, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def limit(self, mbit):
        """What comes from there; 0: without a limit."""
        self.run(*self.inside, "tc", "qdisc", "del", "dev", self.there, "root", check=False)
        if mbit:
            self.run(*self.inside, "tc", "qdisc", "add", "dev", self.there, "root", "tbf", "rate",
                     f"{mbit}mbit", "burst", "256kb", "latency", "50ms")

    def stop(self):
        """The link goes with its end in there, the namespace with the last process."""
        with contextlib.suppress(OSError):
            self.run("ip", "link", "del", self.here, check=False)
            self.run("ip", "netns", "del", self.name, check=False)


class Distance:
    """`latency_s`: of a round trip; `rate`: bytes in a second, 0: as fast as they come."""

    def __init__(self, port, latency_s, rate=0, host="127.0.0.1"):
        self.upstream, self.latency_s, self.rate = (host, port), latency_s, rate
        self.lock, self.free_at = threading.Lock(), 0.0
        self.connections = self.requests = self.bytes = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                self.connections += 1
                threading.Thread(target=self.there, args=(client,), daemon=True).start()

    def there(self, client):
        """One direction here, the other in a thread of its own; a request is what comes at once."""
        time.sleep(self.latency_s)
        with client, socket.create_connection(self.upstream) as server:
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self.back, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(CHUNK):
                    self.requests += 1
                    time.sleep(self.latency_s)
                    server.sendall(data)
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def back(self, server, client):
        """Through a pipe: what passes is not copied."""
        out, into = os.pipe()
        try:
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, CHUNK)
            with contextlib.suppress(OSError):
                while n := os.splice(server.fileno(), into, CHUNK):
                    self.wait_for_room(n)
                    while n:
                        n -= os.splice(out, client.fileno(), n)
                client.shutdown(socket.SHUT_RDWR)
        finally:
            os.close(out)
            os.close(into)

    def wait_for_room(self, n):
        with self.lock:
            now = time.monotonic()
            self.free_at = max(now, self.free_at) + (n / self.rate if self.rate else 0)
            self.bytes += n
            wait_s = self.free_at - now
        if wait_s > 0.0005:
            time.sleep(wait_s)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

# SPDX-License-Identifier: Apache-2.0
"""Distance before a server on loopback: each request takes its time to get there, as opening a
connection does, and all answers together come at a bounded rate."""

import contextlib
import socket
import threading
import time

CHUNK = 128 << 10


class Distance:
    """`latency_s`: of a round trip; `rate`: bytes in a second, 0: as fast as they come."""

    def __init__(self, port, latency_s, rate=0):
        self.upstream, self.latency_s, self.rate = port, latency_s, rate
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
        with client, socket.create_connection(("127.0.0.1", self.upstream)) as server:
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
        buf = memoryview(bytearray(CHUNK))
        with contextlib.suppress(OSError):
            while n := server.recv_into(buf):
                self.wait_for_room(n)
                client.sendall(buf[:n])
            client.shutdown(socket.SHUT_RDWR)

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

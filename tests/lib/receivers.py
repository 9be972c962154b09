# SPDX-License-Identifier: Apache-2.0
"""Those who are told: a mail server and a server for webhooks, on loopback, with faults on demand.

Both keep what they accepted in .messages, under .lock, and take one fault per connection from
.faults (a list; when it is empty they behave).  close() ends them.

    MailServer    SMTP with STARTTLS or TLS from the beginning, AUTH PLAIN and LOGIN.  Faults:
                  "refuse" (421 at once), "close" (in the middle), "hang" (never answers),
                  "temporary" (451 after DATA), "no-login" (535)
    HookServer    HTTP, or HTTPS with a certificate.  Faults: a status such as "500", "close" (reads
                  the request, then closes), "reset", "hang", "slow" (an answer byte by byte),
                  "endless" (headers without end), "redirect"
"""

import base64
import contextlib
import email
import email.policy
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time

HANG_S = 60


def make_certificate(folder, name="127.0.0.1"):
    """A certificate for loopback, and its key, signed by itself."""
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-keyout", key, "-out", cert, "-subj", f"/CN={name}", "-addext",
                    f"subjectAltName=IP:{name},DNS:localhost"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cert, key


class Server:
    def __init__(self, certificate=None, address=("127.0.0.1", 0)):
        self.lock = threading.Lock()
        self.messages, self.faults, self.connections = [], [], 0
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*certificate)
        self.closing = threading.Event()
        self.listener = socket.create_server(address)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.closing.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                fault = self.faults.pop(0) if self.faults else None
            threading.Thread(target=self.serve_safely, args=(connection, fault),
                             daemon=True).start()

    def serve_safely(self, connection, fault):
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            connection.settimeout(HANG_S)
            self.serve(connection, fault, stack)

    def encrypt(self, connection, stack):
        return stack.enter_context(self.context.wrap_socket(connection, server_side=True))

    def got(self):
        with self.lock:
            return list(self.messages)

    def close(self):
        self.closing.set()
        # A thread in accept(2) does not notice close(2).
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def reset(connection):
    """Closed with RST: what was sent may be lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class MailServer(Server):
    def __init__(self, certificate=None, tls="starttls", user=None, password=None, **kw):
        self.tls, self.user, self.password = tls, user, password
        super().__init__(certificate, **kw)

    def serve(self, connection, fault, stack):
        if fault == "hang":
            self.closing.wait(HANG_S)
            return
        if self.context and self.tls == "at-once":
            connection = self.encrypt(connection, stack)
        Session(self, connection, fault, stack).run()


class Session:
    def __init__(self, server, connection, fault, stack):
        self.server, self.connection, self.fault, self.stack = server, connection, fault, stack
        self.file = stack.enter_context(connection.makefile("rb"))
        self.encrypted = isinstance(connection, ssl.SSLSocket)
        self.logged_in = server.user is None
        self.sender, self.to = None, []

    def say(self, text):
        self.connection.sendall(text.encode() + b"\r\n")

    def run(self):
        if self.fault == "refuse":
            self.say("421 not now")
            return
        self.say("220 loopback ESMTP")
        while line := self.file.readline():
            word = line.decode().strip().split(" ")
            if not self.obey(word[0].upper(), line.decode().strip(), word):
                return

    def obey(self, command, line, word):
        if command in ("EHLO", "HELO"):
            offers = ["loopback", "8BITMIME"]
            if self.server.context and not self.encrypted:
                offers.append("STARTTLS")
            if self.server.user:
                offers.append("AUTH PLAIN LOGIN")
            for offer in offers[:-1]:
                self.say("250-" + offer)
            self.say("250 " + offers[-1])
        elif command == "STARTTLS":
            self.say("220 go on")
            self.connection = self.server.encrypt(self.connection, self.stack)
            self.file = self.stack.enter_context(self.connection.makefile("rb"))
            self.encrypted = True
        elif command == "AUTH":
            self.login(word)
        elif command == "MAIL":
            if not self.logged_in:
                self.say("530 log in first")
            elif self.fault == "close":
                return False
            else:
                self.sender, self.to = line.partition("<")[2].partition(">")[0], []
                self.say("250 ok")
        elif command == "RCPT":
            address = line.partition("<")[2].partition(">")[0]
            if address.startswith("nobody"):
                self.say("550 nobody is called that")
            else:
                self.to.append(address)
                self.say("250 ok")
        elif command == "DATA":
            self.take()
        elif command == "QUIT":
            self.say("221 bye")
            return False
        else:
            self.say("502 what?")
        return True

    def answer(self):
        return base64.b64decode(self.file.readline().strip()).decode()

    def login(self, word):
        if word[1].upper() == "PLAIN":
            text = word[2] if len(word) > 2 else None
            if text is None:
                self.say("334 ")
                text = base64.b64encode(self.answer().encode()).decode()
            _, user, password = base64.b64decode(text).decode().split("\0")
        else:
            self.say("334 VXNlcm5hbWU6")
            user = self.answer()
            self.say("334 UGFzc3dvcmQ6")
            password = self.answer()
        self.logged_in = (user, password) == (self.server.user, self.server.password) and \
            self.fault != "no-login"
        self.say("235 ok" if self.logged_in else "535 no")

    def take(self):
        if not self.to:
            self.say("554 to whom?")
            return
        self.say("354 go on")
        lines = []
        while (line := self.file.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b"..") else line)
        if self.fault == "temporary":
            self.say("451 later")
            return
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        message.envelope = (self.sender, tuple(self.to))
        message.encrypted = self.encrypted
        message.raw = b"".join(lines)
        with self.server.lock:
            self.server.messages.append(message)
        self.say("250 ok")


class HookServer(Server):
    """What it accepted: (method, path, headers, body as JSON or None, time)."""

    def serve(self, connection, fault, stack):
        if self.context:
            connection = self.encrypt(connection, stack)
        file = stack.enter_context(connection.makefile("rb"))
        method, path, _ = file.readline().decode().split(" ")
        headers = {}
        while (line := file.readline().decode().strip()):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers.get("content-length", "0")))
        if fault == "close":
            return
        if fault == "reset":
            reset(connection)
            return
        if fault == "hang":
            self.closing.wait(HANG_S)
            return
        if fault == "redirect":
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n"
                               b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if fault == "endless":
            connection.sendall(b"HTTP/1.1 500 No\r\n")
            while not self.closing.is_set():
                connection.sendall(b"X-More: and more\r\n" * 100)
            return
        if fault and fault.isdigit():
            connection.sendall(f"HTTP/1.1 {fault} No\r\nContent-Length: 0\r\n"
                               "Connection: close\r\n\r\n".encode())
            return
        with self.lock:
            self.messages.append((method, path, headers, json.loads(body) if body else None,
                                  time.monotonic()))
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        for i in range(len(answer)):
            connection.sendall(answer[i:i + 1] if fault == "slow" else answer[i:])
            if fault != "slow":
                return
            time.sleep(0.02)

# SPDX-License-Identifier: Apache-2.0
"""A proxy before an S3 server that does what servers and networks do on a bad day.

`plan(method, path, n)` is asked for each request, `n` counting those of this method and path from 0;
it names a fault, or None.  `conditions`: what becomes of If-None-Match, "keep", "ignore" as some
servers do, or "refuse" as others.
"""

import collections
import contextlib
import http.client
import http.server
import re
import socket
import threading

import answering
import radosgw

ERROR = ('<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>so it is</Message>'
         '<RequestId>1</RequestId></Error>')
ANSWERS = {"500": (500, "InternalError"), "503": (503, "SlowDown"), "429": (429, "TooManyRequests"),
           "expired": (400, "ExpiredToken"), "timeout": (400, "RequestTimeout"),
           "denied": (403, "AccessDenied"), "quota": (403, "QuotaExceeded"),
           "error-in-200": (200, "InternalError"), "refuse": (501, "NotImplemented")}
# Faults after which the request has had no effect, and those after which it had.
BEFORE = ("500", "503", "429", "timeout", "lost-before", "redirect")
AFTER = ("lost-after", "500-after")
OF_BODY = ("cut", "short", "flip", "empty")


class Proxy:
    def __init__(self, port, plan, conditions="keep", host="127.0.0.1"):
        self.upstream, self.plan, self.conditions = (host, port), plan, conditions
        self.counts = collections.Counter()
        self.bytes_sent = 0  # of bodies
        self.done = collections.Counter()  # faults that came about
        self.lock = threading.Lock()
        self.before = lambda method, n: None  # may wait, with a request in hand
        proxy = self

        class Handler(answering.Handler):
            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def drop(self):
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def forward(self, body):
                if self.headers["If-None-Match"] and proxy.conditions == "ignore":
                    del self.headers["If-None-Match"]
                    names = re.search("SignedHeaders=([^,]+)", self.headers["Authorization"])[1]
                    signed = {n: self.headers[n] for n in names.split(";") if n != "if-none-match"}
                    del self.headers["Authorization"]
                    self.headers["Authorization"] = radosgw.authorization(self.command, self.path,
                                                                          signed)
                c = http.client.HTTPConnection(*proxy.upstream, timeout=60)
                with contextlib.closing(c):
                    c.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for key, value in self.headers.items():
                        if key.lower() not in ("expect", "connection"):
                            c.putheader(key, value)
                    c.endheaders(body)
                    r = c.getresponse()
                    return r.status, r.getheaders(), r.read()

            def pass_on(self, fault, status, headers, body):
                sent = body
                if fault == "cut":
                    sent = body[:len(body) // 2]
                elif fault == "flip" and body:
                    sent = bytes([body[0] ^ 1]) + body[1:]
                length = len(body)
                if fault == "short":
                    sent, length = body[:len(body) // 2], len(body) // 2
                elif fault == "empty":
                    sent, length = b"", 0
                self.send_response_only(status)
                for key, value in headers:
                    if key.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(key, value)
                if self.command == "HEAD":
                    length = dict((k.lower(), v) for k, v in headers).get("content-length", "0")
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    with proxy.lock:
                        proxy.bytes_sent += len(sent)
                    self.wfile.write(sent)
                if fault == "cut":
                    self.drop()

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.split("?", 1)[0]
                with proxy.lock:
                    key = (self.command, path)
                    n = proxy.counts[key]
                    fault = proxy.plan(self.command, path, n)
                    proxy.counts[key] += 1
                    proxy.done[fault] += fault is not None
                if self.headers["If-None-Match"] and proxy.conditions == "refuse":
                    fault = fault or "refuse"
                proxy.before(self.command, n)
                if fault in ANSWERS:
                    status, code = ANSWERS[fault]
                    more = {"Retry_After": "1"} if fault == "429" else {}
                    self.answer(status, ERROR.format(code).encode(), **more)
                elif fault == "redirect":
                    self.answer(307, ERROR.format("TemporaryRedirect").encode(),
                                Location=f"http://127.0.0.1:{proxy.port}{self.path}")
                elif fault == "lost-before":
                    self.drop()
                else:
                    status, headers, answer = self.forward(body)
                    if fault == "lost-after":
                        self.drop()
                    elif fault == "500-after":
                        self.answer(500, ERROR.format("InternalError").encode())
                    else:
                        self.pass_on(fault, status, headers, answer)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def url(self, bucket, prefix=""):
        return f"s3://{bucket}{prefix}?endpoint=http://127.0.0.1:{self.port}&region=us-east-1"

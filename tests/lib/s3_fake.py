# SPDX-License-Identifier: Apache-2.0
"""An S3 server in memory that looks at what radosgw does not tell: who signed, with which session
token, which headers came, and over TLS.

Signatures are verified as AWS documents them.  `keys` maps an access key's id to its Key; what came
is in `requests`.
"""

import collections
import contextlib
import hashlib
import hmac
import http.client
import http.server
import socket
import ssl
import threading
import time
import urllib.parse
import xml.sax.saxutils

import answering

ERROR = ('<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>so it is</Message>'
         '<RequestId>1</RequestId></Error>')
STATUS = {"AccessDenied": 403, "SignatureDoesNotMatch": 403, "InvalidAccessKeyId": 403,
          "ExpiredToken": 400, "InvalidToken": 400, "NoSuchKey": 404, "NoSuchUpload": 404,
          "PreconditionFailed": 412, "InvalidRequest": 400, "InternalError": 500}

PAGE = 1000  # entries of a listing's answer, as Amazon has it

Request = collections.namedtuple("Request", "method host path query headers key error")


class Key:
    def __init__(self, secret, token=None):
        self.secret, self.token, self.expired = secret, token, False


def quote(text, safe=""):
    return urllib.parse.quote(text, safe=safe + "-_.~")


def digest(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(secret, scope, when, canonical):
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = digest(key, part)
    text = "\n".join(("AWS4-HMAC-SHA256", when, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def judge(keys, method, path, query, headers, body):
    """The id of the access key that signed, and what is wrong with it."""
    words = headers.get("authorization", "").replace(",", " ").split()
    fields = dict(w.split("=", 1) for w in words[1:] if "=" in w)
    key_id, _, scope = fields.get("Credential", "").partition("/")
    key = keys.get(key_id)
    if not key:
        return key_id, "InvalidAccessKeyId"
    names = fields["SignedHeaders"].split(";")
    pairs = sorted((quote(k), quote(v)) for k, v in
                   urllib.parse.parse_qsl(query, keep_blank_values=True))
    content = hashlib.sha256(body).hexdigest()
    canonical = "\n".join((
        method, quote(urllib.parse.unquote(path), "/"), "&".join(f"{k}={v}" for k, v in pairs),
        *(f"{n}:{' '.join(headers.get(n, '').split())}" for n in names), "", ";".join(names), content))
    right = signature(key.secret, scope, headers["x-amz-date"], canonical)
    if right != fields["Signature"] or headers.get("x-amz-content-sha256", content) != content:
        return key_id, "SignatureDoesNotMatch"
    if {n for n in headers if n.startswith("x-amz-")} - set(names):
        return key_id, "AccessDenied"
    if headers.get("x-amz-security-token") != key.token:
        return key_id, "InvalidToken"
    return key_id, "ExpiredToken" if key.expired else None


class Fake:
    """`fail(request)` may name an error instead of an answer; `certificate` is (cert, key) of TLS."""

    def __init__(self, keys, certificate=None, fail=None):
        self.keys, self.fail = dict(keys), fail or (lambda r: None)
        self.objects, self.uploads, self.requests = {}, {}, []
        self.customer = {}  # of objects: the digest of the customer's key
        self.modified = {}  # of objects: when they were put
        self.lock = threading.Lock()
        self.scheme = "https" if certificate else "http"
        fake = self

        class Handler(answering.Handler):
            def answer(self, status, body=b"", length=None, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {k.lower(): v for k, v in self.headers.items()}
                path, _, query = self.path.partition("?")
                pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
                key_id, error = judge(fake.keys, self.command, path, query, headers, body)
                r = Request(self.command, headers["host"], urllib.parse.unquote(path), dict(pairs),
                            headers, key_id, error)
                error = error or fake.fail(r)
                with fake.lock:
                    fake.requests.append(r._replace(error=error))
                    status, answer, more = (STATUS[error], ERROR.format(error).encode(), {}) \
                        if error else fake.serve(r, body)
                if isinstance(answer, int):  # of HEAD
                    self.answer(status, b"", answer, **more)
                else:
                    self.answer(status, answer, **more)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def url(self, prefix="", **parameters):
        parameters = {"endpoint": f"{self.scheme}://127.0.0.1:{self.port}", "region": "us-east-1",
                      **{k.replace("_", "-"): v for k, v in parameters.items()}}
        return f"s3://bucket{prefix}?" + "&".join(f"{k}={quote(v, '/:')}" for k, v in parameters.items())

    def seen(self):
        with self.lock:
            return list(self.requests)

    # ---- what ----

    def serve(self, r, body):
        """(status, body, headers); under the lock."""
        _, bucket, *rest = r.path.split("/", 2) if not r.host.startswith("bucket.") else \
            ("", "bucket", r.path[1:])
        name = rest[0] if rest else ""
        if not name:
            return self.list(r.query)
        if "uploads" in r.query or "uploadId" in r.query:
            return self.serve_parts(r, name, body)
        if r.method == "PUT":
            if r.headers.get("if-none-match") == "*" and name in self.objects:
                return 412, ERROR.format("PreconditionFailed").encode(), {}
            return self.keep(name, body, r.headers)
        if r.method == "DELETE":
            self.objects.pop(name, None)
            return 204, b"", {}
        if name not in self.objects:
            return 404, ERROR.format("NoSuchKey").encode(), {}
        data, headers = self.objects[name]
        customer = headers.get("x-amz-server-side-encryption-customer-key-md5")
        if customer != r.headers.get("x-amz-server-side-encryption-customer-key-md5"):
            return 400, ERROR.format("InvalidRequest").encode(), {}
        more = {"ETag": self.etag(data), "x-amz-meta-asof-sha256":
                headers.get("x-amz-meta-asof-sha256", "")}
        if r.method == "HEAD":
            return 200, len(data), more
        span = r.headers.get("range")
        if not span:
            return 200, data, more
        first, _, last = span.removeprefix("bytes=").partition("-")
        first, last = int(first), min(int(last or len(data) - 1), len(data) - 1)
        return 206, data[first:last + 1], {**more, "Content-Range":
                                           f"bytes {first}-{last}/{len(data)}"}

    @staticmethod
    def etag(data):
        return f'"{hashlib.md5(data).hexdigest()}"'

    def keep(self, name, body, headers):
        self.objects[name] = (body, headers)
        self.modified[name] = time.gmtime()
        return 200, b"", {"ETag": self.etag(body)}

    def serve_parts(self, r, name, body):
        if r.method == "POST" and "uploads" in r.query:
            upload = f"u{len(self.uploads)}"
            self.uploads[upload] = ({}, r.headers)
            return 200, (f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId>"
                         "</InitiateMultipartUploadResult>").encode(), {}
        upload = r.query["uploadId"]
        if upload not in self.uploads:
            return 404, ERROR.format("NoSuchUpload").encode(), {}
        parts, headers = self.uploads[upload]
        if r.method == "PUT":
            parts[int(r.query["partNumber"])] = body
            return 200, b"", {"ETag": self.etag(body)}
        del self.uploads[upload]
        if r.method == "DELETE":
            return 204, b"", {}
        self.keep(name, b"".join(parts[n] for n in sorted(parts)), headers)
        return 200, b"<CompleteMultipartUploadResult/>", {}

    def list(self, query):
        """At most PAGE entries; where to go on is the last of them, as a token."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        after = query.get("continuation-token", query.get("start-after", ""))
        found = {}
        for name in sorted(self.objects):
            if name.startswith(prefix) and name > after:
                head, cut, _ = name[len(prefix):].partition(delimiter) if delimiter else ("", "", "")
                if (key := prefix + head + cut if cut else name) > after:
                    found[key] = None if cut else name
        more = len(found) > PAGE
        found = dict(sorted(found.items())[:PAGE])
        token = f"<NextContinuationToken>{xml.sax.saxutils.escape(max(found))}" \
                "</NextContinuationToken>" if more else ""
        text = "".join(
            f"<CommonPrefixes><Prefix>{xml.sax.saxutils.escape(k)}</Prefix></CommonPrefixes>"
            if name is None else
            f"<Contents><Key>{xml.sax.saxutils.escape(k)}</Key>"
            f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%SZ', self.modified[name])}</LastModified>"
            f"<Size>{len(self.objects[name][0])}</Size></Contents>" for k, name in found.items())
        return 200, (f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{text}"
                     "</ListBucketResult>").encode(), {}


class Tunnels:
    """A proxy: CONNECT, and requests with a whole URL.  `seen` has what was asked of it."""

    def __init__(self):
        self.seen, self.lock = [], threading.Lock()
        proxy = self

        class Handler(answering.Handler):
            protocol_version = "HTTP/1.0"  # a tunnel is its connection's last answer

            def do_CONNECT(self):
                self.note(self.path)
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port)), timeout=60) as there:
                    self.send_response(200)
                    self.end_headers()
                    self.pump(there)

            def do(self):
                self.note(self.path)
                place = urllib.parse.urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                c = http.client.HTTPConnection("127.0.0.1", place.port, timeout=60)
                with contextlib.closing(c):
                    c.putrequest(self.command, place._replace(scheme="", netloc="").geturl(),
                                 skip_host=True, skip_accept_encoding=True)
                    for k, v in self.headers.items():
                        if k.lower() not in ("expect", "connection", "proxy-connection"):
                            c.putheader(k, v)
                    c.endheaders(body)
                    r = c.getresponse()
                    data = r.read()
                    self.send_response_only(r.status)
                    for k, v in r.getheaders():
                        self.send_header(k, v)
                    self.end_headers()
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

            def note(self, what):
                with proxy.lock:
                    proxy.seen.append(what)

            def pump(self, there):
                def one_way(a, b):
                    with contextlib.suppress(OSError):
                        while data := a.recv(65536):
                            b.sendall(data)
                    with contextlib.suppress(OSError):
                        b.shutdown(socket.SHUT_WR)

                back = threading.Thread(target=one_way, args=(there, self.connection), daemon=True)
                back.start()
                one_way(self.connection, there)
                back.join()

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

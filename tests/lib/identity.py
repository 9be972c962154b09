# SPDX-License-Identifier: Apache-2.0
"""Who hands out credentials in a cloud: instance metadata (version 2), a container's agent, the
token service, and SSO's portal with who renews its tokens, on one port of loopback.

Each answer has new keys, made by `issue()`, which are good for `lasts_s` by what it says.  What was
asked is in `seen`.
"""

import datetime
import http.server
import itertools
import json
import threading
import time
import urllib.parse

import answering
import s3_fake

SESSION = "metadata-session-token"  # of instance metadata, version 2
CONTAINER = "container-authorization"
WEB_TOKEN = "web-identity-token"
SSO_TOKEN = "sso-access-token"
SSO_REFRESH, SSO_CLIENT_SECRET = "sso-refresh-token", "sso-client-secret"
SSO_ROLE = ("123456789012", "Read Only")  # account, name
ROLE = "arn:aws:iam::123456789012:role/asof"
ROLES = "/latest/meta-data/iam/security-credentials/"


class Identity:
    def __init__(self, keys, lasts_s=3600):
        self.keys, self.lasts_s = keys, lasts_s
        self.numbers, self.seen, self.lock = itertools.count(1), [], threading.Lock()
        self.secrets = {SESSION, CONTAINER, WEB_TOKEN, SSO_TOKEN, SSO_REFRESH, SSO_CLIENT_SECRET}
        self.sso_token = SSO_TOKEN  # the one that is good now
        self.asked = 0.0  # when last
        self.assumed = []  # of signed roles: by which key, with which external id
        self.fail = lambda path: None  # a status instead of an answer
        identity = self

        class Handler(answering.Handler):
            def answer(self, status, text=""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                self.answer(*identity.serve(self.command, self.path, self.headers, body))

            do_GET = do_PUT = do_POST = do

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def issue(self):
        """(id, secret, token, expires): keys that the server knows from now on."""
        n = next(self.numbers)
        key_id, secret, token = f"ASIAISSUED{n}", f"issued/secret+{n}", f"issued-token-{n}=="
        self.keys[key_id] = s3_fake.Key(secret, token)
        self.secrets |= {secret, token}
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.lasts_s)
        return key_id, secret, token, end.strftime("%Y-%m-%dT%H:%M:%SZ")

    def as_json(self, token_name, **more):
        key_id, secret, token, end = self.issue()
        return json.dumps({**more, "AccessKeyId": key_id, "SecretAccessKey": secret, token_name: token,
                           "Expiration": end})

    def serve(self, method, path, headers, body):
        with self.lock:
            self.seen.append(path)
            self.asked = time.time()
            if status := self.fail(path):
                return (status,)
            if path == "/latest/api/token":
                given = headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                return (200, SESSION) if method == "PUT" and given else (405,)
            if path.startswith("/latest/"):
                return self.metadata(path, headers)
            if path == "/container":
                return (200, self.as_json("Token")) if headers.get("Authorization") == CONTAINER \
                    else (401,)
            if path == "/sts":
                return self.sts(path, headers, body)
            if path.startswith("/sso/"):
                return self.sso(path[4:], headers)
            if path == "/oidc/token":
                return self.renew(json.loads(body))
            return (404,)

    def metadata(self, path, headers):
        if headers.get("X-aws-ec2-metadata-token") != SESSION:
            return (401,)
        if path == ROLES:
            return 200, "a-role"
        if path == ROLES + "a-role":
            return 200, self.as_json("Token", Code="Success", Type="AWS-HMAC")
        return (404,)

    def sso(self, path, headers):
        path, _, query = path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query))
        if path != "/federation/credentials":
            return (404,)
        if headers.get("x-amz-sso_bearer_token") != self.sso_token:
            return 401, '{"message":"Session token not found or invalid"}'
        if (asked.get("account_id"), asked.get("role_name")) != SSO_ROLE:
            return 403, '{"message":"No access"}'
        key_id, secret, token, _ = self.issue()
        return 200, json.dumps({"roleCredentials": {
            "accessKeyId": key_id, "secretAccessKey": secret, "sessionToken": token,
            "expiration": int((time.time() + self.lasts_s) * 1000)}})

    def renew(self, form):
        if form != {"grantType": "refresh_token", "clientId": "client", "clientSecret": SSO_CLIENT_SECRET,
                    "refreshToken": SSO_REFRESH}:
            return 400, '{"error":"invalid_grant"}'
        self.sso_token = f"sso-access-token-{next(self.numbers)}"
        self.secrets.add(self.sso_token)
        return 200, json.dumps({"accessToken": self.sso_token, "expiresIn": 3600, "tokenType": "Bearer"})

    def sts(self, path, headers, body):
        form = dict(urllib.parse.parse_qsl(body))
        action, lower = form.get("Action"), {k.lower(): v for k, v in headers.items()}
        right = form.get("RoleArn") == ROLE and form.get("RoleSessionName")
        if action == "AssumeRole":
            key_id, error = s3_fake.judge(self.keys, "POST", path, "", lower, body.encode())
            self.assumed.append((key_id, form.get("ExternalId")))
            right = right and not error
        else:
            right = right and form.get("WebIdentityToken") == WEB_TOKEN
        if not right or action not in ("AssumeRole", "AssumeRoleWithWebIdentity"):
            return 403, ("<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
                         "</Error></ErrorResponse>")
        key_id, secret, token, end = self.issue()
        return 200, (f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                     f"<{action}Result><AssumedRoleUser><Arn>x</Arn></AssumedRoleUser><Credentials>"
                     f"<SessionToken>{token}</SessionToken><SecretAccessKey>{secret}</SecretAccessKey>"
                     f"<Expiration>{end}</Expiration><AccessKeyId>{key_id}</AccessKeyId></Credentials>"
                     f"</{action}Result></{action}Response>")

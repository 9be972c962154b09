#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who asof is to a bucket: every place that credentials come from, renewed, and never told."""

import datetime
import hashlib
import json
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import identity  # noqa: E402
import s3_fake  # noqa: E402
from harness import commit, counter_of, make_counter, wait_for  # noqa: E402

BUILD = os.environ.get("ASOF_BUILD") or os.path.join(harness.ROOT, "build", "release")
TOOL = os.path.join(BUILD, "tests", "synth", "store_tool")
EARLY_S = 300  # so long before they expire credentials are fetched anew


class Credentials(harness.Case):
    def setUp(self):
        super().setUp()
        self.s3 = s3_fake.Fake({"AKIAFIXED": s3_fake.Key("fixed/secret")})
        self.addCleanup(self.s3.stop)
        self.cloud = identity.Identity(self.s3.keys)
        self.addCleanup(self.cloud.stop)
        self.cloud.secrets.add("fixed/secret")
        self.said = []  # all output of all that ran
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LITESTREAM_"))
                    and "proxy" not in k.lower()}
        self.env |= {"HOME": self.dir, "AWS_EC2_METADATA_DISABLED": "true", "ASOF_TEST_DEBUG": "1"}
        self.url = self.s3.url("/a")

    def tearDown(self):
        for text in self.said:
            for secret in self.cloud.secrets:
                self.assertNotIn(secret, text)
        super().tearDown()

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def tool(self, *words, url=None):
        run = subprocess.run([TOOL, url or self.url, *words], timeout=100, check=False, text=True,
                             env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said.append(run.stdout + run.stderr)
        return run

    def works(self, key_prefix, url=None):
        """What is put and read is signed by such a key, and nothing was refused."""
        for what in ("fill", "check"):
            run = self.tool(what, "2", "1000", url=url)
            self.assertEqual(run.returncode, 0, run.stderr)
        for r in self.s3.seen():
            self.assertTrue(r.key.startswith(key_prefix), r)
            self.assertIsNone(r.error)

    def fails(self, *texts, url=None):
        run = self.tool("fill", "1", "10", url=url)
        self.assertEqual(run.returncode, 1)
        for text in texts:
            self.assertIn(text, run.stderr)
        said = [line for line in run.stderr.split("\n") if line.startswith("store_tool:")]
        self.assertEqual(len(said), 1, run.stderr)

    def use_machine(self):
        del self.env["AWS_EC2_METADATA_DISABLED"]
        self.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = self.cloud.url + "/"

    def use_web_identity(self):
        self.env |= {"AWS_ROLE_ARN": identity.ROLE, "AWS_ENDPOINT_URL_STS": self.cloud.url + "/sts",
                     "AWS_WEB_IDENTITY_TOKEN_FILE": self.write("token", identity.WEB_TOKEN + "\n")}

    # ---- the places ----

    def test_environment(self):
        key_id, secret, token, _ = self.cloud.issue()
        self.env |= {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret,
                     "AWS_SESSION_TOKEN": token}
        self.works(key_id)
        del self.env["AWS_SECRET_ACCESS_KEY"]
        self.fails("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not", "(denied)")

    def test_profiles(self):
        key_id, secret, token, _ = self.cloud.issue()
        self.write(".aws/credentials",
                   f"[default]\naws_access_key_id=AKIAFIXED\naws_secret_access_key=fixed/secret\n"
                   f"[other]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n"
                   f"aws_session_token = {token}\n")
        self.works("AKIAFIXED")
        self.s3.requests.clear()
        self.works(key_id, url=self.s3.url("/b", profile="other"))
        self.s3.requests.clear()
        self.env["AWS_PROFILE"] = "other"
        self.works(key_id, url=self.s3.url("/c"))
        self.fails("no profile 'gone' in ~/.aws", url=self.s3.url("/d", profile="gone"))

    def test_files_elsewhere(self):
        self.env |= {"AWS_SHARED_CREDENTIALS_FILE": self.path("none"), "AWS_PROFILE": "one",
                     "AWS_CONFIG_FILE": self.write("c", "[profile one]\naws_access_key_id=AKIAFIXED\n"
                                                   "aws_secret_access_key=fixed/secret\n")}
        self.works("AKIAFIXED")

    def process(self, text, status=0):
        script = self.write("process", f"#!/bin/sh\necho ran >>{self.path('runs')}\n{text}\n"
                            f"exit {status}\n")
        self.write(".aws/config", f"[default]\nregion = us-east-1\ncredential_process = "
                   f"sh {script} 'a word'\n")

    def test_credential_process(self):
        answer = self.cloud.as_json("SessionToken", Version=1)
        self.process(f"cat <<'END'\n{answer}\nEND")
        self.works("ASIAISSUED1")
        self.process("echo it does not work >&2", 3)
        self.fails("credential_process", "it does not work", "(denied)")
        self.process("echo nonsense")
        self.fails("credential_process", "not JSON")

    def test_container(self):
        self.env |= {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.cloud.url + "/container",
                     "AWS_CONTAINER_AUTHORIZATION_TOKEN": identity.CONTAINER}
        self.works("ASIAISSUED")
        self.s3.requests.clear()
        del self.env["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        self.env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = self.write("t", identity.CONTAINER + "\n")
        self.works("ASIAISSUED", url=self.s3.url("/b"))
        self.write("t", "another")
        self.fails("the container's credentials: the answer is 401", "(denied)")
        self.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://192.0.2.1/container"
        self.fails("neither https nor near", "(refused)")

    def test_machine(self):
        self.use_machine()
        self.works("ASIAISSUED")
        self.assertEqual(self.cloud.seen[0], "/latest/api/token")

    def test_web_identity(self):
        self.use_web_identity()
        self.works("ASIAISSUED")
        self.write("token", "a token of another")
        self.fails("token service", "403 AccessDenied", "(denied)")

    def test_web_identity_of_a_profile(self):
        self.env["AWS_ENDPOINT_URL_STS"] = self.cloud.url + "/sts"
        self.write(".aws/config", f"[profile w]\nrole_arn={identity.ROLE}\nrole_session_name=me\n"
                   f"web_identity_token_file={self.write('token', identity.WEB_TOKEN)}\n")
        self.works("ASIAISSUED", url=self.s3.url("/a", profile="w"))

    def use_roles(self, text):
        self.env["AWS_ENDPOINT_URL_STS"] = self.cloud.url + "/sts"
        self.write(".aws/config", text.replace("ROLE", identity.ROLE))
        self.write(".aws/credentials", "[base]\naws_access_key_id=AKIAFIXED\n"
                   "aws_secret_access_key=fixed/secret\n")

    def test_roles_of_profiles(self):
        """A role that another profile assumes, which may have assumed one itself."""
        self.use_roles("[profile a]\nrole_arn=ROLE\nsource_profile=base\nexternal_id=e\n"
                       "[profile b]\nrole_arn=ROLE\nsource_profile=a\nrole_session_name=me\n"
                       "[profile own]\nrole_arn=ROLE\nsource_profile=own\n"
                       "aws_access_key_id=AKIAFIXED\naws_secret_access_key=fixed/secret\n")
        self.works("ASIAISSUED", url=self.s3.url("/a", profile="a"))
        self.assertEqual(set(self.cloud.assumed), {("AKIAFIXED", "e")})
        self.cloud.assumed.clear()
        self.s3.requests.clear()
        self.works("ASIAISSUED", url=self.s3.url("/b", profile="b"))
        (first, _), (second, external), *_ = self.cloud.assumed
        self.assertEqual((first, external), ("AKIAFIXED", None))
        self.assertTrue(second.startswith("ASIAISSUED"))
        self.s3.requests.clear()
        self.works("ASIAISSUED", url=self.s3.url("/c", profile="own"))

    def test_roles_of_places(self):
        self.use_roles("[profile e]\nrole_arn=ROLE\ncredential_source=Environment\n"
                       "[profile m]\nrole_arn=ROLE\ncredential_source=Ec2InstanceMetadata\n"
                       "[profile c]\nrole_arn=ROLE\ncredential_source=EcsContainer\n")
        self.env |= {"AWS_ACCESS_KEY_ID": "AKIAFIXED", "AWS_SECRET_ACCESS_KEY": "fixed/secret",
                     "AWS_CONTAINER_CREDENTIALS_FULL_URI": self.cloud.url + "/container",
                     "AWS_CONTAINER_AUTHORIZATION_TOKEN": identity.CONTAINER}
        self.use_machine()
        for name, who in (("e", "AKIAFIXED"), ("m", "ASIAISSUED"), ("c", "ASIAISSUED")):
            self.cloud.assumed.clear()
            self.works("ASIAISSUED", url=self.s3.url("/" + name, profile=name))
            self.assertTrue(self.cloud.assumed[0][0].startswith(who))

    def test_roles_that_cannot_be(self):
        self.use_roles("[profile x]\nrole_arn=ROLE\nsource_profile=y\n"
                       "[profile y]\nrole_arn=ROLE\nsource_profile=x\n"
                       "[profile z]\nrole_arn=ROLE\nsource_profile=gone\n"
                       "[profile n]\nrole_arn=ROLE\n"
                       "[profile s]\nrole_arn=ROLE\ncredential_source=Moon\n"
                       "[profile d]\nrole_arn=another\nsource_profile=base\n")
        for name, text in (("x", "follow one another"), ("z", "no profile 'gone'"),
                           ("n", "role_arn without"), ("s", "'Moon' is none of"),
                           ("d", "403 AccessDenied")):
            self.fails(text, f"profile '{name}'", "(denied)", url=self.s3.url("/a", profile=name))
        self.assertEqual(self.s3.seen(), [])

    # ---- SSO ----

    def use_sso(self, role=identity.SSO_ROLE[1]):
        self.env |= {"AWS_ENDPOINT_URL_SSO": self.cloud.url + "/sso",
                     "AWS_ENDPOINT_URL_SSO_OIDC": self.cloud.url + "/oidc/"}
        where = "sso_region = us-east-1\nsso_start_url = https://x.awsapps.com/start\n"
        what = f"sso_account_id = {identity.SSO_ROLE[0]}\nsso_role_name = {role}\n"
        self.write(".aws/config", f"[profile new]\nsso_session = us\n{what}region = us-east-1\n"
                   f"[sso-session us]\n{where}sso_registration_scopes = sso:account:access\n"
                   f"[profile old]\n{what}{where}[profile half]\nsso_session = them\n{what}")

    def sign_in(self, key, lasts_s=3600, utc="Z", **more):
        """What `aws sso login` leaves; the name of the file."""
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=lasts_s)
        text = {"startUrl": "x", "accessToken": self.cloud.sso_token,
                "expiresAt": end.strftime("%Y-%m-%dT%H:%M:%S") + utc, **more}
        return self.write(f".aws/sso/cache/{hashlib.sha1(key.encode()).hexdigest()}.json", json.dumps(text))

    def test_sso(self):
        """A session's profile, and one of before there were sessions."""
        self.use_sso()
        self.sign_in("us")
        self.sign_in("https://x.awsapps.com/start", utc="UTC")
        for name in ("new", "old"):
            self.works("ASIAISSUED", url=self.s3.url("/" + name, profile=name))

    def test_sso_that_nobody_signed_in_to(self):
        """One line that says what to run; afterwards it works."""
        self.use_sso()
        new = self.s3.url("/a", profile="new")
        run = "run `aws sso login --profile new`"
        self.fails("profile 'new': SSO: nobody is signed in: " + run, "(denied)", url=new)
        self.sign_in("us", -60)
        self.fails("SSO: its token expired at 20", run, "(denied)", url=new)
        with open(self.sign_in("us"), "w", encoding="utf-8") as f:
            f.write('{"accessToken": 1}')
        self.fails("has no token", run, url=new)
        self.sign_in("us", accessToken="another")
        self.fails("the portal takes its token no more", run, url=new)
        self.fails("sso_region is missing: run `aws configure sso --profile half`",
                   url=self.s3.url("/a", profile="half"))
        self.sign_in("us")
        self.works("ASIAISSUED", url=new)
        self.use_sso(role="another")
        self.fails("the portal answers 403 for role another of account 123456789012", "(denied)", url=new)
        self.env["ASOF_TEST_PATIENCE_MS"] = "1000"
        self.cloud.fail = lambda path: 503
        self.fails("the portal answers 503", "(unavailable)", url=new)

    def test_sso_tokens_are_renewed(self):
        """…and written back beside what else is there, for the other programs that live on them."""
        self.use_sso()
        more = {"clientId": "client", "clientSecret": identity.SSO_CLIENT_SECRET, "kept": [1]}
        new = self.s3.url("/a", profile="new")
        self.sign_in("us", -60, refreshToken="wrong", **more)
        self.fails("its token expired", url=new)
        for lasts_s in (-60, EARLY_S - 60):
            file = self.sign_in("us", lasts_s, refreshToken=identity.SSO_REFRESH, **more)
            self.works("ASIAISSUED", url=new)
            with open(file, encoding="utf-8") as f:
                left = json.load(f)
            self.assertEqual(left["accessToken"], self.cloud.sso_token)
            self.assertEqual((left["kept"], left["refreshToken"]), ([1], identity.SSO_REFRESH))
            self.assertGreater(left["expiresAt"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(
                time.time() + 3000)))
            self.assertEqual(os.stat(file).st_mode & 0o777, 0o600)
        # One that is still good goes on where another can not be had.
        self.sign_in("us", EARLY_S - 60, refreshToken="wrong", **more)
        self.works("ASIAISSUED", url=new)
        self.cloud.fail = lambda path: 503 if path == "/oidc/token" else None
        self.env["ASOF_TEST_PATIENCE_MS"] = "1000"
        self.sign_in("us", -60, refreshToken=identity.SSO_REFRESH, **more)
        self.fails("(unavailable)", url=new)

    def test_nobody(self):
        self.fails("no credentials in the configuration, the environment", "(denied)")

    def test_nobody_there(self):
        """Who should have told does not answer: that is no refusal."""
        self.use_web_identity()
        self.env["ASOF_TEST_PATIENCE_MS"] = "1000"
        self.cloud.fail = lambda path: 503
        self.fails("token service", "503", "(unavailable)")

    # ---- renewal ----

    def begin(self):
        """A process that puts one object after the other, until it is ended."""
        out = open(self.path("out"), "w", encoding="utf-8")
        self.addCleanup(out.close)
        p = subprocess.Popen([TOOL, self.url, "again", "1000"], env=self.env,
                             stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        return p

    def goes_on(self, p, what, condition):
        wait_for(what, lambda: p.poll() is not None or condition())
        with open(self.path("out"), encoding="utf-8") as f:
            self.said.append(f.read())
        self.assertIsNone(p.poll(), self.said[-1])

    def used(self, key_id):
        return any(r.key == key_id and not r.error for r in self.s3.seen())

    def test_renewed_before_they_expire(self):
        for use in (self.use_machine, self.use_web_identity):
            with self.subTest(use=use.__name__):
                use()
                self.s3.requests.clear()
                self.cloud.lasts_s = EARLY_S + 2
                p = self.begin()
                self.goes_on(p, "first keys", lambda: any(not r.error for r in self.s3.seen()))
                first = self.s3.seen()[0].key
                self.cloud.lasts_s = 3600
                self.goes_on(p, "new keys", lambda first=first: self.s3.seen()[-1].key != first)
                self.assertEqual({r.error for r in self.s3.seen()}, {None})
                p.kill()
                p.wait()

    def test_refused_in_the_middle(self):
        """Keys that the store calls expired are fetched anew, and the request is made again."""
        self.use_machine()
        p = self.begin()
        self.goes_on(p, "first keys", lambda: self.used("ASIAISSUED1"))
        self.s3.keys["ASIAISSUED1"].expired = True
        self.goes_on(p, "other keys", lambda: self.used("ASIAISSUED2"))
        refused = [r for r in self.s3.seen() if r.error]
        self.assertEqual({r.error for r in refused}, {"ExpiredToken"})
        self.assertEqual(len(refused), 1)

    def test_a_file_that_is_written_anew(self):
        text = "[default]\naws_access_key_id={}\naws_secret_access_key={}\naws_session_token={}\n"
        self.write(".aws/credentials", text.format(*self.cloud.issue()[:3]))
        p = self.begin()
        self.goes_on(p, "first keys", lambda: self.used("ASIAISSUED1"))
        self.write("new", text.format(*self.cloud.issue()[:3]))
        os.rename(self.path("new"), self.path(".aws/credentials"))
        self.goes_on(p, "other keys", lambda: self.used("ASIAISSUED2"))

    def test_an_outage_of_who_tells(self):
        """Old keys go on while they are good."""
        self.use_machine()
        self.cloud.lasts_s = EARLY_S + 2
        p = self.begin()
        self.goes_on(p, "first keys", lambda: self.used("ASIAISSUED1"))
        self.cloud.fail = lambda path: 500
        n = len(self.cloud.seen)
        self.goes_on(p, "a vain attempt", lambda: len(self.cloud.seen) > n)
        n = len(self.s3.seen())
        self.goes_on(p, "requests", lambda: len(self.s3.seen()) > n + 3)
        self.assertTrue(all(r.key == "ASIAISSUED1" and not r.error for r in self.s3.seen()))

    def test_an_outage_that_outlasts_the_keys(self):
        """Who gave keys and is silent now is waited for; it is not that there are none."""
        self.use_machine()
        for status in (500, 404):
            with self.subTest(status=status):
                self.cloud.lasts_s, self.cloud.fail = 3, lambda path: None
                self.s3.requests.clear()
                p = self.begin()
                self.goes_on(p, "first keys", lambda: any(not r.error for r in self.s3.seen()))
                first = self.s3.seen()[0].key
                self.cloud.fail = lambda path, status=status: status
                end = time.time() + 4
                self.goes_on(p, "a vain attempt past their end",
                             lambda: time.time() > end and self.cloud.asked > end)
                self.cloud.lasts_s, self.cloud.fail = 3600, lambda path: None
                self.goes_on(p, "new keys", lambda first=first: self.s3.seen()[-1].key != first)
                p.kill()
                p.wait()

    # ---- the configuration ----

    def configure(self, *lines):
        if not os.path.exists(self.db_path):
            self.make_db()
        with open(self.path("asof.yml"), "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\nsocket: {self.path('sock')}\nhttp: {{listen: none}}\n"
                    f"log: {{level: debug}}\ndbs:\n- path: {self.db_path}\n  replicas:\n"
                    "  - type: s3\n    bucket: bucket\n    path: a\n    region: us-east-1\n"
                    f"    endpoint: http://127.0.0.1:{self.s3.port}\n" +
                    "".join(f"    {line}\n" for line in lines))

    def make_db(self):
        self.db = self.open_db(synchronous="OFF")
        make_counter(self.db)

    def asof(self, *words):
        run = subprocess.run([harness.ASOF, *words], env=self.env, timeout=60, check=False, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said.append(run.stdout + run.stderr)
        return run

    def is_configured(self):
        run = self.asof("check", "--config", self.path("asof.yml"), "--json")
        return json.loads(run.stdout)["destinations"][0]["configured"]

    def test_what_is_configured(self):
        """A bucket without keys counts if there is somebody to ask."""
        self.configure()
        self.assertFalse(self.is_configured())
        self.use_machine()
        self.assertTrue(self.is_configured())
        self.env["AWS_EC2_METADATA_DISABLED"] = "true"
        self.assertFalse(self.is_configured())
        self.write(".aws/credentials", "[default]\n")
        self.assertTrue(self.is_configured())

    def replicates(self, *lines):
        """`asof run` brings what is committed there; a URL alone reads it."""
        self.configure(*lines)
        log = open(self.path("log"), "w", encoding="utf-8")
        self.addCleanup(log.close)
        daemon = subprocess.Popen([harness.ASOF, "run", "--config", self.path("asof.yml")],
                                  env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        commit(self.db)
        out = self.path("out.db")

        def restored():
            run = self.asof("restore", "--latest", "-o", out, "--force", "--archive", self.url,
                            "--db", "trades.db")
            return run.returncode == 0 and counter_of(out) == 1

        wait_for("the commit there", restored)
        daemon.terminate()
        self.assertEqual(daemon.wait(60), 0)
        with open(self.path("log"), encoding="utf-8") as f:
            self.said.append(f.read())
        self.assertIn("key=ASIA", self.said[-1])  # debug lines are among them

    def test_run_on_a_machine_of_a_cloud(self):
        """…with objects kept as the configuration says."""
        self.use_machine()
        self.replicates("storage-class: STANDARD_IA", "sse: aws:kms", "sse-kms-key-id: some-key")
        for _, headers in self.s3.objects.values():
            self.assertEqual(headers.get("x-amz-storage-class"), "STANDARD_IA")
            self.assertEqual(headers.get("x-amz-server-side-encryption"), "aws:kms")
            self.assertEqual(headers.get("x-amz-server-side-encryption-aws-kms-key-id"), "some-key")
        self.assertEqual({r.error for r in self.s3.seen()}, {None})

    def test_run_with_a_profile(self):
        key_id, secret, token, _ = self.cloud.issue()
        self.write(".aws/config", f"[profile p]\naws_access_key_id = {key_id}\n"
                   f"aws_secret_access_key = {secret}\naws_session_token = {token}\n")
        self.env |= {"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "wrong"}
        self.url += "&profile=p"
        self.replicates("profile: p")
        self.assertEqual({r.key for r in self.s3.seen()}, {key_id})


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The page at /, in a browser, and what of the API it alone asks for."""

import fcntl
import hashlib
import http.client
import os
import random
import shlex
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
from urllib.parse import quote, urlencode

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness
from browser import Browser
from harness import wait_for
from observed import Daemon, free_port

NAME = "<img src=x onerror=alert(1)>.db"
API = "/api/v1/page/"

# Texts with less contrast than 4.5 to what is behind them, and controls without a name.
FAULTS = """(() => {
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length === 4 && !n[3] ? null : n; };
  const light = c => [0, 1, 2].map(i => c[i] / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (own && !e.disabled && e.getClientRects().length) {
      let behind = e, b = null;
      while (behind && !(b = parse(getComputedStyle(behind).backgroundColor))) behind = behind.parentElement;
      const x = light(parse(getComputedStyle(e).color)), y = light(b || [255, 255, 255]);
      const contrast = (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
      if (contrast < 4.5) found.push(`${e.tagName} ${e.id} ${e.textContent.slice(0, 30)}: ${contrast}`);
    }
    if (e.matches('button, a, input, select, [tabindex]') &&
        !(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length)))
      found.push(`${e.tagName} ${e.id} has no name`);
  }
  return found;
})()"""


class Served(harness.Case):
    name = NAME

    def setUp(self):
        super().setUp()
        self.live = self.path(self.name)
        self.db = self.open_db(self.live)
        harness.make_counter(self.db)
        self.db.execute("CREATE TABLE \"o'\"\"<b>\"(x)")
        self.db.execute("INSERT INTO \"o'\"\"<b>\" VALUES (1), (2), (3)")
        self.db.commit()
        for _ in range(20):
            harness.commit(self.db)
        os.mkdir(self.archive)
        port = free_port()
        self.daemon = Daemon(self, f"archive: {self.archive}\ndbs:\n  - path: '{self.live}'\n",
                             listen=f"127.0.0.1:{port}")
        self.url = f"http://127.0.0.1:{port}/"
        self.daemon.wait_health()
        known = self.last()["last_txid"]
        for _ in range(20):
            harness.commit(self.db)
        wait_for("the newest commit", lambda: self.last()["last_txid"] >= known + 20)

    def last(self):
        return self.daemon.ask(API + "overview").json["databases"][0]

    def browser(self, **options):
        b = Browser(self, **options)
        b.open(self.url)
        b.wait_js("state.line !== null && state.overview !== null")
        return b

    def fits(self, b):
        """Nothing is cut at the side: neither of the page, nor of what scrolls in it."""
        self.assertEqual(b.js("""[document.documentElement, document.body, ...document.querySelectorAll('.scroll, header, main')]
            .filter(e => e.scrollWidth > e.clientWidth || e.getBoundingClientRect().right > innerWidth)
            .map(e => `${e.tagName} ${e.className} ${e.scrollWidth} > ${e.clientWidth}`)"""), [])
        self.assertLessEqual(b.js("document.documentElement.scrollWidth"), b.js("innerWidth"))

    def api(self, what, **args):
        a = self.daemon.ask(f"{API}{what}?{urlencode({'db': self.name, **args})}")
        self.assertEqual(a.status, 200, a.body[:300])
        return a


class Page(Served):
    def restored(self, txid):
        out = self.path(f"restored-{txid}.db")
        r = harness.asof("restore", "--archive", self.archive, "--db", NAME, "--tx", str(txid), "-o", out)
        self.assertEqual(r.returncode, 0, r.stderr)
        return out

    def test_download_is_restore(self):
        """Each of some moments is downloaded byte for byte as asof restore writes it."""
        first, last = self.last()["first_txid"], self.last()["last_txid"]
        for txid in sorted({first, (first + last) // 2, last}):
            a = self.api("download", tx=txid)
            with open(self.restored(txid), "rb") as f:
                self.assertEqual(hashlib.sha256(a.body).hexdigest(), hashlib.sha256(f.read()).hexdigest())
            self.assertEqual(a.headers["Content-Disposition"].count('"'), 2)

    def test_moment(self):
        """Rows as SQLite counts them in what is restored; what a commit changed."""
        txid = self.last()["last_txid"]
        m = self.api("moment", tx=txid).json
        with sqlite3.connect(self.restored(txid)) as db:
            names = [r[0] for r in db.execute("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name")]
            rows = {n: db.execute('SELECT count(*) FROM "%s"' % n.replace('"', '""')).fetchone()[0]
                    for n in names}
        self.assertEqual({t["name"]: t["rows"] for t in m["tables"]}, rows)
        self.assertTrue(m["changes"], m)
        self.assertEqual(m["problem"], "")

    def test_timeline(self):
        """The spans hold all commits together, whatever their number."""
        d = self.last()
        first_us, to = d["first_us"], f"@{(d['last_us'] + 1) / 1e6:.6f}"
        total = d["last_txid"] - d["first_txid"] + 1
        for n in (1, 7, 500):
            for before_us in (None, 0, 1, 10 ** 6, 10 ** 12):
                args = {} if before_us is None else {"from": f"@{(first_us - before_us) / 1e6:.6f}", "to": to}
                t = self.api("timeline", buckets=n, **args).json
                self.assertEqual((len(t["commits"]), len(t["bytes"])), (n, n))
                self.assertEqual(sum(t["commits"]), total, f"{n} {before_us}")
            t = self.api("timeline", buckets=n, **{"from": f"@{(first_us + 1) / 1e6:.6f}", "to": to}).json
            self.assertLess(sum(t["commits"]), total)

    def test_snapshots(self):
        """Each snapshot of the archive is on the timeline, at the time of a commit."""
        d, t = self.last(), self.api("timeline").json
        self.assertGreater(len(t["snapshots"]), 0)
        self.assertEqual(len(t["snapshots"]), d["snapshots"])
        for s in t["snapshots"]:
            m = self.api("moment", tx=s["txid"]).json
            self.assertEqual(s["time_us"], m["time_us"])
        self.assertEqual(self.api("timeline", **{"from": "@1", "to": "@2"}).json["snapshots"], [])
        b = self.browser()
        self.assertIn(f"Snapshots{d['snapshots']}", b.js("document.getElementById('figures').textContent"))
        b.js("state.utc = state.utc, draw()")
        # Its colour is at its place.
        self.assertTrue(b.js("""(() => {
            const c = $('timeline'), g = c.getContext('2d'), s = state.line.snapshots[0];
            const x = Math.max(7, Math.min(c.clientWidth - 7, Math.round(xOf(s.time_us, c.clientWidth))));
            const p = [...g.getImageData(x, c.clientHeight - 31, 1, 1).data].slice(0, 3);
            const e = document.querySelector('.legend .p'), w = getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number);
            return p.every((v, i) => Math.abs(v - w[i]) < 8);
        })()"""))

    def test_verifications(self):
        """What the clock verified is on the timeline."""
        with open(os.path.join(self.daemon.config), encoding="utf-8") as f:
            text = f.read()
        self.daemon.stop()
        self.daemon.close = lambda: None
        d = Daemon(self, text + "    verify: every 1s\n", listen=self.daemon.listen)
        self.daemon = d
        d.wait_health()
        harness.commit(self.db)

        def verified():
            harness.commit(self.db)
            a = d.try_ask(f"{API}timeline?{urlencode({'db': NAME})}")
            return a.json["verifications"] if a and a.status == 200 else None
        self.assertTrue(wait_for("a verification", verified)[0]["ok"])

    def test_local_time(self):
        """What is shown in local time is submitted as that moment; so is what is typed."""
        b = self.browser()
        b.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
        last = self.last()
        for local in (False, True):
            if local:
                b.js("document.getElementById('zone').click()")
                self.assertIn("+05:30", b.js("document.getElementById('at').value"))
            b.js("state.moment = null; pick(current().last_us)")
            b.js("document.getElementById('pick').requestSubmit()")
            b.wait_js(f"state.moment !== null && state.moment.txid === {last['last_txid']}")
        # A typed one, without a zone: that of the moment, less what a second leaves off.
        at = 1 + last["last_us"] // 10 ** 6
        for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.000", "%Y%m%dT%H%M%S"):
            typed = time.strftime(form, time.gmtime(at + 19800))
            self.assertEqual(b.js(f"zoned('{typed}')"), f"@{at}.000000")
        for text in ("2024-01-15T10:30:00Z", "2024-01-15 10:30+02:00", "-5m", "@17", "2024-02-31"):
            self.assertEqual(b.js(f"zoned('{text}')"), text)
        b.js("document.getElementById('zone').click()")
        self.assertEqual(b.js("zoned('2024-01-15 10:30:00')"), "2024-01-15 10:30:00")
        self.assertTrue(b.js("document.getElementById('at').value.endsWith('Z')"))

    def test_time_change(self):
        """An hour that happens twice is shown with its offset; typed without one, it is refused as the
        command line does, and so is one that is skipped."""
        b = self.browser()
        b.call("Emulation.setTimezoneOverride", timezoneId="America/New_York")
        b.js("document.getElementById('zone').click()")
        config = self.path("zone.yml")
        with open(self.daemon.config, encoding="utf-8") as f, open(config, "w", encoding="utf-8") as to:
            to.write("timezone: America/New_York\n" + f.read())
        edt = 1730611800  # 2024-11-03 01:30 for the first time
        seen = [b.js(f"time({(edt + add) * 10 ** 6}, {fine})") for add in (0, 3600) for fine in ("false", "true")]
        self.assertEqual(seen, ["2024-11-03 01:30:00-04:00", "2024-11-03T01:30:00.000000-04:00",
                                "2024-11-03 01:30:00-05:00", "2024-11-03T01:30:00.000000-05:00"])
        for text in ("2024-11-03 01:30:00", "20241103T0130", "2024-03-10 02:30"):
            command = harness.asof("restore", "--config", config, "--db", NAME, "--at", text, "-o", self.path("never"))
            self.assertEqual(command.returncode, 2, command.stderr)
            b.js(f"$('at').value = '{text}'; $('pick').requestSubmit()")
            b.wait_js("$('moment-line').className === 'bad'")
            told = b.js("$('moment-line').textContent")
            self.assertIn("is skipped by a time change" if "-03-10" in text else "happens twice", told)
            self.assertIn(told.replace(".000000", ""), command.stderr.replace(".000000", ""))
            readings = [told[i:i + 25] for i in range(len(told)) if told[i:].startswith("2024-") and told[i + 19] in "-+"]
            self.assertEqual(len(readings), 2, told)
            for r in readings:  # each can be typed
                self.assertEqual(b.js(f"zoned('{r}')"), r)
            b.js("$('moment-line').className = ''")
        self.assertEqual(b.js("zoned('2024-11-03 00:30')"), f"@{edt - 3600}.000000")
        self.assertEqual(b.js("zoned('2024-11-03 02:30')"), f"@{edt + 7200}.000000")
        self.assertEqual(b.js("zoned('2024-11-03 24:30')"), "2024-11-03 24:30")  # the server says so

    def test_pointer(self):
        """The wheel zooms about what is under it; a drag moves by what it went."""
        b = self.browser()
        b.js("document.getElementById('timeline').scrollIntoView()")
        box = b.js("(r => [r.left, r.top, r.width, r.height])($('timeline').getBoundingClientRect())")
        x, y = box[0] + box[2] / 4, box[1] + box[3] / 2
        before = b.js("[state.from, state.to]")
        b.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-60)
        b.wait_js(f"state.to - state.from < {(before[1] - before[0]) * .9}")
        after = b.js("[state.from, state.to]")
        place = [t[0] + (t[1] - t[0]) / 4 for t in (before, after)]
        self.assertAlmostEqual(place[0], place[1], delta=(before[1] - before[0]) / 100)
        for kind, to in (("mousePressed", 0), ("mouseMoved", 50), ("mouseMoved", 100), ("mouseReleased", 100)):
            b.call("Input.dispatchMouseEvent", type=kind, x=x + to, y=y, button="left",
                   buttons=0 if kind == "mouseReleased" else 1, clickCount=1)
        moved = b.js("[state.from, state.to]")
        width = after[1] - after[0]
        self.assertAlmostEqual(moved[1] - moved[0], width, delta=5)
        self.assertAlmostEqual(after[0] - moved[0], width * 100 / box[2], delta=width / 100)
        self.assertEqual(b.js("state.pick"), 0)  # a drag is no click

    def test_pinch(self):
        """Two fingers zoom, in either direction, and what is between them stays there; one picks."""
        b = self.browser(width=390, height=800)
        b.js("document.getElementById('timeline').scrollIntoView()")
        left, top, width, height = b.js("(r => [r.left, r.top, r.width, r.height])($('timeline').getBoundingClientRect())")
        x, y = left + width / 2, top + height / 2
        shown = lambda: b.js("[state.from, state.to]")
        for dx, dy in ((1, 0), (.8, .5)):
            b.js("state.follow = true; loadLine()")
            whole = shown()
            fingers = lambda d: ((x - d * dx, y - d * dy), (x + d * dx, y + d * dy))
            b.touch("touchStart", *fingers(30))
            for d in (40, 50, 60):
                b.touch("touchMove", *fingers(d))
            b.wait_js(f"state.to - state.from < {(whole[1] - whole[0]) * .6}")
            near = shown()
            self.assertAlmostEqual(near[1] - near[0], (whole[1] - whole[0]) / 2, delta=(whole[1] - whole[0]) * .1)
            self.assertAlmostEqual(sum(near) / 2, sum(whole) / 2, delta=(whole[1] - whole[0]) * .05)
            for d in (50, 40, 30):
                b.touch("touchMove", *fingers(d))
            b.wait_js(f"state.to - state.from > {(whole[1] - whole[0]) * .9}")
            b.touch("touchEnd")
            self.assertEqual(b.js("state.pick"), 0)  # a pinch is no tap
        b.touch("touchStart", (x, y))
        b.touch("touchEnd")
        b.wait_js("state.pick > 0 && !document.getElementById('moment').hidden")

    def test_phone(self):
        """At 390 pixels nothing of a moment is clipped or broken, in either zone."""
        for local in (False, True):
            b = self.browser(width=390, height=800)
            if local:
                b.js("document.getElementById('zone').click()")
            b.js("pick(current().last_us, true)")
            b.wait_js("!document.getElementById('moment').hidden")
            self.fits(b)
            self.assertEqual(b.js("""[...document.querySelectorAll('.whole')]
                .filter(e => e.getClientRects().length !== 1).map(e => e.textContent)"""), [])
            self.assertTrue(b.js("document.querySelector('#moment-line .whole').textContent.includes(time(state.moment.time_us, true))"))
            self.assertTrue(b.js("(e => e.scrollWidth <= e.clientWidth)($('at'))"), "the time in As of is cut")
            if os.environ.get("ASOF_SCREENSHOTS"):
                b.picture(os.path.join(os.environ["ASOF_SCREENSHOTS"], f"390-{local}.png"))

    def test_hidden(self):
        """A tab that nobody sees asks nothing."""
        b = self.browser()
        seen = b.js("""(async () => {
            const delays = [], asks = [], really = [fetch.bind(window), setTimeout.bind(window)];
            Object.defineProperty(document, 'hidden', { get: () => true, configurable: true });
            window.fetch = u => { asks.push(u); return really[0](u); };
            window.setTimeout = (f, ms) => { delays.push(ms); return really[1](f, ms); };
            await poll();
            return [asks.length, delays];
        })()""")
        self.assertEqual(seen, [0, [30000]])

    def test_one_order_at_a_time(self):
        where = f"{API}backup?db={quote(NAME)}"
        fd = os.open(self.archive, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        a = self.daemon.ask(where, "POST", headers={"X-Asof": "1"})
        self.assertGreaterEqual(a.status, 400)
        self.assertIn("another backup or validation runs", a.json["error"])
        os.close(fd)
        a = self.daemon.ask(where, "POST", headers={"X-Asof": "1"}, timeout=60)
        self.assertEqual(a.json, {"ok": True, "text": ""})

    def test_bad_orders(self):
        """None of these is one that could be followed."""
        pid = self.daemon.observer_pid()
        rng = random.Random(6)
        values = ["", "..", "../../etc/passwd", "/etc/passwd", "--help", "é", "%00", "x" * 4000, "<b>", "*", "a\nb"]
        for _ in range(60):
            args = {"db": rng.choice(values)}
            what = rng.choice(("backup", "validate"))
            if what == "validate":
                args = {"db": rng.choice([NAME, args["db"]]), "file": rng.choice(values)}
            if rng.random() < .2:
                args.pop("db")
            a = self.daemon.ask(f"{API}{what}?{urlencode(args)}", "POST", headers={"X-Asof": "1"})
            self.assertIn(a.status, (400, 404), f"{what} {args}: {a.body[:300]}")
            self.assertNotIn("\n", a.json["error"])
        self.assertEqual(self.daemon.observer_pid(), pid)
        self.assertEqual(self.api("backups").json["backups"], [])

    def test_bad_requests(self):
        """400 or 404 with one line, and the observer lives."""
        pid = self.daemon.observer_pid()
        rng = random.Random(5)
        values = ["", "0", "-1", "1e9", "9" * 30, "NaN", "@", "@1e400", "../../etc", "%00", "é", "x" * 4000,
                  "9999-12-31T23:59:59Z", "0001-01-01", "' OR 1=1", "<script>", "501", "a\nb"]
        n = 0
        for what in ("timeline", "moment", "download", "backups"):
            for _ in range(40):
                args = {k: rng.choice(values) for k in ("db", "tx", "at", "from", "to", "buckets")
                        if rng.random() < .5}
                if rng.random() < .7:
                    args["db"] = NAME
                a = self.daemon.ask(f"{API}{what}?{urlencode(args)}")
                self.assertIn(a.status, (200, 400, 404), f"{what} {args}: {a.body[:300]}")
                if a.status != 200:
                    n += 1
                    self.assertNotIn("\n", a.json["error"])
        self.assertGreater(n, 50)
        self.assertEqual(self.daemon.observer_pid(), pid)

    def test_orders(self):
        """A backup is taken and found good; nothing of it without the header, or from elsewhere."""
        where = f"{API}backup?db={quote(NAME)}"
        self.assertEqual(self.daemon.ask(where, "POST").status, 403)
        self.assertEqual(self.daemon.ask(where, "POST", headers={
            "X-Asof": "1", "Sec-Fetch-Site": "cross-site"}).status, 403)
        self.assertEqual(self.api("backups").json["backups"], [])
        a = self.daemon.ask(where, "POST", headers={"X-Asof": "1"}, timeout=60)
        self.assertEqual(a.json, {"ok": True, "text": ""})
        backup, = self.api("backups").json["backups"]
        types = {t["type"]: t for t in self.api("backups").json["types"]}
        self.assertEqual({k: t["count"] for k, t in types.items()},
                         {"manual": 1, "automated": 0, "safety": 0, "compressed": 0})
        self.assertEqual(types["manual"]["last_us"], backup["time_us"])
        check = f"{API}validate?{urlencode({'db': NAME, 'file': backup['name']})}"
        a = self.daemon.ask(check, "POST", headers={"X-Asof": "1"}, timeout=60)
        self.assertEqual(a.json, {"ok": True, "text": ""})
        with open(os.path.join(self.archive, "manual", backup["name"]), "r+b") as f:
            f.seek(backup["bytes"] // 2)
            byte = f.read(1)[0]
            f.seek(-1, 1)
            f.write(bytes([byte ^ 255]))
        a = self.daemon.ask(check, "POST", headers={"X-Asof": "1"}, timeout=60)
        self.assertFalse(a.json["ok"], a.text)

    def test_browser(self):
        """It says to when one could restore, with the keyboard alone; a name that is HTML is text."""
        b = Browser(self)
        b.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        b.open(self.url)
        b.wait_js("document.getElementById('headline').textContent.startsWith('You can restore')")
        self.assertIn(NAME, b.js("document.getElementById('headline').textContent"))
        self.assertEqual(b.js("document.querySelectorAll('img').length"), 0)
        b.wait_js("state.line !== null")
        b.js("document.getElementById('timeline').focus()")
        before = b.js("state.to - state.from")
        b.key("+", "+")
        self.assertLess(b.js("state.to - state.from"), before)
        b.key("End")
        b.key("Enter", "\r")
        b.wait_js("!document.getElementById('moment').hidden")
        self.assertEqual(b.js("document.querySelector('#tables tbody').rows.length"), 3)
        txid = b.js("state.moment.txid")
        b.js("document.getElementById('copy-restore').click()")
        b.wait_js(f"document.getElementById('copied').textContent.includes('--tx {txid} ')")
        command = shlex.split(b.js("navigator.clipboard.readText()"))
        self.assertEqual(command, ["asof", "restore", "--archive", self.archive, "--db", NAME,
                                   "--tx", str(txid), "-o", "restored-" + NAME])
        b.js("document.getElementById('take').click()")
        b.wait_js("document.querySelectorAll('#backups tbody[data-type=manual] tr').length === 2", 60)
        self.assertEqual(b.js("[...document.querySelectorAll('#backups tbody th')].map(x => x.textContent.split(',')[0])"),
                         ["manual: 1", "automated: 0", "safety: 0", "compressed: 0"])
        seen = []
        b.js("document.activeElement.blur()")
        for _ in range(16):
            b.key("Tab")
            seen.append(b.js("document.activeElement.id"))
        for wanted in ("zone", "out", "in", "whole", "timeline", "at", "copy-restore", "download", "take"):
            self.assertIn(wanted, seen)
        self.assertEqual(b.js(FAULTS), [])
        self.assertEqual(b.complaints(), [])
        where = os.environ.get("ASOF_SCREENSHOTS")
        if where:
            b.picture(os.path.join(where, "light.png"))
        for name, options in (("dark", {"dark": True}), ("phone", {"width": 360, "height": 800})):
            other = Browser(self, **options)
            other.open(self.url)
            other.wait_js("state.line !== null")
            self.assertLessEqual(other.js("document.documentElement.scrollWidth"),
                                 other.js("window.innerWidth"))
            other.js("pick(current().known_until_us, true)")
            other.wait_js("!document.getElementById('moment').hidden")
            other.wait_js("document.querySelector('#backups button') !== null")
            self.fits(other)
            self.assertEqual(other.js(FAULTS), [])
            self.assertEqual(other.complaints(), [])
            if where:
                other.picture(os.path.join(where, name + ".png"))

    def test_damage_is_said(self):
        """An archive that went away: red, and why."""
        b = Browser(self)
        b.open(self.url)
        b.wait_js("document.getElementById('headline').textContent.startsWith('You can restore')")
        os.rename(self.archive, self.archive + ".gone")
        b.wait_js("document.getElementById('verdict').className === 'failed' && "
                  "document.getElementById('problems').textContent.length > 0")
        self.assertFalse(b.js("document.getElementById('headline').textContent.startsWith('You can restore')"))
        os.rename(self.archive + ".gone", self.archive)


class LoggedIn(harness.Case):
    """The page where a token is wanted, and TLS spoken."""
    TOKEN = "t0ken of 1"

    def setUp(self):
        super().setUp()
        cert, key = self.path("cert.pem"), self.path("key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-keyout", key, "-out", cert, "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                       check=True, stderr=subprocess.DEVNULL)
        self.context = ssl.create_default_context(cafile=cert)
        self.db = self.open_db(self.path("trades.db"))
        harness.make_counter(self.db)
        harness.commit(self.db)
        os.mkdir(self.archive)
        self.port = free_port()
        self.tls = f", tls-cert: {cert}, tls-key: {key}"
        self.daemon = Daemon(self, self.text(self.TOKEN), listen=f"127.0.0.1:{self.port}")
        bearer = {"Authorization": "Bearer " + self.TOKEN}
        wait_for("health", lambda: (a := self.ask("/health", bearer)) and a[0] == 200)

    def text(self, token, more=""):
        return (f"archive: {self.archive}\ndbs: ['{self.path('trades.db')}']\n"
                f"http: {{listen: '127.0.0.1:{self.port}', token: '{token}'{more}{self.tls}}}\n")

    def ask(self, path, headers=None, method="GET"):
        """(status, headers, body), or None while nobody answers."""
        c = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=30)
        try:
            c.request(method, path, headers=headers or {})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        except OSError:
            return None
        finally:
            c.close()

    def reload(self, text):
        self.daemon.write_config(text)
        self.daemon.process.send_signal(signal.SIGHUP)

    def test_browser(self):
        """Nothing is told before; then all of it works, a download and a reload too; logged out, nothing."""
        b = Browser(self)
        b.downloads_to(self.path("down"))
        b.open(f"https://127.0.0.1:{self.port}/")
        b.wait_js("!$('login').hidden && document.querySelector('main').hidden")
        self.assertNotIn("trades", b.js("document.body.textContent"))
        self.assertEqual(b.js("document.activeElement.id"), "token")
        b.call("Input.insertText", text="wrong")
        b.key("Enter", "\r")
        b.wait_js("$('login-line').textContent.includes('not the token')")
        b.js("$('token').value = ''")
        b.call("Input.insertText", text=self.TOKEN)
        b.key("Enter", "\r")
        b.wait_js("$('login').hidden && $('headline').textContent.startsWith('You can restore')")
        self.assertEqual(b.js("document.cookie"), "")  # no script reads it
        b.js("0")
        b.call("Page.reload")
        b.wait_js("$('login').hidden && $('headline').textContent.startsWith('You can restore') && !$('logout').hidden && state.line")
        b.js("pick(current().last_us, true)")
        b.wait_js("!$('moment').hidden")
        b.js("$('download').click()")
        name = f"tx{b.js('state.moment.txid')}-trades.db"
        downloaded = self.path("down", name)
        wait_for("the download", lambda: os.path.exists(downloaded))
        out = self.path("restored.db")
        r = harness.asof("restore", "--archive", self.archive, "--tx", str(b.js("state.moment.txid")), "-o", out)
        self.assertEqual(r.returncode, 0, r.stderr)
        with open(downloaded, "rb") as f, open(out, "rb") as g:
            self.assertEqual(f.read(), g.read())
        b.js("$('take').click()")
        b.wait_js("document.querySelectorAll('#backups tbody[data-type=manual] tr').length === 2", 60)
        self.assertEqual([c for c in b.complaints() if "401" not in str(c)], [])
        if os.environ.get("ASOF_SCREENSHOTS"):
            b.picture(os.path.join(os.environ["ASOF_SCREENSHOTS"], "logged-in.png"))
        b.js("$('logout').click()")
        b.wait_js("!$('login').hidden && document.querySelector('main').hidden")
        self.assertEqual(b.js(FAULTS), [])
        if os.environ.get("ASOF_SCREENSHOTS"):
            b.picture(os.path.join(os.environ["ASOF_SCREENSHOTS"], "login.png"))
        b.js("$('token').value = ''")
        b.call("Input.insertText", text=self.TOKEN)
        b.key("Enter", "\r")
        b.wait_js("$('login').hidden && !$('logout').hidden")
        # Another token: the page that is open asks for it.
        self.reload(self.text("another"))
        b.wait_js("!$('login').hidden", 60)

    def test_cookie(self):
        """It is not the token, is given for the token alone, and does what the token does, no more."""
        bearer = {"Authorization": "Bearer " + self.TOKEN}
        for headers in ({}, {"Authorization": "Bearer x"}, {"Cookie": "asof=1"}):
            status, given, _ = self.ask("/api/v1/page/login", {"X-Asof": "1", **headers}, "POST")
            self.assertEqual((status, given["Set-Cookie"]), (401, None))
        self.assertEqual(self.ask("/api/v1/page/login", bearer, "POST")[0], 403)  # another site's page
        status, given, _ = self.ask("/api/v1/page/login", {"X-Asof": "1", **bearer}, "POST")
        self.assertEqual(status, 200)
        pair, *attributes = given["Set-Cookie"].split("; ")
        self.assertLessEqual({"HttpOnly", "Secure", "SameSite=Strict", "Path=/"}, set(attributes))
        self.assertNotIn(self.TOKEN, pair)
        cookie = {"Cookie": "other=1; " + pair}
        for path in ("/metrics", "/api/v1/status", "/api/v1/page/overview"):
            self.assertEqual(self.ask(path, cookie)[0], 200)
            for wrong in (pair[:-1], pair + "0", pair.split("=")[0] + "=", pair.split("=")[0]):
                self.assertEqual(self.ask(path, {"Cookie": wrong})[0], 401, wrong)
        self.assertEqual(self.ask("/api/v1/page/backup?db=trades.db", cookie, "POST")[0], 403)  # no X-Asof
        for path in ("/", "/page.js", "/page.css"):
            self.assertEqual(self.ask(path)[0], 200)
        # A browser asks for a password by itself: nothing is open then.
        self.reload(self.text(self.TOKEN, ", username: joe, password: secret"))
        wait_for("the password", lambda: (a := self.ask("/")) and a[0] == 401 and "Basic" in a[1]["WWW-Authenticate"])
        self.assertEqual(wait_for("the cookie", lambda: self.ask("/metrics", cookie))[0], 200)


class LongName(Served):
    name = "n" * 197 + ".db"

    def test_fits(self):
        """A name of 200 bytes, on a phone, with a moment shown."""
        for local in (False, True):
            b = self.browser(width=360, height=800)
            if local:
                b.js("document.getElementById('zone').click()")
            b.js("pick(current().known_until_us, true)")
            b.wait_js("!document.getElementById('moment').hidden")
            b.js("copy('x'.repeat(300))")
            self.fits(b)
        where = os.environ.get("ASOF_SCREENSHOTS")
        if where:
            b.picture(os.path.join(where, "long.png"))


if __name__ == "__main__":
    harness.main()

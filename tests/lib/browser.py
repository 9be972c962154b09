# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, by its DevTools protocol, with nothing but the standard library."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import urllib.request

import harness


class Browser:
    def __init__(self, case, width=1200, height=900, dark=False):
        program = shutil.which("chromium")
        if not program:
            if os.environ.get("CI"):
                raise AssertionError("chromium is not installed")
            case.skipTest("chromium is not installed")
        self.profile = tempfile.mkdtemp(prefix="asof-chromium-")
        case.addCleanup(shutil.rmtree, self.profile, ignore_errors=True)
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-dev-shm-usage",
             "--remote-debugging-port=0", f"--user-data-dir={self.profile}",
             f"--window-size={width},{height}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        case.addCleanup(self.close)
        port = harness.wait_for("DevTools", self._port, 60)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as f:
            url = next(p for p in json.load(f) if p["type"] == "page")["webSocketDebuggerUrl"]
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{url.split('/', 3)[3]} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                             "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                             f"Sec-WebSocket-Key: {key}\r\n\r\n").encode())
        self.input = self.socket.makefile("rb")
        while self.input.readline().strip():
            pass
        self.events, self.n = [], 0
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.call("Security.setIgnoreCertificateErrors", ignore=True)  # tests make their own
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 500)
        if width < 500:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def _port(self):
        try:
            with open(os.path.join(self.profile, "DevToolsActivePort"), encoding="ascii") as f:
                return int(f.readline())
        except (OSError, ValueError):
            return None

    def _receive(self):
        data = b""
        while True:
            first, length = self.input.read(2)
            length &= 127
            if length == 126:
                length, = struct.unpack(">H", self.input.read(2))
            elif length == 127:
                length, = struct.unpack(">Q", self.input.read(8))
            data += self.input.read(length)
            if first & 128:
                return json.loads(data)

    def call(self, method, **params):
        self.n += 1
        data = json.dumps({"id": self.n, "method": method, "params": params}).encode()
        size = (bytes([129, 128 | len(data)]) if len(data) < 126 else
                bytes([129, 254]) + struct.pack(">H", len(data)))
        self.socket.sendall(size + bytes(4) + data)  # a mask of zeros
        while True:
            m = self._receive()
            if m.get("id") == self.n:
                if "error" in m:
                    raise AssertionError(f"{method}: {m['error']}")
                return m["result"]
            self.events.append(m)

    def open(self, url):
        self.call("Page.navigate", url=url)

    def js(self, text):
        r = self.call("Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in r:
            raise AssertionError(f"{text}: {r['exceptionDetails']}")
        return r["result"].get("value")

    def wait_js(self, text, patience=harness.PATIENCE):
        """Until it is true; what is not there yet is not."""
        tried = f"(() => {{ try {{ return {text}; }} catch (e) {{ return false; }} }})()"
        return harness.wait_for(text, lambda: self.js(tried), patience)

    def key(self, key, text=None):
        code = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}.get(key, 0)
        args = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **args, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **args)

    def touch(self, kind, *points):
        """touchStart, touchMove, touchEnd, with the fingers that are down."""
        self.call("Input.dispatchTouchEvent", type=kind,
                  touchPoints=[{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)])

    def picture(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    def downloads_to(self, folder):
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)

    def complaints(self):
        """What the console says, and requests to other places."""
        self.js("0")
        found = []
        for e in self.events:
            p = e["params"]
            if e["method"] == "Runtime.exceptionThrown" or (
                    e["method"] == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning")) or (
                    e["method"] == "Log.entryAdded" and p["entry"]["level"] == "error"):
                found.append(p)
            if e["method"] == "Network.requestWillBeSent" and not p["request"]["url"].startswith(
                    ("http://127.0.0.1:", "https://127.0.0.1:", "data:", "about:")):
                found.append(p["request"]["url"])
        return found

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.input.close()
        self.socket.close()

"""Headless Chromium, driven through chromedriver by the W3C WebDriver protocol. Both run in this
test's namespaces and write to a directory of this test alone."""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

LIMIT_S = 60
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # what the standard calls an element by
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Shift": "\ue008", "Left": "\ue012",
        "Up": "\ue013", "Right": "\ue014", "Down": "\ue015", "Space": " "}


class BrowserError(AssertionError):
    pass


class Browser:
    """`names` maps host names to addresses: there is no DNS in a test."""

    def __init__(self, names=None, size=(1360, 1000)):
        self.dir = tempfile.mkdtemp(prefix="meshd-test-")
        self.session = None
        with open(os.path.join(self.dir, "log"), "w", encoding="utf-8") as log:
            self.driver = subprocess.Popen(
                ["/usr/bin/chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "HOME": self.dir, "TMPDIR": self.dir}, start_new_session=True)
        try:
            self.port = self.announced_port()
            self.session = self.start(names or {}, size)
        except BaseException:
            self.close()
            raise

    def announced_port(self):
        for line in self.driver.stdout:
            found = re.search(r"successfully on port (\d+)", line)
            if found:
                return int(found[1])
        raise BrowserError("chromedriver does not start")

    def start(self, names, size):
        rules = ",".join(f"MAP {name} {address}" for name, address in names.items())
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={self.dir}/profile",
            f"--window-size={size[0]},{size[1]}", "--hide-scrollbars",
            f"--host-resolver-rules={rules}", "about:blank"]
        options = {"args": arguments, "binary": "/usr/bin/chromium"}
        capabilities = {"browserName": "chrome", "acceptInsecureCerts": True,
                        "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        return answer["sessionId"]

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        text = None if method == "GET" else json.dumps(body or {})
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        value = answer["value"]
        if isinstance(value, dict) and "error" in value:
            raise BrowserError(f"{value['error']}: {value['message'][:500]}")
        return value

    def do(self, method, path, body=None):
        return self.ask(method, f"/session/{self.session}{path}", body)

    # --- what a person does ---

    def open(self, url):
        self.do("POST", "/url", {"url": url})

    def url(self):
        return self.do("GET", "/url")

    def press(self, *keys):
        """Each is a character, or a name of KEYS; "Shift+Tab" holds the first down."""
        actions = []
        for key in keys:
            held = [KEYS.get(one, one) for one in key.split("+")] if len(key) > 1 else [key]
            actions += [{"type": "keyDown", "value": one} for one in held]
            actions += [{"type": "keyUp", "value": one} for one in reversed(held)]
        self.do("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def type(self, text):
        self.press(*text)

    def click(self, selector):
        self.do("POST", f"/element/{self.find(selector)}/click")

    def find(self, selector):
        found = self.do("POST", "/element", {"using": "css selector", "value": selector})
        return found[ELEMENT]

    # --- what a person sees ---

    def run(self, script, *arguments):
        return self.do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector="body"):
        """As it is rendered: what is hidden is not in it. Empty: there is none."""
        return self.run("const one = document.querySelector(arguments[0]);"
                        "return one && one.checkVisibility() ? one.innerText : '';", selector)

    def texts(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])]"
                        ".filter(one => one.checkVisibility()).map(one => one.innerText);", selector)

    def focused(self):
        """What a screen reader would say of it."""
        return self.run("const one = document.activeElement; return one.getAttribute('aria-label')"
                        " || one.labels?.[0]?.innerText || one.innerText || one.tagName;")

    def until(self, what, check, limit_s=LIMIT_S):
        end = time.monotonic() + limit_s
        while True:
            got = check()
            if got:
                return got
            if time.monotonic() > end:
                raise BrowserError(f"{what}: not within {limit_s} s; at {self.url()}: "
                                   f"{self.text()[:1500]}")

    def until_text(self, text, selector="body"):
        return self.until(f"'{text}' in {selector}", lambda: text in self.text(selector))

    def windows(self):
        return self.do("GET", "/window/handles")

    def switch(self, handle):
        self.do("POST", "/window", {"handle": handle})

    def close_window(self):
        self.do("DELETE", "/window")

    def problems(self):
        """What the console said since the last call: scripts that failed, what the page's policy
        forbade."""
        return [entry["message"] for entry in self.do("POST", "/se/log", {"type": "browser"})]

    def cdp(self, command, **parameters):
        return self.do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def prefer(self, **features):
        """prefer(color_scheme="dark")"""
        listed = [{"name": f"prefers-{name.replace('_', '-')}", "value": value}
                  for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=listed)

    def screenshot(self, path, whole=True):
        picture = self.cdp("Page.captureScreenshot", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))

    def close(self):
        if self.session:
            try:
                self.do("DELETE", "")
            except (OSError, BrowserError):
                pass
        # chromedriver's group holds the browser, should that not have ended with the session.
        try:
            os.killpg(self.driver.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.driver.stdout.close()
        self.driver.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

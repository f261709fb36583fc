"""A Chromium without a window, driven over its DevTools protocol; what it asked of the network is known."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60
"""How long a page is waited for."""
SHOWN = """document.body.innerText + '\\n' + [...document.querySelectorAll('textarea, input')]
    .map(field => `${(field.closest('[id]') || {}).id}: ${field.value}`).join('\\n')"""
"""What a page says, with what stands in its fields."""


def installed() -> str | None:
    """The path of a browser; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of the browser, which `urls` lists all requests of."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.number, self.urls, self.errors = socket, 0, [], []
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser; what it says beside the answer is noted."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(SECONDS))
            if message.get("method") == "Network.requestWillBeSent":
                self.urls.append(message["params"]["request"]["url"])
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"])
            if message.get("id") == self.number:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = SECONDS) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}\n{self.js(SHOWN)}"
            time.sleep(0.05)

    def open(self, url: str, width: int = 1200, height: int = 1000) -> None:
        """Go to an address, in a window of this size."""
        self.resize(width, height)
        self.call("Page.navigate", url=url)

    def resize(self, width: int, height: int) -> None:
        """Give the window this size in pixels."""
        options = {"deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **options)

    def type(self, selector: str, text: str) -> None:
        """Replace what stands in a field, as a keyboard would; again, where the page was still filling the field."""
        field = f"document.querySelector({selector!r})"
        self.wait(field)
        for _ in range(10):
            self.js(f"(() => {{ const e = {field}; e.focus(); e.select(); }})()")
            self.call("Input.insertText", text=text)
            time.sleep(0.3)
            if self.js(f"{field}.value") == text:
                return
        raise AssertionError(f"{selector} does not keep {text!r} but {self.js(field + '.value')!r}")

    def click(self, selector: str) -> None:
        """Click on what is there and can be clicked."""
        self.wait(f"(e => e && !e.disabled)(document.querySelector({selector!r}))")
        self.js(f"document.querySelector({selector!r}).click()")

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


class Browser:
    """A browser that is running, and hands out pages."""

    def __init__(self, port: int) -> None:
        self.port, self.stack = port, contextlib.ExitStack()

    def tab(self) -> Tab:
        """A new, empty page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new", method="PUT")
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            address = json.load(answer)["webSocketDebuggerUrl"]
        return Tab(self.stack.enter_context(connect(address, max_size=None, proxy=None)))


@contextlib.contextmanager
def started(program: str, directory: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `directory`, ended with the block."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={directory}", "about:blank"]
    process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        port, end = directory / "DevToolsActivePort", time.monotonic() + SECONDS
        while not (port.is_file() and "\n" in port.read_text()):
            assert process.poll() is None, "the browser ended"
            assert time.monotonic() < end, "the browser did not start"
            time.sleep(0.1)
        browser = Browser(int(port.read_text().split()[0]))
        with browser.stack:
            yield browser
    finally:
        process.terminate()
        process.wait(SECONDS)

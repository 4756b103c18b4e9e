"""A real browser without a window, driven over its DevTools protocol: what a page shows, asks for and complains of."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE_S = 60.0
FIRST_FREE = 10
SETTLED = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true), 60)))"
"""Charts are drawn by promises, and once more when their place has changed its width."""


def find_browser() -> str | None:
    """The path of a browser that speaks the protocol."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def why_no_browser() -> str:
    """Why no page can be looked at here; empty where one can."""
    if find_browser() is None:
        return "no browser: run deploy/setup/test_packages.sh as root, or install chromium"
    return ""


@dataclass
class Browser:
    """One tab. `complaints` are warnings and errors of the console; `requests` the addresses that it asked for."""

    process: subprocess.Popen[bytes]
    commands: int
    answers: int
    session: str = ""
    number: int = 0
    buffer: bytes = b""
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command's result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.number:
            self._notice(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser did not answer within {PATIENCE_S:.0f} s"
            chunk = os.read(self.answers, 1 << 20)
            assert chunk, "the browser has ended"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))

    def _notice(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method", ""), event.get("params", {})
        self.events.append(method)
        if method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(item.get("value", item)) for item in parameters["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def open(self, page: Path, width: int = 1280, *, dark: bool = False) -> None:
        """Show a file as a window of that many px has it; complaints and requests are counted anew."""
        self.resize(width, dark=dark)
        self.complaints, self.requests, self.events = [], [], []
        self.call("Page.navigate", url=page.absolute().as_uri())
        while "Page.loadEventFired" not in self.events:
            self._notice(self._receive())
        self.evaluate(SETTLED)

    def resize(self, width: int, *, dark: bool = False) -> None:
        """A window of so many px in light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.evaluate(SETTLED)

    def evaluate(self, expression: str) -> Any:
        """The JSON value of an expression of the page's, promises waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def print_pdf(self) -> bytes:
        """The page as it is printed on A4."""
        answer = self.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(answer["data"])

    def picture(self) -> bytes:
        """The whole page as a PNG file."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@contextmanager
def start_browser(folder: Path) -> Iterator[Browser]:
    """A browser with one empty tab, whose files lie in `folder`."""
    path = find_browser()
    assert path is not None, why_no_browser()
    (theirs_in, commands), (answers, theirs_out) = os.pipe(), os.pipe()
    pipes = [fcntl.fcntl(pipe, fcntl.F_DUPFD, FIRST_FREE) for pipe in (theirs_in, theirs_out)]
    # the protocol's pipes are file descriptors 3 and 4 of the browser; only bash takes numbers of two digits
    shell = f'exec "$0" "$@" 3<&{pipes[0]} 4>&{pipes[1]}'
    command = ["bash", "-c", shell, path, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, pass_fds=pipes, stdout=log, stderr=log)
    for pipe in (theirs_in, theirs_out, *pipes):
        os.close(pipe)
    browser = Browser(process, commands, answers)
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")
        yield browser
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)
        os.close(commands)
        os.close(answers)

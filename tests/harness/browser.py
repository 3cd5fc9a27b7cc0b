"""A headless Chromium, driven by its DevTools protocol: keys in, what the page shows and asks for out.

The protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import itertools
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from websockets.sync.client import connect

from hack.errors import CommandError, MissingError
from hack.toolchain.debian_programs import debian_program

PATIENCE_SECONDS: Final = 15
# Key, code and number of the keys that are no letters.
_KEYS: Final = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Space": (" ", 32, " "),
    "Down": ("ArrowDown", 40, ""),
}
_MODIFIERS: Final = {"Control": 2, "Shift": 8}


def chromium() -> str:
    """Return the path of a Chromium; the tests that need it are skipped only outside CI."""
    try:
        return str(debian_program("chromium"))
    except (MissingError, CommandError) as error:
        if os.environ.get("CI") == "true":
            raise
        return pytest.skip(str(error))


class Page:
    """One page. `requests` are the addresses that it has asked for, `complaints` what its console says."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command of the protocol, and note the events that come before it."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters, **self._session}
        self._socket.send(json.dumps(command))
        while True:
            message = json.loads(self._socket.recv(PATIENCE_SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event: str | None, parameters: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event == "Log.entryAdded":
            entry = parameters["entry"]
            self.complaints.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(parameters["args"]))

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """Give the window a size in pixels of CSS."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def scheme(self, name: str) -> None:
        """Prefer the colour scheme `name`: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression amounts to."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Return the first true value of an expression; fail with what the page says if none comes."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := self.value(expression)):
            if time.monotonic() > deadline:
                shown = self.value("document.body.innerText")
                raise AssertionError(f"{expression} did not come; {self.complaints}; the page says: {shown}")
            time.sleep(0.02)
        return value

    def wait_for_text(self, text: str, selector: str = "body") -> None:
        node = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"({node}?.innerText ?? '').includes({json.dumps(text)})")

    def press(self, key: str, *modifiers: str) -> None:
        """Press a key by its name in _KEYS."""
        name, number, text = _KEYS[key]
        held = sum(_MODIFIERS[each] for each in modifiers)
        event = {"key": name, "code": key, "windowsVirtualKeyCode": number, "modifiers": held}
        typed = {"text": text} if text and not held else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text: str) -> None:
        """Type a text into what has the focus."""
        for letter in text.replace("\n", "\r"):
            self.call("Input.dispatchKeyEvent", type="char", text=letter)

    def tab_to(self, selector: str, most: int = 60) -> None:
        """Press Tab until the element has the focus."""
        for _ in range(most):
            if self.value(f"document.activeElement?.matches({json.dumps(selector)}) ?? false"):
                return
            self.press("Tab")
        raise AssertionError(f"{most} times Tab do not lead to {selector}")

    def screenshot(self) -> bytes:
        """Return a PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browsing() -> Iterator[Page]:
    """Start a Chromium with a profile of its own, and yield its page; nothing is left behind."""
    # Root may not use Chromium's sandbox. What the page is, we know.
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--lang=en")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium(), *options, "--no-proxy-server", f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                with connect(_address(process), max_size=2**26, proxy=None) as socket:
                    yield Page(socket)
            finally:
                process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    """Return the address that Chromium tells of itself."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if found := re.search(r"DevTools listening on (ws://\S+)", line):
            return found[1]
        said.append(line)
    raise AssertionError(f"Chromium ended: {''.join(said)}")

"""A real headless browser, spoken to by its debugging protocol."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_stack import OUTPUT, free_port, until
from websockets.sync.client import connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, program: str, folder: Path, *more: str) -> None:
        self.port = free_port()
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", *more, "--hide-scrollbars", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}",
             f"--remote-debugging-port={self.port}", "--window-size=1400,1000", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        address = until(self._page_address, seconds=60, what="the browser answers")
        self.socket = connect(address, max_size=None)
        self.number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        return str(self.evaluate("document.body ? document.body.innerText : ''") or "")

    def open(self, address: str, *, shows: str) -> str:
        """Open a page and wait until it shows a text; the whole text of the page."""
        self.call("Page.navigate", url=address)
        self._until(lambda: shows in self.text(), f"{address} shows {shows!r}")
        time.sleep(1.5)  # fonts and pictures
        return self.text()

    def click(self, label: str, *, shows: str) -> str:
        """Click what bears the label and wait until the page shows a text; the whole text of the page."""
        where = (
            "(() => { const found = [...document.querySelectorAll('*')].filter("
            "node => node.innerText && node.innerText.trim() === %s); if (!found.length) return null;"
            "const box = found[found.length - 1].getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        x, y = self._until(lambda: self.evaluate(where % json.dumps(label)), f"{label} can be clicked")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self._until(lambda: shows.lower() in self.text().lower(), f"{label} shows {shows!r}")
        time.sleep(1.5)
        return self.text()

    def mouse(self, kind: str, x: float, y: float, *, is_held: bool = False, modifiers: int = 0) -> None:
        """`kind` is Moved, Pressed or Released; 8 as modifier is Shift."""
        held = {"button": "left", "buttons": 1} if is_held or kind == "Pressed" else {}
        more = {} if kind == "Moved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, modifiers=modifiers, **{**held, **more})

    def key(self, name: str, *, modifiers: int = 0) -> None:
        """Press and release a key by the name that pages see."""
        text = {"text": name} if len(name) == 1 else {"text": "\r"} if name == "Enter" else {}
        codes = {"Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        code = {**codes, "ArrowDown": 40, "PageDown": 34, "Tab": 9}.get(name, 0)
        told = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def picture(self, path: Path, *, height: int = 1000) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.call("Emulation.setDeviceMetricsOverride", width=1400, height=height, deviceScaleFactor=1, mobile=False)
        time.sleep(1)
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()

    def _until(self, is_true: Callable[[], Any], what: str) -> Any:
        """As `until`; where the time is over, what the page showed instead is told and kept as a picture."""
        try:
            # Some 3 s at most on two cores that run all tests at once; there, a page was once not done in a minute.
            return until(is_true, seconds=180, what=what)
        except AssertionError as error:
            shot = OUTPUT / "screenshots" / "failed-test.png"
            self.picture(shot)
            raise AssertionError(f"{error}; {shot} shows instead:\n{self.text()}") from error

    def _page_address(self) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/json", timeout=5) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
        except (OSError, ValueError):
            return None
        return str(pages[0]["webSocketDebuggerUrl"]) if pages else None


def program() -> str:
    """The browser that is installed; the test is skipped if there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    return found


@pytest.fixture
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(program(), Path(folder))
        try:
            yield browser
        finally:
            browser.close()

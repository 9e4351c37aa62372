"""The web terminal's page in headless Chromium, driven by its debugging protocol: what a person sees and types."""

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_browser import QUIET
from tests.contract.toolbox import Toolbox
from tests.contract.wire_client import WebSocket, request

pytestmark = pytest.mark.sdk

SECONDS = 60.0
SHOWN = """(() => { const buffer = terminal.buffer.active, lines = []
for (let n = 0; n < buffer.length; n++) lines.push(buffer.getLine(n).translateToString(true))
return lines.join('\\n') })()"""


class Page:
    """One page of a browser."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._messages = socket.messages(SECONDS * 3)
        self._number = 0

    def command(self, method: str, **parameters: Any) -> Any:
        """One command of the debugging protocol and its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        for message in self._messages:
            answer = json.loads(message.data)
            if answer.get("id") == self._number:
                return answer["result"]
        raise AssertionError("the browser went away")

    def value(self, expression: str) -> Any:
        """What an expression gives in the page; `None` also where it fails."""
        return self.command("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str, text: str) -> str:
        """What the expression gives once it holds `text`."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            value = str(self.value(expression) or "")
            if text in value:
                return value
            time.sleep(0.05)  # the protocol tells of no such event
        raise AssertionError(value)

    def type(self, text: str) -> None:
        """As a keyboard does."""
        self.command("Input.insertText", text=text)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.command("Input.dispatchKeyEvent", type="keyDown", text="\r", **enter)
        self.command("Input.dispatchKeyEvent", type="keyUp", **enter)


@contextmanager
def browser_at(url: str, folder: Path) -> Iterator[Page]:
    """A browser that opened this address; skips where none is installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    profile = folder / "profile"
    options = [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--window-size=900,500"]
    with (folder / "browser.log").open("w") as log:
        environment = os.environ | {"HOME": str(folder)}
        command = [chromium, *QUIET, *options, url]
        browser = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            with WebSocket(_debugger(profile / "DevToolsActivePort", url)) as socket:
                yield Page(socket)
        finally:
            browser.terminate()
            browser.wait(20)


def _debugger(port_file: Path, url: str) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if port_file.is_file() and (text := port_file.read_text()):
            pages = request("GET", f"http://127.0.0.1:{text.split()[0]}/json/list").json()
            for page in pages:
                if page["type"] == "page" and page["url"].startswith(url.partition("?")[0]):
                    return str(page["webSocketDebuggerUrl"])
        time.sleep(0.05)  # a file of another program
    raise AssertionError("the browser opened no page")


def test_a_person_types_and_sees_and_the_shell_ends_with_the_page(shared_toolbox: Toolbox, folder: Path) -> None:
    link = shared_toolbox.api("GET", f"/sandbox/{shared_toolbox.id}/ports/22222/preview-url").json()
    with browser_at(f"{link['url']}/?DAYTONA_SANDBOX_AUTH_KEY={link['token']}", folder) as page:
        page.until("String(socket && socket.readyState)", "1")
        assert link["token"] not in page.value("location.href"), "the address bar holds no credential"
        page.type("echo typed-$((40+2)) h\u00e9")
        page.until(SHOWN, "typed-42 h\u00e9")
        _until_the_shell_knows_the_size(page)
        page.command("Emulation.setDeviceMetricsOverride", width=600, height=300, deviceScaleFactor=1, mobile=False)
        page.until("String(terminal.cols < 80)", "true")
        _until_the_shell_knows_the_size(page)
        page.type("exit 3")
        page.until(SHOWN, "the shell ended with exit code 3; press Enter")
        page.type("")
        page.until("String(socket && socket.readyState)", "1")
        page.type("sleep 4321")
        alive = "pgrep -f 'sleep 432[1]' || true"
        _until_prints(shared_toolbox, alive, lambda text: text != "")
    _until_prints(shared_toolbox, alive, lambda text: text == "")


def _until_the_shell_knows_the_size(page: Page) -> None:
    """The page may find its size after the shell was asked for it: fonts come late, and so does a change."""
    deadline = time.monotonic() + SECONDS
    for number in itertools.count():
        page.type(f"clear; stty size; echo asked-$(({number}+100))")
        shown = page.until(SHOWN, f"asked-{number + 100}")
        if f"{page.value('terminal.rows')} {page.value('terminal.cols')}" in shown:
            return
        assert time.monotonic() < deadline, shown


def _until_prints(box: Toolbox, command: str, holds: Callable[[str], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds(box.call("POST", "/process/execute", {"command": command}).json()["result"]):
        assert time.monotonic() < deadline, command
        time.sleep(0.05)  # nothing tells of processes

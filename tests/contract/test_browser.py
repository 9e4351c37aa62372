"""The TypeScript SDK in headless Chromium: other origin, WebSocket by token in the query and version as subprotocol."""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.contract.programs import CLIENTS, bundle
from tests.contract.running import Instance

pytestmark = pytest.mark.sdk

PAGE_SECONDS = 90
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


def test_a_page_of_another_origin_creates_follows_and_deletes(sandyard: Instance, folder: Path) -> None:
    chromium = find_chromium()
    script = bundle(
        CLIENTS / "typescript" / "browser.ts",
        Path("browser.js"),
        *("--bundle", "--platform=browser", "--format=iife"),
        f"--inject:{CLIENTS / 'typescript' / 'browser-globals.js'}",
    )
    with serve(script.read_bytes()) as (origin, answers):
        address = f"{origin}/?{urlencode({'url': sandyard.api_url, 'key': sandyard.api_key})}"
        saw = in_browser(chromium, address, answers, folder)
    assert "error" not in saw, saw
    assert saw["seen"] == {"out": "out1\nout2\nout3\n", "err": "err1\nerr2\nerr3\n"}
    assert saw["exit"] == 0, "its first lines were not heard while it waited for that"


def find_chromium() -> str:
    """The browser; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def in_browser(chromium: str, address: str, answers: "queue.Queue[Any]", folder: Path) -> dict[str, Any]:
    """Open the page and return what it posts back. Fails with the browser's own words when it posts nothing."""
    command = [chromium, *QUIET, f"--user-data-dir={folder}/profile", "--enable-logging=stderr", address]
    with (folder / "browser.log").open("w") as log:
        environment = os.environ | {"HOME": str(folder)}
        browser = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            saw: dict[str, Any] = answers.get(timeout=PAGE_SECONDS)
        except queue.Empty:
            said = [line for line in (folder / "browser.log").read_text().splitlines() if "CONSOLE" in line]
            pytest.fail("the page posted nothing: " + "\n".join(said[-10:]))
        finally:
            browser.terminate()
            browser.wait(20)
    return saw


@contextmanager
def serve(script: bytes) -> Iterator[tuple[str, "queue.Queue[Any]"]]:
    """A page with this script on an origin of its own, and the queue of what it posts."""
    answers: queue.Queue[Any] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_script = self.path.startswith("/page.js")
            kind = "text/javascript" if is_script else "text/html"
            self._answer(kind, script if is_script else b"<!doctype html><script src=/page.js></script>")

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer("text/plain", b"")

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

"""Terminals with the real SDKs: Python both ways, TypeScript on Node and in headless Chromium, Go."""

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.contract.programs import (
    CLIENTS,
    GO_RELEASES,
    NEWEST_PYTHON_SDK,
    bundle,
    go_flow,
    python_with_sdk,
    run_program,
)
from tests.contract.running import Instance
from tests.contract.test_browser import in_browser, serve
from tests.contract.toolbox import Toolbox

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="session")
def python_saw(sandyard: Instance, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both Python clients saw."""
    program = [python_with_sdk(NEWEST_PYTHON_SDK), CLIENTS / "python" / "terminals.py"]
    done = run_program(program, sandyard, tmp_path_factory.mktemp("python"))
    assert done.exit_code == 0, done
    saw: dict[str, Any] = json.loads(done.text)
    return saw


def test_python_sync_creates_types_resizes_and_reads_the_exit_code(python_saw: dict[str, Any]) -> None:
    saw = python_saw["sync"]
    assert saw["listed"] == ["sync"]
    assert saw["info"] == ["sync", "/usr", 100, 30, True, False, "hi there"]
    assert saw["duplicate"][0] == "DaytonaConflictError"
    assert saw["resized"] == [120, 40]
    assert "/usr\r\nhi there xterm-256color\r\n" in saw["shown"]
    assert "40 120\r\n" in saw["shown"]
    assert saw["exit"][0] == 3
    assert saw["after"] == []


def test_python_sync_connects_again_and_kills(python_saw: dict[str, Any]) -> None:
    saw = python_saw["sync"]
    assert "first" in saw["reconnected"], "the recent output is replayed"
    assert "still-here" in saw["reconnected"]
    assert saw["killed"] == [137, "SIGKILL"]
    assert saw["gone"][0] == "DaytonaNotFoundError"


def test_python_async_sends_variables_of_40_kb_and_kills(python_saw: dict[str, Any]) -> None:
    saw = python_saw["async"]
    assert "40000\r\n24 80\r\n" in saw["shown"]
    assert saw["exit"][0] == 0
    assert saw["killed"] == [137, "SIGKILL"]


def assert_typescript(saw: dict[str, Any]) -> None:
    """What the flow saw, on any platform."""
    assert "error" not in saw, saw
    assert saw["listed"] == ["ts"]
    assert saw["resized"] == [120, 40]
    assert "/usr\r\nhi there\r\n" in saw["shown"]
    assert "40 120\r\n" in saw["shown"]
    assert saw["exit"] == 3
    assert saw["killed"] == [137, 137]


def test_typescript_on_node(sandyard: Instance, folder: Path) -> None:
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external")
    program = bundle(CLIENTS / "typescript" / "terminal-node.ts", Path("terminal-node.mjs"), *options)
    done = run_program(["node", program], sandyard, folder)
    assert done.exit_code == 0, done
    assert_typescript(json.loads(done.text))


def test_typescript_in_a_page_of_another_origin(sandyard: Instance, folder: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    script = bundle(
        CLIENTS / "typescript" / "terminal-browser.ts",
        Path("terminal-browser.js"),
        *("--bundle", "--platform=browser", "--format=iife"),
        f"--inject:{CLIENTS / 'typescript' / 'browser-globals.js'}",
    )
    with serve(script.read_bytes()) as (origin, answers):
        address = f"{origin}/?{urlencode({'url': sandyard.api_url, 'key': sandyard.api_key})}"
        assert_typescript(in_browser(chromium, address, answers, folder))


@pytest.mark.parametrize("release", GO_RELEASES)
def test_go_creates_types_resizes_shares_and_kills(sandyard: Instance, folder: Path, release: str) -> None:
    box = Toolbox.create(sandyard)
    try:
        saw = go_flow(release, "terminals", sandyard, folder, box.id)
    finally:
        box.delete()
    assert saw["connected"] == [True, "go"]
    assert saw["listed"] == ["go"]
    assert saw["info"] == ["go", 100, 30]
    assert saw["duplicate"] == ["DaytonaError", "PTY session already exists: go", 409]
    assert saw["resized"] == [120, 40]
    assert "30 100\r\nhi there\r\n" in saw["shown"]
    assert "40 120\r\n" in saw["shown"]
    assert saw["exit"] == [3, "non-zero exit"]
    assert saw["after"] == []
    assert saw["typedTooLate"][1] == "PTY is not connected"
    assert saw["session"] == "shared"
    assert saw["killed"] == [[137, "SIGKILL"], [137, "SIGKILL"]]
    assert saw["killedAgain"][0] == "DaytonaNotFoundError"
    assert saw["resizedAgain"][2] == 410
    assert "bad handshake" in saw["unknown"][1]

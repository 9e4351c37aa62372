"""Projects and language servers for the tests of `/lsp`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.contract.programs import CACHE
from tests.daemon.conftest import Answer, Daemon
from tests.daemon.toolbox_schema import check_body

OLDEST_NODE = 20
POSITION = {"line": 0, "character": 0}
SCRIPTED = Path(__file__).with_name("scripted_language_server.py")


def real_servers() -> str:
    """The folder of the commands that `scripts/client-environments language-servers` installed; skips without."""
    home = CACHE / "language-servers"
    if not (home / "installed-from").is_file():
        pytest.skip("no language servers here: run scripts/client-environments language-servers")
    if shutil.which("node") is None or _node_major() < OLDEST_NODE:
        pytest.skip(f"the TypeScript language server needs Node {OLDEST_NODE}")
    return str(home.resolve() / "node_modules" / ".bin")


def _node_major() -> int:
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    return int(said.strip().lstrip("v").partition(".")[0])


def install_scripted(folder: Path, *names: str) -> str:
    """Make the scripted server answer to these names; the folder for a PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {SCRIPTED} "$@"\n')
        program.chmod(0o755)
    return str(folder)


class Project:
    """One project in a daemon's home and the LSP operations on it."""

    def __init__(self, daemon: Daemon, name: str = "project", language: str = "python") -> None:
        self.daemon = daemon
        self.path = daemon.home / name
        self.path.mkdir(parents=True, exist_ok=True)
        self.key = {"languageId": language, "pathToProject": name}

    def script(self, **answers: Any) -> None:
        """What the scripted server will do from its next start on."""
        (self.path / "script.json").write_text(json.dumps(answers))

    def received(self, method: str | None = None) -> list[dict[str, Any]]:
        """What the scripted server got, of one method or all."""
        file = self.path / "received.jsonl"
        # The server may be writing what comes behind the last whole line.
        whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
        messages = [json.loads(line) for line in whole.splitlines()]
        return [message for message in messages if method is None or message.get("method") == method]

    def starts(self) -> list[int]:
        """Process ids of the scripted servers that were started here."""
        file = self.path / "starts"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def write(self, name: str, text: str) -> str:
        """A file of the project; its name below the home, as SDK programs give it."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)
        return f"{self.path.name}/{name}"

    def post(self, operation: str, **fields: Any) -> Answer:
        answer = self.daemon.post(f"/lsp/{operation}", {**self.key, **fields})
        if answer.status in (200, 400) or operation in ("start", "stop"):
            check_body("post", f"/lsp/{operation}", answer.status, answer.json if answer.body else None)
        return answer

    def get(self, operation: str, **fields: str) -> Answer:
        answer = self.daemon.get(f"/lsp/{operation}?{urlencode({**self.key, **fields})}")
        if answer.status in (200, 400):
            check_body("get", f"/lsp/{operation}", answer.status, answer.json)
        return answer

    def start(self) -> None:
        answer = self.post("start")
        assert (answer.status, answer.body) == (200, b"")

    def symbols(self, uri: str) -> list[tuple[str, int]]:
        """Names and kinds of a document."""
        answer = self.get("document-symbols", uri=f"file://{uri}")
        assert answer.status == 200, answer.body
        return [(symbol["name"], symbol["kind"]) for symbol in answer.json]

"""Language servers, scripted: bodies and queries that are refused."""

import os
from typing import Any

import pytest

from tests.daemon.conftest import Daemon
from tests.daemon.lsp_places import POSITION, Project


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("start", {"languageId": "cobol"}),
        ("start", {"languageId": 5}),
        ("start", {"languageId": None}),
        ("start", {"pathToProject": ""}),
        ("start", {"pathToProject": "no-such-folder"}),
        ("start", {"pathToProject": "project/a.py"}),
        ("start", {"pathToProject": "a\0b"}),
        ("start", {"pathToProject": "x" * 5000}),
        ("start", {"pathToProject": "http://example.com/"}),
        ("stop", {"pathToProject": ["project"]}),
        ("did-open", {"uri": None}),
        ("did-open", {"uri": "http://example.com/a.py"}),
        ("did-open", {"uri": "file://"}),
        ("did-open", {"uri": "file://no-such-file.py"}),
        ("did-open", {"uri": "file://project"}),
        ("did-open", {"uri": "file://project/pipe"}),
        ("did-open", {"uri": "file://project/huge.py"}),
        ("did-open", {"uri": "file://a%00b.py"}),
        ("did-close", {"uri": 7}),
        ("completions", {}),
        ("completions", {"position": None}),
        ("completions", {"position": {"line": 0}}),
        ("completions", {"position": {"line": -1, "character": 0}}),
        ("completions", {"position": {"line": True, "character": 0}}),
        ("completions", {"position": {"line": 0, "character": 1 << 40}}),
        ("completions", {"context": 5}),
        ("completions", {"context": {}}),
        ("completions", {"context": {"triggerKind": 1, "triggerCharacter": 5}}),
    ],
)
def test_bad_bodies_are_refused(project: Project, operation: str, fields: dict[str, Any]) -> None:
    project.start()
    project.write("a.py", "")
    os.mkfifo(project.path / "pipe")
    with (project.path / "huge.py").open("wb") as file:
        file.truncate(5 << 20)
    defaults: dict[str, Any] = {"uri": "file://project/a.py"}
    if fields.get("context") is not None:
        defaults["position"] = POSITION
    answer = project.post(operation, **{**defaults, **fields})
    assert answer.status == 400, answer.body
    assert answer.json["code"] in ("BAD_REQUEST", "INVALID_REQUEST_BODY")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"\xff"])
@pytest.mark.parametrize("operation", ["start", "stop", "did-open", "did-close", "completions"])
def test_what_is_no_object_is_refused(sandbox: Daemon, operation: str, body: bytes) -> None:
    answer = sandbox.post(f"/lsp/{operation}", body)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_REQUEST_BODY")


@pytest.mark.parametrize(
    "path",
    [
        "/lsp/document-symbols",
        "/lsp/document-symbols?languageId=python&pathToProject=project",
        "/lsp/document-symbols?languageId=cobol&pathToProject=project&uri=file://a.py",
        "/lsp/workspacesymbols?languageId=python&pathToProject=project",
        "/lsp/workspacesymbols?languageId=python&query=x",
        "/lsp/workspacesymbols?languageId=python&pathToProject=project&query=" + "x" * 5000,
    ],
)
def test_bad_queries_are_refused(project: Project, path: str) -> None:
    project.start()
    answer = project.daemon.get(path)
    assert (answer.status, answer.json["source"]) == (400, "DAYTONA_DAEMON")

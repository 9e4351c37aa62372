"""`/lsp/*` through the door, with a scripted language server: the protocol's cases, bad input, deaths, leaks."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.lsp_places import Project, install_scripted
from tests.daemon.test_defects import is_alive

RANGE = {"start": {"line": 1, "character": 2}, "end": {"line": 3, "character": 4}}
NOWHERE = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}
POSITION = {"line": 0, "character": 0}


@pytest.fixture
def sandbox(start_daemon: Starter, tmp_path: Path) -> Daemon:
    """A daemon whose only Python server is the scripted one."""
    places = install_scripted(tmp_path / "bin", "basedpyright-langserver")
    return start_daemon(PATH=f"{places}:/usr/bin:/bin")


@pytest.fixture
def project(sandbox: Daemon) -> Project:
    """An empty Python project in the home."""
    return Project(sandbox)


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def test_d35_starts_at_once_make_one_server_and_stop_ends_it(project: Project) -> None:
    clients = [Project(project.daemon.client()) for _ in range(4)]
    threads = [threading.Thread(target=client.start) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    project.start()
    (pid,) = project.starts()
    greeting = project.received("initialize")[0]["params"]
    assert greeting["rootUri"] == project.path.as_uri()
    assert greeting["workspaceFolders"] == [{"uri": project.path.as_uri(), "name": "project"}]
    assert project.received("initialized")
    assert project.post("stop").status == 200
    eventually(lambda: not is_alive(pid))
    assert [message["method"] for message in project.received()][-2:] == ["shutdown", "exit"]
    assert project.post("stop").json["code"] == "LSP_SERVER_NOT_INITIALIZED"


def test_calls_before_the_start_are_refused(project: Project) -> None:
    uri = "file://" + project.write("a.py", "")
    for answer in (
        project.post("stop"),
        project.post("did-open", uri=uri),
        project.post("did-close", uri=uri),
        project.post("completions", uri=uri, position=POSITION),
        project.get("document-symbols", uri=uri),
        project.get("workspacesymbols", query="x"),
    ):
        assert (answer.status, answer.json["code"]) == (400, "LSP_SERVER_NOT_INITIALIZED")
        assert answer.json["source"] == "DAYTONA_DAEMON"


@pytest.mark.parametrize(("language", "hint"), [("python", "pip install basedpyright"), ("typescript", "npm install")])
def test_a_missing_server_is_an_error_that_names_what_to_install(
    start_daemon: Starter, language: str, hint: str
) -> None:
    answer = Project(start_daemon(PATH="/nowhere"), language=language).post("start")
    assert answer.status == 500
    assert hint in answer.json["message"]
    assert "sandyard/sandbox:full" in answer.json["message"]


def test_a_server_installed_while_the_sandbox_runs_is_found(start_daemon: Starter) -> None:
    daemon = start_daemon(PATH="/usr/bin:/bin")
    project = Project(daemon)
    assert project.post("start").status == 500
    install_scripted(daemon.home / ".local" / "bin", "pyright-langserver")
    project.start()


def test_the_last_choice_says_that_it_knows_no_workspace_symbols(start_daemon: Starter, tmp_path: Path) -> None:
    daemon = start_daemon(PATH=f"{install_scripted(tmp_path / 'bin', 'pylsp')}:/usr/bin:/bin")
    project = Project(daemon)
    project.script(initialize={"result": {"capabilities": {}}})
    project.start()
    answer = project.get("workspacesymbols", query="x")
    assert answer.status == 400
    assert "pylsp knows no workspace symbols" in answer.json["message"]


@pytest.mark.parametrize("form", ["file://project/a.py", "file:///{home}/project/a.py", "file://a.py", "project/a.py"])
def test_relative_uris_are_resolved_against_the_work_directory_then_the_project(project: Project, form: str) -> None:
    project.write("a.py", "x = 1\n")
    project.start()
    uri = form.replace("/{home}", str(project.daemon.home))
    assert project.post("did-open", uri=uri).status == 200
    (opened,) = eventually(lambda: project.received("textDocument/didOpen"))
    assert opened["params"]["textDocument"] == {
        "uri": (project.path / "a.py").as_uri(),
        "languageId": "python",
        "version": 1,
        "text": "x = 1\n",
    }


def test_names_that_need_encoding_arrive_encoded_once(project: Project) -> None:
    project.start()
    for name in ("with space.py", "très.py", "100%25.py", "hash#.py"):
        assert project.post("did-open", uri="file://" + project.write(name, name)).status == 200
    told = eventually(lambda: (got := project.received("textDocument/didOpen"))[3:] and got)
    for message in told:
        document = message["params"]["textDocument"]
        assert document["uri"] == (project.path / document["text"]).as_uri()
    encoded = "file://project/with%20space.py"
    assert project.post("did-close", uri=encoded).status == 200
    eventually(lambda: project.received("textDocument/didClose"))


def test_the_project_may_be_named_by_any_of_its_names(project: Project) -> None:
    project.start()
    for name in (str(project.path), f"{project.path}/", "./project", "project/../project", f"file://{project.path}"):
        assert project.daemon.post("/lsp/start", {**project.key, "pathToProject": name}).status == 200
    assert len(project.starts()) == 1


def test_opening_again_tells_the_present_text_and_closing_twice_is_fine(project: Project) -> None:
    project.start()
    uri = "file://" + project.write("a.py", "old")
    assert project.post("did-open", uri=uri).status == 200
    project.write("a.py", "new text")
    assert project.post("did-open", uri=uri).status == 200
    (change,) = eventually(lambda: project.received("textDocument/didChange"))
    assert change["params"]["textDocument"] == {"uri": (project.path / "a.py").as_uri(), "version": 2}
    assert change["params"]["contentChanges"] == [{"text": "new text"}]
    assert project.post("did-close", uri=uri).status == 200
    assert project.post("did-close", uri=uri).status == 200
    assert len(eventually(lambda: project.received("textDocument/didClose"))) == 1


def test_a_document_nobody_opened_is_open_for_the_question_only(project: Project) -> None:
    project.start()
    assert project.symbols(project.write("a.py", "text")) == []
    eventually(lambda: project.received("textDocument/didClose"))
    methods = [message.get("method") for message in project.received()]
    asked = methods.index("textDocument/documentSymbol")
    assert methods[asked - 1] == "textDocument/didOpen"
    assert methods[asked + 1] == "textDocument/didClose"


def test_nested_symbols_are_flattened_and_flat_ones_kept(project: Project) -> None:
    inner = {"name": "inner", "kind": 6, "range": RANGE, "selectionRange": RANGE}
    nested = {"name": "Outer", "kind": 5, "range": RANGE, "selectionRange": RANGE, "children": [inner]}
    flat = {"name": "flat", "kind": 12, "location": {"uri": "file:///elsewhere.py", "range": RANGE}, "tags": [1]}
    odd = ["text", None, {"name": 1, "kind": 2}, {"name": "no kind"}, {"name": "x", "kind": 1, "location": {}}]
    project.script(**{"textDocument/documentSymbol": {"result": [nested, flat, *odd]}})
    project.start()
    project.write("a.py", "")
    assert project.get("document-symbols", uri="file://project/a.py").json == [
        {"name": "Outer", "kind": 5, "location": {"uri": (project.path / "a.py").as_uri(), "range": RANGE}},
        {"name": "inner", "kind": 6, "location": {"uri": (project.path / "a.py").as_uri(), "range": RANGE}},
        {"name": "flat", "kind": 12, "location": {"uri": "file:///elsewhere.py", "range": RANGE}},
    ]


def test_d35_no_symbols_are_an_empty_list(project: Project) -> None:
    project.script(
        **{"textDocument/documentSymbol": {"result": None}, "workspace/symbol": {"result": None}},
        says=[{"method": "window/logMessage", "params": {"type": 3, "message": "Found 1 source file"}}],
    )
    project.start()
    project.write("a.py", "")
    assert project.get("document-symbols", uri="file://project/a.py").json == []
    assert project.get("workspacesymbols", query="x").json == []


def test_a_workspace_symbol_without_a_range_has_one_for_strict_clients(project: Project) -> None:
    project.script(**{"workspace/symbol": {"result": [{"name": "n", "kind": 5, "location": {"uri": "file:///a.py"}}]}})
    project.start()
    assert project.get("workspacesymbols", query="").json[0]["location"] == {"uri": "file:///a.py", "range": NOWHERE}


def test_workspace_symbols_wait_until_the_project_was_read(project: Project) -> None:
    found = [{"name": "late", "kind": 5, "location": {"uri": "file:///a.py", "range": RANGE}}]
    project.script(**{"workspace/symbol": {"many": [[], [], found]}})
    project.start()
    assert [symbol["name"] for symbol in project.get("workspacesymbols", query="late").json] == ["late"]


def test_completions_keep_what_sdks_parse(project: Project) -> None:
    items: list[Any] = [
        {"label": "a", "kind": 3, "detail": "d", "documentation": "text", "sortText": "1", "data": {"x": 1}},
        {"label": "b", "documentation": {"kind": "markdown", "value": "*m*"}, "textEdit": {"newText": "bb"}},
        {"label": "c", "kind": None, "insertText": 5, "documentation": 7},
        {"label": 5},
        "d",
    ]
    project.script(**{"textDocument/completion": {"result": {"isIncomplete": True, "items": items}}})
    project.start()
    project.write("a.py", "")
    context = {"triggerKind": 1}
    assert project.post("completions", uri="file://project/a.py", position=POSITION, context=context).json == {
        "isIncomplete": True,
        "items": [
            {
                "label": "a",
                "kind": 3,
                "detail": "d",
                "sortText": "1",
                "documentation": {"kind": "plaintext", "value": "text"},
            },
            {"label": "b", "insertText": "bb", "documentation": {"kind": "markdown", "value": "*m*"}},
            {"label": "c"},
        ],
    }
    assert project.received("textDocument/completion")[0]["params"]["context"] == {"triggerKind": 1}


@pytest.mark.parametrize(
    ("told", "items"),
    [({"result": None}, []), ({"result": [{"label": "x"}]}, [{"label": "x"}]), ({"result": {"items": None}}, [])],
)
def test_every_form_of_a_completion_answer_becomes_a_list(project: Project, told: Any, items: Any) -> None:
    project.script(**{"textDocument/completion": told})
    project.start()
    project.write("a.py", "")
    answer = project.post("completions", uri="file://project/a.py", position=POSITION)
    assert answer.json == {"isIncomplete": False, "items": items}


@pytest.mark.parametrize("odd", [7, "text", True, {"items": 7}])
def test_d35_an_odd_completion_answer_is_an_error_and_the_daemon_lives(project: Project, odd: Any) -> None:
    project.script(**{"textDocument/completion": {"result": odd}})
    project.start()
    project.write("a.py", "")
    answer = project.post("completions", uri="file://project/a.py", position=POSITION)
    assert (answer.status, answer.json["code"]) == (500, "INTERNAL_SERVER_ERROR")
    project.start()
    assert len(project.starts()) == 1


def test_an_error_of_the_server_is_shown_to_the_client(project: Project) -> None:
    project.script(**{"textDocument/documentSymbol": {"error": {"code": -32603, "message": "cannot do this"}}})
    project.start()
    project.write("a.py", "")
    answer = project.get("document-symbols", uri="file://project/a.py")
    assert answer.status == 400
    assert "cannot do this" in answer.json["message"]


def test_requests_of_the_server_are_answered_by_the_protocol(project: Project) -> None:
    asks = [
        {"method": "workspace/configuration", "params": {"items": [{"section": "python"}, {"section": "x"}]}},
        {"method": "client/registerCapability", "params": {"registrations": []}},
        {"method": "window/workDoneProgress/create", "params": {"token": 1}},
        {"method": "workspace/workspaceFolders", "params": None},
        {"method": "workspace/applyEdit", "params": {"edit": {}}},
        {"method": "no/such/thing", "params": {}},
    ]
    project.script(asks=asks)
    project.start()
    replies = eventually(lambda: (got := [one for one in project.received() if "method" not in one])[5:] and got)
    results = {reply["id"]: reply.get("result", reply.get("error")) for reply in replies}
    folders = [{"uri": project.path.as_uri(), "name": "project"}]
    assert [results[f"server-{number}"] for number in range(5)] == [
        [None, None],
        None,
        None,
        folders,
        {"applied": False},
    ]
    assert results["server-5"]["code"] == -32601


def test_a_server_that_dies_at_its_start_says_why(project: Project) -> None:
    project.script(initialize={"exit": 3}, complaint="no licence found\n")
    assert project.daemon.get("/version").status == 200  # the connection of this client counts
    before = descriptors(project.daemon)
    answer = project.post("start")
    assert answer.status == 500
    assert "no licence found" in answer.json["message"]
    eventually(lambda: descriptors(project.daemon) == before)
    project.script()
    project.start()


def test_a_crash_is_an_error_and_start_starts_it_again(project: Project) -> None:
    project.script(**{"textDocument/documentSymbol": {"exit": 9}})
    project.start()
    project.write("a.py", "")
    answer = project.get("document-symbols", uri="file://project/a.py")
    assert answer.status == 500
    assert "ended" in answer.json["message"]
    eventually(lambda: "exit code 9" in project.get("document-symbols", uri="file://project/a.py").json["message"])
    again = project.get("document-symbols", uri="file://project/a.py")
    assert (again.status, again.json["code"]) == (400, "LSP_SERVER_NOT_INITIALIZED")
    project.script()
    project.start()
    assert project.symbols("project/a.py") == []
    assert len(project.starts()) == 2


@pytest.mark.parametrize(
    "raw",
    [
        "Content-Length: 999999999\r\n\r\n",
        "Content-Length: x\r\n\r\n",
        "Content-Length: 2\r\n\r\n{]",
        "Content-Length: 2\r\n\r\n[]",
        "no head at all" * 10_000,
        "X: y\r\n" * 20_000,
    ],
)
def test_a_server_that_does_not_speak_the_protocol_is_ended(project: Project, raw: str) -> None:
    project.script(**{"workspace/symbol": {"raw": raw}})
    project.start()
    answer = project.get("workspacesymbols", query="x")
    assert answer.status == 500
    assert "ended" in answer.json["message"]
    eventually(lambda: not is_alive(project.starts()[0]))


def test_helpers_of_a_server_go_with_it_and_nothing_stays_open(project: Project) -> None:
    project.script(helper=True)
    assert project.daemon.get("/version").status == 200  # the connection of this client counts
    before = descriptors(project.daemon)
    for _ in range(5):
        project.start()
        assert project.post("stop").status == 200
    eventually(lambda: not [pid for pid in project.starts() if is_alive(pid)])
    eventually(lambda: descriptors(project.daemon) == before)
    left = Path(f"/proc/{project.daemon.process.pid}/task/{project.daemon.process.pid}/children")
    eventually(lambda: not left.read_text().split())


def test_stop_ends_a_server_that_is_still_starting(project: Project) -> None:
    project.script(initialize={"silent": True})
    other = Project(project.daemon.client())
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(other.daemon.post("/lsp/start", other.key).status))
    thread.start()
    eventually(lambda: project.received("initialize"))
    assert project.post("stop").status == 200
    thread.join(20)
    assert seen == [400]
    eventually(lambda: not is_alive(project.starts()[0]))


def test_servers_end_with_the_daemon_even_those_that_do_not_listen(project: Project) -> None:
    project.script(shutdown={"silent": True}, helper=True)
    project.start()
    project.daemon.process.terminate()
    project.daemon.process.wait(timeout=10)
    eventually(lambda: not is_alive(project.starts()[0]))


def test_only_so_many_servers_run_at_once(sandbox: Daemon) -> None:
    projects = [Project(sandbox, f"p{number}") for number in range(17)]
    for project in projects[:16]:
        project.start()
    refused = projects[16].post("start")
    assert refused.status == 400
    assert "stop one" in refused.json["message"]
    assert projects[0].post("stop").status == 200
    projects[16].start()


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

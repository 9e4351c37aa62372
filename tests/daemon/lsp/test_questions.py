"""Language servers, scripted: documents, questions, and the answers that SDKs parse."""

from typing import Any

import pytest

from tests.daemon.conftest import eventually
from tests.daemon.lsp_places import POSITION, Project

RANGE = {"start": {"line": 1, "character": 2}, "end": {"line": 3, "character": 4}}
NOWHERE = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}


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

"""Real language servers through the door: what SDK programs do, and that nothing of it is left afterwards."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.lsp_places import Project, real_servers

CLASS, METHOD = 5, 6
GREETER = 'class Greeter:\n    def greet(self, name: str) -> str:\n        return "hi " + name\n\n\nGreeter().gr\n'
DOG = "export class Dog {\n  bark(): string { return 'woof' }\n}\nnew Dog().\n"


def processes_in(folder: Path) -> list[int]:
    """Processes whose working directory is the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == folder:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return found


@pytest.fixture
def with_servers(start_daemon: Starter) -> Callable[[], Daemon]:
    """A daemon whose sandbox has basedpyright and the TypeScript server."""
    places = real_servers()
    return lambda: start_daemon(PATH=f"{places}:{os.environ['PATH']}")


def test_d35_a_python_project_is_served_by_a_python_server(with_servers: Callable[[], Daemon]) -> None:
    project = Project(with_servers())
    uri = project.write("src/greeter.py", GREETER)
    project.start()
    found = project.get("workspacesymbols", query="Greeter").json
    assert [symbol["name"] for symbol in found] == ["Greeter"], "right after the start, and with no document open"
    assert found[0]["location"]["uri"] == (project.path / "src/greeter.py").as_uri()
    assert project.post("did-open", uri=f"file://{uri}").status == 200
    assert ("Greeter", CLASS) in project.symbols(uri)
    assert ("greet", METHOD) in project.symbols(uri)
    answer = project.post("completions", uri=f"file://{uri}", position={"line": 5, "character": 12}).json
    assert "greet" in [item["label"] for item in answer["items"]]
    assert project.get("workspacesymbols", query="no_such_name_anywhere").json == []
    assert project.post("did-close", uri=f"file://{uri}").status == 200


@pytest.mark.parametrize(("language", "name"), [("typescript", "dog.ts"), ("javascript", "dog.mjs")])
def test_typescript_and_javascript_projects_are_served(
    with_servers: Callable[[], Daemon], language: str, name: str
) -> None:
    project = Project(with_servers(), language=language)
    uri = project.write(name, DOG.replace(": string", "") if language == "javascript" else DOG)
    project.start()
    assert "Dog" in [symbol["name"] for symbol in project.get("workspacesymbols", query="Dog").json]
    assert project.post("did-open", uri=f"file://{uri}").status == 200
    assert ("Dog", CLASS) in project.symbols(uri)
    answer = project.post(
        "completions",
        uri=f"file://{uri}",
        position={"line": 3, "character": 10},
        context={"triggerKind": 2, "triggerCharacter": "."},
    ).json
    assert "bark" in [item["label"] for item in answer["items"]]


def test_d35_stop_ends_the_server_and_its_helpers(with_servers: Callable[[], Daemon]) -> None:
    project = Project(with_servers(), language="typescript")
    project.write("dog.ts", DOG)
    project.start()
    assert project.get("workspacesymbols", query="Dog").json
    assert processes_in(project.path)
    assert project.post("stop").status == 200
    eventually(lambda: not processes_in(project.path))
    project.start()
    assert project.get("workspacesymbols", query="Dog").json, "it can be started again"


def test_a_file_changed_by_other_means_is_seen_in_the_next_answer(with_servers: Callable[[], Daemon]) -> None:
    project = Project(with_servers())
    uri = project.write("a.py", "class Before: ...\n")
    project.start()
    assert project.post("did-open", uri=f"file://{uri}").status == 200
    assert project.symbols(uri) == [("Before", CLASS)]
    project.write("a.py", "class After:\n    x = 1\n")
    assert ("After", CLASS) in project.symbols(uri)


def test_servers_end_with_the_daemon(with_servers: Callable[[], Daemon]) -> None:
    daemon = with_servers()
    python, script = Project(daemon, "p"), Project(daemon, "t", "typescript")
    script.write("dog.ts", DOG)
    python.start()
    script.start()
    daemon.process.terminate()
    daemon.process.wait(timeout=60)
    eventually(lambda: not processes_in(python.path) + processes_in(script.path))

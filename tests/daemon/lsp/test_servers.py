"""Language servers, scripted: their start, what is missing, deaths, and that nothing is left."""

import threading
from pathlib import Path

import pytest

from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.lsp_places import POSITION, Project, install_scripted
from tests.daemon.processes import descriptors, is_alive


def test_d35_starts_at_once_make_one_server_and_stop_ends_it(start_daemon: Starter, tmp_path: Path) -> None:
    places = install_scripted(tmp_path / "bin", "basedpyright-langserver")
    patience = {"sandyard_daemon.lsp.server.STOP_SECONDS": 60}
    project = Project(start_daemon(constants=patience, PATH=f"{places}:/usr/bin:/bin"))
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
    eventually(lambda: project.received("initialized"))  # nobody answers it
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
    thread.join(60)
    assert seen == [400]
    eventually(lambda: not is_alive(project.starts()[0]))


def test_servers_end_with_the_daemon_even_those_that_do_not_listen(project: Project) -> None:
    project.script(shutdown={"silent": True}, helper=True)
    project.start()
    project.daemon.process.terminate()
    project.daemon.process.wait(timeout=60)
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

"""Language servers, metrics and ports through the proxy: Python SDK (both clients), TypeScript, Go, the wire.

Real servers where the sandbox can have them: in the image `sandyard/sandbox:full`, or those of this machine where a
sandbox sees its files. Elsewhere the scripted server stands in, told to answer what the real one would.
"""

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import (  # noqa: E402
    AsyncDaytona,
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaConfig,
    Sandbox,
)
from daytona.common.errors import DaytonaBadRequestError, DaytonaError, DaytonaNotFoundError  # noqa: E402
from daytona.common.lsp_server import LspCompletionPosition  # noqa: E402

from tests.contract.programs import CLIENTS, GO_RELEASES, bundle, go_flow, run_program  # noqa: E402
from tests.contract.python_client import client  # noqa: E402
from tests.contract.running import Instance  # noqa: E402
from tests.contract.toolbox import Toolbox, authorization  # noqa: E402
from tests.contract.wire_client import request  # noqa: E402
from tests.daemon.conftest import eventually  # noqa: E402
from tests.daemon.lsp_places import SCRIPTED, real_servers  # noqa: E402
from tests.daemon.toolbox_schema import check_body  # noqa: E402

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.filterwarnings("ignore"),  # the library's own deprecations and unclosed sockets are not ours
]

FULL_IMAGE = "sandyard/sandbox:full"
GREETER = 'class Greeter:\n    def greet(self, name: str) -> str:\n        return "hi " + name\n\n\nGreeter().gr\n'
DOG = "export class Dog {\n  bark(): string { return 'woof' }\n}\nnew Dog().\n"
CLASS, METHOD = 5, 6
LISTEN = """
import socket
for port in range(3000, 10000):
    try:
        kept = [socket.create_server(("127.0.0.1", port))]
        if socket.has_ipv6:
            kept.append(socket.create_server(("::1", port), family=socket.AF_INET6))
    except OSError as error:
        if error.errno == 98:
            continue
    print(port, flush=True)
    input()
    break
"""
"""Both families where there are two; ends with a line of input."""


def span(line: int, last: int) -> dict[str, Any]:
    return {"start": {"line": line, "character": 0}, "end": {"line": last, "character": 9}}


SCRIPT = {
    "workspace/symbol": {
        "result": [{"name": "Greeter", "kind": CLASS, "location": {"uri": "file:///x.py", "range": span(0, 2)}}]
    },
    "textDocument/documentSymbol": {
        "result": [
            {
                "name": "Greeter",
                "kind": CLASS,
                "range": span(0, 2),
                "selectionRange": span(0, 0),
                "children": [{"name": "greet", "kind": METHOD, "range": span(1, 2), "selectionRange": span(1, 1)}],
            }
        ]
    },
    "textDocument/completion": {"result": [{"label": "greet", "documentation": "text"}]},
}


@pytest.fixture(scope="module")
def daytona(sandyard: Instance) -> Iterator[Daytona]:
    """A client whose event socket ends with it."""
    with client(sandyard, sandyard.api_key) as opened:
        yield opened


@pytest.fixture(scope="module")
def sandbox(sandyard: Instance, daytona: Daytona) -> Iterator[Sandbox]:
    """A sandbox with a Python language server and a small project in its work directory."""
    made = daytona.create(_params(sandyard), timeout=120)
    if _is_scripted(sandyard):
        _install_scripted(made)
    write(made, "project/greeter.py", GREETER)
    yield made
    with contextlib.suppress(DaytonaNotFoundError):
        made.delete()


def _is_scripted(sandyard: Instance) -> bool:
    """A sandbox with namespaces of its own sees nothing of this checkout."""
    return sandyard.combination.runtime == "local" and sandyard.combination.isolation != "none"


def _params(sandyard: Instance) -> CreateSandboxFromImageParams | CreateSandboxFromSnapshotParams:
    if sandyard.combination.runtime == "docker":
        docker = pytest.importorskip("docker")
        with contextlib.closing(docker.from_env()) as engine:
            if not engine.api.images(FULL_IMAGE):
                pytest.skip(f"the image {FULL_IMAGE} is not on this engine: run make images")
        return CreateSandboxFromImageParams(image=FULL_IMAGE)
    if _is_scripted(sandyard):
        return CreateSandboxFromSnapshotParams()
    return CreateSandboxFromSnapshotParams(env_vars={"PATH": f"{real_servers()}:{os.environ['PATH']}"})


def _install_scripted(sandbox: Sandbox) -> None:
    program = "#!/usr/bin/python3\n" + SCRIPTED.read_text()
    for name in ("basedpyright-langserver", "typescript-language-server"):
        write(sandbox, f".local/bin/{name}", program)
        assert sandbox.process.exec(f"chmod +x .local/bin/{name}").exit_code == 0
    write(sandbox, "project/script.json", json.dumps(SCRIPT))


def write(sandbox: Sandbox, path: str, text: str) -> None:
    """A file, without the operations on files."""
    data = base64.b64encode(text.encode()).decode()
    done = sandbox.process.exec(f"mkdir -p $(dirname {path}) && echo {data} | base64 -d > {path}")
    assert done.exit_code == 0, done


def test_a_python_project_has_symbols_and_completions(sandbox: Sandbox) -> None:
    lsp = sandbox.create_lsp_server("python", "project")
    with pytest.raises(DaytonaBadRequestError) as refused:
        lsp.document_symbols("project/greeter.py")
    assert refused.value.error_code == "LSP_SERVER_NOT_INITIALIZED"
    lsp.start()
    lsp.start()
    try:
        assert [symbol.name for symbol in lsp.sandbox_symbols("Greeter")] == ["Greeter"]
        lsp.did_open("project/greeter.py")
        found = [(symbol.name, symbol.kind) for symbol in lsp.document_symbols("project/greeter.py")]
        assert ("Greeter", CLASS) in found
        assert ("greet", METHOD) in found
        offered = lsp.completions("project/greeter.py", LspCompletionPosition(line=5, character=12))
        assert "greet" in [item.label for item in offered.items]
        lsp.did_close("project/greeter.py")
    finally:
        lsp.stop()
    with pytest.raises(DaytonaBadRequestError):
        lsp.stop()


def test_a_typescript_project_is_served(sandyard: Instance, sandbox: Sandbox) -> None:
    if _is_scripted(sandyard):
        pytest.skip("the scripted server knows no TypeScript")
    write(sandbox, "web/dog.ts", DOG)
    lsp = sandbox.create_lsp_server("typescript", "web")
    lsp.start()
    try:
        assert "Dog" in [symbol.name for symbol in lsp.sandbox_symbols("Dog")]
        lsp.did_open("web/dog.ts")
        assert ("Dog", CLASS) in [(symbol.name, symbol.kind) for symbol in lsp.document_symbols("web/dog.ts")]
        offered = lsp.completions("web/dog.ts", LspCompletionPosition(line=3, character=10))
        assert "bark" in [item.label for item in offered.items]
    finally:
        lsp.stop()


async def test_the_asynchronous_client_asks_side_by_side(sandyard: Instance, sandbox: Sandbox) -> None:
    async with AsyncDaytona(DaytonaConfig(api_key=sandyard.api_key, api_url=sandyard.api_url)) as daytona:
        same = await daytona.get(sandbox.id)
        lsp = same.create_lsp_server("python", "project")
        await asyncio.gather(lsp.start(), lsp.start())
        asked = [lsp.document_symbols("project/greeter.py") for _ in range(5)]
        *documents, workspace = await asyncio.gather(*asked, lsp.workspace_symbols("Greeter"))
        assert all("Greeter" in [symbol.name for symbol in found] for found in documents)
        assert [symbol.name for symbol in workspace] == ["Greeter"]
        seen = await same.get_metrics_latest()
        assert 0 <= seen.cpu_used_pct <= 100
        await lsp.stop()


@pytest.mark.parametrize("name", ["@daytonaio/sdk", "@daytona/sdk"])
def test_the_typescript_client_sees_the_same(sandyard: Instance, sandbox: Sandbox, folder: Path, name: str) -> None:
    source = CLIENTS / "typescript" / "toolbox-lsp.ts"
    target = Path("toolbox-lsp-" + name.strip("@").replace("/", "-") + ".mjs")
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", f"--alias:the-sdk={name}")
    program: list[str | Path] = ["node", bundle(source, target, *options)]
    done = run_program(program, sandyard, folder, environment={"SANDBOX_ID": sandbox.id})
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert "no language server for python runs" in saw["early"][2]
    assert saw["workspace"] == [["Greeter", 0]]
    assert ["Greeter", CLASS] in saw["document"]
    assert ["greet", METHOD] in saw["document"]
    assert "greet" in saw["completions"]
    assert 0 <= saw["metrics"]["cpuUsedPct"] <= 100
    assert saw["metrics"]["memTotal"] >= saw["metrics"]["memUsed"] > 0


def test_a_sandbox_without_a_server_says_what_to_install(sandyard: Instance, daytona: Daytona) -> None:
    made = daytona.create(CreateSandboxFromSnapshotParams(env_vars={"PATH": "/usr/bin:/bin"}))
    try:
        with pytest.raises(DaytonaError, match="pip install basedpyright"):
            made.create_lsp_server("python", ".").start()
    finally:
        made.delete()


def test_bodies_are_as_described(sandyard: Instance, sandbox: Sandbox) -> None:
    described = {"id": sandbox.id, "toolboxProxyUrl": sandbox.toolbox_proxy_url}
    toolbox = Toolbox(sandyard, described, authorization(sandyard))
    key = {"languageId": "python", "pathToProject": "project"}
    query = "?languageId=python&pathToProject=project"
    uri = "file://project/greeter.py"
    for operation, more in (
        ("start", {}),
        ("did-open", {"uri": uri}),
        ("completions", {"uri": uri, "position": {"line": 0, "character": 0}}),
        ("did-close", {"uri": uri}),
    ):
        answer = toolbox.call("POST", f"/lsp/{operation}", key | more)
        check_body("post", f"/lsp/{operation}", answer.status, answer.json() if answer.body else None)
        assert answer.status == 200
    for path, more_query in (
        ("/lsp/document-symbols", f"{query}&uri={quote(uri)}"),
        ("/lsp/workspacesymbols", f"{query}&query=Greeter"),
        ("/port", ""),
        ("/system/metrics", ""),
    ):
        answer = toolbox.call("GET", path + more_query)
        check_body("get", path, answer.status, answer.json())
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
    assert toolbox.call("POST", "/lsp/stop", key).status == 200
    refused = toolbox.call("GET", f"/lsp/document-symbols{query}")
    check_body("get", "/lsp/document-symbols", refused.status, refused.json())
    assert (refused.status, refused.json()["source"]) == (400, "DAYTONA_DAEMON")


def test_metrics_follow_the_sandboxes_limits(sandyard: Instance, sandbox: Sandbox) -> None:
    seen = sandbox.get_metrics_latest()
    assert 0 <= seen.cpu_used_pct <= 100
    assert seen.mem_total >= seen.mem_used > 0
    assert seen.disk_total >= seen.disk_used >= 0
    answer = request("GET", f"{sandyard.origin}/_sandyard/capabilities", headers=authorization(sandyard))
    rows = answer.json()["runners"][0]["capabilities"]
    enforced = {name for name, row in rows.items() if row["enforcement"] == "enforced"}
    if "memory" in enforced:
        assert seen.mem_total == sandbox.memory << 30
    if "cpu" in enforced:
        assert seen.cpu_count == sandbox.cpu


def test_a_port_is_in_use_from_listen_to_close(sandyard: Instance, sandbox: Sandbox) -> None:
    described = {"id": sandbox.id, "toolboxProxyUrl": sandbox.toolbox_proxy_url}
    toolbox = Toolbox(sandyard, described, authorization(sandyard))
    write(sandbox, "listen.py", LISTEN)
    toolbox.session("ports")
    command = toolbox.run("ports", "python3 listen.py", wait=False)["cmdId"]
    path = f"/process/session/ports/command/{command}"
    port = int(_eventually_text(toolbox, f"{path}/logs"))
    assert toolbox.call("GET", "/port").json()["ports"].count(port) == 1
    assert toolbox.call("GET", f"/port/{port}/in-use").json() == {"isInUse": True}
    toolbox.call("POST", f"{path}/input", {"data": "go\n"})
    toolbox.run("ports", "true")
    assert port not in toolbox.call("GET", "/port").json()["ports"]
    answer = toolbox.call("GET", f"/port/{port}/in-use")
    check_body("get", "/port/{port}/in-use", answer.status, answer.json())
    assert answer.json() == {"isInUse": False}
    assert toolbox.call("GET", "/port/2999/in-use").status == 400


def _eventually_text(toolbox: Toolbox, path: str) -> str:
    """A log's first line, once it is there."""

    def text() -> str:
        body = toolbox.call("GET", path).body.decode(errors="replace")
        return "".join(letter for letter in body if letter.isdigit()) if "\n" in body else ""

    return str(eventually(text, 60))


@pytest.mark.parametrize("release", GO_RELEASES)
def test_the_go_client_sees_the_same(sandyard: Instance, sandbox: Sandbox, folder: Path, release: str) -> None:
    saw = go_flow(release, "lsp", sandyard, folder, sandbox.id)
    assert "no language server for python runs" in saw["early"][1]
    assert [each["name"] for each in saw["workspace"]] == ["Greeter"]
    found = [(each["name"], each["kind"]) for each in saw["document"]]
    assert ("Greeter", CLASS) in found
    assert ("greet", METHOD) in found
    assert "greet" in [each["label"] for each in saw["completions"]["items"]]
    if not _is_scripted(sandyard):  # that one offers the same anywhere
        assert saw["asDocumented"]["items"] == [], "the SDK swaps line and character"
    assert saw["stoppedAgain"][2] == 400
    assert saw["language"][2] == 400

"""Code-run and the interpreter through real SDKs: Python of several releases, asynchronous, TypeScript, Go."""

import base64
import contextlib
import io
import json
import sys
import sysconfig
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.contract.programs import (
    CLIENTS,
    GO_LACKS,
    GO_RELEASES,
    NEWEST_PYTHON_SDK,
    bundle,
    go_flow,
    python_with_sdk,
    run_program,
)
from tests.contract.running import Instance
from tests.contract.test_browser import find_chromium, in_browser, serve
from tests.contract.toolbox import Toolbox

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]

RELEASES = (NEWEST_PYTHON_SDK, "0.166.0", "0.143.0", "0.103.0", "0.27.1")
PLOTTING = (
    "matplotlib matplotlib.libs mpl_toolkits numpy numpy.libs PIL pillow.libs contourpy cycler kiwisolver "
    "fontTools packaging pyparsing dateutil six.py"
).split()
LIMIT = 10
"""Seconds in which a busy machine starts a Python that prints before the limit ends it."""
PIECE = 9 << 20
"""Bytes of one request's share of an archive."""


@pytest.fixture(scope="session")
def plotter(sandyard: Instance) -> Iterator[Toolbox]:
    """A sandbox whose python3 has matplotlib; its libraries are those of these tests."""
    pytest.importorskip("matplotlib", reason="matplotlib is a development dependency")
    folder = f"/tmp/plotting-{uuid.uuid4().hex[:8]}"  # some of these sandboxes share the machine's own
    box = Toolbox.create(sandyard, body={"env": {"PYTHONPATH": folder, "MPLBACKEND": "Agg"}})
    try:
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        theirs = shell(box, "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()
        if ours != theirs:
            pytest.skip(f"the sandbox has Python {theirs}; the plotting libraries here are for {ours}")
        carry(box, archive(), folder)
        assert "3." in shell(box, "python3 -c 'import matplotlib; print(matplotlib.__version__)'")
        yield box
    finally:
        shell(box, f"rm -rf {folder}")
        box.delete()


def archive() -> bytes:
    """The plotting libraries of this environment."""
    buffer = io.BytesIO()
    home = Path(sysconfig.get_paths()["purelib"])
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name in PLOTTING:
            with contextlib.suppress(FileNotFoundError):
                tar.add(home / name, name, filter=lambda each: None if "/tests" in each.name else each)
    return buffer.getvalue()


def carry(box: Toolbox, data: bytes, folder: str) -> None:
    """Unpack an archive in the sandbox."""
    for start in range(0, len(data), PIECE):
        text = base64.b64encode(data[start : start + PIECE]).decode()
        shell(box, f"base64 -d >>{folder}.tar.gz <<'END'\n{text}\nEND")
    shell(box, f"mkdir -p {folder} && tar -xzf {folder}.tar.gz -C {folder} && rm {folder}.tar.gz")


def shell(box: Toolbox, command: str) -> str:
    """What a command prints. Fails unless it ends with 0."""
    body = box.call("POST", "/process/execute", {"command": command}).json()
    assert body["exitCode"] == 0, body
    return str(body["result"])


@pytest.mark.parametrize("release", RELEASES)
def test_every_python_release_runs_code_and_gets_its_charts(
    sandyard: Instance, plotter: Toolbox, folder: Path, release: str
) -> None:
    program: list[str | Path] = [python_with_sdk(release), CLIENTS / "python" / "code_flow.py", plotter.id]
    done = run_program(program, sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert saw["code"] == [0, "42"]
    assert saw["error"][0] == 1
    assert saw["error"][1].startswith("out\n")
    assert "ValueError: wrong" in saw["error"][1]
    exit_code, printed, charts = saw["plot"]
    assert (exit_code, printed) == (0, ["before", "after"])
    assert charts == [["line", "A line", "iVBORw0K", 1], ["scatter", charts[1][1], "iVBORw0K", 1]]


def test_the_newest_python_sdk_uses_contexts_callbacks_and_limits(sandyard: Instance, shared_toolbox: Toolbox) -> None:
    sdk = pytest.importorskip("daytona")
    from tests.contract.python_client import client  # which needs it, too

    with client(sandyard, sandyard.api_key) as daytona:
        sandbox = daytona.get(shared_toolbox.id)
        interpreter, heard = sandbox.code_interpreter, []
        result = interpreter.run_code(
            "import os, sys\nx = 41\nprint('one')\nprint('two', file=sys.stderr)\nprint(os.environ['NAME'])",
            on_stdout=lambda message: heard.append(message.output),
            envs={"NAME": "three"},
        )
        assert (result.stdout, result.stderr, result.error) == ("one\nthree\n", "two\n", None)
        assert "".join(heard) == "one\nthree\n"
        context = interpreter.create_context(cwd="/tmp")
        assert (context.cwd, context.active, context.language) == ("/tmp", True, "python")
        assert interpreter.run_code("print('x' in globals())", context=context).stdout == "False\n"
        assert [each.id for each in interpreter.list_contexts()] == [context.id]
        interpreter.delete_context(context)
        with pytest.raises(sdk.DaytonaError, match="not found"):
            interpreter.run_code("1", context=context)
        with pytest.raises(sdk.DaytonaNotFoundError):
            interpreter.delete_context(context)
        with pytest.raises(sdk.DaytonaTimeoutError):
            interpreter.run_code("import time; time.sleep(60)", timeout=1)
        assert interpreter.run_code("print(x + 1)").stdout == "42\n"
        with pytest.raises(sdk.DaytonaError, match="exit code 3"):
            interpreter.run_code("import os; os._exit(3)")
        error = interpreter.run_code("print(x)").error
        assert error is not None
        assert (error.name, error.value) == ("NameError", "name 'x' is not defined")
        run = sandbox.process.code_run("import os, sys; print(sys.argv[1:], os.environ['A'])", params(sdk))
        assert (run.exit_code, run.result) == (0, "['a b', '$(x)'] b\n")
        # This SDK hands on its generated client's own error here.
        with pytest.raises(Exception, match="begun"):
            sandbox.process.code_run("import time\nprint('begun')\ntime.sleep(60)", timeout=LIMIT)


def params(sdk: Any) -> Any:
    """Arguments that a shell would break."""
    return sdk.CodeRunParams(argv=["a b", "$(x)"], env={"A": "b"})


def test_the_asynchronous_client_uses_two_contexts_at_once(
    sandyard: Instance, shared_toolbox: Toolbox, folder: Path
) -> None:
    program: list[str | Path] = [
        python_with_sdk(NEWEST_PYTHON_SDK),
        CLIENTS / "python" / "async_code_flow.py",
        shared_toolbox.id,
    ]
    done = run_program(program, sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    for name, context in zip(("apple", "pear"), saw["contexts"], strict=True):
        assert context["stdout"] == "".join(f"{name} {n}\n" for n in range(3))
        assert "".join(context["seen"]["out"]) == context["stdout"]
        assert "".join(context["seen"]["err"]) == "".join(f"{name} err {n}\n" for n in range(3))
        assert (context["seen"]["errors"], context["error"]) == (["ValueError"], ["ValueError", name])
    assert "timed out" in saw["timeout"]
    assert saw["code"] == [0, "42\n"]
    assert saw["left"] == 0


@pytest.fixture(scope="session")
def labelled(sandyard: Instance) -> Iterator[Toolbox]:
    """A sandbox with the label by which the TypeScript SDK knows the language of its code."""
    box = Toolbox.create(sandyard, body={"labels": {"code-toolbox-language": "python"}})
    yield box
    box.delete()


@pytest.mark.parametrize("name", ["@daytonaio/sdk", "@daytona/sdk"])
def test_the_typescript_sdk_runs_code_and_uses_contexts(
    sandyard: Instance, labelled: Toolbox, folder: Path, name: str
) -> None:
    target = Path("code-" + name.strip("@").replace("/", "-") + ".mjs")
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", f"--alias:the-sdk={name}")
    program = bundle(CLIENTS / "typescript" / "code.ts", target, *options)
    done = run_program(["node", program, labelled.id], sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert saw["code"] == [3, "['a b', '$(x)']\n"]
    assert saw["seen"] == [["err", "two\n"], ["error", "ZeroDivisionError"], ["out", "one\n"]]
    assert saw["error"] == ["ZeroDivisionError", "division by zero"]
    assert (saw["apart"], saw["listed"], saw["kept"]) == ("False\n", ["/tmp"], "5\n")
    assert saw["timeout"] == "DaytonaTimeoutError"
    assert "Error" in saw["deleted"]
    assert "Error" in saw["died"]


def test_a_page_of_another_origin_uses_the_interpreter(
    sandyard: Instance, shared_toolbox: Toolbox, folder: Path
) -> None:
    script = bundle(
        CLIENTS / "typescript" / "browser-code.ts",
        Path("browser-code.js"),
        *("--bundle", "--platform=browser", "--format=iife"),
        f"--inject:{CLIENTS / 'typescript' / 'browser-globals.js'}",
    )
    with serve(script.read_bytes()) as (origin, answers):
        asked = urlencode({"url": sandyard.api_url, "key": sandyard.api_key, "id": shared_toolbox.id})
        saw = in_browser(find_chromium(), f"{origin}/?{asked}", answers, folder)
    assert saw == {"seen": "line 0\nline 1\nline 2\n", "error": "ZeroDivisionError"}


@pytest.mark.parametrize("release", GO_RELEASES)
def test_go_uses_contexts_channels_and_limits(sandyard: Instance, folder: Path, release: str) -> None:
    box = Toolbox.create(sandyard)
    try:
        saw = go_flow(release, "code", sandyard, folder, box.id)
    finally:
        box.delete()
    assert saw["run"] == ["one\nthree\n", "two\n", None, {"out": "one\nthree\n", "err": "two\n", "errors": ""}]
    assert saw["error"][:2] == ["before\n", ["ZeroDivisionError", "division by zero", True]]
    assert saw["error"][2]["errors"] == "ZeroDivisionError"
    assert saw["context"] == ["/tmp", True, "python"]
    assert (saw["apart"], saw["kept"], saw["listed"]) == ("False /tmp\n", "5\n", [True])
    assert saw["inDeleted"][0] == "ConnectionError"
    assert "context not found" in saw["inDeleted"][1]
    assert saw["deletedAgain"][0] == "DaytonaNotFoundError"
    printed, error, seconds = saw["timeout"]
    assert (printed, error) == ("begun\n", ["TimeoutError", "Execution timed out", False])
    assert 3 <= seconds < 50, "it would have slept for a minute"
    assert saw["state"] == "42\n", "what was there before the limit is there after it"
    assert "exit code 3" in saw["died"][1]
    assert saw["anew"][:2] == ["NameError", "name 'x' is not defined"]
    assert saw["command"] == [7, "/usr\nout\nerr\n"]
    assert saw["commandTimeout"][0][2] == 408
    assert "begun" in saw["commandTimeout"][0][1]
    if release == "0.148":
        assert saw["commandEnvironment"] == "==\n", "this release takes variables and does not send them"
        for refused in (saw["codeRun"], saw["codeRunTimeout"]):
            assert "CodeRun is not supported by the current toolbox API" in refused[1], "it never asks us"
        return
    assert saw["commandEnvironment"] == "=v=\n"
    assert saw["codeRun"] == [3, "['a b', '$(x)'] b\n", []]
    assert saw["codeRunTimeout"][2] == 408
    assert "begun" in saw["codeRunTimeout"][1]


@pytest.mark.parametrize("release", GO_RELEASES)
def test_go_gets_its_charts(sandyard: Instance, plotter: Toolbox, folder: Path, release: str) -> None:
    saw = go_flow(release, "plot", sandyard, folder, plotter.id)
    drawn = [0, "before\nafter\n", [["line", "A line", 1]]]
    assert saw["charts"] == (GO_LACKS if release == "0.148" else drawn)

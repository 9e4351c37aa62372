"""`POST /process/code-run`: three languages, arguments as they are, exit codes, limits, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.contract.programs import CACHE
from tests.daemon.conftest import Daemon, Starter, cut_off, eventually

OPENAPI = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "toolbox.json"
ESBUILD = CACHE / "typescript" / "node_modules" / ".bin" / "esbuild"
ODD = ["two words", "$(touch injected)", "'quoted'", "-c", "", "ü"]


@pytest.fixture
def daemon(start_daemon: Starter) -> Daemon:
    """A daemon that finds the interpreter itself before any script that looks for one."""
    return start_daemon(PATH=f"{sys.base_prefix}/bin:{os.environ['PATH']}")


def run(daemon: Daemon, code: str, language: str = "python", **fields: Any) -> dict[str, Any]:
    """The body of an answer that must be a success, checked against the description where that is at hand."""
    answer = daemon.post("/process/code-run", {"code": code, "language": language, **fields})
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.json
    if OPENAPI.is_file():
        definitions = json.loads(OPENAPI.read_text())["definitions"]
        jsonschema.validate(body, {"$ref": "#/definitions/CodeRunResponse", "definitions": definitions})
    assert isinstance(body["exitCode"], int)
    assert isinstance(body["result"], str)
    return body


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


def test_both_streams_come_in_order_with_the_exit_code(daemon: Daemon) -> None:
    code = "import sys\nprint(1)\nprint(2, file=sys.stderr)\nprint(3)\nsys.exit(42)"
    assert run(daemon, code) == {"exitCode": 42, "result": "1\n2\n3\n"}


def test_a_traceback_has_the_lines_of_the_code_and_nothing_of_ours(daemon: Daemon) -> None:
    body = run(daemon, "def f():\n    return 1 / 0\n\nf()\n")
    assert body["exitCode"] == 1
    assert body["result"] == (
        "Traceback (most recent call last):\n"
        '  File "<stdin>", line 4, in <module>\n'
        '  File "<stdin>", line 2, in f\n'
        "ZeroDivisionError: division by zero\n"
    )


def test_a_syntax_error_is_shown_with_its_line(daemon: Daemon) -> None:
    body = run(daemon, "x = 1\ny = = 2\n")
    assert body["exitCode"] == 1
    assert body["result"].startswith('  File "<stdin>", line 2\n    y = = 2\n')
    assert body["result"].endswith("SyntaxError: invalid syntax\n")


def test_the_program_is_main_and_sees_no_more_than_a_program_does(daemon: Daemon) -> None:
    code = (
        "import sys\nfrom dataclasses import dataclass\n"
        "print(__name__, sys.argv, sorted(n for n in globals() if not n.startswith('__')))\n"
        "print(sys.stdin.read() == '', sys.path[0] in ('', __import__('os').getcwd()))\n"
    )
    assert run(daemon, code)["result"] == "__main__ ['-'] ['dataclass', 'sys']\nTrue True\n"


def test_a_programs_own_hooks_and_future_imports_work(daemon: Daemon) -> None:
    code = "from __future__ import annotations\nimport sys\nsys.excepthook = lambda *a: print('mine', a[1])\n1 / 0\n"
    assert run(daemon, code) == {"exitCode": 1, "result": "mine division by zero\n"}


def test_modules_and_files_are_found_in_the_work_directory(daemon: Daemon) -> None:
    (daemon.home / "helper.py").write_text("VALUE = 7\n")
    assert run(daemon, "import helper; print(helper.VALUE, open('helper.py').read()[:5])")["result"] == "7 VALUE\n"


def test_environment_variables_are_those_of_one_run(daemon: Daemon) -> None:
    code = "import os; print(os.environ.get('GREETING'))"
    assert run(daemon, code, envs={"GREETING": "two\nlines"})["result"] == "two\nlines\n"
    assert run(daemon, code)["result"] == "None\n"


def test_d19_nothing_can_be_read_from_standard_input(daemon: Daemon) -> None:
    body = run(daemon, "try:\n    input()\nexcept EOFError:\n    print('end')\n# input() saw none of this\n")
    assert body["result"] == "end\n"


def test_d21_arguments_reach_python_as_they_are(daemon: Daemon) -> None:
    body = run(daemon, "import json, sys; print(json.dumps(sys.argv[1:]))", argv=ODD)
    assert json.loads(body["result"]) == ODD
    assert not (daemon.home / "injected").exists()


@needs_node
def test_d21_arguments_reach_javascript_as_they_are(daemon: Daemon) -> None:
    body = run(daemon, "console.log(JSON.stringify(process.argv.slice(1)))", "javascript", argv=ODD)
    assert json.loads(body["result"]) == ODD
    assert not (daemon.home / "injected").exists()


@needs_node
def test_d21_javascript_has_its_own_line_numbers_and_modules_of_the_work_directory(daemon: Daemon) -> None:
    (daemon.home / "helper.js").write_text("module.exports = 7\n")
    body = run(daemon, "'use strict'\nconsole.log(require('./helper'))\nthrow new Error('third')\n", "javascript")
    assert body["exitCode"] == 1
    assert body["result"].startswith("7\n[stdin]:3\n")


def test_d21_typescript_has_its_own_line_numbers_and_modules_of_the_work_directory(daemon: Daemon) -> None:
    if not ESBUILD.is_file() or shutil.which("node") is None:
        pytest.skip("what runs TypeScript comes with the client libraries: run scripts/client-environments")
    tools = daemon.home / "node_modules" / ".bin"
    tools.mkdir(parents=True)
    (tools / "esbuild").symlink_to(ESBUILD.resolve())
    (daemon.home / "helper.js").write_text("exports.seven = 7\n")
    code = (
        "import { seven } from './helper'\nenum Color { Red = seven }\ninterface Named { name: string }\n"
        "const one: Named = { name: 'x' }\nconsole.log(one.name, Color.Red, JSON.stringify(process.argv.slice(1)))\n"
        "throw new Error('sixth')\n"
    )
    body = run(daemon, code, "typescript", argv=ODD)
    first, _, rest = body["result"].partition("\n")
    assert first == f"x 7 {json.dumps(ODD, ensure_ascii=False, separators=(',', ':'))}"
    assert ".ts:6\nthrow new Error('sixth')" in rest
    assert body["exitCode"] == 1
    assert sorted(path.name for path in daemon.home.iterdir()) == [".sandyard", "helper.js", "node_modules"]


NODE_WITHOUT_TYPESCRIPT = """#!/bin/sh
case $1 in --experimental-*) echo ERR_NO_TYPESCRIPT; exit 1;; esac
[ "$1" != -e ] || exec NODE -e "
Object.defineProperty(process, 'allowedNodeEnvironmentFlags', {value: new Set(['--experimental-strip-types'])})
Object.defineProperty(process, 'config', {value: {variables: {node_use_amaro: false}}})
$2"
exec NODE "$@"
"""


COPYING_ESBUILD = """#!/bin/sh
cp "$1" "$1.cjs"
"""


@needs_node
def test_a_node_that_knows_the_flags_and_was_built_without_typescript_is_not_asked_to_run_it(
    start_daemon: Starter, tmp_path: Path
) -> None:
    programs = {"node": NODE_WITHOUT_TYPESCRIPT.replace("NODE", str(shutil.which("node"))), "esbuild": COPYING_ESBUILD}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    daemon = start_daemon(PATH=f"{tmp_path}:/usr/bin:/bin")
    assert run(daemon, "console.log(6 * 7)", "typescript") == {"exitCode": 0, "result": "42\n"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "INVALID_REQUEST_BODY"),
        ({"code": "1"}, "INVALID_REQUEST_BODY"),
        ({"language": "python"}, "INVALID_REQUEST_BODY"),
        ({"code": "", "language": "python"}, "INVALID_REQUEST_BODY"),
        ({"code": 5, "language": "python"}, "INVALID_REQUEST_BODY"),
        ({"code": "1", "language": "bash"}, "BAD_REQUEST"),
        ({"code": "1", "language": "python", "argv": "a b"}, "INVALID_REQUEST_BODY"),
        ({"code": "1", "language": "python", "argv": [1]}, "INVALID_REQUEST_BODY"),
        ({"code": "1", "language": "python", "argv": ["a\0b"]}, "BAD_REQUEST"),
        ({"code": "1", "language": "python", "envs": {"A-B": "c"}}, "INVALID_REQUEST_BODY"),
        ({"code": "1", "language": "python", "envs": {"A": 1}}, "INVALID_REQUEST_BODY"),
        ({"code": "1", "language": "python", "timeout": -1}, "INVALID_REQUEST_BODY"),
        ({"code": "1", "language": "python", "timeout": "1"}, "INVALID_REQUEST_BODY"),
        (b"not json", "INVALID_REQUEST_BODY"),
        (b"", "INVALID_REQUEST_BODY"),
    ],
)
def test_bad_input_is_refused(daemon: Daemon, body: Any, code: str) -> None:
    answer = daemon.post("/process/code-run", body)
    assert (answer.status, answer.json["code"]) == (400, code)
    assert answer.json["source"] == "DAYTONA_DAEMON"


def test_code_that_holds_a_nul_or_half_a_character_is_the_programs_own_error(daemon: Daemon) -> None:
    assert run(daemon, "print('a\0b')")["exitCode"] == 1
    answer = daemon.post("/process/code-run", b'{"code": "print(\'\\ud800\')", "language": "python"}')
    assert answer.status == 400


def test_a_timeout_kills_the_process_group_and_keeps_what_was_printed(daemon: Daemon) -> None:
    code = "import subprocess\nprint('begun')\nsubprocess.run(['sleep', '12321'])"
    asked = {"code": code, "language": "python"}
    answer = cut_off(
        lambda seconds: daemon.post("/process/code-run", {**asked, "timeout": seconds}),
        lambda answer: "begun" in answer.text,
    )
    assert (answer.status, answer.json["code"]) == (408, "PROCESS_EXECUTION_TIMEOUT")
    assert "timeout" in answer.json["message"]
    assert answer.json["details"]["output"] == "begun\n"
    eventually(lambda: not running("sleep 12321"))


def test_execute_kills_the_process_group_at_its_timeout_and_keeps_what_was_printed(daemon: Daemon) -> None:
    answer = cut_off(
        lambda seconds: daemon.execute("echo begun; sleep 12322 & sleep 12322", timeout=seconds),
        lambda answer: "begun" in answer.text,
    )
    assert (answer.status, answer.json["code"]) == (408, "PROCESS_EXECUTION_TIMEOUT")
    assert answer.json["details"]["output"] == "begun\n"
    eventually(lambda: not running("sleep 12322"))


def test_a_program_dies_with_its_client(daemon: Daemon) -> None:
    body = json.dumps({"code": "import os; os.execvp('sleep', ['sleep', '12323'])", "language": "python"})
    connection = daemon.raw_post("/process/code-run", body.encode())
    eventually(lambda: running("sleep 12323"))
    connection.close()
    eventually(lambda: not running("sleep 12323"))


def test_code_may_be_larger_than_an_argument(daemon: Daemon) -> None:
    assert run(daemon, f"x = '{'y' * 3_000_000}'\nprint(len(x))")["result"] == "3000000\n"


def test_endless_output_is_cut_and_said_so(daemon: Daemon) -> None:
    result = run(daemon, "import sys\nfor _ in range(40): sys.stdout.write('x' * (1 << 20))")["result"]
    assert len(result) < 34 << 20
    assert result.endswith("more bytes were not kept]\n")


@pytest.mark.timeout(600)  # a fresh interpreter each
def test_two_hundred_runs_leave_nothing(daemon: Daemon) -> None:
    for _ in range(5):
        run(daemon, "print(1)")
    before, memory = held(daemon), resident_kib(daemon)
    for _ in range(200):
        assert run(daemon, "print(1)")["result"] == "1\n"
    # What the last run before the count held may have been closing still, so that less is as well.
    eventually(lambda: all(now <= then for now, then in zip(held(daemon), before, strict=True)))
    assert resident_kib(daemon) - memory < 3_000
    assert not [path for path in (daemon.home / ".sandyard").rglob("*") if path.is_file() and path.name != "lock"]


def running(command: str) -> bool:
    """Whether a process with this command line lives."""
    return subprocess.run(["pgrep", "-fx", command], capture_output=True, check=False).returncode == 0


def held(daemon: Daemon) -> tuple[int, int]:
    """How many descriptors and children the daemon has."""
    process = Path(f"/proc/{daemon.process.pid}")
    children = (process / "task" / str(daemon.process.pid) / "children").read_text().split()
    return len(os.listdir(process / "fd")), len(children)


def resident_kib(daemon: Daemon) -> int:
    """Resident memory of the daemon's process."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_the_answer_comes_when_the_program_ends_not_its_background_children(daemon: Daemon) -> None:
    assert run(daemon, "import subprocess\nsubprocess.Popen(['sleep', '12324'])\nprint('x')")["result"] == "x\n"
    assert running("sleep 12324")

"""Our own examples, run as their README says, where the packages they need can be had."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.programs import (
    BUILD_SECONDS,
    NEWEST_GO_SDK,
    NEWEST_PYTHON_SDK,
    ROOT,
    Transcript,
    go_with_sdk,
    node_program,
    python_with_sdk,
    run_program,
)
from tests.contract.running import Instance

pytestmark = pytest.mark.sdk

EXAMPLES = ROOT / "examples"
PARTS = ("parser", "planner", "runtime")


def slowed(example: Path, folder: Path) -> Path:
    """A copy whose build takes longer: on a busy machine it may be seconds until somebody follows it."""
    text = example.read_text()
    assert "sleep 1" in text
    made = folder / example.name
    made.write_text(text.replace("sleep 1", "sleep 4"))
    return made


def assert_streamed(done: Transcript, *, warnings: str) -> None:
    """The build's lines as they were written, and how it ended."""
    assert done.exit_code == 0, done
    assert [line for line in done.text.splitlines() if line.startswith("compiling")][:3] == [
        f"compiling {part}" for part in PARTS
    ], done
    assert [line for line in warnings.splitlines() if line.startswith("warning")][:3] == [
        f"warning: {part} has no tests" for part in PARTS
    ], done
    # Written eight seconds apart; lines that came together would be no time apart.
    assert done.when("compiling runtime") - done.when("compiling parser") > 0.5, done
    assert "the build ended with 3" in done.text, done


def assert_retrieved(done: Transcript) -> None:
    """The finished command's three parts, and a log that grew between the looks."""
    assert done.exit_code == 0, done
    assert "exit code 2" in done.text, done
    assert "said: Linux" in done.text, done
    assert re.search(r"complained: .*no-such-place", done.text), done
    first, second = (int(count) for count in re.findall(r"(\d+) ticks so far", done.text))
    assert 1 <= first < second <= 2 * done.seconds + 1, done  # it ticks twice a second


def test_python(sandyard: Instance, folder: Path) -> None:
    python = python_with_sdk(NEWEST_PYTHON_SDK)
    done = run_program([python, slowed(EXAMPLES / "python" / "stream.py", folder)], sandyard, folder)
    assert_streamed(done, warnings=done.errors)
    assert_retrieved(run_program([python, EXAMPLES / "python" / "retrieve.py"], sandyard, folder))


def test_typescript(sandyard: Instance, folder: Path) -> None:
    done = run_program(node_program(slowed(EXAMPLES / "typescript" / "stream.ts", folder)), sandyard, folder)
    assert_streamed(done, warnings=done.errors)
    assert_retrieved(run_program(node_program(EXAMPLES / "typescript" / "retrieve.ts"), sandyard, folder))


def test_shell(sandyard: Instance, folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shutil.copy(EXAMPLES / "shell" / "common.sh", folder)
    done = run_program(["sh", slowed(EXAMPLES / "shell" / "stream.sh", folder)], sandyard, folder)
    assert_streamed(done, warnings=done.text)
    repeated = done.text.split("from byte 10 on:\n")[1]
    assert repeated.startswith("parser"), "byte 10 is the first one of the second word"
    assert_retrieved(run_program(["sh", EXAMPLES / "shell" / "retrieve.sh"], sandyard, folder))


def test_go(sandyard: Instance, folder: Path) -> None:
    module = go_with_sdk(NEWEST_GO_SDK)
    shutil.copytree(EXAMPLES / "go", folder, dirs_exist_ok=True)
    shutil.copy(module / "go.mod", folder)
    shutil.copy(module / "go.sum", folder)
    slowed(EXAMPLES / "go" / "stream" / "main.go", folder / "stream")
    done = run_program(["go", "run", "./stream"], sandyard, folder, seconds=BUILD_SECONDS)
    assert_streamed(done, warnings=done.errors)
    assert_retrieved(run_program(["go", "run", "./retrieve"], sandyard, folder, seconds=BUILD_SECONDS))


@pytest.mark.parametrize("name", ["stream.rb", "retrieve.rb"])
def test_ruby_is_spelled_right(name: str) -> None:
    """The gem is in no registry we can reach; the conversation it has is in test_conversations.py."""
    if shutil.which("ruby") is None:
        pytest.skip("Ruby is not installed")
    done = subprocess.run(["ruby", "-c", EXAMPLES / "ruby" / name], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Syntax OK", done.stderr

"""The seed's ten programs, verbatim where a released package has their spelling, and what their page promises."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.programs import (
    BUILD_SECONDS,
    GO_RELEASES,
    NEWEST_PYTHON_SDK,
    Transcript,
    go_with_sdk,
    node_program,
    python_with_sdk,
    run_program,
    seed_program,
)
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, authorization

pytestmark = pytest.mark.sdk

STREAMING_SECONDS = 4.0
"""Five lines a second apart; a program that prints them at the end prints them together."""
STREAMING_RUNS = 3
"""Who comes late on a machine that stalls is shown together what was written before: one of these comes in time."""
LATE_SECONDS = 30.0
"""What a machine that stalls may take longer; a client that cannot connect to the event socket stays over a minute."""
GO_SEED_RELEASES = ("0.143", *GO_RELEASES)
GO_SPELLINGS = (
    ("0.144", r"(ExecuteSessionCommand\((?:[^()]|\n)*?, (?:true|false))\)", r"\1, false)"),
    ("0.173", r'logContent, ok := logs\["logs"\]\.\(string\); ok', r"logContent := logs.GetOutput(); true"),
)
"""Since which release a call is spelled otherwise than in the seed, which is for 0.143; nothing else is changed."""
RANDOM_LINE = re.compile(r"(All good|Oops, an error) at .*\d{4}")


def assert_streamed(run: Callable[[], Transcript]) -> None:
    """Five steps to stdout and five errors to stderr, each when it was written."""
    for _ in range(STREAMING_RUNS):
        done = run()
        if _spread(done) > STREAMING_SECONDS / 4:
            return
    pytest.fail(f"the lines come together:\n{done}")


def _spread(done: Transcript) -> float:
    """Seconds between the first line and the last of a program that printed all of them."""
    assert done.exit_code == 0, done
    for number in range(1, 6):
        assert re.search(rf"^\[STDOUT\]: +Step {number}$", done.text, re.MULTILINE), done
        assert re.search(rf"^\[STDERR\]: +Error {number}$", done.text, re.MULTILINE), done
    assert done.text.count("Step") == done.text.count("Error") == 5, done
    spread = done.when("Step 5") - done.when("Step 1")
    assert spread < STREAMING_SECONDS + LATE_SECONDS, done
    assert done.when("Continuing execution while logs are streaming...") < done.when("Step 2"), done
    assert done.seconds - done.when("Step 5") < LATE_SECONDS, f"the program went on after the stream's end:\n{done}"
    return spread


def assert_retrieved(done: Transcript) -> None:
    """Both streams of the first command, then what the endless one, a line a second, had written after five seconds."""
    assert done.exit_code == 0, done
    sections = re.split(r"^\[STD(?:OUT|ERR)\]: ", done.text, flags=re.MULTILINE)[1:]
    assert len(sections) == 4, done
    assert [section.strip() for section in sections[:2]] == ["Hello from stdout", "Hello from stderr"], done
    good, oops = (section.strip().splitlines() for section in sections[2:])
    assert all(line.startswith("All good at") for line in good), done
    assert all(line.startswith("Oops, an error at") for line in oops), done
    assert 2 <= len(good) + len(oops) <= done.seconds + 1, done
    assert all(RANDOM_LINE.match(line) for line in good + oops), done


def test_stream_py(sandyard: Instance, folder: Path) -> None:
    program = [python_with_sdk(NEWEST_PYTHON_SDK), seed_program("stream.py")]
    assert_streamed(lambda: run_program(program, sandyard, folder))


def test_retrieve_py(sandyard: Instance, folder: Path) -> None:
    assert_retrieved(run_program([python_with_sdk(NEWEST_PYTHON_SDK), seed_program("retrieve.py")], sandyard, folder))


def test_stream_ts(sandyard: Instance, folder: Path) -> None:
    program = node_program(seed_program("stream.ts"))
    assert_streamed(lambda: run_program(program, sandyard, folder))


def test_retrieve_ts(sandyard: Instance, folder: Path) -> None:
    assert_retrieved(run_program(node_program(seed_program("retrieve.ts")), sandyard, folder))


@pytest.mark.parametrize("release", GO_SEED_RELEASES)
def test_stream_go(sandyard: Instance, folder: Path, release: str) -> None:
    assert_streamed(lambda: _go("stream.go", release, sandyard, folder))


@pytest.mark.parametrize("release", GO_SEED_RELEASES)
def test_retrieve_go(sandyard: Instance, folder: Path, release: str) -> None:
    done = _go("retrieve.go", release, sandyard, folder)
    assert done.exit_code == 0, done
    assert "[STDOUT]: Hello from stdout\n" in done.text, done
    assert "[LOGS]: " in done.text, done
    counted = re.findall(r"Count: (\d)", done.text)
    assert len(counted) >= 2, done
    assert counted == ["1", "2", "3", "4", "5"][: len(counted)], done


def _go(name: str, release: str, sandyard: Instance, folder: Path) -> Transcript:
    module = go_with_sdk(release)
    source = seed_program(name).read_text()
    for since, there, here in GO_SPELLINGS:
        if _number(release) >= _number(since):
            source = re.sub(there, here, source)
    for file in ("go.mod", "go.sum"):
        shutil.copy(module / file, folder)
    (folder / name).write_text(source)
    built = folder / "program"
    build = run_program(["go", "build", "-o", built, name], sandyard, folder, seconds=BUILD_SECONDS)
    assert build.exit_code == 0, build
    return run_program([built], sandyard, folder)


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


@pytest.mark.parametrize("name", ["stream.sh", "retrieve.sh"])
def test_curl_with_real_ids_in_the_braces(sandyard: Instance, shared_toolbox: Toolbox, folder: Path, name: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    box = shared_toolbox
    session = name.replace(".", "-")
    box.session(session)
    ran = box.run(session, "for i in {1..3}; do echo out $i; echo err $i >&2; done")
    line = seed_program(name).read_text().strip()
    line = re.sub(r"https://[^/']+/toolbox", box.sandbox["toolboxProxyUrl"], line)
    line = line.format(sandboxId=box.id, sessionId=session, commandId=ran["cmdId"])
    line = line.replace("curl ", f"curl -sS --fail -H 'Authorization: {authorization(sandyard)['Authorization']}' ", 1)
    done = run_program(["sh", "-c", line], sandyard, folder)
    assert done.exit_code == 0, done
    assert sorted(done.text.splitlines()) == sorted(
        [*(f"out {i}" for i in (1, 2, 3)), *(f"err {i}" for i in (1, 2, 3))]
    )
    assert [one for one in done.text.splitlines() if one.startswith("out")] == ["out 1", "out 2", "out 3"]

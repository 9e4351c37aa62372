"""Plain curl: the two variables and nothing else; logs as text, as JSON, followed, resumed by cursor, as events."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.programs import Transcript, run_program
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, command_path, wait_for_file

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

AUTHORIZED = 'curl -sS -N -H "Authorization: Bearer $DAYTONA_API_KEY" '


@pytest.fixture
def box(shared_toolbox: Toolbox, request: pytest.FixtureRequest) -> Iterator[tuple[Toolbox, str]]:
    """The shared sandbox and a session of this test's own."""
    name = f"curl-{abs(hash(request.node.nodeid))}"
    shared_toolbox.session(name)
    yield shared_toolbox, name
    shared_toolbox.call("DELETE", f"/process/session/{name}")


def curl(sandyard: Instance, folder: Path, arguments: str) -> Transcript:
    """Run by a shell, as typed."""
    return run_program(["bash", "-o", "pipefail", "-c", AUTHORIZED + arguments], sandyard, folder)


def logs_url(box: tuple[Toolbox, str], command_id: str, query: str = "") -> str:
    """Where the log of a command is."""
    return f"'{box[0].base}{command_path(box[1], command_id)}/logs{query}'"


def test_a_whole_life_of_a_sandbox(sandyard: Instance, folder: Path) -> None:
    script = """
    set -e
    C() { curl -sS --fail-with-body -H "Authorization: Bearer $DAYTONA_API_KEY" "$@"; }
    field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
    C -X POST "$DAYTONA_API_URL/sandbox" -d "{}" > made || { cat made >&2; exit 1; }
    id=$(field id < made); toolbox=$(field toolboxProxyUrl < made)/$id
    until [ "$(C "$DAYTONA_API_URL/sandbox/$id" | field state)" = started ]; do sleep 0.2; done
    C -X POST "$toolbox/process/execute" -d '{"command": "echo hello"}' | field result
    C -X DELETE "$DAYTONA_API_URL/sandbox/$id" | field id | grep -q "$id" && echo deleted
    """
    done = run_program(["bash", "-c", script], sandyard, folder)
    assert done.exit_code == 0, done
    assert [line for line in done.text.splitlines() if line] == ["hello", "deleted"], done


def test_logs_are_text_without_markers(sandyard: Instance, folder: Path, box: tuple[Toolbox, str]) -> None:
    ran = box[0].run(box[1], "echo out; echo err >&2")
    done = curl(sandyard, folder, logs_url(box, ran["cmdId"]))
    assert sorted(done.text.splitlines()) == ["err", "out"]


def test_logs_are_json_for_who_asks(sandyard: Instance, folder: Path, box: tuple[Toolbox, str]) -> None:
    ran = box[0].run(box[1], "echo out; echo err >&2")
    done = curl(sandyard, folder, f"-H 'Accept: application/json' {logs_url(box, ran['cmdId'])} | python3 -m json.tool")
    assert '"stdout": "out\\n"' in done.text
    assert '"stderr": "err\\n"' in done.text


def test_following_shows_lines_as_they_are_written_and_ends_with_the_command(
    sandyard: Instance, folder: Path, box: tuple[Toolbox, str]
) -> None:
    seen = f"~/{box[1]}"
    rest = 'for i in {2..4}; do echo "Step $i"; echo "Error $i" >&2; done'
    ran = box[0].run(box[1], f'echo "Step 1"; echo "Error 1" >&2; {wait_for_file(seen)} && {rest}', wait=False)
    tell = f"{AUTHORIZED} '{box[0].base}/process/execute' -d '{{\"command\": \"touch {seen}\"}}' >/dev/null"
    followed = logs_url(box, ran["cmdId"], "?follow=true")
    done = curl(sandyard, folder, f'{followed} | {{ read -r first; echo "$first"; {tell}; cat; }}')
    assert done.exit_code == 0, done
    assert sorted(done.text.splitlines()) == sorted(f"{kind} {i}" for kind in ("Step", "Error") for i in range(1, 5))
    assert box[0].exit_code(box[1], ran["cmdId"]) == 0, "its first lines were not seen while it waited for that"


def test_a_cursor_resumes_at_any_byte(sandyard: Instance, folder: Path, box: tuple[Toolbox, str]) -> None:
    ran = box[0].run(box[1], "printf 0123456789")
    for cursor in (0, 4, 9, 10):
        done = curl(sandyard, folder, logs_url(box, ran["cmdId"], f"?follow=true&cursor={cursor}"))
        assert done.text == "0123456789"[cursor:], done


def test_server_sent_events_resume_by_their_id(sandyard: Instance, folder: Path, box: tuple[Toolbox, str]) -> None:
    ran = box[0].run(box[1], "echo one; echo two >&2; echo three")
    url = logs_url(box, ran["cmdId"], "?follow=true")
    whole = curl(sandyard, folder, f"-H 'Accept: text/event-stream' {url}")
    assert whole.exit_code == 0, whole
    events = [line for line in whole.text.splitlines() if line.startswith("data:")]
    assert events, whole
    identifiers = [line.removeprefix("id:").strip() for line in whole.text.splitlines() if line.startswith("id:")]
    assert identifiers, whole
    rest = curl(sandyard, folder, f"-H 'Accept: text/event-stream' -H 'Last-Event-ID: {identifiers[0]}' {url}")
    assert len([line for line in rest.text.splitlines() if line.startswith("data:")]) < len(events) or len(events) == 1


def test_an_error_says_what_and_where(sandyard: Instance, folder: Path) -> None:
    done = curl(sandyard, folder, '-w "\\n%{http_code}\\n" "$DAYTONA_API_URL/sandbox/nothing?x=y"')
    assert '"statusCode":404' in done.text.replace(" ", ""), done
    assert done.text.splitlines()[-1] == "404"

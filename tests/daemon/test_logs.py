"""Logs over HTTP: each SDK's form, pages, frames, and exact offsets while they grow."""

import base64
import os

import pytest

from sandyard_daemon.wire import EXIT_CODE, Stream
from tests.daemon.conftest import Daemon, eventually

COMMAND = "echo out; echo err >&2; exit_with() { return 3; }; exit_with"


def answers(daemon: Daemon, **headers: str) -> tuple[dict[str, object], str, bytes]:
    """The exec answer without its id, then content type and body of the log."""
    execution = daemon.run(COMMAND, **headers)
    logs = daemon.get(f"/process/session/s/command/{execution.pop('cmdId')}/logs", **headers)
    return execution, logs.headers["Content-Type"].partition(";")[0], logs.body


@pytest.mark.parametrize("version", ["0.167.0", "0.226.0", "0.0.0-dev"])
def test_current_sdks_get_json_without_markers(daemon: Daemon, version: str) -> None:
    daemon.session()
    execution, kind, _ = answers(daemon, X_Daytona_SDK_Version=version)
    assert execution == {"exitCode": 3, "output": "out\nerr\n", "stdout": "out\n", "stderr": "err\n"}
    assert kind == "application/json"


@pytest.mark.parametrize("version", ["0.27.0", "0.103.0", "0.166.9", "mystery"])
def test_middle_sdks_get_text_with_markers_to_split(daemon: Daemon, version: str) -> None:
    daemon.session()
    marked = "\1\1\1out\n\2\2\2err\n"
    expected = ({"exitCode": 3, "output": marked}, "text/plain", marked.encode())
    assert answers(daemon, X_Daytona_SDK_Version=version) == expected


def test_the_oldest_sdks_get_plain_text(daemon: Daemon) -> None:
    daemon.session()
    expected = ({"exitCode": 3, "output": "out\nerr\n"}, "text/plain", b"out\nerr\n")
    assert answers(daemon, X_Daytona_SDK_Version="0.26.0") == expected


def test_curl_gets_plain_text_or_what_it_asks_for(daemon: Daemon) -> None:
    daemon.session()
    execution, kind, body = answers(daemon)
    assert execution == {"exitCode": 3, "output": "out\nerr\n", "stdout": "out\n", "stderr": "err\n"}
    assert (kind, body) == ("text/plain", b"out\nerr\n")
    assert answers(daemon, Accept="application/json")[1] == "application/json"
    assert answers(daemon, X_Daytona_Split_Output="true")[2] == b"\1\1\1out\n\2\2\2err\n"


def test_an_old_go_client_gets_exactly_the_keys_it_knows(daemon: Daemon) -> None:
    daemon.session()
    go = {"X_Daytona_SDK_Version": "v0.143.0", "X_Daytona_Source": "sdk-go"}
    marked = "\1\1\1out\n\2\2\2err\n"
    assert answers(daemon, **go)[0] == {"exitCode": 3, "output": marked, "stdout": "out\n", "stderr": "err\n"}
    error = daemon.post("/process/session/none/exec", {"command": "x"}, **go)
    assert error.json.keys() == {"statusCode", "message", "code", "timestamp", "path", "method"}


def test_both_spellings_of_async_are_understood(daemon: Daemon) -> None:
    daemon.session()
    for body in ({"runAsync": True}, {"async": True}, {"async": True, "runAsync": False}, {"RUNASYNC": True}):
        answer = daemon.post("/process/session/s/exec", {"command": "echo x", **body})
        assert (answer.status, answer.json.keys()) == (202, {"cmdId"})
    assert daemon.post("/process/session/s/exec", {"command": "echo x", "async": None}).status == 200
    assert daemon.post("/process/session/s/exec", {"command": "echo x", "async": "yes"}).status == 400


def test_pages_resume_exactly_where_the_last_one_ended(daemon: Daemon) -> None:
    daemon.session()
    # Each piece is in the log before the next is written: of two streams that are ready at once nobody knows the order.
    command = daemon.start(
        "printf 'äöü'; read go; printf 'first\\n' >&2; read go; printf '€uro'", suppressInputEcho=True
    )
    path = f"/process/session/s/command/{command}/logs"
    for size in (6, 12):
        eventually(lambda size=size: daemon.get(f"/_daemon/logs/s/{command}?head").json["size"] == size)  # type: ignore[misc]
        assert daemon.post(f"/process/session/s/command/{command}/input", {"data": "go"}).status == 204
    assert daemon.finish(command) == 0
    whole = daemon.get(f"{path}?cursor=0").json
    assert [(frame["cursor"], frame["channel"], frame["data"]) for frame in whole["frames"]] == [
        (0, "stdout", "äöü"),
        (6, "stderr", "first\n"),
        (12, "stdout", "€uro"),
    ]
    assert (whole["nextCursor"], whole["truncatedHead"], whole["firstAvailableCursor"]) == (18, False, 0)
    text, data, cursor = "", b"", 0
    while cursor < 18:
        page = daemon.get(f"{path}?cursor={cursor}&limit=4").json
        text += "".join(frame["data"] for frame in page["frames"])
        assert page["nextCursor"] > cursor
        cursor = page["nextCursor"]
    assert text == "äöüfirst\n€uro"
    for cursor in range(0, 18, 5):
        page = daemon.get(f"{path}?cursor={cursor}&limit=5&encoding=base64").json
        data += b"".join(base64.b64decode(frame["data"]) for frame in page["frames"])
    assert data == daemon.log(command)
    assert daemon.get(f"{path}?cursor=99").json["frames"] == []


@pytest.mark.parametrize("query", ["cursor=-1", "cursor=x", "limit=0", "limit=99999999999", "encoding=latin-1"])
def test_a_page_that_cannot_be_is_refused(daemon: Daemon, query: str) -> None:
    daemon.session()
    command = daemon.run("echo x")["cmdId"]
    assert daemon.get(f"/process/session/s/command/{command}/logs?{query}").status == 400


def test_frames_begin_at_any_offset(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.run("for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done")["cmdId"]
    whole = daemon.log(command)
    for cursor in range(len(whole) + 1):
        (*data, end) = daemon.follow(command, cursor=cursor).rest()
        assert b"".join(frame.payload for frame in data) == whole[cursor:]
        assert end.stream is Stream.END
    part = daemon.frames(command, query="?cursor=3&limit=7")
    assert b"".join(frame.payload for frame in part) == whole[3:10]


def test_followers_at_once_see_the_same_while_the_log_grows(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("read line; for i in $(seq 20000); do echo $i; echo $i >&2; done")
    followers = [daemon.follow(command) for _ in range(5)]
    daemon.post(f"/process/session/s/command/{command}/input", {"data": "go"})
    seen = []
    for follower in followers:
        (*data, end) = follower.rest()
        assert end.stream is Stream.END
        seen.append(b"".join(frame.payload for frame in data))
    assert set(seen) == {daemon.log(command)}


def test_a_late_follower_gets_what_came_after_the_end_too(daemon: Daemon) -> None:
    daemon.session()
    os.mkfifo(daemon.home / "gate")
    command = daemon.run("(read line < gate; echo late) & echo now")["cmdId"]
    (daemon.home / "gate").write_text("go\n")
    eventually(lambda: daemon.get(f"/_daemon/logs/s/{command}?head").json["size"] == 9)
    (*data, end) = daemon.follow(command).rest()
    assert b"".join(frame.payload for frame in data) == b"now\nlate\n"
    assert (end.stream, end.offset) == (Stream.END, 4)


def test_the_head_tells_size_end_and_exit_code(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("echo x; read line", suppressInputEcho=True)
    head = daemon.get(f"/_daemon/logs/s/{command}?head").json
    assert (head["end"], head["exit_code"]) == (None, None)
    daemon.post(f"/process/session/s/command/{command}/input", {"data": "x"})
    daemon.finish(command)
    assert daemon.get(f"/_daemon/logs/s/{command}?head").json == {"size": 2, "end": 2, "exit_code": 0, "dropped": 0}


def test_a_deleted_session_ends_its_followers_with_all_that_was_written(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("head -c 20000000 /dev/zero; echo x >&2; sleep 100")
    eventually(lambda: daemon.get(f"/_daemon/logs/s/{command}?head").json["size"] == 20_000_002)
    follower = daemon.follow(command)
    assert daemon.ask("DELETE", "/process/session/s").status == 204
    (*data, end) = follower.rest()
    assert sum(len(frame.payload) for frame in data) == 20_000_002
    assert (end.stream, end.offset, EXIT_CODE.unpack(end.payload)) == (Stream.END, 20_000_002, (143,))
    assert daemon.get(f"/_daemon/logs/s/{command}?head").status == 404

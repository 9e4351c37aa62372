"""The newest Python SDK, used as users use it: resources by name and label, state, sessions, every error class."""

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import (  # noqa: E402
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    Daytona,
    ListSandboxesQuery,
    Sandbox,
    SessionExecuteRequest,
)
from daytona.common.errors import (  # noqa: E402
    DaytonaAuthenticationError,
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaNotFoundError,
)

from tests.contract.python_client import client, told_reason  # noqa: E402
from tests.contract.running import Instance  # noqa: E402
from tests.contract.wire_client import request  # noqa: E402

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.filterwarnings("ignore"),  # the library's own deprecations and unclosed sockets are not ours
]


@pytest.fixture
def daytona(sandyard: Instance) -> Iterator[Daytona]:
    """A client configured as by the two variables."""
    with client(sandyard, sandyard.api_key) as opened:
        yield opened


@pytest.fixture
def sandbox(daytona: Daytona) -> Iterator[Sandbox]:
    """A sandbox of this test's own."""
    made = daytona.create()
    yield made
    with contextlib.suppress(DaytonaNotFoundError):  # the test may have deleted it
        daytona.delete(made)


def test_create_start_stop_and_delete_move_the_state_that_get_shows(daytona: Daytona, sandbox: Sandbox) -> None:
    assert sandbox.state == "started"
    assert daytona.get(sandbox.id).state == "started"
    sandbox.stop()
    assert daytona.get(sandbox.id).state == "stopped"
    sandbox.start()
    assert daytona.get(sandbox.id).state == "started"
    sandbox.delete(wait=True)
    assert sandbox.id not in [one.id for one in daytona.list()]
    assert daytona.get(sandbox.id).state == "destroyed", "a destroyed record stays readable by id"


def test_a_sandbox_is_found_by_its_name_and_the_name_is_taken(daytona: Daytona) -> None:
    name = f"box-{uuid.uuid4().hex[:8]}"
    sandbox = daytona.create(CreateSandboxFromSnapshotParams(name=name))
    try:
        assert daytona.get(name).id == sandbox.id
        with pytest.raises(DaytonaConflictError):
            daytona.create(CreateSandboxFromSnapshotParams(name=name))
    finally:
        sandbox.delete(wait=True)
    again = daytona.create(CreateSandboxFromSnapshotParams(name=name))
    assert again.id != sandbox.id, "a name is free again after the delete"
    again.delete()


def test_labels_select_and_can_be_replaced(daytona: Daytona, sandbox: Sandbox) -> None:
    mark = uuid.uuid4().hex
    sandbox.set_labels({"mark": mark, "kind": "a"})
    assert [one.id for one in daytona.list(ListSandboxesQuery(labels={"mark": mark}))] == [sandbox.id]
    assert [one.id for one in daytona.list(ListSandboxesQuery(labels={"mark": mark, "kind": "b"}))] == []
    sandbox.set_labels({"kind": "c"})
    assert [one.id for one in daytona.list(ListSandboxesQuery(labels={"mark": mark}))] == []


def test_iteration_goes_over_all_pages(daytona: Daytona) -> None:
    mark = uuid.uuid4().hex
    made = [daytona.create(CreateSandboxFromSnapshotParams(labels={"mark": mark})) for _ in range(3)]
    try:
        listed = [one.id for one in daytona.list(ListSandboxesQuery(labels={"mark": mark}, limit=1))]
        assert sorted(listed) == sorted(one.id for one in made)
    finally:
        for one in made:
            one.delete()


def test_intervals_come_back_as_they_were_set(daytona: Daytona, sandbox: Sandbox) -> None:
    sandbox.set_autostop_interval(7)
    sandbox.set_auto_archive_interval(30)
    sandbox.set_auto_delete_interval(90)
    again = daytona.get(sandbox.id)
    assert (again.auto_stop_interval, again.auto_archive_interval, again.auto_delete_interval) == (7, 30, 90)
    sandbox.set_auto_delete_interval(-1)
    assert daytona.get(sandbox.id).auto_delete_interval == -1


def test_environment_reaches_every_kind_of_process(daytona: Daytona) -> None:
    sandbox = daytona.create(CreateSandboxFromSnapshotParams(env_vars={"COLOUR": "très bleu", "LINES2": "a\nb"}))
    try:
        assert sandbox.process.exec('echo "$COLOUR"').result == "très bleu\n"
        assert sandbox.process.exec('echo "$LINES2"').result == "a\nb\n"
        sandbox.process.create_session("env")
        done = sandbox.process.execute_session_command("env", SessionExecuteRequest(command='echo "$COLOUR"'))
        assert done.stdout == "très bleu\n"
        assert sandbox.process.exec("echo $DAYTONA_SANDBOX_ID").result.strip() == sandbox.id
    finally:
        sandbox.delete()


def test_commands_queue_in_their_session_and_input_reaches_them(sandbox: Sandbox) -> None:
    process = sandbox.process
    process.create_session("queue")
    ask = process.execute_session_command("queue", SessionExecuteRequest(command="read A; echo got $A", run_async=True))
    second = process.execute_session_command("queue", SessionExecuteRequest(command="echo second", run_async=True))
    assert process.get_session_command("queue", ask.cmd_id).exit_code is None
    process.send_session_command_input("queue", ask.cmd_id, "something\n")
    done = process.execute_session_command("queue", SessionExecuteRequest(command="echo third"))
    assert done.stdout == "third\n"
    logs = process.get_session_command_logs("queue", ask.cmd_id)
    assert logs.stdout is not None
    assert "got something\n" in logs.stdout
    assert process.get_session_command_logs("queue", second.cmd_id).stdout == "second\n"
    codes = {command.command: command.exit_code for command in process.get_session("queue").commands}
    assert codes == {"read A; echo got $A": 0, "echo second": 0, "echo third": 0}


def test_the_entrypoint_session_always_exists(sandbox: Sandbox) -> None:
    assert sandbox.process.get_entrypoint_session().session_id
    assert sandbox.process.get_entrypoint_logs() is not None


def test_a_state_change_made_elsewhere_reaches_a_waiting_client_as_an_event(daytona: Daytona, sandbox: Sandbox) -> None:
    """With polling only, the wait could be a second longer than the stop itself."""
    other, ended = daytona.get(sandbox.id), list[float]()

    def stop() -> None:
        other.stop()
        ended.append(time.monotonic())

    thread = threading.Thread(target=stop)
    thread.start()
    sandbox.wait_for_sandbox_stop(timeout=60)
    seen = time.monotonic()
    thread.join(60)
    assert sandbox.state == "stopped"
    assert seen - ended[0] < 15


def test_unknown_things_are_not_found(daytona: Daytona, sandbox: Sandbox) -> None:
    process = sandbox.process
    with pytest.raises(DaytonaNotFoundError, match="no-such-sandbox"):
        daytona.get("no-such-sandbox")
    with pytest.raises(DaytonaNotFoundError):
        process.get_session("nowhere")
    process.create_session("here")
    with pytest.raises(DaytonaNotFoundError):
        process.get_session_command("here", "nothing")
    with pytest.raises(DaytonaNotFoundError):
        process.execute_session_command("nowhere", SessionExecuteRequest(command="true"))
    with pytest.raises(DaytonaNotFoundError):
        process.delete_session("nowhere")


def test_a_signed_preview_opens_a_port_by_itself_until_it_is_expired(sandyard: Instance, sandbox: Sandbox) -> None:
    sandbox.process.create_session("web")
    port = random.randrange(20_000, 30_000)  # noqa: S311  plain processes share this machine's ports
    server = f"mkdir -p web && echo hello >web/x && python3 -m http.server -d web -b 127.0.0.1 {port}"
    sandbox.process.execute_session_command("web", SessionExecuteRequest(command=server, run_async=True))
    ready = (
        f"until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' 2>&-; do sleep .1; done"
    )
    assert sandbox.process.exec(ready, timeout=60).exit_code == 0
    signed = sandbox.create_signed_preview_url(port, expires_in_seconds=600)
    at_preview = {"Host": urlsplit(signed.url).netloc}  # the name resolves wherever *.localhost does
    page = request("GET", f"{sandyard.origin}/x", headers=at_preview)
    assert (page.status, page.body) == (200, b"hello\n")
    sandbox.expire_signed_preview_url(port, signed.token)
    assert request("GET", f"{sandyard.origin}/x", headers=at_preview).status == 401


def test_a_second_session_of_the_same_name_is_a_conflict(sandbox: Sandbox) -> None:
    sandbox.process.create_session("twice")
    with pytest.raises(DaytonaConflictError):
        sandbox.process.create_session("twice")


def test_a_wrong_key_is_an_authentication_error_everywhere(sandyard: Instance, sandbox: Sandbox) -> None:
    with client(sandyard, "dtn_not_the_key") as stranger:
        with pytest.raises(DaytonaAuthenticationError):
            stranger.get(sandbox.id)
        with pytest.raises(DaytonaAuthenticationError):
            stranger.create()


def test_an_unknown_snapshot_is_a_bad_request_that_names_it(daytona: Daytona) -> None:
    with pytest.raises(DaytonaBadRequestError, match="no-such-snapshot"):
        daytona.create(CreateSandboxFromSnapshotParams(snapshot="no-such-snapshot"))


def test_an_ended_session_refuses_commands_as_gone(sandbox: Sandbox) -> None:
    sandbox.process.create_session("ends")
    sandbox.process.execute_session_command("ends", SessionExecuteRequest(command="exit 3"))
    with pytest.raises(DaytonaError) as refused:
        sandbox.process.execute_session_command("ends", SessionExecuteRequest(command="true"))
    assert refused.value.status_code == 410


def test_stop_of_a_stopped_sandbox_is_refused_and_start_of_a_started_one_is_not(sandbox: Sandbox) -> None:
    sandbox.start()
    sandbox.stop()
    with pytest.raises(DaytonaBadRequestError):
        sandbox.stop()


def test_exec_ends_at_its_timeout(sandbox: Sandbox) -> None:
    with pytest.raises(DaytonaError) as refused:
        sandbox.process.exec("sleep 30", timeout=1)
    assert refused.value.status_code == 408
    assert "timeout" in str(refused.value).lower()


def test_an_image_by_name_becomes_a_sandbox_or_is_refused_with_the_reason(daytona: Daytona, sandyard: Instance) -> None:
    mark = uuid.uuid4().hex
    params = CreateSandboxFromImageParams(image="busybox:latest", labels={"mark": mark})
    if sandyard.combination.runtime != "docker":
        with pytest.raises(DaytonaError, match="BUILD_FAILED"):
            daytona.create(params)
        assert "busybox:latest" in told_reason(daytona, mark)
        return
    docker = pytest.importorskip("docker")
    engine = docker.from_env()
    try:
        if not engine.api.images("busybox:latest"):
            pytest.skip("the image busybox:latest is not on this engine")
    finally:
        engine.close()
    seen: list[str] = []
    sandbox = daytona.create(params, timeout=120, on_snapshot_create_logs=seen.append)
    try:
        assert seen, "a build shows at least one line"
        assert sandbox.process.exec("echo $((6 * 7))").result == "42\n"
    finally:
        sandbox.delete()


def test_a_preview_link_leads_to_a_server_inside(sandbox: Sandbox) -> None:
    link = sandbox.get_preview_link(8123)
    assert link.token
    assert f"8123-{sandbox.id}" in link.url

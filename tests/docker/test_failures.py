"""Whatever docker-py raises becomes one of ours, with what was tried in its text."""

import os
import socket
from pathlib import Path

import docker.errors
import pytest
import requests

from sandyard_runner.runtime.docker.engine import open_client
from sandyard_runner.runtime.docker.failures import TABLE, Conflict, EngineUnreachable, Missing, translate


def answer(status: int) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.reason = "whatever"
    return response


def test_no_exception_of_docker_py_is_missing_from_the_table() -> None:
    raised = {
        kind
        for name in dir(docker.errors)
        if isinstance(kind := getattr(docker.errors, name), type) and issubclass(kind, docker.errors.DockerException)
    }
    assert raised - set(TABLE) == set()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (docker.errors.APIError("no", answer(404), "No such container: x"), Missing),
        (docker.errors.NotFound("no", answer(404), "No such image: x"), Missing),
        (docker.errors.APIError("no", answer(409), "name in use"), Conflict),
        (docker.errors.DockerException("connection aborted"), EngineUnreachable),
        (requests.exceptions.ReadTimeout("slow"), EngineUnreachable),
    ],
)
def test_the_kind_follows_the_status_then_the_class(error: Exception, expected: type[Exception]) -> None:
    assert type(translate(error, "do it")) is expected


def test_the_engines_own_words_reach_the_user() -> None:
    failure = translate(
        docker.errors.APIError("400 ...", answer(400), "unable to find user bob"), "start the container"
    )
    assert failure.message == "cannot start the container: unable to find user bob"
    assert not failure.recoverable


def test_only_an_engine_that_is_away_is_worth_repeating() -> None:
    assert translate(docker.errors.DockerException("refused"), "list").recoverable


@pytest.mark.parametrize("left_behind", [False, True], ids=["nothing is there", "what listened there is gone"])
def test_an_engine_that_is_away_is_named_and_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left_behind: bool
) -> None:
    place = tmp_path / "engine.sock"
    if left_behind:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(EngineUnreachable, match=str(place)) as caught:
        open_client()
    assert set(os.listdir("/proc/self/fd")) <= before, "what the exception holds is not for the collector to close"
    assert caught.value.recoverable
